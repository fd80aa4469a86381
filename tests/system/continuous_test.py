#!/usr/bin/env python3
"""Continuous capture: every listed state is one that the writer had, whatever happens to the writer, the agent, the controller and the link."""
import contextlib
import datetime
import json
import os
import shutil
import sqlite3
import time

import lf

HEARTBEAT = 4096  # bytes, of both directions: a health and its answer
INTERVAL = 'method = "continuous"\nsync_interval = "200ms"'


def millis(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def log_of(path):
    """[(seq, unix ms)] of the writer; a line that a kill has cut is left out."""
    with contextlib.suppress(FileNotFoundError):
        with open(path, encoding="utf-8") as file:
            return [(int(line.split()[0]), int(line.split()[1])) for line in file if line.endswith("\n") and len(line.split()) == 2]
    return []


def last_of(path):
    """The newest transfer in the writer's log, 0 without one."""
    with contextlib.suppress(FileNotFoundError):
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            whole = [line.split() for line in file.read().decode().split("\n")[:-1]]
            return max((int(line[0]) for line in whole if len(line) == 2 and line[0].isdigit()), default=0)
    return 0


def status(fleet, agent):
    return {item["name"]: item for item in fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json["databases"]}


def wait_following(fleet, agent, name="ledger", timeout=60):
    lf.wait_until(f"{name} is followed", lambda: (status(fleet, agent)[name]["capture"] or {}).get("state") == "following", timeout, 0.3)


def syncs(fleet, target="alpha/ledger"):
    return [item for item in fleet.snapshots(target) if item["method"] == "continuous"]


def taken_at(item):
    return millis(item["taken_at"])


def check_states(fleet, snapshots, log, slack_ms=1000, moment=taken_at):
    """Each is whole, holds nothing that was written later, and lacks nothing that had been committed a moment before it was taken."""
    for item in snapshots:
        path = fleet.download(item["id"])
        seq = lf.check_ledger(path)
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            newest = db.execute("select coalesce(max(at_ms), 0) from transfer").fetchone()[0]
        taken = moment(item)
        lf.expect(newest <= taken + 50, f"snapshot {item['id']} of {taken} holds a transfer of {newest}")
        before = max((n for n, at in log if at < taken - slack_ms), default=0)
        lf.expect(seq >= before, f"snapshot {item['id']} of {taken} ends with transfer {seq}, {before} had been committed {slack_ms} ms before")
        os.unlink(path)


def some(items, count):
    """Spread over all of them, the first and the last included."""
    if len(items) <= count:
        return items
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]


def newest_holds(fleet, seq, timeout=30, target="alpha/ledger"):
    """The newest snapshot has this transfer in the end."""

    def look():
        items = fleet.snapshots(target)
        if not items:
            return False
        path = fleet.download(items[0]["id"])
        found = lf.check_ledger(path)
        os.unlink(path)
        return found >= seq

    lf.wait_until(f"transfer {seq} is stored", look, timeout, 0.5)


def test_every_second_of_a_busy_database_can_be_restored():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        fleet.writer(database, "--rate", 100, "--seconds", 0.3, "--log", log, "--fill", "4MiB", name="first").process.wait(60)
        # Somebody is there before the writer is: who is attached in the midst of what is written stands aside once without being sure of its end.
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("select count(*) from sqlite_schema").fetchone()
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        wait_following(fleet, agent)
        # It waits for nobody: what is in its way is told to it.
        writer = fleet.writer(database, "--rate", 300, "--busy-timeout-ms", 0, "--log", log)
        start = len(syncs(fleet))
        lf.wait_until("syncs", lambda: len(syncs(fleet)) >= start + 20, 60, 0.3)
        holder.close()
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        report = json.loads(writer.text().strip().splitlines()[-1])
        lf.expect_equal(report["busy"], 0, "commits that gave up")
        newest_holds(fleet, report["last_seq"])
        items = syncs(fleet)
        check_states(fleet, some(items, 8), log_of(log))
        lf.expect(all(item["parent"] for item in items[:-1]), "each but the first has a parent")
        # Where the disk is busy the agent stands aside, and the end of a WAL that was never longer is not certain: that costs a reading, no more.
        following = status(fleet, agent)["ledger"]["capture"]
        aside = agent.process.text().count("(END_NOT_CERTAIN)")
        lf.expect_equal(following["doubts"] - aside, 0, "times in doubt, but for the ends of a WAL beside a busy disk")
        # The writer was the only one: the agent is gone as well, and left nothing.
        lf.wait_until("the agent lets go", lambda: not os.path.exists(database + "-wal"), 30)
        # Not operations.
        listed = fleet.cli("-o", "json", "operation", "list").json["items"]
        lf.expect(not any(item["kind"] == "backup" for item in listed), f"no operations: {listed[:2]}")
        # A moment in the middle; after a reading of all pages nobody knows how many commits there were.
        place = next(at for at in range(len(items) // 2, 0, -1) if items[at]["commits"] is not None)
        middle = items[place]
        wanted = lf.check_ledger(fleet.download(middle["id"]))
        # The writer commits one transfer at a time.
        lf.expect_equal(middle["parent"], items[place + 1]["id"], "parent")
        lf.expect_equal(middle["commits"], wanted - lf.check_ledger(fleet.download(middle["parent"])), "commits since the parent")
        plan = fleet.cli("-o", "json", "restore", "alpha/ledger", "--at", middle["taken_at"], "--plan").json
        lf.expect_equal((plan["snapshot"]["commits"], plan["before"]["id"]), (middle["commits"], middle["parent"]), "the plan's commits and the state before")
        lf.expect_equal(plan["after"]["id"], items[place - 1]["id"], "the state after the time")
        for shown in (fleet.cli("restore", "alpha/ledger", "--at", middle["taken_at"], "--plan").out, fleet.cli("snapshot", "show", middle["id"]).out):
            lf.expect(f"{middle['commits']} since" in shown, f"the commits are shown: {shown}")
        fleet.cli("restore", "alpha/ledger", "--at", middle["taken_at"], "--yes")
        lf.expect_equal(lf.check_ledger(database), wanted, "the last transfer after the restore")
        # Goes on, on the next timeline.
        again = fleet.writer(database, "--rate", 100, "--seconds", 3, name="again")
        again.process.wait(60)
        last = lf.check_ledger(database)
        newest_holds(fleet, last)
        lf.expect_equal(fleet.snapshots("alpha/ledger")[0]["timeline"], 2, "timeline after the restore")


def test_a_restart_bounds_the_wal_of_two_writers_without_any_pause():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log, passed = fleet.path("ledger.db"), fleet.path("commits.log"), fleet.path("passed")
        # Where one of them checkpoints while the other has no turn of the processor, nobody needs a RESTART.
        without_pause = ("--rate", 1500, "--synchronous", "normal", "--accounts", 50, "--autocheckpoint", 0)
        writer = fleet.writer(database, *without_pause, "--log", log)
        second = fleet.writer(database, *without_pause, name="second")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL + "\nallow_restart_checkpoint = true")}, start=False)
        agent.start(env={"LITEFLEET_CRASH_LOG": passed})
        wait_following(fleet, agent)
        restarts = lambda: open(passed, encoding="utf-8").read().count("follow.restart_advanced") if os.path.exists(passed) else 0
        largest, generations = 0, set()

        def look():
            nonlocal largest
            largest = max(largest, os.path.getsize(database + "-wal"))
            with open(database + "-wal", "rb") as wal:
                generations.add(wal.read(24)[16:])
            # Two frames a commit, at least.
            written = 2 * 4120 * last_of(log)
            return restarts() >= 4 and len(generations) >= 3 and written > 2 * largest

        try:
            lf.wait_until("the WAL is started over, and small beside what was written", look, 120, 0.1)
        finally:
            print(f"{restarts()} times advanced, {len(generations)} generations, the WAL was {largest >> 20} MiB at most, {last_of(log)} commits")
        for process in (second, writer):
            lf.expect_equal(process.stop(), 0, "exit of a writer")
        newest_holds(fleet, lf.check_ledger(database), 60)
        check_states(fleet, some(syncs(fleet), 8), log_of(log), slack_ms=3000)


def test_idle_is_free_and_nothing_of_the_users_changes():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("app"))
        database = lf.make_database(fleet.path("app", "x.db"))
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("insert into item values(1000001, 'x', null)")
        schema = holder.execute("select group_concat(sql) from sqlite_schema").fetchone()
        proxy = fleet.proxy()
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, controller=f"127.0.0.1:{proxy.port}")
        wait_following(fleet, agent)
        count = len(fleet.snapshots("alpha/ledger"))
        wire, read = lambda: proxy.up + proxy.down, lambda: read_bytes(agent)
        lf.wait_until("all has been said and read", lambda: at_rest(wire), 30, 0)
        sent, seen = wire(), read()
        time.sleep(2)
        sent, seen = wire() - sent, read() - seen
        print(f"an idle database: {sent} bytes on the wire and {seen} bytes read in 2 s")
        # The health of all databases is told once a minute, and may fall into it.
        lf.expect(sent <= HEARTBEAT, f"{sent} bytes on the wire of an idle database")
        lf.expect(seen <= 8 << 10, f"{seen} bytes read of an idle database")
        lf.expect_equal(len(fleet.snapshots("alpha/ledger")), count, "snapshots of an idle database")
        folder = f"/proc/{agent.process.pid}/fd"
        descriptors = lambda: [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder) if os.path.lexists(f"{folder}/{fd}")]
        lf.wait_until("four descriptors of the database", lambda: sum(database in name for name in descriptors()) <= 4, 30, 0.5)
        lf.expect_equal(holder.execute("select group_concat(sql) from sqlite_schema").fetchone(), schema, "schema")
        content = lf.content(database)
        holder.close()
        lf.wait_until("the agent lets go", lambda: sorted(os.listdir(fleet.path("app"))) == ["x.db"], 30)
        lf.expect_equal(lf.content(database), content, "content")
        lf.expect_equal(lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])), content, "content of the snapshot")


def test_stop_copy_over_start_while_followed():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, good = fleet.path("ledger.db"), fleet.path("good.db")
        fleet.writer(good, "--rate", 200, "--seconds", 0.5, name="first").process.wait(60)
        wanted = lf.check_ledger(good)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        writer = fleet.writer(database, "--rate", 300, "--accounts", 500)
        wait_following(fleet, agent)
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        # As a person would do it, not at once.
        lf.wait_until("the agent lets go", lambda: not os.path.exists(database + "-wal"), 10)
        shutil.copyfile(good, database)
        again = fleet.writer(database, "--rate", 100, "--seconds", 2, name="again")
        again.process.wait(60)
        last = lf.check_ledger(database)
        lf.expect(last > wanted, f"the application goes on from what was copied: {last} after {wanted}")
        newest_holds(fleet, last)


def test_release_lets_an_application_do_what_no_reader_may_be_beside():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        holder = sqlite3.connect(database, isolation_level=None, timeout=0.2)
        holder.execute("insert into item values(1000001, 'x', null)")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        wait_following(fleet, agent)
        with contextlib.suppress(sqlite3.OperationalError):  # locked: a reader is beside it
            lf.expect_equal(holder.execute("pragma journal_mode=delete").fetchone()[0], "wal", "journal mode beside the agent")
        fleet.program("litefleet-agent", "release", "ledger", "--seconds", "3", "--config", agent.config)
        lf.expect_equal(holder.execute("pragma journal_mode=delete").fetchone()[0], "delete", "journal mode after the release")
        holder.execute("pragma journal_mode=wal")
        holder.execute("insert into item values(1000002, 'y', null)")
        wait_following(fleet, agent)
        wanted = lf.content(database)
        lf.wait_until("the state is stored", lambda: lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])) == wanted, 20, 0.5)
        for args, code in ((("release", "nothing"), 4), (("release",), 2), (("release", "ledger", "--seconds", "0"), 2)):
            fleet.program("litefleet-agent", *args, *(("--config", agent.config) if args != ("release",) else ()), check=code)


def test_kills_and_cuts():
    """kill -9 of writer, agent and controller and cut links, in turn; afterwards every state that is listed is one that the writer had."""
    rounds = 8 if os.environ.get("LITEFLEET_SLOW") else 2
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        proxy = fleet.proxy()
        writer = fleet.writer(database, "--rate", 300, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, controller=f"127.0.0.1:{proxy.port}")
        wait_following(fleet, agent)
        for number in range(rounds):
            before = len(fleet.snapshots("alpha/ledger"))
            time.sleep(0.7)
            writer.kill()
            writer = fleet.writer(database, "--rate", 300, "--log", log, name=f"writer{number}")
            time.sleep(0.7)
            agent.process.kill()
            agent.start()
            time.sleep(0.7)
            fleet.controller.kill()
            fleet.serve()
            time.sleep(0.7)
            proxy.cut()
            agent.wait_connected()
            lf.wait_until("syncs go on", lambda: len(fleet.snapshots("alpha/ledger")) > before + 2, 60, 0.5)
        writer.stop()
        last = lf.check_ledger(database)
        newest_holds(fleet, last, 180)  # a page diff rests up to a minute after one that took long
        check_states(fleet, some(fleet.snapshots("alpha/ledger"), 6 * rounds), log_of(log))


def test_everything_an_application_may_do():
    """Checkpoints of all kinds, VACUUM, ATTACH, savepoints, long readers and other openers beside a writer."""
    seconds = 60 if os.environ.get("LITEFLEET_SLOW") else 8
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, log = fleet.path("ledger.db"), fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 400, "--log", log, "--fill", "1MiB")
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        wait_following(fleet, agent)
        end, step, waited = time.monotonic() + seconds, 0, 0.0
        while time.monotonic() < end:
            step += 1
            db = sqlite3.connect(database, isolation_level=None, timeout=20)
            kind = step % 8
            begun = time.monotonic()
            if kind < 3:
                db.execute(f"pragma wal_checkpoint({('full', 'restart', 'truncate')[kind]})")
                waited = max(waited, time.monotonic() - begun)
            elif kind == 3 and step % 16 == 3:
                db.execute("vacuum")
            elif kind == 4:
                db.execute("begin")
                db.execute("select count(*) from transfer").fetchone()
                time.sleep(0.5)
                db.execute("rollback")
            elif kind == 5:
                db.execute("attach ? as other", (fleet.path("other.db"),))
                db.execute("create table if not exists other.o(v)")
                db.execute("begin immediate")
                db.execute("insert into other.o values(1)")
                db.execute("insert into filler values(null, randomblob(50000))")
                db.execute("commit")
            elif kind == 6:
                db.execute("begin immediate")
                db.execute("savepoint a")
                db.execute("insert into filler select null, randomblob(900) from transfer limit 500")
                db.execute("rollback to a")
                db.execute("delete from filler where id % 7 = 0")
                db.execute("commit")
            db.close()
        writer.stop()
        report = json.loads(writer.text().strip().splitlines()[-1])
        lf.expect_equal(report["busy"], 0, "commits that gave up")
        newest_holds(fleet, lf.check_ledger(database))
        items = fleet.snapshots("alpha/ledger")
        check_states(fleet, some(items, 10), log_of(log))
        capture = status(fleet, agent)["ledger"]["capture"]
        print(f"{step} statements beside {report['last_seq']} commits, {len(items)} snapshots, {capture['doubts']} doubts, the longest checkpoint waited {waited:.2f} s")


def test_switches_of_the_journal_mode_and_a_clone_in_its_place():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        lf.wait_until("a first state", lambda: fleet.snapshots("alpha/ledger"), 60, 0.3)

        def stored(what):
            lf.wait_until(what, lambda: lf.content(fleet.download(fleet.snapshots("alpha/ledger")[0]["id"])) == lf.content(database), 60, 0.5)

        log = []  # (id, ms before the statement, ms when it had returned)

        def insert(number):
            begun = time.time_ns() // 1_000_000
            db.execute("insert into item values(?, 'x', null)", (number,))
            log.append((number, begun, time.time_ns() // 1_000_000))

        # Alone at its start, an application may switch; what is written in rollback mode is found when it is back in WAL mode.
        db = sqlite3.connect(database, isolation_level=None, timeout=10)
        for number, mode in enumerate(("delete", "wal", "truncate", "wal")):
            fleet.program("litefleet-agent", "release", "ledger", "--seconds", "10", "--config", agent.config)
            lf.expect_equal(db.execute(f"pragma journal_mode={mode}").fetchone()[0], mode, "journal mode")
            insert(2000000 + number)
        wait_following(fleet, agent)
        stored("what was written in both modes")
        db.close()
        lf.wait_until("the agent lets go", lambda: not os.path.exists(database + "-wal"), 30)
        # The same content in another file.
        shutil.copyfile(database, database + ".clone")
        os.replace(database + ".clone", database)
        db = sqlite3.connect(database, isolation_level=None, timeout=10)
        insert(3000000)
        wait_following(fleet, agent)
        stored("what was written to the clone")
        for number in range(20):
            insert(3000001 + number)
            time.sleep(0.1)
        stored("and goes on")
        db.close()
        items = some(fleet.snapshots("alpha/ledger"), 30)
        for item in items:
            path, taken = fleet.download(item["id"]), taken_at(item)
            lf.expect_equal(lf.integrity(path), "ok", f"snapshot {item['id']}")
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as copy:
                lf.expect_equal(copy.execute("select count(*) from item where id <= 1000").fetchone()[0], 1000, "rows of before")
                found = [row[0] for row in copy.execute("select id from item where id > 1000 order by id")]
            lf.expect_equal(found, [number for number, _, _ in log][: len(found)], f"snapshot {item['id']} has the first of what was committed")
            lf.expect(all(begun <= taken + 50 for _, begun, _ in log[: len(found)]), f"snapshot {item['id']} of {taken} holds what came later: {log}")
            lf.expect(all(done >= taken - 1000 for _, _, done in log[len(found):]), f"snapshot {item['id']} of {taken} ends with {found[-1:]}: {log}")
            os.unlink(path)
        print(f"{len(items)} states compared")


def test_the_clock_of_the_device_jumps():
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
    if not os.path.exists(library):
        raise lf.Skip("no libfaketime")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, clock = fleet.path("ledger.db"), fleet.path("clock")

        def jump(to):
            with open(clock + ".new", "w", encoding="ascii") as file:
                file.write(to + "\n")
            os.replace(clock + ".new", clock)

        jump("+0")
        log = fleet.path("commits.log")
        writer = fleet.writer(database, "--rate", 200, "--log", log)
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)}, start=False)
        agent.start(env={"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                         "DONT_FAKE_MONOTONIC": "1"})
        wait_following(fleet, agent)
        for to in ("+3h", "-2d", "+0"):
            before = len(syncs(fleet))
            jump(to)
            lf.wait_until(f"syncs go on at {to}", lambda: len(syncs(fleet)) > before + 3, 60, 0.3)  # pylint: disable=cell-var-from-loop
        lf.expect_equal(writer.stop(), 0, "exit of the writer")
        last = lf.check_ledger(database)
        lf.wait_until("the last transfer is stored", lambda: any(ends_with(fleet, item, last) for item in by_sequence(fleet)[:2]), 60, 0.5)
        # In the order of their commits states never go back, whatever the clock said.
        ends = [lf.check_ledger(fleet.download(item["id"])) for item in reversed(some(by_sequence(fleet), 8))]
        lf.expect_equal(ends, sorted(ends), "transfers of successive states")

        def moment(item):
            """By the clock of everybody else: the device's was wrong by one of these."""
            received = millis(item["received_at"])
            return min((taken_at(item) - wrong * 3_600_000 for wrong in (0, 3, -48)), key=lambda at: abs(at - received))

        check_states(fleet, some(by_sequence(fleet), 30), log_of(log), moment=moment)


def read_bytes(agent):
    """By read(), of files, tables of the kernel and sockets, since the agent's start."""
    with open(f"/proc/{agent.process.pid}/io", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("rchar:")))


def at_rest(count):
    before = count()
    time.sleep(1)
    return count() == before


def by_sequence(fleet):
    return sorted(fleet.snapshots("alpha/ledger"), key=lambda item: -item["sequence"])


def ends_with(fleet, item, seq):
    path = fleet.download(item["id"])
    found = lf.check_ledger(path)
    os.unlink(path)
    return found == seq


def test_a_database_that_is_deleted_and_made_anew():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database, logs = fleet.path("ledger.db"), []
        agent = fleet.agent("alpha", {"ledger": (database, INTERVAL)})
        for number in range(3):
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(database + suffix)
            log = fleet.path(f"commits{number}.log")
            writer = fleet.writer(database, "--rate", 200, "--seconds", 4, "--accounts", 100 + number, "--log", log, name=f"writer{number}")
            writer.process.wait(60)
            logs.append(log_of(log))
            lf.wait_until("the new one is stored", lambda: newest_of(fleet) == (100 + number, logs[-1][-1][0]), 40, 0.5)  # pylint: disable=cell-var-from-loop
        items = some(fleet.snapshots("alpha/ledger"), 30)
        for item in items:
            # Of which one, by the number of its accounts; of none that had gone by then.
            which, _ = ledger_of(fleet, item)
            begun = [number for number, log in enumerate(logs) if log[0][1] < taken_at(item) - 1000]
            lf.expect(which - 100 >= max(begun, default=0), f"snapshot {item['id']} is of number {which - 100}, {begun} had been begun")
            check_states(fleet, [item], logs[which - 100])
        print(f"{len(items)} states compared, {status(fleet, agent)['ledger']['capture']['doubts']} doubts")


def ledger_of(fleet, item):
    """The number of accounts, and the last transfer."""
    path = fleet.download(item["id"])
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = db.execute("select (select count(*) from account), (select coalesce(max(seq), 0) from transfer)").fetchone()
    os.unlink(path)
    return found


def newest_of(fleet):
    items = fleet.snapshots("alpha/ledger")
    return ledger_of(fleet, items[0]) if items else None


if __name__ == "__main__":
    lf.main(globals())
