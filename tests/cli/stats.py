#!/usr/bin/python3
"""stats.json and the other JSON: by the schema, and true: recomputed from the files that a run wrote."""
import json
import os
import shlex
import subprocess

import cli

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ TABLE[(crc ^ b) & 255]
    return f"{crc ^ 0xFFFFFFFF:08x}"


def distance(x, c):
    return sum((a - b) ** 2 for a, b in zip(x, c))


def strict(text):
    """JSON that forbids what Python's reader would let pass."""
    def refuse(word):
        raise ValueError(word)
    return json.loads(text, parse_constant=refuse)


def check_outputs(d, stats):
    for out in stats["outputs"]:
        with open(os.path.join(d, out["path"]), "rb") as f:
            data = f.read()
        cli.check_equal((out["bytes"], out["crc32c"]), (len(data), crc32c(data)), out["path"])


def check_fit(validate):
    d = cli.new_directory()
    cli.save(d, "x y.npy", cli.npy(cli.blobs(300, 3, centers=7)))
    run = cli.fkm("fit", "-k", 5, "-s", 18446744073709551615, "-t", 0, "--json", "x y.npy", "-o", "it's", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "fit")
    with open(os.path.join(d, "it's.stats.json")) as f:
        text = f.read()
    cli.check_equal(run.stdout, text, "--json is stats.json")
    stats = strict(text)
    validate(stats)
    cli.check('"seed":18446744073709551615' in text, "the seed keeps its digits")
    cli.check_equal(shlex.split(stats["command"])[1:],
                    ["fit", "-k", "5", "-s", "18446744073709551615", "-t", "0", "--json", "x y.npy", "-o", "it's"],
                    "command")
    check_outputs(d, stats)
    check_result(d, stats)


def check_result(d, stats):
    _, data = cli.load_npy(os.path.join(d, "x y.npy"))
    rows = [data[3 * i:3 * i + 3] for i in range(300)]
    _, labels = cli.load_npy(os.path.join(d, "it's.labels.npy"))
    _, flat = cli.load_npy(os.path.join(d, "it's.centroids.npy"))
    centroids = [flat[3 * j:3 * j + 3] for j in range(5)]
    sizes = sorted(labels.count(j) for j in range(5))
    result, clusters = stats["result"], stats["result"]["clusters"]
    cli.check_equal((clusters["min"], clusters["median"], clusters["max"]), (sizes[0], sizes[2], sizes[4]))
    cli.check(abs(clusters["imbalance"] - 5 * sum(n * n for n in sizes) / 300 ** 2) < 1e-12, "imbalance")
    exact = sum(distance(rows[i], centroids[labels[i]]) for i in range(300))
    cli.check(abs(result["inertia"] / exact - 1) < 1e-12, "inertia", result["inertia"], exact)
    cli.check_equal((result["rows_used"], result["rows_skipped"], result["moved_last"]), (300, 0, 0))
    cli.check_equal(stats["status"], "converged")
    steps = stats["iterations"]
    cli.check_equal([s["i"] for s in steps], list(range(1, result["iterations"] + 1)), "iterations")
    cli.check_equal(steps[0]["moved_rows"], 300)
    cli.check(all(a["inertia"] >= b["inertia"] for a, b in zip(steps, steps[1:])), "inertia falls")
    cli.check(stats["time"]["total_s"] >= stats["time"]["compute_s"] > 0, "time")
    cli.check_equal(stats["input"][0], {"path": "x y.npy", "format": "npy", "dataset": None, "rows": 300,
                                        "dims": 3, "dtype": "float32", "bytes": 128 + 3600})
    cli.check(stats["screening"]["rows_screened"] >= 300 * result["iterations"], "rows screened")


def check_warnings_and_names(validate):
    d = cli.new_directory()
    name = b"gr\xfcn.npy"                 # Latin-1, not UTF-8
    with open(os.path.join(d.encode(), name), "wb") as f:
        f.write(cli.npy([[1.0, 2.0]] * 6))
    run = subprocess.run([cli.FKM.encode(), b"fit", b"-k", b"3", b"-o", b"out", b"--json", name], cwd=d,
                         env=cli.clean_environment(), capture_output=True)
    cli.check_equal(run.returncode, 0, run.stderr)
    stats = strict(run.stdout.decode("utf-8"))
    validate(stats)
    cli.check_equal(stats["input"][0]["path"], "gr\ufffdn.npy")
    cli.check_equal(len(stats["warnings"]), 1, "a warning about empty clusters")
    cli.check("fkm: warning: " + stats["warnings"][0] in run.stderr.decode(errors="replace"), "also on stderr")


def check_batch(validate):
    d = cli.new_directory()
    cli.save(d, "b.npy", cli.npy(cli.blobs(60, 2, seed=3), (3, 20, 2)))
    run = cli.fkm("fit", "-k", 2, "--json", "b.npy", cwd=d)
    stats = strict(run.stdout)
    validate(stats)
    problems = stats["problems"]
    cli.check("restarts" not in stats["result"] and all(len(p["restarts"]) == 1 for p in problems), "restarts")
    cli.check_equal(len(problems), 3)
    cli.check(abs(sum(p["inertia"] for p in problems) - stats["result"]["inertia"]) < 1e-9, "sum of inertia")
    cli.check_equal({s["problem"] for s in stats["iterations"]}, {0, 1, 2})
    for b in range(3):
        steps = [s for s in stats["iterations"] if s["problem"] == b]
        cli.check_equal(len(steps), problems[b]["iterations"])
    cli.check_equal(stats["problems_with_iterations"], 3)
    check_outputs(d, stats)
    check_large_batch(d, validate)


def check_large_batch(d, validate):
    """Of many problems the iterations of the first ones are told, and space and memory are planned for no more."""
    batch = 4000
    cli.save(d, "many.npy", cli.npy(cli.blobs(4 * batch, 2, seed=3), (batch, 4, 2)))
    args = ["fit", "-k", 2, "-f", "-q", "-m", "100M", "--json", "-o", "many", "many.npy"]
    stats = strict(cli.fkm(*args, cwd=d).stdout)
    validate(stats)
    listed = (1 << 18) // 100
    cli.check_equal((len(stats["problems"]), stats["problems_with_iterations"]), (batch, listed))
    cli.check_equal(len(stats["iterations"]), sum(p["iterations"] for p in stats["problems"][:listed]))
    cli.check_equal({s["problem"] for s in stats["iterations"]}, set(range(listed)))
    cli.check_equal(cli.fkm("info", "many", cwd=d).returncode, 0)
    cli.check_equal(cli.fkm("predict", "-q", "-c", "many", "-o", "l.npy", "many.npy", cwd=d).returncode, 0)


def check_restarts(validate):
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(200, 3)))
    run = cli.fkm("fit", "-k", 9, "-i", "k-means||", "--restarts", 4, "-s", 2, "-t", 0, "--json", "x.npy", cwd=d)
    stats = strict(run.stdout)
    validate(stats)
    cli.check_equal((stats["params"]["restarts"], stats["params"]["seed"], stats["params"]["init"]), (4, 2, "k-means||"))
    starts = stats["result"]["restarts"]
    cli.check_equal([s["seed"] for s in starts], [2, 3, 4, 5])
    best = min(starts, key=lambda s: s["inertia"])
    cli.check_equal((best["inertia"], best["iterations"]), (stats["result"]["inertia"], stats["result"]["iterations"]))
    cli.check_equal(len(stats["iterations"]), best["iterations"], "iterations of the best start only")
    check_outputs(d, stats)


def check_plan(validate):
    """--dry-run: sizes are those of the outputs that the run then writes; the times are about right."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(60000, 8)))
    cli.save(d, "b.npy", cli.npy(cli.blobs(60, 2, seed=3), (3, 20, 2)))
    for args in (["-k", 300, "-t", 0, "-n", 10, "x.npy"], ["-k", 300, "-t", 0, "-n", 10, "-m", "3M", "-j", 1, "x.npy"],
                 ["-k", 3, "--restarts", 2, "-i", "k-means++", "--format", "fvecs", "b.npy"],
                 ["-k", 3, "--no-labels", "--checkpoint", "off", "b.npy"]):
        before = sorted(os.listdir(d))
        run = cli.fkm("fit", "--dry-run", "--json", *args, cwd=d)
        note = "fkm: b.npy: 3-D, so 3 independent problems of 20 rows each; for one data set save " \
            "a.reshape(3, 40) or a.reshape(60, 2)\n"
        cli.check_equal((run.returncode, run.stderr), (0, note if "b.npy" in args else ""), args)
        plan = strict(run.stdout)
        validate(plan)
        cli.check_equal(sorted(os.listdir(d)), before, args, "left behind")
        memory = plan["memory"]
        cli.check_equal(memory["planned_bytes"], sum(memory[p + "_bytes"] for p in ("rows", "labels", "backend", "result")))
        cli.check_equal(plan["reading"]["kept"], "3M" not in args, args)
        cli.check_equal(plan["checkpoint"] is None, "off" in args)
        stats = strict(cli.fkm("fit", "--json", *args, cwd=d).stdout)
        cli.check_equal([(o["path"], o["bytes"]) for o in plan["outputs"]],
                        [(o["path"], o["bytes"]) for o in stats["outputs"]], args, "sizes of outputs")
        cli.check_equal(plan["params"], stats["params"], args)
        for o in stats["outputs"]:
            os.unlink(os.path.join(d, o["path"]))
        os.unlink(os.path.join(d, plan["outputs"][0]["path"].split(".k")[0] + f".k{args[1]}.stats.json"))
        if args[1] == 300:
            real = sum(i["s"] for i in stats["iterations"][1:]) / 9
            ratio = plan["predicted"]["iteration_s"] / real
            cli.check(1 / 30 < ratio < 30, "predicted", plan["predicted"], "found", real)   # machines are busy


def check_stopped(validate):
    """--json at the end of the time limit: how far the run got."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(100000, 8)))
    cli.save(d, "b.npy", cli.npy(cli.noise(90000, 8), (2, 45000, 8)))
    for args in (["x.npy"], ["--restarts", 100, "b.npy"]):
        run = cli.fkm("fit", "-k", 1000, "-t", 0, "-n", 1000000, "-q", "--json", "--time-limit", "700ms", "-o", "r", *args,
                      "--fresh", cwd=d)
        cli.check_equal(run.returncode, 75, run.stderr)
        stats = strict(run.stdout)
        validate(stats)
        cli.check_equal((stats["status"], stats["outputs"]), ("time_limit", []))
        if stats["iterations"]:
            last = stats["iterations"][-1]
            part = stats["problems"][last["problem"]] if "problems" in stats else stats["result"]
            cli.check_equal((part["iterations"], part["inertia"], part["moved_last"]),
                            (last["i"], last["inertia"], last["moved_rows"]), "the last iteration")
        cli.check(not os.path.exists(os.path.join(d, "r.stats.json")), "stats.json of a run that is not done")


def check_others(validate):
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(30, 2)))
    cli.save(d, "c.npy", cli.npy(cli.blobs(3, 2)))
    stats = strict(cli.fkm("predict", "-c", "c.npy", "--top", 2, "--distances", "d.npy", "--json", "x.npy",
                           cwd=d).stdout)
    validate(stats)
    check_outputs(d, stats)
    cli.check_equal((stats["params"]["top"], stats["result"]["rows"]), (2, 30))
    cli.check(not os.path.exists(os.path.join(d, "x.stats.json")), "predict writes no stats")
    broken = cli.blobs(30, 2)
    broken[3][0] = float("nan")
    cli.save(d, "n.npy", cli.npy(broken))
    cli.save(d, "all.npy", cli.npy([[float("inf")]]))
    for args in (["x.npy"], ["--full", "x.npy"], ["--full", "n.npy"], ["--full", "all.npy"]):
        validate(strict(cli.fkm("info", "--json", *args, cwd=d).stdout))
    cli.fkm("fit", "-q", "-k", 2, "x.npy", cwd=d)
    validate(strict(cli.fkm("info", "--json", "x.k2", cwd=d).stdout))
    for args in (["--grid", "300x5x7"], ["--grid", "300x5x7xu8", "-j", 1, "x.npy"]):
        validate(strict(cli.fkm("bench", "--quick", "--json", *args, cwd=d).stdout))


def check_schema_bites(schema, errors_of):
    """A schema that accepts anything would accept this."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(30, 2)))
    good = strict(cli.fkm("fit", "-q", "-k", 2, "--json", "x.npy", cwd=d).stdout)
    cli.check(not errors_of(good), "a good document")
    for spoil in (lambda s: s.pop("result"), lambda s: s.update(schema="fkm-stats/2"),
                  lambda s: s["params"].update(k=0), lambda s: s["outputs"][0].update(crc32c="xyz"),
                  lambda s: s["time"].update(total_s=None), lambda s: s.update(surprise=1)):
        bad = json.loads(json.dumps(good))
        spoil(bad)
        cli.check(errors_of(bad), "the schema accepts", bad)


def main():
    try:
        import jsonschema
    except ImportError:
        cli.skip("needs python3-jsonschema")
    with open(os.path.join(cli.SRC, "tests", "stats.schema.json")) as f:
        schema = json.load(f)
    jsonschema.Draft7Validator.check_schema(schema)
    checker = jsonschema.Draft7Validator(schema)

    def errors_of(document):
        return [e.message for e in checker.iter_errors(document)]

    def validate(document):
        found = errors_of(document)
        cli.check(not found, document.get("schema"), found[:1], [c.message for e in
                  checker.iter_errors(document) for c in (e.context or [])][:5])

    check_schema_bites(schema, errors_of)
    check_fit(validate)
    check_warnings_and_names(validate)
    check_batch(validate)
    check_restarts(validate)
    check_plan(validate)
    check_stopped(validate)
    check_others(validate)
    cli.finish()


main()
