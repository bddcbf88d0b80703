//! A file of our own.

use core::time::Duration;

use zeroize::Zeroizing;

use super::super::Written;
use super::super::draft::{Child, Draft, Item, quote};
use super::super::{file_name, show_seconds};
use super::{Far, Proof, encoded, is_ah, is_only, is_transport, other_start};
use crate::config::{self, render_child, render_ike};
use crate::ipsec::pad::{EncapPolicy, Fragments, LossAction, StartPolicy, Unique};
use crate::ipsec::{DfPolicy, DscpPolicy};

pub(super) fn write(far: &Far<'_>) -> String {
    let peer = far.peer;
    let mut draft = Draft { name: peer.name.to_string(), ..Draft::default() };
    draft.head.push(format!("The far end of {}.", peer.name));
    if let Some(address) = far.local_address() {
        draft.local.text("address", address);
    }
    match far.local_id() {
        Some(id) => draft.local.text("id", config::render_identity(id)),
        None => draft.head.push("[local] id is to be filled in: who this end is; the other takes whoever holds the key.".to_owned()),
    }
    match far.remote_address() {
        Some(address) => draft.peer.text("address", address),
        None => {
            draft.head.push(far.unknown().to_owned());
            draft.peer.text("address", "any");
        }
    }
    draft.peer.text("id", config::render_identity(far.remote_id()));
    if let Some(pool) = &peer.pool {
        let wish = |v6: bool| pool.ranges.iter().any(|(start, _)| start.is_ipv6() == v6);
        let wishes = [(false, "ipv4"), (true, "ipv6")].into_iter().filter(|(v6, _)| wish(*v6));
        draft.local.list("virtual", wishes.map(|(_, it)| it.to_owned()).collect());
    }
    if let Some(request) = &peer.request {
        let asked = request.addresses.iter().filter_map(|wish| wish.address());
        let asked: Vec<String> = asked.map(|address| address.to_string()).collect();
        if asked.is_empty() {
            draft.head.push(
                "[peer] pool is to be filled in: the addresses that this end gives.".to_owned(),
            );
        } else {
            draft.peer.list("pool", asked);
        }
    }
    auth(far, &mut draft);
    ike(far, &mut draft);
    let any = far.remote_address().is_none();
    for child in &peer.children {
        let mut made = Child { name: child.name.to_string(), ..Child::default() };
        let list = |list: &[crate::ipsec::TrafficSelector]| -> Vec<String> {
            list.iter().map(config::render_selector).collect()
        };
        if !is_only(&child.ts_peer, far.local_address().as_deref()) {
            made.local = list(&child.ts_peer);
        }
        if !is_only(&child.ts_local, far.remote_address().as_deref()) {
            made.peer = list(&child.ts_local);
        }
        if is_ah(child) {
            made.kind.text("protocol", "ah");
        }
        made.kind.list("proposals", child.proposals.iter().map(render_child).collect());
        if is_transport(child) {
            made.kind
                .text("mode", if child.or_tunnel { "transport-or-tunnel" } else { "transport" });
        }
        let start = match other_start(child.start) {
            _ if any => "respond",
            StartPolicy::ByHand => "by-hand",
            StartPolicy::Now => "now",
            StartPolicy::OnTraffic => "on-traffic",
            StartPolicy::Respond => "respond",
        };
        made.kind.text("start", start);
        common(child, far, &mut made);
        draft.children.push(made);
    }
    draft.finish(&mut Vec::new())
}

/// What [`auth`] refers to: keys and passwords that both ends have.
pub(super) fn secrets(far: &Far<'_>) -> Vec<Written> {
    let name = &far.peer.name;
    let secret = |end: &str, text| Written { name: format!("{name}.{end}"), text, secret: true };
    let mut found = Vec::new();
    if let Some(psk) = far.psk() {
        found.push(secret("psk", line(&encoded(psk))));
    }
    if let Some(ppk) = &far.peer.ppk {
        found.push(secret("ppk", line(&encoded(&ppk.key))));
    }
    for (user, password) in far.users() {
        if let Some(password) = password.and_then(|it| core::str::from_utf8(it.expose()).ok()) {
            let name = password_file(far, &user);
            found.push(Written { name, text: line(password), secret: true });
        }
    }
    found
}

/// What [`auth`] refers to besides: the far end's certificate and key, and what it trusts.
pub(super) fn certificates(far: &Far<'_>) -> Vec<String> {
    let mut found = Vec::new();
    match far.local_proof() {
        Proof::Certificate | Proof::EapTls => {
            found.extend(["pem", "key"].map(|end| far.file(far.local_id(), end)));
        }
        Proof::RawKey => found.push(far.file(far.local_id(), "key")),
        Proof::EapMsChapV2 | Proof::Psk => {}
    }
    match far.remote_proof() {
        Proof::Certificate | Proof::EapTls => found.push("ca.pem".to_owned()),
        Proof::RawKey => found.push(far.file(Some(far.remote_id()), "pub")),
        Proof::EapMsChapV2 | Proof::Psk => {}
    }
    found
}

/// Where the password of a user is: of several each has one.
fn password_file(far: &Far<'_>, user: &str) -> String {
    let users = far.users();
    let file = |name: &str| format!("{}-{}.pass", far.peer.name, file_name(name));
    match users.iter().position(|(name, _)| name == user) {
        Some(_) if users.len() < 2 => format!("{}.pass", far.peer.name),
        // Of names that differ in what a file's may not have.
        Some(at) if users[..at].iter().any(|(name, _)| file(name) == file(user)) => {
            format!("{}-{}.pass", far.peer.name, at + 1)
        }
        Some(_) => file(user),
        None => format!("{}.pass", far.peer.name),
    }
}

fn line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{text}\n"))
}

fn off(time: Option<Duration>) -> String {
    time.map_or_else(|| "off".to_owned(), |time| show_seconds(time.as_secs()))
}

fn auth(far: &Far<'_>, draft: &mut Draft) {
    let (ours, theirs) = (far.local_proof(), far.remote_proof());
    if ours == Proof::Psk || theirs == Proof::Psk {
        match far.psk().filter(|_| far.options.secrets) {
            Some(psk) => draft.auth.text("psk", encoded(psk).as_str()),
            None => draft.auth.set("psk", Item::File(format!("{}.psk", far.peer.name))),
        }
    }
    match ours {
        Proof::Certificate | Proof::EapTls => {
            draft.auth.text("cert", far.file(far.local_id(), "pem"));
            draft.auth.text("key", far.file(far.local_id(), "key"));
        }
        Proof::RawKey => {
            draft.auth.text("key", far.file(far.local_id(), "key"));
            draft.auth.text("local", "public-key");
        }
        Proof::EapMsChapV2 => {
            let users = far.users();
            let user = users.first().map_or("", |(name, _)| name.as_str());
            if !user.is_empty() {
                draft.auth.text("eap-identity", user);
            }
            draft.auth.set("eap-password", Item::File(password_file(far, user)));
        }
        Proof::Psk => {}
    }
    match theirs {
        Proof::Certificate | Proof::EapTls => draft.auth.list("ca", vec!["ca.pem".to_owned()]),
        Proof::RawKey => draft.auth.text("public-key", far.file(Some(far.remote_id()), "pub")),
        Proof::EapMsChapV2 => {
            for (name, _) in far.users() {
                let file = password_file(far, &name);
                draft.users.push((name, file));
            }
        }
        Proof::Psk => {}
    }
    if matches!(ours, Proof::EapMsChapV2 | Proof::EapTls) {
        draft.auth.text("local", "eap");
    }
    if matches!(theirs, Proof::EapMsChapV2 | Proof::EapTls) {
        draft.auth.text("peer", "eap");
    }
    if theirs == Proof::Psk && ours != Proof::Psk {
        draft.auth.text("peer", "psk");
    }
    if let Some(ppk) = &far.peer.ppk {
        let id = quote(&String::from_utf8_lossy(&ppk.id));
        let file = quote(&format!("{}.ppk", far.peer.name));
        draft.auth.plain("ppk", format!("{{ id = {id}, file = {file} }}"));
        if ppk.required {
            draft.auth.plain("ppk-required", true);
        }
    }
}

fn ike(far: &Far<'_>, draft: &mut Draft) {
    let policy = &far.peer.ike;
    let proposals: Vec<String> = policy.proposals.iter().map(render_ike).collect();
    if proposals
        .iter()
        .any(|text| config::read_proposal(config::ProposalOf::Ike, text, false).is_err())
    {
        draft.ike.plain("allow-legacy", true);
    }
    draft.ike.list("proposals", proposals);
    draft.ike.text("rekey-time", off(policy.rekey_time));
    draft.ike.text("over-time", show_seconds(policy.over_time.as_secs().max(1)));
    if let Some(time) = policy.reauth_time {
        draft.ike.text("reauth-time", show_seconds(time.as_secs()));
    }
    draft.ike.text("dpd", off(policy.dpd_delay));
    match policy.fragmentation.fragments {
        Fragments::Yes => {}
        Fragments::Accept => draft.ike.text("fragmentation", "accept"),
        Fragments::No => draft.ike.text("fragmentation", "no"),
    }
    if !policy.mobike {
        draft.ike.plain("mobike", false);
    }
    if policy.childless {
        draft.ike.plain("childless", true);
    }
    match policy.unique {
        Unique::No => {}
        Unique::Replace => draft.ike.text("unique", "replace"),
        Unique::Keep => draft.ike.text("unique", "keep"),
        Unique::Never => draft.ike.text("unique", "never"),
    }
    for (key, action) in [("dpd-action", policy.dpd_action), ("close-action", policy.close_action)]
    {
        match action {
            Some(LossAction::Clear) => draft.ike.text(key, "clear"),
            Some(LossAction::Hold) => draft.ike.text(key, "hold"),
            Some(LossAction::Restart) => draft.ike.text(key, "restart"),
            None => {}
        }
    }
}

/// What all CHILD_SAs of a file share.
fn common(child: &crate::ipsec::pad::ChildPolicy, far: &Far<'_>, made: &mut Child) {
    let of = if is_ah(child) { config::ProposalOf::Ah } else { config::ProposalOf::Esp };
    if child.proposals.iter().any(|it| config::read_proposal(of, &render_child(it), false).is_err())
    {
        made.esp.plain("allow-legacy", true);
    }
    match far.peer.ike.encap {
        EncapPolicy::Auto => {}
        EncapPolicy::Udp => made.esp.text("encap", "udp"),
        EncapPolicy::None => made.esp.text("encap", "none"),
    }
    let life = child.lifetime;
    made.esp.text("rekey-time", off(life.soft_time));
    made.esp.text("life-time", off(life.hard_time));
    for (key, amount) in [
        ("rekey-bytes", life.soft_bytes),
        ("life-bytes", life.hard_bytes),
        ("rekey-packets", life.soft_packets),
        ("life-packets", life.hard_packets),
    ] {
        if let Some(amount) = amount {
            made.esp.plain(key, amount);
        }
    }
    made.esp.plain("replay-window", child.replay_window);
    match child.df {
        DfPolicy::Copy => {}
        DfPolicy::Clear => made.esp.text("df", "clear"),
        DfPolicy::Set => made.esp.text("df", "set"),
    }
    if let DscpPolicy::Set(n) = child.dscp {
        made.esp.plain("dscp", n);
    }
}
