#!/usr/bin/python3
"""scripts/bench-peers without its peers: it makes data, runs fkm, judges, and sees wrong labels."""
import json
import os
import subprocess
import sys

import cli

# Runs fkm, then gives the first row of a fit another label, when there is a file named "spoil".
WRAPPER = """#!/bin/sh
"{fkm}" "$@" || exit
[ -e "{spoil}" ] && [ "$1" = fit ] || exit 0
for last; do [ "$before" = -o ] && prefix=$last; before=$last; done
exec "{python}" -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(128); b = f.read(1)[0]; f.seek(128)
f.write(bytes([b ^ {flip}]))' "$prefix.labels.npy"
"""


def make_wrapper(d, flip):
    path = os.path.join(d, "fkm")
    with open(path, "w") as f:
        f.write(WRAPPER.format(fkm=cli.FKM, spoil=os.path.join(d, "spoil"), python=sys.executable, flip=flip))
    os.chmod(path, 0o755)


def bench_peers(d, *args):
    return subprocess.run([sys.executable, os.path.join(cli.SRC, "scripts", "bench-peers"), "--no-install", "--venv",
                           sys.prefix, "--work", os.path.join(d, "work"), "--fkm", os.path.join(d, "fkm"),
                           "--threads", "1", "--runs", "1", "--iterations", "2", "--quick", "--peers", "superkmeans",
                           *args], cwd=d, env=cli.clean_environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)


def main():
    try:
        import numpy
    except ImportError:
        cli.skip("needs python3-numpy")
    d = cli.new_directory()
    make_wrapper(d, flip=1)
    run = bench_peers(d, "--cases", "small-256,glove-1000", "--data", d, "--json", "figures.json", "--isa", "scalar")
    cli.check_equal((run.returncode, run.stderr), (0, ""), run.stdout)
    cli.check("glove-1000: skipped, there is no " in run.stdout, "a missing file is said", run.stdout)
    with open(os.path.join(d, "figures.json")) as f:
        cases = json.load(f)["cases"]
    cli.check_equal([c["case"] for c in cases], ["small-256"])
    tools = cases[0]["tools"]
    cli.check_equal({(t, r["wrong"], r["iterations"]) for t, r in tools.items() if t.startswith("fkm")},
                    {("fkm", 0, 2), ("fkm scalar", 0, 2)})
    cli.check_equal(tools["fkm"]["inertia"], tools["fkm scalar"]["inertia"], "all paths give the same bits")
    x = numpy.load(os.path.join(d, "work", "small-quick.npy"))
    cli.check_equal((x.shape, str(x.dtype)), ((20000, 32), "float32"))
    left = sorted(os.listdir(os.path.join(d, "work")))
    cli.check_equal(left, ["small-quick-k16.init.npy", "small-quick.npy"], "outputs of runs are removed")

    open(os.path.join(d, "spoil"), "w").close()
    for flip in (1, 128):  # another cluster; none at all
        make_wrapper(d, flip)
        run = bench_peers(d, "--cases", "small-256")
        cli.check_equal(run.returncode, 1, "a wrong label is an error", run.stdout)
        cli.check("small-256: fkm has 1 wrong label" in run.stderr, run.stderr)
    run = bench_peers(d, "--cases", "nothing")
    cli.check_equal(run.returncode, 2, "an unknown case")
    cli.finish()


main()
