#!/usr/bin/env python3
"""A device that is offline keeps its schedule: snapshots wait in its spool, arrive in their order, and what is missing is told."""
import glob
import os
import sqlite3
import threading
import time

import lf

SCHEDULE = 'schedule = "2s"'


def spooled(agent):
    return sorted(glob.glob(os.path.join(agent.state, "spooled", "*", "*.spooled")))


def agent_status(fleet, agent):
    return fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json["databases"][0]


def change(path, step):
    with sqlite3.connect(path, timeout=60) as db:
        db.execute("insert into step values (?)", (step,))
        db.execute("update item set data = randomblob(300) where id % 397 = 7")  # always the same pages
    db.close()


class SpoolWatch(threading.Thread):
    """The largest size that the spooled states of an agent had together while this ran, those that are being written and moved aside included,
    and the largest one's. Ledgers and hooks, which lie beside them, are not counted."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.root, self.most, self.largest, self.looks, self.ended = os.path.join(agent.state, "spooled"), 0, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.002):
            sizes = {}  # by inode: one that is renamed meanwhile counts once
            for path in glob.glob(os.path.join(self.root, "*", "*.spooled*")):
                try:
                    of = os.stat(path)
                except FileNotFoundError:
                    continue
                sizes[of.st_ino] = of.st_size
            self.most, self.largest, self.looks = max(self.most, sum(sizes.values())), max([self.largest, *sizes.values()]), self.looks + 1

    def stop(self):
        self.ended.set()
        self.join()


def listed_gaps(fleet):
    return fleet.cli("-o", "json", "snapshot", "list", "alpha/app").json["gaps"]


def go_offline(fleet):
    fleet.controller.kill()


class Steady:
    """A database that changes by a step whenever a snapshot was spooled, so that each snapshot has a state of its own, whose content is kept."""

    def __init__(self, fleet, settings="", rows=2000):
        self.fleet = fleet
        fleet.init()
        fleet.serve()
        self.database = lf.make_database(fleet.path("app.db"), rows=rows)
        with sqlite3.connect(self.database) as db:
            db.execute("create table step (n integer)")
        db.close()
        self.agent = fleet.agent("alpha", {"app": (self.database, SCHEDULE)}, settings=settings)
        lf.wait_until("the first scheduled backup", lambda: fleet.snapshots("alpha/app"), 60, 0.2)
        self.step, self.contents = 0, []
        self.between = []  # for each content: when it was made, and when it was seen in the spool

    def spool(self, count):
        """Until so many snapshots more were spooled; the content of each."""
        for _ in range(count):
            seen = set(spooled(self.agent))
            self.step += 1
            began = time.time()
            change(self.database, self.step)
            lf.wait_until("a snapshot is spooled", lambda seen=seen: set(spooled(self.agent)) - seen, 60, 0.05)
            self.between.append((began, time.time()))
            self.contents.append(lf.content(self.database))

    def arrived(self):
        return not spooled(self.agent)


def test_snapshots_of_an_offline_device_arrive_in_their_order():
    with lf.Fleet() as fleet:
        hooks = fleet.path("hooks")
        os.mkdir(hooks, 0o700)
        with open(f"{hooks}/after", "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\necho "$LITEFLEET_STATE, as it was told"\n')
        os.chmod(f"{hooks}/after", 0o700)
        device = Steady(fleet, settings=f'[hooks]\ndirectory = "{hooks}"\nafter_backup = "{hooks}/after"\n')
        before = {snapshot["id"] for snapshot in fleet.snapshots("alpha/app")}
        go_offline(fleet)
        device.spool(4)
        status = agent_status(fleet, device.agent)
        lf.expect(status["spooled_snapshots"] >= 4 and status["spooled_bytes"] > 0, f"status {status}")
        # What the hook of a run says that is cut before it ended nobody knows.
        said = lambda: glob.glob(os.path.join(device.agent.state, "spooled", "*", "*.hooks"))
        lf.wait_until("the hooks have ended", lambda: len(said()) == len(spooled(device.agent)), 60, 0.05)
        # A power cut in the middle, whatever runs: what was spooled is there, and the schedule goes on.
        device.agent.process.kill()
        device.agent.start()
        device.spool(2)
        offline = time.time()
        fleet.serve()
        lf.wait_until("the spool is empty", device.arrived, 90, 0.2)
        lf.expect_equal(agent_status(fleet, device.agent)["spooled_snapshots"], 0, "spooled snapshots")
        new = [snapshot for snapshot in fleet.snapshots("alpha/app") if snapshot["id"] not in before]
        new.sort(key=lambda snapshot: snapshot["sequence"])
        taken = [snapshot["taken_at"] for snapshot in new]
        lf.expect_equal(taken, sorted(taken, key=lf.seconds_of), "the order of what was taken is that of what came")
        states = []
        for snapshot in new:
            path = fleet.download(snapshot["id"])
            states.append(lf.content(path))
            os.unlink(path)
        for number, content in enumerate(device.contents):
            lf.expect(content in states, f"state {number + 1} of {len(device.contents)} is missing")
        places = [states.index(content) for content in device.contents]
        lf.expect_equal(places, sorted(places), "the order of the states")
        # Also when it was taken: after it was made, and before it was seen in the spool. A second for what the clocks are measured by.
        for place, (made, seen) in zip(places, device.between):
            for name in ("taken_at", "effective_at"):
                at = lf.seconds_of(new[place][name])
                lf.expect(made - 1 <= at <= seen + 1, f"{name} {at} is not between {made} and {seen}: {new[place]}")
        # The operations are there, with the times that they had on the device.
        operations = {operation["snapshot"]: operation for operation in fleet.cli("-o", "json", "operation", "list").json["items"]}
        for place in places:
            operation = operations[new[place]["id"]]
            lf.expect_equal(operation["state"], "succeeded", "the operation of a spooled snapshot")
            lf.expect_equal([run["output"] for run in operation["hooks"]], ["succeeded, as it was told\n"], "what its hook said")
            lf.expect(lf.seconds_of(operation["ended_at"]) <= offline + 1, f"ended at {operation['ended_at']}")
        lf.expect_equal(listed_gaps(fleet), [], "gaps")


def test_a_run_that_is_cut_behind_its_snapshot_is_one_operation():
    with lf.Fleet() as fleet:
        device = Steady(fleet)
        before = {snapshot["id"] for snapshot in fleet.snapshots("alpha/app")}
        go_offline(fleet)
        device.agent.process.stop()
        process = device.agent.start(env={"LITEFLEET_CRASH_AT": "spooled.taken"})
        device.spool(1)
        lf.wait_until("killed behind the snapshot", lambda: not process.running(), 60)
        lf.expect_equal(len(os.listdir(os.path.join(device.agent.state, "orders"))), 1, "operations that go on")
        device.agent.start()
        device.spool(1)
        fleet.serve()
        lf.wait_until("the spool is empty", device.arrived, 90, 0.2)
        new = [snapshot["id"] for snapshot in fleet.snapshots("alpha/app") if snapshot["id"] not in before]
        states = [lf.content(fleet.download(id_)) for id_ in new]
        for content in device.contents:
            lf.expect(content in states, "a state is missing")
        listed = lambda: fleet.cli("-o", "json", "operation", "list").json["items"]
        lf.wait_until("each snapshot has its operation", lambda: set(new) <= {one["snapshot"] for one in listed()}, 30, 0.2)
        lf.expect_equal({one["state"] for one in listed() if one["snapshot"] in new}, {"succeeded"}, "states of operations")


def test_a_full_spool_merges_and_tells_the_gap():
    with lf.Fleet() as fleet:
        device = Steady(fleet, settings='[limits]\nspool_bytes = "1MiB"\n', rows=20000)
        go_offline(fleet)
        watch = SpoolWatch(device.agent)
        # Each step changes 50 pages, 200 KiB that do not compress.
        merged = False
        for _ in range(14):
            device.spool(1)
            if len(spooled(device.agent)) < len(device.contents):
                merged = True
                if len(device.contents) >= 5:
                    break
        watch.stop()
        lf.expect(merged, "the spool was never full")
        print(f"at most {watch.most >> 10} KiB in a spool of 1 MiB, the largest state {watch.largest >> 10} KiB, by {watch.looks} looks")
        # While two are merged the third lies beside them: up to nine eighths of both, and 64 KiB.
        lf.expect(watch.most <= (1 << 20) + 2 * watch.largest * 9 // 8 + (64 << 10), f"{watch.most} bytes in a spool of 1 MiB, the largest state has {watch.largest}")
        total = sum(os.path.getsize(path) for path in spooled(device.agent))
        lf.expect(total <= 1 << 20, f"{total} bytes in a spool of 1 MiB")
        fleet.serve()
        lf.wait_until("the spool is empty", device.arrived, 90, 0.2)
        listed = lf.wait_until("the gap is told", lambda: listed_gaps(fleet), 30, 0.2)
        lf.expect_equal(listed[0]["reason"], "SPOOL_FULL", "reason of the gap")
        lf.expect(listed[0]["snapshots_dropped"] >= 1, f"the gap {listed[0]}")
        newest = max(fleet.snapshots("alpha/app"), key=lambda snapshot: snapshot["taken_at"])
        lf.expect_equal(lf.content(fleet.download(newest["id"])), device.contents[-1], "the newest state")
        # An operator sees it in the list, with the database, and where a time lies in it.
        table = fleet.cli("snapshot", "list", "alpha/app").out
        lf.expect("(no states)" in table and "SPOOL_FULL" in table, table)
        lf.expect("SPOOL_FULL" in fleet.cli("database", "show", "alpha/app").out, "database show has no gap")
        inside = middle(listed[0]["from"], listed[0]["until"])
        plan = fleet.cli("-o", "json", "restore", "alpha/app", "--at", inside, "--plan").json
        lf.expect_equal(plan["gap"]["reason"], "SPOOL_FULL", "the gap in the plan")
        lf.expect(plan["gap"]["before"]["taken_at"] < inside < plan["gap"]["after"]["taken_at"], f"states around {inside}: {plan['gap']}")
        text = fleet.cli("restore", "alpha/app", "--at", inside, "--plan").out
        lf.expect("there are no states between" in text, text)


def test_a_full_spool_merges_what_other_databases_have():
    with lf.Fleet() as fleet:
        device = Steady(fleet, settings='[limits]\nspool_bytes = "1MiB"\n', rows=20000)
        other = lf.make_database(fleet.path("log.db"), rows=5000)
        device.agent.process.stop()
        device.agent.databases["log"] = (other, SCHEDULE)
        device.agent.start()
        listed = lambda: fleet.cli("-o", "json", "snapshot", "list", "alpha/log", check=False)
        lf.wait_until("the other database is backed up", lambda: (done := listed()).code == 0 and done.json["items"], 60, 0.2)
        go_offline(fleet)
        device.spool(4)  # 200 KiB each, always the same pages
        of_app = len(glob.glob(os.path.join(device.agent.state, "spooled", "app", "*.spooled")))
        lf.expect(of_app >= 4, f"{of_app} snapshots")
        with sqlite3.connect(other, timeout=60) as db:
            db.execute("update item set data = randomblob(300) where id <= 1200")  # more than is left
        db.close()
        lf.wait_until("the other one is spooled", lambda: glob.glob(os.path.join(device.agent.state, "spooled", "log", "*.spooled")), 60, 0.2)
        left = len(glob.glob(os.path.join(device.agent.state, "spooled", "app", "*.spooled")))
        lf.expect(left < of_app, f"{left} of {of_app} snapshots are left")
        total = sum(os.path.getsize(path) for path in spooled(device.agent))
        lf.expect(total <= 1 << 20, f"{total} bytes in a spool of 1 MiB")
        fleet.serve()
        lf.wait_until("the spool is empty", device.arrived, 90, 0.2)
        gaps = lf.wait_until("the gap is told", lambda: listed_gaps(fleet), 30, 0.2)
        lf.expect_equal(gaps[0]["reason"], "SPOOL_FULL", "reason of the gap")
        for database, path in (("app", device.database), ("log", other)):
            newest = max(fleet.snapshots("alpha/" + database), key=lambda snapshot: snapshot["taken_at"])
            lf.expect_equal(lf.content(fleet.download(newest["id"])), lf.content(path), f"the newest state of {database}")


def test_what_is_not_configured_any_more_arrives_all_the_same():
    with lf.Fleet() as fleet:
        device = Steady(fleet)
        other = lf.make_database(fleet.path("other.db"), rows=100)
        go_offline(fleet)
        device.spool(2)
        device.agent.process.stop()
        del device.agent.databases["app"]
        device.agent.databases["other"] = (other, "")
        device.agent.start()
        fleet.serve()
        lf.wait_until("the spool is empty", device.arrived, 90, 0.2)
        lf.expect_equal(os.listdir(os.path.join(device.agent.state, "spooled", "app")), ["state"], "what is left")
        newest = max(fleet.snapshots("alpha/app"), key=lambda snapshot: snapshot["taken_at"])
        lf.expect_equal(lf.content(fleet.download(newest["id"])), device.contents[-1], "the newest state")


def middle(begin, end):
    at = (lf.seconds_of(begin) + lf.seconds_of(end)) / 2
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


def test_what_does_not_fit_is_an_open_gap_until_there_is_a_state_again():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("large.db"), rows=40000)
        agent = fleet.agent("alpha", {"app": (database, SCHEDULE)}, settings='[limits]\nspool_bytes = "1MiB"\n', start=False)
        go_offline(fleet)
        agent.start()
        # A first backup that the spool cannot hold.
        lf.wait_until("the gap is kept", lambda: glob.glob(os.path.join(agent.state, "gaps", "*")), 60, 0.2)
        lf.expect_equal(spooled(agent), [], "spooled")
        fleet.serve()
        agent.wait_connected()
        lf.wait_until("the backup is made", lambda: fleet.snapshots("alpha/app"), 120, 0.2)
        gaps = lf.wait_until("the gap is told", lambda: [gap for gap in listed_gaps(fleet) if gap["until"]], 30, 0.2)
        lf.expect_equal(gaps[0]["reason"], "SPOOL_FULL", "reason")
        lf.wait_until("the device forgets it", lambda: not glob.glob(os.path.join(agent.state, "gaps", "*")), 30, 0.2)
        alarms = fleet.cli("-o", "json", "status").json["alarms"]
        lf.expect(not any(alarm["reason"] == "COVERAGE_GAP" for alarm in alarms), f"alarms {alarms}")


def test_a_dump_that_waits_for_the_controller_is_a_gap_until_it_arrives():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("app.db"), rows=100)
        agent = fleet.agent("alpha", {"app": (database, SCHEDULE + '\nmethod = "dump"')})
        lf.wait_until("the first scheduled dump", lambda: fleet.snapshots("alpha/app"), 60, 0.2)
        go_offline(fleet)
        lf.wait_until("the gap is kept", lambda: glob.glob(os.path.join(agent.state, "gaps", "*")), 60, 0.2)
        fleet.serve()
        gaps = lf.wait_until("the gap is told, and has ended", lambda: [gap for gap in listed_gaps(fleet) if gap["until"]], 90, 0.2)
        lf.expect_equal(gaps[0]["reason"], "NOT_SPOOLED", "reason")
        lf.expect(gaps[0]["from"] < gaps[0]["until"], f"it has a length: {gaps[0]}")


if __name__ == "__main__":
    lf.main(globals())
