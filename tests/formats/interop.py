"""The other side of the format tests: NumPy and h5py write what fkm reads, and read what it wrote.

usage: interop.py write|hostile|check DIRECTORY

write    files of every format, and read.tsv: what a reader must find in each. FILE.raw holds the rows
         as they must be in memory.
hostile  damaged and evil files, and hostile.tsv: the status and words that each must be refused with.
check    compares the files that test_writer.c wrote with what it meant.
"""
import json
import os
import struct
import sys
import zlib

import numpy as np

try:
    import h5py
except ImportError:
    h5py = None

rng = np.random.default_rng(7)
out = sys.argv[2]
lines = []


def path(name):
    return os.path.join(out, name)


def put(name, *parts):
    with open(path(name), "wb") as f:
        for p in parts:
            f.write(p if isinstance(p, bytes) else np.ascontiguousarray(p).tobytes())


# ---- files that must be read ----

NAMES = {"f4": "float32", "f2": "float16", "f8": "float64", "u1": "uint8", "i1": "int8", "u2": "uint16",
         "i2": "int16", "u4": "uint32", "i4": "int32", "u8": "uint64", "i8": "int64", "b1": "bool",
         "bf": "bfloat16"}
KINDS = ("f4", "f2", "f8", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
MEMORY = {"f8": "f4", "u2": "f4", "i2": "f4", "u4": "f4", "i4": "f4", "u8": "f4", "i8": "f4", "b1": "u1"}


def values(n, d, kind):
    """Rows of a type. 8-byte floats are full doubles, integers are exact in float32, to the ends of their range."""
    if kind in ("u1", "i1", "u2", "i2"):
        info = np.iinfo(kind)
        a = rng.integers(info.min, info.max + 1, (n, d)).astype(kind)
        a.flat[0], a.flat[-1] = info.min, info.max
        return a
    if kind in ("u4", "i4", "u8", "i8"):
        info = np.iinfo(kind)
        a = rng.integers(max(-2**24, info.min), 2**24 + 1, (n, d)).astype(kind)
        a.flat[0], a.flat[-1] = info.min, info.max - (info.max >> 24)
        return a
    if kind == "b1":
        return rng.integers(0, 2, (n, d)).astype("?")
    if kind == "bf":
        return rng.integers(0, 2**16, (n, d)).astype("u2")
    a = rng.standard_normal((n, d)).astype(kind)
    a[0, 0] = 0
    if n * d > 4:
        a.flat[-1], a.flat[-2], a.flat[-3] = np.inf, -np.inf, np.nan
    return a


def expect(name, a, kind, fmt, dataset="-", dtype="-", found="-"):
    """a: the array as stored. `found` is the dataset that must be chosen."""
    memory = MEMORY.get(kind, kind)
    rows = a.astype("<" + memory) if memory != kind else a
    if rows.dtype.byteorder == ">":
        rows = rows.astype(rows.dtype.newbyteorder("<"))
    put(name + "." + dataset.replace("/", "_") + ".raw", rows)
    shape = a.shape if a.ndim == 3 else (1,) + a.shape
    lines.append([name, dataset, dtype, fmt, found, NAMES[kind], NAMES[memory], a.ndim, *shape])


def npy_header(descr, shape, fortran=False, version=(1, 0), pad=64):
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    fixed = 10 if version[0] == 1 else 12
    text += b" " * (-(fixed + len(text) + 1) % pad) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text


def write_npy():
    for kind in (*KINDS, "b1"):
        for order in "<>":
            for fortran in (False, True):
                a = values(237, 19, kind).astype(order + kind)
                name = f"a_{kind}_{'le' if order == '<' else 'be'}_{'f' if fortran else 'c'}.npy"
                np.save(path(name), np.asfortranarray(a) if fortran else a)
                expect(name, a, kind, "npy")
    for n, d, kind, fortran in [(20000, 21, "f4", True), (9000, 37, "f8", True), (3000, 70, "f8", False),
                                (2, 300000, "f8", False), (1, 1, "f4", False), (1, 5, "f2", True),
                                (5, 1, "f8", True), (20000, 21, "u2", True), (20000, 37, "i2", False),
                                (9000, 37, "i8", True), (3000, 70, "u8", False), (20000, 21, "b1", True)]:
        a = values(n, d, kind)
        name = f"shape_{n}_{d}_{kind}_{int(fortran)}.npy"
        put(name, npy_header("<" + kind, (n, d), fortran), a.T if fortran else a)
        assert np.array_equal(np.load(path(name)), a, equal_nan=kind[0] == "f")
        expect(name, a, kind, "npy")
    for version in ((1, 0), (2, 0), (3, 0)):
        a = values(11, 3, "f4")
        name = f"version{version[0]}.npy"
        put(name, npy_header("<f4", (11, 3), version=version), a)
        expect(name, a, "f4", "npy")
    batch = values(12, 5, "f4").reshape(3, 4, 5)
    np.save(path("batch.npy"), batch)
    expect("batch.npy", batch, "f4", "npy")
    a = values(31, 7, "bf")
    for descr in ("<V2", "|V2", "<u2", "<i2"):
        name = f"bf16_{ord(descr[0])}{descr[1]}.npy"
        put(name, npy_header(descr, a.shape), a)
        expect(name, a, "bf", "npy", dtype="bf16")
    put("bf16_big.npy", npy_header(">u2", a.shape), a.astype(">u2"))
    expect("bf16_big.npy", a, "bf", "npy", dtype="bf16")
    a = values(6, 4, "u1")
    put("python2.npy", b"\x93NUMPY\x01\x00", struct.pack("<H", 66),
        b"{'shape': (6L, 4L), \"descr\": '|u1', 'fortran_order': False}".ljust(65) + b"\n", a)
    expect("python2.npy", a, "u1", "npy")
    put("misnamed.fvecs", open(path("version1.npy"), "rb").read())
    expect("misnamed.fvecs", np.load(path("version1.npy")), "f4", "npy")


def vecs(a):
    head = np.full((len(a), 1), a.shape[1], "<i4")
    return np.hstack([head.view("u1").reshape(len(a), 4), np.ascontiguousarray(a).view("u1").reshape(len(a), -1)])


def write_vecs():
    for suffix, kind in (("fvecs", "f4"), ("bvecs", "u1"), ("ivecs", "i4")):
        for n, d in ((237, 19), (1, 7), (1, 1), (3, 300000), (4000, 128), (9, 1)):
            a = values(n, d, kind)
            name = f"v_{n}_{d}.{suffix}"
            put(name, vecs(a))
            expect(name, a, kind, suffix)
    for suffix, kind in (("fvecs", "f4"), ("bvecs", "u1")):
        a = values(50, 12, kind)
        put(f"{suffix}_without_suffix", vecs(a))
        expect(f"{suffix}_without_suffix", a, kind, suffix)
    put("bytes_named.fvecs", vecs(a))
    expect("bytes_named.fvecs", a, "u1", "bvecs")


def write_bin():
    for suffix, kind in (("fbin", "f4"), ("f16bin", "f2"), ("u8bin", "u1"), ("i8bin", "i1"), ("ibin", "i4")):
        for n, d in ((237, 19), (1, 1), (3, 300000)):
            a = values(n, d, kind)
            name = f"b_{n}_{d}.{suffix}"
            put(name, struct.pack("<II", n, d), a)
            expect(name, a, kind, suffix)
            put("wide_" + name, struct.pack("<QQ", n, d), a)
            expect("wide_" + name, a, kind, suffix)
    for kind, dtype in (("f4", "f32"), ("u1", "u8"), ("i1", "i8"), ("bf", "bf16"), ("u2", "u16"), ("f8", "float64")):
        for name, header in ((f"diskann_{dtype}.bin", "<II"), (f"wide_{dtype}.bin", "<QQ"),
                             (f"cut.{dtype}.bin.crop_nb_91", "<II")):
            a = values(91, 6, kind)
            put(name, struct.pack(header, 91, 6), a)
            expect(name, a, kind, "bin", dtype=dtype)
    a = values(91, 6, "u1")
    put("base.1B.u8bin.crop_nb_91", struct.pack("<II", 91, 6), a)
    expect("base.1B.u8bin.crop_nb_91", a, "u1", "u8bin")


def write_partial():
    """Files of which only the first 7 of 20 rows are there, and a part of the next."""
    def cut(name, rows, kept, kind, fmt, **more):
        whole = open(path(name), "rb").read()
        expect(name, rows, kind, fmt, **more)
        put("part_" + name, whole[:kept])

    a = values(20, 5, "f4")
    np.save(path("p.npy"), a)
    cut("p.npy", a, 128 + 7 * 20 + 11, "f4", "npy")
    put("p.fvecs", vecs(a))
    cut("p.fvecs", a, 7 * 24 + 23, "f4", "fvecs")
    put("p.fbin", struct.pack("<II", 20, 5), a)
    cut("p.fbin", a, 8 + 7 * 20 + 19, "f4", "fbin")
    safetensors("p.safetensors", {"a": ("F32", a), "b": ("F32", a[0])})
    cut("p.safetensors", a, os.path.getsize(path("p.safetensors")) - 13 * 20 - 20 + 3, "f4", "safetensors", found="a")


def safetensors(name, tensors, pad=0, meta=None):
    head, at = {}, 0
    if meta:
        head["__metadata__"] = meta
    for key, (dtype, a) in tensors.items():
        head[key] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(head).encode() + b" " * pad
    put(name, struct.pack("<Q", len(text)), text, *[a for _, a in tensors.values()])


def write_safetensors():
    kinds = {"F32": "f4", "F16": "f2", "F64": "f8", "BF16": "bf", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2",
             "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8", "BOOL": "b1"}
    for dtype, kind in kinds.items():
        a = values(237, 19, kind)
        name = f"one_{dtype}.safetensors"
        safetensors(name, {"bias": (dtype, a[0]), "weight": (dtype, a)}, pad=3, meta={"format": "pt"})
        expect(name, a, kind, "safetensors", found="weight")
    a, b = values(17, 3, "f4"), values(8, 4, "u1")
    safetensors("two.safetensors", {"model.a": ("F32", a), "model.\u00e9": ("U8", b)})
    expect("two.safetensors", a, "f4", "safetensors", dataset="model.a", found="model.a")
    expect("two.safetensors", b, "u1", "safetensors", dataset="model.\u00e9", found="model.\u00e9")


def write_hdf5():
    for kind in KINDS:
        for order in "<>":
            a = values(237, 19, kind).astype(order + kind)
            for layout, options in {
                "contiguous": {},
                "chunked": {"chunks": (50, 19)},
                "tiled": {"chunks": (31, 4), "compression": "gzip", "shuffle": True},
                "checked": {"chunks": (64, 19), "fletcher32": True, "maxshape": (None, 19)},
                "pieces": {"chunks": (50, 3)},
                "lzf": {"chunks": (40, 19), "compression": "lzf", "shuffle": True, "fletcher32": True},
            }.items():
                name = f"h_{kind}_{'le' if order == '<' else 'be'}_{layout}.h5"
                with h5py.File(path(name), "w") as f:
                    f.create_dataset("train", data=a, **options)
                expect(name, a, kind, "hdf5", found="/train")
    with h5py.File(path("ann.hdf5"), "w") as f:
        a, b = values(100, 8, "f4"), values(10, 8, "f4")
        f["train"], f["test"] = a, b
        f["neighbors"], f["distances"] = values(10, 100, "i4"), values(10, 100, "f4")
        f["labels"] = np.arange(7)
        f["soft"] = h5py.SoftLink("/sub/way")
        f.create_group("sub")["way"] = h5py.SoftLink("../sub/../test")
        f["sub/chain"] = h5py.SoftLink("inner")
        f["sub/inner"] = h5py.SoftLink("/train")
    expect("ann.hdf5", a, "f4", "hdf5", dataset="train", found="train")
    expect("ann.hdf5", b, "f4", "hdf5", dataset="/test", found="/test")
    expect("ann.hdf5", a, "f4", "hdf5", dataset="sub/chain", found="/train")
    with h5py.File(path("deep.h5"), "w") as f:
        a = values(9, 4, "f8")
        f["x/y/z/only"] = a
        f["x/again"] = f["x/y/z/only"]
        f["x/loop"] = f["x"]
        f["x/names"] = np.array([[b"a", b"b"]])
        f["x/flat"] = np.arange(10.0)
    with h5py.File(path("deep.h5"), "r") as f:
        first = "/x/again" if "again" in f["x"] else None
    expect("deep.h5", a, "f8", "hdf5", found=first)
    for layout, options in {"contiguous": {}, "chunked": {"chunks": (9, 3), "compression": "gzip"}}.items():
        with h5py.File(path(f"bool_{layout}.h5"), "w") as f:
            a = values(30, 5, "b1")
            f.create_dataset("a", data=a, **options)
        expect(f"bool_{layout}.h5", a, "b1", "hdf5", found="/a")
    with h5py.File(path("userblock.h5"), "w", userblock_size=1024) as f:
        a = values(33, 5, "f4")
        f["a"] = a
    expect("userblock.h5", a, "f4", "hdf5", found="/a")
    with h5py.File(path("compact.h5"), "w") as f:
        a = values(10, 5, "f8")
        space, props = h5py.h5s.create_simple(a.shape), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        props.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(f.id, b"a", h5py.h5t.IEEE_F64LE, space, props).write(
            h5py.h5s.ALL, h5py.h5s.ALL, a)
    expect("compact.h5", a, "f8", "hdf5", found="/a")
    for layout, options in {"contiguous": {}, "chunked": {"chunks": (5, 4), "compression": 1}}.items():
        for order in "<>":
            with h5py.File(path(f"bf16_{layout}_{ord(order)}.h5"), "w") as f:
                a = values(13, 6, "bf")
                f.create_dataset("a", data=a.view("i2" if options else "u2").astype(order + ("i2" if options else "u2")),
                                 **options)
            expect(f"bf16_{layout}_{ord(order)}.h5", a, "bf", "hdf5", dtype="bf16", found="/a")
    with h5py.File(path("skipped.h5"), "w") as f:    # the second chunk has gone through the shuffle only
        a = values(20, 4, "f4")
        d = f.create_dataset("a", data=a, chunks=(10, 4), compression="gzip", shuffle=True)
        shuffled = a[10:].copy().view("u1").reshape(-1, 4).T.tobytes()
        d.id.write_direct_chunk((10, 0), shuffled, 2)
    expect("skipped.h5", a, "f4", "hdf5", found="/a")
    with h5py.File(path("long.h5"), "w") as f:       # lzf's long copies; many chunks, by an index of several levels
        a = np.zeros((3000, 7), "f4")
        a[::5], a[7] = 1, 0.25
        f.create_dataset("a", data=a, chunks=(1000, 7), compression="lzf")
    expect("long.h5", a, "f4", "hdf5", found="/a")
    for name, options in {"rows": {"chunks": (1, 2)}, "rows_gzip": {"chunks": (1, 3), "compression": 1},
                          "late": {"chunks": (2, 1), "maxshape": (None, None)}}.items():
        with h5py.File(path(f"many_{name}.h5"), "w", libver="latest" if name == "late" else "earliest") as f:
            a = values(900, 3, "f4")
            f.create_dataset("a", data=a, **options)
        expect(f"many_{name}.h5", a, "f4", "hdf5", found="/a")
    with h5py.File(path("root_again.h5"), "w") as f:
        a = values(5, 3, "f4")
        f["a"], f["root"] = a, f["/"]
        f["none"] = np.zeros((0, 3), "f4")
    expect("root_again.h5", a, "f4", "hdf5", found="/a")
    with h5py.File(path("wide.h5"), "w") as f:
        a = values(3, 300000, "f8")
        f.create_dataset("a", data=a, chunks=(2, 70000))
    expect("wide.h5", a, "f8", "hdf5", found="/a")


# ---- files that must be refused ----

def refuse(name, status, words, dataset="-", dtype="-", hint="-"):
    lines.append([name, dataset, dtype, status, words, hint])


def hostile_npy():
    good = npy_header("<f4", (3, 2))
    data = np.ones((3, 2), "<f4")

    def bad(name, header, words, body=data, hint="-", dtype="-", status="data"):
        put(name + ".npy", header, body)
        refuse(name + ".npy", status, words, hint=hint, dtype=dtype)

    def text(name, header, words, **kw):
        header = header.encode() + b"\n"
        bad(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header, words, **kw)

    bad("short", good, "so it must end at byte 152, but ends at byte 148", data.tobytes()[:-4])
    bad("long", good, "must end at byte 152, but ends at byte 153", data.tobytes() + b"x")
    bad("only_header", good, "must end at byte 152, but ends at byte 128", b"")
    put("cut.npy", good[:40])
    refuse("cut.npy", "data", "header of 118 bytes, the file has 30 after byte 10")
    put("tiny.npy", good[:8])
    refuse("tiny.npy", "data", "too few for an npy header")
    put("not.npy", b"hello, world, this is a text")
    refuse("not.npy", "data", "does not start with the npy signature")
    bad("version9", good[:6] + b"\x09" + good[7:], "npy version 9.0, expected 1, 2 or 3 (byte 6)")
    bad("huge_header", b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xfffffff0), "npy header of 4294967280 bytes")
    bad("header_10001", b"\x93NUMPY\x02\x00" + struct.pack("<I", 10001) + b" " * 10000 + b"\n",
        "npy header of 10001 bytes, the most is 10000")
    np.save(path("one.npy"), np.ones(5, "f4"))
    refuse("one.npy", "data", "a 1-D array of 5, expected 2-D", hint="a[:, None]")
    np.save(path("zero_d.npy"), np.float32(1))
    refuse("zero_d.npy", "data", "a 0-D array")
    np.save(path("four.npy"), np.ones((1, 2, 3, 4), "f4"))
    refuse("four.npy", "data", "a 4-D array", hint="save a.reshape(1, 24) or a.reshape(6, 4)")
    bad("fortran3", npy_header("<f4", (1, 3, 2), True), "3-D array in Fortran order", hint="ascontiguousarray")
    for shape in ((0, 5), (5, 0), (0, 0)):
        bad("empty_%d_%d" % shape, npy_header("<f4", shape), "holds %d rows of %d dimensions" % shape, b"")
    bad("no_batch", npy_header("<f4", (0, 3, 2)), "a batch of 0 problems", b"")
    np.save(path("object.npy"), np.array([[1, "x"]], dtype=object), allow_pickle=True)
    refuse("object.npy", "data", "holds Python objects", hint="never unpickles")
    np.save(path("struct.npy"), np.zeros((2, 2), [("a", "f4")]))
    refuse("struct.npy", "data", "structured array")
    for kind in ("<c8", "<U3", "<M8[s]", "<f16"):
        bad("type_" + "".join(c for c in kind if c.isalnum()), npy_header(kind, (3, 2)), f"elements of type '{kind}'")
    bad("v2", npy_header("|V2", (3, 2)), "elements of type '|V2'", hint="--dtype bf16")
    put("wrong_dtype.npy", good, data)
    refuse("wrong_dtype.npy", "usage", "holds float32, --dtype asks for bfloat16", dtype="bf16")
    text("unknown_key", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'x': 1}", "unknown key 'x'")
    text("twice", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}", "'descr' appears twice")
    text("missing", "{'descr': '<f4', 'shape': (3, 2)}", "key 'fortran_order' is missing")
    text("negative", "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2)}", "not a number of at least 0")
    text("beyond", "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 2)}", "beyond 64 bits")
    text("product", "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 2)}", "more bytes than")
    text("wraps", "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", "more bytes than")
    text("wraps_batch", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 1)}", "beyond 64 bits")
    text("dims", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2147483648)}", "the most is 2147483647")
    text("not_tuple", "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}", "not a tuple")
    text("expression", "{'descr': '<f4', 'fortran_order': False, 'shape': (1+2, 2)}", "expected ')'")
    text("call", "__import__('os').system('true')", "expected '{'")
    text("escape", "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (3, 2)}", "unexpected character")
    text("order", "{'descr': '<f4', 'fortran_order': None, 'shape': (3, 2)}", "neither True nor False")
    text("unclosed", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)", "expected '}'")
    text("after", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)} {}", "something follows")
    text("open_string", "{'descr", "unexpected character in a string")
    text("terminal", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), '\x7fkey': 1}", "unknown key '\\x7fkey'")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)} "
    bad("no_newline", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header, "does not end in a newline")
    np.save(path("overflow.npy"), np.array([[1, 2], [3, 1e39]]))
    refuse("overflow.npy", "data", "row 1, column 1: 9.9999999999999994e+38 does not fit in float32")
    np.save(path("overflow_f.npy"), np.asfortranarray([[1, 2, 3], [3, -1e300, 4]]))
    refuse("overflow_f.npy", "data", "row 1, column 1: -1.0000000000000001e+300 does not fit")
    np.save(path("inexact.npy"), np.array([[1, 2], [3, 4], [16777217, 5]], "i4"))
    refuse("inexact.npy", "data", "row 2, column 0: 16777217 is not exact in float32")
    np.save(path("inexact_min.npy"), np.array([[1, 2], [3, 2**31 - 1]], "i4"))
    refuse("inexact_min.npy", "data", "row 1, column 1: 2147483647 is not exact")
    for kind, value in (("u4", 2**32 - 1), ("i8", -2**63 + 1), ("i8", 2**24 + 1), ("u8", 2**64 - 1),
                        ("u8", 2**63 + 2**39)):
        for order in "CF":
            name = f"inexact_{kind}_{value}_{order}.npy"
            np.save(path(name), np.array([[1, 2, 0], [3, value, 4]], kind, order=order))
            refuse(name, "data", f"row 1, column 1: {value} is not exact in float32", hint="a.astype('float32')")
    bad("bool", npy_header("|b1", (3, 2)), "row 1, column 1: a bool is 2, expected 0 or 1",
        np.array([0, 1, 1, 2, 0, 0], "u1"), hint="a.view('uint8')")
    bad("not_half", npy_header("<u4", (3, 2)), "holds uint32, --dtype asks for bfloat16", dtype="bf16", status="usage")


def hostile_vecs():
    a = vecs(np.arange(30, dtype="<f4").reshape(6, 5))
    whole = a.tobytes()
    bad = bytearray(whole)
    bad[4 * 24:4 * 24 + 4] = struct.pack("<i", 64)
    put("bad_row.fvecs", bytes(bad))
    refuse("bad_row.fvecs", "data", "row 4 starts with dimension 64, expected 5 (byte 96)",
           hint="'fkm info --full")
    put("cut.fvecs", whole[:-3])
    refuse("cut.fvecs", "data", "has 5 rows of dimension 5 (24 bytes each) and 21 bytes more, from byte 120")
    put("matrix.fvecs", struct.pack("<II", 30, 10), np.ones(300, "f4"))
    refuse("matrix.fvecs", "data", "has 9 rows of dimension 30", hint="such as .fbin")
    put("half.fvecs", whole[:10])
    refuse("half.fvecs", "data", "has 0 rows of dimension 5 (24 bytes each) and 10 bytes more")
    put("tiny.bvecs", b"\x01\x00")
    refuse("tiny.bvecs", "data", "has 2 bytes, too few for one row")
    for d in (0, -1, -2**31):
        put(f"d{d}.fvecs", struct.pack("<i", d) + b"0123456789ab")
        refuse(f"d{d}.fvecs", "data", f"row 0 starts with dimension {d}, expected at least 1 (byte 0)")
    put("d_max.fvecs", struct.pack("<i", 2**31 - 1) * 5)
    refuse("d_max.fvecs", "data", "has 0 rows of dimension 2147483647 (8589934592 bytes each)")
    put("empty.fvecs")
    refuse("empty.fvecs", "data", "is empty")
    big = bytearray(vecs(np.zeros((4000, 128), "<f4")).tobytes())
    big[3999 * 516:3999 * 516 + 4] = struct.pack("<i", 127)
    put("last_row.fvecs", bytes(big))
    refuse("last_row.fvecs", "data", "row 3999 starts with dimension 127, expected 128 (byte 2063484)")
    wide = bytearray(vecs(np.zeros((3, 300000), "<f4")).tobytes())
    wide[2 * 1200004] ^= 1
    put("wide_row.fvecs", bytes(wide))
    refuse("wide_row.fvecs", "data", "row 2 starts with dimension 300001, expected 300000 (byte 2400008)")
    put("inexact.ivecs", vecs(np.array([[0, 1], [2**24 + 1, 7]], "<i4")))
    refuse("inexact.ivecs", "data", "row 1, column 0: 16777217 is not exact")
    put("what.xyz", b"neither this nor that")
    refuse("what.xyz", "data", "not a known format", hint=".fvecs")
    put("typed.fvecs", whole)
    refuse("typed.fvecs", "usage", "holds float32, --dtype asks for uint8", dtype="u8")
    refuse("typed.fvecs", "usage", "--dataset is for .h5", dataset="x")


def hostile_bin():
    put("short.fbin", struct.pack("<II", 3, 2), b"x" * 23)
    refuse("short.fbin", "data", "header says 3 rows of 2 float32, so it must end at byte 32, but ends at byte 31")
    put("long.u8bin", struct.pack("<II", 3, 2), b"x" * 7)
    refuse("long.u8bin", "data", "must end at byte 14, but ends at byte 15")
    put("head.i8bin", b"1234567")
    refuse("head.i8bin", "data", "has 7 bytes, the header alone needs 8")
    put("none.fbin", struct.pack("<II", 0, 128))
    refuse("none.fbin", "data", "holds 0 rows of 128 dimensions")
    put("flat.fbin", struct.pack("<II", 128, 0))
    refuse("flat.fbin", "data", "holds 128 rows of 0 dimensions")
    put("over.fbin", struct.pack("<II", 2**32 - 1, 2**32 - 1))
    refuse("over.fbin", "data", "rows of 4294967295 dimensions, the most is 2147483647")
    put("wrap.fbin", struct.pack("<II", 2**31, 2**31 - 1))
    refuse("wrap.fbin", "data", "more bytes than")
    put("many.bin", struct.pack("<II", 3, 2), b"x" * 24)
    refuse("many.bin", "usage", "does not say what its elements are", hint="--dtype f32 or i32 (3 rows of 2 fit)")
    put("none.bin", struct.pack("<II", 3, 2), b"x" * 25)
    refuse("none.bin", "data", "begins with 3 and 2, which are not the rows and dimensions of a .bin of 33 bytes",
           hint="--dtype and --rows")
    refuse("none.bin", "data", "header says 3 rows of 2 float32, so it must end at byte 32, but ends at byte 33",
           dtype="f32", hint="--rows 0:3 takes them")
    put("tiny.bin", b"1234567")
    refuse("tiny.bin", "data", "has 7 bytes, the header alone needs 8")
    put("bytes.fbin", struct.pack("<II", 3, 2), b"x" * 6)
    refuse("bytes.fbin", "data", "its size is that of 3 rows of 2 elements of 1 bytes, float32 has 4", hint="--dtype u8 or i8")
    put("wide_cut.fbin", struct.pack("<QQ", 3, 2), b"x" * 23)
    refuse("wide_cut.fbin", "data", "header says 3 rows of 2 float32, so it must end at byte 40, but ends at byte 39",
           hint="--rows 0:2 takes them")
    put("wide_huge.fbin", struct.pack("<QQ", 2**63, 2), b"x" * 24)
    refuse("wide_huge.fbin", "data", "holds 0 rows of 2147483648 dimensions")
    put("wide_many.fbin", struct.pack("<QQ", 2**31, 2**31 - 1), b"x" * 24)
    refuse("wide_many.fbin", "data", "more bytes than")
    put("inexact.ibin", struct.pack("<IIi", 1, 1, -16777217))
    refuse("inexact.ibin", "data", "row 0, column 0: -16777217 is not exact")


def hostile_safetensors():
    def table(name, head, words, body=b"", hint="-", **kw):
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        put(name + ".safetensors", struct.pack("<Q", len(text)), text, body)
        refuse(name + ".safetensors", "data", words, hint=hint, **kw)

    def one(**changes):
        entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
        entry.update(changes)
        return {"w": entry}

    body = b"\0" * 16
    table("s_cut", one(), "its tensors end at byte %d, the file at byte %d" % (
        8 + len(json.dumps(one())) + 16, 8 + len(json.dumps(one())) + 15), body[:-1])
    table("s_more", one(), "its tensors end at byte", body + b"x")
    table("s_1d", one(shape=[4]), "has no 2-D tensor", body)
    table("s_named_1d", one(shape=[4]), "tensor 'w' is 1-D, expected 2-D", body, dataset="w", hint="t.reshape(-1, 1) as 'w'")
    table("s_3d", one(shape=[2, 1, 2]), "has no 2-D tensor", body, hint="t.reshape(-1, 2) as 'w', or t.reshape(len(t), -1)")
    table("s_named_3d", one(shape=[2, 1, 2]), "tensor 'w' is 3-D, expected 2-D", body, dataset="w", hint="t.reshape(-1, 2)")
    table("s_dtype", one(dtype="F8_E4M3"), "tensor 'w' holds F8_E4M3, which fkm does not read", body)
    table("s_inexact", one(dtype="I64", shape=[1, 2]), "row 0, column 1: 16777217 is not exact", np.array([1, 2**24 + 1]))
    table("s_span", one(data_offsets=[0, 12]), "2 x 2 F32 (16 bytes), its offsets span 12", body)
    table("s_back", one(data_offsets=[16, 0]), "tensor 'w' needs exactly dtype, shape and data_offsets", body)
    table("s_negative", one(data_offsets=[-16, 0]), "needs exactly dtype", body)
    table("s_fraction", one(shape=[2, 2.5]), "needs exactly dtype", body)
    table("s_beyond", one(shape=[2**60, 2**60]), "needs exactly dtype", body)
    table("s_product", one(shape=[2**52, 2**30]), "more bytes than a file can have", body)
    table("s_empty", one(shape=[0, 2], data_offsets=[0, 0]), "holds 0 rows of 2 dimensions")
    table("s_extra", one(more=1), "needs exactly dtype", body)
    table("s_list", b"[1, 2]", "safetensors header: not a JSON object (byte ")
    table("s_broken", b"{\"w\": {\"dtype\": ", "safetensors header: not a JSON object (byte ", body)
    table("s_after", json.dumps(one()).encode() + b" x", "safetensors header: not a JSON object (byte ", body)
    table("s_comma", json.dumps(one()).encode()[:-1] + b",}", "safetensors header: not a JSON object (byte ", body)
    table("s_meta", {"__metadata__": [0] * 9, **one()}, "__metadata__ is not an object", body)
    table("s_value", {"w": [0] * (1 << 18)}, "a JSON value of more than 262144 bytes")
    table("s_deep", b"{\"w\":" + b"[" * 100000, "safetensors header: not a JSON object (byte ")
    table("s_two", {**one(), "v": one(data_offsets=[16, 32])["w"]},
          "has 2 2-D tensors: w (2 x 2 F32), v (2 x 2 F32)", body * 2, hint="--dataset NAME")
    table("s_absent", one(), "has no tensor 'nope'", body, dataset="nope", hint="w (2 x 2 F32)")
    table("s_twice", json.dumps(one()).encode()[:-1] + b", " + json.dumps(one()).encode()[1:],
          "appears twice", body, dataset="w")
    table("s_control", {"a\u001b[2Jb": one()["w"], "v": one()["w"]}, "a\\x1b[2Jb", body)
    put("s_huge.safetensors", struct.pack("<Q", 2**63), b"{}")
    refuse("s_huge.safetensors", "data", "safetensors header of 9223372036854775808 bytes")
    put("s_long.safetensors", struct.pack("<Q", 200), b"{}", b" " * 100)
    refuse("s_long.safetensors", "data", "safetensors header of 200 bytes")
    table("s_over", one(dtype="F64", shape=[1, 2]), "row 0, column 1: 1.0000000000000001e+300 does not fit",
          np.array([1, 1e300]))


def chunks_of_h5(make):
    """Chunks that are not what the dataset says, stored as they are."""
    good = np.arange(40, dtype="f4").tobytes()

    def chunk(name, stored, words, mask=0, **options):
        with make(name) as f:
            d = f.create_dataset("a", (10, 4), "f4", chunks=(10, 4), **options)
            d.id.write_direct_chunk((0, 0), stored, mask)
        refuse(name, "data", "the chunk of rows 0 to 9, columns 0 to 3: " + words, hint="the file is damaged")

    gzip, lzf = {"compression": "gzip"}, {"compression": "lzf"}
    chunk("bomb.h5", zlib.compress(bytes(64 << 20), 9)[:4000], "its gzip data inflate to more than 160 bytes", **gzip)
    chunk("bomb_between.h5", zlib.compress(bytes(1 << 20)), "its gzip data inflate to more than 4256 bytes",
          mask=4, fletcher32=True, shuffle=True, **gzip)
    chunk("short_chunk.h5", zlib.compress(good[:-4]), "it holds 156 bytes, expected 160", **gzip)
    chunk("early_end.h5", zlib.compress(good)[:-20], "its gzip data end early", **gzip)
    chunk("no_zlib.h5", good, "its gzip data are damaged at byte ", **gzip)
    chunk("large_chunk.h5", bytes(5000), "it has 5000 bytes in the file, expected at most 4256", **gzip)
    chunk("unfiltered.h5", good + good, "it holds 320 bytes, expected 160", mask=1, **gzip)
    chunk("lzf_bomb.h5", b"\0a" + b"\xe0\xff\0" * 9, "its lzf data inflate to more than 160 bytes", **lzf)
    chunk("lzf_before.h5", b"\0a\x20\1" + b"\0a" * 9, "its lzf data are damaged", **lzf)
    chunk("lzf_cut.h5", b"\x1fabc", "its lzf data are damaged", **lzf)
    chunk("lzf_end.h5", b"\0a\xe0", "its lzf data are damaged", **lzf)
    chunk("wrong_sum.h5", good + b"1234", "its checksum is 34333231, its data give ", fletcher32=True)
    chunk("no_sum.h5", b"123", "it has 3 bytes, too few for a checksum", fletcher32=True)
    with make("newer.h5") as f:
        f.create_dataset("a", data=np.ones((10, 4), "f4"), chunks=(5, 4))
    content = open(path("newer.h5"), "rb").read()    # message of the layout, chunked, of another version
    put("newer.h5", content.replace(b"\x03\x02\x03", b"\x0f\x02\x03"))
    refuse("newer.h5", "data", "cannot open the dataset '/a': HDF5 says: ", hint="newer HDF5 library")


def hostile_hdf5():
    def make(name):
        return h5py.File(path(name), "w")

    put("secret.bin", b"s" * 32)
    with make("external.h5") as f:
        f.create_dataset("a", (4, 2), "f4", external=[(path("secret.bin").encode(), 0, 32)])
    refuse("external.h5", "data", "are kept in another file")
    with make("unwritten.h5") as f:
        f.create_dataset("a", (2**31, 128), "f4")
    refuse("unwritten.h5", "data", "'/a' is 2147483648 x 128 float32, but only partly written")
    with make("wrap.h5") as f:
        f.create_dataset("a", (2**40, 2**22), "f4", chunks=(1, 1024))
    refuse("wrap.h5", "data", "more bytes than a file can have")
    with make("partly.h5") as f:
        f.create_dataset("a", (100, 8), "f4", chunks=(10, 8))[:50] = 1
    refuse("partly.h5", "data", "only partly written", hint="stopped")
    with make("scale.h5") as f:
        f.create_dataset("a", data=np.ones((100, 8), "i4"), scaleoffset=0)
    refuse("scale.h5", "data", "(filter 6)", hint="h5py.File('scale.h5')['/a']")
    with make("big_chunk.h5") as f:
        f.create_dataset("a", (2**20, 128), "f4", chunks=(2**20, 128), maxshape=(None, 128))
    refuse("big_chunk.h5", "data", "chunks of 1048576 x 128 float32, the most is 256 MiB")
    with make("target.h5") as f:
        f["a"] = np.ones((3, 2), "f4")
    with make("link.h5") as f:
        f["a"] = h5py.ExternalLink("target.h5", "/a")
        f["g"] = h5py.ExternalLink("target.h5", "/")
        f["s"] = h5py.SoftLink("/g/a")
        f["loop"] = h5py.SoftLink("/loop")
        f.create_group("empty")
    refuse("link.h5", "data", "has no 2-D numeric dataset")
    refuse("link.h5", "data", "'a' is an external link", dataset="a")
    refuse("link.h5", "data", "'g/a' is an external link", dataset="g/a")
    refuse("link.h5", "data", "'s' is an external link", dataset="s")
    refuse("link.h5", "data", "has no dataset 'loop'", dataset="loop")
    refuse("link.h5", "data", "has no dataset 'empty'", dataset="empty")
    refuse("link.h5", "data", "has no dataset '/'", dataset="/")
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(path("target.h5"), "a", (3, 2))
    with h5py.File(path("virtual.h5"), "w", libver="latest") as f:
        f.create_virtual_dataset("a", layout)
    refuse("virtual.h5", "data", "(virtual)")
    with make("many.h5") as f:
        for name in ("train", "test"):
            f[name] = np.ones((3, 2), "f4")
        f["text"] = np.array([[b"x"]])
        f["flat"] = np.arange(4)
        f["cube"] = np.ones((2, 2, 2))
        f["long"] = np.full((2, 2), 2**53 - 1, "i8")
        f.create_dataset("colour", data=np.ones((2, 2), "u1"),
                         dtype=h5py.enum_dtype({"RED": 1, "GREEN": 2, "BLUE": 3}, "u1"))
    refuse("many.h5", "data", "has 3 2-D numeric datasets: /", hint="--dataset PATH")
    refuse("many.h5", "data", "dataset 'flat' is 1-D, expected 2-D", dataset="flat")
    refuse("many.h5", "data", "dataset 'cube' is 3-D", dataset="cube")
    refuse("many.h5", "data", "dataset 'text' holds string", dataset="text")
    refuse("many.h5", "data", "row 0, column 0: 9007199254740991 is not exact", dataset="long")
    refuse("many.h5", "data", "dataset 'colour' holds enumeration", dataset="colour", hint="h5py's bool")
    refuse("many.h5", "data", "has no dataset 'nope'", dataset="nope", hint="/test (3 x 2 float32)")
    refuse("many.h5", "usage", "holds float32, --dtype asks for bfloat16", dataset="test", dtype="bf16")
    with make("none.h5") as f:
        f.create_dataset("a", (0, 5), "f4")
    refuse("none.h5", "data", "holds 0 rows of 5 dimensions")
    with make("table.h5") as f:    # as pandas writes it: rows are compound, indices are empty arrays
        f["df/table"] = np.zeros(5, [("index", "i8"), ("values", "f4", (3,))])
        f["df/_i_table/index/sorted"], f["df/_i_table/index/indices"] = np.zeros((0, 9)), np.zeros((0, 9), "i4")
    refuse("table.h5", "data", "'/df/table' is a table", hint="pandas.read_hdf")
    put("text.h5", b"this is no HDF5 file")
    refuse("text.h5", "data", "cannot open as HDF5: HDF5 says: ")
    chunks_of_h5(make)
    content = open(path("target.h5"), "rb").read()
    put("cut.h5", content[:-8])
    refuse("cut.h5", "data", "cannot open as HDF5: HDF5 says: ")
    with make("overflow.h5") as f:
        f.create_dataset("a", data=np.array([[1, 2], [1e39, 4]]), chunks=(1, 1))
    refuse("overflow.h5", "data", "row 1, column 0: 9.9999999999999994e+38 does not fit")
    with make("inexact.h5") as f:
        f.create_dataset("a", data=np.array([[1, 2], [3, 16777219]], "i4"), chunks=(1, 1))
    refuse("inexact.h5", "data", "row 1, column 1: 16777219 is not exact")


# ---- files that fkm wrote ----

def meant(dtype, shape):
    """test_writer.c's values: element i of an array."""
    i = np.arange(int(np.prod(shape)))
    if dtype == "float32":
        a = (i * 0.37 - 100).astype("f4")
    elif dtype == "float64":
        a = i * 0.37 - 100
    elif dtype == "float16":
        a = (i % 2048).astype("f2")
    elif dtype == "bool":
        a = (i % 2).astype("?")
    else:
        a = i.astype("u2" if dtype == "bfloat16" else dtype)
    return a.reshape(shape)


def read_vecs(name, kind):
    raw = np.fromfile(path(name), "u1")
    d = int(raw[:4].view("<i4")[0])
    rows = raw.reshape(-1, 4 + d * np.dtype(kind).itemsize)
    assert (rows[:, :4].copy().view("<i4") == d).all(), name
    return np.ascontiguousarray(rows[:, 4:]).view(kind)


def read_bin(name, kind):
    n, d = np.fromfile(path(name), "<u4", 2)
    return np.fromfile(path(name), kind, offset=8).reshape(n, d)


def check():
    kinds = {"float32": "<f4", "int32": "<i4", "uint8": "u1", "int8": "i1", "float16": "<f2"}
    with open(path("written.tsv")) as f:
        for line in f:
            name, fmt, dtype, *shape = line.split("\t")
            shape = tuple(int(s) for s in shape)
            want = meant(dtype, shape)
            flat = want.reshape(-1, 1) if len(shape) == 1 else want.reshape(-1, shape[-1])
            if fmt == "npy":
                with open(path(name), "rb") as g:
                    head = g.read(10)
                assert (10 + head[8] + 256 * head[9]) % 64 == 0, name
                got = np.load(path(name))
                assert got.dtype == ("V2" if dtype == "bfloat16" else want.dtype), (name, got.dtype)
                got = got.view("u2") if dtype == "bfloat16" else got
            elif fmt.endswith("vecs"):
                got, want = read_vecs(name, kinds[dtype]), flat
            elif fmt.endswith("bin"):
                got, want = read_bin(name, kinds[dtype]), flat
            elif h5py is None:
                continue
            else:
                with h5py.File(path(name), "r") as g:
                    got = g[f"a_{dtype}_{len(shape)}"][()]
            assert got.shape == want.shape and got.tobytes() == want.tobytes(), (name, got, want)


def main():
    command = sys.argv[1]
    if command == "write":
        write_npy()
        write_vecs()
        write_bin()
        write_partial()
        write_safetensors()
        if h5py:
            write_hdf5()
        table = "read.tsv"
    elif command == "hostile":
        hostile_npy()
        hostile_vecs()
        hostile_bin()
        hostile_safetensors()
        if h5py:
            hostile_hdf5()
        table = "hostile.tsv"
    else:
        check()
        return
    with open(path(table), "w") as f:
        for line in lines:
            f.write("\t".join(str(x) for x in line) + "\n")


main()
