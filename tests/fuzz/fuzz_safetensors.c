/* safetensors: the JSON table and the tensor that is chosen from it. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;
    fkm_file *f = fuzz_file(data, size, &fd);
    fuzz_probe(data, size);
    fuzz_open(&fkm_format_safetensors, f, FKM_DTYPE_NONE);
    fkm_file_close(f);
    close(fd);
    return 0;
}
