/* The HDF5 library, loaded when the first .h5 is opened: it brings some forty other libraries,
 * which a run on other formats neither needs nor waits for. Beside it zlib, which it brings. Calls
 * look as always: the names below lead them through the tables. */
#ifndef FKM_H5LIB_H
#define FKM_H5LIB_H

#include "../src/base/status.h"

#define H5_USE_110_API
#include <hdf5.h>
#define ZLIB_CONST
#include <zlib.h>

/* Loads the library, once; any thread, one at a time. FKM_EFILE: it is not there, or is another
 * version than the one whose headers fkm was built with. */
fkm_status fkm_h5_load(fkm_err *e) FKM_MUST_USE;

#if H5_VERSION_GE(2, 0, 0)
#define FKM_H5_RENAMED(X) X(H5Lget_info1) X(H5Literate1) X(H5Dread_chunk1)
#elif H5_VERSION_GE(1, 12, 0)
#define FKM_H5_RENAMED(X) X(H5Lget_info1) X(H5Literate1) X(H5Dread_chunk)
#else
#define FKM_H5_RENAMED(X) X(H5Lget_info) X(H5Literate) X(H5Dread_chunk)
#endif

// clang-format off
#define FKM_H5_FUNCTIONS(X) \
    X(H5dont_atexit) X(H5open) X(H5get_libversion) X(H5Dclose) X(H5Dcreate2) X(H5Dget_create_plist) \
    X(H5Dget_chunk_storage_size) X(H5Dget_num_chunks) X(H5Dget_offset) X(H5Dget_space) \
    X(H5Dget_storage_size) X(H5Dget_type) X(H5Dopen2) X(H5Dread) X(H5Eset_auto2) X(H5Ewalk2) \
    X(H5Fclose) X(H5Fcreate) X(H5Fflush) X(H5Fopen) X(H5Gclose) X(H5Gopen2) X(H5Lget_val) \
    X(H5Oget_info_by_name2) X(H5PLset_loading_state) X(H5Pclose) X(H5Pcreate) X(H5Pget_chunk) \
    X(H5Pget_external_count) X(H5Pget_filter2) X(H5Pget_layout) X(H5Pget_mdc_config) \
    X(H5Pget_nfilters) X(H5Pset_alloc_time) X(H5Pset_chunk_cache) X(H5Pset_fapl_sec2) \
    X(H5Pset_fclose_degree) X(H5Pset_file_locking) X(H5Pset_fill_time) X(H5Pset_layout) \
    X(H5Pset_mdc_config) X(H5Pset_obj_track_times) X(H5Sclose) X(H5Screate_simple) \
    X(H5Sget_simple_extent_dims) X(H5Sget_simple_extent_ndims) X(H5Sselect_hyperslab) \
    X(H5Tclose) X(H5Tcopy) X(H5Tequal) X(H5Tget_class) X(H5Tget_nmembers) X(H5Tget_sign) \
    X(H5Tget_size) X(H5Tset_ebias) X(H5Tset_fields) X(H5Tset_order) X(H5Tset_size) \
    X(H5set_free_list_limits) FKM_H5_RENAMED(X)

/* Identifiers that the library makes when it begins. */
#define FKM_H5_IDENTIFIERS(X) \
    X(H5P_CLS_DATASET_ACCESS_ID_g) X(H5P_CLS_DATASET_CREATE_ID_g) X(H5P_CLS_FILE_ACCESS_ID_g) \
    X(H5T_IEEE_F32BE_g) X(H5T_IEEE_F32LE_g) X(H5T_IEEE_F64BE_g) X(H5T_IEEE_F64LE_g) \
    X(H5T_STD_I16BE_g) X(H5T_STD_I16LE_g) X(H5T_STD_I32BE_g) X(H5T_STD_I32LE_g) X(H5T_STD_I64BE_g) \
    X(H5T_STD_I64LE_g) X(H5T_STD_I8BE_g) X(H5T_STD_I8LE_g) X(H5T_STD_U16BE_g) X(H5T_STD_U16LE_g) \
    X(H5T_STD_U32BE_g) X(H5T_STD_U32LE_g) X(H5T_STD_U64BE_g) X(H5T_STD_U64LE_g) X(H5T_STD_U8BE_g) \
    X(H5T_STD_U8LE_g) X(H5E_RESOURCE_g) X(H5E_NOSPACE_g)

#define FKM_Z_FUNCTIONS(X) X(inflate) X(inflateEnd) X(inflateInit_) X(inflateReset)
// clang-format on

/* Valid after fkm_h5_load. */
typedef struct fkm_h5_library {
#define FUNCTION(name) __typeof__(&name) name; // NOLINT(bugprone-macro-parentheses): a declaration
#define IDENTIFIER(name) hid_t *name;
    FKM_H5_FUNCTIONS(FUNCTION)
    FKM_H5_IDENTIFIERS(IDENTIFIER)
    FKM_Z_FUNCTIONS(FUNCTION)
#undef FUNCTION
#undef IDENTIFIER
} fkm_h5_library;

extern fkm_h5_library fkm_h5;

/* fkm_h5_load has compared versions; the library's own check ends the process. */
#undef H5CHECK
#define H5CHECK

#ifndef FKM_H5LIB_TABLE /* which is made from the true names */
// clang-format off
#define H5Dclose (fkm_h5.H5Dclose)
#define H5Dcreate2 (fkm_h5.H5Dcreate2)
#define H5Dget_create_plist (fkm_h5.H5Dget_create_plist)
#define H5Dget_chunk_storage_size (fkm_h5.H5Dget_chunk_storage_size)
#define H5Dget_num_chunks (fkm_h5.H5Dget_num_chunks)
#define H5Dget_offset (fkm_h5.H5Dget_offset)
#define H5Dget_space (fkm_h5.H5Dget_space)
#define H5Dget_storage_size (fkm_h5.H5Dget_storage_size)
#define H5Dget_type (fkm_h5.H5Dget_type)
#define H5Dopen2 (fkm_h5.H5Dopen2)
#define H5Dread (fkm_h5.H5Dread)
#define H5Eset_auto2 (fkm_h5.H5Eset_auto2)
#define H5Ewalk2 (fkm_h5.H5Ewalk2)
#define H5Fclose (fkm_h5.H5Fclose)
#define H5Fcreate (fkm_h5.H5Fcreate)
#define H5Fflush (fkm_h5.H5Fflush)
#define H5Fopen (fkm_h5.H5Fopen)
#define H5Gclose (fkm_h5.H5Gclose)
#define H5Gopen2 (fkm_h5.H5Gopen2)
#define H5Lget_val (fkm_h5.H5Lget_val)
#define H5Oget_info_by_name2 (fkm_h5.H5Oget_info_by_name2)
#define H5PLset_loading_state (fkm_h5.H5PLset_loading_state)
#define H5Pclose (fkm_h5.H5Pclose)
#define H5Pcreate (fkm_h5.H5Pcreate)
#define H5Pget_chunk (fkm_h5.H5Pget_chunk)
#define H5Pget_external_count (fkm_h5.H5Pget_external_count)
#define H5Pget_filter2 (fkm_h5.H5Pget_filter2)
#define H5Pget_layout (fkm_h5.H5Pget_layout)
#define H5Pget_mdc_config (fkm_h5.H5Pget_mdc_config)
#define H5Pget_nfilters (fkm_h5.H5Pget_nfilters)
#define H5Pset_alloc_time (fkm_h5.H5Pset_alloc_time)
#define H5Pset_chunk_cache (fkm_h5.H5Pset_chunk_cache)
#define H5Pset_fapl_sec2 (fkm_h5.H5Pset_fapl_sec2)
#define H5Pset_fclose_degree (fkm_h5.H5Pset_fclose_degree)
#define H5Pset_file_locking (fkm_h5.H5Pset_file_locking)
#define H5Pset_fill_time (fkm_h5.H5Pset_fill_time)
#define H5Pset_layout (fkm_h5.H5Pset_layout)
#define H5Pset_mdc_config (fkm_h5.H5Pset_mdc_config)
#define H5Pset_obj_track_times (fkm_h5.H5Pset_obj_track_times)
#define H5Sclose (fkm_h5.H5Sclose)
#define H5Screate_simple (fkm_h5.H5Screate_simple)
#define H5Sget_simple_extent_dims (fkm_h5.H5Sget_simple_extent_dims)
#define H5Sget_simple_extent_ndims (fkm_h5.H5Sget_simple_extent_ndims)
#define H5Sselect_hyperslab (fkm_h5.H5Sselect_hyperslab)
#define H5Tclose (fkm_h5.H5Tclose)
#define H5Tcopy (fkm_h5.H5Tcopy)
#define H5Tequal (fkm_h5.H5Tequal)
#define H5Tget_class (fkm_h5.H5Tget_class)
#define H5Tget_nmembers (fkm_h5.H5Tget_nmembers)
#define H5Tget_sign (fkm_h5.H5Tget_sign)
#define H5Tget_size (fkm_h5.H5Tget_size)
#define H5Tset_ebias (fkm_h5.H5Tset_ebias)
#define H5Tset_fields (fkm_h5.H5Tset_fields)
#define H5Tset_order (fkm_h5.H5Tset_order)
#define H5Tset_size (fkm_h5.H5Tset_size)
#define H5dont_atexit (fkm_h5.H5dont_atexit)
#define H5get_libversion (fkm_h5.H5get_libversion)
#define H5open (fkm_h5.H5open)
#define H5set_free_list_limits (fkm_h5.H5set_free_list_limits)
#if H5_VERSION_GE(2, 0, 0)
#define H5Dread_chunk1 (fkm_h5.H5Dread_chunk1)
#else
#define H5Dread_chunk (fkm_h5.H5Dread_chunk)
#endif
#if H5_VERSION_GE(1, 12, 0)
#define H5Lget_info1 (fkm_h5.H5Lget_info1)
#define H5Literate1 (fkm_h5.H5Literate1)
#else
#define H5Lget_info (fkm_h5.H5Lget_info)
#define H5Literate (fkm_h5.H5Literate)
#endif
#define H5P_CLS_DATASET_ACCESS_ID_g (*fkm_h5.H5P_CLS_DATASET_ACCESS_ID_g)
#define H5P_CLS_DATASET_CREATE_ID_g (*fkm_h5.H5P_CLS_DATASET_CREATE_ID_g)
#define H5P_CLS_FILE_ACCESS_ID_g (*fkm_h5.H5P_CLS_FILE_ACCESS_ID_g)
#define H5T_IEEE_F32BE_g (*fkm_h5.H5T_IEEE_F32BE_g)
#define H5T_IEEE_F32LE_g (*fkm_h5.H5T_IEEE_F32LE_g)
#define H5T_IEEE_F64BE_g (*fkm_h5.H5T_IEEE_F64BE_g)
#define H5T_IEEE_F64LE_g (*fkm_h5.H5T_IEEE_F64LE_g)
#define H5T_STD_I16BE_g (*fkm_h5.H5T_STD_I16BE_g)
#define H5T_STD_I16LE_g (*fkm_h5.H5T_STD_I16LE_g)
#define H5T_STD_I32BE_g (*fkm_h5.H5T_STD_I32BE_g)
#define H5T_STD_I32LE_g (*fkm_h5.H5T_STD_I32LE_g)
#define H5T_STD_I64BE_g (*fkm_h5.H5T_STD_I64BE_g)
#define H5T_STD_I64LE_g (*fkm_h5.H5T_STD_I64LE_g)
#define H5T_STD_I8BE_g (*fkm_h5.H5T_STD_I8BE_g)
#define H5T_STD_I8LE_g (*fkm_h5.H5T_STD_I8LE_g)
#define H5T_STD_U16BE_g (*fkm_h5.H5T_STD_U16BE_g)
#define H5T_STD_U16LE_g (*fkm_h5.H5T_STD_U16LE_g)
#define H5T_STD_U32BE_g (*fkm_h5.H5T_STD_U32BE_g)
#define H5T_STD_U32LE_g (*fkm_h5.H5T_STD_U32LE_g)
#define H5T_STD_U64BE_g (*fkm_h5.H5T_STD_U64BE_g)
#define H5T_STD_U64LE_g (*fkm_h5.H5T_STD_U64LE_g)
#define H5T_STD_U8BE_g (*fkm_h5.H5T_STD_U8BE_g)
#define H5T_STD_U8LE_g (*fkm_h5.H5T_STD_U8LE_g)
#define H5E_RESOURCE_g (*fkm_h5.H5E_RESOURCE_g)
#define H5E_NOSPACE_g (*fkm_h5.H5E_NOSPACE_g)
#define inflate (fkm_h5.inflate)
#define inflateEnd (fkm_h5.inflateEnd)
#define inflateInit_ (fkm_h5.inflateInit_)
#define inflateReset (fkm_h5.inflateReset)
// clang-format on
#endif

#endif
