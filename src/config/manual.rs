//! `[[manual]]`: from what is written to a [`ManualPeer`].

mod clash;

use core::net::IpAddr;
use std::sync::Arc;

use toml::Spanned;

use super::check::report_wrong;
use super::diagnostic::Report;
use super::raw::{self, List, Names, Raw, Scalar, Text, WrittenKey};
use super::secret::{self, SecretSource};
use super::selector::{self, Placed};
use super::{keys, policy, proposal, value};
use crate::crypto::Secret;
use crate::crypto::integ::Integ;
use crate::ipsec::manual::{ManualAh, ManualKeys, ManualPeer, ManualSa, counts};
use crate::ipsec::pad::PeerAddress;
use crate::ipsec::suite::{AhSuite, EspSuite, Protocol, Suite};
use crate::ipsec::{DfPolicy, DscpPolicy, Encap, Mode, PolicyId, Spi, TrafficSelector};
use crate::wire::ike::numbers::{EsnId, IntegId};
pub(super) use clash::{Clash, spi_clashes};

/// The most selectors of one side.
const MAX_SELECTORS: usize = 32;

/// What is the same for every `[[manual]]` of a file.
struct File<'r, 's> {
    raw: &'r Raw<'r>,
    mode: Option<u32>,
    secrets: &'s dyn SecretSource,
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
}

/// The peer of a file with `[[manual]]`; what is wrong goes to the report. `local_addr` and `address` are `Some(None)`
/// where what is written is wrong.
pub(super) fn peer(
    raw: &Raw<'_>,
    name: Option<Arc<str>>,
    local_addr: Option<Option<IpAddr>>,
    address: Option<Option<PeerAddress>>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<ManualPeer> {
    only_ike(raw, report);
    let peer = match &address {
        Some(Some(PeerAddress::Ip(ip))) => Some(*ip),
        Some(Some(PeerAddress::Any)) => {
            let at = raw.peer.address.as_ref().map_or(0..0, Text::span);
            report
                .error(at, "[peer] address: manual keys need to know where the peer is")
                .help("its address, or its name; with \"any\" only IKE can tell where it is");
            return None;
        }
        Some(Some(PeerAddress::Name(_)) | None) | None => None,
    };
    let file = File { raw, mode, secrets, local: local_addr.flatten(), peer };
    let mut sas = Vec::new();
    let mut whole = true;
    for (i, manual) in raw.manual.iter().enumerate() {
        match file.pair(manual, i + 1, report) {
            Some(sa) => sas.push((sa, manual)),
            None => whole = false,
        }
    }
    for (i, (later, at)) in sas.iter().enumerate() {
        for (earlier, other) in &sas[..i] {
            clash::clash((later, at), (earlier, other), report);
        }
    }
    if !whole {
        return None;
    }
    Some(ManualPeer {
        name: name?,
        local_addr: match local_addr {
            Some(address) => Some(address?),
            None => None,
        },
        address: address??,
        sas: sas.into_iter().map(|(sa, _)| sa).collect(),
    })
}

/// Reports what is for IKE alone.
fn only_ike(raw: &Raw<'_>, report: &mut Report) {
    for (span, what) in [
        (raw.auth.span.clone(), "[auth]"),
        (raw.ike.span.clone(), "[ike]"),
        (raw.esp.span.clone(), "[esp]"),
        (raw.local.id.as_ref().map(Text::span), "[local] id"),
        (raw.peer.id.as_ref().map(Text::span), "[peer] id"),
    ] {
        if let Some(span) = span {
            report
                .error(span, format!("{what} is for IKE, which a file with [[manual]] has not"))
                .help("leave it out; a peer with IKE has a file of its own");
        }
    }
    for (list, key) in
        [(&raw.local.virtual_addresses, "[local] virtual"), (&raw.peer.pool, "[peer] pool")]
    {
        if let Some(list) = list {
            report
                .error(list.span.clone(), format!("{key} is for IKE"))
                .help("with [[manual]], each side has addresses of its own");
        }
    }
    for (list, section) in [(&raw.local.subnets, "local"), (&raw.peer.subnets, "peer")] {
        if let Some(list) = list {
            report
                .error(list.span.clone(), format!("[{section}] subnets is for IKE"))
                .help(format!("each [[manual]] has its own: {section} = [\"…\"]"));
        }
    }
}

impl File<'_, '_> {
    fn pair(
        &self,
        manual: &raw::Manual<'_>,
        number: usize,
        report: &mut Report,
    ) -> Option<ManualSa> {
        let name = pair_name(manual, number, report);
        let protocol = match &manual.protocol {
            Some(text) => {
                let choices = &[("esp", Protocol::Esp), ("ah", Protocol::Ah)];
                policy::choice(text, "[[manual]] protocol", choices, report)
            }
            None => require(manual, "protocol", "", report),
        };
        let mode = match &manual.mode {
            Some(text) => {
                let choices = &[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];
                policy::choice(text, "[[manual]] mode", choices, report)
            }
            None => Some(Mode::Tunnel),
        };
        let encap = encap(manual, protocol, report);
        let suite = match (&manual.proposal, protocol) {
            (Some(text), Some(protocol)) => {
                suite(text, protocol, manual.allow_legacy == Some(true), report)
            }
            (Some(_), None) => None,
            (None, _) => require(manual, "proposal", "", report),
        };
        let selectors = mode.and_then(|mode| self.selectors(manual, mode, report));
        let inbound = self.direction(manual, &manual.inbound, &Names::INBOUND, suite, report);
        let outbound = self.direction(manual, &manual.outbound, &Names::OUTBOUND, suite, report);
        let around = match &manual.ah {
            Some(ah) => Some(self.bundle(manual, ah, protocol, mode, encap, report)),
            None if manual.excused("ah") => Some(None),
            None => None,
        };
        let replay_window = match &manual.replay_window {
            Some(number) => policy::replay_window(number, "[[manual]] replay-window", report),
            None if manual.excused("replay-window") => None,
            None => Some(1024),
        };
        let ah_esn = around.as_ref().and_then(|ah| Some(ah.as_ref()?.suite.esn));
        let esn = suite.is_some_and(Suite::esn) || ah_esn.is_some_and(is_esn);
        window(manual, replay_window, esn, report);
        let tfc = tfc(manual, protocol, mode, report);
        let ah_align = ah_align(manual, protocol, report);
        let (df, dscp) = outer_header(manual, mode, report);
        let (ts_local, ts_peer) = selectors?;
        let sa = ManualSa {
            name: name?,
            policy: PolicyId(0),
            mode: mode?,
            encap: encap?,
            suite: suite?,
            inbound: inbound?,
            outbound: outbound?,
            ts_local,
            ts_peer,
            replay_window: replay_window?,
            df: df?,
            dscp: dscp?,
            tfc: tfc?,
            ah_align: ah_align?,
            around: match around {
                Some(around) => Some(around?),
                None => None,
            },
        };
        clash::same_both_ways(&sa, manual, report);
        Some(sa)
    }

    fn bundle(
        &self,
        manual: &raw::Manual<'_>,
        ah: &raw::ManualAh<'_>,
        protocol: Option<Protocol>,
        mode: Option<Mode>,
        encap: Option<Encap>,
        report: &mut Report,
    ) -> Option<ManualAh> {
        let fits = (protocol, mode, encap);
        let why = match fits {
            (Some(Protocol::Ah), _, _) => Some("goes around ESP, and this is AH by itself"),
            (_, Some(Mode::Tunnel), _) => Some("goes around ESP in transport mode only"),
            (_, _, Some(Encap::Udp)) => Some("cannot go around ESP in UDP (RFC 3948 §1)"),
            _ => None,
        };
        if let Some(why) = why {
            report.error(ah.span.clone(), format!("[[manual]] ah {why}")).help(
                "protocol = \"esp\", mode = \"transport\", encap = \"none\"; or leave it out",
            );
        }
        let suite = match &ah.proposal {
            Some(text) => {
                let legacy = manual.allow_legacy == Some(true);
                let parse = |text: &str| proposal::ah_suite(text, legacy);
                parse_proposal(text, "[[manual]] ah.proposal", parse, report)
            }
            None => require(manual, "ah.proposal", "", report),
        };
        let any = suite.map(Suite::Ah);
        let inbound = self.direction(manual, &ah.inbound, &Names::AH_INBOUND, any, report);
        let outbound = self.direction(manual, &ah.outbound, &Names::AH_OUTBOUND, any, report);
        if why.is_some() {
            return None;
        }
        Some(ManualAh { suite: suite?, inbound: inbound?, outbound: outbound? })
    }

    /// SPI, keys and sequence number of one direction.
    fn direction(
        &self,
        manual: &raw::Manual<'_>,
        written: &raw::ManualKeys<'_>,
        names: &Names,
        suite: Option<Suite>,
        report: &mut Report,
    ) -> Option<ManualKeys> {
        let spi = match &written.spi {
            Some(number) => spi(number, names.spi, report),
            None => require(manual, names.spi, "", report),
        };
        let sequence = match &written.seq {
            Some(number) => sequence(number, names.seq, suite, report),
            None if manual.excused(names.seq) => None,
            None => Some(0),
        };
        let encr = suite.map(encr_key);
        let integ = suite.map(integ_key);
        let encr_key = match names.key {
            Some(name) => self.key(manual, written.key.as_ref(), name, encr, report),
            None => Some(Secret::empty()),
        };
        let integ_key = self.key(manual, written.auth_key.as_ref(), names.auth_key, integ, report);
        Some(ManualKeys {
            spi: spi?,
            encr_key: encr_key?,
            integ_key: integ_key?,
            sequence: sequence?,
        })
    }

    /// `None` in `wanted`: the proposal is not known.
    fn key(
        &self,
        manual: &raw::Manual<'_>,
        written: Option<&WrittenKey<'_>>,
        name: &'static str,
        wanted: Option<Wanted>,
        report: &mut Report,
    ) -> Option<Secret> {
        match (wanted?, written) {
            (Wanted::Nothing(_), None) if manual.excused(name) => None,
            (Wanted::Nothing(_), None) => Some(Secret::empty()),
            (Wanted::Nothing(why), Some(key)) => {
                report.error(key.span(), format!("[[manual]] {name}: {why}")).help("leave it out");
                None
            }
            (Wanted::Key { len, parts }, None) => {
                let digits = len * 2;
                require(manual, name, &format!(", {digits} hex digits: {parts}"), report)
            }
            (Wanted::Key { len, parts }, Some(key)) => {
                secret::load_hex(key, name, len, &parts, self.mode, self.secrets, report)
            }
        }
    }

    fn selectors(
        &self,
        manual: &raw::Manual<'_>,
        mode: Mode,
        report: &mut Report,
    ) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let local = self.side(manual, manual.local.as_ref(), "local", self.local, mode, report);
        let peer = self.side(manual, manual.peer.as_ref(), "peer", self.peer, mode, report);
        let (local, peer) = (local?, peer?);
        let mut fine = true;
        for theirs in &peer {
            let meets = |ours: &&Placed| {
                ours.ts.contains_addr(theirs.ts.start_addr)
                    || theirs.ts.contains_addr(ours.ts.start_addr)
            };
            // Everything beside something is a default route: the longer prefix wins, as in any routing table.
            let ours = local.iter().filter(meets).find(|ours| ours.is_all() == theirs.is_all());
            if let Some(ours) = ours {
                fine = false;
                report
                    .error(theirs.span.clone(), "[[manual]] peer: overlaps our side")
                    .label("the peer's")
                    .related(ours.span.clone(), "ours")
                    .help("an address can be on one side only");
            }
        }
        for (name, these, those) in [("local", &local, &peer), ("peer", &peer, &local)] {
            for lonely in these {
                let same = |other: &Placed| other.ts.start_addr.is_ipv6() == lonely.is_ipv6();
                if !those.iter().any(same) && !lonely.is_all() {
                    fine = false;
                    let version = if lonely.is_ipv6() { 6 } else { 4 };
                    let message = format!(
                        "[[manual]] {name}: {} has no IPv{version} selector opposite",
                        lonely.ts
                    );
                    report
                        .error(lonely.span.clone(), message)
                        .help(format!("add an IPv{version} selector to the other side"));
                }
            }
        }
        let list = |side: Vec<Placed>| side.into_iter().map(|placed| placed.ts).collect();
        fine.then(|| (list(local), list(peer)))
    }

    fn side(
        &self,
        manual: &raw::Manual<'_>,
        list: Option<&List<'_>>,
        name: &'static str,
        address: Option<IpAddr>,
        mode: Mode,
        report: &mut Report,
    ) -> Option<Vec<Placed>> {
        let side = if name == "local" { &self.raw.local } else { &self.raw.peer };
        if mode == Mode::Transport && address.is_none() {
            let at = side.address.as_ref().map_or_else(|| manual.span.clone(), Text::span);
            if side.address.as_ref().is_none_or(|text| !value::looks_like_address(text.get_ref())) {
                report
                    .error(at, format!("transport mode needs an address in [{name}]"))
                    .help("the packets themselves have it, so that a name, or what routing chooses, cannot stand for it");
            }
            return None;
        }
        let Some(list) = list else {
            return match (mode, address) {
                (Mode::Transport, Some(address)) if !manual.excused(name) => {
                    let ts = TrafficSelector::from_addr(address);
                    Some(vec![Placed { ts, span: manual.span.clone() }])
                }
                _ => require(manual, name, "; only transport mode can do without", report),
            };
        };
        let key = format!("[[manual]] {name}");
        let mut placed: Vec<Placed> = Vec::new();
        let mut fine = true;
        for item in &list.items {
            match selector::parse(item.get_ref()) {
                Ok(found) => {
                    let span = item.span();
                    placed.extend(found.into_iter().map(|ts| Placed { ts, span: span.clone() }));
                }
                Err(wrong) => {
                    fine = false;
                    report_wrong(item.span(), &key, wrong, report);
                }
            }
        }
        if list.items.is_empty() || placed.len() > MAX_SELECTORS {
            fine = false;
            let n = placed.len();
            let message = if n == 0 {
                format!("{key}: the list is empty")
            } else {
                format!("{key}: {n} are too many")
            };
            report.error(list.span.clone(), message).help(format!("1 to {MAX_SELECTORS}"));
        }
        for (i, later) in placed.iter().enumerate() {
            let earlier = placed[..i].iter().find(|e| e.ts.intersect(&later.ts).is_some());
            if let Some(earlier) = earlier {
                fine = false;
                report
                    .error(
                        later.span.clone(),
                        format!("{key}: {} overlaps {}", later.ts, earlier.ts),
                    )
                    .related(earlier.span.clone(), "overlaps this")
                    .help("leave one of them out, or write selectors that do not meet");
            }
            let outside = |address| later.ts.start_addr != address || later.ts.end_addr != address;
            if mode == Mode::Transport && address.is_some_and(outside) {
                fine = false;
                let shown = address.map(|address| address.to_string()).unwrap_or_default();
                report
                    .error(
                        later.span.clone(),
                        format!("{key}: transport mode carries packets of {shown} alone"),
                    )
                    .help(format!("leave it out, or narrow that address: \"{shown}[tcp/443]\""));
            }
        }
        fine.then_some(placed)
    }
}

/// A key that an algorithm takes.
enum Wanted {
    /// Of so many bytes, which are this.
    Key { len: usize, parts: String },
    /// None, for this reason.
    Nothing(String),
}

fn encr_key(suite: Suite) -> Wanted {
    let Suite::Esp(EspSuite { encr, .. }) = suite else {
        return Wanted::Nothing("AH encrypts nothing, its key is auth-key-…".to_owned());
    };
    match encr.keymat_len() {
        None | Some(0) => Wanted::Nothing(format!("{encr} has no key")),
        Some(len) => {
            let key = usize::from(encr.key_bits.unwrap_or(256)) / 8;
            let parts = match len.checked_sub(key) {
                Some(salt) if salt > 0 => format!("{key} bytes of key, then {salt} of salt"),
                _ => format!("{key} bytes of key"),
            };
            Wanted::Key { len, parts }
        }
    }
}

fn integ_key(suite: Suite) -> Wanted {
    let (Suite::Esp(EspSuite { integ, .. }) | Suite::Ah(AhSuite { integ, .. })) = suite;
    match Integ::key_len(integ) {
        // RFC 4543 §5.4: GMAC, which alone has an IV, has four bytes of salt.
        Some(len) if Integ::iv_len(integ) > 0 => {
            Wanted::Key { len, parts: format!("{} bytes of key, then 4 of salt", len - 4) }
        }
        Some(len) => Wanted::Key { len, parts: format!("{len} bytes of key") },
        None if integ == IntegId::NONE => {
            Wanted::Nothing("an AEAD has no integrity key of its own".to_owned())
        }
        None => Wanted::Nothing(format!("{integ} has no key")),
    }
}

fn is_esn(esn: EsnId) -> bool {
    esn == EsnId::ESN
}

fn pair_name(manual: &raw::Manual<'_>, number: usize, report: &mut Report) -> Option<Arc<str>> {
    let Some(text) = &manual.name else {
        return (!manual.excused("name")).then(|| format!("manual-{number}").into());
    };
    if super::check::fits_name(text.get_ref()) {
        return Some(Arc::from(*text.get_ref()));
    }
    let shown = text.get_ref().escape_debug();
    report
        .error(text.span(), format!("[[manual]] name: `{shown}` cannot be a name"))
        .help(super::check::NAME_RULE);
    None
}

/// Reports that a key is missing, unless that has been said. Always `None`.
fn require<T>(manual: &raw::Manual<'_>, name: &str, why: &str, report: &mut Report) -> Option<T> {
    if report.has_syntax_errors() || manual.excused(name) {
        return None;
    }
    let example = keys::find("manual", name).map_or("", |key| key.example);
    let at = match &manual.ah {
        Some(ah) if name.starts_with("ah.") => ah.span.clone(),
        _ => manual.span.clone(),
    };
    report
        .error(at, format!("`{name}` is missing in [[manual]]"))
        .help(format!("add {example}{why}"));
    None
}

fn suite(text: &Text<'_>, protocol: Protocol, legacy: bool, report: &mut Report) -> Option<Suite> {
    let key = "[[manual]] proposal";
    let suite = match protocol {
        Protocol::Ah => {
            let parse = |text: &str| proposal::ah_suite(text, legacy);
            parse_proposal(text, key, parse, report).map(Suite::Ah)
        }
        Protocol::Esp => {
            let parse = |text: &str| proposal::esp_suite(text, legacy);
            parse_proposal(text, key, parse, report).map(Suite::Esp)
        }
    }?;
    if counts(suite) {
        report
            .warning(text.span(), format!("{key}: RFC 8221 §3 forbids this algorithm with manual keys"))
            .label("a sequence number used twice under one key gives plaintext away")
            .help("take aes256-sha256; if the peer cannot, never use these keys anywhere else, or with a copy of this host");
    }
    Some(suite)
}

fn parse_proposal<T>(
    text: &Text<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, Vec<proposal::Fault>>,
    report: &mut Report,
) -> Option<T> {
    match parse(text.get_ref()) {
        Ok(suite) => Some(suite),
        Err(faults) => {
            for fault in faults {
                let span = policy::within(text, &fault, report);
                report_wrong(span, key, fault.wrong, report);
            }
            None
        }
    }
}

fn encap(
    manual: &raw::Manual<'_>,
    protocol: Option<Protocol>,
    report: &mut Report,
) -> Option<Encap> {
    let Some(text) = &manual.encap else {
        return (!manual.excused("encap")).then_some(Encap::Plain);
    };
    let choices = &[("none", Encap::Plain), ("udp", Encap::Udp)];
    let encap = policy::choice(text, "[[manual]] encap", choices, report)?;
    if encap == Encap::Udp && protocol == Some(Protocol::Ah) {
        report
            .error(text.span(), "[[manual]] encap: AH cannot go in UDP (RFC 3948 §1)")
            .help("protocol = \"esp\", or encap = \"none\"");
        return None;
    }
    Some(encap)
}

/// A whole number, as one or in a string, there also in hexadecimal.
fn number(value: &Spanned<Scalar<'_>>) -> Option<u64> {
    match *value.get_ref() {
        Scalar::Integer(n) => u64::try_from(n).ok(),
        Scalar::Float(_) => None,
        Scalar::Text(text) => {
            let digits = text.trim();
            let (digits, radix) = match digits.strip_prefix("0x") {
                Some(digits) => (digits, 16),
                None => (digits, 10),
            };
            // `from_str_radix` would take a sign.
            let fine = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            fine.then(|| u64::from_str_radix(digits, radix).ok())?
        }
    }
}

fn spi(value: &Spanned<Scalar<'_>>, name: &str, report: &mut Report) -> Option<Spi> {
    let found = number(value).and_then(|n| u32::try_from(n).ok());
    if let Some(spi) = found.and_then(Spi::new) {
        return Some(spi);
    }
    let message = match found {
        Some(n) => format!("[[manual]] {name}: {n} is reserved (RFC 4303 §2.1)"),
        None => format!("[[manual]] {name}: not an SPI"),
    };
    report.error(value.span(), message).help(
        "from 256 to 4294967295: 4097, \"0x1001\"; the peer has the same for the other direction",
    );
    None
}

fn sequence(
    value: &Spanned<Scalar<'_>>,
    name: &str,
    suite: Option<Suite>,
    report: &mut Report,
) -> Option<u64> {
    let esn = suite?.esn();
    let most = if esn { u64::MAX >> 16 } else { u64::from(u32::MAX) - 1 };
    let found = number(value).filter(|n| *n <= most);
    if found.is_none() {
        let without = if esn { "" } else { "; more with `esn` in the proposal" };
        report
            .error(value.span(), format!("[[manual]] {name}: not a sequence number"))
            .help(format!("the last one used, from 0 to {most}{without}"));
    }
    found
}

fn window(manual: &raw::Manual<'_>, window: Option<u32>, esn: bool, report: &mut Report) {
    let (Some(0), Some(at)) = (window, &manual.replay_window) else { return };
    if esn {
        // RFC 4303 §3.3.3: ESN needs the window to tell the high half of the sequence number.
        report
            .error(at.span(), "[[manual]] replay-window: `esn` needs a replay window")
            .help("leave `esn` out of the proposal, or choose a window, such as 1024");
    } else {
        report
            .warning(
                at.span(),
                "[[manual]] replay-window: without one, recorded packets can be sent again",
            )
            .help(
                "1024 costs 128 bytes; it needs a peer that goes on counting when it starts again",
            );
    }
}

fn tfc(
    manual: &raw::Manual<'_>,
    protocol: Option<Protocol>,
    mode: Option<Mode>,
    report: &mut Report,
) -> Option<u16> {
    let Some(value) = &manual.tfc else { return (!manual.excused("tfc")).then_some(0) };
    let Some(tfc) = number(value).and_then(|n| u16::try_from(n).ok()) else {
        report
            .error(value.span(), "[[manual]] tfc: out of range")
            .help("0 for none, or the bytes to pad shorter packets to, at most 65535");
        return None;
    };
    if tfc > 0 && (protocol == Some(Protocol::Ah) || mode == Some(Mode::Transport)) {
        // RFC 4303 §2.7: the inner length must tell where the padding begins.
        report
            .error(value.span(), "[[manual]] tfc: only ESP in tunnel mode can be padded")
            .help("leave it out");
        return None;
    }
    Some(tfc)
}

fn ah_align(
    manual: &raw::Manual<'_>,
    protocol: Option<Protocol>,
    report: &mut Report,
) -> Option<u8> {
    let Some(value) = &manual.ah_align else {
        return (!manual.excused("ah-align")).then_some(4);
    };
    let found = match number(value) {
        Some(4) => Some(4),
        Some(8) => Some(8),
        _ => None,
    };
    if found.is_none() {
        report
            .error(value.span(), "[[manual]] ah-align: neither 4 nor 8")
            .help("4 (RFC 4302 §3.3.3.2.1), or 8 for Linux without `flag align4`");
    } else if protocol == Some(Protocol::Esp) && manual.ah.is_none() {
        report.error(value.span(), "[[manual]] ah-align: there is no AH here").help("leave it out");
        return None;
    }
    found
}

fn outer_header(
    manual: &raw::Manual<'_>,
    mode: Option<Mode>,
    report: &mut Report,
) -> (Option<DfPolicy>, Option<DscpPolicy>) {
    let df = match &manual.df {
        Some(text) => policy::choice(text, "[[manual]] df", policy::DF_CHOICES, report),
        None => (!manual.excused("df")).then_some(DfPolicy::Copy),
    };
    let dscp = match &manual.dscp {
        Some(value) => policy::dscp(value, "[[manual]] dscp", report),
        None => (!manual.excused("dscp")).then_some(DscpPolicy::Copy),
    };
    let odd = [
        manual.df.as_ref().filter(|_| df.is_some_and(|df| df != DfPolicy::Copy)).map(Text::span),
        manual
            .dscp
            .as_ref()
            .filter(|_| dscp.is_some_and(|dscp| dscp != DscpPolicy::Copy))
            .map(Spanned::span),
    ];
    if mode == Some(Mode::Transport) {
        for at in odd.into_iter().flatten() {
            report
                .error(at, "[[manual]] df, dscp: transport mode has no outer header of its own")
                .help("leave it out");
        }
    }
    (df, dscp)
}
