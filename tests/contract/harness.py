"""Runs fkm on arrays and reads what it wrote, for the tests of the contract."""
import json
import os
import struct
import subprocess
import sys
import threading
import time
import unittest

import numpy as np

sys.dont_write_bytecode = True

FKM = os.environ["FKM"]
SRC = os.environ["SRC"]
TMP = os.environ["TEST_TMP"]
CUDA = os.environ.get("FKM_DEVICE", "").startswith("cuda")
# A sanitizer, or a GPU that is none, is in the way: smaller data, and fewer cases.
EMULATED = "EMULATED" in os.environ
SLOW = (os.environ.get("CONFIG", "release") != "release" or EMULATED) and "FKM_TEST_FULL" not in os.environ
GLOVE = os.path.join(SRC, "tests/data/glove-10k-100d.fvecs")
MNIST = os.path.join(SRC, "tests/data/mnist-2k-784d.bvecs")

_serial = 0


def path(suffix, stem="t"):
    """A new name in the directory of this test."""
    global _serial
    _serial += 1
    return os.path.join(TMP, f"{stem}{_serial}{suffix}")


# ---- files, written and read by hand: nothing of fkm is trusted here ----

def vecs(x):
    head = np.full((len(x), 1), x.shape[1], "<i4").view(np.uint8)
    return np.hstack([head, np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)]).tobytes()


def save(x, suffix):
    """x as a file of that kind; returns its path."""
    name = path(suffix)
    if suffix == ".npy":
        np.save(name, x)
    elif suffix in (".h5", ".hdf5"):
        import h5py
        with h5py.File(name, "w") as f:
            f.create_dataset("train", data=x)
    elif suffix.endswith("vecs"):
        with open(name, "wb") as f:
            f.write(vecs(x))
    elif suffix.endswith("bin"):
        with open(name, "wb") as f:
            f.write(struct.pack("<II", *x.shape) + np.ascontiguousarray(x).tobytes())
    elif suffix == ".safetensors":
        kind = {"float32": "F32", "float16": "F16", "uint8": "U8", "int8": "I8", "float64": "F64", "int64": "I64"}
        head = json.dumps({"x": {"dtype": kind[str(x.dtype)], "shape": list(x.shape),
                                 "data_offsets": [0, x.nbytes]}}).encode()
        head += b" " * (-len(head) % 8)
        with open(name, "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head + np.ascontiguousarray(x).tobytes())
    else:
        raise ValueError(suffix)
    return name


def load_vecs(name, dtype):
    raw = np.fromfile(name, np.uint8)
    d = int(raw[:4].view("<i4")[0])
    rows = raw.reshape(-1, 4 + d * np.dtype(dtype).itemsize)[:, 4:]
    return np.ascontiguousarray(rows).view(dtype)


def glove(rows=10000):
    return load_vecs(GLOVE, "<f4")[:rows]


def mnist(rows=2000):
    return load_vecs(MNIST, np.uint8)[:rows]


# ---- runs ----

class Run:
    """One run of fkm: code, out, err, peak_bytes."""

    def __init__(self, *args, env=None, stdin=None):
        self.args = [str(a) for a in args]
        child = subprocess.Popen([FKM, *self.args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 stdin=stdin or subprocess.DEVNULL, text=True, cwd=TMP,
                                 env=dict(os.environ, **(env or {})))
        self.peak_bytes = 0
        watch = threading.Thread(target=self._watch, args=(child,))
        watch.start()
        self.out, self.err = child.communicate()
        watch.join()
        self.code = child.returncode

    def _watch(self, child):
        while child.poll() is None:
            try:
                with open(f"/proc/{child.pid}/status") as f:
                    for line in f:
                        if line.startswith("VmHWM:"):
                            self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)
            except OSError:
                return
            time.sleep(0.004)

    def __str__(self):
        return f"fkm {' '.join(self.args)}\nexit {self.code}\n{self.out}{self.err}"


class Fit:
    """What a fit wrote: labels, centroids, stats, inertia, run."""

    def __init__(self, data, *args, k, init=None, iterations=10, tol=0, code=0):
        self.prefix = path("", "out")
        more = []
        if init is not None:
            more = ["-i", save(np.asarray(init, np.float32), ".npy") if not isinstance(init, str) else init]
        files = data if isinstance(data, list) else [data]
        self.run = Run("fit", "-k", k, "-n", iterations, "-t", tol, "-o", self.prefix, *more, *args, *files)
        if self.run.code != code:
            raise AssertionError(f"expected exit {code}\n{self.run}")
        if code == 0:
            self.centroids = np.load(self.prefix + ".centroids.npy")
            self.labels = np.load(self.prefix + ".labels.npy")
            with open(self.prefix + ".stats.json") as f:
                self.stats = json.load(f)
            self.inertia = self.stats["result"]["inertia"]

    def file(self, what):
        with open(f"{self.prefix}.{what}.npy", "rb") as f:
            return f.read()


class ContractTest(unittest.TestCase):
    """Comparisons in bits, with a message that says where they part."""

    turn = 0

    def same_array(self, got, want, what):
        self.assertEqual(got.dtype, want.dtype, what)
        self.assertEqual(got.shape, want.shape, what)
        a, b = np.ascontiguousarray(got), np.ascontiguousarray(want)
        if a.tobytes() == b.tobytes():
            return
        byte = a.dtype.itemsize
        parts = (a.view(np.uint8).reshape(-1, byte) != b.view(np.uint8).reshape(-1, byte)).any(1)
        where = np.flatnonzero(parts)
        i = tuple(int(v) for v in np.unravel_index(where[0], a.shape))
        self.fail(f"{what}: {len(where)} of {a.size} differ, first at {i}: {got[i]!r}, expected {want[i]!r}")

    def same_fit(self, a, b, what):
        self.same_array(a.labels, b.labels, f"{what}: labels")
        self.same_array(a.centroids, b.centroids, f"{what}: centroids")
        self.assertEqual(a.inertia, b.inertia, f"{what}: inertia")

    def check_fit(self, x, k, init=None, iterations=10, data=None, empty="farthest", args=(), wide=None):
        """fkm on x (as float32) from `init` equals the reference, bit for bit, with every instruction
        set (large problems: the best; where that is slow, the best and another in turn). Returns the fit."""
        import reference
        import same_bits
        x32 = np.ascontiguousarray(x).astype(np.float32)
        init = x32[:k] if init is None else np.asarray(init, np.float32)
        if wide is not None:
            self.assertEqual(reference.scale(x32)[1], wide, "the data does not test what it should")
        data, init_file = data or save(np.ascontiguousarray(x), ".npy"), save(init, ".npy")
        args = ["--empty", empty, *args]
        fit = Fit(data, *args, k=k, init=init_file, iterations=iterations)
        label, c, fixpoint = reference.lloyd(x32, init, iterations, empty)
        self.same_array(fit.centroids, c, "centroids")
        self.same_array(fit.labels, label, "labels")
        self.assertEqual(fit.stats["status"] == "converged", fixpoint, "is it the fixpoint?")
        self.check_inertia(fit, x32)
        if "--isa" not in args and x.size * k < 4_000_000:
            others = same_bits.isas()[1:]
            if SLOW and others:
                ContractTest.turn += 1
                others = [others[ContractTest.turn % len(others)]]
            for isa in others:
                other = Fit(data, "--isa", isa, *args, k=k, init=init_file, iterations=iterations)
                self.same_fit(other, fit, f"--isa {isa}")
        return fit

    def check_inertia(self, fit, x32):
        import reference
        self.assertEqual(fit.inertia, reference.exact_inertia(x32, fit.centroids, fit.labels), "inertia")
        plain = reference.plain_inertia(x32, fit.centroids, fit.labels)
        slack = self.quantum_slack(x32, fit.centroids[fit.labels])
        self.assertLessEqual(abs(fit.inertia - plain), 1e-12 * plain + slack,
                             f"inertia {fit.inertia!r}, in long double {plain!r}")

    @staticmethod
    def quantum_slack(x32, own):
        """What rounding rows to the quantum may do to the inertia: nothing for most data."""
        import reference
        e, _ = reference.scale(x32)
        x = x32.astype(np.float64)
        delta = np.abs(np.ldexp(np.rint(np.ldexp(x, e)), -e) - x)
        return float((2 * delta * np.abs(x - own) + delta * delta).sum())


def main():
    unittest.main(verbosity=2)
