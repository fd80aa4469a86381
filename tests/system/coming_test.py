#!/usr/bin/env python3
"""An application that opens a followed database that nobody else has open: what it asks for when it starts it has, as without an agent."""
import contextlib
import os
import random
import sqlite3
import time

import lf
from continuous_test import status, wait_following

SYNC = 'method = "continuous"\nsync_interval = "100ms"'


def test_twenty_starts_find_nobody_in_their_way():
    """With a busy timeout of 0, at random moments after the one before: while files come to rest, are compared, and are at rest."""
    chance = random.Random(6)
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"), rows=100_000)
        agent = fleet.agent("alpha", {"ledger": (database, SYNC)})
        lf.wait_until("a first state", lambda: fleet.snapshots("alpha/ledger"), 60, 0.3)
        for number in range(20):
            time.sleep(chance.uniform(0, 3.2))
            with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as db:
                if number % 2 == 0:
                    db.execute("pragma locking_mode=exclusive")
                    db.execute("begin exclusive")
                    db.execute(f"update item set name = 'start {number}' where id = 1")
                    db.execute("commit")
                else:
                    for mode in ("delete", "wal"):
                        lf.expect_equal(db.execute(f"pragma journal_mode={mode}").fetchone()[0], mode, f"start {number}: journal mode")
                        db.execute(f"update item set name = 'start {number} in mode {mode}' where id = 1")
                time.sleep(chance.uniform(0, 0.6))
            lf.expect(not os.path.exists(database + "-wal"), f"start {number}: it was alone to the end, and folded its WAL in")
        wanted = lf.content(database)
        lf.wait_until("the last start is stored", lambda: lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])) == wanted, 60, 0.5)
        capture = status(fleet, agent)["ledger"]["capture"]
        lf.expect_equal(capture["state"], "detached", "state beside nobody")
        # Who stays is followed.
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
            db.execute("update item set name = 'stays' where id = 1")
            wait_following(fleet, agent)


if __name__ == "__main__":
    lf.main(globals())
