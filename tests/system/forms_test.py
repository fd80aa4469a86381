#!/usr/bin/env python3
"""Restores that are undone, hooked, confirmed on the device, signed, local, and done in waves: with real programs, as operators and devices do it."""
import contextlib
import datetime
import os
import re
import shutil
import sqlite3
import threading

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
        expect_equal(fleet.cli(*drop, "--restore", undone["id"], "--yes").json["steps"], ["nothing was kept of it"], "once more")
        plain = fleet.cli("undo", "kiosk/app", "--drop", "--restore", undone["id"], "--yes")
        expect("nothing was kept of it" in plain.out, f"no word of what was removed\n{plain}")
        nothing = fleet.cli(*drop, "--yes", check=4)
        expect("UNDO_MISSING" in nothing.err, f"there is nothing to drop\n{nothing}")
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
        # An order that waits for the device while the device goes on without it.
        remote = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", snapshot, "--yes").json
        relabel(path, "new")
        agent.process.stop()
        waiting = fleet.cli("-o", "json", "undo", "kiosk/app", "--drop", "--restore", remote["id"], "--yes", "--detach").json
        fleet.controller.stop()
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
        fleet.serve()
        agent.start()
        agent.wait_connected()
        wait_until("the controller hears of both", lambda: sorted(item["kind"] for item in fleet.cli("-o", "json", "operation", "list").json["items"]
                                                                  if item["kind"] in ("restore", "undo")) == ["restore", "restore", "restore", "undo"])
        late = fleet.cli("-o", "json", "operation", "watch", waiting["id"], check=6).json
        expect_equal((late["state"], late["error"]["reason"]), ("failed", "UNDO_SUPERSEDED"), "a drop that was ordered before other restores")
        expect(os.path.exists(kept), "what the last restore kept")
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


def test_waves_of_a_selector_bear_some_failures():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        paths = {}
        for device in ("kiosk-1", "kiosk-2", "other"):
            databases = {}
            for name in ("a", "b", "c") if device != "other" else ("a",):
                path = paths[f"{device}/{name}"] = make(fleet.path(f"{device}-{name}.db"), "old")
                databases[name] = (path, 'push_restore = "never"' if f"{device}/{name}" in ("kiosk-1/a", "kiosk-1/c") else "")
            fleet.agent(device, databases)
            if device != "other":
                fleet.cli("device", "label", device, "site=oslo")
        for name, path in paths.items():
            fleet.snapshot(name)
            relabel(path, "new")

        def restored():
            return [name for name, path in paths.items() if label(path) == "old"]

        def restore(failures):
            return fleet.cli("restore", "--selector", "site=oslo", "--wave-size", "2", "--max-failures", failures, "--yes", "--request-id", f"f{failures}", check=3)

        stopped = restore(1)
        expect("4 databases were left as they are: 1 failures were reached" in stopped.err, str(stopped))
        expect_equal(restored(), ["kiosk-1/b"], "after the first wave")
        # The first failure is borne, the second is in the second wave.
        stopped = restore(2)
        expect("2 databases were left as they are: 2 failures were reached" in stopped.err, str(stopped))
        expect_equal(restored(), ["kiosk-1/b", "kiosk-2/a"], "after the second wave")
        ended = restore(3)
        expect("were left as they are" not in ended.err, str(ended))
        expect_equal(restored(), ["kiosk-1/b", "kiosk-2/a", "kiosk-2/b", "kiosk-2/c"], "all that may be, and nothing of a device without the label")

        # What was labelled since is not restored by a command that only goes on.
        selected = re.search(r"--selected (6-[0-9a-f]{12}\.[-\w]+)", ended.err)
        expect(selected, str(ended))
        fleet.cli("device", "label", "other", "site=oslo")
        again = ["restore", "--selector", "site=oslo", "--wave-size", "2", "--max-failures", "9", "--yes", "--request-id", "f3", "--selected", selected.group(1)]
        refused = fleet.cli("-o", "json", *again, check=6)
        expect("SELECTION_CHANGED" in refused.err and "matched 6 databases when the command began, and matches 7 now, of which at least 1 came since: other/a\"" in refused.err, str(refused))
        expect_equal(label(paths["other/a"]), "new", "a device that was labelled since")
        fleet.cli("device", "label", "other", "site-")
        fleet.cli(*again, check=3)
        fleet.cli("restore", "kiosk-1/b", "--yes", "--selected", selected.group(1), check=2)


def test_signed_waves_bear_failures_and_are_signed_one_after_the_other():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        keys, key = fleet.path("order-keys"), fleet.path("ada.key")
        with open(keys, "w", encoding="utf-8") as file:
            file.write(fleet.cli("key", "create", "--output", key).out)
        hooks = fleet.path("hooks")
        os.mkdir(hooks, 0o700)
        # The first wave takes longer than an order lives.
        script(f"{hooks}/slow", "sleep 16")
        paths = {}
        for number, rule in enumerate(("signed", "never", "signed"), 1):
            paths[number] = make(fleet.path(f"app{number}.db"), "old")
            slow = f'\n[hooks]\ndirectory = "{hooks}"\nbefore_restore = "{hooks}/slow"' if number == 1 else ""
            agent = fleet.agent(f"kiosk-{number}", {"app": (paths[number], f'push_restore = "{rule}"')}, settings=f'[restore]\norder_keys = "{keys}"{slow}', start=False)
            agent.write_config()
            os.chmod(agent.config, 0o600)
            agent.start()
            agent.wait_connected()
            fleet.cli("device", "label", f"kiosk-{number}", "site=oslo")
            fleet.snapshot(f"kiosk-{number}/app")
            relabel(paths[number], "new")
        whole = ["restore", "--selector", "site=oslo", "--wave-size", "1", "--max-failures", "2", "--expire", "15s", "--sign", key, "--yes", "--request-id", "one"]
        borne = fleet.cli(*whole, check=3)
        expect("PUSH_RESTORE_REFUSED" in borne.out and "were left as they are" not in borne.err, str(borne))
        expect_equal([label(paths[number]) for number in paths], ["old", "new", "old"], "one refusal is borne")
        for number in paths:
            relabel(paths[number], "newer")
        fleet.cli(*whole, check=3)
        expect_equal([label(paths[number]) for number in paths], ["newer"] * 3, "a command that goes on restores nothing twice")


class Service:
    """A ledger_writer that is stopped and started by who writes a word into a file, as a service manager does it for hooks."""

    def __init__(self, fleet, path, *args):
        self.fleet, self.path, self.args = fleet, path, args
        self.wanted, self.is_ = fleet.path("service.wanted"), fleet.path("service.is")
        self.runs, self.ended, self.error = None, threading.Event(), None
        self.change("start")
        self.loop = threading.Thread(target=self.follow)
        self.loop.start()

    def change(self, word):
        if word == "start" and self.runs is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.fleet.path("service.ready"))
            self.runs = self.fleet.writer(self.path, *self.args, name="service")
        elif word == "stop" and self.runs is not None:
            expect_equal(self.runs.stop(), 0, "exit of the writer")
            self.runs = None
        with open(self.is_ + ".new", "w", encoding="utf-8") as file:
            file.write(word)
        os.rename(self.is_ + ".new", self.is_)

    def follow(self):
        done = None
        while not self.ended.is_set():
            try:
                with open(self.wanted, encoding="utf-8") as file:
                    number, word = file.read().split()
                if number != done:
                    self.change(word)
                    done = number
            except (FileNotFoundError, ValueError):  # nobody has asked yet, or not to the end
                pass
            except Exception as error:  # told at the end
                self.error = error
                return
            self.ended.wait(0.02)

    def hook(self, name, word):
        """A program that asks for it, and waits until it is so."""
        return script(name, f"""printf '%s %s\\n' "$$" {word} > {self.wanted}
n=0
until [ "$(cat {self.is_})" = {word} ]; do
  n=$((n + 1))
  [ "$n" -lt 300 ] || exit 1
  sleep 0.1
done""")

    def end(self):
        self.ended.set()
        self.loop.join(60)
        if self.error:
            raise self.error
        self.change("stop")


def hooks_stop_and_start_a_service(journal):
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path, log, hooks = fleet.path("ledger.db"), fleet.path("commits.log"), fleet.path("hooks")
        os.mkdir(hooks, 0o700)

        def all_committed():
            with open(log, encoding="utf-8") as file:
                return [int(line.split()[0]) for line in file.read().split("\n")[:-1]]

        def committed():
            return all_committed()[-1]

        service = Service(fleet, path, "--rate", 100, "--journal", journal, "--log", log)
        try:
            before, after = service.hook(f"{hooks}/stop", "stop"), service.hook(f"{hooks}/start", "start")
            fleet.agent("kiosk", {"app": (path, f'before_restore = "{before}"\nafter_restore = "{after}"')}, settings=f'[hooks]\ndirectory = "{hooks}"')
            snapshot = fleet.snapshot("kiosk/app")
            taken = committed()
            wait_until("it goes on", lambda: committed() > taken + 50)
            first = service.runs.pid
            latest = committed()
            done = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", snapshot, "--mode", "replace", "--yes").json
            expect_equal([(run["hook"], run["exit_code"]) for run in done["hooks"]], [("before-restore", 0), ("after-restore", 0)], "the hooks")
            expect(service.runs and service.runs.pid != first, "another process is the service now")
            shutil.copy(done["undo"], fleet.path("kept.db"))
            kept = lf.check_ledger(fleet.path("kept.db"), latest)
            begun = committed()
            wait_until("it writes to the restored database", lambda: committed() != begun)
            written = all_committed()
            back = [i for i in range(1, len(written)) if written[i] <= written[i - 1]]
            expect_equal([written[i - 1] for i in back], [kept], "it went back once, behind all that it had committed, which is kept")
            expect(written[back[0]] - 1 <= taken, f"it goes on from the snapshot: {written[back[0]]}, {taken} were committed then")
            fleet.cli("undo", "kiosk/app", "--yes")
            wait_until("it writes to what was there before", lambda: committed() > kept and len(all_committed()) > len(written))
        finally:
            service.end()
        expect_equal(sorted(name for name in os.listdir(fleet.directory) if name.startswith("ledger.db")), ["ledger.db", "ledger.db.litefleet-undo"], "what lies there")
        lf.check_ledger(path, kept)


def test_the_hooks_stop_and_start_a_service_in_wal_mode():
    hooks_stop_and_start_a_service("wal")


def test_the_hooks_stop_and_start_a_service_in_rollback_mode():
    hooks_stop_and_start_a_service("delete")


def test_a_snapshot_is_taken_first():
    with Fleet() as fleet:
        fleet.init()
        fleet.serve()
        path, other = make(fleet.path("app.db"), "first"), make(fleet.path("other.db"), "first")
        agent = fleet.agent("kiosk", {"app": path, "other": other})
        first = fleet.snapshot("kiosk/app")
        fleet.snapshot("kiosk/other")
        relabel(path, "second")
        relabel(other, "second")
        fleet.cli("restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--detach", "--yes", check=2)
        refused = fleet.cli("restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--pin-for", "soon", "--yes", check=2)
        expect("'soon' is no duration" in refused.err, str(refused))
        refused = fleet.cli("restore", "kiosk/app", "--snapshot", first, "--pin-for", "7d", "--yes", check=2)
        expect("--pin-for needs --snapshot-first" in refused.err, str(refused))
        expect("a snapshot of it is taken, and pinned for 30 d" in fleet.cli("restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--plan").out, "the plan says so")
        expect_equal(len(fleet.snapshots("kiosk/app")), 1, "a plan takes none")
        done = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--yes", "--request-id", "one")
        before = done.json["before_snapshot"]
        expect_equal(label(path), "first", "restored")
        expect(f"litefleet restore kiosk/app --snapshot {before}" in done.err and f"litefleet snapshot unpin {before}" in done.err, str(done))
        shown = fleet.cli("-o", "json", "snapshot", "show", before).json
        expect(shown["pinned"] and shown["pinned_until"] == done.json["before_pinned_until"], f"it is pinned for a time\n{shown}")
        pinned_for = datetime.datetime.fromisoformat(shown["pinned_until"].replace("Z", "+00:00")) - datetime.datetime.now(datetime.timezone.utc)
        expect(datetime.timedelta(days=29, hours=23) < pinned_for <= datetime.timedelta(days=30), f"for 30 days, not {pinned_for}")
        expect(f"snapshot {before}, pinned until {shown['pinned_until'][:2]}" in done.err, str(done))
        expect_equal(label(fleet.download(before)), "second", "it is the state of before")
        # The file on the device goes with the next restore, the snapshot stays.
        fleet.cli("restore", "kiosk/app", "--snapshot", before, "--yes")
        expect_equal(label(path), "second", "back")
        # The same command again restores nothing twice and takes nothing twice, and no longer pin is made shorter.
        fleet.cli("snapshot", "pin", before)
        again = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--yes", "--request-id", "one").json
        expect_equal((again["id"], again["before_snapshot"], again["before_pinned_until"]), (done.json["id"], before, None), "the same again")
        expect_equal(label(path), "second", "what was restored is left alone")
        # Also where the snapshot of before has been dropped meanwhile.
        other_before = fleet.cli("-o", "json", "restore", "kiosk/other", "--snapshot-first", "--pin-for", "100d", "--yes", "--request-id", "two").json
        expect(other_before["before_pinned_until"] > shown["pinned_until"], f"as long as it was said\n{other_before}")
        fleet.cli("snapshot", "unpin", other_before["before_snapshot"])
        fleet.cli("snapshot", "delete", other_before["before_snapshot"], "--force", "--yes")
        again = fleet.cli("-o", "json", "restore", "kiosk/other", "--snapshot", other_before["snapshot"], "--snapshot-first", "--yes", "--request-id", "two").json
        expect_equal((again["id"], again["before_snapshot"]), (other_before["id"], None), "the restore of then")
        # Where it cannot be taken nothing is restored.
        agent.databases["app"] = (path, 'method = "dump"\n[database.dump]\ntables = ["label"]')
        agent.write_config()
        agent.process.stop()
        agent.start()
        agent.wait_connected()
        refused = fleet.cli("-o", "json", "restore", "kiosk/app", "--snapshot", first, "--snapshot-first", "--yes", check=6)
        expect("SNAPSHOT_OF_PART" in refused.err, str(refused))
        expect_equal(label(path), "second", "nothing was restored")
        expect_equal([item["id"] for item in fleet.snapshots("kiosk/app") if item["pinned"]], [before], "what is pinned")
        # Several: one that cannot be had does not stop the other.
        both = fleet.cli("restore", "kiosk/app", "kiosk/other", "--snapshot-first", "--yes", check=3)
        expect("snapshot_first" not in both.err and "that is no way back" in both.err, str(both))
        expect_equal((label(path), label(other)), ("second", "first"), "the other one is restored")
        # Nothing is there that could be overwritten.
        os.rename(other, other + ".gone")
        new = fleet.cli("-o", "json", "restore", "kiosk/other", "--snapshot-first", "--yes").json
        expect_equal((new["restore_mode"], new["before_snapshot"]), ("new", None), "into nothing")


if __name__ == "__main__":
    lf.main(globals())
