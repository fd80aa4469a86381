#!/usr/bin/env python3
"""Restores that are undone, hooked, confirmed on the device, signed, local, and done in waves: with real programs, as operators and devices do it."""
import os
import re
import sqlite3

import lf
from lf import Fleet, expect, expect_equal, wait_until


def label(path):
    db = sqlite3.connect(path, timeout=20)
    try:
        return db.execute("select v from label").fetchone()[0]
    finally:
        db.close()


def make(path, text):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("create table label(v)")
    db.execute("insert into label values(?)", (text,))
    db.execute("create table item(id integer primary key, data blob)")
    db.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) insert into item select i, randomblob(300) from n")
    db.close()
    return path


def relabel(path, text):
    db = sqlite3.connect(path, timeout=20, isolation_level=None)
    db.execute("update label set v = ?", (text,))
    db.close()


def script(path, body):
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n" + body + "\n")
    os.chmod(path, 0o700)
    return path


def operation(fleet, ident):
    return fleet.cli("-o", "json", "operation", "show", ident).json


def test_undo_and_hooks():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("app.db"), "first")
        hooks = fleet.path("hooks")
        os.mkdir(hooks, 0o700)
        log = fleet.path("hooks.log")
        for name in ("before_backup", "after_backup", "before_restore", "after_restore"):
            script(f"{hooks}/{name}", f'echo "$LITEFLEET_HOOK $LITEFLEET_KIND $LITEFLEET_DATABASE $LITEFLEET_STATE" >> {log}; echo told')
        settings = "\n".join(f'{name} = "{hooks}/{name}"' for name in ("before_backup", "after_backup", "before_restore", "after_restore"))
        fleet.agent("kiosk", {"app": (path, settings)}, settings=f'[hooks]\ndirectory = "{hooks}"')
        refused = fleet.cli("undo", "kiosk/app", "--yes", check=4)
        expect("UNDO_MISSING" in refused.err + refused.out, str(refused))
        first = fleet.snapshot("kiosk/app")
        relabel(path, "second")
        plan = fleet.cli("restore", "kiosk/app", "--snapshot", first, "--plan").out
        expect(f"before-restore: {hooks}/before_restore" in plan, plan)
        restored = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", first, "--yes").json
        expect_equal(label(path), "first", "the restored state")
        expect_equal([run["hook"] for run in restored["hooks"]], ["before-restore", "after-restore"], "the hooks of the restore")
        expect_equal([run["output"] for run in restored["hooks"]], ["told\n", "told\n"], "what they wrote")
        planned = fleet.cli("undo", "kiosk/app", "--plan").out
        expect("copy the kept state into" in planned, planned)
        expect_equal(label(path), "first", "after a plan")
        expect_equal(fleet.cli("undo", "kiosk/app", check=2).code, 2, "without a terminal and --yes")
        fleet.cli("undo", "kiosk/app", "--restore", restored["id"], "--yes")
        expect_equal(label(path), "second", "after the undo")
        undone = fleet.cli("-o", "json", "undo", "kiosk/app", "--yes").json
        expect_equal((undone["kind"], undone["state"]), ("undo", "succeeded"), "the undo of the undo")
        expect_equal(label(path), "first", "after the undo of the undo")
        expect_equal(fleet.cli("undo", "kiosk/app", "--restore", restored["id"], "--yes", check=6).code, 6, "another one was the last")
        kept, drop = path + ".litefleet-undo", ("-o", "json", "undo", "kiosk/app", "--drop")
        fleet.cli(*drop, check=2)
        fleet.cli(*drop, "--plan", check=2)
        superseded = fleet.cli(*drop, "--restore", restored["id"], "--yes", check=6).json
        expect_equal(superseded["error"]["reason"], "UNDO_SUPERSEDED", "another one was the last")
        expect(os.path.exists(kept), "nothing was dropped")
        dropped = fleet.cli(*drop, "--yes").json
        expect_equal((dropped["kind"], dropped["state"], dropped["steps"]), ("drop_undo", "succeeded", [f"removed {kept}"]), "the drop of the undo")
        expect(not os.path.exists(kept), "dropped")
        expect_equal(fleet.cli(*drop, "--yes").json["steps"], ["nothing was kept of it"], "once more")
        expect_equal(label(path), "first", "the database is as it was")
        with open(log, encoding="utf-8") as file:
            said = file.read().split("\n")
        expect_equal(said[:4], ["before-backup backup app ", "after-backup backup app succeeded", "before-restore restore app ", "after-restore restore app succeeded"],
                     "what hooks were told")
        # A hook that fails stops a backup, and takes a restore back.
        script(f"{hooks}/before_backup", "echo not now; exit 7")
        failed = fleet.backup("kiosk/app", check=6)
        expect_equal(failed["error"]["reason"], "HOOK_FAILED", "the backup")
        expect("not now" in fleet.cli("operation", "show", failed["id"]).out, "operation show has what the hook wrote")
        script(f"{hooks}/before_backup", "true")
        relabel(path, "third")
        script(f"{hooks}/after_restore", 'test "$LITEFLEET_KIND" = undo')
        failed = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", first, "--yes", check=6).json
        expect_equal(failed["error"]["reason"], "HOOK_FAILED", "the restore")
        expect_equal(label(path), "third", "the previous state is back")
        # After an undo backups go on, on the new timeline.
        expect(fleet.snapshot("kiosk/app") != first, "a new snapshot")


def test_rules_of_the_device():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        asked, signed = make(fleet.path("asked.db"), "old"), make(fleet.path("signed.db"), "old")
        keys = fleet.path("order-keys")
        key = fleet.path("ada.key")
        with open(keys, "w", encoding="utf-8") as file:
            file.write(fleet.cli("key", "create", "--output", key).out)
        os.chmod(keys, 0o644)
        agent = fleet.agent("kiosk", {"asked": (asked, 'push_restore = "local-confirm"'), "signed": (signed, 'push_restore = "signed"')},
                            settings=f'[restore]\norder_keys = "{keys}"')
        os.chmod(agent.config, 0o600)
        snapshots = {name: fleet.snapshot(f"kiosk/{name}") for name in ("asked", "signed")}
        relabel(asked, "new")
        relabel(signed, "new")

        plan = fleet.cli("restore", "kiosk/asked", "--plan").out
        expect("litefleet-agent confirm" in plan, plan)
        waiting = fleet.cli("-o", "json", "restore", "kiosk/asked", "--snapshot", snapshots["asked"], "--yes", "--detach").json
        wait_until("the restore waits for the device", lambda: operation(fleet, waiting["id"])["progress"].get("phase") == "waits for confirmation on the device"
                   or "waits for confirmation" in fleet.cli("operation", "show", waiting["id"]).out)
        fleet.snapshot("kiosk/asked", "--full")
        expect_equal(label(asked), "new", "nobody has confirmed it")
        expect(waiting["id"] in fleet.program("litefleet-agent", "status", "--config", agent.config).out, "status names what waits")
        fleet.program("litefleet-agent", "confirm", "01JD00000000000000000000ZZ", "--config", agent.config, "--yes", check=4)
        fleet.program("litefleet-agent", "confirm", waiting["id"], "--config", agent.config, "--yes")
        wait_until("the restore ends", lambda: operation(fleet, waiting["id"])["state"] == "succeeded")
        expect_equal(label(asked), "old", "after the confirmation")

        refused = fleet.cli("-o", "json", "restore", "kiosk/signed", "--snapshot", snapshots["signed"], "--yes", check=5).json
        expect_equal(refused["error"]["reason"], "ORDER_NOT_SIGNED", "without a signature")
        stranger = fleet.path("eve.key")
        fleet.cli("key", "create", "--output", stranger)
        refused = fleet.cli("-o", "json", "restore", "kiosk/signed", "--snapshot", snapshots["signed"], "--yes", "--sign", stranger, check=5).json
        expect_equal(refused["error"]["reason"], "SIGNATURE_INVALID", "of a stranger")
        expect_equal(label(signed), "new", "nothing was done")
        fleet.cli("restore", "kiosk/signed", "--snapshot", snapshots["signed"], "--yes", "--sign", key)
        expect_equal(label(signed), "old", "signed")
        refused = fleet.cli("-o", "json", "restore", "kiosk/signed", "--snapshot", snapshots["signed"], "--yes", "--sign", key, "--sign-counter", "1", check=5).json
        expect_equal(refused["error"]["reason"], "COUNTER_TOO_LOW", "an old counter")
        os.chmod(keys, 0o666)
        refused = fleet.cli("-o", "json", "restore", "kiosk/signed", "--snapshot", snapshots["signed"], "--yes", "--sign", key, check=6).json
        expect_equal(refused["error"]["reason"], "KEY_FILE_UNSAFE", "a file that others may write")
        os.chmod(key, 0o644)
        expect_equal(fleet.cli("restore", "kiosk/signed", "--yes", "--sign", key, check=5).code, 5, "a private key that others may read")
        expect_equal(fleet.cli("key", "create", "--output", key, check=6).code, 6, "a key is not overwritten")


def test_local():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path = make(fleet.path("app.db"), "old")
        agent = fleet.agent("kiosk", {"app": path})
        snapshot = fleet.snapshot("kiosk/app")
        file = fleet.download(snapshot)
        root = fleet.cli("-o", "json", "snapshot", "show", snapshot).json["root_digest"]
        relabel(path, "new")
        local = ["--config", agent.config, "--from", file]
        running = fleet.program("litefleet-agent", "restore-local", "app", *local, "--yes", check=6)
        expect("stop the agent first" in running.err, str(running))
        agent.process.stop()
        fleet.program("litefleet-agent", "restore-local", "nothing", *local, "--yes", check=4)
        fleet.program("litefleet-agent", "restore-local", "app", *local, "--root", "00" * 32, "--yes", check=8)
        fleet.program("litefleet-agent", "restore-local", "app", *local, check=2)
        expect("fold" in fleet.program("litefleet-agent", "restore-local", "app", *local, "--mode", "replace", "--plan").err, "a plan")
        expect_equal(label(path), "new", "nothing was done")
        fleet.program("litefleet-agent", "restore-local", "app", *local, "--root", root, "--mode", "replace", "--yes")
        expect_equal(label(path), "old", "restored")
        fleet.program("litefleet-agent", "undo", "app", "--config", agent.config, "--yes")
        expect_equal(label(path), "new", "undone")
        drop = ["undo", "app", "--drop", "--config", agent.config]
        kept = path + ".litefleet-undo"
        expect(kept in fleet.program("litefleet-agent", *drop, "--plan").err, "a plan")
        fleet.program("litefleet-agent", *drop, check=2)
        expect(os.path.exists(kept), "nothing was done")
        fleet.program("litefleet-agent", *drop, "--yes")
        expect(not os.path.exists(kept), "dropped")
        fleet.program("litefleet-agent", *drop, "--yes", check=4)
        text = fleet.path("text.sql")
        with open(text, "w", encoding="utf-8") as out:
            out.write("create table label(v);\ninsert into label values('of text');\n")
        local = ["--config", agent.config, "--from", text, "--yes"]
        fleet.program("litefleet-agent", "restore-local", "app", *local, "--root", root, check=2)
        fleet.program("litefleet-agent", "restore-local", "app", *local)
        expect_equal(label(path), "of text", "restored from SQL text")
        with open(text, "w", encoding="utf-8") as out:
            out.write("no SQL at all\n")
        expect(fleet.program("litefleet-agent", "restore-local", "app", *local, check=False).code != 0, "no SQL at all")
        with open(text, "wb") as out:
            out.write(b"\x1f\x8b neither")
        fleet.program("litefleet-agent", "restore-local", "app", *local, check=2)
        expect_equal(label(path), "of text", "nothing was done")
        agent.start()
        agent.wait_connected()
        wait_until("the controller hears of both", lambda: sorted(item["kind"] for item in fleet.cli("-o", "json", "operation", "list").json["items"]
                                                                  if item["kind"] in ("restore", "undo")) == ["restore", "restore", "undo"])
        fleet.snapshot("kiosk/app")


def test_waves():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {}
        for number in range(1, 5):
            paths[number] = make(fleet.path(f"app{number}.db"), "old")
            fleet.agent(f"kiosk-{number}", {"app": (paths[number], 'push_restore = "never"' if number == 2 else "")})
            fleet.snapshot(f"kiosk-{number}/app")
            relabel(paths[number], "new")
        targets = [f"kiosk-{number}/app" for number in paths]
        whole = ["restore", *targets, "--wave-size", "1", "--yes", "--request-id", "friday"]
        stopped = fleet.cli(*whole, check=3)
        expect("2 databases were left as they are" in stopped.err, str(stopped))
        again = re.search(r"--request-id friday --at ([0-9T:.-]+Z)", stopped.err)
        expect(again, str(stopped))
        expect_equal([label(paths[number]) for number in paths], ["old", "new", "new", "new"], "after the wave that failed")
        done = {item["id"] for item in fleet.cli("-o", "json", "operation", "list").json["items"] if item["kind"] == "restore" and item["state"] == "succeeded"}
        fleet.agents["kiosk-2"].databases["app"] = (paths[2], "")
        fleet.agents["kiosk-2"].write_config()
        fleet.agents["kiosk-2"].process.signal(1)
        relabel(paths[1], "written since")
        wait_until("the agent has read its configuration again", lambda: "was read again" in fleet.agents["kiosk-2"].process.text())
        # A later state, which is not what the command began with.
        fleet.snapshot("kiosk-3/app")
        fleet.cli(*whole, "--at", again.group(1))
        expect_equal([label(paths[number]) for number in paths], ["written since", "old", "old", "old"], "what was restored is left alone, the others are restored")
        again = {item["id"] for item in fleet.cli("-o", "json", "operation", "list").json["items"] if item["kind"] == "restore" and item["state"] == "succeeded"}
        expect(done < again and len(again) == 4, f"{done} {again}")
        expect_equal(fleet.cli("restore", *targets, "--wave-size", "2", "--detach", "--yes", check=2).code, 2, "waves wait")
        plans = fleet.cli("-o", "json", "restore", *targets, "--plan").json
        expect_equal(len(plans["items"]), 4, "plans")


if __name__ == "__main__":
    lf.main(globals())
