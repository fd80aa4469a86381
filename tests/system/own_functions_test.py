#!/usr/bin/env python3
"""Databases with a collation, a function and a module of their application, which nobody else has: every method, every form of restore."""
import sqlite3

import lf


def connect(path):
    """As the application does."""
    db = sqlite3.connect(path, isolation_level=None)
    db.create_collation("german", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
    db.create_function("own", 1, lambda value: len(str(value)), deterministic=True)
    return db


def make(path, journal):
    db = connect(path)
    db.execute(f"pragma journal_mode={journal}")
    db.executescript("create table t(a text collate german, b check (own(b) > 0)); create index i on t(a); create index j on t(own(b));"
                     "create table plain(x); insert into plain values (1), (2)")
    # A table of a module, which Python cannot register: it is in the schema, and nothing here asks it for rows.
    db.executescript("pragma writable_schema=on; insert into sqlite_schema values('table', 'own', 'own', 0, 'CREATE VIRTUAL TABLE own USING own_module(a)');"
                     "pragma writable_schema=off")
    db.executemany("insert into t values (?, ?)", [(f"{'Ab'[n % 2]}{n % 977}", n * 7919) for n in range(3000)])
    db.close()
    return path


def rows(path):
    db = connect(path)
    try:
        lf.expect_equal(db.execute("pragma integrity_check").fetchone()[0], "ok", f"{path}: as its application checks it")
        return db.execute("select a, b, own(b) from t order by a, b").fetchall() + db.execute("select * from sqlite_schema where name = 'own'").fetchall()
    finally:
        db.close()


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_pages_are_backed_up_and_restored_in_every_form():
    for journal in ("wal", "delete"):
        with lf.Fleet() as fleet:
            fleet.init()
            fleet.serve()
            path = make(fleet.path("app.db"), journal)
            fleet.agent("alpha", {"app": path})
            fleet.agent("beta", {method: fleet.path(f"{method}.db") for method in ("online", "file")})
            before, wanted = content(path), rows(path)
            for method in ("online", "file"):
                snapshot = fleet.snapshot("alpha/app", "--method", method, "--full")
                fleet.cli("snapshot", "check", snapshot)
                shown = fleet.cli("-o", "json", "snapshot", "show", snapshot).json
                lf.expect_equal((shown["check"], shown["source_check"]), ("cannot_tell", "unknown"), f"{method}: verdicts")
                lf.expect("german" in shown["check_message"] or "own" in shown["check_message"], f"{method}: what is missing is said: {shown['check_message']}")
                fleet.cli("restore", "alpha/app", "--snapshot", snapshot, "--to", f"beta/{method}", "--yes")
                lf.expect(content(fleet.path(f"{method}.db")) == before, f"{method}: new, byte by byte")
                for mode in ("live", "replace"):
                    db = connect(path)
                    db.execute("delete from t where rowid % 3")
                    db.execute("insert into t values ('later', 1)")
                    db.close()
                    done = fleet.cli("-o", "json", "restore", "alpha/app", "--snapshot", snapshot, "--mode", mode, "--yes").json
                    lf.expect_equal((done["state"], done["restore_mode"]), ("succeeded", mode), f"{method}, {mode}")
                    lf.expect(rows(path) == wanted, f"{method}, {mode}: the rows")


def test_a_dump_says_that_nobody_else_can_load_it():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("app.db"), "wal")
        fleet.agent("alpha", {"app": path})
        wanted = rows(path)
        done = fleet.backup("alpha/app", "--method", "dump")
        snapshot = done["snapshot"]
        steps = fleet.cli("-o", "json", "operation", "show", done["id"]).json["steps"]
        lf.expect(any("nobody but its application" in step and ("german" in step or "own" in step) for step in steps), f"told at the backup: {steps}")
        fleet.cli("snapshot", "check", snapshot)
        shown = fleet.cli("-o", "json", "snapshot", "show", snapshot).json
        lf.expect_equal((shown["check"], shown["source_check"]), ("cannot_tell", "unknown"), "verdicts")
        lf.expect("nobody but its application" in shown["check_message"], f"told by the check: {shown['check_message']}")
        refused = fleet.cli("restore", "alpha/app", "--snapshot", snapshot, "--mode", "replace", "--yes", check=False)
        lf.expect(refused.code != 0 and "LOAD_REFUSED" in refused.out + refused.err, f"refused by name\n{refused}")
        lf.expect(rows(path) == wanted, "nothing has changed")
        # Its application can.
        fleet.cli("snapshot", "download", snapshot, "--output", fleet.path("app.sql"), "--format", "sql")
        db = connect(fleet.path("loaded.db"))
        with open(fleet.path("app.sql"), encoding="utf-8") as text:
            db.executescript(text.read())
        db.close()
        lf.expect(rows(fleet.path("loaded.db")) == wanted, "the rows, loaded by the application's own SQLite")


if __name__ == "__main__":
    lf.main(globals())
