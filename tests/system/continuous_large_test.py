#!/usr/bin/env python3
"""Continuous capture of what is large: a database that grows over the page in which SQLite keeps its locks, and transactions larger than the agent's memory."""
import contextlib
import hashlib
import os
import sqlite3
import struct
import subprocess

import lf
from continuous_test import INTERVAL, status, syncs, wait_following
from continuous_spool_test import spooled

LOCK_BYTE = 1 << 30


def sparse_database(path, page_size, pages):
    """In WAL mode, of which nearly all is a hole: of that no table has a page."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"pragma page_size={page_size}")
        db.execute("create table big(id integer primary key, v blob)")
        db.execute("pragma journal_mode=wal")
    with open(path, "r+b") as file:
        file.seek(28)  # the size in pages; source: SQLite's file format, 1.3.7
        file.write(struct.pack(">I", pages))
        file.truncate(pages * page_size)
    return path


class Application:
    """Somebody who has a database open, and whose states are looked for at the controller."""

    def __init__(self, fleet, path):
        self.fleet, self.path = fleet, path
        self.db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.db.execute("pragma synchronous=off")
        self.db.execute("select count(*) from sqlite_schema").fetchone()

    def run(self, sql):
        """One transaction, or a statement that is none; the pages of the state after it."""
        self.db.execute(sql)
        return self.db.execute("pragma page_count").fetchone()[0]

    def stored(self, what, page_count, timeout=120):
        """The newest snapshot of that many pages."""
        listed = lambda: [item for item in self.fleet.snapshots("alpha/ledger") if item["page_count"] == page_count]
        return lf.wait_until(what, listed, timeout, 0.2)[0]

    def expect_is(self, what, snapshot):
        """The snapshot is what the application has now, but for the page of the locks, which is no page."""
        lf.wait_until("all is folded", lambda: self.db.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0, 60, 0.1)
        downloaded = self.fleet.download(snapshot["id"], "downloaded.db")
        same = subprocess.run(["cmp", downloaded, self.path], capture_output=True, text=True, check=False)
        lf.expect_equal((same.returncode, same.stdout), (0, ""), f"{what}: the files")
        os.unlink(downloaded)


def test_a_database_that_grows_over_the_page_of_the_locks_and_shrinks_again():
    page_size = 65536
    lock_page = LOCK_BYTE // page_size + 1
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        application = Application(fleet, sparse_database(fleet.path("x.db"), page_size, lock_page - 5))
        agent = fleet.agent("alpha", {"ledger": (application.path, INTERVAL)})
        wait_following(fleet, agent, timeout=120)
        first = lf.wait_until("a first state", lambda: fleet.snapshots("alpha/ledger"), 60, 0.2)[0]
        lf.expect(first["page_count"] < lock_page, f"pages before: {first['page_count']}")

        pages = application.run("with recursive n(i) as (values (1) union all select i + 1 from n where i < 12) insert into big (v) select randomblob(60000) from n")
        lf.expect(pages > lock_page + 2, f"it is over the page of the locks: {pages}")
        grown = application.stored("the state that is over it", pages)
        lf.expect_equal(grown["method"], "continuous", "method")

        count = len(syncs(fleet))
        application.run("update big set v = randomblob(60000) where id in (1, 2, 11, 12)")
        lf.wait_until("changes on both sides of it", lambda: len(syncs(fleet)) > count, 60, 0.2)
        changed = application.stored("the changed state", pages)
        lf.expect(changed["wire_bytes"] < 12 * page_size, f"{changed['wire_bytes']} bytes were sent for 4 pages")
        application.expect_is("changed on both sides of it", changed)

        # What was a hole all the time goes.
        pages = application.run("vacuum")
        lf.expect(pages < 100, f"pages after VACUUM: {pages}")
        application.expect_is("shrunk", application.stored("the state that is before it again", pages))
        capture = status(fleet, agent)["ledger"]["capture"]
        lf.expect_equal(capture["state"], "following", "capture")
        print(f"{capture['doubts']} times in doubt, the agent had {agent.process.peak_kib() >> 10} MiB at most")


def digest_of(path):
    """Of all rows in their order, with little memory."""
    digest = hashlib.sha256()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for row in db.execute("select id, v from big order by id"):
            digest.update(repr(row).encode())
        return digest.hexdigest()


def test_transactions_larger_than_the_memory_of_the_agent():
    """As a whole to the controller, and, without it, into the spool."""
    mib = 300
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = fleet.path("x.db")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("pragma journal_mode=wal")
            db.execute("create table big(id integer primary key, v blob)")
            db.execute("insert into big values(1, 'x')")
        application = Application(fleet, path)
        agent = fleet.agent("alpha", {"ledger": (path, INTERVAL)}, settings='[limits]\nspool_bytes = "1GiB"')
        wait_following(fleet, agent)
        application.run("insert into big values(2, 'y')")
        lf.wait_until("a first sync", lambda: syncs(fleet), 60, 0.2)
        before = agent.process.peak_kib()

        # Half of a page does not compress, so that a third of it is sent.
        rows = mib * 256
        pages = application.run(f"with recursive n(i) as (values (10) union all select i + 1 from n where i < {rows + 9}) "
                                "insert into big select i, cast(i || randomblob(1200) || zeroblob(2600) as blob) from n")
        lf.expect(pages * 4096 > mib << 20, f"{pages} pages in one transaction")
        stored = application.stored("one transaction", pages)
        first_peak = agent.process.peak_kib()
        downloaded = fleet.download(stored["id"], "downloaded.db")
        lf.expect_equal(digest_of(downloaded), digest_of(path), "the rows")
        lf.expect_equal(lf.integrity(downloaded), "ok", "integrity")
        os.unlink(downloaded)
        gaps = lambda: fleet.cli("-o", "json", "snapshot", "list", "alpha/ledger").json["gaps"]
        # Half a minute of it would be a gap, as any other sync that takes so long.
        print(f"gaps: {[gap['reason'] for gap in gaps()]}")

        fleet.controller.kill()
        application.run(f"update big set v = cast(zeroblob(1300) || randomblob(1200) || zeroblob(1300) as blob) where id between 10 and {rows // 3}")
        lf.wait_until("it is spooled", lambda: spooled(agent), 120, 0.2)
        second_peak = agent.process.peak_kib()
        fleet.serve()
        lf.wait_until("it has arrived", lambda: not spooled(agent), 120, 0.2)
        digest = digest_of(path)
        newest = fleet.snapshots("alpha/ledger")[0]
        lf.expect_equal(digest_of(fleet.download(newest["id"], "downloaded.db")), digest, "the rows of what was spooled")
        print(f"the agent had {before >> 10} MiB at most before, {first_peak >> 10} MiB after a transaction of {mib} MiB, {second_peak >> 10} MiB after one that was spooled")
        lf.expect(max(first_peak, second_peak, agent.process.peak_kib()) - before < 24 << 10, "memory that a transaction takes")


if __name__ == "__main__":
    lf.main(globals())
