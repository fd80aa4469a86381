#!/usr/bin/env python3
"""One sector of the packs that is lost brings nothing back in a rebuild: no deleted snapshot, no forgotten device."""
import glob
import os
import shutil
import sqlite3

import lf

SECTOR = 4096


def test_no_lost_sector_brings_back_what_was_deleted():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        database = lf.make_database(fleet.path("x.db"), rows=20)
        fleet.agent("alpha", {"main": database})
        fleet.agent("beta", {"main": lf.make_database(fleet.path("y.db"), rows=20)})
        deleted = fleet.snapshot("alpha/main")
        with sqlite3.connect(database) as db:
            db.execute("insert into item (name) values ('more')")
        db.close()
        kept = fleet.snapshot("alpha/main")
        forgotten = fleet.snapshot("beta/main")
        fleet.cli("snapshot", "delete", deleted, "--yes")
        fleet.cli("device", "revoke", "beta", "--yes")
        fleet.cli("device", "forget", "beta", "--delete-snapshots", "--yes")
        fleet.controller.stop()
        packs, whole = os.path.join(fleet.data, "store", "packs"), fleet.path("whole")
        shutil.copytree(packs, whole)
        hits = partly = 0
        for name in sorted(os.listdir(whole)):
            size = os.path.getsize(os.path.join(whole, name))
            for at in range(SECTOR, size, SECTOR):
                shutil.rmtree(packs)
                shutil.copytree(whole, packs)
                with open(os.path.join(packs, name), "r+b") as file:
                    file.seek(at)
                    file.write(b"\xa5" * min(SECTOR, size - at))
                for path in glob.glob(os.path.join(fleet.data, "catalog.db*")):
                    os.unlink(path)
                rebuilt = fleet.program("litefleet-controller", "rebuild", "--data", fleet.data, check=lf.AnyOf(0, 3))
                lost = any(words in rebuilt.out for words in ("not recovered: ", "damaged: ", "may have held snapshots"))
                lf.expect_equal(rebuilt.code == 3, lost, f"a rebuild that could not recover all ends with 3\n{rebuilt}")
                partly += rebuilt.code == 3
                catalog = sqlite3.connect(os.path.join(fleet.data, "catalog.db"))
                found = {row[0] for row in catalog.execute("select id from snapshot where state <> 3")}
                active = catalog.execute("select count(*) from device where name = 'beta' and state = 1").fetchone()[0]
                catalog.close()
                hits += kept not in found
                lf.expect(deleted not in found, f"the deleted snapshot is back without the sector at {at} of {name}")
                lf.expect(forgotten not in found and active == 0, f"the forgotten device is back without the sector at {at} of {name}")
        lf.expect(hits > 0 and partly > 0, f"no sector hit anything: {hits}, {partly}")


if __name__ == "__main__":
    lf.main(globals())
