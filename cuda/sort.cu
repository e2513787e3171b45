/* CUB's radix sort, in a file of its own because it takes long to compile. */
#include "pack.cuh"

#include <cub/cub.cuh>

cudaError_t fkm_sort_bytes(size_t *bytes, int64_t count)
{
    *bytes = 0;
    return cub::DeviceRadixSort::SortPairs(nullptr, *bytes, (const uint32_t *)nullptr,
        (uint32_t *)nullptr, (const int32_t *)nullptr, (int32_t *)nullptr, (int)count, 0, 32);
}

cudaError_t fkm_sort(void *scratch, size_t scratch_bytes, uint32_t *key_out, const uint32_t *key_in,
    int32_t *value_out, const int32_t *value_in, int64_t count, int bits, cudaStream_t stream)
{
    return cub::DeviceRadixSort::SortPairs(
        scratch, scratch_bytes, key_in, key_out, value_in, value_out, (int)count, 0, bits, stream);
}
