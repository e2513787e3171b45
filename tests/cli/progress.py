#!/usr/bin/python3
"""Progress: a live line on a terminal, lines at powers of two in a log, silence for short runs; colour."""
import os
import pty
import re
import signal
import subprocess
import time

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


def without_stages(text):
    """Lines of a log but those of what lasts, which depend on how busy the machine is."""
    return [line for line in text.splitlines() if "inertia" in line or "float32" in line]


def check_log(d):
    run = cli.fkm("fit", "-q", "-k", 50, "-t", 0, "-o", "a", "--progress", "always", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "quiet wins")
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "b", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "a short run says nothing in a log")
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "c", "--progress", "always", "x.npy", cwd=d)
    lines = without_stages(run.stderr)
    cli.check(re.match(r"x\.npy  3000 x 4 float32  [\d.]+ KiB   k=50   cpu: \w+, \d+ threads?$", lines[0]), lines[0])
    shown = [int(re.match(r"iter (\d+) ", line)[1]) for line in lines[1:]]
    count = int(re.search(r"iterations  (\d+)", run.stdout)[1])
    cli.check_equal(shown, [2**i for i in range(20) if 2**i <= count], "lines at powers of two")
    cli.check(count >= 4, "the run is too short to show it", count)
    for line in lines[2:]:
        cli.check(re.match(r"iter \d+  inertia [\d.e+]+ \(-[\d.]+%\)  moved [\d.]+%  [\d.e-]+ s$", line), line)
    run = cli.fkm("fit", "-k", 50, "-t", 0, "-o", "g", "--restarts", 3, "--progress", "always", "x.npy", cwd=d)
    shown = [re.match(r"start (\d+)/3  iter (\d+)  inertia [\d.e+]+ +(\(-|moved)", line)
             for line in without_stages(run.stderr)[1:]]
    cli.check(all(shown), "lines of several starts", run.stderr)
    cli.check_equal([m[1] for m in shown if m[2] == "1"], ["1", "2", "3"], "each start begins with iteration 1")
    cli.check(all(m[3] == "moved" for m in shown if m[2] == "1"), "the first iteration has none to compare with")
    run = cli.fkm("fit", "-k", 50, "-o", "d", "--progress", "never", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""), "never")


def check_live(d):
    """Of rows in memory that are one piece there is no bar; where there are parts it moves; a rate while rows are read."""
    cli.save(d, "long.npy", cli.npy(cli.noise(100000, 8)))
    head = r"\riter \d+/10000  inertia [\d.e+]+ \(-[\d.]+%\)  moved [\d.]+%"
    fit = ["fit", "-k", 1000, "-t", 0, "-n", 10000, "--checkpoint", "off", "-j", 1]
    line = head + r"  eta \w+\x1b"
    status, text = on_terminal(d, [*fit, "-o", "e", "long.npy"], until=line)
    cli.check_equal(status, 130, text[-300:])
    cli.check(re.search(line, text), "no live line in", text[:400])
    cli.check("[#" not in text and "[-" not in text, "what is not known is shown", text[:400])
    cli.check(re.search(r"\x1b\[K\r\x1b\[K\x1b\[1;31mfkm:\x1b\[0m stopped by signal 2", text), "the live line stays",
              repr(text[-200:]))
    check_lines_fit(text)
    line = head + r"(  \[[#-]{16}\])?  ?(33|66|98)%  [\d.]+ [MG]B/s"
    status, text = on_terminal(d, [*fit, "-m", "7M", "-o", "s", "long.npy"], until=line)
    cli.check_equal(status, 130, text[-300:])
    cli.check(re.search(line, text), "no live line of a stream in", text[:400])
    check_lines_fit(text)
    status, text = on_terminal(d, ["fit", "-k", 50, "-o", "f", "--progress", "always", "x.npy"], TERM="dumb")
    cli.check("\x1b" not in text, "escapes for a dumb terminal", text)


def check_lines_fit(text):
    for line in re.findall(r"\r(iter[^\r\x1b]*)", text):
        cli.check(len(line.replace("\x1b[K", "")) <= 79, "too wide for the terminal", line)


def check_stages(d):
    """What takes long is named in a log before the first iteration has ended."""
    p = subprocess.Popen([cli.FKM, "fit", "-k", "5000", "-t", "0", "-n", "100", "-j", "1", "--isa", "scalar", "-o", "t",
                          "--checkpoint", "off", "long.npy"], cwd=d, env=cli.clean_environment(),
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not os.path.exists(os.path.join(d, ".t.lock")):      # then progress begins
        time.sleep(0.01)
    time.sleep(0.1)
    p.send_signal(signal.SIGSTOP)     # time passes at no cost
    time.sleep(2.2)
    p.send_signal(signal.SIGCONT)
    lines = [p.stderr.readline(), p.stderr.readline()]
    p.kill()
    lines += p.communicate()[1].splitlines()
    cli.check(lines[0].startswith("long.npy  100000 x 8 float32 "), lines)
    cli.check(re.match(r"(reading rows|choosing the first centroids|iter 1/100)\b(?!.*inertia)", lines[1]), lines)


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
    check_stages(d)
    check_color(d)
    cli.finish()


main()
