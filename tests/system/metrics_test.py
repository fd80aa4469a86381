#!/usr/bin/env python3
"""The controller's figures for Prometheus, and the alerts on them."""
import os
import re
import shutil
import subprocess
import urllib.request

import lf
from lf import Fleet, expect, expect_equal


def promtool(*args, text=""):
    if shutil.which("promtool") is None:
        raise lf.Skip("there is no promtool: `deploy/lib/install ci` brings it; its package starts a server, so `tests` leaves it out")
    done = subprocess.run(["promtool", *args], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    expect_equal(done.returncode, 0, f"promtool {' '.join(args)}\n{done.stdout}")


def test_alert_rules():
    promtool("check", "rules", os.path.join(lf.TOP, "deploy", "alerts.yml"))
    promtool("test", "rules", os.path.join(lf.TOP, "deploy", "alerts.test.yml"))


def test_alerts_name_metrics_that_exist():
    with open(os.path.join(lf.TOP, "deploy", "alerts.yml"), encoding="utf-8") as file:
        used = set(re.findall(r"\b(litefleet_[a-z_]+)", file.read()))
    with open(os.path.join(lf.TOP, "controller", "metrics", "fleet_metrics.cc"), encoding="utf-8") as file:
        made = set(re.findall(r'"(litefleet_[a-z_]+)"', file.read()))
    expect(used and used <= made, f"not exported: {used - made}")


def serve_with_metrics(fleet, extra=""):
    config = fleet.path("controller.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'[metrics]\nlisten = "127.0.0.1:0"\n{extra}\n')
    fleet.serve(extra=["--config", config])
    return re.findall(r"metrics on \S+ port (\d+)", fleet.controller.text())[-1]


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    return values, text


def test_off_by_default():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        expect("metrics on" not in fleet.controller.text(), "metrics are served though nobody asked for them")


def test_figures():
    with Fleet() as fleet:
        fleet.init()
        port = serve_with_metrics(fleet)
        values, _ = scrape(port)
        expect_equal(values["litefleet_devices_connected"], 0, "connected before")
        path = lf.make_database(fleet.path("app.db"))
        fleet.agent("device", {"app": path, "gone": fleet.path("gone.db")})
        snapshot = fleet.snapshot("device/app")
        fleet.cli("snapshot", "check", snapshot)
        fleet.backup("device/gone", check=lf.AnyOf(1, 4))
        values, text = scrape(port)
        promtool_text = text if text.endswith("\n") else text + "\n"
        one = '{device="device",database="app"}'
        expect_equal(values["litefleet_devices_connected"], 1, "connected")
        expect_equal(values['litefleet_devices{state="active"}'], 1, "devices")
        expect(0 <= values["litefleet_database_newest_snapshot_age_seconds" + one] < 300, f"age of the newest snapshot\n{text}")
        expect(0 <= values["litefleet_database_newest_proven_age_seconds" + one] < 300, f"age of the newest proven snapshot\n{text}")
        never = '{device="device",database="gone"}'
        expect_equal(values["litefleet_database_newest_snapshot_age_seconds" + never], float("inf"), "age where there is no snapshot")
        size = os.path.getsize(path)
        expect_equal(values['litefleet_snapshots_committed_total{method="online"}'], 1, "snapshots")
        expect(values['litefleet_snapshot_read_bytes_total{method="online"}'] >= size, f"bytes read\n{text}")
        expect(values['litefleet_snapshot_sent_bytes_total{method="online"}'] > 0, f"bytes sent\n{text}")
        expect(0 < values['litefleet_snapshot_stored_bytes_total{method="online"}'] <= values["litefleet_store_bytes"], f"bytes stored\n{text}")
        expect_equal(values['litefleet_operations_total{kind="backup",state="succeeded"}'], 1, "backups that succeeded")
        expect_equal(values['litefleet_operations_total{kind="backup",state="failed"}'], 1, "backups that failed")
        failures = [name for name in values if name.startswith('litefleet_operation_failures_total{kind="backup"')]
        expect_equal(len(failures), 1, f"reasons {failures}")
        expect(values['litefleet_operation_duration_seconds_count{kind="backup"}'] >= 1, f"durations\n{text}")
        expect(values["litefleet_store_free_bytes"] > 0, "free space")
        expect_equal(values["litefleet_metrics_errors_total"], 0, "figures that could not be read")
        again, _ = scrape(port)
        expect_equal(again['litefleet_operations_total{kind="backup",state="succeeded"}'], 1, "counted twice")
        promtool("check", "metrics", text=promtool_text)


def test_labels_are_bounded():
    with Fleet() as fleet:
        fleet.init()
        port = serve_with_metrics(fleet, "databases = 2")
        fleet.agent("device", {f"db{i}": lf.make_database(fleet.path(f"db{i}.db"), rows=10) for i in range(5)})
        lf.wait_until("all databases are known", lambda: scrape(port)[0]["litefleet_databases"] == 5)
        values, _ = scrape(port)
        expect_equal(sum(name.startswith("litefleet_database_newest_snapshot_age_seconds") for name in values), 2, "databases with an age")
        expect_equal(values["litefleet_databases_left_out"], 3, "databases left out")


if __name__ == "__main__":
    lf.main(globals())
