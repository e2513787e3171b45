#!/usr/bin/python3
"""Little memory: limits of address space (ulimit -v) and of a control group. A run either does with
what there is, or says no before the work (exit code 5); it is never killed, and never ends otherwise."""
import json
import os
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


def main():
    if cli.SLOW:
        cli.skip("sanitizers need more memory than there is to limit")
    d = cli.new_directory()
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
