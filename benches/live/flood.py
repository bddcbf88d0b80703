"""Floods of a daemon with five times as many packets as it can take: what it does with them, with its memory, and with its peer.

Each flood comes on a tunnel that is up, between two daemons:

- *from the LAN*: UDP packets of 64 bytes into the tunnel;
- *ESP*: datagrams to port 4500 with the SPI of an SA, sequence numbers that go up, and an ICV that is wrong;
- *noise*: datagrams to port 4500 with SPIs that nobody has.

First as many as go are sent for a moment, which tells how many are taken. Then five times as many are sent, meanwhile the memory of both
daemons is looked at, `status` asked, and a CHILD_SA rekeyed, by one that checks every two seconds that its peer is alive.
"""

import json
import os
import re
import socket
import subprocess
import threading
import time

from lab import Failed, until
from subjects import ipsecd

SECONDS = int(os.environ.get("IPSECD_BENCH_FLOOD", "20"))
PROBE = 3
TIMES = 5
# Processes that send: with fewer than there are threads of the daemons these would get most of the CPU, and take nearly all that is sent.
SENDERS = 8
# Datagrams of a piece, where they are sent in pieces: `BATCH` of `src/io/sys.rs`.
RUN = 64
# Seconds between two rekeys: longer than between two liveness checks, which they would take the place of.
REKEY = 5
IKE = '[ike]\ndpd = "2s"\nretransmit-timeout = "500ms"\n'
FLOODS = ("from the LAN", "ESP", "noise")
# What the kernel had for the daemon and dropped, since its buffers were full.
FULL = ("receive-full", "tun-full")
# Data of an IP packet of 64 bytes, and of one that fills a datagram of 100.
SIZES = {"from the LAN": 36, "ESP": 72, "noise": 72}


class Senders:
    """So many processes that share a rate."""

    def __init__(self, lab, program, kind, flood, rate, seconds, count=1):
        here, there = (lab.a.inner, lab.b.inner) if flood == "from the LAN" else (lab.a.outer, lab.b.outer)
        port = 9 if flood == "from the LAN" else 4500
        command = [program, f"{here}:0", f"{there}:{port}", SIZES[flood], rate // count, seconds, kind]
        # From outside in one piece, or it would cost the senders more than the daemon.
        command += [] if flood == "from the LAN" else ["runs"]
        self.running = [subprocess.Popen(lab.a.wrap(command), stdout=subprocess.PIPE, text=True) for _ in range(count)]

    def go_on(self):
        return any(process.poll() is None for process in self.running)

    def sent(self):
        """How many, and packets a second."""
        number, rate = 0, 0.0
        for process in self.running:
            said = process.communicate(timeout=60)[0].split()
            if process.returncode or said[:1] != ["sent"]:
                raise Failed(f"the flood said {' '.join(said) or 'nothing'}")
            number += int(said[1])
            rate += int(said[1]) / float(said[2])
        return number, rate


class Site:
    """One of the daemons, and what it tells."""

    def __init__(self, host, daemon, tools):
        self.host, self.daemon, self.tools = host, daemon, tools

    def command(self, *arguments):
        return self.host.run(self.tools.ipsecd, *arguments, timeout=60)

    def status(self):
        return json.loads(self.command("status", "--json"))

    def ike_sas(self):
        return [sa for peer in self.status()["peers"] for sa in peer["ike_sas"]]

    def metrics(self):
        """Every counter of it, and its labels."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(60)
            asked.connect(str(self.host.dir / "metrics.sock"))
            asked.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            said = b""
            while more := asked.recv(65536):
                said += more
        lines = re.findall(r"^(ipsecd_\w+?)(?:_total)?(?:\{(.*?)\})? ([0-9.e+]+)\r?$", said.decode(), re.MULTILINE)
        return [(name, dict(re.findall(r'(\w+)="(.*?)"', labels)), float(value)) for name, labels, value in lines]

    def taken(self, flood):
        """Packets that it has done something about: sealed, or opened, or judged."""
        if flood == "from the LAN":
            return self.total("ipsecd_tunnel_packets", direction="outbound")
        return sum(count for reason, count in self.drops().items() if reason not in FULL)

    def total(self, wanted, **labels):
        return sum(value for name, has, value in self.metrics() if name == wanted and labels.items() <= has.items())

    def drops(self):
        return {has["reason"]: value for name, has, value in self.metrics() if name == "ipsecd_dropped_packets"}


class Watch(threading.Thread):
    """Looks at the memory of daemons until it is told to end."""

    def __init__(self, daemons):
        super().__init__(daemon=True)
        self.daemons, self.seen, self.ended = daemons, [], threading.Event()
        self.begun = time.monotonic()

    def run(self):
        while not self.ended.wait(0.1):
            at = time.monotonic() - self.begun
            self.seen.append((at, [daemon.memory()[0] for daemon in self.daemons]))

    def end(self):
        """The most there was, in MiB, and how much one of them grew after the first two seconds, in KiB."""
        self.ended.set()
        self.join()
        most = max(max(memory) for _, memory in self.seen)
        early = [memory for at, memory in self.seen if at < 2.0] or [self.seen[0][1]]
        grown = max(max(memory[nth] for _, memory in self.seen) - max(memory[nth] for memory in early)
                    for nth in range(len(self.daemons)))
        return most / (1 << 20), grown / 1024


def measure(tools, make_lab):
    """Every flood, each of a tunnel of its own. Yields name, value, unit."""
    for flood in FLOODS:
        lab = make_lab()
        try:
            yield from measure_one(lab, tools, flood)
        finally:
            lab.close()


def measure_one(lab, tools, flood):
    daemons, _ = ipsecd("aes256gcm16", encap="udp", more=IKE, metrics=True)(lab, tools)
    a, b = (Site(host, daemon, tools) for host, daemon in zip(lab.both, daemons))
    floods = a if flood == "from the LAN" else b
    # Nobody answers that nobody listens.
    sink = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 9)); print('ready', flush=True); sys.stdin.read()"
    sink = subprocess.Popen(lab.b.wrap(["python3", "-c", sink, lab.b.inner]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        sink.stdout.readline()
        yield from flooded(lab, tools, flood, a, b, floods)
    finally:
        sink.stdin.close()
        sink.wait()


def kind_of(flood, b):
    if flood != "ESP":
        return "noise" if flood == "noise" else "plain"
    spis = [child["spi_inbound"] for sa in b.ike_sas() for child in sa["child_sas"]]
    return f"esp={re.sub('^0x', '', str(spis[0]))}"


def flooded(lab, tools, flood, a, b, floods):
    def share(before, after, begun):
        return (after - before) / (time.monotonic() - begun)

    before, begun = floods.taken(flood), time.monotonic()
    senders = Senders(lab, tools.flood, kind_of(flood, b), flood, 0, PROBE)
    time.sleep(PROBE - 0.5)
    capacity = share(before, floods.taken(flood), begun)
    senders.sent()
    if capacity <= 0:
        raise Failed(f"{flood}: nothing was taken")

    checks = a.total("ipsecd_dpd_checks")
    ikes = [sa["spi_i"] for sa in a.ike_sas()]
    drops, taken, begun = floods.drops(), floods.taken(flood), time.monotonic()
    senders = Senders(lab, tools.flood, kind_of(flood, b), flood, int(TIMES * capacity), SECONDS, SENDERS)
    watch = Watch([a.daemon, b.daemon])
    watch.start()
    looks, rekeys, failed = [], [], 0
    while senders.go_on():
        since = time.monotonic()
        for site in (a, b):
            site.status()
        looks.append((time.monotonic() - since) / 2)
        if len(looks) % REKEY == 1:
            since = time.monotonic()
            try:
                a.command("rekey", "far")
                rekeys.append(time.monotonic() - since)
            except (Failed, subprocess.TimeoutExpired):
                failed += 1
        time.sleep(1)
    sent, rate = senders.sent()
    most, grown = watch.end()
    took = share(taken, floods.taken(flood), begun)
    name = f"flood {flood}"
    yield f"{name}: sent", rate / 1e3, "1000/s"
    yield f"{name}: taken", took / 1e3, "1000/s"
    yield f"{name}: sent for each that is taken", rate / took, ""
    yield f"{name}: memory of a daemon, at most", most, "MiB"
    yield f"{name}: memory that a daemon gained after two seconds", grown, "KiB"
    yield f"{name}: an answer to `status`, the slowest", max(looks) * 1e3, "ms"
    yield f"{name}: rekeys that were done", len(rekeys), ""
    yield f"{name}: rekeys that failed", failed, ""
    if rekeys:
        yield f"{name}: a rekey, the slowest", max(rekeys) * 1e3, "ms"
    # Each that was sent was taken, or is counted as one that the kernel had and we did not.
    full = {reason: count - drops.get(reason, 0) for reason, count in floods.drops().items()}
    # Of what comes in one piece the kernel counts the piece.
    pieces = 1 if flood == "from the LAN" else RUN
    counted = floods.taken(flood) - taken + pieces * sum(full.get(reason, 0) for reason in FULL)
    yield f"{name}: sent, but neither taken nor counted as dropped", 100 * max(0, sent - counted) / sent, "%"
    kept = [sa["spi_i"] for sa in a.ike_sas()] == ikes
    yield f"{name}: liveness checks", a.total("ipsecd_dpd_checks") - checks, ""
    yield f"{name}: the IKE_SA is the one from before", float(kept), ""
    until("a ping through the tunnel", lambda: answers(lab))
    # What the flood left in queues is done by then, and so are timers that it set off.
    time.sleep(3)
    cpu, since = a.daemon.cpu() + b.daemon.cpu(), time.monotonic()
    time.sleep(5)
    yield f"{name}: CPU of both daemons afterwards", (a.daemon.cpu() + b.daemon.cpu() - cpu) / 1e6 / (time.monotonic() - since), "ms/s"
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(full.items()) if count)
    print(f"  {name}: dropped: {drops}", flush=True)


def answers(lab):
    try:
        lab.a.run("ping", "-n", "-q", "-c1", "-W1", lab.b.inner)
        return True
    except Failed:
        return False
