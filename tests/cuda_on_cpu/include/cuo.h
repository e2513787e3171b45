/* The device side of CUDA on a CPU: one fiber per CUDA thread, what a thread may ask of its warp
 * and of its block, and the launch. Included by cuda_runtime.h; kernels need nothing else from
 * here.
 *
 * The scheduler (fibers.cpp) is "the hardware": it is compiled without ThreadSanitizer, so that
 * only what kernels themselves do orders their memory accesses. What is inline here is compiled
 * with the kernels, so that the sanitizers see each thread's own accesses. */
#ifndef CUO_H
#define CUO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

typedef struct cuo_stream *cudaStream_t;

/* Where a call stands, for messages. */
#define CUO_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cuo
{

struct Warp;

/* A cp.async on its way. */
struct Copy {
    void *to;
    const void *from;
    unsigned bytes, valid; /* the rest of bytes is zero */
};

/* A CUDA thread. */
struct Fiber {
    void *sp;
    uint3 tid;
    int lane, id;
    Warp *warp;
    int state;
    bool dozes; /* asleep, but only until nobody else can go on */
    void *args; /* of the collective it waits in */
    const char *op, *file;
    int line;
    Copy *copies; /* pending, oldest first */
    int n_copies, room_copies;
    int *groups; /* where committed groups end in copies */
    int n_groups, room_groups;
    void *stack;
    size_t stack_bytes;
    void *tsan, *fake_stack;
};

extern Fiber *cur;
extern uint3 block_index;
extern dim3 block_dim, grid_dim;
extern int planted; /* FKM_PLANT(n): n == planted */

[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void trap(const char *file, int line);
long long ticks();

/* ---- the block ---- */

/* One exact block of memory for each __shared__ variable (by key) of the running block. */
void *shared(const void *key, size_t bytes);
void *shared_dynamic();
enum Vote { VOTE_NONE, VOTE_OR, VOTE_AND, VOTE_COUNT };
int barrier(int predicate, Vote vote, const char *file, int line);
void fence();

/* ---- the warp ---- */

/* Called once when all lanes of mask have come with their arguments; lane[i] for each i in mask. */
typedef void (*Collective)(Fiber *const *lane, unsigned mask);
void collect(const char *op, unsigned mask, void *args, Collective f, const char *file, int line);

struct Shuffle {
    uint64_t in, out;
    int source, width;
};
struct Ballot {
    uint64_t in, out;
};
struct Mma {
    void *d;           /* [n][4] float or int */
    const uint32_t *a; /* [4] */
    const uint32_t *b; /* [n][2] */
    int n;
};
struct Ldmatrix {
    unsigned char row[16];
    uint32_t *r;
};

void warp_sync(Fiber *const *, unsigned);
void warp_shuffle(Fiber *const *, unsigned);
void warp_shuffle_up(Fiber *const *, unsigned);
void warp_shuffle_down(Fiber *const *, unsigned);
void warp_shuffle_xor(Fiber *const *, unsigned);
void warp_ballot(Fiber *const *, unsigned);
void warp_match(Fiber *const *, unsigned);
void warp_add(Fiber *const *, unsigned);
void warp_min_unsigned(Fiber *const *, unsigned);
void warp_min_int(Fiber *const *, unsigned);
void warp_max_unsigned(Fiber *const *, unsigned);
void warp_max_int(Fiber *const *, unsigned);
void warp_and(Fiber *const *, unsigned);
void warp_or(Fiber *const *, unsigned);
void warp_xor(Fiber *const *, unsigned);
void warp_mma_bf16(Fiber *const *, unsigned);
void warp_mma_f16(Fiber *const *, unsigned);
void warp_mma_s8s8(Fiber *const *, unsigned);
void warp_mma_s8u8(Fiber *const *, unsigned);
void warp_mma_u8s8(Fiber *const *, unsigned);
void warp_mma_u8u8(Fiber *const *, unsigned);
void warp_ldmatrix_1(Fiber *const *, unsigned);
void warp_ldmatrix_2(Fiber *const *, unsigned);
void warp_ldmatrix_4(Fiber *const *, unsigned);
void warp_ldmatrix_1_trans(Fiber *const *, unsigned);
void warp_ldmatrix_2_trans(Fiber *const *, unsigned);
void warp_ldmatrix_4_trans(Fiber *const *, unsigned);

template <class T> inline uint64_t to_bits(T v)
{
    static_assert(sizeof(T) <= 8, "at most 8 bytes travel between lanes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    return u;
}

template <class T> inline T from_bits(uint64_t u)
{
    T v;
    memcpy(&v, &u, sizeof v);
    return v;
}

template <class To, class From> inline To bit_cast(From v)
{
    static_assert(sizeof(To) == sizeof(From), "bit_cast");
    To t;
    memcpy(&t, &v, sizeof t);
    return t;
}

template <class T>
inline T shuffle(const char *op, Collective f, unsigned mask, T v, int source, int width,
    const char *file, int line)
{
    Shuffle s{to_bits(v), 0, source, width};
    collect(op, mask, &s, f, file, line);
    return from_bits<T>(s.out);
}

template <class T>
inline T ballot(const char *op, Collective f, unsigned mask, uint64_t v, const char *file, int line)
{
    Ballot b{v, 0};
    collect(op, mask, &b, f, file, line);
    return from_bits<T>(b.out);
}

/* ---- cp.async ---- */

void copy_queue(void *to, const void *from, unsigned bytes, unsigned valid);
void copy_commit();
bool copies_early(); /* this one lands at once: the other extreme of what the hardware may do */
Copy copy_take();    /* the oldest */
int copies_before_last(int groups);

inline void copy_land(const Copy &c)
{
    if (c.valid)
        memcpy(c.to, c.from, c.valid);
    if (c.valid < c.bytes)
        memset((char *)c.to + c.valid, 0, c.bytes - c.valid);
}

inline void copy_async(
    void *to, const void *from, unsigned bytes, unsigned valid, const char *file, int line)
{
    if (((uintptr_t)to | (uintptr_t)from) % bytes)
        die("%s:%d: cp.async of %u bytes is not aligned to them", file, line, bytes);
    if (valid > bytes)
        die("%s:%d: cp.async of %u of %u bytes", file, line, valid, bytes);
    if (copies_early())
        copy_land(Copy{to, from, bytes, valid});
    else
        copy_queue(to, from, bytes, valid);
}

inline void copy_wait(int groups_left)
{
    for (int n = copies_before_last(groups_left); n > 0; n--)
        copy_land(copy_take());
}

/* ---- launch ---- */

struct Config {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
};
void enqueue_kernel(const char *name, const void *kernel, const Config &c,
    const std::function<void()> &thread, size_t parameter_bytes);
/* Device work that is not a kernel (CUB); runs as one piece. */
void enqueue_task(const char *name, cudaStream_t stream, const std::function<void()> &task);

template <class... P, class... A>
void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
    cudaStream_t stream, A &&...a)
{
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its parameters");
    std::tuple<std::decay_t<P>...> parameters(static_cast<std::decay_t<P>>(std::forward<A>(a))...);
    enqueue_kernel(
        name, (const void *)kernel, Config{grid, block, shared_bytes, stream},
        [kernel, parameters] { std::apply(kernel, parameters); }, sizeof parameters);
}

} // namespace cuo

#define CUO_SHARED(type, name, ...)                                                                \
    typedef type name##_cuo_type __VA_ARGS__;                                                      \
    static char name##_cuo_key;                                                                    \
    name##_cuo_type &name =                                                                        \
        *(name##_cuo_type *)cuo::shared(&name##_cuo_key, sizeof(name##_cuo_type))
#define CUO_SHARED_DYNAMIC(type, name) type *const name = (type *)cuo::shared_dynamic()
#define CUO_PLANT(n) (cuo::planted == (n))

/* ---- PTX ---- */

static inline void cuo_cp_async16(void *s, const void *g, unsigned valid = 16, CUO_SITE)
{
    cuo::copy_async(s, g, 16, valid, file, line);
}
static inline void cuo_cp_async8(void *s, const void *g, unsigned valid = 8, CUO_SITE)
{
    cuo::copy_async(s, g, 8, valid, file, line);
}
static inline void cuo_cp_async4(void *s, const void *g, unsigned valid = 4, CUO_SITE)
{
    cuo::copy_async(s, g, 4, valid, file, line);
}
static inline void cuo_cp_async_commit()
{
    cuo::copy_commit();
}
template <int N> static inline void cuo_cp_async_wait()
{
    cuo::copy_wait(N);
}
static inline void cuo_cp_async_wait_all()
{
    cuo::copy_wait(-1);
}

namespace cuo
{
/* The first `used` lanes name a row of 16 bytes, read here: it is the lane's own access. */
inline void ldmatrix(uint32_t *r, const void *row, int used, Collective f, const char *op,
    const char *file, int line)
{
    Ldmatrix m;
    m.r = r;
    if (cur->lane < used) {
        if ((uintptr_t)row % 16)
            die("%s:%d: ldmatrix: a row is not aligned to 16 bytes", file, line);
        memcpy(m.row, row, 16);
    }
    collect(op, ~0u, &m, f, file, line);
}
} // namespace cuo

#define CUO_LDMATRIX(name, used, f)                                                                \
    static inline void name(uint32_t *r, const void *row, CUO_SITE)                                \
    {                                                                                              \
        cuo::ldmatrix(r, row, used, f, #name, file, line);                                         \
    }
CUO_LDMATRIX(cuo_ldmatrix_x1, 8, cuo::warp_ldmatrix_1)
CUO_LDMATRIX(cuo_ldmatrix_x2, 16, cuo::warp_ldmatrix_2)
CUO_LDMATRIX(cuo_ldmatrix_x4, 32, cuo::warp_ldmatrix_4)
CUO_LDMATRIX(cuo_ldmatrix_x1_trans, 8, cuo::warp_ldmatrix_1_trans)
CUO_LDMATRIX(cuo_ldmatrix_x2_trans, 16, cuo::warp_ldmatrix_2_trans)
CUO_LDMATRIX(cuo_ldmatrix_x4_trans, 32, cuo::warp_ldmatrix_4_trans)

#define CUO_MMA(name, type)                                                                        \
    static inline void cuo_mma_##name(                                                             \
        type d[4], const uint32_t a[4], const uint32_t b[2], CUO_SITE)                             \
    {                                                                                              \
        cuo::Mma m{d, a, b, 1};                                                                    \
        cuo::collect("mma_" #name, ~0u, &m, cuo::warp_mma_##name, file, line);                     \
    }                                                                                              \
    static inline void cuo_mma_##name##_row(                                                       \
        type(*d)[4], const uint32_t a[4], const uint32_t(*b)[2], int n, CUO_SITE)                  \
    {                                                                                              \
        cuo::Mma m{d, a, b[0], n};                                                                 \
        cuo::collect("mma_" #name "_row", ~0u, &m, cuo::warp_mma_##name, file, line);              \
    }
CUO_MMA(bf16, float)
CUO_MMA(f16, float)
CUO_MMA(s8s8, int)
CUO_MMA(s8u8, int)
CUO_MMA(u8s8, int)
CUO_MMA(u8u8, int)

#endif
