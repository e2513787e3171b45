#!/usr/bin/python3
"""Real vectors: the bits of the reference, labels of fit = labels of predict = a float64 argmin."""
import numpy as np

import harness
import reference
from harness import Fit, Run, ContractTest, SLOW


class RealData(ContractTest):
    def test_glove_ten_iterations(self):
        x = harness.glove(600 if SLOW else 3000)
        fit = self.check_fit(x, 40, init=x[::len(x) // 40][:40], data=harness.save(x, ".fvecs"))
        self.assertEqual(fit.stats["result"]["rows_used"], len(x))

    def test_glove_many_clusters(self):
        x = harness.glove(500 if SLOW else 2000)
        self.check_fit(x, 300, iterations=4)

    def test_mnist_ten_iterations(self):
        x = harness.mnist(300 if SLOW else 1000)
        self.check_fit(x, 25, init=x[-25:], data=harness.save(x, ".bvecs"))

    def test_glove_to_the_fixpoint(self):
        x = harness.glove(500)
        fit = self.check_fit(x, 12, iterations=100)
        self.assertEqual(fit.stats["status"], "converged")
        self.assertLess(fit.stats["result"]["iterations"], 100)
        again = Fit(harness.save(x, ".npy"), k=12, init=fit.centroids, iterations=5)
        self.same_array(again.centroids, fit.centroids, "a fixpoint stays")

    def test_labels_are_the_argmin_and_predict_agrees(self):
        for data, x, k in ((harness.GLOVE, harness.glove(), 50 if SLOW else 1000),
                           (harness.MNIST, harness.mnist(), 20 if SLOW else 100)):
            fit = Fit(data, k=k, iterations=3)
            out = harness.path(".labels.npy")
            run = Run("predict", "-c", fit.prefix + ".centroids.npy", "-o", out, data)
            self.assertEqual(run.code, 0, run)
            with open(out, "rb") as f:
                self.assertEqual(f.read(), fit.file("labels"), "labels of fit and predict")
            self.assertEqual(self.differ_from_argmin(x.astype(np.float64), fit), 0)

    def differ_from_argmin(self, x, fit):
        """Rows whose label is not float64's argmin. Where float64's formula cannot tell the two best
        apart, the canonical distance decides."""
        c = fit.centroids.astype(np.float64)
        wrong = 0
        for i in range(0, len(x), 500):
            rows = x[i:i + 500]
            d = (rows * rows).sum(1)[:, None] - 2 * rows @ c.T + (c * c).sum(1)
            two = np.partition(d, 1, axis=1)[:, :2]
            clear = two[:, 1] - two[:, 0] > 1e-9 * ((rows * rows).sum(1) + (c * c).sum(1).max())
            want = d.argmin(1)
            close = np.flatnonzero(~clear)
            if len(close):
                want[close] = reference.assign(rows[close].astype(np.float32), fit.centroids)[0]
            wrong += int((want != fit.labels[i:i + 500]).sum())
        return wrong

    def test_distances_and_top(self):
        x = harness.glove(400)
        c = x[::20].copy()
        data, cfile = harness.save(x, ".npy"), harness.save(c, ".npy")
        label, distance = harness.path(".npy"), harness.path(".npy")
        run = Run("predict", "-c", cfile, "-o", label, "--distances", distance, "--top", 5, data)
        self.assertEqual(run.code, 0, run)
        want, squared = reference.nearest(x, c, 5)
        self.same_array(np.load(label), want, "the five nearest")
        self.same_array(np.load(distance), squared.astype(np.float32), "their distances")


if __name__ == "__main__":
    harness.main()
