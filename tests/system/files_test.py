#!/usr/bin/env python3
"""Plain files beside a database, from a device to the store and back: backups, listing, downloads, restores, attacks by path."""
import os
import shutil
import socket
import subprocess
import tarfile

import lf

FILES = """
[[files]]
name = "conf"
root = "{root}"
include = {include}
exclude = {exclude}
{settings}
"""


def settings(root, include=("**",), exclude=(), more=""):
    quoted = lambda words: "[" + ", ".join(f'"{word}"' for word in words) + "]"
    return FILES.format(root=root, include=quoted(include), exclude=quoted(exclude), settings=more)


def write(path, content, mode=0o644, when=1_600_000_000_123_456_789):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(when, when))


def tree(root):
    """What a restore has to bring back, by name."""
    found = {}
    for folder, directories, names in os.walk(root):
        for name in directories + names:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            key = os.path.relpath(path, root)
            if os.path.islink(path):
                found[key] = ("link", os.readlink(path), st.st_uid, st.st_gid)
            elif os.path.isdir(path):
                found[key] = ("directory", st.st_mode & 0o7777, st.st_uid, st.st_gid)
            else:
                with open(path, "rb") as file:
                    found[key] = (file.read(), st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns)
    return found


def make(root):
    write(f"{root}/app.conf", b"port = 1\n", 0o640)
    write(f"{root}/-rf", b"an option?", 0o600)
    write(f"{root}/att/\u00e4 long " + "n" * 120, b"utf-8", 0o444)
    write(f"{root}/att/big", os.urandom(3_000_000), 0o600)
    write(f"{root}/att/empty", b"", 0o755)
    os.makedirs(f"{root}/hollow", 0o750)
    os.symlink("../app.conf", f"{root}/att/link")
    if os.geteuid() == 0:
        os.chown(f"{root}/att/big", 1234, 4321)
        os.chown(f"{root}/att", 1234, 4321)
    return root


def restore(fleet, snapshot, of="alpha/conf", to=None, **options):
    elsewhere = ("--to", to) if to else ()
    return fleet.cli("-o", "json", "restore", of, "--snapshot", snapshot, *elsewhere, "--yes", **options)


def steps(fleet, operation):
    return " | ".join(fleet.cli("-o", "json", "operation", "show", operation).json["steps"])


def test_there_and_back():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        database = lf.make_database(f"{root}/app.db")
        os.symlink("/etc/passwd", f"{root}/out")
        os.mkfifo(f"{root}/pipe")
        os.mkfifo(os.fsencode(root) + b"/not \xe4 text")
        agent = fleet.agent("alpha", {"main": database}, settings(root))
        done = fleet.backup("alpha/conf")
        first = done["snapshot"]
        told = steps(fleet, done["id"])
        for word in ("SQLite", "app.db", "out of the root: out", "pipes or devices: not ? text, pipe"):
            lf.expect(word in told, f"{word} is not among what was told: {told}")
        shown = fleet.cli("-o", "json", "snapshot", "show", first).json
        lf.expect_equal((shown["method"], shown["content"]), ("file", "files"), "method and content")
        lf.expect(first in fleet.cli("snapshot", "list", "alpha/conf", "-o", "wide").out, "the list has it")
        lf.expect("missing" not in fleet.cli("database", "list").out, "a root that is there is not missing")

        # A standard archive.
        fleet.cli("snapshot", "download", first, "--output", fleet.path("x.tar"))
        os.unlink(os.fsencode(root) + b"/not \xe4 text")
        for name in ("app.db", "out", "pipe"):
            os.unlink(f"{root}/{name}")
        before = tree(root)
        with tarfile.open(fleet.path("x.tar")) as archive:
            lf.expect_equal(sorted(member.name for member in archive), sorted(before), "names in the archive")
        listed = subprocess.run(["tar", "-tvf", fleet.path("x.tar")], check=True, capture_output=True, text=True)
        lf.expect("app.conf" in listed.stdout, "tar lists it")
        for wrong in (("--format", "db"), ("--format", "sql"), ("--table", "t")):
            refused = fleet.cli("snapshot", "download", first, "--output", fleet.path("y"), *wrong, check=lf.AnyOf(2, 5, 6, 9))
            lf.expect("CONTENT_DIFFERS" in refused.err or "files" in refused.err, refused.err)
        if shutil.which("sqlite3"):  # which is looked for before anything is fetched
            os.mkdir(fleet.path("tmp"))
            refused = fleet.cli("snapshot", "open", first, "select 1", check=2, env={"TMPDIR": fleet.path("tmp")})
            for word in (f"snapshot {first} is of files, not of a database", f"litefleet snapshot download {first} --output FILE.tar"):
                lf.expect(word in refused.err, f"{word} is not in what a shell on files says: {refused.err}")
            lf.expect_equal((refused.out, os.listdir(fleet.path("tmp"))), ("", []), "no shell is begun, and nothing stays")

        # Nothing changed; then one file did.
        lf.wait_until("the times are settled", lambda: "nothing has changed" in steps(fleet, fleet.backup("alpha/conf")["id"]), 30, 0.5)
        write(f"{root}/app.conf", b"port = 2\n", 0o644)
        write(f"{root}/att/big", b"small now", 0o400)
        write(f"{root}/later", b"not in the snapshot")
        second = fleet.snapshot("alpha/conf")
        lf.expect(second != first, "a change makes a snapshot")
        shutil.rmtree(f"{root}/hollow")
        os.unlink(f"{root}/att/link")
        os.symlink("/etc/passwd", f"{root}/att/link")

        plan = fleet.cli("restore", "alpha/conf", "--snapshot", first, "--plan").out
        lf.expect("stay as they are" in plan and "not kept" in plan, plan)
        wrong = fleet.cli("restore", "alpha/conf", "--snapshot", first, "--mode", "live", "--yes", check=False)
        lf.expect("MODE_UNSUPPORTED" in wrong.err or "replaced one by one" in wrong.err, wrong)
        restored = restore(fleet, first).json
        lf.expect("stayed" in steps(fleet, restored["id"] if "id" in restored else restored["operation"]), "what was done is told")
        after = tree(root)
        lf.expect_equal(after.pop("later")[0], b"not in the snapshot", "a file that is not in the snapshot")
        lf.expect_equal(after, before, "files, modes, owners and times")
        lf.expect(not any(name.startswith(".litefleet") for name in os.listdir(root)), "nothing is left over")

        # Kinds do not mix, and an undo does not exist.
        database = lf.make_database(f"{root}/app.db")
        of_database = fleet.snapshot("alpha/main")
        for of, snapshot, to in (("alpha/main", of_database, "alpha/conf"), ("alpha/conf", first, "alpha/main")):
            denied = restore(fleet, snapshot, of, to, check=False)
            lf.expect("CONTENT_DIFFERS" in denied.out + denied.err, denied)
        undone = fleet.cli("-o", "json", "undo", "alpha/conf", "--yes", check=False)
        lf.expect("UNDO_MISSING" in undone.out + undone.err, undone)
        method = fleet.cli("-o", "json", "backup", "alpha/conf", "--method", "dump", check=False)
        lf.expect("METHOD_UNSUPPORTED" in method.out + method.err, method)
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", second).json["content"], "files", "content")
        fleet.cli("snapshot", "check", first)
        lf.expect_equal(fleet.cli("-o", "json", "snapshot", "show", first).json["check"], "ok", "the archive is whole")

        # On another device, whose rules are its own.
        other = fleet.path("other")
        os.mkdir(other)
        fleet.agent("beta", {}, settings(other, include=("*.conf",)))
        denied = restore(fleet, first, to="beta/conf", check=False)
        lf.expect("FILES_NOT_MEANT" in denied.err + denied.out, denied)
        lf.expect_equal(os.listdir(other), [], "nothing was put there")
        agent.process.stop()


def test_local():
    """Without the controller: the archive is carried to the device."""
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        database = lf.make_database(fleet.path("app.db"))
        agent = fleet.agent("alpha", {"main": database}, settings(root, exclude=("later",)))
        before = tree(root)
        snapshot = fleet.snapshot("alpha/conf")
        digest = fleet.cli("-o", "json", "snapshot", "show", snapshot).json["root_digest"]
        archive = fleet.path("conf.tar")
        fleet.cli("snapshot", "download", snapshot, "--output", archive)
        write(f"{root}/app.conf", b"port = 2\n")
        shutil.rmtree(f"{root}/att")
        write(f"{root}/later", b"not in the snapshot")
        changed = tree(root)
        local = ["restore-local", "conf", "--config", agent.config, "--from", archive]
        running = fleet.program("litefleet-agent", *local, "--yes", check=6)
        lf.expect("stop the agent first" in running.err, running)
        agent.process.stop()
        fleet.program("litefleet-agent", *local, check=2)
        fleet.program("litefleet-agent", *local, "--root", "00" * 32, "--yes", check=8)
        fleet.program("litefleet-agent", *local, "--mode", "live", "--yes", check=2)
        plan = fleet.program("litefleet-agent", *local, "--plan")
        lf.expect("rename each file to its place" in plan.err and "not kept" in plan.err, plan)
        wrong = fleet.path("wrong.tar")
        with open(wrong, "wb") as out:
            out.write(b"\x1f\x8b" + b"z" * 1000)
        refused = fleet.program("litefleet-agent", "restore-local", "conf", "--config", agent.config, "--from", wrong, "--yes", check=2)
        lf.expect("no tar archive" in refused.err and "unpacked" in refused.err, refused)
        # Neither may stand for the other.
        fleet.program("litefleet-agent", "restore-local", "main", "--config", agent.config, "--from", archive, "--yes", check=2)
        fleet.program("litefleet-agent", "restore-local", "conf", "--config", agent.config, "--from", database, "--yes", check=2)
        outside = fleet.path("outside.tar")
        with tarfile.open(outside, "w", format=tarfile.PAX_FORMAT) as made:
            made.add(archive, arcname="../outside")
        fleet.program("litefleet-agent", "restore-local", "conf", "--config", agent.config, "--from", outside, "--yes", check=lf.AnyOf(2, 6, 8))
        lf.expect_equal(tree(root), changed, "nothing was done")
        lf.expect(not os.path.exists(fleet.path("outside")), "nothing outside")

        fleet.program("litefleet-agent", *local, "--root", digest, "--yes")
        after = tree(root)
        lf.expect_equal(after.pop("later")[0], b"not in the snapshot", "what is not in the snapshot stays")
        lf.expect_equal(after, before, "the files")
        undone = fleet.program("litefleet-agent", "undo", "conf", "--config", agent.config, "--yes", check=6)
        lf.expect("it is files" in undone.err, undone)
        agent.start()
        agent.wait_connected()
        lf.wait_until("the controller hears of it", lambda: [item for item in fleet.cli("-o", "json", "operation", "list").json["items"]
                                                             if item["kind"] == "restore" and item["state"] == "succeeded"], 60, 0.2)


def test_by_schedule():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        fleet.agent("alpha", {}, settings(root, include=("*.conf",), more='schedule = "1h"'))
        lf.wait_until("the first run", lambda: fleet.snapshots("alpha/conf"), 60, 0.3)


def test_hooks():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        hooks, log = fleet.path("hooks"), fleet.path("hooks.log")
        os.mkdir(hooks, 0o700)

        def script(name, text):
            with open(f"{hooks}/{name}", "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\n{text}\n")
            os.chmod(f"{hooks}/{name}", 0o700)

        names = ("before_backup", "after_backup", "before_restore", "after_restore")
        for name in names:
            script(name, f'echo "$LITEFLEET_HOOK $LITEFLEET_KIND $LITEFLEET_DATABASE $LITEFLEET_PATH $LITEFLEET_STATE" >> {log}')
        fleet.agent("alpha", {}, f'[hooks]\ndirectory = "{hooks}"\n' + settings(root, more="\n".join(f'{name} = "{hooks}/{name}"' for name in names)))
        snapshot = fleet.snapshot("alpha/conf")
        write(f"{root}/app.conf", b"changed")
        restored = restore(fleet, snapshot).json
        told = fleet.cli("-o", "json", "operation", "show", restored.get("id") or restored["operation"]).json
        lf.expect_equal([run["hook"] for run in told["hooks"]], ["before-restore", "after-restore"], "hooks of the restore")
        with open(log, encoding="utf-8") as file:
            lf.expect_equal([line.split()[1:] for line in file], [["backup", "conf", root], ["backup", "conf", root, "succeeded"], ["restore", "conf", root],
                                                                  ["restore", "conf", root, "succeeded"]], "what they were told")
        write(f"{root}/app.conf", b"changed")
        script("before_restore", "exit 7")
        denied = restore(fleet, snapshot, check=False)
        lf.expect("HOOK_FAILED" in denied.out + denied.err, denied)
        with open(f"{root}/app.conf", "rb") as file:
            lf.expect_equal(file.read(), b"changed", "the file")
        script("before_restore", "exit 0")
        script("after_restore", "exit 7")
        denied = restore(fleet, snapshot, check=False)
        lf.expect("HOOK_FAILED" in denied.out + denied.err and "stay so" in denied.out + denied.err, denied)
        with open(f"{root}/app.conf", "rb") as file:
            lf.expect_equal(file.read(), b"port = 1\n", "the file")


def refused(fleet, reason):
    result = fleet.cli("-o", "json", "backup", "alpha/conf", check=False)
    lf.expect(reason in result.out + result.err, f"{reason} is not in\n{result}")
    return result.out + result.err


def test_caps_and_what_cannot_be_read():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        agent = fleet.agent("alpha", {}, settings(root, more='max_file_bytes = "1MiB"'))

        def configure(**options):
            agent.settings = settings(root, **options)
            agent.write_config()
            agent.process.signal(1)  # SIGHUP

        lf.expect("att/big (3000000 bytes)" in refused(fleet, "FILES_TOO_LARGE"), "the file is named")
        configure(more='max_bytes = "2MiB"')
        lf.wait_until("the new limit", lambda: "max_bytes" in refused(fleet, "FILES_TOO_LARGE"), 20, 0.5)
        configure(more="max_files = 3")
        lf.wait_until("the new limit", lambda: "max_files" in fleet.cli("backup", "alpha/conf", check=False).err, 20, 0.5)
        configure(exclude=("att/big",), more='max_file_bytes = "1MiB"')
        lf.wait_until("it is excluded", lambda: fleet.cli("backup", "alpha/conf", check=False).code == 0, 20, 0.5)
        lf.expect_equal(fleet.snapshots("alpha/conf")[0]["content"], "files", "content")
        shutil.rmtree(root)
        lf.expect("look at `root`" in refused(fleet, "ROOT_MISSING"), "a hint")
        os.symlink(fleet.path(), root)
        refused(fleet, "ROOT_NOT_DIRECTORY")


def test_attacks_by_path():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        outside = fleet.path("outside")
        os.mkdir(outside)
        write(f"{outside}/app.conf", b"precious")
        fleet.agent("alpha", {}, settings(root))
        snapshot = fleet.snapshot("alpha/conf")

        # A directory of the snapshot is a link out of the root by now.
        shutil.move(f"{root}/att", fleet.path("moved"))
        os.symlink(outside, f"{root}/att")
        before = tree(outside), tree(root)
        denied = restore(fleet, snapshot, check=False)
        lf.expect("TARGET_NOT_FILE" in denied.out + denied.err, denied)
        lf.expect_equal((tree(outside), tree(root)), before, "nothing was touched")
        os.unlink(f"{root}/att")

        # A file of it is one: the link goes, not what it leads to.
        os.unlink(f"{root}/app.conf")
        os.symlink(f"{outside}/app.conf", f"{root}/app.conf")
        restore(fleet, snapshot)
        lf.expect(not os.path.islink(f"{root}/app.conf"), "the link was replaced")
        lf.expect_equal(tree(outside), before[0], "what it led to")

        # A directory or a socket where a file belongs, and a database.
        for plant in (lambda path: os.mkdir(path), lambda path: socket.socket(socket.AF_UNIX).bind(path)):
            os.unlink(f"{root}/app.conf")
            plant(f"{root}/app.conf")
            denied = restore(fleet, snapshot, check=False)
            lf.expect("TARGET_NOT_FILE" in denied.out + denied.err, denied)
            (os.rmdir if os.path.isdir(f"{root}/app.conf") else os.unlink)(f"{root}/app.conf")
            write(f"{root}/app.conf", b"x")
        write(f"{root}/app.conf-wal", b"frames")
        denied = restore(fleet, snapshot, check=False)
        lf.expect("TARGET_IS_DATABASE" in denied.out + denied.err, denied)
        os.unlink(f"{root}/app.conf-wal")

        restore(fleet, snapshot)
        lf.expect_equal(tree(outside), before[0], "what is outside")


def test_agent_killed_during_restores():
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        agent = fleet.agent("alpha", {}, settings(root))
        first = fleet.snapshot("alpha/conf")
        wanted = tree(root)
        for name in ("app.conf", "-rf", "att/empty"):
            write(f"{root}/{name}", b"second", 0o600, 1_700_000_000_000_000_000)
        changed = tree(root)
        for point in ("files.prepared", "files.fetching:2", "files.fetched", "files.staged:2", "files.unpacked", "files.applying", "files.renamed:3", "files.applied",
                      "files.after", "files.before_done"):
            for name in ("app.conf", "-rf", "att/empty"):
                write(f"{root}/{name}", b"second", 0o600, 1_700_000_000_000_000_000)
                if os.geteuid() == 0:
                    os.chown(f"{root}/{name}", 0, 0)
            agent.process.stop()
            process = agent.start(env={"LITEFLEET_CRASH_AT": point})
            agent.wait_connected()
            ordered = fleet.cli("-o", "json", "restore", "alpha/conf", "--snapshot", first, "--yes", "--detach").json
            lf.wait_until(f"killed at {point}", lambda: not process.running(), 60)  # pylint: disable=cell-var-from-loop
            now = tree(root)
            for name, is_ in now.items():
                if not name.startswith(".litefleet"):
                    lf.expect(is_ in (wanted.get(name), changed.get(name)), f"{point}: {name} is neither old nor new")
            done = point in ("files.applied", "files.after", "files.before_done")
            if done:
                write(f"{root}/app.conf", b"written since")
            agent.start()
            id_ = ordered.get("id") or ordered["operation"]
            lf.wait_until(f"{point}: the restore ends", lambda: fleet.cli("-o", "json", "operation", "show", id_).json["state"] == "succeeded", 60, 0.2)  # pylint: disable=cell-var-from-loop
            now = tree(root)
            if done:
                lf.expect_equal(now.pop("app.conf")[0], b"written since", f"what was written after {point}")
            lf.expect_equal(now, {name: is_ for name, is_ in wanted.items() if name in now}, f"after {point}")
            lf.expect_equal(len(now) + done, len(wanted), f"files after {point}")
            agent.process.stop()
            agent.start()


def test_unprivileged_agent():
    if os.geteuid() != 0:
        raise lf.Skip("needs root to give files to others")
    with lf.Fleet() as fleet:
        fleet.init()
        fleet.serve()
        root = make(fleet.path("app"))
        os.chmod(fleet.directory, 0o711)
        agent = fleet.agent("alpha", {}, settings(root, include=("*.conf", "att/**")), start=False)
        subprocess.run(["chown", "-R", "65534:65534", root, agent.state], check=True)
        os.chown(f"{root}/app.conf", 0, 0)
        os.chmod(f"{root}/app.conf", 0o600)
        # Where the build is others may not reach.
        os.mkdir(fleet.path("bin"))
        for name in ("litefleet-agent", "litefleet-check"):
            shutil.copy(os.path.join(lf.BIN, name), fleet.path("bin", name))
        log = open(fleet.path("alpha.log"), "wb")  # pylint: disable=consider-using-with
        agent.write_config()
        os.chmod(agent.config, 0o644)
        process = subprocess.Popen([fleet.path("bin", "litefleet-agent"), "run", "--config", agent.config], stdout=log, stderr=log, user=65534, group=65534,  # pylint: disable=consider-using-with
                                   extra_groups=[])
        try:
            agent.wait_connected()
            lf.expect("app.conf" in refused(fleet, "FILES_UNREADABLE"), "the file is named")
            os.chmod(f"{root}/app.conf", 0o644)
            snapshot = fleet.snapshot("alpha/conf")
            write(f"{root}/att/empty", b"changed")
            done = restore(fleet, snapshot).json
            told = steps(fleet, done.get("id") or done["operation"])
            lf.expect("owner of 1 files could not be set" in told and "app.conf" in told, told)
            with open(f"{root}/att/empty", "rb") as file:
                lf.expect_equal(file.read(), b"", "content")
            lf.expect_equal(os.stat(f"{root}/app.conf").st_uid, 65534, "its own, since it cannot give it away")
        finally:
            process.kill()
            process.wait(30)


if __name__ == "__main__":
    lf.main(globals())
