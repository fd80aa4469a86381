#!/usr/bin/env python3
"""Policies that the controller carries to devices: followed, acknowledged, kept without a controller, and below what the device says itself; and
the hook that pauses scheduled backups."""
import contextlib
import os
import signal

import lf

POLICY = """name = "shops"
selector = "site=oslo"
[backup]
schedule = "1s"
compression_level = 7
[[backup.database]]
name = "quiet"
schedule = "never"
[limits]
upload = "{upload}"
"""


def apply(fleet, **values):
    path = fleet.path("policy.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(POLICY.format(**{"upload": "8MiB", **values}))
    return fleet.cli("-o", "json", "policy", "apply", path).json


def status(fleet, agent):
    return fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json


def schedules(fleet, agent):
    return {database["name"]: database["schedule"] for database in status(fleet, agent)["databases"]}


def device(fleet, name="alpha"):
    return fleet.cli("-o", "json", "device", "show", name).json


def test_a_policy_reaches_the_device_and_stays_without_a_controller():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        databases = {name: lf.make_database(fleet.path(f"{name}.db"), rows=20) for name in ("main", "quiet")}
        databases["own"] = (lf.make_database(fleet.path("own.db"), rows=20), 'schedule = "300d"')
        agent = fleet.agent("alpha", databases)
        applied = apply(fleet)
        lf.expect_equal(applied["devices"], 0, "no device has the label yet")
        lf.expect_equal(status(fleet, agent)["policy"], None, "the device has no policy")

        # A label alone brings it, and the schedule runs.
        fleet.cli("device", "label", "alpha", "site=oslo")
        lf.wait_until("the device follows it", lambda: device(fleet)["policy_acknowledged"] == applied["version"], 30)
        shown = device(fleet)
        lf.expect_equal((shown["policy"], shown["policy_version"], shown["policy_problems"]), ("shops", applied["version"], []), "device show")
        lf.expect(f"shops, version {applied['version']}, followed" in fleet.cli("device", "show", "alpha").out, "device show for people")
        lf.expect_equal(fleet.cli("-o", "json", "policy", "show", "shops").json["devices_acknowledged"], 1, "policy show")
        lf.wait_until("a scheduled backup", lambda: fleet.snapshots("alpha/main"), 30)
        lf.expect_equal(schedules(fleet, agent), {"main": "1s", "quiet": None, "own": "300d"}, "schedules")
        lf.expect_equal(fleet.snapshots("alpha/quiet"), [], "never means never")
        lf.wait_until("the limit counts", lambda: "uploads may take 8388608 bytes a second" in agent.process.text(), 20)

        shown = fleet.cli("-o", "json", "policy", "show", "shops").json
        lf.expect_equal(shown["backup"]["compression_level"], 7, "the level that it carries")

        # A change is carried too; the version only grows.
        changed = apply(fleet, upload="4MiB")
        lf.expect(changed["version"] > applied["version"], f"{changed['version']} after {applied['version']}")
        lf.wait_until("the changed one is followed", lambda: device(fleet)["policy_acknowledged"] == changed["version"], 30)

        # Without a controller, over a restart of the agent.
        fleet.controller.stop()
        agent.process.stop()
        agent.start()
        lf.wait_until("the agent runs", lambda: status(fleet, agent)["running"], 30)
        offline = status(fleet, agent)
        lf.expect_equal((offline["policy"], offline["policy_version"]), ("shops", changed["version"]), "status without a controller")
        lf.wait_until("the limit counts", lambda: "uploads may take 4194304 bytes a second" in agent.process.text(), 20)

        # What the device says itself wins, after a reload.
        agent.databases["main"] = (agent.databases["main"][0], 'schedule = "never"')
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.expect_equal(schedules(fleet, agent)["main"], None, "agent.toml is stronger")

        # And it goes with its policy.
        fleet.serve()
        agent.wait_connected()
        fleet.cli("policy", "delete", "shops")
        lf.wait_until("no policy is left", lambda: device(fleet)["policy_acknowledged"] == 0, 30)
        lf.expect_equal(status(fleet, agent)["policy"], None, "status")
        lf.expect_equal(schedules(fleet, agent), {"main": None, "quiet": None, "own": "300d"}, "schedules without a policy")


def test_a_mistyped_policy_is_refused_with_its_line_and_the_nearest_name():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        for text, wanted in (("[backup]\nshedule = \"1h\"", "schedule"), ("[limits]\nupload = 5", "at least 1KiB"),
                             ("[backup]\nschedule = \"often\"", "often"), ("", "says nothing")):
            path = fleet.path("bad.toml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f'name = "bad"\n{text}\n')
            refused = fleet.cli("policy", "apply", path, check=2)
            lf.expect(wanted in refused.err, f"{wanted}: {refused}")
            print(refused.err.strip())


def test_a_scheduled_run_waits_for_what_agent_toml_asks_for_and_an_ordered_one_does_not():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("app.db"), rows=20)
        agent = fleet.agent("alpha", {"main": (path, 'schedule = "1s"\n[database.when]\nquiet = "1h"')})
        lf.wait_until("it says that it waits", lambda: "waits: the database was written" in agent.process.text(), 30, 0.1)
        told = fleet.program("litefleet-agent", "status", "--config", agent.config).out
        lf.expect("a scheduled run would wait: the database was written" in told, told)
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "list", "alpha/main", check=False).json.get("items", []), [], "snapshots")

        def told_health():
            agent.process.signal(signal.SIGHUP)  # it tells how it is at once; what comes too often is not written down
            found = fleet.cli("-o", "json", "database", "show", "alpha/main").json["health"]
            return found["waits_for"] and found

        health = lf.wait_until("the controller knows", told_health, 60, 1)
        lf.expect(health["waits_since"] is not None, health)
        alarms = [alarm["message"] for alarm in fleet.cli("-o", "json", "status", check=False).json["alarms"] if alarm["reason"] == "NEVER_BACKED_UP"]
        lf.expect("the run that is due waits: the database was written" in " ".join(alarms), f"status says why there is no snapshot: {alarms}")
        fleet.snapshot("alpha/main")
        ordered = fleet.snapshots("alpha/main")
        lf.expect_equal(len(ordered), 1, "snapshots after an ordered backup")
        # Quiet for long enough.
        os.utime(path, (1, 1))
        with contextlib.suppress(FileNotFoundError):
            os.utime(path + "-wal", (1, 1))
        lf.wait_until("it waits no more", lambda: "waits no more" in agent.process.text(), 40, 0.2)
        told = fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json["databases"][0]
        lf.expect_equal(told["waits_for"], None, "what it waits for")


def test_the_pause_hook_holds_scheduled_backups_and_no_others():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        metered, asked, hook = fleet.path("metered"), fleet.path("asked"), fleet.path("pause")
        with open(hook, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\necho \"$LITEFLEET_DATABASE\" >> {asked}\nif [ -e {metered} ]; then echo a metered link; exit 75; fi\n")
        os.chmod(hook, 0o700)
        open(metered, "w", encoding="utf-8").close()
        database = lf.make_database(fleet.path("x.db"), rows=20)
        agent = fleet.agent("alpha", {"main": (database, 'schedule = "1s"')}, settings=f'[limits]\npause_hook = "{hook}"')
        lf.wait_until("the hook is asked", lambda: os.path.exists(asked), 30)
        paused = lf.wait_until("the backup pauses", lambda: [operation for operation in fleet.cli("-o", "json", "operation", "list", "--active").json["items"]], 30)
        lf.expect_equal(fleet.snapshots("alpha/main"), [], "nothing is backed up meanwhile")
        # It takes up to a minute until the hook is asked again: a restart asks at once.
        os.unlink(metered)
        agent.process.stop()
        agent.start()
        lf.wait_until("the backup goes on", lambda: fleet.snapshots("alpha/main"), 60)
        lf.expect(paused, "it was one operation")
        with open(asked, encoding="utf-8") as file:
            lf.expect_equal(set(file.read().split()), {"main"}, "what the hook was told")
        # An ordered backup does not ask, and does not wait behind one that is paused either.
        open(metered, "w", encoding="utf-8").close()
        agent.process.stop()
        agent.start()
        agent.wait_connected()
        lf.wait_until("the next one pauses", lambda: fleet.cli("-o", "json", "operation", "list", "--active").json["items"], 30)
        fleet.snapshot("alpha/main", "--full")


if __name__ == "__main__":
    lf.main(globals())
