#!/usr/bin/python3
"""Steps that take minutes by the plain C kernels are left at a signal within a second or so, and a plan of data
that is as bad as can be takes seconds. Limits are wide: other things may go on beside this."""
import signal
import subprocess
import time

import cli

ROWS, DIMS, K = 100000, 32, 100000      # 3e11 products a pass
LIMIT_S = 30


def await_handler(pid):
    """Until the program listens for SIGTERM: before, the signal just ends it."""
    while True:
        with open(f"/proc/{pid}/status") as f:
            caught = next((line.split()[1] for line in f if line.startswith("SigCgt")), "0")
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def check_stop(d, *args):
    p = subprocess.Popen([cli.FKM, *args, "-q", "--isa", "scalar"], cwd=d, env=cli.clean_environment(),
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    await_handler(p.pid)
    time.sleep(0.4)
    p.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    _, err = p.communicate()
    cli.check_equal(p.returncode, 143, args, err)
    cli.check(time.monotonic() - begin < LIMIT_S, "stopped after", time.monotonic() - begin, args)


def main():
    d = cli.new_directory()
    row = cli.numbers(7919)
    flat = (row * (ROWS * DIMS // len(row) + 1))[:ROWS * DIMS]
    data = cli.npy([flat], (ROWS, DIMS))
    cli.save(d, "x.npy", data)
    cli.save(d, "same.npy", cli.npy([[1.5] * (ROWS * DIMS)], (ROWS, DIMS)))
    fit = ["fit", "-k", str(K), "-f", "-o", "run", "--fresh"]
    check_stop(d, *fit, "x.npy")
    for method in ("k-means++", "k-means||"):
        check_stop(d, *fit, "-i", method, "x.npy")
    check_stop(d, *fit, "same.npy")
    check_stop(d, "predict", "-c", "x.npy", "-o", "l.npy", "x.npy")
    check_stop(d, "predict", "-c", "x.npy", "--top", "9", "-o", "l.npy", "x.npy")
    begin = time.monotonic()
    run = cli.fkm(*fit, "--dry-run", "same.npy", cwd=d)
    cli.check_equal(run.returncode, 0, run.stderr)
    cli.check(time.monotonic() - begin < LIMIT_S, "a plan took", time.monotonic() - begin)
    cli.finish()


main()
