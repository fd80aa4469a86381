#!/usr/bin/env python3
"""Databases of odd shapes: each is backed up by the real programs, downloaded, restored elsewhere, and compared byte by byte."""
import os
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lf  # noqa: E402

NOBODY = 65534
FILL = "create table t(a integer primary key, b); insert into t(b) select hex(randomblob(90)) from (with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) select i from n)"
ODD = {
    "empty": None,
    "pages-512": f"pragma page_size=512; {FILL}",
    "pages-64k": f"pragma page_size=65536; pragma journal_mode=wal; {FILL}",
    "utf-16": f"pragma encoding='UTF-16be'; {FILL}",
    "auto-vacuum": f"pragma auto_vacuum=full; {FILL}; delete from t where a % 2",
    "incremental": f"pragma auto_vacuum=incremental; pragma journal_mode=wal; {FILL}; delete from t where a % 3",
    "no-rowid": "create table t(a text primary key, b) without rowid; insert into t values ('x', 1), ('y', null)",
    "full-text": "create virtual table t using fts5(a); insert into t values ('a word and another')",
    "rtree": "create virtual table t using rtree(id, x0, x1); insert into t values (1, 2, 3)",
    "no-table": "pragma user_version=7; pragma application_id=9",
}


def make(path, script):
    if script is None:
        with open(path, "wb"):
            return
    database = sqlite3.connect(path, isolation_level=None)
    for statement in script.split(";"):
        database.execute(statement).fetchall()
    database.close()


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_every_shape_comes_back():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        come_back(fleet, [name for name in ODD if name != "rtree"])


def test_an_rtree_comes_back():
    if ("ENABLE_RTREE",) not in sqlite3.connect(":memory:").execute("pragma compile_options").fetchall():
        raise lf.Skip("this Python's SQLite has no rtree")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        come_back(fleet, ["rtree"])


def come_back(fleet, names):
    for name in names:
        make(fleet.path(f"{name}.db"), ODD[name])
    fleet.agent("alpha", {name: fleet.path(f"{name}.db") for name in names})
    fleet.agent("beta", {name: fleet.path(f"{name}.restored") for name in names})
    for name in names:
        before = content(fleet.path(f"{name}.db"))
        snapshot = fleet.snapshot(f"alpha/{name}")
        lf.expect(content(fleet.download(snapshot)) == before, f"{name}: the download is the database, byte by byte")
        fleet.cli("restore", f"alpha/{name}", "--snapshot", snapshot, "--to", f"beta/{name}", "--yes")
        lf.expect(content(fleet.path(f"{name}.restored")) == before, f"{name}: the restored file is the database, byte by byte")
        lf.expect(content(fleet.path(f"{name}.db")) == before, f"{name}: the backup changed nothing")


def test_a_broken_page_is_backed_up_as_it_is_and_said_in_sqlites_words():
    """A page of a table's tree, which no header tells of: only SQLite can know, and it looks at the copy after the backup."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        methods = ("online", "file")
        for name in methods:
            make(fleet.path(f"{name}.db"), FILL)
            with open(fleet.path(f"{name}.db"), "r+b") as file:
                file.seek(4096 * 4)
                file.write(b"\xa5" * 200)
        fleet.agent("alpha", {name: fleet.path(f"{name}.db") for name in methods})
        for name in methods:
            first = fleet.cli("backup", f"alpha/{name}", "--method", name)
            lf.expect("its check by SQLite waits" in first.err, f"what is not known yet is said\n{first}")
            snapshot = fleet.snapshots(f"alpha/{name}")[0]["id"]
            lf.expect(content(fleet.download(snapshot)) == content(fleet.path(f"{name}.db")), f"{name}: byte by byte")
            shown = lambda snapshot=snapshot: fleet.cli("-o", "json", "snapshot", "show", snapshot).json
            lf.expect_equal(shown()["source_check"], lf.AnyOf("unknown", "damaged"), "before the check, or after it")
            fleet.cli("snapshot", "check", snapshot, check=8)
            after = shown()
            lf.expect_equal((after["source_check"], after["check"]), ("damaged", "damaged"), f"{name}: both verdicts")
            lf.expect("btreeInitPage" in after["source_check_message"], f"SQLite's words: {after}")
            lf.expect_equal(after["source_check_message"], after["check_message"], "the words")
            again = fleet.cli("backup", f"alpha/{name}", "--method", name)
            lf.expect("damaged on the device" in again.err and "btreeInitPage" in again.err, f"what is known of the state before: the warning\n{again}")
        damaged = lambda: {each["subject"]: each for each in fleet.cli("-o", "json", "status").json["alarms"] if each["reason"] == "SOURCE_DAMAGED"}
        # The newest snapshots are checked by themselves a few seconds after they were taken.
        lf.wait_until("both alarms", lambda: len(damaged()) == len(methods), 60, 0.5)
        alarms = damaged()
        for alarm in alarms.values():
            lf.expect("btreeInitPage" in alarm["message"], f"SQLite's words: {alarm}")


def test_one_that_fails_stops_no_other():
    """Each kind of trouble is recorded with its reason; the databases beside it are backed up, before and after, by the same agent."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("directory.db"))
        with open(fleet.path("text.db"), "wb") as file:
            file.write(b"this is no database\n" * 500)
        make(fleet.path("foreign.db"), ODD["no-rowid"])
        other = sqlite3.connect(fleet.path("other.db"), isolation_level=None)
        other.executescript("pragma journal_mode=wal; create table o(x); insert into o values (1)")
        shutil.copy(fleet.path("other.db-wal"), fleet.path("foreign.db-wal"))
        other.close()
        with open(fleet.path("encrypted.db"), "wb") as file:
            file.write(os.urandom(64 * 4096))
        make(fleet.path("locked.db"), ODD["no-rowid"])
        locked = sqlite3.connect(f"file:{fleet.path('locked.db')}?vfs=unix-dotfile", uri=True, isolation_level=None)
        locked.execute("pragma cache_size=2")
        locked.execute("begin immediate")
        locked.execute("create table half_made(a)")
        # More than the cache holds, so that some of it is in the file already, and what it was in a journal.
        locked.executemany("insert into half_made values(?)", [(bytes(1000),)] * 200)
        bad = {"missing": "DATABASE_MISSING", "directory": "NOT_REGULAR_FILE", "text": "NOT_A_DATABASE", "encrypted": "ENCRYPTED", "locked": "FOREIGN_LOCKING"}
        names = ["first", *bad, "foreign", "last"]
        for name in ("first", "last"):
            make(fleet.path(f"{name}.db"), FILL)
        agent = fleet.agent("alpha", {name: fleet.path(f"{name}.db") for name in names})
        pid = agent.process.pid
        fleet.snapshot("alpha/first")
        for name, reason in bad.items():
            operation = fleet.backup(f"alpha/{name}", check=False)
            lf.expect_equal(operation["state"], "failed", f"{name}: {operation}")
            lf.expect_equal(operation["error"]["reason"], reason, f"{name}: {operation}")
        # A WAL of another database: SQLite cannot tell, and the snapshot is what an application would read.
        os.mkdir(fleet.path("copy"))
        for suffix in ("", "-wal"):
            shutil.copy(fleet.path(f"foreign.db{suffix}"), fleet.path("copy", f"foreign.db{suffix}"))
        snapshot = fleet.snapshot("alpha/foreign")
        wanted = lf.content(fleet.path("copy", "foreign.db"))
        lf.expect_equal(lf.content(fleet.download(snapshot)), wanted, "content of the snapshot of the database with a foreign WAL")
        lf.expect_equal(lf.content(fleet.path("foreign.db")), wanted, "content of the database with a foreign WAL after its backup")
        fleet.snapshot("alpha/last")
        lf.expect(agent.process.running() and agent.process.pid == pid, "the agent has ended")
        agent.process.stop()
        agent.start()  # its hello has the health of all
        agent.wait_connected()
        for name in names:
            health = fleet.cli("-o", "json", "database", "show", f"alpha/{name}").json["health"]
            lf.expect_equal((health["last_error"] or {}).get("reason"), bad.get(name), f"{name}: last error")
            lf.expect_equal(health["last_success_at"] is None, name in bad, f"{name}: last success")


def test_an_unreadable_one_stops_no_other():
    """Root reads everything, so the agent is somebody else where the test is root."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.chmod(fleet.directory, 0o755)
        os.mkdir(fleet.path("data"))
        for name in ("readable", "unreadable"):
            make(fleet.path("data", f"{name}.db"), ODD["no-rowid"])
        databases = {name: fleet.path("data", f"{name}.db") for name in ("readable", "unreadable")}
        agent = fleet.agent("alpha", databases, start=False)
        user = {}
        if os.geteuid() == 0:
            # Where the build is others may not reach.
            os.mkdir(fleet.path("bin"))
            for program in ("litefleet-agent", "litefleet-check"):
                shutil.copy(os.path.join(lf.BIN, program), fleet.path("bin", program))
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "bin_folder": fleet.path("bin")}
            agent.write_config()
            for folder, _, names in [*os.walk(agent.state), *os.walk(fleet.path("data"))]:
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, NOBODY, NOBODY)
        os.chmod(databases["unreadable"], 0)
        agent.start(**user)
        agent.wait_connected()
        operation = fleet.backup("alpha/unreadable", check=False)
        lf.expect_equal((operation["state"], operation["error"]["reason"]), ("failed", "NO_PERMISSION"), f"{operation}")
        fleet.snapshot("alpha/readable")


if __name__ == "__main__":
    lf.main(globals())
