#!/usr/bin/env python3
"""Runs every command of deploy/OPERATIONS.md, in its order, on an installed tree. Paths lead into a directory of the test's own; systemctl is
played by this file: it starts what the unit says and waits for its READY=1, as systemd does."""
import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import lf
from lf import expect, expect_equal

GUIDE = os.path.join(lf.TOP, "deploy", "OPERATIONS.md")


def commands():
    """(section, command) for each line with a prompt."""
    section, inside = "", False
    with open(GUIDE, encoding="utf-8") as file:
        for line in file:
            if line.startswith("```"):
                inside = line.strip() == "```console"
            elif inside:
                expect(line.startswith("# "), f"a console block holds commands alone: {line!r}")
                yield section, line[2:].rstrip("\n")
            elif line.startswith("## "):
                section = line[3:].strip()


class Machine:
    """Where the guide's paths lead to."""

    def __init__(self, top, port):
        self.top, self.port = top, port
        for path in ("bin", "root", "run", "etc", "var/lib/shop"):
            os.makedirs(os.path.join(top, path))
        self.env = {**os.environ, "PATH": f"{top}/bin:{top}/usr/bin:{os.environ['PATH']}", "LF_MACHINE": top, "LF_PORT": str(port),
                    "LITEFLEET_DATA": f"{top}/var/lib/litefleet"}
        self.env.pop("LITEFLEET_SERVER", None)
        self.shim("systemctl", f'exec "{sys.executable}" -B "{os.path.abspath(__file__)}" --systemctl "$@"')
        self.shim("systemd-sysusers", f'test -f "{top}/usr/lib/sysusers.d/$1"')
        self.shim("runuser", 'test "$1 $2 $3" = "-u litefleet --" && shift 3 && exec "$@"')
        self.shim("chown", 'test "$2" = litefleet:litefleet')

    def shim(self, name, text):
        path = os.path.join(self.top, "bin", name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)

    def run(self, command):
        return subprocess.run(["bash", "-c", "set -eo pipefail\n" + here(command, self.top, self.port)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120, check=False, env=self.env, cwd=self.top)


def here(text, top, port):
    text = re.sub(r"(?<![\w/.])/(usr/share|usr/bin|var/lib|etc/litefleet|root)(?=[/\s'\"$)])", lambda match: f"{top}/{match.group(1)}", text + " ").rstrip()
    # What else is not the test's: the user, the port, the name that only the example has, the agent's defaults.
    text = text.replace("-o litefleet -g litefleet ", "").replace("backup.example.org:8742", f"127.0.0.1:{port}").replace("backup.example.org", "127.0.0.1")
    text = re.sub(r"printf 'controller", f"printf 'state = \"{top}/var/lib/litefleet-agent\"\\\\ncontroller", text)
    return re.sub(r"^litefleet-agent status$", f"litefleet-agent status --config {top}/etc/litefleet/agent.toml", text)


def systemctl(words):
    """enable --now, start, stop, reload of one unit."""
    top, port = os.environ["LF_MACHINE"], os.environ["LF_PORT"]
    verb, unit = words[0], words[-1]
    with open(f"{top}/usr/lib/systemd/system/{unit}.service", encoding="utf-8") as file:
        start = re.search(r"^ExecStart=(.*)$", file.read(), re.MULTILINE).group(1)
    pid_file = f"{top}/run/{unit}.pid"
    pid = 0
    with contextlib.suppress(FileNotFoundError), open(pid_file, encoding="utf-8") as file:
        pid = int(file.read())
    if verb == "reload":
        os.kill(pid, signal.SIGHUP)
    if verb == "stop" and pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
            time.sleep(0.05)
        os.unlink(pid_file)
    if verb in ("enable", "start"):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"\0litefleet-test-{os.getpid()}")
        notify.settimeout(30)
        args = here(start, top, port).split()
        if unit == "litefleet-controller":
            args += ["--listen", f"127.0.0.1:{port}"]
        with open(f"{top}/{unit}.log", "ab") as log:
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                       env={**os.environ, "NOTIFY_SOCKET": f"@litefleet-test-{os.getpid()}"})
        with open(pid_file, "w", encoding="utf-8") as file:
            file.write(str(process.pid))
        while b"READY=1" not in notify.recv(4096):
            pass
    return 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_step():
    with lf.Fleet() as fleet:
        machine = Machine(fleet.path("machine"), free_port())
        done = subprocess.run(["cmake", "--install", os.path.dirname(lf.BIN), "--prefix", os.path.join(machine.top, "usr")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
        expect_equal(done.returncode, 0, done.stdout)
        database = lf.make_database(os.path.join(machine.top, "var/lib/shop/orders.db"))
        wanted = lf.content(database)
        count = 0
        try:
            for section, command in commands():
                done = machine.run(command)
                logs = "".join(lf.Process.tail(LogOf(os.path.join(machine.top, name))) for name in sorted(os.listdir(machine.top)) if name.endswith(".log"))
                expect_equal(done.returncode, 0, f"{section}: {command}\n{done.stdout}\n{logs if done.returncode else ''}")
                count += 1
                if command.endswith("systemctl start litefleet-controller") or command == "systemctl enable --now litefleet-agent":
                    if os.path.exists(f"{machine.top}/run/litefleet-agent.pid"):
                        lf.wait_until("the device is connected", lambda: '"connected":true' in machine.run("litefleet device list -o json").stdout.replace(" ", ""))
        finally:
            for unit in ("litefleet-agent", "litefleet-controller"):
                machine.run(f"systemctl stop {unit}")
        expect(count > 25, f"only {count} commands were found in the guide")
        expect_equal(lf.content(database), wanted, "content after all restores")
        expect_equal(lf.content(os.path.join(machine.top, "root/orders.db")), wanted, "content of the download")
        mode = stat.S_IMODE(os.stat(os.path.join(machine.top, "var/lib/litefleet")).st_mode)
        expect_equal(oct(mode), "0o700", "mode of the data directory")


class LogOf:
    def __init__(self, path):
        self.log = path

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--systemctl"]:
        sys.exit(systemctl(sys.argv[2:]))
    lf.main(globals())
