#!/usr/bin/python3
"""Runs that are killed at random moments, by SIGKILL and by the signals that can be caught, and started
again until they are done: the bytes of a run that was left alone. And data that changes on the way."""
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import cli

SEED = int(os.environ.get("FKM_TEST_SEED", time.time_ns() % 1000000))
ROWS, DIMS, K = (100000, 16, 100) if cli.SLOW else (100000, 16, 500)
OUTPUTS = ["run.centroids.npy", "run.labels.npy", "run.stats.json"]
STREAM = "6M"                 # less than the data
TIMES = ("s", "read_wait_s")  # of an iteration; all else must be the same


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def stats(d):
    return json.loads(read(d, "run.stats.json"))


def facts(d):
    """What stats.json says that has nothing to do with time."""
    s = stats(d)
    return {"result": s["result"], "status": s["status"], "params": s["params"], "outputs": s["outputs"],
            "iterations": [{k: v for k, v in i.items() if k not in TIMES} for i in s["iterations"]]}


def start(d, args, clusters=K):
    return subprocess.Popen([cli.FKM, "fit", "-q", "-k", str(clusters), "-o", "run", *args, "x.npy"], cwd=d,
                            env=cli.clean_environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def machine(rng):
    """What must not matter."""
    return ["-j", str(rng.choice([1, 2, 3]))] + rng.choice([[], ["-m", STREAM], ["--isa", "scalar"]])


def wait_for_state(d, p):
    while p.poll() is None and "run.checkpoint" not in os.listdir(d):
        time.sleep(0.01)


def check_killed(rng, args, signals, kills, share):
    """share: of the time that a whole run takes, within which each part is killed: counted from its begin, or
    when share is less than 1 from when there is a state."""
    d, whole = cli.new_directory(), cli.new_directory()
    for place in (d, whole):
        os.symlink(os.path.join(DATA, "x.npy"), os.path.join(place, "x.npy"))
    begin = time.monotonic()
    run = start(whole, args)
    _, err = run.communicate()
    cli.check_equal((run.returncode, err), (0, ""), "the run that is left alone", args)
    length = time.monotonic() - begin
    resumed = parts = 0
    while True:
        parts += 1
        p = start(d, [*args, *machine(rng), "--checkpoint", "1ms"])
        number = rng.choice(signals) if parts <= kills else None
        if number and share < 1:
            wait_for_state(d, p)
        try:
            _, err = p.communicate(timeout=rng.uniform(0, share * length) if number else None)
        except subprocess.TimeoutExpired:
            p.send_signal(number)
            _, err = p.communicate()
            if p.returncode == 0:          # it was quicker
                break
            cli.check(p.returncode in (-number, 128 + number), "killed by", number, p.returncode, err)
            cli.check("run.stats.json" not in os.listdir(d), "a result that is vouched for", os.listdir(d))
            resumed += "run.checkpoint" in os.listdir(d)
            continue
        cli.check_equal((p.returncode, err), (0, ""), "part", parts, args)
        break
    left = sorted(x for x in os.listdir(d) if x != "x.npy")
    cli.check_equal(left, OUTPUTS, "left behind")
    for name in OUTPUTS[:2]:
        cli.check(read(d, name) == read(whole, name), name, "differs after", parts, "parts", args, "seed", SEED)
    cli.check_equal(facts(d), facts(whole), "stats.json after", parts, "parts", args, "seed", SEED)
    print(" ".join(args), "-", parts, "parts,", resumed, "with a state, resumed",
          stats(d)["checkpoint"]["resumes"], "times")
    shutil.rmtree(d)
    shutil.rmtree(whole)
    return resumed


def rewrite(path, offset, data):
    """Changes bytes, and leaves size and modification time as they were."""
    s = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)
    os.utime(path, ns=(s.st_atime_ns, s.st_mtime_ns))


def check_changed_data():
    """Rows that change between two passes, or while a run is stopped, are named; the state stays."""
    d = cli.new_directory()
    shutil.copy(os.path.join(DATA, "x.npy"), d)
    path, row = os.path.join(d, "x.npy"), ROWS - 10
    at = 128 + row * DIMS * 4
    original = read(path)[at:at + 4]
    long = ["-t", "0", "-n", "1000000", "-m", STREAM]

    p = start(d, [*long, "--checkpoint", "1ms"])
    states = set()                 # the first one is from before the first pass
    while len(states) < 3 and p.poll() is None:
        if "run.checkpoint" in os.listdir(d):
            states.add(os.stat(os.path.join(d, "run.checkpoint")).st_mtime_ns)
        time.sleep(0.002)
    cli.check(p.poll() is None, "the run ended too early")
    rewrite(path, at, b"\0\0\0\x40")
    _, err = p.communicate(timeout=60)
    cli.check_equal(p.returncode, 3, err)
    cli.check("x.npy: row " in err and " rows after it changed since they were first read (CRC32C " in err, err)
    named = re.search(r"x.npy: row (\d+) and the (\d+) rows", err)
    cli.check(named and int(named[1]) <= row <= int(named[1]) + int(named[2]), "names other rows than", row, err)
    cli.check("run.checkpoint" in os.listdir(d), "the state is gone")

    # Resumed with the changed data, streaming or not: the checkpoint knows better.
    for memory in (["-m", STREAM], []):
        before = read(d, "run.checkpoint")
        p = start(d, [*long[:4], *memory])
        _, err = p.communicate(timeout=60)
        cli.check_equal(p.returncode, 3, memory, err)
        cli.check("changed since the checkpoint was written" in err and "--fresh" in err, memory, err)
        cli.check_equal(read(d, "run.checkpoint"), before, "the state was advanced")
    rewrite(path, at, original)
    p = start(d, [*long, "--time-limit", "200ms"])
    _, err = p.communicate(timeout=60)
    cli.check_equal(p.returncode, 75, "as it was before", err)


FIT = ["-t", "0", "-n", "15"]


def stopped(d, *more, path="x.npy", args=FIT, quiet=("-q",), **popen):
    """A run that is stopped as soon as it has a state."""
    p = subprocess.Popen([cli.FKM, "fit", *quiet, "-k", str(K), "-o", "run", *args, "--checkpoint", "1ms", "-j", "1",
                          *more, path], cwd=d, env=cli.clean_environment(), stderr=subprocess.PIPE, text=True, **popen)
    wait_for_state(d, p)
    p.terminate()
    _, err = p.communicate(timeout=60)
    cli.check_equal(p.returncode, 143, err)
    return err


def fit(d, *more, path="x.npy", args=FIT):
    return cli.fkm("fit", "-q", "-k", K, "-o", "run", *args, *more, path, cwd=d)


def outputs(d):
    return [read(d, name) for name in OUTPUTS[:2]]


def changed_copy(d, name):
    """Another modification time, the same size, and one value that differs."""
    shutil.copyfile(os.path.join(DATA, "x.npy"), os.path.join(d, name))
    with open(os.path.join(d, name), "r+b") as f:
        f.seek(-40, os.SEEK_END)
        f.write(b"\0\0\0\x40")


def check_copied_data():
    """The same rows in another file, with another time: proved by checksums. Others are refused, or thrown away."""
    d, whole = cli.new_directory(), cli.new_directory()
    os.symlink(os.path.join(DATA, "x.npy"), os.path.join(whole, "x.npy"))
    cli.check_equal(fit(whole).returncode, 0)
    for n, memory in enumerate(([], ["-m", STREAM])):
        for name in ("first.npy", "second.npy"):
            shutil.copyfile(os.path.join(DATA, "x.npy"), os.path.join(d, name))
            os.utime(os.path.join(d, name), (n + len(name), n + len(name)))
        stopped(d, path="first.npy")
        state = read(d, "run.checkpoint")
        changed_copy(d, "other.npy")
        run = fit(d, *memory, path="other.npy")
        cli.check_equal(run.returncode, 3, run.stderr)
        cli.check("other.npy: row " in run.stderr and "changed since the checkpoint was written" in run.stderr
                  and "the data that it began with" in run.stderr, run.stderr)
        cli.check_equal(read(d, "run.checkpoint"), state, "the state was advanced")
        run = fit(d, *memory, path="second.npy")
        cli.check_equal((run.returncode, run.stderr), (0, ""), "a copy", memory)
        cli.check(outputs(d) == outputs(whole), "other bits from a copy", memory)
        cli.check(stats(d)["checkpoint"]["resumes"] == 1, "not resumed")
        for name in OUTPUTS:
            os.unlink(os.path.join(d, name))
    check_discarded(d)
    check_kept_result(d, whole)
    shutil.rmtree(whole)


def check_discarded(d):
    for case in ("rows", "options"):
        stopped(d, path="first.npy", args=FIT if case == "rows" else ["-t", "0", "-n", "26"])
        path = "other.npy" if case == "rows" else "first.npy"
        run = fit(d, "--outdated", "discard", path=path)
        cli.check_equal((run.returncode, run.stderr), (0, ""), case)
        warnings = stats(d)["warnings"]
        cli.check(len(warnings) == 1 and warnings[0].endswith("; it was removed, the run begins anew"), warnings)
        found = outputs(d)
        cli.check_equal(fit(d, "-f", "--fresh", path=path).returncode, 0)
        cli.check(found == outputs(d), "a run that began anew has other bits", case)
        for name in OUTPUTS:
            os.unlink(os.path.join(d, name))


def check_kept_result(d, whole):
    """A result that could not be written is of the rows that it was made of."""
    limit = 300000      # labels do not fit, the state does
    args = [cli.FKM, "fit", "-q", "-k", str(K), "-o", "run", *FIT, "first.npy"]
    run = subprocess.run(args, cwd=d, env=cli.clean_environment(), capture_output=True, text=True,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    cli.check_equal(run.returncode, 4, run.stderr)
    cli.check("the same command goes on from run.checkpoint" in run.stderr, run.stderr)
    run = fit(d, path="other.npy")
    cli.check_equal(run.returncode, 3, run.stderr)
    run = fit(d, path="second.npy")
    cli.check_equal(run.returncode, 0, run.stderr)
    cli.check(outputs(d) == outputs(whole), "the result that was kept has other bits")


def check_pipe():
    """What came through a pipe can come again; the message says so."""
    d = cli.new_directory()
    os.symlink(os.path.join(DATA, "x.npy"), os.path.join(d, "x.npy"))
    cli.check_equal(fit(d, "-f").returncode, 0)
    whole = outputs(d)
    for name in OUTPUTS:
        os.unlink(os.path.join(d, name))
    with open(os.path.join(d, "x.npy"), "rb") as f, subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE) as cat:
        err = stopped(d, path="/dev/stdin", quiet=(), stdin=cat.stdout)
    cli.check("the same command goes on from there, given the same rows through the pipe again;" in err, err)
    changed_copy(d, "other.npy")
    for name, code in (("other.npy", 3), ("x.npy", 0)):
        run = subprocess.run(f"cat {name} | fkm fit -q -k {K} -o run {' '.join(FIT)} /dev/stdin", shell=True, cwd=d,
                             env=cli.clean_environment(), capture_output=True, text=True)
        cli.check_equal(run.returncode, code, run.stderr)
    cli.check(outputs(d) == whole, "other bits through a pipe")


def check_no_room():
    """A checkpoint that cannot be written is a warning; the run goes on. One that is there is kept."""
    small = os.path.join(cli.TMP, "small")
    os.mkdir(small)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], capture_output=True)
    if mount.returncode != 0:
        print("not checked: no right to mount a small file system")
        return
    try:
        d = cli.new_directory()
        os.symlink(os.path.join(DATA, "x.npy"), os.path.join(d, "x.npy"))
        os.symlink(os.path.join(small, "state"), os.path.join(d, "run.checkpoint"))
        p = start(d, ["-t", "0", "-n", "1000000", "--checkpoint", "1ms"], 10 * K)
        while not os.path.exists(os.path.join(small, "state")):
            time.sleep(0.01)
        with open(os.path.join(small, "filler"), "wb") as f:
            f.write(b"x" * (2900000 - os.path.getsize(os.path.join(small, "state"))))
        time.sleep(0.3)
        p.send_signal(signal.SIGTERM)
        _, err = p.communicate(timeout=60)
        cli.check_equal(p.returncode, 143, err)
        cli.check_equal(err, "", "-q says nothing of a stop")
        cli.check_equal(sorted(os.listdir(small)), ["filler", "state"], "left behind")
        os.unlink(os.path.join(small, "filler"))
        p = start(d, ["-t", "0", "-n", "1000000", "--time-limit", "400ms"], 10 * K)
        _, err = p.communicate(timeout=60)
        cli.check_equal(p.returncode, 75, "resumed from what was kept", err)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def main():
    global DATA
    print("seed", SEED)
    rng = random.Random(SEED)
    DATA = cli.new_directory()
    cli.save(DATA, "x.npy", cli.npy(cli.noise(ROWS, DIMS)))
    caught = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    cases = [(["-t", "0", "-n", "30"], [signal.SIGKILL]),
             (["-t", "0", "-n", "30", "-m", STREAM], [signal.SIGKILL, *caught]),
             (["-t", "1e-3", "--restarts", "3", "-i", "k-means||", "-n", "8"], [signal.SIGKILL, *caught])]
    for args, signals in cases:
        # A machine that is quicker now than it was for the whole run is done before it is killed; one that
        # is slower is killed before it has a state.
        for share in (1, 0.5, 0.3, 0.2, 0.1):
            resumed = check_killed(rng, args, signals, 3 if cli.SLOW else 8, share)
            if resumed >= 2:
                break
        cli.check(resumed >= 2, "too few parts left a state", args, resumed)
    check_changed_data()
    check_copied_data()
    check_pipe()
    check_no_room()
    cli.finish()


main()
