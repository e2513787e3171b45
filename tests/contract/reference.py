"""The contract of fkm as executable text: slow and plain, in NumPy's float64 and Python's integers.

Whatever fkm does to be quick, its labels, centroids and inertia are these bits.
"""
from fractions import Fraction

import numpy as np

LANES = 8


def canonical(x, c):
    """Squared distances of all rows of x to all rows of c; x: (n, d), c: (k, d), float32 -> (n, k).

    Element t adds (x[t] - c[t])^2 to lane t mod 8 in increasing t, in float64: multiply, then add, no
    fused operation. The lanes are added in one fixed order.
    """
    n, d, k = len(x), x.shape[1], len(c)
    out = np.empty((n, k))
    block = max(1, 4_000_000 // (k * LANES * 8))
    for i in range(0, n, block):
        rows = x[i:i + block].astype(np.float64)
        lanes = np.zeros((len(rows), k, LANES))
        for t in range(0, d, LANES):
            e = rows[:, None, t:t + LANES] - c[None, :, t:t + LANES].astype(np.float64)
            e *= e
            lanes[:, :, :e.shape[2]] += e
        a = np.moveaxis(lanes, 2, 0)
        out[i:i + block] = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    return out


def assign(x, c):
    """The nearest centroid of each row, ties to the lowest index: (labels int32, squared distances)."""
    label = np.empty(len(x), np.int32)
    distance = np.empty(len(x))
    block = max(1, 16_000_000 // (8 * len(c)))
    for i in range(0, len(x), block):
        d = canonical(x[i:i + block], c)
        label[i:i + block] = d.argmin(1)
        distance[i:i + block] = d.min(1)
    return label, distance


def nearest(x, c, m):
    """The m nearest centroids of each row, nearest first, ties to the lowest index: (n, m) each."""
    d = canonical(x, c)
    order = np.argsort(d, axis=1, kind="stable")[:, :m]
    return order.astype(np.int32), np.take_along_axis(d, order, 1)


def typical_exponent(a):
    """The lower median of the binary exponents of what is not zero."""
    exponents = np.sort(np.frexp(a[a != 0])[1])
    return int(exponents[(len(exponents) - 1) // 2])


def scale(x):
    """(e, wide): coordinates are summed as rint(x * 2^e), in 64-bit integers, or in 128-bit ones. None:
    even those are too coarse for the data."""
    a = np.abs(x.astype(np.float64))
    if not a.any():
        return 0, False
    bits = int(len(x)).bit_length()                       # n < 2^bits
    top = int(np.frexp(a.max())[1])                       # max|x| < 2^top
    # Typical is a coordinate; but if most are next to nothing, as in outputs of a softmax, which no
    # distance would show, then the largest of a row.
    for typical in typical_exponent(a), typical_exponent(a.max(1)):
        for e, wide in (62 - bits - top, False), (126 - bits - top, True):
            if e >= 24 - typical:        # the quantum 2^-e is at most 2^-24 of a typical value
                return e, wide
    return None


def quantize(x, e, wide):
    """rint(x * 2^e) as integers: int64, or Python's own when wide."""
    q = np.rint(np.ldexp(x.astype(np.float64), e))
    if not wide:
        return q.astype(np.int64)
    return np.array([[int(v) for v in row] for row in q], dtype=object).reshape(x.shape)


def sums(q, label, k):
    """The sum of the rows of each cluster, and how many they are."""
    total = np.zeros((k, q.shape[1]), q.dtype)
    count = np.bincount(label, minlength=k).astype(np.int64)
    order = np.argsort(label, kind="stable")
    present = np.flatnonzero(count)
    starts = np.cumsum(count)[present] - count[present]
    total[present] = np.add.reduceat(q[order], starts, axis=0)
    return total, count


def means(total, count, c, e):
    """Means, rounded once to float32; a cluster without rows keeps its centroid."""
    out = c.copy()
    for j in np.flatnonzero(count):
        mean = np.array([float(int(v)) for v in total[j]]) / float(count[j])
        out[j] = np.ldexp(mean, -e).astype(np.float32)
    return out


def donors(label, count, distance):
    """Rows that an empty cluster may take: off their centroid, in clusters of two rows or more. Of
    others it would win nothing: they lie on a centroid, or are alone and their own moves onto them."""
    return np.flatnonzero((distance > 0) & (count[label] > 1))


def farthest(x, c, label, count, distance):
    """Empty clusters, in increasing index, take the donors farthest from their own centroid, each row
    once, ties to the lowest row. There may be fewer donors than empty clusters."""
    rows = donors(label, count, distance)
    rows = rows[np.lexsort((rows, -distance[rows]))]
    for j, i in zip(np.flatnonzero(count == 0), rows):
        c[j] = x[i]
    return c


def exact_inertia(x, c, label):
    """The double nearest to the sum of |q 2^-e - c_label|^2 in exact arithmetic."""
    e, wide = scale(x)
    q = quantize(x, e, wide)
    total, count = sums(q, label, len(c))
    flat = [int(v) for v in q.ravel()]
    squares = sum(v * v for v in flat)                    # in steps of 2^-2e
    own, cross = 0, 0                                     # 2^-298: every float32 is an integer times 2^-149
    for j in np.flatnonzero(count):
        steps = [int(v) for v in np.ldexp(c[j].astype(np.float64), 149)]
        own += int(count[j]) * sum(v * v for v in steps)
        cross += sum(v * int(s) for v, s in zip(steps, total[j]))   # 2^-(e + 149)
    two = Fraction(2)                                     # Fraction -> float rounds to nearest even
    return float(squares / two ** (2 * e) + own / two ** 298 - 2 * cross / two ** (e + 149))


def plain_inertia(x, c, label):
    """The same sum over the unrounded rows, in long double."""
    e = x.astype(np.longdouble) - c[label].astype(np.longdouble)
    return float((e * e).sum())


def lloyd(x, c, iterations, empty="farthest"):
    """x: (n, d), c: (k, d), float32. Returns labels against the returned centroids, those, and whether
    they are the fixpoint: neither labels nor centroids would change."""
    x, c = np.ascontiguousarray(x, np.float32), np.array(c, np.float32)
    e, wide = scale(x)
    q = quantize(x, e, wide)
    previous, still, done = None, False, 0
    while True:
        label, distance = assign(x, c)
        count = np.bincount(label, minlength=len(c))
        reseeds = empty == "farthest" and (count == 0).any()
        waits = reseeds and donors(label, count, distance).size > 0
        moved = previous is None or not np.array_equal(label, previous)
        if not moved and (still or not waits):            # still: what empty clusters were given won nothing
            return label, c, True
        if done == iterations:
            return label, c, False
        still = not moved
        total, count = sums(q, label, len(c))
        c = means(total, count, c, e)
        if reseeds:
            c = farthest(x, c, label, count, distance)
        previous, done = label, done + 1
