#!/usr/bin/python3
"""Little memory: limits of address space (ulimit -v) and of a control group. A run either does with
what there is, or says no before the work (exit code 5); it is never killed, and never ends otherwise.

And --memory, over HDF5 whose chunks have random shapes and filters: what a library takes is within it, too.
FKM_TEST_CHUNKS=100 tries so many instead of a few; FKM_TEST_SEED=N repeats a sweep."""
import json
import os
import random
import resource
import subprocess

import cli

MIB = 1 << 20
GROUPS = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}


class Group:
    """A control group of our own; None where that is not allowed."""

    def __init__(self, root, limit_file):
        self.limit_file = limit_file
        self.path = os.path.join(root, f"fkm-test-{os.getpid()}")
        try:
            os.mkdir(self.path)
        except OSError:
            self.path = None
        if self.path and not os.path.exists(os.path.join(self.path, limit_file)):
            self.close()

    def close(self):
        if self.path:
            os.rmdir(self.path)
        self.path = None

    def limit(self, size):
        with open(os.path.join(self.path, self.limit_file), "w") as f:
            f.write(str(size))

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as f:
            f.write("0")


def generate(d, rows, dims):
    path = os.path.join(d, "x.fbin")
    subprocess.run([os.path.join(os.environ["BUILD"], "tests/gen"), path, str(rows), str(dims)], check=True,
                   stdout=subprocess.DEVNULL)
    return path


def labels_of(d, args):
    run = cli.fkm(*args, "-f", cwd=d)
    cli.check_equal(run.returncode, 0, run.stderr)
    with open(os.path.join(d, "run.labels.npy"), "rb") as f:
        labels = f.read()
    for name in os.listdir(d):
        if name.startswith("run"):
            os.unlink(os.path.join(d, name))
    return labels


def check_run(d, what, args, before, reference, ends):
    run = subprocess.run([cli.FKM, *args], cwd=d, env=cli.clean_environment(), stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, preexec_fn=before)
    ends.append(run.returncode)
    cli.check(run.returncode in (0, 5), *what, "exit", run.returncode, run.stderr)
    if run.returncode == 5:
        cli.check("fkm: " in run.stderr and "hint: " in run.stderr, *what, run.stderr)
        cli.check(not os.path.exists(os.path.join(d, "run.stats.json")), *what, "left results")
    elif run.returncode == 0:
        with open(os.path.join(d, "run.labels.npy"), "rb") as f:
            cli.check(f.read() == reference, *what, "another result")
    for name in os.listdir(d):
        if name.startswith("run") or name.startswith("."):
            os.unlink(os.path.join(d, name))


def loads(before):
    """Whether the program is so much as loaded, which is the system's affair."""
    return subprocess.run([cli.FKM, "--version"], env=cli.clean_environment(), capture_output=True,
                          preexec_fn=before).returncode == 0


def check_given_centroids(d):
    """Those of --init are not held beside those of the run once it has begun."""
    rows, dims, k = 8400, 512, 8192  # 16 MiB of centroids
    args = ["fit", "-q", "-f", "-k", str(k), "-n", "1", "--empty", "keep", "--no-labels", generate(d, rows, dims), "-o"]
    cli.check_equal(cli.fkm(*args, "drawn", cwd=d).returncode, 0)
    cli.check_equal(cli.fkm(*args, "given", "-i", "drawn.centroids.npy", cwd=d).returncode, 0)
    drawn, given = [json.load(open(os.path.join(d, f"{name}.stats.json")))["peak"]["host_bytes"] / MIB
                    for name in ("drawn", "given")]
    cli.check(given < drawn + 8, "peak", given, "MiB with centroids that are given,", drawn, "without")
    print(f"peak memory: {drawn:.1f} MiB, with given centroids {given:.1f}")


def check_stack(d):
    """Threads have stacks of their own size; the main one must have some room, which is said."""
    cli.save(d, "x.npy", cli.npy(cli.noise(500, 16)))
    for kib, end in ((64, 5), (255, 5), (256, 0)):
        def limit(kib=kib):
            resource.setrlimit(resource.RLIMIT_STACK, (kib << 10, kib << 10))
        for args in (["fit", "-q", "-f", "-k", "9", "-j", "3", "-o", "s"],
                     ["fit", "-q", "-f", "-k", "9", "-m", "4M", "--isa", "scalar", "-i", "k-means++", "-o", "s"],
                     ["predict", "-q", "-f", "-c", "x.npy", "--top", "400", "-o", "l.npy"], ["info", "--full"]):
            run = subprocess.run([cli.FKM, *args, "x.npy"], cwd=d, env=cli.clean_environment(), capture_output=True,
                                 text=True, stdin=subprocess.DEVNULL, preexec_fn=limit)
            cli.check_equal(run.returncode, end, "a stack of", kib, "KiB", args, run.stderr)
            if end == 5:
                cli.check_equal(run.stderr, f"fkm: the stack is limited to {kib} KiB: at least 256 KiB are needed\n"
                                            "hint: raise the limit: ulimit -s 1024\n")


# ---- chunks ----

PROMISE = 16 * MIB      # beyond --memory: code, stacks, small change

# Written in a process of its own: h5py is not fkm's, and one that is killed for memory should not be this one.
WRITE = """
import h5py, json, sys
import numpy as np
c = json.loads(sys.argv[1])
x = np.random.default_rng(c["seed"]).standard_normal((c["rows"], c["dims"])).astype(c["type"])
with h5py.File(sys.argv[2], "w", libver=c["libver"]) as f:
    f.create_dataset("x", data=x, chunks=tuple(c["chunks"]), maxshape=[None if free else n for free, n in
                     zip(c["free"], x.shape)], **c["filters"])
np.save(sys.argv[2] + ".npy", x)
"""


def random_case(rng):
    """A file of at most 8 MiB, of at most 60000 chunks."""
    dims = rng.choice((1, 3, 16, 64, 100, 512))
    rows = rng.randrange(100, min(200000, (4 << 18) // dims + 200))
    while True:
        down = rng.choice((1, 2, 7, 100, 1000, 12500, rows))
        across = rng.choice((1, 2, 8, dims, dims, dims))
        chunks = (min(down, rows), min(across, dims))
        if (rows // chunks[0] + 1) * (dims // chunks[1] + 1) <= 60000:
            break
    filters = rng.choice(({}, {}, {"compression": 1}, {"compression": 1, "shuffle": True}, {"compression": "lzf"},
                          {"fletcher32": True}, {"compression": 1, "shuffle": True, "fletcher32": True}))
    return {"seed": rng.randrange(1000), "rows": rows, "dims": dims, "type": rng.choice(("<f4", "<f4", ">f4", "<f8")),
            "chunks": chunks, "filters": filters, "libver": rng.choice(("earliest", "latest")),
            "free": (rng.random() < 0.3, rng.random() < 0.3)}


def check_chunks(d):
    """Peak memory is within --memory and 16 MiB, and labels are those of the same rows as .npy."""
    python = os.environ.get("PYTHON", "python3")
    if subprocess.run([python, "-c", "import h5py"], capture_output=True).returncode != 0 or \
            "hdf5" not in cli.fkm("help", "formats", cwd=d).stdout:
        print("chunks are not checked: no h5py, or built without HDF5")
        return
    seed = int(os.environ.get("FKM_TEST_SEED", random.randrange(1 << 30)))
    count = int(os.environ.get("FKM_TEST_CHUNKS", 4))
    rng = random.Random(seed)
    print("chunks: seed", seed)
    ends, worst, tightest = [], 0, 0
    for _ in range(count):
        case = random_case(rng)
        path = os.path.join(d, "chunks.h5")
        subprocess.run([python, "-c", WRITE, json.dumps(case), path], check=True)
        args = ["fit", "-q", "-f", "-k", "3", "-n", "2", "-t", "0", "-j", "2", "--checkpoint", "off"]
        cli.check_equal(cli.fkm(*args, "-o", "run", path + ".npy", cwd=d).returncode, 0)
        with open(os.path.join(d, "run.labels.npy"), "rb") as f:
            reference = f.read()
        for limit in (8 * MIB, rng.randrange(5 * MIB, 40 * MIB)):
            run = subprocess.run([cli.FKM, *args, "-m", str(limit), "-o", "run", path], cwd=d,
                                 env=cli.clean_environment(), capture_output=True, text=True)
            ends.append(run.returncode)
            cli.check(run.returncode in (0, 5), case, limit, run.stderr)
            if run.returncode != 0:
                continue
            with open(os.path.join(d, "run.labels.npy"), "rb") as f:
                cli.check(f.read() == reference, "another result", case, limit)
            with open(os.path.join(d, "run.stats.json")) as f:
                peak = json.load(f)["peak"]["host_bytes"]
            cli.check(peak <= limit + PROMISE, "peak", peak / MIB, "MiB at", limit / MIB, case)
            worst = max(worst, peak - limit)
            tightest = max(tightest, peak / (limit + PROMISE))
    cli.check(0 in ends, "no run did with what it was given", ends)
    print(f"chunks: {count} shapes, {len(ends)} runs, {ends.count(5)} said no; at most {worst / MIB:.1f} MiB beyond "
          f"--memory, {100 * tightest:.0f} % of what is promised")


def main():
    if cli.SLOW:
        cli.skip("sanitizers need more memory than there is to limit")
    d = cli.new_directory()
    check_chunks(d)
    check_given_centroids(d)
    check_stack(d)
    args = ["fit", "-q", "-k", "40", "-n", "2", "-j", "2", "-o", "run", generate(d, 60000, 128)]
    options = ((), ("-m", "4G"), ("-m", "6M"), ("-i", "k-means++"))
    references = {more: labels_of(d, [*args, *more]) for more in options}

    ends = []
    for size in (10, 14, 20, 26, 32, 40, 60, 90, 150, 300):
        def limit(size=size):
            resource.setrlimit(resource.RLIMIT_AS, (size * MIB, size * MIB))
        if size < 60 and not loads(limit):
            print("the program is not loaded in", size, "MiB")
            continue
        for more in options:
            check_run(d, ("ulimit -v", size, "MiB", *more), [*args, *more], limit, references[more], ends)
    cli.check(0 in ends and 5 in ends, "the limits of address space try nothing", ends)
    print("address space:", len(ends), "runs,", ends.count(0), "did with it,", ends.count(5), "said no")

    for root, limit_file in GROUPS.items():
        group = Group(root, limit_file)
        if not group.path:
            print(f"not checked: no right to make a group with {limit_file} in {root}")
            continue
        ends = []
        try:
            for size in (8, 18, 20, 24, 32, 48, 64, 100):
                group.limit(size * MIB)
                for more in options:
                    check_run(d, (limit_file, size, "MiB", *more), [*args, *more], group.enter, references[more],
                              ends)
        finally:
            group.close()
        cli.check(0 in ends and 5 in ends, "the limits of the group try nothing", ends)
        print(f"{limit_file}:", len(ends), "runs,", ends.count(0), "did with it,", ends.count(5), "said no")
    cli.finish()


if __name__ == "__main__":
    main()
