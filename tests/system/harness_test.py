#!/usr/bin/env python3
"""Tests of the tools that the other system tests lean on: the proxy counts, limits, delays and cuts; the ledger's check finds damage."""
import contextlib
import json
import os
import signal
import socket
import sqlite3
import threading
import time

import lf


@contextlib.contextmanager
def echo_behind_proxy(**options):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=echo, args=(client,), daemon=True).start()

        def echo(client):
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    client.sendall(data)
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        proxy = lf.Proxy("127.0.0.1", server.getsockname()[1], **options)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
            yield proxy, client
        proxy.close()
        server.shutdown(socket.SHUT_RDWR)


def exchange(client, count):
    threading.Thread(target=client.sendall, args=(b"x" * count,), daemon=True).start()
    got = 0
    while got < count:
        data = client.recv(65536)
        lf.expect(data, f"the connection ended after {got} of {count} bytes")
        got += len(data)


def test_proxy_counts():
    with echo_behind_proxy() as (proxy, client):
        exchange(client, 300_000)
        lf.expect_equal((proxy.up, proxy.down, proxy.connections), (300_000, 300_000, 1), "counts")


def test_proxy_limits_and_delays():
    with echo_behind_proxy(rate=400_000) as (proxy, client):
        start = time.monotonic()
        exchange(client, 200_000)
        lf.expect(time.monotonic() - start > 0.35, "half a second's worth takes its time")
    with echo_behind_proxy(delay=0.1) as (proxy, client):
        start = time.monotonic()
        exchange(client, 10)
        lf.expect(time.monotonic() - start >= 0.2, "a round trip takes twice the delay")


def test_proxy_cuts():
    with echo_behind_proxy() as (proxy, client):
        exchange(client, 10)
        proxy.cut()
        with contextlib.suppress(ConnectionError):
            lf.expect_equal(client.recv(1), b"", "what a cut connection gives")
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as again:
            exchange(again, 10)


def test_ledger_check_finds_damage():
    with lf.Fleet() as fleet:
        for journal in ("wal", "delete"):
            path = fleet.path(f"{journal}.db")
            writer = fleet.writer(path, "--journal", journal, "--rate", 500, name=journal)
            lf.wait_until("commits", lambda: sqlite3.connect(path, timeout=20).execute("select seq from ledger").fetchone()[0] > 50)
            lf.expect_equal(writer.stop(), 0, "exit of the writer")
            report = json.loads(writer.text())
            lf.expect_equal(lf.check_ledger(path), report["last_seq"], "last transfer")
            lf.expect_equal(lf.tool("ledger_writer", "check", path, "--at-least", 10**9, check=False).returncode, 1, "a lost tail")
        for damage in ("update account set balance = balance + 1 where id = 7", "delete from transfer where seq = 20", "update ledger set seq = seq + 1"):
            copy = fleet.path("copy.db")
            with open(path, "rb") as source, open(copy, "wb") as target:
                target.write(source.read())
            db = sqlite3.connect(copy)
            db.execute(damage)
            db.commit()
            db.close()
            lf.expect_equal(lf.tool("ledger_writer", "check", copy, check=False).returncode, 1, damage)


def test_killed_writer_leaves_a_whole_ledger():
    with lf.Fleet() as fleet:
        path = fleet.path("x.db")
        writer = fleet.writer(path, "--rate", 0, "--log", fleet.path("log"))
        lf.wait_until("commits", lambda: os.path.getsize(fleet.path("log")) > 2000)
        writer.signal(signal.SIGKILL)
        writer.process.wait(20)
        with open(fleet.path("log"), encoding="utf-8") as file:
            last = [int(line.split()[0]) for line in file if line.endswith("\n")][-1]
        db = sqlite3.connect(path)  # recovers
        db.execute("pragma wal_checkpoint(truncate)")
        db.close()
        lf.check_ledger(path, last)


if __name__ == "__main__":
    lf.main(globals())
