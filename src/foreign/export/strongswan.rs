//! A swanctl.conf.

use core::fmt::Write as _;
use core::time::Duration;

use super::{Far, Proof, encoded, is_ah, is_only, is_transport, other_start, quoted};
use crate::config::{self, render_child, render_ike};
use crate::ipsec::pad::{EncapPolicy, Fragments, LossAction, StartPolicy, Unique};
use crate::ipsec::{DfPolicy, DscpPolicy};

/// Lines of a section, indented.
struct Out {
    text: String,
    depth: usize,
}

impl Out {
    fn line(&mut self, text: &str) {
        // A string takes all that is written to it.
        let _done = writeln!(self.text, "{:1$}{text}", "", self.depth * 4);
    }

    fn set(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    fn comment(&mut self, text: &str) {
        self.line(&format!("# {text}"));
    }

    fn open(&mut self, name: &str) {
        self.line(&format!("{name} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }
}

pub(super) fn write(far: &Far<'_>, multiple: bool) -> String {
    let peer = far.peer;
    let mut out = Out { text: String::new(), depth: 0 };
    out.comment(
        "swanctl.conf of the far end, for strongSwan 5.9 and later; then: swanctl --load-all",
    );
    out.open("connections");
    let name = section(&peer.name);
    out.open(&name);
    out.set("version", "2");
    match far.local_address() {
        Some(address) => out.set("local_addrs", &address),
        None => out.set("local_addrs", "%any"),
    }
    match far.remote_address() {
        Some(address) => out.set("remote_addrs", &address),
        None => {
            out.comment(far.unknown());
            out.set("remote_addrs", "%any");
        }
    }
    ike(far, multiple, &mut out);
    let pool = format!("{name}-pool");
    if let Some(given) = &peer.pool {
        let wish = |v6: bool| given.ranges.iter().any(|(start, _)| start.is_ipv6() == v6);
        let wishes: Vec<&str> = [(false, "0.0.0.0"), (true, "::")]
            .into_iter()
            .filter(|(v6, _)| wish(*v6))
            .map(|(_, it)| it)
            .collect();
        out.set("vips", &wishes.join(", "));
    }
    if peer.request.is_some() {
        out.set("pools", &pool);
    }
    sides(far, &mut out);
    out.open("children");
    children(far, multiple, &mut out);
    out.close();
    out.close();
    out.close();
    if let Some(request) = &peer.request {
        out.open("pools");
        out.open(&pool);
        let asked = request.addresses.iter().filter_map(|wish| wish.address());
        let asked: Vec<String> = asked.map(|address| address.to_string()).collect();
        if asked.is_empty() {
            out.comment("The addresses that are given, which only this end can say:");
            out.comment("addrs = 10.3.0.0/24");
        } else {
            out.set("addrs", &asked.join(", "));
        }
        out.close();
        out.close();
    }
    secrets(far, &mut out);
    out.text
}

/// The name of a section: without dots, which lead into one there.
fn section(name: &str) -> String {
    name.replace('.', "-")
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs().max(1))
}

fn or_none(time: Option<Duration>) -> String {
    time.map_or_else(|| "0s".to_owned(), seconds)
}

fn ike(far: &Far<'_>, multiple: bool, out: &mut Out) {
    let policy = &far.peer.ike;
    let proposals: Vec<String> = policy.proposals.iter().map(render_ike).collect();
    out_of_reach(multiple, proposals, "proposals", out);
    out.set("rekey_time", &or_none(far.ike_rekey()));
    out.set("over_time", &seconds(policy.over_time));
    if let Some(time) = policy.reauth_time {
        out.set("reauth_time", &seconds(time));
    }
    out.set("dpd_delay", &or_none(policy.dpd_delay));
    let fragmentation = match policy.fragmentation.fragments {
        Fragments::Yes => "yes",
        Fragments::Accept => "accept",
        Fragments::No => "no",
    };
    out.set("fragmentation", fragmentation);
    out.set("mobike", if policy.mobike { "yes" } else { "no" });
    match policy.encap {
        EncapPolicy::Auto => {}
        EncapPolicy::Udp => out.set("encap", "yes"),
        EncapPolicy::None => {
            out.comment("The other end refuses ESP in UDP: no NAT may be between the two.")
        }
    }
    if policy.childless {
        out.set("childless", "prefer");
    }
    let unique = match policy.unique {
        Unique::No => "no",
        Unique::Replace => "replace",
        Unique::Keep => "keep",
        Unique::Never => "never",
    };
    out.set("unique", unique);
    if let Some(ppk) = &far.peer.ppk {
        out.set("ppk_id", &quoted(&String::from_utf8_lossy(&ppk.id)));
        out.set("ppk_required", if ppk.required { "yes" } else { "no" });
    }
}

/// Sets a list of proposals. One that 5.9 has no words for would make it refuse all of the connection.
fn out_of_reach(multiple: bool, proposals: Vec<String>, key: &str, out: &mut Out) {
    let all = proposals.join(", ");
    let (known, new): (Vec<String>, Vec<String>) =
        proposals.into_iter().partition(|text| multiple || !text.contains("-ke"));
    if known.is_empty() {
        out.comment("Additional key exchanges (ke1_…, RFC 9370) need strongSwan 6.0:");
        out.set(key, &all);
        return;
    }
    if !new.is_empty() {
        out.comment("strongSwan 6.0 has additional key exchanges (RFC 9370), too, against quantum computers:");
        out.comment(&format!("{key} = {all}"));
    }
    out.set(key, &known.join(", "));
}

fn sides(far: &Far<'_>, out: &mut Out) {
    let auth = |proof| match proof {
        Proof::Certificate | Proof::RawKey => "pubkey",
        Proof::EapMsChapV2 => "eap-mschapv2",
        Proof::EapTls => "eap-tls",
        Proof::Psk => "psk",
    };
    out.open("local");
    let proof = far.local_proof();
    out.set("auth", auth(proof));
    match far.local_id() {
        Some(id) => out.set("id", &quoted(&config::render_identity(id))),
        None => out.comment("id = who this end is; the other takes whoever holds the key"),
    }
    match proof {
        Proof::Certificate | Proof::EapTls => {
            out.comment("In x509/, and its key in private/:");
            out.set("certs", &far.file(far.local_id(), "pem"));
        }
        Proof::RawKey => {
            out.comment("In pubkey/, and its key in private/:");
            out.set("pubkeys", &far.file(far.local_id(), "pub"));
        }
        Proof::EapMsChapV2 | Proof::Psk => {}
    }
    if matches!(proof, Proof::EapMsChapV2)
        && let Some((name, _)) = far.users().first()
    {
        out.set("eap_id", &quoted(name));
    }
    out.close();
    out.open("remote");
    let proof = far.remote_proof();
    out.set("auth", auth(proof));
    out.set("id", &quoted(&config::render_identity(far.remote_id())));
    match proof {
        Proof::Certificate | Proof::EapTls => {
            out.comment("In x509ca/, the CA that the other end's certificate is of:");
            out.set("cacerts", "ca.pem");
        }
        Proof::RawKey => {
            out.comment("In pubkey/:");
            out.set("pubkeys", &far.file(Some(far.remote_id()), "pub"));
        }
        Proof::EapMsChapV2 | Proof::Psk => {}
    }
    if matches!(proof, Proof::EapMsChapV2 | Proof::EapTls) {
        out.set("eap_id", "%any");
    }
    out.close();
}

fn children(far: &Far<'_>, multiple: bool, out: &mut Out) {
    let (local, remote) = (far.local_address(), far.remote_address());
    for child in &far.peer.children {
        out.open(&section(&child.name));
        let list = |list: &[crate::ipsec::TrafficSelector]| {
            list.iter().map(config::render_selector).collect::<Vec<_>>().join(", ")
        };
        // What the two have of a pool is known only when they have it.
        if far.peer.pool.is_none() && !is_only(&child.ts_peer, local.as_deref()) {
            out.set("local_ts", &list(&child.ts_peer));
        }
        if far.peer.request.is_none() && !is_only(&child.ts_local, remote.as_deref()) {
            out.set("remote_ts", &list(&child.ts_local));
        }
        let proposals: Vec<String> = child.proposals.iter().map(render_child).collect();
        let (known, unknown): (Vec<String>, Vec<String>) =
            proposals.into_iter().partition(|text| !text.contains("iiv"));
        for text in unknown {
            out.comment(&format!("{text}: strongSwan has no implicit IVs (RFC 8750)"));
        }
        let key = if is_ah(child) { "ah_proposals" } else { "esp_proposals" };
        if known.iter().any(|text| text.contains("sha256_96")) {
            out.set("sha256_96", "yes");
        }
        if !known.is_empty() {
            let known = known.iter().map(|text| text.replace("sha256_96", "sha256")).collect();
            out_of_reach(multiple, known, key, out);
        }
        if is_transport(child) {
            out.set("mode", "transport");
        }
        let start = match other_start(child.start) {
            StartPolicy::Now => "start",
            StartPolicy::OnTraffic => "trap",
            StartPolicy::ByHand | StartPolicy::Respond => "none",
        };
        out.set("start_action", start);
        for (key, action) in
            [("dpd_action", far.dpd_action()), ("close_action", far.peer.ike.close_action)]
        {
            let Some(action) = action else { continue };
            let word = match action {
                LossAction::Clear => "clear",
                LossAction::Hold => "trap",
                LossAction::Restart => "restart",
            };
            out.set(key, word);
        }
        let life = child.lifetime;
        out.set("rekey_time", &or_none(life.soft_time));
        out.set("life_time", &or_none(life.hard_time));
        for (key, amount) in [
            ("rekey_bytes", life.soft_bytes),
            ("life_bytes", life.hard_bytes),
            ("rekey_packets", life.soft_packets),
            ("life_packets", life.hard_packets),
        ] {
            if let Some(amount) = amount {
                out.set(key, &amount.to_string());
            }
        }
        out.set("replay_window", &child.replay_window.to_string());
        match child.df {
            DfPolicy::Copy => {}
            DfPolicy::Clear => out.set("copy_df", "no"),
            DfPolicy::Set => out.comment("The other end always sets DF in outer headers."),
        }
        match child.dscp {
            DscpPolicy::Copy => {}
            DscpPolicy::Set(0) => out.set("copy_dscp", "no"),
            DscpPolicy::Set(n) => {
                out.comment(&format!("The other end's outer headers have DSCP {n}."))
            }
        }
        out.close();
    }
}

fn secrets(far: &Far<'_>, out: &mut Out) {
    let open = far.options.secrets;
    let psk = far.psk();
    let users = if matches!(far.local_proof(), Proof::EapMsChapV2)
        || matches!(far.remote_proof(), Proof::EapMsChapV2)
    {
        far.users()
    } else {
        Vec::new()
    };
    if psk.is_none() && users.is_empty() && far.peer.ppk.is_none() {
        return;
    }
    out.open("secrets");
    if let Some(psk) = psk {
        out.open(&format!("ike-{}", section(&far.peer.name)));
        for (number, id) in far.local_id().into_iter().chain([far.remote_id()]).enumerate() {
            out.set(&format!("id-{}", number + 1), &quoted(&config::render_identity(id)));
        }
        if open {
            out.set("secret", &encoded(psk));
        } else {
            out.comment("secret = the line of the other end's psk, as it is");
        }
        out.close();
    }
    for (number, (name, password)) in users.into_iter().enumerate() {
        out.open(&format!("eap-{}", number + 1));
        out.set("id", &quoted(&name));
        match password.filter(|_| open) {
            Some(password) => {
                out.set("secret", &quoted(&String::from_utf8_lossy(password.expose())))
            }
            None => out.comment("secret = the password"),
        }
        out.close();
    }
    if let Some(ppk) = &far.peer.ppk {
        out.open(&format!("ppk-{}", section(&far.peer.name)));
        out.set("id", &quoted(&String::from_utf8_lossy(&ppk.id)));
        if open {
            out.set("secret", &encoded(&ppk.key));
        } else {
            out.comment("secret = the line of the other end's ppk, as it is");
        }
        out.close();
    }
    out.close();
}
