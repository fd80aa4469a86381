#!/usr/bin/env python3
"""Continuous capture without the controller: syncs wait on the device, arrive in their order with their times, and no kill loses or doubles one."""
import glob
import os
import time

import lf
from continuous_test import INTERVAL, check_states, log_of, millis, newest_holds, some, status, syncs, wait_following


def spooled(agent):
    return glob.glob(os.path.join(agent.state, "spooled", "*", "*.spooled"))


def arrived(agent):
    return not spooled(agent)


def gaps(fleet):
    return fleet.cli("-o", "json", "snapshot", "list", "alpha/ledger").json["gaps"]


def in_order(fleet):
    """By what the controller counted; no state twice."""
    items = sorted(fleet.snapshots("alpha/ledger"), key=lambda item: item["sequence"])
    taken = [item["taken_at"] for item in items]
    lf.expect_equal(taken, sorted(taken, key=lf.seconds_of), "the order of what was taken is that of what came")
    lf.expect_equal(len(set(taken)), len(taken), "states that came twice")
    return items


def test_each_second_without_the_controller_can_be_restored():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 50, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        wait_following(fleet, agent)
        lf.wait_until("a first sync", lambda: syncs(fleet), 60, 0.3)
        fleet.controller.kill()
        offline = time.time() * 1000
        lf.wait_until("syncs are spooled", lambda: len(spooled(agent)) >= 40, 90, 0.2)
        lf.expect_equal(status(fleet, agent)["ledger"]["capture"]["state"], "following", "state without the controller")
        lf.expect(status(fleet, agent)["ledger"]["spooled_snapshots"] >= 40, "status counts them")
        # A power cut in the midst: what was spooled is there, and it goes on without the controller.
        agent.process.kill()
        before = len(spooled(agent))
        agent.start()
        lf.wait_until("it goes on", lambda: len(spooled(agent)) >= before + 10, 90, 0.2)
        online = time.time() * 1000
        fleet.serve()
        lf.wait_until("the spool is empty", lambda: arrived(agent), 120, 0.2)
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(database), 90)
        items = in_order(fleet)
        between = [item for item in items if offline < millis(item["taken_at"]) < online]
        lf.expect(len(between) >= 45, f"{len(between)} states of the time without the controller")
        # What was committed beside the start of the agent, which waits for the controller first.
        lf.expect({gap["reason"] for gap in gaps(fleet)} <= {"AGENT_DOWN"}, f"gaps {gaps(fleet)}")
        check_states(fleet, some(between, 14), log_of(log))


def test_killed_while_it_spools_and_while_it_uploads():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 50, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, start=False)

        def killed(point):
            lf.wait_until(f"killed at {point}", lambda: not agent.process.running(), 90, 0.1)
            lf.expect_equal(agent.process.process.returncode, -9, f"{point}: how the agent ended")

        def goes_on(point):
            agent.start()
            wait_following(fleet, agent)
            lf.wait_until(f"{point}: the spool is empty", lambda: arrived(agent), 90, 0.2)
            count = len(syncs(fleet))
            lf.wait_until(f"{point}: syncs go on", lambda: len(syncs(fleet)) > count + 1, 60, 0.3)
            agent.process.stop()

        for point in ("spooled.writing:3", "spooled.renamed:3", "spooled.taken:3"):
            agent.start(env={"LITEFLEET_CRASH_AT": point})
            wait_following(fleet, agent)
            lf.wait_until("a sync", lambda: syncs(fleet), 60, 0.3)
            fleet.controller.kill()
            killed(point)
            fleet.serve()
            goes_on(point)
        for point in ("spooled.acknowledged:2", "spooled.recorded:2", "spooled.ledger:2", "spooled.removed:2"):
            agent.start()
            wait_following(fleet, agent)
            fleet.controller.kill()
            lf.wait_until("syncs are spooled", lambda: len(spooled(agent)) >= 6, 60, 0.1)
            agent.process.kill()
            fleet.serve()
            agent.start(env={"LITEFLEET_CRASH_AT": point})
            killed(point)
            goes_on(point)
        agent.start()
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(database), 90)
        check_states(fleet, some(in_order(fleet), 16), log_of(log))


if __name__ == "__main__":
    lf.main(globals())
