//! From what is written to a [`Config`]: names, addresses, identities, subnets and the key; what contradicts what.

use core::net::IpAddr;
use core::ops::Range;
use std::sync::Arc;

use super::diagnostic::Report;
use super::raw::{Raw, Text};
use super::secret::SecretSource;
use super::value::{self, Wrong};
use super::{
    Config, Interface, Keying, RevocationFiles, Written, address, auth, child, fixed, identity,
    keys, manual, policy,
};
use crate::ipsec::pad::{Identity, Peer, PeerAddress};

/// Checks everything; what is wrong goes to the report. `None` only if something did.
pub(super) fn config(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Config> {
    let name = name(raw, report);
    let log_level = match &raw.log_level {
        Some(level) => policy::log_level(level, report).map(Some),
        None => Some(None),
    };
    if raw.is_fixed() {
        let policies = fixed::policies(raw, report);
        return Some(Config {
            file: report.file().to_owned(),
            keying: Keying::None { name: name?, policies: policies? },
            interface: Interface::default(),
            log_level: log_level?,
            revocation: RevocationFiles::default(),
            written: Written::default(),
            shown: report.source(),
        });
    }
    missing_tables(raw, report);

    let local_addr = raw.local.address.as_ref().map(|text| local_address(text, report));
    let address = raw.peer.address.as_ref().map(|text| peer_address(text, report));
    if address.is_none() {
        require(raw, "peer", raw.peer.span.as_ref(), "address", "", report);
    }
    let peer_ip = match &address {
        Some(Some(PeerAddress::Ip(ip))) => Some(*ip),
        Some(Some(PeerAddress::Any | PeerAddress::Name(_)) | None) | None => None,
    };
    let local_ip = local_addr.flatten();
    addresses_fit(raw, local_ip, peer_ip, report);
    if raw.is_manual() {
        let peer = manual::peer(raw, name, local_addr, address, mode, secrets, report);
        let v6_inside = raw.manual.iter().any(|manual| {
            [&manual.local, &manual.peer]
                .into_iter()
                .flatten()
                .any(|list| list.items.iter().any(|item| item.get_ref().contains(':')))
        });
        let interface = policy::interface(&raw.interface, v6_inside, report);
        return Some(Config {
            file: report.file().to_owned(),
            keying: Keying::Manual(peer?),
            interface: interface?,
            log_level: log_level?,
            revocation: RevocationFiles::default(),
            written: Written::default(),
            shown: report.source(),
        });
    }

    let local_id = local_id(raw, local_ip, report);
    let peer_id = peer_id(raw, address.as_ref(), report);
    same_identity(raw, local_id.as_ref(), peer_id.as_ref(), report);

    let auth = auth::auth(raw, mode, secrets, local_id.as_ref(), report);
    let ppk = auth::ppk(raw, mode, secrets, report);
    let any = matches!(address, Some(Some(PeerAddress::Any)));
    let esp = policy::esp(&raw.esp, any, report);
    let ike = policy::ike(&raw.ike, esp.as_ref().map(|esp| esp.encap), report);
    let children =
        child::children(raw, name.as_ref(), [local_ip, peer_ip], esp.as_ref(), any, report);
    let request = address::request(raw, any, report);
    let pool = address::pool(raw, report);
    address::only_responds(raw, children.as_deref().unwrap_or_default(), report);
    let v6_inside = children.as_ref().is_some_and(|children| {
        children.iter().any(|child| {
            let all = child.ts_local.iter().chain(&child.ts_peer);
            all.into_iter().any(|ts| ts.start_addr.is_ipv6())
        })
    });
    let interface = policy::interface(&raw.interface, v6_inside, report);

    let peer = Peer {
        name: name?,
        // An address that was written but is wrong is none.
        local_addr: match local_addr {
            Some(address) => Some(address?),
            None => None,
        },
        address: address??,
        local_id: local_id?,
        peer_id: peer_id?,
        auth: auth?,
        ppk: ppk?,
        ike: ike?,
        request: request?,
        pool: pool?,
        children: children?,
    };
    Some(Config {
        file: report.file().to_owned(),
        keying: Keying::Ike(Arc::new(peer)),
        interface: interface?,
        log_level: log_level?,
        revocation: RevocationFiles::of(raw, report.file()),
        written: Written::default(),
        shown: report.source(),
    })
}

/// Reports a [`Wrong`] at its place.
pub(super) fn report_wrong(span: Range<usize>, key: &str, wrong: Wrong, report: &mut Report) {
    report.error(span, format!("{key}: {}", wrong.message)).help(wrong.help);
}

/// What [`fits_name`] asks for.
pub(super) const NAME_RULE: &str =
    "1 to 64 letters, digits, `.`, `_` and `-`, the first a letter, digit or `_`";

/// Whether a text can be the name of a peer, or of a part of one.
pub(super) fn fits_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    // A leading dash would be an option on a command line.
    (1..=64).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with(['-', '.'])
}

fn name(raw: &Raw<'_>, report: &mut Report) -> Option<Arc<str>> {
    if let Some(name) = &raw.name {
        if fits_name(name.get_ref()) {
            return Some(Arc::from(*name.get_ref()));
        }
        let shown = name.get_ref().escape_debug();
        report.error(name.span(), format!("name: `{shown}` cannot be a name")).help(NAME_RULE);
        return None;
    }
    let stem = report.file().file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if fits_name(&stem) {
        return Some(Arc::from(stem));
    }
    if !raw.excused("", "name") {
        report
            .file_error(format!(
                "the file's name gives no name: `{}` cannot be one",
                stem.escape_debug()
            ))
            .help(format!("rename the file, or begin it with: name = \"…\" ({NAME_RULE})"));
    }
    None
}

fn missing_tables(raw: &Raw<'_>, report: &mut Report) {
    if report.has_syntax_errors() {
        return;
    }
    for (name, there, example) in [
        ("local", raw.local.span.is_some(), "id = \"a.example.net\", subnets = [\"10.1.0.0/16\"]"),
        ("peer", raw.peer.span.is_some(), "address = \"b.example.net\", id, subnets"),
        ("auth", raw.auth.span.is_some(), "psk = { file = \"b.psk\" }"),
    ] {
        let needed = !raw.is_manual() || name == "peer";
        if needed && !there && !raw.excused(name, "") {
            report
                .file_error(format!("the table [{name}] is missing"))
                .help(format!("add a line [{name}] and below it: {example}"));
        }
    }
}

/// Reports that a key is missing, unless its whole table is, or its text could not be read.
pub(super) fn require(
    raw: &Raw<'_>,
    section: &str,
    span: Option<&Range<usize>>,
    name: &str,
    why: &str,
    report: &mut Report,
) {
    let Some(span) = span else { return };
    if report.has_syntax_errors() || raw.excused(section, name) {
        return;
    }
    let example = keys::find(section, name).map_or("", |key| key.example);
    report
        .error(span.clone(), format!("`{name}` is missing in [{section}]"))
        .help(format!("add {example}{why}"));
}

fn local_address(text: &Text<'_>, report: &mut Report) -> Option<IpAddr> {
    let given = *text.get_ref();
    match value::host_address(given) {
        Ok(address) => Some(address),
        Err(_) if given == "any" || given == "%any" => {
            report
                .error(text.span(), "[local] address: \"any\" is what it is when it is left out")
                .help("leave the line out, and routing chooses");
            None
        }
        Err(_) if !value::looks_like_address(given) && value::host_name(given).is_ok() => {
            report
                .error(text.span(), "[local] address: a name cannot be used for our own address")
                .help("write an address of this host, or leave the line out, and routing chooses");
            None
        }
        Err(wrong) => {
            report_wrong(text.span(), "[local] address", wrong, report);
            None
        }
    }
}

fn peer_address(text: &Text<'_>, report: &mut Report) -> Option<PeerAddress> {
    let given = *text.get_ref();
    let found = if given == "any" || given == "%any" {
        Ok(PeerAddress::Any)
    } else if given.parse::<IpAddr>().is_ok() || value::looks_like_address(given) {
        value::host_address(given).map(PeerAddress::Ip)
    } else {
        value::host_name(given).map(PeerAddress::Name)
    };
    found.map_err(|wrong| report_wrong(text.span(), "[peer] address", wrong, report)).ok()
}

fn addresses_fit(raw: &Raw<'_>, local: Option<IpAddr>, peer: Option<IpAddr>, report: &mut Report) {
    let (Some(local), Some(peer)) = (local, peer) else { return };
    let (Some(at), Some(other)) = (&raw.peer.address, &raw.local.address) else { return };
    if local == peer {
        report
            .error(at.span(), format!("{peer} is both our address and the peer's"))
            .related(other.span(), "ours")
            .help("[local] is this host, [peer] the far one");
    } else if local.is_ipv6() != peer.is_ipv6() {
        report
            .error(at.span(), "our address and the peer's have different IP versions")
            .related(other.span(), "ours")
            .help(
                "give both as IPv4 or both as IPv6; leave [local] address out, and routing chooses",
            );
    }
}

fn local_id(raw: &Raw<'_>, address: Option<IpAddr>, report: &mut Report) -> Option<Identity> {
    match (&raw.local.id, address) {
        (Some(text), _) => identity::parse(text.get_ref())
            .map_err(|wrong| report_wrong(text.span(), "[local] id", wrong, report))
            .ok(),
        (None, Some(address)) => Some(identity_of(address)),
        (None, None) => {
            if raw.local.address.is_none() {
                let why = ", the name the peer knows us by; it can be left out only where `address` is given";
                require(raw, "local", raw.local.span.as_ref(), "id", why, report);
            }
            None
        }
    }
}

/// `Some(None)`: anyone who holds the key.
fn peer_id(
    raw: &Raw<'_>,
    address: Option<&Option<PeerAddress>>,
    report: &mut Report,
) -> Option<Option<Identity>> {
    if let Some(text) = &raw.peer.id {
        if matches!(*text.get_ref(), "any" | "%any") {
            // Whom EAP takes is written down.
            if raw.auth.peer.as_ref().is_some_and(|word| *word.get_ref() == "eap") {
                return Some(None);
            }
            report
                .warning(
                    text.span(),
                    if raw.auth.ca.is_some() {
                        "[peer] id: whoever has a certificate of a CA in [auth] ca is accepted"
                    } else if raw.auth.public_key.is_some() {
                        "[peer] id: whoever holds the key of [auth] public-key is accepted, under any name"
                    } else {
                        "[peer] id: whoever holds the psk is accepted, under any name"
                    },
                )
                .help("name the peer, and a leaked key alone opens less");
            return Some(None);
        }
        return identity::parse(text.get_ref())
            .map_err(|wrong| report_wrong(text.span(), "[peer] id", wrong, report))
            .ok()
            .map(Some);
    }
    match address {
        Some(Some(PeerAddress::Ip(address))) => Some(Some(identity_of(*address))),
        Some(Some(PeerAddress::Name(name))) => {
            if !raw.excused("peer", "id") && !report.has_syntax_errors() {
                let at = raw.peer.address.as_ref().map_or(0..0, Text::span);
                report
                    .error(at, "`id` is missing in [peer]")
                    .label("a name is resolved to an address, but proves nothing")
                    .help(format!(
                        "add the identity that the peer will prove, for example id = \"{name}\""
                    ));
            }
            None
        }
        Some(Some(PeerAddress::Any)) => {
            require(
                raw,
                "peer",
                raw.peer.span.as_ref(),
                "id",
                ", the identity that the peer will prove",
                report,
            );
            None
        }
        None => {
            let why = "; it can be left out only where `address` is an address";
            require(raw, "peer", raw.peer.span.as_ref(), "id", why, report);
            None
        }
        Some(None) => None,
    }
}

fn same_identity(
    raw: &Raw<'_>,
    local: Option<&Identity>,
    peer: Option<&Option<Identity>>,
    report: &mut Report,
) {
    if let (Some(local), Some(Some(peer)), Some(at)) = (local, peer, &raw.peer.id)
        && local == peer
    {
        let shown = identity::render(local);
        let found = report.warning(at.span(), format!("both sides have the identity {shown}"));
        found.help("give each side its own, or neither can be told from the other");
        if let Some(other) = &raw.local.id {
            found.related(other.span(), "ours");
        }
    }
}

const fn identity_of(address: IpAddr) -> Identity {
    match address {
        IpAddr::V4(v4) => Identity::Ipv4(v4),
        IpAddr::V6(v6) => Identity::Ipv6(v6),
    }
}
