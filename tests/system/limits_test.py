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


def test_what_restores_fetch_is_limited_and_by_the_window_that_holds():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy()
        database = lf.make_database(fleet.path("x.db"), rows=15_000)
        copies = [fleet.path(f"copy{i}.db") for i in range(2)]
        databases = {"main": database, **{f"copy{i}": path for i, path in enumerate(copies)}}
        agent = fleet.agent("alpha", databases, settings=f'[limits]\ndownload = "{RATE}"', controller=f"127.0.0.1:{proxy.port}")
        fleet.snapshot("alpha/main")

        def restore(number, rate):
            before, began = proxy.down, time.monotonic()
            fleet.cli("restore", "alpha/main", "--to", f"alpha/copy{number}", "--yes")
            seconds, received = time.monotonic() - began, proxy.down - before
            print(f"{received >> 10} KiB down in {seconds:.1f} s")
            lf.expect(received > 4 << 20, f"{received} bytes came")
            # A quarter of a second may be saved up, and what was read ahead is paid for afterwards.
            lf.expect(seconds >= received / rate - 1.5, f"{received} bytes in {seconds:.1f} s are more than the limit allows")
            lf.expect_equal(lf.content(copies[number]), lf.content(database), "the restored database")

        restore(0, RATE)
        # The limit of the window is the stronger one, and the plain one holds for the rest of the day.
        agent.settings = f'[limits]\ndownload = "{16 * RATE}"\n[[download_window]]\nfrom = "00:00"\nto = "24:00"\ndownload = "{2 * RATE}"'
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("the window holds", lambda: f"downloads may take {2 * RATE} bytes a second" in agent.process.text(), 20)
        restore(1, 2 * RATE)
        lf.expect("uploads may take" not in agent.process.text(), "uploads have no limit")


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


def test_uploads_wait_for_their_place_and_get_it():
    """One place, which a slow device has: another one waits, is told that it waited too long, and goes on all the same."""
    with lf.Fleet() as fleet:
        fleet.init()
        config = fleet.path("controller.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[limits]\nuploads = 1\n")
        fleet.serve(extra=["--config", config])
        large, small = lf.make_database(fleet.path("large.db"), rows=60_000), lf.make_database(fleet.path("small.db"), rows=100)
        slow = fleet.proxy()
        fleet.agent("alpha", {"main": large}, controller=f"127.0.0.1:{slow.port}")
        beta = fleet.agent("beta", {"main": small})
        show = lambda order: fleet.cli("-o", "json", "operation", "show", order).json
        slow.rate = 250_000  # for more than a minute
        before = slow.up
        first = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        lf.wait_until("the slow upload is under way", lambda: slow.up > before + 200_000, 60, 0.02)
        second = fleet.cli("-o", "json", "backup", "beta/main", "--detach").json["id"]
        lf.wait_until("who waits is told so", lambda: "other uploads have taken all places" in beta.process.text(), 45, 0.1)
        lf.expect_equal(show(first)["state"], "running", "the slow upload, meanwhile")
        lf.expect_equal(show(second)["state"], "running", "the one that waits")
        lf.expect_equal(fleet.snapshots(), [], "snapshots, meanwhile")
        slow.rate = None
        for order, path in ((first, large), (second, small)):
            done = lf.wait_until("the backup ends", lambda order=order: (now := show(order))["ended_at"] and now, 90, 0.2)
            lf.expect_equal(done["state"], "succeeded", "the backup")
            lf.expect_equal(lf.content(fleet.download(done["snapshot"])), lf.content(path), "content")


def test_memory_of_agent_and_controller_does_not_grow_with_the_database():
    """Peaks of fresh programs that back up one database each, and then what has changed of it: one four times as large takes the same. The
    cache of page digests, which grows with what came up to its limit, is as small as it gets."""
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
                agent = fleet.agent("alpha", {"app": path}, settings='[limits]\nspool_bytes = "512MiB"')  # for a copy of it that has grown
                fleet.snapshot("alpha/app", "--method", method)
                first = fleet.controller.peak_kib()
                lf.tool("telemetry_db", "mutate", path, "--append", 0.005, "--update", 0.003)
                fleet.snapshot("alpha/app", "--method", method)
                peaks[mib] = {"the agent": agent.process.peak_kib(), "the controller": first}
                lf.expect(fleet.controller.peak_kib() <= 128 << 10, f"{method}: the controller took {fleet.controller.peak_kib()} KiB for two backups")
        print(f"{method}: peaks in KiB, by MiB of the database: {peaks}")
        # The controller's after the first backup: it checks that one while the second comes.
        for name, slack, bound in (("the agent", 0, 40 << 10), ("the controller", 2048, 128 << 10)):
            small, large = peaks[64][name], peaks[256][name]
            lf.expect(large <= small * 1.1 + slack, f"{method}: {name} took {small} KiB for 64 MiB and {large} KiB for 256 MiB")
            lf.expect(large <= bound, f"{method}: {name} took {large} KiB")


if __name__ == "__main__":
    lf.main(globals())
