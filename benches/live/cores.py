#!/usr/bin/env python3
"""What more cores give: the bench `cores` with two threads, and a simulation of a gateway's workers with costs that were measured.

    benches/live/cores.py [--costs FILE [--threads]] [--keep FILE] [--write]

Without `--costs` they are measured: the steps of the forwarder in a lab of two namespaces (`forwarder stages`), sealing and
opening in one process (the bench `path`), two threads (the bench `cores`); with `--threads` the last of these alone. `--write` makes
docs/performance/cores.md. The model is said there: `TEXT`.
"""

import argparse
import heapq
import json
import os
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import Lab, enclose  # noqa: E402
from measures import Probe  # noqa: E402
from run import ROOT, bench_program, build, machine, target  # noqa: E402
from subjects import Tools, forwarder  # noqa: E402

CORES = [2, 4, 8, 32]
# A single flow, some, many.
FLOWS = [1, 16, 256]
# Seconds that are simulated, and how often with other flows.
SPAN = 0.02
DRAWS = 9

# Name, whether there is a worker (of two threads) for each two cores, how flows come by their SAs, and whether packets that arrive go to
# the worker of their flow and are opened beside the lock of the SA, rather than to the worker of the SPI.
DESIGNS = [
    ("`--workers 1`, whatever the SAs", False, "one", False),
    ("one SA", True, "one", False),
    ("one SA, opened by the workers of its flows (not built)", True, "one", True),
    ("`per-resource = 16`", True, "resources", False),
    ("an SA a flow (many peers)", True, "peers", False),
]
RESOURCES = 16


class Load:
    """What a batch of one kind of traffic costs, step by step: ns without a lock, ns with it, and how long it is held."""

    def __init__(self, costs):
        self.bytes, self.batch = costs["bytes"], max(1, round(costs["batch"]))
        step = {name: cost * self.batch for name, cost in costs["steps"].items()}
        # Packets leave in the order of their numbers: so an SA is held from its first number to the end of the send.
        ordered = step["seal"] + step["send"]
        self.outbound = [(step["read"], 0, 0), (0, ordered, ordered)]
        written = (step["join"] + step["write"], 0, 0)
        self.inbound = [(step["receive"], 0, 0), (0, step["open"], step["open"]), written]
        # The window is checked before the ICV is, and moved after: without the lock meanwhile.
        self.beside = [(step["receive"], 0, 0), (step["open"], step["window"], step["window"]), written]


def simulate(load, cores, flows, design, rng):
    """Packets in a second out and in, when every flow has always something to send both ways."""
    _name, several, kind, beside = design
    workers = max(1, cores // 2) if several else 1
    # By its hash a flow has a queue of the TUN, and so a worker, until packets of it come in: then that of the worker they come to.
    worker_of = [rng.randrange(workers) for _ in range(flows)]
    if kind == "one":
        sa_of = [0] * flows
        worker_of = worker_of if beside else [0] * flows
    elif kind == "resources":
        # Those of a worker are received by it; among several of its own each flow has one by its hash.
        own = [[number for number in range(RESOURCES) if number % workers == worker] for worker in range(workers)]
        sa_of = [rng.choice(own[worker]) for worker in worker_of]
    else:
        # SPIs are dealt out in turn.
        sa_of = list(range(flows))
        worker_of = [sa % workers for sa in sa_of]
    outbound = run_threads(load.batch, load.outbound, sa_of, worker_of, workers)
    return outbound, run_threads(load.batch, load.beside if beside else load.inbound, sa_of, worker_of, workers)


def run_threads(batch, steps, sa_of, queue_of, workers):
    """A thread a worker, each taking batches of its flows in turn; the lock of an SA is given in the order of asking."""
    mine = [[flow for flow, queue in enumerate(queue_of) if queue == worker] for worker in range(workers)]
    free_at, batches, end = {}, 0, SPAN * 1e9
    # Time, worker, batches that it has begun, the next step of this one.
    events = [(0.0, worker, 0, 0) for worker in range(workers) if mine[worker]]
    while events:
        now, worker, turn, step = heapq.heappop(events)
        if now >= end:
            continue
        alone, locked, held = steps[step]
        if locked:
            sa = sa_of[mine[worker][turn % len(mine[worker])]]
            start = max(now, free_at.get(sa, 0.0))
            free_at[sa] = start + held
            now = start + locked
        now += alone
        step += 1
        if step == len(steps):
            # One that is through only after the end does not count.
            batches, turn, step = batches + (now <= end), turn + 1, 0
        heapq.heappush(events, (now, worker, turn, step))
    return batches * batch / SPAN


def results(costs):
    """For each kind of traffic: rows of design and flows, a rate for each number of cores."""
    for kind, one in costs["loads"].items():
        load = Load(one)
        for design in DESIGNS:
            for flows in FLOWS:
                rates = []
                for cores in CORES:
                    draws = [simulate(load, cores, flows, design, random.Random(draw)) for draw in range(DRAWS)]
                    rates.append(statistics.median(out + inn for out, inn in draws))
                yield kind, load, design[0], flows, rates


LINE = re.compile(r"^stages (\w+) (\d+) (\d+) (\w+) (\d+) (\w+) (\d+) (\w+) (\d+)$", re.MULTILINE)


def steps_of(daemon, direction):
    """What a forwarder has told last of a direction: batches, packets, and ns of each step; nothing yet are zeros."""
    batches, packets, took = 0, 0, {}
    for found in LINE.finditer(daemon.said()):
        if found[1] == direction:
            batches, packets = int(found[2]), int(found[3])
            took = {found[at]: int(found[at + 1]) for at in (4, 6, 8)}
    return batches, packets, took


def measure_steps(probe, ends, *arguments):
    """Packets in a batch outbound, and ns a packet of each step, while iperf3 runs.

    By the clock a step also lasts while its thread waits for a core. So what each daemon used of a processor is shared out
    among all its steps by how long they lasted.
    """
    def told():
        return [(daemon.cpu(), {way: steps_of(daemon, way) for way in ("outbound", "inbound")}) for daemon, _ in ends]

    before = told()
    probe.iperf(*arguments)
    batch, steps = 0, {}
    for (_, way), (cpu_before, earlier), (cpu, later) in zip(ends, before, told()):
        took = {
            (direction, name): value - earlier[direction][2].get(name, 0)
            for direction in later for name, value in later[direction][2].items()
        }
        share = (cpu - cpu_before) / sum(took.values())
        batches, packets = (later[way][at] - earlier[way][at] for at in (0, 1))
        batch = batch or packets / batches
        steps.update({name: value * share / packets for (direction, name), value in took.items() if direction == way})
    return batch, steps


def measure_path(directory):
    """What sealing and opening cost, in ns: name of the figure to value."""
    command = [bench_program(directory, "path"), "--bench"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    return dict(re.findall(r"^figure (.*) ([0-9.]+) ns$", done.stdout, re.MULTILINE))


def measure_threads(directory):
    """What two threads take beside one: name of the figure to value."""
    command = [bench_program(directory, "cores"), "--bench"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = re.findall(r"^figure (.*) ([0-9.]+) (ns|×)$", done.stdout, re.MULTILINE)
    return {f"{name}, {unit}": float(value) for name, value, unit in found}


def measure(directory, seconds):
    """The costs, measured here."""
    tools = Tools(directory / "release/ipsecd", bench_program(directory, "forwarder"), directory / "bench")
    figures = measure_path(directory)
    lab = Lab(Path("/mnt"))
    loads = {}
    try:
        daemons, addresses = forwarder("stages")(lab, tools)
        probe = Probe(lab, daemons, addresses, seconds)
        probe.reach()
        ends = list(zip(daemons, ("outbound", "inbound")))
        for kind, size, inner, arguments in [
            ("TCP, full packets", 1400, 1420, ("-P", "4")),
            ("UDP, 64 bytes of payload", 64, 92, ("-u", "-l", "64", "-b", "0")),
        ]:
            batch, steps = measure_steps(probe, ends, *arguments)
            name = f"AES-256-GCM, {size} bytes"
            # Sealing a piece also cuts it, in the same pass; what cutting alone costs stands for that.
            steps["seal"] = float(figures[f"{name}, out: whole path"]) + steps.pop("cut")
            steps["open"] = float(figures[f"{name}, in: whole path"])
            # All that is not the cipher is more than the window.
            steps["window"] = float(figures[f"{name}, in: beside the AEAD"])
            loads[kind] = {"bytes": inner, "batch": batch, "steps": steps}
    finally:
        lab.close()
    return {"machine": machine(), "loads": loads, "threads": measure_threads(directory)}


TEXT = """# More cores

Written by `benches/live/cores.py --write`; do not edit. ipsecd moves packets with workers of two threads each: `--workers N`, by default
one for each two cores. A worker has a queue of each TUN (`IFF_MULTI_QUEUE`), a socket of port 4500 and of each raw protocol, to which the
kernel brings what has its SPIs, and SAs of its own where a peer has several ([architecture](../architecture.md#threads)). Each further
worker takes 7 MiB of memory at rest, which are its buffers.

## Two threads, measured

The same packets sealed, and opened, by one thread and by two at a time, without system calls: [the bench `cores`](../../benches/cores.rs).
ns a packet, × the rate of one thread. Of one SA a batch is sealed while no other is, since packets leave in the order of their numbers; it is
opened by both threads, which take the replay window for moments. A machine whose two cores are two threads of one, or are not its own, gives less.

{threads}
## More than that: a simulation, not a measurement

With the costs below, which were measured on {cpu}, {cores} cores, Linux {kernel}, on {date} (commit {commit}, load average {load:.1f}).

A gateway whose every flow has always something to send, both ways alike. A thread a direction takes batches of its flows in turn.
A flow is with the worker that its SA comes to, for what that writes into its queue of the TUN draws the answers there; with `per-resource` it is
with one by chance, as the kernel's hash has it, and has an SA of that worker. Packets of an SA leave in the order of their
numbers, since a peer's replay window may be short: an SA is locked from the first number of a batch to the end of its send. What arrives goes to
the worker of its SPI, which holds the window while it opens a batch. *By the workers of its flows*: packets of one SA would be spread by something
else than the SPI; the window is checked before and moved after, and the cipher is run without it. Figures are medians of {draws} draws.

Left out: the network card and what the kernel does for it (one outer flow, which all UDP encapsulation between two addresses is, has one
queue of a card and one core of the kernel, unless that looks at SPIs), runs that the kernel joins of packets with several SPIs and which go to
the worker of the first, the bandwidth of memory and its caches, and threads without a core of their own.

### Costs

ns a packet. Reading, cutting, sending, receiving, joining and writing: [`forwarder stages`](../../benches/forwarder.rs) between two
namespaces, by the CPU time of its threads; to send on a veth pair is also to receive at its other end. Sealing and opening: [the bench
`path`](../../benches/path.rs). A large piece is cut in the pass that seals it; here the forwarder's cutting, which copies and makes checksums,
is added to sealing.

"""

ENDING = """
## Where it stops

- **One flow** gains nothing: it has one queue and one SA, and its packets may not overtake each other.
- **One SA** gains nothing: all that comes of it comes to one worker, and numbers and order of what leaves are one after the other. To spread what
  comes by something else than the SPI would be of use only with a peer that sends faster than one worker can, and would disorder flows; the
  windows would bear it ([`InboundSa::opening`](../../src/ipsec/inbound.rs)): the window itself takes {window:.0f} ns of the {open:.0f} ns of a full packet.
- **Per-resource SAs** (16 at most) go as far as chance spreads flows over the queues, and no further than 16 workers.
- **Many peers** go on to all cores, as far as this model sees: SPIs are dealt out in turn.
"""


def show_threads(figures):
    """The table of the bench `cores`."""
    if not figures:
        return "Not measured here yet.\n"
    text = "| | 1 thread | 2 threads | × |\n|---|---|---|---|\n"
    for name, value in figures.items():
        case, count, unit = re.fullmatch(r"(.*): ([12]) threads?, (ns|×)", name).groups()
        if count == "1":
            two, ratio = (figures[f"{case}: 2 threads, {kind}"] for kind in ("ns", "×"))
            text += f"| {case} | {value:,.0f} | {two:,.0f} | {ratio:.2f} |\n"
    return text


def show(costs):
    """The page."""
    loads = costs["loads"]
    text = TEXT.format(draws=DRAWS, threads=show_threads(costs["threads"]), **costs["machine"])
    names = ["read", "seal", "send", "receive", "open", "join", "write"]
    text += f"| | packets a batch | {' | '.join(names)} | window |\n|---|---|{'---|' * 8}\n"
    for kind, one in loads.items():
        cells = " | ".join(f"{one['steps'][name]:,.0f}" for name in [*names, "window"])
        text += f"| {kind} | {one['batch']:.1f} | {cells} |\n"
    last = None
    for kind, load, design, flows, rates in results(costs):
        if kind != last:
            text += f"\n### {kind}\n\n1000 packets a second, both directions together; in brackets × two cores.\n\n"
            text += "| | flows | " + " | ".join(f"{cores} cores" for cores in CORES) + " |\n"
            text += "|---|---|" + "---|" * len(CORES) + "\n"
        last = kind
        cells = " | ".join(f"{rate / 1e3:,.0f} ({rate / rates[0]:.1f})" for rate in rates)
        text += f"| {design} | {flows} | {cells} |\n"
    full = next(iter(loads.values()))["steps"]
    return text + ENDING.format(window=full["window"], open=full["open"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--costs", type=Path, help="costs that were measured before, as JSON")
    parser.add_argument("--threads", action="store_true", help="with --costs: two threads are measured anew")
    parser.add_argument("--keep", type=Path, help="where costs that are measured are kept, as JSON")
    parser.add_argument("--duration", type=int, default=4, metavar="SECONDS", help="seconds of each measurement")
    parser.add_argument("--write", action="store_true", help="write docs/performance/cores.md")
    options = parser.parse_args()
    if options.costs:
        costs = json.loads(options.costs.read_text())
        if options.threads:
            costs["threads"] = measure_threads(target())
    else:
        if os.geteuid() != 0:
            sys.exit("needs root, for namespaces and TUN devices")
        directory = target()
        if os.environ.get("IPSECD_BENCH_INSIDE") != "1":
            build(directory, ["forwarder", "path", "cores"])
        enclose()
        costs = measure(directory, options.duration)
    if options.keep:
        options.keep.write_text(json.dumps(costs, indent=1, ensure_ascii=False) + "\n")
    page = show(costs)
    print(page)
    if options.write:
        (ROOT / "docs/performance/cores.md").write_text(page)


if __name__ == "__main__":
    main()
