#!/usr/bin/python3
"""Inputs as people have them: more files than may be open at once, pipes, and formats that are not fkm's own, whose
hints must make them readable."""
import os
import resource
import subprocess

import cli


def open_files(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_many_files():
    d = cli.new_directory()
    rows = cli.blobs(300, 3)
    cli.save(d, "all.npy", cli.npy(rows))
    names = [os.path.basename(cli.save(d, f"{i:03}.npy", cli.npy(rows[2 * i:2 * i + 2]))) for i in range(150)]
    cli.check_equal(cli.fkm("fit", "-q", "-k", 3, "-o", "one", "all.npy", cwd=d).returncode, 0)
    run = cli.fkm("fit", "-q", "-k", 3, "-o", "many", *names, cwd=d, preexec_fn=open_files(40, 1024))
    cli.check_equal((run.returncode, run.stderr), (0, ""), "more files than the soft limit")
    for kind in ("labels", "centroids"):
        one, many = [open(os.path.join(d, f"{run}.{kind}.npy"), "rb").read() for run in ("one", "many")]
        cli.check(one == many, "the same", kind)
    run = cli.fkm("fit", "-q", "-k", 3, "-o", "limited", *names, cwd=d, preexec_fn=open_files(40, 100))
    cli.check_equal(run.returncode, 4, "more files than the hard limit", run.stderr)
    cli.check("cannot open: Too many open files\nhint: 100 files may be open at once, the hard limit" in run.stderr,
              run.stderr)


def run_shell(d, command):
    return subprocess.run(["bash", "-c", command.replace("fkm", cli.FKM)], cwd=d, env=cli.clean_environment(TMPDIR=d),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def check_pipes():
    """One rule for all ways to the same rows: a pipe is copied, which fit says; what has no name needs -o."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(60, 2)))
    run_shell(d, "fkm fit -q -k 3 x.npy; mkfifo p")
    note = ": a pipe, which was copied to a temporary file: fit reads its data many times\n"
    for name, data in (("-", "- < x.npy"), ("/dev/stdin", "/dev/stdin < x.npy"), ("standard input", "- < <(cat x.npy)"),
                       ("/dev/stdin", "/dev/stdin < <(cat x.npy)"), ("/dev/fd/63", "<(cat x.npy)"),
                       ("p", "p & cat x.npy > p; wait $!")):
        run = run_shell(d, f"fkm fit -f -k 3 -o o {data}")
        cli.check_equal((run.returncode, run.stderr), (0, "fkm: " + name + note if "cat" in data else ""), data)
        run = run_shell(d, "cmp x.k3.labels.npy o.labels.npy && cmp x.k3.centroids.npy o.centroids.npy; rm o.*")
        cli.check_equal((run.returncode, run.stderr), (0, ""), "the same bytes from", data)
        run = run_shell(d, f"fkm predict -q -f -c x.k3 -o o.npy {data} && cmp o.npy x.k3.labels.npy")
        cli.check_equal((run.returncode, run.stderr), (0, ""), "predict", data)
    before = sorted(os.listdir(d))
    for data in ("- < x.npy", "/dev/stdin < x.npy", "<(cat x.npy)"):
        for command in ("fkm fit -k 3", "fkm predict -c x.k3")[:1 if data[0] == "-" else 2]:
            run = run_shell(d, f"{command} {data}")
            cli.check_equal(run.returncode, 2, command, data, run.stderr)
            cli.check(" has no name that the outputs could be given\nhint: name them: -o" in run.stderr, run.stderr)
    cli.check_equal(sorted(os.listdir(d)), before, "nothing was written")
    run = run_shell(d, "fkm predict -q -c x.k3 - < <(cat x.npy) && fkm fit -q -k 3 p & cat x.npy > p; wait $!")
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    cli.check({"stdin.labels.npy", "p.k3.labels.npy"} < set(os.listdir(d)), "names that are made up", os.listdir(d))


def main():
    check_many_files()
    check_pipes()
    cli.finish()


main()
