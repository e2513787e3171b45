/* The HDF5 library, loaded when needed: see h5lib.h. */
#define FKM_H5LIB_TABLE
#include "h5lib.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifndef FKM_HDF5_SONAME
#error "the Makefile gives the name of the library that these headers belong to"
#endif

fkm_h5_library fkm_h5;

/* Of each kind of block that the library keeps for later rather than give back. */
#define FREE_BYTES (256 << 10)
#define ZLIB_SONAME "libz.so.1"

/* Where each name goes. */
typedef struct symbol {
    const char *name;
    size_t offset;
} symbol;

/* Through a second macro, so that a name that hdf5.h defines as another one is that one. */
#define SYMBOL(name) SYMBOL_(name)
#define SYMBOL_(name) {#name, offsetof(fkm_h5_library, name)},
static const symbol of_hdf5[] = {FKM_H5_FUNCTIONS(SYMBOL) FKM_H5_IDENTIFIERS(SYMBOL){0}};
static const symbol of_zlib[] = {FKM_Z_FUNCTIONS(SYMBOL){0}};

static fkm_status not_loaded(fkm_err *e, const char *soname, const char *why)
{
    fkm_fail(e, FKM_EFILE, "cannot load the HDF5 library: %s", why ? why : soname);
    return fkm_hint(e, "install the package that holds %s, or convert the data to .npy", soname);
}

/* The handle stays open when FKM_OK. */
static fkm_status load(
    fkm_h5_library *library, void **handle, const char *soname, const symbol *symbols, fkm_err *e)
{
    *handle = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (!*handle)
        return not_loaded(e, soname, dlerror());
    for (; symbols->name; symbols++) {
        void *p = dlsym(*handle, symbols->name);
        if (!p) {
            fkm_status st = not_loaded(e, soname, dlerror());
            dlclose(*handle);
            return st;
        }
        memcpy((char *)library + symbols->offset, &p, sizeof p);
    }
    return FKM_OK;
}

/* Structures and constants change between minor versions. */
static fkm_status check_version(const fkm_h5_library *library, fkm_err *e)
{
    unsigned major = 0, minor = 0, release = 0;
    if (library->H5get_libversion(&major, &minor, &release) >= 0 && major == H5_VERS_MAJOR &&
        minor == H5_VERS_MINOR)
        return FKM_OK;
    fkm_fail(e, FKM_EFILE, "the HDF5 library %s is version %u.%u.%u, expected %d.%d",
        FKM_HDF5_SONAME, major, minor, release, H5_VERS_MAJOR, H5_VERS_MINOR);
    return fkm_hint(e, "build fkm again with the headers of that version");
}

fkm_status fkm_h5_load(fkm_err *e)
{
    static bool loaded;
    if (loaded)
        return FKM_OK;
    fkm_h5_library library;
    void *hdf5, *zlib;
    FKM_TRY(load(&library, &hdf5, FKM_HDF5_SONAME, of_hdf5, e));
    fkm_status st = load(&library, &zlib, ZLIB_SONAME, of_zlib, e);
    if (st == FKM_OK) {
        /* The first call of all, or it has no effect. No cleaning up at exit: all files are closed
         * by then, and after a write that failed 1.10.8 ends the process by a bad access. */
        (void)library.H5dont_atexit();
        st = check_version(&library, e);
        if (st != FKM_OK)
            dlclose(zlib);
    }
    if (st != FKM_OK) {
        dlclose(hdf5);
        return st;
    }
    (void)library.H5set_free_list_limits(
        FREE_BYTES, FREE_BYTES, FREE_BYTES, FREE_BYTES, FREE_BYTES, FREE_BYTES);
    fkm_h5 = library;
    loaded = true;
    return FKM_OK;
}
