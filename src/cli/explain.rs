//! `ipsecd explain`: the way that a packet would take.

use core::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::{CliError, Global, say, secrets};
use crate::control::client::{Client, ClientError};
use crate::control::explain::{Explanation, Length, Policy, Question, Route, Sa};
use crate::control::protocol::{Ask, Body, Code, VERSION};
use crate::daemon::explain::explain;
use crate::daemon::load::load;
use crate::daemon::names::Names;
use crate::daemon::peers::Entry;
use crate::daemon::spd;
use crate::datapath::probe::Probe;
use crate::datapath::{Datapath, Options};
use crate::io::clock;

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd explain '10.1.0.5:1234 > 10.2.0.9:443/tcp'
  ipsecd explain 10.1.0.5 to 10.2.0.9/icmp --size 1500
  ipsecd explain '[fd01::5]:1234 > [fd02::9]:53/udp' --json
  ipsecd explain --in '10.2.0.9:443 > 10.1.0.5:1234/tcp'
  ipsecd explain --conf site-b.conf --conf site-c.conf '10.1.0.5 > 10.2.0.9/icmp'")]
pub struct ExplainArgs {
    /// `SRC[:PORT] > DST[:PORT]/PROTOCOL`; `to` is as good as `>`, which a shell wants quoted
    ///
    /// PROTOCOL is tcp, udp, sctp, icmp, icmp6 or a number; icmp/TYPE[.CODE] names another type than the echo request.
    #[arg(required = true, value_name = "PACKET")]
    pub packet: Vec<String>,
    /// It comes from a peer, as it is once it is opened
    #[arg(long = "in")]
    pub inbound: bool,
    /// Its length in bytes, IP header included
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub size: usize,
    /// It may be fragmented on the way: IPv4 without DF
    #[arg(long)]
    pub may_fragment: bool,
    /// Explain what a daemon with this file would do before any SA is there, instead of asking the running one
    ///
    /// May be given more than once. The kernel is not asked for a route.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub conf: Vec<PathBuf>,
    /// As JSON, described in docs/control-protocol.md
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs, the packet is none, or a file has errors.
pub fn run(global: &Global, args: &ExplainArgs) -> Result<(), CliError> {
    let packet = args.packet.join(" ");
    let wrong = |error: crate::datapath::probe::ProbeError| CliError::Usage(error.to_string());
    let probe: Probe = packet.parse().map_err(wrong)?;
    probe.packet(args.size, args.may_fragment).map_err(wrong)?;
    let question = Question {
        packet,
        inbound: args.inbound,
        size: args.size,
        may_fragment: args.may_fragment,
    };
    let told =
        if args.conf.is_empty() { ask(global, question)? } else { offline(args, &question)? };
    say(if args.json { json(&told)? } else { text(&told) }.trim_end());
    Ok(())
}

fn ask(global: &Global, question: Question) -> Result<Explanation, CliError> {
    let answer = Client::connect(&global.socket)?.ask(Ask::Explain(question), |_| {})?;
    let Body::Explanation(told) = answer else { return Err(ClientError::Ended.into()) };
    Ok(*told)
}

/// What the SPD of these files says, by the same code, with no SA.
fn offline(args: &ExplainArgs, question: &Question) -> Result<Explanation, CliError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next_policy = 0;
    let configs = load(&args.conf, &secrets(), core::iter::empty());
    for mut config in configs.map_err(|error| CliError::Usage(error.to_string()))? {
        Entry::number(&mut config, None, &mut next_policy);
        entries.push(Entry::new(config));
    }
    let names = Names::of(entries.iter());
    let datapath = Datapath::new(Options::default(), spd::of(entries.iter()), clock::now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| CliError::Io("cannot start the runtime".to_owned(), error))?;
    let told = runtime.block_on(explain(question, &datapath, &names, None, &[]));
    told.map_err(|failure| {
        if failure.code == Code::BadRequest {
            CliError::Usage(failure.message)
        } else {
            ClientError::Refused(failure).into()
        }
    })
}

fn json(told: &Explanation) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Versioned<'a> {
        ipsecd: u32,
        #[serde(flatten)]
        told: &'a Explanation,
    }
    serde_json::to_string(&Versioned { ipsecd: VERSION, told })
        .map_err(|error| CliError::Client(error.into()))
}

/// For people: a step a line, in the order in which the packet meets them.
fn text(told: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: &str| {
        // Writing into a String does not fail.
        let _infallible = writeln!(text, "{name:<9}{what}");
    };
    line("packet", &format!("{}, {} bytes, {}", told.packet, told.size, told.direction));
    let outbound = told.direction == "outbound";
    if outbound {
        if let Some(route) = &told.route {
            line("route", &route_text(route));
        }
        match &told.policy {
            Some(policy) => line("policy", &policy_text(policy)),
            None => line("policy", "no entry of the SPD matches, which means DISCARD"),
        }
        for near in &told.near {
            line("  not", &format!("{}: {}", policy_text(&near.policy), near.why));
        }
    }
    for sa in &told.sas {
        line("SA", &sa_text(sa));
    }
    if !outbound && told.sas.is_empty() {
        line("SA", "none may carry it");
    }
    for refusing in &told.refusing_sas {
        line("  not", &format!("{}: {}", sa_text(&refusing.sa), refusing.why));
    }
    if let Some(length) = &told.length {
        line("size", &length_text(told.size, length));
    }
    if !outbound && let Some(route) = &told.route {
        line("route", &route_text(route));
    }
    let reason = told.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    line("verdict", &format!("{}{reason}: {}", told.verdict, told.text));
    text
}

fn route_text(route: &Route) -> String {
    let mut text = match &route.input {
        Some(input) => format!("comes in by {input}"),
        None => "sent by this host".to_owned(),
    };
    let mut add = |what: &str| {
        let _infallible = write!(text, ", {what}");
    };
    if let Some(refused) = &route.refused {
        add(&format!("refused: {refused}"));
        return text;
    }
    if let (Some(kind), Some(interface)) = (&route.kind, &route.interface) {
        let ours = if route.into_tun { " (ours)" } else { "" };
        add(&format!("{kind} by {interface}{ours}"));
    }
    if let Some(gateway) = &route.gateway {
        add(&format!("next hop {gateway}"));
    }
    if let Some(table) = route.table {
        add(&format!("table {table}"));
    }
    if let Some(mtu) = route.mtu {
        add(&format!("mtu {mtu}"));
    }
    text
}

fn policy_text(policy: &Policy) -> String {
    let name = policy.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    format!(
        "#{}{name} {}: {} === {}",
        policy.number,
        policy.action,
        policy.ts_local.join(" "),
        policy.ts_peer.join(" ")
    )
}

fn sa_text(sa: &Sa) -> String {
    let child = sa.child.as_ref().map_or_else(String::new, |child| format!("/{child}"));
    let around = sa.spi_around.as_ref();
    let around = around.map_or_else(String::new, |spi| format!(" in AH {spi}"));
    format!(
        "{}{child} {}{around}, {}, {} mode, {} {} === {}",
        sa.peer, sa.spi, sa.suite, sa.mode, sa.encap, sa.local, sa.remote
    )
}

fn length_text(size: usize, length: &Length) -> String {
    let Length { mtu, path_mtu, packets, wire, outer_fragments } = length;
    let most = mtu.map_or_else(String::new, |mtu| format!(", at most {mtu} go whole"));
    let becomes = match packets {
        0 => String::new(),
        1 => format!(": {wire} on the wire"),
        _ => format!(": {packets} fragments, {wire} on the wire"),
    };
    let outside = if *outer_fragments { ", fragmented outside" } else { "" };
    format!("{size} bytes{becomes}{most}; the path takes {path_mtu}{outside}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::explain::NearPolicy;

    #[test]
    fn text_shows_every_step() {
        let policy = |number, name: &str| Policy {
            number,
            name: Some(name.into()),
            action: "PROTECT".into(),
            ts_local: vec!["10.1.0.0/16".into()],
            ts_peer: vec!["10.2.0.0/16".into()],
        };
        let told = Explanation {
            packet: "10.1.0.5:1234 > 10.2.0.9:443/tcp".into(),
            direction: "outbound".into(),
            size: 1500,
            route: Some(Route {
                kind: Some("unicast".into()),
                input: Some("lan".into()),
                interface: Some("ipsec0".into()),
                gateway: None,
                table: Some(4301),
                mtu: None,
                into_tun: true,
                refused: None,
            }),
            policy: Some(policy(2, "site-b/lan")),
            near: vec![NearPolicy {
                policy: policy(1, "site-c/lan"),
                why: "the port differs".into(),
            }],
            sas: vec![Sa {
                peer: "site-b".into(),
                child: Some("lan".into()),
                spi: "0xc0ffee02".into(),
                suite: "ENCR_AES_GCM_16-256".into(),
                mode: "tunnel".into(),
                encap: "udp".into(),
                local: "192.0.2.1:4500".into(),
                remote: "192.0.2.2:4500".into(),
                ..Sa::default()
            }],
            refusing_sas: vec![],
            length: Some(Length { mtu: Some(1438), path_mtu: 1500, ..Length::default() }),
            verdict: "drop".into(),
            reason: Some("too-big".into()),
            text: "it is dropped: larger than the tunnel MTU".into(),
        };
        let shown = text(&told);
        let want = "\
packet   10.1.0.5:1234 > 10.2.0.9:443/tcp, 1500 bytes, outbound
route    comes in by lan, unicast by ipsec0 (ours), table 4301
policy   #2 site-b/lan PROTECT: 10.1.0.0/16 === 10.2.0.0/16
  not    #1 site-c/lan PROTECT: 10.1.0.0/16 === 10.2.0.0/16: the port differs
SA       site-b/lan 0xc0ffee02, ENCR_AES_GCM_16-256, tunnel mode, udp 192.0.2.1:4500 === 192.0.2.2:4500
size     1500 bytes, at most 1438 go whole; the path takes 1500
verdict  drop (too-big): it is dropped: larger than the tunnel MTU
";
        assert_eq!(shown, want);
    }
}
