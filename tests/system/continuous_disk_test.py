#!/usr/bin/env python3
"""Continuous capture while the controller's disk is full: the device keeps what comes or says what it could not keep, and all goes on when there is room."""
import contextlib
import datetime
import glob
import os

import lf
from continuous_test import INTERVAL, check_states, last_of, log_of, millis, newest_holds, some, status, syncs, wait_following
from disk_test import fill, small_disk


def spooled(agent):
    return glob.glob(os.path.join(agent.state, "spooled", "*", "*.spooled"))


def fill_up(path):
    """Until there is no room for anybody, the reserve included."""
    with open(os.path.join(path, "ballast"), "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 65536):
            pass


class Device:
    """One with a ledger that somebody writes."""

    def __init__(self, fleet, name, autocheckpoint, *options, settings=""):
        self.fleet, self.name, self.target = fleet, name, f"{name}/ledger"
        self.database, self.log = fleet.path(f"{name}.db"), fleet.path(f"{name}-commits.log")
        self.writer = fleet.writer(self.database, "--rate", 300, "--autocheckpoint", autocheckpoint, "--log", self.log, *options, name=f"{name}-writer")
        self.agent = fleet.agent(name, {"ledger": (self.database, INTERVAL + '\ncheckpoint_size = "1MiB"')}, settings=settings)
        self.largest_wal, self.generations = 0, set()
        wait_following(fleet, self.agent)
        lf.wait_until("a first sync", lambda: syncs(fleet, self.target), 60, 0.3)

    def capture(self):
        return status(self.fleet, self.agent)["ledger"]["capture"] or {}

    def gaps(self, reason):
        return [gap for gap in self.fleet.cli("-o", "json", "snapshot", "list", self.target).json["gaps"] if gap["reason"] == reason]

    def look_at_wal(self):
        """For wait_until: always true."""
        with contextlib.suppress(FileNotFoundError):
            self.largest_wal = max(self.largest_wal, os.path.getsize(self.database + "-wal"))
            with open(self.database + "-wal", "rb") as wal:
                self.generations.add(wal.read(24)[16:])
        return True


def serve_on(fleet, disk):
    """The catalog's WAL takes up to 4 MiB of the reserve."""
    fleet.data = os.path.join(disk, "controller")
    with open(fleet.path("controller.toml"), "w", encoding="utf-8") as file:
        file.write('[store]\nreserve = "16MiB"\n')
    fleet.init()
    fleet.serve(extra=("--config", fleet.path("controller.toml")))


def test_a_store_at_its_reserve_loses_nothing_and_what_the_spool_cannot_hold_is_a_gap():
    """The controller is there, answers, and takes no states."""
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "160m") as disk:
        serve_on(fleet, disk)
        # Nobody but the agent copies pages from the WAL of the one.
        alpha = Device(fleet, "alpha", 0)
        # Each commit writes other pages: what is merged stays large.
        beta = Device(fleet, "beta", 200, "--accounts", 700_000, settings='[limits]\nspool_bytes = "1MiB"')

        fill(disk, 8 << 20)
        # After a while it goes into the spool, and the WAL is kept small there.
        lf.wait_until("syncs are spooled", lambda: alpha.look_at_wal() and len(spooled(alpha.agent)) >= 3, 60, 0.1)
        lf.expect(alpha.agent.connected(), "the controller can be reached all the time")
        generations, wal = len(alpha.generations), alpha.largest_wal
        enough = lambda: alpha.look_at_wal() and len(spooled(alpha.agent)) >= 10 and len(alpha.generations) >= generations + 2
        lf.wait_until("and more of them, while the WAL is started over", enough, 60, 0.1)
        lf.expect_equal(alpha.capture()["state"], "following", "capture beside a full store")
        lf.wait_until("a spool of 1 MiB is full", lambda: "let go of its WAL (CAPTURE_SPOOL_FULL)" in beta.agent.process.text(), 60, 0.2)
        beta.generations.clear()
        lf.wait_until("nobody keeps the WAL of its database", lambda: beta.look_at_wal() and len(beta.generations) >= 3, 60, 0.02)
        for process in (fleet.controller, alpha.agent.process, beta.agent.process, alpha.writer, beta.writer):
            lf.expect(process.running(), f"{process.args[0]} goes on\n{process.tail()}")

        os.unlink(os.path.join(disk, "ballast"))
        lf.wait_until("what was spooled has arrived", lambda: alpha.look_at_wal() and not spooled(alpha.agent) and not spooled(beta.agent), 90, 0.1)
        print(f"the WAL had {wal >> 20} MiB when spooling began, {alpha.largest_wal >> 20} MiB at most, {len(alpha.generations)} generations, {last_of(alpha.log)} commits")
        lf.expect(alpha.largest_wal < wal + (32 << 20), "the WAL grew on")
        lf.wait_until("the gap has its end", lambda: any(gap["until"] for gap in beta.gaps("CAPTURE_SPOOL_FULL")), 60, 0.3)
        lf.expect_equal(alpha.gaps("CAPTURE_SPOOL_FULL"), [], "gaps of what was spooled as a whole")
        for device in (alpha, beta):
            lf.expect_equal(device.writer.stop(), 0, f"exit of {device.name}'s writer")
            newest_holds(fleet, lf.check_ledger(device.database), 60, device.target)
        # Each point in time that is listed, also of the outage, is one that the writer's own log had.
        check_states(fleet, some(fleet.snapshots(alpha.target), 10), log_of(alpha.log), slack_ms=1500)
        check_states(fleet, some(fleet.snapshots(beta.target), 4), log_of(beta.log), slack_ms=1500)
        check_gap(fleet, beta)


def test_without_a_byte_left_at_the_controller_nothing_is_lost():
    """Its catalog can be written no more either, and in the end devices are not let in."""
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "160m") as disk:
        serve_on(fleet, disk)
        alpha = Device(fleet, "alpha", 1000)
        fill_up(disk)
        lf.wait_until("syncs are spooled", lambda: len(spooled(alpha.agent)) >= 10, 60, 0.1)
        lf.expect(fleet.controller.running() and alpha.agent.process.running() and alpha.writer.running(), "all go on")
        os.unlink(os.path.join(disk, "ballast"))
        lf.wait_until("what was spooled has arrived", lambda: not spooled(alpha.agent), 90, 0.1)
        lf.expect_equal(alpha.writer.stop(), 0, "exit of the writer")
        newest_holds(fleet, lf.check_ledger(alpha.database), 60)
        check_states(fleet, some(fleet.snapshots(alpha.target), 6), log_of(alpha.log), slack_ms=1500)


def check_gap(fleet, device):
    """It is shown for people and programs, and a time within it names the states around it."""
    gap = device.gaps("CAPTURE_SPOOL_FULL")[0]
    lf.expect("CAPTURE_SPOOL_FULL" in fleet.cli("snapshot", "list", device.target).out, "the list shows the gap")
    items = sorted(fleet.snapshots(device.target), key=lambda item: item["sequence"])
    since, until = millis(gap["from"]), millis(gap["until"])
    lf.expect(since < until, f"{gap}")
    lf.expect_equal([item for item in items if since + 300 < millis(item["taken_at"]) < until - 300], [], "states within the gap")
    middle = datetime.datetime.fromtimestamp((since + until) / 2000, datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    plan = fleet.cli("-o", "json", "restore", device.target, "--at", middle, "--plan").json
    around = plan["gap"]
    lf.expect_equal(around["reason"], "CAPTURE_SPOOL_FULL", f"the gap that the time lies in: {plan}")
    before, after = ([item["id"] for item in items if is_there(millis(item["taken_at"]))] for is_there in (lambda at: at <= since + 300, lambda at: at >= until - 300))
    lf.expect_equal((around["before"]["id"], around["after"]["id"]), (before[-1], after[0]), "the states around it")


if __name__ == "__main__":
    lf.main(globals())
