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
        mutate(device.database, "update item set data = randomblob(100) where id % 2000 = 7")
        device.proxy.delay = 0.25
        turns = device.proxy.turns
        snapshot = device.backup()
        turns = device.proxy.turns - turns
        print(f"an increment of {device.bytes} bytes: the direction changed {turns} times")
        # The order and its acknowledgement, the upload's begin, offers, chunks and commit, the result; and reports of progress beside them.
        lf.expect(turns <= 16, f"{turns} changes of direction")
        device.proxy.delay = 0.0
        device.expect_content(snapshot)


def test_cuts_cost_little():
    with lf.Fleet() as fleet:
        device = Counted(fleet, 32)
        before = device.proxy.up
        device.backup()
        uncut = device.proxy.up - before
        # Another device with other data over a link that is cut again and again.
        other = lf.make_database(fleet.path("y.db"), rows=32 * 1024 * 1024 // 320)
        proxy = fleet.proxy()
        fleet.agent("beta", {"main": other}, controller=f"127.0.0.1:{proxy.port}")
        proxy.rate = 12 << 20
        before = proxy.up
        order = fleet.cli("-o", "json", "backup", "beta/main", "--detach").json["id"]
        dice = random.Random(3)
        cuts = 0
        while cuts < 6:
            sent = proxy.up
            step = dice.randrange(1 << 20, 5 << 20)
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
        lf.expect(cuts >= 4, f"{cuts} cuts")
        lf.expect(total < 1.15 * uncut, f"{total} bytes for {uncut}")
        lf.expect_equal(lf.content(fleet.download(operation["snapshot"])), lf.content(other), "content")


if __name__ == "__main__":
    lf.main(globals())
