"""Measures of the controller alone: commits of many devices at once, a prune of a large store, rebuild, scrub, idle connections.

All of them run the real programs over mTLS on loopback, with real fsync. What a program took is its CPU time from /proc, since client and
server share the machine; wall time stands beside it.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import lf
from table import MIB, row, spread

TICK = os.sysconf("SC_CLK_TCK")
SYNC_CALLS = "fsync,fdatasync"


def cpu_seconds(pid):
    """User and system time of a process without its children."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid, what="VmRSS"):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return int(re.search(rf"{what}:\s+(\d+)", file.read()).group(1)) / 1024


def forget_peak(pid):
    """VmHWM begins anew from here."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def evict(paths):
    """Takes files out of the page cache, and nothing else."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def exited(trace, pid):
    """Whether the trace goes on to the end of the process."""
    with open(trace, encoding="utf-8") as file:
        return any(re.match(rf"{pid} .*\+\+\+ (exited|killed)", line) for line in file)


def read_all(paths):
    """Seconds that plain reading takes."""
    start = time.monotonic()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(4 << 20):
                pass
    return time.monotonic() - start


def packs_of(fleet):
    directory = os.path.join(fleet.data, "store", "packs")
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]


class Load:
    """A fleet_load that runs; its lines as they come."""

    def __init__(self, fleet, mode, devices, seconds, *args, prefix="load"):
        token = fleet.path(f"{prefix}.token")
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(fleet.cli("token", "create", "--uses", devices).out)
        self.process = subprocess.Popen(
            [os.path.join(lf.TOOLS, "fleet_load"), mode, "--controller", fleet.address, "--token-file", token, "--devices", str(devices), "--seconds", str(seconds),
             "--prefix", prefix, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"bench: fleet_load ended with {self.process.wait(60)}")
        return json.loads(text)

    def end(self):
        if self.process.wait(120) != 0:
            sys.exit("bench: fleet_load failed")


class ControllerBench:
    def __init__(self, bench):
        self.bench, self.options = bench, bench.options
        self.rounds = min(3, bench.rounds)

    # Small deltas of many devices at once.
    # Streams a second, and the CPU of either side in ms for one.
    def floor(self, devices, seconds):
        tool = os.path.join(lf.TOOLS, "stream_floor")
        with subprocess.Popen([tool, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            port = json.loads(server.stdout.readline())["port"]
            with subprocess.Popen([tool, "load", "--port", str(port), "--devices", str(devices), "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True) as load:
                load.stdout.readline()
                before = cpu_seconds(server.pid), cpu_seconds(load.pid)
                result = json.loads(load.stdout.readline())
                used = [cpu_seconds(pid) - then for pid, then in zip((server.pid, load.pid), before)]
            server.stdin.close()
        return result["streams"] / result["seconds"], *(1000 * one / result["streams"] for one in used)

    def commits(self):
        devices, seconds = self.options.devices, self.options.seconds
        rates, cpu, client, fsyncs, waits, longest = [], [], [], [], [], []
        for _ in range(self.rounds):
            with self.bench.fleet() as fleet:
                load = Load(fleet, "commits", devices, seconds)
                load.line()
                start, before, before_client = time.monotonic(), cpu_seconds(fleet.controller.pid), cpu_seconds(load.process.pid)
                load.line()
                took, used = time.monotonic() - start, cpu_seconds(fleet.controller.pid) - before
                used_client = cpu_seconds(load.process.pid) - before_client
                result = load.line()
                load.end()
            commits = result["commits"]
            rates.append(commits / took)
            cpu.append(1000 * used / commits)
            client.append(1000 * used_client / commits)
            waits.append(result["p50_ms"])
            longest.append(result["longest_ms"])
            print(f"  {commits} commits in {took:.1f} s; CPU: controller {used:.1f} s, devices {used_client:.1f} s; {result}", flush=True)
        for _ in range(self.rounds if shutil.which("strace") else 0):
            with self.bench.fleet(serve=False) as fleet:
                trace = fleet.path("trace")
                # -D: the controller is the child, so that whoever ends it does not leave it behind.
                fleet.serve(wrapper=["strace", "-D", "-f", "--seccomp-bpf", "-ttt", "-e", f"trace={SYNC_CALLS}", "-o", trace])
                load = Load(fleet, "commits", devices, seconds)
                load.line()
                start = time.time()
                load.line()
                end = time.time()
                commits = load.line()["commits"]
                load.end()
                pid = fleet.controller.pid
                fleet.controller.stop()
                lf.wait_until("strace has written all", lambda path=trace, pid=pid: exited(path, pid), 60, 0.2)
                with open(trace, encoding="utf-8") as file:
                    times = [float(line.split()[1]) for line in file if re.search(r" (fsync|fdatasync)\(", line)]
            calls = sum(start <= at <= end for at in times)
            fsyncs.append(calls / commits)
            print(f"  under strace: {calls} calls of {SYNC_CALLS} for {commits} commits in {end - start:.1f} s", flush=True)
        floor, floor_server, floor_client = self.floor(devices, seconds)
        what = f"commits of 3-page deltas by {devices} devices at once, real upload streams, real fsync"
        row(what, f"{spread(rates, 0)} a second", f"half of them waited {spread(waits, 0)} ms, the longest {spread(longest, 0)} ms", "", "at least 2000",
            statistics.median(rates) >= 2000)
        cores = os.cpu_count()
        row("the same: CPU of the controller for one", f"{spread(cpu)} ms", f"of the 200 devices in one process: {spread(client)} ms", "",
            f"at most {1000 * cores / 2000:.2f} ms: {cores} cores alone then do 2000 a second", statistics.median(cpu) <= 1000 * cores / 2000)
        row("the same streams answered by gRPC alone, without TLS and without any work: what no controller exceeds here", f"{floor:.0f} a second", f"CPU: server {floor_server:.2f} ms, devices {floor_client:.2f} ms",
            "", "", None)
        if fsyncs:
            row("the same: fsync and fdatasync for one, counted by strace", spread(fsyncs, 3), "", "", "at most 0.25", statistics.median(fsyncs) <= 0.25)

    # A store with very many small chunks, of which a part is dead, while a device commits all the time.
    def prune(self):
        chunks = self.options.prune_chunks
        databases = max(1, chunks // 10_000)
        with self.bench.fleet(serve=False) as fleet:
            start = time.monotonic()
            filled = json.loads(lf.tool("store_filler", "--store", os.path.join(fleet.data, "store"), "--databases", databases, timeout=3 * 3600).stdout)
            print(f"  filled in {time.monotonic() - start:.0f} s: {filled}", flush=True)
            self.rebuild_row(fleet, f"rebuild of {filled['snapshots']} snapshots, {filled['chunks']} chunks of 60 bytes")
            with open(fleet.path("controller.toml"), "w", encoding="utf-8") as file:
                file.write('[prune]\nchunk_grace = "0s"\nevery = "365d"\n[store]\nscrub_rate = "1MiB"\n')
            fleet.serve(extra=["--config", fleet.path("controller.toml")])
            pid = fleet.controller.pid
            done = threading.Event()
            # Longer than the prune may take: it is ended when that has.
            load = Load(fleet, "commits", 1, 3 * 3600, "--every-seconds", 1)
            load.line()
            latencies, beside = [], []

            def listen():
                for line in load.process.stdout:
                    (beside if pruning else latencies).append(json.loads(line)["longest_ms"])
                done.set()

            pruning = False
            threading.Thread(target=listen, daemon=True).start()
            time.sleep(15)
            pruning = True
            forget_peak(pid)
            start, before, reports = time.monotonic(), cpu_seconds(pid), []
            for _ in range(3):  # marked as dead, found so again, removed
                reports.append(fleet.cli("-o", "json", "store", "prune", "--yes", timeout=3 * 3600).json)
            took, used, peak = time.monotonic() - start, cpu_seconds(pid) - before, resident_mib(pid, "VmHWM")
            load.process.terminate()
            done.wait(60)
            print(f"  three runs in {took:.0f} s, CPU {used:.0f} s: {reports}", flush=True)
        what = f"prune of {filled['snapshots']} snapshots, {filled['chunks']} chunks ({filled['dead_chunks']} dead)"
        row(f"{what}: controller's peak resident memory", f"{peak:.0f} MiB", f"three runs: {took:.0f} s, CPU {used:.0f} s", "", "at most 256 MiB", peak <= 256)
        row("the same: longest commit of a device that commits all the time", f"{max(beside):.0f} ms in {len(beside)} s",
            f"before the prune: {max(latencies):.0f} ms in {len(latencies)} s", "", "at most 200 ms", max(beside) <= 200)

    def rebuild_row(self, fleet, what):
        packs = packs_of(fleet)
        size = sum(os.path.getsize(path) for path in packs)
        evict(packs)
        reading = read_all(packs)
        for name in os.listdir(fleet.data):
            if name.startswith("catalog.db"):
                os.unlink(os.path.join(fleet.data, name))
        evict(packs)
        start = time.monotonic()
        process = subprocess.Popen([os.path.join(lf.BIN, "litefleet-controller"), "rebuild", "--data", fleet.data], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took, used = time.monotonic() - start, usage.ru_utime + usage.ru_stime
        if process.returncode not in (0, 3):
            sys.exit(f"bench: rebuild ended with {process.returncode}: {message}")
        rate, disk = size / MIB / took, size / MIB / reading
        row(f"{what}, {size / MIB:.0f} MiB of packs, cold", f"{rate:.0f} MiB/s", f"plain reading, cold: {disk:.0f} MiB/s; CPU {used:.1f} s: {size / MIB / used:.0f} MiB/s",
            f"{took / reading:.2f}", f"at least {min(200 * 1e6 / MIB, disk):.0f} MiB/s", rate >= min(200 * 1e6 / MIB, disk))

    # A store of databases as devices have them: the catalog anew, and everything read and hashed again.
    def rebuild_and_scrub(self, rebuild=True, scrub=True):
        live = self.bench.fresh("live.db")
        shutil.copyfile(self.bench.database(self.options.size), live)
        with self.bench.fleet() as fleet:
            agent = fleet.agent("alpha", {"main": live})
            for seed in range(4):
                fleet.snapshot("alpha/main", timeout=900)
                lf.tool("telemetry_db", "mutate", live, "--seed", seed)
            fleet.snapshot("alpha/main")
            agent.process.stop()
            fleet.controller.stop()
            if rebuild:
                self.rebuild_row(fleet, f"rebuild of the catalog, {self.options.size} and four deltas")
            if scrub:
                with open(fleet.path("controller.toml"), "w", encoding="utf-8") as file:
                    file.write('[store]\nscrub_rate = "0B"\n')
                fleet.serve(extra=["--config", fleet.path("controller.toml")])
                rates, cpu_rates = [], []
                for _ in range(self.rounds):
                    start, before = time.monotonic(), cpu_seconds(fleet.controller.pid)
                    report = fleet.cli("-o", "json", "store", "scrub", "--rate", "0", timeout=3600).json
                    took, used = time.monotonic() - start, cpu_seconds(fleet.controller.pid) - before
                    logical = report["scrub"]["logical_bytes"]
                    rates.append(logical / 1e6 / took)
                    cpu_rates.append(logical / 1e6 / used)
                row(f"scrub of {self.options.size} and four deltas, --rate 0: logical data for one CPU second", f"{spread(cpu_rates, 0)} MB",
                    f"wall: {spread(rates, 0)} MB/s", "", "at least 400 MB", statistics.median(cpu_rates) >= 400)
        self.bench.fresh("live.db")

    # Connected devices that have nothing to do.
    def idle(self):
        devices = self.options.idle_devices
        with self.bench.fleet() as fleet:
            pid = fleet.controller.pid
            before = resident_mib(pid)
            load = Load(fleet, "idle", devices, 60)
            load.line()
            connected, start, used = resident_mib(pid), time.monotonic(), cpu_seconds(pid)
            lost = load.line()["lost"]
            took, used = time.monotonic() - start, cpu_seconds(pid) - used
            load.process.wait(120)
            # Once a minute what is free goes back to the system.
            after, until = resident_mib(pid), time.monotonic() + 75
            while time.monotonic() < until:
                time.sleep(1)
                after = min(after, resident_mib(pid))
        each = 1024 * (connected - before) / devices
        row(f"{devices} connected devices: resident memory of the controller for one", f"{each:.0f} KiB",
            f"{before:.0f} MiB without any, {connected:.0f} MiB with all, {after:.0f} MiB when they have gone", "", "reported", None)
        row("the same: CPU of the controller, nothing to do", f"{100 * used / took:.1f} % of a core", f"{lost} streams lost in {took:.0f} s", "", "none lost", lost == 0)
