#!/usr/bin/env python3
"""A TCP proxy that counts, limits, delays, cuts, truncates and duplicates what passes, for tests of links.

    tests/tools/tcp_proxy.py HOST:PORT [--rate BYTES_PER_S] [--delay SECONDS]     prints its own port, runs until its input ends

As a module: Proxy(host, port) with up, down, connections, turns, rate, delay; cut() drops every connection; truncate_at() ends one at a byte;
duplicate makes each twice; close() ends it. Everything may be changed while connections run. Two threads for each direction of a connection: for
tests with few connections.
"""
import argparse
import queue
import socket
import sys
import threading
import time


class Proxy:
    def __init__(self, host, port, rate=None, delay=0.0, listen="127.0.0.1", narrow=False):
        self.target = (host, port)
        self.rate = rate  # bytes a second, each direction of each connection
        self.delay = delay  # seconds, each direction
        self.narrow = narrow  # what is on its way is some KiB, as on a slow line, and not what this machine's buffers take
        self.up = 0  # bytes from clients to the target
        self.down = 0
        self.connections = 0
        self.turns = 0  # how often the direction of what was delivered changed: two make a round trip
        self._upward = False
        self.refuse = False  # accept and close at once
        self.duplicate = False  # what comes of a client goes to a second connection to the target as well; what that answers is thrown away
        self.duplicates = 0  # second connections that were made
        self.duplicates_ended = 0  # of these, those that the target ended while the first one was still there
        self._truncate = {}  # by direction: bytes that still pass, and whether the end is a reset
        self._lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server((listen, 0))
        if narrow:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Resets every connection; new ones are accepted."""
        with self._lock:
            doomed = list(self._open)
        for one in doomed:
            self._close(one)

    def truncate_at(self, upward, count, reset=False):
        """The count-th byte from now in this direction is the last of its connection: its receiver sees the end of the stream there (FIN), and
        the sender goes on as if nothing was; or both ends are reset. Once; `truncating` says whether it is still to come."""
        with self._lock:
            self._truncate[upward] = (count, reset)

    @property
    def truncating(self):
        return bool(self._truncate)

    def close(self):
        self.refuse = True
        # A blocked accept() keeps the port: shutdown wakes it.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut()

    def _close(self, one):
        with self._lock:
            self._open.discard(one)
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        one.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target, timeout=10)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                self._open.update((client, server))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.narrow:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            second = self._second() if self.duplicate else None
            threading.Thread(target=self._pump, args=(client, server, True, second), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _second(self):
        try:
            second = socket.create_connection(self.target, timeout=10)
        except OSError:
            return None
        second.settimeout(None)
        with self._lock:
            self.duplicates += 1
            self._open.add(second)
        threading.Thread(target=self._drain, args=(second,), daemon=True).start()
        return second

    def _drain(self, second):
        try:
            while second.recv(65536):
                pass
        except OSError:
            pass
        with self._lock:
            self.duplicates_ended += second in self._open
        self._close(second)

    def _pump(self, source, sink, upward, second=None):
        """Takes what comes at once, and lets another thread deliver it: a delay is that of a long line, not of every piece."""
        line = queue.Queue(maxsize=4 if self.narrow else 256)
        threading.Thread(target=self._deliver, args=(line, source, sink, upward, second), daemon=True).start()
        try:
            while data := source.recv(65536 if not self.rate else max(1024, min(65536, self.rate // 20))):
                with self._lock:
                    if upward:
                        self.up += len(data)
                    else:
                        self.down += len(data)
                line.put((time.monotonic() + self.delay, data))
        except OSError:
            pass
        line.put((0, b""))

    def _passes(self, upward, data):
        """What of the data is delivered, and how the connection ends after it: None, "fin" or "reset"."""
        with self._lock:
            if upward not in self._truncate:
                return data, None
            count, reset = self._truncate[upward]
            if len(data) < count:
                self._truncate[upward] = (count - len(data), reset)
                return data, None
            del self._truncate[upward]
            return data[:count], "reset" if reset else "fin"

    def _deliver(self, line, source, sink, upward, second):
        due = time.monotonic()
        end = None
        try:
            while True:
                at, data = line.get()
                if not data:
                    break
                time.sleep(max(0.0, at - time.monotonic()))
                if self.rate:
                    due = max(due, time.monotonic() - 0.05) + len(data) / self.rate
                    time.sleep(max(0.0, due - time.monotonic()))
                with self._lock:
                    if upward != self._upward:
                        self._upward = upward
                        self.turns += 1
                data, end = self._passes(upward, data)
                sink.sendall(data)
                if second is not None:
                    second = self._send_second(second, data)
                if end is not None:
                    break
            if end == "fin":
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            end = None
        if second is not None:
            self._close(second)
        if end != "fin":  # else the other direction closes them, when the receiver has seen the end
            self._close(source)
            self._close(sink)
        while data and line.get()[1]:  # whoever still puts does not wait
            pass

    @staticmethod
    def _send_second(second, data):
        try:
            second.sendall(data)
            return second
        except OSError:  # the target has refused it
            return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--rate", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    host, port = options.target.rsplit(":", 1)
    proxy = Proxy(host.strip("[]"), int(port), options.rate, options.delay)
    print(proxy.port, flush=True)
    sys.stdin.read()
    print(f'{{"up":{proxy.up},"down":{proxy.down},"connections":{proxy.connections}}}', flush=True)


if __name__ == "__main__":
    main()
