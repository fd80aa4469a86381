#!/usr/bin/env python3
"""Continuous capture is nobody's burden: the file as it is without it, many databases by few threads, and hooks that have it let go."""
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import lf
from continuous_test import HEARTBEAT, INTERVAL, at_rest, read_bytes, status, wait_following

# Each needs no time and no random number to be the same anywhere.
STATEMENTS = (
    "insert into item select id + 10000, name || ' again', data from item where id % 3 = 0",
    "create index item_name on item(name)",
    "update item set name = 'changed ' || id where id % 7 = 0",
    "delete from item where id % 5 = 0",
    "pragma wal_checkpoint(truncate)",
    "begin; insert into item select id + 30000, name, data from item; savepoint s; delete from item; rollback to s; commit",
    "pragma user_version = 7",
    "drop index item_name",
    "vacuum",
    "insert into item(id, name) values(5000000, 'the last')",
)


def test_the_file_is_byte_for_byte_what_it_is_without_capture():
    """Two databases, the same statements, one of them captured until capture is switched off."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("app"))
        captured, twin = lf.make_database(fleet.path("app", "captured.db")), fleet.path("app", "twin.db")
        os.chmod(captured, 0o640)
        shutil.copy2(captured, twin)
        agent = fleet.agent("alpha", {"ledger": (captured, INTERVAL)})
        both = [sqlite3.connect(path, isolation_level=None, timeout=20) for path in (captured, twin)]

        def run(sql):
            for db in both:
                db.executescript(sql)

        run("insert into item(id, name) values(4000000, 'the first')")
        wait_following(fleet, agent)
        before = len(fleet.snapshots("alpha/ledger"))
        for sql in STATEMENTS[:-1]:
            run(sql)
            time.sleep(0.3)  # some of them are syncs of their own
        lf.wait_until("it was captured", lambda: len(fleet.snapshots("alpha/ledger")) > before + 2, 30, 0.3)
        agent.databases["ledger"] = (captured, 'method = "online"\nschedule = "never"')
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("capture is switched off", lambda: not status(fleet, agent)["ledger"].get("capture"), 30, 0.3)
        descriptors = f"/proc/{agent.process.pid}/fd"

        def open_files():
            with contextlib.suppress(FileNotFoundError):
                return sum(os.readlink(f"{descriptors}/{fd}").startswith(captured) for fd in os.listdir(descriptors))
            return -1

        lf.wait_until("the agent has nothing of it open", lambda: open_files() == 0, 30, 0.2)
        run(STATEMENTS[-1])
        for db in both:
            db.close()
        lf.wait_until("no file is left beside them", lambda: sorted(os.listdir(fleet.path("app"))) == ["captured.db", "twin.db"], 30, 0.2)
        lf.expect_equal(lf.sha256(captured), lf.sha256(twin), "bytes of the file")
        facts = [(one.st_mode, one.st_uid, one.st_gid, one.st_size) for one in map(os.stat, (captured, twin))]
        lf.expect_equal(facts[0], facts[1], "mode, owner, group and size")


def threads(agent):
    """Its own: gRPC has as many as it likes."""
    names = []
    for task in os.listdir(f"/proc/{agent.process.pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{agent.process.pid}/task/{task}/comm", encoding="utf-8") as file:
                names.append(file.read().strip())
    return [name for name in names if not re.match(r"grpc|nexting_thread|event_engine|default-exec|resolver-exec|timer_manager|backup_poller", name)]


def test_fifty_idle_databases_have_the_threads_of_one():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = [lf.make_database(fleet.path(f"idle-{number:02}.db"), rows=50) for number in range(50)]
        holders = [sqlite3.connect(path, isolation_level=None) for path in paths]
        for holder in holders:
            holder.execute("insert into item(id) values(1000001)")
        proxy = fleet.proxy()
        followed = {f"d{number}": (path, INTERVAL) for number, path in enumerate(paths)}
        agent = fleet.agent("alpha", {"d0": followed["d0"]}, controller=f"127.0.0.1:{proxy.port}")
        wait_following(fleet, agent, "d0")
        wire = lambda: proxy.up + proxy.down
        lf.wait_until("one is at rest", lambda: at_rest(wire), 30, 0)
        of_one = threads(agent)
        agent.databases.update(followed)
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("all are followed", lambda: all((one["capture"] or {}).get("state") == "following" for one in status(fleet, agent).values())
                      and len(status(fleet, agent)) == 50, 120, 0.5)
        lf.wait_until("all are at rest", lambda: at_rest(wire), 60, 0)
        lf.expect_equal(len(threads(agent)), len(of_one), f"threads with 50 databases and with one: {threads(agent)}, {of_one}")

        def descriptors():
            """The most that any of them has."""
            folder, names = f"/proc/{agent.process.pid}/fd", []
            for fd in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):
                    names.append(os.readlink(f"{folder}/{fd}"))
            return max(sum(name.startswith(path) for name in names) for path in paths), len(names)

        lf.wait_until("at most four descriptors of each", lambda: descriptors()[0] <= 4, 30, 0.5)
        sent, read = wire(), read_bytes(agent)
        time.sleep(2)
        sent, read = wire() - sent, read_bytes(agent) - read
        print(f"{len(of_one)} threads, {descriptors()[1]} descriptors, {sent} bytes on the wire and {read} read in 2 s")
        # What all of them need within a minute may fall into it.
        lf.expect(sent <= HEARTBEAT + 50 * 512, f"{sent} bytes on the wire of 50 idle databases")
        lf.expect(read <= 64 << 10, f"{read} bytes read of 50 idle databases")
        for holder in holders:
            holder.close()


def test_a_hook_has_the_agent_let_go_and_changes_the_journal_mode():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, asked, answer = fleet.path("ledger.db"), fleet.path("asked"), fleet.path("answer")
        holder = sqlite3.connect(database, isolation_level=None, timeout=0.2)
        holder.execute("pragma journal_mode=wal")
        holder.execute("create table item(id integer primary key, name text)")
        holder.execute("insert into item values(1, 'a')")
        hooks = fleet.path("hooks")
        os.mkdir(hooks, 0o700)
        # Capture goes on while the hook runs, and is paused for the backup itself; so it is the hook that asks. The application is told, and waited for.
        release = f"'{lf.BIN}/litefleet-agent' release ledger --seconds 20 --config '{fleet.path('alpha.toml')}'"
        with open(os.open(f"{hooks}/before", os.O_WRONLY | os.O_CREAT, 0o700), "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{release} || exit 1\ntouch '{asked}'\nfor i in $(seq 300); do [ ! -e '{answer}' ] || exec cat '{answer}'; sleep 0.1; done\nexit 1\n")
        settings = f'[hooks]\ndirectory = "{hooks}"'
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL + f'\nbefore_backup = "{hooks}/before"')}, settings=settings)
        wait_following(fleet, agent)
        with contextlib.suppress(sqlite3.OperationalError):  # locked: the agent is beside it
            lf.expect_equal(holder.execute("pragma journal_mode=delete").fetchone()[0], "wal", "journal mode beside the agent")
        backup = subprocess.Popen([f"{lf.BIN}/litefleet", "-o", "json", "backup", "alpha/ledger"], env={**os.environ, "LITEFLEET_DATA": fleet.data}, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
        lf.wait_until("the hook has asked", lambda: os.path.exists(asked) or backup.poll() is not None, 60)
        lf.expect(backup.poll() is None, "the backup waits for its hook")
        lf.expect_equal(holder.execute("pragma journal_mode=delete").fetchone()[0], "delete", "journal mode after the release")
        holder.execute("insert into item values(2, 'in rollback mode')")
        wanted = lf.content(database)
        with open(answer + ".new", "w", encoding="ascii") as file:
            file.write("switched\n")
        os.rename(answer + ".new", answer)
        out, _ = backup.communicate(timeout=120)
        lf.expect_equal(backup.returncode, 0, f"exit of the backup: {out}")
        newest = next(item for item in fleet.snapshots("alpha/ledger") if item["method"] == "online")
        lf.expect_equal(lf.content(fleet.download(newest["id"])), wanted, "the backup")
        # Back again: while the agent does not follow, an application that is alone may.
        fleet.program("litefleet-agent", "release", "ledger", "--seconds", "2", "--config", agent.config)
        lf.expect_equal(holder.execute("pragma journal_mode=wal").fetchone()[0], "wal", "journal mode")
        holder.execute("insert into item values(3, 'followed again')")
        wait_following(fleet, agent)
        wanted = lf.content(database)
        lf.wait_until("and goes on", lambda: lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])) == wanted, 30, 0.5)
        holder.close()


if __name__ == "__main__":
    lf.main(globals())
