#!/usr/bin/python3
"""Same input, same options: the same bytes, whatever the machine is told to do."""
import functools
import os
import re
import unittest

import numpy as np

import harness
from harness import Fit, Run, ContractTest, CUDA, EMULATED, SLOW


@functools.cache
def isas():
    """Names that --isa takes here: what `fkm help isa` says of the CPU, best first, is tried."""
    if CUDA:
        return ["f16", "bf16"]
    listed = re.findall(r"^ +(\w+) +(yes|no)", Run("help", "isa").out, re.M)
    if not listed:
        raise AssertionError("fkm help isa lists nothing")
    x = harness.save(np.zeros((2, 2), np.float32), ".npy")
    for name, usable in listed:
        run = Run("fit", "-k", 1, "-n", 1, "--isa", name, "-o", harness.path("", "isa"), x)
        if run.code != (0 if usable == "yes" else 2):
            raise AssertionError(run)
    return [name for name, usable in listed if usable == "yes"]


class SameBits(ContractTest):
    @classmethod
    def setUpClass(cls):
        cls.x = harness.glove(1000 if SLOW else 10000)
        cls.data = harness.save(cls.x, ".fvecs")
        cls.k = 30 if SLOW else 200
        cls.one = Fit(cls.data, "--threads", 1, k=cls.k, iterations=6)

    def test_again(self):
        self.same_fit(Fit(self.data, "--threads", 1, k=self.k, iterations=6), self.one, "a second run")

    def test_threads(self):
        for threads in (2, 3, 7):
            fit = Fit(self.data, "--threads", threads, k=self.k, iterations=6)
            self.same_fit(fit, self.one, f"{threads} threads")
            self.assertEqual(fit.file("labels"), self.one.file("labels"))
            self.assertEqual(fit.file("centroids"), self.one.file("centroids"))

    def test_isa(self):
        names = isas()
        if not CUDA:
            self.assertIn("scalar", names)
            with open("/proc/cpuinfo") as f:
                flags = f.read().split()
            self.assertEqual("avx2" in names, "avx2" in flags and "fma" in flags)
        for name in names:
            fit = Fit(self.data, "--isa", name, k=self.k, iterations=6)
            self.assertEqual(fit.stats["machine"]["isa"].split("-")[0], name)
            self.same_fit(fit, self.one, f"--isa {name}")

    @unittest.skipIf(CUDA or SLOW, "large enough for the choice to be made")
    def test_finer_screening(self):
        """Centroids crowd together, far from where rows of all clusters are: roundings hide who is nearer."""
        rng = np.random.default_rng(4)
        rows, dims, k = 12_000, 64, 600
        centers = 2 * rng.standard_normal((15, dims), np.float32)
        x = centers[rng.integers(0, 15, rows)] + np.float32(0.1) * rng.standard_normal((rows, dims), np.float32)
        finely = "screening: in float32, as many candidates are close"
        whole = np.clip(128 + 20 * x, 0, 255).astype(np.uint8)
        for data, rounds, memory in ((x, "amx" in isas(), "6M"), (whole, len(isas()) > 1, "4M")):
            name = harness.save(data, ".npy")
            one = Fit(name, "--isa", "scalar", k=k, iterations=6)
            best = Fit(name, "-v", k=k, iterations=6)
            if rounds:
                self.assertIn(finely, best.run.err)
            self.same_fit(best, one, str(data.dtype))
            stream = Fit(name, "-v", "-m", memory, "--threads", 2, k=k, iterations=6)
            self.assertIn("rows are streamed", stream.run.err)
            self.same_fit(stream, one, f"{data.dtype}, streamed")
            self.check_predict(np.tile(data, (3, 1)), best.prefix + ".centroids.npy", finely if rounds else "")
        ties = np.repeat(x[:40], 300, axis=0)  # of which more digits do not tell
        name = harness.save(ties, ".npy")
        self.same_fit(Fit(name, k=k, iterations=4), Fit(name, "--isa", "scalar", k=k, iterations=4), "ties")

    def check_predict(self, x, centroids, says):
        """A single pass: what a sample shows, before it, is said."""
        labels = []
        for isa in isas()[0], "scalar":
            out = harness.path(".npy")
            run = Run("predict", "-v", "--isa", isa, "-c", centroids, "-o", out, harness.save(x, ".npy"))
            self.assertEqual(run.code, 0, run)
            self.assertIn(says if isa != "scalar" else "", run.err)
            labels.append(np.load(out))
        self.same_array(*labels, "labels of predict")

    @unittest.skipIf(CUDA or SLOW, "large enough for the choice to be tried")
    def test_quicker_screening(self):
        """What is tried in the second pass of a large problem: 8-bit integers, principal axes."""
        rng = np.random.default_rng(3)
        rows, dims, k = 41_000, 192, 6400
        flat = rng.standard_normal((k, dims), np.float32)
        flat = flat[rng.integers(0, k, rows)] + np.float32(0.4) * rng.standard_normal((rows, dims), np.float32)
        steep = rng.standard_normal((rows, dims), np.float32) * np.float32(0.8) ** np.arange(dims, dtype=np.float32)
        other = isas()[-2 if "amxint8" in isas() else -1] if "avx512" not in isas() else "avx512"
        for x, says in ((flat, "192 of 192 dims, rounded to 8-bit integers"), (steep, r"(64|96|128) of 192 dims")):
            data = harness.save(x, ".npy")
            one = Fit(data, "-v", k=k, iterations=3)
            if "amx" in isas() and "amxint8" in isas():
                self.assertRegex(one.run.err, "screening: " + says)
            # five threads share copies of sums as large as these
            self.same_fit(Fit(data, "--isa", other, "--threads", 5, k=k, iterations=3), one, says)
            stream = Fit(data, "-v", "-m", "60M", "--threads", 2, k=k, iterations=3)
            self.assertIn("rows are streamed", stream.run.err)
            self.assertRegex(stream.run.err, "screening: 192 of 192 dims")  # no heads: they are too dear for one pass
            if x is flat and "amx" in isas() and "amxint8" in isas():
                self.assertRegex(stream.run.err, "screening: " + says)
            self.same_fit(stream, one, "streamed, " + says)
            again = harness.path(".npy", "labels")
            run = Run("predict", "-c", one.prefix, "-o", again, data)
            self.assertEqual(run.code, 0, run)
            self.same_array(np.load(again), one.labels, "predict, " + says)
            for name in set(isas()) & {"avx512vnni", "avx2"}:
                fit = Fit(data, "-v", "--isa", name, k=k, iterations=3)
                self.assertRegex(fit.run.err, "screening: .* dims, (rounded|as)")
                self.same_fit(fit, one, says)

    def test_formats(self):
        for suffix in (".npy", ".fbin", ".h5", ".safetensors"):
            if suffix == ".h5" and Run("info", harness.save(self.x[:2], ".h5")).code != 0:
                continue                                   # built without HDF5
            fit = Fit(harness.save(self.x, suffix), k=self.k, iterations=6)
            self.same_fit(fit, self.one, suffix)

    def test_fortran_and_big_endian_npy(self):
        self.same_fit(Fit(harness.save(np.asfortranarray(self.x), ".npy"), k=self.k, iterations=6),
                      self.one, "Fortran order")
        self.same_fit(Fit(harness.save(self.x.astype(">f4"), ".npy"), k=self.k, iterations=6),
                      self.one, "big-endian")

    def test_several_files_are_one(self):
        cut = len(self.x) // 3
        parts = [harness.save(self.x[:cut], ".npy"), harness.save(self.x[cut:], ".fbin")]
        self.same_fit(Fit(parts, k=self.k, iterations=6), self.one, "two files")

    def test_rows(self):
        cut = len(self.x) // 2
        a = Fit(self.data, "--rows", f"7:{cut}", k=self.k, iterations=3)
        b = Fit(harness.save(self.x[7:cut], ".npy"), k=self.k, iterations=3)
        self.same_fit(a, b, "--rows")

    def test_seed(self):
        a = Fit(self.data, "--seed", 7, k=self.k, iterations=2)
        b = Fit(self.data, "--seed", 7, "--threads", 2, k=self.k, iterations=2)
        c = Fit(self.data, "--seed", 8, k=self.k, iterations=2)
        self.same_fit(a, b, "the same seed")
        self.assertNotEqual(a.file("centroids"), c.file("centroids"), "another seed")


class Streaming(ContractTest):
    """A file larger than --memory: the bits of a run that keeps it, within the promise."""

    def test_small_memory(self):
        rng = np.random.default_rng(5)
        rows = 30_000 if EMULATED and SLOW else 120_000 if SLOW else 400_000
        x = rng.standard_normal((rows, 64), np.float32)
        x += rng.integers(0, 12, (rows, 1)).astype(np.float32)
        data = harness.save(x, ".fbin")
        large = Fit(data, "--memory", "2G", k=20, iterations=4)
        refused = Fit(data, "--memory", "1M", k=20, iterations=4, code=5)
        self.assertFalse(os.path.exists(refused.prefix + ".labels.npy"))
        hint = re.search(r"--memory (\d+)M", refused.run.err)
        self.assertIsNotNone(hint, refused.run)
        limit = int(hint[1]) << 20                         # what the message says is enough
        self.assertLess(limit, x.nbytes, "streaming needs less than the file")
        small = Fit(data, "--memory", limit, k=20, iterations=4)
        self.same_fit(small, large, "streaming")
        middle = Fit(data, "--memory", limit + (3 << 20), "--threads", 3, k=20, iterations=4)
        self.same_fit(middle, large, "streaming in other chunks")
        if not SLOW:
            self.assertLessEqual(small.run.peak_bytes, limit + (16 << 20), "peak memory")
            self.assertLessEqual(middle.run.peak_bytes, limit + (19 << 20), "peak memory")


if __name__ == "__main__":
    harness.main()
