/* Reads that pass the kernel's cache by: for files that it could not hold in any case. They are
 * quicker from storage, and leave the processor to those who compute. */
#ifndef FKM_DIRECT_H
#define FKM_DIRECT_H

#include <stddef.h>
#include <stdint.h>

typedef struct fkm_direct fkm_direct;

/* Of the open file `fd`, which stays the caller's. NULL when file system or memory do not allow it.
 * Holds a few MiB. */
fkm_direct *fkm_direct_open(int fd);
void fkm_direct_close(fkm_direct *d); /* NULL is fine */

#define FKM_DIRECT_ALIGNMENT ((int64_t)4096) /* of what storage is read by */

/* Reads up to len bytes at offset into dst: at once, where dst and offset are alike modulo
 * FKM_DIRECT_ALIGNMENT, else by way of a buffer. Returns how many, from the first on: fewer than
 * len at the end of the file, at an error, or when another thread is at it; the rest is to be read,
 * and errors are to be found, the ordinary way. */
size_t fkm_direct_read(fkm_direct *d, int64_t offset, void *dst, size_t len);

#endif
