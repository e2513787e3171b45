#!/usr/bin/python3
"""Batches equal separate runs; every element type equals the reference on its float32 values."""
import numpy as np

import harness
import reference
from harness import Fit, Run, ContractTest


def bfloat16(x):
    """float32 cut to bfloat16: (bits as uint16, the values)."""
    bits = (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


class Batches(ContractTest):
    def setUp(self):
        rng = np.random.default_rng(7)
        self.x = rng.standard_normal((4, 250, 12)).astype(np.float32)
        self.x[1] *= 1e4                                   # each problem has its own quantum
        self.x[2, 17, 3] = 1e12                            # and one takes wide sums
        self.data = harness.save(self.x, ".npy")

    def test_equal_to_separate_runs(self):
        init = self.x[:, :6]
        batch = Fit(self.data, k=6, init=init)
        self.assertEqual(batch.centroids.shape, (4, 6, 12))
        self.assertEqual(batch.labels.shape, (4, 250))
        for b in range(4):
            label, c, _ = reference.lloyd(self.x[b], init[b], 10)
            self.same_array(batch.centroids[b], c, f"centroids of problem {b}")
            self.same_array(batch.labels[b], label, f"labels of problem {b}")

    def test_one_init_for_all(self):
        init = self.x[0, :6]
        batch = Fit(self.data, k=6, init=init)
        for b in range(4):
            label, c, _ = reference.lloyd(self.x[b], init, 10)
            self.same_array(batch.centroids[b], c, f"centroids of problem {b}")
            self.same_array(batch.labels[b], label, f"labels of problem {b}")

    def test_random_init_and_threads(self):
        one = Fit(self.data, "-j", 1, k=6)
        self.same_fit(Fit(self.data, "-j", 5, k=6), one, "threads")
        for b in range(4):
            self.same_array(reference.assign(self.x[b], one.centroids[b])[0], one.labels[b], "labels")

    def test_predict(self):
        batch = Fit(self.data, k=6)
        out = harness.path(".npy")
        run = Run("predict", "-c", batch.prefix + ".centroids.npy", "-o", out, self.data)
        self.assertEqual(run.code, 0, run)
        self.same_array(np.load(out), batch.labels, "labels of fit and predict")

    def test_a_batch_of_one(self):
        single = Fit(harness.save(self.x[:1], ".npy"), k=6, init=self.x[0, :6])
        self.assertEqual(single.centroids.shape, (1, 6, 12))
        self.same_array(single.centroids[0], reference.lloyd(self.x[0], self.x[0, :6], 10)[1], "centroids")


class Types(ContractTest):
    def setUp(self):
        rng = np.random.default_rng(8)
        centers = rng.uniform(-90, 90, (7, 21))
        self.x = centers[rng.integers(0, 7, 600)] + rng.standard_normal((600, 21)) * 9

    def test_uint8(self):
        x = np.clip(self.x + 128, 0, 255).astype(np.uint8)
        for suffix in (".npy", ".bvecs", ".u8bin"):
            with self.subTest(suffix=suffix):
                self.check_fit(x, 7, data=harness.save(x, suffix))

    def test_int8(self):
        x = np.clip(self.x, -128, 127).astype(np.int8)
        x[5] = -128
        for suffix in (".npy", ".i8bin"):
            with self.subTest(suffix=suffix):
                self.check_fit(x, 7, data=harness.save(x, suffix))

    def test_float16(self):
        x = self.x.astype(np.float16)
        x[3] *= np.float16(1e-6)                           # subnormals
        x[4] = 65504                                       # the largest; its square overflows float16
        for suffix in (".npy", ".f16bin"):
            with self.subTest(suffix=suffix):
                self.check_fit(x, 7, data=harness.save(x, suffix))

    def test_bfloat16(self):
        bits, values = bfloat16(self.x)
        self.check_fit(values, 7, data=harness.save(bits, ".npy"), args=("--dtype", "bf16"))
        self.check_fit(values, 7, data=harness.save(bits.view("V2"), ".npy"), args=("--dtype", "bf16"))

    def test_float64_is_rounded(self):
        self.assertTrue((self.x != self.x.astype(np.float32)).any())
        self.check_fit(self.x, 7, data=harness.save(self.x, ".npy"))

    def test_int32_vectors(self):
        x = (self.x * 1000).astype(np.int32)
        self.check_fit(x, 7, data=harness.save(x, ".ivecs"))

    def test_integers_and_bool(self):
        for x, suffix in (((self.x * 300 + 30000).astype(np.uint16), ".npy"),
                          ((self.x * 80000).astype(np.int64), ".safetensors"), (self.x > 0, ".npy")):
            with self.subTest(dtype=x.dtype):
                self.check_fit(x, 7, data=harness.save(x, suffix))

    def test_float64_beyond_float32_is_refused(self):
        x = self.x.copy()
        x[9, 2] = 1e39
        run = Fit(harness.save(x, ".npy"), k=7, code=3).run
        self.assertRegex(run.err, r"row 9\b")


if __name__ == "__main__":
    harness.main()
