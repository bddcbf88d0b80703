#!/usr/bin/env python3
"""Measures ipsecd beside other VPNs in user space, beside no tunnel, and beside a forwarder without cryptography.

    benches/live/run.py [--bench tcp,udp,ping,idle,process,scale,flood] [--rounds 5] [--duration 4] [--subjects WORD,...] [--write]

Rounds are interleaved: each starts and measures every subject once, so that whatever else the machine does hits all of
them alike. Figures are medians of the rounds, with the least and the most beside them. `--write` makes
docs/performance.md and its plots of what was found; with `--bench scale` alone it writes that part of it anew. Needs root: everything happens in namespaces of its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import flood  # noqa: E402
import report  # noqa: E402
import scale  # noqa: E402
from lab import Failed, Lab, enclose, run  # noqa: E402
from measures import MORE_PARTS, PARTS, Probe  # noqa: E402
from subjects import SUBJECTS, Tools  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ["iproute2", "iputils-ping", "iperf3", "wireguard-go", "wireguard-tools",
            "strongswan-charon", "strongswan-swanctl", "libcharon-extra-plugins", "libstrongswan-standard-plugins"]
PACKAGES_APART = ["iproute2", "openssl"]
CRATES = ["boringtun-cli", "gotatun-cli"]
# Benches that are programs of the lab.
PROGRAMS = ["forwarder", "initiators", "flood"]
# Benches of the library whose lines `figure NAME VALUE UNIT` are taken into the report.
IN_PROCESS = {"esp": ["aes(128|256)gcm16/|chacha20poly1305/"], "steps": [], "path": [], "scale": [], "ike": []}
# Where the build says which programs they are, in cargo's target directory.
PROGRAMS_FILE = "bench/programs.json"
# What is no measurement of a subject: within one process, with ten thousand tunnels, and in floods.
APART = ["process", "scale", "flood"]
EVERYTHING = [*PARTS, *APART]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bench", default="all", help="parts, with commas: idle, ping, tcp, udp, tcp1, process, scale, flood")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=int, default=4, metavar="SECONDS", help="seconds of each measurement")
    parser.add_argument("--subjects", default="", help="only those whose name has one of these words")
    parser.add_argument("--results", type=Path, help="where what was found is kept, as JSON")
    parser.add_argument("--add", action="store_true", help="to what is in there already")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument("--no-build", action="store_true", help="take the programs that are there")
    options = parser.parse_args()
    names = EVERYTHING if options.bench == "all" else options.bench.split(",")
    known = {**PARTS, **MORE_PARTS, **dict.fromkeys(APART)}
    for name in names:
        if name not in known:
            parser.error(f"no part {name!r}; there are: {', '.join(known)}")
    options.parts = names
    return options


def target():
    found = run("cargo", "metadata", "--format-version", "1", "--no-deps", "--locked", cwd=ROOT)
    return Path(json.loads(found)["target_directory"])


def prepare(directory, options):
    """Installs and builds what is missing; where a peer cannot be had, it is left out and said so."""
    packages = PACKAGES_APART if set(options.parts) <= set(APART) else PACKAGES
    subprocess.run([ROOT / "tests/lab/install.sh", *packages], check=True)
    build(directory, [*PROGRAMS, *(IN_PROCESS if "process" in options.parts else [])])
    if set(options.parts) <= set(APART):
        return
    crates = directory / "bench"
    for crate in CRATES:
        if not any((crates / "bin" / name).exists() for name in (crate, crate.removesuffix("-cli"))):
            environment = dict(os.environ, CARGO_TARGET_DIR=str(crates / "build"))
            print(f"installing {crate}", flush=True)
            subprocess.run(["cargo", "install", "--quiet", "--locked", "--root", crates, crate],
                           env=environment, check=False)


def build(directory, benches):
    """Builds ipsecd and these benches, and keeps where cargo puts them: a test of the same name lies beside some of them."""
    command = ["cargo", "build", "--locked", "--quiet", "--release"]
    subprocess.run([*command, "--bin", "ipsecd"], cwd=ROOT, check=True)
    names = [word for name in benches for word in ("--bench", name)]
    said = subprocess.run([*command, "--message-format", "json-render-diagnostics", *names], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in said.splitlines()]
    programs = {one["target"]["name"]: one["executable"] for one in built if one.get("executable") and one["target"]["kind"] == ["bench"]}
    kept = directory / PROGRAMS_FILE
    if kept.exists():
        programs = json.loads(kept.read_text()) | programs
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(programs, indent=1))


def bench_program(directory, name):
    """The program of a bench that was built."""
    kept = directory / PROGRAMS_FILE
    path = json.loads(kept.read_text()).get(name) if kept.exists() else None
    if path is None or not os.access(path, os.X_OK):
        raise Failed(f"the bench {name} is not built")
    return path


def measure(subject, tools, parts, duration, work):
    """One subject, once. Yields figures until something fails."""
    lab = Lab(work)
    try:
        daemons, addresses = SUBJECTS[subject](lab, tools)
        probe = Probe(lab, daemons, addresses, duration)
        probe.reach()
        for part in parts:
            yield from part(probe)
        yield from probe.memory()
    finally:
        lab.close()


def measure_process(directory, failed):
    """The benches within one process: `figure NAME VALUE UNIT`, a line each. What one told before it failed counts."""
    for name, arguments in IN_PROCESS.items():
        done = subprocess.run([bench_program(directory, name), "--bench", *arguments], capture_output=True, text=True, timeout=1200, check=False)
        if done.returncode != 0:
            failed[f"bench {name}"] = next((line for line in done.stderr.splitlines() if line.strip()), "it failed")
        for line in done.stdout.splitlines():
            word, _, rest = line.partition(" ")
            if word == "figure":
                figure, value, unit = rest.rsplit(" ", 2)
                yield figure, float(value), unit


def machine():
    """What the figures were taken on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "commit": commit.stdout.strip() or "?",
            "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d", time.gmtime())}


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.exit("needs root, for namespaces and TUN devices")
    directory = target()
    if os.environ.get("IPSECD_BENCH_INSIDE") != "1" and not options.no_build:
        prepare(directory, options)
    enclose()
    results_file = options.results or directory / "bench" / "results.json"
    results = {"machine": machine(), "duration": options.duration, "rounds": {}, "process": {}, "scale": {}, "flood": {}, "failed": {}}
    if options.add and results_file.exists():
        results = json.loads(results_file.read_text())
    parts = "all" if options.parts == EVERYTHING else ",".join(options.parts)
    more = [f"--duration {options.duration}"] if options.duration != 4 else []
    more += [f"--subjects '{options.subjects}'"] if options.subjects else []
    more += [f"--results {results_file.name}"] if options.results else []
    more += ["--add"] if options.add else []
    more = f" OPTIONS='{' '.join([*more, '--write'])}'" if more or parts != "all" else ""
    profile = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("CARGO_PROFILE_RELEASE_")]
    results["build"] = " ".join(profile)
    before = [results["command"]] if "command" in results else []
    results["command"] = "\n".join([*before, f"make bench BENCH={parts} ROUNDS={options.rounds}{more}"])

    def keep():
        results_file.parent.mkdir(parents=True, exist_ok=True)
        results_file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    forwarder, *others = (bench_program(directory, name) for name in PROGRAMS)
    tools = Tools(directory / "release/ipsecd", forwarder, directory / "bench", *others)
    words = [word for word in options.subjects.split(",") if word]
    subjects = [name for name in SUBJECTS if not words or any(word in name for word in words)]
    parts = [{**PARTS, **MORE_PARTS}[name] for name in options.parts if name not in APART]
    work = Path("/mnt")
    for turn in range(options.rounds if parts else 0):
        for subject in subjects:
            print(f"round {turn + 1} of {options.rounds}: {subject}", flush=True)
            figures = results["rounds"].setdefault(subject, {})
            try:
                for name, value in measure(subject, tools, parts, options.duration, work):
                    figures.setdefault(name, []).append(value)
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"  {subject}: {error}", file=sys.stderr, flush=True)
                results["failed"][subject] = str(error)[:300]
            keep()
    if "process" in options.parts:
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}: in process", flush=True)
            for name, value, unit in measure_process(directory, results["failed"]):
                results["process"].setdefault(name, {"unit": unit, "values": []})["values"].append(value)
            keep()
    # Once, whatever the rounds are: each has its own.
    for name, what, found in (("scale", "ten thousand tunnels", lambda: scale.measure(tools, work)),
                              ("flood", "floods", lambda: flood.measure(tools, lambda: Lab(work)))):
        if name not in options.parts:
            continue
        print(what, flush=True)
        try:
            for figure, value, unit in found():
                print(f"  {figure}: {report.show(value)} {unit}", flush=True)
                results.setdefault(name, {})[figure] = {"unit": unit, "value": value}
                keep()
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"  {name}: {error}", file=sys.stderr, flush=True)
            results["failed"][what] = str(error)[:300]
            keep()
    print(report.text(results))
    if options.write and options.parts == ["scale"]:
        report.write_daemon(results, ROOT / "docs")
        print("docs/performance.md: its part written")
    elif options.write:
        report.write(results, ROOT / "docs")
        print("docs/performance.md written")


if __name__ == "__main__":
    main()
