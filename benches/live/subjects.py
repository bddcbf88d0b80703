"""What is measured: each starts its two ends in a lab and returns their daemons, and the addresses to measure between."""

import json
import os
from pathlib import Path

from lab import INNER, Failed, run, until

PSK = "correct horse battery staple"
# What fits into 1500 bytes with the headers of the longest encapsulation here (ESP in UDP, GCM), for devices whose VPN
# does not set it.
MTU = 1420


class Tools:
    """Where the programs are."""

    def __init__(self, ipsecd, forwarder, crates, initiators=None, flood=None):
        self.ipsecd, self.crates = ipsecd, crates
        self.forwarder, self.initiators, self.flood = forwarder, initiators, flood

    def crate(self, name):
        path = self.crates / "bin" / name
        if not path.exists():
            raise Failed(f"no {name}: `cargo install {name}` did not work")
        return path


def nothing(_lab, _tools):
    """No tunnel at all: the veth pair alone."""
    return [], None


def forwarder(mode):
    def start(lab, tools):
        daemons = []
        for host in lab.both:
            far = lab.b if host is lab.a else lab.a
            command = [tools.forwarder, mode, "tun0", f"{host.outer}:5000", f"{far.outer}:5000"]
            daemon = lab.start(host, command)
            until("the forwarder", lambda d=daemon: d.must_live("the forwarder") and "ready" in d.said())
            host.tun_up("tun0", MTU)
            daemons.append(daemon)
        return daemons, INNER

    return start


def ipsecd(proposal, encap="none", protocol="esp", offload="auto", more="", metrics=False):
    """`more` stands in the files of both; with `metrics` each serves them at `metrics.sock` in its directory."""
    def start(lab, tools):
        daemons = []
        for host in lab.both:
            far = lab.b if host is lab.a else lab.a
            host.ip(f"addr add {host.inner}/32 dev lo")
            config = host.dir / "config"
            config.mkdir(exist_ok=True)
            (config / "far.conf").write_text(
                f'[local]\naddress = "{host.outer}"\nid = "{host.name}.example.net"\nsubnets = ["{host.inner}/32"]\n'
                f'[peer]\naddress = "{far.outer}"\nid = "{far.name}.example.net"\nsubnets = ["{far.inner}/32"]\n'
                f'[auth]\npsk = {{ file = "far.psk" }}\n'
                f'[esp]\nproposals = "{proposal}"\nprotocol = "{protocol}"\nencap = "{encap}"\n'
                f'start = "{"now" if host is lab.a else "respond"}"\n{more}'
            )
            psk = config / "far.psk"
            psk.touch(mode=0o600)
            psk.write_text(PSK + "\n")
            env = {"IPSECD_STATE_DIR": str(host.dir / "state")}
            command = [tools.ipsecd, "--log", "warn", "daemon", "--config-dir", config, "--offload", offload]
            command += ["--metrics", f"unix:{host.dir / 'metrics.sock'}"] if metrics else []
            daemons.append(lab.start(host, command, env))
        for host, daemon in zip(lab.both, daemons):
            def is_up(host=host, daemon=daemon):
                daemon.must_live("ipsecd")
                try:
                    status = json.loads(host.run(tools.ipsecd, "status", "--json"))
                except Failed:
                    return False
                return any(peer["state"] == "up" for peer in status["peers"])
            until("ipsecd's tunnel", is_up)
        return daemons, INNER

    return start


def libipsec(lab, _tools):
    """strongSwan with its ESP in user space."""
    daemons, uris = [], []
    for host in lab.both:
        far = lab.b if host is lab.a else lab.a
        host.ip(f"addr add {host.inner}/32 dev lo")
        directory = host.dir / "charon"
        for name in ("x509", "x509ca", "private", "rsa", "ecdsa", "pkcs8", "pubkey", "pkcs12"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        vici = directory / "vici"
        (directory / "strongswan.conf").write_text(
            "charon {\n load = random nonce openssl drbg kdf hmac sha1 sha2 aes pem pkcs1 pubkey x509"
            " kernel-libipsec kernel-netlink socket-default vici updown\n plugins {\n"
            f"  vici {{ socket = unix://{vici} }}\n  kernel-netlink {{ fwmark = !0x42 }}\n"
            "  socket-default { fwmark = 0x42 }\n }\n}\n"
        )
        (directory / "swanctl.conf").write_text(
            "connections { lab {\n version = 2\n mobike = no\n encap = yes\n"
            f" local_addrs = {host.outer}\n remote_addrs = {far.outer}\n proposals = aes256gcm16-prfsha384-x25519\n"
            f" local {{ auth = psk\n id = {host.name}.example.net }}\n remote {{ auth = psk\n id = {far.name}.example.net }}\n"
            f" children {{ net {{\n local_ts = {host.inner}/32\n remote_ts = {far.inner}/32\n"
            "  esp_proposals = aes256gcm16 } } } }\n"
            f'secrets {{ ike-lab {{ secret = "{PSK}" }} }}\n'
        )
        env = {"STRONGSWAN_CONF": str(directory / "strongswan.conf"), "SWANCTL_DIR": str(directory)}
        daemon = lab.start(host, ["/usr/lib/ipsec/charon"], env)
        until("charon", lambda d=daemon, v=vici: d.must_live("charon") and v.exists())
        where = ["--uri", f"unix://{vici}"]
        host.run("swanctl", "--load-all", "--noprompt", *where, env=dict(os.environ, **env))
        daemons.append(daemon)
        uris.append((where, env))
    where, env = uris[0]
    command = ["swanctl", "--initiate", "--child", "net", "--timeout", "10", *where]
    lab.a.run(*command, env=dict(os.environ, **env))
    return daemons, INNER


def wireguard(command):
    """Any that `wg` sets up; `command` gives its command line, in the foreground."""

    def start(lab, tools):
        keys, daemons = {}, []
        for host in lab.both:
            private = run("wg", "genkey").strip()
            keys[host.name] = private, run("wg", "pubkey", input=private).strip()
        for host in lab.both:
            far = lab.b if host is lab.a else lab.a
            env = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error", "WG_LOG_LEVEL": "error"}
            daemon = lab.start(host, command(tools), env)
            control = host.dir / "run" / "wireguard" / "wg0.sock"
            until("the daemon", lambda d=daemon, c=control: d.must_live("the daemon") and c.exists())
            private = host.dir / "private"
            private.touch(mode=0o600)
            private.write_text(keys[host.name][0])
            host.run(
                "wg", "set", "wg0", "private-key", private, "listen-port", "5000", "peer", keys[far.name][1],
                "endpoint", f"{far.outer}:5000", "allowed-ips", f"{far.inner}/32",
            )
            host.tun_up("wg0", MTU)
            daemons.append(daemon)
        return daemons, INNER

    return start


def wireguard_go(_tools):
    return ["wireguard-go", "-f", "wg0"]


def boringtun(tools):
    return [tools.crate("boringtun-cli"), "-f", "--disable-drop-privileges", "-l", "/run/boringtun.log", "wg0"]


def gotatun(tools):
    return [tools.crate("gotatun"), "-f", "--disable-drop-privileges", "wg0"]


# In this order they stand in tables and plots.
SUBJECTS = {
    "no tunnel": nothing,
    "forwarder, offload": forwarder("offload"),
    "forwarder, single": forwarder("single"),
    "ipsecd AES-256-GCM, UDP": ipsecd("aes256gcm16", encap="udp"),
    "ipsecd AES-128-GCM, UDP": ipsecd("aes128gcm16", encap="udp"),
    "ipsecd ChaCha20, UDP": ipsecd("chacha20poly1305", encap="udp"),
    "ipsecd AES-256-GCM, raw": ipsecd("aes256gcm16"),
    "ipsecd AES-128-GCM, raw": ipsecd("aes128gcm16"),
    "ipsecd ChaCha20, raw": ipsecd("chacha20poly1305"),
    "ipsecd ESP-NULL, raw": ipsecd("null-sha256"),
    "ipsecd AH": ipsecd("sha256", protocol="ah"),
    "libipsec AES-256-GCM": libipsec,
    "wireguard-go": wireguard(wireguard_go),
    "boringtun": wireguard(boringtun),
    "gotatun": wireguard(gotatun),
}
