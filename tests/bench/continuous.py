"""Continuous capture: what it costs the application, the device and the store, and how late it is. Beside Litestream where it is on PATH."""
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import time

import lf
from table import left_out, spread

FOLLOW = 'method = "continuous"\nsync_interval = "{}"'


def following(fleet, agent, names=("main",), timeout=600):
    def look():
        listed = fleet.program("litefleet-agent", "status", "--config", agent.config, "-o", "json").json["databases"]
        # And has compared everything once.
        return all((item["capture"] or {}).get("state") == "following" and item["capture"]["last_sync_at"] for item in listed if item["name"] in names)

    lf.wait_until("capture follows", look, timeout, 0.5)


def writer_report(writer):
    writer.process.wait(300)
    return json.loads(writer.text().strip().splitlines()[-1])


def p999(values):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.999 * len(ordered)))] / 1000


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def insert_commits(path, commits=8000, seconds=10, rows=5, autocheckpoint=1000):
    """`commits` transactions of small rows, spread over the seconds; the time of each in microseconds."""
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute("create table if not exists event(id integer primary key, kind integer, at integer, text text)")
    db.execute("pragma synchronous=normal")
    db.execute(f"pragma wal_autocheckpoint={autocheckpoint}")
    start, taken = time.monotonic(), []
    for number in range(commits):
        pause = start + number * seconds / commits - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        begun = time.monotonic()
        db.execute("begin immediate")
        for row in range(rows):
            db.execute("insert into event values(null, ?, ?, ?)", (row, number, f"value {number * rows + row} of a device"))
        db.execute("commit")
        taken.append(int((time.monotonic() - begun) * 1e6))
    elapsed = time.monotonic() - start
    return db, elapsed, taken


def raw_page_bytes(bench, source):
    """Of all pages that the same commits write, each as often as it is committed: what a copy of the WAL has, without headers."""
    path = bench.fresh("raw.db")
    bench.fresh("raw.db-wal"), bench.fresh("raw.db-shm")
    shutil.copyfile(source, path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        page = db.execute("pragma page_size").fetchone()[0]
    writer, _, _ = insert_commits(path, seconds=0, autocheckpoint=0)
    frames = (os.path.getsize(path + "-wal") - 32) // (page + 24)
    writer.close()
    os.unlink(path)
    return frames * page


def measure(bench, row):
    stored_beside_litestream(bench, row)
    wal_of_one_writer(bench, row)
    two_writers(bench, row)
    lag(bench, row)
    idle(bench, row)


def newest_has(fleet, rows):
    path = fleet.download(fleet.snapshots("alpha/main")[0]["id"], "newest.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = db.execute("select count(*) from event").fetchone()[0]
    os.unlink(path)
    return found == rows


def stored_beside_litestream(bench, row):
    """The same commits into copies of one database, without and with the agent in turns: what they cost the writer, and what is stored of them."""
    source = bench.database(bench.options.size)
    database = bench.fresh("captured.db")
    rates, taken, stores, residents, peaks = ([], []), ([], []), [], [], []
    for _ in range(bench.rounds):
        for capture in (False, True):
            bench.fresh("captured.db-wal"), bench.fresh("captured.db-shm")
            shutil.copyfile(source, database)
            db = sqlite3.connect(database, isolation_level=None)
            db.execute("pragma journal_mode=wal")
            db.close()
            subprocess.run(["sync"], check=True)
            with bench.fleet() as fleet:
                holder = sqlite3.connect(database, isolation_level=None)
                holder.execute("select count(*) from sqlite_schema").fetchone()
                if capture:
                    agent = fleet.agent("alpha", {"main": (database, FOLLOW.format("1s"))})
                    following(fleet, agent)
                    before = {item["id"] for item in fleet.snapshots("alpha/main")}
                writer, elapsed, times = insert_commits(database)
                rates[capture].append(8000 / elapsed)
                taken[capture].extend(times)
                if capture:
                    lf.wait_until("all rows are stored", lambda: newest_has(fleet, 8000 * 5), 120, 1)  # pylint: disable=cell-var-from-loop
                    stores.append(sum(item["stored_bytes"] for item in fleet.snapshots("alpha/main") if item["id"] not in before))
                    residents.append(resident_mib(agent.process.pid))
                    peaks.append(agent.process.peak_kib() / 1024)
                writer.close()
                holder.close()
    litestream = shutil.which("litestream")
    beside = litestream_bytes(bench, litestream, source) if litestream else 206e6
    if not litestream:
        left_out.append("litestream")
    name = "Litestream" if litestream else "Litestream 0.3.13, measured before"
    stored = statistics.median(stores)
    row(f"8,000 commits of 5 small rows in 10 s into {bench.options.size}: bytes stored, all rows in the newest state", f"{spread([each / 1e6 for each in stores], 2)} MB", f"{name}: {beside / 1e6:.0f} MB",
        f"{stored / beside:.2f}", "at most 0.25", stored <= 0.25 * beside)
    raw = raw_page_bytes(bench, source)
    row("the same: bytes stored, to those of the pages that the commits wrote", f"{stored / 1e6:.2f} MB", f"raw pages: {raw / 1e6:.0f} MB", f"{stored / raw:.3f}", "", None)
    ratio = statistics.median(rates[1]) / statistics.median(rates[0])
    row("the same: commits a second", spread(rates[1], 1), f"without the agent: {spread(rates[0], 1)}", f"{ratio:.3f}", "at least 0.97", ratio >= 0.97)
    row("the same: p99.9 of a commit", f"{p999(taken[1]):.2f} ms", f"without: {p999(taken[0]):.2f} ms", f"{p999(taken[1]) / p999(taken[0]):.2f}", "at most 1.5",
        p999(taken[1]) <= 1.5 * p999(taken[0]))
    row(f"agent's resident memory, one database of {bench.options.size}", f"{spread(residents, 1)} MiB", f"peak {spread(peaks, 1)} MiB", "", "at most 40 MiB", max(residents) <= 40)


def restore_in_the_middle(bench, row, seconds):
    """To a second in the middle of a capture of so many seconds, beside a restore of the first snapshot: both to a new file on another device."""
    database = bench.fresh("restored-from.db")
    shutil.copyfile(bench.database(bench.options.size), database)
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    with bench.fleet() as fleet:
        agent = fleet.agent("alpha", {"main": (database, FOLLOW.format("1s"))})
        target = fleet.path("copy.db")
        fleet.agent("beta", {"copy": target})
        following(fleet, agent)
        writer, _, _ = insert_commits(database, commits=20 * seconds, seconds=seconds)
        items = sorted((item for item in fleet.snapshots("alpha/main")), key=lambda item: item["taken_at"])
        middle = items[len(items) // 2]["taken_at"]
        took = {"first": [], "middle": []}
        for _ in range(bench.rounds):
            for what, which in (("first", ("--snapshot", items[0]["id"])), ("middle", ("--at", middle))):
                subprocess.run(["sync"], check=True)
                begun = time.monotonic()
                fleet.cli("restore", "alpha/main", "--to", "beta/copy", *which, "--yes", timeout=900)
                took[what].append(time.monotonic() - begun)
                os.unlink(target)
        writer.close()
        db.close()
    ratio = statistics.median(took["middle"]) / statistics.median(took["first"])
    row(f"restore to a second in the middle of {seconds} s of capture, {len(items)} snapshots, {bench.options.size}", f"{spread(took['middle'])} s",
        f"the first, a full one: {spread(took['first'])} s", f"{ratio:.2f}", "at most 1.3", ratio <= 1.3)


def litestream_bytes(bench, program, source):
    database = bench.fresh("streamed.db")
    shutil.copyfile(source, database)
    replica = bench.path("litestream-replica")
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    with subprocess.Popen([program, "replicate", database, f"file://{replica}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        lf.wait_until("the first snapshot", lambda: any("snapshots" in folder and files for folder, _, files in os.walk(replica)), 300, 0.5)
        time.sleep(3)
        before = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, files in os.walk(replica) for name in files)
        writer, _, _ = insert_commits(database)
        time.sleep(3)
        after = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, files in os.walk(replica) for name in files)
        process.terminate()
    writer.close()
    db.close()
    shutil.rmtree(replica, ignore_errors=True)
    return after - before


def wal_of_one_writer(bench, row, seconds=60):
    largest = 0
    with bench.fleet() as fleet:
        database = fleet.path("w.db")
        fleet.writer(database, "--rate", 100, "--seconds", 0.3, "--fill", "64MiB", name="first").process.wait(120)
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("select 1 from sqlite_schema").fetchone()
        agent = fleet.agent("alpha", {"main": (database, FOLLOW.format("1s"))})
        following(fleet, agent)
        writer = fleet.writer(database, "--rate", 500, "--seconds", seconds, "--busy-timeout-ms", 0)
        while writer.running():
            if os.path.exists(database + "-wal"):
                largest = max(largest, os.path.getsize(database + "-wal"))
            time.sleep(0.05)
        report = writer_report(writer)
        holder.close()
    row(f"one writer, 500 commits/s for {seconds} s: WAL, and SQLITE_BUSY with busy_timeout 0", f"{largest / 2**20:.1f} MiB, {report['busy']}", f"{report['rate']:.0f} commits/s",
        f"{largest / 2**22:.2f}", "at most 2 times 4 MiB, none", largest <= 2 * 2**22 and report["busy"] == 0)


def two_writers(bench, row, seconds=60):
    """Without any pause between their transactions, checkpointing themselves as SQLite does by default, or not at all: then nobody can start the WAL over but with
    the write lock."""
    for what, pages in (("", 1000), (" that never checkpoint", 0)):
        largest, rates = {}, {}
        for capture in (False, True):
            with bench.fleet() as fleet:
                database = fleet.path("w.db")
                fleet.writer(database, "--rate", 100, "--seconds", 0.3, "--fill", "64MiB", name="first").process.wait(120)
                holder = sqlite3.connect(database, isolation_level=None)
                holder.execute("select 1 from sqlite_schema").fetchone()
                if capture:
                    agent = fleet.agent("alpha", {"main": (database, FOLLOW.format("1s") + "\nallow_restart_checkpoint = true")})
                    following(fleet, agent)
                writers = [fleet.writer(database, "--rate", 0, "--seconds", seconds, "--autocheckpoint", pages, name=name) for name in ("one", "two")]
                size = 0
                while any(writer.running() for writer in writers):
                    size = max(size, os.path.getsize(database + "-wal"))
                    time.sleep(0.02)
                largest[capture] = size
                rates[capture] = sum(writer_report(writer)["rate"] for writer in writers)
                holder.close()
        row(f"two writers without any pause{what}, {seconds} s, RESTART allowed: WAL", f"{largest[True] / 2**20:.1f} MiB, {rates[True]:.0f} commits/s",
            f"without: {largest[False] / 2**20:.1f} MiB, {rates[False]:.0f}", f"{largest[True] / 2**22:.2f}", "at most 12 times 4 MiB", largest[True] <= 12 * 2**22)


def lag(bench, row):
    for interval, limit in (("1s", 1500), ("100ms", 300)):
        with bench.fleet() as fleet:
            database = fleet.path("w.db")
            agent = fleet.agent("alpha", {"main": (database, FOLLOW.format(interval))})
            writer = fleet.writer(database, "--rate", 200, "--seconds", 20)
            following(fleet, agent)
            writer_report(writer)
            time.sleep(2)
            items = sorted((item for item in fleet.snapshots("alpha/main") if item["method"] == "continuous"), key=lambda item: item["taken_at"])
            received = [moment(item["received_at"]) for item in items]
            taken = [moment(item["taken_at"]) for item in items]
            # The oldest commit of a sync came right after the sync before was taken.
            lags = sorted(received[i] - taken[i - 1] for i in range(2, len(items)))
            value = lags[min(len(lags) - 1, int(0.99 * len(lags)))] if lags else float("inf")
            row(f"from a commit to durable at the controller, p99 of {len(lags)} syncs, {interval}", f"{value:.0f} ms", f"median {statistics.median(lags):.0f} ms", "", f"at most {limit} ms",
                value <= limit)


def moment(text):
    import datetime
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def idle(bench, row, count=500):
    with bench.fleet() as fleet:
        databases, holders = {}, []
        for number in range(count):
            path = lf.make_database(fleet.path(f"idle{number}.db"), rows=1800)
            holders.append(sqlite3.connect(path, isolation_level=None))
            holders[-1].execute("select count(*) from sqlite_schema").fetchone()
            databases[f"d{number}"] = (path, FOLLOW.format("1s"))
        agent = fleet.agent("alpha", databases)
        following(fleet, agent, names=set(databases))
        time.sleep(15)
        before, start = cpu_seconds(agent.process.pid), time.monotonic()
        time.sleep(20)
        share = 100 * (cpu_seconds(agent.process.pid) - before) / (time.monotonic() - start)
        resident = resident_mib(agent.process.pid)
        descriptors = len(os.listdir(f"/proc/{agent.process.pid}/fd")) / count
        row(f"{count} idle databases of 1 MiB: resident memory, descriptors of each", f"{resident:.1f} MiB, {descriptors:.2f}", "", "", "at most 72 MiB, 4", resident <= 72 and descriptors <= 4.1)
        row("the same: processor", f"{share:.2f} % of a core", "", "", "at most 0.5 %", share <= 0.5)
        for holder in holders:
            holder.close()
