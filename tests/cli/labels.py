#!/usr/bin/python3
"""info on files of labels and on 1-D arrays; no rows at all: predict labels none, fit refuses; messages about nothing."""
import json
import os

import cli


def lines_of(d, *args):
    run = cli.fkm("info", *args, cwd=d, timeout=60)
    cli.check_equal((run.returncode, run.stderr), (0, ""), args)
    return dict(line.split(None, 1) for line in run.stdout.splitlines())


def check_info(d):
    rows = cli.blobs(60, 2)
    rows[7][1] = float("nan")
    cli.save(d, "x.npy", cli.npy(rows))
    for form, suffix in (("npy", "npy"), ("fvecs", "ivecs"), ("fbin", "ibin")):
        run = cli.fkm("fit", "-q", "-k", 3, "--nan", "skip", "--format", form, "-o", form, "x.npy", cwd=d)
        cli.check_equal(run.returncode, 0, run.stderr)
        name = f"{form}.labels.{suffix}"
        shown = lines_of(d, name)
        cli.check_equal((shown["type"], shown["shape"]),
                        ("int32", "60 labels" if suffix == "npy" else "60 rows x 1 dimensions"))
        shown = lines_of(d, "--full", name)
        cli.check_equal(shown["labels"], "0 to 2, 3 clusters; 1 rows without one (-1)", name)
        cli.check("values" not in shown, shown)
        found = json.loads(cli.fkm("info", "--full", "--json", name, cwd=d).stdout)
        cli.check_equal((found["rows"], found["labels"]),
                        (60, {"min": 0, "max": 2, "clusters": 3, "unlabelled": 1}))
    cli.save(d, "sparse.npy", cli.npy([[5, 70000, 5, -1, 64, 63]], (6,), "<i4"))
    cli.check_equal(lines_of(d, "--full", "sparse.npy")["labels"], "5 to 70000, 4 clusters; 1 rows without one (-1)")
    cli.save(d, "none.npy", cli.npy([[-1, -1]], (2,), "<i4"))
    cli.check_equal(lines_of(d, "--full", "none.npy")["labels"], "none; 2 rows without one (-1)")
    cli.save(d, "odd.npy", cli.npy([[-2, 1]], (2,), "<i4"))             # numbers, not labels
    cli.check_equal(lines_of(d, "--full", "odd.npy")["values"], "-2 to 1, mean -0.5")
    cli.save(d, "flat.npy", cli.npy([[1.5, 2.5]], (2,)))
    cli.check_equal(lines_of(d, "flat.npy")["shape"], "2 numbers; for fit, rows of one number are a[:, None]")
    cli.check_equal(cli.fkm("fit", "-k", 1, "flat.npy", cwd=d).returncode, 3, "fit takes no 1-D array")


def check_no_rows(d):
    cli.save(d, "c.npy", cli.npy([[0.0, 0.0], [1.0, 1.0]]))
    cli.save(d, "empty.npy", cli.npy([], (0, 2)))
    cli.save(d, "empty.fbin", b"\0\0\0\0\2\0\0\0")
    cli.save(d, "wide.npy", cli.npy([], (0, 3)))
    cli.save(d, "two.npy", cli.npy([[0.0, 0.1], [0.9, 1.0]]))
    for name in ("empty.npy", "empty.fbin"):
        run = cli.fkm("predict", "-f", "-c", "c.npy", "-o", "e.npy", "--distances", "d.npy", name, cwd=d, timeout=60)
        cli.check_equal((run.returncode, run.stderr), (0, ""), name)
        cli.check_equal(cli.load_npy(os.path.join(d, "e.npy")), ((0,), []), name)
        cli.check_equal(cli.load_npy(os.path.join(d, "d.npy")), ((0,), []), name)
        cli.check_equal(lines_of(d, "--full", "e.npy")["shape"], "0 labels")
        cli.check_equal(lines_of(d, "--full", name)["shape"], "0 rows x 2 dimensions")
        run = cli.fkm("fit", "-k", 1, name, cwd=d, timeout=60)
        cli.check_equal((run.returncode, run.stderr.splitlines()[0]), (3, f"fkm: {name}: holds 0 rows of 2 dimensions"))
    run = cli.fkm("predict", "-c", "c.npy", "-o", "t.npy", "--top", 2, "empty.npy", cwd=d, timeout=60)
    cli.check_equal((run.returncode, cli.load_npy(os.path.join(d, "t.npy"))), (0, ((0, 2), [])), run.stderr)
    run = cli.fkm("predict", "-c", "c.npy", "-o", "p.npy", "empty.npy", "two.npy", "empty.fbin", cwd=d, timeout=60)
    cli.check_equal((run.returncode, cli.load_npy(os.path.join(d, "p.npy"))), (0, ((2,), [0, 1])), run.stderr)
    cli.check_equal(cli.fkm("predict", "-c", "c.npy", "wide.npy", cwd=d, timeout=60).returncode, 3, "dims still count")


def check_messages(d):
    cli.save(d, "nan.npy", cli.npy([[float("nan")] * 2] * 5))
    run = cli.fkm("fit", "-k", 2, "--nan", "skip", "nan.npy", cwd=d)
    cli.check_equal(run.returncode, 3)
    cli.check(run.stderr.endswith("only 0 rows without NaN or Inf\nhint: there is nothing to cluster\n"), run.stderr)
    cli.check("inf" not in lines_of(d, "--full", "nan.npy").get("values", ""), "the range of no values")


def main():
    d = cli.new_directory()
    check_info(d)
    check_no_rows(d)
    check_messages(d)
    cli.finish()


main()
