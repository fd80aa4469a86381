#!/usr/bin/env python3
"""Quotas: an upload above it is refused with a reason that is shown; what is there restores; a policy or a deletion makes room."""
import os
import sqlite3

import lf


def change(database, number):
    db = sqlite3.connect(database)
    db.execute("update item set data = randomblob(300)")
    db.execute("update item set name = ? where id = 1", (f"state {number}",))
    db.commit()
    db.close()


def test_an_upload_above_the_quota_is_refused_until_there_is_room():
    with lf.Fleet() as fleet:
        fleet.init()
        config = fleet.path("controller.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write('[quota]\ndevice_bytes = "1MiB"\n')
        fleet.serve(extra=("--config", config))
        database = lf.make_database(fleet.path("x.db"), rows=5000)
        fleet.agent("alpha", {"main": database})
        first = fleet.snapshot("alpha/main")  # of 1.5 MiB: all that had come when the quota was reached is committed
        before = lf.content(database)
        shown = fleet.cli("-o", "json", "device", "show", "alpha").json
        lf.expect_equal(shown["quota_bytes"], 1 << 20, "quota")
        lf.expect(shown["held_bytes"] > 1 << 20, f"{shown['held_bytes']}")
        lf.expect("full: uploads are refused" in fleet.cli("device", "show", "alpha").out, "device show")
        alarms = [(alarm["reason"], alarm["subject"]) for alarm in fleet.cli("-o", "json", "status").json["alarms"]]
        lf.expect(("QUOTA_EXCEEDED", "alpha") in alarms, f"status: {alarms}")

        change(database, 1)
        refused = fleet.cli("-o", "json", "backup", "alpha/main", check=1)
        lf.expect("QUOTA_EXCEEDED" in refused.out + refused.err and "[quota]" in refused.out + refused.err, str(refused))
        failed = fleet.cli("-o", "json", "operation", "list").json["items"][0]
        lf.expect_equal((failed["state"], failed["error"]["reason"]), ("failed", "QUOTA_EXCEEDED"), "operation list")
        lf.expect_equal(lf.content(fleet.download(first)), before, "what is there can be restored")
        usage = fleet.cli("-o", "json", "store", "stats").json["devices"][0]
        lf.expect_equal((usage["quota_bytes"], usage["quota_snapshots"], usage["held_bytes"]), (1 << 20, None, shown["held_bytes"]), "store stats")

        # The operator gives this device more.
        policy = fleet.path("policy.toml")
        with open(policy, "w", encoding="utf-8") as file:
            file.write('name = "all"\n[retention]\nkeep_last = 5\n[quota]\nbytes = "100MiB"\nsnapshots = 3\n')
        fleet.cli("policy", "apply", policy)
        for number in (2, 3):
            change(database, number)
            snapshot = fleet.snapshot("alpha/main")
            lf.expect_equal(lf.content(fleet.download(snapshot)), lf.content(database), "content")
        refused = fleet.cli("-o", "json", "backup", "alpha/main", check=1)
        lf.expect("3 snapshots" in refused.out + refused.err, str(refused))
        fleet.cli("snapshot", "delete", first, "--yes", "--force")  # it may be the only one that was checked so far
        fleet.snapshot("alpha/main")
        full = [alarm for alarm in fleet.cli("-o", "json", "status").json["alarms"] if alarm["reason"] == "QUOTA_EXCEEDED"]
        lf.expect_equal([("3 snapshots" in alarm["message"], alarm["subject"]) for alarm in full], [(True, "alpha")], "status, full again")
        fleet.cli("snapshot", "delete", fleet.snapshots()[-1]["id"], "--yes", "--force")
        reasons = [alarm["reason"] for alarm in fleet.cli("-o", "json", "status").json["alarms"]]
        lf.expect("QUOTA_EXCEEDED" not in reasons, f"status with room: {reasons}")
        lf.expect_equal(fleet.cli("-o", "json", "device", "show", "alpha").json["snapshots"], 2, "snapshots")


if __name__ == "__main__":
    lf.main(globals())
