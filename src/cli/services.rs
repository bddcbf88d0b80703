//! `ipsecd services`: which services each SA gives.

use core::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::{CliError, Global, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, VERSION};
use crate::control::services::SaServices;

/// Arguments of `services`.
#[derive(Clone, Debug, Args)]
pub struct ServicesArgs {
    /// Name of a peer; without it, all
    pub peer: Option<String>,
    /// As JSON, described in docs/control-protocol.md
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs, or there is no such peer.
pub fn run(global: &Global, args: &ServicesArgs) -> Result<(), CliError> {
    let ask = Ask::Services { peer: args.peer.clone() };
    let answer = Client::connect(&global.socket)?.ask(ask, |_| {})?;
    let Body::Services(sas) = answer else { return Err(ClientError::Ended.into()) };
    if args.json {
        #[derive(Serialize)]
        struct Versioned<'a> {
            ipsecd: u32,
            sas: &'a [SaServices],
        }
        let text = serde_json::to_string(&Versioned { ipsecd: VERSION, sas: &sas });
        say(text.map_err(|error| CliError::Client(error.into()))?);
    } else if sas.is_empty() {
        say("no SA");
    } else {
        say(text(&sas).trim_end());
    }
    Ok(())
}

/// For people.
fn text(sas: &[SaServices]) -> String {
    let mut text = String::new();
    for sa in sas {
        let child = sa.child.as_ref().map_or_else(String::new, |child| format!("/{child}"));
        // Writing into a String does not fail.
        let _infallible = writeln!(
            text,
            "{}{child} {} {}, {}, {} mode",
            sa.peer, sa.direction, sa.spi, sa.suite, sa.mode
        );
        for it in &sa.services {
            let given = if it.given { "yes" } else { "no " };
            let _infallible = writeln!(text, "  {given} {:<36} {}", it.service, it.why);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::services::Service;

    #[test]
    fn each_service_has_its_line() {
        let service = |name: &str, given| Service {
            service: name.into(),
            given,
            why: "AUTH_HMAC_SHA2_256_128".into(),
        };
        let sa = SaServices {
            peer: "site-b".into(),
            child: Some("lan".into()),
            direction: "inbound".into(),
            spi: "0xc0ffee01".into(),
            suite: "AUTH_HMAC_SHA2_256_128".into(),
            mode: "tunnel".into(),
            services: vec![
                service("connectionless integrity", true),
                service("confidentiality", false),
            ],
        };
        let want = "\
site-b/lan inbound 0xc0ffee01, AUTH_HMAC_SHA2_256_128, tunnel mode
  yes connectionless integrity             AUTH_HMAC_SHA2_256_128
  no  confidentiality                      AUTH_HMAC_SHA2_256_128
";
        assert_eq!(text(&[sa]), want);
    }
}
