#!/usr/bin/env python3
"""Restores onto a device that has most of the snapshot, counted at a proxy; what is said of them; snapshots that were deleted."""
import os
import re
import time

import lf
from delta_test import Counted, mutate


def restored(device, snapshot, *args):
    """The operation's document, and the bytes that came down."""
    before = device.proxy.down
    operation = device.fleet.cli("-o", "json", "restore", "alpha/main", "--snapshot", snapshot, "--yes", *args).json
    return operation, device.proxy.down - before


def test_only_what_differs_comes_down():
    with lf.Fleet() as fleet:
        device = Counted(fleet)
        snapshot = device.backup()
        full = device.bytes
        before = lf.content(device.database)
        for mode in ("live", "replace"):
            mutate(device.database, "update item set data = randomblob(100) where id % 4000 = 7")
            lf.expect(lf.content(device.database) != before, "the database has changed")
            operation, down = restored(device, snapshot, "--mode", mode)
            print(f"{mode}: {down} of {full} bytes came down, {operation['changed_bytes']} bytes of pages differed")
            lf.expect(down < 120_000, f"{down} bytes for a change of 20 rows")
            lf.expect(0 < operation["changed_bytes"] <= 40 * 4096, f"changed_bytes: {operation['changed_bytes']}")
            lf.expect(operation["read_bytes"] >= 20 << 20, f"read_bytes: {operation['read_bytes']}")
            lf.expect(operation["ratio"] < 0.01, f"ratio: {operation['ratio']}")
            lf.expect_equal(operation["stored_bytes"], None, "stored by a restore")
            lf.expect_equal(lf.content(device.database), before, "the content")
            shown = fleet.cli("operation", "show", operation["id"]).out
            for word in ("read locally:", "differed:", "fetched:", "were here already"):
                lf.expect(word in shown, f"`operation show` says {word!r}\n{shown}")


def test_a_damaged_database_gives_what_is_left_of_it():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        snapshot = device.backup()
        before = lf.content(device.database)
        with open(device.database, "r+b") as file:
            file.write(b"no database any more" * 10)
            file.seek(5 << 20)
            file.write(b"damage" * 3000)
        operation, down = restored(device, snapshot, "--mode", "replace")
        print(f"damaged: {down} bytes came down for {operation['changed_bytes']} bytes of pages")
        lf.expect(down < 120_000, f"{down} bytes for damage of 6 pages")
        lf.expect_equal(lf.content(device.database), before, "the content")


def test_figures_of_a_backup():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 8)
        device.backup()
        mutate(device.database, "update item set data = randomblob(100) where id = 77")
        operation = fleet.backup("alpha/main")
        lf.expect(0 < operation["changed_bytes"] <= 8 * 4096, f"changed_bytes: {operation['changed_bytes']}")
        lf.expect(operation["read_bytes"] >= 7 << 20, f"read_bytes: {operation['read_bytes']}")
        lf.expect(0 < operation["stored_bytes"] < 100_000, f"stored_bytes: {operation['stored_bytes']}")
        lf.expect(0 < operation["ratio"] < 0.01, f"ratio: {operation['ratio']}")
        shown = fleet.cli("operation", "show", operation["id"]).out
        for word in ("read:", "changed:", "sent:", "stored:", "1 byte for"):
            lf.expect(word in shown, f"`operation show` says {word!r}\n{shown}")
        # The snapshot says the same, for as long as it is kept.
        shown = fleet.cli("snapshot", "show", operation["snapshot"]).out
        pages = operation["changed_bytes"] // 4096
        for words in (r"read: .*[0-9]", rf"changed: .* in {pages} pages", r"sent: .* for [1-8] pages, 1 byte for [0-9.]+", r"stored: .*, 1 byte for [0-9.]+"):
            lf.expect(re.search(words, shown), f"`snapshot show` says {words!r}\n{shown}")
        facts = device.facts(operation["snapshot"])
        lf.expect_equal((facts["pages_changed"], facts["stored_bytes"]), (pages, operation["stored_bytes"]), "pages changed, bytes stored")
        lf.expect("changed" in fleet.cli("backup", "alpha/main", "--full").out, "`backup` says what changed")


def test_a_deleted_snapshot_is_no_answer():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 4)
        time.sleep(3)  # real time: files that were just written are read
        first = device.backup()
        lf.expect_equal(device.backup(), first, "nothing has changed")
        fleet.cli("snapshot", "delete", first, "--yes", "--force")
        second = device.backup()
        lf.expect(second != first, "a deleted snapshot is no answer to a backup")
        device.expect_content(second)
        # By a schedule there is no order that could say it: the device is told.
        device.agent.process.stop()
        fleet.cli("snapshot", "delete", second, "--yes", "--force")
        device.agent.databases["main"] = (device.database, 'schedule = "2s"')
        device.agent.start()
        lf.wait_until("a scheduled backup makes a new snapshot", lambda: any(one["id"] not in (first, second) for one in fleet.snapshots()), 60, 0.3)
        lf.expect(os.path.exists(device.database), "the database is there")


if __name__ == "__main__":
    lf.main(globals())
