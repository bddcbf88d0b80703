"""Two network namespaces joined by a veth pair, and processes in them, each host with a /run of its own.

Everything runs inside namespaces that `enclose` makes for this program alone, so that all of it is gone when the
program ends, however it ends, and nothing of this machine's network is touched.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# What is left over for one thing to happen; beyond it, it has failed.
PATIENCE = 15.0

OUTER = {"a": "192.0.2.1", "b": "192.0.2.2"}
INNER = {"a": "10.1.0.1", "b": "10.2.0.1"}
# A second pair beside the first, which does not see it, has the same addresses.
OUTER.update(c=OUTER["a"], d=OUTER["b"])
INNER.update(c=INNER["a"], d=INNER["b"])


class Failed(Exception):
    """A subject that could not be measured, and why."""


def enclose():
    """Runs this program again in mount, network and PID namespaces of its own, once."""
    if os.environ.get("IPSECD_BENCH_INSIDE") == "1":
        run("mount", "--make-rprivate", "/")
        for directory in ("/run", "/mnt"):
            run("mount", "-t", "tmpfs", "tmpfs", directory)
        return
    environment = dict(os.environ, IPSECD_BENCH_INSIDE="1")
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["unshare", *spaces, sys.executable, *sys.argv]
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def run(*command, **more):
    """Runs a command and returns its standard output; `Failed` with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def until(what, condition, patience=PATIENCE):
    """Waits until `condition` holds; `Failed` if it does not in time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {patience:.0f} s")
        time.sleep(0.01)


class Daemon:
    """A process in one of the hosts."""

    def __init__(self, host, command, env=None):
        self.log = host.dir / f"{Path(command[0]).name}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                host.wrap(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=dict(os.environ, **(env or {})),
            )

    @property
    def pid(self):
        return self.process.pid

    def said(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def alive(self):
        return self.process.poll() is None

    def must_live(self, what):
        if not self.alive():
            raise Failed(f"{what} ended: {self.said().strip()[-800:]}")
        return True

    def cpu(self):
        """Nanoseconds that its threads were on a processor."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return total

    def memory(self):
        """Bytes resident: now, and at most so far."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
        return int(fields["VmRSS"][0]) * 1024, int(fields["VmHWM"][0]) * 1024

    def end(self):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Host:
    """One namespace."""

    def __init__(self, name, work):
        self.name = name
        self.dir = work / name
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "run").mkdir(parents=True)
        run("ip", "netns", "add", name)
        self.ip("link set lo up")

    @property
    def outer(self):
        return OUTER[self.name]

    @property
    def inner(self):
        return INNER[self.name]

    @property
    def far(self):
        return {"a": "b", "b": "a", "c": "d", "d": "c"}[self.name]

    def ip(self, arguments):
        return run("ip", "-n", self.name, *arguments.split())

    def wrap(self, command):
        bind = 'mount --bind "$0" /run && exec "$@"'
        return ["ip", "netns", "exec", self.name, "sh", "-c", bind, str(self.dir / "run"), *map(str, command)]

    def run(self, *command, **more):
        return run(*self.wrap(command), **more)

    def tun_up(self, device, mtu):
        """The device of a VPN that leaves addresses and routes to others."""
        self.ip(f"addr add {self.inner}/32 dev {device}")
        self.ip(f"link set {device} up mtu {mtu}")
        self.ip(f"route add {INNER[self.far]}/32 dev {device} src {self.inner}")


class Lab:
    """The two hosts. Gone, with all that runs in them, when closed."""

    def __init__(self, work, names=("a", "b")):
        self.a, self.b = (Host(name, work) for name in names)
        self.a.ip(f"link add wan type veth peer name wan netns {self.b.name}")
        for host in self.both:
            host.ip(f"addr add {host.outer}/24 dev wan")
            host.ip("link set wan up")
            host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad")
        self.daemons = []

    @property
    def both(self):
        return self.a, self.b

    def start(self, host, command, env=None):
        daemon = Daemon(host, command, env)
        self.daemons.append(daemon)
        return daemon

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.end()
        for host in self.both:
            run("ip", "netns", "del", host.name)
