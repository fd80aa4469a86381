#!/usr/bin/env python3
"""deploy/quickstart with the programs of this build: as a reader starts it, with nothing of a comfortable environment, in a path with spaces."""
import os
import re
import shutil
import subprocess

import lf
from lf import expect, expect_equal

QUICKSTART = os.path.join(lf.TOP, "deploy", "quickstart")


def quickstart(*args, env, **options):
    return subprocess.run([QUICKSTART, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400, check=False, env=env,
                          start_new_session=True, **options)


def left_running(directory):
    """Processes that work below this directory or name it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").replace("\0", " ")
            if int(pid) != os.getpid() and (directory in words or os.readlink(f"/proc/{pid}/cwd").startswith(directory)):
                found.append(f"{pid}: {words}")
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def test_both_databases_come_back_and_nothing_stays():
    if not os.access("/usr/share/proj/proj.db", os.R_OK):
        raise lf.Skip("there is no /usr/share/proj/proj.db (package proj-data)")
    if shutil.which("sqlite3") is None:
        raise lf.Skip("there is no sqlite3")
    with lf.Fleet() as fleet:
        temporary, programs, home = (fleet.path(name) for name in ("a path with spaces", "the programs", "home"))
        for path in (temporary, home):
            os.mkdir(path)
        os.symlink(lf.BIN, programs)
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": temporary}  # no LANG, no TZ, no TERM
        done = quickstart("--programs", programs, env=env, cwd="/")
        expect_equal(done.returncode, 0, done.stdout[-4000:])
        for line in ("equal: the replaced database and its snapshot", "equal: the database restored under its writer"):
            expect(line in done.stdout, f"it does not say {line!r}\n{done.stdout[-4000:]}")
        expect("DIFFERENT" not in done.stdout, done.stdout[-4000:])
        expect_equal(len(re.findall(r"^ok$", done.stdout, re.MULTILINE)), 4, "databases that were found intact")
        expect("\x1b" not in done.stdout, "colours in a file")
        expect("[sudo]" not in done.stdout and "apt-get" not in done.stdout, "it installs although it was given programs")
        expect_equal(os.listdir(temporary), [], "what it left in TMPDIR")
        expect_equal(os.listdir(home), [], "what it left in HOME")
        expect_equal(left_running(temporary), [], "what it left running")


def test_wrong_usage_is_refused_before_anything_happens():
    with lf.Fleet() as fleet:
        env = {"PATH": "/usr/bin:/bin", "TMPDIR": fleet.directory}
        for args in (["--nonsense"], ["--programs"], ["--keep", "more"]):
            done = quickstart(*args, env=env)
            expect_equal(done.returncode, 2, f"exit code of {args}\n{done.stdout}")
            expect(done.stdout.startswith("usage: "), done.stdout)
        done = quickstart("--programs", fleet.directory, env=env)
        expect_equal(done.returncode, 1, done.stdout)
        expect("there is no program litefleet in" in done.stdout, done.stdout)
        expect_equal(os.listdir(fleet.directory), [], "what it left in TMPDIR")


if __name__ == "__main__":
    lf.main(globals())
