"""How long a process keeps one state of a database, seen from outside: by its locks, every few milliseconds; too long rather than too short.

WAL mode: a reader holds one of five bytes of the -shm file (120 + 3 + i) and the mark beside it says which state it reads. As long as neither changes it is
taken for one transaction; a writer at work gives each later one another mark.
Rollback mode: a reader holds a shared lock on bytes of the database, and nobody can commit meanwhile: as long as there is one and the change counter in the
header stays the same it is taken for one transaction.
"""
import os
import struct
import threading
import time

FIRST_MARK_AT, FIRST_LOCK = 100, 123
MARKS = 5
SHARED_FIRST, SHARED_LAST = 0x40000002, 0x40000002 + 509
CHANGE_COUNTER_AT = 24


def locked(pid, inode):
    """The ranges (first, last byte) of the file that the process has locked, by /proc/locks."""
    with open("/proc/locks", encoding="utf-8") as locks:
        for line in locks:
            fields = line.split()
            if "->" in fields or fields[1] != "POSIX" or int(fields[4]) != pid or int(fields[5].rsplit(":", 1)[1]) != inode:
                continue
            yield int(fields[6]), float("inf") if fields[7] == "EOF" else int(fields[7])


def held_in_wal_mode(pid, database):
    """The read marks that the process holds, each with what it says."""
    with open(database + "-shm", "rb") as index:
        inode = os.fstat(index.fileno()).st_ino
        marks = struct.unpack(f"={MARKS}I", os.pread(index.fileno(), 4 * MARKS, FIRST_MARK_AT))
    return {(mark, marks[mark]) for first, last in locked(pid, inode) for mark in range(MARKS) if first <= FIRST_LOCK + mark <= last}


def held_in_rollback_mode(pid, database):
    """The change counter, where the process holds a shared lock."""
    with open(database, "rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        holds = any(first <= SHARED_LAST and last >= SHARED_FIRST for first, last in locked(pid, inode))
        return {os.pread(file.fileno(), 4, CHANGE_COUNTER_AT)} if holds else set()


class PinWatch(threading.Thread):
    """`longest`: seconds. `wal`: the largest size of the WAL. `disk`: the largest size of all files below `directory`, less those it began with."""

    def __init__(self, pid, database, directory, journal="wal"):
        super().__init__(daemon=True)
        self.pid, self.database, self.directory = pid, database, directory
        self.held = held_in_wal_mode if journal == "wal" else held_in_rollback_mode
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
            held = self.held(self.pid, self.database)
            if os.path.exists(self.database + "-wal"):
                self.wal = max(self.wal, os.path.getsize(self.database + "-wal"))
        except FileNotFoundError:
            held = set()
        now = time.monotonic()
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
