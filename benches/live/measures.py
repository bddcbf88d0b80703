"""What is measured of a subject: each takes the lab, the daemons and the address of the far end, and yields figures.

A figure is a name with a value; `UNITS` says of each what it is and which way is better.
"""

import json
import re
import statistics
import subprocess
import time

from lab import Failed, until

# name: (what, unit, whether more is better)
UNITS = {
    "tcp1": ("TCP, 1 stream", "Mbit/s", True),
    "tcp1 cpu": ("TCP, 1 stream: CPU of both daemons", "s/GB", False),
    "tcp4": ("TCP, 4 streams", "Mbit/s", True),
    "tcp4 cpu": ("TCP, 4 streams: CPU of both daemons", "s/GB", False),
    "tcp both": ("TCP, 1 stream each way at once", "Mbit/s", True),
    "tcp both cpu": ("TCP, each way: CPU of both daemons", "s/GB", False),
    "udp 64 cpu": ("UDP, 64 bytes at 15,000/s: CPU of both daemons", "µs/packet", False),
    "udp 576 cpu": ("UDP, 576 bytes at 15,000/s: CPU of both daemons", "µs/packet", False),
    "udp 1300 cpu": ("UDP, 1300 bytes at 15,000/s: CPU of both daemons", "µs/packet", False),
    "udp 64 lost": ("UDP, 64 bytes at 15,000/s: lost", "%", False),
    "udp 576 lost": ("UDP, 576 bytes at 15,000/s: lost", "%", False),
    "udp 1300 lost": ("UDP, 1300 bytes at 15,000/s: lost", "%", False),
    "udp 64 most": ("UDP, 64 bytes, as many as go: delivered", "1000/s", True),
    "udp 576 most": ("UDP, 576 bytes, as many as go: delivered", "1000/s", True),
    "udp 1300 most": ("UDP, 1300 bytes, as many as go: delivered", "1000/s", True),
    "ping idle": ("Ping, idle: median", "ms", False),
    "ping idle p99": ("Ping, idle: 99th percentile", "ms", False),
    "ping load": ("Ping beside TCP: median", "ms", False),
    "ping load p99": ("Ping beside TCP: 99th percentile", "ms", False),
    "idle cpu": ("CPU of both daemons without traffic", "ms/s", False),
    "rss": ("Memory of one daemon after load", "MiB", False),
}

RATE = 15_000
# Least seconds of which it is told what a daemon does without traffic.
IDLE = 10
SIZES = (64, 576, 1300)
# Seconds between two pings. Alone they find a machine that sleeps; beside TCP, where the 99th percentile counts, there are to be twenty
# that are slower in four seconds.
PING_IDLE, PING_LOAD = 0.05, 0.002


class Probe:
    """One subject that runs, and how long each measurement lasts."""

    def __init__(self, lab, daemons, addresses, seconds):
        self.lab, self.daemons, self.seconds = lab, daemons, seconds
        self.here = addresses["a"] if addresses else lab.a.outer
        self.there = addresses["b"] if addresses else lab.b.outer

    def reach(self):
        """Waits until the far end answers, and then some packets more, so that nothing is the first of its kind."""
        def answers():
            for daemon in self.daemons:
                daemon.must_live("a daemon")
            try:
                self.lab.a.run("ping", "-n", "-q", "-c1", "-W1", self.there)
                return True
            except Failed:
                return False
        until("an answer from the far end", answers)
        self.server = self.lab.start(self.lab.b, ["iperf3", "-s", "-B", self.there])
        until("iperf3", lambda: "listening" in self.server.said() or self.listens())
        self.lab.a.run("ping", "-n", "-q", "-i", "0.002", "-c", "50", self.there)

    def listens(self):
        return ":5201" in self.lab.b.run("ss", "-ltnH")

    def cpu(self):
        return sum(daemon.cpu() for daemon in self.daemons)

    def iperf(self, *arguments):
        """Runs iperf3; what it found, and the CPU that the daemons needed, in ns."""
        command = ["iperf3", "-J", "-c", self.there, "-B", self.here, "-t", str(self.seconds), *arguments]
        before = self.cpu()
        found = self.lab.a.run(*command, timeout=self.seconds + 30)
        cpu = self.cpu() - before
        said = json.loads(found)
        if "error" in said:
            raise Failed(f"iperf3: {said['error']}")
        return said["end"], cpu

    def tcp(self, name, *arguments):
        found, cpu = self.iperf(*arguments)
        sums = [found["sum_received"]]
        if "sum_received_bidir_reverse" in found:
            sums.append(found["sum_received_bidir_reverse"])
        volume = sum(one["bytes"] for one in sums)
        yield name, sum(one["bits_per_second"] for one in sums) / 1e6
        if self.daemons:
            yield f"{name} cpu", cpu / volume

    def udp(self, size):
        found, cpu = self.iperf("-u", "-l", str(size), "-b", str(RATE * size * 8))
        total = of_udp(found)
        delivered = total["packets"] - total["lost_packets"]
        yield f"udp {size} lost", total["lost_percent"]
        if self.daemons and delivered:
            yield f"udp {size} cpu", cpu / delivered / 1e3

    def udp_most(self, size):
        found, _cpu = self.iperf("-u", "-l", str(size), "-b", "0")
        total = of_udp(found)
        yield f"udp {size} most", (total["packets"] - total["lost_packets"]) / total["seconds"] / 1e3

    def ping(self, name, interval):
        count = max(100, int(self.seconds / interval))
        said = self.lab.a.run("ping", "-n", "-i", str(interval), "-c", str(count), "-W2", self.there)
        times = sorted(float(time) for time in re.findall(r"time=([0-9.]+)", said))
        if len(times) < count // 2:
            raise Failed(f"{len(times)} of {count} pings were answered")
        yield name, statistics.median(times)
        yield f"{name} p99", times[min(len(times) - 1, int(len(times) * 0.99))]

    def loaded_ping(self):
        command = ["iperf3", "-c", self.there, "-B", self.here, "-t", str(self.seconds + 2)]
        load = subprocess.Popen(self.lab.a.wrap(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until("the load", lambda: self.established() or load.poll() is not None)
            if load.poll() is not None:
                raise Failed("iperf3 ended at once")
            yield from self.ping("ping load", PING_LOAD)
        finally:
            load.terminate()
            load.wait()
            # The server ends its test before it takes another.
            until("the end of the load", lambda: not self.established())

    def established(self):
        return ":5201" in self.lab.b.run("ss", "-tnH", "state", "established")

    def idle(self):
        if not self.daemons:
            return
        # Timers that come every few seconds count as well.
        before, start = self.cpu(), time.monotonic()
        time.sleep(max(self.seconds, IDLE))
        yield "idle cpu", (self.cpu() - before) / 1e6 / (time.monotonic() - start)

    def memory(self):
        if self.daemons:
            yield "rss", max(daemon.memory()[0] for daemon in self.daemons) / (1 << 20)


def of_udp(found):
    """What the server got, as far as it said so."""
    total = found.get("sum")
    if not total or "lost_packets" not in total:
        raise Failed("iperf3's server did not tell what it got")
    return total


def tcp(probe):
    yield from probe.tcp("tcp1")
    yield from probe.tcp("tcp4", "-P", "4")
    yield from probe.tcp("tcp both", "--bidir")


def tcp1(probe):
    yield from probe.tcp("tcp1")


def udp(probe):
    for size in SIZES:
        yield from probe.udp(size)
    for size in SIZES:
        yield from probe.udp_most(size)


def ping(probe):
    yield from probe.ping("ping idle", PING_IDLE)
    yield from probe.loaded_ping()


def idle(probe):
    yield from probe.idle()


# Name of a part: what is run for it, in this order. `idle` comes first, before there was any load.
PARTS = {"idle": idle, "ping": ping, "tcp": tcp, "udp": udp}
MORE_PARTS = {"tcp1": tcp1}
