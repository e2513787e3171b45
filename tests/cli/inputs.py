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


def main():
    check_many_files()
    cli.finish()


main()
