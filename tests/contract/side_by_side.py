#!/usr/bin/python3
"""Batches whose problems are solved side by side, on the CPU and on one to three GPUs: the bytes, the record and the
messages of one after the other, whatever the threads and the memory, and however often the run is killed."""
import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

SEED = int(os.environ.get("FKM_TEST_SEED", time.time_ns() % 1000000))
OUTPUTS = ["run.centroids.npy", "run.labels.npy", "run.stats.json"]
TIMES = ("s", "read_wait_s")
EMULATED = bool(os.environ.get("EMULATED"))
LEAN = EMULATED and cli.SLOW                    # a sanitizer watches a GPU that is none
PROBLEMS, ROWS, DIMS, K = 7, 100 if LEAN else 400, 8, 6


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def stats(d):
    return json.loads(read(d, "run.stats.json"))


def facts(d):
    """What stats.json says that has nothing to do with time or the machine."""
    s = stats(d)
    return (s["status"], s["params"], s["result"], s["problems"],
            [{k: v for k, v in i.items() if k not in TIMES} for i in s["iterations"]])


def same(d, whole, *what):
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "differs", *what)
    cli.check_equal(facts(d), facts(whole), "stats.json", *what)


def make(name, rows=ROWS, change=None):
    x = cli.noise(PROBLEMS * rows, DIMS, seed=5)
    for i in range(rows, 2 * rows):             # each has a scale of its own
        x[i] = [1000 * v for v in x[i]]
    if change:
        change(x, rows)
    return cli.save(cli.TMP, name, cli.npy(x, (PROBLEMS, rows, DIMS)))


def command(data, args, threads):
    return ["fit", "-q", "-k", K, "-n", 5, "-t", 0, "-o", "run", "-j", threads, *args, data]


def machines():
    """Device arguments, environment, GPUs (0: the CPU)."""
    found = [(["-d", "cpu"], {}, 0)]
    for gpus in (1, 3) if LEAN else (1, 2, 3) if EMULATED else (1,):
        env = {"CUO_DEVICES": str(gpus)} if EMULATED else {}
        run = cli.fkm("fit", "-q", "-k", 2, "-d", "cuda", "-o", "probe", make("probe.npy", 4), cwd=cli.new_directory(),
                      env=env)
        if run.returncode == 0:
            found.append((["-d", "cuda"], env, gpus))
    return found


def lanes_of(gpus, threads):
    """As the backends decide for problems of this size."""
    if gpus:
        return min(PROBLEMS, gpus * max(1, min(8, threads // gpus)))

    def took(lanes):
        return -(-PROBLEMS // lanes) * (0.15 + 0.85 / (threads // lanes))
    return min(range(1, min(threads, PROBLEMS) + 1), key=lambda lanes: (took(lanes), lanes))


def check_same(data, args, whole, machine):
    """Whatever the threads."""
    device, env, gpus = machine
    for threads in (4, 6) if LEAN and gpus else (1, 2, 4, 8):
        d = cli.new_directory()
        run = cli.fkm(*command(data, [*args, *device], threads), cwd=d, env=env)
        what = (args, machine, threads)
        cli.check_equal((run.returncode, run.stderr), (0, ""), *what)
        cli.check_equal(stats(d)["machine"]["side_by_side"], lanes_of(gpus, threads), "lanes", *what)
        same(d, whole, *what)


def check_memory(data, args, whole, machine):
    """From too little to ample, by host memory and by that of GPUs: ever more at a time, and always the same."""
    device, env, gpus = machine
    for option in ("-m", "--gpu-memory") if gpus else ("-m",):
        lanes = []
        for i in range(4 if cli.SLOW else 10):
            d = cli.new_directory()
            step = i * (3 if cli.SLOW else 1)
            size = int(90e3 * 1.4 ** step) if option != "-m" else int(1.2e6 * 1.15 ** step)
            run = cli.fkm(*command(data, [*args, *device, option, f"{size}B"], 4), cwd=d, env=env)
            what = (args, machine, option, size, run.stderr)
            if run.returncode == 0:
                lanes.append(stats(d)["machine"]["side_by_side"])
                same(d, whole, *what)
                held = stats(d)["peak"]["gpu_bytes"]
                cli.check(option == "-m" or held <= size, "held", held, *what)
            else:
                cli.check_equal(run.returncode, 5, *what)
                lanes.append(0)
        print(args, machine, option, "lanes", lanes)
        cli.check(lanes == sorted(lanes) and lanes[-1] == lanes_of(gpus, 4), option, lanes, machine, args)
        cli.check(cli.SLOW or 0 < min(n for n in lanes if n) < lanes[-1], "no budget is too little for all", lanes)


def check_peak():
    """The rows of all problems at work count: of six of 26 MB, and as much beside them, three have room in 160 MiB."""
    d = cli.new_directory()
    shape = (6, 200000, 32)
    head = cli.npy([], shape)
    with open(os.path.join(d, "zeros.npy"), "wb") as f:
        f.write(head)
        f.truncate(len(head) + 4 * shape[0] * shape[1] * shape[2])
    for limit, least, most in ((160, 2, 3), (1000, 6, 6)):
        run = cli.fkm("fit", "-q", "-f", "-k", 8, "-n", 1, "--empty", "keep", "--no-labels", "-d", "cpu", "-j", 6,
                      "-m", f"{limit}M", "-o", "run", "zeros.npy", cwd=d)
        cli.check_equal((run.returncode, run.stderr), (0, ""), limit)
        lanes, peak = stats(d)["machine"]["side_by_side"], stats(d)["peak"]["host_bytes"]
        print(f"-m {limit}M: {lanes} side by side, peak {peak / 2**20:.0f} MiB")
        cli.check(least <= lanes <= most, "lanes", lanes, limit)
        cli.check(peak <= (limit + 16) << 20, "peak", peak, limit)


def fails(data, args, threads, env):
    d = cli.new_directory()
    run = cli.fkm(*command(data, args, threads), cwd=d, env=env)
    cli.check_equal(os.listdir(d), [], "left behind", args, threads)
    return run.returncode, run.stderr.replace(d, "")


def check_messages(machine):
    """Of several problems that fail the first is told of, in the words of one after the other."""
    def nan(x, rows):
        x[5 * rows + 3][2] = x[3 * rows + rows - 1][1] = x[3 * rows + 7][0] = float("nan")

    def few(x, rows):                           # distinct rows
        for p in (2, 4):
            for i in range(p * rows, (p + 1) * rows):
                x[i] = [float(i % 3)] * DIMS
    device, env, _ = machine
    for data, args, word in ((make("nan.npy", change=nan), [], "problem 3, row 7"),
                             (make("few.npy", change=few), ["--empty", "error"], "have no rows in iteration 1")):
        alone = fails(data, [*args, "-d", "cpu"], 1, {})
        cli.check(alone[0] == 3 and word in alone[1], alone)
        for threads in (4,) if LEAN else (2, 4, 7):
            cli.check_equal(fails(data, [*args, *device], threads, env), alone, machine, threads, args)


def check_killed(rng, machine, signals):
    """Until a part was killed that had kept a state: how long a run takes is not for sure."""
    for share in (0.7,) if LEAN else (0.7, 0.4, 0.2, 0.1):
        if killed(rng, machine, signals, share):
            return
    cli.check(LEAN, "no state was kept", machine)


def killed(rng, machine, signals, share):
    """Killed again and again, each part with other threads and memory; how often there was a state."""
    device, env, _ = machine
    rows, iterations = (60, 4) if LEAN else (150, 12) if machine[2] else (4000, 60)
    args = ["-k", 40, "-n", iterations, "-t", 0, "-o", "run", "--restarts", 2]
    data = make("killed.npy", rows)
    d, whole = cli.new_directory(), cli.new_directory()
    begin = time.monotonic()
    run = cli.fkm("fit", "-q", *args, *device, "-j", 4, data, cwd=whole, env=env)
    length = time.monotonic() - begin
    cli.check_equal((run.returncode, run.stderr), (0, ""), machine)
    resumed = parts = 0
    while parts < 60:
        parts += 1
        more = [*device, "-j", rng.choice([1, 2, 4, 7]), *rng.choice([[], ["-m", "3M"]])]
        line = ["fit", "-q", "-f", *map(str, [*args, *more]), "--checkpoint", "1ms", data]
        p = subprocess.Popen([cli.FKM, *line], cwd=d, env=cli.clean_environment(**env), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        number = rng.choice(signals) if parts <= 8 else None
        try:
            _, err = p.communicate(timeout=rng.uniform(0.3, 1) * share * length if number else None)
        except subprocess.TimeoutExpired:
            p.send_signal(number)
            _, err = p.communicate()
        if p.returncode == 0:
            break
        cli.check(number and p.returncode in (-number, 128 + number), "killed by", number, p.returncode, err)
        resumed += os.path.exists(os.path.join(d, "run.checkpoint"))
    cli.check_equal(sorted(os.listdir(d)), OUTPUTS, "left behind", machine)
    same(d, whole, machine, "after", parts, "parts; seed", SEED)
    print(machine, "killed", parts - 1, "times, gone on from a state", resumed)
    return resumed


def main():
    rng = random.Random(SEED)

    def wide(x, rows):
        x[4 * rows + 17][3] = 1e12              # takes 128-bit sums

    def bad(x, rows):
        wide(x, rows)
        x[2 * rows + 5][1] = float("inf")
    data, with_bad = make("plain.npy", change=wide), make("bad.npy", change=bad)
    cases = ((data, []), (data, ["-i", "k-means++", "--restarts", 2]), (with_bad, ["--nan", "skip", "-i", "k-means||"]))
    if not cli.SLOW:                            # a sanitizer needs memory of its own
        check_peak()
    for machine in machines():
        for x, args in cases[:1] if machine[2] == 3 or LEAN else cases:
            whole = cli.new_directory()
            run = cli.fkm(*command(x, [*args, "-d", "cpu"], 1), cwd=whole)
            cli.check_equal((run.returncode, run.stderr), (0, ""), args)
            cli.check_equal(stats(whole)["machine"]["side_by_side"], 1, "one after the other")
            check_same(x, args, whole, machine)
            if machine[2] != 2 and not (LEAN and machine[2]):
                check_memory(x, args, whole, machine)
        check_messages(machine)
        for signals in ([signal.SIGKILL], [signal.SIGINT, signal.SIGTERM])[:1 if LEAN or machine[2] == 2 else 2]:
            check_killed(rng, machine, signals)
    cli.finish()


main()
