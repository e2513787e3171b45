#!/usr/bin/python3
"""Random shapes and data from a seed that is printed; FKM_TEST_SEED repeats a run."""
import os
import time

import numpy as np

import harness
import same_bits
from harness import ContractTest, SLOW

SECONDS = 8 if SLOW else 20
KINDS = ("normal", "blobs", "integers", "shifted", "sparse", "duplicates", "exponents", "unit", "outlier")


def draw(rng, isas):
    """One problem: (kind, x, init, iterations, arguments)."""
    kind = KINDS[rng.integers(len(KINDS))]
    n = int(2 ** rng.uniform(0, 10.5))
    d = int(2 ** rng.uniform(0, 8))
    k = int(min(n, 2 ** rng.uniform(0, 7.5)))
    x = rng.standard_normal((n, d))
    if kind == "blobs":
        x = x * 0.3 + rng.standard_normal((k, d))[rng.integers(0, k, n)]
    elif kind == "integers":
        x = rng.integers(-2, 3, (n, d)).astype(float)
    elif kind == "shifted":
        x += 10.0 ** rng.integers(1, 7)
    elif kind == "sparse":
        x *= rng.random((n, d)) < 0.1
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 5), n)]
    elif kind == "exponents":
        x *= 10.0 ** rng.uniform(-6, 6, (n, d))
    elif kind == "unit":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    elif kind == "outlier":
        x[rng.integers(n), rng.integers(d)] *= 10.0 ** rng.integers(3, 16)
    x = (x * 10.0 ** rng.choice([0, 0, 0, -20, 20])).astype(np.float32)
    init = x[rng.permutation(n)[:k]]
    if rng.random() < 0.3:
        init = init[rng.integers(0, k, k)]                 # equal centroids, hence empty clusters
    args = ["--threads", int(rng.integers(1, 9)), "--isa", rng.choice(isas)]
    return kind, x, init, int(rng.integers(1, 8)), args


class RandomShapes(ContractTest):
    def test_random_problems(self):
        seed = int(os.environ.get("FKM_TEST_SEED", time.time_ns() % 2**32))
        print(f"FKM_TEST_SEED={seed}", flush=True)
        rng = np.random.default_rng(seed)
        isas = same_bits.isas()
        end, done = time.monotonic() + SECONDS, 0
        while done < 10 or time.monotonic() < end:
            kind, x, init, iterations, args = draw(rng, isas)
            with self.subTest(number=done, kind=kind, shape=x.shape, k=len(init), seed=seed):
                self.check_fit(x, len(init), init=init, iterations=iterations, args=args)
            done += 1
        print(f"{done} problems", flush=True)


if __name__ == "__main__":
    harness.main()
