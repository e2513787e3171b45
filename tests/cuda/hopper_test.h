/* For the tests of what only Hopper has. */
#ifndef FKM_HOPPER_TEST_H
#define FKM_HOPPER_TEST_H

#include "cuda_test.h"

#include "../../cuda/hopper.cuh"

/* Is there a device whose own kernel this is? */
static inline bool is_hopper()
{
    int device = 0, major = 0, minor = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) ==
               cudaSuccess &&
           major == 9 && minor == 0;
}

/* Exit 77, which means skipped, where the device is another one. */
static inline void skip_without_hopper()
{
    if (is_hopper())
        return;
    printf("skipped: not a GPU of compute capability 9.0\n");
    exit(77);
}

/* A device array that starts as a copy, or as zeros. */
template <class T> struct device_array {
    T *p;
    size_t n;
    explicit device_array(const std::vector<T> &v) : p(NULL), n(v.size())
    {
        assert_int_equal(cudaMalloc((void **)&p, n * sizeof(T)), cudaSuccess);
        assert_int_equal(
            cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~device_array()
    {
        (void)cudaFree(p);
    }
    std::vector<T> fetch() const
    {
        std::vector<T> v(n);
        assert_int_equal(
            cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return v;
    }
};

#endif
