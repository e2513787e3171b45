#!/usr/bin/python3
"""Rows that are streamed from a file: the first chunks of the next pass are copied while the sums of this one are
finished, before the centroids have moved; after the last pass nothing is."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: it tells what runs on which stream")

ROWS, DIMS, ITERATIONS = 4000, 64, 4


def operations(stderr):
    """(stream, name), in the order in which they ran."""
    return re.findall(r"^cuo: device 0 stream (\d+): (.*)$", stderr, re.M)


def copied_ahead(ran):
    """Copies of rows after the sums of each pass; how many passes have moved the centroids."""
    streams = {stream for stream, name in ran if "sum_segments" in name}
    cli.check_equal(len(streams), 1, "kernels are on one stream")
    count, counts, moves = 0, [], 0
    for stream, name in ran:
        if "sum_segments" in name:
            count = 0
        elif stream not in streams and name == "cudaMemcpyAsync":
            count += 1
        elif name == "sum_movements":
            counts.append(count)
            moves += 1
    return counts, count


def main():
    data = cli.save(cli.TMP, "noise.npy", cli.npy(cli.noise(ROWS, DIMS)))
    fit = ["fit", "-q", "-f", "-k", 5, "-n", ITERATIONS, "-t", 0, "-i", "random", data]
    refused = cli.fkm(*fit, "-m", "100K", "--gpu-memory", "600K", "-d", "cuda", "-o", "x", cwd=cli.TMP).stderr
    least = float(re.search(r"needs at least ([0-9.]+) MiB", refused).group(1))
    memory = ["-m", int((least + 0.1) * 2**20), "--gpu-memory", "600K"]
    run = cli.fkm(*fit, *memory, "-d", "cuda", "-o", "gpu", cwd=cli.TMP, env={"CUO_STREAMS": "eager", "CUO_TRACE": "1"})
    cli.check_equal(run.returncode, 0, run.stderr[-500:])
    counts, after_last = copied_ahead(operations(run.stderr))
    print("copied ahead of the next pass:", counts, "after the last:", after_last)
    cli.check_equal(len(counts), ITERATIONS)
    # A chunk that has not been read by then comes when it is fed; test_cuda_backend has both buffers filled.
    cli.check(1 <= max(counts) <= 2, "buffers are filled ahead", counts)
    cli.check_equal(after_last, 0, "after the last pass")
    cli.check_equal(cli.fkm(*fit, "-d", "cpu", "-o", "cpu", cwd=cli.TMP).returncode, 0)
    for name in ("labels", "centroids"):
        with open(os.path.join(cli.TMP, f"gpu.{name}.npy"), "rb") as a, \
             open(os.path.join(cli.TMP, f"cpu.{name}.npy"), "rb") as b:
            cli.check(a.read() == b.read(), name, "differ")
    cli.finish()


main()
