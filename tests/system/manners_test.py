#!/usr/bin/env python3
"""How the programs behave on a Unix machine: what they leave readable, what they tell the service manager and the controller."""
import contextlib
import os
import re
import socket
import sqlite3
import stat
import time

import lf
from lf import Fleet, expect, expect_equal


def open_to_others(top):
    """Everything below that somebody else may touch, and keys that are not 0600."""
    found, keys = [], 0
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):  # it still runs
                mode = stat.S_IMODE(os.lstat(path).st_mode)
                if mode & 0o077:
                    found.append(f"{path}: {mode:o}")
                if "key" in name and name in files:
                    keys += 1
                    if mode != 0o600:
                        found.append(f"{path}: {mode:o} instead of 600")
    return found, keys


def test_nothing_is_for_others_whatever_the_umask():
    before = os.umask(0)
    try:
        with Fleet() as fleet:
            fleet.init()
            fleet.serve()
            database = lf.make_database(fleet.path("app.db"))
            agent = fleet.agent("alpha", {"app": database})
            snapshot = fleet.snapshot("alpha/app")
            lf.run_sql(database, "delete from item where id % 2")
            fleet.snapshot("alpha/app")
            fleet.cli("restore", "alpha/app", "--snapshot", snapshot, "--mode", "live", "--yes")
            for what, top in (("DATA", fleet.data), ("STATE", agent.state)):
                found, keys = open_to_others(top)
                expect_equal(found, [], f"{what}: open to others")
                expect(keys > 0, f"{what}: no key was found in it")
            download = fleet.download(snapshot)
            expect_equal(oct(stat.S_IMODE(os.stat(download).st_mode)), "0o600", "mode of a download")
    finally:
        os.umask(before)


def listener():
    """A socket as systemd has it, and its name for NOTIFY_SOCKET."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind("")  # the kernel finds an abstract name
    notify.settimeout(30)
    return notify, "@" + notify.getsockname()[1:].decode()


def heard(notify, word, times):
    """Waits for as many messages with this line; what else comes is passed over."""
    deadline = time.monotonic() + 60
    count = 0
    while count < times:
        expect(time.monotonic() < deadline, f"{word} came {count} times within 60 s")
        if word in notify.recv(4096).decode().splitlines():
            count += 1


def test_the_watchdog_is_fed_by_both_programs():
    with Fleet() as fleet:
        fleet.init()
        for start in (lambda env: fleet.serve(env=env), lambda env: fleet.agent("alpha", {}, start=False).start(env=env)):
            notify, name = listener()
            with notify:
                process = start({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"})
                heard(notify, "READY=1", 1)
                heard(notify, "WATCHDOG=1", 5)
                expect(process.running(), process.tail())
                process.stop()
                heard(notify, "STOPPING=1", 1)
            if process is fleet.controller:
                fleet.serve()


def test_health_of_a_device_and_of_a_database():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("app.db"))
        held = sqlite3.connect(path, isolation_level=None)  # keeps the WAL
        held.execute("insert into item(name) values('in the log')")
        fleet.agent("alpha", {"app": path, "bad": fleet.path("missing.db")})

        def health(name, done):
            def look():
                found = fleet.cli("-o", "json", "database", "show", f"alpha/{name}").json["health"]
                return found if found and done(found) else None
            return lf.wait_until(f"the health of {name}", look)

        fleet.snapshot("alpha/app")
        fleet.backup("alpha/bad", check=False)
        fleet.agents["alpha"].process.stop()
        fleet.agents["alpha"].start()  # its hello has the health of all
        app = health("app", lambda found: found["last_success_at"])
        expect_equal(app["size_bytes"], os.path.getsize(path), "size")
        expect_equal(app["wal_bytes"], os.path.getsize(path + "-wal"), "size of the WAL")
        expect(app["wal_bytes"] > 4096, app)
        expect_equal(app["journal_mode"], "wal", "journal mode")
        expect(app["free_bytes"] > 1 << 20, app)
        for at in ("last_run_at", "last_success_at"):
            expect(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", app[at] or ""), f"{at}: {app}")
        expect_equal(app["last_error"], None, "last error")
        bad = health("bad", lambda found: found["last_error"])
        expect_equal(bad["last_error"]["reason"], "DATABASE_MISSING", "last error")
        expect(bad["last_run_at"] and not bad["last_success_at"], bad)
        device = fleet.cli("-o", "json", "device", "show", "alpha").json
        with open("/proc/uptime", encoding="utf-8") as file:
            uptime = float(file.read().split()[0])
        expect(0 < device["uptime_ms"] <= (uptime + 1) * 1000, f"{device} on a machine that is up for {uptime} s")
        expect_equal(device["sqlite_version"].count("."), 2, "SQLite's version")
        held.close()


if __name__ == "__main__":
    lf.main(globals())
