#!/usr/bin/env python3
"""The schedule at-boot: once a boot, however often the agent is started, also where the run was refused."""
import os

import lf


def runs(fleet, database):
    items = fleet.cli("-o", "json", "operation", "list", "--limit", "500").json["items"]
    return [(item["state"], item.get("ordered_by")) for item in items if item["kind"] == "backup" and item["database"] == database]


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def test_at_boot_is_once_a_boot_and_not_once_a_start():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        hooks = fleet.path("hooks")
        os.mkdir(hooks, 0o700)
        with open(os.open(f"{hooks}/refuse", os.O_WRONLY | os.O_CREAT, 0o700), "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 7\n")
        databases = {name: lf.make_database(fleet.path(f"{name}.db"), rows=20) for name in ("app", "barred", "clock")}
        agent = fleet.agent("alpha", {"app": (databases["app"], 'schedule = "at-boot"'),
                                      "barred": (databases["barred"], f'schedule = "at-boot"\nbefore_backup = "{hooks}/refuse"'),
                                      "clock": (databases["clock"], 'schedule = "1s"')}, settings=f'[hooks]\ndirectory = "{hooks}"')
        wanted = {"app": [("succeeded", "schedule")], "barred": [("failed", "schedule")]}

        def scheduled():
            return {name: runs(fleet, name) for name in wanted}

        def the_schedule_goes_on():
            """What is due is begun by now: another database's schedule has come twice."""
            for row in ("one", "two"):
                before = len(fleet.snapshots("alpha/clock"))
                lf.run_sql(databases["clock"], f"insert into item(name) values('{row}')")
                lf.wait_until("the next run", lambda: len(fleet.snapshots("alpha/clock")) > before, 60, 0.2)  # pylint: disable=cell-var-from-loop

        lf.wait_until("the runs of this boot", lambda: scheduled() == wanted, 60, 0.2)
        for name in wanted:
            lf.run_sql(databases[name], "insert into item(name) values('since')")
        for _ in range(2):
            agent.process.stop()
            agent.start()
            the_schedule_goes_on()
            lf.expect_equal(scheduled(), wanted, "after a start")
        lf.expect_equal(len(fleet.snapshots("alpha/app")), 1, "snapshots")

        # The next boot: what is kept names another one.
        agent.process.stop()
        for name in wanted:
            path = os.path.join(agent.state, "databases", f"{name}.state")
            with open(path, "rb") as file:
                kept = file.read()
            lf.expect(boot_id().encode() in kept, f"{name} has kept no boot")
            with open(path, "wb") as file:
                file.write(kept.replace(boot_id().encode(), b"0" * len(boot_id())))
        agent.start()
        again = {name: 2 * each for name, each in wanted.items()}
        lf.wait_until("the runs of the next boot", lambda: scheduled() == again, 60, 0.2)
        lf.expect_equal(len(fleet.snapshots("alpha/app")), 2, "snapshots")
        agent.process.stop()
        agent.start()
        the_schedule_goes_on()
        lf.expect_equal(scheduled(), again, "after another start")


if __name__ == "__main__":
    lf.main(globals())
