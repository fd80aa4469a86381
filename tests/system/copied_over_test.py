#!/usr/bin/env python3
"""Stop the application, copy a file over the database, start it: what was copied is what it sees, with the agent backing up all the time.

Continuous capture has this in continuous_test.py."""
import os
import shutil

import lf

JOURNALS = ("wal", "delete")
METHODS = ("online", "file", "dump")


def newest_holds(fleet, name, seq):
    """The newest snapshot has this transfer in the end, and is whole."""

    def look():
        path = fleet.path("newest.db")
        for before in (path, path + "-wal", path + "-shm"):  # the look at the last one leaves them
            if os.path.exists(before):
                os.unlink(before)
        newest = fleet.snapshots(f"alpha/{name}")[0]["id"]
        fleet.cli("snapshot", "download", newest, "--output", path, "--format", "db")
        return lf.check_ledger(path) >= seq

    lf.wait_until(f"{name}: transfer {seq} is stored", look, 60, 0.5)


def test_what_was_copied_is_what_the_application_sees():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        # Of the mode that the application asks for: a change of it does not wait for readers, which the agent is.
        good = {journal: fleet.path(f"good-{journal}.db") for journal in JOURNALS}
        for journal in JOURNALS:
            fleet.writer(good[journal], "--rate", 200, "--seconds", 0.5, "--journal", journal, name=f"first-{journal}").process.wait(60)
        wanted = {journal: lf.check_ledger(good[journal]) for journal in JOURNALS}
        names = [f"{method}-{journal}" for method in METHODS for journal in JOURNALS]
        paths = {name: fleet.path(f"{name}.db") for name in names}
        writers = {name: fleet.writer(paths[name], "--rate", 50, "--journal", name.split("-")[1], name=name) for name in names}
        fleet.agent("alpha", {name: (paths[name], f'schedule = "1s"\nmethod = "{name.split("-")[0]}"\n') for name in names})
        for name in names:
            journal = name.split("-")[1]
            lf.wait_until(f"{name}: a second backup", lambda name=name: len(fleet.snapshots(f"alpha/{name}")) > 1, 90, 0.5)
            lf.expect_equal(writers[name].stop(), 0, f"{name}: exit of the writer")
            # A backup that runs in this moment keeps the WAL until it has ended.
            lf.wait_until(f"{name}: the WAL is folded in", lambda name=name: not os.path.exists(paths[name] + "-wal"), 30)
            shutil.copyfile(good[journal], paths[name])
            again = fleet.writer(paths[name], "--rate", 50, "--seconds", 1, "--journal", journal, name=f"{name}-again")
            again.process.wait(60)
            last = lf.check_ledger(paths[name])
            lf.expect(last > wanted[journal], f"{name}: the application goes on from what was copied: {last} after {wanted[journal]}")
            newest_holds(fleet, name, last)
            lf.expect_equal(lf.check_ledger(paths[name]), last, f"{name}: nobody has changed it")


if __name__ == "__main__":
    lf.main(globals())
