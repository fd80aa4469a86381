#!/usr/bin/env python3
"""What ends early: cancelled restores and rounds of a pre-copy, an agent that is stopped within a hook, a certificate that cannot be read."""
import datetime
import glob
import os
import signal
import sqlite3
import time

import lf

ACTIVE = ("queued", "sent", "running", "cancelling")


def operation(fleet, ident):
    return fleet.cli("-o", "json", "operation", "show", ident).json


def cancel(fleet, ident, what):
    """By what is on record: how long looking takes does not count."""
    asked = time.time()
    fleet.cli("operation", "cancel", ident)
    lf.wait_until(f"{what} is cancelled", lambda: operation(fleet, ident)["state"] not in ACTIVE, 20, 0.1)
    ended = operation(fleet, ident)
    lf.expect_equal(ended["state"], "cancelled", f"state of {what}")
    took = datetime.datetime.fromisoformat(ended["ended_at"].replace("Z", "+00:00")).timestamp() - asked
    print(f"{what}: cancelled in {took:.2f} s")
    lf.expect(took < 2.0, f"{what}: the cancel took {took:.1f} s")


def nothing_beside(path, database, what):
    left = sorted(name for name in os.listdir(os.path.dirname(path)) if name.startswith(os.path.basename(path)))
    lf.expect_equal([name for name in left if not name.endswith(("-wal", "-shm", "-journal"))], [os.path.basename(path)], f"files after {what}")
    lf.expect_equal(lf.content(path), database, f"content after {what}")


def test_a_restore_is_cancelled_while_it_fetches_and_while_it_waits_for_a_lock():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("db"))
        path = lf.make_database(fleet.path("db", "x.db"), rows=40000, journal="delete")
        agent = fleet.agent("alpha", {"main": (path, 'busy_timeout = "60s"')}, settings='[limits]\ndownload = "256KiB"')
        snapshot = fleet.snapshot("alpha/main")
        connection = sqlite3.connect(path, isolation_level=None)
        table = connection.execute("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'").fetchone()[0]
        connection.execute(f"update {table} set rowid = rowid + 1000000")
        before = lf.content(path)
        for mode in ("live", "replace"):
            order = fleet.cli("-o", "json", "restore", "alpha/main", "--snapshot", snapshot, "--mode", mode, "--yes", "--detach").json["id"]
            lf.wait_until("it fetches", lambda: operation(fleet, order)["progress"]["done_bytes"] > 0, 60, 0.05)  # pylint: disable=cell-var-from-loop
            cancel(fleet, order, f"a restore ({mode}) that fetches")
            nothing_beside(path, before, f"a cancelled restore ({mode})")
        with open(agent.config, encoding="utf-8") as file:
            config = file.read()
        with open(agent.config, "w", encoding="utf-8") as file:
            file.write(config.replace('download = "256KiB"', 'download = "1GiB"'))
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("the limit is gone", lambda: "read again" in agent.process.text(), 30)
        connection.execute("begin immediate")  # an application within a transaction of its own
        order = fleet.cli("-o", "json", "restore", "alpha/main", "--snapshot", snapshot, "--mode", "live", "--yes", "--detach").json["id"]
        lf.wait_until("it waits for the lock", lambda: operation(fleet, order)["progress"]["phase"] in ("applying", "waiting"), 60, 0.05)
        cancel(fleet, order, "a restore that waits for a lock")
        connection.execute("rollback")
        nothing_beside(path, before, "a cancelled wait")
        connection.close()
        # And what was cancelled hinders nothing.
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "live", "--yes")


def test_a_cancelled_backup_keeps_no_rounds_of_its_pre_copy():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy(rate=2 << 20)
        path = lf.make_database(fleet.path("x.db"), rows=100_000)
        fleet.agent("alpha", {"main": path}, settings='[limits]\nspool_bytes = "1MiB"', controller=f"127.0.0.1:{proxy.port}")

        def rounds(more=""):
            catalog = sqlite3.connect(f"file:{glob.glob(os.path.join(fleet.data, 'catalog*.db'))[0]}?mode=ro", uri=True)
            count = catalog.execute(f"select count(*) from snapshot where trashed_by = 'pre-copy' {more}").fetchone()[0]
            catalog.close()
            return count

        # The link is slow enough for a cancel within the last of the rounds.
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        lf.wait_until("a round was committed ahead", rounds, 120, 0.05)
        fleet.cli("operation", "cancel", order, check=lf.AnyOf(0, 6))
        lf.wait_until("it has ended", lambda: operation(fleet, order)["state"] not in ACTIVE, 20, 0.1)
        state = operation(fleet, order)["state"]
        print(f"after {rounds()} rounds: {state}")
        lf.expect_equal(rounds("and trashed_at > 0"), 0, "rounds that wait for the grace of the trash")
        fleet.cli("store", "prune", "--yes")
        lf.expect_equal(rounds(), 0, "rounds after a prune")
        lf.expect_equal(len(fleet.snapshots()), 1 if state == "succeeded" else 0, "snapshots")


def test_an_agent_is_stopped_within_a_hook_and_runs_it_again():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        hooks, log = fleet.path("hooks"), fleet.path("hooks.log")
        os.mkdir(hooks, 0o700)
        with open(f"{hooks}/after", "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\necho begun >> {log}\n[ -e {fleet.path("short")} ] || sleep 300\n')
        os.chmod(f"{hooks}/after", 0o700)
        path = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": (path, f'after_backup = "{hooks}/after"')}, settings=f'[hooks]\ndirectory = "{hooks}"\nhook_timeout = "1h"')
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]

        def begun():
            return os.path.exists(log) and len(open(log, encoding="utf-8").readlines())

        lf.wait_until("the hook runs", begun, 60, 0.05)
        # What it waits for is ten seconds of its own; a loaded machine gets some more.
        lf.expect(agent.process.stop(timeout=40) in (0, -signal.SIGALRM), "the agent ends, whatever its hook does")
        with open(fleet.path("short"), "w", encoding="utf-8"):
            pass
        agent.start()
        lf.wait_until("the backup ends", lambda: operation(fleet, order)["state"] == "succeeded", 60, 0.1)
        lf.expect_equal(begun(), 2, "runs of the hook")
        lf.expect_equal(lf.content(fleet.download(operation(fleet, order)["snapshot"])), lf.content(path), "content")


def test_a_certificate_that_cannot_be_read_leaves_the_old_one():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": path})
        kept = glob.glob(os.path.join(agent.state, "**", "device.pem"), recursive=True)[0]
        with open(kept, encoding="utf-8") as file:
            good = file.read()
        with open(kept, "w", encoding="utf-8") as file:
            file.write("no certificate")
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("it is told", lambda: "the certificate stays as it was" in agent.process.text(), 30)
        fleet.snapshot("alpha/main")
        # Also for a connection that begins now.
        fleet.controller.stop()
        fleet.serve()
        fleet.snapshot("alpha/main")
        with open(kept, "w", encoding="utf-8") as file:
            file.write(good)
        agent.process.signal(signal.SIGHUP)
        fleet.snapshot("alpha/main")
        lf.expect(agent.process.running(), "the agent goes on")


if __name__ == "__main__":
    lf.main(globals())
