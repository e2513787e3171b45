/* Files of other programs: see foreign.h.
 *
 * The hints are commands that work as they stand, in one line; tests/cli/inputs.py runs them. '@'
 * is the file and '^' what is made of it, without a suffix (for what unpacks: all of its name). */
#include "foreign.h"

#include "../src/base/file.h"
#include "elements.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PYTHON(more, array) "python3 -c \"import numpy as n" more "; n.save('^.npy', " array ")\""
/* The column whose values are vectors, else the columns that are numbers. */
#define FRAME(more, read)                                                                          \
    PYTHON(more "; d=" read "; v=[c for c in d if isinstance(d[c].iloc[0], n.ndarray)]",           \
        "n.stack(d[v[0]]) if v else d.select_dtypes('number').to_numpy('float32')")
#define PICTURE                                                                                    \
    "its pixels as rows: " PYTHON(                                                                 \
        "; from PIL import Image", "n.asarray(Image.open('@').convert('RGB')).reshape(-1, 3)")
#define TORCH                                                                                      \
    PYTHON(", torch; t=torch.load('@', 'cpu'); t=list(t.values())[0] if isinstance(t, dict) else " \
           "t",                                                                                    \
        "t.detach().float().numpy()")
#define UNPICKLE(more, read)                                                                       \
    "if you trust it (it may run anything): " PYTHON(more, "n.asarray(" read ", 'float32')")

typedef struct kind {
    const char *what, *suffixes; /* of a name; NULL: it has none */
    const char *magic;           /* NULL: it has none */
    int at, length;              /* of the magic */
    const char *member;          /* of a ZIP: in the name of its first file */
    const char *hint;
    bool unpacks;
} kind;

/* clang-format off */
/* What fits by content and suffix, or has no suffix, goes before content alone, that before the suffix
 * alone, and among equals the first. */
static const kind kinds[] = {
    {"a sparse matrix", NULL, "PK\3\4", 0, 4, "indices.npy",
        PYTHON(", scipy.sparse as s", "s.load_npz('@').toarray()"), false},
    {"an archive of arrays", ".npz", "PK\3\4", 0, 4, ".npy",
        PYTHON("; z=n.load('@'); print(z.files)", "z[z.files[0]]"), false},
    {"a PyTorch file", ".pt .pth .ckpt", "PK\3\4", 0, 4, "data.pkl", TORCH, false},
    {"a PyTorch file", ".pt .pth .ckpt", "\x80\2\x8a\x0al\xfc\x9c" "F\xf9 j\xa8P\x19", 0, 14, NULL, TORCH, false},
    {"a spreadsheet", ".xlsx", "PK\3\4", 0, 4, "[Content_Types].xml",
        PYTHON(", pandas as p", "p.read_excel('@').select_dtypes('number').to_numpy('float32')"), false},
    {"a ZIP archive", ".zip", "PK\3\4", 0, 4, NULL, "unzip @", false},
    {"a tar archive", ".tar", "ustar", 257, 5, NULL, "tar -xf @", false},
    {"a 7z archive", ".7z", "7z\xbc\xaf'\x1c", 0, 6, NULL, "7z x @", false},
    {"compressed with gzip", ".gz .tgz", "\x1f\x8b\x08", 0, 3, NULL, "gzip -dc < @ > ^", true},
    {"compressed with zstd", ".zst", "(\xb5/\xfd", 0, 4, NULL, "zstd -dc < @ > ^", true},
    {"compressed with bzip2", ".bz2", "BZh", 0, 3, NULL, "bzip2 -dc < @ > ^", true},
    {"compressed with xz", ".xz", "\xfd" "7zXZ", 0, 6, NULL, "xz -dc < @ > ^", true},
    {"compressed with lz4", ".lz4", "\x04\"M\x18", 0, 4, NULL, "lz4 -dc < @ > ^", true},
    {"Parquet", ".parquet .pq", "PAR1", 0, 4, NULL, FRAME(", pandas as p", "p.read_parquet('@')"), false},
    {"a stream of Arrow", ".arrow .arrows", NULL, 0, 0, NULL,
        FRAME(", pyarrow as p", "p.ipc.open_stream(p.memory_map('@')).read_pandas()"), false},
    {"Feather or Arrow", ".feather .arrow .ipc", "ARROW1", 0, 6, NULL, FRAME(", pandas as p", "p.read_feather('@')"), false},
    {"Feather", ".feather", "FEA1", 0, 4, NULL, FRAME(", pandas as p", "p.read_feather('@')"), false},
    {"ORC", ".orc", "ORC", 0, 3, NULL, FRAME(", pandas as p", "p.read_orc('@')"), false},
    {"a MATLAB file", ".mat", "MATLAB 5.0 MAT-file", 0, 19, NULL,
        PYTHON(", scipy.io as s", "[a for k, a in s.loadmat('@').items() if k[0] != '_'][0]"), false},
    {"a joblib file", ".joblib", "\x80", 0, 1, NULL, UNPICKLE(", joblib as j", "j.load('@')"), false},
    {"a pickle", ".pkl .pickle", "\x80", 0, 1, NULL, UNPICKLE(", pickle as p", "p.load(open('@', 'rb'))"), false},
    {"a picture", ".png", "\x89PNG\r\n", 0, 6, NULL, PICTURE, false},
    {"a picture", ".jpg .jpeg", "\xff\xd8\xff", 0, 3, NULL, PICTURE, false},
    {"a picture", ".gif", "GIF8", 0, 4, NULL, PICTURE, false},
    {"a picture", ".tif .tiff", "II*", 0, 4, NULL, PICTURE, false},
    {"a picture", ".tif .tiff", "MM\0*", 0, 4, NULL, PICTURE, false},
    {"a picture", ".webp", "WEBP", 8, 4, NULL, PICTURE, false},
    {"a picture", ".bmp", NULL, 0, 0, NULL, PICTURE, false},
    {"a pointer of Git LFS", NULL, "version https://git-lfs", 0, 23, NULL, "fetch the file itself: git lfs pull", false},
    {"a web page", ".html .htm", "<!DOCTYPE", 0, 9, NULL, "a download may have failed; see what it says: head @", false},
    {"a web page", ".html .htm", "<!doctype", 0, 9, NULL, "a download may have failed; see what it says: head @", false},
    {"a web page", ".html .htm", "<html", 0, 5, NULL, "a download may have failed; see what it says: head @", false},
};
/* clang-format on */

/* ---- messages ---- */

/* Names that a shell and Python take as they are; others are for the user to quote. */
static bool is_plain(const char *path)
{
    return path[0] != '-' &&
           path[strspn(path,
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/+,=-")] == '\0';
}

/* What is made of the file has another name, in the working directory. own: the suffix says what
 * the file is; what unpacks takes just that away. */
static void made_name(char *out, size_t cap, const char *path, bool own, bool unpacks)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t suffix = own || !unpacks ? strlen(fkm_path_suffix(name)) : 0;
    snprintf(out, cap, "%s%.*s", own ? "" : "new-", (int)(strlen(name) - suffix), name);
}

/* False when out is too small. */
static bool expand(char *out, size_t cap, const char *pattern, const char *path, const char *made)
{
    size_t used = 0;
    for (const char *p = pattern; *p; p++) {
        char one[2] = {*p, '\0'};
        const char *piece = *p == '@' ? path : *p == '^' ? made : one;
        used += (size_t)snprintf(out + used, cap - used, "%s", piece);
        if (used >= cap)
            return false;
    }
    return true;
}

static bool refuse(
    const char *path, const char *what, const char *pattern, bool own, bool unpacks, fkm_err *e)
{
    char hint[sizeof e->hint], made[sizeof e->hint];
    made_name(made, sizeof made, path, own, unpacks);
    fkm_fail(e, FKM_EDATA, "%s: is %s, which fkm does not read", path, what);
    if (!is_plain(path) || !expand(hint, sizeof hint, pattern, path, made))
        (void)expand(hint, sizeof hint, pattern, "FILE", "OUT");
    fkm_hint(e, "%s", hint);
    return true;
}

/* ---- by signature ---- */

/* The name of a ZIP's first file is at byte 30, its length at 26. */
static bool has_member(const char *head, size_t len, const char *member)
{
    char name[100];
    if (len < 30)
        return false;
    size_t length = (size_t)(unsigned char)head[26] | (size_t)(unsigned char)head[27] << 8;
    if (length > len - 30)
        length = len - 30;
    snprintf(name, sizeof name, "%.*s", (int)length, head + 30);
    return strstr(name, member) != NULL;
}

/* A pickle's first byte begins many a row of 128 dimensions, too: its second is the protocol. */
static bool is_pickle(const char *head, size_t len)
{
    return len > 2 && head[1] >= 2 && head[1] <= 5 && head[2] != 0;
}

static bool has_content(const kind *k, bool own, const char *head, size_t len)
{
    if (!k->magic || len < (size_t)(k->at + k->length) ||
        memcmp(head + k->at, k->magic, (size_t)k->length) != 0)
        return false;
    if (k->length == 1)
        return is_pickle(head, len);
    return !k->member || own || has_member(head, len, k->member);
}

static bool by_signature(
    const char *path, const char *suffix, const char *head, size_t len, fkm_err *e)
{
    const kind *best = NULL;
    int best_score = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool own = kinds[i].suffixes && fkm_suffix_in(kinds[i].suffixes, suffix);
        bool content = has_content(&kinds[i], own, head, len);
        int score = 2 * content + (own || (content && !kinds[i].suffixes));
        if (score > best_score) {
            best = &kinds[i];
            best_score = score;
        }
    }
    if (!best)
        return false;
    bool own = best->suffixes && fkm_suffix_in(best->suffixes, suffix);
    return refuse(path, best->what, best->hint, own, best->unpacks, e);
}

/* ---- text ---- */

static bool is_text(const char *head, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)head[i] < ' ' && !strchr("\t\n\r\f", head[i]))
            return false;
    return len > 0 && strlen(head) == len && head[strcspn(head, "0123456789")] != '\0';
}

/* What the first line looks like. */
typedef struct first_line {
    char delimiter; /* ' ': any space */
    int tokens;
    bool empty, number, numbers; /* the first one; numbers: all others */
} first_line;

static first_line look_at(const char *head)
{
    const size_t length = strcspn(head, "\r\n");
    first_line l = {.delimiter = ' ', .numbers = true};
    for (const char *d = ",\t;"; *d && l.delimiter == ' '; d++)
        if (memchr(head, *d, length))
            l.delimiter = *d;
    for (const char *p = head, *end = head + length; p <= end; l.tokens++) {
        const char *blanks = l.delimiter == ' ' ? " " : "";
        p += strspn(p, blanks);
        if (p >= end && l.delimiter == ' ')
            break;
        size_t token = 0;
        while (p + token < end && p[token] != l.delimiter)
            token++;
        char *after;
        (void)strtod(p, &after);
        bool number = token > 0 && after == p + token;
        if (l.tokens == 0) {
            l.empty = token == 0;
            l.number = number;
        } else {
            l.numbers = l.numbers && number;
        }
        p += token + 1;
    }
    return l;
}

/* A table: numbers with, perhaps, a line of names above them and a column of names before them. */
static bool refuse_table(const char *path, const char *head, bool own, fkm_err *e)
{
    const first_line l = look_at(head);
    char pattern[300], delimiter[24] = "", rows[24] = "", columns[40] = "";
    if (l.delimiter != ' ')
        snprintf(delimiter, sizeof delimiter, ", delimiter='%s'",
            l.delimiter == '\t'  ? "\\t"
            : l.delimiter == ',' ? ","
                                 : ";");
    if (l.empty || !l.numbers || (!l.number && l.tokens == 1))
        snprintf(rows, sizeof rows, ", skiprows=1");
    if (!l.number && l.numbers && l.tokens > 1)
        snprintf(columns, sizeof columns, ", usecols=range(1, %d)", l.tokens);
    snprintf(pattern, sizeof pattern, PYTHON("", "n.loadtxt('@', 'float32'%s%s%s, ndmin=2)"),
        delimiter, rows, columns);
    return refuse(path, "a table in text", pattern, own, false, e);
}

/* Vectors one a line, or all in one list; of an object, its first list. */
static bool refuse_json(const char *path, const char *head, bool lines, bool own, fkm_err *e)
{
    const bool object = head[strspn(head, " \t\r\n")] == '{';
    const char *each = PYTHON(", json as j", "n.array([j.loads(s) for s in open('@')], 'float32')");
    if (lines && object)
        each = PYTHON(", json as j",
            "n.array([next(v for v in j.loads(s).values() if isinstance(v, list)) for s in "
            "open('@')], 'float32')");
    else if (object)
        each = PYTHON(", json as j",
            "n.array(next(v for v in j.load(open('@')).values() if isinstance(v, list)), "
            "'float32')");
    else if (!lines)
        each = PYTHON(", json as j", "n.array(j.load(open('@')), 'float32')");
    return refuse(path, "JSON", each, own, false, e);
}

static bool by_text(const char *path, const char *suffix, const char *head, size_t len, fkm_err *e)
{
    if (!is_text(head, len))
        return false;
    const bool table = fkm_suffix_in(".csv .tsv .txt .vec", suffix);
    const bool lines = fkm_suffix_in(".jsonl .ndjson", suffix);
    const char first = head[strspn(head, " \t\r\n")];
    if (first == '{' || first == '[')
        return refuse_json(path, head, lines || strstr(head, "}\n{") || strstr(head, "]\n["),
            lines || fkm_suffix_in(".json", suffix), e);
    if (!strchr(head, '\n') || (!table && !strchr("+-.0123456789", first)))
        return false;
    return refuse_table(path, head, table, e);
}

bool fkm_foreign(const char *path, const char *suffix, const char *head, size_t len, fkm_err *e)
{
    return by_signature(path, suffix, head, len, e) || by_text(path, suffix, head, len, e);
}
