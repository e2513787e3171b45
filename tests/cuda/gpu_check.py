#!/usr/bin/python3
"""scripts/gpu-check and bench-gpu, in their short forms, to their ends: nobody runs them where there is no GPU, and they
must work where there is one. With a kernel of Hopper's own that hangs, or fails, they go on without it."""
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["SRC"], "tests", "cli"))
import cli

if not os.environ.get("EMULATED"):
    cli.skip("a GPU has the whole of it: scripts/gpu-check")

try:
    import numpy  # noqa: F401
except ImportError:
    cli.skip("needs python3-numpy")

SECONDS = 4 if cli.SLOW else 1  # of a run of fkm, 8 times that here


def script(name, *arguments):
    run = subprocess.run([sys.executable, os.path.join(cli.SRC, "scripts", name), *map(str, arguments)],
                         cwd=cli.TMP, env=dict(os.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    return run.returncode, run.stdout


def stand_in(what):
    """An fkm whose own kernels do `what`: all runs on a GPU that do not ask for a portable one."""
    d = cli.new_directory()
    path = cli.save(d, "fkm", f'#!/bin/sh\ncase " $* " in\n*-portable*|*" -d cpu "*) exec "{cli.FKM}" "$@" ;;\n'
                    f'esac\n{what}\n'.encode())
    os.chmod(path, 0o755)
    return path


def check(fkm, *more):
    """Status, what was said, the facts as they came, the result."""
    out = cli.new_directory()
    code, said = script("gpu-check", "--emulated", "--short", "--fkm", fkm, "--out", out, *more)
    with open(os.path.join(out, "gpu-check.jsonl")) as f:
        facts = [json.loads(line) for line in f]
    names = [n for n in os.listdir(out) if n.startswith("gpu-emulated-")]
    cli.check_equal(len(names), 1, said)
    with open(os.path.join(out, names[0])) as f:
        return code, said, facts, json.load(f)


def check_whole():
    code, said, facts, result = check(cli.FKM)
    cli.check_equal((code, result["ok"], result["failed"]), (0, True, []), said)
    for step in ("hopper", "paths", "bench", "grid", "suite", "sanitizer"):
        cli.check(result[step]["ok"], step, said)
    kinds = {f["fact"].split()[0] for f in facts}
    cli.check({"machine", "bits", "bench", "ceilings", "grid", "end"} <= kinds, kinds)
    for bench in (f for f in facts if f.get("case")):
        cli.check(bench["ms"] > 0 and bench["compared"].split()[1] in ("assign", "sums"), bench)
    cli.check(any(f.get("of_read", 0) > 0 for f in facts), "the update's kernels are held against reading")
    cli.check_equal([f["differs"] for f in facts if "differs" in f], [[]] * sum("differs" in f for f in facts))


def check_hang():
    """A hang costs its limit once; what was known before is known, and the rest is done by the portable kernels."""
    code, said, facts, result = check(stand_in("exec sleep 600"), "--limit", SECONDS, "--skip", "hopper,suite,sanitizer")
    cli.check_equal((code, result["ok"]), (1, False), said)
    bits = [f for f in facts if f["fact"].startswith("bits ")]
    cli.check_equal([f["ok"] for f in bits], [True, False, True], "portable, own, streamed", bits)
    cli.check_equal(bits[1]["status"], 124, bits)
    cli.check_equal(result["failed"], [bits[1]["fact"]], said)
    cli.check(any(f["fact"].startswith("portable kernels") for f in facts), said)
    cli.check(all("-portable" in " ".join(f["options"]) for f in facts if f["fact"].startswith("grid ")), facts)
    cli.check(result["bench"]["ok"] and all(c["ms"] > 0 for c in result["bench"]["cases"]), said)
    cli.check_equal(facts[-1]["fact"], "end", said)


def check_failing_bench():
    """A case that fails is measured by the portable kernel, and is told of."""
    lines = os.path.join(cli.new_directory(), "lines")
    code, said = script("bench-gpu", "--smoke", "--cases", "k256", "--lines", lines, "--fkm", stand_in("exit 6"))
    cli.check_equal(code, 1, said)
    with open(lines) as f:
        case = json.loads(f.readline())
    cli.check(case["ms"] > 0 and "exit 6" in case["failed"], case)


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), os.path.join(cli.SRC, "scripts", name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def check_cases():
    """As they are on a GPU: the emulation's are smaller."""
    checks, bench = load("gpu-check"), load("bench-gpu")
    for kind, n, _, k, _, _ in checks.GRID + checks.PATHS:
        cli.check(k <= n, "more clusters than rows", kind, n, k)
    for name, (shape, compared, _, _) in bench.CASES.items():
        n, _, k = bench.peer_shape(shape)
        cli.check(k <= n and compared.split()[0] in ("cold", "warm"), name, shape, compared)


def check_pack():
    d = cli.new_directory()
    code, said = script("gpu-check", "--pack", d, "--build", os.path.dirname(cli.FKM))
    cli.check_equal(code, 0, said)
    for name in ("fkm", "cmocka.h", "cjson/cJSON.h", "libcjson.so"):
        cli.check(os.path.exists(os.path.join(d, name)), name, "is carried", said)


def main():
    code, said = script("gpu-check", "--fkm", cli.FKM, "--device", "cuda:7", "--out", cli.new_directory())
    cli.check(code == 6 and "no GPU" in said, "no such GPU", code, said)
    cli.check_equal(script("gpu-check", "--skip", "bench,speed")[0], 2, "a step that there is not")
    check_cases()
    check_whole()
    check_hang()
    check_failing_bench()
    check_pack()
    cli.finish()


main()
