#!/usr/bin/env python3
"""Slow links never hold a lock: first backups far larger than the spool, beside a writer, in both journal modes; kills between the rounds."""
import glob
import hashlib
import json
import os
import re
import sqlite3
import threading
import time

import lf


class Watch(threading.Thread):
    """The largest size that files had while this ran."""

    def __init__(self, *patterns):
        super().__init__(daemon=True)
        self.patterns, self.largest, self.ended = patterns, [0] * len(patterns), threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.02):
            for at, pattern in enumerate(self.patterns):
                total = 0
                for path in glob.glob(pattern):
                    try:
                        total += os.path.getsize(path)
                    except FileNotFoundError:
                        pass
                self.largest[at] = max(self.largest[at], total)

    def stop(self):
        self.ended.set()
        self.join()
        return self.largest


def local_read_ms(path):
    """Reading and hashing all pages, as a backup does it without a network."""
    began = time.monotonic()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(4096), b""):
            digest.update(part)
    return int((time.monotonic() - began) * 1000) + 1


def first_backup(journal):
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy(rate=2 << 20)
        database = fleet.path("ledger.db")
        writer = fleet.writer(database, "--rate", 100, "--journal", journal, "--fill", "48MiB")
        agent = fleet.agent("alpha", {"main": database}, settings='[limits]\nspool_bytes = "4MiB"', controller=f"127.0.0.1:{proxy.port}")
        if journal == "wal":
            # The fill has made a large WAL, which begins anew here.
            connection = sqlite3.connect(database)
            lf.wait_until("the WAL is truncated", lambda: connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0)
            connection.close()
        watch = Watch(database + "-wal", os.path.join(agent.state, "spool", "*"))
        done = fleet.backup("alpha/main", timeout=300)
        wal, spool = watch.stop()
        snapshot = {one["id"]: one for one in fleet.snapshots()}[done["snapshot"]]
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        report = json.loads(writer.text().strip().splitlines()[-1])
        path = fleet.download(done["snapshot"])
        lf.check_ledger(path, 1)
        local = local_read_ms(path)
        print(f"{journal}: {proxy.up >> 20} MiB over the link, WAL up to {wal >> 10} KiB, spool up to {spool >> 10} KiB, pinned {snapshot['pinned_ms']} ms (a local read: {local} ms), "
              f"longest commit {report['max_ms']} ms, agent {agent.process.peak_kib() >> 10} MiB")
        lf.expect_equal(report["busy"], 0, "commits that gave up")
        lf.expect(proxy.up > 12 << 20, "the link was the slow part")
        lf.expect(spool <= 4 << 20, f"the spool took {spool} bytes")
        # The upload takes ten times as long as SQLite needs to fill its 4 MiB between two checkpoints.
        lf.expect(wal <= 16 << 20, f"the WAL grew to {wal} bytes")
        lf.expect(agent.process.peak_kib() <= 40 << 10, f"the agent took {agent.process.peak_kib()} KiB")
        shown = fleet.cli("operation", "show", done["id"]).out
        lf.expect("pre-copied" in shown, f"the operation says what was done\n{shown}")
        lf.expect(snapshot["pinned_ms"] > 0, "that it was pinned is measured")
        words = fleet.cli("snapshot", "show", done["snapshot"]).out
        lf.expect(re.search(r"took: +[0-9].*, of which the database was held for [0-9.]+ m?s", words), f"and shown\n{words}")
        # Twice a local read and 250 ms are promised; the link needs many times that. What else the machine does counts here too.
        lf.expect(snapshot["pinned_ms"] <= 250 + 10 * local, f"pinned {snapshot['pinned_ms']} ms, a local read takes {local} ms")
        # Nothing of it is listed.
        lf.expect_equal(len(fleet.snapshots()), 1, "snapshots")
        # And the next one is small, from the ledger.
        before = proxy.up
        second = fleet.snapshot("alpha/main")
        lf.expect(proxy.up - before < 2 << 20, f"{proxy.up - before} bytes for a small change")
        lf.check_ledger(fleet.download(second), 1)


def test_a_first_backup_beside_a_writer_in_wal_mode():
    first_backup("wal")


def test_a_first_backup_beside_a_writer_in_delete_mode():
    first_backup("delete")


def test_kills_between_the_rounds_lose_nothing_that_was_sent():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy(rate=2 << 20)
        database = lf.make_database(fleet.path("x.db"), rows=100_000)
        agent = fleet.agent("alpha", {"main": database}, settings='[limits]\nspool_bytes = "1MiB"', controller=f"127.0.0.1:{proxy.port}", start=False)
        for number, point in enumerate(("capture.precopy_pinned:5", "ledger.before_rename", "upload.precopied", "upload.before_commit")):
            process = agent.start(env={"LITEFLEET_CRASH_AT": point})
            if number == 0:
                agent.wait_connected()
                operation = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json
            lf.wait_until(f"killed at {point}", lambda: not process.running(), 120)  # pylint: disable=cell-var-from-loop
            if number == 1:
                fleet.controller.kill()
                fleet.serve()
        before = proxy.up
        agent.start()
        lf.wait_until("the backup ends", lambda: fleet.cli("-o", "json", "operation", "show", operation["id"]).json["state"] == "succeeded", 120, 0.3)
        done = fleet.cli("-o", "json", "operation", "show", operation["id"]).json
        print(f"{proxy.up >> 20} MiB over the link, after the last kill {(proxy.up - before) >> 10} KiB, of {os.path.getsize(database) >> 20} MiB")
        lf.expect_equal(lf.content(fleet.download(done["snapshot"])), lf.content(database), "content")
        lf.expect(proxy.up < os.path.getsize(database) * 1.6, "what was sent is not sent again")
        lf.expect_equal(len(fleet.snapshots()), 1, "snapshots")


if __name__ == "__main__":
    lf.main(globals())
