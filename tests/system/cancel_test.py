#!/usr/bin/env python3
"""A cancel takes effect within 2 s and leaves nothing: each kind of operation in each state in which it can be for long.

Backups while they send are links_test.py's, restores while they fetch or wait for a lock ending_test.py's, heals heal_test.py's. A hook that
runs after the change is not cut short by a cancel (agent/README.md), so it is not here.
"""
import contextlib
import datetime
import os
import signal
import sqlite3
import subprocess
import time

import lf

ACTIVE = ("queued", "sent", "running", "cancelling")


def shown(fleet, order):
    return fleet.cli("-o", "json", "operation", "show", order).json


def phase(wanted):
    return lambda operation: operation["progress"]["phase"] == wanted


def cancel(fleet, order, what, asked=None):
    """Its end counts by what is on record: how long looking takes does not."""
    if asked is None:
        asked = time.time()
        fleet.cli("operation", "cancel", order)
    ended = lf.wait_until(f"{what} is cancelled", lambda: (now := shown(fleet, order))["state"] not in ACTIVE and now, 40)
    lf.expect_equal(ended["state"], "cancelled", f"state of {what}")
    took = datetime.datetime.fromisoformat(ended["ended_at"].replace("Z", "+00:00")).timestamp() - asked
    print(f"{what}: cancelled in {took:.2f} s")
    lf.expect(took < 2.0, f"{what}: the cancel took {took:.1f} s")


def rows(fleet, of):
    with contextlib.closing(sqlite3.connect(f"file:{fleet.data}/catalog.db?mode=ro", uri=True, timeout=10)) as catalog:
        return catalog.execute(f"select count(*) from {of}").fetchone()[0]


def packs_bytes(fleet):
    folder = os.path.join(fleet.data, "store", "packs")
    return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))


def nothing_is_left(fleet, what, snapshots):
    """On the controller: no scratch file, no chunk that is referred to, no snapshot, nothing that is still under way."""
    lf.wait_until(f"{what}: the scratch place is empty", lambda: not os.listdir(os.path.join(fleet.data, "scratch")), 10)
    held = lambda: {of: rows(fleet, of) for of in ("claim", "upload_session where state = 1") if rows(fleet, of)}
    lf.wait_until(f"{what}: no chunk is referred to", lambda: not held(), 20)
    lf.expect_equal(fleet.cli("-o", "json", "operation", "list", "--active").json["items"], [], f"{what}: active operations")
    lf.expect_equal(len(fleet.snapshots()), snapshots, f"{what}: snapshots")


class Device:
    """One whose hooks sleep, with a database that waits for a confirmation before it is restored, and one that does not."""

    def __init__(self, fleet):
        self.fleet = fleet
        fleet.init()
        fleet.serve()
        hooks = fleet.path("hooks")
        self.switch, self.begun = fleet.path("hooks-sleep"), fleet.path("hook-runs")
        os.mkdir(hooks, 0o700)
        with open(f"{hooks}/before", "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n[ -e {self.switch} ] || exit 0\ntouch {self.begun}\nexec sleep 300\n")
        os.chmod(f"{hooks}/before", 0o700)
        os.mkdir(fleet.path("db"))
        self.paths = {name: lf.make_database(fleet.path("db", f"{name}.db"), rows=2000, journal="delete") for name in ("hooked", "asked", "plain")}
        hooked = f'before_backup = "{hooks}/before"\nbefore_restore = "{hooks}/before"'
        self.agent = fleet.agent("alpha", {"hooked": (self.paths["hooked"], hooked), "asked": (self.paths["asked"], 'push_restore = "local-confirm"'),
                                           "plain": (self.paths["plain"], 'busy_timeout = "60s"')}, settings=f'[hooks]\ndirectory = "{hooks}"')
        self.snapshots = {name: fleet.snapshot(f"alpha/{name}") for name in self.paths}
        for path in self.paths.values():
            lf.run_sql(path, "update item set name = name || '!'")
        # What an undo takes back.
        fleet.cli("restore", "alpha/plain", "--snapshot", self.snapshots["plain"], "--mode", "live", "--yes")
        self.before = self.looks()

    def looks(self):
        """The databases, and the names beside them."""
        return sorted(os.listdir(self.fleet.path("db"))), {name: lf.content(path) for name, path in self.paths.items()}

    def order(self, kind, database):
        args = {"backup": (), "restore": ("--snapshot", self.snapshots[database], "--yes"), "undo": ("--yes",)}[kind]
        return self.fleet.cli("-o", "json", kind, f"alpha/{database}", *args, "--detach").json["id"]

    @contextlib.contextmanager
    def sleeping_hooks(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.begun)
        with open(self.switch, "w", encoding="utf-8"):
            pass
        yield
        os.unlink(self.switch)

    @contextlib.contextmanager
    def locked(self):
        with contextlib.closing(sqlite3.connect(self.paths["plain"], isolation_level=None)) as application:
            application.execute("begin immediate")
            yield
            application.execute("rollback")

    @contextlib.contextmanager
    def away(self):
        self.agent.process.stop()
        lf.wait_until("the device is away", lambda: not self.agent.connected(), 30, 0.1)
        yield
        self.agent.start()
        self.agent.wait_connected()

    def nothing_is_left(self, what):
        # An agent that was away hears of it when it is back.
        kept = lambda: [name for folder, _, names in os.walk(self.agent.state) for name in names if os.path.basename(folder) in ("spool", "orders", "results")]
        lf.wait_until(f"{what}: the agent keeps nothing of it", lambda: not kept(), 20)
        lf.expect_equal(self.looks(), self.before, f"{what}: databases and files beside them")
        for path in self.paths.values():
            with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
                database.execute("begin exclusive")
                database.execute("rollback")
        nothing_is_left(self.fleet, what, len(self.snapshots))


def test_orders_of_a_device():
    with lf.Fleet() as fleet:
        device = Device(fleet)
        queued = lambda operation: operation["state"] == "queued"
        hook = lambda operation: os.path.exists(device.begun)
        confirmation = phase("waits for confirmation on the device")
        lock = lambda operation: operation["state"] == "running" and operation["progress"]["phase"] == "applying"
        table = (("backup", "hooked", "a hook runs", device.sleeping_hooks, hook),
                 ("restore", "hooked", "a hook runs", device.sleeping_hooks, hook),
                 ("restore", "asked", "it waits for a confirmation on the device", contextlib.nullcontext, confirmation),
                 ("undo", "plain", "it waits for a lock", device.locked, lock),
                 ("backup", "plain", "the device is away", device.away, queued),
                 ("restore", "plain", "the device is away", device.away, queued),
                 ("undo", "plain", "the device is away", device.away, queued))
        for kind, database, state, hindrance, reached in table:
            what = f"{kind} while {state}"
            with hindrance():
                order = device.order(kind, database)
                lf.wait_until(f"{what} is reached", lambda: reached(shown(fleet, order)), 60)  # pylint: disable=cell-var-from-loop
                cancel(fleet, order, what)
            device.nothing_is_left(what)
        # And nothing of all this is in the way of the next ones.
        fleet.cli("undo", "alpha/plain", "--yes")
        for name in device.paths:
            fleet.backup(f"alpha/{name}")


def in_the_background(fleet, *args):
    return subprocess.Popen([os.path.join(lf.BIN, "litefleet"), *args], env={**os.environ, "LITEFLEET_DATA": fleet.data}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Imports:
    def __init__(self, fleet):
        self.fleet = fleet
        self.processes = {}

    def begin(self, path, *server):
        before = self.active()
        process = in_the_background(self.fleet, *server, "snapshot", "import", path, "--to", "alpha/main")
        order = lf.wait_until("the import is on record", lambda: next(iter(self.active() - before), None))
        self.processes[order] = process
        return order

    def active(self):
        return {one["id"] for one in self.fleet.cli("-o", "json", "operation", "list", "--active").json["items"] if one["kind"] == "import"}

    def expect_told(self, order, what):
        lf.expect(self.processes.pop(order).wait(30) != 0, f"{what}: the command ended well")


def stopped(process):
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def has_a_socket(pid):
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                return True
    return False


def cancel_a_stopped_one(fleet, what):
    """The operation in which LITEFLEET_STOP_AT stops the controller: it goes on when the cancel is at its door."""
    lf.wait_until(f"{what} has stopped", lambda: stopped(fleet.controller), 60, 0.02)
    with contextlib.closing(sqlite3.connect(f"file:{fleet.data}/catalog.db?mode=ro", uri=True, timeout=10)) as catalog:
        (order,) = catalog.execute("select id from operation where active = 1").fetchone()
    asking = in_the_background(fleet, "operation", "cancel", order)
    lf.wait_until("the cancel is on its way", lambda: has_a_socket(asking.pid), 20, 0.02)
    asked = time.time()
    fleet.controller.signal(signal.SIGCONT)
    cancel(fleet, order, what, asked)
    lf.expect_equal(asking.wait(30), 0, f"{what}: exit code of the cancel")


def test_imports():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        fleet.agent("alpha", {"main": lf.make_database(fleet.path("x.db"))})
        fleet.snapshot("alpha/main")
        slow = lf.slow_to_check(fleet.path("slow.db"), 100)
        big = lf.make_database(fleet.path("big.db"), rows=100_000, journal="delete")
        imports = Imports(fleet)
        remote = ("--server", f"127.0.0.1:{fleet.proxy(rate=1 << 20).port}", "--identity", os.path.join(fleet.data, "admin.pem"))
        table = ((big, remote, "receiving", lambda operation: operation["progress"]["done_bytes"] > 0),
                 (slow, (), "checking", phase("checking")),
                 (slow + ".sql", (), "loading", phase("loading")))
        for path, server, state, reached in table:
            what = f"an import that is {state}"
            order = imports.begin(path, *server)
            lf.wait_until(what, lambda: reached(shown(fleet, order)), 60)  # pylint: disable=cell-var-from-loop
            cancel(fleet, order, what)
            imports.expect_told(order, what)
            nothing_is_left(fleet, what, 1)
        # One waits for its turn behind one that takes long.
        first = imports.begin(slow)
        lf.wait_until("it is checked", lambda: phase("checking")(shown(fleet, first)), 60)
        second = imports.begin(big)
        lf.wait_until("all of it has come", lambda: phase("waiting")(shown(fleet, second)), 60)
        cancel(fleet, second, "an import that waits for its turn")
        imports.expect_told(second, "an import that waited")
        lf.expect_equal(shown(fleet, first)["state"], "running", "the one before it")
        cancel(fleet, first, "an import that is checked")
        imports.expect_told(first, "an import that was checked")
        nothing_is_left(fleet, "two imports", 1)
        # While it is stored: the cancel is on its way when the check has just ended.
        fleet.controller.stop()
        fleet.serve(env={"LITEFLEET_STOP_AT": "import.checked"})
        process = in_the_background(fleet, "snapshot", "import", big, "--to", "alpha/main")
        cancel_a_stopped_one(fleet, "an import that is stored")
        lf.expect(process.wait(30) != 0, "an import that was stored: the command ended well")
        nothing_is_left(fleet, "an import that was stored", 1)
        fleet.cli("snapshot", "import", big, "--to", "alpha/main")


def test_prunes_and_scrubs():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("x.db"), rows=100_000)
        fleet.agent("alpha", {"main": path})
        kept = {}

        def back_up():
            snapshot = fleet.snapshot("alpha/main")
            kept[snapshot] = lf.content(path)
            return snapshot

        def expect_sound(what):
            nothing_is_left(fleet, what, len(kept))
            for snapshot, content in kept.items():
                lf.expect_equal(lf.content(fleet.download(snapshot)), content, f"{what}: content of {snapshot}")

        def waste():
            """Most of the newest snapshot that there is: another one is made, and it goes."""
            (older,) = kept
            lf.run_sql(path, "update item set data = randomblob(300) where id < 70000; pragma wal_checkpoint(truncate)")
            back_up()
            fleet.cli("snapshot", "delete", older, "--yes", "--force")  # whether or not the new one is checked yet
            del kept[older]

        back_up()
        order = fleet.cli("-o", "json", "store", "scrub", "--rate", "1MiB", "--detach").json["id"]
        lf.wait_until("it scrubs", lambda: shown(fleet, order)["progress"]["done_bytes"] > 0, 60)
        cancel(fleet, order, "a scrub")
        expect_sound("a scrub")

        for point, state in (("prune.after_begin", "marks"), ("prune.after_trash", "trashes"), ("prune.after_sweep", "sweeps and rewrites")):
            what = f"a prune that {state}"
            waste()
            fleet.controller.stop()
            fleet.serve(env={"LITEFLEET_STOP_AT": point})
            pruning = in_the_background(fleet, "store", "prune", "--grace", "0s", "--yes")
            cancel_a_stopped_one(fleet, what)
            lf.expect(pruning.wait(30) != 0, f"{what}: the command ended well")
            expect_sound(what)
            fleet.agents["alpha"].wait_connected()
        fleet.controller.stop()
        fleet.serve()
        fleet.agents["alpha"].wait_connected()
        # What they left is dead, and goes with the next one.
        waste()
        fleet.cli("store", "prune", "--grace", "0s", "--yes")
        stored, needed = packs_bytes(fleet), os.path.getsize(path)
        lf.expect(stored < needed + needed // 10, f"{stored} bytes are stored of {needed}")
        expect_sound("a prune")


if __name__ == "__main__":
    lf.main(globals())
