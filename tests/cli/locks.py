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


def check_lock_elsewhere():
    """A lock of another machine or container is one of a run there."""
    d = inputs()
    with open(os.path.join(d, ".run.lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(f"{os.getpid()} 00000001 node7\n")
        f.flush()
        run = cli.fkm("fit", "-k", 3, "-o", "run", "x.npy", cwd=d)
    cli.check_equal(run.returncode, 4)
    cli.check(f"in use by pid {os.getpid()} on node7, another machine or container\n" in run.stderr, run.stderr)


def check_no_lock():
    """What stands in the place of the lock and is none is left alone."""
    def precious():
        cli.save(d, "precious", b"1 2 precious\n")
    def hard_link():
        os.link(os.path.join(d, "precious"), lock)
    def symbolic_link():
        os.symlink("precious", lock)
    def other_content():
        cli.save(d, ".run.lock", b"my notes\n")
    def large():
        cli.save(d, ".run.lock", b"1 " + b"x" * 5000 + b"\n")
    def binary():
        cli.save(d, ".run.lock", b"1 \0\n")
    def folder():
        os.mkdir(lock)
    def pipe():
        os.mkfifo(lock)
    def stranger():
        cli.save(d, ".run.lock", b"12 00000001 node7\n")
        os.chown(lock, 4711, 4711)
    cases = [hard_link, symbolic_link, other_content, large, binary, folder, pipe]
    for make in cases + ([stranger] if os.geteuid() == 0 else []):
        d = inputs()
        lock = os.path.join(d, ".run.lock")
        precious()
        make()
        run = cli.fkm("fit", "-k", 3, "-o", "run", "x.npy", cwd=d, timeout=60)
        cli.check_equal(run.returncode, 4, make.__name__, run.stderr)
        cli.check(".run.lock" in run.stderr, make.__name__, run.stderr)
        with open(os.path.join(d, "precious"), "rb") as f:
            cli.check_equal(f.read(), b"1 2 precious\n", make.__name__)
        cli.check_equal(sorted(os.listdir(d)), [".run.lock", "c.npy", "precious", "x.npy"], make.__name__)


def check_links():
    """A link that a stranger put into a directory for all is not followed; one's own and root's are."""
    d = inputs()
    shared, elsewhere = os.path.join(d, "shared"), os.path.join(d, "elsewhere")
    os.mkdir(shared)
    os.mkdir(elsewhere)
    for mode, owner, code in ((0o1777, 4711, 4), (0o777, 4711, 4), (0o755, 4711, 0), (0o1777, os.geteuid(), 0)):
        if owner != os.geteuid() and os.geteuid() != 0:
            continue
        victim = cli.save(elsewhere, "victim", b"precious")
        os.chmod(shared, mode)
        for name in ("run.labels.npy", "l.npy"):
            os.symlink(victim, os.path.join(shared, name))
            os.chown(os.path.join(shared, name), owner, owner if owner != os.geteuid() else -1, follow_symlinks=False)
        for args in (["fit", "-q", "-f", "-k", 3, "-o", "shared/run", "x.npy"],
                     ["predict", "-q", "-f", "-c", "c.npy", "-o", "shared/l.npy", "x.npy"]):
            cli.save(elsewhere, "victim", b"precious")
            run = cli.fkm(*args, cwd=d)
            cli.check_equal(run.returncode, code, mode, owner, run.stderr)
            with open(victim, "rb") as f:
                cli.check_equal(f.read() == b"precious", code == 4, mode, owner, args[0])
            cli.check(code == 0 or "is a symbolic link of user 4711" in run.stderr, run.stderr)
        for name in os.listdir(shared):
            os.unlink(os.path.join(shared, name))


def check_leftovers():
    d, here = inputs(), cli.system_id()
    gone, lives = f"{cli.dead_pid()}-{here}", f"{os.getpid()}-{here}"
    foreign, held = f"{os.getpid()}-00000001", f"{os.getpid()}-00000002"
    mine = [f".run.labels.npy.tmp.{gone}", f".run.centroids.npy.tmp.{gone}", f".run.stats.json.tmp.{gone}",
            f".run.labels.npy.tmp.{foreign}", f".run.stats.json.set.{gone}"]
    others = [f".run.labels.npy.tmp.{lives}", f".run2.labels.npy.tmp.{gone}", ".run.labels.npy.tmp.x",
              ".run.labels.npy.tmp.", f"run.labels.npy.tmp.{gone}", f".run.labels.npy.temp.{gone}",
              f".run.labels.npy.tmp.{gone}0", f".run.labels.npy.tmp.{held}", f".run.stats.json.set.{lives}",
              f".run.labels.npy.old.{gone}"]
    for name in mine + others:
        cli.save(d, name, b"left over")
    with open(os.path.join(d, f".run.labels.npy.tmp.{held}"), "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)        # of a run on another machine
        run = cli.fkm("fit", "-q", "-f", "-k", 3, "-o", "run", "x.npy", cwd=d)
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    left = os.listdir(d)
    for name in mine:
        cli.check(name not in left, name, "was not removed")
    for name in others:
        cli.check(name in left, name, "is none of ours and was removed")


NAMES = ["run.labels.npy", "run.centroids.npy", "run.stats.json"]


def check_restored():
    """Killed between setting the earlier run aside and committing the new one."""
    for new_names in (NAMES, ["run.labels.ivecs", *NAMES]):
        d, gone = inputs(), f"{cli.dead_pid()}-{cli.system_id()}"
        cli.fkm("fit", "-q", "-k", 3, "-o", "run", "x.npy", cwd=d)
        for name in NAMES:
            os.link(os.path.join(d, name), os.path.join(d, f".{name}.old.{gone}"))
        os.unlink(os.path.join(d, "run.stats.json"))
        os.unlink(os.path.join(d, "run.labels.npy"))
        cli.save(d, "run.labels.npy", b"of the new run")
        content = {"run.labels.npy": b"of the new run", "run.labels.ivecs": b"too"}
        if len(new_names) > 3:       # the killed run wrote another format, which had not been there
            cli.save(d, "run.labels.ivecs", b"too")
        cli.save(d, f".run.stats.json.set.{gone}", cli.exchange_record(d, new_names, existed=NAMES, content=content))
        run = cli.fkm("fit", "-k", 3, "-o", "run", "x.npy", cwd=d)
        cli.check_equal(run.returncode, 4, run.stderr)
        cli.check("/run.stats.json: a run was killed while it replaced it" in run.stderr and
                  "run.labels.npy exists" in run.stderr, run.stderr)
        cli.check_equal(cli.fkm("info", "-q", "run", cwd=d).returncode, 0, "the earlier run is back")
        cli.check_equal(sorted(os.listdir(d)), sorted(["c.npy", "x.npy", *NAMES]))


def check_not_its_own():
    """Without -f only what a killed run is proved to have made goes away."""
    here = cli.system_id()
    for what in ("empty marker", "other content", "existed", "stranger", "cut", "link", "relative"):
        d, gone = inputs(), f"{cli.dead_pid()}-{here}"
        cli.save(d, "run.labels.npy", b"mine")
        record = cli.exchange_record("." if what == "relative" else d, NAMES,
                                     existed=NAMES[:1] if what == "existed" else (),
                                     content={"run.labels.npy": b"MINE" if what == "other content" else b"mine"})
        place = f".run.stats.json.set.{gone}"
        if what == "empty marker":
            cli.save(d, f".run.stats.json.tmp.{gone}", b"")
        else:
            cli.save(d, place, record[:-4] if what == "cut" else record)
        if what == "link":
            os.link(os.path.join(d, place), os.path.join(d, "another name"))
        if what == "stranger":
            if os.geteuid() != 0:
                continue
            os.chown(os.path.join(d, place), 4711, 4711)
        run = cli.fkm("fit", "-k", 3, "-o", "run", "x.npy", cwd=d)
        cli.check_equal(run.returncode, 4, what, run.stderr)
        cli.check("output run.labels.npy exists" in run.stderr, what, run.stderr)
        with open(os.path.join(d, "run.labels.npy"), "rb") as f:
            cli.check_equal(f.read(), b"mine", what)


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
    check_lock_elsewhere()
    check_no_lock()
    check_links()
    check_not_its_own()
    check_leftovers()
    check_restored()
    check_unwritable()
    check_unwritable_as_nobody()
    check_no_space()
    cli.finish()


main()
