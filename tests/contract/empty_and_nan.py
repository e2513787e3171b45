#!/usr/bin/python3
"""Clusters that lose their rows, rows that are not numbers, and k against n."""
import numpy as np

import harness
import reference
from harness import Fit, ContractTest


def far_init(x, k, lost):
    """Centroids of which `lost` are so far away that no row is theirs."""
    init = x[:k].copy()
    for i, j in enumerate(lost):
        init[j] = 1e4 + i
    return init


class Empty(ContractTest):
    def setUp(self):
        rng = np.random.default_rng(4)
        self.x = rng.standard_normal((700, 11)).astype(np.float32)
        self.init = far_init(self.x, 9, (0, 4, 8))

    def test_farthest(self):
        for iterations in (1, 2, 10):
            fit = self.check_fit(self.x, 9, init=self.init, iterations=iterations)
            self.assertGreaterEqual(fit.stats["result"]["clusters"]["reseeded"], 3)
        self.assertEqual(fit.stats["result"]["clusters"]["empty"], 0)

    def test_farthest_with_tied_distances(self):
        x = np.float32([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]] * 30)
        init = np.float32([[0, 0], [50, 50], [60, 60], [70, 70]])
        self.check_fit(x, 4, init=init, iterations=1)
        self.check_fit(x, 4, init=init, iterations=6)

    def test_more_empty_clusters_than_other_rows(self):
        x = np.float32([[0], [1], [2]])
        self.check_fit(x, 3, init=[[0], [9], [8]], iterations=4)

    def test_nearly_all_clusters_empty(self):
        init = far_init(self.x, 60, range(1, 60))
        self.check_fit(self.x, 60, init=init, iterations=3)

    def test_no_fixpoint_while_a_row_can_be_given(self):
        """The row that lies farthest may be alone: its own centroid moves onto it, and a gift of it wins nothing."""
        for x, init in (([10, -1, 1], [6, 0, 100]), ([10, 10, -1, 1], [6, 0, 100])):
            x, init = np.float32(x)[:, None], np.float32(init)[:, None]
            for iterations in (1, 2, 3, 4, 10):
                fit = self.check_fit(x, 3, init=init, iterations=iterations)
            self.assertEqual((fit.inertia, fit.stats["result"]["clusters"]["empty"]), (0, 0))
            for tol in (1e-4, 0.9):                        # nor does a tolerance end it before
                fit = Fit(harness.save(x, ".npy"), "--empty", "farthest", k=3, init=init, tol=tol)
                self.assertEqual((fit.inertia, fit.stats["status"]), (0, "converged"))
            fit = self.check_fit(x, 3, init=init, empty="keep")
            self.assertEqual((fit.inertia, fit.stats["status"]), (2, "converged"))

    def test_as_many_clusters_as_distinct_rows(self):
        rng = np.random.default_rng(1)
        base = rng.integers(0, 1000, (60, 4)).astype(np.float32)
        x = base[rng.integers(0, 60, 300)]
        distinct = len(np.unique(x, axis=0))
        for seed in range(4):
            init = x[np.random.default_rng(seed).permutation(300)[:distinct]]
            fit = self.check_fit(x, distinct, init=init, iterations=60)
            self.assertEqual((fit.inertia, fit.stats["result"]["clusters"]["empty"]), (0, 0))
            self.assertEqual(fit.run.err, "")

    def test_fewer_distinct_rows_than_clusters(self):
        x = np.float32([[0, 1], [2, 3], [4, 5]] * 20)
        fit = self.check_fit(x, 5, init=x[:5], iterations=10)
        self.assertEqual((fit.inertia, fit.stats["result"]["clusters"]["empty"]), (0, 2))
        self.assertIn("fewer distinct rows than clusters", fit.run.err)
        fit = self.check_fit(self.x, 9, init=self.init, iterations=3, empty="keep")
        self.assertIn("--empty keep", fit.run.err)

    def test_keep(self):
        fit = self.check_fit(self.x, 9, init=self.init, empty="keep")
        for j in (0, 4, 8):
            self.same_array(fit.centroids[j], self.init[j], "a centroid without rows stays")
        self.assertEqual(fit.stats["result"]["clusters"]["empty"], 3)

    def test_error(self):
        fit = Fit(harness.save(self.x, ".npy"), "--empty", "error", k=9, init=self.init, code=3)
        self.assertRegex(fit.run.err, r"cluster")
        self.check_fit(self.x, 9, empty="error")

    def test_threads_do_not_change_who_is_farthest(self):
        data = harness.save(np.repeat(self.x, 3, axis=0), ".npy")
        init = far_init(self.x, 30, range(10, 30))
        one = Fit(data, "-j", 1, k=30, init=init)
        for threads in (2, 7):
            self.same_fit(Fit(data, "-j", threads, k=30, init=init), one, f"{threads} threads")


class NotANumber(ContractTest):
    def setUp(self):
        rng = np.random.default_rng(6)
        self.clean = rng.standard_normal((300, 10)).astype(np.float32)   # both have 9 bits in n
        self.bad_rows = np.array([0, 1, 57, 200, 319])
        keep = np.setdiff1d(np.arange(305 + 15), self.bad_rows)[:300]
        self.keep = keep
        self.x = np.zeros((320, 10), np.float32)
        self.x[keep] = self.clean
        rest = np.setdiff1d(np.arange(320), keep)
        self.x[rest, rest % 10] = np.resize(np.float32([np.nan, np.inf, -np.inf]), len(rest))
        self.rest = rest
        self.init = self.clean[:6]

    def test_refused_with_the_place(self):
        run = Fit(harness.save(self.x, ".npy"), k=6, init=self.init, code=3).run
        self.assertRegex(run.err, r"row 0\b")
        self.assertRegex(run.err, r"column 0\b")
        self.assertIn(str(len(self.rest)), run.err, "how many rows")
        self.assertIn("--nan skip", run.err)

    def test_skipped_rows_take_no_part(self):
        data = harness.save(self.x, ".npy")
        fit = Fit(data, "--nan", "skip", k=6, init=self.init)
        clean = Fit(harness.save(self.clean, ".npy"), k=6, init=self.init)
        label, c, _ = reference.lloyd(self.clean, self.init, 10)
        self.same_array(clean.labels, label, "labels without the rows")
        self.same_array(fit.labels[self.keep], label, "labels of the other rows")
        self.assertTrue((fit.labels[self.rest] == -1).all())
        self.same_array(fit.centroids, c, "centroids")
        self.assertEqual(fit.inertia, clean.inertia)
        self.assertEqual(fit.stats["result"]["rows_skipped"], len(self.rest))
        self.assertEqual(fit.stats["result"]["rows_used"], 300)
        self.check_predict(fit.prefix + ".centroids.npy", data, label)

    def check_predict(self, centroids, data, label):
        """predict refuses such rows, or labels them -1; it labels the others as fit did."""
        out = harness.path(".npy")
        run = harness.Run("predict", "-c", centroids, "-o", out, data)
        self.assertEqual(run.code, 3, run)
        self.assertRegex(run.err, r"row 0\b")
        run = harness.Run("predict", "-c", centroids, "--nan", "skip", "-o", out, data)
        self.assertEqual(run.code, 0, run)
        self.same_array(np.load(out)[self.keep], label, "predict --nan skip")
        self.assertTrue((np.load(out)[self.rest] == -1).all())
        out = harness.path(".npy")
        run = harness.Run("predict", "-c", centroids, "-o", out, harness.save(self.clean, ".npy"))
        self.assertEqual(run.code, 0, run)
        self.same_array(np.load(out), label, "predict")

    def test_skip_with_random_init_and_empty_clusters(self):
        data = harness.save(self.x, ".npy")
        fit = Fit(data, "--nan", "skip", k=40)
        self.assertTrue(np.isfinite(fit.centroids).all())
        self.same_array(reference.assign(self.clean, fit.centroids)[0], fit.labels[self.keep], "labels")
        lost = far_init(self.clean, 6, (1, 3))
        fit = Fit(data, "--nan", "skip", k=6, init=lost)
        label, c, _ = reference.lloyd(self.clean, lost, 10)
        self.same_array(fit.centroids, c, "centroids")
        self.same_array(fit.labels[self.keep], label, "labels")

    def test_too_few_good_rows(self):
        x = np.full((20, 3), np.nan, np.float32)
        x[:4] = 1
        x[:4, 0] = range(4)
        self.assertTrue(Fit(harness.save(x, ".npy"), "--nan", "skip", k=5, code=3).run.err)
        Fit(harness.save(x, ".npy"), "--nan", "skip", k=4)


class Counts(ContractTest):
    def test_more_clusters_than_rows(self):
        run = Fit(harness.save(np.eye(5, dtype=np.float32), ".npy"), k=6, code=3).run
        self.assertIn("6", run.err)
        self.assertIn("5", run.err)

    def test_random_rows_are_distinct_rows_of_the_data(self):
        x = np.arange(1000, dtype=np.float32).reshape(500, 2)
        for seed in range(5):
            fit = Fit(harness.save(x, ".npy"), "--seed", seed, k=500, iterations=1)
            self.assertEqual(len(np.unique(fit.labels)), 500)


if __name__ == "__main__":
    harness.main()
