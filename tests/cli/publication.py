#!/usr/bin/python3
"""The outputs of a run, killed or failed at every step of their publication.

strace makes the N-th call of a kind kill fkm, or fail, for N = 1, 2, ... until the run gets through.
After each: either the earlier run or the new one is there and vouched for, or nothing is vouched for;
and the next run clears up. Needs strace and the right to trace."""
import os
import shutil
import subprocess
import sys

import cli

KINDS = ["rename", "link", "unlink", "fsync", "write", "close"]
CALLS = {"rename": "rename,renameat,renameat2", "link": "link,linkat", "unlink": "unlink,unlinkat",
         "fsync": "fsync,fdatasync", "write": "write,pwrite64", "close": "close"}
PATIENCE = 120
complete = [0]     # runs that were killed after their commit


def traced(inject, args, cwd):
    env = cli.clean_environment()
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"   # leaks cannot be sought under ptrace
    command = ["strace", "-f", "-qq", "-o", os.devnull] + inject + [cli.FKM] + args
    return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def can_trace():
    return shutil.which("strace") and traced(["-e", "trace=none"], ["--version"], cli.TMP).returncode == 0


def supported(names):
    """Those of the system calls that this machine has (arm64 has no rename)."""
    return ",".join(n for n in names.split(",") if subprocess.run(
        ["strace", "-qq", "-o", os.devnull, "-e", "trace=" + n, "true"], capture_output=True).returncode == 0)


def listing(d):
    return sorted(os.listdir(d))


def content(d, names):
    out = {}
    for name in names:
        path = os.path.join(d, name)
        if os.path.exists(path):
            with open(path, "rb") as f:
                out[name] = f.read()
    return out


class Scenario:
    """A command whose outputs may exist already."""

    def __init__(self, name, args, outputs, marker):
        self.name, self.args, self.outputs, self.marker = name, args, outputs, marker

    def directory(self, earlier):
        d = cli.new_directory()
        cli.save(d, "x.npy", cli.npy(cli.blobs(40, 2, centers=5)))
        cli.save(d, "c.npy", cli.npy(cli.blobs(4, 2, centers=4)))
        cli.save(d, "other.npy", cli.npy(cli.blobs(4, 2, centers=2, seed=9)))
        if earlier:
            run = cli.fkm(*self.args("earlier"), cwd=d)
            cli.check_equal(run.returncode, 0, self.name, run.stderr)
        return d

    def consistent(self, d, old, what):
        """If the marker is there, all files are of one run."""
        now = content(d, self.outputs)
        if self.marker not in now:
            return
        if self.marker.endswith("stats.json"):
            cli.check_equal(cli.fkm("info", "-q", "run", cwd=d).returncode, 0, *what, "vouches for other files")
        elif old and now[self.marker] == old[self.marker]:
            cli.check_equal(now, old, *what, "mixed files")

    def recovers(self, d, what, earlier):
        """The next run clears up, without force unless there is something to replace."""
        force = ["-f"] if earlier or self.marker in listing(d) else []
        run = cli.fkm(*self.args("new"), *force, cwd=d)
        cli.check_equal(run.returncode, 0, *what, "next run:", run.stderr)
        cli.check_equal(listing(d), sorted(self.outputs + ["c.npy", "other.npy", "x.npy"]), *what, "left behind")
        if self.marker.endswith("stats.json"):
            cli.check_equal(cli.fkm("info", "-q", "run", cwd=d).returncode, 0, *what)


def check_complete(s, d, old, what):
    """Killed after its commit: the same command, even without -f, finds its own outputs, and rewrites nothing."""
    now = content(d, s.outputs)
    if s.name != "fit" or s.marker not in now or now[s.marker] == old.get(s.marker):
        return 0
    before = {name: os.stat(os.path.join(d, name)).st_ino for name in s.outputs}
    args = [a for a in s.args("new") if a != "-q"]
    there = sorted(s.outputs + ["c.npy", "other.npy", "x.npy"])
    copy = d + ".copy"
    shutil.copytree(d, copy)
    run = cli.fkm(*args, "--json", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, "fkm: run.stats.json is already complete: the run that wrote it "
                                                   "was killed before it ended\n"), *what)
    cli.check_equal(run.stdout.encode(), now[s.marker], *what, "--json is not stats.json")
    cli.check_equal({name: os.stat(os.path.join(d, name)).st_ino for name in s.outputs}, before, *what, "rewritten")
    cli.check_equal(listing(d), there, *what, "left behind")
    run = cli.fkm(*args, cwd=d)
    cli.check_equal(run.returncode, 4, *what, "a run that ended well is not done once more")
    for other in ([*args, "-s", "7"], [*args, "--no-labels"], [*args, "--fresh"]):
        shutil.rmtree(d)
        shutil.copytree(copy, d)
        run = cli.fkm(*other, cwd=d)
        cli.check_equal(run.returncode, 4, *what, "not the same command", other)
        cli.check_equal(listing(d), there, *what, "left behind")
    shutil.rmtree(d)
    os.rename(copy, d)
    return 1


def fit_args(which):
    return ["fit", "-q", "-k", "4", "-s", "1" if which == "earlier" else "2", "-n", "1", "-o", "run", "x.npy"]


def predict_args(which):
    return ["predict", "-q", "-c", "other.npy" if which == "earlier" else "c.npy", "-o", "labels.npy",
            "--distances", "dist.npy", "x.npy"]


SCENARIOS = [
    Scenario("fit", fit_args, ["run.labels.npy", "run.centroids.npy", "run.stats.json"], "run.stats.json"),
    Scenario("predict", predict_args, ["dist.npy", "labels.npy"], "labels.npy"),
]


def sweep_kills(s, kind, calls, earlier):
    step = 1 if kind in ("rename", "link", "unlink") else 3
    for n in range(1, PATIENCE, step):
        d = s.directory(earlier)
        old = content(d, s.outputs)
        run = traced(["-e", f"inject={calls}:signal=SIGKILL:when={n}"], s.args("new") + ["-f"], d)
        what = (s.name, "killed at", kind, n, "over an earlier run" if earlier else "")
        s.consistent(d, old, what)
        if run.returncode != 0 and step == 1:
            complete[0] += check_complete(s, d, old, what)
        s.recovers(d, what, earlier)
        shutil.rmtree(d)
        if run.returncode == 0:
            return n > 1
    return False


def sweep_errors(s, kind, calls, earlier):
    failures = 0
    for n in range(1, PATIENCE):
        d = s.directory(earlier)
        old, before = content(d, s.outputs), listing(d)
        run = traced(["-e", f"inject={calls}:error=EIO:when={n}"], s.args("new") + ["-f"], d)
        what = (s.name, "error at", kind, n, "over an earlier run" if earlier else "")
        # Threads and libraries write and close too; what is not about outputs may be tolerated.
        cli.check(run.returncode in (0, 4), *what, "exit", run.returncode, run.stderr)
        s.consistent(d, old, what)
        if run.returncode == 4:
            failures += 1
            cli.check("Input/output error" in run.stderr, *what, run.stderr)
            cli.check_equal(content(d, s.outputs), old, *what, "outputs are not the earlier ones")
            cli.check_equal("run.checkpoint" in listing(d), s.name == "fit", *what, "is the result kept?")
            before.append("run.checkpoint")
            left = [x for x in listing(d) if x not in before and not (kind == "unlink" and x.startswith("."))]
            cli.check_equal(left, [], *what, "left behind")
        s.recovers(d, what, earlier)
        reached = run.returncode == 4 or kind == "unlink"
        shutil.rmtree(d)
        if not reached or (kind == "unlink" and n > 8):
            return failures
    return failures


def main():
    if not can_trace():
        cli.skip("needs strace and the right to trace")
    kills = failures = 0
    for kind in KINDS:
        calls = supported(CALLS[kind])
        for s in SCENARIOS:
            for earlier in (False, True):
                if kind == "link" and not earlier or cli.SLOW and kind in ("write", "close"):
                    continue
                kills += sweep_kills(s, kind, calls, earlier)
                if kind in ("rename", "link", "fsync"):
                    failures += sweep_errors(s, kind, calls, earlier)
    print(kills, "sweeps of kills,", failures, "failures survived")
    cli.check(complete[0] >= 3, "too few were killed after their commit", complete[0])
    cli.check(kills >= 10, "too few calls were hit", kills)
    cli.check(failures >= 12, "too few failures were seen", failures)
    cli.finish()


if __name__ == "__main__":
    sys.exit(main())
