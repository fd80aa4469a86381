#!/usr/bin/env python3
"""The controller's backups of its own catalog: made, shown, used by a rebuild for what packs do not hold; an older catalog is not served."""
import contextlib
import glob
import os
import shutil
import sqlite3

import lf

SETTINGS = '[catalog]\nbackup_every = "1s"\nbackup_keep = 3\n'


def configure(fleet, text=SETTINGS):
    path = fleet.path("controller.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return ("--config", path)


def stats(fleet):
    return fleet.cli("-o", "json", "store", "stats").json["catalog_backups"]


def lose_catalog(fleet):
    for path in glob.glob(os.path.join(fleet.data, "catalog.db*")):
        os.unlink(path)


def await_backup(fleet):
    """One that began after this call: of the two that come, the second."""
    for _ in range(2):
        before = stats(fleet)["newest_at"]
        lf.wait_until("the catalog is backed up", lambda: stats(fleet)["newest_at"] != before, 60, 0.1)  # pylint: disable=cell-var-from-loop


def test_a_rebuild_takes_history_from_the_backup_and_no_rights():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve(extra=configure(fleet))
        database = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": database})
        first = fleet.backup("alpha/main")
        fleet.cli("snapshot", "check", first["snapshot"])
        checked = fleet.cli("-o", "json", "snapshot", "show", first["snapshot"]).json
        token = fleet.cli("token", "create").out
        agent.process.stop()
        waiting = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        await_backup(fleet)
        shown = stats(fleet)
        lf.expect_equal((shown["keep"], shown["every_ms"], shown["last_error"]), (3, 1000, None), "store stats")
        lf.expect(shown["bytes"] > 1000 and 1 <= shown["count"] <= 4, f"{shown}")
        lf.expect("catalog backup" in fleet.cli("status").out, "status shows it")
        findings = {one["check"]: one["level"] for one in fleet.cli("-o", "json", "doctor", check=lf.AnyOf(0, 1, 3)).json["findings"]}
        lf.expect_equal(findings["catalog-backup"], "ok", "doctor")

        # A snapshot that no backup of the catalog knows.
        agent.start()
        agent.wait_connected()
        db = sqlite3.connect(database)
        db.execute("update item set data = randomblob(300) where id < 10")
        db.commit()
        db.close()
        fleet.controller.stop()
        fleet.serve(extra=configure(fleet, '[catalog]\nbackup_every = "1h"\n'))
        agent.wait_connected()
        second = fleet.snapshot("alpha/main")
        fleet.controller.kill()

        lose_catalog(fleet)
        rebuilt = fleet.program("litefleet-controller", "rebuild", "--data", fleet.data)
        lf.expect("from the catalog's backup of 20" in rebuilt.out, str(rebuilt))
        fleet.serve(extra=configure(fleet, ""))
        operations = {one["id"]: one for one in fleet.cli("-o", "json", "operation", "list").json["items"]}
        lf.expect_equal(operations[first["id"]]["state"], "succeeded", "an operation that had ended")
        lf.expect(operations[waiting]["state"] in ("failed", "succeeded"), f"one that had not is not given again: {operations[waiting]}")
        after = fleet.cli("-o", "json", "snapshot", "show", first["snapshot"]).json
        lf.expect_equal((after["check"], after["check"]), (checked["check"], "ok"), "the verdict of its check")
        lf.expect(second in {one["id"] for one in fleet.snapshots()}, "what is newer than the backup is there")
        agent.wait_connected()
        lf.expect_equal(lf.content(fleet.download(second)), lf.content(database), "content of what is newer than the backup")
        stranger = lf.Agent(fleet, "beta")
        refused = stranger.enroll(token=token, check=False)
        lf.expect(refused.code != 0, "a token that was made before is void")
        fleet.snapshot("alpha/main")


def test_an_older_copy_of_the_catalog_is_not_served():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        agent = fleet.agent("alpha", {"main": database})
        fleet.snapshot("alpha/main")
        fleet.controller.stop()
        old = fleet.path("old.db")
        shutil.copy(os.path.join(fleet.data, "catalog.db"), old)
        fleet.serve()
        agent.wait_connected()
        newer = fleet.snapshot("alpha/main")
        fleet.controller.stop()
        lose_catalog(fleet)
        shutil.copy(old, os.path.join(fleet.data, "catalog.db"))
        refused = fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--listen", "127.0.0.1:0", check=6)
        lf.expect("older copy" in refused.err and "rebuild" in refused.err, str(refused))
        lose_catalog(fleet)
        fleet.program("litefleet-controller", "rebuild", "--data", fleet.data)
        fleet.serve()
        lf.expect_equal(lf.content(fleet.download(newer)), lf.content(database), "content")


def test_a_copy_of_the_same_minute_is_not_served_after_uploads_alone():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": database})
        fleet.snapshot("alpha/main")
        old = fleet.path("old.db")
        with contextlib.closing(sqlite3.connect(os.path.join(fleet.data, "catalog.db"))) as live, contextlib.closing(sqlite3.connect(old)) as copy:
            live.backup(copy)
        with contextlib.closing(sqlite3.connect(database)) as live:
            live.execute("insert into item (name) values ('new')")
            live.commit()
        fleet.snapshot("alpha/main")
        fleet.controller.stop()
        lose_catalog(fleet)
        shutil.copy(old, os.path.join(fleet.data, "catalog.db"))
        refused = fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--listen", "127.0.0.1:0", check=6)
        lf.expect("older copy" in refused.err, str(refused))


def test_a_backup_that_cannot_be_made_is_an_alarm_and_nothing_else_fails():
    with lf.Fleet() as fleet:
        fleet.init()
        with open(os.path.join(fleet.data, "store", "catalog"), "w", encoding="utf-8") as file:
            file.write("in the way")
        fleet.serve(extra=configure(fleet))
        database = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": database})
        reasons = lambda: {one["reason"] for one in fleet.cli("-o", "json", "status").json["alarms"]}
        lf.wait_until("the alarm is there", lambda: "CATALOG_BACKUP" in reasons(), 30, 0.2)
        doctor = fleet.cli("-o", "json", "doctor", check=lf.AnyOf(1, 3))
        lf.expect(any(one["check"] == "catalog-backup" and one["level"] == "fail" for one in doctor.json["findings"]), str(doctor))
        snapshot = fleet.snapshot("alpha/main")
        lf.expect_equal(lf.content(fleet.download(snapshot)), lf.content(database), "content")
        os.unlink(os.path.join(fleet.data, "store", "catalog"))
        lf.wait_until("it heals by itself", lambda: "CATALOG_BACKUP" not in reasons(), 60, 0.2)


if __name__ == "__main__":
    lf.main(globals())
