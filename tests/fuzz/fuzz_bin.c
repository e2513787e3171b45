/* fbin and its kin: the same bytes as each of them. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const fkm_format *const all[] = {&fkm_format_fbin, &fkm_format_f16bin, &fkm_format_u8bin,
        &fkm_format_i8bin, &fkm_format_ibin};
    int fd;
    fkm_file *f = fuzz_file(data, size, &fd);
    fuzz_probe(data, size);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        fuzz_open(all[i], f, FKM_DTYPE_NONE);
    for (fkm_dtype t = FKM_DTYPE_NONE; t <= FKM_BOOL; t++)
        fuzz_open(&fkm_format_bin, f, t);
    fkm_file_close(f);
    close(fd);
    return 0;
}
