/* Deterministic data of any size, quickly: a mixture of clusters with uniform noise.
 *
 * usage: gen FILE ROWS DIMS [TYPE [SEED]]     TYPE: f32 (fbin layout) or u8 (u8bin layout)
 *
 * Row i depends on SEED and i alone. Cluster centres are in [-8, 8), noise in [-1, 1), in steps of
 * 2^-20; u8 is the same, scaled to 0..255. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTERS 64
#define BLOCK_BYTES (4 << 20)

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float *make_centers(int64_t dims, uint64_t seed)
{
    float *c = malloc((size_t)(CLUSTERS * dims) * sizeof *c);
    if (!c)
        return NULL;
    for (int64_t i = 0; i < CLUSTERS * dims; i++)
        c[i] = (float)(int64_t)(mix(seed ^ (uint64_t)i << 20) >> 40) * 0x1p-20f - 8;
    return c;
}

static void make_row(float *x, int64_t dims, const float *centers, uint64_t seed, int64_t row)
{
    uint64_t state = mix(seed + (uint64_t)row);
    const float *center = centers + (int64_t)(state % CLUSTERS) * dims;
    for (int64_t t = 0; t < dims; t++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[t] = center[t] + (float)((int32_t)(state >> 43) - (1 << 20)) * 0x1p-20f;
    }
}

static void to_u8(unsigned char *out, const float *x, int64_t dims)
{
    for (int64_t t = 0; t < dims; t++) {
        float v = (x[t] + 9) * (255.0f / 18);
        out[t] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

static int write_rows(FILE *f, int64_t rows, int64_t dims, int bytes_per_value, uint64_t seed)
{
    int64_t row_bytes = dims * bytes_per_value;
    int64_t block_rows = BLOCK_BYTES / row_bytes + 1;
    float *centers = make_centers(dims, seed), *x = malloc((size_t)dims * sizeof *x);
    unsigned char *block = malloc((size_t)(block_rows * row_bytes));
    int ok = centers && x && block;
    for (int64_t done = 0; ok && done < rows;) {
        int64_t count = rows - done < block_rows ? rows - done : block_rows;
        for (int64_t i = 0; i < count; i++) {
            make_row(x, dims, centers, seed, done + i);
            if (bytes_per_value == 1)
                to_u8(block + i * row_bytes, x, dims);
            else
                memcpy(block + i * row_bytes, x, (size_t)row_bytes);
        }
        ok = fwrite(block, (size_t)row_bytes, (size_t)count, f) == (size_t)count;
        done += count;
    }
    free(centers);
    free(x);
    free(block);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 6) {
        fprintf(stderr, "usage: gen FILE ROWS DIMS [f32|u8 [SEED]]\n");
        return 2;
    }
    long long rows = atoll(argv[2]), dims = atoll(argv[3]);
    const char *type = argc > 4 ? argv[4] : "f32";
    uint64_t seed = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    if (rows < 1 || rows > UINT32_MAX || dims < 1 || dims > 1 << 20 ||
        (strcmp(type, "f32") != 0 && strcmp(type, "u8") != 0)) {
        fprintf(stderr, "gen: bad rows, dims or type\n");
        return 2;
    }
    FILE *f = fopen(argv[1], "wb");
    uint32_t head[2] = {(uint32_t)rows, (uint32_t)dims};
    int ok = f && fwrite(head, sizeof head, 1, f) == 1 &&
             write_rows(f, rows, dims, strcmp(type, "u8") ? 4 : 1, seed);
    if (f && fclose(f) != 0)
        ok = 0;
    if (!ok)
        fprintf(stderr, "gen: %s: %s\n", argv[1], strerror(errno));
    return !ok;
}
