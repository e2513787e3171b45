#!/usr/bin/python3
"""fkm bench: its figures agree among themselves. Nothing here expects a speed."""
import json
import math
import os
import resource

import cli


def bench(*args, **more):
    run = cli.fkm("bench", "--quick", "--json", *args, cwd=cli.TMP, **more)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "bench", args)
    return json.loads(run.stdout)


def near(a, b):
    return abs(a - b) <= 1e-9 * abs(b)


def ceilings(result):
    return {(c["name"], c["threads"]): c for c in result["ceilings"]}


def check_part(part, amount, rate, ceiling):
    cli.check(0 < part["low_s"] <= part["median_s"] <= part["high_s"], "samples are ordered", part)
    cli.check(near(part[rate], amount / part["median_s"]), rate, part)
    cli.check(near(part["of_ceiling"], part[rate] / ceiling), "part of the ceiling", part, ceiling)


def check_shape(shape, found, arithmetic):
    rows, dims, clusters = shape["rows"], shape["dims"], shape["clusters"]
    size = {"float32": 4, "float16": 2, "uint8": 1}[shape["dtype"]]
    cli.check_equal((shape["skipped"], shape["checked_rows"]), (False, min(rows, 64)))
    cli.check_equal(shape["flop"], 2.0 * rows * dims * clusters)
    cli.check(shape["needed_bytes"] > rows * dims * size, "memory", shape)
    cli.check(shape["candidates_per_row"] + shape["settled_by_bounds"] >= 1 and shape["first_s"] > 0, shape)
    for name in ("iteration", "assign"):
        check_part(shape[name], shape["flop"], "flop_per_s", arithmetic)
    threads = max(t for _, t in found)
    check_part(shape["update"], rows * dims * size, "bytes_per_s", found[("memory read", threads)]["best"])
    cli.check(shape["assign"]["low_s"] <= shape["iteration"]["high_s"], "a part is not longer than the whole")
    for name in ("iteration", "assign"):
        check_part(shape["cold"][name], shape["flop"], "flop_per_s", arithmetic)
    cli.check(shape["cold"]["iteration"]["high_s"] > shape["cold"]["assign"]["low_s"], "cold passes", shape)


def check_result(result, threads, isa):
    found = ceilings(result)
    cli.check_equal((result["schema"], result["machine"]["threads"], result["machine"]["isa"]),
                    ("fkm-bench/1", threads, isa))
    cli.check_equal({t for _, t in found}, {1, threads}, "ceilings with one thread and with all")
    for c in result["ceilings"]:
        cli.check(0 < c["low"] <= c["median"] <= c["high"] and c["best"] > 0, c)
        cli.check_equal(c["unit"], "flop/s" if c["isa"] else "bytes/s", c["name"])
        cli.check(c["noisy"] or c["median"] >= 0.75 * c["best"] or "file" in c["name"], "noise is told", c)
    for one, c in zip(result["ceilings"], result["ceilings"][1:]):
        if c["threads"] > 1:      # that with one thread is the one before
            cli.check_equal((one["name"], one["isa"], one["threads"]), (c["name"], c["isa"], 1))
            cli.check(c["best"] >= max(c["high"], one["best"]), "threads are no hindrance", one, c)
    arithmetic = [c for c in result["ceilings"] if c["isa"] and c["threads"] == threads]
    of_bytes = [c for c in arithmetic if c["name"].startswith("8-bit ")]
    of_floats = [c for c in arithmetic if c not in of_bytes][-1]
    cli.check_equal(bool(of_bytes), isa not in ("avx512", "scalar"), "8-bit arithmetic", isa)
    for c in arithmetic:
        cli.check(c["isa"] in (isa.removesuffix("int8"), "avx512vnni", "avx512", "avx2", "scalar"), c)
    for shape in result["shapes"]:
        ceiling = of_bytes[-1] if of_bytes and shape["dtype"] == "uint8" else of_floats
        check_shape(shape, found, ceiling["best"])
        cli.check_equal(shape["isa"], isa)


def usable_paths():
    lines = cli.fkm("help", "isa", cwd=cli.TMP).stdout.splitlines()
    return [line.split()[0] for line in lines if line.endswith(" yes")]


def slope(points):
    """Of the line with the least squares of what it misses."""
    x, y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def check_linear():
    result = bench("--grid", "linear", "-j", 2)
    axes = {g["axis"]: g for g in result["growth"]}
    for i, axis in enumerate(("rows", "clusters", "dims")):
        sweep = result["shapes"][4 * i:4 * (i + 1)]
        g = axes[axis]
        # Never fewer rows than clusters: --quick leaves less room for rows.
        cli.check_equal(g["factor"], 8 if axis == "rows" else 64, axis)
        cli.check(near(g["cost"], sweep[3]["iteration"]["median_s"] / sweep[0]["iteration"]["median_s"]), g)
        points = [(math.log(p[axis]), math.log(p["iteration"]["median_s"])) for p in sweep]
        cli.check(math.isclose(g["exponent"], slope(points), rel_tol=1e-6, abs_tol=1e-6), g)


def check_memory_and_files():
    d = cli.new_directory()
    blob = cli.save(d, "any", b"x" * 100000)
    result = bench("--grid", "70000x32x10", "-m", "32M", blob, env={"TMPDIR": "/nonexistent"})
    cli.check_equal(result["file"], {"path": blob, "bytes": 100000})
    if not cli.SLOW:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        cli.check(peak < 48 << 20, "peak memory", peak)
    temporary = cli.new_directory()
    result = bench("--grid", "20x3x4", env={"TMPDIR": temporary})
    cli.check(result["file"]["path"] is None and result["file"]["bytes"] > 1 << 20, result["file"])
    cli.check_equal(os.listdir(temporary), [], "the temporary file is gone")
    skipped = bench("--grid", "default", "-m", "4M")["shapes"]
    cli.check(any(s["skipped"] for s in skipped) and not all(s["skipped"] for s in skipped), "some shapes fit")
    for s in skipped:
        cli.check_equal(s["skipped"], s["needed_bytes"] > 4 << 20, s)


def check_batch():
    for threads, lanes in ((1, 1), (2, 2), (5, 2)):
        shape = bench("--grid", "100x9x8xb6", "-j", threads)["shapes"][0]
        cli.check_equal((shape["batch"], shape["side_by_side"], shape["flop"]), (6, lanes, 2.0 * 100 * 9 * 8 * 6))
        for part in (shape["iteration"], shape["cold"]["iteration"]):
            cli.check(near(part["flop_per_s"], shape["flop"] / part["median_s"]), part)
        cli.check(shape["assign"] is None and shape["update"] is None, "not known apart", shape)
    for grid in ("100x9x8xb1", "100x9x8xb", "100x9x8xb2xb3"):
        cli.check_equal(cli.fkm("bench", "--grid", grid, cwd=cli.TMP).returncode, 2, grid)


def check_text():
    run = cli.fkm("bench", "--quick", "--grid", "50x3x4", "-j", 2, cwd=cli.TMP)
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    lines = run.stdout.splitlines()
    for start in ("memory read ", "memory copy ", "float32 multiply-add", "file read, from storage",
                  "file read, from cache", "50 x 3 k=4 "):
        cli.check(any(line.startswith(start) for line in lines), start, run.stdout)
    cli.check(all(any(part in line for line in lines) for part in (" iteration ", " assignment ", " update ")))


def main():
    check_memory_and_files()  # first: it looks at the largest child so far
    check_result(bench("--grid", "300x17x20", "-j", 2), 2, usable_paths()[0])
    check_result(bench("--grid", "1kx8x3xu8", "-j", 3, "-s", 7), 3, usable_paths()[0])
    both = bench("--grid", "300x17x20xf16xdecay,200x9x8xf32", "-j", 2)
    check_result(both, 2, usable_paths()[0])
    cli.check_equal([(s["dtype"], s["spectrum"]) for s in both["shapes"]],
                    [("float16", "decaying"), ("float32", "flat")])
    for isa in usable_paths():
        check_result(bench("--grid", "100x33x100", "-j", 1, "--isa", isa), 1, isa)
    check_batch()
    check_text()
    if not cli.SLOW:
        check_linear()
    cli.finish()


main()
