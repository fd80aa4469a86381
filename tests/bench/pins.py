"""How long a process keeps one state of a WAL database, seen from outside: by its locks on the wal-index and the read marks in it.

A reader holds one of five bytes of the -shm file (120 + 3 + i) and the mark beside it says which state it reads. As long as neither changes it is taken for
one transaction; a writer at work gives each later one another mark. Looked at every few milliseconds, so what is measured is too long rather than too short.
"""
import os
import struct
import threading
import time

FIRST_MARK_AT, FIRST_LOCK = 100, 123
MARKS = 5


def held_marks(pid, inode):
    """Which read marks the process holds, by /proc/locks."""
    held = set()
    with open("/proc/locks", encoding="utf-8") as locks:
        for line in locks:
            fields = line.split()
            if "->" in fields or fields[1] != "POSIX" or int(fields[4]) != pid or int(fields[5].rsplit(":", 1)[1]) != inode:
                continue
            first, last = int(fields[6]), FIRST_LOCK + MARKS if fields[7] == "EOF" else int(fields[7])
            held.update(mark for mark in range(MARKS) if first <= FIRST_LOCK + mark <= last)
    return held


class PinWatch(threading.Thread):
    """`longest`: seconds. `wal`: the largest size of the WAL. `disk`: the largest size of all files below `directory`, less those it began with."""

    def __init__(self, pid, database, directory):
        super().__init__(daemon=True)
        self.pid, self.database, self.directory = pid, database, directory
        self.longest, self.wal, self.disk, self.begun_with = 0.0, 0, 0, self.below()
        self.ended = threading.Event()
        self.start()

    def below(self):
        total = 0
        for at, _, names in os.walk(self.directory):
            for name in names:
                try:
                    total += os.path.getsize(os.path.join(at, name))
                except FileNotFoundError:
                    pass
        return total

    def look(self, since):
        try:
            with open(self.database + "-shm", "rb") as index:
                inode = os.fstat(index.fileno()).st_ino
                marks = struct.unpack(f"={MARKS}I", os.pread(index.fileno(), 4 * MARKS, FIRST_MARK_AT))
            self.wal = max(self.wal, os.path.getsize(self.database + "-wal"))
        except FileNotFoundError:
            since.clear()
            return
        now = time.monotonic()
        held = {(mark, marks[mark]) for mark in held_marks(self.pid, inode)}
        for gone in set(since) - held:
            del since[gone]
        for one in held:
            self.longest = max(self.longest, now - since.setdefault(one, now))

    def run(self):
        since, looks = {}, 0
        while not self.ended.wait(0.005):
            self.look(since)
            looks += 1
            if looks % 20 == 0:
                self.disk = max(self.disk, self.below() - self.begun_with)

    def stop(self):
        self.ended.set()
        self.join()
