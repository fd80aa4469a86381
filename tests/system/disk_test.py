#!/usr/bin/env python3
"""Full disks, on a tmpfs with a size: uploads are refused with a reason, what was acknowledged stays, work goes on when there is space."""
import contextlib
import json
import os
import subprocess

import lf


@contextlib.contextmanager
def small_disk(path, size):
    os.makedirs(path, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        raise lf.Skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)


def fill(path, leave):
    """Takes the free space of a file system but for `leave` bytes."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    with open(os.path.join(path, "ballast"), "wb") as file:
        for _ in range(max(0, free - leave) // 65536):
            file.write(b"\0" * 65536)


def test_full_store_refuses_uploads_and_recovers():
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "200m") as disk:
        fleet.data = os.path.join(disk, "controller")
        with open(fleet.path("controller.toml"), "w", encoding="utf-8") as file:
            file.write('[store]\nreserve = "16MiB"\n')  # the catalog's WAL takes up to 4 MiB of it
        fleet.init()
        fleet.serve(extra=("--config", fleet.path("controller.toml")))
        small = lf.make_database(fleet.path("small.db"), rows=3000)
        large = lf.make_database(fleet.path("large.db"), rows=80000)
        fleet.agent("alpha", {"small": small, "large": large})
        snapshot = fleet.snapshot("alpha/small")
        fill(disk, 18 << 20)
        refused = fleet.cli("-o", "json", "backup", "alpha/large", check=False)
        lf.expect(refused.code == 1, f"a full disk is a failure\n{refused}")
        lf.expect("DISK_FULL" in refused.out + refused.err or "space" in (refused.out + refused.err).lower(), f"the reason is said\n{refused}")
        lf.expect(fleet.controller.running(), "the controller goes on")
        lf.expect_equal(lf.content(fleet.download(snapshot)), lf.content(small), "restores are served from a full disk")
        os.unlink(os.path.join(disk, "ballast"))
        lf.expect_equal(lf.content(fleet.download(fleet.snapshot("alpha/large"))), lf.content(large), "content once there is space")


def test_a_scheduled_backup_is_refused_shown_and_tried_again():
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "200m") as disk:
        fleet.data = os.path.join(disk, "controller")
        with open(fleet.path("controller.toml"), "w", encoding="utf-8") as file:
            file.write('[store]\nreserve = "16MiB"\n')
        fleet.init()
        fleet.serve(extra=("--config", fleet.path("controller.toml")))
        database = lf.make_database(fleet.path("x.db"), rows=3000)
        agent = fleet.agent("alpha", {"main": (database, 'schedule = "1s"')})
        shown = lambda: fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json["databases"][0]
        lf.wait_until("a scheduled backup", lambda: fleet.snapshots("alpha/main"), 30, 0.2)
        fill(disk, 12 << 20)
        lf.run_sql(database, "update item set data = randomblob(300)")
        lf.wait_until("the agent shows why it fails", lambda: (shown()["last_error"] or {}).get("reason") == "DISK_FULL", 60, 0.3)
        kept = fleet.snapshots("alpha/main")
        said = fleet.program("litefleet-agent", "status", "--config", agent.config).out
        lf.expect("DISK_FULL" in said and "failed:" in said, f"for people\n{said}")
        newest = fleet.cli("-o", "json", "operation", "list").json["items"][0]
        lf.expect_equal((newest["state"], newest["ordered_by"]), (lf.AnyOf("failed", "running", "queued"), "schedule"), "at the controller")
        lf.expect(agent.process.running() and fleet.controller.running(), "both go on")
        lf.expect_equal(len(fleet.snapshots("alpha/main")), len(kept), "snapshots on a full disk")

        os.unlink(os.path.join(disk, "ballast"))
        lf.wait_until("it is tried again without an order", lambda: len(fleet.snapshots("alpha/main")) > len(kept), 60, 0.3)
        lf.wait_until("the reason is gone", lambda: shown()["last_error"] is None, 60, 0.3)
        lf.wait_until("the state of now is there", lambda: lf.content(fleet.download(max(fleet.snapshots("alpha/main"), key=lambda one: one["sequence"])["id"])) == lf.content(database), 60, 0.5)


def test_a_download_to_a_full_disk_leaves_nothing():
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "8m") as disk:
        fleet.init()
        fleet.serve()
        fleet.agent("alpha", {"main": lf.make_database(fleet.path("x.db"), rows=40000)})
        snapshot = fleet.snapshot("alpha/main")
        refused = fleet.cli("-o", "json", "snapshot", "download", snapshot, "--output", os.path.join(disk, "x.db"), check=1)
        lf.expect_equal(json.loads(refused.err)["error"]["reason"], "DISK_FULL", f"reason\n{refused}")
        lf.expect_equal(os.listdir(disk), [], "files on the full disk")
        kept = os.path.join(disk, "kept.db")
        with open(kept, "wb") as file:
            file.write(b"mine")
        fleet.cli("snapshot", "download", snapshot, "--output", kept, "--force", check=1)
        lf.expect_equal(os.listdir(disk), ["kept.db"], "files on the full disk")
        lf.expect_equal(os.path.getsize(kept), 4, "what was to be overwritten stays")


def test_no_space_for_staging_leaves_the_old_database():
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "64m") as disk:
        fleet.init()
        fleet.serve()
        path = lf.make_database(os.path.join(disk, "x.db"), rows=60000)
        fleet.agent("alpha", {"main": path})
        snapshot = fleet.snapshot("alpha/main")
        before, names = lf.content(path), sorted(os.listdir(disk))
        fill(disk, 4 << 20)
        refused = fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--mode", "replace", "--yes", check=False)
        lf.expect(refused.code != 0, f"no space for staging is a failure\n{refused}")
        lf.expect_equal(lf.content(path), before, "the old database")
        lf.expect_equal(sorted(set(os.listdir(disk)) - {"ballast"}), names, "files beside it")


def test_full_state_directory_is_reported_and_the_agent_goes_on():
    with lf.Fleet() as fleet, small_disk(fleet.path("disk"), "160m") as disk:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("x.db"), rows=40000, journal="delete")
        agent = fleet.agents["alpha"] = lf.Agent(fleet, "alpha")
        agent.state = os.path.join(disk, "state")
        agent.databases["main"] = (path, 'rollback_stall = "60s"')
        agent.enroll()
        agent.start()
        agent.wait_connected()
        fill(disk, 1 << 20)
        done = fleet.cli("-o", "json", "backup", "alpha/main", check=1)
        lf.expect_equal(done.json["error"]["reason"], "DISK_FULL", "reason")
        lf.expect("disk_reserve" in done.json["error"]["hint"] or "disk_reserve" in done.json["error"]["message"], f"what to do: {done}")
        lf.expect(agent.process.running(), "the agent goes on")
        known = fleet.program("litefleet-agent", "status", "--config", agent.config).out
        lf.expect("DISK_FULL" in known or "full" in known, f"the device says it too\n{known}")
        os.unlink(os.path.join(disk, "ballast"))
        lf.expect_equal(lf.content(fleet.download(fleet.snapshot("alpha/main"))), lf.content(path), "content once there is space")


def test_a_store_directory_that_vanishes_while_serving():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": database})
        kept = {fleet.snapshot("alpha/main"): lf.content(database)}
        store, away = os.path.join(fleet.data, "store"), os.path.join(fleet.data, "away")
        os.rename(store, away)

        def refused():
            """Until the controller sees it: what is acknowledged before stands in a file that is open, and comes back with it."""
            done = fleet.cli("-o", "json", "backup", "alpha/main", "--timeout", "30s", check=False, timeout=120)
            if done.code == 0:
                kept[done.json["snapshot"]] = lf.content(database)
                return None
            return done

        done = lf.wait_until("uploads are refused", refused, 90, 0.5)
        lf.expect(done.code == 1 and done.json["error"]["reason"] in ("STORE_UNREACHABLE", "STORE_FAILED"), f"with a reason: {done}")
        fleet.cli("status")
        stats = fleet.cli("store", "stats", check=lf.AnyOf(0, 1, 4))
        lf.expect(stats.code == 0 or "No such file" in stats.err, str(stats))
        read = fleet.cli("snapshot", "download", next(iter(kept)), "--output", fleet.path("away.db"), check=lf.AnyOf(0, 1, 8))
        lf.expect(read.code == 0 or "is not in the store" in read.err, f"what can be read is read, else the reason is said: {read}")

        os.rename(away, store)
        kept[lf.wait_until("uploads go on", lambda: fleet.backup("alpha/main", check=False).get("snapshot"), 90, 0.5)] = lf.content(database)
        for snapshot, content in kept.items():
            lf.expect_equal(lf.content(fleet.download(snapshot)), content, f"content of {snapshot}")
        lf.expect("all of it is what was written" in fleet.cli("store", "scrub").out, "nothing was marked as lost")
        lf.expect_equal({one["state"] for one in fleet.snapshots()}, {"committed"}, "states")


if __name__ == "__main__":
    lf.main(globals())
