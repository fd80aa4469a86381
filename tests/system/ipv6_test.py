#!/usr/bin/env python3
"""The main job over IPv6: enrolment, a backup and a restore by [::1], and by a name whose first address answers to nobody."""
import os
import shlex
import shutil
import subprocess

import lf


def need_ipv6():
    with open("/proc/net/if_inet6", encoding="utf-8") as file:
        if "00000000000000000000000000000001" not in file.read():
            raise lf.Skip("the kernel has no IPv6 address, not even ::1")


def test_backup_and_restore_by_an_ipv6_address():
    need_ipv6()
    with lf.Fleet() as fleet:
        fleet.listen = "[::1]:0"
        fleet.program("litefleet-controller", "init", "--data", fleet.data, "--host", "::1", "--host", "localhost")
        fleet.serve()
        lf.expect(fleet.address.startswith("[::1]:"), fleet.address)
        path = lf.make_database(fleet.path("x.db"))
        fleet.agent("alpha", {"main": path, "copy": fleet.path("copy.db")})
        snapshot = fleet.snapshot("alpha/main")
        fleet.cli("restore", "alpha/main", "--snapshot", snapshot, "--to", "alpha/copy", "--yes")
        lf.expect_equal(lf.content(fleet.path("copy.db")), lf.content(path), "the restored content")
        fleet.cli("--server", fleet.address, "--identity", os.path.join(fleet.data, "admin.pem"), "status")


def test_an_address_that_answers_to_nobody_leaves_time_for_the_next():
    """In a mount and network name space of its own: a name with two addresses, and nobody hears what is sent to the first one."""
    need_ipv6()
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("unshare", "ip")):
        raise lf.Skip("needs root, unshare and ip")
    with lf.Fleet() as fleet:
        hosts, script, q = fleet.path("hosts"), fleet.path("inside"), shlex.quote
        with open(hosts, "w", encoding="utf-8") as file:
            file.write("2001:db8::1 controller.test\n127.0.0.1 controller.test\n127.0.0.1 localhost\n")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f"""set -e
mount --bind {q(hosts)} /etc/hosts
ip link set lo up
ip link add one type veth peer name two
ip link set two up
ip link set one up
ip -6 addr add 2001:db8::2/64 dev one nodad
ip -6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev one
{q(lf.BIN)}/litefleet-controller init --data {q(fleet.data)} --host controller.test
{q(lf.BIN)}/litefleet-controller serve --data {q(fleet.data)} --listen 127.0.0.1:8742 &
controller=$!
trap 'kill $controller; wait $controller || true' EXIT
for i in $(seq 200); do {q(lf.BIN)}/litefleet --data {q(fleet.data)} status >/dev/null 2>&1 && break; sleep 0.1; done
{q(lf.BIN)}/litefleet --data {q(fleet.data)} token create > {q(fleet.path("token"))}
timeout 60 {q(lf.BIN)}/litefleet-agent enroll --controller controller.test:8742 --token-file {q(fleet.path("token"))} --state {q(fleet.path("state"))} --name alpha
""")
        done = subprocess.run(["unshare", "--net", "--mount", "bash", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        if "Operation not permitted" in done.stderr and "enroll" not in done.stderr:
            raise lf.Skip(f"no name spaces here: {done.stderr.strip().splitlines()[-1]}")
        lf.expect_equal(done.returncode, 0, f"exit\n{done.stdout}{done.stderr}")
        lf.expect("enrolled as alpha" in done.stdout, done.stdout)


if __name__ == "__main__":
    lf.main(globals())
