#!/usr/bin/python3
"""Holds the option tables (through --help, which prints them), the parser and the man pages together."""
import os
import re
import shutil
import subprocess

import cli

SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES",
            "EXAMPLES", "SEE ALSO"]
COMMANDS = ["fit", "predict", "info", "bench"]
VARIABLES = {"threads": "FKM_THREADS", "memory": "FKM_MEMORY", "device": "FKM_DEVICE", "isa": "FKM_ISA"}


def help_options(text):
    """{(letter, name, metavar): help} from --help."""
    found, last = {}, None
    for line in text.splitlines():
        m = re.match(r"^  (?:-(\w), |    )--([a-z-]+)(?: (\S+))?(?:  +(.*))?$", line)
        if m:
            last = (m[1], m[2], m[3])
            found[last] = m[4] or ""
        elif last and line.startswith(" " * 20):
            found[last] = (found[last] + " " + line.strip()).strip()
        else:
            last = None
    return found


def plain(roff):
    text = re.sub(r"\\f[A-Z]", "", roff)
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\&", "").replace("\\e", "\\")


def manual(name):
    with open(os.path.join(cli.SRC, "man", name + ".1")) as f:
        return f.read()


def manual_options(page):
    """{(letter, name, metavar): text} from the OPTIONS section."""
    section = page.split(".SH OPTIONS\n")[1].split("\n.SH ")[0]
    found = {}
    for entry in section.split(".TP\n")[1:]:
        tag, _, text = entry.partition("\n")
        m = re.match(r"^(?:-(\w), )?--([a-z-]+)(?: (\S+))?$", plain(tag))
        cli.check(m, "cannot read the tag", tag)
        if m:
            found[(m[1], m[2], m[3])] = " ".join(plain(re.sub(r"\n\.S[SH].*", "", text)).split())
    return found


def check_command(name):
    text = cli.fkm(name, "--help", cwd=cli.TMP).stdout
    page = manual("fkm-" + name)
    shown, written = help_options(text), manual_options(page)
    cli.check(len(shown) >= 9, name, "--help lists options", len(shown))
    cli.check_equal(sorted(map(str, written)), sorted(map(str, shown)), name, "man page and --help list")
    for option, words in shown.items():
        entry = written.get(option, "")
        cli.check(entry.lower().startswith(words.lower() + "."), name, option,
                  f"man page says\n  {entry!r}\n--help says\n  {words!r}")
    first, about = text.splitlines()[0].split(" - ")
    cli.check_equal(first, "fkm " + name, "first line of --help")
    cli.check(f"fkm\\-{name} \\- {about.replace('-', chr(92) + '-')}\n" in page, name, "NAME is not", about)
    cli.check_equal(text.splitlines()[2], "Examples:", name, "--help starts with examples")
    return shown


def check_parser(name, shown):
    """What --help lists is what the parser takes, with a value or without."""
    for letter, long_name, metavar in shown:
        for word in (["-" + letter] if letter else []) + ["--" + long_name]:
            # bench would run for minutes: two operands end it before the work.
            operands = ["a", "b"] if name == "bench" and not metavar else []
            run = cli.fkm(name, word, *operands, cwd=cli.TMP)
            if metavar:
                cli.check_equal(run.stderr.splitlines()[:1], [f"fkm: option --{long_name} needs a value"],
                                name, word)
            else:
                cli.check("unknown option" not in run.stderr, name, word, run.stderr)


def check_defaults():
    """The defaults that --help prints are those of a run."""
    import json
    shown = help_options(cli.fkm("fit", "--help", cwd=cli.TMP).stdout)
    default = {name: re.search(r"\(default ([^)]*)\)$", text)[1]
               for (_, name, _), text in shown.items() if re.search(r"\(default ([^)]*)\)$", text)}
    d = cli.new_directory()
    cli.save(d, "x.npy", cli.npy(cli.blobs(9, 2)))
    params = json.loads(cli.fkm("fit", "-k", 2, "--json", "x.npy", cwd=d).stdout)["params"]
    for option, field in (("max-iter", "max_iter"), ("tol", "tol"), ("seed", "seed"), ("init", "init"),
                          ("restarts", "restarts"),
                          ("empty", "empty"), ("nan", "nan")):
        expected = params[field]
        cli.check(str(expected) == default[option] or float(default[option]) == expected,
                  option, "default", default[option], "but a run has", expected)
    cli.check_equal(default["format"], "npy", "default of --format")


def check_width():
    """Help fits a terminal of 80 columns."""
    for args in [[name, "--help"] for name in COMMANDS] + [["help"], ["help", "formats"], ["help", "isa"]]:
        for line in cli.fkm(*args, cwd=cli.TMP).stdout.splitlines():
            cli.check(len(line) <= 80, *args, "is wider than 80 columns:", line)


def check_page(name):
    page = manual(name)
    order = re.findall(r"^\.SH (.*)$", page, re.M)
    cli.check_equal([s for s in order if s in SECTIONS], SECTIONS, name, "sections")
    version = cli.fkm("--version", cwd=cli.TMP).stdout.split()[1]
    cli.check(f'"fkm {version}"' in page.splitlines()[0], name, ".TH names another version than", version)
    if shutil.which("groff"):
        run = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z",
                              os.path.join(cli.SRC, "man", name + ".1")], capture_output=True, text=True)
        cli.check_equal(run.stderr, "", name, "groff complains")


def check_recovery():
    """The operator's page has other sections; it must be well-formed, and true about names and codes."""
    with open(os.path.join(cli.SRC, "man/fkm-recovery.7")) as f:
        page = f.read()
    version = cli.fkm("--version", cwd=cli.TMP).stdout.split()[1]
    cli.check(f'"fkm {version}"' in page.splitlines()[0], "fkm-recovery.7: .TH")
    known = set(re.findall(r"--([a-z-]+)", cli.fkm("fit", "--help", cwd=cli.TMP).stdout))
    foreign = {"time", "requeue", "open-mode", "signal"}       # of sbatch
    for option in set(re.findall(r"--([a-z-]+)", plain(page))) - foreign:
        cli.check(option in known, "fkm-recovery.7 names an option that fit does not have:", option)
    if shutil.which("groff"):
        run = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z",
                              os.path.join(cli.SRC, "man/fkm-recovery.7")], capture_output=True, text=True)
        cli.check_equal(run.stderr, "", "fkm-recovery.7: groff complains")


def main():
    check_recovery()
    for name in COMMANDS:
        shown = check_command(name)
        check_parser(name, shown)
        for (_, long_name, _) in shown:
            if long_name in VARIABLES:
                cli.check(f".B {VARIABLES[long_name]}\n" in manual("fkm-" + name), name, "ENVIRONMENT",
                          VARIABLES[long_name])
    for page in ["fkm"] + ["fkm-" + name for name in COMMANDS]:
        check_page(page)
    overview = cli.fkm("help", cwd=cli.TMP).stdout
    for name in COMMANDS:
        cli.check(re.search(rf"^  {name} ", overview, re.M), "fkm help does not list", name)
        cli.check(f"fkm\\-{name} (1)" in manual("fkm"), "fkm.1 does not name", name)
        help_text = cli.fkm("help", name, cwd=cli.TMP).stdout
        cli.check_equal(help_text, cli.fkm(name, "-h", cwd=cli.TMP).stdout, "fkm help", name)
    check_width()
    check_defaults()
    cli.finish()


main()
