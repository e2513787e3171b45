#!/usr/bin/python3
"""Signals during a run: 128+N, the state kept or nothing left; a second one quits at once, the same one twice is
one; nohup is respected."""
import os
import resource
import signal
import subprocess
import time

import cli

ROWS, DIMS, K = 100000, 8, 1000     # with -t 0: hundreds of iterations, unless it is stopped
CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


def start(d, *extra, ignore=()):
    def child():
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN if number in ignore else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    p = subprocess.Popen([cli.FKM, "fit", "-k", str(K), "-t", "0", "-j", "1", "-n", "1000000", "-o", "run",
                          "--progress", "always", *extra, "x.npy"], cwd=d, env=cli.clean_environment(),
                         preexec_fn=child, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = p.stderr.readline()      # the header comes with the first iteration
    cli.check("x.npy" in first, "header", first)
    cli.check("iter 1 " in p.stderr.readline(), "first iteration")
    return p


def left(d):
    return [x for x in os.listdir(d) if x != "x.npy"]


def check_reader_went_away():
    """As with 'fkm help | head -1': it has seen what it wanted, there is nothing to say, and outputs are there."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(30, 2)))
    for command, left_there in ((["info", "x.npy"], []), (["fit", "--help"], []), (["help", "formats"], []),
                                (["info", "--json", "x.npy"], []), (["bench", "--quick"], []),
                                (["fit", "-k", "2", "-o", "p", "x.npy"],
                                 ["p.centroids.npy", "p.labels.npy", "p.stats.json"])):
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run([cli.FKM, *command], cwd=d, stdout=writer, stderr=subprocess.PIPE, text=True,
                             env=cli.clean_environment())
        os.close(writer)
        cli.check_equal((run.returncode, run.stderr),
                        (0, ""), command)
        cli.check_equal(sorted(left(d)), left_there, command)


def check_twice(d):
    """A launcher forwards what the terminal has sent to its children too: one key press, two signals."""
    p = start(d)
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGCONT):
        p.send_signal(number)
    while "SigPnd:\t0000000000000000" not in status(p) or "ShdPnd:\t0000000000000000" not in status(p):
        time.sleep(0.001)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    cli.check_equal(p.returncode, 130, "the same signal twice")
    cli.check_equal(left(d), ["run.checkpoint"], "the same signal twice")
    os.unlink(os.path.join(d, "run.checkpoint"))


def status(p):
    try:
        with open(f"/proc/{p.pid}/status") as f:
            return f.read()
    except OSError:      # it has ended
        return "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000"


def check_cpu_time(d):
    """A limit whose soft and hard values are one kills at once: SIGXCPU comes before it."""
    if cli.SLOW:
        return
    run = cli.fkm("fit", "-q", "-k", K, "-t", 0, "-n", 1000000, "-j", 1, "--isa", "scalar", "-o", "run", "x.npy",
                  cwd=d, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (2, 2)))
    cli.check_equal(run.returncode, 128 + signal.SIGXCPU, run.stderr)
    cli.check_equal(left(d), ["run.checkpoint"], "a limit on CPU time")
    os.unlink(os.path.join(d, "run.checkpoint"))


def main():
    check_reader_went_away()
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(ROWS, DIMS)))

    for number in CAUGHT:
        p = start(d)
        cli.check(".run.lock" in left(d), "no lock while it runs")
        p.send_signal(number)
        _, err = p.communicate(timeout=60)
        cli.check_equal(p.returncode, 128 + number, number)
        last = err.strip().splitlines()[-2:]
        cli.check(last[0].startswith(f"fkm: stopped by signal {int(number)} (")
                  and last[0].endswith("; the state is in run.checkpoint"), number, last)
        cli.check_equal(last[1], "hint: the same command goes on from there; --fresh starts anew", number)
        cli.check_equal(left(d), ["run.checkpoint"], number, "left behind")
        os.unlink(os.path.join(d, "run.checkpoint"))
        if number not in CAUGHT[:3]:
            continue
        p = start(d, "--checkpoint", "off")
        p.send_signal(number)
        _, err = p.communicate(timeout=60)
        cli.check_equal(p.returncode, 128 + number, number)
        last = err.strip().splitlines()[-1]
        cli.check(last.startswith(f"fkm: stopped by signal {int(number)} (")
                  and last.endswith("; nothing was written"), number, last)
        cli.check_equal(left(d), [], number, "left behind")

    # Ignored at the start (nohup): stays ignored.
    p = start(d, ignore=(signal.SIGHUP,))
    p.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    cli.check(p.poll() is None, "a run under nohup ended")
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=60)
    cli.check_equal(p.returncode, 143)
    os.unlink(os.path.join(d, "run.checkpoint"))

    check_twice(d)
    check_cpu_time(d)

    # While the first signal waits for the program, which is not running, a second one arrives.
    p = start(d)
    p.send_signal(signal.SIGSTOP)
    p.send_signal(signal.SIGINT)
    p.send_signal(signal.SIGTERM)
    p.send_signal(signal.SIGCONT)
    p.communicate(timeout=60)
    cli.check(p.returncode in (-signal.SIGINT, -signal.SIGTERM), "the second signal", p.returncode)
    # What it left is cleared up by the next run.
    run = cli.fkm("fit", "-q", "-k", 2, "-n", 1, "-o", "run", "x.npy", cwd=d)
    cli.check_equal(run.returncode, 0, run.stderr)
    cli.check_equal(sorted(left(d)), ["run.centroids.npy", "run.labels.npy", "run.stats.json"])

    # An earlier run survives a stop.
    p = start(d, "-f")
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    cli.check_equal(p.returncode, 130)
    cli.check_equal(cli.fkm("info", "-q", "run", cwd=d).returncode, 0)
    cli.finish()


main()
