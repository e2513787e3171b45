#!/usr/bin/python3
"""First centroids by k-means++ and k-means||: the rows that a slow, plain reading of src/seed.h chooses.

fkm does not show which rows it chose, but a run that starts from these rows in a file must then be the
same, bit for bit."""
import collections
import itertools
import json

import numpy as np

import harness
import reference
from harness import Fit, Run, ContractTest, SLOW

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
BLOCK = 1024
PROPOSAL, VERDICT, CANDIDATE_FIRST, CANDIDATE, CANDIDATE_VERDICT, ROUND = 1, 2, 3, 4, 5, 16


# ---- random numbers: src/rng.h ----

def mix(z):
    z = (z + GOLDEN) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def uniform(seed, purpose, index):
    key = mix((purpose + mix(seed)) & MASK)
    return (mix((key + index * GOLDEN) & MASK) >> 11) * 2.0**-53


def permute(seed, n, i):
    half = 1
    while 1 << 2 * half < n:
        half += 1
    mask = (1 << half) - 1
    while True:
        left, right = i >> half, i & mask
        for turn in range(6):
            left, right = right, left ^ (mix(right ^ mix((seed + turn) & MASK)) & mask)
        i = left << half | right
        if i < n:
            return i


# ---- draws in proportion to masses: src/mass.h ----

class Masses:
    def __init__(self, mass):
        self.mass = mass
        total, self.up_to = 0.0, []
        for b in range(0, len(mass), BLOCK):
            total += self.run(mass[b:b + BLOCK])[-1]
            self.up_to.append(total)
        self.total = total

    @staticmethod
    def run(values):
        """Sums from left to right, one rounding each."""
        out, total = [], 0.0
        for v in values.tolist():
            total += v
            out.append(total)
        return out

    def find(self, u):
        goal = u * self.total
        b = next(i for i, s in enumerate(self.up_to) if s > goal or s == self.total)
        block = self.mass[b * BLOCK:(b + 1) * BLOCK]
        goal -= self.up_to[b - 1] if b else 0.0
        above = [i for i, s in enumerate(self.run(block)) if s > goal and block[i] > 0]
        return b * BLOCK + (above[0] if above else int(np.flatnonzero(block)[-1]))


# ---- the two methods: src/seed.h ----

class Cover:
    """Distance of every row to the nearest of the centroids so far, and which one it is."""

    def __init__(self, x):
        self.x, self.count = x, 0
        self.finite = np.isfinite(x).all(1)
        self.distance = np.where(self.finite, np.inf, 0.0)
        self.nearest = np.where(self.finite, 0, -1)

    def add(self, c):
        label, d = reference.assign(np.where(self.finite[:, None], self.x, 0), c)
        nearer = self.finite & (d < self.distance)
        self.distance[nearer] = d[nearer]
        self.nearest[nearer] = self.count + label[nearer]
        self.count += len(c)


def plusplus(cover, chosen, k, seed, weight=1, proposal=PROPOSAL, verdict=VERDICT):
    """Adds rows to `chosen`, which the cover holds, until there are k or none is left at a distance."""
    x, draw, budget = cover.x, 0, max(16384, len(cover.x) // 4)
    while len(chosen) < k:
        masses = Masses(cover.distance * weight)
        if masses.total == 0:
            return chosen
        before, cost = len(chosen), 0
        while len(chosen) < k and cost <= budget:
            row = masses.find(uniform(seed, proposal, draw))
            limit = uniform(seed, verdict, draw) * cover.distance[row]
            draw += 1
            cost += 32
            since = chosen[before:]
            near = np.flatnonzero(reference.canonical(x[row:row + 1], x[since])[0] <= limit) if since else []
            cost += int(near[0]) + 1 if len(near) else len(since)
            if not len(near):
                chosen.append(row)
        if len(chosen) < k:
            cover.add(x[chosen[before:]])
    return chosen


def first_row(x, seed):
    return next(r for r in (permute(seed, len(x), i) for i in range(len(x))) if np.isfinite(x[r]).all())


def fill(x, chosen, k, seed):
    """All rows coincide with one that is chosen: any others."""
    for i in range(len(x)):
        row = permute(seed, len(x), i)
        if len(chosen) < k and row not in chosen and np.isfinite(x[row]).all():
            chosen.append(row)
    return chosen


def choose_plusplus(x, k, seed):
    cover, chosen = Cover(x), [first_row(x, seed)]
    cover.add(x[chosen])
    return fill(x, plusplus(cover, chosen, k, seed), k, seed)


def choose_parallel(x, k, seed):
    cover, candidates = Cover(x), [first_row(x, seed)]
    cover.add(x[candidates])
    limit = min(int(2 * k + 8 * (2 * k) ** 0.5) + 32, len(x))
    for turn in range(5):
        total = Masses(cover.distance).total
        if total == 0:
            break
        new = [i for i in np.flatnonzero(cover.distance).tolist()
               if uniform(seed, ROUND + turn, i) * total < 2.0 * k * cover.distance[i]][:limit]
        values = {}
        for i in new:
            values.setdefault((x[i] + np.float32(0)).tobytes(), i)   # -0 is 0
        if values:
            cover.add(x[list(values.values())])
            candidates += values.values()
    weight = np.bincount(cover.nearest[cover.finite], minlength=len(candidates))
    among = Cover(x[candidates])
    chosen = [Masses(weight.astype(np.float64)).find(uniform(seed, CANDIDATE_FIRST, 0))]
    among.add(among.x[chosen])
    plusplus(among, chosen, min(k, len(candidates)), seed, weight, CANDIDATE, CANDIDATE_VERDICT)
    rows = [candidates[i] for i in chosen]
    return fill(x, plusplus(cover, rows, k, seed), k, seed)


STREAM_ROWS, STREAM_MEMORY = (90000, "3200K") if SLOW else (270000, "9M")     # of 6 float32: more than that
METHODS = {"k-means++": choose_plusplus, "k-means||": choose_parallel}


def blobs(n, d, k, seed=3):
    rng = np.random.default_rng(seed)
    return (10 * rng.standard_normal((k, d))[rng.integers(0, k, n)] + rng.standard_normal((n, d))).astype(np.float32)


class Seeding(ContractTest):
    def check(self, x, k, seed=0, args=(), rows=None, data=None, iterations=2):
        """Both methods choose what the reference chooses."""
        x32 = np.ascontiguousarray(x).astype(np.float32)
        data = data or harness.save(np.ascontiguousarray(x), ".npy")
        fits = {}
        for name, choose in METHODS.items():
            chosen = choose(x32, k, seed)
            self.assertEqual(len(set(chosen)), k, "distinct rows")
            fits[name] = Fit(data, "-s", seed, "-i", name, *args, k=k, iterations=iterations)
            want = Fit(data, *args, k=k, init=x32[chosen], iterations=iterations)
            self.same_fit(fits[name], want, f"{name}, k={k}, seed {seed}")
            self.assertEqual(fits[name].stats["params"]["init"], name)
        return fits

    def test_real_vectors(self):
        x = harness.glove(500 if SLOW else 3000)
        self.check(x, 40)
        self.check(x, 7, seed=2**64 - 1)

    def test_several_batches(self):
        """So many centroids that k-means++ passes over the rows in between, with rejections."""
        x = blobs(600, 3, 300)
        fits = self.check(x, 400)
        self.assertGreater(fits["k-means++"].stats["screening"]["rows_screened"], 5 * 600)

    def test_eight_bits_and_halves(self):
        self.check(harness.mnist(300), 12)
        self.check((harness.mnist(300)[:, :50] >> 1).astype(np.int8), 12)
        self.check(harness.glove(300).astype(np.float16), 12)

    def test_any_scale(self):
        x = blobs(900, 5, 6)
        for factor in (1e-20, 1e18, 1e-38):
            self.check((x.astype(np.float64) * factor).astype(np.float32), 6)
        self.check((x + 1e4).astype(np.float32), 6)

    def test_extremes(self):
        x = blobs(70, 4, 3)
        self.check(x, 1)
        self.check(x, 70)
        self.check(x[:1], 1)
        self.check(np.arange(50, dtype=np.float32)[:, None], 9)

    def test_fewer_distinct_rows(self):
        x = np.repeat(blobs(5, 4, 5), 40, axis=0)
        keep = ["--empty", "keep"]                         # shows which rows became doubles
        for k in (3, 5, 9, 200):
            self.check(x, k, args=keep, iterations=1)
        self.check(np.zeros((20, 3), np.float32), 4)
        signed = np.zeros((64, 2), np.float32)
        signed[::2] = -0.0
        signed[5:9] = 1
        self.check(signed, 6, args=keep)

    def test_ties(self):
        """Rows as near to one candidate as to another count for the first."""
        x = np.random.default_rng(5).integers(0, 40, (1500, 2)).astype(np.uint8)
        for seed in range(4):
            self.check(x, 15, seed)

    def test_outlier(self):
        x = blobs(500, 4, 3)
        x[123, 2] = 1e12
        for name, choose in METHODS.items():
            self.assertIn(123, choose(x, 5, 0), "what tests this")
        self.check(x, 5)

    def test_nan_rows(self):
        x = blobs(400, 4, 6)
        x[::3, 1] = np.nan
        x[1, 2] = np.inf
        self.check(x, 9, args=["--nan", "skip"])
        self.refuses(x, "row 0 has NaN in column 1 (135 of 400 rows have NaN or Inf)", "1G")

    def refuses(self, x, message, memory):
        data = harness.save(x, ".npy")
        for name in METHODS:
            run = Run("fit", "-k", 9, "-i", name, "-m", memory, "-v", "-o", harness.path(""), data)
            self.assertEqual(run.code, 3, run)
            self.assertIn(message, run.err)
            self.assertEqual("rows are streamed" in run.err, memory != "1G", run.err)

    def test_nan_rows_in_a_stream(self):
        bad = STREAM_ROWS * 3 // 4
        x = blobs(STREAM_ROWS, 6, 9)
        x[bad, 3] = np.nan
        x[bad + 7, 5] = -np.inf
        self.refuses(x, f"row {bad} has NaN in column 3 (2 of {STREAM_ROWS} rows have NaN or Inf)", STREAM_MEMORY)
        data = harness.save(x, ".npy")
        for name in METHODS:
            skip = ["-i", name, "--nan", "skip"]
            stream = Fit(data, *skip, "-m", STREAM_MEMORY, k=9, iterations=2)
            self.same_fit(stream, Fit(data, *skip, "-m", "1G", k=9, iterations=2), name)
            self.assertEqual(stream.stats["result"]["rows_skipped"], 2)

    def test_batch(self):
        x = np.stack([blobs(200, 4, 5, seed) for seed in (1, 2, 3)])
        data = harness.save(x, ".npy")
        for name, choose in METHODS.items():
            init = np.stack([p[choose(p, 8, 5)] for p in x])
            self.same_fit(Fit(data, "-i", name, "-s", 5, k=8), Fit(data, k=8, init=init), name)

    def test_machine_settings(self):
        """Threads, instruction sets, memory: the same bits."""
        import same_bits
        x = harness.glove(1000 if SLOW else 10000)
        data = harness.save(x, ".fvecs")
        for name in METHODS:
            one = Fit(data, "-i", name, "-j", 1, k=120, iterations=2)
            for args in [["-j", 5], ["-j", 2, "-m", "9M"], *(["--isa", isa] for isa in same_bits.isas())]:
                self.same_fit(Fit(data, "-i", name, *args, k=120, iterations=2), one, f"{name} {args}")

    def test_distribution(self):
        """Over many seeds each set of rows is chosen as often as the definition of k-means++ has it."""
        x = np.array([[0, 0], [1, 0.3], [2.5, 1], [2, 2.2], [5, 1.7], [7, 7.1]], np.float32)
        d = reference.canonical(x, x)

        def probability(chosen, left):
            """Of drawing the set `left` next, in any order."""
            if not left:
                return 1.0
            mass = d[:, chosen].min(1) if chosen else np.ones(len(x))
            return sum(mass[i] / mass.sum() * probability(chosen + [i], left - {i}) for i in left)

        sets = [frozenset(s) for s in itertools.combinations(range(6), 3)]
        args = ["--empty", "keep", "-j", 1]
        data, count = harness.save(x, ".npy"), 4000
        expected = collections.Counter()                   # by what a run shows of its set
        for s in sets:
            shown = Fit(data, *args, k=3, init=x[sorted(s)], iterations=1).inertia
            expected[shown] += count * probability([], s)
        self.assertGreater(len(expected), 8, "runs tell the sets apart")
        fit = Fit(data, "-i", "k-means++", "--restarts", count, *args, k=3, iterations=1)
        found = collections.Counter(r["inertia"] for r in fit.stats["result"]["restarts"])
        self.assertLessEqual(set(found), set(expected))
        chi2 = sum((found[s] - e) ** 2 / e for s, e in expected.items())
        self.assertLess(chi2, len(expected) + 4 * (2 * len(expected)) ** 0.5, (found, expected))

    def test_better_than_random(self):
        """On well separated blobs both find nearly all of them; random rows do not."""
        data = harness.save(blobs(4000, 8, 40), ".npy")
        start = {name: [Fit(data, "-i", name, "-s", seed, k=40, iterations=1).stats["iterations"][0]["inertia"]
                        for seed in range(6)] for name in ("random", *METHODS)}
        for name in METHODS:
            self.assertLess(max(start[name]), 0.6 * min(start["random"]), start)


class Restarts(ContractTest):
    def setUp(self):
        self.x = blobs(900, 6, 12)
        self.data = harness.save(self.x, ".npy")

    def singles(self, first, count, data=None, **more):
        return [Fit(data or self.data, "-s", first + i, k=12, iterations=30, **more) for i in range(count)]

    def check_best(self, fit, singles, first):
        best = min(range(len(singles)), key=lambda i: singles[i].inertia)
        self.same_fit(fit, singles[best], f"the best start, {best}")
        self.assertEqual(fit.stats["params"]["restarts"], len(singles))
        listed = [(r["seed"], r["inertia"], r["iterations"]) for r in fit.stats["result"]["restarts"]]
        self.assertEqual(listed, [(first + i, s.inertia, s.stats["result"]["iterations"])
                                  for i, s in enumerate(singles)])
        for part in ("clusters", "iterations", "inertia", "moved_last"):
            self.assertEqual(fit.stats["result"][part], singles[best].stats["result"][part], part)
        same = [[{k: v for k, v in it.items() if not k.endswith("s")} for it in f.stats["iterations"]]
                for f in (fit, singles[best])]
        self.assertEqual(*same)
        return best

    def test_best_of_separate_runs(self):
        bests = set()
        for first in (0, 3, 8):
            fit = Fit(self.data, "-s", first, "--restarts", 4, k=12, iterations=30)
            bests.add(self.check_best(fit, self.singles(first, 4), first))
        self.assertTrue(bests - {3}, "the last start was always the best: the others are not tested")

    def test_in_a_stream(self):
        """Nothing is kept between starts but the best centroids; and the file may be read at any time."""
        data = harness.save(blobs(STREAM_ROWS, 6, 15), ".npy")
        for name in ("random", "k-means++", "k-means||"):
            args = ["-i", name, "--restarts", 3]
            stay = Fit(data, *args, k=12, iterations=3)
            stream = Fit(data, *args, "-m", STREAM_MEMORY, "-v", "-j", 2, k=12, iterations=3)
            self.assertIn("rows are streamed", stream.run.err)
            self.same_fit(stream, stay, name)
            self.assertEqual(stream.stats["result"]["restarts"], stay.stats["result"]["restarts"])

    def test_ties_go_to_the_lowest_seed(self):
        data = harness.save(np.repeat(np.eye(4, dtype=np.float32), 5, axis=0), ".npy")
        fit = Fit(data, "-i", "k-means++", "--restarts", 5, k=4)
        self.same_fit(fit, Fit(data, "-i", "k-means++", k=4), "seed 0")
        self.assertEqual([r["inertia"] for r in fit.stats["result"]["restarts"]], [0] * 5)

    def test_batch(self):
        x = np.stack([blobs(300, 4, 9, seed) for seed in (4, 5, 6)])
        data = harness.save(x, ".npy")
        fit = Fit(data, "--restarts", 3, "-s", 7, k=9)
        self.assertNotIn("restarts", fit.stats["result"])
        for b in range(3):
            one = Fit(harness.save(x[b], ".npy"), "--restarts", 3, "-s", 7, k=9)
            self.same_array(fit.centroids[b], one.centroids, f"problem {b}")
            self.same_array(fit.labels[b], one.labels, f"problem {b}")
            self.assertEqual(fit.stats["problems"][b]["restarts"], one.stats["result"]["restarts"])
            steps = [it["inertia"] for it in fit.stats["iterations"] if it["problem"] == b]
            self.assertEqual(steps, [it["inertia"] for it in one.stats["iterations"]])

    def test_seeds_wrap(self):
        fit = Fit(self.data, "-s", 2**64 - 1, "--restarts", 2, k=12)
        with open(fit.prefix + ".stats.json") as f:
            seeds = [r["seed"] for r in json.load(f)["result"]["restarts"]]
        self.assertEqual(seeds, [2**64 - 1, 0])


if __name__ == "__main__":
    harness.main()
