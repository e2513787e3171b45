/* CRC32C (Castagnoli), as in iSCSI, ext4 and stats.json. */
#ifndef FKM_CRC32C_H
#define FKM_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues crc over len bytes; start with 0. Any thread. */
uint32_t fkm_crc32c(uint32_t crc, const void *data, size_t len);

#endif
