#!/usr/bin/env python3
"""Files that a user names and that are missing, or may not be read: the error says by what the file was named, and what to do."""
import json
import os
import shutil
import subprocess

import lf


def commands(fleet, there, missing):
    """What names a file: the program, its arguments, the exit code where it is missing and where it may not be read, what has named it, and
    a word of what to do. `there` is a file that may be read."""
    agent, controller, cli = "litefleet-agent", "litefleet-controller", "litefleet"
    data = ["--data", fleet.data]
    return [
        (agent, ["enroll", "--controller", "localhost:1", "--state", fleet.path("nowhere"), "--token-file", missing], 2, 2, "--token-file", "litefleet token create"),
        (agent, ["run", "--config", missing], 2, 2, "--config", "agent.toml"),
        (agent, ["status", "--config", missing], 2, 2, "--config", "agent.toml"),
        (controller, ["serve", *data, "--config", missing], 2, 2, "--config", "controller.toml"),
        (controller, ["rebuild", *data, "--keys", missing], 4, 5, "--keys", "export-keys"),
        (controller, ["rebuild", *data, "--keys", there, "--passphrase-file", missing], 4, 5, "--passphrase-file", "first line"),
        (controller, ["export-keys", *data, "--output", fleet.path("new"), "--passphrase-file", missing], 4, 5, "--passphrase-file", "first line"),
        (cli, ["--server", "localhost:1", "--identity", missing, "device", "list"], 4, 5, "--identity", "operator create"),
        (cli, ["--server", f"unix:{fleet.data}/admin.sock", "key", "public", missing], 4, 5, "FILE", "key create"),
        (cli, ["policy", "apply", missing], 4, 5, "FILE", "policy apply --help"),
        (cli, ["snapshot", "import", missing, "--to", "alpha/main"], 4, 5, "FILE", "database file"),
    ]


def told(result, by, path, what):
    text = result.err + result.out
    lf.expect(f"{by}" in text and path in text and what in text, f"{by}, {path} and {what} are not all in\n{result}")
    lf.expect("open " not in text.split(path)[0], f"the bare error of a call\n{result}")


def test_a_missing_file():
    with lf.Fleet() as fleet:
        fleet.init()
        there = fleet.path("there")
        with open(there, "w", encoding="utf-8") as file:
            file.write("anything at all\n")
        missing = fleet.path("none", "such")
        for program, args, code, _, by, remedy in commands(fleet, there, missing):
            result = fleet.program(program, *args, check=code)
            told(result, by, missing, "there is no file")
            lf.expect(remedy in result.err + result.out, f"{remedy} is not what to do\n{result}")
        by_environment = fleet.program("litefleet", "--server", "localhost:1", "device", "list", check=4, env={"LITEFLEET_IDENTITY": missing})
        told(by_environment, "LITEFLEET_IDENTITY", missing, "there is no file")
        error = json.loads(fleet.cli("-o", "json", "policy", "apply", missing, check=4).err)["error"]
        lf.expect_equal((error["code"], error["reason"], bool(error["hint"])), ("not_found", "FILE_NOT_FOUND", True), error)
        # A relative one, from where it counts.
        relative = fleet.program("litefleet-agent", "run", "--config", "none.toml", check=2, cwd=fleet.directory)
        told(relative, "--config", f"none.toml in {os.path.realpath(fleet.directory)}", "there is no file")
        directory = fleet.cli("policy", "apply", fleet.directory, check=2)
        lf.expect("is a directory" in directory.err and "name the file in it" in directory.err, directory)


def test_a_file_that_cannot_be_made():
    with lf.Fleet() as fleet:
        fleet.init()
        passphrase = fleet.path("passphrase")
        with open(passphrase, "w", encoding="utf-8") as file:
            file.write("correct horse\n")
        new = fleet.path("none", "new")
        for program, args in (("litefleet-controller", ["operator", "create", "ada", "--data", fleet.data, "--output", new]),
                              ("litefleet-controller", ["export-keys", "--data", fleet.data, "--passphrase-file", passphrase, "--output", new]),
                              ("litefleet", ["key", "create", "--output", new])):
            result = fleet.program(program, *args, check=4)
            lf.expect(f"--output: there is no directory {fleet.path('none')}" in result.err and "make it" in result.err, result)
        # Before anybody is served.
        result = fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--listen", "127.0.0.1:0", "--ready-file", new, check=4)
        lf.expect("--ready-file: there is no directory" in result.err, result)


def test_a_file_that_may_not_be_read():
    if os.geteuid() != 0:
        raise lf.Skip("needs root to run as somebody else")
    with lf.Fleet() as fleet:
        fleet.init()
        os.chmod(fleet.directory, 0o711)
        os.mkdir(fleet.path("bin"), 0o755)
        for name in ("litefleet", "litefleet-agent", "litefleet-controller", "litefleet-check"):
            shutil.copy(os.path.join(lf.BIN, name), fleet.path("bin", name))
        there, closed = fleet.path("there"), fleet.path("closed")
        for path, mode in ((there, 0o644), (closed, 0o600)):
            with open(path, "w", encoding="utf-8") as file:
                file.write("anything at all\n")
            os.chmod(path, mode)

        def run(program, args, code):
            done = subprocess.run([fleet.path("bin", program), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                                  user=65534, group=65534, extra_groups=[], cwd="/")
            result = lf.Result([program, *args], done)
            lf.expect(done.returncode == code, f"exit {done.returncode} instead of {code}\n{result}")
            return result

        for program, args, _, code, by, _ in commands(fleet, there, closed):
            told(run(program, args, code), by, closed, "may not be read by this user (65534)")
        # The controller's own directory is its user's alone: it is neither missing nor damaged.
        for args in (["host", "add", "here.example", "--data", fleet.data], ["serve", "--data", fleet.data], ["operator", "revoke", "ada", "--data", fleet.data]):
            result = run("litefleet-controller", args, 5)
            lf.expect("may not be looked into by this user (65534)" in result.err and "as the user that the controller runs as" in result.err, result)


if __name__ == "__main__":
    lf.main(globals())
