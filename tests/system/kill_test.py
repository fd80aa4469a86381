#!/usr/bin/env python3
"""kill -9 of controller and agent at random moments: every acknowledged snapshot downloads and verifies, work goes on, sources are unharmed."""
import os
import random
import threading
import time

import lf

SEED = int(os.environ.get("LITEFLEET_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


def verify_all(fleet, at_least):
    """Downloads every snapshot and checks the ledger's invariants; the CLI's own digest check is part of the download."""
    listed = fleet.snapshots()
    lf.expect(len(listed) >= at_least, f"{len(listed)} snapshots are listed, {at_least} were acknowledged (seed {SEED})")
    for snapshot in listed:
        path = fleet.download(snapshot["id"])
        lf.expect_equal(os.path.getsize(path), snapshot["size_bytes"], "size of a download")
        lf.check_ledger(path)
        os.unlink(path)
    return {snapshot["id"] for snapshot in listed}


def backups_until(fleet, stop, acknowledged):
    """Backs up again and again, as an operator's script would, through failures."""
    while not stop.is_set():
        done = fleet.cli("-o", "json", "backup", "alpha/ledger", "--timeout", "20s", check=False, timeout=120)
        if done.code == 0:
            acknowledged.add(done.json["snapshot"])
        else:
            time.sleep(0.2)


def run(kills, victim, databases_fill="6MiB"):
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = fleet.path("ledger.db")
        writer = fleet.writer(database, "--rate", 200, "--fill", databases_fill)
        agent = fleet.agent("alpha", {"ledger": database})
        acknowledged, stop = set(), threading.Event()
        acknowledged.add(fleet.snapshot("alpha/ledger"))
        loop = threading.Thread(target=backups_until, args=(fleet, stop, acknowledged))
        loop.start()
        try:
            for _ in range(kills):
                time.sleep(dice.uniform(0.05, 1.2))
                who = victim if victim != "both" else dice.choice(("controller", "agent"))
                if who == "controller":
                    fleet.controller.kill()
                    time.sleep(dice.uniform(0, 0.3))
                    fleet.serve()
                else:
                    agent.process.kill()
                    time.sleep(dice.uniform(0, 0.3))
                    agent.start()
        finally:
            stop.set()
            loop.join(150)
        lf.expect(not loop.is_alive(), "the loop of backups ends")
        agent.wait_connected(90)
        acknowledged.add(fleet.snapshot("alpha/ledger", "--timeout", "90s", timeout=150))
        writer.stop()
        lf.expect(acknowledged <= verify_all(fleet, len(acknowledged)), f"every acknowledged snapshot is listed (seed {SEED})")
        lf.check_ledger(database)
        print(f"{kills} kills, {len(acknowledged)} acknowledged snapshots")


def test_controller_killed_during_backups():
    run(8, "controller")


def test_agent_killed_during_backups():
    run(8, "agent")


def test_both_killed_in_turn():
    run(8, "both")


def test_agent_killed_during_restores_leaves_old_or_new():
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = fleet.path("ledger.db")
        agent = None
        snapshots = []
        for round_ in range(2):
            writer = fleet.writer(database, "--rate", 0, "--fill", "4MiB", "--seconds", 1)
            writer.process.wait(60)
            agent = agent or fleet.agent("alpha", {"ledger": database})
            snapshots.append(fleet.snapshot("alpha/ledger"))
        states = {lf.content(fleet.download(snapshot)): snapshot for snapshot in snapshots}
        lf.expect_equal(len(states), 2, "two different states")
        for turn in range(6):
            mode = ("replace", "live")[turn % 2]
            fleet.cli("-o", "json", "restore", "alpha/ledger", "--snapshot", snapshots[turn // 2 % 2], "--mode", mode, "--yes", "--detach", timeout=60)
            time.sleep(dice.uniform(0.0, 0.6))
            agent.process.kill()
            lf.expect(lf.content(database) in states, f"after a kill in a {mode} restore the database is one of the two (seed {SEED})")
            agent.start()
            agent.wait_connected()
            lf.wait_until("the operation ends", lambda: not fleet.cli("-o", "json", "operation", "list", "--active").json["items"], 90, 0.3)
            lf.expect_equal(lf.integrity(database), "ok", "integrity")
            lf.expect(lf.content(database) in states, f"after the agent came back from a {mode} restore it is one of the two (seed {SEED})")


if __name__ == "__main__":
    lf.main(globals())
