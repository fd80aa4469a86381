#!/usr/bin/env python3
"""The method dump from a device to the store and back: text, checks, downloads in every format, a shell on a snapshot, restores."""
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess

import lf


def cli_dump(path):
    return subprocess.run(["sqlite3", path, ".dump"], check=True, capture_output=True).stdout


def make(path, rows=20000, journal="wal"):
    noise = random.Random(7)  # where segments end depends on it
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma journal_mode={journal}")
    db.executescript("""
        create table item(id integer primary key autoincrement, name text, price real, data blob);
        create index item_name on item(name);
        create table tag(item references item(id), tag text, primary key(item, tag)) without rowid;
        create table loose(a);
        create trigger item_gone after delete on item begin delete from tag where item = old.id; end;
        create view cheap as select * from item where price < 10;
        """)
    db.execute("begin")
    db.executemany("insert into item(name, price, data) values(?, ?, ?)", ((f"it's item {i}\nof many", i / 7, noise.randbytes(60)) for i in range(rows)))
    db.executemany("insert into tag values(?, 'new')", ((i,) for i in range(1, rows, 5)))
    db.executemany("insert into loose values(?)", ((i,) for i in range(10)))
    db.execute("commit")
    db.close()
    return path


def value(path, sql):
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchone()[0]
    finally:
        db.close()


def files_beside(path):
    return sorted(os.listdir(os.path.dirname(path)))


def need_sqlite3():
    if shutil.which("sqlite3") is None:
        raise lf.Skip("the program sqlite3 is not here")


def test_dump_is_the_clis_text_and_successive_ones_share():
    need_sqlite3()
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("app"))
        path = make(fleet.path("app", "x.db"))
        fleet.agent("alpha", {"main": path})
        before = lf.sha256(path), files_beside(path)
        first = fleet.snapshot("alpha/main", "--method", "dump")
        lf.expect_equal((lf.sha256(path), files_beside(path)), before, "the database after the dump")
        shown = fleet.cli("-o", "json", "snapshot", "show", first).json
        lf.expect_equal((shown["method"], shown["content"]), ("dump", "sql"), "method and content")
        text = cli_dump(path)
        lf.expect_equal(shown["content_bytes"], len(text), "size of the text")
        fleet.cli("snapshot", "download", first, "--output", fleet.path("x.sql"))
        with open(fleet.path("x.sql"), "rb") as file:
            lf.expect(file.read() == text, "the text is not the sqlite3 CLI's")
        db = sqlite3.connect(path)
        db.execute("update item set name = 'changed' where id = 7000")
        db.commit()
        db.close()
        second = fleet.cli("-o", "json", "snapshot", "show", fleet.snapshot("alpha/main", "--method", "dump")).json
        lf.expect(second["wire_bytes"] * 20 < shown["wire_bytes"], f"a row sent {second['wire_bytes']} bytes, all {shown['wire_bytes']}")
        checked = fleet.cli("-o", "json", "snapshot", "check", first).json
        lf.expect_equal(checked["check"], "ok", "the check")
        fleet.cli("snapshot", "drill", first)


def test_what_the_spool_cannot_hold_is_sent_while_it_is_read():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        wal = make(fleet.path("wal.db"))
        rollback = make(fleet.path("rollback.db"), journal="delete")
        agent = fleet.agent("alpha", {"wal": (wal, 'method = "dump"'), "rollback": (rollback, 'method = "dump"')}, '[limits]\nspool_bytes = "1MiB"\n')
        for _ in range(2):
            done = fleet.backup("alpha/wal")
            lf.expect_equal(done["state"], "succeeded", done)
            steps = fleet.cli("-o", "json", "operation", "show", done["id"]).json["steps"]
            lf.expect(any("sent while it was read" in step for step in steps), steps)
            lf.expect_equal(os.listdir(os.path.join(agent.state, "spool")), [], "the spool")
        snapshot = fleet.snapshots("alpha/wal")[0]["id"]
        fleet.cli("snapshot", "download", snapshot, "--output", fleet.path("wal.sql"), "--format", "sql")
        loaded = sqlite3.connect(":memory:")
        with open(fleet.path("wal.sql"), encoding="utf-8") as text:
            loaded.executescript(text.read())
        lf.expect_equal(loaded.execute("select count(*), sum(length(data)) from item").fetchone(), (20000, 1200000), "the text has all rows")
        # Nobody could write meanwhile: a copy is read, where there can be one, or it is said; and from then on before anything is read.
        for _ in range(2):
            done = fleet.backup("alpha/rollback", check=False)
            if done["state"] == "succeeded":
                steps = fleet.cli("-o", "json", "operation", "show", done["id"]).json["steps"]
                lf.expect(any("blocks were shared" in step for step in steps), steps)
            else:
                lf.expect_equal(done["error"]["reason"], "SPOOL_FULL", done["error"])
                lf.expect("spool_bytes" in done["error"]["hint"] and "WAL" in done["error"]["hint"], done["error"])
            lf.expect_equal(os.listdir(os.path.join(agent.state, "spool")), [], "the spool")


def test_a_copy_that_shares_blocks_is_dumped_where_the_spool_is_too_small():
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        raise lf.Skip("only root mounts a file system, made by mkfs.xfs")
    with lf.Fleet() as fleet:
        place = fleet.path("xfs")
        os.mkdir(place)
        with open(place + ".image", "wb") as image:
            image.truncate(400 << 20)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", place + ".image"], check=True, capture_output=True)
        if subprocess.run(["mount", "-o", "loop", place + ".image", place], capture_output=True, check=False).returncode != 0:
            raise lf.Skip("loop mounts are not allowed here")
        try:
            fleet.init()
            fleet.serve()
            path = make(os.path.join(place, "x.db"), journal="delete")
            text = cli_dump(path) if shutil.which("sqlite3") else None
            agent = fleet.agent("alpha", {"main": (path, 'method = "dump"')}, '[limits]\nspool_bytes = "1MiB"\n')
            for _ in range(2):
                before = lf.sha256(path), files_beside(path)
                done = fleet.backup("alpha/main")
                lf.expect_equal(done["state"], "succeeded", done)
                lf.expect_equal((lf.sha256(path), files_beside(path)), before, "the database after the dump")
                steps = fleet.cli("-o", "json", "operation", "show", done["id"]).json["steps"]
                lf.expect(any("blocks were shared" in step for step in steps), steps)
                lf.expect_equal(os.listdir(os.path.join(agent.state, "spool")), [], "the spool")
            shown = fleet.cli("-o", "json", "snapshot", "show", done["snapshot"]).json
            lf.expect_equal((shown["method"], shown["journal_mode"]), ("dump", "rollback"), "what it is")
            fleet.cli("snapshot", "download", done["snapshot"], "--output", fleet.path("x.sql"))
            with open(fleet.path("x.sql"), "rb") as file:
                lf.expect(text is None or file.read() == text, "the text is not the sqlite3 CLI's")
            lf.expect_equal(fleet.cli("-o", "json", "snapshot", "check", done["snapshot"]).json["check"], "ok", "the check")
        finally:
            subprocess.run(["umount", "-l", place], check=False)


def test_options_and_configuration_say_what_is_dumped():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=50)
        fleet.agent("alpha", {"main": (path, 'method = "dump"\n[database.dump]\nwithout_tables = ["item"]')})

        def text(*args):
            snapshot = fleet.snapshot("alpha/main", *args)
            return fleet.cli("snapshot", "download", snapshot, "--output", "-").out

        configured = text()
        lf.expect("CREATE TABLE tag" in configured and "TABLE item" not in configured, "agent.toml is not what was dumped")
        ordered = text("--method", "dump", "--table", "item", "--schema-only")
        lf.expect("CREATE TABLE item" in ordered and "INSERT" not in ordered and "TABLE tag" not in ordered, "the order is not what was dumped")
        failed = fleet.backup("alpha/main", "--method", "dump", "--table", "nothing", check=False)
        lf.expect_equal(failed["error"]["reason"], "TABLE_NOT_FOUND", "a table that is not there")
        fleet.cli("backup", "alpha/main", "--schema-only", check=2)
        online = fleet.cli("-o", "json", "snapshot", "show", fleet.snapshot("alpha/main", "--method", "online")).json
        lf.expect_equal((online["method"], online["content"]), ("online", "database"), "another method on order")


def test_a_part_is_never_taken_for_the_whole():
    need_sqlite3()
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=200)
        config = fleet.agent("alpha", {"main": path, "fresh": make(fleet.path("fresh.db"), rows=1)}).config
        content = lf.content(path)
        whole = fleet.snapshot("alpha/main")
        parts = {}
        for part, args in (("schema only", ["--schema-only"]), ("data only", ["--data-only"]), ("without table tag", ["--without-table", "tag"]), ("table tag", ["--table", "tag"])):
            parts[part] = fleet.snapshot("alpha/main", "--method", "dump", *args)
            lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", parts[part]).json["part"], part, "the part")
            lf.expect(f"dump ({part})" in fleet.cli("-o", "wide", "snapshot", "list", "alpha/main").out, f"the list does not say {part}")
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", whole).json["part"], None, "what a whole snapshot holds")
        # What is newest is the whole one, for whoever asks.
        lf.expect_equal(fleet.cli("-o", "name", "snapshot", "list", "alpha/main", "--no-imports", "--limit", "1").out.split(), [whole], "the newest backup")
        lf.expect_equal(fleet.cli("-o", "json", "database", "show", "alpha/main").json["newest_snapshot"]["id"], whole, "the newest snapshot")
        kept = fleet.program("litefleet-agent", "status", "--config", config, "-o", "json").json["databases"]
        lf.expect_equal([each["last_snapshot"] for each in kept if each["name"] == "main"], [whole], "what the device goes on from")
        for when in ([], ["--at", "now"]):
            lf.expect_equal(fleet.cli("-o", "json", "restore", "alpha/main", *when, "--plan").json["snapshot"]["id"], whole, f"what a restore {when} takes")
        plan = fleet.cli("restore", "alpha/main", "--snapshot", parts["schema only"], "--plan").out
        lf.expect("holds a part only: schema only" in plan, f"the plan: {plan}")
        # Their checks: rows without what was left out are no damage, and rows alone are no database.
        for part, check in (("table tag", "ok"), ("without table tag", "ok"), ("schema only", "ok"), ("data only", "cannot_tell")):
            checked = fleet.cli("-o", "json", "snapshot", "check", parts[part]).json
            lf.expect_equal(checked["check"], check, f"the check of {part}: {checked['check_message']}")
        alarms = [alarm["reason"] for alarm in fleet.cli("-o", "json", "status").json["alarms"]]
        lf.expect("SOURCE_DAMAGED" not in alarms, f"alarms: {alarms}")
        # The two halves are the whole, with SQLite's own program.
        made = fleet.path("made.db")
        for part in ("schema only", "data only"):
            fleet.cli("snapshot", "download", parts[part], "--output", fleet.path("part.sql"), "--force")
            with open(fleet.path("part.sql"), "rb") as file:
                subprocess.run(["sqlite3", "-bail", made], stdin=file, check=True)
        lf.expect_equal(lf.content(made), content, "what the halves make")
        lf.run_sql(path, "delete from item")
        fleet.cli("restore", "alpha/main", "--yes")
        lf.expect_equal(lf.content(path), content, "the rows after a restore of the newest state")
        # Of a database of which there are parts alone nothing is restored without an id.
        part = fleet.snapshot("alpha/fresh", "--method", "dump", "--schema-only")
        refused = fleet.cli("-o", "json", "restore", "alpha/fresh", "--yes", check=False)
        lf.expect_equal(json.loads(refused.err)["error"]["reason"], "NO_SNAPSHOT", "a restore without an id")
        fleet.cli("restore", "alpha/fresh", "--snapshot", part, "--yes")
        lf.expect_equal(value(fleet.path("fresh.db"), "select count(*) from item"), 0, "the rows of a schema")


def test_downloads_in_every_format_and_a_shell():
    need_sqlite3()
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=300)
        fleet.agent("alpha", {"main": path})
        dump, online = fleet.snapshot("alpha/main", "--method", "dump"), fleet.snapshot("alpha/main", "--method", "online")
        content = lf.content(path)
        for kind, snapshot in (("dump", dump), ("online", online)):
            database, sql, folder = fleet.path(f"{kind}.db"), fleet.path(f"{kind}.sql"), fleet.path(f"{kind}-csv")
            fleet.cli("snapshot", "download", snapshot, "--output", database, "--format", "db")
            lf.expect_equal(lf.content(database), content, f"the rows of {kind} as a database")
            lf.expect_equal(lf.integrity(database), "ok", f"the integrity of {kind} as a database")
            fleet.cli("snapshot", "download", snapshot, "--output", sql, "--format", "sql")
            with open(sql, "rb") as file:
                lf.expect(file.read() == cli_dump(path), f"{kind} as SQL is not the CLI's text")
            fleet.cli("snapshot", "download", snapshot, "--output", folder, "--format", "csv")
            lf.expect_equal(sorted(os.listdir(folder)), ["cheap.csv", "item.csv", "loose.csv", "tag.csv"], f"CSV files of {kind}")
            with open(os.path.join(folder, "loose.csv"), "rb") as file:
                lf.expect_equal(file.read(), b"a\r\n" + b"".join(b"%d\r\n" % i for i in range(10)), f"a CSV file of {kind}")
            temporary = fleet.path(f"{kind}-tmp")
            os.mkdir(temporary)
            opened = fleet.cli("snapshot", "open", snapshot, "select count(*) from item", env={"TMPDIR": temporary})
            lf.expect_equal(opened.out.strip(), "300", f"the shell on {kind}")
            fleet.cli("snapshot", "open", snapshot, "delete from item", check=1, env={"TMPDIR": temporary})
            lf.expect_equal(os.listdir(temporary), [], "what the shell leaves")
        missing = fleet.cli("snapshot", "open", dump, check=6, env={"PATH": "/nonexistent"})
        lf.expect("sqlite3" in missing.err, f"without sqlite3: {missing.err}")
        fleet.cli("snapshot", "download", dump, "--output", fleet.path("dump-csv"), "--format", "csv", check=6)
        lf.expect_equal([name for name in os.listdir(fleet.directory) if ".part" in name or "sort" in name], [], "what downloads leave")


def test_csv_files_have_their_name_when_all_are_there():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=50)
        lf.run_sql(path, "create view without_end as with recursive c(i) as (select 1 union all select i + 1 from c) select i from c")
        fleet.agent("alpha", {"main": path})
        snapshot = fleet.snapshot("alpha/main")
        os.mkdir(fleet.path("out"))
        for number in (signal.SIGINT, signal.SIGTERM):
            args = [os.path.join(lf.BIN, "litefleet"), "snapshot", "download", snapshot, "--output", fleet.path("out", "csv"), "--format", "csv"]
            process = subprocess.Popen(args, env={**os.environ, "LITEFLEET_DATA": fleet.data}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            part = fleet.path("out", f"csv.{process.pid}.part")
            lf.wait_until("the view is written", lambda: os.path.exists(os.path.join(part, "without_end.csv")), every=0.01)
            lf.expect_equal(os.listdir(fleet.path("out")), [os.path.basename(part)], "what there is meanwhile")
            process.send_signal(number)
            process.wait(30)
            lf.expect_equal(process.returncode, 130, "the exit code after an interrupt")
            lf.expect_equal(os.listdir(fleet.path("out")), [], "what an interrupt leaves")
        fleet.cli("snapshot", "download", snapshot, "--output", fleet.path("out", "csv") + "/", "--format", "csv", "--table", "item")
        lf.expect_equal(os.listdir(fleet.path("out")), ["csv"], "what a good end leaves")


def test_an_interrupt_of_a_conversion_leaves_nothing():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=50)
        lf.run_sql(path, "create table big(a); with recursive c(i) as (select 1 union all select i + 1 from c where i < 2000) insert into big select randomblob(50000) from c")
        fleet.agent("alpha", {"main": path})
        snapshot = fleet.snapshot("alpha/main")
        os.mkdir(fleet.path("out"))
        for options in (["--format", "sql"], ["--table", "big"]):
            args = [os.path.join(lf.BIN, "litefleet"), "snapshot", "download", snapshot, "--output", fleet.path("out", "file"), *options]
            process = subprocess.Popen(args, env={**os.environ, "LITEFLEET_DATA": fleet.data}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            part = fleet.path("out", f"file.{process.pid}.part")
            lf.wait_until("the conversion has begun", lambda: os.path.exists(part) and os.path.getsize(part) > 1 << 20, every=0.005)
            process.send_signal(signal.SIGINT)
            process.wait(30)
            lf.expect_equal(process.returncode, 130, f"the exit code after an interrupt of {options}")
            lf.expect_equal(os.listdir(fleet.path("out")), [], f"what an interrupt of {options} leaves")


def test_a_dump_is_restored_like_any_other():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=2000)
        fleet.agent("alpha", {"main": path, "copy": fleet.path("copy.db")})
        content = lf.content(path)
        snapshot = fleet.snapshot("alpha/main", "--method", "dump")
        db = sqlite3.connect(path)
        db.execute("delete from item")
        db.commit()
        # Live, with the application attached: it sees the rows again, and its journal mode stays.
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--yes")
        lf.expect_equal(db.execute("select count(*) from item").fetchone()[0], 2000, "rows that the application sees")
        lf.expect_equal(db.execute("pragma journal_mode").fetchone()[0], "wal", "the journal mode")
        db.close()
        lf.expect_equal(lf.content(path), content, "the restored rows")
        # To where nothing is.
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--to", "alpha/copy", "--yes")
        lf.expect_equal(lf.content(fleet.path("copy.db")), content, "the rows of the copy")
        lf.expect_equal(lf.integrity(fleet.path("copy.db")), "ok", "the integrity of the copy")
        lf.expect_equal(value(fleet.path("copy.db"), "pragma journal_mode"), "wal", "the journal mode of the copy")
        # In the place of one that nobody has open: as it was in the snapshot.
        lf.run_sql(path, "pragma journal_mode=delete")
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "replace", "--yes")
        lf.expect_equal(value(path, "pragma journal_mode"), "wal", "the journal mode after a replace")
        lf.expect_equal(lf.content(path), content, "the rows after a replace")
        lf.expect_equal([name for name in os.listdir(fleet.directory) if name.startswith(".litefleet")], [], "what restores leave")


def test_a_damaged_database_is_said_to_be():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"), rows=3000, journal="delete")
        with open(path, "r+b") as file:
            for page in range(4, 40):
                file.seek(page * 4096)
                file.write(b"\xa5" * 200)
        fleet.agent("alpha", {"main": path})
        failed = fleet.backup("alpha/main", "--method", "dump", check=False)
        lf.expect_equal(failed["error"]["reason"], "DATABASE_DAMAGED", "the reason")
        lf.expect("malformed" in failed["error"]["message"], f"SQLite's words: {failed['error']}")
        lf.expect_equal(fleet.snapshots("alpha/main"), [], "snapshots of it")


if __name__ == "__main__":
    lf.main(globals())
