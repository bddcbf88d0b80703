//! systemd-resolved, by way of `resolvectl`: which DNS servers are asked by way of an interface, and for which names.
//!
//! A thread of its own runs the commands one after another, so that nobody waits for them. When an interface goes, resolved
//! forgets by itself what was said of it.

use core::net::IpAddr;
use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Changes that wait at most.
const QUEUE: usize = 16;

/// Hands changes to the thread.
#[derive(Debug)]
pub struct Resolved {
    queue: SyncSender<Change>,
}

#[derive(Debug)]
struct Change {
    interface: String,
    /// `None`: what was set is taken back.
    dns: Option<Dns>,
}

/// What is to be resolved by way of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The servers. Never empty.
    pub servers: Vec<IpAddr>,
    /// The domains that they alone are asked for (RFC 8598 §5); none: every name.
    pub domains: Vec<String>,
}

impl Resolved {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, if there can be none.
    pub fn start() -> io::Result<Self> {
        let (queue, changes) = sync_channel(QUEUE);
        thread::Builder::new().name("resolved".to_owned()).spawn(move || run(&changes))?;
        Ok(Self { queue })
    }

    /// Sets what is resolved by way of an interface; `None`: nothing any more.
    pub fn set(&self, interface: &str, dns: Option<Dns>) {
        let change = Change { interface: interface.to_owned(), dns };
        if let Err(error) = self.queue.try_send(change) {
            tracing::warn!(interface, %error, "DNS servers not set: resolvectl does not come back");
        }
    }
}

fn run(changes: &Receiver<Change>) {
    while let Ok(Change { interface, dns }) = changes.recv() {
        let commands = commands(&interface, dns.as_ref());
        let done = commands.iter().try_for_each(|args| resolvectl(args));
        match (done, dns) {
            (Ok(()), Some(Dns { servers, domains })) => {
                tracing::info!(
                    interface,
                    ?servers,
                    ?domains,
                    "DNS servers handed to systemd-resolved"
                );
            }
            (Ok(()), None) => {
                tracing::info!(interface, "DNS servers taken back from systemd-resolved");
            }
            (Err(error), Some(Dns { servers, domains })) => tracing::warn!(
                interface, ?servers, ?domains, %error,
                "the peer's DNS servers are not used: systemd-resolved could not be told of them. Set them by hand, or set \
                 [local] dns = false"
            ),
            // The interface may be gone, and with it what was set.
            (Err(error), None) => tracing::debug!(interface, %error, "DNS servers not taken back"),
        }
    }
}

/// The arguments of each call of resolvectl.
fn commands(interface: &str, dns: Option<&Dns>) -> Vec<Vec<String>> {
    let call = |verb: &str, items: Vec<String>| {
        let mut args = vec![verb.to_owned(), interface.to_owned()];
        args.extend(items);
        args
    };
    let flush = vec!["flush-caches".to_owned()];
    let Some(Dns { servers, domains }) = dns else {
        // RFC 8598 §5: nothing of what was learned from them stays.
        return vec![call("revert", Vec::new()), flush];
    };
    // With `~` a domain says where to ask, and is not for names without a dot.
    let mut routes: Vec<_> = domains.iter().map(|domain| format!("~{domain}")).collect();
    if routes.is_empty() {
        routes.push("~.".to_owned());
    }
    let servers = servers.iter().map(ToString::to_string).collect();
    vec![call("domain", routes), call("dns", servers), flush]
}

fn resolvectl(args: &[String]) -> Result<(), String> {
    let output = Command::new("resolvectl")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run resolvectl: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().chars().take(200).collect::<String>();
    Err(format!("resolvectl {} failed: {}", args.join(" "), said.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(dns: Option<&Dns>) -> Vec<String> {
        commands("ipsec0", dns).iter().map(|args| args.join(" ")).collect()
    }

    #[test]
    fn domains_are_routed_and_without_any_all_names_are() {
        let mut dns = Dns {
            servers: vec!["10.1.0.53".parse().unwrap(), "fd01::53".parse().unwrap()],
            domains: vec!["corp.example".to_owned(), "lab.test".to_owned()],
        };
        let want = [
            "domain ipsec0 ~corp.example ~lab.test",
            "dns ipsec0 10.1.0.53 fd01::53",
            "flush-caches",
        ];
        assert_eq!(lines(Some(&dns)), want);
        dns.domains.clear();
        assert_eq!(lines(Some(&dns))[0], "domain ipsec0 ~.");
        assert_eq!(lines(None), ["revert ipsec0", "flush-caches"]);
    }
}
