#!/usr/bin/env python3
"""Policies write what was backed up as files."""
import csv
import json
import os

import lf


def test_policies_export_after_backups():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_shop(fleet.path("shop.db"), rows=20)
        other = lf.make_database(fleet.path("other.db"), rows=5)
        fleet.agent("alpha", {"shop": path, "other": other})
        policy = fleet.path("policy.toml")

        def apply(text, check=True):
            with open(policy, "w", encoding="utf-8") as file:
                file.write(text)
            return fleet.cli("policy", "apply", policy, check=check)

        apply('name = "files"\n[export]\nformat = "xml"\n', check=2)
        apply('name = "files"\n[export]\nformat = "csv"\nevery = "0s"\nkeep = 2\ndatabases = ["shop"]\n')
        root = os.path.join(fleet.data, "exports", "alpha", "shop")

        def exported():
            return sorted(name for name in (os.listdir(root) if os.path.isdir(root) else []) if not name.startswith("."))

        snapshots = []
        for i in range(3):
            lf.run_sql(path, f"insert into customer(name) values('round {i}')")
            snapshots.append(fleet.snapshot("alpha/shop"))
            fleet.snapshot("alpha/other")
            lf.wait_until("the export", lambda: any(name.endswith(snapshots[-1]) for name in exported()))
        lf.wait_until("the oldest goes", lambda: len(exported()) == 2)
        lf.expect_equal([name.split("-")[1] for name in exported()], snapshots[1:], "the exports")
        newest = os.path.join(root, exported()[-1])
        lf.expect_equal(sorted(os.listdir(newest)), ["customer.csv", "export.json", "log.csv", "orders.csv"], "the files")
        with open(os.path.join(newest, "customer.csv"), newline="", encoding="utf-8") as file:
            lf.expect_equal(len(list(csv.reader(file))), 24, "lines of a file")
        with open(os.path.join(newest, "export.json"), encoding="utf-8") as file:
            about = json.load(file)
        lf.expect_equal((about["device"], about["database"], about["snapshot"]), ("alpha", "shop", snapshots[-1]), "what it says of itself")
        operations = fleet.cli("-o", "json", "operation", "list").json["items"]
        mine = [operation for operation in operations if operation["kind"] == "export"]
        lf.expect_equal({operation["state"] for operation in mine}, {"succeeded"}, "the operations")
        lf.expect_equal(os.listdir(os.path.join(fleet.data, "exports", "alpha")), ["shop"], "a database that the policy does not name")
        lf.expect(newest in fleet.cli("operation", "show", mine[0]["id"]).out, "operation show does not say where it is")


def test_what_fails_is_told_until_it_works():
    with lf.Fleet() as fleet:
        fleet.init()
        # Nothing can be made below a file.
        with open(os.path.join(fleet.data, "exports"), "w", encoding="utf-8"):
            pass
        fleet.serve()
        fleet.agent("alpha", {"shop": lf.make_shop(fleet.path("shop.db"), rows=5)})
        policy = fleet.path("policy.toml")
        with open(policy, "w", encoding="utf-8") as file:
            file.write('name = "files"\n[export]\nevery = "0s"\n')
        fleet.cli("policy", "apply", policy)
        shown = fleet.cli("-o", "json", "policy", "show", "files").json["export"]
        lf.expect_equal(shown, {"format": "csv", "every_ms": 0, "keep": 7, "databases": []}, "the policy's export")
        lf.expect("after every backup" in fleet.cli("policy", "list").out, "policy list does not say that it exports")

        def alarms():
            return [alarm for alarm in fleet.cli("-o", "json", "status").json["alarms"] if alarm["reason"] == "EXPORT_FAILED"]

        fleet.snapshot("alpha/shop")
        lf.wait_until("the alarm", alarms)
        lf.expect_equal([alarm["subject"] for alarm in alarms()], ["alpha/shop"], "whose export failed")
        lf.expect("export of alpha/shop failed" in fleet.controller.text(), "nothing in the log")
        os.remove(os.path.join(fleet.data, "exports"))
        lf.run_sql(fleet.path("shop.db"), "insert into customer(name) values('another')")
        fleet.snapshot("alpha/shop")
        # A failing one waits for its time whatever comes; who has mended the cause need not.
        lf.expect_equal(len(alarms()), 1, "alarms before it is tried again")
        fleet.controller.stop()
        fleet.serve()
        lf.wait_until("it is exported", lambda: os.path.isdir(os.path.join(fleet.data, "exports", "alpha", "shop")))
        lf.expect_equal(alarms(), [], "alarms")


if __name__ == "__main__":
    lf.main(globals())
