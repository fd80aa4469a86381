#!/usr/bin/env python3
"""Controller and agent killed at named points of orders, checks and uploads (LF_CRASH_POINT): nothing is lost, and what was begun ends."""
import os
import sqlite3

import lf

# Others have tests of their own: tests/lint/check_crash_points finds those that have none.
AGENT_POINTS = ("upload.after_offer", "upload.durable", "upload.committed")


def change(database):
    db = sqlite3.connect(database)
    db.execute("update item set data = randomblob(300) where id % 7 = 0")
    db.commit()
    db.close()


def operation(fleet, id_):
    return fleet.cli("-o", "json", "operation", "show", id_).json


def await_end(fleet, id_, state):
    lf.wait_until(f"{id_} ends", lambda: operation(fleet, id_)["state"] not in ("queued", "sent", "running", "cancelling"), 90, 0.2)
    lf.expect_equal(operation(fleet, id_)["state"], state, "state")


def crash(fleet, point, action):
    """Restarts the controller with the point, acts until it dies there, and starts it again."""
    fleet.controller.stop()
    process = fleet.serve(env={"LITEFLEET_CRASH_AT": point})
    for agent in fleet.agents.values():
        if agent.process and agent.process.running():
            agent.wait_connected()
    action()
    lf.wait_until(f"killed at {point}", lambda: not process.running(), 60)
    fleet.serve()


def test_controller_killed_around_orders_and_checks():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": database})
        snapshot = fleet.snapshot("alpha/main")
        order = lambda: fleet.cli("-o", "json", "backup", "alpha/main", "--detach", check=False, timeout=60)
        newest = lambda: fleet.cli("-o", "json", "operation", "list").json["items"][0]

        for point in ("fleet.order_durable", "fleet.result_durable"):
            before = newest()["id"]
            change(database)
            crash(fleet, point, order)
            lf.expect(newest()["id"] != before, f"{point}: the order was durable")
            await_end(fleet, newest()["id"], "succeeded")
            lf.expect_equal(lf.content(fleet.download(newest()["snapshot"])), lf.content(database), "content")

        agent.process.stop()
        waiting = order().json["id"]
        crash(fleet, "fleet.cancel_durable", lambda: fleet.cli("operation", "cancel", waiting, check=False))
        await_end(fleet, waiting, "cancelled")

        for point in ("verify.running", "verify.materialised", "verify.before_record", "verify.recorded"):
            crash(fleet, point, lambda: fleet.cli("snapshot", "check", snapshot, "--detach", check=False))
            lf.wait_until("no check is under way", lambda: not fleet.cli("-o", "json", "operation", "list", "--active").json["items"], 60, 0.2)
            lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", snapshot).json["check"], "ok", point)
            lf.expect_equal(newest()["state"], "succeeded", f"{point}: the check that was ordered")


def test_agent_killed_during_uploads():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"), rows=30_000)
        agent = fleet.agent("alpha", {"main": database}, start=False)
        for point in AGENT_POINTS:
            change(database)
            process = agent.start(env={"LITEFLEET_CRASH_AT": point})
            agent.wait_connected()
            ordered = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
            lf.wait_until(f"killed at {point}", lambda: not process.running(), 60)  # pylint: disable=cell-var-from-loop
            lf.expect_equal(lf.integrity(database), "ok", f"{point}: the database")
            agent.start()
            await_end(fleet, ordered, "succeeded")
            lf.expect_equal(lf.content(fleet.download(operation(fleet, ordered)["snapshot"])), lf.content(database), f"{point}: content")
            agent.process.stop()
        lf.expect_equal(len(fleet.snapshots()), len(AGENT_POINTS), "one snapshot for each backup")


def test_agent_killed_while_a_backup_waits_for_the_network():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy(rate=512 << 10)
        database = lf.make_database(fleet.path("x.db"), rows=30_000)
        text = lf.make_database(fleet.path("y.db"), rows=500)
        agent = fleet.agent("alpha", {"main": database, "text": (text, 'method = "dump"')}, controller=f"127.0.0.1:{proxy.port}", start=False)
        # Pages go through the file where the link is slower than the disk; the text of a dump always does.
        for name, path in (("main", database), ("text", text)):
            change(path)
            process = agent.start(env={"LITEFLEET_CRASH_AT": "upload.spooling"})
            agent.wait_connected()
            ordered = fleet.cli("-o", "json", "backup", f"alpha/{name}", "--detach").json["id"]
            lf.wait_until(f"killed while it waits with {name}", lambda: not process.running(), 60)  # pylint: disable=cell-var-from-loop
            proxy.rate = None
            agent.start()
            await_end(fleet, ordered, "succeeded")
            lf.expect_equal(os.listdir(os.path.join(agent.state, "spool")), [], "what was left of it")
            copy = fleet.path(f"{name}.copy.db")
            fleet.cli("snapshot", "download", operation(fleet, ordered)["snapshot"], "--output", copy, "--format", "db")
            lf.expect_equal(lf.content(copy), lf.content(path), f"{name}: content")
            agent.process.stop()


if __name__ == "__main__":
    lf.main(globals())
