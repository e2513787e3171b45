#!/usr/bin/python3
"""A GPU that is lost, by calls or in a kernel, while problems run side by side on one to three GPUs: status 6, one
message, and a state of all problems, from which the CPU or GPUs go on to the bits of a run that lost nothing."""
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: a GPU cannot be told to fail")

LOST = 700         # cudaErrorIllegalAddress
OUTPUTS = ["run.centroids.npy", "run.labels.npy", "run.stats.json"]
STATE = "run.checkpoint"
PLACES = 3 if cli.SLOW else 12
ROWS = 80 if cli.SLOW else 300
SEED = int(os.environ.get("FKM_TEST_SEED", time.time_ns() % 1000000))


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def facts(d):
    """What stats.json says that has nothing to do with time or the machine."""
    s = json.loads(read(d, "run.stats.json"))
    return s["status"], s["result"], s["problems"], [{k: v for k, v in i.items() if k not in ("s", "read_wait_s")}
                                                     for i in s["iterations"]]


def fit(d, data, args, device, threads, **env):
    return cli.fkm("fit", "-q", "-d", device, "-j", threads, "-o", "run", *args, data, cwd=d, env=env)


def check_resumed(d, whole, data, args, device, *what):
    run = fit(d, data, args, device, 3)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "resumed on", device, *what)
    cli.check_equal(sorted(os.listdir(d)), OUTPUTS, *what)
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "differs; resumed on", device, *what)
    cli.check_equal(facts(d), facts(whole), "stats.json; resumed on", device, *what)
    return json.loads(read(d, "run.stats.json"))["checkpoint"]["resumes"]


def check_lost(data, args, whole, fault, gpus, device):
    """How often it was resumed: 0 or 1."""
    d = cli.new_directory()
    what = (fault, args, gpus, "seed", SEED)
    run = fit(d, data, args, "cuda", 4, CUO_FAIL=fault, CUO_DEVICES=str(gpus))
    left = sorted(os.listdir(d))
    if run.returncode == 0:
        cli.check_equal(left, OUTPUTS, "nothing was lost", *what)
        return 0
    cli.check_equal(run.returncode, 6, *what, run.stderr)
    lines = run.stderr.splitlines()
    cli.check(len(lines) == 2 and "cuda" in lines[0], *what, run.stderr)
    cli.check(left in ([], [STATE]), "left behind", left, *what)
    cli.check((STATE in lines[1]) == (left == [STATE]), "says where the state is", *what, run.stderr)
    return check_resumed(d, whole, data, args, device, *what)


def check_case(rng, data, args, gpus):
    whole = cli.new_directory()
    report = os.path.join(cli.TMP, "report")
    run = fit(whole, data, args, "cuda", 4, CUO_REPORT=report, CUO_DEVICES=str(gpus))
    cli.check_equal((run.returncode, run.stderr), (0, ""), args)
    cli.check(json.loads(read(whole, "run.stats.json"))["machine"]["side_by_side"] > 1, "side by side", args, gpus)
    counts = json.loads(read(report))
    for total, fault in ((counts["calls"], "{}+:%d" % LOST), (counts["kernels"], "kernel {}:%d" % LOST)):
        resumed = [check_lost(data, args, whole, fault.format(rng.randrange(1, total)), gpus,
                              rng.choice(["cpu", "cuda"])) for _ in range(PLACES)]
        print(args, gpus, "GPUs,", fault, "of", total, "- resumed", resumed)
        cli.check(cli.SLOW or sum(resumed) >= PLACES / 3, "no state is kept", resumed, args, fault)


def check_again_and_again():
    """States that are saved all the time, while some problem is lost each time."""
    d, whole = cli.new_directory(), cli.new_directory()
    args = ["-k", 6, "-t", 0, "-n", 6, "--checkpoint", "1ms"]
    data = cli.save(cli.TMP, "again.npy", cli.npy(cli.noise(6 * ROWS, 8), (6, ROWS, 8)))
    cli.check_equal(fit(whole, data, args, "cuda", 1).returncode, 0)
    parts = 0
    for n in range(400, 8000, 400 if cli.SLOW else 60):
        run = fit(d, data, args, "cuda", 3, CUO_FAIL=f"{n}+:{LOST}")
        if run.returncode == 0:
            break
        cli.check_equal(run.returncode, 6, n, run.stderr)
        parts += 1
    print("lost", parts, "times")
    cli.check(parts > 2, "parts", parts)
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "after", parts, "parts")
    cli.check_equal(facts(d), facts(whole), "after", parts, "parts")


def main():
    rng = random.Random(SEED)
    data = cli.save(cli.TMP, "batch.npy", cli.npy(cli.noise(7 * ROWS, 8), (7, ROWS, 8)))
    check_case(rng, data, ["-k", 6, "-t", 0, "-n", 6], 1)
    check_case(rng, data, ["-k", 6, "-t", 0, "-n", 5], 3)
    check_case(rng, data, ["-k", 4, "-n", 3, "-t", 0, "-i", "k-means++", "--restarts", 2], 2)
    check_again_and_again()
    cli.finish()


main()
