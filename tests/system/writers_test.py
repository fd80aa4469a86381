#!/usr/bin/env python3
"""Writers in other processes with invariants, at 500 commits a second in both journal modes, while backups and restores run."""
import ctypes
import json
import os
import shutil
import sqlite3
import time

import lf


def backups_under_writer(journal, seconds):
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 500, "--journal", journal, "--log", log, "--fill", "16MiB")
        fleet.agent("alpha", {"ledger": database})
        end = time.monotonic() + seconds
        taken, given_up = [], 0
        while time.monotonic() < end:
            with open(log, encoding="utf-8") as file:
                committed = int(file.read().split("\n")[-2].split()[0])
            done = fleet.cli("-o", "json", "backup", "alpha/ledger", check=False)
            if journal == "delete" and done.code != 0 and json.loads(done.out)["error"]["reason"] in ("WRITER_STALL", "DATABASE_BUSY"):
                given_up += 1
                continue  # the contract for a busy rollback database: it lets go and says so
            lf.expect_equal(done.code, 0, f"exit of backup\n{done}")
            taken.append((done.json["snapshot"], committed))
            shown = fleet.cli("-o", "json", "snapshot", "show", done.json["snapshot"]).json
            lf.expect(0 < shown["pinned_ms"] <= shown["duration_ms"], f"for how long the database was held is measured: {shown}")
            lf.expect("of which the database was held for" in fleet.cli("snapshot", "show", done.json["snapshot"]).out, "and shown")
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        report = json.loads(writer.text().strip().splitlines()[-1])
        lf.expect_equal(report["busy"], 0, "commits that gave up after a minute of waiting")
        lf.expect(len(taken) >= 1, f"{len(taken)} backups in {seconds} s, {given_up} given up")
        for snapshot, committed in taken:
            path = fleet.download(snapshot)
            lf.check_ledger(path, committed)  # what was committed before the order is in the snapshot
            os.unlink(path)
        last = lf.check_ledger(database)
        print(f"{journal}: {len(taken)} snapshots, {given_up} given up, beside {last} commits, longest commit {report['max_ms']} ms, p99.9 {report['p999_ms']} ms")


IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "armv7l": 315, "i686": 290, "riscv64": 31}  # ioprio_set is the number before
LIBC = ctypes.CDLL(None, use_errno=True)


def disk_priority(thread):
    """Class (0: none, 2: best effort, 3: idle) and level in the disk's queues, as ionice(1) shows them; nothing of a thread that has ended."""
    value = LIBC.syscall(IOPRIO_GET[os.uname().machine], 1, thread)
    return None if value < 0 else (value >> 13, value & 7)


def test_the_agent_stands_back():
    """All threads of an agent, at whose start nobody asked for more, have the nice value of its configuration, and the level of the disk's queues
    that belongs to it."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        agent = fleet.agent("alpha", {"app": lf.make_database(fleet.path("app.db"))})
        for settings, nice, level in (("", 10, 6), ("[limits]\nnice = 19\n", 19, 7)):
            agent.process.stop()
            agent.settings = settings
            agent.start()
            agent.wait_connected()
            fleet.cli("backup", "alpha/app", "--full")
            values, disk = set(), set()
            for thread in os.listdir(f"/proc/{agent.process.pid}/task"):
                with open(f"/proc/{agent.process.pid}/task/{thread}/stat", encoding="utf-8") as file:
                    values.add(int(file.read().rsplit(")", 1)[1].split()[16]))
                disk.add(disk_priority(int(thread)))
            lf.expect_equal(values, {nice}, "nice values of the agent's threads")
            lf.expect_equal(disk - {None}, {(2, level)}, "their class and level at the disk")


def test_what_stands_further_back_at_the_disk_already_stays_there():
    """As the shipped unit has it (best effort, 7), and as ionice -c 3."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        agent = fleet.agent("alpha", {"app": lf.make_database(fleet.path("app.db"))}, start=False)
        for wanted in ((2, 7), (3, 0)):
            agent.start(preexec_fn=lambda wanted=wanted: LIBC.syscall(IOPRIO_GET[os.uname().machine] - 1, 1, 0, wanted[0] << 13 | wanted[1]))
            agent.wait_connected()
            threads = {disk_priority(int(thread)) for thread in os.listdir(f"/proc/{agent.process.pid}/task")}
            lf.expect_equal(threads - {None}, {wanted}, "class and level at the disk")
            agent.process.stop()


def test_backups_beside_500_commits_a_second_in_wal_mode():
    backups_under_writer("wal", 15)


def test_backups_beside_500_commits_a_second_in_delete_mode():
    backups_under_writer("delete", 15)


def test_many_backups_change_nothing_of_the_users():
    """File bytes, schema, settings, and the files beside the database are what they were."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        databases = {}
        for journal in ("wal", "delete"):
            os.mkdir(fleet.path(journal))
            databases[journal] = lf.make_database(fleet.path(journal, "x.db"), journal=journal)
            os.chmod(databases[journal], 0o640)
        before = {name: (lf.sha256(path), os.stat(path).st_mode, os.listdir(os.path.dirname(path))) for name, path in databases.items()}
        fleet.agent("alpha", databases)
        for _ in range(3):
            for name in databases:
                fleet.backup(f"alpha/{name}")
        for name, path in databases.items():
            now = (lf.sha256(path), os.stat(path).st_mode, os.listdir(os.path.dirname(path)))
            lf.expect_equal(now, before[name], f"{name}: bytes, mode and files")


def test_live_restore_under_a_process_that_holds_the_database_open():
    for journal in ("wal", "delete"):
        with lf.Fleet() as fleet:
            fleet.init()
            fleet.serve()
            path = lf.make_database(fleet.path("x.db"), rows=3000, journal=journal)
            holder = sqlite3.connect(path, isolation_level=None, timeout=60)
            holder.execute("insert into item values(1000001, 'before', null)")
            fleet.agent("alpha", {"main": path})
            snapshot = fleet.snapshot("alpha/main")
            wanted = lf.content(fleet.download(snapshot))
            holder.execute("delete from item where id % 3 = 0")
            fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "live", "--yes")
            lf.expect_equal(lf.content(path), wanted, f"{journal}: content after the restore")
            lf.expect_equal(holder.execute("select count(*) from item").fetchone()[0], 3001, f"{journal}: rows that the holder sees")
            holder.execute("insert into item values(1000002, 'after', null)")
            holder.close()
            db = sqlite3.connect(path)
            lf.expect_equal(db.execute("select name from item where id = 1000002").fetchone(), ("after",), f"{journal}: the next write survives")
            lf.expect_equal(db.execute("pragma journal_mode").fetchone()[0], journal, "journal mode stays")
            db.close()
            lf.expect_equal(lf.integrity(path), "ok", "integrity")


def test_replace_is_refused_while_the_database_is_open():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": path})
        snapshot = fleet.snapshot("alpha/main")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("insert into item values(1000001, 'mine', null)")
        refused = fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "replace", "--yes", check=False)
        lf.expect(refused.code != 0, f"refused\n{refused}")
        holder.execute("insert into item values(1000002, 'mine', null)")
        holder.close()
        db = sqlite3.connect(path)
        lf.expect_equal(db.execute("select count(*) from item where id > 1000000").fetchone()[0], 2, "nothing is lost")
        db.close()
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "replace", "--yes")
        lf.expect_equal(lf.content(path), lf.content(fleet.download(snapshot)), "content after the application has gone")


def test_new_restore_to_another_device_and_to_a_missing_file():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": path})
        fleet.agent("beta", {"copy": fleet.path("y.db")})
        snapshot = fleet.snapshot("alpha/main")
        wanted = lf.content(path)
        done = fleet.cli("-o", "json", "restore", "alpha/main", "--snapshot", snapshot, "--to", "beta/copy", "--yes")
        lf.expect_equal(done.json["restore_mode"], "new", "how it was restored, where the order left that open")
        lf.expect_equal(lf.content(fleet.path("y.db")), wanted, "content on the other device")
        os.unlink(path)
        with open(path + "-journal", "wb") as stale:
            stale.write(b"stale")
        fleet.cli("restore", "alpha/main", "--yes")
        lf.expect_equal(lf.content(path), wanted, "content of the new file")
        lf.expect(not os.path.exists(path + "-journal"), "a left-over journal is moved aside")


def test_stop_copy_over_start_with_the_agent_running():
    """What the user copied over the database is what the application sees, whatever the agent did before."""
    for journal in ("wal", "delete"):
        with lf.Fleet() as fleet:
            fleet.init()
            fleet.serve()
            path = fleet.path("ledger.db")
            fleet.agent("alpha", {"ledger": path}, start=True)
            fleet.writer(path, "--rate", 200, "--journal", journal, "--seconds", 0.5, name="first").process.wait(60)
            good = fleet.path("good.db")
            shutil.copyfile(path, good)
            wanted = lf.check_ledger(good)
            log = fleet.path("commits.log")
            writer = fleet.writer(path, "--rate", 100, "--journal", journal, "--log", log)
            lf.wait_until("more commits", lambda: os.path.exists(log) and os.path.getsize(log) > 400, 30)
            fleet.backup("alpha/ledger")
            writer.stop()
            lf.expect(not os.path.exists(path + "-wal"), f"{journal}: no -wal stays after the application's end")
            with open(good, "rb") as file, open(path, "r+b") as over:  # cp over it: the same inode
                data = file.read()
                over.write(data)
                over.truncate(len(data))
            lf.expect_equal(lf.check_ledger(path), wanted, f"{journal}: what was copied is there")
            writer = fleet.writer(path, "--rate", 100, "--journal", journal, name="again")
            fleet.backup("alpha/ledger")
            writer.stop()
            lf.expect(lf.check_ledger(path, wanted) >= wanted, "the application goes on from it")
            newest = max(fleet.snapshots("alpha/ledger"), key=lambda one: one["taken_at"])
            lf.check_ledger(fleet.download(newest["id"]), wanted)


if __name__ == "__main__":
    lf.main(globals())
