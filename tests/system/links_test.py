#!/usr/bin/env python3
"""Links and outages, through a proxy that counts: what a second backup sends, a controller that comes late, cuts in the middle
and at any byte, connections that are made twice."""
import contextlib
import datetime
import os
import random
import socket
import sqlite3
import time

import lf


def random_database(path, mib):
    """Data that compression does not shrink, so that bytes on the wire say what was sent."""
    return lf.make_database(path, rows=mib * 1024 * 1024 // 320)


def test_second_full_backup_sends_under_1_percent():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        fleet.agent("alpha", {"main": random_database(fleet.path("x.db"), 32)}, controller=f"127.0.0.1:{proxy.port}")
        before = proxy.up
        first_snapshot = fleet.snapshot("alpha/main", "--full")
        first = proxy.up - before
        before = proxy.up
        second_snapshot = fleet.snapshot("alpha/main", "--full")
        second = proxy.up - before
        print(f"first {first} bytes, second {second} bytes ({100 * second / first:.2f} %)")
        lf.expect(first > 20 << 20, "the first sends the data")
        lf.expect(second * 100 < first, f"the second sends {second} of {first} bytes")
        shown = {one["id"]: one for one in fleet.snapshots()}
        lf.expect_equal(shown[first_snapshot]["root_digest"], shown[second_snapshot]["root_digest"], "root digest of the same state")
        lf.expect_equal(lf.content(fleet.download(second_snapshot)), lf.content(fleet.path("x.db")), "content")


def test_agent_starts_before_the_controller():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": fleet.path("x.db")}, start=False)
        fleet.controller.stop()
        agent.start()
        time.sleep(2)  # real time: the agent's first attempts fail
        lf.expect(agent.process.running(), "the agent keeps trying")
        fleet.serve()
        agent.wait_connected(90)
        fleet.backup("alpha/main")


def test_link_cut_again_and_again_during_a_backup():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        size = 24
        fleet.agent("alpha", {"main": random_database(fleet.path("x.db"), size)}, controller=f"127.0.0.1:{proxy.port}")
        proxy.rate = 8 << 20
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        dice = random.Random(7)
        cuts = 0
        for _ in range(3):
            sent = proxy.up
            lf.wait_until("data flows", lambda: proxy.up > sent + (1 << 20) or ended(fleet, order), 90, 0.02)
            if ended(fleet, order):
                break
            time.sleep(dice.uniform(0.0, 0.3))
            proxy.cut()
            cuts += 1
        proxy.rate = None
        lf.wait_until("the operation ends", lambda: ended(fleet, order), 180, 0.3)
        operation = fleet.cli("-o", "json", "operation", "show", order).json
        lf.expect_equal(operation["state"], "succeeded", f"a backup outlives its link: {operation}")
        print(f"{cuts} cuts, {proxy.up} bytes sent for {size} MiB")
        newest = fleet.snapshots("alpha/main")[0]
        lf.expect_equal(lf.content(fleet.download(newest["id"])), lf.content(fleet.path("x.db")), "content")


def through_a_link_that_ends_at_any_byte(mib, prepare):
    """Each position of a sweep on a database of its own: the stream ends there once, for the controller or for the agent, by FIN or by a reset.
    `prepare` gives the number of snapshots that it made before. What one sends that is not cut."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        shares = (0, 0.001, 0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999)
        positions = [(True, share) for share in shares] + [(False, share) for share in (0, 0.3, 0.9)]
        databases = {f"d{i}": random_database(fleet.path(f"d{i}.db"), mib) for i in range(len(positions))}
        databases["uncut"] = random_database(fleet.path("uncut.db"), mib)
        agent = fleet.agent("alpha", databases, controller=f"127.0.0.1:{proxy.port}")
        before = prepare(fleet, databases)
        proxy.rate = 16 << 20

        def backed_up(name):
            up, down = proxy.up, proxy.down
            snapshot = fleet.snapshot(f"alpha/{name}")
            return snapshot, proxy.up - up, proxy.down - down

        _, whole_up, whole_down = backed_up("uncut")
        most = 0
        ended_early = 0
        for i, (upward, share) in enumerate(positions):
            # Its patience with a link that fails again and again is another test's.
            agent.process.stop()
            agent.start()
            agent.wait_connected()
            proxy.truncate_at(upward, 1 + int(share * (whole_up if upward else whole_down)), reset=i % 3 == 2)
            snapshot, up, _ = backed_up(f"d{i}")
            ended_early += not proxy.truncating
            most = max(most, up)
            # What had come is not sent again, but for what was on its way: windows of TCP and of HTTP/2, the proxy's own line.
            lf.expect(up < whole_up + (3 << 19), f"{'up' if upward else 'down'}, {share}: {up} bytes, and {whole_up} over a link that is never cut")
            lf.expect_equal(lf.content(fleet.download(snapshot)), lf.content(databases[f"d{i}"]), f"content of the one at {share}")
        print(f"{ended_early} of {len(positions)} ended early; at most {most} bytes up, uncut {whole_up}")
        lf.expect(ended_early >= len(positions) - 2, f"only {ended_early} of {len(positions)} streams were cut")
        lf.expect(agent.process.running(), "the agent runs")
        lf.expect_equal(len(fleet.snapshots()), before + len(databases), "snapshots")
        return whole_up


def test_first_backups_through_a_link_that_ends_at_any_byte():
    whole = through_a_link_that_ends_at_any_byte(3, lambda fleet, databases: 0)
    lf.expect(whole > 3 * 900_000, f"{whole} bytes are less than the data")


def test_increments_through_a_link_that_ends_at_any_byte():
    def change(fleet, databases):
        for name, path in databases.items():
            fleet.backup(f"alpha/{name}")
            # About every other page.
            lf.run_sql(path, "update item set data = randomblob(300) where id / 12 % 4 = 0")
        return len(databases)

    whole = through_a_link_that_ends_at_any_byte(6, change)
    lf.expect(2 << 20 < whole < 5 << 20, f"{whole} bytes are not those of the pages that changed")


def test_connections_that_are_duplicated():
    """A second connection with the same bytes: TLS has other keys for it, and ends it."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        proxy.duplicate = True
        path = random_database(fleet.path("x.db"), 4)
        fleet.agent("alpha", {"main": path}, controller=f"127.0.0.1:{proxy.port}")
        first = fleet.snapshot("alpha/main")
        before = lf.content(path)
        lf.run_sql(path, "update item set data = randomblob(100) where id in (7, 4000)")
        proxy.cut()
        fleet.snapshot("alpha/main")
        fleet.cli("restore", "alpha/main", "--snapshot", first, "--yes")
        lf.expect_equal(lf.content(path), before, "the restored database")
        lf.expect_equal([lf.content(fleet.download(one["id"])) for one in fleet.snapshots() if one["id"] == first], [before], "the first snapshot")
        lf.expect_equal(len(fleet.cli("-o", "json", "device", "list").json["items"]), 1, "devices")
        lf.wait_until("the controller ends the second connections", lambda: proxy.duplicates_ended >= 2, 30, 0.1)
        print(f"{proxy.duplicates} duplicates of {proxy.connections} connections, {proxy.duplicates_ended} ended by the controller")


def ended(fleet, operation):
    return fleet.cli("-o", "json", "operation", "show", operation).json["state"] not in ("queued", "sent", "running", "cancelling")


def count_rows(fleet, table):
    with contextlib.closing(sqlite3.connect(f"file:{fleet.data}/catalog.db?mode=ro", uri=True, timeout=10)) as db:
        return db.execute(f"select count(*) from {table}").fetchone()[0]


def test_progress_is_told_every_second_and_ends_at_its_total():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = random_database(fleet.path("x.db"), 32)
        fleet.agent("alpha", {"main": path}, settings="[limits]\nupload = \"4MiB\"")
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        seen, looks, changes = [], [], []
        while True:
            look = time.monotonic()
            operation = fleet.cli("-o", "json", "operation", "show", order).json
            done = operation["progress"]["done_bytes"]
            if operation["state"] == "running":
                if seen and done != seen[-1] or not seen:
                    changes.append(look)
                looks.append(look)
            seen.append(done)
            if operation["ended_at"]:
                break
            time.sleep(0.1)  # progress is promised once a second of real time
        lf.expect_equal(operation["state"], "succeeded", "state")
        lf.expect_equal(seen, sorted(seen), "what is done never falls")
        lf.expect_equal(seen[-1], operation["progress"]["total_bytes"], "done at the end")
        # A report a second, and as long as this took to look between two of them.
        slowest = max(later - earlier for earlier, later in zip(looks, looks[1:]))
        silence = max(later - earlier for earlier, later in zip(changes, changes[1:]))
        print(f"{len(changes)} steps, at most {silence:.2f} s between two, {slowest:.2f} s between two looks")
        lf.expect(len(changes) >= 5, f"steps of {len(seen)} looks: {sorted(set(seen))}")
        lf.expect(silence < 1.5 + 2 * slowest, f"nothing was told for {silence:.1f} s")


def cancel(fleet, order):
    """Seconds until it had ended, by what is on record: how long looking takes does not count."""
    asked = time.time()
    fleet.cli("operation", "cancel", order)
    lf.wait_until("the cancel takes effect", lambda: ended(fleet, order), 10, 0.1)
    operation = fleet.cli("-o", "json", "operation", "show", order).json
    lf.expect_equal(operation["state"], "cancelled", "state")
    return datetime.datetime.fromisoformat(operation["ended_at"].replace("Z", "+00:00")).timestamp() - asked, operation


def test_cancel_ends_within_two_seconds_and_leaves_nothing():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = random_database(fleet.path("x.db"), 48)
        agent = fleet.agent("alpha", {"main": path}, settings="[limits]\nupload = \"4MiB\"")
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        lf.wait_until("some of it is claimed", lambda: count_rows(fleet, "claim"), 20, 0.1)
        took, _ = cancel(fleet, order)
        lf.expect(took < 2.0, f"a cancel took {took:.1f} s")
        lf.expect_equal(fleet.snapshots(), [], "snapshots")
        lf.expect_equal(sorted(name for name in os.listdir(fleet.directory) if name.startswith("x.db")), ["x.db"], "files beside the database")
        # Neither here nor there: no session, no claim, no half ledger, nothing in the spool.
        nothing = lambda: count_rows(fleet, "upload_session") + count_rows(fleet, "claim") + count_rows(fleet, "device_chunk") == 0
        lf.wait_until("the controller keeps no reference", nothing, 5, 0.1)
        left = [os.path.join(folder, name) for folder, _, names in os.walk(agent.state) for name in names if "ledger" in name or "spool" in folder]
        lf.expect_equal(left, [], "what the agent keeps of it")
        # The bytes go with the next prunes.
        for _ in range(3):
            fleet.cli("store", "prune", "--grace", "0s", "--yes")
        live = fleet.cli("-o", "json", "store", "stats").json
        lf.expect_equal((live["chunks"], live["snapshots"]), (0, 0), f"the store {live}")
        # The device is away: the cancel does not wait for it, and it is told when it is back.
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        lf.wait_until("some of it is claimed", lambda: count_rows(fleet, "claim"), 20, 0.1)
        agent.process.kill()
        took, operation = cancel(fleet, order)
        lf.expect(took < 2.0, f"a cancel of a device that is away took {took:.1f} s")
        lf.expect_equal(operation["error"]["reason"], "CANCELLED_UNHEARD", "reason")
        lf.expect_equal(fleet.cli("-o", "json", "operation", "list", "--active").json["items"], [], "active operations")
        lf.wait_until("the controller keeps no reference", nothing, 90, 0.5)
        agent.start()
        agent.wait_connected()
        fleet.backup("alpha/main")
        lf.expect_equal(len(fleet.snapshots()), 1, "snapshots: what was cancelled was not gone on with")
        lf.expect_equal(fleet.cli("-o", "json", "operation", "show", order).json["state"], "cancelled", "state")
        lf.expect_equal(count_rows(fleet, "upload_session where state = 1"), 0, "sessions that were begun again for what was cancelled")
        agent.process.stop()


def test_impostor_gets_nothing_of_the_token():
    """Another controller, with certificates of its own, on the way to the right one."""
    with lf.Fleet() as right, lf.Fleet() as wrong:
        for fleet in (right, wrong):
            fleet.init()
            fleet.serve()
        token = right.cli("token", "create").out
        agent = lf.Agent(right, "alpha")
        agent.controller = wrong.address
        refused = agent.enroll(token, check=False, timeout=90)
        lf.expect(refused.code in (5, 7, 8), f"the impostor is noticed\n{refused}")
        lf.expect_equal(wrong.cli("-o", "json", "device", "list").json["items"], [], "the impostor's devices")
        agent.controller = right.address
        agent.enroll(token)  # the token is still unused


def test_dead_peer_is_noticed():
    """A listener that accepts and says nothing: enrolment ends with 7 in time."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        token = fleet.cli("token", "create").out
        with socket.create_server(("127.0.0.1", 0)) as silent:
            agent = lf.Agent(fleet, "alpha")
            agent.controller = f"127.0.0.1:{silent.getsockname()[1]}"
            agent.enroll(token, check=7, timeout=90)


if __name__ == "__main__":
    lf.main(globals())
