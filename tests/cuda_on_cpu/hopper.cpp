/* Hopper's copies, barriers and matrix unit on a CPU: see include/cuo_hopper.h. */
#include "cuo_internal.h"

#include "include/cuda_fp16.h"
#include "include/cuo_hopper.h"

#include <deque>
#include <vector>

namespace cuo
{

void fall_asleep(const void *what, const char *op, const char *file, int line); /* fibers.cpp */
void doze(const void *what, const char *op, const char *file, int line);
void wake_up(const void *what);

/* Shared memory begins at an odd multiple of 16: alignment is the kernel's business. */
static const uint32_t BEGINNING = 1040;
enum { BOX_BYTES = 128, BOX_ROWS = 128, BARS = 16, GROUP = 128, COLUMNS = 128 };

uint32_t shared_address(const void *p)
{
    return (uint32_t)((const char *)p - (const char *)shared_dynamic()) + BEGINNING;
}

static unsigned char *at_address(uint32_t address)
{
    return (unsigned char *)shared_dynamic() + (address - BEGINNING);
}

/* What SWIZZLE_128B does to an address: chunks of 16 bytes by rows of 128. */
static uint32_t exchanged(uint32_t address)
{
    return address ^ (((address >> 7) & 7) << 4);
}

/* While it lives, accesses are the layer's own. */
struct Bookkeeping {
    Bookkeeping()
    {
        tsan_ignore(true);
    }
    ~Bookkeeping()
    {
        tsan_ignore(false);
    }
};

/* ---- mbarriers ---- */

struct Landing {
    unsigned char *to;
    fkm_tensor_map map; /* a copy: its thread may be gone by then; without base: bytes of `from` */
    const void *from;
    int32_t byte, row;
    unsigned bytes;
    fkm_mbarrier *barrier;
};
static std::deque<Landing> in_flight;

static struct {
    int came;
    unsigned opened;
} bars[BARS];

void mbarrier_init(fkm_mbarrier *b, unsigned arrivals)
{
    if (!in_flight.empty())
        die("a block has ended before its copies have");
    *b = {(uint8_t)arrivals, (uint8_t)arrivals, 0, 0, 0};
}

void mbarriers_ready()
{
    for (int i = 0; i < BARS; i++)
        if (bars[i].came)
            die("a block has ended with %d threads at barrier %d", bars[i].came, i);
}

static void complete(fkm_mbarrier *b)
{
    fence(); /* what has landed is seen by who waits */
    if (b->missing || b->bytes)
        return;
    b->missing = b->arrivals;
    b->phase ^= 1;
    wake_up(b);
}

void mbarrier_arrive(fkm_mbarrier *b, unsigned bytes)
{
    if (!b->missing)
        die("an mbarrier is arrived at more than %d times a phase", b->arrivals);
    b->bytes += (int32_t)bytes;
    b->missing--;
    complete(b);
}

static void land_box(const Landing &l)
{
    uint32_t to = shared_address(l.to);
    if (to % 1024)
        die("a box at %u, which is no multiple of 1024", to);
    for (int r = 0; r < BOX_ROWS; r++)
        for (int i = 0; i < BOX_BYTES; i++) {
            int64_t row = (int64_t)l.row + r, byte = (int64_t)l.byte + i;
            bool inside = row < l.map.rows && byte < l.map.row_bytes;
            *at_address(exchanged(to + (uint32_t)(r * BOX_BYTES + i))) =
                inside ? l.map.base[row * l.map.row_bytes + byte] : 0;
        }
}

static Landing take_landing()
{
    Bookkeeping ours;
    Landing l = in_flight.front();
    in_flight.pop_front();
    return l;
}

static void land_one()
{
    fence(); /* after all that was done before it was queued */
    const Landing l = take_landing();
    if (l.map.base)
        land_box(l);
    else
        memcpy(l.to, l.from, l.bytes);
    l.barrier->bytes -= (int32_t)l.bytes;
    if (l.barrier->bytes < 0)
        die("more bytes land at an mbarrier than it expects");
    complete(l.barrier);
}

static void queue_landing(const Landing &l)
{
    fence();
    {
        Bookkeeping ours;
        if (settings.order == RANDOM && draw(2))
            in_flight.push_front(l); /* no order among copies */
        else
            in_flight.push_back(l);
    }
    if (copies_early())
        land_one();
    wake_up(l.barrier); /* who waits for it lands it */
}

void load_box(void *to, const fkm_tensor_map *map, int32_t byte, int32_t row, fkm_mbarrier *b)
{
    queue_landing({(unsigned char *)to, *map, nullptr, byte, row, BOX_BYTES * BOX_ROWS, b});
}

void load_bytes(void *to, const void *from, unsigned bytes, fkm_mbarrier *b)
{
    if (((uintptr_t)from | shared_address(to) | bytes) % 16)
        die("a bulk copy of %u bytes is not aligned to 16", bytes);
    queue_landing({(unsigned char *)to, fkm_tensor_map(), from, 0, 0, bytes, b});
}

void mbarrier_wait(fkm_mbarrier *b, unsigned parity, const char *file, int line)
{
    while ((b->phase & 1) == parity) {
        if (!in_flight.empty())
            land_one();
        else
            fall_asleep(b, "mbarrier wait", file, line);
    }
    fence();
}

bool mbarrier_try(fkm_mbarrier *b, unsigned parity, const char *file, int line)
{
    while ((b->phase & 1) == parity && !in_flight.empty())
        land_one();
    if ((b->phase & 1) == parity)
        doze(b, "mbarrier wait", file, line);
    fence();
    return (b->phase & 1) != parity;
}

/* ---- barriers of some warps ---- */

void bar(int id, int count, bool wait, const char *file, int line)
{
    auto &b = bars[id];
    unsigned before = b.opened;
    fence();
    if (++b.came == count) {
        b.came = 0;
        b.opened++;
        wake_up(&b);
    }
    while (wait && b.opened == before)
        fall_asleep(&b, "bar.sync", file, line);
    fence();
}

/* ---- wgmma: each thread its own part of the tile ---- */

struct Multiply {
    void *d;
    uint64_t a, b;
    Product product;
    int group;
};
static struct {
    std::vector<Multiply> queue;
    int committed; /* groups */
} units[1024];

static const unsigned char *operand(uint64_t descriptor, int row, int byte)
{
    uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4;
    uint32_t stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
        die("a descriptor of another layout than 128-byte rows: %016llx",
            (unsigned long long)descriptor);
    return at_address(
        exchanged(start + (uint32_t)(row / 8) * stride + (uint32_t)(row % 8 * BOX_BYTES + byte)));
}

static double element(uint64_t descriptor, int row, int k, Product p)
{
    const unsigned char *at = operand(descriptor, row, p == PRODUCT_S8 ? k : 2 * k);
    uint16_t bits;
    if (p == PRODUCT_S8)
        return (int8_t)*at;
    memcpy(&bits, at, sizeof bits);
    return p == PRODUCT_F16 ? __half2float(__ushort_as_half(bits))
                            : bit_cast<float>((uint32_t)bits << 16);
}

static void multiply(const Multiply &m)
{
    const int t = cur->id % GROUP, depth = m.product == PRODUCT_S8 ? 32 : 16;
    double row[2][32];
    for (int h = 0; h < 2; h++)
        for (int k = 0; k < depth; k++)
            row[h][k] = element(m.a, t / 32 * 16 + h * 8 + t % 32 / 4, k, m.product);
    for (int i = 0; i < COLUMNS / 4; i++) {
        const int column = i / 2 * 8 + t % 4 * 2 + i % 2;
        double sum[2] = {0, 0};
        for (int k = 0; k < depth; k++) {
            double v = element(m.b, column, k, m.product);
            sum[0] += row[0][k] * v;
            sum[1] += row[1][k] * v;
        }
        for (int h = 0; h < 2; h++) {
            int at = i / 2 * 4 + h * 2 + i % 2;
            if (m.product == PRODUCT_S8)
                ((int *)m.d)[at] += (int)sum[h];
            else
                ((float *)m.d)[at] = (float)(((float *)m.d)[at] + sum[h]);
        }
    }
}

void wgmma(void *d, uint64_t a, uint64_t b, Product p)
{
    Bookkeeping ours;
    units[cur->id].queue.push_back({d, a, b, p, units[cur->id].committed});
}

static void finish(int before)
{
    auto &u = units[cur->id];
    size_t done = 0;
    while (done < u.queue.size() && u.queue[done].group < before)
        multiply(u.queue[done++]);
    Bookkeeping ours;
    u.queue.erase(u.queue.begin(), u.queue.begin() + (long)done);
}

void wgmma_commit()
{
    auto &u = units[cur->id];
    u.committed++;
    if (copies_early())
        finish(u.committed);
}

void wgmma_wait(int groups)
{
    finish(units[cur->id].committed - groups);
}

} // namespace cuo
