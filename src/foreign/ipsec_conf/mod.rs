//! ipsec.conf, of strongSwan's stroke and of libreswan: the same words, which do not always mean the same.
//!
//! Which end is ours is seen by this host's addresses; where neither is, `left` is. What `reauth` and `rekey` say by default
//! is left to ipsecd's own defaults.

mod parse;
mod policy;
mod secrets;

use core::net::IpAddr;
use std::path::{Path, PathBuf};

use self::parse::{Section, Setting};
use super::connection::{Absent, End, How, authenticate, how};
use super::draft::{Child, Draft, Table};
use super::pki::{Pki, Places};
use super::proposal::{Dialect, groups, translate};
use super::secrets::Secrets;
use super::selector::{narrowed, subnet};
use super::{At, Files, ForeignError, Import, file_name, seconds, show_seconds};
use crate::config::ProposalOf;

/// Keys of one dialect alone.
const OF_LIBRESWAN: &[&str] = &[
    "authby",
    "dnssec-enable",
    "encapsulation",
    "ikev2",
    "initial-contact",
    "leftaddresspool",
    "leftckaid",
    "leftmodecfgclient",
    "leftrsasigkey",
    "logfile",
    "modecfgdns",
    "narrowing",
    "nssdir",
    "phase2",
    "phase2alg",
    "plutodebug",
    "protostack",
    "rightaddresspool",
    "rightckaid",
    "rightmodecfgclient",
    "rightrsasigkey",
    "salifetime",
    "virtual-private",
    "virtual_private",
];
const OF_STRONGSWAN: &[&str] = &[
    "charondebug",
    "keyexchange",
    "leftauth",
    "leftfirewall",
    "leftgroups",
    "lefthostaccess",
    "leftsendcert",
    "rightauth",
    "rightdns",
    "rightgroups",
    "rightsourceip",
    "strictcrlpolicy",
];

/// Settings without counterpart, and why; those without a reason say nothing that would be missed.
const KNOWN: &[(&str, &str)] = &[
    ("aggressive", ""),
    ("aggrmode", ""),
    ("compress", "ipsecd does not compress"),
    ("connalias", ""),
    ("dpdtimeout", ""),
    ("hostaccess", ""),
    ("ikev2", ""),
    ("inactivity", "a CHILD_SA without traffic stays"),
    ("installpolicy", "policies are always there"),
    ("keyexchange", ""),
    ("keyingtries", ""),
    ("leftallowany", ""),
    ("leftfirewall", "firewall rules are yours"),
    ("lefthostaccess", ""),
    ("leftnexthop", ""),
    ("leftsendcert", ""),
    ("leftupdown", "no script is run: routes are set by ipsecd, and firewall rules are yours"),
    ("mark", "policies look at no marks"),
    ("mark_in", "policies look at no marks"),
    ("mark_out", "policies look at no marks"),
    ("mark-in", "policies look at no marks"),
    ("mark-out", "policies look at no marks"),
    ("modeconfig", ""),
    ("mtu", "of the interface: [interface] mtu"),
    ("negotiationshunt", ""),
    ("failureshunt", ""),
    ("rekeyfuzz", ""),
    ("reqid", ""),
    ("rightallowany", ""),
    ("rightfirewall", "firewall rules are yours"),
    ("righthostaccess", ""),
    ("rightnexthop", ""),
    ("rightsendcert", ""),
    ("rightupdown", "no script is run: routes are set by ipsecd, and firewall rules are yours"),
    ("tfc", "padding against traffic analysis is for manual keys alone"),
    ("vti-interface", "there is one TUN for all peers: [interface] name"),
];

/// Reads an ipsec.conf, and the ipsec.secrets beside it.
///
/// # Errors
/// If its text cannot be made out, or a file that it includes cannot be read.
pub fn import(
    path: &Path,
    text: &str,
    files: &dyn Files,
    addresses: &[IpAddr],
) -> Result<Import, ForeignError> {
    let mut sections = parse::parse(path, text, files)?;
    let mut import = Import::default();
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let secrets = secrets::read(&dir.join("ipsec.secrets"), files, &mut import);
    let in_dir =
        |name: &str| -> Vec<PathBuf> { vec![dir.join("ipsec.d").join(name), dir.to_owned()] };
    let only = |name: &str| vec![dir.join("ipsec.d").join(name)];
    let places = Places {
        certs: in_dir("certs"),
        cas: only("cacerts"),
        crls: only("crls"),
        keys: only("private"),
        public_keys: in_dir("certs"),
    };
    let pki = Pki { files, places };
    let dialect = dialect(&sections);
    let mut setup = Vec::new();
    let mut cas: Vec<String> = Vec::new();
    let mut conns = Vec::new();
    for mut section in sections.drain(..) {
        match section.kind.as_str() {
            "config" => setup.push(section),
            "ca" => {
                cas.extend(section.take("cacert").map(|it| it.value));
                for key in ["crluri", "crluri1", "crluri2", "ocspuri", "ocspuri1", "ocspuri2"] {
                    if let Some(uri) = section.take(key) {
                        import.note(
                            &uri.at,
                            format!("{key} of ca `{}`", section.name),
                            "nothing is fetched: put the CRL beside the new file, [auth] crl",
                        );
                    }
                }
            }
            _ => conns.push(section),
        }
    }
    let unique = setup.iter_mut().find_map(|section| section.take("uniqueids"));
    if conns.is_empty() {
        let at = At { file: path.to_owned(), line: 1 };
        return Err(ForeignError { at, message: "there is no connection in it".to_owned() });
    }
    // What others build on is none by itself, and mostly has no far end.
    let world = World {
        dialect,
        unique: unique.as_ref(),
        cas: &cas,
        secrets: &secrets,
        pki: &pki,
        addresses,
    };
    for section in conns {
        let template =
            !section.has("left") && !section.has("right") || auto(&section) == Some("ignore");
        if template {
            if section.has("left") || section.has("right") {
                import.leave_out(&section.at, format!("conn `{}`", section.name), "auto=ignore");
            }
            continue;
        }
        if let Some(draft) = conn(section, &world, &mut import) {
            import.add_peer(draft);
        }
    }
    Ok(import)
}

struct World<'a> {
    dialect: Dialect,
    unique: Option<&'a Setting>,
    cas: &'a [String],
    secrets: &'a Secrets,
    pki: &'a Pki<'a>,
    addresses: &'a [IpAddr],
}

fn auto(section: &Section) -> Option<&str> {
    section.settings.get("auto").map(|setting| setting.value.as_str())
}

fn dialect(sections: &[Section]) -> Dialect {
    let count = |words: &[&str]| -> usize {
        let keys = sections.iter().flat_map(|section| section.settings.keys());
        keys.filter(|key| words.contains(&key.as_str())).count()
    };
    // `authby` is an old word of strongSwan's, too.
    if count(OF_LIBRESWAN) > count(OF_STRONGSWAN) {
        Dialect::Libreswan
    } else {
        Dialect::StrongSwan
    }
}

/// `left` or `right`.
fn our_side(section: &Section, addresses: &[IpAddr]) -> &'static str {
    let is_ours = |side: &str| {
        let value = section.settings.get(side).map(|setting| setting.value.as_str());
        matches!(value, Some("%defaultroute"))
            || value
                .and_then(|text| text.parse::<IpAddr>().ok())
                .is_some_and(|it| addresses.contains(&it))
    };
    if !is_ours("left") && is_ours("right") { "right" } else { "left" }
}

fn conn(mut from: Section, world: &World<'_>, import: &mut Import) -> Option<Draft> {
    let at = from.at.clone();
    let what = format!("conn `{}`", from.name);
    let is_libreswan = world.dialect == Dialect::Libreswan;
    let ikev1 = ["keyexchange", "ikev2"].into_iter().find_map(|key| {
        let setting = from.settings.get(key)?;
        let old = match key {
            "keyexchange" => setting.value == "ikev1",
            _ => matches!(setting.value.as_str(), "no" | "never"),
        };
        old.then(|| setting.clone())
    });
    if let Some(setting) = ikev1 {
        import.leave_out(&setting.at, what, "it is for IKEv1, which ipsecd does not have");
        return None;
    }
    let mode = from.take("type");
    match mode.as_ref().map_or("tunnel", |it| it.value.as_str()) {
        "tunnel" | "transport" => {}
        kind @ ("passthrough" | "passthru" | "drop" | "reject") => {
            policy::shunt(&from, kind, our_side(&from, world.addresses), &what, import);
            return None;
        }
        other => {
            let at = mode.as_ref().map_or(&at, |it| &it.at);
            import.leave_out(at, what, format!("ipsecd has no type={other}"));
            return None;
        }
    }
    let ours = our_side(&from, world.addresses);
    let theirs = if ours == "left" { "right" } else { "left" };
    let mut draft = Draft { name: file_name(&from.name), ..Draft::default() };
    let file =
        at.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    draft
        .head
        .push(format!("From conn {} of {file}, line {}; {ours} is this end.", from.name, at.line));
    if let Some(setting) = from.take(ours).filter(|it| it.value.parse::<IpAddr>().is_ok()) {
        draft.local.text("address", setting.value);
    }
    let far = from.take(theirs);
    match far.as_ref().map_or("%any", |it| it.value.as_str()) {
        value if value.starts_with('%') => {
            draft.peer.text("address", "any");
            if let Some(far) = far.as_ref().filter(|far| !["%any", "%any6"].contains(&&*far.value))
            {
                import.note(
                    &far.at,
                    format!("{theirs}={}", far.value),
                    "the peer may come from anywhere",
                );
            }
        }
        value => match value.split_once(',') {
            Some((first, more)) => {
                draft.peer.text("address", first.trim());
                let at = far.as_ref().map_or(&at, |it| &it.at);
                import.note(
                    at,
                    format!("{theirs}: `{more}`"),
                    "a peer of ipsecd has one address: the first was taken",
                );
            }
            None => draft.peer.text("address", value),
        },
    }
    given(&mut draft, &mut from, ours, theirs, is_libreswan, import);
    let timing = ike(&mut draft, &mut from, world, import);
    let ends = ends(&mut from, ours, theirs, world, &what, import)?;
    let absent = Absent { peer_is_any: false };
    if !authenticate(&mut draft, &ends[0], &ends[1], &absent, world.secrets, world.pki, import) {
        return None;
    }
    let kind = kind(&mut from, mode.as_ref(), &draft, &timing, world, import);
    let pairs = pairs(&mut from, ours, theirs, &draft, &what, import)?;
    for (number, (local, peer)) in pairs.into_iter().enumerate() {
        let mut child = kind.clone();
        child.name =
            if number == 0 { from.name.clone() } else { format!("{}-{}", from.name, number + 1) };
        (child.local, child.peer) = (local, peer);
        child.at = Some(at.clone());
        draft.children.push(child);
    }
    if draft.children.iter().any(|child| child.local.is_empty())
        && !draft.local.has("virtual")
        && !draft.local.has("address")
    {
        import.leave_out(&at, what, format!("{ours} is whatever address routing chooses: write our address, or {ours}subnet, there first"));
        return None;
    }
    for (key, setting) in &from.settings {
        let is_default = matches!(setting.value.as_str(), "" | "no" | "0" | "%none" | "never");
        match KNOWN.iter().find(|(name, _)| name == key) {
            Some((_, "")) => {}
            _ if is_default => {}
            Some((_, why)) => import.note(&setting.at, format!("{key} of {what}"), *why),
            None => {
                import.note(&setting.at, format!("{key} of {what}"), "ipsecd has nothing like it")
            }
        }
    }
    Some(draft)
}

/// Addresses by the Configuration payload.
fn given(
    draft: &mut Draft,
    from: &mut Section,
    ours: &str,
    theirs: &str,
    is_libreswan: bool,
    import: &mut Import,
) {
    let list = |setting: &Setting| -> Vec<String> {
        setting.value.split([',', ' ']).filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    if is_libreswan {
        if from.take(&format!("{ours}modecfgclient")).is_some_and(|it| it.value == "yes") {
            draft.local.list("virtual", vec!["ipv4".to_owned()]);
        }
        if let Some(address) = from.take(&format!("{ours}sourceip")) {
            import.note(&address.at, format!("{ours}sourceip={}", address.value), "this host sends from an address of its own in the subnet: [interface] addresses gives it one");
        }
        if let Some(range) = from.take(&format!("{theirs}addresspool")) {
            draft.peer.list("pool", list(&range));
        }
        for key in [
            format!("{theirs}modecfgclient"),
            format!("{ours}modecfgserver"),
            "modecfgpull".to_owned(),
        ] {
            from.take(&key);
        }
    } else {
        if let Some(wish) = from.take(&format!("{ours}sourceip")) {
            let wishes = list(&wish).into_iter().map(|word| match word.as_str() {
                "%config" | "%config4" | "%modeconfig" | "%modecfg" => "ipv4".to_owned(),
                "%config6" => "ipv6".to_owned(),
                _ => word,
            });
            draft.local.list("virtual", wishes.collect());
        }
        if let Some(pool) = from.take(&format!("{theirs}sourceip")) {
            let (pools, others): (Vec<_>, Vec<_>) =
                list(&pool).into_iter().partition(|it| !it.starts_with('%'));
            for other in others {
                import.note(
                    &pool.at,
                    format!("{theirs}sourceip: `{other}`"),
                    "ipsecd gives addresses of its own pools alone",
                );
            }
            if !pools.is_empty() {
                draft
                    .peer
                    .list("pool", pools.into_iter().map(|it| subnet(&it).unwrap_or(it)).collect());
            }
        }
    }
    let dns = from.take_any(&[&format!("{theirs}dns"), "modecfgdns", "modecfgdns1"]);
    if let Some(dns) = dns.filter(|_| draft.peer.has("pool")) {
        draft.peer.list("dns", list(&dns));
    }
    from.take(&format!("{ours}dns"));
}

/// What is said once of the IKE SA and its CHILD_SAs.
struct Timing {
    no_rekey: bool,
    /// Seconds before the end of a life at which it is replaced.
    margin: u64,
}

/// What `margintime` is unless it is said.
const MARGIN: u64 = 540;

fn ike(draft: &mut Draft, from: &mut Section, world: &World<'_>, import: &mut Import) -> Timing {
    if let Some(setting) = from.take("ike") {
        let text = open_ended(&setting.value, world.dialect);
        if let Some(found) =
            translate(&text, ProposalOf::Ike, world.dialect, &[], &setting.at, import)
        {
            draft.ike.list("proposals", found.list);
            if found.legacy {
                draft.ike.plain("allow-legacy", true);
            }
        }
    }
    let margin = from.take_any(&["margintime", "rekeymargin"]).and_then(|it| seconds(&it.value));
    let margin = margin.unwrap_or(MARGIN);
    let rekey = from.take("rekey");
    let no_rekey = rekey.is_some_and(|it| it.value == "no");
    let reauth = from.take("reauth");
    if let Some(life) = from.take("ikelifetime").and_then(|it| seconds(&it.value)) {
        let margin = margin.min(life / 2);
        let time = show_seconds(life.saturating_sub(margin).max(1));
        if reauth.as_ref().is_some_and(|it| it.value == "yes") {
            draft.ike.text("rekey-time", "off");
            draft.ike.text("reauth-time", time);
        } else if !no_rekey {
            draft.ike.text("rekey-time", time);
        }
        draft.ike.text("over-time", show_seconds(margin.max(1)));
    }
    if no_rekey {
        draft.ike.text("rekey-time", "off");
    }
    let action = from.take("dpdaction");
    let delay = from.take("dpddelay").and_then(|it| seconds(&it.value));
    match action.as_ref().map(|it| it.value.as_str()) {
        None | Some("none") => {}
        Some(word) => {
            let action = match word {
                "clear" => "clear",
                "hold" | "trap" => "hold",
                _ => "restart",
            };
            draft.ike.text("dpd", show_seconds(delay.unwrap_or(30).max(1)));
            draft.ike.text("dpd-action", action);
        }
    }
    if let Some(close) = from.take("closeaction").filter(|it| it.value != "none") {
        draft.ike.text(
            "close-action",
            if matches!(close.value.as_str(), "restart" | "start") {
                "restart"
            } else if close.value == "clear" {
                "clear"
            } else {
                "hold"
            },
        );
    }
    if let Some(word) =
        from.take("fragmentation").filter(|it| matches!(it.value.as_str(), "no" | "accept"))
    {
        draft.ike.text("fragmentation", word.value);
    }
    match (from.take("mobike"), world.dialect) {
        (Some(word), _) if word.value == "no" => draft.ike.plain("mobike", false),
        (None, Dialect::Libreswan) => draft.ike.plain("mobike", false),
        _ => {}
    }
    if let Some(unique) = world.unique {
        let word = match unique.value.as_str() {
            "yes" | "replace" => "replace",
            "keep" => "keep",
            "never" => "never",
            _ => "no",
        };
        draft.ike.text("unique", word);
    }
    Timing { no_rekey, margin }
}

/// strongSwan's own proposals follow, unless a list ends with `!`.
fn open_ended(text: &str, dialect: Dialect) -> String {
    match (dialect, text.strip_suffix('!')) {
        (Dialect::Libreswan, _) => text.to_owned(),
        (Dialect::StrongSwan, Some(strict)) => strict.to_owned(),
        (Dialect::StrongSwan, None) => format!("{text},default"),
    }
}

/// Who the two are, ours first.
fn ends(
    from: &mut Section,
    ours: &str,
    theirs: &str,
    world: &World<'_>,
    what: &str,
    import: &mut Import,
) -> Option<[End; 2]> {
    let authby = from.take("authby");
    let mut made = Vec::new();
    for side in [ours, theirs] {
        let mut end = End::new(&from.at);
        if let Some(setting) = from.take(&format!("{side}auth")).or_else(|| authby.clone()) {
            // Of a list the first that we have.
            let words: Vec<&str> =
                setting.value.split([',', ' ', '|']).filter(|it| !it.is_empty()).collect();
            let found: Vec<Result<How, String>> = words.iter().map(|word| how(word)).collect();
            match found.iter().find_map(|it| it.as_ref().ok()) {
                Some(how) => end.how = how.clone(),
                None => {
                    let why = found.into_iter().find_map(Result::err).unwrap_or_default();
                    import.leave_out(&setting.at, what, why);
                    return None;
                }
            }
        }
        if let Some(second) = from.take(&format!("{side}auth2")) {
            import.leave_out(
                &second.at,
                what,
                format!(
                    "`{side}` proves itself in several rounds (RFC 4739), which ipsecd does not do"
                ),
            );
            return None;
        }
        if let Some(id) = from.take(&format!("{side}id")) {
            end.at = id.at.clone();
            let looked_up = world.dialect == Dialect::Libreswan
                && !id.value.contains(['@', '=', '%'])
                && id.value.parse::<IpAddr>().is_err();
            if looked_up {
                import.note(&id.at, format!("{side}id={}", id.value), "a name without @ is looked up there, and stands for its address: if that is meant, write the address");
            }
            match id.value.as_str() {
                "%fromcert" | "%cert" => {}
                // An identity that must be proved, but not in the certificate.
                word => {
                    let word = word.strip_prefix('%').filter(|it| *it != "any").unwrap_or(word);
                    end.id = Some(match world.dialect {
                        Dialect::Libreswan => libreswan_id(word),
                        Dialect::StrongSwan => word.to_owned(),
                    });
                }
            }
        }
        for key in ["cert", "cert2"] {
            end.certs.extend(from.take(&format!("{side}{key}")).map(|it| it.value));
        }
        if let Some(key) = from.take_any(&[
            &format!("{side}sigkey"),
            &format!("{side}rsasigkey"),
            &format!("{side}ckaid"),
        ]) {
            if key.value.starts_with("0s")
                || key.value.starts_with("0x")
                || key.value.contains(':')
                || world.dialect == Dialect::Libreswan
            {
                if !key.value.starts_with('%') {
                    import.leave_out(&key.at, what, "its key stands there as RFC 3110 has it, or in an NSS database: make one with ipsecd pki --raw, or openssl, and name its file");
                    return None;
                }
            } else {
                end.public_keys.push(key.value);
            }
        }
        if let Some(ca) =
            from.take(&format!("{side}ca")).filter(|it| it.value != "%same" && it.value != "%any")
        {
            import.note(
                &ca.at,
                format!("{side}ca"),
                "every CA that is there is trusted: leave the others out of [auth] ca",
            );
        }
        if side == theirs {
            end.cas.extend(world.cas.iter().cloned());
        }
        end.eap_id = from.take("eap_identity").map(|it| it.value).or(end.eap_id);
        made.push(end);
    }
    let mut ends: [End; 2] = made.try_into().ok()?;
    // It is the client's, whichever side that is.
    let eap = ends.iter().find_map(|end| end.eap_id.clone());
    ends.iter_mut().for_each(|end| end.eap_id.clone_from(&eap));
    Some(ends)
}

/// `@name` is a name there, and a name without `@` one that is looked up.
fn libreswan_id(text: &str) -> String {
    match text.strip_prefix("@[").and_then(|rest| rest.strip_suffix(']')) {
        Some(key) => format!("keyid:{key}"),
        None => text.to_owned(),
    }
}

/// What all CHILD_SAs of a connection have in common.
fn kind(
    from: &mut Section,
    mode: Option<&Setting>,
    draft: &Draft,
    timing: &Timing,
    world: &World<'_>,
    import: &mut Import,
) -> Child {
    let mut child = Child::default();
    if mode.is_some_and(|it| it.value == "transport") {
        child.kind.text("mode", "transport");
    }
    let is_ah = from.take("phase2").is_some_and(|it| it.value == "ah") || from.has("ah");
    let setting = from.take_any(&["ah", "esp", "phase2alg"]);
    if is_ah {
        child.kind.text("protocol", "ah");
    }
    let of = if is_ah { ProposalOf::Ah } else { ProposalOf::Esp };
    let pfs = from.take("pfs").is_none_or(|it| it.value != "no");
    let pfs_group = from.take("pfsgroup");
    let wanted: Vec<String> = match (world.dialect, draft.ike.get("proposals")) {
        // With PFS, which is its default, it takes the group of the IKE SA.
        (Dialect::Libreswan, Some(super::draft::Item::List(list))) if pfs => groups(list),
        (Dialect::Libreswan, _) if pfs => {
            ["ecp256", "x25519", "modp4096", "modp3072", "modp2048"].map(str::to_owned).to_vec()
        }
        _ => pfs_group.map(|it| it.value).into_iter().collect(),
    };
    let text = match &setting {
        Some(setting) => open_ended(&setting.value, world.dialect),
        None if world.dialect == Dialect::Libreswan => {
            "aes_gcm256,aes_gcm128,aes256-sha2_512+sha2_256".to_owned()
        }
        None => "default".to_owned(),
    };
    let at = setting.as_ref().map_or(&from.at, |it| &it.at).clone();
    if !(is_ah && setting.is_none())
        && let Some(mut found) = translate(&text, of, world.dialect, &wanted, &at, import)
    {
        if from.take("esn").is_some_and(|it| it.value == "yes") {
            found
                .list
                .iter_mut()
                .filter(|text| !text.contains("esn"))
                .for_each(|text| text.push_str("-esn"));
        }
        child.kind.list("proposals", found.list);
        if found.legacy {
            child.esp.plain("allow-legacy", true);
        }
    }
    from.take("esn");
    let auto = from.take("auto");
    let start = match auto.as_ref().map_or("ignore", |it| it.value.as_str()) {
        "start" | "up" => "now",
        "route" | "ondemand" => "on-traffic",
        // Loaded, answers, and is begun by `ipsec up`.
        _ => "by-hand",
    };
    let far_is_known =
        !matches!(draft.peer.get("address"), Some(super::draft::Item::Text(text)) if text == "any");
    child.kind.text("start", if far_is_known { start } else { "respond" });
    let Timing { no_rekey, margin } = *timing;
    if let Some(life) =
        from.take_any(&["lifetime", "salifetime", "keylife"]).and_then(|it| seconds(&it.value))
    {
        child.esp.text("life-time", show_seconds(life.max(2)));
        if !no_rekey {
            let rekey = life.saturating_sub(margin.min(life / 2)).max(1);
            child.esp.text("rekey-time", show_seconds(rekey));
        }
    }
    if no_rekey {
        child.esp.text("rekey-time", "off");
    }
    for (theirs, ours) in [("lifebytes", "life-bytes"), ("lifepackets", "life-packets")] {
        if let Some(number) =
            from.take(theirs).and_then(|it| it.value.parse::<u64>().ok()).filter(|n| *n > 0)
        {
            child.esp.plain(ours, number);
        }
    }
    from.take("marginbytes");
    from.take("marginpackets");
    if let Some(window) = from
        .take_any(&["replay_window", "replay-window"])
        .and_then(|it| it.value.parse::<u32>().ok())
    {
        child.esp.plain("replay-window", if window == 0 { 0 } else { window.clamp(32, 8192) });
    }
    let forced = from.take("forceencaps").is_some_and(|it| it.value == "yes");
    match from.take("encapsulation").map(|it| it.value).as_deref() {
        Some("no") => child.esp.text("encap", "none"),
        Some("yes") => child.esp.text("encap", "udp"),
        _ if forced => child.esp.text("encap", "udp"),
        _ => {}
    }
    if from
        .take("sha2-truncbug")
        .or_else(|| from.take("sha256_96"))
        .is_some_and(|it| it.value == "yes")
    {
        import.note(
            &at,
            "SHA-256 cut to 96 bits",
            "write sha256_96 in place of sha256 into [esp] proposals, and allow-legacy = true",
        );
    }
    child
}

/// The selectors of both sides, for each CHILD_SA.
fn pairs(
    from: &mut Section,
    ours: &str,
    theirs: &str,
    draft: &Draft,
    what: &str,
    import: &mut Import,
) -> Option<Vec<(Vec<String>, Vec<String>)>> {
    let mut sides = Vec::new();
    for (side, table, given) in [(ours, &draft.local, "virtual"), (theirs, &draft.peer, "pool")] {
        let one = from.take(&format!("{side}subnet"));
        let several = from.take(&format!("{side}subnets"));
        let narrow = from.take(&format!("{side}protoport"));
        let at = one
            .as_ref()
            .or(several.as_ref())
            .or(narrow.as_ref())
            .map_or(&from.at, |it| &it.at)
            .clone();
        let inside = match narrow.as_ref().map(|it| narrowed(&it.value)) {
            Some(None) => {
                import.leave_out(
                    &at,
                    what,
                    format!("{side}protoport is what ipsecd cannot narrow to"),
                );
                return None;
            }
            Some(Some(inside)) => inside,
            None => String::new(),
        };
        let read = |text: &str, import: &mut Import| -> Option<Vec<String>> {
            let mut found = Vec::new();
            for item in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                let (net, ports) = match item.split_once('[') {
                    Some((net, rest)) => (net, narrowed(rest.trim_end_matches(']'))),
                    None => (item, Some(inside.clone())),
                };
                if table.has(given) || net == "%dynamic" || net.starts_with("vhost:") {
                    continue;
                }
                match (subnet(net), ports) {
                    (Some(net), Some(ports)) => found.push(format!("{net}{ports}")),
                    _ => {
                        import.leave_out(
                            &at,
                            what,
                            format!("{side}subnet: `{item}` is no subnet that ipsecd can read"),
                        );
                        return None;
                    }
                }
            }
            Some(found)
        };
        let mut lists: Vec<Vec<String>> = Vec::new();
        if let Some(several) = &several {
            let text = several.value.trim_matches(['{', '}']);
            for item in text.split([',', ' ', '\t']).filter(|it| !it.is_empty()) {
                lists.push(read(item, import)?);
            }
        } else if let Some(one) = &one {
            lists.push(read(&one.value, import)?);
        }
        if lists.is_empty() {
            lists.push(Vec::new());
        }
        // The address alone, narrowed.
        if !inside.is_empty() && one.is_none() && several.is_none() {
            let own = |table: &Table| match table.get("address") {
                Some(super::draft::Item::Text(text)) if text.parse::<IpAddr>().is_ok() => {
                    Some(text.clone())
                }
                _ => None,
            };
            match own(table) {
                Some(address) => lists = vec![vec![format!("{address}{inside}")]],
                None => {
                    import.leave_out(
                        &at,
                        what,
                        format!("{side}protoport narrows an address that is not known"),
                    );
                    return None;
                }
            }
        }
        sides.push(lists);
    }
    let [local, peer]: [Vec<Vec<String>>; 2] = sides.try_into().ok()?;
    if local.len() * peer.len() > 64 {
        import.leave_out(&from.at, what, "there are more than 64 pairs of subnets");
        return None;
    }
    Some(local.iter().flat_map(|l| peer.iter().map(move |p| (l.clone(), p.clone()))).collect())
}
