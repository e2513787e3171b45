#!/usr/bin/python3
"""Files that do not fit: chunks whose rows all keep their labels are not read, and nothing else is different."""
import unittest

import numpy as np

import harness
from harness import Fit, ContractTest, CUDA, SLOW

TIDY, MESSY, CLUSTERS = 290_000, 40_000, 20  # 40 MiB of 32 dims, in chunks of 4 MiB
MEMORY = "20M"


@unittest.skipIf(CUDA, "GPUs have no bounds of rows that are not kept")
class Settled(ContractTest):
    dims = 32

    @classmethod
    def setUpClass(cls):
        """Clusters that are at rest after the first pass, and rows without any, which move on and on."""
        rng = np.random.default_rng(11)
        centers = rng.uniform(-50, 50, (CLUSTERS, cls.dims))
        cls.tidy = (centers[rng.integers(0, CLUSTERS, TIDY)] + rng.normal(0, 0.01, (TIDY, cls.dims))).astype(np.float32)
        cls.messy = rng.uniform(-1, 1, (MESSY, cls.dims)).astype(np.float32)
        cls.init = np.concatenate([centers.astype(np.float32), cls.messy[:CLUSTERS]])

    def check(self, parts, what, threads):
        args = ["--threads", threads]
        data = harness.save(np.concatenate(parts), ".fbin")
        kept = Fit(data, *args, k=2 * CLUSTERS, init=self.init, iterations=60)
        stream = Fit(data, "-m", MEMORY, *args, k=2 * CLUSTERS, init=self.init, iterations=60)
        self.same_fit(stream, kept, what)
        rows = TIDY + MESSY
        time, rate = stream.stats["time"], stream.stats["throughput"]["read_bytes_per_s"]
        passes = (time["compute_s"] + time["read_wait_s"]) * rate / (rows * self.dims * 4)   # not the time of writing
        iterations = stream.stats["result"]["iterations"]
        self.assertGreater(iterations, 20)
        self.assertGreater(passes, 2, "kept in memory: this tests nothing")
        self.assertLess(passes, 0.75 * iterations, what)
        self.assertGreater(stream.stats["screening"]["rows_skipped_by_bounds"], rows * iterations / 4)

    @unittest.skipIf(SLOW, "one of the three will do")
    def test_first(self):
        self.check([self.tidy, self.messy], "settled chunks come first", 2)

    @unittest.skipIf(SLOW, "one of the three will do")
    def test_last(self):
        self.check([self.messy, self.tidy], "settled chunks come last", 1)

    def test_between(self):
        half = TIDY // 2
        self.check([self.tidy[:half], self.messy, self.tidy[half:]], "settled chunks round others", 2)


class SettledUnevenly(Settled):
    """Of such rows no power of two makes a block of checksums: chunks are made of whole blocks, or one that follows
    a chunk that was left out would begin within a block."""
    dims = 28


if __name__ == "__main__":
    harness.main()
