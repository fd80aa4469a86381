#!/usr/bin/env python3
"""A file that somebody has becomes a snapshot: databases, SQL text, what is none, what is in use; pushed, downloaded, drilled as any other."""
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import lf


def start(fleet, rows=200):
    fleet.init()
    fleet.serve()
    path = lf.make_database(fleet.path("live.db"), rows=rows)
    fleet.agent("alpha", {"main": path})
    return path


def scratch(fleet):
    return os.listdir(os.path.join(fleet.data, "scratch"))


def reason(result):
    lf.expect("error" in result.err, f"no error document\n{result}")
    return lf.json.loads(result.err[result.err.index('{"error"'):])["error"]["reason"]


def test_a_database_and_sql_text_become_snapshots_and_are_pushed():
    with lf.Fleet() as fleet:
        path = start(fleet)
        backup = fleet.snapshot("alpha/main")
        brought = lf.make_database(fleet.path("brought.db"), rows=5000, journal="delete")
        db = sqlite3.connect(brought)
        text = "\n".join(db.iterdump())
        db.close()
        with open(fleet.path("brought.sql"), "w", encoding="utf-8") as file:
            file.write(text)
        imported = {}
        for name, method in (("brought.db", "file"), ("brought.sql", "dump")):
            operation = fleet.cli("-o", "json", "snapshot", "import", fleet.path(name), "--to", "alpha/main").json
            lf.expect_equal((operation["kind"], operation["state"], operation["database"]), ("import", "succeeded", "main"), f"the operation of {name}")
            shown = fleet.cli("-o", "json", "snapshot", "show", operation["snapshot"]).json
            lf.expect_equal((shown["method"], shown["source_check"]), (method, "ok"), f"method and check of {name}")
            lf.expect(f'"{name}"' in shown["provenance"] and "operator:local" in shown["provenance"], f"provenance: {shown['provenance']}")
            lf.expect("imported" in fleet.cli("snapshot", "show", operation["snapshot"]).out, "the page for people does not say that it was imported")
            imported[name] = operation["snapshot"]
            lf.expect_equal(lf.content(fleet.download(operation["snapshot"])), lf.content(brought), f"the rows of {name}")
        lf.expect_equal(lf.sha256(fleet.path(imported["brought.db"] + ".db")), lf.sha256(brought), "the bytes of the database")
        # The stored copy is checked by an order of its own, and it can be drilled.
        lf.wait_until("the import is checked", lambda: fleet.cli("-o", "json", "snapshot", "show", imported["brought.db"]).json["check"] == "ok")
        fleet.cli("snapshot", "drill", imported["brought.db"])
        # The list tells them apart from backups, and can leave them out.
        listed = {item["id"]: item["imported"] for item in fleet.cli("-o", "json", "snapshot", "list", "alpha/main").json["items"]}
        lf.expect_equal(listed, {backup: False, **{each: True for each in imported.values()}}, "what was imported")
        for wide in ([], ["-o", "wide"]):
            rows = {line.split()[0]: line for line in fleet.cli(*wide, "snapshot", "list", "alpha/main").out.splitlines()[1:]}
            lf.expect_equal({each for each, line in rows.items() if "  import" in line}, set(imported.values()), f"marks in the table {wide}")
        lf.expect_equal(fleet.cli("-o", "name", "snapshot", "list", "alpha/main", "--no-imports", "--limit", "1").out.split(), [backup], "the newest backup")
        lf.expect("--timeout" not in fleet.cli("snapshot", "import", "--help").out, "nobody waits for a device")
        # Never the newest: a restore without a name takes the backup.
        plan = fleet.cli("-o", "json", "restore", "alpha/main", "--plan").json
        lf.expect(backup in lf.json.dumps(plan), f"the plan is not for the backup: {plan}")
        fleet.cli("restore", "alpha/main", "--snapshot", imported["brought.db"], "--yes")
        lf.expect_equal(lf.content(path), lf.content(brought), "what was pushed")
        again = fleet.snapshot("alpha/main")
        lf.expect_equal(lf.content(fleet.download(again)), lf.content(path), "the next backup")
        lf.expect_equal(scratch(fleet), [], "the scratch place")


def make_odd(path):
    """What the CLI's text loses."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma page_size=1024")
    db.execute("pragma user_version=77")
    db.execute("pragma application_id=1234")
    db.execute("create table t(a)")
    for rowid, value in ((5, "before\0after"), (7, 5e-324), (70, -0.0), (1 << 40, "it's\nof two lines")):
        db.execute("insert into t(rowid, a) values(?, ?)", (rowid, value))
    db.execute("create table counted(id integer primary key autoincrement, a)")
    db.execute("insert into counted values(9000, 'gone')")
    db.execute("delete from counted")
    db.close()
    return path


def facts(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        settings = [db.execute(f"pragma {name}").fetchone()[0] for name in ("user_version", "application_id", "page_size", "integrity_check")]
        return settings, db.execute("select rowid, typeof(a), hex(a), printf('%!.20g', a) from t").fetchall(), db.execute("select * from sqlite_sequence").fetchall()
    finally:
        db.close()


def test_text_of_the_cli_and_of_a_lossless_dump_come_back_to_the_device():
    if shutil.which("sqlite3") is None:
        raise lf.Skip("the sqlite3 program is not installed (package sqlite3)")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {"main": lf.make_shop(fleet.path("main.db")), "odd": make_odd(fleet.path("odd.db"))}
        agent = fleet.agent("alpha", paths)

        def text(snapshot, name):
            path = fleet.path(name)
            fleet.cli("snapshot", "download", snapshot, "--output", path, "--format", "sql")
            return path

        def come_back(name, file):
            """Imported, restored to the device as a new file; the snapshot."""
            snapshot = fleet.cli("-o", "json", "snapshot", "import", file, "--to", f"alpha/{name}").json["snapshot"]
            lf.wait_until("the import is checked", lambda: fleet.cli("-o", "json", "snapshot", "show", snapshot).json["check"] == "ok")
            fleet.cli("restore", f"alpha/{name}", "--snapshot", snapshot, "--mode", "replace", "--yes")
            return snapshot

        backups = {name: fleet.snapshot(f"alpha/{name}") for name in paths}
        wanted, odd = lf.content(paths["main"]), facts(paths["odd"])
        with open(fleet.path("cli.sql"), "wb") as file:
            subprocess.run(["sqlite3", paths["main"], ".dump"], check=True, stdout=file)
        own = text(backups["odd"], "own.sql")
        lf.run_sql(paths["main"], "delete from orders; drop table log")
        lf.run_sql(paths["odd"], "delete from t; pragma user_version=78; insert into counted values(9001, 'more')")

        come_back("main", fleet.path("cli.sql"))
        lf.expect_equal((lf.content(paths["main"]), lf.integrity(paths["main"])), (wanted, "ok"), "what the text of the CLI became")
        come_back("odd", own)
        lf.expect_equal(facts(paths["odd"]), odd, "what the lossless text became")
        # There and back once more: the text is the same.
        lf.expect_equal(lf.sha256(text(fleet.snapshot("alpha/odd"), "again.sql")), lf.sha256(own), "the text of what was restored")
        lf.expect(agent.process.running(), "the agent ended")


def test_what_is_none_or_in_use_is_said_and_nothing_stays():
    with lf.Fleet() as fleet:
        start(fleet)
        before = fleet.snapshots()

        def refused(name, wanted, code, to="alpha/main", content=None):
            path = fleet.path(name)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
            result = fleet.cli("-o", "json", "snapshot", "import", path, "--to", to, check=code)
            lf.expect_equal(reason(result), wanted, name)

        refused("missing.db", "FILE_NOT_FOUND", 4)
        refused("empty.db", "FILE_INVALID", 2, content=b"")
        refused("random.db", "IMPORT_ENCRYPTED", 8, content=os.urandom(8192))
        refused("zip.db", "IMPORT_NOT_A_DATABASE", 8, content=b"PK\x03\x04" + os.urandom(100))
        refused("junk.db", "IMPORT_NOT_A_DATABASE", 8, content=b"\0junk" * 100)
        told = fleet.cli("snapshot", "import", fleet.path("junk.db"), "--to", "alpha/main", check=8)
        lf.expect("hint: import a database file" in told.err, f"no hint\n{told}")
        refused("words.sql", "LOAD_REFUSED", lf.AnyOf(1, 6), content=b"these are no statements;\n")
        refused("words.sql", "DATABASE_NOT_FOUND", 4, to="alpha/nothing")
        refused("words.sql", "DEVICE_NOT_FOUND", 4, to="beta/main")
        os.mkdir(fleet.path("folder"))
        refused("folder", "FILE_INVALID", 2)
        whole = lf.make_database(fleet.path("whole.db"), rows=300, journal="delete")
        with open(whole, "rb") as file:
            refused("half.db", "IMPORT_TRUNCATED", 8, content=file.read(8192))
        # A live one: its commits are in the log beside it.
        live = fleet.path("wal.db")
        application = sqlite3.connect(live, isolation_level=None)
        application.execute("pragma journal_mode=wal")
        application.execute("create table t(a)")
        refused("wal.db", "IMPORT_IN_USE", 6)
        # The log of one that has crashed is there without anybody.
        for suffix in ("", "-wal"):
            with open(live + suffix, "rb") as source, open(fleet.path("crashed.db") + suffix, "wb") as target:
                target.write(source.read())
        application.close()
        refused("crashed.db", "IMPORT_IN_USE", 6)
        # What belongs to a database lies beside the file, not beside a link to it.
        os.mkdir(fleet.path("links"))
        os.symlink(fleet.path("crashed.db"), fleet.path("links", "crashed.db"))
        refused("links/crashed.db", "IMPORT_IN_USE", 6)
        # Nobody writes into it, and nobody waits for that.
        os.mkfifo(fleet.path("pipe"))
        refused("pipe", "FILE_INVALID", 2)
        busy = sqlite3.connect(whole, isolation_level=None)
        busy.execute("begin immediate")
        refused("whole.db", "IMPORT_IN_USE", 6)
        busy.execute("rollback")
        busy.close()
        fleet.cli("snapshot", "import", whole, "--to", "alpha/main")
        lf.expect_equal(len(fleet.snapshots()), len(before) + 1, "snapshots")
        lf.expect_equal(scratch(fleet), [], "the scratch place")
        fleet.cli("snapshot", "import", whole, check=2)
        fleet.cli("snapshot", "import", "--to", "alpha/main", check=2)


def test_it_can_be_interrupted_cancelled_and_killed():
    with lf.Fleet() as fleet:
        start(fleet)
        big = lf.make_database(fleet.path("big.db"), rows=120000, journal="delete")
        slow = lf.slow_to_check(fleet.path("slow.db"), 60)

        def active():
            items = fleet.cli("-o", "json", "operation", "list", "--active").json["items"]
            return next((item["id"] for item in items if item["kind"] == "import"), None)

        def begin(path=big):
            args = [os.path.join(lf.BIN, "litefleet"), "snapshot", "import", path, "--to", "alpha/main"]
            process = subprocess.Popen(args, env={**os.environ, "LITEFLEET_DATA": fleet.data}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            return process, lf.wait_until("the import runs", active, every=0.02)

        def ended(operation, states):
            return lf.wait_until("the import ends", lambda: (found := fleet.cli("-o", "json", "operation", "show", operation).json)["state"] in states and found)

        process, operation = begin(slow)
        fleet.cli("operation", "cancel", operation)
        ended(operation, ("cancelled",))
        process.wait(30)
        lf.expect(process.returncode not in (0,), "the command ended well although it was cancelled")
        process, operation = begin()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        lf.expect_equal(process.returncode, 130, "the exit code after Ctrl-C")
        # Ctrl-C while it is sent ends the import; afterwards it goes on without the command.
        ended(operation, ("failed", "cancelled", "succeeded"))
        process, operation = begin()
        fleet.controller.kill()
        process.wait(90)
        lf.expect(process.returncode not in (0,), "the command ended well although the controller was killed")
        fleet.serve()
        after = ended(operation, ("failed", "succeeded"))
        if after["state"] == "failed":
            lf.expect_equal(after["error"]["reason"], "IMPORT_INTERRUPTED", "why")
        lf.expect_equal(scratch(fleet), [], "the scratch place")
        fleet.cli("snapshot", "import", big, "--to", "alpha/main")


def lose_catalog(fleet):
    for name in os.listdir(fleet.data):
        if name.startswith("catalog.db"):
            os.unlink(os.path.join(fleet.data, name))


def test_a_rebuilt_catalog_knows_an_import_from_a_backup():
    with lf.Fleet() as fleet:
        path = start(fleet)
        backup = fleet.snapshot("alpha/main")
        brought = lf.make_database(fleet.path("brought.db"), rows=3000, journal="delete")
        imported = fleet.cli("-o", "json", "snapshot", "import", brought, "--to", "alpha/main").json["snapshot"]
        before = fleet.cli("-o", "json", "snapshot", "show", imported).json
        for tail in (False, True):
            if tail:
                # One that is in the tail of a pack when the controller is killed.
                imported = fleet.cli("-o", "json", "snapshot", "import", brought, "--to", "alpha/main").json["snapshot"]
            fleet.controller.kill()
            lose_catalog(fleet)
            fleet.program("litefleet-controller", "rebuild", "--data", fleet.data)
            fleet.serve()
            fleet.agents["alpha"].wait_connected()
            after = fleet.cli("-o", "json", "snapshot", "show", imported).json
            lf.expect('"brought.db"' in after["provenance"], f"what it was: {after}")
            if not tail:
                lf.expect_equal(after["provenance"], before["provenance"], "what it was")
            fleet.cli("snapshot", "check", imported)
            database = next(one for one in fleet.cli("-o", "json", "database", "list").json["items"] if one["name"] == "main")
            lf.expect(imported not in lf.json.dumps(database), f"the newest of its database: {database}")
            plan = fleet.cli("-o", "json", "restore", "alpha/main", "--plan").json
            lf.expect(backup in lf.json.dumps(plan), f"the plan is not for the backup: {plan}")
            lf.expect_equal(lf.sha256(fleet.download(imported)), lf.sha256(brought), "its bytes")
        lf.expect_equal(lf.content(fleet.download(fleet.snapshot("alpha/main"))), lf.content(path), "the next backup")


def test_a_device_that_is_revoked_or_forgotten_gets_none():
    with lf.Fleet() as fleet:
        start(fleet)
        fleet.snapshot("alpha/main")
        brought = lf.make_database(fleet.path("brought.db"), rows=100, journal="delete")
        fleet.cli("device", "revoke", "alpha", "--yes")
        refused = fleet.cli("-o", "json", "snapshot", "import", brought, "--to", "alpha/main", check=6)
        lf.expect_equal(reason(refused), "DEVICE_REVOKED", "why")
        fleet.cli("device", "forget", "alpha", "--delete-snapshots", "--yes")
        refused = fleet.cli("-o", "json", "snapshot", "import", brought, "--to", "alpha/main", check=4)
        lf.expect_equal(reason(refused), "DEVICE_NOT_FOUND", "why")
        lf.expect_equal(scratch(fleet), [], "the scratch place")


def test_memory_stays_bounded():
    with lf.Fleet() as fleet:
        start(fleet)
        small = lf.make_database(fleet.path("small.db"), rows=100, journal="delete")
        fleet.cli("snapshot", "import", small, "--to", "alpha/main")
        before = fleet.controller.peak_kib()
        big = lf.make_database(fleet.path("big.db"), rows=600000, journal="delete")
        lf.expect(os.path.getsize(big) > 150 << 20, "the database is too small for this test")
        began = time.monotonic()
        fleet.cli("snapshot", "import", big, "--to", "alpha/main")
        grown = fleet.controller.peak_kib() - before
        print(f"  {os.path.getsize(big) >> 20} MiB in {time.monotonic() - began:.1f} s, the controller grew by {grown >> 10} MiB")
        lf.expect(grown < 80 << 10, f"the controller grew by {grown} KiB")


if __name__ == "__main__":
    lf.main(globals())
