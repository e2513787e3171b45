#!/usr/bin/python3
"""--gpu-memory from next to nothing to ample: fkm does with it, with the same bits, and never holds more, as the
layer counts it; or it ends with status 5, before the first iteration, and says what would help."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: it counts")

STEPS = 12 if cli.SLOW else 24


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def one(command, outputs, budget, devices, expected):
    """Status; and the most bytes of one GPU, by the layer, when it succeeded."""
    d = cli.new_directory()
    report = os.path.join(d, "report")
    run = cli.fkm(*command, "-q", "-d", "cuda", *(["--gpu-memory", f"{budget}B"] if budget else []), cwd=d,
                  env={"CUO_REPORT": report, "CUO_DEVICES": str(devices)})
    what = (command[0], "--gpu-memory", budget, devices, run.stderr)
    counts = json.loads(read(report))
    cli.check(budget is None or counts["peak_bytes"] <= budget * devices, "held", counts["peak_bytes"], *what)
    cli.check_equal((counts["device_blocks"], counts["host_blocks"]), (0, 0), "blocks left", *what)
    if run.returncode == 0:
        cli.check_equal(run.stderr, "", *what)
        for name in outputs if expected else []:
            cli.check(read(d, name) == read(expected, name), name, "differs", *what)
        if "run.stats.json" in os.listdir(d):
            held = json.loads(read(d, "run.stats.json"))["peak"]["gpu_bytes"]
            # Opening is tried with ever smaller pieces of rows: what was held for that is not counted.
            cli.check(0 < held <= counts["peak_bytes"], "stats.json says", held, counts, *what)
            cli.check(budget or devices > 1 or held == counts["peak_bytes"], "stats.json says", held, counts, *what)
    else:
        cli.check_equal(run.returncode, 5, *what)
        lines = run.stderr.splitlines()
        cli.check(len(lines) == 2 and lines[0].startswith("fkm: cuda:") and "no room for" in lines[0], *what)
        cli.check(lines[1].startswith("hint: give more --gpu-memory"), *what)
        cli.check_equal(sorted(os.listdir(d)), ["report"], "left behind", *what)
    return run.returncode, counts["peak_bytes"] // devices, d


def sweep(name, command, outputs, devices=1):
    code, ample, expected = one(command, outputs, None, devices, None)
    cli.check_equal(code, 0, name)
    codes = []
    for i in range(STEPS):
        budget = int(1000 * (1.3 * ample / 1000) ** (i / (STEPS - 1)))
        codes.append(one(command, outputs, budget, devices, expected)[0])
    print(f"{name}: {ample} bytes when there is enough; {codes.count(0)} did, {codes.count(5)} said no")
    cli.check(codes == sorted(codes, reverse=True), name, "more memory and yet too little", codes)
    cli.check(codes[0] == 5 and codes[-1] == 0, name, codes)


def main():
    data = cli.save(cli.TMP, "noise.npy", cli.npy(cli.noise(3000, 16)))
    fit = ["fit", "-k", 5, "-n", 3, "-t", 0, "-o", "run", data]
    outputs = ["run.centroids.npy", "run.labels.npy"]
    sweep("fit", fit, outputs)
    sweep("fit, two GPUs", fit, outputs, 2)
    sweep("fit, k-means++", [*fit, "-i", "k-means++"], outputs)
    sweep("fit, k-means||", [*fit, "-i", "k-means||"], outputs)
    cli.check_equal(cli.fkm(*fit, "-q", "-d", "cpu", cwd=cli.TMP).returncode, 0)
    sweep("predict", ["predict", "-c", os.path.join(cli.TMP, "run"), "--top", 3, "-o", "labels.npy", data],
          ["labels.npy"])
    cli.finish()


main()
