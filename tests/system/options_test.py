#!/usr/bin/env python3
"""Options and manners that no other test has: what each does is looked at by what it changes."""
import fcntl
import glob
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time

import lf


def fleet_of_one(fleet, rows=1000, **options):
    fleet.init()
    fleet.serve()
    return fleet.agent("alpha", {"main": lf.make_database(fleet.path("a.db"), rows=rows)}, **options)


class Terminal:
    """A command of litefleet at a terminal of its own."""

    def __init__(self, fleet, *args, env=None, controls=False):
        """`controls`: it is the terminal of a session, whose Ctrl-C and whose end are told by signals."""
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen([os.path.join(lf.BIN, "litefleet"), *args], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                        env={**os.environ, "TERM": "xterm", "LITEFLEET_DATA": fleet.data, **(env or {})},
                                        preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if controls else None)
        os.close(theirs)
        self.text = ""

    def read_until(self, word, timeout=60):
        """Until the word was shown; without one, to the end."""
        end = time.monotonic() + timeout
        while word is None or word not in self.text:
            lf.expect(time.monotonic() < end, f"no {word!r} at the terminal: {self.text!r}")
            if not select.select([self.ours], [], [], 0.2)[0]:
                continue
            try:
                self.text += os.read(self.ours, 4096).decode(errors="replace")
            except OSError:  # EIO: the command has ended
                lf.expect(word is None, f"it ended without {word!r}: {self.text!r}")
                break
        return self.text

    def type(self, text):
        os.write(self.ours, text.encode())

    def end(self):
        self.read_until(None)
        os.close(self.ours)
        return self.process.wait(30), self.text


def test_the_shell_of_a_snapshot():
    """At a terminal Ctrl-C is its own; however it ends, the copy goes."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it (nohup), and with that the shell would
    with lf.Fleet() as fleet:
        fleet_of_one(fleet)
        snapshot = fleet.snapshot("alpha/main")
        temporary = fleet.path("tmp")
        os.mkdir(temporary)

        def children(pid):
            with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
                return file.read().split()

        def shell():
            terminal = Terminal(fleet, "snapshot", "open", snapshot, env={"TMPDIR": temporary}, controls=True)
            terminal.read_until("sqlite> ")
            lf.expect_equal(len(os.listdir(temporary)), 1, "the copy, meanwhile")
            return terminal

        terminal = shell()
        terminal.type("select 'beg' || 'un'; with recursive c(i) as (select 1 union all select i + 1 from c) select count(*) from c;\n")
        terminal.read_until("begun")
        terminal.type("\x03")
        terminal.read_until("interrupted")
        terminal.type("select 'rows: ' || count(*) from item;\n")
        terminal.read_until("rows: 1000")
        terminal.type("delete from item;\n")
        terminal.read_until("readonly")
        terminal.type(".quit\n")
        code, text = terminal.end()
        lf.expect_equal((code, os.listdir(temporary)), (1, []), f"the end, with errors before it: {text!r}")
        terminal = shell()
        terminal.type("\x04")
        code, text = terminal.end()
        lf.expect_equal((code, os.listdir(temporary)), (0, []), f"the end: {text!r}")
        # A signal to the program ends the shell with it.
        terminal = shell()
        terminal.process.send_signal(signal.SIGTERM)
        code, text = terminal.end()
        lf.expect_equal((code, os.listdir(temporary)), (130, []), f"SIGTERM: {text!r}")
        # So does the end of the terminal, whatever the shell is at.
        terminal = shell()
        terminal.type("select 'beg' || 'un'; with recursive c(i) as (select 1 union all select i + 1 from c) select count(*) from c;\n")
        terminal.read_until("begun")
        os.close(terminal.ours)
        terminal.process.wait(30)
        lf.expect_equal(os.listdir(temporary), [], "the terminal was closed")
        # Standard input that is no terminal is SQL.
        args = [os.path.join(lf.BIN, "litefleet"), "snapshot", "open", snapshot]
        environment = {**os.environ, "LITEFLEET_DATA": fleet.data, "TMPDIR": temporary}
        done = subprocess.run(args, input="select count(*) from item;\nselect 6 * 7;\n", env=environment, capture_output=True, text=True, timeout=60, check=False)
        lf.expect_equal((done.returncode, done.stdout), (0, "1000\n42\n"), f"standard input: {done.stderr}")
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        lf.wait_until("the shell runs", lambda: children(process.pid))
        process.send_signal(signal.SIGTERM)
        lf.expect_equal((process.wait(30), os.listdir(temporary)), (130, []), "SIGTERM beside a pipe")
        process.stdin.close()


def test_questions_progress_and_colours_at_a_terminal():
    with lf.Fleet() as fleet:
        fleet_of_one(fleet, rows=30000, settings="[limits]\nupload = \"4MiB\"")
        backup = Terminal(fleet, "backup", "alpha/main")
        code, text = backup.end()
        lf.expect_equal(code, 0, text)
        lf.expect(re.search(r"\r\x1b\[K[^\r\n]*alpha/main: [^\r\n]*\d+% ", text), f"a progress line: {text!r}")
        lf.expect("% " not in text.rsplit("\x1b[K", 1)[-1], f"the line is taken away at the end: {text!r}")
        # Colours at a terminal alone, and not for who does not want them.
        colour = "\x1b[3"
        lf.expect(colour in Terminal(fleet, "status").end()[1], "colours")
        for args, env in ((["--no-color", "status"], {}), (["status"], {"NO_COLOR": "1"}), (["status"], {"TERM": "dumb"})):
            lf.expect(colour not in Terminal(fleet, *args, env=env).end()[1], f"no colours: {args} {env}")
        lf.expect("\x1b" not in fleet.cli("status").out, "no colours in a pipe")
        # A question: no, then yes.
        for answer, code, state in (("n", 1, "active"), ("y", 0, "revoked")):
            asked = Terminal(fleet, "device", "revoke", "alpha")
            asked.read_until("[y/N]")
            os.write(asked.ours, f"{answer}\n".encode())
            ended, text = asked.end()
            lf.expect_equal(ended, code, f"exit code after {answer}: {text}")
            lf.expect_equal(fleet.cli("-o", "json", "device", "show", "alpha").json["state"], state, f"state after {answer}")


def test_tokens_uses_labels_and_revocation():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        token = fleet.cli("token", "create", "--uses", "2", "--label", "site=oslo", "--label", "kind=kiosk").out
        listed = fleet.cli("-o", "json", "token", "list").json["items"][0]
        lf.expect_equal((listed["uses_left"], listed["uses_total"], listed["labels"]), (2, 2, {"site": "oslo", "kind": "kiosk"}), "token")
        for name in ("one", "two"):
            lf.Agent(fleet, name).enroll(token)
        lf.Agent(fleet, "three").enroll(token, check=5)
        lf.expect_equal(sorted(device["name"] for device in fleet.cli("-o", "json", "device", "list", "--selector", "site=oslo").json["items"]), ["one", "two"], "devices")
        # Labels are set and taken away, and a device gets another name.
        fleet.cli("device", "label", "one", "site=bergen", "kind-")
        lf.expect_equal(fleet.cli("-o", "json", "device", "show", "one").json["labels"], {"site": "bergen"}, "labels")
        fleet.cli("device", "rename", "one", "first")
        fleet.cli("device", "show", "one", check=4)
        lf.expect_equal(fleet.cli("-o", "json", "device", "show", "first").json["labels"], {"site": "bergen"}, "the renamed device")
        # A revoked token is refused at once.
        token = fleet.cli("token", "create", "--uses", "5").out
        fleet.cli("token", "revoke", fleet.cli("-o", "json", "token", "list").json["items"][0]["id"])
        lf.Agent(fleet, "four").enroll(token, check=5)


def test_backups_by_selector_and_how_long_they_wait():
    with lf.Fleet() as fleet:
        fleet_of_one(fleet)
        fleet.agent("beta", {"main": lf.make_database(fleet.path("b.db"))})
        fleet.agent("gamma", {"main": lf.make_database(fleet.path("c.db"))})
        for name in ("alpha", "beta"):
            fleet.cli("device", "label", name, "site=oslo")
        done = fleet.cli("backup", "--selector", "site=oslo", "--quiet")
        lf.expect_equal(done.err, "", "--quiet says nothing beside the result")
        lf.expect_equal(sorted(one["device"] for one in fleet.snapshots()), ["alpha", "beta"], "devices with snapshots")
        # A device that is away: --timeout ends the wait, --expire the order.
        fleet.agents["gamma"].process.stop()
        lf.wait_until("gamma is away", lambda: not fleet.agents["gamma"].connected())
        begin = time.monotonic()
        fleet.cli("backup", "gamma/main", "--timeout", "1s", "--expire", "3s", check=7)
        lf.expect(time.monotonic() - begin < 20, "--timeout was kept")
        state = lambda: fleet.cli("-o", "json", "operation", "list", "--device", "gamma").json["items"][0]["state"]
        lf.wait_until("the order expires", lambda: state() == "expired", 20, 0.2)


def test_stale_databases():
    with lf.Fleet() as fleet:
        fleet_of_one(fleet)
        fleet.agent("beta", {"main": lf.make_database(fleet.path("b.db"))})
        fleet.backup("alpha/main")
        listed = lambda *args: fleet.cli("-o", "name", "database", "list", *args).out.split()
        lf.expect_equal(listed("--stale"), ["beta/main"], "--stale: a day, or never")
        time.sleep(1.1)  # real time: the snapshot gets older than a second
        lf.expect_equal(sorted(listed("--stale", "--stale-after", "1s")), ["alpha/main", "beta/main"], "--stale-after")
        lf.expect_equal(listed("--stale", "--stale-after", "1h"), ["beta/main"], "--stale-after 1h")
        status = fleet.cli("status").out
        lf.expect(re.match(r"last proven: +never for [12] of 2 databases, (beta|alpha)/main waits longest", status), status)
        lf.expect(re.search(r"newest backup: +alpha/main \(", status), status)


def test_the_first_number_of_status_is_the_oldest_that_is_proven():
    with lf.Fleet() as fleet:
        agent = fleet_of_one(fleet)
        first = lambda: " ".join(fleet.cli("status").out.split())  # long ones are broken
        never = r"last proven: never for {} databases, {} waits longest"
        lf.expect(re.match(never.format("1 of 1", "alpha/main"), first()), first())
        fleet.snapshot("alpha/main")
        proven = r"last proven: \d+ (s|min) ago, alpha/main, taken \S"
        lf.wait_until("it is checked", lambda: re.match(proven, first()), 60, 0.2)
        # Of several the oldest counts, until one has none at all.
        taken = fleet.cli("-o", "json", "status").json["oldest_proven_at"]
        agent.databases["more"] = (lf.make_database(fleet.path("more.db")), "")
        agent.process.stop()
        agent.start()
        both = r"last proven: never for 1 of 2 databases, alpha/more waits longest; else \d+ (s|min) ago, alpha/main, taken \S"
        lf.wait_until("the new one is known", lambda: re.match(both, first()), 60, 0.2)
        fleet.snapshot("alpha/more")
        lf.wait_until("the new one is checked", lambda: re.match(proven, first()), 60, 0.2)
        lf.expect_equal(fleet.cli("-o", "json", "status").json["oldest_proven_at"], taken, "the older of the two")


def test_what_deduplication_and_compression_save():
    with lf.Fleet() as fleet:
        fleet_of_one(fleet, rows=5000)
        # Half of it compresses to next to nothing.
        lf.run_sql(fleet.path("a.db"), "insert into item select id + 10000, name, zeroblob(300) from item; pragma wal_checkpoint(truncate)")
        shown = lambda: dict(re.split(r": +", line, maxsplit=1) for line in fleet.cli("store", "stats").out.splitlines() if re.match(r"[a-z ]+: ", line))
        lf.expect_equal((shown()["deduplication"], shown()["compression"]), ("-", "-"), "of an empty store")
        for _ in range(3):
            fleet.snapshot("alpha/main", "--full")
        stats = fleet.cli("-o", "json", "store", "stats").json
        ratios = {"deduplication": stats["logical_bytes"] / stats["chunk_raw_bytes"], "compression": stats["chunk_raw_bytes"] / stats["chunk_stored_bytes"]}
        lf.expect_equal(stats["logical_bytes"], 3 * os.path.getsize(fleet.path("a.db")), "logical bytes")
        lf.expect_equal({name: shown()[name] for name in ratios}, {name: f"{ratio:.2f}" for name, ratio in ratios.items()}, "ratios")
        lf.expect(2.9 < ratios["deduplication"] < 3.3, f"three equal ones are stored once: {ratios}")
        lf.expect(1.3 < ratios["compression"] < 3, f"half of it is zeros: {ratios}")


def test_run_once():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = lf.make_database(fleet.path("a.db"))
        agent = fleet.agent("alpha", {"main": (path, 'schedule = "1h"')}, start=False)
        agent.write_config()
        for _ in range(2):  # what is due, then nothing
            fleet.program("litefleet-agent", "run", "--once", "--config", agent.config, timeout=120)
        lf.expect_equal(len(fleet.snapshots("alpha/main")), 1, "snapshots")
        # An order that waited is taken.
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--full", "--detach").json["id"]
        fleet.program("litefleet-agent", "run", "--once", "--config", agent.config, timeout=120)
        lf.expect_equal(fleet.cli("-o", "json", "operation", "show", order).json["state"], "succeeded", "the order")


def test_environment_names_server_and_identity():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        ada = fleet.path("ada.pem")
        fleet.program("litefleet-controller", "operator", "create", "ada", "--data", fleet.data, "--output", ada)
        elsewhere = {"LITEFLEET_DATA": fleet.path("nowhere"), "LITEFLEET_SERVER": fleet.address}
        fleet.cli("token", "create", env={**elsewhere, "LITEFLEET_IDENTITY": ada})
        fleet.cli("token", "create", env=elsewhere, check=lf.AnyOf(2, 5))
        fleet.cli("--server", "127.0.0.1:1", "status", env={**elsewhere, "LITEFLEET_IDENTITY": ada}, check=7)  # what is typed wins


def test_init_without_a_host_and_a_port_in_use():
    with lf.Fleet() as fleet:
        fleet.program("litefleet-controller", "init", "--data", fleet.data)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            refused = fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--listen", f"127.0.0.1:{taken.getsockname()[1]}", check=6)
            lf.expect("listens there" in refused.err, str(refused))
        fleet.serve()  # the names that it made up are this host's
        doctor = fleet.cli("-o", "json", "doctor", check=lf.AnyOf(0, 1)).json["findings"]
        lf.expect_equal([one for one in doctor if one["check"] == "tls" and one["level"] != "ok"], [], "tls by the names of this host")


def test_a_bad_configuration_keeps_the_old_one_and_a_second_sigterm_ends():
    with lf.Fleet() as fleet:
        agent = fleet_of_one(fleet, rows=60000, settings="[limits]\nupload = \"1MiB\"")
        with open(agent.config, "a", encoding="utf-8") as file:
            file.write('\nnonsense = "x"\n')
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("the mistake is told", lambda: "nonsense" in agent.process.text(), 30)
        lf.expect(agent.process.running() and agent.connected(), "it goes on")
        order = fleet.cli("-o", "json", "backup", "alpha/main", "--detach").json["id"]
        running = lambda: fleet.cli("-o", "json", "operation", "show", order).json["progress"]["done_bytes"] > 0
        lf.wait_until("a backup by the old configuration runs", running, 60, 0.2)
        begin = time.monotonic()
        while agent.process.running():
            agent.process.signal(signal.SIGTERM)
            lf.expect(time.monotonic() - begin < 5, "the second SIGTERM ends it at once")
            time.sleep(0.01)
        code = agent.process.process.returncode
        print(f"ended with {code} after {time.monotonic() - begin:.2f} s")
        lf.expect(code in (0, -signal.SIGTERM), f"exit code {code}")  # 0: the first was enough


def findings(done):
    return {one["check"]: (one["level"], one["message"]) for one in done.json["findings"]}


def test_the_operators_doctor_looks_at_its_own_way():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        local = findings(fleet.cli("-o", "json", "doctor", check=lf.AnyOf(0, 1)))
        lf.expect_equal(local["connection"][0], "ok", local)
        ada = fleet.path("ada.pem")
        fleet.program("litefleet-controller", "operator", "create", "ada", "--data", fleet.data, "--output", ada)
        far = lambda server, identity, check: findings(
            fleet.cli("-o", "json", "--server", server, *(["--identity", identity] if identity else []), "doctor", check=check, env={"LITEFLEET_DATA": fleet.path("nowhere")}))
        well = far(fleet.address, ada, lf.AnyOf(0, 1))
        lf.expect_equal([well[check][0] for check in ("name-resolution", "identity", "connection")], ["ok"] * 3, well)
        nobody = far(fleet.address, "", lf.AnyOf(2, 5, 7))
        lf.expect_equal((nobody["identity"][0], nobody["connection"][0]), ("fail", "fail"), nobody)
        astray = far("no-such-host.invalid:1", ada, 7)
        lf.expect_equal((astray["name-resolution"][0], astray["connection"][0]), ("fail", "fail"), astray)
        # A file that no CA has issued: refused by name.
        pem = fleet.path("own.pem")
        make_identity(fleet, pem, 20, {}, issued=False)
        found = far(fleet.address, pem, 2)
        lf.expect_equal(found["identity"][0], "fail", found)
        # Certificates of another CA, since the fleet's are young: one that ends soon, one that has ended.
        far_away = {"FAKETIME": "-10d", "LD_PRELOAD": (glob.glob("/usr/lib/*/faketime/libfaketime.so.1") or [""])[0]}
        for days, level, env in ((20, "warn", {}), (1, "fail", far_away)):
            if env.get("LD_PRELOAD") == "":
                raise lf.Skip("there is no libfaketime; all but an expired certificate was looked at")
            make_identity(fleet, pem, days, env)
            found = far(fleet.address, pem, lf.AnyOf(1, 5, 7))
            lf.expect_equal((found["identity"][0], found["connection"][0]), (level, "fail"), found)


def make_identity(fleet, pem, days, env, issued=True):
    """An operator's file of a CA that the controller does not know; not issued: a certificate that signed itself."""
    os.makedirs(fleet.path("ca"), exist_ok=True)
    openssl = lambda *args: subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=fleet.path("ca"), env={**os.environ, **env})
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new_key, "-subj", "/CN=CA", "-days", str(days), "-keyout", "ca-key", "-out", "ca")
    parts = ["ca-key", "ca"]
    if issued:
        openssl("req", "-new", *new_key, "-subj", "/CN=ada", "-keyout", "key", "-out", "request")
        openssl("x509", "-req", "-in", "request", "-CA", "ca", "-CAkey", "ca-key", "-CAcreateserial", "-days", str(days), "-out", "own")
        parts = ["key", "own", "ca"]
    with open(os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        for part in parts:
            with open(fleet.path("ca", part), encoding="utf-8") as source:
                file.write(source.read())


def test_the_devices_doctor_beside_a_running_controller():
    with lf.Fleet() as fleet:
        os.mkdir(fleet.path("files"))
        rules = '[[files]]\nname = "conf"\nroot = "{}"\ninclude = ["**"]\n'
        agent = fleet_of_one(fleet)
        with open(agent.config, "a", encoding="utf-8") as file:
            file.write(rules.format(fleet.path("files")))
        found = findings(fleet.program("litefleet-agent", "doctor", "--config", agent.config, "-o", "json"))
        lf.expect_equal((found["tls"][0], found["files"][0]), ("ok", "ok"), found)
        os.rmdir(fleet.path("files"))
        found = findings(fleet.program("litefleet-agent", "doctor", "--config", agent.config, "-o", "json", check=1))
        lf.expect_equal(found["files"][0], "fail", found)


def test_a_reload_shows_other_databases_at_once():
    """Not with the next health, which comes once a minute."""
    with lf.Fleet() as fleet:
        agent = fleet_of_one(fleet)
        listed = lambda: {one["name"]: one for one in fleet.cli("-o", "json", "database", "list").json["items"]}

        def configure(*names):
            for name in set(names) - set(agent.databases):
                agent.databases[name] = (lf.make_database(fleet.path(f"{name}.db"), rows=10), "")
            for name in set(agent.databases) - set(names):
                del agent.databases[name]
            agent.write_config()
            agent.process.signal(signal.SIGHUP)

        configure("main", "second")
        lf.wait_until("another database is shown", lambda: "second" in listed(), 30, 0.2)
        configure("main", "third")
        lf.wait_until("one more is shown", lambda: "third" in listed(), 30, 0.2)
        reported = listed()["second"]["reported_at"]
        # What was taken away stays as it was reported last, for what it has snapshots of; so it does after a restart.
        agent.process.stop()
        agent.start()
        agent.wait_connected()
        lf.wait_until("the others are reported", lambda: listed()["third"]["reported_at"] > reported, 30, 0.2)
        lf.expect_equal(listed()["second"]["reported_at"], reported, "what was taken away")


def test_a_controller_of_another_ca_is_named_by_doctor_log_and_status():
    """As where a controller was made anew in the old one's place."""
    with lf.Fleet() as fleet, lf.Fleet() as other:
        agent = fleet_of_one(fleet)
        other.init()
        other.serve()
        doctor = lambda check: findings(fleet.program("litefleet-agent", "doctor", "--config", agent.config, "-o", "json", check=check))
        status = lambda *args: fleet.program("litefleet-agent", "status", "--config", agent.config, *args)
        lf.expect_equal((doctor(0)["tls"][0], status("-o", "json").json["connection_error"]), ("ok", None), "with its own controller")
        agent.controller = other.address
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        said = "it was issued by another CA than the trusted one"
        lf.wait_until("the log says it", lambda: said in agent.process.text(), 30)
        lf.wait_until("the status says it", lambda: said in (status("-o", "json").json["connection_error"] or ""), 30, 0.2)
        lf.expect("no connection: " in status().out and said in status().out, str(status()))
        level, message = doctor(1)["tls"]
        lf.expect(level == "fail" and said in message and other.address in message, f"{level}: {message}")
        agent.controller = fleet.address
        agent.write_config()
        agent.process.signal(signal.SIGHUP)
        lf.wait_until("it is connected again", lambda: status("-o", "json").json["connection_error"] is None, 30, 0.2)


if __name__ == "__main__":
    lf.main(globals())
