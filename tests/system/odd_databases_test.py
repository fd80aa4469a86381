#!/usr/bin/env python3
"""Databases of odd shapes: each is backed up by the real programs, downloaded, restored elsewhere, and compared byte by byte."""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lf  # noqa: E402

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
        names = [name for name in ODD if name != "rtree" or ("ENABLE_RTREE",) in sqlite3.connect(":memory:").execute("pragma compile_options").fetchall()]
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


if __name__ == "__main__":
    lf.main(globals())
