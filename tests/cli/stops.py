#!/usr/bin/python3
"""Signals during a run: 128+N, the state kept or nothing left; a second one quits at once; nohup is respected."""
import os
import signal
import subprocess
import time

import cli

ROWS, DIMS, K = 100000, 8, 1000     # with -t 0: hundreds of iterations, unless it is stopped


def start(d, *extra, ignore=()):
    def child():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignore else signal.SIG_DFL)
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
                                (["info", "--json", "x.npy"], []),
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


def main():
    check_reader_went_away()
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(ROWS, DIMS)))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
