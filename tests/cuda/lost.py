#!/usr/bin/python3
"""A GPU that is lost at any call of the CUDA runtime, or in any kernel, in the middle of fkm fit: status 6, a
message, and a state from which the CPU, or the GPU, goes on to the bits of a run that lost nothing."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: a GPU cannot be told to fail")

LOST = 700         # cudaErrorIllegalAddress
OUTPUTS = ["run.centroids.npy", "run.labels.npy", "run.stats.json"]
STATE = "run.checkpoint"
# Centroids are kept safe as often as takes a small share of the time: where a machine was held up meanwhile, less is
# kept than at an earlier place, and it is tried again.
TRIES = 3
PLACES = 8 if cli.SLOW else 24
STREAM = "600k"    # of GPU memory: rows travel


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def facts(d):
    """What stats.json says that has nothing to do with time or the machine."""
    s = json.loads(read(d, "run.stats.json"))
    return s["result"], s["status"], s["params"], [{k: v for k, v in i.items() if k not in ("s", "read_wait_s")}
                                                   for i in s["iterations"]]


def fit(d, data, args, device, **env):
    return cli.fkm("fit", "-q", "-d", device, "-o", "run", *args, data, cwd=d, env=env)


def check_resumed(d, whole, data, args, device, *what):
    """The same command on another device, to its end."""
    run = fit(d, data, args, device)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "resumed on", device, *what)
    cli.check_equal(sorted(os.listdir(d)), OUTPUTS, *what)
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "differs; resumed on", device, *what)
    cli.check_equal(facts(d), facts(whole), "stats.json; resumed on", device, *what)


def check_lost(data, args, whole, fault, device):
    """Returns the iteration that was resumed, 0 if there was no state, None if nothing failed."""
    d = cli.new_directory()
    what = (fault, args)
    run = fit(d, data, args, "cuda", CUO_FAIL=fault)
    left = sorted(os.listdir(d))
    if run.returncode == 0:
        cli.check_equal(left, OUTPUTS, "nothing was lost", *what)
        return None
    cli.check_equal(run.returncode, 6, *what, run.stderr)
    lines = run.stderr.splitlines()
    cli.check(len(lines) == 2 and "cuda" in lines[0], *what, run.stderr)
    cli.check(left in ([], [STATE]), "left behind", left, *what)
    cli.check(lines[1].startswith("hint: ") and "--device cpu" in lines[1], *what, run.stderr)
    cli.check((STATE in lines[1]) == (left == [STATE]), "says where the state is", *what, run.stderr)
    if not left:
        return 0
    check_resumed(d, whole, data, args, device, *what)
    return json.loads(read(d, "run.stats.json"))["checkpoint"]["resumed_at"]


def check_case(data, args, last, **env):
    """last: the iteration that is at work when the latest faults come; where few are tried, the one before."""
    whole = cli.new_directory()
    report = os.path.join(cli.TMP, "report")
    run = fit(whole, data, args, "cuda", CUO_REPORT=report)
    cli.check_equal((run.returncode, run.stderr), (0, ""), args)
    counts = json.loads(read(report))
    for total, fault in ((counts["calls"], "{}+:%d" % LOST), (counts["kernels"], "kernel {}:%d" % LOST)):
        step = max(1, total // PLACES)
        resumed = []
        for n in range(1 + step // 2, total, step):
            for _ in range(TRIES):
                at = check_lost(data, args, whole, fault.format(n), ("cpu", "cuda")[n // step % 2])
                if at is None or "--restarts" in args or at >= max([i or 0 for i in resumed], default=0):
                    break
            resumed.append(at)
        print(args, fault, "of", total, "- resumed at", resumed)
        cli.check(max(i or 0 for i in resumed) >= last - cli.SLOW, "no more is lost than a pass", resumed, args, fault)
        states = [i for i in resumed if i is not None]
        cli.check(states == sorted(states) or "--restarts" in args, "later faults keep more", resumed, args, fault)


def check_stopped():
    """A state that is on disk, and newer than what could be kept safe, stays."""
    d, whole = cli.new_directory(), cli.new_directory()
    args = ["-k", 6, "-t", 0, "-n", 6, "--checkpoint", "1ms"]
    data = cli.save(cli.TMP, "again.npy", cli.npy(cli.noise(400, 8)))
    cli.check_equal(fit(whole, data, args, "cuda").returncode, 0)
    parts = 0
    for n in range(120, 4000, 20):      # each part gets a little further than the one before
        run = fit(d, data, args, "cuda", CUO_FAIL=f"{n}+:{LOST}")
        if run.returncode == 0:
            break
        cli.check_equal(run.returncode, 6, n, run.stderr)
        parts += 1
    print("lost", parts, "times")
    cli.check(parts > 3, "parts", parts)
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "after", parts, "parts")
    cli.check_equal(facts(d), facts(whole), "after", parts, "parts")


def main():
    noise = cli.save(cli.TMP, "noise.npy", cli.npy(cli.noise(400, 8)))
    clumps = cli.save(cli.TMP, "clumps.npy", cli.npy(
        [[100.0 * (i % 9) + (i // 9) % 4 + t for t in range(4)] for i in range(360)]))
    check_case(noise, ["-k", 6, "-t", 0, "-n", 6], 6)
    check_case(noise, ["-k", 6, "-t", 0, "-n", 5, "--gpu-memory", STREAM], 5)
    check_case(clumps, ["-k", 30, "-t", 0, "-n", 5], 1)
    check_case(noise, ["-k", 4, "-n", 3, "-t", 0, "-i", "k-means++", "--restarts", 2], 3)
    check_stopped()
    cli.finish()


main()
