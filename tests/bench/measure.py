"""What all measures need: a command with its time and memory, a warm cache, the pages in which two databases differ."""
import datetime
import json
import os
import subprocess
import sys
import threading
import time

import lf


def timed(work):
    """Wall seconds of work(), and the largest resident size in KiB of the children it waited for."""
    subprocess.run(["sync"], check=True)
    start = time.monotonic()
    peak = work()
    return time.monotonic() - start, peak


def command(*args, env=None):
    """Runs a command to its end; its peak resident size in KiB."""
    process = subprocess.Popen([str(arg) for arg in args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
    message = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, args))}: {message}")
    return usage.ru_maxrss


def cache(path):
    with open(path, "rb") as file:
        while file.read(1 << 22):
            pass


def changed_pages(old, new, out, page_size=4096):
    """Writes the pages of `new` that are not so in `old`; their number."""
    count = 0
    with open(old, "rb") as before, open(new, "rb") as after, open(out, "wb") as pages:
        while block := after.read(page_size * 1024):
            other = before.read(page_size * 1024)
            if block == other:
                continue
            for at in range(0, len(block), page_size):
                page = block[at:at + page_size]
                if page != other[at:at + page_size]:
                    pages.write(page)
                    count += 1
    return count


def ordered_backup(fleet, target, timeout=300):
    """Orders a backup and waits for it: the operation's document, and the seconds from the order until the controller says to who watches that it has ended.

    Not until `ended_at`, which is when the device had done its part, before its result was on its way. The clock of the order is the controller's, of this machine."""
    args = [os.path.join(lf.BIN, "litefleet"), "-o", "json", "backup", target]
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env={**os.environ, "LITEFLEET_DATA": fleet.data}) as program:
        watchdog = threading.Timer(timeout, program.kill)
        watchdog.start()
        line = program.stdout.readline()
        said = time.time()
        code = program.wait()
        watchdog.cancel()
    if code != 0 or not line:
        sys.exit(f"bench: {' '.join(args)}: exit {code}")
    operation = json.loads(line)
    return operation, said - datetime.datetime.fromisoformat(operation["created_at"].replace("Z", "+00:00")).timestamp()


def read_seconds(path, times=3):
    """Reading a cached file whole and hashing it with SHA-256, as often as that: each run's seconds."""
    cache(path)
    return [timed(lambda: lf.sha256(path) and None)[0] for _ in range(times)]
