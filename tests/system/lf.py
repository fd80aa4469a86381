"""A fleet of real programs in a temporary directory, for the system tests: controller, agents, command line, writers, proxies.

A test file defines functions and ends with `lf.main(globals())`: every function named test_* is run in turn and reported as
"PASS system.FILE.NAME", "FAIL ..." with what went wrong, or "SKIP ...: reason" where it raised lf.Skip.
"""
import calendar
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(TOP, "tests", "tools"))
from tcp_proxy import Proxy  # noqa: E402,F401  (for the tests)

BIN = os.path.abspath(os.environ.get("LITEFLEET_BIN", os.path.join(TOP, "build", "dev", "bin")))
TOOLS = os.path.abspath(os.environ.get("LITEFLEET_TOOLS", os.path.join(TOP, "build", "dev", "tests")))


class Skip(Exception):
    """The machine lacks what the test needs."""


class Failure(AssertionError):
    pass


class AnyOf:
    """Equal to each of several values; for exit codes where more than one is right."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return other in self.values

    def __repr__(self):
        return " or ".join(map(str, self.values))


def expect(condition, message):
    if not condition:
        raise Failure(message)


def expect_equal(is_, wanted, what):
    expect(is_ == wanted, f"{what}: {is_!r} instead of {wanted!r}")


def wait_until(what, condition, timeout=60.0, every=0.05):
    """The first true value of condition()."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < deadline, f"{what}: not within {timeout:g} s")
        time.sleep(every)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tool(name, *args, check=True, timeout=300, **options):
    result = subprocess.run([os.path.join(TOOLS, name), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
                            **options)
    expect(not check or result.returncode == 0, f"{name} {' '.join(map(str, args))}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def check_ledger(path, at_least=0):
    """The invariants of a file that ledger_writer wrote; its last transfer."""
    return json.loads(tool("ledger_writer", "check", path, "--at-least", at_least).stdout)["seq"]


class Result:
    def __init__(self, args, done):
        self.args, self.code, self.out, self.err = args, done.returncode, done.stdout, done.stderr

    def __str__(self):
        return f"$ {' '.join(self.args)}\nexit {self.code}\n{self.out}{self.err}"

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise Failure(f"not one JSON document: {error}\n{self}") from error


class Process:
    """A program in the background, its output in a file."""

    def __init__(self, args, log, env=None, **options):
        self.args, self.log = [str(arg) for arg in args], log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True, **options)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        return self.process.wait(30)

    def stop(self, timeout=15):
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise Failure(f"{os.path.basename(self.args[0])} did not end within {timeout} s of SIGTERM\n{self.tail()}") from None

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tail(self, lines=25):
        return f"-- the end of {os.path.basename(self.log)}:\n" + "\n".join(self.text().splitlines()[-lines:])

    def peak_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))

    def written_bytes(self):
        with open(f"/proc/{self.pid}/io", encoding="utf-8") as file:
            return int(re.search(r"^write_bytes: (\d+)", file.read(), re.MULTILINE).group(1))


class Agent:
    def __init__(self, fleet, name):
        self.fleet, self.name = fleet, name
        self.state = fleet.path(f"{name}-state")
        self.config = fleet.path(f"{name}.toml")
        self.databases, self.settings, self.process = {}, "", None
        self.controller = fleet.address

    def write_config(self):
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f'state = "{self.state}"\ncontroller = "{self.controller}"\n{self.settings}\n')
            for name, (path, settings) in self.databases.items():
                file.write(f'\n[[database]]\nname = "{name}"\npath = "{path}"\n{settings}\n')

    def enroll(self, token=None, check=True, **options):
        token_file = self.fleet.path(f"{self.name}.token")
        with open(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(token or self.fleet.cli("token", "create").out)
        return self.fleet.program("litefleet-agent", "enroll", "--controller", self.controller, "--token-file", token_file, "--state", self.state, "--name",
                                  self.name, check=check, **options)

    def start(self, env=None, bin_folder=BIN, **options):
        self.write_config()
        self.process = Process([os.path.join(bin_folder, "litefleet-agent"), "run", "--config", self.config], self.fleet.path(f"{self.name}.log"),
                               env={**os.environ, **(env or {})}, **options)
        self.fleet.processes.append(self.process)
        return self.process

    def connected(self):
        listed = self.fleet.cli("-o", "json", "device", "list").json["items"]
        return any(device["name"] == self.name and device["connected"] for device in listed)

    def wait_connected(self, timeout=60):
        wait_until(f"{self.name} connects", self.connected, timeout, 0.2)


class Fleet:
    """Use as a context; everything it started ends with it."""

    def __init__(self, directory=None):
        self.directory = tempfile.mkdtemp(prefix="litefleet-test-", dir=directory)
        self.data = self.path("controller")
        self.processes, self.agents, self.proxies = [], {}, []
        self.controller, self.address, self.listen = None, None, "127.0.0.1:0"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        ended = {process.log: process.process.poll() for process in self.processes}
        for process in reversed(self.processes):
            if process.running():
                process.process.kill()
                process.process.wait(30)
        for proxy in self.proxies:
            proxy.close()
        if error is not None and not isinstance(error, Skip):
            for log, code in ended.items():
                print(f"{os.path.basename(log)}: the program {'ran to the end of the test' if code is None else f'had ended with {code}'}")
            for process in {process.log: process for process in self.processes}.values():
                print(process.tail())
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def program(self, name, *args, check=True, timeout=300, env=None, **options):
        args = [os.path.join(BIN, name), *map(str, args)]
        try:
            done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
                                  env={**os.environ, "LITEFLEET_DATA": self.data, **(env or {})}, **options)
        except subprocess.TimeoutExpired:
            raise Failure(f"{' '.join(args)}: still running after {timeout} s") from None
        result = Result([name, *args[1:]], done)
        if check is not False:  # also an AnyOf
            wanted = 0 if check is True else check
            expect(result.code == wanted, f"exit {result.code} instead of {wanted}\n{result}")
        return result

    def cli(self, *args, **options):
        return self.program("litefleet", *args, **options)

    def init(self):
        self.program("litefleet-controller", "init", "--data", self.data, "--host", "127.0.0.1", "--host", "localhost")

    def serve(self, env=None, extra=(), wrapper=()):
        """Starts the controller, after the first time on the port that it had, and waits until it serves. A wrapper (strace) is its parent."""
        ready = self.path("ready")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ready)
        self.controller = Process([*wrapper, os.path.join(BIN, "litefleet-controller"), "serve", "--data", self.data, "--listen", self.listen, "--ready-file", ready, *extra],
                                  self.path("controller.log"), env={**os.environ, **(env or {})})
        self.processes.append(self.controller)
        wait_until("the controller serves", lambda: os.path.exists(ready) or not self.controller.running(), 60)
        expect(os.path.exists(ready), f"the controller ended\n{self.controller.tail()}")
        with open(ready, encoding="utf-8") as file:
            self.address = self.listen = file.read().strip()
        return self.controller

    def proxy(self, **options):
        host, port = self.address.rsplit(":", 1)
        self.proxies.append(Proxy(host, int(port), **options))
        return self.proxies[-1]

    def agent(self, name, databases=None, settings="", controller=None, start=True):
        """A device with {name: path} or {name: (path, settings)}; enrolled, and running and connected unless start is False."""
        agent = self.agents[name] = Agent(self, name)
        agent.controller = controller or self.address
        agent.settings = settings
        for database, value in (databases or {}).items():
            agent.databases[database] = value if isinstance(value, tuple) else (value, "")
        agent.enroll()
        if start:
            agent.start()
            agent.wait_connected()
        return agent

    def writer(self, path, *args, name="writer"):
        """A ledger_writer that has made its tables."""
        ready = self.path(f"{name}.ready")
        process = Process([os.path.join(TOOLS, "ledger_writer"), "run", path, "--ready-file", ready, *args], self.path(f"{name}.log"))
        self.processes.append(process)
        wait_until("the writer starts", lambda: os.path.exists(ready) or not process.running(), 60)
        expect(process.running(), f"the writer ended\n{process.tail()}")
        return process

    def backup(self, target, *args, check=True, **options):
        """The operation's JSON document."""
        return self.cli("-o", "json", "backup", target, *args, check=check, **options).json

    def snapshot(self, target, *args, **options):
        """Backs up and gives the snapshot's id."""
        operation = self.backup(target, *args, **options)
        expect(operation.get("snapshot"), f"the backup names no snapshot: {operation}")
        return operation["snapshot"]

    def snapshots(self, *args):
        return self.cli("-o", "json", "snapshot", "list", *args).json["items"]

    def download(self, snapshot, name=None):
        path = self.path(name or f"{snapshot}.db")
        for before in (path, path + "-wal", path + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(before)
        self.cli("snapshot", "download", snapshot, "--output", path)
        return path


def make_shop(path, journal="wal", rows=500):
    """Tables with a foreign key, an index and AUTOINCREMENT."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma journal_mode={journal}")
    db.executescript("""
        create table customer(id integer primary key, name text);
        create table orders(id integer primary key autoincrement, customer references customer(id), total real);
        create index orders_customer on orders(customer);
        create table log(n integer primary key);
        """)
    db.execute("begin")
    db.executemany("insert into customer(name) values(?)", ((f"customer {i}",) for i in range(rows)))
    db.executemany("insert into orders(customer, total) values(?, ?)", ((1 + i % rows, i / 3) for i in range(rows * 4)))
    db.execute("commit")
    db.close()
    return path


def run_sql(path, sql):
    db = sqlite3.connect(path, timeout=20, isolation_level=None)
    db.executescript(sql)
    db.close()


def make_database(path, rows=1000, journal="wal", page_size=4096):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma page_size={page_size}")
    db.execute(f"pragma journal_mode={journal}")
    db.execute("create table item(id integer primary key, name text, data blob)")
    db.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) insert into item select i, 'item ' || i, randomblob(300) from n", (rows,))
    db.close()
    return path


def slow_to_check(path, seconds):
    """A database whose CHECK constraint takes a hundredth of a second a row, which nobody has waited for yet; and SQL text that loads as slowly:
    a load passes over constraints."""
    table = "create table slow(a check (instr(zeroblob(4000000 + a % 2), x'01') = 0))"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(table)
        database.execute("pragma ignore_check_constraints = on")
        database.execute(f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {seconds * 100}) insert into slow select i from n")
    with open(path + ".sql", "w", encoding="utf-8") as text:
        row = "insert into slow values(instr(zeroblob(4000000 + {}), x'01'));\n"
        text.write("begin;\ncreate table slow(a);\n" + "".join(row.format(i % 2) for i in range(seconds * 100)) + "commit;\n")
    return path


def seconds_of(text):
    """Of a time as the programs print it, which has no fraction where it is a whole second: as text it would be later than its own tenths."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float("0" + text[19:-1])


def content(path):
    """A digest of all rows, by SQL."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    digest = hashlib.sha256()
    for line in db.iterdump():
        digest.update(line.encode())
    db.close()
    return digest.hexdigest()


def integrity(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return "; ".join(row[0] for row in db.execute("pragma integrity_check"))
    finally:
        db.close()


def main(names):
    file = os.path.basename(sys.argv[0])[: -len("_test.py")]
    wanted = sys.argv[1:]
    failed = 0
    for name, test in list(names.items()):
        if not name.startswith("test_") or (wanted and name not in wanted and name[5:] not in wanted):
            continue
        label = f"system.{file}.{name[5:]}"
        start = time.monotonic()
        try:
            test()
            print(f"PASS {label} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as reason:
            print(f"SKIP {label}: {reason}", flush=True)
        except Failure as error:
            failed += 1
            print(f"{error}\nFAIL {label} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception:  # the next test still runs
            failed += 1
            traceback.print_exc(file=sys.stdout)
            print(f"FAIL {label} ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)
