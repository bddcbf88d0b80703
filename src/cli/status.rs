//! `ipsecd status`: the state of the tunnels, for people and for programs.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::{CliError, Global, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{
    Ask, Body, ChildSaStatus, FixedPolicyStatus, IkeSaStatus, ManualLayerStatus, ManualSaStatus,
    PeerStatus, Status, Traffic, VERSION,
};

/// Arguments of `status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd status
  ipsecd status site-b --watch
  ipsecd status --json | jq '.peers[].state'")]
pub struct StatusArgs {
    /// Name of a peer; without it, all
    pub peer: Option<String>,
    /// As JSON, described in docs/control-protocol.md
    #[arg(long)]
    pub json: bool,
    /// Again every second, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs, or there is no such peer.
pub fn run(global: &Global, args: &StatusArgs) -> Result<(), CliError> {
    loop {
        let status = ask(global, args)?;
        let text = if args.json { json(&status)? } else { text(&status) };
        if !args.watch {
            say(text.trim_end());
            return Ok(());
        }
        let clear = if io::stdout().is_terminal() && !args.json { "\x1b[H\x1b[2J" } else { "" };
        let mut out = io::stdout();
        if writeln!(out, "{clear}{}", text.trim_end()).and_then(|()| out.flush()).is_err() {
            // The reader has seen enough.
            return Ok(());
        }
        pause();
    }
}

fn ask(global: &Global, args: &StatusArgs) -> Result<Status, CliError> {
    let ask = Ask::Status { peer: args.peer.clone() };
    let answer = Client::connect(&global.socket)?.ask(ask, |_| {})?;
    let Body::Status(status) = answer else { return Err(ClientError::Ended.into()) };
    Ok(*status)
}

#[expect(clippy::disallowed_methods, reason = "a refresh every second is what --watch is")]
fn pause() {
    std::thread::sleep(Duration::from_secs(1));
}

fn json(status: &Status) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Versioned<'a> {
        ipsecd: u32,
        #[serde(flatten)]
        status: &'a Status,
    }
    serde_json::to_string(&Versioned { ipsecd: VERSION, status })
        .map_err(|error| CliError::Client(error.into()))
}

/// For people.
fn text(status: &Status) -> String {
    let mut text = format!(
        "ipsecd {}, pid {}, up {}\n",
        status.version,
        status.pid,
        time(status.uptime_seconds)
    );
    if let Some(dir) = &status.keylog {
        let dir = dir.display();
        line(
            &mut text,
            format_args!("WARNING: the keys of every SA are written to {dir} (--keylog)"),
        );
    }
    if status.peers.is_empty() {
        text.push_str("no peers\n");
    }
    for peer in &status.peers {
        text.push('\n');
        of_peer(&mut text, peer);
    }
    if !status.policies.is_empty() {
        text.push('\n');
        line(&mut text, "policies without SAs, in their order:");
        line(&mut text, policies(&status.policies));
    }
    if !status.drops.is_empty() {
        line(&mut text, format_args!("\ndropped in all: {}", drops(&status.drops)));
    }
    text
}

fn of_peer(text: &mut String, peer: &PeerStatus) {
    line(text, format_args!("{}: {}", peer.name, peer.state.name()));
    line(text, format_args!("  file       {}", peer.file.display()));
    let mtu = peer.mtu.map(|mtu| format!(", mtu {mtu}")).unwrap_or_default();
    line(text, format_args!("  interface  {}{mtu}", peer.interface));
    line(text, format_args!("  routes     {}", peer.routes.join(" ")));
    if let Some(error) = &peer.last_error {
        line(text, format_args!("  last error {error}"));
    }
    if let Some(seconds) = peer.retry_in_seconds {
        line(text, format_args!("  next try   in {}", time(seconds)));
    }
    for sa in &peer.ike_sas {
        of_ike_sa(text, sa);
        if !sa.child_sas.is_empty() {
            line(text, table(&sa.child_sas));
        }
    }
    if !peer.manual_sas.is_empty() {
        line(text, manual_table(&peer.manual_sas));
    }
}

fn policies(all: &[FixedPolicyStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["policy", "action", "order", "direction", "selectors", "file"]);
    let (first, last): (Vec<_>, Vec<_>) = all.iter().partition(|policy| policy.order == "first");
    for policy in first.into_iter().chain(last) {
        table.add_row([
            format!("{}/{}", policy.of, policy.name),
            policy.action.clone(),
            format!(
                "{}, {} the tunnels",
                policy.order,
                if policy.order == "first" { "before" } else { "after" }
            ),
            policy.direction.clone(),
            format!("{}\n=== {}", policy.ts_local.join(" "), policy.ts_remote.join(" ")),
            policy.file.display().to_string(),
        ]);
    }
    table
}

fn manual_table(sas: &[ManualSaStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "SA",
        "SPIs in/out",
        "suite",
        "selectors",
        "via",
        "in",
        "out",
        "sequence in/out",
        "age",
        "rekey",
    ]);
    for sa in sas {
        let mut name = format!("{}\n{}", sa.name, sa.mode);
        if !sa.drops.is_empty() {
            let _infallible = write!(name, "\ndropped: {}", drops(&sa.drops));
        }
        let layers = |of: fn(&ManualLayerStatus) -> String| -> String {
            sa.layers.iter().map(of).collect::<Vec<_>>().join("\n")
        };
        table.add_row([
            name,
            layers(|layer| format!("{}\n{}", layer.spi_inbound, layer.spi_outbound)),
            layers(|layer| layer.suite.clone()),
            format!("{}\n=== {}", sa.ts_local.join(" "), sa.ts_peer.join(" ")),
            format!("{}\n{}\n{}", sa.encap, sa.local, sa.remote),
            traffic(sa.inbound),
            traffic(sa.outbound),
            layers(|layer| format!("{}\n{}", layer.sequence_inbound, layer.sequence_outbound)),
            time(sa.age_seconds),
            sa.keys.clone(),
        ]);
    }
    table
}

fn of_ike_sa(text: &mut String, sa: &IkeSaStatus) {
    let role = if sa.initiator { "initiator" } else { "responder" };
    let nat = match (sa.nat_local, sa.nat_peer) {
        (false, false) => "no NAT",
        (true, false) => "NAT in front of us",
        (false, true) => "NAT in front of the peer",
        (true, true) => "NAT in front of both",
    };
    let suite = sa.suite.as_deref().unwrap_or("not chosen yet");
    line(text, format_args!("  IKE_SA     {}, {role}, SPIs {} {}", sa.state, sa.spi_i, sa.spi_r));
    let peer_id = sa.peer_id.as_deref().unwrap_or("?");
    let user = sa.eap_identity.as_ref().map(|user| format!(" (EAP: {user})")).unwrap_or_default();
    line(text, format_args!("             {} === {peer_id}{user}", sa.local_id));
    let mobike = if sa.mobike { ", may move" } else { "" };
    line(text, format_args!("             {} -> {}, {nat}{mobike}", sa.local, sa.remote));
    let ppk = if sa.ppk { ", with a PPK" } else { "" };
    line(text, format_args!("             {suite}{ppk}"));
    if !sa.leased_addresses.is_empty() {
        let leased = sa.leased_addresses.join(" ");
        line(text, format_args!("             the peer has {leased} of our pool"));
    }
    if !sa.virtual_addresses.is_empty() {
        let ours = sa.virtual_addresses.join(" ");
        line(text, format_args!("             we have {ours} behind the peer"));
    }
    if !sa.peer_subnets.is_empty() {
        let subnets = sa.peer_subnets.join(" ");
        line(text, format_args!("             behind the peer, as it says: {subnets}"));
    }
    if !sa.dns_servers.is_empty() {
        let what = match sa.dns_domains.as_slice() {
            [] => "every name".to_owned(),
            domains => domains.join(" "),
        };
        let servers = sa.dns_servers.join(" ");
        line(text, format_args!("             DNS servers {servers} for {what}"));
    }
    if let Some(age) = sa.age_seconds {
        let rekey = sa.rekey_in_seconds.map_or_else(|| "never".to_owned(), time);
        let rtt = sa.rtt_us.map_or_else(String::new, |rtt| {
            let (whole, part) = (rtt / 1000, rtt % 1000 / 100);
            format!(", rtt {whole}.{part} ms")
        });
        line(text, format_args!("             age {}, rekey in {rekey}{rtt}", time(age)));
    }
}

fn table(children: &[ChildSaStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "CHILD_SA",
        "SPIs in/out",
        "suite",
        "selectors",
        "via",
        "in",
        "out",
        "age",
        "rekey",
    ]);
    for sa in children {
        let rekey = sa.rekey_in_seconds.map_or_else(|| "never".to_owned(), time);
        let mut name = format!("{}\n{}\n{}", sa.name, sa.state, sa.mode);
        if let Some(resource) = sa.resource {
            let _infallible = write!(name, "\nresource {resource}");
        }
        if !sa.drops.is_empty() {
            let _infallible = write!(name, "\ndropped: {}", drops(&sa.drops));
        }
        table.add_row([
            name,
            format!("{}\n{}", sa.spi_inbound, sa.spi_outbound),
            sa.suite.clone(),
            format!("{}\n=== {}", sa.ts_local.join(" "), sa.ts_peer.join(" ")),
            format!("{}\n{}\n{}", sa.encap, sa.local, sa.remote),
            traffic(sa.inbound),
            traffic(sa.outbound),
            time(sa.age_seconds),
            rekey,
        ]);
    }
    table
}

/// Writing into a String does not fail.
fn line(text: &mut String, line: impl core::fmt::Display) {
    let _infallible = writeln!(text, "{line}");
}

fn traffic(traffic: Traffic) -> String {
    format!("{} pkts\n{}", traffic.packets, bytes(traffic.bytes))
}

fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn time(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn drops(drops: &BTreeMap<String, u64>) -> String {
    drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Code, Failure, OffloadStatus, PeerState};

    fn status() -> Status {
        let child = ChildSaStatus {
            name: "lan".into(),
            state: "INSTALLED".into(),
            spi_inbound: "0xc0ffee01".into(),
            spi_outbound: "0xc0ffee02".into(),
            suite: "AES_GCM_16-256".into(),
            mode: "tunnel".into(),
            encap: "udp".into(),
            local: "192.0.2.1:4500".into(),
            remote: "192.0.2.2:4500".into(),
            ts_local: vec!["10.1.0.0/16".into()],
            ts_peer: vec!["10.2.0.0/16".into()],
            inbound: Traffic { packets: 3, bytes: 252 },
            outbound: Traffic { packets: 4, bytes: 336 },
            sequence_inbound: 3,
            sequence_outbound: 4,
            drops: BTreeMap::from([("icv-mismatch".into(), 5)]),
            resource: None,
            age_seconds: 65,
            rekey_in_seconds: Some(3000),
        };
        let ike = IkeSaStatus {
            state: "ESTABLISHED".into(),
            initiator: true,
            spi_i: "0123456789abcdef".into(),
            spi_r: "fedcba9876543210".into(),
            local_id: "a.example.net".into(),
            peer_id: Some("b.example.net".into()),
            eap_identity: None,
            ppk: false,
            virtual_addresses: vec!["10.3.0.1".into()],
            leased_addresses: vec!["10.4.0.1".into()],
            dns_servers: vec!["10.1.0.53".into()],
            dns_domains: vec!["corp.example".into()],
            peer_subnets: vec!["10.1.0.0/16".into()],
            local: "192.0.2.1:4500".into(),
            remote: "192.0.2.2:4500".into(),
            mobike: true,
            nat_local: true,
            nat_peer: false,
            suite: Some("AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE25519".into()),
            age_seconds: Some(65),
            rekey_in_seconds: None,
            rtt_us: Some(23_100),
            child_sas: vec![child],
        };
        let layer = |spi: &str, suite: &str| ManualLayerStatus {
            spi_inbound: format!("0x0000100{spi}"),
            spi_outbound: format!("0x0000200{spi}"),
            suite: suite.into(),
            sequence_inbound: 77,
            sequence_outbound: 4_200_000_001,
            sequence_last: u32::MAX.into(),
        };
        let manual = ManualSaStatus {
            name: "by-hand".into(),
            keys: "manual: no rekey".into(),
            mode: "transport".into(),
            encap: "esp".into(),
            local: "192.0.2.1".into(),
            remote: "192.0.2.2".into(),
            ts_local: vec!["192.0.2.1/32".into()],
            ts_peer: vec!["192.0.2.2/32".into()],
            layers: vec![layer("1", "ENCR_AES_CBC-256"), layer("2", "AUTH_HMAC_SHA2_256_128")],
            inbound: Traffic { packets: 1, bytes: 84 },
            outbound: Traffic { packets: 2, bytes: 168 },
            drops: BTreeMap::new(),
            age_seconds: 60,
        };
        let peer = PeerStatus {
            name: "site-b".into(),
            file: "/etc/ipsecd/site-b.conf".into(),
            state: PeerState::Up,
            last_error: Some(Failure { code: Code::Unreachable, message: "no answer".into() }),
            retry_in_seconds: Some(4),
            interface: "ipsec0".into(),
            mtu: Some(1422),
            routes: vec!["10.2.0.0/16".into()],
            ike_sas: vec![ike],
            manual_sas: vec![manual],
        };
        Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_seconds: 3661,
            keylog: Some("/tmp/keys".into()),
            offload: OffloadStatus::default(),
            workers: 1,
            peers: vec![peer],
            policies: vec![FixedPolicyStatus {
                name: "ssh".into(),
                of: "holes".into(),
                file: "/etc/ipsecd/holes.conf".into(),
                action: "BYPASS".into(),
                order: "first".into(),
                direction: "both".into(),
                ts_local: vec!["10.1.0.0/16".into()],
                ts_remote: vec!["10.2.0.0/16[tcp/22]".into()],
            }],
            drops: BTreeMap::from([("no-policy".into(), 9)]),
        }
    }

    #[test]
    fn text_has_everything_an_operator_asks_for() {
        let text = text(&status());
        for part in [
            "holes/ssh",
            "BYPASS",
            "before the tunnels",
            "10.2.0.0/16[tcp/22]",
            "site-b: up",
            "0xc0ffee01",
            "0xc0ffee02",
            "10.1.0.0/16",
            "10.2.0.0/16",
            "no answer",
            "AES_GCM_16-256",
            "NAT in front of us",
            "mtu 1422",
            "3 pkts",
            "336 B",
            "icv-mismatch 5",
            "no-policy 9",
            "1m 5s",
            "rtt 23.1 ms",
            "b.example.net",
            "0123456789abcdef",
            "keys of every SA are written to /tmp/keys",
            "by-hand",
            "0x00001002",
            "4200000001",
            "transport",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn json_is_versioned_and_flat() {
        let value: serde_json::Value = serde_json::from_str(&json(&status()).unwrap()).unwrap();
        assert_eq!(value["ipsecd"], 1);
        assert_eq!(value["peers"][0]["state"], "up");
        let child = &value["peers"][0]["ike_sas"][0]["child_sas"][0];
        assert_eq!(child["inbound"]["packets"], 3);
        assert_eq!(child["drops"]["icv-mismatch"], 5);
    }
}
