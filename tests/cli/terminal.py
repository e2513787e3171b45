#!/usr/bin/python3
"""Whatever names and files hold, what fkm prints has no control characters, and JSON is JSON and lossless."""
import json
import os
import pty
import struct
import subprocess
import unicodedata
import urllib.parse

import cli

# C0 with ESC, BEL, newline, tab, CR; DEL; C1 as UTF-8 and as a bare byte; a turn of direction; Latin-1.
EVIL = b"a\x1b[31mr\x07\nn\tt\rc\x7fd\xc2\x9b31mq\x9b31m\xe2\x80\xaeb\xe9"
NPY = EVIL + b".npy"


def run(d, *args, env=None):
    variables = {os.fsencode(k): os.fsencode(v) for k, v in cli.clean_environment().items()}
    variables.update(env or {})
    return subprocess.run([cli.FKM, *args], cwd=d, capture_output=True, stdin=subprocess.DEVNULL, env=variables)


def check_clean(text, *what):
    try:
        shown = text.decode()
    except UnicodeDecodeError as e:
        cli.check(False, "not UTF-8", *what, text, e)
        return
    bad = {c for c in shown if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    cli.check(not bad, "control characters", bad, *what, text)
    cli.check(b"\nn\\x09" not in text, "a name ends a line", *what, text)


def said(d, *args, env=None, code=None):
    """What fkm prints, checked; `code`: its exit status, any if None."""
    p = run(d, *args, env=env)
    check_clean(p.stdout, args)
    check_clean(p.stderr, args)
    cli.check(p.returncode >= 0 and code in (None, p.returncode), args, p.returncode, p.stderr)
    return p


def tensors(*names):
    head = {n: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]} for i, n in enumerate(names)}
    head = json.dumps(head, ensure_ascii=False).encode()
    return struct.pack("<Q", len(head)) + head + bytes(16 * len(names))


def spoilt_npy(old, new):
    """A header of the same length whose text has `new` in it."""
    data = bytearray(cli.npy([[1.0, 2.0]] * 3))
    at = data.index(old)
    data[at:at + len(new)] = new
    return bytes(data)


def make_inputs(d):
    rows = cli.blobs(40, 2)
    with open(os.path.join(os.fsencode(d), NPY), "wb") as f:
        f.write(cli.npy(rows))
    os.mkdir(os.path.join(os.fsencode(d), EVIL))
    cli.save(d, "x.npy", cli.npy(rows))
    cli.save(d, "wide.npy", cli.npy(cli.blobs(5, 3)))
    cli.save(d, "one.safetensors", tensors("\x1b]0;pwn\x07\n\x9b"))
    cli.save(d, "two.safetensors", tensors("\x1b]0;pwn\x07\n\x9b", "\u202etwo"))
    cli.save(d, "type.npy", spoilt_npy(b"<f4", b"\x1bf4"))
    cli.save(d, "key.npy", spoilt_npy(b"descr", b"\x1b\n\x9b31"))
    mixed = bytearray(cli.fvecs(rows))
    mixed[36] = 9
    with open(os.path.join(os.fsencode(d), EVIL + b".fvecs"), "wb") as f:
        f.write(mixed)


def check_names_of_files(d):
    said(d, "fit", "-k", "3", "-v", "--progress", "always", NPY, code=0)
    prefix = EVIL + b".k3"
    said(d, "fit", "-k", "3", NPY, code=4)                                    # exists
    said(d, "fit", "-k", "99", "-o", "n", NPY, code=3)
    said(d, "fit", "-k", "3", "-f", NPY, "wide.npy", code=3)
    said(d, "fit", "-k", "3", "--dry-run", "-f", NPY, code=0)
    said(d, "fit", "-k", "3", "--restarts", "2", "-i", NPY, "x.npy", code=2)
    said(d, "fit", "-k", "3", "-i", EVIL + b".none", "x.npy", code=4)
    said(d, "fit", "-k", "3", "-o", EVIL + b"/none/x", NPY, code=4)
    said(d, "fit", "-k", "3", "-f", "--checkpoint", "off", "-o", EVIL + b"/r", NPY, code=0)
    said(d, "fit", "-k", "3", "-i", prefix, "-o", "again", NPY, code=0)
    said(d, "predict", "-c", prefix, "-o", EVIL + b".out.npy", NPY, code=0)
    said(d, "predict", "-c", prefix, "-o", EVIL + b".out", NPY, code=2)
    said(d, "predict", "-c", prefix, "wide.npy", code=3)
    said(d, "info", prefix, code=0)
    said(d, "info", "--full", NPY, code=0)
    said(d, "info", "--full", EVIL + b".fvecs", code=3)
    said(d, "info", EVIL + b".gone", code=4)
    said(d, "info", EVIL, code=4)
    said(d, "bench", "--quick", "-j", "1", "--isa", "scalar", "--grid", "9x2x3", EVIL + b".gone", code=4)
    said(d, "bench", "--quick", "-j", "1", "--grid", "9x2x3", env={b"TMPDIR": EVIL + b"/gone"}, code=4)
    with open(os.path.join(os.fsencode(d), prefix + b".labels.npy"), "ab") as f:
        f.write(b"x")
    said(d, "info", prefix, code=3)


def check_words(d):
    for word in (EVIL, b"--" + EVIL, b"--" + EVIL + b"=1", b"-" + EVIL, b"help"):
        said(d, word, *([EVIL] if word == b"help" else []), code=2)
    for word in (b"--" + EVIL, b"-" + EVIL, b"--json=" + EVIL):
        said(d, "fit", "-k", "2", word, "x.npy", code=2)
    for option in ("-k", "-n", "-t", "-s", "--empty", "--format", "--nan", "--checkpoint", "--rows", "--memory",
                   "--device", "--isa", "--dtype", "--gpu-memory", "--progress"):
        said(d, "fit", "-k", "2", option, EVIL, "x.npy", code=2)
    said(d, "fit", "-k", "2", "--dataset", EVIL, "x.npy", code=2)
    said(d, "fit", "-i", EVIL, "-vh", code=0)
    said(d, "bench", "--grid", EVIL, code=2)
    for name in (b"FKM_THREADS", b"FKM_MEMORY", b"FKM_DEVICE", b"FKM_ISA"):
        said(d, "fit", "-k", "2", "x.npy", env={name: EVIL}, code=2)


def check_content(d):
    said(d, "info", "one.safetensors", code=0)
    said(d, "fit", "-k", "2", "-v", "one.safetensors", code=0)
    said(d, "info", "two.safetensors", code=3)
    said(d, "info", "--dataset", EVIL, "two.safetensors", code=3)
    said(d, "info", "type.npy", code=3)
    said(d, "info", "key.npy", code=3)
    evil = "\x1b[31m\x07\n\x9b\u202e"
    outputs = [{"path": evil, "bytes": 1, "crc32c": "00000000"}]
    for name, stats in (("a", {"schema": evil}), ("b", {"schema": "fkm-stats/1", "outputs": evil}),
                        ("c", {"schema": "fkm-stats/1", "started_utc": evil, "status": evil, "outputs": outputs})):
        cli.save(d, name + ".stats.json", json.dumps(stats).encode())
        said(d, "info", name, code=3)
        said(d, "info", "--json", name, code=3)
        said(d, "predict", "-c", name, "x.npy", code=3)
    try:
        import h5py
    except ImportError:
        return
    if b"hdf5" not in run(d, "help", "formats").stdout:
        return
    with h5py.File(os.path.join(d, "one.h5"), "w") as f:
        f["\x1b]0;\x07\x9b"] = [[1.0, 2.0], [3.0, 4.0]]
    said(d, "info", "one.h5", code=0)
    with h5py.File(os.path.join(d, "one.h5"), "a") as f:
        f["two\n\x1b"] = [[1.0, 2.0], [3.0, 4.0]]
    said(d, "info", "one.h5", code=3)
    said(d, "info", "--dataset", EVIL, "one.h5", code=3)


def check_live(d):
    """On a terminal there are escapes, but none that a name brought."""
    parent, child = pty.openpty()
    env = cli.clean_environment(TERM="xterm")
    p = subprocess.Popen([cli.FKM, "fit", "-f", "-k", "3", "-o", "live", "--progress", "always", NPY], cwd=d, env=env,
                         stdin=subprocess.DEVNULL, stdout=child, stderr=child)
    os.close(child)
    text = b""
    try:
        while part := os.read(parent, 4096):
            text += part
    except OSError:          # Linux: the other side is closed
        pass
    os.close(parent)
    cli.check_equal(p.wait(), 0)
    cli.check(b"a\\x1b[31mr\\x07" in text, text)
    check_clean(text.replace(b"\r", b"").replace(b"\x1b[K", b""), "on a terminal")


def check_json(d):
    """Names come back byte for byte, from "path" or, when they are not UTF-8, from "path_encoded"."""
    latin, turned = b"donn\xe9es % \xe2\x82\xac.npy", "do\u202e\x9b\x7fn.npy".encode()
    for name in (latin, turned, NPY):
        with open(os.path.join(os.fsencode(d), name), "wb") as f:
            f.write(cli.npy(cli.blobs(30, 2)))
        stats = json.loads(said(d, "fit", "-f", "-k", "3", "--json", name, code=0).stdout)

        def path_of(o, field="path"):
            if field + "_encoded" in o:
                return urllib.parse.unquote_to_bytes(o[field + "_encoded"])
            return o[field].encode()
        cli.check_equal(path_of(stats["input"][0]), name)
        cli.check_equal("path_encoded" in stats["input"][0], name != turned)
        prefix = name[:-4] + b".k3"
        cli.check_equal([path_of(o) for o in stats["outputs"]],
                        [prefix + b".labels.npy", prefix + b".centroids.npy"])
        back = subprocess.run(["bash", "-c", "printf '%s\\0' " + stats["command"]], capture_output=True)
        cli.check_equal(back.stdout.split(b"\0")[1:-1], [b"fit", b"-f", b"-k", b"3", b"--json", name], "command")
        said(d, "info", prefix, code=0)
        found = json.loads(said(d, "info", "--json", prefix, code=0).stdout)
        cli.check_equal(path_of(found, "stats"), prefix + b".stats.json")
        cli.check_equal(found["verified"], True)
        made = json.loads(said(d, "predict", "-f", "-c", prefix, "--json", "-o", "p.npy", name, code=0).stdout)
        cli.check_equal(path_of(made["params"], "centroids"), prefix + b".centroids.npy")
        again = json.loads(said(d, "fit", "-f", "-k", "3", "-i", prefix, "-o", "q", "--json", name, code=0).stdout)
        cli.check_equal(path_of(again["params"], "init"), prefix + b".centroids.npy")
    stats_path = os.path.join(os.fsencode(d), b"donn\xe9es % \xe2\x82\xac.k3.stats.json")
    with open(stats_path) as f:
        stats = f.read()
    for bad in ("%00", "%G0", "%", "%4"):
        with open(stats_path, "w") as f:
            f.write(stats.replace("donn%E9es", bad))
        cli.check(b"path_encoded" in said(d, "info", stats_path[:-11], code=3).stderr, bad)


def main():
    d = cli.new_directory()
    make_inputs(d)
    check_names_of_files(d)
    check_words(d)
    check_content(d)
    check_live(d)
    check_json(d)
    cli.finish()


main()
