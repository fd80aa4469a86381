#!/usr/bin/env python3
"""The commands as users and scripts meet them: exit codes, JSON shapes, errors on standard error, refusals."""
import json
import os
import re
import shutil
import stat
import time

import lf

SNAPSHOT = {"id", "device", "database", "method", "state", "timeline", "taken_at", "received_at", "page_size", "page_count", "size_bytes", "root_digest",
            "pages_sent", "wire_bytes", "stored_bytes", "duration_ms", "source_check", "check", "drilled_at", "parent"}
OPERATION = {"id", "kind", "state", "device", "database", "snapshot", "progress", "wire_bytes", "started_at", "ended_at", "error"}
DEVICE = {"id", "name", "labels", "state", "connected", "last_seen_at", "version", "clock_offset_ms", "certificate_expires_at"}
ULID = re.compile(r"^[0-9A-HJKMNP-TV-Z]{26}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def ready_fleet(fleet):
    fleet.init()
    fleet.serve()
    lf.make_database(fleet.path("a.db"))
    return fleet.agent("alpha", {"main": fleet.path("a.db")})


def has_fields(document, fields, what):
    lf.expect(fields <= set(document), f"{what}: without {sorted(fields - set(document))}: {document}")


def is_list(document, kind):
    lf.expect_equal((document["schema"], document["kind"]), (1, kind), "schema and kind")
    lf.expect("next_page_token" in document, "a list has next_page_token")
    return document["items"]


def test_usage_errors_end_with_2():
    with lf.Fleet() as fleet:
        for args in (["nonsense"], ["backup"], ["snapshot", "download"], ["-o", "xml", "status"], ["--nonsense", "status"], ["restore", "a/b", "--mode", "sideways"]):
            fleet.cli(*args, check=2)
        for program in ("litefleet-controller", "litefleet-agent"):
            lf.expect("has no command 'nonsense'" in fleet.program(program, "nonsense", check=2).err, f"{program} does not name the command")
            lf.expect("needs a command: " in fleet.program(program, check=2).err, f"{program} does not name the commands")
        for program, args in (("litefleet-controller", ["init", "--data"]), ("litefleet-agent", ["run", "--config"]), ("litefleet", ["status", "--data"])):
            lf.expect(f"{args[1]} needs a value" in fleet.program(program, *args, check=2).err, f"{program} {args}")
        lf.expect("--host?" in fleet.program("litefleet-controller", "init", "--hots", "a", check=2).err, "no nearest option")
        for program in ("litefleet", "litefleet-controller", "litefleet-agent"):
            lf.expect("Usage" in fleet.program(program, "--help").out or "usage" in fleet.program(program, "--help").out, f"{program} --help")
            fleet.program(program, "--version")


def test_unreachable_controller_is_7():
    with lf.Fleet() as fleet:
        fleet.cli("status", check=7)
        fleet.cli("--server", "127.0.0.1:1", "status", check=lf.AnyOf(7, 2))
        fleet.init()
        done = fleet.cli("-o", "json", "status", check=7)
        error = json.loads(done.err.strip().splitlines()[-1])["error"]
        has_fields(error, {"code", "reason", "message", "hint"}, "error")
        lf.expect_equal(done.out, "", "standard output of an error")


def test_init_refuses_a_used_directory_and_makes_private_keys():
    with lf.Fleet() as fleet:
        fleet.init()
        before = {name: os.stat(fleet.path("controller", name)).st_mtime_ns for name in os.listdir(fleet.data)}
        refused = fleet.program("litefleet-controller", "init", "--data", fleet.data, check=False)
        lf.expect(refused.code in (1, 2, 6), f"init into a used directory\n{refused}")
        lf.expect_equal({name: os.stat(fleet.path("controller", name)).st_mtime_ns for name in os.listdir(fleet.data)}, before, "what init had made")
        lf.expect_equal(stat.S_IMODE(os.stat(fleet.path("controller", "ca")).st_mode), 0o700, "mode of ca/")
        for folder, _, files in os.walk(fleet.data):
            for name in files:
                mode = stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
                lf.expect_equal(mode & 0o077, 0, f"bits of {name} for others")


def test_second_instances_end_with_6_and_name_the_pid():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        second = fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--listen", "127.0.0.1:0", check=6, timeout=20)
        lf.expect(str(fleet.controller.pid) in second.err, f"names the pid {fleet.controller.pid}\n{second}")
        second = fleet.program("litefleet-agent", "run", "--config", agent.config, check=6, timeout=20)
        lf.expect(str(agent.process.pid) in second.err, f"names the pid {agent.process.pid}\n{second}")


def test_json_of_every_list_and_thing():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        operation = fleet.backup("alpha/main")
        has_fields(operation, OPERATION | {"schema"}, "operation")
        lf.expect_equal(operation["state"], "succeeded", "state")
        lf.expect(ULID.match(operation["id"]) and ULID.match(operation["snapshot"]), f"ULIDs: {operation}")
        lf.expect_equal(operation["error"], None, "error of an operation that succeeded")
        progress = operation["progress"]
        lf.expect_equal(progress["done_bytes"], progress["total_bytes"], "progress at the end")

        devices = is_list(fleet.cli("-o", "json", "device", "list").json, "device_list")
        lf.expect_equal(len(devices), 1, "devices")
        has_fields(devices[0], DEVICE, "device")
        lf.expect_equal((devices[0]["name"], devices[0]["connected"], devices[0]["state"]), ("alpha", True, "active"), "device")
        lf.expect(TIME.match(devices[0]["certificate_expires_at"]), f"RFC 3339 in UTC: {devices[0]}")
        has_fields(fleet.cli("-o", "json", "device", "show", "alpha").json, DEVICE | {"schema", "kind"}, "device show")

        snapshots = is_list(fleet.cli("-o", "json", "snapshot", "list").json, "snapshot_list")
        lf.expect_equal(len(snapshots), 1, "snapshots")
        has_fields(snapshots[0], SNAPSHOT, "snapshot")
        lf.expect_equal(snapshots[0]["id"], operation["snapshot"], "the snapshot of the operation")
        lf.expect_equal((snapshots[0]["method"], snapshots[0]["state"], snapshots[0]["parent"]), ("online", "committed", None), "snapshot")
        lf.expect(re.fullmatch(r"[0-9a-f]{64}", snapshots[0]["root_digest"]), "root digest")
        lf.expect_equal(snapshots[0]["size_bytes"], os.path.getsize(fleet.path("a.db")), "size")
        has_fields(fleet.cli("-o", "json", "snapshot", "show", operation["snapshot"][:20]).json, SNAPSHOT, "snapshot show by a prefix")

        is_list(fleet.cli("-o", "json", "operation", "list").json, "operation_list")
        has_fields(fleet.cli("-o", "json", "operation", "show", operation["id"]).json, OPERATION, "operation show")
        is_list(fleet.cli("-o", "json", "database", "list").json, "database_list")
        is_list(fleet.cli("-o", "json", "token", "list").json, "token_list")
        token = fleet.cli("-o", "json", "token", "create").json
        has_fields(token, {"id", "token", "expires_at"}, "token")
        lf.expect(token["token"] not in json.dumps(fleet.cli("-o", "json", "token", "list").json), "tokens are shown once")
        for command in (["status"], ["version"], ["doctor"]):
            document = fleet.cli("-o", "json", *command, check=False).json
            lf.expect_equal(document["schema"], 1, f"schema of {command}")
        lf.expect_equal(fleet.cli("-o", "name", "device", "list").out.split(), ["alpha"], "-o name")
        agent.process.stop()
        fleet.controller.stop()


def test_not_found_and_bad_names():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        fleet.cli("device", "show", "nobody", check=4)
        fleet.cli("snapshot", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV", check=4)
        fleet.cli("operation", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV", check=4)
        fleet.cli("backup", "nobody/main", check=4)
        fleet.cli("backup", "alpha/nothing", check=4)
        fleet.cli("snapshot", "download", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--output", fleet.path("x"), check=4)
        lf.expect(not os.path.exists(fleet.path("x")), "a failed download leaves no file")


def test_tables_are_plain_and_narrow_without_a_terminal():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        fleet.backup("alpha/main")
        for command in (["status"], ["device", "list"], ["snapshot", "list"], ["operation", "list"], ["database", "list"], ["token", "list"]):
            done = fleet.cli(*command, env={"LC_ALL": "C", "LANG": "C"})
            lf.expect(done.out.isascii(), f"ASCII outside UTF-8\n{done}")
            lf.expect("\033" not in done.out, f"no colour in a pipe\n{done}")
            lf.expect(all(len(line) <= 100 for line in done.out.splitlines()), f"at most 100 columns\n{done}")


def test_destructive_commands_need_yes_without_a_terminal():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        snapshot = fleet.snapshot("alpha/main")
        before = lf.content(fleet.path("a.db"))
        refused = fleet.cli("restore", "alpha/main", "--snapshot", snapshot, check=2)
        lf.expect("--yes" in refused.err, f"says how\n{refused}")
        planned = fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--plan")
        lf.expect(planned.out, "a plan")
        lf.expect_equal(lf.content(fleet.path("a.db")), before, "the database after a plan")


def test_a_pin_may_end_by_itself():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        snapshot, other = fleet.snapshot("alpha/main"), fleet.snapshot("alpha/main")
        for bad in ("soon", "0s", "1h-", "7", ""):
            refused = fleet.cli("-o", "json", "snapshot", "pin", snapshot, "--for", bad, check=2)
            lf.expect_equal(json.loads(refused.err)["error"]["reason"], "DURATION_INVALID", bad)

        def show(wanted):
            return fleet.cli("-o", "json", "snapshot", "show", wanted).json

        lf.expect_equal((show(snapshot)["pinned"], show(snapshot)["pinned_until"]), (False, None), "not pinned")
        pinned = fleet.cli("snapshot", "pin", snapshot, "--for", "7d")
        lf.expect(f"snapshot {snapshot} is pinned until 20" in pinned.out, str(pinned))
        lf.expect(show(snapshot)["pinned_until"] is not None, "shown")
        lf.expect("by an operator, until 20" in fleet.cli("snapshot", "show", snapshot).out, "for people as well")
        fleet.cli("snapshot", "pin", other)
        listed = fleet.cli("snapshot", "list").out
        lf.expect("PIN ENDS" in listed and "in 6 d" in listed and "never" in listed, listed)
        lf.expect("when unpinned" in fleet.cli("-o", "wide", "snapshot", "list").out, "with more room")
        lf.expect_equal([item["pinned_until"] is None for item in fleet.snapshots("alpha/main")], [True, False], "in the list")
        lf.expect_equal((show(other)["pinned"], show(other)["pinned_until"]), (True, None), "until it is unpinned")
        fleet.cli("snapshot", "delete", snapshot, "--force", "--yes", check=6)
        fleet.cli("snapshot", "unpin", snapshot)
        lf.expect_equal((show(snapshot)["pinned"], show(snapshot)["pinned_until"]), (False, None), "unpinned")
        # It is over when it has passed, also for retention and the operator.
        fleet.cli("snapshot", "pin", snapshot, "--for", "1s")
        lf.wait_until("the pin has ended", lambda: fleet.cli("snapshot", "delete", snapshot, "--force", "--yes", check=lf.AnyOf(0, 6)).code == 0, 30, 0.2)


def test_an_offline_device_queues_and_ends_with_7():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        agent.process.stop()
        lf.wait_until("the device is offline", lambda: not agent.connected(), 30, 0.2)
        waited = fleet.cli("backup", "alpha/main", "--timeout", "2s", check=7, timeout=30)
        lf.expect("queued" in waited.err, f"says that it stays queued\n{waited}")
        detached = fleet.cli("-o", "json", "backup", "alpha/main", "--detach", timeout=30)
        lf.expect(detached.json["state"] in ("queued", "sent"), f"{detached}")
        agent.start()
        lf.wait_until("the stored order runs", lambda: len(fleet.snapshots("alpha/main")) >= 1, 60, 0.3)


def test_bad_agent_configuration_names_line_and_nearest_key():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        agent.process.stop()
        for text, expected in (('pth = "/x"', "path"), ('path = "relative.db"', "absolute"), ('schedule = "soon"', "schedule"), ("path = 7", "path"), ("[[", "")):
            with open(fleet.path("bad.toml"), "w", encoding="utf-8") as file:
                file.write(f'state = "{agent.state}"\ncontroller = "{fleet.address}"\n[[database]]\nname = "x"\n{text}\n')
            done = fleet.program("litefleet-agent", "run", "--config", fleet.path("bad.toml"), check=2, timeout=20)
            lf.expect(re.search(r"bad\.toml:5\b|line 5", done.err) or text == "[[", f"names the line\n{done}")
            lf.expect(expected in done.err, f"says {expected}\n{done}")
        missing = fleet.program("litefleet-agent", "run", "--config", fleet.path("none.toml"), check=lf.AnyOf(2, 4), timeout=20)
        lf.expect("none.toml" in missing.err, f"names the file\n{missing}")
        with open(fleet.path("bad-controller.toml"), "w", encoding="utf-8") as file:
            file.write("lisen = 1\n")
        fleet.controller.stop()
        fleet.program("litefleet-controller", "serve", "--data", fleet.data, "--config", fleet.path("bad-controller.toml"), check=2, timeout=20)


def test_damaged_key_files_are_named_and_end_with_2():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        agent.process.stop()
        certificate = os.path.join(agent.state, "identity", "device.pem")
        with open(certificate, encoding="utf-8") as file:
            good = file.read()
        for bad in ("", "no certificate", good[: len(good) // 2], good.replace("M", "N")):
            with open(certificate, "w", encoding="utf-8") as file:
                file.write(bad)
            done = fleet.program("litefleet-agent", "run", "--config", agent.config, check=2, timeout=20)
            lf.expect("device.pem" in done.err and "--for-device" in done.err, f"names the file and the way out\n{done}")
            doctor = fleet.program("litefleet-agent", "doctor", "--config", agent.config, check=lf.AnyOf(1, 2), timeout=60)
            lf.expect("device.pem" in doctor.out + doctor.err, f"the doctor says so\n{doctor}")
        with open(certificate, "w", encoding="utf-8") as file:
            file.write(good)
        agent.start()
        agent.wait_connected()

        with open(fleet.path("controller", "admin.pem"), encoding="utf-8") as file:
            operator = file.read()
        for bad in ("", "no key", operator[: len(operator) // 3], operator.replace("M", "N")):
            path = fleet.path("operator.pem")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(bad)
            done = fleet.cli("--server", fleet.address, "--identity", path, "device", "list", check=2, timeout=20)
            lf.expect("operator.pem" in done.err, f"names the file\n{done}")
            told = fleet.cli("--server", fleet.address, "--identity", path, "-o", "json", "device", "list", check=2, timeout=20)
            lf.expect_equal(json.loads(told.err)["error"]["reason"], "IDENTITY_INVALID", "reason")


def test_proxies_of_the_environment_are_not_asked():
    dead = {name: "http://127.0.0.1:1" for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve(env=dead)
        agent = fleet.agents["alpha"] = lf.Agent(fleet, "alpha")
        agent.controller = fleet.address.replace("127.0.0.1", "localhost")
        agent.databases["main"] = (lf.make_database(fleet.path("a.db")), "")
        agent.enroll(env=dead)
        agent.start(env=dead)
        agent.wait_connected()
        far = fleet.cli("--server", agent.controller, "--identity", fleet.path("controller", "admin.pem"), "-o", "json", "backup", "alpha/main", env=dead)
        lf.expect_equal(far.json["state"], "succeeded", "a backup that was ordered from afar")


def test_a_token_in_the_environment():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        token = fleet.cli("token", "create").out.strip()
        arguments = ("litefleet-agent", "enroll", "--controller", fleet.address, "--state", fleet.path("state"), "--name", "alpha")
        missing = fleet.program(*arguments, check=2)
        lf.expect("--token-file" in missing.err and "LITEFLEET_TOKEN" in missing.err, f"says both ways\n{missing}")
        fleet.program(*arguments, env={"LITEFLEET_TOKEN": token})
        lf.expect_equal([device["name"] for device in fleet.cli("-o", "json", "device", "list").json["items"]], ["alpha"], "devices")


def test_two_agents_of_one_identity_are_noticed_on_one_machine_too():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        cloned = lambda: [alarm for alarm in fleet.cli("-o", "json", "status").json["alarms"] if alarm["reason"] == "DEVICE_CLONED"]
        for _ in range(2):  # restarts are none
            agent.process.stop()
            agent.start()
            agent.wait_connected()
        lf.expect_equal(cloned(), [], "alarms")
        copy = fleet.agents["copy"] = lf.Agent(fleet, "copy")
        shutil.copytree(agent.state, copy.state)
        copy.databases["main"] = (fleet.path("a.db"), "")
        copy.start()
        alarm = lf.wait_until("the alarm", cloned, 60, 0.3)[0]
        lf.expect_equal(alarm["subject"], "alpha", "whom it is about")
        lf.expect("two agents" in alarm["message"] and "--for-device alpha" in alarm["message"], f"{alarm}")


def test_what_is_not_found_is_named_as_it_was_typed():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        for name, command in (("alpha/nothing", ["database", "show"]), ("nobody/main", ["database", "show"]), ("alpha/nothing", ["backup"]), ("nobody", ["device", "show"]),
                              (ulid, ["snapshot", "show"]), (ulid, ["snapshot", "check"]), (ulid, ["operation", "show"]), ("alpha/nothing", ["snapshot", "list"])):
            done = fleet.cli(*command, name, check=4)
            wanted = name.split("/")[0] if name.startswith("nobody") else name
            lf.expect(wanted in done.err, f"names {wanted}\n{done}")
        restore = fleet.cli("restore", "alpha/main", "--snapshot", ulid, "--yes", check=4)
        lf.expect(ulid in restore.err, f"{restore}")
        lf.expect("alpha/main" in fleet.cli("restore", "alpha/main", "--yes", check=4).err, "there is no snapshot of it yet")


def test_tokens_once_expired_and_wrong():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        token = fleet.cli("token", "create").out
        lf.expect_equal(len(token.split()), 1, "the token alone")
        first, second = lf.Agent(fleet, "one"), lf.Agent(fleet, "two")
        first.enroll(token)
        reused = second.enroll(token, check=5, timeout=60)
        lf.expect(token.strip() not in reused.err, "a token is never printed back")
        short = fleet.cli("token", "create", "--ttl", "1s").out
        time.sleep(1.5)  # its lifetime is real time
        second.enroll(short, check=5, timeout=60)
        garbage = lf.Agent(fleet, "three").enroll("not-a-token", check=lf.AnyOf(2, 5), timeout=60)
        lf.expect(garbage.err, "says why")
        taken = lf.Agent(fleet, "other")
        taken.name, taken.state = "one", fleet.path("other-state")
        taken.enroll(check=6, timeout=60)
        lf.expect_equal([device["name"] for device in fleet.cli("-o", "json", "device", "list").json["items"]], ["one"], "devices")


def is_narrow(text, what):
    for line in text.splitlines():
        lf.expect(len(line) <= 100, f"{what}: a line of {len(line)} columns: {line}")


def test_plans_of_several_tell_the_one_without_a_snapshot():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        for name in ("a", "b"):
            lf.make_database(fleet.path(f"{name}.db"), rows=10)
        agent = fleet.agent("alpha-with-quite-a-long-name-for-a-device", {"first": fleet.path("a.db"), "second": fleet.path("b.db")})
        first, second = f"{agent.name}/first", f"{agent.name}/second"
        fleet.cli("device", "label", agent.name, "site=oslo")
        fleet.snapshot(first)
        for which in (["--selector", "site=oslo"], [second, first]):
            done = fleet.cli("-o", "json", "restore", *which, "--plan", check=3)
            lf.expect_equal([item["target"] for item in done.json["items"]], [first], f"the plans of {which}")
            error = json.loads(done.err.strip().splitlines()[-1])["error"]
            lf.expect(error["code"] == "not_found" and second in error["message"], f"which has none: {error}")
        fleet.cli("restore", second, second, "--plan", check=4)
        is_narrow(fleet.cli("restore", first, "--plan").out, "the plan")
        # The others are restored, too, where a plan is shown first.
        fleet.cli("restore", "--selector", "site=oslo", "--yes", check=3)
        # A program reads nothing but the error.
        refused = fleet.cli("-o", "json", "restore", first, check=2)
        lf.expect_equal(json.loads(refused.err)["error"]["reason"], "CONFIRMATION_NEEDED", "standard error of -o json")
        lf.expect("restore of" in fleet.cli("restore", first, check=2).err, "people see the plan")
        status = fleet.cli("status").out
        is_narrow(status, "status")
        lf.expect("ago ago" not in status and "proven" in status, f"status\n{status}")


def test_where_nothing_can_be_written():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        snapshot = fleet.snapshot("alpha/main")
        for way in ([], ["--format", "sql"], ["--format", "csv"]):
            done = fleet.cli("-o", "json", "snapshot", "download", snapshot, "--output", fleet.path("nowhere", "x"), *way, check=4)
            error = json.loads(done.err)["error"]
            lf.expect_equal((error["reason"], bool(error["hint"])), ("DIRECTORY_NOT_FOUND", True), f"{way}: {error}")
            lf.expect(error["message"].endswith(fleet.path("nowhere")) and ".part" not in error["message"], f"the directory is not named: {error}")
        os.mkdir(fleet.path("csv"))
        done = fleet.cli("-o", "json", "snapshot", "download", snapshot, "--output", fleet.path("csv"), "--format", "csv", "--force", check=2)
        lf.expect_equal(json.loads(done.err)["error"]["reason"], "OUTPUT_INVALID", "--force with csv")
        fleet.cli("policy", "apply", fleet.path("csv"), check=2)
        fleet.cli("policy", "simulate", "--file", fleet.path("csv"), check=2)


def test_what_a_device_cannot_read_is_not_missing():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        os.mkdir(fleet.path("folder"))
        lf.make_database(fleet.path("a.db"), rows=10)
        agent = fleet.agent("alpha", {"main": fleet.path("a.db"), "folder": fleet.path("folder"), "none": fleet.path("none.db")})
        listed = {item["name"]: item for item in fleet.cli("-o", "json", "database", "list").json["items"]}
        lf.expect_equal(listed["folder"]["health"]["last_error"]["reason"], "NOT_REGULAR_FILE", "a directory")
        lf.expect_equal(listed["none"]["health"]["last_error"], None, "one that is not there")
        text = fleet.cli("database", "list").out
        lf.expect("unreadable" in text and "missing" in text, f"database list\n{text}")
        lf.expect("unreadable on the device" in fleet.cli("database", "show", "alpha/folder").out, "database show")
        device = fleet.cli("-o", "json", "device", "show", "alpha").json
        lf.expect(device["free_bytes"] is None or device["free_bytes"] > 0, f"free bytes before anything was said: {device['free_bytes']}")
        with open(agent.config, "a", encoding="utf-8") as file:
            file.write("nonsense = 1\n")
        fleet.program("litefleet-agent", "doctor", "--config", agent.config, check=2)


def test_operators_connect_by_their_file_from_elsewhere():
    with lf.Fleet() as fleet:
        ready_fleet(fleet)
        identity = fleet.path("controller", "admin.pem")
        far = fleet.cli("--server", fleet.address, "--identity", identity, "-o", "json", "device", "list", env={"LITEFLEET_DATA": "/nonexistent"})
        lf.expect_equal(len(far.json["items"]), 1, "devices seen from afar")
        fleet.cli("--server", fleet.address, "device", "list", check=lf.AnyOf(2, 5), env={"LITEFLEET_DATA": "/nonexistent"})
        mode = stat.S_IMODE(os.stat(fleet.path("controller", "admin.sock")).st_mode)
        lf.expect_equal(mode, 0o600, "mode of admin.sock")


def test_sigterm_ends_both_cleanly_within_10_s():
    with lf.Fleet() as fleet:
        agent = ready_fleet(fleet)
        lf.expect_equal(agent.process.stop(10), 0, "exit of the agent")
        lf.expect_equal(fleet.controller.stop(10), 0, "exit of the controller")
        lf.expect(not os.path.exists(fleet.path("ready")), "the ready file goes at exit")
        for name in ("controller.log", "alpha.log"):
            with open(fleet.path(name), encoding="utf-8") as file:
                lf.expect(not re.search(r"Sanitizer|terminate called|Assertion", file.read()), name)


def test_paths_with_spaces():
    with lf.Fleet() as outer:
        os.mkdir(outer.path("a b ü"))
        with lf.Fleet(outer.path("a b ü")) as fleet:
            fleet.init()
            fleet.serve()
            lf.make_database(fleet.path("my data.db"))
            fleet.agent("alpha", {"main": fleet.path("my data.db")})
            snapshot = fleet.snapshot("alpha/main")
            lf.expect_equal(lf.content(fleet.download(snapshot, "the copy.db")), lf.content(fleet.path("my data.db")), "content")


if __name__ == "__main__":
    lf.main(globals())
