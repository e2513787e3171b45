/* Words of other programs (scikit-learn, faiss, cuVS, DiskANN, pgvector, Lance) and what they are
 * here: see opt.h. Also what is merely mistyped. */
#include "opt.h"

#include <ctype.h>
#include <string.h>

#define UNIT_ROWS                                                                                  \
    "python3 -c \"import numpy as np; x = np.load('a.npy'); "                                      \
    "np.save('unit.npy', x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))\""

/* clang-format off */
/* A hint names what there is today; tests/cli/words.py looks at each. */
static const opt_word option_words[] = {
    {"n-clusters num-clusters nclusters k n-lists num-lists nlist nlists lists "
        "n-partitions num-partitions partitions n-centroids num-centroids ncentroids "
        "n-centers num-centers centers centers-count codebook-size",
        "clusters", NULL},
    {"k top-k topk n-neighbors num-neighbors nprobe nprobes neighbors",
        "top", NULL},
    {"n-init ninit nredo n-redo num-redo n-restarts num-restarts nstart n-starts redo",
        "restarts", NULL},
    {"random-state random-seed randomseed rng rng-seed",
        "seed", NULL},
    {"niter n-iter n-iters num-iter num-iters num-iterations max-iters max-iterations "
        "maxiter iter iters iterations kmeans-n-iters epochs",
        "max-iter", NULL},
    {"tolerance eps epsilon delta rtol reltol threshold",
        "tol", NULL},
    {"n-jobs njobs jobs num-threads n-threads nthreads n-workers num-workers workers cores "
        "cpus",
        "threads", NULL},
    {"gpu gpus use-gpu ngpu n-gpus num-gpus gpu-id device-id devices cuda",
        "device", "cuda for all GPUs, cuda:0,2 for some"},
    {"cpu",
        "device", "--device cpu"},
    {"init-centroids initial-centroids init-centers initial-centers start-centroids "
        "initialization init-method init-mode initial seeding",
        "init", NULL},
    {"centroids init-file warm warm-start",
        "init", "a file of centroids, or the PREFIX of an earlier run, whose ids stay"},
    {"frozen frozen-centroids fixed fixed-centroids",
        NULL,
        "centroids cannot be held fixed in a fit; 'fkm predict -c FILE' labels rows with "
        "centroids as they are"},
    {"spherical normalize normalise normalized l2-normalize cosine",
        NULL,
        "centroids of unit length are not in this version; nearest to it (man 7 fkm-recipes), make rows of length 1: " UNIT_ROWS},
    {"metric distance-type distance-metric dist-fn dist-func",
        NULL,
        "it is squared Euclidean distance; nearest to cosine (man 7 fkm-recipes), make rows of length 1: " UNIT_ROWS},
    {"weights weight sample-weight sample-weights",
        NULL, "all rows weigh the same; a row that is there twice weighs twice"},
    {"sample sample-size sample-rate sample-fraction subsample train-size trainset-size "
        "trainset-fraction kmeans-trainset-fraction max-points-per-centroid",
        NULL,
        "all rows are used; --rows A:B takes a part of them, and 'fkm predict -c PREFIX' then "
        "labels all"},
    {"batch-size batch minibatch mini-batch chunk-size",
        NULL,
        "all rows are used in each iteration; --memory SIZE bounds what is held of them"},
    {"min-points-per-centroid min-cluster-size balanced",
        NULL, "clusters have no least size; --empty says what becomes of one without rows"},
    {"algorithm algo method",
        NULL,
        "there is one algorithm, exact Lloyd iterations; --init NAME says how they begin"},
    {"verbosity debug log-level loglevel",
        "verbose", NULL},
    {"silent no-verbose",
        "quiet", NULL},
    {"output-file output-prefix output-dir out outfile out-file output-path save save-path "
        "result-path index-path-prefix prefix",
        "output", NULL},
    {"input input-file inputs data data-file data-path base-file query query-file queries "
        "file x",
        NULL, "inputs have no option: they follow the options, as in fkm fit -k 100 data.npy"},
    {"data-type datatype type precision element-type",
        "dtype", NULL},
    {"mem ram max-memory memory-limit memory-budget mem-limit build-dram-budget",
        "memory", NULL},
    {"gpu-mem gpu-memory-limit device-memory vram",
        "gpu-memory", NULL},
    {"checkpoint-every checkpoint-interval checkpoint-freq save-every",
        "checkpoint", NULL},
    {"resume continue restore",
        NULL, "the same command goes on by itself from its checkpoint; --fresh starts anew"},
    {"timeout max-time time walltime time-budget max-runtime",
        "time-limit", NULL},
    {"overwrite force-overwrite clobber replace yes",
        "force", NULL},
    {"key dataset-name dataset-path h5-key tensor tensor-name hdf5-path",
        "dataset", NULL},
    {"n-rows nrows num-rows max-rows limit head n-points num-points slice row-range subset",
        "rows", NULL},
    {"skip-nan ignore-nan drop-nan dropna allow-nan",
        "nan", "--nan skip"},
    {"empty-action empty-cluster empty-clusters",
        "empty", NULL},
    {"codebook centers centroid-file centroids-file model model-path index index-path",
        "centroids", NULL},
    {"distances-file dist-file return-distances output-distances transform",
        "distances", NULL},
    {"no-assign no-assignments",
        "no-labels", NULL},
    {"dryrun plan check-only",
        "dry-run", NULL},
    {"simd arch instruction-set",
        "isa", NULL},
};

static const opt_word command_words[] = {
    {"train cluster clustering kmeans k-means fit-predict build build-index run learn",
        "fit", NULL},
    {"resume continue",
        "fit", "the same 'fkm fit' command goes on by itself from its checkpoint"},
    {"assign label labels classify quantize quantise encode apply map nearest",
        "predict", NULL},
    {"search query knn",
        "predict", "'fkm predict -c CENTROIDS --top M' finds the M nearest centroids of every row"},
    {"transform distances",
        "predict",
        "'fkm predict -c CENTROIDS --distances FILE' writes distances, with --top M of the M "
        "nearest"},
    {"inspect show describe stat stats ls head verify check validate file",
        "info", NULL},
    {"benchmark perf speed",
        "bench", NULL},
    {"version",
        NULL, "'fkm --version' prints it"},
};
/* clang-format on */

/* ---- looking up ---- */

/* text as the tables have it: lower case, - for _; false when it is too long to be there. */
static bool plain_word(char *out, size_t cap, const char *text)
{
    size_t len = strlen(text);
    if (len >= cap)
        return false;
    for (size_t i = 0; i <= len; i++)
        out[i] = text[i] == '_' ? '-' : (char)tolower((unsigned char)text[i]);
    return len > 0;
}

/* Is `word` one of those in `list`, with blanks between them? */
static bool is_among(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL)
        if (!strncmp(at, word, len) && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

static bool is_name(const char *name, const char *const *names, int count)
{
    for (int i = 0; name && i < count; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

const opt_word *opt_find_word(const char *text, const char *const *names, int count)
{
    const opt_word *any = NULL;
    char word[40];
    if (!plain_word(word, sizeof word, text))
        return NULL;
    for (size_t i = 0; i < sizeof option_words / sizeof option_words[0]; i++) {
        const opt_word *row = &option_words[i];
        if (!is_among(row->words, word))
            continue;
        if (!row->ours || is_name(row->ours, names, count))
            return row;
        any = any ? any : row;
    }
    return any;
}

const opt_word *opt_find_command_word(const char *text)
{
    char word[40];
    if (!plain_word(word, sizeof word, text))
        return NULL;
    for (size_t i = 0; i < sizeof command_words / sizeof command_words[0]; i++)
        if (is_among(command_words[i].words, word))
            return &command_words[i];
    return NULL;
}

const char *opt_word_note(const char *name)
{
    const opt_word *word = opt_find_word(name, NULL, 0);
    return word && word->note ? word->note : "--help lists the options";
}

/* ---- mistyped ---- */

/* Edits (insert, delete, replace, swap neighbours) that turn a into b; large when a text is long.
 */
static int edit_distance(const char *a, const char *b)
{
    enum { CAP = 40 };
    int rows[3][CAP + 1];
    size_t na = strlen(a), nb = strlen(b);
    if (na > CAP || nb > CAP)
        return CAP;
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *now = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *opt_nearest(const char *text, const char *const *names, int count)
{
    const char *best = NULL;
    int best_distance = (int)strlen(text) / 3 + 2; /* further off than this is another word */
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(text, names[i]);
        if (distance < best_distance && distance < (int)strlen(names[i])) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
