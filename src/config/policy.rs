//! `[ike]`, `[esp]`, `[interface]` and `[log]`: what the SAs are to be like, and the interface.

use core::time::Duration;

use toml::Spanned;

use super::check::report_wrong;
use super::diagnostic::Report;
use super::keys::nearest;
use super::proposal::{self, DEFAULT_AH, DEFAULT_ESP, DEFAULT_IKE, Fault, MAX_PROPOSALS};
use super::raw::{self, List, Scalar, Text};
use super::value::{self, Wrong};
use super::{Interface, subnet};
use crate::ipsec::pad::{
    EncapPolicy, FragmentPolicy, Fragments, IkePolicy, LossAction, StartPolicy, Unique,
};
use crate::ipsec::suite::{ChildProposal, Protocol};
use crate::ipsec::{DfPolicy, DscpPolicy, Lifetime, Mode};
use crate::wire::ike::numbers::EsnId;

const SECOND: Duration = Duration::from_secs(1);
/// What `df` may be.
pub(super) const DF_CHOICES: &[(&str, DfPolicy)] =
    &[("copy", DfPolicy::Copy), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)];
const HOUR: Duration = Duration::from_secs(3600);

/// `[esp]`, understood.
pub(super) struct Esp {
    pub(super) kind: Kind,
    pub(super) encap: EncapPolicy,
    pub(super) lifetime: Lifetime,
    pub(super) per_resource: u16,
    pub(super) replay_window: u32,
    pub(super) df: DfPolicy,
    pub(super) dscp: DscpPolicy,
}

/// What may differ from one CHILD_SA to another.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) protocol: Protocol,
    pub(super) proposals: Vec<ChildProposal>,
    pub(super) mode: Mode,
    pub(super) or_tunnel: bool,
    pub(super) start: StartPolicy,
}

/// `[ike]`; `encap` is `None` if it was wrong.
pub(super) fn ike(
    raw: &raw::Ike<'_>,
    encap: Option<EncapPolicy>,
    report: &mut Report,
) -> Option<IkePolicy> {
    let key = "[ike] proposals";
    let legacy = raw.allow_legacy == Some(true);
    let parse = |text: &str| proposal::ike(text, legacy);
    let proposals = proposals(raw.proposals.as_ref(), DEFAULT_IKE, key, parse, report);
    let rekey_time = match &raw.rekey_time {
        Some(text) => limit(text, "[ike] rekey-time", report),
        None => Some(Some(4 * HOUR)),
    };
    let reauth_time = match &raw.reauth_time {
        Some(text) => limit(text, "[ike] reauth-time", report),
        None => Some(None),
    };
    let over_time = match &raw.over_time {
        Some(text) => duration(text, "[ike] over-time", SECOND, report),
        None => {
            let time = rekey_time.flatten().or(reauth_time.flatten());
            Some(time.unwrap_or_default() / 10)
        }
    };
    let unique = match &raw.unique {
        Some(text) => {
            let choices = &[
                ("no", Unique::No),
                ("replace", Unique::Replace),
                ("keep", Unique::Keep),
                ("never", Unique::Never),
            ];
            choice(text, "[ike] unique", choices, report)
        }
        None => Some(Unique::No),
    };
    let dpd_delay = match &raw.dpd {
        Some(text) => limit(text, "[ike] dpd", report),
        None => Some(Some(Duration::from_secs(30))),
    };
    let dpd_action = loss_action(raw.dpd_action.as_ref(), "[ike] dpd-action", report);
    let close_action = loss_action(raw.close_action.as_ref(), "[ike] close-action", report);
    let retransmit_timeout = match &raw.retransmit_timeout {
        Some(text) => {
            duration(text, "[ike] retransmit-timeout", Duration::from_millis(100), report)
        }
        None => Some(SECOND),
    };
    let base = retransmit_base(raw.retransmit_base.as_ref(), report);
    let tries = match &raw.retransmit_tries {
        Some(number) => integer(number, 1, 20, "[ike] retransmit-tries", report),
        None => Some(7),
    };
    let fragmentation = fragmentation(raw, report);
    let (retransmit_timeout, base, tries) = (retransmit_timeout?, base?, tries?);
    patience(raw, retransmit_timeout, base, tries, report)?;
    Some(IkePolicy {
        proposals: proposals?,
        encap: encap?,
        rekey_time: rekey_time?,
        over_time: over_time?,
        reauth_time: reauth_time?,
        unique: unique?,
        dpd_delay: dpd_delay?,
        childless: raw.childless.unwrap_or(false),
        dpd_action: dpd_action?,
        close_action: close_action?,
        retransmit_timeout,
        retransmit_base_percent: base,
        retransmit_tries: tries,
        fragmentation: fragmentation?,
        mobike: raw.mobike.unwrap_or(true),
    })
}

/// In the words of strongSwan, old and new; `Some(None)` is what `start` says.
fn loss_action(
    text: Option<&Text<'_>>,
    key: &str,
    report: &mut Report,
) -> Option<Option<LossAction>> {
    let choices = &[
        ("as-start", None),
        ("clear", Some(LossAction::Clear)),
        ("hold", Some(LossAction::Hold)),
        ("restart", Some(LossAction::Restart)),
        ("none", Some(LossAction::Clear)),
        ("trap", Some(LossAction::Hold)),
        ("start", Some(LossAction::Restart)),
    ];
    text.map_or(Some(None), |text| choice(text, key, choices, report))
}

/// `"force"` is a word of IKEv1, where it asks for fragments from the first message on; strongSwan takes it for `"yes"`, too.
fn fragmentation(raw: &raw::Ike<'_>, report: &mut Report) -> Option<FragmentPolicy> {
    let default = FragmentPolicy::default();
    let fragments = match &raw.fragmentation {
        Some(text) => {
            let choices = &[
                ("yes", Fragments::Yes),
                ("accept", Fragments::Accept),
                ("no", Fragments::No),
                ("force", Fragments::Yes),
            ];
            choice(text, "[ike] fragmentation", choices, report)
        }
        None => Some(default.fragments),
    };
    let size = match &raw.fragment_size {
        Some(number) => integer(number, 256, 65_535, "[ike] fragment-size", report)
            .and_then(|size| u16::try_from(size).ok()),
        None => Some(default.size),
    };
    Some(FragmentPolicy { fragments: fragments?, size: size? })
}

/// Hundredths.
fn retransmit_base(number: Option<&Spanned<Scalar<'_>>>, report: &mut Report) -> Option<u32> {
    let Some(number) = number else { return Some(180) };
    let value = match *number.get_ref() {
        Scalar::Float(value) => value,
        Scalar::Integer(1) => 1.0,
        Scalar::Integer(2) => 2.0,
        Scalar::Integer(3) => 3.0,
        Scalar::Integer(4) => 4.0,
        Scalar::Integer(_) | Scalar::Text(_) => f64::NAN,
    };
    if !(1.0..=4.0).contains(&value) {
        report
            .error(number.span(), "[ike] retransmit-base: out of range")
            .help("from 1.0 (every wait alike) to 4.0; 1.8 is usual");
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 100 and 400"
    )]
    let percent = (value * 100.0).round() as u32;
    Some(percent)
}

/// How long a dead peer is waited for must be a time that somebody would wait.
fn patience(
    raw: &raw::Ike<'_>,
    first: Duration,
    percent: u32,
    tries: u32,
    report: &mut Report,
) -> Option<()> {
    const DAY: f64 = 86_400.0;
    let (mut wait, mut total) = (first.as_secs_f64(), 0.0);
    for _ in 0..=tries {
        total += wait;
        wait *= f64::from(percent) / 100.0;
    }
    if total <= DAY {
        return Some(());
    }
    let at = [
        raw.retransmit_timeout.as_ref().map(Spanned::span),
        raw.retransmit_base.as_ref().map(Spanned::span),
        raw.retransmit_tries.as_ref().map(Spanned::span),
    ];
    let at = at.into_iter().flatten().max_by_key(|span| span.start).unwrap_or(0..0);
    report
        .error(at, "[ike] retransmit-…: together they wait longer than a day for a dead peer")
        .help("lessen retransmit-timeout, retransmit-base or retransmit-tries");
    None
}

/// `[esp]`; `any` if the peer may be anywhere, so that only it can begin.
pub(super) fn esp(raw: &raw::Esp<'_>, any: bool, report: &mut Report) -> Option<Esp> {
    let legacy = raw.allow_legacy == Some(true);
    let kind = kind(&raw.kind, "[esp]", legacy, any, None, report);
    let encap = match &raw.encap {
        Some(text) => {
            let choices = &[
                ("auto", EncapPolicy::Auto),
                ("udp", EncapPolicy::Udp),
                ("none", EncapPolicy::None),
            ];
            choice(text, "[esp] encap", choices, report)
        }
        None => Some(EncapPolicy::Auto),
    };
    let replay_window = match &raw.replay_window {
        Some(number) => replay_window(number, "[esp] replay-window", report),
        None => Some(1024),
    };
    if let (Some(kind), Some(0), Some(at)) = (&kind, replay_window, &raw.replay_window) {
        if kind.proposals.iter().any(|proposal| proposal.esn.contains(&EsnId::ESN)) {
            // RFC 4303 §3.3.3: ESN needs the window to tell the high half of the sequence number.
            report
                .error(
                    at.span(),
                    "[esp] replay-window: `esn` in the proposals needs a replay window",
                )
                .help("leave `esn` out of them, or choose a window, such as 1024");
        } else {
            report
                .warning(
                    at.span(),
                    "[esp] replay-window: without one, recorded packets can be sent again",
                )
                .help("1024 costs 128 bytes");
        }
    }
    let per_resource = match &raw.per_resource {
        Some(number) => per_resource(number, report),
        None => Some(0),
    };
    let lifetime = lifetime(raw, report);
    let dscp = match &raw.dscp {
        Some(value) => dscp(value, "[esp] dscp", report),
        None => Some(DscpPolicy::Copy),
    };
    let df = match &raw.df {
        Some(text) => choice(text, "[esp] df", DF_CHOICES, report),
        None => Some(DfPolicy::Copy),
    };
    Some(Esp {
        kind: kind?,
        encap: encap?,
        lifetime: lifetime?,
        per_resource: per_resource?,
        replay_window: replay_window?,
        df: df?,
        dscp: dscp?,
    })
}

/// What `section` says of CHILD_SAs, and where it is silent, `default`, which is that of `[esp]`.
pub(super) fn kind(
    raw: &raw::Kind<'_>,
    section: &str,
    legacy: bool,
    any: bool,
    default: Option<&Kind>,
    report: &mut Report,
) -> Option<Kind> {
    let protocol = match &raw.protocol {
        Some(text) => {
            let choices = &[("esp", Protocol::Esp), ("ah", Protocol::Ah)];
            choice(text, &format!("{section} protocol"), choices, report)
        }
        None => Some(default.map_or(Protocol::Esp, |default| default.protocol)),
    };
    let (list, key) = (raw.proposals.as_ref(), format!("{section} proposals"));
    let proposals = match (protocol, default) {
        (Some(protocol), Some(default)) if list.is_none() && protocol == default.protocol => {
            Some(default.proposals.clone())
        }
        (Some(Protocol::Ah), _) => {
            proposals(list, DEFAULT_AH, &key, |text| proposal::ah(text, legacy), report)
        }
        (Some(Protocol::Esp), _) => {
            proposals(list, DEFAULT_ESP, &key, |text| proposal::esp(text, legacy), report)
        }
        (None, _) => None,
    };
    let mode = match &raw.mode {
        Some(text) => {
            let choices = &[
                ("tunnel", (Mode::Tunnel, false)),
                ("transport", (Mode::Transport, false)),
                ("transport-or-tunnel", (Mode::Transport, true)),
            ];
            choice(text, &format!("{section} mode"), choices, report)
        }
        None => Some(default.map_or((Mode::Tunnel, false), |it| (it.mode, it.or_tunnel))),
    };
    let start = match &raw.start {
        Some(text) => start(text, section, any, report),
        None if any => Some(StartPolicy::Respond),
        None => Some(default.map_or(StartPolicy::Now, |default| default.start)),
    };
    let (mode, or_tunnel) = mode?;
    Some(Kind { protocol: protocol?, proposals: proposals?, mode, or_tunnel, start: start? })
}

fn start(text: &Text<'_>, section: &str, any: bool, report: &mut Report) -> Option<StartPolicy> {
    let choices = &[
        ("now", StartPolicy::Now),
        ("by-hand", StartPolicy::ByHand),
        ("on-traffic", StartPolicy::OnTraffic),
        ("respond", StartPolicy::Respond),
    ];
    let start = choice(text, &format!("{section} start"), choices, report)?;
    if any && start != StartPolicy::Respond {
        let shown = text.get_ref();
        report
            .error(
                text.span(),
                format!("{section} start: \"{shown}\" needs to know where the peer is"),
            )
            .help("with [peer] address = \"any\" only the peer can begin: start = \"respond\"");
        return None;
    }
    Some(start)
}

/// As many CHILD_SAs as one may have beside its first: under one IKE SA are at most 64, and twice as many are taken of a peer.
const MAX_PER_RESOURCE: i64 = 16;

fn per_resource(number: &Spanned<Scalar<'_>>, report: &mut Report) -> Option<u16> {
    let fits = match number.get_ref() {
        Scalar::Integer(value) if (0..=MAX_PER_RESOURCE).contains(value) => {
            u16::try_from(*value).ok()
        }
        Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_) => None,
    };
    if fits.is_none() {
        report.error(number.span(), "[esp] per-resource: out of range").help(format!(
            "0 for none, to {MAX_PER_RESOURCE}; as many as there are cores is usual"
        ));
    }
    fits
}

pub(super) fn replay_window(
    number: &Spanned<Scalar<'_>>,
    key: &str,
    report: &mut Report,
) -> Option<u32> {
    match *number.get_ref() {
        Scalar::Integer(0) => Some(0),
        Scalar::Integer(n @ 32..=8192) => u32::try_from(n).ok()?.checked_next_multiple_of(64),
        Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_) => {
            report
                .error(number.span(), format!("{key}: out of range"))
                .help("0 for none, or 32 to 8192 packets, rounded up to a multiple of 64");
            None
        }
    }
}

fn lifetime(raw: &raw::Esp<'_>, report: &mut Report) -> Option<Lifetime> {
    let soft = raw.rekey_time.as_ref().map(|text| limit(text, "[esp] rekey-time", report));
    let hard = raw.life_time.as_ref().map(|text| limit(text, "[esp] life-time", report));
    let (soft_time, hard_time) = match (soft, hard) {
        (None, None) => (Some(HOUR), Some(HOUR + HOUR / 10)),
        (Some(soft), None) => (soft?, soft?.map(|soft| soft + soft / 10)),
        (None, Some(hard)) => (hard?.map(|hard| hard - hard / 10), hard?),
        (Some(soft), Some(hard)) => (soft?, hard?),
    };
    let at = raw.life_time.as_ref().map(Spanned::span);
    ordered("time", soft_time, hard_time, at, report);
    let (soft_bytes, hard_bytes) =
        counted("bytes", raw.rekey_bytes.as_ref(), raw.life_bytes.as_ref(), report)?;
    let (soft_packets, hard_packets) =
        counted("packets", raw.rekey_packets.as_ref(), raw.life_packets.as_ref(), report)?;
    Some(Lifetime { soft_time, hard_time, soft_bytes, hard_bytes, soft_packets, hard_packets })
}

/// Soft and hard limit of bytes or packets; where one is given the other follows, a tenth apart.
fn counted(
    what: &str,
    soft: Option<&Spanned<Scalar<'_>>>,
    hard: Option<&Spanned<Scalar<'_>>>,
    report: &mut Report,
) -> Option<(Option<u64>, Option<u64>)> {
    let at = hard.map(Spanned::span);
    let soft = soft.map(|value| amount(value, &format!("[esp] rekey-{what}"), report));
    let hard = hard.map(|value| amount(value, &format!("[esp] life-{what}"), report));
    let (soft, hard) = match (soft, hard) {
        (None, None) => (None, None),
        (Some(soft), None) => {
            let soft = soft?;
            (soft, soft.map(|n| n.saturating_add((n / 10).max(1))))
        }
        (None, Some(hard)) => {
            let hard = hard?;
            (hard.map(|n| n - n.div_ceil(10)), hard)
        }
        (Some(soft), Some(hard)) => (soft?, hard?),
    };
    ordered(what, soft, hard, at, report);
    Some((soft, hard))
}

fn ordered<T: PartialOrd>(
    what: &str,
    soft: Option<T>,
    hard: Option<T>,
    at: Option<core::ops::Range<usize>>,
    report: &mut Report,
) {
    if let (Some(soft), Some(hard), Some(at)) = (soft, hard, at)
        && soft >= hard
    {
        report
            .error(at, format!("[esp] life-{what}: the SA would end before it is replaced"))
            .help(format!("life-{what} above rekey-{what}, a tenth at least is usual"));
    }
}

fn amount(value: &Spanned<Scalar<'_>>, key: &str, report: &mut Report) -> Option<Option<u64>> {
    let parsed = match *value.get_ref() {
        Scalar::Text(text) if value::is_off(text) => return Some(None),
        Scalar::Text(text) => value::amount(text),
        Scalar::Integer(n) => value::amount(&n.to_string()),
        Scalar::Float(n) => value::amount(&n.to_string()),
    };
    parsed.map_err(|wrong| report_wrong(value.span(), key, wrong, report)).ok().map(Some)
}

pub(super) fn dscp(
    value: &Spanned<Scalar<'_>>,
    key: &str,
    report: &mut Report,
) -> Option<DscpPolicy> {
    match *value.get_ref() {
        Scalar::Text("copy") => Some(DscpPolicy::Copy),
        Scalar::Integer(n @ 0..=63) => u8::try_from(n).ok().map(DscpPolicy::Set),
        Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_) => {
            report
                .error(value.span(), format!("{key}: not a DSCP"))
                .help("\"copy\" from the inner packet, or a number from 0 to 63 (46 is EF)");
            None
        }
    }
}

/// `[interface]`.
pub(super) fn interface(
    raw: &raw::Interface<'_>,
    v6_inside: bool,
    report: &mut Report,
) -> Option<Interface> {
    let name = match &raw.name {
        Some(text) => interface_name(text, report),
        None => Some("ipsec0".to_owned()),
    };
    let least = if v6_inside { 1280 } else { 576 };
    let mtu = match &raw.mtu {
        None => Some(None),
        Some(value) => match *value.get_ref() {
            Scalar::Text("auto") => Some(None),
            Scalar::Integer(n) if (least..=65_535).contains(&n) => u16::try_from(n).ok().map(Some),
            Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_) => {
                let why = if v6_inside { " (RFC 8200 §5: IPv6 needs 1280)" } else { "" };
                report
                    .error(value.span(), "[interface] mtu: out of range")
                    .help(format!("\"auto\", or from {least} to 65535{why}"));
                None
            }
        },
    };
    let addresses = addresses(raw.addresses.as_ref(), report);
    Some(Interface {
        name: name?,
        mtu: mtu?,
        routes: raw.routes.unwrap_or(true),
        addresses: addresses?,
        clamp_mss: raw.clamp_mss.unwrap_or(true),
    })
}

fn addresses(list: Option<&List<'_>>, report: &mut Report) -> Option<Vec<(core::net::IpAddr, u8)>> {
    let mut found: Vec<(core::net::IpAddr, u8)> = Vec::new();
    let mut fine = true;
    for item in list.iter().flat_map(|list| &list.items) {
        match subnet::interface_address(item.get_ref()) {
            Ok(address) if found.iter().any(|(other, _)| *other == address.0) => {
                fine = false;
                let message = format!("[interface] addresses: {} stands twice", address.0);
                report.error(item.span(), message).help("leave one of them out");
            }
            Ok(address) => found.push(address),
            Err(wrong) => {
                fine = false;
                report_wrong(item.span(), "[interface] addresses", wrong, report);
            }
        }
    }
    fine.then_some(found)
}

fn interface_name(text: &Text<'_>, report: &mut Report) -> Option<String> {
    let name = *text.get_ref();
    // Linux takes any 15 bytes without / : and white space; a % would make it count up.
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = (1..=15).contains(&name.len()) && name.bytes().all(fine);
    if !fits || name.starts_with(['-', '.']) || name == "lo" || name == "all" || name == "default" {
        let shown = name.escape_debug();
        report
            .error(
                text.span(),
                format!("[interface] name: `{shown}` cannot be an interface's name"),
            )
            .help("1 to 15 letters, digits, `.`, `_` and `-`, such as \"ipsec0\"");
        return None;
    }
    Some(name.to_owned())
}

/// `[log] level`: a level, or `target=level` pairs with commas between.
pub(super) fn log_level(text: &Text<'_>, report: &mut Report) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.get_ref().split(',') {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part.trim()),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let fine = target.is_none_or(|target| !target.is_empty() && target.chars().all(named));
        if fine && LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            continue;
        }
        let help = match nearest(level, LEVELS) {
            Some(right) if fine => format!("did you mean `{right}`?"),
            Some(_) | None => {
                "off, error, warn, info, debug or trace; for one part alone: \"info,ipsecd::ike=debug\"".to_owned()
            }
        };
        let shown = part.escape_debug();
        report.error(text.span(), format!("[log] level: `{shown}` is not a level")).help(help);
        return None;
    }
    Some((*text.get_ref()).to_owned())
}

pub(super) fn choice<T: Copy>(
    text: &Text<'_>,
    key: &str,
    choices: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let given = *text.get_ref();
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == given) {
        return Some(*value);
    }
    let help = match nearest(given, choices.iter().map(|(word, _)| *word)) {
        Some(right) => format!("did you mean \"{right}\"?"),
        None => {
            let words: Vec<String> =
                choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("one of {}", words.join(", "))
        }
    };
    let shown = given.escape_debug();
    report.error(text.span(), format!("{key}: unknown word `{shown}`")).help(help);
    None
}

fn duration(text: &Text<'_>, key: &str, least: Duration, report: &mut Report) -> Option<Duration> {
    value::duration(text.get_ref(), least)
        .map_err(|wrong| report_wrong(text.span(), key, wrong, report))
        .ok()
}

/// A duration of at least a second, or `off`.
fn limit(text: &Text<'_>, key: &str, report: &mut Report) -> Option<Option<Duration>> {
    if value::is_off(text.get_ref()) {
        return Some(None);
    }
    let parsed = value::duration(text.get_ref(), SECOND).map_err(|wrong| {
        let help = format!("{}, or \"off\"", wrong.help);
        report_wrong(text.span(), key, Wrong::new(wrong.message, help), report);
    });
    parsed.ok().map(Some)
}

fn integer(
    number: &Spanned<Scalar<'_>>,
    least: u32,
    most: u32,
    key: &str,
    report: &mut Report,
) -> Option<u32> {
    let value = match *number.get_ref() {
        Scalar::Integer(n) => u32::try_from(n).ok().filter(|n| (least..=most).contains(n)),
        Scalar::Float(_) | Scalar::Text(_) => None,
    };
    if value.is_none() {
        report
            .error(number.span(), format!("{key}: out of range"))
            .help(format!("a whole number from {least} to {most}"));
    }
    value
}

fn proposals<T>(
    list: Option<&List<'_>>,
    defaults: &[&str],
    key: &str,
    parse: impl Fn(&str) -> Result<T, Vec<Fault>>,
    report: &mut Report,
) -> Option<Vec<T>> {
    let Some(list) = list else {
        return Some(defaults.iter().filter_map(|text| parse(text).ok()).collect());
    };
    let mut found = Vec::new();
    let mut fine = list.whole;
    if list.items.is_empty() {
        fine = false;
        report
            .error(list.span.clone(), format!("{key}: the list is empty"))
            .help("leave the line out for the defaults");
    }
    if list.items.len() > MAX_PROPOSALS {
        fine = false;
        report.error(list.span.clone(), format!("{key}: {} are too many", list.items.len())).help(
            format!("at most {MAX_PROPOSALS}; a proposal may name several algorithms of a kind"),
        );
    }
    for item in &list.items {
        match parse(item.get_ref()) {
            Ok(proposal) => found.push(proposal),
            Err(faults) => {
                fine = false;
                for fault in faults {
                    let span = within(item, &fault, report);
                    report_wrong(span, key, fault.wrong, report);
                }
            }
        }
    }
    fine.then_some(found)
}

/// The place of a keyword in the file, if the string stands there as it is, without escapes.
pub(super) fn within(item: &Text<'_>, fault: &Fault, report: &Report) -> core::ops::Range<usize> {
    let span = item.span();
    let quoted = span.len() == item.get_ref().len() + 2;
    let start = span.start + 1;
    let same = report.source().get(start..start + item.get_ref().len()) == Some(*item.get_ref());
    if quoted && same && !fault.at.is_empty() {
        start + fault.at.start..start + fault.at.end
    } else {
        span
    }
}
