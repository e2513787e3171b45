#!/usr/bin/python3
"""Runs that are repeated: from their own earlier centroids, from those that are not there yet, and under other names."""
import json
import os
import shutil

import cli

NAMES = ["run.labels.npy", "run.centroids.npy", "run.stats.json"]


def inputs():
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(300, 3)))
    cli.save(d, "y.npy", cli.npy(cli.noise(300, 3, seed=2)))
    return d


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def fit(d, *args):
    return cli.fkm("fit", "-q", "-k", 5, "-o", "run", *args, cwd=d)


def check_own_centroids(option):
    """-i X -o X: what is replaced is read before; without -f it is refused as ever."""
    d = inputs()
    if option == "-i":
        cli.check_equal(fit(d, "-n", 2, "x.npy").returncode, 0)
    else:
        cli.check_equal(fit(d, "--warm", "run", "-n", 2, "-i", "k-means++", "x.npy").returncode, 0, "the first night")
        cli.check_equal(json.loads(read(d, "run.stats.json"))["params"]["init"], "k-means++")
    shutil.copy(os.path.join(d, "run.centroids.npy"), os.path.join(d, "start.npy"))
    run = fit(d, option, "run", "y.npy")
    cli.check_equal((run.returncode, run.stderr.splitlines()[0]), (4, "fkm: output run.labels.npy exists"))
    run = fit(d, option, "run", "-f", "y.npy")
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    cli.check_equal(json.loads(read(d, "run.stats.json"))["params"]["init"], "run.centroids.npy")
    found = [read(d, n) for n in NAMES[:2]]
    cli.check_equal(fit(d, "-i", "start.npy", "-f", "y.npy").returncode, 0)
    cli.check_equal([read(d, n) for n in NAMES[:2]], found, "another start than the earlier centroids")


def check_half_exchanged():
    """The run before was killed while it replaced the one that this one is to start from."""
    d, gone = inputs(), f"{cli.dead_pid()}-{cli.system_id()}"
    cli.check_equal(fit(d, "-n", 2, "x.npy").returncode, 0)
    for name in NAMES:
        os.link(os.path.join(d, name), os.path.join(d, f".{name}.old.{gone}"))
    os.unlink(os.path.join(d, "run.stats.json"))
    os.unlink(os.path.join(d, "run.labels.npy"))
    content = {"run.labels.npy": b"new labels"}
    cli.save(d, "run.labels.npy", content["run.labels.npy"])
    cli.save(d, f".run.stats.json.set.{gone}", cli.exchange_record(d, NAMES, existed=NAMES, content=content))
    run = fit(d, "--warm", "run", "-f", "y.npy")
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    cli.check_equal(json.loads(read(d, "run.stats.json"))["params"]["init"], "run.centroids.npy")


def check_renamed():
    """All files of a run together: beside what they were, elsewhere, under names with dots."""
    d = inputs()
    for kind in ("npy", "fvecs", "h5"):
        if fit(d, "-f", "--format", kind, "x.npy").returncode != 0 and kind == "h5":
            continue     # a build without it
        names = [o["path"] for o in json.loads(read(d, "run.stats.json"))["outputs"]] + ["run.stats.json"]
        for prefix in ("v2.labels.x", "other/run.k5", "run.centroids.b"):
            os.makedirs(os.path.join(d, "other"), exist_ok=True)
            for name in names:
                shutil.copy(os.path.join(d, name), os.path.join(d, prefix + name[len("run"):]))
            run = cli.fkm("info", prefix, cwd=d)
            cli.check_equal(run.returncode, 0, kind, prefix, run.stdout, run.stderr)
            cli.check(run.stdout.count(prefix) == len(names), kind, prefix, run.stdout)
            run = cli.fkm("predict", "-q", "-f", "-c", prefix, "-o", "l.npy", "x.npy", cwd=d)
            cli.check_equal(run.returncode, 0, kind, prefix, run.stderr)
    os.unlink(os.path.join(d, "other/run.k5.stats.json"))
    cli.check_equal(cli.fkm("info", "other/run.k5", cwd=d).returncode, 4)


def main():
    check_own_centroids("-i")
    check_own_centroids("--warm")
    check_half_exchanged()
    check_renamed()
    d = inputs()
    run = fit(d, "--warm", "run", "--restarts", 2, "x.npy")
    cli.check_equal((run.returncode, run.stderr.splitlines()[0]),
                    (2, "fkm: --restarts 2 with --warm run: all starts would be the same"))
    cli.finish()


main()
