"""What was found, as text, as docs/performance.md, and as plots."""

import statistics
from html import escape

from flood import FLOODS
from measures import UNITS

BASE = "forwarder, offload"
SINGLE = "forwarder, single"
OURS = "ipsecd AES-256-GCM, UDP"
PEERS = ("libipsec AES-256-GCM", "wireguard-go", "boringtun", "gotatun")

X25519 = "one x25519 derivation by OpenSSL"

DAEMON = "## Ten thousand tunnels in a daemon"

# Title, figures of one plot, whether it is drawn on a logarithmic axis.
PLOTS = {
    "throughput": ("TCP throughput, one stream, Mbit/s", "tcp1"),
    "cpu": ("CPU of both daemons, seconds per GB of one TCP stream", "tcp1 cpu"),
    "packets": ("CPU of both daemons, µs per 64-byte packet at 15,000/s", "udp 64 cpu"),
    "latency": ("Ping without load, median, ms", "ping idle"),
    "memory": ("Memory of one daemon after load, MiB", "rss"),
}


def median(values):
    return statistics.median(values) if values else None


def show(value):
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.3g}" if value else "0"


def spread(values):
    if not values:
        return "–"
    middle = show(median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({show(min(values))}–{show(max(values))})"


def figures(results):
    """Names of figures that were taken of anything, in their order."""
    taken = {name for found in results["rounds"].values() for name in found}
    return [name for name in UNITS if name in taken]


def of(results, subject, name):
    return results["rounds"].get(subject, {}).get(name, [])


def ratios(results, name, one, other):
    """The ratio within each round, where both were measured in all of them; else that of the medians alone."""
    ones, others = of(results, one, name), of(results, other, name)
    if not ones or not others:
        return []
    if len(ones) == len(others):
        return [a / b for a, b in zip(ones, others) if b]
    return [median(ones) / median(others)] if median(others) else []


def ratio(results, name, one, other):
    return median(ratios(results, name, one, other))


def text(results):
    lines = []
    subjects = list(results["rounds"])
    for name in figures(results):
        what, unit, _more = UNITS[name]
        lines.append(f"\n{what}, {unit}")
        for subject in subjects:
            values = of(results, subject, name)
            if not values:
                continue
            beside = ratios(results, name, subject, BASE)
            beside = f"{spread(beside):>22} x {BASE}" if beside else ""
            lines.append(f"  {subject:26} {spread(values):>28} {beside}")
    for name, found in results["process"].items():
        lines.append(f"{name}: {spread(found['values'])} {found['unit']}")
    for name, found in [*results.get("scale", {}).items(), *results.get("flood", {}).items()]:
        lines.append(f"{name}: {show(found['value'])} {found['unit']}")
    for subject, error in results["failed"].items():
        lines.append(f"{subject}: not measured in every round: {error}")
    return "\n".join(lines)


def derivation(results):
    """What one x25519 derivation by OpenSSL took in this run, in µs: in the daemon's part, or else in the process's."""
    live = results.get("scale", {}).get(X25519)
    process = results["process"].get("IKE: one x25519 derivation by OpenSSL")
    return live["value"] if live else median(process["values"]) if process else None


def demands(results):
    """What issue 5 of the project demands that this run can tell: text, what was found, what is wanted, whether it is met."""
    def at_least(what, value, least):
        if value is not None:
            yield what, value, f"≥ {least}", value >= least

    def at_most(what, value, most):
        if value is not None:
            yield what, value, f"≤ {most}", value <= most

    def process(name):
        found = results["process"].get(name)
        return median(found["values"]) if found else None

    r = lambda name, one, other: ratio(results, name, one, other)  # noqa: E731
    yield from at_least("TCP, 1 stream: of gotatun's", r("tcp1", OURS, "gotatun"), 6)
    yield from at_least("TCP, 1 stream: of libipsec's", r("tcp1", OURS, PEERS[0]), 10)
    yield from at_least("TCP, 1 stream: of the offload forwarder's", r("tcp1", OURS, BASE), 0.65)
    yield from at_most("CPU per GB: of the offload forwarder's", r("tcp1 cpu", OURS, BASE), 2)
    raw, null = "ipsecd AES-256-GCM, raw", "ipsecd ESP-NULL, raw"
    yield from at_least("Raw ESP, TCP: of the single forwarder's", r("tcp1", raw, SINGLE), 1.0)
    yield from at_most("Raw ESP, CPU per GB: of the single forwarder's", r("tcp1 cpu", raw, SINGLE), 0.8)
    yield from at_least("AH, TCP: of ESP-NULL's", r("tcp1", "ipsecd AH", null), 0.85)
    yield from at_most("64-byte packets, CPU: of gotatun's", r("udp 64 cpu", OURS, "gotatun"), 0.7)
    yield from at_most("64-byte packets, CPU: of the offload forwarder's", r("udp 64 cpu", OURS, BASE), 1.25)
    best = max((median(of(results, peer, "udp 64 most")) or 0 for peer in PEERS), default=0)
    mine = median(of(results, OURS, "udp 64 most"))
    if best and mine:
        yield from at_least("64-byte packets at full load: of the best peer's", mine / best, 1.5)
    yield from at_most("Ping, idle: of boringtun's", r("ping idle", OURS, "boringtun"), 1.0)
    yield from at_most("Ping beside TCP, p99: of the offload forwarder's", r("ping load p99", OURS, BASE), 1.5)
    yield from at_most("CPU without traffic, ms/s", median(of(results, OURS, "idle cpu")), 0.5)
    yield from at_most("Memory after load, MiB", median(of(results, OURS, "rss")), 32)
    for size in ("64", "576", "1400"):
        for way in ("out", "in"):
            name = f"AES-256-GCM, {size} bytes, {way}: beside the AEAD"
            yield from at_most(f"ESP path beside the bare AEAD, {size} bytes, {way}, ns", process(name), 40)
    taken = derivation(results)
    scale = 48 / taken if taken else 1
    for what, most in (("x25519", 0.35), ("x25519 and ML-KEM-768", 0.5)):
        value = process(f"IKE: responder's CPU of a set-up, {what}")
        if value is not None:
            yield from at_most(f"IKE set-up, {what}, ms where OpenSSL's x25519 takes 48 µs", value * scale, most)
    yield from at_most("A tunnel among 10,000, KiB", process("IKE: memory of a tunnel among 10,000, with its SAs and its configuration"), 12)
    early = process("IKE: responder's CPU of a set-up among the first 100 of 10,000")
    late = process("IKE: responder's CPU of a set-up among the last 100 of 10,000")
    if early and late:
        yield from at_most("Set-up of the last of 10,000 beside the first", late / early, 1.1)
    yield from at_most("64-byte packet, 1 of 10,000 tunnels beside 1 tunnel",
                       process("datapath: 64-byte packet, 1 of 10,000 tunnels beside 1 tunnel"), 1.1)
    yield from demands_of_scale(results)
    yield from demands_of_floods(results, at_least, at_most)


def demands_of_scale(results):
    """What is demanded of a daemon with ten thousand tunnels."""
    def at_most(what, value, most):
        if value is not None:
            yield what, value, f"≤ {most}", value <= most

    def live(name):
        found = results.get("scale", {}).get(name)
        return found["value"] if found else None

    taken = live(X25519)
    scale = 48 / taken if taken else 1
    for what, most in (("x25519", 0.35), ("x25519 and ML-KEM-768", 0.5)):
        for rate in ("as fast as they come", "200 a second"):
            value = live(f"CPU of a set-up, {what}, {rate}")
            if value is not None:
                name = f"IKE set-up in a daemon, {what}, {rate}, ms where OpenSSL's x25519 takes 48 µs"
                yield from at_most(name, value * scale, most)
    for shape in ("one file", "a file each"):
        early = next((live(name) for name in results.get("scale", {}) if name.startswith(f"{shape}: CPU of a set-up, the first")), None)
        late = next((live(name) for name in results.get("scale", {}) if name.startswith(f"{shape}: CPU of a set-up, the last")), None)
        if early and late:
            yield from at_most(f"10,000 tunnels, {shape}: set-up of the last beside the first", late / early, 1.1)
        yield from at_most(f"10,000 tunnels, {shape}: memory of one, KiB",
                           live(f"{shape}: memory of a tunnel, its part of the configuration included"), 12)
        for way in ("in", "out"):
            yield from at_most(f"10,000 tunnels, {shape}: a packet {way}, 1 of all beside 1 tunnel",
                               live(f"{shape}: packet {way}, 1 of all beside 1 tunnel"), 1.1)


def demands_of_floods(results, at_least, at_most):
    """What is demanded of daemons that get five times what they can take."""
    for flood in FLOODS:
        def found(what, flood=flood):
            figure = results.get("flood", {}).get(f"flood {flood}: {what}")
            return figure["value"] if figure else None

        yield from at_least(f"Flood, {flood}: sent for each packet that is taken", found("sent for each that is taken"), 5)
        yield from at_most(f"Flood, {flood}: memory of a daemon, MiB", found("memory of a daemon, at most"), 32)
        yield from at_most(f"Flood, {flood}: memory gained after two seconds, KiB", found("memory that a daemon gained after two seconds"), 512)
        yield from at_least(f"Flood, {flood}: the IKE_SA outlives it", found("the IKE_SA is the one from before"), 1)
        yield from at_most(f"Flood, {flood}: rekeys that failed", found("rekeys that failed"), 0)
        yield from at_most(f"Flood, {flood}: neither taken nor counted, %", found("sent, but neither taken nor counted as dropped"), 1)
        yield from at_most(f"Flood, {flood}: CPU afterwards, ms/s", found("CPU of both daemons afterwards"), 1)


def markdown(results, plots):
    machine = results["machine"]
    out = ["# Performance", "",
           "Written by `make bench`; do not edit. Figures are medians of interleaved rounds, with the least and the most of the",
           "rounds behind them; so are the ratios, each of which is of one round. What counts are ratios: the machine is shared, and other work on it moves every figure.", "",
           "```sh", results["command"], "```", "",
           f"On {machine['date']}, commit {machine['commit']}: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']},"
           f" load average {machine['load']:.1f} at the start (what else ran on the machine counts against everyone here).",
           f"{max((len(v) for f in results['rounds'].values() for v in f.values()), default=0)} rounds, {results['duration']} s a measurement,",
           "between two network namespaces joined by a veth pair; both ends of a tunnel share the machine's cores with iperf3.", "",
           "*forwarder, offload* moves packets with the same system calls as ipsecd and encrypts nothing: the limit of this design.",
           "*forwarder, single* moves one packet a system call. Both are [`benches/forwarder.rs`](../benches/forwarder.rs).", ""]
    found = list(demands(results))
    if found:
        out += ["## What was set out to be reached", "", *beside_what_is_wanted(found), ""]
    for name, title in plots:
        out += [f"![{title}](performance/{name}.svg)", ""]
    out += ["## Each figure", ""]
    for name in figures(results):
        what, unit, more = UNITS[name]
        out += [f"### {what}", "", f"{unit}; {'more' if more else 'less'} is better.", "",
                f"| | median (least–most) | × {BASE} | × {SINGLE} |", "|---|---|---|---|"]
        for subject in results["rounds"]:
            values = of(results, subject, name)
            if values:
                beside = [spread(ratios(results, name, subject, other)) for other in (BASE, SINGLE)]
                out.append(f"| {subject} | {spread(values)} | {beside[0]} | {beside[1]} |")
        out.append("")
    if results["process"]:
        out += ["## Within one process", "",
                "Medians in nanoseconds and so on of `cargo bench --bench esp`, `steps`, `path`, `scale` and `ike`, without any system call; beside each step stands the bare primitive.", "",
                "| | median (least–most) | |", "|---|---|---|"]
        out += [f"| {name} | {spread(found['values'])} | {found['unit']} |" for name, found in results["process"].items()]
        out.append("")
    if results.get("scale"):
        out += [*daemon_section(results), ""]
    if results.get("flood"):
        out += ["## Floods", "",
                "Five times as many packets as a daemon can take, while its CHILD_SA is rekeyed and its peer's liveness checked:",
                "[`benches/live/flood.py`](../benches/live/flood.py).", "", "| | found | |", "|---|---|---|"]
        out += [f"| {name} | {show(found['value'])} | {found['unit']} |" for name, found in results["flood"].items()]
        out.append("")
    if results["failed"]:
        out += ["## Not measured", ""]
        out += [f"- {subject}: {error.splitlines()[0]}" for subject, error in results["failed"].items()]
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def beside_what_is_wanted(found):
    return ["| | found | wanted | |", "|---|---|---|---|",
            *(f"| {what} | {show(value)} | {wanted} | {'met' if met else '**not met**'} |" for what, value, wanted, met in found)]


def daemon_section(results):
    """What was found of a daemon with ten thousand tunnels."""
    machine = results["machine"]
    out = [DAEMON, "",
           "A daemon that 10,000 initiators come to, by one file with a pool, and by a file each: [`benches/live/scale.py`](../benches/live/scale.py).",
           "CPU is all of the daemon's, of every thread, in user space and in the kernel, as the scheduler counted it. One x25519 derivation by",
           f"OpenSSL took {show(derivation(results))} µs in the same run, on {machine['date']}, commit {machine['commit']}, load average {machine['load']:.1f} at the start.",
           "What is told in seconds is time that passed, more of it the more other work there is."]
    if results.get("build"):
        out.append(f"Built with {results['build']}.")
    found = list(demands_of_scale(results))
    if found:
        out += ["", *beside_what_is_wanted(found)]
    out += ["", "| | found | |", "|---|---|---|"]
    out += [f"| {name} | {show(found['value'])} | {found['unit']} |" for name, found in results["scale"].items()]
    return out


def svg(title, rows):
    """Bars for medians, lines from the least to the most."""
    width, left, right, height = 760, 210, 70, 24
    most = max(max(values) for _, values in rows) or 1
    scale = (width - left - right) / most
    tall = 44 + height * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" width="{width}" height="{tall}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{tall}" fill="#ffffff"/>',
           f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>']
    for at, (name, values) in enumerate(rows):
        top = 34 + at * height
        middle, mid = median(values), top + 9
        colour = "#2a6f97" if name.startswith("ipsecd") else "#a9a9a9" if "forwarder" in name or name == "no tunnel" else "#e09f3e"
        out.append(f'<text x="{left - 8}" y="{mid + 4}" text-anchor="end">{escape(name)}</text>')
        out.append(f'<rect x="{left}" y="{top}" width="{max(1, middle * scale):.1f}" height="18" fill="{colour}"/>')
        if len(values) > 1:
            low, high = left + min(values) * scale, left + max(values) * scale
            out.append(f'<path d="M{low:.1f} {mid}H{high:.1f}M{low:.1f} {mid - 4}v8M{high:.1f} {mid - 4}v8" stroke="#222222" fill="none"/>')
        out.append(f'<text x="{left + max(values) * scale + 6:.1f}" y="{mid + 4}">{escape(show(middle))}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def write_daemon(results, docs):
    """Puts what was found of a daemon with ten thousand tunnels in the place of what was found before; all else stays."""
    page = docs / "performance.md"
    sections = page.read_text(encoding="utf-8").rstrip().split("\n## ")
    new = "\n".join(daemon_section(results)).removeprefix("## ") + "\n"
    title = DAEMON.removeprefix("## ")
    at = next((at for at, section in enumerate(sections) if section.startswith(title)), None)
    if at is None:
        sections[-1] += "\n"
        sections.append(new)
    else:
        sections[at] = new
    page.write_text("\n## ".join(sections).rstrip() + "\n", encoding="utf-8")


def write(results, docs):
    directory = docs / "performance"
    directory.mkdir(exist_ok=True)
    plots = []
    for name, (title, figure) in PLOTS.items():
        rows = [(subject, of(results, subject, figure)) for subject in results["rounds"]]
        rows = [(subject, values) for subject, values in rows if values]
        # Without a tunnel everything else would be a stroke.
        if figure == "tcp1":
            rows = [row for row in rows if row[0] != "no tunnel"]
        if rows:
            (directory / f"{name}.svg").write_text(svg(title, rows), encoding="utf-8")
            plots.append((name, title))
    (docs / "performance.md").write_text(markdown(results, plots), encoding="utf-8")
