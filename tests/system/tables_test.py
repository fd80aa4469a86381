#!/usr/bin/env python3
"""Chosen tables of a snapshot, into a file, into a new database and into a live one under a writing application."""
import os
import sqlite3

import lf


def one(path, sql):
    db = sqlite3.connect(path, timeout=20)
    try:
        return db.execute(sql).fetchone()[0]
    finally:
        db.close()


def test_into_a_live_database_in_one_transaction():
    for journal in ("wal", "delete"):
        with lf.Fleet() as fleet:
            fleet.init()
            fleet.serve()
            path = lf.make_shop(fleet.path("shop.db"), journal)
            fleet.agent("alpha", {"shop": path})
            snapshot = fleet.snapshot("alpha/shop")
            # Somebody deletes orders by mistake, and the application goes on in other tables.
            lf.run_sql(path, "delete from orders; drop index orders_customer; insert into log values(1); insert into customer(name) values('later')")
            plan = fleet.cli("-o", "json", "restore", "alpha/shop", "--snapshot", snapshot, "--table", "orders", "--plan").json["plan"]
            lf.expect(any("orders" in step and "foreign keys" in step for step in plan["steps"]), f"the plan does not say it: {plan['steps']}")
            done = fleet.cli("-o", "json", "restore", "alpha/shop", "--snapshot", snapshot, "--table", "orders", "--yes").json
            lf.expect_equal((done["state"], done["restore_mode"]), ("succeeded", "live"), "the restore")
            lf.expect_equal(one(path, "select count(*) from orders"), 2000, "orders")
            lf.expect_equal(one(path, "select count(*) from sqlite_schema where name = 'orders_customer'"), 1, "the index")
            lf.expect_equal(one(path, "select seq from sqlite_sequence where name = 'orders'"), 2000, "the counter")
            lf.expect_equal(one(path, "select count(*) from log"), 1, "what was committed since")
            lf.expect_equal(one(path, "select count(*) from customer"), 501, "another table")
            lf.expect_equal((one(path, "pragma journal_mode"), lf.integrity(path)), (journal, "ok"), "mode and integrity")
            # Refused where rows would lose their parents: nothing has changed.
            lf.run_sql(path, "insert into orders(customer, total) values(501, 1)")
            refused = fleet.cli("-o", "json", "restore", "alpha/shop", "--snapshot", snapshot, "--table", "customer", "--yes", check=lf.AnyOf(1, 6))
            lf.expect("FOREIGN_KEYS_BROKEN" in refused.out + refused.err, f"not refused for its foreign keys\n{refused}")
            lf.expect_equal(one(path, "select count(*) from customer"), 501, "another table after the refusal")
            # The undo takes it back as that of any restore.
            fleet.cli("undo", "alpha/shop", "--yes")
            lf.expect_equal(one(path, "select count(*) from orders"), 0, "orders after the undo")
            # The next backup is of what is there, on the next timeline.
            again = fleet.snapshot("alpha/shop")
            lf.expect_equal(lf.content(fleet.download(again)), lf.content(path), "the next backup")
            fleet.cli("restore", "alpha/shop", "--table", "orders", "--mode", "replace", "--yes", check=2)
            missing = fleet.cli("restore", "alpha/shop", "--table", "nothing", "--yes", check=4)
            lf.expect("there is no table nothing; there are customer, log, orders" in missing.err and "hint:" in missing.err, f"a table that is not there\n{missing}")
            for name in ("sqlite_sequence", "SQLite_Sequence"):
                fleet.cli("restore", "alpha/shop", "--table", name, "--plan", check=2)
                fleet.cli("snapshot", "download", snapshot, "--table", name, "--output", fleet.path("none.db"), check=2)
            fleet.cli("snapshot", "download", snapshot, "--table", "nothing", "--output", fleet.path("none.db"), check=4)
            fleet.cli("snapshot", "download", snapshot, "--table", "nothing", "--format", "csv", "--output", fleet.path("none"), check=4)
            lf.run_sql(path, "create view seen as select * from log; create virtual table words using fts5(word)")
            fleet.snapshot("alpha/shop")
            for name, why in (("seen", "is a view"), ("words", "is virtual")):
                refused = fleet.cli("restore", "alpha/shop", "--table", name, "--yes", check=6)
                lf.expect(why in refused.err and "hint: take the tables" in refused.err, f"{name}\n{refused}")


def test_under_a_writing_application():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = fleet.path("ledger.db")
        writer = fleet.writer(path, "--rate", "100")
        lf.run_sql(path, "create table extra(a); insert into extra values(1),(2),(3)")
        fleet.agent("alpha", {"ledger": path})
        snapshot = fleet.snapshot("alpha/ledger")
        lf.run_sql(path, "delete from extra")
        fleet.cli("restore", "alpha/ledger", "--snapshot", snapshot, "--table", "extra", "--yes")
        lf.expect_equal(one(path, "select count(*) from extra"), 3, "the table")
        lf.expect(writer.running(), f"the application has ended\n{writer.tail()}")
        writer.stop()
        lf.check_ledger(path)


def test_into_files_and_new_databases():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_shop(fleet.path("shop.db"))
        missing = fleet.path("new.db")
        fleet.agent("alpha", {"shop": path, "new": missing})
        online, dump = fleet.snapshot("alpha/shop"), fleet.snapshot("alpha/shop", "--method", "dump")
        for name, snapshot in (("online", online), ("dump", dump)):
            out = fleet.path(f"{name}.db")
            fleet.cli("snapshot", "download", snapshot, "--table", "orders", "--table", "customer", "--format", "db", "--output", out)
            lf.expect_equal((one(out, "select count(*) from orders"), one(out, "select count(*) from customer")), (2000, 500), f"{name}: rows")
            lf.expect_equal(one(out, "select count(*) from sqlite_schema where name = 'log'"), 0, f"{name}: another table")
            lf.expect_equal(lf.integrity(out), "ok", f"{name}: integrity")
            text = fleet.cli("snapshot", "download", snapshot, "--table", "customer", "--format", "sql", "--output", "-").out
            lf.expect("INSERT INTO customer" in text and "orders" not in text, f"{name}: the text is not of one table")
            folder = fleet.path(f"{name}-csv")
            fleet.cli("snapshot", "download", snapshot, "--table", "customer", "--format", "csv", "--output", folder)
            lf.expect_equal(os.listdir(folder), ["customer.csv"], f"{name}: CSV files")
            fleet.cli("snapshot", "download", snapshot, "--table", "nothing", "--format", "db", "--output", fleet.path("no.db"), check=4)
            lf.expect(not os.path.exists(fleet.path("no.db")), "a file of a table that is not there")
        fleet.cli("restore", "alpha/shop", "--snapshot", online, "--to", "alpha/new", "--table", "customer", "--mode", "new", "--yes")
        lf.expect_equal(one(missing, "select count(*) from customer"), 500, "the new database")
        lf.expect_equal(one(missing, "select group_concat(name) from sqlite_schema where type = 'table' and name not like 'sqlite_%'"), "customer", "its tables")
        fleet.cli("restore", "alpha/shop", "--snapshot", online, "--to", "alpha/new", "--table", "customer", "--mode", "new", "--yes", check=6)


if __name__ == "__main__":
    lf.main(globals())
