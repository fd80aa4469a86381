#!/usr/bin/env python3
"""Backups of what changed, counted at a proxy: a small change, a lost, damaged, stale or foreign ledger, another file, VACUUM, nothing changed."""
import os
import random
import shutil
import sqlite3
import subprocess
import time

import lf


def mutate(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


class Counted:
    """One device behind a proxy, with a database of some MiB that compression does not shrink."""

    def __init__(self, fleet, mib=24):
        self.fleet = fleet
        fleet.init()
        fleet.serve()
        self.proxy = fleet.proxy()
        self.database = lf.make_database(fleet.path("x.db"), rows=mib * 1024 * 1024 // 320)
        self.agent = fleet.agent("alpha", {"main": self.database}, controller=f"127.0.0.1:{self.proxy.port}")
        self.bytes = 0

    def backup(self, *args):
        before = self.proxy.up + self.proxy.down
        snapshot = self.fleet.snapshot("alpha/main", *args)
        self.bytes = self.proxy.up + self.proxy.down - before
        return snapshot

    def facts(self, snapshot):
        return {one["id"]: one for one in self.fleet.snapshots()}[snapshot]

    def ledger(self):
        return os.path.join(self.agent.state, "ledgers", "main.ledger")

    def expect_content(self, snapshot):
        lf.expect_equal(lf.content(self.fleet.download(snapshot)), lf.content(self.database), "content of the snapshot")


def test_a_small_change_costs_little_and_everything_else_comes_from_before():
    with lf.Fleet() as fleet:
        device = Counted(fleet)
        device.backup()
        first = device.bytes
        mutate(device.database, "update item set data = randomblob(100) where id in (7, 40000)")
        second = device.backup()
        facts = device.facts(second)
        print(f"first {first} bytes, second {device.bytes} bytes, {facts['pages_changed']} pages changed, {facts['pages_sent']} sent, stored {facts['stored_bytes']}")
        lf.expect(device.bytes < 40_000, f"{device.bytes} bytes for a change of two rows")
        lf.expect(facts["pages_sent"] <= 6, f"{facts['pages_sent']} pages were sent")
        lf.expect_equal(facts["pages_changed"], facts["pages_sent"], "pages changed and sent")
        device.expect_content(second)


def test_a_ledger_that_is_lost_or_damaged_costs_no_full_upload():
    with lf.Fleet() as fleet:
        device = Counted(fleet)
        device.backup()
        first = device.bytes
        for what in ("lost", "flipped", "cut"):
            mutate(device.database, f"update item set data = randomblob(100) where id = {random.Random(what).randrange(50000)}")
            if what == "lost":
                os.unlink(device.ledger())
            elif what == "flipped":
                with open(device.ledger(), "r+b") as file:
                    file.seek(5000)
                    byte = file.read(1)
                    file.seek(5000)
                    file.write(bytes([byte[0] ^ 1]))
            else:
                os.truncate(device.ledger(), 3000)
            snapshot = device.backup()
            print(f"{what}: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
            lf.expect(device.bytes * 50 < first, f"{what}: {device.bytes} bytes of {first}")
            device.expect_content(snapshot)


def put_back(agent, saved):
    """The state directory as it was when it was copied."""
    agent.process.stop()
    shutil.rmtree(agent.state)
    shutil.copytree(saved, agent.state)
    agent.start()
    agent.wait_connected()


def test_a_state_directory_that_is_put_back_from_an_older_copy():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        old = device.backup()
        first = device.bytes
        device.agent.process.stop()
        saved = fleet.path("saved-state")
        shutil.copytree(device.agent.state, saved)
        device.agent.start()
        device.agent.wait_connected()
        for step in range(2):
            mutate(device.database, f"update item set data = randomblob(100) where id % 5000 = {step}")
            device.backup()
        put_back(device.agent, saved)
        mutate(device.database, "update item set data = randomblob(100) where id = 77")
        snapshot = device.backup()
        print(f"stale: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
        lf.expect(device.bytes * 50 < first, f"stale: {device.bytes} bytes of {first}")
        device.expect_content(snapshot)
        # And of a snapshot that is not there any more.
        fleet.cli("snapshot", "delete", old, "--yes", "--force")
        put_back(device.agent, saved)
        mutate(device.database, "update item set data = randomblob(100) where id = 78")
        snapshot = device.backup()
        print(f"of a deleted snapshot: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
        lf.expect(device.bytes * 50 < first, f"of a deleted snapshot: {device.bytes} bytes of {first}")
        lf.expect(device.facts(snapshot)["pages_sent"] <= 6, "only the change is sent")
        device.expect_content(snapshot)


def test_a_controller_that_is_put_back_from_an_older_copy():
    """The ledger is of a snapshot that the controller does not know: ahead of it, and of its future."""
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        device.backup()
        first = device.bytes
        fleet.controller.stop()
        saved = fleet.path("saved-controller")
        subprocess.run(["cp", "-a", fleet.data, saved], check=True)
        fleet.serve()
        device.agent.wait_connected()
        mutate(device.database, "update item set data = randomblob(100) where id % 5000 = 3")
        lost = device.backup()
        fleet.controller.stop()
        shutil.rmtree(fleet.data)
        os.rename(saved, fleet.data)
        fleet.serve()
        device.agent.wait_connected()
        lf.expect(lost not in {one["id"] for one in fleet.snapshots()}, "the controller has forgotten it")
        mutate(device.database, "update item set data = randomblob(100) where id = 77")
        snapshot = device.backup()
        print(f"ahead of the controller: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
        lf.expect(device.bytes * 50 < first, f"{device.bytes} bytes of {first}")
        device.expect_content(snapshot)


def test_a_ledger_of_another_database():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        device.agent.process.stop()
        other = lf.make_database(fleet.path("other.db"), rows=200)
        device.agent.databases["other"] = (other, "")
        device.agent.start()
        device.agent.wait_connected()
        device.backup()
        first = device.bytes
        fleet.snapshot("alpha/other")
        device.agent.process.stop()
        shutil.copyfile(os.path.join(device.agent.state, "ledgers", "other.ledger"), device.ledger())
        device.agent.start()
        device.agent.wait_connected()
        mutate(device.database, "update item set data = randomblob(100) where id = 77")
        snapshot = device.backup()
        print(f"another database's: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
        lf.expect(device.bytes * 50 < first, f"{device.bytes} bytes of {first}")
        lf.expect(device.facts(snapshot)["pages_sent"] <= 6, "only the change is sent")
        device.expect_content(snapshot)


def test_a_device_that_was_cloned():
    """Two devices with one state directory and one path, each with its own database since: whoever calls sends what differs, and both are noticed."""
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        device.backup()
        first = device.bytes
        device.agent.process.stop()
        clone = lf.Agent(fleet, "clone")
        shutil.copytree(device.agent.state, clone.state)
        clone.controller, clone.databases = device.agent.controller, device.agent.databases
        # The path holds the database of whoever runs.
        others = fleet.path("other.db")
        shutil.copyfile(device.database, others)

        def swap():
            os.rename(device.database, fleet.path("aside.db"))
            os.rename(others, device.database)
            os.rename(fleet.path("aside.db"), others)

        for turn in range(4):
            agent = clone if turn % 2 else device.agent
            agent.start()
            device.agent.wait_connected()
            mutate(device.database, f"update item set data = randomblob(100) where id in ({turn + 1}, {10000 + turn})")
            snapshot = device.backup()
            print(f"{agent.name}: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
            lf.expect(device.bytes * 50 < first, f"turn {turn}: {device.bytes} bytes of {first}")
            device.expect_content(snapshot)
            agent.process.stop()
            swap()
        device.agent.start()
        clone.start()
        lf.wait_until("the fleet notices", lambda: any(alarm["reason"] == "DEVICE_CLONED" for alarm in fleet.cli("-o", "json", "status").json["alarms"]), 60, 0.3)


def test_a_database_that_is_replaced_by_another_file():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        device.backup()
        first = device.bytes

        def replaced(by, what, most):
            os.replace(by, device.database)
            snapshot = device.backup()
            print(f"{what}: {device.bytes} of {first} bytes, {device.facts(snapshot)['pages_sent']} pages sent")
            lf.expect(device.bytes <= most, f"{what}: {device.bytes} bytes of {first}")
            device.expect_content(snapshot)

        shutil.copyfile(device.database, fleet.path("kept.db"))
        shutil.copyfile(device.database, fleet.path("copy.db"))
        mutate(fleet.path("copy.db"), "update item set data = randomblob(100) where id in (5, 20000)")
        replaced(fleet.path("copy.db"), "a copy with a change", first // 50)
        replaced(lf.make_database(fleet.path("new.db"), rows=10000), "another database", first // 2)
        replaced(fleet.path("kept.db"), "the first one again", first // 20)
        replaced(lf.make_database(fleet.path("pages.db"), rows=1000, page_size=1024), "one with other pages", first // 8)


def test_the_controller_is_killed_and_the_next_change_goes_on():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 8)
        device.backup()
        mutate(device.database, "update item set data = randomblob(100) where id = 77")
        fleet.controller.kill()
        fleet.serve()
        device.agent.wait_connected()
        snapshot = device.backup()
        lf.expect(device.facts(snapshot)["pages_sent"] <= 4, "only the change is sent")
        device.agent.process.kill()
        device.agent.start()
        device.agent.wait_connected()
        mutate(device.database, "delete from item where id > 20000")
        mutate(device.database, "vacuum")
        device.expect_content(device.backup())


def test_nothing_changed_costs_nothing_and_is_said():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 8)
        time.sleep(3)  # real time: files that were just written are read
        first = device.backup()
        second = device.backup()
        print(f"nothing changed: {device.bytes} bytes")
        lf.expect_equal(second, first, "the snapshot of a database that has not changed")
        lf.expect(device.bytes <= 2048, f"{device.bytes} bytes for nothing")

        def said():
            return fleet.cli("-o", "json", "database", "show", "alpha/main").json["health"]["unchanged_at"] is not None

        lf.wait_until("the controller knows that nothing has changed", said, 90)
        lf.expect("unchanged" in fleet.cli("database", "show", "alpha/main").out, "`database show` says it")
        third = device.backup("--full")
        lf.expect(third != first, "--full reads everything")
        lf.expect_equal(device.facts(third)["pages_sent"], 0, "pages sent for nothing")
        mutate(device.database, "update item set data = randomblob(100) where id = 7")
        fourth = device.backup()
        lf.expect(fourth not in (first, third), "a change makes a snapshot")
        device.expect_content(fourth)


if __name__ == "__main__":
    lf.main(globals())
