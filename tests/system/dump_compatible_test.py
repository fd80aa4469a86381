#!/usr/bin/env python3
"""The sqlite3 CLI's own text, also where it loses something: ordered, configured, and of a snapshot of pages."""
import shutil
import sqlite3
import subprocess

import lf


def make(path):
    """What the CLI's text loses: settings, text after NUL, rowids, the counter of a table that is empty."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("""
        pragma page_size=1024; pragma user_version=5; pragma application_id=77;
        create table note(id integer primary key autoincrement, body text);
        insert into note(body) values('a' || char(0) || 'b'), ('plain');
        create table loose(a);
        insert into loose values(1), (2), (3);
        delete from loose where a = 2;
        """)
    db.close()
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_the_clis_text_is_had_in_three_ways():
    if shutil.which("sqlite3") is None:
        raise lf.Skip("the program sqlite3 is not here")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("x.db"))
        dumped = 'method = "dump"\n[database.dump]\n'
        fleet.agent("alpha", {"ordered": path, "configured": (make(fleet.path("y.db")), dumped + "compatible = true"),
                              "lossless": (make(fleet.path("z.db")), dumped + "compatible = false")})
        cli = subprocess.run(["sqlite3", path, ".dump"], check=True, capture_output=True).stdout
        number = iter(range(100))

        def text(snapshot, *options):
            output = fleet.path(f"{next(number)}.sql")
            fleet.cli("snapshot", "download", snapshot, "--output", output, *options)
            return read(output)

        ordered = fleet.snapshot("alpha/ordered", "--method", "dump", "--compatible")
        lf.expect(text(ordered) == cli, "ordered: not the CLI's text")
        lf.expect(text(fleet.snapshot("alpha/configured")) == cli, "configured: not the CLI's text")
        lf.expect(text(fleet.snapshot("alpha/configured", "--method", "dump", "--compatible", "--table", "loose")) != cli, "an order is not what agent.toml says")
        pages = fleet.snapshot("alpha/ordered", "--method", "online")
        lf.expect(text(pages, "--format", "sql", "--compatible") == cli, "of pages: not the CLI's text")
        # What is lost is no part, and without the option nothing is lost.
        shown = fleet.cli("-o", "json", "snapshot", "show", ordered).json
        lf.expect_equal((shown["part"], shown["compatible"]), (None, True), "the part, and that it is compatible")
        lf.expect("also where that loses something" in fleet.cli("snapshot", "show", ordered).out, "`snapshot show` does not say it")
        listed = fleet.cli("-o", "wide", "snapshot", "list", "alpha/configured").out
        lf.expect("dump (compatible)" in listed and "dump (compatible, table loose)" in listed, f"the list does not say it\n{listed}")
        whole = fleet.snapshot("alpha/lossless")
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", whole).json["compatible"], False, "one that loses nothing")
        lossless = text(whole)
        lf.expect(lossless != cli and b"user_version=5" in lossless, "nothing is lost without the option")
        for name, other in (("ordered", text(fleet.snapshot("alpha/ordered", "--method", "dump"))), ("of pages", text(pages, "--format", "sql"))):
            lf.expect(other == lossless, f"{name}: not the lossless text")
        # Where it would mean nothing it is refused.
        lf.expect("OUTPUT_INVALID" in fleet.cli("-o", "json", "snapshot", "download", pages, "--output", fleet.path("x"), "--compatible", check=2).err, "without --format sql")
        lf.expect("DUMP_OPTIONS_INVALID" in fleet.cli("-o", "json", "backup", "alpha/ordered", "--compatible", check=2).err, "without --method dump")
        # A text that has lost something is restored as what it is.
        lf.run_sql(path, "delete from loose")
        fleet.cli("restore", "alpha/ordered", "--snapshot", ordered, "--mode", "replace", "--yes")
        db = sqlite3.connect(path)
        lf.expect_equal(db.execute("select (select count(*) from loose), (select user_version from pragma_user_version)").fetchone(), (2, 0), "what was restored")
        db.close()


if __name__ == "__main__":
    lf.main(globals())
