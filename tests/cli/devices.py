#!/usr/bin/python3
"""--device where there is no GPU: what is asked for by name fails, auto takes the CPU and says so."""
import json
import os

import cli

REASONS = ("this fkm was built without CUDA", "no NVIDIA driver is installed", "there is no CUDA device",
           "the NVIDIA driver supports CUDA")


def has_gpu(directory, data):
    return cli.fkm("fit", "-k", 2, "-q", "-d", "cuda", "-o", "probe", data, cwd=directory).returncode == 0


def check_asked_for(d, data):
    commands = (["fit", "-k", 2, "-o", "none", data], ["predict", "-c", "cpu", "-o", "none.npy", data],
                ["bench", "--quick", "--grid", "9x2x3"])
    for command in commands:
        for device, env in (("cuda", {}), ("cuda:0", {}), (None, {"FKM_DEVICE": "cuda"})):
            run = cli.fkm(*command, *(["-d", device] if device else []), cwd=d, env=env)
            what = (command, device, env, run.stderr)
            cli.check_equal((run.returncode, run.stdout), (6, ""), *what)
            lines = run.stderr.splitlines()
            cli.check(len(lines) == 2 and lines[0].startswith("fkm: --device cuda"), *what)
            cli.check(any(reason in lines[0] for reason in REASONS), *what)
            cli.check(lines[-1].startswith("hint: ") and "--device cpu" in lines[-1], *what)
            cli.check(not any(name.startswith("none") for name in os.listdir(d)), "nothing is written", *what)


def check_auto(d, data):
    quiet = cli.fkm("fit", "-k", 2, "-o", "auto", "-q", data, cwd=d)
    cli.check_equal((quiet.returncode, quiet.stderr), (0, ""), "auto needs no GPU and no words")
    for suffix in ("labels.npy", "centroids.npy"):
        with open(os.path.join(d, "auto." + suffix), "rb") as a, open(os.path.join(d, "cpu." + suffix), "rb") as b:
            cli.check_equal(a.read(), b.read(), suffix)
    with open(os.path.join(d, "auto.stats.json")) as f:
        cli.check_equal(json.load(f)["machine"]["backend"], "cpu")
    verbose = cli.fkm("fit", "-k", 2, "-o", "verbose", "-v", data, cwd=d)
    said = [line for line in verbose.stderr.splitlines() if line.startswith("fkm: cuda: ")]
    built = REASONS[0] not in cli.fkm("fit", "-k", 2, "-o", "none", "-d", "cuda", data, cwd=d).stderr
    cli.check_equal(len(said), int(built), "one line under -v", verbose.stderr)
    cli.check(all(any(reason in line for reason in REASONS) for line in said), said)


def main():
    d = cli.new_directory()
    data = cli.save(d, "blobs.npy", cli.npy(cli.blobs(30, 2)))
    made = cli.fkm("fit", "-k", 2, "-o", "cpu", "-d", "cpu", data, cwd=d)
    cli.check_equal(made.returncode, 0, made.stderr)
    if has_gpu(d, data):
        print("there is a GPU: nothing to test")
        raise SystemExit(77)
    check_asked_for(d, data)
    check_auto(d, data)
    cli.finish()


main()
