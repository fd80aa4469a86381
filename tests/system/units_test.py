#!/usr/bin/env python3
"""The systemd units: systemd finds nothing wrong with them, they are as closed as was promised, and the agent can do its work with the
capabilities and the file system that its unit leaves it."""
import os
import re
import shutil
import subprocess
import sys

import lf
from lf import Fleet, expect, expect_equal

UNITS = os.path.join(lf.TOP, "deploy", "systemd")
EXPOSURE = {"litefleet-agent": 3.0, "litefleet-controller": 1.5}  # of 10; systemd calls everything under 4 well protected
APP_UID = 54321  # of nobody else


def run(*args, **options):
    return subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, **options)


def unit_text(name):
    with open(os.path.join(UNITS, f"{name}.service"), encoding="utf-8") as file:
        return file.read()


def need_systemd():
    if shutil.which("systemd-analyze") is None:
        raise lf.Skip("there is no systemd-analyze: deploy/lib/install tests")


def test_verify():
    need_systemd()
    with Fleet() as fleet:
        programs = fleet.path("bin")  # without the spaces that a source tree's path may have
        os.symlink(lf.BIN, programs)
        for name in EXPOSURE:
            path = fleet.path(f"{name}.service")
            with open(path, "w", encoding="utf-8") as file:
                file.write(unit_text(name).replace("/usr/bin/", programs + "/"))
            done = run("systemd-analyze", "verify", "--man=no", path)
            ours = [line for line in done.stdout.splitlines() if "litefleet" in line]
            expect(done.returncode == 0 and not ours, f"{name}: {done.returncode}\n{done.stdout}")


def test_security():
    need_systemd()
    for name, bound in EXPOSURE.items():
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={int(bound * 10)}", os.path.join(UNITS, f"{name}.service"))
        found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
        expect(found, f"no verdict on {name}: {done.stdout[-500:]}")
        expect(done.returncode == 0 and float(found.group(1)) <= bound, f"{name}: exposure {found.group(1)}, promised at most {bound}\n{done.stdout}")


def test_units_and_programs_agree():
    agent, controller = unit_text("litefleet-agent"), unit_text("litefleet-controller")
    help_text = run(os.path.join(lf.BIN, "litefleet-agent"), "enroll", "--help").stdout
    state = re.search(r"--state TEXT=(\S+)", help_text).group(1)
    expect_equal(re.search(r"^StateDirectory=(\S+)$", agent, re.MULTILINE).group(1), os.path.relpath(state, "/var/lib"), "the agent's StateDirectory")
    data = re.search(r"--data (\S+)", controller).group(1)
    expect_equal(re.search(r"^StateDirectory=(\S+)$", controller, re.MULTILINE).group(1), os.path.relpath(data, "/var/lib"), "the controller's StateDirectory")
    for unit in (agent, controller):
        stop = int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE).group(1))
        expect(stop > 10, "the programs may take 10 s to stop")


def confined(fleet, writable, command):
    """`command` as systemd would start it: the unit's capabilities, and everything but some directories read-only."""
    wanted = re.search(r"^CapabilityBoundingSet=(.+)$", unit_text("litefleet-agent"), re.MULTILINE).group(1).lower().replace("cap_", "+").split()
    binds = "".join(f"mount --bind '{path}' '{path}'\n" for path in writable)
    script = fleet.path("confined")
    with open(script, "w", encoding="utf-8") as file:
        # /tmp of its own where it is a mount: what is mounted below stays as it is, hence only the root is turned.
        file.write(f"set -e\n{binds}mount -o remount,bind,ro /\n"
                   f"exec setpriv --bounding-set=-all,{','.join(wanted)} --inh-caps=-all --no-new-privs -- \"$@\"\n")
    return ["unshare", "-m", "--propagation", "private", "sh", script, *command]


def as_application(*command):
    return ["setpriv", f"--reuid={APP_UID}", f"--regid={APP_UID}", "--clear-groups", "--", *command]


def owner(path):
    found = os.stat(path)
    return found.st_uid, found.st_gid, oct(found.st_mode & 0o777)


def test_work_within_the_unit():
    """A WAL database of another user: backed up and restored with its application stopped, then with it writing before, during and after."""
    if os.geteuid() != 0:
        raise lf.Skip("needs root, as the agent's unit has it")
    for program in ("setpriv", "unshare"):
        if shutil.which(program) is None:
            raise lf.Skip(f"there is no {program}")
    if run("unshare", "-m", "--propagation", "private", "sh", "-c", "mount -o remount,bind,ro / && exec setpriv --bounding-set=-all -- true").returncode != 0:
        raise lf.Skip("mounts or capabilities cannot be changed here")
    with Fleet() as fleet:
        os.chmod(fleet.directory, 0o755)
        fleet.init()
        fleet.serve()
        home = fleet.path("app")
        os.mkdir(home, 0o700)
        os.chown(home, APP_UID, APP_UID)
        path, idle, ready = (os.path.join(home, name) for name in ("app.db", "idle.db", "ready"))

        def start_application(log):
            if os.path.exists(ready):
                os.unlink(ready)
            process = lf.Process(as_application(os.path.join(lf.TOOLS, "ledger_writer"), "run", path, "--ready-file", ready), fleet.path(log))
            fleet.processes.append(process)
            lf.wait_until("the application runs", lambda: os.path.exists(ready) or not process.running())
            expect(process.running(), process.tail())
            return process

        start_application("first.log").stop()
        os.chmod(path, 0o600)
        before = owner(path)
        expect_equal(before, (APP_UID, APP_UID, "0o600"), "owner and mode of the database")

        agent = fleet.agent("device", {"app": path, "idle": idle}, start=False)
        agent.write_config()
        agent.process = lf.Process(confined(fleet, [agent.state, home], [os.path.join(lf.BIN, "litefleet-agent"), "run", "--config", agent.config]),
                                   fleet.path("device.log"))
        fleet.processes.append(agent.process)
        agent.wait_connected()
        with open(f"/proc/{agent.process.pid}/status", encoding="utf-8") as file:
            effective = int(re.search(r"^CapEff:\s+(\w+)$", file.read(), re.MULTILINE).group(1), 16)
        expect_equal(bin(effective).count("1"), 6, "capabilities of the agent")

        with open(f"/proc/{agent.process.pid}/mountinfo", encoding="utf-8") as file:
            expect(re.search(r" / ro[, ]", file.read()), "the agent could write anywhere")

        # Stopped.
        files = sorted(os.listdir(home))
        snapshot = fleet.snapshot("device/app")
        expect_equal(sorted(os.listdir(home)), files, "files beside the database after a backup")
        wanted = lf.check_ledger(path)
        start_application("second.log").stop()
        expect(lf.check_ledger(path) > wanted, "the application wrote nothing")
        fleet.cli("restore", "device/app", "--snapshot", snapshot, "--mode", "replace", "--yes")
        expect_equal(lf.check_ledger(path), wanted, "the last transfer after the restore")
        expect_equal(owner(path), before, "owner and mode after the restore")

        # Running, before, during and after.
        application = start_application("third.log")
        snapshot = fleet.snapshot("device/app")
        for suffix in ("-wal", "-shm"):
            if os.path.exists(path + suffix):
                expect_equal(owner(path + suffix)[:2], before[:2], f"owner of {suffix}")
        refused = fleet.cli("restore", "device/app", "--snapshot", snapshot, "--mode", "replace", "--yes", check=6)
        expect("in use" in refused.err, f"no word of its being in use\n{refused}")
        fleet.cli("restore", "device/app", "--snapshot", snapshot, "--mode", "live", "--yes")
        expect(application.running(), f"the application ended\n{application.tail()}")
        again = fleet.snapshot("device/app")
        application.stop()
        expect_equal(owner(path), before, "owner and mode at the end")
        lf.check_ledger(path)
        for one in (snapshot, again):
            lf.check_ledger(fleet.download(one))
        start_application("fourth.log").stop()

        # In rollback mode, with the file open and no lock: of another user's process the agent sees no more than that the lease is refused.
        program = ("import os, sqlite3, sys, time\ndb = sqlite3.connect(sys.argv[1])\ndb.execute('create table if not exists t(a)')\n"
                   "db.execute('select * from t').fetchall()\nopen(sys.argv[2], 'w').close()\ntime.sleep(600)")

        def start_idle(log):
            if os.path.exists(ready):
                os.unlink(ready)
            process = lf.Process(as_application(sys.executable, "-c", program, idle, ready), fleet.path(log))
            fleet.processes.append(process)
            lf.wait_until("the idle application runs", lambda: os.path.exists(ready) or not process.running())
            expect(process.running(), process.tail())
            return process

        start_idle("idle.log").stop()
        snapshot = fleet.snapshot("device/idle")
        application = start_idle("idle2.log")
        inode = os.stat(idle).st_ino
        refused = fleet.cli("restore", "device/idle", "--snapshot", snapshot, "--mode", "replace", "--yes", check=6)
        expect("a process that is not visible from here" in refused.err, f"no word of its being open\n{refused}")
        expect_equal(os.stat(idle).st_ino, inode, "the file at the path")
        application.stop()
        fleet.cli("restore", "device/idle", "--snapshot", snapshot, "--mode", "replace", "--yes")
        expect(os.stat(idle).st_ino != inode, "nobody has it open, and it is replaced")


if __name__ == "__main__":
    lf.main(globals())
