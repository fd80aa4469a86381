"""What all measures need: a command with its time and memory, a warm cache, the pages in which two databases differ."""
import datetime
import os
import subprocess
import sys
import time


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


def seconds_of(operation):
    """From the order to its end, as the operation's document says."""
    ordered, ended = (datetime.datetime.fromisoformat(operation[name].replace("Z", "+00:00")) for name in ("created_at", "ended_at"))
    return (ended - ordered).total_seconds()
