/* Devices, streams and operations: between runtime.cpp (memory, errors, devices) and streams.cpp
 * (what is queued, in which order it runs). */
#ifndef CUO_RUNTIME_H
#define CUO_RUNTIME_H

#include "cuo_internal.h"

#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <vector>

namespace cuo
{

struct Op;
typedef std::shared_ptr<Op> OpRef;
} // namespace cuo

struct cuo_stream {
    int device;
    bool blocking; /* against the legacy default stream */
    std::deque<cuo::OpRef> queue;
    cuo::OpRef last; /* queued, run or not */
    cuo_graph *capture;
    bool origin; /* of the capture */
    cudaStreamCaptureMode mode;
    std::thread::id thread; /* that began it */
    std::vector<int> tail;  /* the nodes that the next one follows */
    void *context;          /* for TSan: who runs the operations */
    cuo::TsanThreads *threads;
};

struct cuo_event {
    int device;
    unsigned flags;
    cuo::OpRef op; /* the last record */
    cuo_graph *graph;
    std::vector<int> nodes;
};

struct cuo_graph {
    struct Node {
        cuo::OpRef op; /* never queued itself */
        std::vector<int> after;
    };
    std::vector<Node> nodes;
    int device;
};

struct cuo_graph_exec {
    cuo_graph graph;
};

namespace cuo
{

enum Kind { OP_COPY, OP_KERNEL, OP_TASK, OP_EVENT, OP_GRAPH };

struct Op {
    std::string name;
    Kind kind;
    std::function<void(cuo_stream *)> run;
    std::vector<OpRef> after; /* beside what is before it in the stream */
    cuo_stream *stream;
    bool done;
    const char *host_from, *host_to; /* pinned memory it will use */
    double seconds;                  /* when it ran */
    char sync;                       /* released by who queued it, then by who ran it */
};

struct Device {
    size_t used;
    int lost; /* the error of a sticky fault, or 0 */
    uint32_t peers;
    cuo_stream *legacy;
};

struct Block {
    char *p;
    size_t bytes;
    int device; /* -1: pinned host memory */
    bool registered;
};

extern Device devices[16];
extern std::vector<cuo_stream *> &streams;
extern thread_local int current_device;

/* A call of the API: takes the lock, counts, and says whether the call may go on. */
class Call
{
  public:
    explicit Call(const char *name, bool counted = true, bool needs_device = true);
    ~Call();
    Call(const Call &) = delete;
    Call &operator=(const Call &) = delete;
    cudaError_t error; /* not cudaSuccess: return it at once */
    cudaError_t end(cudaError_t e);
};

/* ---- memory (runtime.cpp) ---- */

Block *find_block(const void *p); /* device or pinned; NULL: pageable */
/* Kernels and tasks of this device may touch its memory, and that of peers, until the call ends. */
void open_memory(int device);
void open_block(const Block *b); /* for a copy */
void close_memory();
int attribute_shared(const void *kernel);

/* ---- streams (streams.cpp) ---- */

cuo_stream *stream_of(cudaStream_t s); /* the legacy stream of the current device for NULL */
cuo_stream *new_stream(int device, bool blocking);
OpRef new_op(const char *name, Kind kind, std::function<void(cuo_stream *)> run);
/* Queues, or records in a capture. Fails in a capture for pageable memory. */
cudaError_t enqueue(cuo_stream *s, const OpRef &op);
void wait_op(const OpRef &op);
void wait_stream(cuo_stream *s);
void wait_device(int device);
void drop_all(int device);                                /* the device is lost */
bool is_capturing(int device);                            /* any of its streams */
bool capture_forbids(int device);                         /* what is not queued, to this thread */
void check_not_pending(const char *from, const char *to); /* dies */
void streams_reset();
void seed_draws(uint32_t seed);

} // namespace cuo

#endif
