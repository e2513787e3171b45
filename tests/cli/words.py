#!/usr/bin/python3
"""Options have their full names only; words of other programs are answered with ours, which exist."""
import os
import re
import subprocess
import sys

import cli

FIT = {  # as scikit-learn, faiss, cuVS, DiskANN, pgvector and Lance spell it
    "clusters": "n_clusters n-clusters num_clusters k K nlist n_lists lists num_partitions n_centroids",
    "restarts": "n_init n-init nredo", "seed": "random_state random-state rng",
    "max-iter": "niter n_iter max_iter num_iterations max_iterations kmeans_n_iters iterations",
    "tol": "tolerance eps", "threads": "n_jobs num_threads nthreads", "device": "gpu n_gpus cuda cpu",
    "init": "init_centroids centroids warm_start", "memory": "mem max_memory", "gpu-memory": "gpu_mem",
    "output": "out output_file save", "force": "overwrite", "dataset": "key tensor", "rows": "nrows limit",
    "dtype": "data_type", "verbose": "verbosity", "time-limit": "timeout", "checkpoint": "checkpoint_every",
    "nan": "skip_nan", "dry-run": "plan", "empty": "empty_action",
}
PREDICT = {"top": "k topk n_neighbors nprobe", "centroids": "codebook model index", "distances": "return_distances"}
NOTES = {  # nothing here has that name: words that the hint must have
    "fit": {"spherical": "np.linalg.norm", "cosine": "np.linalg.norm", "metric": "np.linalg.norm",
            "frozen": "predict -c", "frozen_centroids": "predict -c", "batch_size": "--memory",
            "sample_size": "--rows", "data_path": "fkm fit -k 100 data.npy", "resume": "--fresh", "weights": "twice",
            "algorithm": "Lloyd"},
}
COMMANDS = {"fit": "train cluster kmeans fit_predict Build", "predict": "assign search transform query encode label",
            "info": "inspect describe verify", "bench": "benchmark"}


def hint_of(*args):
    run = cli.fkm(*args, cwd=cli.TMP)
    lines = run.stderr.splitlines()
    cli.check_equal((run.returncode, len(lines), run.stdout), (2, 2, ""), args, lines)
    return lines[1] if len(lines) > 1 else ""


def options_of(command):
    return set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", cli.fkm(command, "--help", cwd=cli.TMP).stdout, re.M))


def table_words():
    """All words of the tables of options and commands."""
    with open(os.path.join(cli.SRC, "cmd", "opt_words.c")) as f:
        source = f.read()
    out = []
    for table in ("option_words", "command_words"):
        text = re.search(rf"opt_word {table}\[\] = {{(.*?)\n}};", source, re.S)[1]
        rows = re.findall(r'\{((?:\s*"[^"]*")+),', text)
        out.append([w for row in rows for w in " ".join(re.findall(r'"([^"]*)"', row)).split()])
    return out


def check_all_words(known):
    """Every hint of the table names options and commands that there are."""
    options, commands = table_words()
    cli.check(len(options) > 200 and len(commands) > 30, "the tables", len(options), len(commands))
    every = set().union(*known.values())
    for word in options[::8] if cli.SLOW else options:
        for command in ("fit", "predict"):
            if word in known[command]:
                continue
            hint = hint_of(command, "--" + word, "x.npy")
            cli.check("did you mean" not in hint and "--help lists" not in hint, command, word, hint)
            named = set(re.findall(r"--([a-z-]+)", hint))
            cli.check(named <= every, command, word, "names what is not there", named - every)
            if "here it is" in hint:
                cli.check(named & known[command], command, word, hint)
    for word in commands:
        hint = hint_of(word)
        for command in re.findall(r"'fkm ([a-z]+)", hint):
            cli.check(command in known, word, hint)
        cli.check(set(re.findall(r"--([a-z-]+)", hint)) <= every | {"version"}, word, hint)


def check_expected():
    for table, command in ((FIT, "fit"), (PREDICT, "predict")):
        for ours, words in table.items():
            for word in words.split():
                hint = hint_of(command, "--" + word, "5")
                cli.check(re.match(rf"hint: (here it is|did you mean) --{ours}\b(?!-)", hint), command, word, hint)
    for command, table in NOTES.items():
        for word, part in table.items():
            cli.check(part in hint_of(command, "--" + word, "5"), command, word, part)
    for ours, words in COMMANDS.items():
        for word in words.split():
            cli.check(f"'fkm {ours}" in hint_of(word), word, "is", ours)


def check_exact(known):
    """No part of a name is taken for the name."""
    for command, names in known.items():
        for name in names:
            short = name[:-1]
            if short not in names:
                hint = hint_of(command, "--" + short, "a", "b")      # two operands: no bench begins
                cli.check(f"--{name}" in hint or "here it is" in hint or len(short) < 3, command, short, hint)
    cli.check("--memory" in hint_of("fit", "--mem", "2G"), "--mem")
    cli.check("--device" in hint_of("fit", "--gpu", "2"), "--gpu is not --gpu-memory")


def check_one_liner():
    """The hint for cosine, followed."""
    d = cli.new_directory()
    command = re.search(r'python3 (-c .*)$', hint_of("fit", "--spherical"))
    cli.check(command, "the hint has no command")
    cli.save(d, "a.npy", cli.npy([[3.0, 4.0], [0.0, 2.0]]))
    if not command or subprocess.run([sys.executable, "-c", "import numpy"], capture_output=True).returncode:
        return
    subprocess.run(f"'{sys.executable}' {command[1]}", shell=True, cwd=d, check=True)
    shape, values = cli.load_npy(os.path.join(d, "unit.npy"))
    cli.check(shape == (2, 2) and all(abs(a - b) < 1e-6 for a, b in zip(values, (0.6, 0.8, 0, 1))), values)


def main():
    known = {command: options_of(command) for command in ("fit", "predict", "info", "bench")}
    check_expected()
    check_all_words(known)
    check_exact(known)
    check_one_liner()
    cli.finish()


main()
