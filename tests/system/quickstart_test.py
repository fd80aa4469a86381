#!/usr/bin/env python3
"""deploy/quickstart with the programs of this build: as a reader starts it, with nothing of a comfortable environment, in a path with spaces."""
import os
import re
import shutil
import signal
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


def need_what_it_uses():
    if not os.access("/usr/share/proj/proj.db", os.R_OK):
        raise lf.Skip("there is no /usr/share/proj/proj.db (package proj-data)")
    if shutil.which("sqlite3") is None:
        raise lf.Skip("there is no sqlite3")


def test_both_databases_come_back_and_nothing_stays():
    need_what_it_uses()
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


def test_what_is_kept_runs_until_it_is_stopped_as_it_says():
    need_what_it_uses()
    with lf.Fleet() as fleet:
        temporary = fleet.path("kept here")
        os.mkdir(temporary)
        env = {"PATH": "/usr/bin:/bin", "HOME": temporary, "TMPDIR": temporary}
        done = quickstart("--keep", "--programs", lf.BIN, env=env, cwd="/")
        lines = done.stdout.splitlines()
        stop = lines[-1].strip()
        try:
            expect_equal(done.returncode, 0, done.stdout[-4000:])
            expect(stop.startswith("kill -- -"), f"the last line stops it: {stop}")
            begin = next(at for at, line in enumerate(lines) if line.startswith("Everything still runs in "))
            look = "\n".join(line.strip() for line in lines[begin + 1 : begin + 3])
            shown = subprocess.run(["bash", "-c", look], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
            expect_equal(shown.returncode, 0, f"{look}\n{shown.stdout}{shown.stderr}")
            expect("2, 2 connected" in shown.stdout, shown.stdout)
        finally:
            subprocess.run(["bash", "-c", stop], env=env, check=False, timeout=60)
        expect_equal(os.listdir(temporary), [], "what is left in TMPDIR")
        lf.wait_until("everything has ended", lambda: not left_running(temporary), 30)


def commands(output):
    """What the quickstart shows as typed: lines behind "$ ", with the texts of files up to their END."""
    typed, within = [], False
    for line in output.splitlines():
        if within or line.startswith("$ "):
            typed.append(line if within else line[2:])
            within = line != "END" if within else re.search(r"<<.?END.?$", line) is not None
    return typed


def test_what_it_prints_can_be_typed_again():
    need_what_it_uses()
    with lf.Fleet() as fleet:
        env = {"PATH": "/usr/bin:/bin", "HOME": fleet.directory, "TMPDIR": fleet.directory}
        done = quickstart("--programs", lf.BIN, env=env, cwd="/")
        expect_equal(done.returncode, 0, done.stdout[-4000:])
        again = fleet.path("again.sh")
        with open(again, "w", encoding="utf-8") as file:
            file.write("\n".join([*commands(done.stdout), ""]))
        with open(fleet.path("again.out"), "w+", encoding="utf-8") as output:
            shell = subprocess.Popen(["bash", again], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                shell.wait(200)
            finally:
                os.killpg(shell.pid, signal.SIGKILL)  # also what it has left in the background, as the quickstart's own end does
            output.seek(0)
            said = output.read()
        sums = re.findall(r"^[0-9a-f]{56}$", said, re.MULTILINE)
        expect_equal(len(sums), 4, f"digests\n{said[-4000:]}")
        expect_equal((sums[0], sums[2]), (sums[1], sums[3]), said[-4000:])
        expect_equal(len(re.findall(r"^ok$", said, re.MULTILINE)), 4, f"databases found intact\n{said[-4000:]}")
        expect_equal([line for line in said.splitlines() if line.startswith(again)], [], "what the shell itself had to say")


def test_nobody_in_particular_may_start_it():
    need_what_it_uses()
    if os.geteuid() != 0:
        raise lf.Skip("this user is unprivileged anyway: the other tests show it")
    with lf.Fleet() as fleet:
        os.chmod(fleet.directory, 0o755)
        script, programs, temporary = (fleet.path(name) for name in ("quickstart", "programs", "a user's own"))
        shutil.copy(QUICKSTART, script)
        shutil.copytree(lf.BIN, programs)
        os.mkdir(temporary)
        os.chown(temporary, 65534, 65534)
        env = {"PATH": "/usr/bin:/bin", "TMPDIR": temporary}
        done = subprocess.run([script, "--programs", programs], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400, check=False,
                              env=env, cwd="/", user=65534, group=65534, extra_groups=[], start_new_session=True)
        expect_equal(done.returncode, 0, done.stdout[-4000:])
        expect("equal: the database restored under its writer" in done.stdout, done.stdout[-4000:])
        expect_equal(os.listdir(temporary), [], "what it left in TMPDIR")


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
