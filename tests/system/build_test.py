#!/usr/bin/env python3
"""The build as somebody else runs it: an unprivileged user, without a terminal and with almost no environment, in a directory with a space in
its name. Every time up to the sources that are made of the protos; a part of it is compiled nightly (LITEFLEET_SLOW=1, as tests/run --slow sets it)."""
import os
import subprocess
import tarfile

import lf

NOBODY = 65534


class Tree:
    """What git has of this tree, in a directory with a space in its name, for an unprivileged user where this is root."""

    def __init__(self, fleet):
        archive = subprocess.run(["git", "-C", lf.TOP, "archive", "--format=tar", "HEAD"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if archive.returncode != 0:
            raise lf.Skip(f"git archive: {archive.stderr.decode().strip()}")
        self.path = fleet.path("a tree")
        self.home = fleet.path("home")
        os.mkdir(self.path)
        os.mkdir(self.home)
        with open(fleet.path("tree.tar"), "wb") as file:
            file.write(archive.stdout)
        with tarfile.open(fleet.path("tree.tar")) as tar:
            tar.extractall(self.path)
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chmod(fleet.directory, 0o755)
            for top in (self.path, self.home):
                for folder, _, names in os.walk(top):
                    for name in (folder, *(os.path.join(folder, name) for name in names)):
                        os.chown(name, NOBODY, NOBODY, follow_symlinks=False)

    def run(self, *args, timeout=300):
        done = subprocess.run(args, cwd=self.path, env={"HOME": self.home, "PATH": "/usr/local/bin:/usr/bin:/bin"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, check=False, start_new_session=True, **self.user)
        lf.expect_equal(done.returncode, 0, f"{' '.join(args)}: exit code\n{done.stdout[-4000:]}")
        return done.stdout

    def configure(self):
        self.run("cmake", "--preset", "release")


def test_is_configured_and_begun_in_a_directory_with_a_space():
    with lf.Fleet() as fleet:
        tree = Tree(fleet)
        tree.configure()
        targets = tree.run("ninja", "-C", "build/release", "-t", "targets", "all")
        for program in ("litefleet", "litefleet-agent", "litefleet-controller"):
            lf.expect(f"bin/{program}: " in targets, f"{program} is not built\n{targets[-2000:]}")
        # What the build itself makes first.
        tree.run("cmake", "--build", "--preset", "release", "--target", "lf_proto_sources")


def test_builds_in_a_directory_with_a_space():
    if not os.environ.get("LITEFLEET_SLOW"):
        raise lf.Skip("nightly: builds a part of the release, set LITEFLEET_SLOW=1")
    with lf.Fleet() as fleet:
        tree = Tree(fleet)
        tree.configure()
        # With what is generated from the protos, and the helper process with all that it needs.
        tree.run("cmake", "--build", "--preset", "release", "--target", "litefleet-check", timeout=5400)
        lf.expect(os.access(os.path.join(tree.path, "build", "release", "bin", "litefleet-check"), os.X_OK), "the program is there")


if __name__ == "__main__":
    lf.main(globals())
