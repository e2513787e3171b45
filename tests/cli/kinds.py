#!/usr/bin/python3
"""scripts/bench-kinds: random problems by several paths; it sees when their bits differ."""
import os
import subprocess
import sys

import cli

# Has a path "wrong": scalar, but for the label of a row.
WRAPPER = """#!{python}
import subprocess, sys
wrong = "wrong" in sys.argv
args = ["scalar" if a == "wrong" else a for a in sys.argv[1:]]
status = subprocess.run(["{fkm}", *args]).returncode
if wrong:
    with open(args[args.index("-o") + 1] + ".labels.npy", "r+b") as f:
        f.seek(128)
        label = f.read(1)[0]
        f.seek(128)
        f.write(bytes([label ^ 1]))
sys.exit(status)
"""


def bench_kinds(d, *args):
    environment = dict(cli.clean_environment(), TMPDIR=d)
    return subprocess.run([sys.executable, os.path.join(cli.SRC, "scripts", "bench-kinds"), "--fkm",
                           os.path.join(d, "fkm"), "--threads", "1", "--rows", "60", *args], cwd=d, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def main():
    try:
        import numpy
    except ImportError:
        cli.skip("needs python3-numpy")
    d = cli.new_directory()
    path = os.path.join(d, "fkm")
    with open(path, "w") as f:
        f.write(WRAPPER.format(python=sys.executable, fkm=cli.FKM))
    os.chmod(path, 0o755)

    run = bench_kinds(d, "--isa", "nothing,scalar", "--problems", "8")
    cli.check_equal((run.returncode, run.stderr), (0, ""), run.stdout)
    lines = run.stdout.splitlines()
    cli.check(lines[0].startswith("without nothing: fkm: --isa: expected"), lines[0])
    cli.check_equal([line.split()[0] for line in lines if " iterations: scalar " in line], [str(i) for i in range(8)])
    cli.check_equal(lines[-1], "8 problems by scalar: 0 with different bits")
    again = bench_kinds(d, "--isa", "scalar", "--problems", "1", "--skip", "5").stdout.splitlines()[0]
    cli.check_equal(again.split(":")[0], lines[6].split(":")[0], "the same problem by its number")
    cli.check_equal(os.listdir(d), ["fkm"], "nothing is left")

    run = bench_kinds(d, "--isa", "scalar,wrong", "--problems", "1", "--kinds", "blobs")
    cli.check_equal(run.returncode, 1, "different bits are an error", run.stdout)
    kept = os.path.join(d, "fkm-different-1-0.npy")
    cli.check(f"BITS DIFFER, on {kept}" in run.stdout, run.stdout)
    cli.check(len(numpy.load(kept)) <= 60, "the rows are kept")
    cli.check_equal(sorted(os.listdir(d)), ["fkm", "fkm-different-1-0.npy"])

    run = bench_kinds(d, "--isa", "nothing")
    cli.check_equal(run.returncode, 2, "no path to run is an error, not success", run.stdout)
    run = bench_kinds(d, "--kinds", "blobs,nothing")
    cli.check_equal(run.returncode, 2, "an unknown kind")
    cli.finish()


main()
