#!/usr/bin/env python3
"""What the agent may take of the link, by the time of the day; a configuration that is read again counts at once."""
import signal
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


if __name__ == "__main__":
    lf.main(globals())
