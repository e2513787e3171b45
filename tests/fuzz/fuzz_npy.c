/* npy headers and data, in C and Fortran order, with and without --dtype. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    fkm_file *f = fuzz_file(data, size, &fd);
    fuzz_probe(data, size);
    fuzz_open(&fkm_format_npy, f, FKM_DTYPE_NONE);
    fuzz_open(&fkm_format_npy, f, FKM_BF16);
    fkm_file_close(f);
    close(fd);
    return 0;
}
