#!/usr/bin/python3
"""What the JSON of every command says of GPUs: which are in use, and how much of their memory was."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests", "cli"))
import cli

EMULATED = "EMULATED" in os.environ


def validator():
    try:
        import jsonschema
    except ImportError:
        cli.skip("needs python3-jsonschema")
    with open(os.path.join(cli.SRC, "tests", "stats.schema.json")) as f:
        return jsonschema.Draft7Validator(json.load(f))


VALIDATOR = validator()


def ask(directory, *args, gpus=1, **more):
    env = {"CUO_DEVICES": str(gpus), "CUO_CC": "9.0,8.6", "CUO_MEMORY": "64000000"} if EMULATED else {}
    run = cli.fkm(*args, "--json", "--progress", "never", cwd=directory, env=env, **more)
    cli.check_equal(run.returncode, 0, args, run.stderr)
    document = json.loads(run.stdout)
    cli.check(VALIDATOR.is_valid(document), "schema", args, [e.message for e in VALIDATOR.iter_errors(document)])
    return document


def check_gpu(gpu, device):
    cli.check_equal((gpu["device"], bool(gpu["name"])), (device, True), gpu)
    if EMULATED:
        cli.check_equal((gpu["name"], gpu["compute_capability"], gpu["memory_bytes"]),
                        ("Emulated GPU", ("9.0", "8.6")[device], 64000000), gpu)


def check_commands(d):
    fit = ["fit", "-q", "-f", "-k", 5, "-n", 3, "-o", "x", "x.npy"]
    for args in (fit, [*fit, "--dry-run"], ["predict", "-q", "-f", "-c", "x", "-o", "l.npy", "x.npy"],
                 ["bench", "--quick", "--grid", "300x5x7"]):
        one = ask(d, *args, "-d", "cuda:0")
        check_gpu(one["machine"]["gpus"][0], 0)
        cli.check_equal(len(one["machine"]["gpus"]), 1, args)
        cli.check_equal(ask(d, *args, "-d", "cpu")["machine"]["gpus"], [], args)
        if EMULATED:
            two = ask(d, *args, "-d", "cuda:1,0", gpus=2)["machine"]["gpus"]
            check_gpu(two[0], 1)
            check_gpu(two[1], 0)


def check_peak(d, rows):
    """Of one GPU, at least the rows when they stay, and never more than was allowed."""
    fit = ["fit", "-q", "-f", "-k", 5, "-n", 3, "-o", "x", "x.npy"]
    free = ask(d, *fit, "-d", "cuda:0")["peak"]["gpu_bytes"]
    cli.check(free > rows, "the rows alone have", rows, "bytes", free)
    tight = ask(d, *fit, "-d", "cuda:0", "--gpu-memory", "600K")["peak"]["gpu_bytes"]
    cli.check(300000 < tight <= 600 * 1024 < free, "--gpu-memory", tight, free)
    cli.check_equal(ask(d, *fit, "-d", "cpu")["peak"]["gpu_bytes"], None)
    if EMULATED:
        two = ask(d, *fit, "-d", "cuda:0,1", gpus=2)["peak"]["gpu_bytes"]
        cli.check(two < 0.8 * free, "half of the rows each", two, free)
    predict = ask(d, "predict", "-q", "-f", "-c", "x", "-o", "l.npy", "x.npy", "-d", "cuda:0")
    cli.check(0 < predict["peak"]["gpu_bytes"] < free, "no rows are kept", predict["peak"])
    said = cli.fkm(*[a for a in fit if a != "-q"], "-d", "cuda:0", cwd=d).stdout
    cli.check(", of a GPU " in said, "the summary", said)


def check_graphs(d):
    """A run that is like itself pass after pass is launched as graphs; one whose rows travel is not."""
    fit = ["fit", "-q", "-f", "-k", 5, "-n", 12, "-t", 0, "-i", "random", "--rows", "0:1500", "-o", "x", "x.npy"]
    kept = ask(d, *fit, "-d", "cuda:0")
    passes = kept["result"]["iterations"] + (kept["status"] == "max_iter")
    cli.check_equal(kept["gpu"]["passes"], passes, kept["gpu"])
    cli.check(passes < 9 or 0 < kept["gpu"]["graph_launches"] < passes, kept["gpu"])
    travels = ask(d, *fit, "-d", "cuda:0", "--gpu-memory", "250K")
    cli.check_equal(travels["gpu"], {"passes": passes, "graph_launches": 0})
    cli.check_equal(ask(d, *fit, "-d", "cpu")["gpu"], None)


def main():
    d = cli.new_directory()
    rows, dims = 6000, 40
    cli.save(d, "x.npy", cli.npy(cli.noise(rows, dims)))
    if cli.fkm("fit", "-k", 2, "-q", "-d", "cuda", "-o", "probe", "x.npy", cwd=d).returncode == 6:
        cli.skip("there is no GPU")
    check_commands(d)
    check_peak(d, rows * dims * 4)
    check_graphs(d)
    cli.finish()


main()
