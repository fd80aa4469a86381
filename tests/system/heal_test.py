#!/usr/bin/env python3
"""Damage in packs: found by `store scrub`, shown, asked of the device, and healed where the device still has it."""
import contextlib
import datetime
import glob
import os
import shutil
import sqlite3
import struct
import time

import lf


def records(path):
    """(offset of the payload, type, stored bytes) of each record of a pack: common/format/FORMAT.md."""
    with open(path, "rb") as file:
        data = file.read()
    at = 64
    while at + 72 <= len(data) and data[at : at + 4] == b"LFR1":
        stored = struct.unpack_from("<I", data, at + 16)[0]
        yield at + 72, data[at + 4], stored
        at += 72 + stored


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


class Store:
    def __init__(self, fleet):
        self.packs = os.path.join(fleet.data, "store", "packs")

    def chunks(self):
        found = []
        for path in sorted(glob.glob(os.path.join(self.packs, "*"))):
            found += [(path, offset, stored) for offset, kind, stored in records(path) if kind == 1]
        return found


class Device:
    """One database with a first backup and two deltas."""

    def __init__(self, fleet, backups=3, journal="wal", settings="", database=""):
        self.fleet = fleet
        fleet.init()
        fleet.serve()
        self.store = Store(fleet)
        self.database = lf.make_database(fleet.path("x.db"), rows=8000, journal=journal)
        self.agent = fleet.agent("alpha", {"main": (self.database, database)}, settings=settings)
        self.kept, self.marks = {}, []
        for number in range(backups):
            if number:
                self.change(f"update item set data = randomblob(300) where id % 1000 = {number}")
            before = len(self.store.chunks())
            snapshot = fleet.snapshot("alpha/main")
            self.kept[snapshot] = lf.content(self.database)
            self.marks.append((before, len(self.store.chunks())))

    def change(self, statement):
        db = sqlite3.connect(self.database)
        db.execute(statement)
        db.commit()
        db.close()

    def damage(self, number):
        """Flips a bit in each chunk that the number-th backup wrote."""
        first, end = self.marks[number]
        chunks = self.store.chunks()[first:end]
        lf.expect(chunks, f"backup {number} wrote no chunk")
        for path, offset, stored in chunks:
            flip(path, offset + stored // 2)
        return len(chunks)

    def states(self):
        return {one["id"]: one["state"] for one in self.fleet.snapshots()}

    def status(self):
        return self.fleet.cli("-o", "json", "status").json

    def expect_all_restorable(self):
        for snapshot, content in self.kept.items():
            lf.expect_equal(lf.content(self.fleet.download(snapshot)), content, f"content of {snapshot}")


def test_a_sound_store_is_read_through_and_said_to_be_sound():
    with lf.Fleet() as fleet:
        Device(fleet)
        text = fleet.cli("store", "scrub").out
        lf.expect("all of it is what was written" in text, text)
        operation = fleet.cli("-o", "json", "store", "scrub", "--rate", "0").json
        lf.expect_equal(operation["kind"], "scrub", "kind")
        lf.expect_equal(operation["state"], "succeeded", "state")
        lf.expect(operation["progress"]["done_bytes"] == operation["progress"]["total_bytes"] > 0, f"{operation['progress']}")
        lf.expect_equal(operation["scrub"]["chunks_quarantined"], 0, "chunks quarantined")
        fleet.cli("store", "scrub", "--rate", "1KiB", check=2)
        slow = fleet.cli("-o", "json", "store", "scrub", "--rate", "1MiB", "--detach").json["id"]
        fleet.cli("store", "scrub", check=6)
        shown = lambda: fleet.cli("-o", "json", "operation", "show", slow).json
        lf.wait_until("progress is shown while it reads", lambda: 0 < shown()["progress"]["done_bytes"] < shown()["progress"]["total_bytes"], 20, 0.1)
        fleet.cli("operation", "cancel", slow)
        lf.wait_until("it is cancelled", lambda: shown()["state"] == "cancelled", 2, 0.1)


def test_damage_is_marked_shown_and_healed_by_the_device_also_in_deltas():
    with lf.Fleet() as fleet:
        device = Device(fleet)
        device.agent.process.stop()
        lost = device.damage(0) + device.damage(2)
        first, second, third = device.kept
        scrub = fleet.cli("-o", "json", "store", "scrub", check=8)
        lf.expect("DAMAGE_FOUND" in scrub.out + scrub.err, str(scrub))
        states = device.states()
        lf.expect_equal([states[one] for one in (first, second, third)], ["damaged"] * 3, "states")
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", third).json["state"], "damaged", "snapshot show")
        status = device.status()
        lf.expect_equal((status["quarantined_chunks"], status["wanted_chunks"], status["damaged_snapshots"]), (lost, lost, 3), "status")
        lf.expect(any(alarm["reason"] == "STORE_DAMAGED" for alarm in status["alarms"]), f"{status['alarms']}")
        fleet.cli("snapshot", "download", third, "--output", fleet.path("refused.db"), check=lf.AnyOf(1, 8))

        # Nothing was written since the last backup: everything that the first and the last one wrote and no later one replaced is there.
        device.agent.start()
        lf.wait_until("what the device has is healed", lambda: not fleet.cli("-o", "json", "operation", "list", "--active").json["items"]
                      and device.states()[third] == "committed", 60, 0.2)
        lf.expect_equal(lf.content(fleet.download(third)), device.kept[third], "content of the newest")
        healed = device.status()
        lf.expect(healed["quarantined_chunks"] < lost, f"{healed}")
        # Extents that a later backup changed are not on the device any more as the first one had them.
        for snapshot, state in device.states().items():
            if state == "committed":
                lf.expect_equal(lf.content(fleet.download(snapshot)), device.kept[snapshot], f"content of {snapshot}")
            else:
                fleet.cli("snapshot", "download", snapshot, "--output", fleet.path("no.db"), check=lf.AnyOf(1, 8))


def wait_until_all_are_whole(device):
    lf.wait_until("all is healed", lambda: not device.fleet.cli("-o", "json", "operation", "list", "--active").json["items"]
                  and set(device.states().values()) == {"committed"}, 60, 0.2)
    figures = lambda: [device.status()[name] for name in ("quarantined_chunks", "wanted_chunks", "damaged_snapshots")]
    lf.wait_until("status says so", lambda: figures() == [0, 0, 0], 60, 0.2)
    device.expect_all_restorable()


def test_what_the_device_still_has_all_of_is_healed_completely():
    with lf.Fleet() as fleet:
        device = Device(fleet)
        device.agent.process.stop()
        device.damage(2)
        fleet.cli("store", "scrub", check=8)
        first, second, third = device.kept
        lf.expect_equal([device.states()[one] for one in (first, second, third)], ["committed", "committed", "damaged"], "states")
        device.agent.start()
        wait_until_all_are_whole(device)


def test_another_device_supplies_what_the_first_no_longer_has():
    with lf.Fleet() as fleet:
        device = Device(fleet, backups=1, journal="delete")
        # A device of the same image: it sends nothing that is stored twice.
        twin = fleet.path("twin.db")
        shutil.copy(device.database, twin)
        chunks = len(device.store.chunks())
        other = fleet.agent("beta", {"main": twin})
        device.kept[fleet.snapshot("beta/main")] = lf.content(twin)
        lf.expect_equal(len(device.store.chunks()), chunks, "chunks after the second device's backup")
        other.process.stop()
        device.change("update item set data = randomblob(300)")
        device.damage(0)
        fleet.cli("store", "scrub", check=8)
        # The first one is asked, and has none of it.
        lf.wait_until("the first device has answered", lambda: any(
            one["kind"] == "heal" and one["device"] == "alpha" and one["state"] not in ("queued", "sent", "running", "cancelling")
            for one in fleet.cli("-o", "json", "operation", "list").json["items"]), 60, 0.2)
        lf.expect_equal(set(device.states().values()), {"damaged"}, "states before the second device is there")
        other.start()
        wait_until_all_are_whole(device)


class Cancelled:
    """Orders to heal that are cancelled: by what is on record how long that took, and what is left of them on both sides."""

    def __init__(self, device):
        self.device, self.fleet, self.agent = device, device.fleet, device.agent

    def order(self):
        """The order to heal that has not ended; None without one."""
        listed = self.fleet.cli("-o", "json", "operation", "list", "--active").json["items"]
        return next((one for one in listed if one["kind"] == "heal"), None)

    def wait(self, what, condition):
        """Until there is an order for which that holds."""
        def look():
            order = self.order()
            return order if order and condition(order) else None

        return lf.wait_until(what, look, 60, 0.05)["id"]

    def shown(self, order):
        return self.fleet.cli("-o", "json", "operation", "show", order).json

    def cancel(self, order, what):
        asked = time.time()
        self.fleet.cli("operation", "cancel", order)
        lf.wait_until(f"{what} is cancelled", lambda: self.shown(order)["ended_at"], 20, 0.1)
        ended = self.shown(order)
        lf.expect_equal(ended["state"], "cancelled", f"state of {what}")
        took = datetime.datetime.fromisoformat(ended["ended_at"].replace("Z", "+00:00")).timestamp() - asked
        print(f"{what}: cancelled in {took:.2f} s")
        lf.expect(took < 2.0, f"{what}: the cancel took {took:.1f} s")
        return ended

    def claims(self):
        with contextlib.closing(sqlite3.connect(f"file:{self.fleet.data}/catalog.db?mode=ro", uri=True, timeout=10)) as db:
            return db.execute("select count(*) from claim").fetchone()[0]

    def expect_nothing_left(self, what, claims_within=20):
        # An agent that was away hears of it when it is back.
        lf.wait_until(f"{what}: the agent keeps nothing of it", lambda: not self.files(), 20, 0.1)
        with contextlib.closing(sqlite3.connect(self.device.database, timeout=0, isolation_level=None)) as db:
            db.execute("begin exclusive")
            db.execute("rollback")
        beside = sorted(name for name in os.listdir(self.fleet.directory) if name.startswith("x.db"))
        lf.expect_equal(beside, ["x.db"], f"{what}: files beside the database")
        lf.wait_until(f"{what}: no chunk is claimed", lambda: self.claims() == 0, claims_within, 0.1)

    def files(self):
        """Where what is found waits to be sent, and the order itself."""
        return [os.path.join(folder, name) for folder, _, names in os.walk(self.agent.state) for name in names
                if os.path.basename(folder) in ("spool", "orders", "results")]


def test_a_cancelled_heal_ends_within_two_seconds_and_leaves_nothing():
    with lf.Fleet() as fleet:
        # 256 KiB an extent of what does not compress, and a page in each that the second backup has written anew: whole chunks of the first are nowhere.
        device = Device(fleet, backups=1, journal="delete", settings='[limits]\nupload = "512KiB"', database='busy_timeout = "60s"')
        cancelled = Cancelled(device)
        device.change("update item set data = randomblob(300) where id % 500 = 7")
        device.kept[fleet.snapshot("alpha/main")] = lf.content(device.database)
        newest = list(device.kept)[-1]

        # Queued: the device is away.
        device.agent.process.stop()
        device.damage(0)
        fleet.cli("store", "scrub", check=8)
        cancelled.cancel(cancelled.wait("an order to heal", lambda order: order["state"] == "queued"), "a queued heal")
        device.agent.start()
        device.agent.wait_connected()
        cancelled.expect_nothing_left("queued")

        # While it waits for somebody's lock.
        with contextlib.closing(sqlite3.connect(device.database, isolation_level=None)) as application:
            application.execute("begin exclusive")
            fleet.cli("store", "scrub", check=lf.AnyOf(0, 8))
            order = cancelled.wait("it waits for the lock", lambda order: order["state"] == "running" and order["progress"]["phase"] == "opening")
            cancelled.cancel(order, "a heal that waits for a lock")
            application.execute("rollback")
        cancelled.expect_nothing_left("waiting for a lock")

        # While it sends pages: whole chunks come to nothing, page by page there is more than a second's worth.
        fleet.cli("store", "scrub", check=lf.AnyOf(0, 8))
        lf.wait_until("pages have come", cancelled.claims, 60, 0.05)
        order = cancelled.wait("it sends", lambda order: order["wire_bytes"] > 0)
        cancelled.cancel(order, "a heal that sends")
        cancelled.expect_nothing_left("sending")
        lf.expect_equal(device.states()[newest], "damaged", "half of it does not heal a snapshot")

        # The device is gone in the midst of it.
        fleet.cli("store", "scrub", check=lf.AnyOf(0, 8))
        order = cancelled.wait("it sends", lambda order: order["wire_bytes"] > 0)
        device.agent.process.kill()
        lf.wait_until("the device is away", lambda: not device.agent.connected(), 30, 0.1)
        ended = cancelled.cancel(order, "a heal of a device that is away")
        lf.expect_equal(ended["error"]["reason"], "CANCELLED_UNHEARD", "reason")
        device.agent.start()
        device.agent.wait_connected()
        cancelled.expect_nothing_left("away", claims_within=90)  # looked at once a minute

        # And nothing of all this keeps the next order from its work.
        fleet.cli("store", "scrub", check=lf.AnyOf(0, 8))
        lf.wait_until("the newest is healed", lambda: device.states()[newest] == "committed", 60, 0.2)
        lf.expect_equal(lf.content(fleet.download(newest)), device.kept[newest], "content of the newest")


def test_what_no_device_has_any_more_stays_marked():
    with lf.Fleet() as fleet:
        device = Device(fleet)
        device.change("update item set data = randomblob(300)")
        lost = device.damage(0)
        fleet.cli("store", "scrub", check=8)
        gone = lambda: (lambda status: status["wanted_chunks"] == 0 and status["quarantined_chunks"] > 0)(device.status())
        lf.wait_until("the device has answered", gone, 60, 0.2)
        status = device.status()
        lf.expect(0 < status["quarantined_chunks"] <= lost, f"{status}")
        lf.expect_equal(set(device.states().values()), {"damaged"}, "states")
        newest = fleet.snapshot("alpha/main")
        lf.expect_equal(lf.content(fleet.download(newest)), lf.content(device.database), "a new backup does not need what was lost")


if __name__ == "__main__":
    lf.main(globals())
