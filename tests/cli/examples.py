#!/usr/bin/python3
"""Runs the examples of the manual and of README.md as they are written there, on small data, and those of
fkm-recovery(7) with every status that fkm may end with."""
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import cli

SMALL = [("-k 32k", "-k 30"), ("-k 32768", "-k 30"), ("-k 1000", "-k 40"), ("k1000", "k40")]


def plain(roff):
    text = re.sub(r"\\f[A-Z]", "", roff)
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "").replace("\\e", "\\")


def page(name):
    with open(os.path.join(cli.SRC, "man", name)) as f:
        return f.read()


def examples(name):
    """{subsection: [block, ...]} of EXAMPLES."""
    section = page(name).split(".SH EXAMPLES\n")[1].split("\n.SH ")[0]
    found = {}
    for part in ("\n" + section).split("\n.SS "):
        title, _, text = part.partition("\n")
        found[title] = [plain(b) for b in re.findall(r"^\.nf\n(.*?)^\.fi$", text, re.M | re.S)]
    return found


def small(text):
    for old, new in SMALL:
        text = text.replace(old, new)
    return text


def script(directory, name, text):
    path = os.path.join(directory, "bin", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


def inputs():
    """Files of the names that examples use, and the other programs in them."""
    d = cli.new_directory()
    rows = cli.noise(200, 4)
    for name in ("data", "vectors", "new", "cut"):
        cli.save(d, name + ".fvecs", cli.fvecs(rows)[:-5 if name == "cut" else None])
        cli.save(d, name + ".npy", cli.npy(rows))
    cli.save(d, "big.u8bin", (4).to_bytes(4, "little") * 2 + bytes(range(16)) * 64)
    with open(os.path.join(d, "big.u8bin"), "r+b") as f:
        f.write((256).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    with open(os.path.join(d, "v.fbin"), "wb") as f:
        f.write((200).to_bytes(4, "little") + (4).to_bytes(4, "little") + cli.npy(rows)[-200 * 16:])
    shutil.copy(os.path.join(cli.SRC, "tests/data/glove-10k-100d.fvecs"), d)
    os.mkdir(os.path.join(d, "out"))
    script(d, "producer", "cat new.npy\n")
    script(d, "jq", "exec grep -q '\"inertia\"'\n")
    try:
        import h5py
        with h5py.File(os.path.join(d, "data.h5"), "w") as f:
            f["train"] = rows
    except ImportError:
        print("without h5py: lines with .h5 are left out")
    for args in (["-k", "40", "data.fvecs"], ["-k", "40", "-o", "old.k40", "data.npy"], ["-k", "40", "vectors.fvecs"],
                 ["-k", "40", "-o", "cent", "--format", "fvecs", "data.npy"]):
        cli.check_equal(cli.fkm("fit", "-q", *args, cwd=d).returncode, 0, args)
    shutil.copy(os.path.join(d, "cent.centroids.fvecs"), os.path.join(d, "cent.fvecs"))
    return d


def shell(d, text, interpreter="/bin/sh", **env):
    """As in a directory with nothing but inputs: earlier outputs of the same example may be replaced."""
    env = cli.clean_environment(**env)
    env["PATH"] = os.path.join(d, "bin") + ":" + env["PATH"]
    return subprocess.run([interpreter, "-c", text], cwd=d, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120)


def runnable(d, line):
    return not (".h5" in line and not os.path.exists(os.path.join(d, "data.h5")))


def without_outputs(d):
    """Where each line is tried: a command as it stands there, over nothing that it would have to replace."""
    copy = cli.new_directory()
    os.rmdir(copy)
    shutil.copytree(d, copy)
    return copy


def check_lines(d, where, lines, statuses):
    for line in lines:
        line = small(line.split("   #")[0].strip().removeprefix("$ "))
        if not re.match(r"(fkm|cmp|producer) ", line) or not runnable(d, line):
            continue
        place = without_outputs(d)
        made = re.search(r"fkm fit (?!.*--dry-run).*?(\S+)\.(fvecs|npy)(?:$| |;)", line)
        for path in glob.glob(os.path.join(place, f"{made[1]}.k40.*")) if made and " -o " not in line else []:
            os.unlink(path)
        for path in glob.glob(os.path.join(place, "*.k40.*")) if "*.npy" in line else []:
            os.unlink(path)
        if line.startswith("fkm bench"):        # minutes: only that the options are there
            run = shell(place, line.split(">")[0] + " a b")
            cli.check_equal(run.returncode, 2, where, line)
            cli.check("option" not in run.stderr.splitlines()[0], where, line, run.stderr)
            continue
        if line.startswith("cmp"):
            line = "fkm fit -q -k 100 glove-10k-100d.fvecs && fkm predict -q -c glove-10k-100d.k100 " \
                   "glove-10k-100d.fvecs && " + line
        if "info glove" in line:
            line = "fkm fit -q -k 100 glove-10k-100d.fvecs && " + line
        if "predict -c glove" in line:
            line = "fkm fit -q -k 100 glove-10k-100d.fvecs && " + line
        run = shell(place, line)
        cli.check_equal(run.returncode, statuses.get(line, 0), where, line, run.stdout, run.stderr)
        shutil.rmtree(place)


def check_pages(d):
    for name in ("fkm.1", "fkm-fit.1", "fkm-predict.1", "fkm-info.1", "fkm-bench.1"):
        for blocks in examples(name).values():
            for block in blocks:
                check_lines(d, name, block.splitlines(), {})
    check_lines(d, "fkm-recovery.7", "".join(examples("fkm-recovery.7")["What a run will need"]).splitlines(), {})
    with open(os.path.join(cli.SRC, "README.md")) as f:
        for block in re.findall(r"^```\n(.*?)^```$", f.read(), re.M | re.S):
            check_lines(d, "README.md", block.splitlines(), {"fkm fit -k 100 cut.fvecs": 3})


# ---- fkm-recovery(7) ----

def fake(d, *statuses):
    """An fkm that ends with these, one after the other, and notes how often it was called."""
    cli.save(d, "statuses", "".join(f"{s}\n" for s in statuses).encode())
    script(d, "fkm", 'echo "$*" >> calls\nread -r status < statuses\nsed -i 1d statuses\nexit "$status"\n')


def calls(d, name="calls"):
    path = os.path.join(d, name)
    if not os.path.exists(path):
        return []
    with open(path) as f:
        lines = f.read().splitlines()
    os.unlink(path)
    return lines


def check_slurm(block):
    d = cli.new_directory()
    script(d, "srun", 'exec "$@"\n')
    script(d, "scontrol", 'echo "$*" >> requeued\n')
    for status in (0, 1, 2, 3, 4, 5, 6, 75, 130, 138, 143, 137):
        fake(d, status)
        run = shell(d, block, SCRATCH=d, SLURM_JOB_ID="17")
        again = status in (75, 138)
        cli.check_equal(run.returncode, 0 if again else status, "Slurm", status, run.stderr)
        cli.check_equal((len(calls(d)), calls(d, "requeued")), (1, ["requeue 17"] if again else []), "Slurm", status)


def check_loop(block):
    d = cli.new_directory()
    for statuses in ((0,), (75, 75, 0), (75, 3), (4,), (75, 143)):
        fake(d, *statuses)
        run = shell(d, block)
        cli.check_equal((run.returncode, len(calls(d))), (statuses[-1], len(statuses)), "loop", statuses, run.stderr)


def nights(line, d, environment):
    """The first night, one that was interrupted, one with new data, and one with a full disk's status."""
    def night(text=line):
        return subprocess.run(["/bin/sh", "-c", text], cwd="/", env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
    run = night()
    cli.check_equal((run.returncode, run.stdout + run.stderr), (0, ""), "the first night", line)
    # Without an end to its iterations, to be interrupted; the next night has other data, or other options.
    rows = cli.noise(40000, 8, seed=3)
    cli.save(d, "vectors.fvecs", cli.fvecs(rows))
    for path in glob.glob(os.path.join(d, "index.*")):
        os.unlink(path)
    p = subprocess.Popen(["/bin/sh", "-c", "exec " + line.split("&& ")[-1] + " -t 0 -n 1000000 -k 1000 --checkpoint 1ms"],
                         cwd=d, env=environment, stderr=subprocess.PIPE, text=True)
    while p.poll() is None and "index.checkpoint" not in os.listdir(d):
        time.sleep(0.01)
    p.terminate()
    _, err = p.communicate(timeout=60)
    cli.check_equal(p.returncode, 143, "an interrupted night", err)
    cli.check("index.checkpoint" in os.listdir(d), "no state", os.listdir(d))
    cli.save(d, "vectors.fvecs", cli.fvecs(rows[:1200]))
    run = night()
    cli.check_equal((run.returncode, run.stdout + run.stderr), (0, ""), "new data after an interrupted night")
    cli.check_equal(cli.fkm("info", "-q", "index", cwd=d).returncode, 0)
    run = night()
    cli.check_equal((run.returncode, run.stdout + run.stderr), (0, ""), "the night after")


def check_cron(block):
    d = inputs()
    path, line = block.strip().splitlines()
    cli.check_equal(path, "PATH=/usr/local/bin:/usr/bin:/bin")
    fields = line.split(None, 5)
    cli.check_equal(fields[:5], ["0", "2", "*", "*", "*"])
    environment = {"PATH": path.split("=")[1].replace("/usr/local/bin", os.path.dirname(cli.FKM)), "HOME": "/"}
    nights(small(fields[5]).replace("cd /data ", f"cd {shlex.quote(d)} "), d, environment)


def unit(text):
    """{key: value} of one file."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def check_systemd(block):
    d = inputs()
    service, timer = re.split(r"\n\n", block.strip())
    keys = unit(service)
    cli.check_equal(keys["Type"], "oneshot")
    success = {0, *map(int, keys["SuccessExitStatus"].split())}
    cli.check_equal(success, {0, 75, 128 + signal.SIGTERM}, "what is no failure")
    cli.check(keys["ExecStart"].startswith("/usr/local/bin/fkm "), keys["ExecStart"])
    command = small(keys["ExecStart"]).replace("/usr/local/bin/fkm", shlex.quote(cli.FKM))
    nights(f"cd {shlex.quote(d)} && {command}", d, {"HOME": "/"})
    cli.check_equal(unit(timer)["Persistent"], "true")
    if shutil.which("systemd-analyze"):
        os.makedirs(os.path.join(d, "units"))
        cli.save(d, "units/index.service", service.replace("/usr/local/bin/fkm", cli.FKM).replace("=/data", "=" + d).encode())
        cli.save(d, "units/index.timer", timer.encode())
        run = subprocess.run(["systemd-analyze", "verify", "--man=no", "index.service", "index.timer"],
                             cwd=os.path.join(d, "units"), capture_output=True, text=True, timeout=60)
        mine = [line for line in run.stderr.splitlines() if "index." in line]
        cli.check_equal(mine, [], "systemd-analyze verify")


def main():
    check_pages(inputs())
    blocks = examples("fkm-recovery.7")
    check_cron(*blocks["cron"])
    check_systemd(*blocks["systemd"])
    check_slurm(*blocks["Slurm"])
    check_loop(*blocks["A loop"])
    cli.check_equal(sorted(k for k, v in blocks.items() if v),
                    sorted(["cron", "systemd", "Slurm", "A loop", "What a run will need"]), "examples without a test")
    cli.finish()


main()
