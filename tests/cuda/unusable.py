#!/usr/bin/python3
"""A GPU that is there but cannot be used: --device auto computes on the CPU and warns; where there is none, it
has nothing to say."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests/cli"))
import cli  # noqa: E402

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: GPUs of any kind")

CASES = [({"CUO_CC": "7.5"}, "device 0 has compute capability 7.5: fkm needs 8.0 or later"),
         ({"CUO_NO_DEVICE": "35", "CUO_DRIVER": "11040"}, "the NVIDIA driver supports CUDA 11.4, this fkm was built"),
         ({"CUO_FAIL": "1+:802"}, "in cudaGetDeviceCount"),
         ({"CUO_NO_DEVICE": "35"}, None), ({"CUO_NO_DEVICE": "34"}, None), ({"CUO_NO_DEVICE": "100"}, None),
         ({}, None)]


def check_case(data, env, reason):
    d = cli.new_directory()
    fit = ["fit", "-k", 2, "-o", "run", data]
    run = cli.fkm(*fit, cwd=d, env=env)
    lines = run.stderr.splitlines()
    cli.check_equal((run.returncode, len(lines)), (0, int(reason is not None)), env, run.stderr)
    with open(os.path.join(d, "run.stats.json")) as f:
        stats = json.load(f)
    cli.check_equal(stats["machine"]["backend"], "cuda" if not env else "cpu", env)
    cli.check_equal([f"fkm: warning: {w}" for w in stats["warnings"]], lines, env)
    cli.check(not reason or lines[0].startswith("fkm: warning: no GPU is used: ") and reason in lines[0], env, lines)
    cli.check_equal(cli.fkm(*fit, "-q", "-f", cwd=d, env=env).stderr, "", env)
    if env:
        run = cli.fkm(*fit, "-f", "-d", "cuda", cwd=d, env=env)
        cli.check_equal((run.returncode, run.stdout), (6, ""), env, run.stderr)
        cli.check("hint: use --device cpu" in run.stderr, env, run.stderr)


def main():
    data = cli.save(cli.TMP, "blobs.npy", cli.npy(cli.blobs(30, 2)))
    for env, reason in CASES:
        check_case(data, env, reason)
    cli.finish()


main()
