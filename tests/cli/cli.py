"""Runs fkm and makes small inputs, for the tests of the command line. Needs nothing but Python."""
import array
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

FKM = os.environ["FKM"]
SRC = os.environ["SRC"]
TMP = os.environ["TEST_TMP"]
SLOW = os.environ.get("CONFIG", "release") != "release" and "FKM_TEST_FULL" not in os.environ


def clean_environment(**extra):
    """The environment of a test: no settings of the user's, messages in English."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FKM_") and k != "NO_COLOR"}
    env.update(LC_ALL="C", TERM="dumb", PATH=os.path.dirname(FKM) + ":" + env.get("PATH", ""))
    env.update(extra)
    return env


def new_directory():
    return tempfile.mkdtemp(dir=TMP)


def fkm(*args, cwd, env=None, **more):
    return subprocess.run([FKM, *map(str, args)], cwd=cwd, env=clean_environment(**(env or {})),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)


# ---- inputs, from a small generator of numbers: the same everywhere ----

def numbers(count, seed=1):
    """In [0, 1), in steps of 2^-24."""
    x, out = seed * 2654435761 % 2**32, []
    for _ in range(count):
        x = (x * 1664525 + 1013904223) % 2**32
        out.append((x >> 8) / 2**24)
    return out


def blobs(rows, dims, centers=3, seed=1):
    """A list of rows round a few well separated centres, in turn."""
    noise = numbers(rows * dims, seed)
    return [[10.0 * (i % centers) + noise[i * dims + t] for t in range(dims)] for i in range(rows)]


def noise(rows, dims, seed=1):
    """Rows without structure: Lloyd's iteration takes long to its fixpoint."""
    flat = numbers(rows * dims, seed)
    return [flat[i * dims:(i + 1) * dims] for i in range(rows)]


def npy(rows, shape=None, kind="<f4"):
    values = array.array({"<f4": "f", "<i4": "i"}[kind], [v for row in rows for v in row])
    shape = shape or (len(rows), len(rows[0]) if rows else 0)
    head = repr({"descr": kind, "fortran_order": False, "shape": tuple(shape)}).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + values.tobytes()


def fvecs(rows):
    return b"".join(struct.pack("<i", len(r)) + array.array("f", r).tobytes() for r in rows)


def save(directory, name, data):
    path = os.path.join(directory, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def load_npy(path):
    """Shape and flat values of a float32 or int32 .npy."""
    import ast
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<H", data[8:10])[0]
    head = ast.literal_eval(data[10:10 + length].decode())
    values = array.array({"<f4": "f", "<i4": "i"}[head["descr"]])
    values.frombytes(data[10 + length:])
    return head["shape"], list(values)


# ---- files of a run that go away with it ----

def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def system_id():
    """What fkm writes behind its process number: of this boot and this container."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as f:
        crc = crc32c(f.readline())
    return f"{crc32c(os.readlink('/proc/self/ns/pid').encode(), crc):08x}"


def dead_pid():
    p = subprocess.Popen(["true"])
    p.wait()
    return p.pid


def exchange_record(directory, names, state="", key="", existed=(), content=None):
    """What stands beside the marker, the last of the names, while outputs are exchanged."""
    def string(s):
        return f"{len(s.encode())}:{s}\n"
    text = "fkm exchange 1\n" + string(key) + string(state) + f"{len(names)}\n"
    for name in names:
        data = (content or {}).get(name, b"")
        text += (string(directory) + string(name) +
                 f"{len(data)}\n{crc32c(data)}\n{int(name in existed)}\n")
    return (text + f"{crc32c(text.encode())}\n").encode()


# ---- checks ----

_failures = []


def check(ok, *what):
    if not ok:
        _failures.append(what)
        print("FAILED:", *what, file=sys.stderr)


def check_equal(got, expected, *what):
    check(got == expected, *what, f"\n  expected {expected!r}\n  found    {got!r}")


def finish():
    if _failures:
        print(f"{len(_failures)} checks failed", file=sys.stderr)
    sys.exit(1 if _failures else 0)


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)
