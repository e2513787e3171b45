/* The scheduler: one fiber per CUDA thread, blocks one after another.
 *
 * Ready lanes are bits of their warp, ready warps bits of the block, so that switching costs a few
 * nanoseconds. In forward order a warp runs until all its lanes wait, lowest lane first; reverse is
 * the mirror image; random picks warp and lane at every switch. */
#include "cuo_internal.h"

#include <fenv.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuo
{

Fiber *cur;
uint3 block_index;
dim3 block_dim, grid_dim;
int planted;
Settings settings;
cuo_counts_t counts;

enum { READY, IN_BARRIER, IN_COLLECTIVE, ASLEEP, DONE };
const int MAX_THREADS = 1024, WARPS = MAX_THREADS / 32;
const size_t STACK_BYTES = 256 << 10;
const size_t STATIC_SHARED_BYTES = 48 << 10, MAX_SHARED_BYTES = 227 << 10;

/* Lanes that came to a collective with the same mask. */
struct Group {
    unsigned mask, came;
    const char *op;
};

struct Warp {
    unsigned ready, exists, gone;
    int groups;
    Group group[32];
    Fiber *lane[32];
};

/* What the threads of a stream release and acquire. A set for every block of a launch in turn, so
 * that blocks stay unordered for TSan. */
const int SYNC_SETS = 256;
struct TsanThreads {
    Fiber *fiber[MAX_THREADS]; /* with stacks of their own: streams are unordered */
    int fibers;
    void *reaper;
    char start, end;
    char barrier[SYNC_SETS], warp[SYNC_SETS][WARPS];
};

static Warp warps[WARPS];
static uint32_t ready_warps;
static Fiber **pool, host; /* of the stream whose kernel runs */
static int threads, alive;
static unsigned sync_set;
static const Kernel *kernel;
static TsanThreads *sync_of; /* of the kernel's stream */

static struct {
    int waiting, votes, result;
    const char *file;
    int line;
} bar;

/* ---- randomness ---- */

static uint32_t random_state = 1;

unsigned draw(unsigned n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (unsigned)((uint64_t)random_state * n >> 32);
}

/* ---- messages ---- */

static const char *place(char *out, size_t bytes)
{
    out[0] = 0;
    if (cur && cur != &host)
        snprintf(out, bytes, " [%s, block %u,%u,%u thread %u,%u,%u]", kernel->name, block_index.x,
            block_index.y, block_index.z, cur->tid.x, cur->tid.y, cur->tid.z);
    return out;
}

void die(const char *format, ...)
{
    char where[256];
    va_list a;
    va_start(a, format);
    fflush(stdout);
    fprintf(stderr, "cuo: ");
    vfprintf(stderr, format, a);
    va_end(a);
    fprintf(stderr, "%s\n", place(where, sizeof where));
    fflush(stderr);
    for (;;)
        syscall(SYS_exit_group, 86); /* at once: sanitizers sleep in _exit */
}

void trap(const char *file, int line)
{
    die("%s:%d: __trap", file, line);
}

long long ticks()
{
    static long long t;
    return t += 32;
}

/* ---- switching ---- */

#if defined(__x86_64__)
/* An indirect jump, not a return: lanes resume in turn at the same place, which only the predictor
 * of jumps can know. */
extern "C" void cuo_switch(void **from, void *to);
asm(".text\n"
    ".globl cuo_switch\n"
    ".type cuo_switch,@function\n"
    "cuo_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp,(%rdi)\n"
    "  mov %rsi,%rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  pop %rcx\n"
    "  jmp *%rcx\n"
    ".size cuo_switch,.-cuo_switch\n");
static inline void switch_stack(Fiber *from, Fiber *to)
{
    cuo_switch(&from->sp, to->sp);
}
#else
static inline void switch_stack(Fiber *from, Fiber *to)
{
    swapcontext((ucontext_t *)from->sp, (ucontext_t *)to->sp);
}
#endif

#if defined(__SANITIZE_ADDRESS__)
static Fiber *came_from;

/* The stack of the host thread is known only once it has been left. */
static inline void arrived(void *fake_stack)
{
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    if (came_from == &host) {
        host.stack = const_cast<void *>(bottom);
        host.stack_bytes = bytes;
    }
}
#else
static inline void arrived(void *)
{
}
#endif

static inline void switch_to(Fiber *to)
{
    Fiber *from = cur;
    if (from == to)
        return;
    cur = to;
    tsan_become(to->tsan);
#if defined(__SANITIZE_ADDRESS__)
    came_from = from;
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    switch_stack(from, to);
    arrived(from->fake_stack);
}

static inline void wake(Warp *w, unsigned lanes)
{
    w->ready |= lanes;
    ready_warps |= 1u << (w - warps);
}

static inline unsigned nth_bit(unsigned bits, unsigned n)
{
    while (n--)
        bits &= bits - 1;
    return (unsigned)__builtin_ctz(bits);
}

/* The next lane of those that can run; NULL: none can. */
static inline Fiber *pick(Warp *mine)
{
    if (!ready_warps)
        return nullptr;
    Warp *w = mine;
    unsigned lane;
    if (settings.order == RANDOM) {
        w = &warps[nth_bit(ready_warps, draw((unsigned)__builtin_popcount(ready_warps)))];
        lane = nth_bit(w->ready, draw((unsigned)__builtin_popcount(w->ready)));
    } else if (settings.order == REVERSE) {
        if (!w || !w->ready)
            w = &warps[31 - __builtin_clz(ready_warps)];
        lane = 31 - (unsigned)__builtin_clz(w->ready);
    } else {
        if (!w || !w->ready)
            w = &warps[__builtin_ctz(ready_warps)];
        lane = (unsigned)__builtin_ctz(w->ready);
    }
    w->ready &= ~(1u << lane);
    if (!w->ready)
        ready_warps &= ~(1u << (w - warps));
    return w->lane[lane];
}

[[noreturn]] static void deadlock()
{
    const Fiber *last = nullptr;
    int shown = 0;
    fprintf(stderr, "cuo: %s: deadlock in block %u,%u,%u: %d of %d threads have not returned\n",
        kernel->name, block_index.x, block_index.y, block_index.z, alive, threads);
    for (int i = 0; i < threads && shown < 8; i++) {
        const Fiber *f = pool[i];
        if (f->state == DONE || (last && last->line == f->line && last->file == f->file))
            continue;
        fprintf(stderr, "  from thread %d on: waits in %s at %s:%d\n", i, f->op, f->file, f->line);
        last = f;
        shown++;
    }
    cur = nullptr;
    die("a barrier that not all reach, or lanes that a mask names and that do not come");
}

/* Nobody can go on: wakes those who would not wait forever. */
static bool wake_dozers()
{
    bool any = false;
    for (int i = 0; i < threads; i++)
        if (pool[i]->state == ASLEEP && pool[i]->dozes) {
            pool[i]->state = READY;
            wake(pool[i]->warp, 1u << pool[i]->lane);
            any = true;
        }
    return any;
}

static inline void next()
{
    Fiber *f = pick(cur->warp);
    if (!f && alive && wake_dozers())
        f = pick(cur->warp);
    if (!f) {
        if (alive)
            deadlock();
        f = &host;
    }
    switch_to(f);
}

/* ---- the block ---- */

static void open_barrier()
{
    bar.result = bar.votes;
    bar.votes = bar.waiting = 0;
    for (int i = 0; i < threads; i++)
        if (pool[i]->state == IN_BARRIER) {
            pool[i]->state = READY;
            wake(pool[i]->warp, 1u << pool[i]->lane);
        }
}

int barrier(int predicate, Vote vote, const char *file, int line)
{
    Fiber *me = cur;
    if (!bar.waiting) {
        bar.file = file;
        bar.line = line;
    } else if (bar.line != line || strcmp(bar.file, file) != 0)
        die("%s:%d: __syncthreads while others of the block wait in that of %s:%d", file, line,
            bar.file, bar.line);
    me->op = "__syncthreads";
    me->file = file;
    me->line = line;
    me->state = IN_BARRIER;
    bar.waiting++;
    bar.votes += predicate != 0;
    int all = alive;
    tsan_release(&sync_of->barrier[sync_set]);
    if (bar.waiting == alive)
        open_barrier();
    next();
    tsan_acquire(&sync_of->barrier[sync_set]);
    return vote == VOTE_COUNT ? bar.result : vote == VOTE_OR ? bar.result > 0 : bar.result == all;
}

/* Waits for whoever calls wake_up(what). */
void fall_asleep(const void *what, const char *op, const char *file, int line)
{
    Fiber *me = cur;
    me->op = op;
    me->file = file;
    me->line = line;
    me->args = const_cast<void *>(what);
    me->state = ASLEEP;
    next();
}

/* The same, or until nobody else can go on. */
void doze(const void *what, const char *op, const char *file, int line)
{
    cur->dozes = true;
    fall_asleep(what, op, file, line);
    cur->dozes = false;
}

void wake_up(const void *what)
{
    for (int i = 0; i < threads; i++)
        if (pool[i]->state == ASLEEP && pool[i]->args == what) {
            pool[i]->state = READY;
            wake(pool[i]->warp, 1u << pool[i]->lane);
        }
}

/* Orders as a release and an acquire of one object: more than a fence promises to a reader that saw
 * nothing, and less than TSan needs to know of flags in memory. */
void fence()
{
    static char sync;
    tsan_release(&sync);
    tsan_acquire(&sync);
}

/* ---- the warp ---- */

static Group *find_group(Warp *w, unsigned mask)
{
    for (int i = 0; i < w->groups; i++)
        if (w->group[i].mask == mask)
            return &w->group[i];
    return nullptr;
}

static Group *open_group(Warp *w, unsigned mask, const char *op, const char *file, int line)
{
    if (mask & ~w->exists)
        die("%s:%d: %s: mask %08x names lanes that do not exist (%08x do)", file, line, op, mask,
            w->exists);
    if (mask & w->gone)
        die("%s:%d: %s: mask %08x names lanes that have returned (%08x)", file, line, op, mask,
            w->gone);
    Group *g = &w->group[w->groups++];
    *g = Group{mask, 0, op};
    return g;
}

void collect(const char *op, unsigned mask, void *args, Collective f, const char *file, int line)
{
    Fiber *me = cur;
    Warp *w = me->warp;
    unsigned bit = 1u << me->lane;
    if (!(mask & bit))
        die("%s:%d: %s: lane %d is not in its mask %08x", file, line, op, me->lane, mask);
    me->args = args;
    me->op = op;
    me->file = file;
    me->line = line;
    Group *g = find_group(w, mask);
    if (!g)
        g = open_group(w, mask, op, file, line);
    else if (g->op != op && strcmp(g->op, op) != 0)
        die("%s:%d: %s: other lanes of mask %08x are in %s", file, line, op, mask, g->op);
    void *sync = &sync_of->warp[sync_set][w - warps];
    bool alone = mask == bit;
    if (!alone)
        tsan_release(sync);
    g->came |= bit;
    if (g->came == mask) {
        *g = w->group[--w->groups];
        f(w->lane, mask);
        if (!alone)
            wake(w, mask & ~bit);
    } else {
        me->state = IN_COLLECTIVE;
        next();
        me->state = READY;
    }
    if (!alone)
        tsan_acquire(sync);
}

/* ---- cp.async ---- */

bool copies_early()
{
    return settings.order == REVERSE || (settings.order == RANDOM && draw(2));
}

template <class T> static void grow(T **list, int *room, int need)
{
    if (need <= *room)
        return;
    *room = need * 2;
    tsan_ignore(true);
    *list = (T *)realloc(*list, (size_t)*room * sizeof **list);
    tsan_ignore(false);
    if (!*list)
        die("no memory");
}

void copy_queue(void *to, const void *from, unsigned bytes, unsigned valid)
{
    Fiber *f = cur;
    grow(&f->copies, &f->room_copies, f->n_copies + 1);
    f->copies[f->n_copies++] = Copy{to, from, bytes, valid};
}

void copy_commit()
{
    Fiber *f = cur;
    grow(&f->groups, &f->room_groups, f->n_groups + 1);
    f->groups[f->n_groups++] = f->n_copies;
}

/* How many copies must land so that at most `groups` committed groups are left; -1: all copies,
 * committed or not. */
int copies_before_last(int groups)
{
    Fiber *f = cur;
    int done = groups < 0 ? f->n_groups : f->n_groups - groups;
    if (done <= 0)
        return groups < 0 ? f->n_copies : 0;
    int n = groups < 0 ? f->n_copies : f->groups[done - 1];
    for (int i = done; i < f->n_groups; i++)
        f->groups[i - done] = f->groups[i] - n;
    f->n_groups -= done;
    return n;
}

Copy copy_take()
{
    Fiber *f = cur;
    Copy c = f->copies[0];
    f->n_copies--;
    memmove(f->copies, f->copies + 1, (size_t)f->n_copies * sizeof *f->copies);
    return c;
}

/* ---- fibers ---- */

static void entry()
{
    arrived(nullptr);
    for (;;) {
        tsan_acquire(&sync_of->start);
        (*kernel->thread)();
        Fiber *me = cur;
        if (me->n_copies)
            die("a thread returns while its cp.async are pending");
        me->n_groups = 0;
        Warp *w = me->warp;
        for (int i = 0; i < w->groups; i++)
            if (w->group[i].mask >> me->lane & 1)
                die("lane %d returns while others wait for it in %s", me->lane, w->group[i].op);
        w->gone |= 1u << me->lane;
        tsan_release(&sync_of->end);
        me->state = DONE;
        me->op = "nothing";
        alive--;
        if (alive && bar.waiting == alive)
            open_barrier();
        next();
    }
}

static Fiber *new_fiber(int id)
{
    tsan_ignore(true); /* other contexts will read it */
    Fiber *f = (Fiber *)calloc(1, sizeof *f);
    tsan_ignore(false);
    if (!f)
        die("no memory");
    f->id = id;
    f->lane = id % 32;
    f->warp = &warps[id / 32];
    f->tsan = tsan_new_context();
    f->stack_bytes = STACK_BYTES;
    char *s = (char *)mmap(nullptr, STACK_BYTES + 4096, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s == MAP_FAILED || mprotect(s, 4096, PROT_NONE))
        die("no memory for stacks");
    f->stack = s + 4096;
#if defined(__x86_64__)
    /* Tops at one offset in their pages would share a few sets of the cache. */
    void **sp = (void **)(s + 4096 + STACK_BYTES - (size_t)(id % 61) * 832);
    *--sp = nullptr;
    *--sp = (void *)entry;
    sp -= 6;
    f->sp = sp;
#else
    ucontext_t *u = (ucontext_t *)calloc(1, sizeof *u);
    getcontext(u);
    u->uc_stack.ss_sp = f->stack;
    u->uc_stack.ss_size = STACK_BYTES;
    makecontext(u, entry, 0);
    f->sp = u;
#endif
    return f;
}

/* ---- shared memory: allocated by the hardware, not by a thread ---- */

static struct {
    const void *key;
    void *p;
    size_t bytes;
} shared_blocks[64];
static int n_shared;
static size_t static_shared_bytes;
static void *dynamic_shared;

static void *fresh_shared(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, bytes >= 1024 ? 1024 : 16, bytes))
        die("no memory");
    memset(p, 0xff, bytes); /* as uninitialised as on a GPU: NaN, -1 */
    return p;
}

static void *new_shared(const void *key, size_t bytes)
{
    if (n_shared == 64)
        die("more than 64 shared variables");
    static_shared_bytes += bytes;
    if (static_shared_bytes > STATIC_SHARED_BYTES)
        die("more than 48 KiB of static shared memory");
    tsan_become(sync_of->reaper);
    tsan_ignore(true);
    void *p = fresh_shared(bytes);
    tsan_ignore(false);
    tsan_become(cur->tsan);
    shared_blocks[n_shared].key = key;
    shared_blocks[n_shared].bytes = bytes;
    shared_blocks[n_shared++].p = p;
    return p;
}

void *shared(const void *key, size_t bytes)
{
    for (int i = 0; i < n_shared; i++)
        if (shared_blocks[i].key == key)
            return shared_blocks[i].p;
    return new_shared(key, bytes);
}

void *shared_dynamic()
{
    if (!dynamic_shared)
        die("dynamic shared memory, but the launch asks for none");
    return dynamic_shared;
}

/* ---- grids ---- */

TsanThreads *tsan_threads_new()
{
    TsanThreads *t = (TsanThreads *)calloc(1, sizeof *t);
    if (!t)
        die("no memory");
    t->reaper = tsan_new_context();
    return t;
}

static void start_block()
{
    n_shared = 0;
    static_shared_bytes = 0;
    alive = threads;
    memset(&bar, 0, sizeof bar);
    ready_warps = 0;
    for (int w = 0; w * 32 < threads; w++) {
        int lanes = threads - w * 32 < 32 ? threads - w * 32 : 32;
        warps[w].exists = lanes == 32 ? ~0u : (1u << lanes) - 1;
        warps[w].gone = 0;
        warps[w].groups = 0;
        warps[w].ready = 0;
        wake(&warps[w], warps[w].exists);
    }
    for (int i = 0; i < threads; i++)
        pool[i]->state = READY;
}

static void run_block()
{
    tsan_ignore(true);
    dynamic_shared = kernel->shared_bytes ? fresh_shared(kernel->shared_bytes) : nullptr;
    tsan_ignore(false);
    tsan_release(&sync_of->start);
    start_block();
    cur = &host;
    host.warp = nullptr;
    switch_to(pick(nullptr));
    /* Frees after every thread of the block, without ordering the next block's threads after them.
     */
    tsan_become(sync_of->reaper);
    tsan_acquire(&sync_of->end);
    tsan_ignore(true);
    free(dynamic_shared);
    dynamic_shared = nullptr;
    while (n_shared)
        free(shared_blocks[--n_shared].p);
    tsan_ignore(false);
    tsan_become(host.tsan);
}

static void prepare_fibers(const Kernel &k)
{
    threads = (int)(k.block.x * k.block.y * k.block.z);
    pool = k.tsan->fiber;
    for (; k.tsan->fibers < threads; k.tsan->fibers++)
        pool[k.tsan->fibers] = new_fiber(k.tsan->fibers);
    for (int i = 0; i < threads; i++) {
        unsigned u = (unsigned)i;
        pool[i]->tid = uint3{u % k.block.x, u / k.block.x % k.block.y, u / (k.block.x * k.block.y)};
        pool[i]->warp->lane[pool[i]->lane] = pool[i];
    }
    host.tsan = tsan_current();
#if !defined(__x86_64__)
    static ucontext_t host_context;
    host.sp = &host_context;
#endif
}

/* The i-th of n blocks in this order. */
static uint64_t block_at(uint64_t i, uint64_t n, uint64_t step, uint64_t first)
{
    switch (settings.order) {
    case FORWARD:
        return i;
    case REVERSE:
        return n - 1 - i;
    default:
        return (uint64_t)(((unsigned __int128)i * step + first) % n);
    }
}

static uint64_t coprime_step(uint64_t n)
{
    for (;;) {
        uint64_t step = 1 + draw(1u << 20), a = step, b = n;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1)
            return step;
    }
}

void run_grid(const Kernel &k)
{
    kernel = &k;
    sync_of = k.tsan;
    grid_dim = k.grid;
    block_dim = k.block;
    prepare_fibers(k);
    uint64_t n = (uint64_t)k.grid.x * k.grid.y * k.grid.z;
    uint64_t step = settings.order == RANDOM ? coprime_step(n) : 1, first = draw(1u << 20);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t b = block_at(i, n, step, first);
        block_index = uint3{(unsigned)(b % k.grid.x), (unsigned)(b / k.grid.x % k.grid.y),
            (unsigned)(b / ((uint64_t)k.grid.x * k.grid.y))};
        sync_set = (unsigned)(i % SYNC_SETS);
        run_block();
    }
    tsan_acquire(&sync_of->end);
    cur = nullptr;
    counts.kernels++;
}

/* ---- arithmetic with a direction ---- */

namespace directed
{

static double rounding(Round r, double (*f)(const double *), const double *v)
{
    static const int mode[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
    int old = fegetround();
    fesetround(mode[r]);
    double out = f(v);
    fesetround(old);
    return out;
}

/* volatile: computed between the changes of mode, never folded. */
#define CUO_DIRECTED(expression)                                                                   \
    [](const double *v) -> double {                                                                \
        volatile double a = v[0], b = v[1], c = v[2];                                              \
        (void)b, (void)c;                                                                          \
        volatile double out = expression;                                                          \
        return out;                                                                                \
    }

double d_add(double a, double b, Round r)
{
    double v[3] = {a, b, 0};
    return rounding(r, CUO_DIRECTED(a + b), v);
}
double d_mul(double a, double b, Round r)
{
    double v[3] = {a, b, 0};
    return rounding(r, CUO_DIRECTED(a * b), v);
}
double d_div(double a, double b, Round r)
{
    double v[3] = {a, b, 0};
    return rounding(r, CUO_DIRECTED(a / b), v);
}
double d_fma(double a, double b, double c, Round r)
{
    double v[3] = {a, b, c};
    return rounding(r, CUO_DIRECTED(__builtin_fma(a, b, c)), v);
}
double d_sqrt(double a, Round r)
{
    double v[3] = {a, 0, 0};
    return rounding(r, CUO_DIRECTED(__builtin_sqrt(a)), v);
}
float f_add(float a, float b, Round r)
{
    double v[3] = {a, b, 0};
    return (float)rounding(r, CUO_DIRECTED((float)a + (float)b), v);
}
float f_mul(float a, float b, Round r)
{
    double v[3] = {a, b, 0};
    return (float)rounding(r, CUO_DIRECTED((float)a * (float)b), v);
}
float f_div(float a, float b, Round r)
{
    double v[3] = {a, b, 0};
    return (float)rounding(r, CUO_DIRECTED((float)a / (float)b), v);
}
float f_fma(float a, float b, float c, Round r)
{
    double v[3] = {a, b, c};
    return (float)rounding(r, CUO_DIRECTED(__builtin_fmaf((float)a, (float)b, (float)c)), v);
}
float f_sqrt(float a, Round r)
{
    double v[3] = {a, 0, 0};
    return (float)rounding(r, CUO_DIRECTED(__builtin_sqrtf((float)a)), v);
}
float f_from_d(double a, Round r)
{
    double v[3] = {a, 0, 0};
    return (float)rounding(r, CUO_DIRECTED((float)a), v);
}
double to_integer(double a, Round r)
{
    double v[3] = {a, 0, 0};
    return rounding(r, CUO_DIRECTED(__builtin_nearbyint(a)), v);
}

template <class T, class I> static T from_integer(I i, Round r)
{
    static const int mode[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
    int old = fegetround();
    fesetround(mode[r]);
    volatile I in = i;
    volatile T out = (T)in;
    fesetround(old);
    return out;
}
double d_from_ll(long long i, Round r)
{
    return from_integer<double>(i, r);
}
double d_from_ull(unsigned long long i, Round r)
{
    return from_integer<double>(i, r);
}
float f_from_ll(long long i, Round r)
{
    return from_integer<float>(i, r);
}
float f_from_ull(unsigned long long i, Round r)
{
    return from_integer<float>(i, r);
}

} // namespace directed

void seed_draws(uint32_t seed)
{
    random_state = seed * 2654435761u + 12345;
}

} // namespace cuo
