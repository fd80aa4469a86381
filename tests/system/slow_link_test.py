#!/usr/bin/env python3
"""Slow and bad links: how often a backup waits for an answer, and what cuts cost. Counts and ratios, never time."""
import random

import lf
from delta_test import Counted, mutate
from links_test import ended


def test_an_increment_waits_for_few_answers():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 16)
        device.backup()
        # The order and its acknowledgement, the upload's begin, offers, chunks and commit, the result. Reports of progress and of health come by the
        # clock, and only add to it: the fewest of some.
        seen = []
        while len(seen) < 12 and (not seen or min(seen) > 9):
            mutate(device.database, f"update item set data = randomblob(100) where id % 2000 = {len(seen)}")
            device.proxy.delay = 0.1
            turns = device.proxy.turns
            snapshot = device.backup()
            seen.append(device.proxy.turns - turns)
            device.proxy.delay = 0.0
            device.expect_content(snapshot)
        print(f"increments, the last of {device.bytes} bytes: the direction changed {seen} times")
        lf.expect(min(seen) <= 9, f"{seen} changes of direction, and four round trips are eight")


def test_cuts_cost_little():
    with lf.Fleet() as fleet:
        mib = 64
        device = Counted(fleet, mib)
        before = device.proxy.up
        device.backup()
        uncut = device.proxy.up - before
        # Another device with other data over a link that is cut again and again.
        other = lf.make_database(fleet.path("y.db"), rows=mib * 1024 * 1024 // 320)
        proxy = fleet.proxy()
        fleet.agent("beta", {"main": other}, controller=f"127.0.0.1:{proxy.port}")
        proxy.rate = 12 << 20
        before = proxy.up
        order = fleet.cli("-o", "json", "backup", "beta/main", "--detach").json["id"]
        dice = random.Random(3)
        cuts = 0
        while cuts < 4:
            sent = proxy.up
            step = dice.randrange(5 << 20, 12 << 20)
            lf.wait_until("data flows", lambda sent=sent, step=step: proxy.up > sent + step or ended(fleet, order), 90, 0.02)
            if ended(fleet, order):
                break
            proxy.cut()
            cuts += 1
        proxy.rate = None
        lf.wait_until("the operation ends", lambda: ended(fleet, order), 180, 0.3)
        operation = fleet.cli("-o", "json", "operation", "show", order).json
        lf.expect_equal(operation["state"], "succeeded", "the backup")
        total = proxy.up - before
        print(f"{cuts} cuts: {total} bytes sent, {uncut} without cuts: {total / uncut:.3f}")
        lf.expect(cuts >= 3, f"{cuts} cuts")
        # What is lost at a cut is what was on its way, whatever the size of the database.
        lf.expect(total < 1.05 * uncut, f"{total} bytes for {uncut}")
        lf.expect_equal(lf.content(fleet.download(operation["snapshot"])), lf.content(other), "content")


def test_a_link_on_which_one_chunk_takes_half_a_minute():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        proxy = fleet.proxy(narrow=True)
        database = lf.make_database(fleet.path("x.db"), rows=1700)  # more than two chunks, which compression does not shrink
        fleet.agent("alpha", {"main": database}, controller=f"127.0.0.1:{proxy.port}")
        connections, before = proxy.connections, proxy.up
        proxy.rate = 8000
        operation = fleet.backup("alpha/main", timeout=240)
        print(f"{proxy.up - before} bytes at {proxy.rate} a second, {proxy.connections - connections} more connections")
        proxy.rate = None
        lf.expect_equal(operation["state"], "succeeded", "the backup")
        lf.expect_equal(proxy.connections, connections, "connections: none was given up")
        lf.expect(proxy.up - before < 620_000, f"{proxy.up - before} bytes: nothing was sent twice")
        lf.expect_equal(lf.content(fleet.download(operation["snapshot"])), lf.content(database), "content")


if __name__ == "__main__":
    lf.main(globals())
