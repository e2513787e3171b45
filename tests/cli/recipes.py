#!/usr/bin/python3
"""Runs every block of man/fkm-recipes.7 as printed, in order, and looks at what its sections promise."""
import importlib.util
import os
import re
import subprocess
import sys

import cli


def blocks():
    """[(section, text)] of what stands between .nf and .fi."""
    with open(os.path.join(cli.SRC, "man/fkm-recipes.7")) as f:
        page = f.read()
    found = []
    for section in page.split("\n.SS ")[1:]:
        title = section.partition("\n")[0]
        for text in re.findall(r"^\.nf\n(.*?)^\.fi$", section, re.M | re.S):
            found.append((title, text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")))
    return found


def run(title, text, directory):
    python = text.startswith(("import ", "from "))
    command = [sys.executable, "-c", text] if python else ["sh", "-e", "-c", text]
    done = subprocess.run(command, cwd=directory, env=cli.clean_environment(), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    cli.check_equal((done.returncode, done.stderr), (0, ""), title, text)
    return done.stdout


def main():
    if not importlib.util.find_spec("numpy"):
        print("skipped: no numpy")
        sys.exit(77)
    import numpy as np
    d = cli.new_directory()
    cli.save(d, "vectors.npy", cli.npy(cli.noise(600, 20)))
    said = {}
    for title, text in blocks():
        said[title] = said.get(title, "") + run(title, text, d)
    cli.check_equal(len(said), 5, "sections with blocks")
    load = lambda name: np.load(os.path.join(d, name)).astype(np.float64)

    x, unit, directions = load("vectors.npy"), load("unit.npy"), load("directions.npy")
    cli.check(np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6), "rows of length 1")
    cli.check_equal(load("cosine2.labels.npy").tolist(), (unit @ directions.T).argmax(1).tolist(),
                    "labels by cosine")
    books, codes = load("pq.centroids.npy"), load("pq.labels.npy").astype(int)
    cli.check_equal(books.shape, (5, 256, 4), "codebooks")
    far = np.square(x[:, None, 4:8] - books[1][None]).sum(2)
    cli.check_equal(codes[1].tolist(), far.argmin(1).tolist(), "codes of the second piece")
    cli.check("yesterday's centroids are 0.0 % worse" in said["Every night, the same ids"],
              "drift of the same rows", said)
    cli.finish()


main()
