#!/usr/bin/python3
"""Progress: a live line on a terminal, lines at powers of two in a log, silence for short runs; colour."""
import os
import pty
import re
import signal
import subprocess

import cli


def on_terminal(d, args, until=None, **env):
    """Exit status and what a terminal on stderr got; interrupted when `until` has been seen."""
    parent, child = pty.openpty()
    p = subprocess.Popen([cli.FKM, *map(str, args)], cwd=d, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=child, env=cli.clean_environment(**dict({"TERM": "xterm"}, **env)))
    os.close(child)
    text = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:          # Linux: the other side is closed
            break
        if not part:
            break
        text += part
        if until and re.search(until, text.decode(errors="replace")):
            p.send_signal(signal.SIGINT)
            until = None
    os.close(parent)
    return p.wait(), text.decode()


def check_log(d):
    run = cli.fkm("fit", "-q", "-k", 50, "-t", 0, "-o", "a", "--progress", "always", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "quiet wins")
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "b", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "a short run says nothing in a log")
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "c", "--progress", "always", "x.npy", cwd=d)
    lines = run.stderr.splitlines()
    cli.check(re.match(r"x\.npy  3000 x 4 float32  [\d.]+ KiB   k=50   cpu: \w+, \d+ threads?$", lines[0]), lines[0])
    shown = [int(re.match(r"iter (\d+) ", line)[1]) for line in lines[1:]]
    count = int(re.search(r"iterations  (\d+)", run.stdout)[1])
    cli.check_equal(shown, [2**i for i in range(20) if 2**i <= count], "lines at powers of two")
    cli.check(count >= 4, "the run is too short to show it", count)
    for line in lines[2:]:
        cli.check(re.match(r"iter \d+  inertia [\d.e+]+ \(-[\d.]+%\)  moved [\d.]+%  [\d.e-]+ s$", line), line)
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "g", "--restarts", 3, "--progress", "always", "x.npy", cwd=d)
    shown = [re.match(r"start (\d+)/3  iter (\d+)  inertia [\d.e+]+ +(\(-|moved)", line)
             for line in run.stderr.splitlines()[1:]]
    cli.check(all(shown), "lines of several starts", run.stderr)
    cli.check_equal([m[1] for m in shown if m[2] == "1"], ["1", "2", "3"], "each start begins with iteration 1")
    cli.check(all(m[3] == "moved" for m in shown if m[2] == "1"), "the first iteration has none to compare with")
    run = cli.fkm("fit", "-k", 50, "-o", "d", "--progress", "never", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "never")


def check_live(d):
    cli.save(d, "long.npy", cli.npy(cli.noise(100000, 8)))
    line = r"\riter \d+/1000000  inertia [\d.e+]+ \(-[\d.]+%\)  moved [\d.]+%  \[[#-]{16}\] \d+%"
    status, text = on_terminal(d, ["fit", "-k", 1000, "-t", 0, "-n", 1000000, "-o", "e", "long.npy"], until=line)
    cli.check_equal(status, 130, text[-300:])
    cli.check(re.search(line, text), "no live line in", text[:400])
    cli.check(re.search(r"\x1b\[K\r\x1b\[K\x1b\[1;31mfkm:\x1b\[0m stopped by signal 2", text), "the live line stays",
              repr(text[-200:]))
    for line in re.findall(r"\r(iter[^\r\x1b]*)", text):
        cli.check(len(line.replace("\x1b[K", "")) <= 79, "too wide for the terminal", line)
    status, text = on_terminal(d, ["fit", "-k", 50, "-o", "f", "--progress", "always", "x.npy"], TERM="dumb")
    cli.check("\x1b" not in text, "escapes for a dumb terminal", text)


def check_color(d):
    status, text = on_terminal(d, ["info", "missing.npy"])
    cli.check_equal(status, 4)
    cli.check(text.startswith("\x1b[1;31mfkm:\x1b[0m missing.npy"), repr(text))
    _, text = on_terminal(d, ["info", "missing.npy"], NO_COLOR="1")
    cli.check(text.startswith("fkm: missing.npy"), repr(text))
    _, text = on_terminal(d, ["info", "missing.npy"], NO_COLOR="")
    cli.check("\x1b" in text, "an empty NO_COLOR means nothing")


def main():
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.noise(3000, 4)))
    check_log(d)
    check_live(d)
    check_color(d)
    cli.finish()


main()
