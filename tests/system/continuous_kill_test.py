#!/usr/bin/env python3
"""The agent killed at each named point of continuous capture: afterwards syncs go on, and every state is one that the writer's own log had."""
import contextlib
import os
import sqlite3
import subprocess
import time

import lf
from continuous_test import INTERVAL, check_states, log_of, newest_holds, some, status, syncs, wait_following
from disk_test import fill, small_disk

# Each sync passes these; where the database is detached, "follow.attached" and "follow.compared" come first.
POINTS = ("follow.attached", "follow.compared", "follow.two_holds:3", "follow.acknowledged:2", "follow.advanced:3", "follow.shipped:4")


def killed(agent, point, what=lambda: None, timeout=60):
    process = agent.start(env={"LITEFLEET_CRASH_AT": point})
    what()
    lf.wait_until(f"killed at {point}", lambda: not process.running(), timeout, 0.1)
    lf.expect_equal(process.process.returncode, -9, f"{point}: how the agent ended")


def goes_on(fleet, agent, point):
    before = len(fleet.snapshots("alpha/ledger"))
    agent.start()
    agent.wait_connected()
    lf.wait_until(f"{point}: syncs go on", lambda: len(fleet.snapshots("alpha/ledger")) > before + 1, 90, 0.3)


def test_killed_within_a_sync():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 200, "--log", log, "--fill", "1MiB")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, start=False)
        for point in POINTS:
            killed(agent, point)
            lf.expect(writer.running(), f"{point}: the writer goes on")
            goes_on(fleet, agent, point)
            agent.process.stop()
        agent.start()
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(database), 90)
        check_states(fleet, some(fleet.snapshots("alpha/ledger"), 14), log_of(log))


def test_killed_around_checkpoints_and_while_it_stands_aside():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        # Without a pause that a sync would fit into, and none of them checkpoints: in the end nobody can start the WAL over but with the write lock.
        without_pause = ("--rate", 1500, "--synchronous", "normal", "--accounts", 50, "--autocheckpoint", 0)
        writer = fleet.writer(database, *without_pause, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, start=False)
        for point in ("follow.before_checkpoint", "follow.stood_aside"):
            killed(agent, point)
            goes_on(fleet, agent, point)
            agent.process.stop()
        second = fleet.writer(database, *without_pause, name="second")
        agent.databases["ledger"] = (database, INTERVAL + "\nallow_restart_checkpoint = true")
        for point in ("follow.before_restart", "follow.restart_advanced"):
            killed(agent, point, timeout=120)
            goes_on(fleet, agent, point)
            agent.process.stop()
        agent.start()
        lf.expect_equal(second.stop(), 0, "exit of the second writer")
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(database), 90)
        check_states(fleet, some(fleet.snapshots("alpha/ledger"), 6), log_of(log), slack_ms=3000)


def test_killed_as_it_leaves():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = fleet.path("ledger.db")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, start=False)
        writer = fleet.writer(database, "--rate", 20)  # no checkpoint is due, so that it is followed all the while
        process = agent.start(env={"LITEFLEET_CRASH_AT": "follow.before_leave"})
        wait_following(fleet, agent)
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        lf.wait_until("killed at follow.before_leave", lambda: not process.running(), 60, 0.1)
        # What the agent kept alive is there for whoever comes next.
        last = lf.check_ledger(database)
        agent.start()
        agent.wait_connected()
        newest_holds(fleet, last, 60)


def test_a_full_disk_lets_go_and_is_a_gap():
    """Killed as it lets go for want of space; then without a kill: the application has the disk, the gap is told, and it is followed again."""
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "96m") as disk:
        fleet.init()
        fleet.serve()
        database, log = os.path.join(disk, "ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 100, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, settings='[limits]\ndisk_reserve = "32MiB"\n', start=False)
        agent.start(env={"LITEFLEET_CRASH_AT": "follow.before_let_go"})
        wait_following(fleet, agent)
        lf.wait_until("a first sync", lambda: syncs(fleet), 60, 0.3)
        fill(disk, 24 << 20)
        lf.wait_until("killed at follow.before_let_go", lambda: not agent.process.running(), 60, 0.1)
        os.unlink(os.path.join(disk, "ballast"))
        goes_on(fleet, agent, "follow.before_let_go")
        fill(disk, 24 << 20)
        lf.wait_until("let go", lambda: "DISK_RESERVE" in ((status(fleet, agent)["ledger"]["capture"] or {}).get("message") or ""), 60, 0.3)
        lf.expect(writer.running(), "the application has what is left of the disk")
        gaps = lambda: fleet.cli("-o", "json", "snapshot", "list", "alpha/ledger").json["gaps"]
        lf.wait_until("the gap is told", lambda: any(gap["reason"] == "DISK_RESERVE" and gap["until"] is None for gap in gaps()), 60, 0.5)
        os.unlink(os.path.join(disk, "ballast"))
        wait_following(fleet, agent, timeout=120)
        lf.wait_until("the gap has ended", lambda: any(gap["reason"] == "DISK_RESERVE" and gap["until"] for gap in gaps()), 60, 0.5)
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(database), 90)
        check_states(fleet, some(fleet.snapshots("alpha/ledger"), 8), log_of(log))


def test_the_controller_is_killed_when_a_gap_and_a_checked_chain_are_durable():
    """Both are told again, and are one. The chain: a page that changed behind the WAL is an alarm, and a new base makes it good."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve(env={"LITEFLEET_CRASH_AT": "fleet.chain_durable"})
        database = lf.make_database(fleet.path("x.db"), rows=3000)
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("insert into item values(1000001, 'x', null)")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL + '\nchain_check = "1s"')})
        wait_following(fleet, agent)
        lf.wait_until("killed at fleet.chain_durable", lambda: not fleet.controller.running(), 60, 0.1)
        fleet.serve()
        agent.wait_connected()
        lf.expect(not chain_alarms(fleet), "nothing differs so far")
        holder.execute("pragma wal_checkpoint(truncate)")
        holder.execute("insert into item values(1000002, 'y', null)")
        time.sleep(1.5)
        # By a process of its own: closing a descriptor here would drop the holder's locks.
        subprocess.run(["dd", f"of={database}", "bs=1", f"seek={200 * 4096 + 1000}", "conv=notrunc", "status=none"], input=b"bits that nobody wrote", check=True)
        alarm = lf.wait_until("the alarm", lambda: chain_alarms(fleet), 60, 0.5)
        lf.expect(alarm[0]["subject"] == "alpha/ledger", f"subject of {alarm}")
        def same():
            with contextlib.suppress(sqlite3.Error):
                holder.execute("pragma wal_checkpoint(passive)")
            return lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])) == lf.content(database)

        lf.wait_until("a new base", same, 60, 0.5)
        items = fleet.snapshots("alpha/ledger")
        listed = fleet.cli("-o", "json", "snapshot", "list", "alpha/ledger").json
        lf.expect(sum(gap["reason"] == "CHAIN_DIFFERS" for gap in listed["gaps"]) == 1, f"one record of it: {listed['gaps']}")
        questioned = [fleet.cli("-o", "json", "snapshot", "show", item["id"]).json["in_question"] for item in items]
        lf.expect(questioned[0] is None, "the new base is not in question")
        lf.expect(any(questioned), f"snapshots of before are: {questioned}")
        lf.expect("in question" in fleet.cli("snapshot", "list", "alpha/ledger").out, "the list says it")
        holder.close()


def chain_alarms(fleet):
    return [alarm for alarm in fleet.cli("-o", "json", "status").json["alarms"] if alarm["reason"] == "CHAIN_DIFFERS"]


def test_the_controller_is_killed_when_a_gap_is_durable():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = fleet.path("ledger.db")
        proxy = fleet.proxy()
        writer = fleet.writer(database, "--rate", 100)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, controller=f"127.0.0.1:{proxy.port}")
        wait_following(fleet, agent)
        lf.wait_until("a first sync", lambda: syncs(fleet), 60, 0.3)
        # The agent is down for longer than a few syncs: a gap when it is back.
        agent.process.kill()
        fleet.controller.stop()
        fleet.serve(env={"LITEFLEET_CRASH_AT": "fleet.gap_durable"})
        time.sleep(16)
        agent.start()
        lf.wait_until("killed at fleet.gap_durable", lambda: not fleet.controller.running(), 90, 0.1)
        fleet.serve()
        agent.wait_connected()
        down = lambda: [gap for gap in fleet.cli("-o", "json", "snapshot", "list", "alpha/ledger").json["gaps"] if gap["reason"] == "AGENT_DOWN"]
        lf.wait_until("the gap", down, 60, 0.5)
        lf.wait_until("the device has forgotten it", lambda: not os.listdir(os.path.join(agent.state, "gaps")), 60, 0.5)
        lf.expect_equal(len(down()), 1, "gaps that are told of twice")
        writer.stop()


if __name__ == "__main__":
    lf.main(globals())
