/* What is queued on streams, and when it runs: as late as a wait allows (lazy), at once (eager),
 * either kernels or copies at once and the others late, or anything in between (random). */
#include "cuo_runtime.h"

#include <algorithm>
#include <stdio.h>
#include <time.h>

namespace cuo
{

static thread_local bool in_host_function;

/* ---- operations ---- */

OpRef new_op(const char *name, Kind kind, std::function<void(cuo_stream *)> run)
{
    OpRef op = std::make_shared<Op>();
    op->name = name;
    op->kind = kind;
    op->run = std::move(run);
    op->stream = nullptr;
    op->done = false;
    op->host_from = op->host_to = nullptr;
    op->seconds = 0;
    return op;
}

static double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_body(cuo_stream *s, const Op &op)
{
    if (settings.trace)
        fprintf(stderr, "cuo: device %d stream %td: %s\n", s->device,
            std::find(streams.begin(), streams.end(), s) - streams.begin(), op.name.c_str());
    if (op.kind == OP_KERNEL && settings.fail_kernel &&
        counts.kernels + 1 == settings.fail_kernel) {
        counts.kernels++;
        devices[s->device].lost = settings.fail_code;
        return;
    }
    op.run(s);
}

/* Runs the first operation of the stream; what it comes after is done. */
static void run_head(cuo_stream *s)
{
    OpRef op = s->queue.front();
    s->queue.pop_front();
    if (!devices[s->device].lost) {
        void *host = tsan_current();
        tsan_become(s->context);
        tsan_acquire(&op->sync);
        for (const OpRef &before : op->after)
            tsan_acquire(&before->sync);
        run_body(s, *op);
        tsan_release(&op->sync);
        tsan_become(host);
    }
    op->seconds = now();
    op->done = true;
    op->run = nullptr;
    op->after.clear();
}

static bool head_ready(const cuo_stream *s)
{
    if (s->queue.empty())
        return false;
    for (const OpRef &before : s->queue.front()->after)
        if (!before->done)
            return false;
    return true;
}

static void run_any()
{
    std::vector<cuo_stream *> ready;
    for (cuo_stream *s : streams)
        if (head_ready(s))
            ready.push_back(s);
    if (!ready.empty())
        run_head(ready[draw((unsigned)ready.size())]);
}

static void run_until(const OpRef &op)
{
    while (!op->done) {
        if (settings.streams == RANDOM_STREAMS) {
            run_any();
            continue;
        }
        cuo_stream *s = op->stream;
        std::vector<OpRef> before = s->queue.front()->after;
        for (const OpRef &b : before)
            run_until(b);
        run_head(s);
    }
}

void wait_op(const OpRef &op)
{
    if (!op)
        return;
    if (in_host_function)
        die("a host function on a stream may not call CUDA");
    run_until(op);
    tsan_acquire(&op->sync);
}

void wait_stream(cuo_stream *s)
{
    wait_op(s->last);
}

void wait_device(int device)
{
    std::vector<cuo_stream *> all = streams;
    for (cuo_stream *s : all)
        if (s->device == device)
            wait_stream(s);
}

void drop_all(int device)
{
    for (cuo_stream *s : streams)
        if (s->device == device)
            for (; !s->queue.empty(); s->queue.pop_front())
                s->queue.front()->done = true;
}

void check_not_pending(const char *from, const char *to)
{
    for (const cuo_stream *s : streams)
        for (const OpRef &op : s->queue)
            if (!devices[s->device].lost && op->host_from < to && from < op->host_to)
                die("pinned memory is released while a %s that uses it is pending",
                    op->name.c_str());
}

/* ---- streams ---- */

/* Of streams that are no more: TSan has room for some thousand contexts. */
static std::vector<std::pair<void *, TsanThreads *>> &spare =
    *new std::vector<std::pair<void *, TsanThreads *>>;

cuo_stream *new_stream(int device, bool blocking)
{
    cuo_stream *s = new cuo_stream();
    s->device = device;
    s->blocking = blocking;
    s->capture = nullptr;
    if (spare.empty())
        spare.push_back({tsan_new_context(), tsan_threads_new()});
    s->context = spare.back().first;
    s->threads = spare.back().second;
    spare.pop_back();
    streams.push_back(s);
    return s;
}

static void delete_stream(cuo_stream *s)
{
    spare.push_back({s->context, s->threads});
    delete s;
}

cuo_stream *stream_of(cudaStream_t s)
{
    if (!s)
        return devices[current_device].legacy;
    if (std::find(streams.begin(), streams.end(), s) == streams.end())
        die("%p is not a stream", (void *)s);
    return s;
}

bool is_capturing(int device)
{
    for (const cuo_stream *s : streams)
        if (s->device == device && s->capture)
            return true;
    return false;
}

/* By a capture of mode ThreadLocal only the thread that began it, by a Global one all. */
bool capture_forbids(int device)
{
    for (const cuo_stream *s : streams)
        if (s->device == device && s->capture && s->mode != cudaStreamCaptureModeRelaxed &&
            (s->mode == cudaStreamCaptureModeGlobal || s->thread == std::this_thread::get_id()))
            return true;
    return false;
}

void streams_reset()
{
    for (cuo_stream *s : streams)
        delete_stream(s);
    streams.clear();
    for (Device &d : devices)
        d = Device();
}

static cudaError_t record_node(cuo_stream *s, const OpRef &op)
{
    s->capture->nodes.push_back(cuo_graph::Node{op, s->tail});
    s->tail.assign(1, (int)s->capture->nodes.size() - 1);
    return cudaSuccess;
}

/* The legacy default stream waits for the blocking ones of its device, and they for it. */
static void order_with_legacy(cuo_stream *s, const OpRef &op)
{
    cuo_stream *legacy = devices[s->device].legacy;
    if (!s->blocking)
        return;
    if (s != legacy) {
        if (legacy->last)
            op->after.push_back(legacy->last);
        return;
    }
    for (cuo_stream *other : streams)
        if (other != s && other->device == s->device && other->blocking && other->last)
            op->after.push_back(other->last);
}

/* Neither a copy nor an event. */
static bool is_work(const Op &op)
{
    return op.kind != OP_COPY && op.kind != OP_EVENT;
}

cudaError_t enqueue(cuo_stream *s, const OpRef &op)
{
    if (in_host_function)
        die("a host function on a stream may not call CUDA");
    if (s == devices[s->device].legacy && is_capturing(s->device))
        return cudaErrorStreamCaptureImplicit;
    op->stream = s;
    if (s->capture)
        return record_node(s, op);
    order_with_legacy(s, op);
    tsan_release(&op->sync);
    s->queue.push_back(op);
    s->last = op;
    if (settings.streams == EAGER || (settings.streams == KERNELS_FIRST && is_work(*op)))
        run_until(op);
    else if (settings.streams == COPIES_FIRST)
        while (head_ready(s) && !is_work(*s->queue.front()))
            run_head(s);
    else if (settings.streams == RANDOM_STREAMS)
        for (unsigned n = draw(4); n > 1; n--)
            run_any();
    return cudaSuccess;
}

/* ---- kernels and tasks ---- */

static cudaError_t check_launch(const char *name, const void *kernel, const Config &c)
{
    uint64_t threads = (uint64_t)c.block.x * c.block.y * c.block.z;
    if (!threads || threads > 1024 || c.block.z > 64 || !c.grid.x || !c.grid.y || !c.grid.z ||
        c.grid.x > 0x7fffffff || c.grid.y > 65535 || c.grid.z > 65535) {
        fprintf(stderr, "cuo: %s: a grid of %u,%u,%u blocks of %u,%u,%u threads\n", name, c.grid.x,
            c.grid.y, c.grid.z, c.block.x, c.block.y, c.block.z);
        return cudaErrorInvalidConfiguration;
    }
    if (c.shared_bytes > (size_t)attribute_shared(kernel)) {
        fprintf(stderr, "cuo: %s: %zu bytes of dynamic shared memory, allowed are %d\n", name,
            c.shared_bytes, attribute_shared(kernel));
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

void enqueue_kernel(const char *name, const void *kernel, const Config &c,
    const std::function<void()> &thread, size_t parameter_bytes)
{
    Call call("a launch");
    if (call.error)
        return;
    if (parameter_bytes > 4096)
        die("%s: %zu bytes of parameters", name, parameter_bytes);
    cuo_stream *s = stream_of(c.stream);
    cudaError_t e = s->device != current_device ? cudaErrorInvalidResourceHandle
                                                : check_launch(name, kernel, c);
    if (!e) {
        std::string text = name;
        e = enqueue(s, new_op(name, OP_KERNEL, [text, c, thread](cuo_stream *on) {
            open_memory(on->device);
            run_grid(Kernel{text.c_str(), c.grid, c.block, c.shared_bytes, &thread, on->threads});
        }));
    }
    call.end(e);
}

void enqueue_task(const char *name, cudaStream_t stream, const std::function<void()> &task)
{
    Call call(name);
    if (call.error)
        return;
    cuo_stream *s = stream_of(stream);
    call.end(enqueue(s, new_op(name, OP_TASK, [task](cuo_stream *on) {
        open_memory(on->device);
        task();
    })));
}

/* ---- copies ---- */

struct Transfer {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, height;
};

static void check_range(const char *name, const Block *b, const char *p, size_t bytes)
{
    if (b && p + bytes > b->p + b->bytes)
        die("%s: %zu bytes at %zu of a block of %zu", name, bytes, (size_t)(p - b->p), b->bytes);
}

static bool on_device(const Block *b)
{
    return b && b->device >= 0;
}

static void check_direction(
    const char *name, const Block *to, const Block *from, enum cudaMemcpyKind kind)
{
    int actual = (on_device(from) ? 2 : 0) + (on_device(to) ? 1 : 0);
    if (kind != cudaMemcpyDefault && (int)kind != actual)
        die("%s: the kind says %d, the pointers %d (0 host to host, 1 to device, 2 to host, 3 on "
            "the device)",
            name, (int)kind, actual);
}

static void move_bytes(const Transfer &t)
{
    open_block(find_block(t.to));
    open_block(find_block(t.from));
    for (size_t y = 0; y < t.height; y++)
        memmove(t.to + y * t.to_pitch, t.from + y * t.from_pitch, t.width);
    counts.copies++;
}

static size_t extent(size_t pitch, size_t width, size_t height)
{
    return (height - 1) * pitch + width;
}

static cudaError_t queue_transfer(
    const char *name, const Transfer &t, enum cudaMemcpyKind kind, cudaStream_t stream, bool wait)
{
    Call call(name);
    if (call.error)
        return call.error;
    if (!t.width || !t.height)
        return cudaSuccess;
    if (t.height > 1 && (t.to_pitch < t.width || t.from_pitch < t.width))
        return call.end(cudaErrorInvalidValue);
    cuo_stream *s = stream_of(stream);
    const Block *to = find_block(t.to), *from = find_block(t.from);
    size_t to_bytes = extent(t.to_pitch, t.width, t.height);
    size_t from_bytes = extent(t.from_pitch, t.width, t.height);
    check_range(name, to, t.to, to_bytes);
    check_range(name, from, t.from, from_bytes);
    check_direction(name, to, from, kind);
    if (on_device(to) != on_device(from))
        counts.copied_bytes += (int64_t)(t.width * t.height);
    bool pageable = !to || !from;
    if (pageable && s->capture)
        return call.end(cudaErrorStreamCaptureUnsupported);
    counts.pageable += pageable && !wait;
    Transfer use = t;
    std::shared_ptr<std::vector<char>> staged;
    if (!from && on_device(to)) { /* taken before the call returns */
        staged = std::make_shared<std::vector<char>>(from_bytes);
        tsan_ignore(false);
        memcpy(staged->data(), t.from, from_bytes);
        tsan_ignore(true);
        use.from = staged->data();
    }
    OpRef op = new_op(name, OP_COPY, [use, staged](cuo_stream *) { move_bytes(use); });
    if (to && to->device < 0) {
        op->host_from = t.to;
        op->host_to = t.to + to_bytes;
    } else if (from && from->device < 0) {
        op->host_from = t.from;
        op->host_to = t.from + from_bytes;
    }
    cudaError_t e = enqueue(s, op);
    if (!e && !s->capture && (wait || !to)) {
        counts.waits++;
        wait_op(op);
    }
    return call.end(e);
}

} // namespace cuo

using namespace cuo;

extern "C" {

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    Transfer t = {(char *)to, (const char *)from, bytes, bytes, bytes, 1};
    return queue_transfer("cudaMemcpy", t, kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(
    void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    Transfer t = {(char *)to, (const char *)from, bytes, bytes, bytes, 1};
    return queue_transfer("cudaMemcpyAsync", t, kind, s, false);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
    size_t width, size_t height, enum cudaMemcpyKind kind)
{
    Transfer t = {(char *)to, (const char *)from, to_pitch, from_pitch, width, height};
    return queue_transfer("cudaMemcpy2D", t, kind, nullptr, true);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
    size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t s)
{
    Transfer t = {(char *)to, (const char *)from, to_pitch, from_pitch, width, height};
    return queue_transfer("cudaMemcpy2DAsync", t, kind, s, false);
}

static void check_peers(const void *to, int to_device, const void *from, int from_device)
{
    const Block *a = find_block(to), *b = find_block(from);
    if (!a || a->device != to_device || !b || b->device != from_device)
        die("cudaMemcpyPeer: the memory is not on the devices named");
}

cudaError_t cudaMemcpyPeer(void *to, int to_device, const void *from, int from_device, size_t bytes)
{
    check_peers(to, to_device, from, from_device);
    return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}

cudaError_t cudaMemcpyPeerAsync(
    void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t s)
{
    check_peers(to, to_device, from, from_device);
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    Call call("cudaMemsetAsync");
    if (call.error)
        return call.error;
    if (!bytes)
        return cudaSuccess;
    const Block *b = find_block(p);
    if (!on_device(b))
        die("cudaMemset: %p is not device memory", p);
    check_range("cudaMemset", b, (char *)p, bytes);
    return call.end(
        enqueue(stream_of(stream), new_op("cudaMemset", OP_COPY, [p, value, bytes](cuo_stream *) {
            open_block(find_block(p));
            memset(p, value, bytes);
        })));
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    return cudaMemsetAsync(p, value, bytes, nullptr); /* asynchronous, as the real one */
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    Call call("cudaStreamCreate");
    if (call.error)
        return call.error;
    *s = new_stream(current_device, !(flags & cudaStreamNonBlocking));
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    return cudaStreamCreateWithFlags(s, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(s, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    Call call("cudaDeviceGetStreamPriorityRange");
    if (call.error)
        return call.error;
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

/* Waits, where the real one lets the device go on: nothing could observe the difference here. */
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    Call call("cudaStreamDestroy");
    if (call.error)
        return call.error;
    cuo_stream *mine = stream_of(s);
    if (mine == devices[current_device].legacy)
        return call.end(cudaErrorInvalidResourceHandle);
    wait_stream(mine);
    streams.erase(std::find(streams.begin(), streams.end(), mine));
    delete_stream(mine);
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    Call call("cudaStreamSynchronize");
    if (call.error)
        return call.error;
    cuo_stream *mine = stream_of(s);
    if (mine->capture)
        return call.end(cudaErrorStreamCaptureUnsupported);
    counts.waits++;
    wait_stream(mine);
    return call.end((cudaError_t)devices[mine->device].lost);
}

/* Who asks again and again gets there: each question runs something. */
static cudaError_t query(const OpRef &op)
{
    if (op && !op->done) {
        run_any();
        if (!op->done && settings.streams == LAZY)
            run_until(op);
        return cudaErrorNotReady;
    }
    if (op)
        tsan_acquire(&op->sync);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    Call call("cudaStreamQuery");
    if (call.error)
        return call.error;
    return call.end(query(stream_of(s)->last));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    Call call("cudaStreamWaitEvent");
    if (call.error)
        return call.error;
    cuo_stream *s = stream_of(stream);
    if (e->graph) { /* joins the capture */
        if (s->capture && s->capture != e->graph)
            return call.end(cudaErrorStreamCaptureIsolation);
        s->capture = e->graph;
        s->mode = cudaStreamCaptureModeRelaxed; /* the origin's counts */
        s->tail.insert(s->tail.end(), e->nodes.begin(), e->nodes.end());
        return call.end(cudaSuccess);
    }
    if (s->capture)
        return call.end(cudaErrorStreamCaptureIsolation);
    if (!e->op)
        return call.end(cudaSuccess);
    OpRef op = new_op("cudaStreamWaitEvent", OP_EVENT, [](cuo_stream *) {});
    op->after.push_back(e->op);
    return call.end(enqueue(s, op));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data)
{
    Call call("cudaLaunchHostFunc");
    if (call.error)
        return call.error;
    return call.end(
        enqueue(stream_of(s), new_op("a host function", OP_TASK, [f, data](cuo_stream *) {
            close_memory();
            in_host_function = true;
            f(data);
            in_host_function = false;
        })));
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    Call call("cudaEventCreate");
    if (call.error)
        return call.error;
    *e = new cuo_event();
    (*e)->device = current_device;
    (*e)->flags = flags;
    return call.end(cudaSuccess);
}

/* In a capture: a node, each run of which is a record. */
static cudaError_t record_node_of(cuo_stream *s, cudaEvent_t e)
{
    e->graph = nullptr;
    return enqueue(s, new_op("cudaEventRecord, a node", OP_EVENT, [e](cuo_stream *on) {
        e->op = new_op("cudaEventRecord", OP_EVENT, nullptr);
        e->op->stream = on;
        e->op->seconds = now();
        e->op->done = true;
        tsan_release(&e->op->sync);
    }));
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(e, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t stream, unsigned flags)
{
    Call call("cudaEventRecord");
    if (call.error)
        return call.error;
    cuo_stream *s = stream_of(stream);
    if (s->device != e->device)
        return call.end(cudaErrorInvalidResourceHandle);
    if (flags == cudaEventRecordExternal)
        return call.end(s->capture ? record_node_of(s, e) : cudaErrorInvalidValue);
    if (s->capture) {
        e->graph = s->capture;
        e->nodes = s->tail;
        return call.end(cudaSuccess);
    }
    e->graph = nullptr;
    e->op = new_op("cudaEventRecord", OP_EVENT, [](cuo_stream *) {});
    return call.end(enqueue(s, e->op));
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    Call call("cudaEventSynchronize");
    if (call.error)
        return call.error;
    if (e->graph)
        return call.end(cudaErrorStreamCaptureUnsupported);
    counts.waits++;
    wait_op(e->op);
    return call.end((cudaError_t)devices[e->device].lost);
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    Call call("cudaEventQuery");
    if (call.error)
        return call.error;
    return call.end(query(e->op));
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    Call call("cudaEventElapsedTime");
    if (call.error)
        return call.error;
    if (!from->op || !to->op || (from->flags | to->flags) & cudaEventDisableTiming)
        return call.end(cudaErrorInvalidResourceHandle);
    if (!from->op->done || !to->op->done)
        return call.end(cudaErrorNotReady);
    *ms = (float)((to->op->seconds - from->op->seconds) * 1e3);
    return call.end(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    Call call("cudaEventDestroy");
    delete e; /* also of a device that is lost */
    return call.end(call.error);
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    Call call("cudaStreamBeginCapture");
    if (call.error)
        return call.error;
    cuo_stream *s = stream_of(stream);
    if (!stream || s->capture)
        return call.end(cudaErrorStreamCaptureUnsupported);
    s->capture = new cuo_graph();
    s->capture->device = s->device;
    s->origin = true;
    s->mode = mode;
    s->thread = std::this_thread::get_id();
    s->tail.clear();
    return call.end(cudaSuccess);
}

/* Whether every node is the end of the origin's chain or comes before it. */
static bool joined(const cuo_graph &g, const std::vector<int> &tail)
{
    std::vector<char> seen(g.nodes.size(), 0);
    std::vector<int> open = tail;
    while (!open.empty()) {
        int i = open.back();
        open.pop_back();
        if (seen[(size_t)i])
            continue;
        seen[(size_t)i] = 1;
        open.insert(open.end(), g.nodes[(size_t)i].after.begin(), g.nodes[(size_t)i].after.end());
    }
    return std::find(seen.begin(), seen.end(), 0) == seen.end();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    Call call("cudaStreamEndCapture");
    cuo_stream *s = stream_of(stream);
    cuo_graph *g = s->capture;
    if (!g || !s->origin)
        return call.end(call.error ? call.error : cudaErrorStreamCaptureUnmatched);
    bool whole = joined(*g, s->tail);
    for (cuo_stream *other : streams)
        if (other->capture == g) {
            other->capture = nullptr;
            other->origin = false;
            other->tail.clear();
        }
    if (!whole || call.error) { /* it ends, even so */
        delete g;
        return call.end(call.error ? call.error : cudaErrorStreamCaptureUnjoined);
    }
    *out = g;
    return call.end(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    Call call("cudaStreamIsCapturing");
    if (call.error)
        return call.error;
    *status =
        stream_of(stream)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return call.end(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long)
{
    Call call("cudaGraphInstantiate");
    if (call.error)
        return call.error;
    *e = new cuo_graph_exec{*g};
    return call.end(cudaSuccess);
}

/* Another valid order each time. */
static void run_graph(const cuo_graph &g, cuo_stream *s)
{
    size_t n = g.nodes.size();
    std::vector<char> done(n, 0);
    for (size_t left = n; left; left--) {
        std::vector<size_t> ready;
        for (size_t i = 0; i < n; i++) {
            bool ok = !done[i];
            for (int before : g.nodes[i].after)
                ok = ok && done[(size_t)before];
            if (ok)
                ready.push_back(i);
        }
        size_t pick = ready[settings.streams == EAGER ? 0 : draw((unsigned)ready.size())];
        done[pick] = 1;
        if (!devices[s->device].lost)
            run_body(s, *g.nodes[pick].op);
    }
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t stream)
{
    Call call("cudaGraphLaunch");
    if (call.error)
        return call.error;
    std::shared_ptr<cuo_graph> g = std::make_shared<cuo_graph>(e->graph);
    counts.graphs++;
    return call.end(enqueue(stream_of(stream),
        new_op("a graph", OP_GRAPH, [g](cuo_stream *on) { run_graph(*g, on); })));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    Call call("cudaGraphUpload");
    return call.error;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e)
{
    Call call("cudaGraphExecDestroy");
    delete e; /* also of a device that is lost */
    return call.end(call.error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    Call call("cudaGraphDestroy");
    delete g; /* also of a device that is lost */
    return call.end(call.error);
}

} // extern "C"
