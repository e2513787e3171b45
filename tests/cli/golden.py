#!/usr/bin/python3
"""Golden tests of the command line: golden/*.txt are transcripts, replayed and compared.

  # a comment
  $ a shell command, run in a directory of its own with the inputs of make_inputs()
  > a line of its standard output
  ! a line of its standard error
  = its exit status

Numbers that vary (times, memory, processes) are filtered. `golden.py --update` rewrites the files;
read the difference before it is committed."""
import glob
import os
import re
import subprocess
import sys

import cli

FILTERS = [
    (r"\b\d+(\.\d+)? m?s\b", "T"),
    (r"peak memory [\d.]+ [KMG]iB", "peak memory M"),
    (r"cpu (scalar|avx\w*|amx\w*|neon), \d+ threads?(, \d+ problems side by side)?", "cpu ISA"),
    (r"at [\d.]+ GB/s", "at R GB/s"),
    (r"memory      .* of .*: rows .*", "memory      SIZES"),
    (r"\b\d+(m\d\d s|m\d\ds|h\d\dm)", "T"),
    (r"\d+ clusters, cpu ISA", "K clusters, cpu ISA"),
    (r"in use by pid \d+", "in use by pid N"),
    (r" \.h5 \.hdf5;", ";"),      # a build without HDF5 does not know them
    (r"needs at least .* \(.*\)", "needs at least SIZES"),
    (r"the smallest needs [\d.]+ [KMGE]iB", "the smallest needs SIZE"),
    (r"give --memory \w+ or more", "give --memory SIZE or more"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"(this CPU can run:) .*", r"\1 LIST"),
    (re.escape(cli.TMP) + r"/\w+", "DIR"),
]


def make_inputs(d):
    rows = cli.blobs(60, 2)
    cli.save(d, "blobs.npy", cli.npy(rows))
    cli.save(d, "blobs.fvecs", cli.fvecs(rows))
    cli.save(d, "part1.npy", cli.npy(rows[:20]))
    cli.save(d, "part2.fvecs", cli.fvecs(rows[20:]))
    cli.save(d, "wide.npy", cli.npy(cli.blobs(5, 3)))
    cli.save(d, "batch.npy", cli.npy(rows, (2, 30, 2)))
    cli.save(d, "same.npy", cli.npy([[1.0, 2.0]] * 10))
    cli.save(d, "start.npy", cli.npy([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0]]))
    cli.save(d, "cut.fvecs", cli.fvecs(rows)[:-5])
    mixed = bytearray(cli.fvecs(rows))
    for row in (3, 7, *range(30, 55)):
        mixed[12 * row] = 9
    cli.save(d, "mixed.fvecs", bytes(mixed))
    broken = [list(r) for r in rows]
    broken[4][1] = float("nan")
    broken[9][0] = float("inf")
    cli.save(d, "nan.npy", cli.npy(broken))
    cli.save(d, "empty.npy", b"")
    cli.save(d, "text.txt", b"no vectors here\n")
    os.mkdir(os.path.join(d, "folder"))


def parse(text):
    """Blocks of [comment lines and command, stdout, stderr, status]."""
    blocks, notes = [], []
    for line in text.splitlines():
        if line.startswith("$ "):
            blocks.append({"notes": notes, "command": line[2:], "out": [], "err": [], "status": 0})
            notes = []
        elif line.startswith("> ") or line == ">":
            blocks[-1]["out"].append(line[2:])
        elif line.startswith("! ") or line == "!":
            blocks[-1]["err"].append(line[2:])
        elif line.startswith("= "):
            blocks[-1]["status"] = int(line[2:])
        else:
            notes.append(line)
    return blocks


def render(block):
    lines = block["notes"] + ["$ " + block["command"]]
    lines += [("> " + s).rstrip() for s in block["out"]] + [("! " + s).rstrip() for s in block["err"]]
    return lines + [f"= {block['status']}"]


def filtered(text):
    for pattern, with_what in FILTERS:
        text = re.sub(pattern, with_what, text)
    return [line.rstrip() for line in text.splitlines()]


def replay(block, directory):
    run = subprocess.run(["/bin/sh", "-c", block["command"]], cwd=directory, capture_output=True,
                         text=True, env=cli.clean_environment(), stdin=subprocess.DEVNULL)
    return dict(block, out=filtered(run.stdout), err=filtered(run.stderr), status=run.returncode)


def main():
    has_hdf5 = "hdf5" in cli.fkm("help", "formats", cwd=cli.TMP).stdout
    files = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "*.txt")))
    cli.check(len(files) > 5, "the transcripts are missing")
    for path in files:
        name = os.path.basename(path)
        if "h5" in name and not has_hdf5:
            print("skipped:", name, "(built without HDF5)")
            continue
        with open(path) as f:
            blocks = parse(f.read())
        directory = cli.new_directory()
        make_inputs(directory)
        played = [replay(b, directory) for b in blocks]
        if "--update" in sys.argv:
            with open(path, "w") as f:
                f.write("\n".join(line for b in played for line in render(b)) + "\n")
            continue
        cli.check(blocks, name, "is empty")
        for expected, got in zip(blocks, played):
            cli.check_equal("\n".join(render(got)), "\n".join(render(expected)), name + ":")
    cli.finish()


main()
