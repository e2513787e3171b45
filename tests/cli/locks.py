#!/usr/bin/python3
"""Locks, leftovers of killed runs, and directories that cannot be written."""
import fcntl
import os
import shutil
import subprocess
import tempfile

import cli


def inputs():
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(30, 2)))
    cli.save(d, "c.npy", cli.npy(cli.blobs(3, 2)))
    return d


def dead_pid():
    p = subprocess.Popen(["true"])
    p.wait()
    return p.pid


def check_lock_held():
    d = inputs()
    for name, args in ((".run.lock", ["fit", "-k", 3, "-o", "run", "x.npy"]),
                       (".l.npy.lock", ["predict", "-c", "c.npy", "-o", "l.npy", "x.npy"])):
        with open(os.path.join(d, name), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.write(f"{os.getpid()}\n")
            f.flush()
            run = cli.fkm(*args, cwd=d)
            cli.check_equal(run.returncode, 4, name)
            cli.check(f"in use by pid {os.getpid()}\nhint: " in run.stderr, name, run.stderr)
            cli.check(os.path.exists(os.path.join(d, name)), "the lock of another was removed")
        # A lock file that nobody holds is no lock.
        run = cli.fkm(*args, cwd=d)
        cli.check_equal(run.returncode, 0, name, run.stderr)
        cli.check(not os.path.exists(os.path.join(d, name)), name, "stays")


def check_other_outputs_are_free():
    d = inputs()
    with open(os.path.join(d, ".run.lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        cli.check_equal(cli.fkm("fit", "-q", "-k", 3, "-o", "other", "x.npy", cwd=d).returncode, 0)


def check_leftovers():
    d, gone = inputs(), dead_pid()
    mine = [f".run.labels.npy.tmp.{gone}", f".run.centroids.npy.tmp.{gone}", f".run.stats.json.tmp.{gone}",
            f".run.labels.npy.old.{gone}"]
    others = [f".run.labels.npy.tmp.{os.getpid()}", f".run2.labels.npy.tmp.{gone}", ".run.labels.npy.tmp.x",
              ".run.labels.npy.tmp.", f"run.labels.npy.tmp.{gone}", f".run.labels.npy.temp.{gone}"]
    for name in mine + others:
        cli.save(d, name, b"left over")
    cli.save(d, "run.stats.json", b"{}")     # committed: the .old file is not needed
    run = cli.fkm("fit", "-q", "-f", "-k", 3, "-o", "run", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    left = os.listdir(d)
    for name in mine:
        cli.check(name not in left, name, "was not removed")
    for name in others:
        cli.check(name in left, name, "is none of ours and was removed")


def check_restored():
    """Killed between setting the earlier run aside and committing the new one."""
    d, gone = inputs(), dead_pid()
    cli.fkm("fit", "-q", "-k", 3, "-o", "run", "x.npy", cwd=d)
    for name in ("run.labels.npy", "run.centroids.npy", "run.stats.json"):
        os.link(os.path.join(d, name), os.path.join(d, f".{name}.old.{gone}"))
    os.unlink(os.path.join(d, "run.stats.json"))
    os.unlink(os.path.join(d, "run.labels.npy"))
    cli.save(d, "run.labels.npy", b"of the new run")
    run = cli.fkm("fit", "-k", 3, "-o", "run", "x.npy", cwd=d)
    cli.check_equal(run.returncode, 4, run.stderr)
    cli.check("restored run.stats.json" in run.stderr and "run.labels.npy exists" in run.stderr, run.stderr)
    cli.check_equal(cli.fkm("info", "-q", "run", cwd=d).returncode, 0, "the earlier run is back")
    cli.check_equal([x for x in os.listdir(d) if ".old." in x], [])


def check_unwritable():
    d = inputs()
    closed = os.path.join(d, "closed")
    os.mkdir(closed)
    os.chmod(closed, 0o555)
    if os.access(closed, os.W_OK):
        print("not checked: nothing is denied to root")
        return
    run = cli.fkm("fit", "-k", 3, "-o", "closed/run", "x.npy", cwd=d)
    cli.check_equal(run.returncode, 4)
    cli.check_equal(run.stderr.splitlines()[0], "fkm: cannot write in directory closed: Permission denied")
    os.chmod(closed, 0o755)


def check_unwritable_as_nobody():
    """The same for root, who must become somebody else first."""
    if os.geteuid() != 0:
        return
    # Not below the clone: that may lie where nobody else can go, as in root's home.
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        program = shutil.copy(cli.FKM, d)
        cli.save(d, "x.npy", cli.npy(cli.blobs(30, 2)))
        run = subprocess.run([program, "fit", "-k", "3", "-o", "run", "x.npy"], cwd=d, user=65534, group=65534,
                             extra_groups=[], env=cli.clean_environment(), capture_output=True, text=True)
        cli.check_equal(run.returncode, 4, run.stderr)
        cli.check_equal(run.stderr.splitlines()[0], "fkm: cannot write in directory .: Permission denied")


def check_no_space():
    """A file system too small for the outputs is noticed before the work."""
    small = os.path.join(cli.TMP, "small")
    os.mkdir(small)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True)
    if mount.returncode != 0:
        print("not checked: no right to mount a small file system")
        return
    try:
        d = inputs()
        run = cli.fkm("fit", "-k", 3, "-o", small + "/run", "x.npy", cwd=d)
        cli.check_equal(run.returncode, 4)
        cli.check("not enough space in " in run.stderr, run.stderr)
        cli.save(small, "filler", b"x" * 60000)
        big = cli.save(d, "big.npy", cli.npy(cli.blobs(9000, 1)))
        run = cli.fkm("predict", "-c", cli.save(d, "one.npy", cli.npy([[1.0]])), "-o", small + "/l.npy", big, cwd=d)
        cli.check_equal(run.returncode, 4, run.stderr)
        cli.check_equal(os.listdir(small), ["filler"], "left behind")
    finally:
        subprocess.run(["umount", small], check=True)


def main():
    check_lock_held()
    check_other_outputs_are_free()
    check_leftovers()
    check_restored()
    check_unwritable()
    check_unwritable_as_nobody()
    check_no_space()
    cli.finish()


main()
