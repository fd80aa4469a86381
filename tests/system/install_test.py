#!/usr/bin/env python3
"""install-agent into a Debian root without anything: with the libraries brought along and no network but the loopback device, and with
packages. Nightly (LITEFLEET_SLOW=1, as tests/run --slow sets it), since it makes such a root once, from the network."""
import ctypes
import hashlib
import os
import pty
import shutil
import subprocess

import lf
from lf import Fleet, expect, expect_equal

BUILD = os.path.dirname(lf.BIN)
INSTALLER = os.path.join("share", "litefleet", "install-agent")
CLONE_NEWNET = 0x40000000


def run(*args, timeout=900, **options):
    return subprocess.run(list(map(str, args)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
                          **{"stdin": subprocess.DEVNULL, **options})


def test_layout():
    """What cmake --install puts where; it works from there without the build."""
    with Fleet() as fleet:
        tree = fleet.path("tree")
        done = run("cmake", "--install", BUILD, "--prefix", tree)
        expect_equal(done.returncode, 0, f"cmake --install\n{done.stdout}")
        for name in ("bin/litefleet", "bin/litefleet-agent", "bin/litefleet-controller", "libexec/litefleet/litefleet-check", "lib/systemd/system/litefleet-agent.service",
                     "lib/systemd/system/litefleet-controller.service", "lib/sysusers.d/litefleet.conf", "share/doc/litefleet/OPERATIONS.md",
                     "share/doc/litefleet/THREATS.md", "share/doc/litefleet/alerts.yml", "share/doc/litefleet/examples/agent.toml",
                     "share/doc/litefleet/examples/controller.toml", INSTALLER):
            expect(os.path.isfile(os.path.join(tree, name)), f"{name} was not installed")
        for name in ("litefleet", "litefleet-agent", "litefleet-controller"):
            done = run(os.path.join(tree, "bin", name), "version")
            expect_equal(done.returncode, 0, done.stdout)
        fleet.init()
        fleet.serve()
        agent = fleet.agent("device", {"app": lf.make_database(fleet.path("app.db"))}, start=False)
        agent.write_config()
        done = run(os.path.join(tree, "bin", "litefleet-agent"), "doctor", "--config", agent.config)
        expect("check-helper" not in done.stdout or "FAIL" not in done.stdout.upper().split("CHECK-HELPER")[0].splitlines()[-1], done.stdout)


def test_refuses_wrong_usage():
    installer = os.path.join(lf.TOP, "deploy", "install-agent")
    for args in ([], ["--root", "/nowhere"], ["host"], ["--root", "/", "--controller", "nonsense"], ["--root", "/", "--controller", "h:1", "--database", "a=relative"],
                 ["--root", "/", "--controller", "h:1", "--name", "a'b"], ["host", "--root", "/", "--controller", "h:1"], ["host", "--what"]):
        expect_equal(run(installer, *args).returncode, 2, f"exit code of {args}")


class Packages:
    """deploy/lib/install beside a dpkg-query, an apt-get, an id and a sudo of the test's: what it called is in a file, a line a call."""

    def __init__(self, fleet, missing=("zstd",), uid=1000, sudo=None, locked=0):
        self.calls, self.bin = fleet.path("calls"), fleet.path("bin")
        os.makedirs(self.bin, exist_ok=True)
        for name in os.listdir(self.bin):
            os.unlink(os.path.join(self.bin, name))
        with open(self.calls, "w", encoding="utf-8"):
            pass
        for tool in ("bash", "env", "grep", "sh"):
            os.symlink(shutil.which(tool), os.path.join(self.bin, tool))
        self.shim("dpkg-query", f'for last; do :; done\ncase " {" ".join(missing)} " in *" $last "*) exit 1 ;; esac\necho installed')
        self.shim("id", f"echo {uid}")
        # The lists are locked by another apt at the first `locked` calls.
        self.shim("apt-get", f"""echo "apt-get $*" >>"{self.calls}"
case "$*" in
*update*)
  n=0
  while read -r line; do case "$line" in *update*) n=$((n + 1)) ;; esac; done <"{self.calls}"
  if [ "$n" -le {locked} ]; then echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)"; exit 100; fi ;;
esac""")
        self.shim("sleep", f'echo "sleep $*" >>"{self.calls}"')
        if sudo is not None:
            self.shim("sudo", f'[ "$1" = -n ] || exit 1\nshift\n[ {sudo} = allowed ] || exit 1\n[ "$1" = true ] && exit 0\necho "sudo $1" >>"{self.calls}"\nexec "$@"')

    def shim(self, name, text):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)

    def install(self, what="build", **options):
        done = run(os.path.join(lf.TOP, "deploy", "lib", "install"), what, timeout=120, env={"PATH": self.bin}, **options)
        with open(self.calls, encoding="utf-8") as file:
            return done.returncode, done.stdout, file.read().splitlines()


def test_packages_are_installed_by_who_may():
    with Fleet() as fleet:
        # Nothing is missing: no apt, no sudo.
        expect_equal(Packages(fleet, missing=(), sudo="allowed").install("tests"), (0, "", []), "nothing is missing")

        # As root, and only what is missing.
        code, out, calls = Packages(fleet, missing=("zstd", "cmake"), uid=0).install()
        expect_equal(code, 0, out)
        expect_equal(len(calls), 2, calls)
        expect(calls[0].endswith(" update") and "DPkg::Lock::Timeout=" in calls[1], calls)
        expect(calls[1].endswith(" install -y --no-install-recommends cmake zstd"), calls)

        # By sudo, which never asks.
        code, out, calls = Packages(fleet, sudo="allowed").install()
        expect_equal(code, 0, out)
        expect_equal([call.split()[0] for call in calls], ["sudo", "apt-get", "sudo", "apt-get"], calls)

        # By neither: the one command, and nothing was called.
        for sudo in (None, "refused"):
            code, out, calls = Packages(fleet, missing=("zstd", "cmake"), sudo=sudo).install()
            expect_equal(code, 2, out)
            expect_equal(calls, [], "calls of a user who may not")
            expect("apt-get update && apt-get install -y --no-install-recommends cmake zstd" in out, out)

        # A sudo that would ask is not asked, not even at a terminal: `tests/run` and the quickstart are the same in that.
        packages = Packages(fleet)
        packages.shim("sudo", f'[ "$1" = -n ] && exit 1\necho "sudo asked for a password" >>"{packages.calls}"\nexit 0')
        ours, terminal = pty.openpty()
        code, out, calls = packages.install("tests", stdin=terminal)
        os.close(ours)
        os.close(terminal)
        expect_equal((code, calls), (2, []), out)
        expect("sudo without a password" in out and "apt-get install -y --no-install-recommends zstd" in out, out)

        # Another apt has the lists: it waits, and goes on.
        code, out, calls = Packages(fleet, uid=0, locked=2).install()
        expect_equal(code, 0, out)
        expect_equal([call.split()[0] if call.startswith("sleep") else call.split()[-1] for call in calls], ["update", "sleep", "update", "sleep", "update", "zstd"], calls)

        # No apt at all.
        packages = Packages(fleet)
        os.unlink(os.path.join(packages.bin, "apt-get"))
        code, out, calls = packages.install()
        expect_equal(code, 2, out)
        expect("no apt" in out and "libgrpc++-dev" in out, out)


def bare_root():
    """A Debian 12 root with nothing but its smallest packages, as an archive that is made once."""
    if os.environ.get("LITEFLEET_SLOW") != "1":
        raise lf.Skip("nightly: tests/run --slow")
    if os.geteuid() != 0:
        raise lf.Skip("needs root for chroot")
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "litefleet")
    archive = os.path.join(cache, "bookworm-minbase.tar")
    if not os.path.exists(archive):
        if shutil.which("mmdebstrap") is None:
            raise lf.Skip("there is no mmdebstrap")
        os.makedirs(cache, exist_ok=True)
        done = run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", archive + ".new.tar", timeout=500)
        if done.returncode != 0:
            raise lf.Skip(f"mmdebstrap made no root: {done.stdout[-200:]!r}")
        os.rename(archive + ".new.tar", archive)
    return archive


def listing(root):
    """Every file that matters, with owner, mode and content; what packages note of themselves is left out."""
    found = {}
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        folders[:] = [name for name in folders if os.path.join(relative, name) not in
                      ("./proc", "./sys", "./dev", "./tmp", "var/lib/dpkg", "var/lib/apt", "var/log", "var/cache", "./run", "proc", "sys", "dev", "tmp", "run")]
        for name in folders + files:
            path = os.path.join(folder, name)
            state = os.lstat(path)
            content = ""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            found[os.path.relpath(path, root)] = (state.st_mode, state.st_uid, state.st_gid, content)
    return found


class AloneOnTheNetwork:
    """This process and what it starts have a loopback device and nothing else."""

    def __enter__(self):
        self.before = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)
        if self.libc.unshare(CLONE_NEWNET) != 0:
            os.close(self.before)
            raise lf.Skip("network namespaces cannot be made here")
        expect_equal(run("ip", "link", "set", "lo", "up").returncode, 0, "ip link")

    def __exit__(self, *_):
        self.libc.setns(self.before, CLONE_NEWNET)
        os.close(self.before)


class Device:
    """An unpacked root, and the installer from an installed tree."""

    def __init__(self, fleet, archive):
        self.fleet, self.root, self.tree = fleet, fleet.path("root"), fleet.path("tree")
        os.makedirs(self.root)
        expect_equal(run("tar", "-C", self.root, "-xf", archive).returncode, 0, "tar")
        done = run("cmake", "--install", BUILD, "--prefix", self.tree)
        expect_equal(done.returncode, 0, f"cmake --install\n{done.stdout}")
        self.token = fleet.path("token")
        fleet.init()
        fleet.serve()

    def install(self, *args, token=True, controller=None):
        if token:
            with open(self.token, "w", encoding="utf-8") as file:
                file.write(self.fleet.cli("token", "create").out)
        return run(os.path.join(self.tree, INSTALLER), "--root", self.root, "--controller", controller or self.fleet.address, "--name", "device", "--database",
                   "app=/var/lib/app/app.db", "--timeout", "30", *(["--token-file", self.token] if token else []), *args)


def backs_up(device):
    """The installed agent works in its root as a service would run it."""
    lf.make_database(os.path.join(device.root, "var/lib/app/app.db"))
    device.fleet.processes.append(lf.Process(["unshare", "-m", "--propagation", "private", "sh", "-c",
                                              'mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/litefleet-agent run --config /etc/litefleet/agent.toml',
                                              device.root], device.fleet.path("device.log")))
    snapshot = device.fleet.snapshot("device/app")
    expect_equal(lf.content(device.fleet.download(snapshot)), lf.content(os.path.join(device.root, "var/lib/app/app.db")), "content of the backup")
    device.fleet.cli("restore", "device/app", "--snapshot", snapshot, "--mode", "replace", "--yes")


def test_bundle_without_network():
    archive = bare_root()
    with AloneOnTheNetwork(), Fleet() as fleet:
        device = Device(fleet, archive)
        os.makedirs(os.path.join(device.root, "var/lib/app"))
        before = listing(device.root)

        # Failures leave nothing: a token that is not good, a controller that is not there.
        with open(device.token, "w", encoding="utf-8") as file:
            file.write("nonsense")
        failed = run(os.path.join(device.tree, INSTALLER), "--root", device.root, "--controller", fleet.address, "--bundle", "--token-file", device.token)
        expect(failed.returncode != 0 and "taken back" in failed.stdout, f"a bad token was taken\n{failed.stdout}")
        expect_equal(difference(before, listing(device.root)), [], f"what a failure left\n{failed.stdout}")
        failed = device.install("--bundle", controller="127.0.0.1:1")
        expect(failed.returncode != 0, f"it was content without a controller\n{failed.stdout}")
        expect_equal(difference(before, listing(device.root)), [], f"what a failure left\n{failed.stdout}")

        done = device.install("--bundle")
        expect_equal(done.returncode, 0, done.stdout)
        expect("was connected to" in done.stdout and "To undo it" in done.stdout, f"it says too little\n{done.stdout}")
        listed = fleet.cli("-o", "json", "device", "list").json["items"]
        expect_equal([one["name"] for one in listed], ["device"], "devices")
        expect(listed[0]["last_seen_at"], "the controller never saw it")
        after = listing(device.root)
        again = device.install("--bundle", token=False)
        expect_equal(again.returncode, 0, again.stdout)
        expect("nothing to do" in again.stdout, f"the second run did something\n{again.stdout}")
        expect_equal(difference(after, listing(device.root)), [], "what the second run changed")
        backs_up(device)


def test_over_ssh():
    """The same by the way that a host is reached: ssh is played by a script that enters the root."""
    archive = bare_root()
    with AloneOnTheNetwork(), Fleet() as fleet:
        device = Device(fleet, archive)
        os.makedirs(os.path.join(device.root, "var/lib/app"))
        shims = fleet.path("shims")
        os.mkdir(shims)
        with open(os.path.join(shims, "ssh"), "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\ntest "$1 $2 $3" = "-o BatchMode=yes root@device" || exit 255\n'
                       f'exec unshare -m --propagation private sh -c \'mount -t proc proc "$0/proc" && exec chroot "$0" /bin/sh -c "$1"\' "{device.root}" "$4"\n')
        os.chmod(os.path.join(shims, "ssh"), 0o755)
        with open(device.token, "w", encoding="utf-8") as file:
            file.write(fleet.cli("token", "create").out)
        args = [os.path.join(device.tree, INSTALLER), "root@device", "--controller", fleet.address, "--name", "device", "--database", "app=/var/lib/app/app.db",
                "--schedule", "1h", "--bundle", "--timeout", "30"]
        env = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
        before = listing(device.root)
        failed = run(*args, env=env)
        expect_equal(failed.returncode, 2, f"without a token\n{failed.stdout}")
        expect_equal(difference(before, listing(device.root)), [], f"what a failure left\n{failed.stdout}")
        done = run(*args, "--token-file", device.token, env=env)
        expect_equal(done.returncode, 0, done.stdout)
        after = listing(device.root)
        expect_equal([name for name in os.listdir(os.path.join(device.root, "tmp"))], [], "what is left in /tmp")
        again = run(*args, env=env)
        expect("nothing to do" in again.stdout, f"the second run did something\n{again.stdout}")
        expect_equal(difference(after, listing(device.root)), [], "what the second run changed")


def test_packages():
    archive = bare_root()
    with Fleet() as fleet:
        device = Device(fleet, archive)
        os.makedirs(os.path.join(device.root, "var/lib/app"))
        done = device.install()
        if "nstall: apt" in done.stdout or "Unable to" in done.stdout or "Temporary failure" in done.stdout:
            raise lf.Skip(f"no packages can be had from here: {done.stdout[-200:]!r}")
        expect_equal(done.returncode, 0, done.stdout[-3000:])
        again = device.install(token=False)
        expect("nothing to do" in again.stdout, f"the second run did something\n{again.stdout}")
        backs_up(device)


def difference(one, other):
    return sorted(f"{name}: {one.get(name)} became {other.get(name)}" for name in one.keys() | other.keys() if one.get(name) != other.get(name))


if __name__ == "__main__":
    lf.main(globals())
