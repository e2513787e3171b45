/* For inclusion by files that are compiled for AMX. */
#ifndef FKM_AMX_TILES_TMPL_H
#define FKM_AMX_TILES_TMPL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* Eight tiles of 16 rows of 64 bytes. */
static void configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_per_row[16];
        uint8_t rows[16];
    } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) {
        c.bytes_per_row[i] = 64;
        c.rows[i] = 16;
    }
    _tile_loadconfig(&c);
}

#endif
