/* The table of backends and the choice by --device. */
#include "backend.h"

#include "base/log.h"
#include "cpu/backend_cpu.h"
#include "fkm.h"
#if FKM_HAVE_CUDA
#include "../cuda/fkm_cuda.h"
#endif

#include <string.h>

/* In order of preference. */
static const fkm_backend_ops *const table[] = {
#if FKM_HAVE_CUDA
    &fkm_backend_cuda,
#endif
    &fkm_backend_cpu,
};
#define TABLE_ROWS (sizeof table / sizeof table[0])

/* Does --isa name a CPU path? Then auto means the CPU. */
static bool is_cpu_isa(const char *isa)
{
    bool usable;
    for (int i = 0; isa && fkm_backend_cpu_isa(i, &usable); i++)
        if (!strcmp(isa, fkm_backend_cpu_isa(i, &usable)))
            return true;
    return false;
}

static fkm_status choose_best(const fkm_backend_ops **out, const char *isa, fkm_err *e)
{
    fkm_status st = FKM_EBUG;
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        if (table[i] != &fkm_backend_cpu && is_cpu_isa(isa))
            continue;
        st = table[i]->probe(NULL, e);
        if (st == FKM_OK) {
            *out = table[i];
            return FKM_OK;
        }
        if (e->hint[0])
            fkm_warn("no GPU is used: %s", e->msg);
        else
            fkm_verbose("%s: %s", table[i]->name, e->msg);
    }
    return st;
}

/* A device that was named, not chosen. */
static fkm_status ask_for(
    const fkm_backend_ops *ops, const char *devices, const char *device, fkm_err *e)
{
    fkm_status st = ops->probe(devices, e);
    if (st != FKM_EDEVICE)
        return st;
    fkm_wrap(e, "--device %s", device);
    return fkm_hint(e, "use --device cpu: the results are the same bits");
}

fkm_status fkm_backend_choose(const fkm_backend_ops **out, const char **devices,
    const struct fkm_machine *machine, fkm_err *e)
{
    const char *device = machine->device;
    *devices = NULL;
    if (!device || !strcmp(device, "auto"))
        return choose_best(out, machine->isa, e);
    const char *colon = strchr(device, ':');
    size_t length = colon ? (size_t)(colon - device) : strlen(device);
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        if (strlen(table[i]->name) != length || strncmp(table[i]->name, device, length) != 0)
            continue;
        if (colon && table[i] == &fkm_backend_cpu)
            break;
        *devices = colon ? colon + 1 : NULL;
        *out = table[i];
        return ask_for(table[i], *devices, device, e);
    }
    if (length == 4 && !strncmp(device, "cuda", 4)) {
        fkm_fail(e, FKM_EDEVICE, "--device %s: this fkm was built without CUDA", device);
        return fkm_hint(e, "use --device cpu: the results are the same bits");
    }
    fkm_fail(e, FKM_EUSAGE, "--device %s: no such device", device);
    return fkm_hint(e, "expected auto, cpu, cuda or cuda:LIST");
}

const char *fkm_isa_name(int i, bool *usable)
{
    return fkm_backend_cpu_isa(i, usable);
}

const char *fkm_gpu_isa_name(int i)
{
#if FKM_HAVE_CUDA
    return fkm_backend_cuda_isa(i);
#else
    (void)i;
    return NULL;
#endif
}
