#!/usr/bin/python3
"""fkm bench feeds the GPU as fit does: small shapes as graphs, rows that stream from pinned memory; and the time that
adding to sums takes is known apart."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests", "cli"))
import cli

if not os.environ.get("EMULATED"):
    cli.skip("needs the CUDA-on-CPU layer: it counts")


def bench(grid, *more):
    """The result, what the layer counted, and what was said."""
    d = cli.new_directory()
    report = os.path.join(d, "report")
    run = cli.fkm("bench", "--quick", "--json", "-v", "-d", "cuda", "--grid", grid, *more, cwd=d,
                  env={"CUO_REPORT": report})
    cli.check_equal(run.returncode, 0, grid, run.stderr)
    with open(report) as f:
        return json.loads(run.stdout), json.load(f), run.stderr


def check_parts(result, arithmetic="f16"):
    """Sums are a part of the update, as labelling is one of the iteration; and what they are compared with."""
    shape, best = result["shapes"][0], {(c["name"], c["isa"]): c["best"] for c in result["ceilings"]}
    reading = best[("device memory read", None)]
    for part, rate, ceiling in (("sums", "bytes_per_s", reading), ("update", "bytes_per_s", reading),
                                ("assign", "flop_per_s", best[("matrix unit, mma.sync", arithmetic)])):
        cli.check(abs(shape[part]["of_ceiling"] * ceiling / shape[part][rate] - 1) < 1e-9, part, shape, ceiling)
    for parts in (shape, shape["cold"]):
        for part in ("iteration", "assign", "update", "sums"):
            cli.check(parts[part]["low_s"] > 0, part, parts)
        cli.check(parts["sums"]["low_s"] <= parts["update"]["high_s"], parts)


def main():
    result, counts, said = bench("2000x16x20")
    cli.check("1 pieces of 2000 rows" in said, said)
    cli.check(counts["graphs"] >= 5, "warm passes are graphs", counts)
    check_parts(result)
    resident = counts["pageable"]
    # Centroids of a start and labels that are asked for are pageable, as in a fit: a few a start, none a pass.
    cli.check(resident <= 12, "pageable copies", counts)
    result, counts, said = bench("3000x16x20", "--gpu-memory", "400K")
    cli.check("labels of 4, rows of 2," in said, said)
    cli.check(counts["pageable"] <= resident + 8, "rows that stream are pinned", counts, said)
    check_parts(result)
    check_parts(bench("500x16x20xu8", "--isa", "s8-portable")[0], "s8")
    cli.finish()


main()
