/* The calls of CUB that fkm makes, on the host. The two phases are kept: with no temporary storage
 * a call only says how much it wants. What it is given is filled with garbage, so that memory
 * shared with anything alive shows. */
#ifndef CUO_CUB_CUH
#define CUO_CUB_CUH

#include "../cuda_runtime.h"
#include <algorithm>
#include <vector>

namespace cub
{

/* Some bytes, so that callers that ignore the size are found out. */
static inline cudaError_t cuo_temporary(void *storage, size_t &bytes, size_t wanted, bool *asked)
{
    *asked = !storage;
    if (!storage)
        bytes = wanted;
    else if (bytes < wanted)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static inline cudaError_t cuo_run(const char *name, void *storage, size_t bytes, size_t wanted,
    cudaStream_t stream, const std::function<void()> &f)
{
    bool asked;
    cudaError_t e = cuo_temporary(storage, bytes, wanted, &asked);
    if (e || asked)
        return e;
    cuo::enqueue_task(name, stream, [storage, wanted, f] {
        memset(storage, 0xe7, wanted);
        f();
    });
    return cudaPeekAtLastError();
}

#define CUO_CUB(name, wanted, ...)                                                                 \
    if (!storage) {                                                                                \
        bytes = wanted;                                                                            \
        return cudaSuccess;                                                                        \
    }                                                                                              \
    return cuo_run(name, storage, bytes, wanted, stream, __VA_ARGS__)

template <class T> struct DoubleBuffer {
    T *d_buffers[2];
    int selector;
    DoubleBuffer() : d_buffers{nullptr, nullptr}, selector(0)
    {
    }
    DoubleBuffer(T *current, T *alternate) : d_buffers{current, alternate}, selector(0)
    {
    }
    T *Current()
    {
        return d_buffers[selector];
    }
    T *Alternate()
    {
        return d_buffers[selector ^ 1];
    }
};

struct DeviceRadixSort {
    /* Bits [begin, end) of the key, in the order of its values. */
    template <class K> static uint64_t digits(K key, int begin, int end)
    {
        typedef typename std::make_unsigned<K>::type U;
        U u = (U)key;
        if (std::is_signed<K>::value)
            u = (U)(u ^ (U)1 << (sizeof(K) * 8 - 1));
        uint64_t v = (uint64_t)u >> begin;
        int width = end - begin;
        return width >= 64 ? v : v & (((uint64_t)1 << width) - 1);
    }

    template <class K, class I>
    static std::vector<I> order(const K *keys, I n, int begin, int end, bool descending)
    {
        std::vector<I> at((size_t)n);
        for (I i = 0; i < n; i++)
            at[(size_t)i] = i;
        std::stable_sort(at.begin(), at.end(), [=](I a, I b) {
            uint64_t x = digits(keys[a], begin, end), y = digits(keys[b], begin, end);
            return descending ? x > y : x < y;
        });
        return at;
    }

    template <class K, class V, class I>
    static void pairs(const K *keys_in, K *keys_out, const V *values_in, V *values_out, I n,
        int begin, int end, bool descending)
    {
        std::vector<I> at = order(keys_in, n, begin, end, descending);
        std::vector<K> keys((size_t)n);
        std::vector<V> values((size_t)n);
        for (I i = 0; i < n; i++) {
            keys[(size_t)i] = keys_in[at[(size_t)i]];
            values[(size_t)i] = values_in[at[(size_t)i]];
        }
        std::copy(keys.begin(), keys.end(), keys_out);
        std::copy(values.begin(), values.end(), values_out);
    }

    template <class K, class V, class I>
    static cudaError_t SortPairs(void *storage, size_t &bytes, const K *keys_in, K *keys_out,
        const V *values_in, V *values_out, I n, int begin = 0, int end = sizeof(K) * 8,
        cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceRadixSort::SortPairs", (size_t)n * (sizeof(K) + sizeof(V)) + 1024,
            [=] { pairs(keys_in, keys_out, values_in, values_out, n, begin, end, false); });
    }

    /* Leaves the result in the other buffers, as CUB may. */
    template <class K, class V, class I>
    static cudaError_t SortPairs(void *storage, size_t &bytes, DoubleBuffer<K> &keys,
        DoubleBuffer<V> &values, I n, int begin = 0, int end = sizeof(K) * 8,
        cudaStream_t stream = nullptr)
    {
        if (!storage) {
            bytes = 1024;
            return cudaSuccess;
        }
        K *keys_in = keys.Current(), *keys_out = keys.Alternate();
        V *values_in = values.Current(), *values_out = values.Alternate();
        cudaError_t e =
            cuo_run("cub::DeviceRadixSort::SortPairs", storage, bytes, 1024, stream, [=] {
                pairs(keys_in, keys_out, values_in, values_out, n, begin, end, false);
                memset((void *)keys_in, 0xe7, (size_t)n * sizeof(K));
                memset((void *)values_in, 0xe7, (size_t)n * sizeof(V));
            });
        keys.selector ^= 1;
        values.selector ^= 1;
        return e;
    }

    template <class K, class I>
    static cudaError_t SortKeys(void *storage, size_t &bytes, const K *keys_in, K *keys_out, I n,
        int begin = 0, int end = sizeof(K) * 8, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceRadixSort::SortKeys", (size_t)n * sizeof(K) + 1024,
            [=] { pairs(keys_in, keys_out, keys_in, keys_out, n, begin, end, false); });
    }
};

struct DeviceScan {
    template <class In, class Out, class I>
    static cudaError_t ExclusiveSum(
        void *storage, size_t &bytes, In in, Out out, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceScan::ExclusiveSum", (size_t)1024, [=] {
            auto sum = out[0];
            sum = 0;
            for (I i = 0; i < n; i++) {
                auto v = in[i];
                out[i] = sum;
                sum += v;
            }
        });
    }

    template <class In, class Out, class I>
    static cudaError_t InclusiveSum(
        void *storage, size_t &bytes, In in, Out out, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceScan::InclusiveSum", (size_t)1024, [=] {
            auto sum = out[0];
            sum = 0;
            for (I i = 0; i < n; i++)
                out[i] = sum += in[i];
        });
    }
};

struct DeviceReduce {
    template <class In, class Out, class I>
    static cudaError_t Sum(
        void *storage, size_t &bytes, In in, Out out, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceReduce::Sum", (size_t)1024, [=] {
            auto sum = out[0];
            sum = 0;
            for (I i = 0; i < n; i++)
                sum += in[i];
            out[0] = sum;
        });
    }

    template <class In, class Out, class I>
    static cudaError_t Max(
        void *storage, size_t &bytes, In in, Out out, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceReduce::Max", (size_t)1024, [=] {
            auto best = in[0];
            for (I i = 1; i < n; i++)
                best = best < in[i] ? in[i] : best;
            out[0] = best;
        });
    }

    template <class In, class Out, class I>
    static cudaError_t Min(
        void *storage, size_t &bytes, In in, Out out, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceReduce::Min", (size_t)1024, [=] {
            auto best = in[0];
            for (I i = 1; i < n; i++)
                best = in[i] < best ? in[i] : best;
            out[0] = best;
        });
    }
};

struct DeviceSelect {
    template <class In, class Flag, class Out, class Count, class I>
    static cudaError_t Flagged(void *storage, size_t &bytes, In in, Flag flags, Out out,
        Count count, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceSelect::Flagged", (size_t)1024, [=] {
            I kept = 0;
            for (I i = 0; i < n; i++)
                if (flags[i])
                    out[kept++] = in[i];
            *count = kept;
        });
    }
};

struct DeviceRunLengthEncode {
    template <class In, class Out, class Lengths, class Count, class I>
    static cudaError_t Encode(void *storage, size_t &bytes, In in, Out out, Lengths lengths,
        Count count, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceRunLengthEncode::Encode", (size_t)1024, [=] {
            I runs = 0;
            for (I i = 0; i < n;) {
                I end = i;
                while (end < n && in[end] == in[i])
                    end++;
                out[runs] = in[i];
                lengths[runs++] = end - i;
                i = end;
            }
            *count = runs;
        });
    }
};

struct DeviceHistogram {
    template <class In, class Counter, class Level, class I>
    static cudaError_t HistogramEven(void *storage, size_t &bytes, In in, Counter *out, int levels,
        Level low, Level high, I n, cudaStream_t stream = nullptr)
    {
        CUO_CUB("cub::DeviceHistogram::HistogramEven", (size_t)1024, [=] {
            int bins = levels - 1;
            std::fill(out, out + bins, (Counter)0);
            for (I i = 0; i < n; i++)
                if (in[i] >= low && in[i] < high)
                    out[(int64_t)(in[i] - low) * bins / (int64_t)(high - low)]++;
        });
    }
};

#undef CUO_CUB

} // namespace cub

#endif
