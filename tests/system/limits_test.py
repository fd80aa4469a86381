#!/usr/bin/env python3
"""What the agent may take of the link, by the time of the day, and what the controller gives to all agents together."""
import os
import signal
import subprocess
import time

import lf

RATE = 1 << 20


def test_the_window_that_holds_limits_the_upload_until_the_configuration_changes():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        database = lf.make_database(fleet.path("x.db"), rows=15_000)
        window = f'[[upload_window]]\nfrom = "00:00"\nto = "24:00"\nupload = "{RATE}"'
        agent = fleet.agent("alpha", {"main": database}, settings=window, controller=f"127.0.0.1:{proxy.port}")
        before, began = proxy.up, time.monotonic()
        fleet.snapshot("alpha/main")
        seconds, sent = time.monotonic() - began, proxy.up - before
        print(f"{sent >> 10} KiB in {seconds:.1f} s")
        lf.expect(sent > 3 << 20, f"{sent} bytes were sent")
        # A quarter of a second may be saved up.
        lf.expect(seconds >= sent / RATE - 1.5, f"{sent} bytes in {seconds:.1f} s are more than the window allows")
        agent.settings = ""
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("the limit is gone", lambda: "the whole link" in agent.process.text(), 20)


def test_a_window_that_makes_no_sense_is_an_error_with_its_line():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        agent = fleet.agent("alpha", {}, start=False)
        for window, wanted in (('from = "8:00"\nto = "18:00"', "no time of the day"), ('from = "08:00"\nto = "08:00"', "ends when it begins"),
                               ('from = "08:00"\nto = "18:00"\ndays = ["monday"]', "no day"), ('to = "18:00"', "from")):
            agent.settings = f"[[upload_window]]\n{window}"
            agent.write_config()
            refused = fleet.program("litefleet-agent", "run", "--config", agent.config, "--once", check=2)
            lf.expect(wanted in refused.err, f"{wanted}: {refused}")
            print(refused.err.strip())


def test_the_controllers_total_rates_hold_for_uploads_and_fetches_and_a_small_backup_goes_past_a_large_one():
    with lf.Fleet() as fleet:
        fleet.init()
        config = fleet.path("controller.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[limits]\nupload_rate = "{RATE}"\nfetch_rate = "{RATE}"\n')
        fleet.serve(extra=["--config", config])
        large, small = lf.make_database(fleet.path("large.db"), rows=20_000), lf.make_database(fleet.path("small.db"), rows=100)
        proxy = fleet.proxy()
        fleet.agent("alpha", {"main": large}, controller=f"127.0.0.1:{proxy.port}")
        back = fleet.proxy()
        fleet.agent("beta", {"main": small, "copy": fleet.path("copy.db")}, controller=f"127.0.0.1:{back.port}")
        before, began = proxy.up, time.monotonic()
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        lf.wait_until("the large one is under way", lambda: proxy.up > before + (1 << 20), 60, 0.02)
        fleet.backup("beta/main")
        state = fleet.cli("-o", "json", "operation", "show", order).json["state"]
        lf.expect(state in ("sent", "running"), f"the small backup came after the large one, which is {state}")
        lf.wait_until("the large one ends", lambda: fleet.cli("-o", "json", "operation", "show", order).json["state"] == "succeeded", 120, 0.2)
        seconds, sent = time.monotonic() - began, proxy.up - before
        print(f"{sent >> 10} KiB up in {seconds:.1f} s")
        # A quarter of a second is saved up; what is on its way when the reading stops: windows of TCP and of HTTP/2.
        lf.expect(sent > 4 << 20 and seconds >= (sent - (2 << 20)) / RATE, f"{sent} bytes in {seconds:.1f} s are more than the limit allows")
        before, began = back.down, time.monotonic()
        fleet.cli("restore", "alpha/main", "--to", "beta/copy", "--yes")
        seconds, received = time.monotonic() - began, back.down - before
        print(f"{received >> 10} KiB down in {seconds:.1f} s")
        lf.expect(received > 4 << 20 and seconds >= received / RATE - 1.5, f"{received} bytes in {seconds:.1f} s are more than the limit allows")
        lf.expect_equal(lf.content(fleet.path("copy.db")), lf.content(large), "the restored database")


def test_memory_of_agent_and_controller_does_not_grow_with_the_database():
    """Peaks of fresh programs that back up one database each: one four times as large takes the same. The cache of page digests, which grows
    with what came up to its limit, is as small as it gets."""
    for method in ("online", "file", "dump"):
        peaks = {}
        for mib in (64, 256):
            with lf.Fleet() as fleet:
                fleet.init()
                config = fleet.path("controller.toml")
                with open(config, "w", encoding="utf-8") as file:
                    file.write('[limits]\ndigest_cache = "1MiB"\n')
                fleet.serve(extra=["--config", config])
                path = fleet.path("app.db")
                subprocess.run([os.path.join(lf.TOOLS, "telemetry_db"), "create", path, "--size", f"{mib}MiB"], check=True, timeout=120)
                agent = fleet.agent("alpha", {"app": path})
                fleet.snapshot("alpha/app", "--method", method)
                peaks[mib] = agent.process.peak_kib(), fleet.controller.peak_kib()
        print(f"{method}: peaks of agent and controller in KiB, by MiB of the database: {peaks}")
        for i, (name, bound) in enumerate((("the agent", 64 << 10), ("the controller", 128 << 10))):
            small, large = peaks[64][i], peaks[256][i]
            lf.expect(large <= small * 1.1 + 2048, f"{method}: {name} took {small} KiB for 64 MiB and {large} KiB for 256 MiB")
            lf.expect(large <= bound, f"{method}: {name} took {large} KiB")


if __name__ == "__main__":
    lf.main(globals())
