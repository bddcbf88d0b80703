//! `ipsecd trace`: packets as they pass, with what becomes of them.

use core::fmt::Write as _;
use core::ops::ControlFlow;
use std::io::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::{CliError, Global, complain};
use crate::control::client::Client;
use crate::control::protocol::{Ask, Body, VERSION};
use crate::control::trace::Packet;
use crate::datapath::filter::Filter;

/// Arguments of `trace`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Filter: terms that all have to match, `not` before any; several values by commas
  in, out                           the direction
  src, dst, host PREFIX             addresses of the inner packet
  sport, dport, port N or N-M       its ports
  proto tcp|udp|icmp|icmp6|sctp|N   its protocol
  tunnel PEER, CHILD or PEER/CHILD  whose policy it is
  spi 0x…                           the SPI in it
  verdict protect|bypass|drop|wait|reassemble|deliver|ike|keepalive
  reason REASON                     why it was dropped, as in `ipsecd status --json`

Examples:
  ipsecd trace
  ipsecd trace verdict drop
  ipsecd trace tunnel site-b host 10.2.0.9 port 443 --count 10
  ipsecd trace in reason replay-old,replay-duplicate --json")]
pub struct TraceArgs {
    /// Which packets; without it, all
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// As JSON, an object a line, described in docs/control-protocol.md
    #[arg(long)]
    pub json: bool,
}

/// Runs it, until interrupted.
///
/// # Errors
/// No daemon runs, it ended, or the filter is none.
pub fn run(global: &Global, args: &TraceArgs) -> Result<(), CliError> {
    let filter = args.filter.join(" ");
    filter.parse::<Filter>().map_err(|error| CliError::Usage(error.to_string()))?;
    let ask = Ask::Trace { filter, count: args.count };
    let mut out = io::stdout();
    let mut listening = false;
    Client::connect(&global.socket)?.follow(ask, |body| {
        let Body::Trace(line) = body else { return ControlFlow::Continue(()) };
        if !listening {
            listening = true;
            complain("tracing; end it with Ctrl-C");
        }
        if line.left_out > 0 {
            complain(format_args!("{} packets left out", line.left_out));
        }
        let mut text = String::new();
        for packet in &line.packets {
            let shown = if args.json { json(packet) } else { shown(packet) };
            // Writing into a String does not fail.
            let _infallible = writeln!(text, "{shown}");
        }
        // Whoever reads may have seen enough.
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_closed) => ControlFlow::Break(()),
        }
    })?;
    Ok(())
}

fn json(packet: &Packet) -> String {
    #[derive(Serialize)]
    struct Versioned<'a> {
        ipsecd: u32,
        #[serde(flatten)]
        packet: &'a Packet,
    }
    serde_json::to_string(&Versioned { ipsecd: VERSION, packet }).unwrap_or_default()
}

/// `07:49:16.000123 out protect 10.1.0.5:1234 > 10.2.0.9:443/tcp 100 bytes, site-b/lan 0xc0ffee02, 160 on the wire to
/// 192.0.2.2:4500`. The time is UTC.
fn shown(packet: &Packet) -> String {
    let at = UNIX_EPOCH + Duration::from_micros(packet.time_us);
    let time = humantime::format_rfc3339_micros(at).to_string();
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).trim_end_matches('Z');
    let inbound = packet.direction == "inbound";
    let mut text = format!("{time} {} {}", if inbound { "in " } else { "out" }, packet.verdict);
    let mut add = |what: &str| text.push_str(what);
    if let Some(reason) = &packet.reason {
        add(&format!(" {reason}"));
    }
    if let Some(inner) = &packet.packet {
        add(&format!(" {inner}"));
    }
    if packet.size > 0 {
        add(&format!(" {} bytes", packet.size));
    }
    let whose = match (&packet.peer, &packet.child) {
        (Some(peer), Some(child)) => format!(", {peer}/{child}"),
        (Some(name), None) | (None, Some(name)) => format!(", {name}"),
        (None, None) => String::new(),
    };
    add(&whose);
    if let Some(spi) = &packet.spi {
        add(&format!("{} {spi}", if whose.is_empty() { "," } else { "" }));
    }
    if packet.wire_packets > 0 {
        let several = match packet.wire_packets {
            1 => String::new(),
            many => format!(" in {many} packets"),
        };
        add(&format!(", {} on the wire{several}", packet.wire_bytes));
    }
    if let Some(remote) = &packet.remote {
        add(&format!(" {} {remote}", if inbound { "from" } else { "to" }));
    }
    if let Some(why) = &packet.text {
        add(&format!(": {why}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let sealed = Packet {
            time_us: 1_000_123,
            direction: "outbound".into(),
            verdict: "protect".into(),
            packet: Some("10.1.0.5:1 > 10.2.0.9:2/tcp".into()),
            size: 100,
            peer: Some("site-b".into()),
            child: Some("lan".into()),
            spi: Some("0xc0ffee02".into()),
            local: Some("192.0.2.1:4500".into()),
            remote: Some("192.0.2.2:4500".into()),
            wire_packets: 1,
            wire_bytes: 160,
            ..Packet::default()
        };
        assert_eq!(
            shown(&sealed),
            "00:00:01.000123 out protect 10.1.0.5:1 > 10.2.0.9:2/tcp 100 bytes, site-b/lan 0xc0ffee02, \
             160 on the wire to 192.0.2.2:4500"
        );
        let forged = Packet {
            direction: "inbound".into(),
            verdict: "drop".into(),
            reason: Some("no-inbound-sa".into()),
            text: Some("no inbound SA has this SPI".into()),
            spi: Some("0x00000bad".into()),
            remote: Some("192.0.2.9".into()),
            wire_packets: 1,
            wire_bytes: 84,
            ..Packet::default()
        };
        assert_eq!(
            shown(&forged),
            "00:00:00.000000 in  drop no-inbound-sa, 0x00000bad, 84 on the wire from 192.0.2.9: \
             no inbound SA has this SPI"
        );
    }
}
