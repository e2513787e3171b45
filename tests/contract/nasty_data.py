#!/usr/bin/python3
"""Data that float32 k-means gets wrong: far away, tiny, huge, tied, repeated, with outliers, and odd
shapes. Always the bits of the reference."""
import numpy as np

import harness
import reference
import same_bits
from harness import Fit, Run, ContractTest


def blobs(n, d, k, seed=1):
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((k, d)) * 4
    return (centers[rng.integers(0, k, n)] + rng.standard_normal((n, d))).astype(np.float32)


class Magnitudes(ContractTest):
    def test_far_from_the_origin(self):
        x = blobs(800, 24, 9)
        for offset in (1e3, 1e4, -1e6):
            with self.subTest(offset=offset):
                self.check_fit((x + np.float32(offset)).astype(np.float32), 9)

    def test_scaled(self):
        x = blobs(600, 20, 7)
        for factor in (1e-30, 1e-20, 1e-5, 1e20, 1e30):
            with self.subTest(factor=factor):
                self.check_fit((x * np.float32(factor)).astype(np.float32), 7)

    def test_denormals(self):
        x = (blobs(300, 10, 5) * np.float32(1e-30)).astype(np.float64) * 1e-11
        x = x.astype(np.float32)
        self.assertTrue(((x != 0) & (np.abs(x) < np.finfo(np.float32).tiny)).any())
        self.check_fit(x, 5)

    def test_near_the_largest_float(self):
        rng = np.random.default_rng(3)
        x = (rng.uniform(-1, 1, (300, 12)) * 3.4e38).astype(np.float32)
        x[0, 0], x[1, 0] = np.finfo(np.float32).max, -np.finfo(np.float32).max
        self.check_fit(x, 6)

    def test_columns_of_very_different_scales(self):
        x = blobs(500, 8, 5)
        self.check_fit(x * np.float32([1, 1e3, 1e-3, 1e4, 1, 1e-2, 1, 10]), 5)


class Outliers(ContractTest):
    def test_one_outlier_takes_wide_sums(self):
        x = blobs(1000, 16, 8)
        x[437, 5] = 1e12
        fit = self.check_fit(x, 8, wide=True)
        others = fit.labels[np.arange(1000) != 437]
        self.assertGreater(len(np.unique(others)), 4, "the others keep their clusters")

    def test_an_outlier_that_narrow_sums_still_take(self):
        x = blobs(1000, 16, 8)
        x[437, 5] = 1e6
        self.check_fit(x, 8, wide=False)

    def test_the_border_of_wide_sums(self):
        """The quantum at 2^-24 and 2^-25 of the typical value."""
        x = np.ones((1023, 2), np.float32) + np.linspace(0, 0.5, 1023, dtype=np.float32)[:, None]
        for top, wide in ((27, False), (28, False), (29, True), (30, True)):
            x[1000, 1] = 2.0 ** top
            with self.subTest(top=top):
                self.assertEqual(reference.scale(x)[1], wide)
                self.check_fit(x, 4, wide=wide)

    def test_typical_is_the_lower_median(self):
        """Half of the values near 1, half near 4: only the lower median asks for wide sums."""
        rng = np.random.default_rng(12)
        x = rng.uniform(1, 1.99, (512, 4)).astype(np.float32)
        x[256:] *= 4
        x[300, 2] = 2.0 ** 29
        self.check_fit(x, 5, init=x[::100][:5], wide=True)

    def test_an_outlier_beyond_wide_sums_is_named(self):
        x = blobs(1000, 16, 8)
        x[437, 5] = -1e35
        run = Fit(harness.save(x, ".npy"), k=8, code=3).run
        self.assertIn("437", run.err)
        self.assertRegex(run.err, r"column 5\b")
        self.assertIn("hint:", run.err)

    def test_the_largest_outlier_that_fits(self):
        x = (np.abs(blobs(1000, 4, 8)) % 0.5 + 1).astype(np.float32)      # typical: 2^0 <= |x| < 2^1
        bits = int(1000).bit_length()
        x[3, 2] = 2.0 ** (101 - bits + 1)                                 # frexp gives 103 - bits
        e, wide = reference.scale(x)
        self.assertTrue(wide)
        self.assertEqual(e, 24 - 1)
        self.check_fit(x, 8)
        x[3, 2] *= 2
        run = Fit(harness.save(x, ".npy"), k=8, code=3).run
        self.assertRegex(run.err, r"row 3\b")


class Tails(ContractTest):
    """Most values are next to nothing: the typical value is one of the largest of rows."""

    def test_softmax(self):
        rng = np.random.default_rng(13)
        for spread, wide in ((20, True), (40, False), (60, False)):
            z = rng.standard_normal((300, 40)) * spread
            x = np.exp(z - z.max(1, keepdims=True))
            x = (x / x.sum(1, keepdims=True)).astype(np.float32)
            with self.subTest(spread=spread):
                fit = self.check_fit(x, 6, iterations=5, wide=wide)
                self.assertLess(abs(fit.inertia - reference.plain_inertia(x, fit.centroids, fit.labels)),
                                1e-12 * fit.inertia)

    def test_rbf_features(self):
        rng = np.random.default_rng(14)
        y = rng.standard_normal((300, 40))
        x = np.exp(-0.95 * ((y[:, None] - y[None, :30]) ** 2).sum(2)).astype(np.float32)
        self.assertLess(reference.typical_exponent(x), -93, "the data does not test what it should")
        self.check_fit(x, 6, init=x[:12:2], iterations=5, wide=True)

    def test_rows_of_which_half_are_next_to_nothing(self):
        rng = np.random.default_rng(15)
        x = (np.float64(2) ** -rng.uniform(100, 140, (301, 6))).astype(np.float32)
        x[:160, 0] = rng.uniform(1, 2, 160)
        self.check_fit(x, 5, iterations=5, wide=False)
        x[:160, 0] *= np.float32(2.0 ** -50)
        x[300, 1] = 1e9                                    # 2^80 of what is typical in rows
        self.check_fit(x, 5, iterations=5, wide=True)
        x[300, 1] = 1e25
        run = Fit(harness.save(x, ".npy"), k=5, code=3).run
        self.assertIsNone(reference.scale(x))
        self.assertRegex(run.err, r"row 300\b.*column 1\b.*half of the rows")

    def test_streams(self):
        rng = np.random.default_rng(16)
        z = rng.standard_normal((20000, 64)) * 60
        x = np.exp(z - z.max(1, keepdims=True)).astype(np.float32)
        data = harness.save(x, ".npy")
        kept = Fit(data, k=7, iterations=4)
        self.same_fit(Fit(data, "-m", "4M", k=7, iterations=4), kept, "a stream")


class Ties(ContractTest):
    def test_integers_with_exact_ties(self):
        rng = np.random.default_rng(2)
        x = rng.integers(-2, 3, (900, 3)).astype(np.float32)
        init = np.float32([[0, 0, 0], [1, 1, 1], [-1, -1, -1], [1, -1, 1], [0, 2, 0], [2, 0, 0], [1, 1, 1]])
        self.check_fit(x, 7, init=init)
        self.check_fit(x, 7, init=init, iterations=1)

    def test_equal_centroids_give_the_lowest_index(self):
        x = blobs(400, 5, 3)
        init = np.repeat(x[:2], 40, axis=0)                # 80 centroids, two places
        fit = self.check_fit(x, 80, init=init, iterations=1, empty="keep")
        self.assertEqual(set(np.unique(reference.assign(x, init)[0])), {0, 40})
        self.assertEqual(fit.stats["result"]["clusters"]["empty"], 80 - len(np.unique(fit.labels)))

    def test_duplicated_rows(self):
        x = np.repeat(blobs(40, 6, 4), 25, axis=0)
        self.check_fit(x, 10, init=x[::100][:10])

    def test_all_rows_equal(self):
        x = np.full((100, 7), 3.25, np.float32)
        self.check_fit(x, 4)
        self.check_fit(np.zeros((50, 3), np.float32), 3)

    def test_grid_of_midpoints(self):
        """Every row lies exactly between two centroids."""
        init = (np.arange(64, dtype=np.float32) * 2)[:, None] * np.ones((1, 9), np.float32)
        x = (np.arange(63, dtype=np.float32) * 2 + 1)[:, None] * np.ones((1, 9), np.float32)
        x = np.vstack([x, init])
        self.check_fit(x, 64, init=init, iterations=3)

    def test_only_rounding_tells_the_centroids_apart(self):
        """Centroids are permutations of one vector, rows lie on the diagonal: all distances are equal, so
        labels are decided by how the canonical distance rounds: lanes, their order, no fused add."""
        rng = np.random.default_rng(9)
        for d in (5, 12, 37, 100):
            one = rng.standard_normal(d).astype(np.float32)
            c = np.stack([rng.permutation(one) for _ in range(70)])
            x = rng.uniform(-3, 3, (300, 1)).astype(np.float32) * np.ones((1, d), np.float32)
            want, _ = reference.assign(x, c)
            self.assertGreater(len(np.unique(want)), 5, "the data does not test what it should")
            data, centroids, out = harness.save(x, ".npy"), harness.save(c, ".npy"), harness.path(".npy")
            for isa in same_bits.isas():
                with self.subTest(d=d, isa=isa):
                    run = Run("predict", "-f", "--isa", isa, "-c", centroids, "-o", out, data)
                    self.assertEqual(run.code, 0, run)
                    self.same_array(np.load(out), want, "labels")
            self.check_fit(x, 70, init=c, iterations=1, empty="keep")

    def test_neighbours_in_the_last_bit(self):
        """Centroids that differ by one unit in the last place, rows in between and around."""
        one = np.float32(1)
        steps = [one]
        for _ in range(40):
            steps.append(np.nextafter(steps[-1], np.float32(2)))
        init = np.repeat(np.float32(steps[::2])[:, None], 5, axis=1)
        x = np.repeat(np.float32(steps)[:, None], 5, axis=1)
        self.check_fit(np.vstack([x, x + np.float32(1e-6)]), len(init), init=init, iterations=2)

    def test_fewer_distinct_rows_than_clusters(self):
        x = np.repeat(blobs(6, 4, 6), 20, axis=0)
        self.check_fit(x, 15, init=x[:15])
        fit = Fit(harness.save(x, ".npy"), k=15)
        self.assertTrue(fit.stats["warnings"], "a warning")
        self.assertIn("warning", fit.run.err)
        self.same_array(reference.assign(x, fit.centroids)[0], fit.labels, "labels")
        self.assertEqual(fit.inertia, 0)


class Shapes(ContractTest):
    def test_one_cluster(self):
        x = blobs(777, 13, 3)
        fit = self.check_fit(x, 1)
        mean = x.astype(np.float64).mean(0)
        np.testing.assert_allclose(fit.centroids[0], mean, rtol=1e-6, atol=1e-6)

    def test_as_many_clusters_as_rows(self):
        x = blobs(200, 9, 20)
        fit = self.check_fit(x, 200)
        self.assertEqual(fit.inertia, 0)
        seeded = Fit(harness.save(x, ".npy"), k=200)
        self.assertEqual(seeded.inertia, 0)
        self.assertEqual(len(np.unique(seeded.labels)), 200)

    def test_one_row(self):
        fit = self.check_fit(np.float32([[1.5, -2, 7]]), 1)
        self.same_array(fit.centroids, np.float32([[1.5, -2, 7]]), "the row")

    def test_dims(self):
        for d in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 127, 129):
            with self.subTest(d=d):
                self.check_fit(blobs(150, d, 5, seed=d), 5, iterations=4)

    def test_4097_dims(self):
        self.check_fit(blobs(120, 4097, 5), 5, iterations=3)

    def test_65536_dims(self):
        self.check_fit(blobs(12, 65536, 3), 3, iterations=1 if harness.SLOW else 2)

    def test_cluster_counts(self):
        x = blobs(260, 6, 30)
        for k in (2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 257):
            with self.subTest(k=k):
                self.check_fit(x, k, iterations=3)

    def test_row_counts(self):
        for n in (2, 3, 5, 31, 32, 33, 63, 65, 255, 256, 257, 1023, 1025):
            with self.subTest(n=n):
                self.check_fit(blobs(n, 5, 3, seed=n), 2, iterations=3)


if __name__ == "__main__":
    harness.main()
