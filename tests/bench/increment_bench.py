"""What is sent and stored of a database that has changed, and what a bad link makes of it. Beside restic, borg, rsync and sqlite3_rsync where they are there."""
import json
import os
import shutil
import statistics
import subprocess
import time

import lf
from pins import PinWatch
from table import MIB, left_out, ratio_row, row, spread
from measure import cache, changed_pages, command, ordered_backup, read_seconds, timed

# With 0.05 % of the rows updated little more than 1 % of the pages of 1 GiB would differ: what is measured is to be about 3 %.
CHANGE_IN_WORDS = "0.5 % of the rows appended and 0.29 % updated in place at random, so that about 3 % of the pages of 1 GiB differ"
CHANGE = ("--append", "0.005", "--update", "0.0029")
MBIT = 125_000  # bytes a second


class IncrementBench:
    def __init__(self, bench):
        self.bench = bench
        self.sqlite3_rsync = shutil.which("sqlite3_rsync")
        if not self.sqlite3_rsync:
            left_out.append("sqlite3_rsync")

    # Both sides are here, with a program between them that counts in the place of ssh.
    def bytes_of_sqlite3_rsync(self, origin, replica):
        counted = self.bench.fresh("counted")
        counter = os.path.join(os.path.dirname(os.path.abspath(__file__)), "counting_ssh")
        subprocess.run([self.sqlite3_rsync, "--ssh", counter, origin, f"localhost:{replica}"], check=True, stdin=subprocess.DEVNULL, env={**os.environ, "COUNTED": counted})
        with open(counted, encoding="utf-8") as file:
            return sum(map(int, file.read().split()))

    # A changed database.
    def delta(self):
        source, changed = self.bench.database(self.bench.options.size), self.bench.fresh("changed.db")
        shutil.copyfile(source, changed)
        lf.tool("telemetry_db", "mutate", changed, *CHANGE)
        pages, packed = self.bench.fresh("pages"), self.bench.fresh("pages.zst")
        count = changed_pages(source, changed, pages)
        command("zstd", "-q", "-3", pages, "-o", packed)
        raw, reference = os.path.getsize(pages), os.path.getsize(packed)
        print(f"  {count} pages changed, {raw} bytes, {reference} after zstd -3", flush=True)
        back, back_packed = self.bench.fresh("back"), self.bench.fresh("back.zst")
        changed_pages(changed, source, back)
        command("zstd", "-q", "-3", back, "-o", back_packed)
        took = {}
        wire, grown, written, restored, unchanged, unchanged_wire = [], [], [], [], [], []

        def stored(directory):
            return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(directory) for name in names)

        for number in range(self.bench.rounds):
            live = self.bench.fresh("live.db")
            shutil.copyfile(source, live)
            with self.bench.fleet() as fleet:
                proxy = fleet.proxy()
                agent = fleet.agent("alpha", {"main": live}, controller=f"127.0.0.1:{proxy.port}")
                first = fleet.snapshot("alpha/main")
                shutil.copyfile(changed, live)
                cache(live)
                before, bytes_before, disk = stored(fleet.data), proxy.up + proxy.down, agent.process.written_bytes()
                took.setdefault("litefleet", []).append(timed(lambda: fleet.backup("alpha/main"))[0])
                wire.append(proxy.up + proxy.down - bytes_before)
                grown.append(stored(fleet.data) - before)
                written.append(agent.process.written_bytes() - disk)
                snapshot = fleet.snapshots()[0]["id"]
                if number == 0:
                    lf.expect_equal(lf.sha256(fleet.download(snapshot)), lf.sha256(changed), "the changed database, byte by byte")
                print(f"  litefleet: {took['litefleet'][-1]:.2f} s, wire {wire[-1]}, store {grown[-1]}", flush=True)
                time.sleep(3)  # files that were just written are read
                fleet.backup("alpha/main")
                bytes_before = proxy.up + proxy.down
                fleet.agents["alpha"].wait_connected()
                unchanged.append(1000 * ordered_backup(fleet, "alpha/main")[1])
                unchanged_wire.append(proxy.up + proxy.down - bytes_before)
                bytes_before = proxy.down
                fleet.cli("restore", "alpha/main", "--snapshot", first, "--mode", "replace", "--yes")
                restored.append(proxy.down - bytes_before)
                if number == 0:
                    lf.expect_equal(lf.sha256(live), lf.sha256(source), "the restored database, byte by byte")
            for name, create in (("restic", self.bench.restic), ("borg", self.bench.borg)):
                if not create:
                    continue
                repository = self.bench.fresh(name)
                shutil.copyfile(source, live)
                if name == "restic":
                    command(create, "-q", "-r", repository, "init", env=self.bench.environment)
                    backup = [create, "-q", "-r", repository, "backup", live]
                else:
                    command(create, "init", "-e", "none", repository, env=self.bench.environment)
                    backup = [create, "create", "--compression", "zstd,3", repository + "::{now:%f}", live]
                command(*backup, env=self.bench.environment)
                before = stored(repository)
                shutil.copyfile(changed, live)
                cache(live)
                took.setdefault(name, []).append(timed(lambda: command(*backup, env=self.bench.environment))[0])
                took.setdefault(name + " grew", []).append(stored(repository) - before)
                self.bench.fresh(name)
            if self.sqlite3_rsync:
                other = self.bench.fresh("replica.db")
                shutil.copyfile(source, other)
                took.setdefault("sqlite3_rsync", []).append(self.bytes_of_sqlite3_rsync(live, other))
                self.bench.fresh("replica.db")
            if shutil.which("rsync"):
                other = self.bench.fresh("rsync.db")
                shutil.copyfile(source, other)
                cache(live)
                took.setdefault("rsync", []).append(timed(lambda: command("rsync", "--no-whole-file", "--inplace", live, other))[0])
                self.bench.fresh("rsync.db")
        what = f"change of {count} pages in {self.bench.options.size}"

        def size_row(measure, values, beside, other, limit):
            ratio = statistics.median(values) / other
            row(f"{what}: {measure}", f"{statistics.median(values) / MIB:.2f} MiB", f"{beside}: {other / MIB:.2f} MiB", f"{ratio:.3f}", f"at most {limit}", ratio <= limit)

        size_row("bytes on the wire, both directions, at a proxy", wire, "zstd -3 of the changed pages", reference, 1.15)
        if self.sqlite3_rsync:
            size_row("the same", wire, "sqlite3_rsync", statistics.median(took["sqlite3_rsync"]), 0.5)
        else:
            size_row("the same", wire, "sqlite3_rsync is not installed; the changed pages as they are", raw, 0.5)
        size_row("growth of store and catalog", grown, "zstd -3 of the changed pages", reference, 1.15)
        for name in ("restic", "borg"):
            if name + " grew" in took:
                size_row("growth of store and catalog", grown, f"{name} grew", statistics.median(took[name + " grew"]), 0.1)
        size_row("the agent's writes to disk", written, "the changed pages", raw, 0.1)
        size_row("restore of the state before: bytes down, at a proxy", restored, "zstd -3 of the pages that differ", os.path.getsize(back_packed), 1.15)
        row(f"nothing changed in {self.bench.options.size}, on a standing connection", f"{spread(unchanged, 0)} ms", "from the order until the controller says that it has ended", "", "at most 50 ms",
            statistics.median(unchanged) <= 50)
        row(f"nothing changed in {self.bench.options.size}: bytes on the wire", f"{spread(unchanged_wire, 0)}", "", "", "at most 2048", statistics.median(unchanged_wire) <= 2048)
        for name, limit in (("restic", 0.35), ("rsync", 0.5)):
            if name in took:
                ratio_row(what, took["litefleet"], "restic backup" if name == "restic" else "rsync --no-whole-file", took[name], limit)
        self.bench.fresh("live.db")
        self.bench.fresh("changed.db")

    # A link that is cut again and again.
    def links(self):
        source = self.bench.database(self.bench.options.size)
        with self.bench.fleet() as fleet:
            proxy = fleet.proxy()
            fleet.agent("alpha", {"main": source}, controller=f"127.0.0.1:{proxy.port}")
            before = proxy.up
            fleet.backup("alpha/main", timeout=900)
            uncut = proxy.up - before
        with self.bench.fleet() as fleet:
            proxy = fleet.proxy()
            fleet.agent("alpha", {"main": source}, controller=f"127.0.0.1:{proxy.port}")
            proxy.rate, before, cuts = 20_000_000, proxy.up, 0
            order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
            while cuts < 50:
                mark, began = proxy.up + uncut // 60, time.monotonic()
                asked = began
                while proxy.up <= mark:
                    time.sleep(0.01)
                    lf.expect(time.monotonic() - began < 120, "no data flows")
                    if time.monotonic() - asked > 2:  # a question is a program: asked all the time it would take the machine from the backup
                        asked = time.monotonic()
                        if self.ended(fleet, order):
                            break
                if proxy.up <= mark:
                    break
                proxy.cut()
                cuts += 1
            lf.wait_until("the operation ends", lambda: self.ended(fleet, order), 600, 0.5)
            operation = fleet.cli("-o", "json", "operation", "show", order).json
            lf.expect_equal(operation["state"], "succeeded", "the backup over the cut link")
            total = proxy.up - before
            lf.expect_equal(lf.sha256(fleet.download(operation["snapshot"])), lf.sha256(source), "what came over the cut link, byte by byte")
        row(f"first backup of {self.bench.options.size} at 20 MB/s, cut {cuts} times: bytes sent", f"{total / MIB:.1f} MiB", f"uncut: {uncut / MIB:.1f} MiB",
            f"{total / uncut:.3f}", "at most 1.05", total <= 1.05 * uncut and cuts >= 50)

    # A link with a long way and a low rate.
    def far(self):
        small = self.bench.fresh("live.db")
        shutil.copyfile(self.bench.database(self.bench.options.size), small)
        with self.bench.fleet() as fleet:
            proxy = fleet.proxy()
            fleet.agent("alpha", {"main": small}, controller=f"127.0.0.1:{proxy.port}")
            fleet.backup("alpha/main", timeout=900)
            lf.tool("telemetry_db", "mutate", small, *CHANGE)
            cache(small)
            round_trip, proxy.delay, proxy.rate = 0.3, 0.15, 2 * MBIT
            before = proxy.up
            _, wall = ordered_backup(fleet, "alpha/main")
            sent = proxy.up - before
            transfer = sent / proxy.rate
            limit = 4 * round_trip + transfer
        row(f"increment of {self.bench.options.size} over 300 ms round trip and 2 Mbit/s, from the order until the controller says that it has ended", f"{wall:.2f} s", f"transfer of {sent} bytes: {transfer:.2f} s",
            f"{(wall - transfer) / round_trip:.1f} round trips", f"at most {limit:.2f} s (4 round trips and the transfer)", wall <= limit)
        self.bench.fresh("live.db")

    # A first backup that takes minutes, beside a writer: what it holds meanwhile.
    def slow_first(self):
        for journal in ("wal", "delete"):
            self.slow_first_in(journal)

    def slow_first_in(self, journal):
        source, live = self.bench.database(self.bench.options.size), self.bench.fresh("live.db")
        shutil.copyfile(source, live)
        reads = read_seconds(live)
        with self.bench.fleet() as fleet:
            proxy = fleet.proxy()
            # What a lock may last is asked here, and is not to end the backup before.
            agent = fleet.agent("alpha", {"main": (live, 'rollback_stall = "60s"')}, controller=f"127.0.0.1:{proxy.port}")
            writer = fleet.writer(live, "--rate", 100, "--journal", journal)
            proxy.rate = 20 * MBIT
            watch = PinWatch(agent.process.pid, live, agent.state, journal)
            start = time.monotonic()
            done = fleet.backup("alpha/main", timeout=1800)
            seconds = time.monotonic() - start
            watch.stop()
            lf.expect_equal(writer.stop(), 0, "exit of the writer")
            report = json.loads(writer.text().strip().splitlines()[-1])
            lf.expect(watch.longest > 0, "the agent was never seen with a lock")
            lf.expect_equal(report["busy"], 0, "commits that gave up")
            proxy.rate = None
            lf.check_ledger(fleet.download(done["snapshot"]), 1)
        what = f"first backup of {self.bench.options.size} at 20 Mbit/s beside 100 commits/s, journal {journal}"
        read = statistics.median(reads)
        row(f"{what}: longest pinned read transaction, by its locks", f"{watch.longest:.2f} s",
            f"one local read, with SHA-256: {spread(reads)} s; all of it: {seconds:.0f} s, {report['commits']} commits", f"{watch.longest / read:.2f}", "at most 2", watch.longest <= 2 * read)
        row(f"{what}: longest commit of the writer", f"{report['max_ms'] / 1000:.2f} s", "", f"{report['max_ms'] / 1000 / read:.2f}", "reported", None)
        if journal == "wal":
            row(f"{what}: largest WAL", f"{watch.wal / MIB:.1f} MiB", "", "", "at most 64 MiB", watch.wal <= 64 * MIB)
        row(f"{what}: local disk used", f"{watch.disk / MIB:.1f} MiB", "the spool's cap: 256 MiB", "", "at most 256 MiB", watch.disk <= 256 * MIB)
        self.bench.fresh("live.db")

    @staticmethod
    def ended(fleet, operation):
        return fleet.cli("-o", "json", "operation", "show", operation).json["state"] not in ("queued", "sent", "running", "cancelling")

    # What it costs to read the newest of a thousand deltas.
    def chain(self):
        live = self.bench.fresh("live.db")
        shutil.copyfile(self.bench.database("256MiB"), live)
        with self.bench.fleet() as fleet:
            fleet.agent("alpha", {"main": live})
            first = fleet.snapshot("alpha/main")
            for number in range(1000):
                lf.tool("telemetry_db", "mutate", live, "--seed", number, "--append", "0.00005", "--update", "0.0005")
                newest = fleet.snapshot("alpha/main")
            fleet.agent("beta", {"copy": fleet.path("restored.db")})
            took, restored = {first: [], newest: []}, {first: [], newest: []}
            for _ in range(self.bench.rounds):
                for snapshot, times in took.items():
                    times.append(timed(lambda snapshot=snapshot: fleet.download(snapshot, "downloaded.db") and None)[0])
                    self.bench.fresh(fleet.path("restored.db"))
                    restored[snapshot].append(timed(lambda snapshot=snapshot: fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--to", "beta/copy", "--yes") and None)[0])
            lf.expect_equal(lf.sha256(fleet.path("downloaded.db")), lf.sha256(live), "the newest of a thousand, byte by byte")
        ratio_row("download of the newest of 1,000 deltas of 256 MiB", took[newest], "the first, full one", took[first], 1.5)
        ratio_row("restore of the newest of 1,000 deltas of 256 MiB by an agent", restored[newest], "the first, full one", restored[first], 1.5)
        self.bench.fresh("live.db")
