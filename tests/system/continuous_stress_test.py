#!/usr/bin/env python3
"""Many processes at one database for a while, with continuous capture beside them and, at the same time on another database, without it.

Writers, one of them killed over and over, checkpoints of every kind, readers that stay, large transactions, VACUUM, ATTACH, connections that come and go, all of
them, too: the steady writer is started anew, and sometimes the journal mode switched and switched back before. All by the installed sqlite3 and ledger_writer,
in processes of their own. What goes wrong for the applications is counted on both sides and has to be the same: nothing. Who says that he will not wait may be told
that the database is busy: BUSY_MORE says how much oftener beside the agent.
LITEFLEET_STRESS_SECONDS says for how long (20; with --slow an hour), LITEFLEET_STRESS_SEED repeats the choices of a run."""
import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time

import lf
from continuous_test import check_states, log_of, newest_holds, some, status, wait_following

SLOW = bool(os.environ.get("LITEFLEET_SLOW"))
SECONDS = float(os.environ.get("LITEFLEET_STRESS_SECONDS", "3600" if SLOW else "20"))
SEED = int(os.environ.get("LITEFLEET_STRESS_SEED", random.randrange(1 << 30)))
# Of all checkpoints that were asked for. A RESTART or TRUNCATE waits for the agent's reader up to a second, and none waits for another checkpointer, whatever its timeout is: the
# agent is one, too. Counted apart are those with a timeout of 50 ms or less, of which most are refused on both sides, and those with a longer one, of which about half are.
BUSY_MORE = 0.25


class Stress:
    """Everything that is done to one database until the end; what the applications were told is in `errors`, `busy` and `kills`."""

    def __init__(self, fleet, name):
        self.fleet, self.name, self.agent = fleet, name, None
        self.database, self.logs = fleet.path(f"{name}.db"), [fleet.path(f"{name}-{i}.log") for i in range(2)]
        self.errors, self.done, self.kills, self.starts, self.switches, self.largest_wal = [], 0, 0, 0, 0, 0
        self.busy = {True: [0, 0], False: [0, 0]}  # by whether they wait for long: checkpoints that were refused, and all
        self.lock, self.stopped, self.room = threading.Lock(), threading.Event(), Room()
        self.threads = []

    def sql(self, text, timeout_ms=60000, what="statement"):
        """One connection of the CLI that runs this and ends; what it printed."""
        done = subprocess.run(["sqlite3", "-batch", self.database], input=f".timeout {timeout_ms}\n{text}\n", capture_output=True, text=True, timeout=300, check=False)
        said = [line for line in done.stderr.splitlines() if line]
        checkpoints = re.findall(r"^([01])\|-?\d+\|-?\d+$", done.stdout, re.MULTILINE)
        with self.lock:
            self.done += 1
            busy = self.busy[timeout_ms >= 5000]
            busy[0] += checkpoints.count("1")
            busy[1] += len(checkpoints)
            # A statement that waits for a minute is never told so; whether a checkpoint that does not wait is told in words or in its row is SQLite's.
            refused = [line for line in said if "is locked" in line]
            if checkpoints or timeout_ms < 5000:
                busy[0] += len(refused)
                busy[1] += len(refused)
                refused = []
            self.errors += [f"{what}: {line}" for line in said if "is locked" not in line] + [f"{what}: {line}" for line in refused]
        return done.stdout

    def start(self):
        self.fleet.writer(self.database, "--rate", 50, "--seconds", 0.2, "--fill", "2MiB", "--log", self.logs[0], name=f"{self.name}-first").process.wait(60)
        self.start_steady()
        for number, role in enumerate((self.checkpoints, self.kept_checkpoints, self.readers, self.large, self.killed_writer, self.watch, self.attached, self.last_close)):
            choices = random.Random(SEED * 31 + number)  # the same on both sides
            self.threads.append(threading.Thread(target=self.guarded, args=(role, choices), daemon=True))
        for thread in self.threads:
            thread.start()

    def start_steady(self):
        self.starts += 1
        self.steady = self.fleet.writer(self.database, "--rate", 150, "--log", self.logs[0], name=f"{self.name}-steady-{self.starts}")

    def guarded(self, role, choices):
        try:
            while not self.stopped.is_set():
                if role in (self.last_close, self.watch):
                    role(choices)
                    continue
                with self.room.among_others():
                    role(choices)
        except Exception as error:  # pylint: disable=broad-except
            with self.lock:
                self.errors.append(f"{role.__name__}: {error!r}")

    # Checkpoints by connections that come for them alone; some do not wait at all, some for long.
    def checkpoints(self, choices):
        mode, timeout = choices.choice(("passive", "full", "restart", "truncate")), choices.choice((0, 50, 20000))
        self.sql(f"pragma wal_checkpoint({mode});", timeout, mode)
        self.stopped.wait(choices.uniform(0.02, 0.4))

    # By a process that stays: its own marks and its view of the wal-index grow old between two of them.
    def kept_checkpoints(self, choices):
        lines = [".timeout 5000"]
        for _ in range(choices.randrange(3, 12)):
            lines += [f"pragma wal_checkpoint({choices.choice(('passive', 'full', 'restart', 'truncate'))});", f".shell sleep {choices.uniform(0.01, 0.3):.2f}",
                      "select count(*) from transfer;"]
        self.sql("\n".join(lines), 5000, "kept checkpoints")

    def readers(self, choices):
        self.sql(f"begin; select count(*) from transfer;\n.shell sleep {choices.uniform(0, 1.5):.2f}\nselect sum(balance) from account; commit;", what="reader")
        self.stopped.wait(choices.uniform(0, 0.3))

    def large(self, choices):
        self.sql(choices.choice(("update filler set data = randomblob(2000);", "begin; delete from filler where id % 5 = 0; rollback;", "vacuum;",
                                 "savepoint a; update filler set data = randomblob(1500) where id % 3 = 0; savepoint b; delete from filler; rollback to b; release a;")),
                 what="large transaction")
        self.stopped.wait(choices.uniform(0.5, 3))

    def killed_writer(self, choices):
        writer = self.fleet.writer(self.database, "--rate", 60, "--log", self.logs[1], name=f"{self.name}-killed-{self.kills}")
        self.stopped.wait(choices.uniform(0.3, 3))
        with self.lock:
            if not writer.running():
                self.errors.append(f"a writer ended by itself: {writer.tail()}")
        writer.kill()
        os.unlink(writer.log)
        self.kills += 1

    def attached(self, choices):
        self.sql(f"attach '{self.database}.other' as other; create table if not exists other.o(v);\nbegin immediate; insert into other.o values({choices.randrange(1000)}); "
                 "update filler set data = randomblob(1000) where id % 50 = 0; commit;", what="two databases at once")
        self.stopped.wait(choices.uniform(0.2, 1))

    # Nobody has it open for a moment; in some of these somebody does what no reader may be beside.
    def last_close(self, choices):
        self.stopped.wait(choices.uniform(0.3, 0.5) * min(SECONDS, 120))
        switches = choices.random() < 0.6
        with self.room.alone():
            if self.stopped.is_set():
                return
            lf.expect_equal(self.steady.stop(60), 0, f"exit of the steady writer: {self.steady.tail()}")
            if switches:
                self.switch(choices.choice(("delete", "truncate", "persist")))
            self.start_steady()

    def switch(self, mode):
        if self.agent is not None:
            # While it is killed, and not started again yet, it holds nothing, and says so.
            self.fleet.program("litefleet-agent", "release", "ledger", "--seconds", "2", "--config", self.agent.config)
        for sql, wanted in ((f"pragma journal_mode={mode}; update filler set data = randomblob(700) where id % 9 = 0;", mode),
                            ("pragma journal_mode=wal; update filler set data = randomblob(700) where id % 11 = 0;", "wal")):
            said = self.sql(sql, what=f"switch to {wanted}").strip()
            lf.expect_equal(said, wanted, "journal mode")
        self.switches += 1

    def watch(self, _):
        with contextlib.suppress(FileNotFoundError):
            self.largest_wal = max(self.largest_wal, os.path.getsize(self.database + "-wal"))
        self.stopped.wait(0.05)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(400)
            lf.expect(not thread.is_alive(), f"{self.name}: somebody still waits for the database")
        lf.expect_equal(self.steady.stop(60), 0, f"{self.name}: exit of the steady writer: {self.steady.tail()}")

    def commits(self):
        return sorted(log_of(self.logs[0]) + log_of(self.logs[1]))

    def findings(self):
        """What has to be the same with and without the agent."""
        last = max(seq for seq, _ in self.commits())
        found = lf.check_ledger(self.database, last)  # raises where an invariant is broken or a logged commit is missing
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            numbers = {row[0] for row in db.execute("select seq from transfer")}
        lost = [seq for seq, _ in self.commits() if seq not in numbers]
        print(f"  {self.name}: {found} transfers, {self.done} runs of the CLI, checkpoints that were busy {self.busy[False]} without patience and {self.busy[True]} with, "
              f"{self.kills} writers killed, {self.starts} starts of the steady one, {self.switches} switches of the journal mode, WAL up to {self.largest_wal / 2**20:.1f} MiB")
        return {"errors": self.errors, "lost": lost}

    def share_busy(self, patient):
        refused, asked = self.busy[patient]
        return refused / max(asked, 1)


class Room:
    """Many at a time, or one alone, for whom the others make room."""

    def __init__(self):
        self.changed, self.inside, self.wanted = threading.Condition(), 0, False

    @contextlib.contextmanager
    def among_others(self):
        with self.changed:
            self.changed.wait_for(lambda: not self.wanted)
            self.inside += 1
        try:
            yield
        finally:
            with self.changed:
                self.inside -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def alone(self):
        with self.changed:
            self.wanted = True
            self.changed.wait_for(lambda: self.inside == 0)
        try:
            yield
        finally:
            with self.changed:
                self.wanted = False
                self.changed.notify_all()


def kill_and_cut(fleet, agent, proxy, end, choices):
    """The agent is killed or stopped in order, the controller killed, the link cut, in turn."""
    while time.monotonic() < end:
        time.sleep(min(choices.uniform(3, 9), max(0, end - time.monotonic())))
        what = choices.randrange(4)
        if what == 0:
            agent.process.kill()
            agent.start()
        elif what == 1:
            agent.process.stop(60)
            agent.start()
        elif what == 2:
            fleet.controller.kill()
            fleet.serve()
        else:
            proxy.cut()
    agent.wait_connected()


def test_what_applications_see_is_the_same_without_the_agent_and_every_state_is_one_that_was():
    if shutil.which("sqlite3") is None:
        raise lf.Skip("there is no sqlite3")
    print(f"LITEFLEET_STRESS_SEED={SEED}, {SECONDS:.0f} s")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        beside, alone = Stress(fleet, "ledger"), Stress(fleet, "alone")
        beside.start()
        alone.start()
        sync = "1s" if SLOW else "200ms"
        agent = fleet.agent("alpha", {"ledger": (beside.database, f'method = "continuous"\nsync_interval = "{sync}"')}, controller=f"127.0.0.1:{proxy.port}")
        beside.agent = agent
        wait_following(fleet, agent)
        kill_and_cut(fleet, agent, proxy, time.monotonic() + SECONDS, random.Random(SEED))
        beside.stop()
        alone.stop()
        with_it, without = beside.findings(), alone.findings()
        lf.expect_equal(with_it, without, "what went wrong for applications with the agent, and without it")
        lf.expect_equal(with_it, {"errors": [], "lost": []}, "what went wrong for applications")
        for patient in (False, True):
            shares = beside.share_busy(patient), alone.share_busy(patient)
            # A few of few say little.
            slack = BUSY_MORE + 5 / max(beside.busy[patient][1], 1)
            lf.expect(shares[0] <= shares[1] + slack, f"of checkpoints {'with' if patient else 'without'} patience {shares[0]:.2f} were busy, and {shares[1]:.2f} without the agent")
        newest_holds(fleet, lf.check_ledger(beside.database), 240)
        items = fleet.snapshots("alpha/ledger")
        check_states(fleet, some(items, 100 if SLOW else 12), beside.commits())
        alarms = fleet.cli("-o", "json", "status", check=False).json.get("alarms", [])
        lf.expect(not any("CHAIN" in str(alarm) for alarm in alarms), f"the chain is in doubt: {alarms}")
        capture = status(fleet, agent)["ledger"]["capture"]
        print(f"  {len(items)} snapshots, {capture['doubts']} doubts since the agent's last start")


if __name__ == "__main__":
    lf.main(globals())
