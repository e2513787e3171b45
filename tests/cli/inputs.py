#!/usr/bin/python3
"""Inputs as people have them: more files than may be open at once, pipes, and formats that are not fkm's own, whose
hints must make them readable."""
import os
import resource
import subprocess
import sys

import cli


def open_files(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_many_files():
    d = cli.new_directory()
    rows = cli.blobs(300, 3)
    cli.save(d, "all.npy", cli.npy(rows))
    names = [os.path.basename(cli.save(d, f"{i:03}.npy", cli.npy(rows[2 * i:2 * i + 2]))) for i in range(150)]
    cli.check_equal(cli.fkm("fit", "-q", "-k", 3, "-o", "one", "all.npy", cwd=d).returncode, 0)
    run = cli.fkm("fit", "-q", "-k", 3, "-o", "many", *names, cwd=d, preexec_fn=open_files(40, 1024))
    cli.check_equal((run.returncode, run.stderr), (0, ""), "more files than the soft limit")
    for kind in ("labels", "centroids"):
        one, many = [open(os.path.join(d, f"{run}.{kind}.npy"), "rb").read() for run in ("one", "many")]
        cli.check(one == many, "the same", kind)
    run = cli.fkm("fit", "-q", "-k", 3, "-o", "limited", *names, cwd=d, preexec_fn=open_files(40, 100))
    cli.check_equal(run.returncode, 4, "more files than the hard limit", run.stderr)
    cli.check("cannot open: Too many open files\nhint: 100 files may be open at once, the hard limit" in run.stderr,
              run.stderr)


def run_shell(d, command):
    return subprocess.run(["bash", "-c", command.replace("fkm", cli.FKM)], cwd=d, env=cli.clean_environment(TMPDIR=d),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def check_pipes():
    """One rule for all ways to the same rows: a pipe is copied, which fit says; what has no name needs -o."""
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(60, 2)))
    run_shell(d, "fkm fit -q -k 3 x.npy; mkfifo p")
    note = ": a pipe, which was copied to a temporary file: fit reads its data many times\n"
    for name, data in (("-", "- < x.npy"), ("/dev/stdin", "/dev/stdin < x.npy"), ("standard input", "- < <(cat x.npy)"),
                       ("/dev/stdin", "/dev/stdin < <(cat x.npy)"), ("/dev/fd/63", "<(cat x.npy)"),
                       ("p", "p & cat x.npy > p; wait $!")):
        run = run_shell(d, f"fkm fit -f -k 3 -o o {data}")
        cli.check_equal((run.returncode, run.stderr), (0, "fkm: " + name + note if "cat" in data else ""), data)
        run = run_shell(d, "cmp x.k3.labels.npy o.labels.npy && cmp x.k3.centroids.npy o.centroids.npy; rm o.*")
        cli.check_equal((run.returncode, run.stderr), (0, ""), "the same bytes from", data)
        run = run_shell(d, f"fkm predict -q -f -c x.k3 -o o.npy {data} && cmp o.npy x.k3.labels.npy")
        cli.check_equal((run.returncode, run.stderr), (0, ""), "predict", data)
    before = sorted(os.listdir(d))
    for data in ("- < x.npy", "/dev/stdin < x.npy", "<(cat x.npy)"):
        for command in ("fkm fit -k 3", "fkm predict -c x.k3")[:1 if data[0] == "-" else 2]:
            run = run_shell(d, f"{command} {data}")
            cli.check_equal(run.returncode, 2, command, data, run.stderr)
            cli.check(" has no name that the outputs could be given\nhint: name them: -o" in run.stderr, run.stderr)
    cli.check_equal(sorted(os.listdir(d)), before, "nothing was written")
    run = run_shell(d, "fkm predict -q -c x.k3 - < <(cat x.npy) && fkm fit -q -k 3 p & cat x.npy > p; wait $!")
    cli.check_equal((run.returncode, run.stderr), (0, ""))
    cli.check({"stdin.labels.npy", "p.k3.labels.npy"} < set(os.listdir(d)), "names that are made up", os.listdir(d))


def foreign_files(np, d, x):
    """(name, what makes it) of files with the rows of x that need more than NumPy only where that is there."""
    import bz2
    import gzip
    import json
    import lzma
    import pickle
    rows = ["\t".join(map(repr, map(float, r))) for r in x]
    def write(name, data):
        with open(os.path.join(d, name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())

    def lines(name, *head, delimiter=",", ids=False):
        body = [f"row {i}\t{row}" if ids else row for i, row in enumerate(rows)]
        write(name, "\n".join((*head, *(line.replace("\t", delimiter) for line in body))) + "\n")

    names = [f"c{t}" for t in range(x.shape[1])]
    content = open(os.path.join(d, "rows.npy"), "rb").read()
    lines("plain.csv")
    lines("named.csv", ",".join(names))
    lines("tabs.tsv", delimiter="\t")
    lines("table.dat", delimiter=" ")
    lines("semicolons.txt", ";".join(names), delimiter=";")
    lines("ids.csv", ids=True)
    lines("frame.csv", "," + ",".join(map(str, range(x.shape[1]))), ids=True)
    lines("words.vec", delimiter=" ", ids=False)
    write("list.json", json.dumps(x.tolist()))
    write("object.json", json.dumps({"model": "m", "vectors": x.tolist()}))
    write("lists.jsonl", "\n".join(json.dumps(r) for r in x.tolist()))
    write("objects.jsonl", "\n".join(json.dumps({"id": i, "v": r}) for i, r in enumerate(x.tolist())))
    write("lines", "\n".join(json.dumps({"id": i, "v": r}) for i, r in enumerate(x.tolist())))
    np.savez(os.path.join(d, "one.npz"), x=x)
    np.savez_compressed(os.path.join(d, "packed.npz"), x=x)
    write("x.pkl", pickle.dumps(x))
    write("list.pickle", pickle.dumps(x.tolist(), 2))
    write("x1.npy.gz", gzip.compress(content))
    write("x2.npy.bz2", bz2.compress(content))
    write("x3.npy.xz", lzma.compress(content))
    write("misnamed.npy", gzip.compress(content))
    yield from ("plain.csv named.csv tabs.tsv table.dat semicolons.txt ids.csv frame.csv words.vec list.json object.json "
                "lists.jsonl objects.jsonl lines one.npz packed.npz x.pkl list.pickle x1.npy.gz x2.npy.bz2 x3.npy.xz "
                "misnamed.npy").split()
    for tool, name in (("zstd", "x4.npy.zst"), ("lz4", "x5.npy.lz4")):
        if run_shell(d, f"{tool} -q -c rows.npy > {name}").returncode == 0:
            yield name
    yield from library_files(d, x)


def library_files(d, x):
    def at(name):
        return os.path.join(d, name)

    try:
        import scipy.io
        import scipy.sparse
        scipy.io.savemat(at("x.mat"), {"x": x})
        scipy.sparse.save_npz(at("sparse.npz"), scipy.sparse.csr_matrix(x))
        yield from ("x.mat", "sparse.npz")
    except ImportError:
        pass
    try:
        import joblib
        joblib.dump(x, at("x.joblib"))
        yield "x.joblib"
    except ImportError:
        pass
    try:
        import pandas
        import pyarrow
        frame = pandas.DataFrame(x, columns=[f"c{t}" for t in range(x.shape[1])])
        lists = pandas.DataFrame({"id": range(len(x)), "text": "t", "v": list(x)})
        frame.to_parquet(at("frame.parquet"))
        lists.to_parquet(at("lists.parquet"))
        frame.to_feather(at("frame.feather"))
        lists.to_feather(at("lists.arrow"))
        table = pyarrow.Table.from_pandas(lists)
        with pyarrow.OSFile(at("stream.arrow"), "wb") as f, pyarrow.ipc.new_stream(f, table.schema) as w:
            w.write_table(table)
        frame.to_orc(at("frame.orc"))
        yield from ("frame.parquet", "lists.parquet", "frame.feather", "lists.arrow", "stream.arrow", "frame.orc")
        frame.to_excel(at("frame.xlsx"), index=False)
        yield "frame.xlsx"
    except ImportError:
        pass


def told(d, name):
    run = cli.fkm("info", name, cwd=d)
    cli.check_equal(run.returncode, 3, name, run.stderr)
    fact, hint = (run.stderr.splitlines() + ["", ""])[:2]
    cli.check(fact.endswith(", which fkm does not read"), name, run.stderr)
    return fact, hint[len("hint: "):]


def check_foreign():
    """What a hint says makes the file readable: the same rows."""
    try:
        import numpy as np
    except ImportError:
        print("not checked: hints that need NumPy")
        return
    d = cli.new_directory()
    x = np.array(cli.noise(7, 4), "f4")
    np.save(os.path.join(d, "rows.npy"), x)
    for name in list(foreign_files(np, d, x))[::4 if cli.SLOW else 1]:
        hint = told(d, name)[1]
        before = set(os.listdir(d))
        run = run_shell(d, hint[hint.find("python3 "):].replace("python3", sys.executable, 1) if "python3" in hint else hint)
        new = set(os.listdir(d)) - before
        cli.check_equal((run.returncode, len(new)), (0, 1), name, hint, run.stderr, new)
        for made in new:
            cli.check_equal(cli.fkm("info", made, cwd=d).returncode, 0, name, made)
            cli.check(np.array_equal(np.load(os.path.join(d, made)), x), "the same rows from", name)
            os.remove(os.path.join(d, made))


def check_known_by_name():
    """What cannot be made here: the words, and that the commands are Python at least."""
    d = cli.new_directory()
    for name, content, words in (
            ("a.pt", b"PK\3\4" + b"\0" * 22 + b"\x10\0\0\0archive/data.pkl", "PyTorch"),
            ("pytorch_model.bin", b"PK\3\4" + b"\0" * 22 + b"\x10\0\0\0archive/data.pkl", "PyTorch"),
            ("old.pt", b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "PyTorch"), ("a.pth", b"x" * 9, "PyTorch"),
            ("a.png", b"\x89PNG\r\n\x1a\n", "PIL"), ("a.jpg", b"\xff\xd8\xff\xe0", "PIL"), ("a.webp", b"RIFF0000WEBP", "PIL"),
            ("a.bmp", b"BM123", "PIL"), ("a.tif", b"II*\0", "PIL"), ("a.parquet", b"PAR1", "p.read_parquet('a.parquet')"),
            ("a.feather", b"ARROW1", "p.read_feather"), ("a.arrow", b"\xff\xff\xff\xff\x80", "ipc.open_stream"),
            ("a.orc", b"ORC", "p.read_orc"), ("a.xlsx", b"PK\3\4", "p.read_excel"), ("a.zip", b"PK\3\4", "unzip a.zip"),
            ("a.mat", b"MATLAB 5.0 MAT-file", "s.loadmat('a.mat')"), ("a.tgz", b"\x1f\x8b\x08", "gzip -dc < a.tgz > a"),
            ("a.npy.zst", b"(\xb5/\xfd", "zstd -dc < a.npy.zst > a.npy"), ("a.tar", b"x" * 257 + b"ustar", "tar -xf a.tar"),
            ("a.7z", b"7z\xbc\xaf'\x1c", "7z x a.7z"), ("a.fvecs", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            ("a.npy", b"<!DOCTYPE html><html>", "head a.npy"), ("a b.csv", b"1,2\n", "n.loadtxt('FILE', "),
            ("./" * 150 + "a.pkl", b"\x80\4\x95", "open('FILE', 'rb')")):
        cli.save(d, os.path.basename(name), content)
        fact, hint = told(d, name)
        cli.check(words in fact + hint and len(hint) < 319, name, fact, hint)
        if "python3" in hint:
            compile(hint.split('"')[1], name, "exec")
    run = cli.fkm("info", cli.save(d, "unknown.xyz", b"neither this nor that"), cwd=d)
    cli.check("not a known format" in run.stderr, run.stderr)


def main():
    check_many_files()
    check_pipes()
    check_foreign()
    check_known_by_name()
    cli.finish()


main()
