#!/usr/bin/env python3
"""The method file with the real programs: the snapshot of a copy is that of the method online, whatever state the files are in."""
import os
import sqlite3
import subprocess

import lf


def connect(path, *pragmas):
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in pragmas:
        db.execute(f"pragma {pragma}")
    return db


def make(fleet, name, journal, rows=3000):
    os.makedirs(fleet.path(name), exist_ok=True)
    return lf.make_database(fleet.path(name, "x.db"), rows=rows, journal=journal)


def files(path):
    """Everything beside a database, by name, size, owner, mode and content."""
    folder = os.path.dirname(path)
    listing = []
    for name in sorted(os.listdir(folder)):
        at = os.path.join(folder, name)
        st = os.lstat(at)
        listing.append((name, st.st_size, st.st_uid, st.st_mode, lf.sha256(at)))
    return listing


def crash(path, script):
    """Another process runs the SQL and is killed in the middle of its transaction."""
    code = f"import os, sqlite3\ndb = sqlite3.connect({path!r}, isolation_level=None)\nfor s in {script!r}:\n    db.execute(s)\nos.kill(os.getpid(), 9)\n"
    subprocess.run(["python3", "-c", code], check=False)


def show(fleet, snapshot):
    return fleet.cli("-o", "json", "snapshot", "show", snapshot).json


def steps(fleet, operation):
    return fleet.cli("operation", "show", operation).out


def test_the_snapshot_is_that_of_online():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {journal: make(fleet, journal, journal) for journal in ("delete", "wal")}
        fleet.agent("alpha", paths)
        for journal, path in paths.items():
            before = files(path)
            copied = fleet.backup(f"alpha/{journal}", "--method", "file")
            lf.expect_equal(files(path), before, f"{journal}: the files after the backup")
            online = fleet.snapshot(f"alpha/{journal}", "--method", "online", "--full")
            first, second = show(fleet, copied["snapshot"]), show(fleet, online)
            lf.expect_equal((first["method"], second["method"]), ("file", "online"), "methods")
            lf.expect_equal(first["root_digest"], second["root_digest"], f"{journal}: the root")
            lf.expect("locked for" in steps(fleet, copied["id"]) or "no commit was possible for" in steps(fleet, copied["id"]), f"how long it was locked is said\n{steps(fleet, copied['id'])}")
            db = connect(path)
            db.execute("update item set data = randomblob(40) where id < 20")
            db.close()
            changed = show(fleet, fleet.snapshot(f"alpha/{journal}", "--method", "file"))
            lf.expect(0 < changed["pages_sent"] < first["page_count"] / 4, f"{journal}: a change of a few pages sends {changed['pages_sent']} of {first['page_count']}")
            lf.expect_equal(lf.content(fleet.download(changed["id"])), lf.content(path), "content")
        wrong = fleet.cli("backup", "alpha/wal", "--method", "copy", check=2)
        lf.expect("online,file,dump" in wrong.err.replace(" ", ""), f"the methods are named\n{wrong}")


def test_what_a_crash_left_is_recovered_in_the_copy_alone():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {journal: make(fleet, journal, journal) for journal in ("delete", "wal")}
        wanted = {}
        for journal, path in paths.items():
            db = connect(path)
            db.execute("create table mark(x)")
            db.execute("insert into mark values ('committed')")
            db.close()
            wanted[journal] = lf.content(path)
            crash(path, ["pragma wal_autocheckpoint=0", "update mark set x = 'last'", "pragma cache_size=3", "begin", "update item set data = randomblob(60)", "update mark set x = 'lost'"])
            lf.expect(os.path.exists(path + ("-wal" if journal == "wal" else "-journal")), f"{journal}: the crash has left something")
        fleet.agent("alpha", {name: (path, 'method = "file"\n') for name, path in paths.items()})
        fleet.agent("beta", {name: fleet.path(f"{name}.restored") for name in paths})
        for journal, path in paths.items():
            before = files(path)
            snapshot = fleet.snapshot(f"alpha/{journal}")
            lf.expect_equal(show(fleet, snapshot)["method"], "file", "the configuration's method")
            lf.expect_equal(files(path), before, f"{journal}: nothing was recovered where it lies")
            fleet.cli("restore", f"alpha/{journal}", "--snapshot", snapshot, "--to", f"beta/{journal}", "--yes")
            restored = connect(fleet.path(f"{journal}.restored"))
            lf.expect_equal(restored.execute("select x from mark").fetchall(), [("last",)], f"{journal}: the last commit")
            lf.expect_equal(restored.execute("pragma integrity_check").fetchall(), [("ok",)], journal)
            restored.close()


def test_an_application_that_lets_nobody_in():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {journal: make(fleet, journal, journal) for journal in ("delete", "wal")}
        fleet.agent("alpha", {name: (path, 'busy_timeout = "1s"\n') for name, path in paths.items()})
        holders = []
        for path in paths.values():
            db = connect(path, "locking_mode=exclusive")
            db.execute("update item set data = 'held' where id = 1")
            holders.append(db)
        refused = fleet.cli("backup", "alpha/wal", check=6)
        lf.expect("DATABASE_BUSY" in refused.out and "method file" in refused.err, f"the refusal points to the method file\n{refused}")
        snapshot = fleet.snapshot("alpha/wal", "--method", "file")
        copy = connect(fleet.download(snapshot))
        lf.expect_equal(copy.execute("select data from item where id = 1").fetchall(), [("held",)], "what was committed")
        copy.close()
        refused = fleet.cli("backup", "alpha/delete", "--method", "file", check=6)
        lf.expect("DATABASE_BUSY" in refused.out, f"in rollback mode nothing proves it\n{refused}")
        for db in holders:
            db.close()


def test_killed_under_the_lock_and_after_it():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {journal: make(fleet, journal, journal) for journal in ("delete", "wal")}
        agent = fleet.agent("alpha", {name: (path, 'method = "file"\n') for name, path in paths.items()})
        for journal, path in paths.items():
            for point in ("capture.pinned", "capture.unpinned"):
                before = files(path)
                agent.process.stop()
                process = agent.start(env={"LITEFLEET_CRASH_AT": point})
                agent.wait_connected()
                fleet.cli("backup", f"alpha/{journal}", "--full", "--detach")
                lf.wait_until(f"killed at {point}", lambda p=process: not agent.process.running(), 60)
                lf.expect_equal(files(path), before, f"{journal}: nothing is left at {point}")
                db = connect(path, "busy_timeout=0")
                db.execute("update item set data = randomblob(30) where id = 2")
                db.close()
                agent.start()
                agent.wait_connected()
                lf.wait_until("the backup goes on", lambda j=journal: fleet.cli("-o", "json", "operation", "list", "--active").json["items"] == [], 60)
                newest = fleet.snapshots(f"alpha/{journal}")[0]
                lf.expect_equal((newest["method"], lf.content(fleet.download(newest["id"]))), ("file", lf.content(path)), "the snapshot afterwards")
                lf.expect_equal([name for name in os.listdir(os.path.join(agent.state, "spool"))], [], "the spool")


if __name__ == "__main__":
    lf.main(globals())
