"""Ten thousand tunnels in one daemon: what a set-up, a packet, a look and an idle second cost it, and what it keeps in memory.

The daemon is ipsecd as it is installed. The initiators are one process, `benches/initiators.rs`, which has an address, an identity,
an IKE_SA and a CHILD_SA for each. Two shapes:

- *one file*: `[peer] address = "any"` with a pool, as for hosts on the road;
- *a file each*: every peer with its address, identity, key and subnet.

CPU is what the scheduler counted for the daemon's threads, so that other work on the machine counts little. Beside the daemon with
all tunnels stands one with a single tunnel, and packets are sent to either in turn.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lab import Failed, Lab, until
from report import X25519

COUNT = int(os.environ.get("IPSECD_BENCH_TUNNELS", "10000"))
# Of the first and of the last that are set up.
PART = max(1, COUNT // 10)
# Set-ups a second: less than half of what is left to strangers of four networks, so that nobody is asked for a cookie.
RATE = 200
# As fast as eight initiators at a time get their answers.
MOST = 1_000_000
PACKETS, PACKET_RATE = 30_000, 15_000
SHAPES = {"one file": "pool", "a file each": "sites"}
PROPOSALS = "aes256gcm16-prfsha256-x25519"

LOCAL = '[local]\naddress = "192.0.2.1"\nid = "gw.example.net"\nsubnets = ["172.16.0.0/16"]\n'
# Without liveness checks a set-up is all that there is while tunnels are set up.
KEYING = f'[ike]\nproposals = "{PROPOSALS}{{more}}"\nrekey-time = "off"\ndpd = "off"\n[esp]\nproposals = "aes256gcm16"\nstart = "respond"\n'
SENDER = """
import socket, sys, time
first, count, packets, rate = map(int, sys.argv[1:])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind(("172.16.0.1", 0))
begun, sent = time.monotonic(), 0
while sent < packets:
    due = min(packets, int((time.monotonic() - begun) * rate))
    while sent < due:
        number = 0x0a000000 + first + sent % count
        out.sendto(b"x" * 36, (socket.inet_ntoa(number.to_bytes(4, "big")), 9))
        sent += 1
    time.sleep(0.001)
"""
SINK = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('172.16.0.1', 9)); print('ready', flush=True); sys.stdin.read()"


class Crowd:
    """The process of the initiators, and what it is told."""

    def __init__(self, lab, program, shape, count, more):
        command = lab.b.wrap([program, "192.0.2.1", count, SHAPES[shape], *more])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, word):
        line = self.process.stdout.readline().split()
        if not line or line[0] != word:
            raise Failed(f"the initiators said {' '.join(line) or 'nothing'} instead of {word}")
        return line[1:]

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def ask(self, word, *arguments, answer):
        self.tell(word, *arguments)
        return [float(value) for value in self.expect(answer)]

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Gateway:
    """A daemon, its lab, and the crowd that comes to it."""

    def __init__(self, work, hosts, tools, shape, count, more=()):
        self.tools, self.shape, self.count = tools, shape, count
        self.lab = Lab(work, hosts)
        self.crowd, self.sink = None, None
        self.lab.b.ip("route add local 100.64.0.0/14 dev lo")
        self.lab.a.ip("route add 100.64.0.0/14 via 192.0.2.2")
        self.lab.a.ip("addr add 172.16.0.1/16 dev lo")
        self.dir = self.lab.a.dir / "config"
        self.dir.mkdir(mode=0o700)
        self.write(count, more)
        self.metrics = self.lab.a.dir / "metrics.sock"
        self.start()
        self.crowd = Crowd(self.lab, tools.initiators, shape, count, more)
        command = self.lab.a.wrap([sys.executable, "-c", SINK])
        self.sink = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sink.stdout.readline()

    def write(self, count, more):
        keying = KEYING.format(more="-ke1_mlkem768" if more else "")
        if self.shape == "one file":
            self.file("road.conf", f'{LOCAL}[peer]\naddress = "any"\nid = "any"\npool = "10.0.0.0/16"\n'
                                   f'[auth]\npsk = "correct horse battery of the road"\n{keying}')
            return
        for number in range(count):
            network, host = number % 4, number // 4
            inner = 0x0A000000 + number + 1
            subnet = ".".join(str(inner >> shift & 255) for shift in (24, 16, 8, 0))
            self.file(f"site-{number:05}.conf",
                      f'{LOCAL}[peer]\naddress = "100.{64 + network}.{host // 250}.{host % 250 + 1}"\n'
                      f'id = "peer-{number}.example.net"\nsubnets = ["{subnet}/32"]\n'
                      f'[auth]\npsk = "correct horse battery of site {number}"\n{keying}')

    def file(self, name, text):
        path = self.dir / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def start(self):
        env = {"IPSECD_STATE_DIR": str(self.lab.a.dir / "state")}
        command = [self.tools.ipsecd, "--log", "warn", "daemon", "--config-dir", self.dir, "--metrics", f"unix:{self.metrics}"]
        begun = time.monotonic()
        self.daemon = self.lab.start(self.lab.a, command, env)
        until("ipsecd", lambda: self.daemon.must_live("ipsecd") and self.answers(), patience=300)
        self.load_seconds = time.monotonic() - begun
        self.load_cpu = self.daemon.cpu() / 1e9

    def answers(self):
        try:
            self.lab.a.run(self.tools.ipsecd, "services", timeout=300)
            return True
        except Failed:
            return False

    def cpu_of(self, act):
        """Nanoseconds that the daemon works on something, and what that returns."""
        before = self.daemon.cpu()
        found = act()
        return self.daemon.cpu() - before, found

    def up(self, first, count, rate=RATE):
        """Sets up tunnels, so many a second at most; the daemon's CPU for each, in ms."""
        cpu, (done, _seconds) = self.cpu_of(lambda: self.crowd.ask("up", first, count, rate, answer="up"))
        if done != count:
            raise Failed(f"{done:.0f} of {count} tunnels came up: {self.daemon.said()[-300:]}")
        return cpu / count / 1e6

    def inbound(self, first, count):
        """The daemon's CPU for a packet from these tunnels, in µs."""
        cpu, _ = self.cpu_of(lambda: self.crowd.ask("send", first, count, PACKETS, PACKET_RATE, answer="sent"))
        return cpu / PACKETS / 1e3

    def outbound(self, first, count):
        command = self.lab.a.wrap([sys.executable, "-c", SENDER, first + 1, count, PACKETS, PACKET_RATE])
        cpu, _ = self.cpu_of(lambda: subprocess.run(list(map(str, command)), check=True))
        return cpu / PACKETS / 1e3

    def rss(self):
        return self.daemon.memory()[0]

    def look(self, *command):
        """A command of ipsecd: its output, seconds, and the daemon's CPU in ms."""
        begun = time.monotonic()
        cpu, said = self.cpu_of(lambda: self.lab.a.run(self.tools.ipsecd, *command, timeout=600))
        return said, time.monotonic() - begun, cpu / 1e6

    def close(self):
        if self.crowd:
            self.crowd.end()
        if self.sink:
            self.sink.stdin.close()
            self.sink.wait()
        self.lab.close()


def derivation():
    """µs of one x25519 derivation by OpenSSL, by which machines can be compared."""
    said = subprocess.run(["openssl", "speed", "-mr", "-seconds", "2", "ecdhx25519"], capture_output=True, text=True, check=False).stdout
    line = next((line for line in said.splitlines() if line.startswith("+F5")), None)
    if line is None:
        raise Failed("openssl speed ecdhx25519 said nothing of use")
    # +F5:NUMBER:BITS:OPERATIONS A SECOND[:SECONDS AN OPERATION], in the CPU's time.
    return next(float(field) * 1e6 for field in reversed(line.split(":")) if 0 < float(field) < 0.01)


def measure(tools, work):
    """Yields what, value, unit."""
    yield X25519, derivation(), "µs"
    for more, name in (([], "x25519"), (["mlkem"], "x25519 and ML-KEM-768")):
        few = Gateway(work, ("c", "d"), tools, "one file", PART, more)
        try:
            some = PART // 10
            few.up(0, some, MOST)
            half = (PART - some) // 2
            yield f"CPU of a set-up, {name}, as fast as they come", few.up(some, half, MOST), "ms"
            yield f"CPU of a set-up, {name}, {RATE} a second", few.up(some + half, PART - some - half), "ms"
        finally:
            few.close()
    single = Gateway(work, ("c", "d"), tools, "one file", 1)
    try:
        empty = single.rss()
        single.up(0, 1)
        for shape in SHAPES:
            many = Gateway(work, ("a", "b"), tools, shape, COUNT)
            try:
                for what, value, unit in of_shape(many, single, empty):
                    yield f"{shape}: {what}", value, unit
            finally:
                many.close()
    finally:
        single.close()


def of_shape(many, single, empty):
    yield "start until it answers", many.load_seconds, "s"
    yield "CPU of the start", many.load_cpu, "s"
    yield f"CPU of a set-up, the first {PART:,}", many.up(0, PART), "ms"
    if COUNT > 2 * PART:
        yield f"CPU of a set-up, those between, {COUNT - 2 * PART:,}", many.up(PART, COUNT - 2 * PART), "ms"
    yield f"CPU of a set-up, the last {PART:,}", many.up(COUNT - PART, PART), "ms"
    yield "memory of a tunnel, its part of the configuration included", (many.rss() - empty) / COUNT / 1024, "KiB"
    yield from packets(many, single)
    yield from looks(many)
    cpu, (done, _seconds) = many.cpu_of(lambda: many.crowd.ask("rekey", 0, PART, answer="rekeyed"))
    if done != PART:
        raise Failed(f"{done:.0f} of {PART} CHILD_SAs were rekeyed")
    yield f"CPU of a rekey of a CHILD_SA, {PART:,} at once", cpu / PART / 1e6, "ms"
    yield "CPU with all idle", idle(many), "ms/s"
    if many.shape == "a file each":
        yield from reloads(many)
    for path in many.dir.iterdir():
        path.write_text(path.read_text().replace('dpd = "off"', 'dpd = "30s"'))
    _, seconds, _ = many.look("reload")
    yield "reload, every file changed", seconds, "s"
    # After the first of each, which all come at once.
    time.sleep(31)
    yield "CPU with all idle, each asked every 30 s whether it is there", idle(many), "ms/s"
    said, seconds, cpu = many.look("down", "--all")
    yield "down --all until it is done", seconds, "s"
    yield "CPU of down --all", cpu, "ms"
    yield "memory after down --all, beside before", (many.rss() - empty) / (1 << 20), "MiB"
    if many.shape == "a file each":
        yield from restart(many)


def idle(many, seconds=10):
    """The daemon's CPU a second without anything to do, in ms."""
    begun = time.monotonic()
    cpu, _ = many.cpu_of(lambda: time.sleep(seconds))
    return cpu / 1e6 / (time.monotonic() - begun)


def packets(many, single):
    """A packet to one tunnel of one, to one of all, and to all in turn; medians of rounds that take turns."""
    for way in ("in", "out"):
        found = {"1 tunnel": [], "1 of all": [], "all in turn": []}
        for _round in range(5):
            for name, gateway, first, count in (("1 tunnel", single, 0, 1), ("1 of all", many, COUNT // 2, 1), ("all in turn", many, 0, COUNT)):
                act = gateway.inbound if way == "in" else gateway.outbound
                found[name].append(act(first, count))
        middle = {name: statistics.median(values) for name, values in found.items()}
        for name, value in middle.items():
            yield f"CPU of a packet {way}, {name}", value, "µs"
        yield f"packet {way}, 1 of all beside 1 tunnel", middle["1 of all"] / middle["1 tunnel"], "×"


def looks(many):
    said, seconds, cpu = many.look("status", "--json")
    peers = json.loads(said)["peers"]
    tunnels = sum(len(ike["child_sas"]) for peer in peers for ike in peer["ike_sas"])
    if tunnels != COUNT:
        raise Failed(f"status tells of {tunnels} tunnels")
    yield "status --json", seconds, "s"
    yield "CPU of the daemon for it", cpu, "ms"
    yield "its size for a tunnel", len(said) / COUNT / 1024, "KiB"
    _, seconds, _ = many.look("status")
    yield "status", seconds, "s"
    command = many.lab.a.wrap([sys.executable, "-c", GET, many.metrics])
    begun = time.monotonic()
    cpu, said = many.cpu_of(lambda: subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    yield "metrics read once", time.monotonic() - begun, "s"
    yield "CPU of the daemon for that", cpu / 1e6, "ms"
    yield "size of the metrics for a tunnel", len(said) / COUNT / 1024, "KiB"


GET = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
while data := s.recv(1 << 20):
    sys.stdout.buffer.write(data)
"""


def reloads(many):
    _, seconds, cpu = many.look("reload")
    yield "reload, nothing changed", seconds, "s"
    path = many.dir / "site-00007.conf"
    path.write_text(path.read_text().replace('dpd = "off"', 'dpd = "20s"'))
    said, seconds, cpu = many.look("reload")
    if "site-00007" not in said:
        raise Failed(f"reload said {said[:200]}")
    yield "reload, one file changed", seconds, "s"
    yield "CPU of that", cpu, "ms"
    _, seconds, _ = many.look("reload", path)
    yield "reload of one file alone", seconds, "s"


def restart(many):
    """As after a crash: two routes a tunnel are left, those that refuse."""
    many.crowd.end()
    many.crowd = None
    many.daemon.end()
    many.start()
    many.daemon.process.send_signal(signal.SIGKILL)
    many.daemon.process.wait()
    many.start()
    yield "start after SIGKILL, over the routes that are left", many.load_seconds, "s"
