//! swanctl.conf of strongSwan: connections, each with its children, secrets, pools and authorities.
//!
//! What strongSwan does without being told, and ipsecd by default otherwise, is written out: `start_action` (none), for
//! example. `dpd_delay`, which is off there, is left to ipsecd's default unless it is written.

mod child;
mod parse;
mod secrets;

use std::path::Path;

use self::parse::{Section, Setting};
use super::connection::{Absent, End, authenticate, how};
use super::draft::Draft;
use super::pki::{Pki, Places};
use super::proposal::{Dialect, translate};
use super::secrets::Secrets;
use super::{At, Files, ForeignError, Import, file_name};
use crate::config::ProposalOf;

/// Settings of a connection with no counterpart, and why; those without a reason say nothing that would be missed.
const CONNECTION: &[(&str, &str)] = &[
    ("aggressive", ""),
    ("dpd_timeout", ""),
    ("dscp", "IKE packets have no DSCP of their own"),
    ("if_id_in", "there are no XFRM interfaces: routes lead into a TUN, [interface] name"),
    ("if_id_out", "there are no XFRM interfaces: routes lead into a TUN, [interface] name"),
    ("keyingtries", ""),
    ("local_port", "IKE uses ports 500 and 4500"),
    ("mediated_by", "ipsecd does not mediate"),
    ("mediation", "ipsecd does not mediate"),
    ("pull", ""),
    ("rand_time", "a tenth at most is taken off at random"),
    ("remote_port", "IKE uses ports 500 and 4500"),
    ("send_cert", ""),
    ("send_certreq", ""),
];

/// Reads a swanctl.conf.
///
/// # Errors
/// If its text cannot be made out, or a file that it includes cannot be read.
pub fn import(path: &Path, text: &str, files: &dyn Files) -> Result<Import, ForeignError> {
    let mut root = parse::parse(path, text, files)?;
    let mut import = Import::default();
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let in_dir = |names: &[&str]| names.iter().map(|name| dir.join(name)).collect();
    let places = Places {
        certs: in_dir(&["x509"]),
        cas: in_dir(&["x509ca"]),
        crls: in_dir(&["x509crl"]),
        keys: in_dir(&["private", "rsa", "ecdsa", "pkcs8"]),
        public_keys: in_dir(&["pubkey"]),
    };
    let pki = Pki { files, places };
    let secrets = match root.take_section("secrets") {
        Some(section) => secrets::read(section, &mut import),
        None => Secrets::default(),
    };
    let pools = root.take_section("pools");
    let authorities = root.take_section("authorities");
    let connections = root.take_section("connections");
    let empty = |section: &Section| section.rest().1.is_empty();
    if connections.as_ref().is_none_or(empty) {
        let at = connections.as_ref().map_or(&root.at, |section| &section.at).clone();
        return Err(ForeignError { at, message: "there is no connection in it".to_owned() });
    }
    for section in connections.into_iter().flat_map(|mut all| all.take_sections("")) {
        let world = World {
            pools: pools.as_ref(),
            authorities: authorities.as_ref(),
            secrets: &secrets,
            pki: &pki,
        };
        if let Some(draft) = connection(section, &world, &mut import) {
            import.add_peer(draft);
        }
    }
    Ok(import)
}

/// What connections refer to.
struct World<'a> {
    pools: Option<&'a Section>,
    authorities: Option<&'a Section>,
    secrets: &'a Secrets,
    pki: &'a Pki<'a>,
}

fn connection(mut from: Section, world: &World<'_>, import: &mut Import) -> Option<Draft> {
    let at = from.at.clone();
    let what = format!("connection `{}`", from.name);
    if let Some(version) = from.take("version").filter(|version| version.value == "1") {
        import.leave_out(&version.at, what, "it is for IKEv1, which ipsecd does not have");
        return None;
    }
    let mut children = from.take_section("children");
    let mut sections = children.as_mut().map(|all| all.take_sections("")).unwrap_or_default();
    let all = sections.len();
    sections.retain_mut(|section| !child::shunt(section, &from.name, import));
    if sections.is_empty() && all > 0 {
        // There is no peer then.
        return None;
    }
    let mut draft = Draft { name: file_name(&from.name), ..Draft::default() };
    draft.head.push(format!(
        "From connection {} of {}, line {}.",
        from.name,
        at.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        at.line
    ));
    addresses(&mut draft, &mut from, &at, import);
    if let Some(vips) = from.take("vips") {
        let wishes = list(&vips).into_iter().map(|address| match address.as_str() {
            "0.0.0.0" | "%config" | "%config4" => "ipv4".to_owned(),
            "::" | "%config6" => "ipv6".to_owned(),
            _ => address,
        });
        draft.local.list("virtual", wishes.collect());
    }
    if let Some(names) = from.take("pools") {
        pool(&mut draft, &names, world.pools, import);
    }
    let mut esp = super::draft::Table::default();
    ike(&mut draft, &mut from, &mut esp, world, import);
    let sides = rounds(&mut from, &at, world.authorities, &what, import)?;
    let [ours, theirs] = sides;
    let absent = Absent { peer_is_any: true };
    if !authenticate(&mut draft, &ours, &theirs, &absent, world.secrets, world.pki, import) {
        return None;
    }
    for section in sections {
        if let Some(mut child) = child::child(section, &draft, import) {
            if let Some(item) = esp.get("encap") {
                child.esp.set("encap", item.clone());
            }
            draft.children.push(child);
        }
    }
    if draft.children.is_empty() {
        import.leave_out(&at, what, "none of its children could be carried, or there is none");
        return None;
    }
    left(&from, CONNECTION, &what, import);
    Some(draft)
}

/// Notes what nobody took.
fn left(section: &Section, known: &[(&str, &str)], of: &str, import: &mut Import) {
    let (settings, sections) = section.rest();
    for setting in settings {
        let is_default = matches!(setting.value.as_str(), "" | "0" | "no" | "0s" | "default");
        let why = known.iter().find(|(name, _)| *name == setting.key).map(|(_, why)| *why);
        match why {
            Some("") => {}
            _ if is_default => {}
            Some(why) => import.note(&setting.at, format!("{} of {of}", setting.key), why),
            None => import.note(
                &setting.at,
                format!("{} of {of}", setting.key),
                "ipsecd has nothing like it",
            ),
        }
    }
    for inner in sections {
        import.note(
            &inner.at,
            format!("section `{}` of {of}", inner.name),
            "ipsecd has nothing like it",
        );
    }
}

fn addresses(draft: &mut Draft, from: &mut Section, at: &At, import: &mut Import) {
    let single = |text: &str| {
        !text.starts_with('%') && !text.contains(['/', '-']) || {
            // A name may have a hyphen; a range of addresses is of digits.
            text.contains('-')
                && !text.starts_with('%')
                && text.contains(|c: char| c.is_ascii_alphabetic())
                && !text.contains(':')
        }
    };
    if let Some(setting) = from.take("local_addrs") {
        let all = list(&setting);
        let found = all.iter().find(|text| text.parse::<core::net::IpAddr>().is_ok());
        if let Some(address) = found {
            draft.local.text("address", address.as_str());
        }
        for other in all.iter().filter(|text| Some(*text) != found && !text.starts_with('%')) {
            let why = if found.is_some() {
                "a peer of ipsecd has one address of ours: the first was taken"
            } else {
                "our address is no name and no range: routing chooses"
            };
            import.note(&setting.at, format!("local_addrs: `{other}`"), why);
        }
    }
    let setting = from.take("remote_addrs");
    let at = setting.as_ref().map_or(at, |setting| &setting.at);
    let all = setting.as_ref().map(list).unwrap_or_default();
    match all.iter().find(|text| single(text)) {
        Some(address) => {
            draft.peer.text("address", address.as_str());
            for other in all.iter().filter(|text| *text != address && !text.starts_with('%')) {
                import.note(
                    at,
                    format!("remote_addrs: `{other}`"),
                    format!("a peer of ipsecd has one address: {address}, the first, was taken"),
                );
            }
        }
        None => {
            draft.peer.text("address", "any");
            for range in all.iter().filter(|text| !text.starts_with('%')) {
                import.note(
                    at,
                    format!("remote_addrs: `{range}`"),
                    "the peer may come from anywhere now: what it must prove is the same",
                );
            }
        }
    }
}

fn pool(draft: &mut Draft, names: &Setting, pools: Option<&Section>, import: &mut Import) {
    let (mut addresses, mut dns) = (Vec::new(), Vec::new());
    for name in list(names) {
        let section = pools.and_then(|all| all.rest().1.iter().find(|pool| pool.name == name));
        let Some(section) = section else {
            import.note(
                &names.at,
                format!("pool `{name}`"),
                "ipsecd gives addresses of its own pools alone (no DHCP, RADIUS or database): [peer] pool",
            );
            continue;
        };
        let mut section = section.clone();
        addresses.extend(section.take("addrs").iter().flat_map(list));
        dns.extend(section.take("dns").iter().flat_map(list));
        left(&section, &[], &format!("pool `{name}`"), import);
    }
    if !addresses.is_empty() {
        draft.peer.list("pool", addresses);
        if !dns.is_empty() {
            draft.peer.list("dns", dns);
        }
    }
}

fn ike(
    draft: &mut Draft,
    from: &mut Section,
    esp: &mut super::draft::Table,
    world: &World<'_>,
    import: &mut Import,
) {
    if let Some(setting) = from.take("proposals") {
        let found = translate(
            &setting.value,
            ProposalOf::Ike,
            Dialect::StrongSwan,
            &[],
            &setting.at,
            import,
        );
        if let Some(found) = found {
            draft.ike.list("proposals", found.list);
            if found.legacy {
                draft.ike.plain("allow-legacy", true);
            }
        }
    }
    let rekey = from.take("rekey_time").and_then(|it| duration(&it, import));
    let reauth = from.take("reauth_time").and_then(|it| duration(&it, import));
    match (rekey, reauth) {
        (Some(rekey), _) => draft.ike.text("rekey-time", off(rekey)),
        // Where reauthentication is all that is spoken of, there is no rekeying.
        (None, Some(1..)) => draft.ike.text("rekey-time", "off"),
        (None, Some(0) | None) => {}
    }
    if let Some(reauth) = reauth.filter(|reauth| *reauth > 0) {
        draft.ike.text("reauth-time", off(reauth));
    }
    if let Some(over) = from.take("over_time").and_then(|it| duration(&it, import)) {
        draft.ike.text("over-time", off(over));
    }
    if let Some(dpd) = from.take("dpd_delay").and_then(|it| duration(&it, import)) {
        draft.ike.text("dpd", off(dpd));
    }
    if let Some(unique) = from.take("unique").filter(|it| it.value != "no") {
        draft.ike.text("unique", unique.value);
    }
    if let Some(setting) = from.take("fragmentation").filter(|it| it.value != "yes") {
        let word = if setting.value == "force" { "yes" } else { &setting.value };
        draft.ike.text("fragmentation", word);
    }
    if from.take("mobike").is_some_and(|it| it.value == "no") {
        draft.ike.plain("mobike", false);
    }
    if let Some(setting) = from.take("childless") {
        match setting.value.as_str() {
            "prefer" | "force" => draft.ike.plain("childless", true),
            "never" => {
                import.note(&setting.at, "childless = never", "as responder ipsecd takes both")
            }
            _ => {}
        }
    }
    if from.take("encap").is_some_and(|it| it.value == "yes") {
        esp.text("encap", "udp");
    }
    if let Some(id) = from.take("ppk_id") {
        match world
            .secrets
            .ppks
            .iter()
            .find(|ppk| ppk.ids.is_empty() || ppk.ids.contains(&id.value))
        {
            Some(found) => {
                let mut text = found.secret.clone();
                text.push('\n');
                let file = import.add(&format!("{}.ppk", draft.name), text, true);
                let table = format!(
                    "{{ id = {}, file = {} }}",
                    super::draft::quote(&id.value),
                    super::draft::quote(&file)
                );
                draft.auth.plain("ppk", table);
                if from.take("ppk_required").is_some_and(|it| it.value == "yes") {
                    draft.auth.plain("ppk-required", true);
                }
            }
            None => import.note(
                &id.at,
                format!("ppk_id `{}`", id.value),
                "there is no such secret `ppk…`",
            ),
        }
    }
}

/// `local` and `remote`: one round of authentication each.
fn rounds(
    from: &mut Section,
    at: &At,
    authorities: Option<&Section>,
    what: &str,
    import: &mut Import,
) -> Option<[End; 2]> {
    let mut made = Vec::new();
    for side in ["local", "remote"] {
        let mut sections = from.take_sections(side);
        if sections.len() > 1 {
            import.leave_out(
                &sections[1].at,
                what,
                format!(
                    "`{side}` proves itself in several rounds (RFC 4739), which ipsecd does not do"
                ),
            );
            return None;
        }
        let Some(mut section) = sections.pop() else {
            made.push(End::new(at));
            continue;
        };
        let mut end = End::new(&section.at);
        if let Some(setting) = section.take("auth") {
            match how(&setting.value) {
                Ok(how) => end.how = how,
                Err(why) => {
                    import.leave_out(&setting.at, what, why);
                    return None;
                }
            }
        }
        end.id = section.take("id").map(|it| it.value);
        end.eap_id = section.take("eap_id").map(|it| it.value);
        end.revocation = section.take("revocation").map(|it| it.value);
        end.certs = section.take("certs").iter().flat_map(list).collect();
        end.public_keys = section.take("pubkeys").iter().flat_map(list).collect();
        end.cas = section.take("cacerts").iter().flat_map(list).collect();
        for mut cert in section.take_sections("ca") {
            end.cas.extend(cert.take("file").map(|it| it.value));
            left(&cert, &[], &format!("`{}` of {what}", cert.name.clone()), import);
        }
        for mut cert in section.take_sections("cert") {
            end.certs.extend(cert.take("file").map(|it| it.value));
            left(&cert, &[], &format!("`{}` of {what}", cert.name.clone()), import);
        }
        if side == "remote" {
            for authority in authorities.iter().flat_map(|all| all.rest().1) {
                let mut authority = authority.clone();
                let known = [
                    ("cacert", ""),
                    ("crl_uris", "nothing is fetched: put the CRL beside the new file, [auth] crl"),
                    (
                        "ocsp_uris",
                        "nothing is fetched: the peer sends its OCSP response, [auth] revocation",
                    ),
                ];
                end.cas.extend(
                    authority.take("cacert").map(|it| it.value).filter(|_| end.cas.is_empty()),
                );
                left(
                    &authority,
                    &known,
                    &format!("authority `{}`", authority.name.clone()),
                    import,
                );
            }
        }
        left(
            &section,
            &[("round", ""), ("aaa_id", "ipsecd is itself the server of EAP")],
            &format!("`{side}` of {what}"),
            import,
        );
        made.push(end);
    }
    made.try_into().ok()
}

/// The items of a list with commas.
fn list(setting: &Setting) -> Vec<String> {
    let items = setting.value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

/// Seconds: `4h`, `30m`, `10s`, `90`.
fn duration(setting: &Setting, import: &mut Import) -> Option<u64> {
    let found = super::seconds(&setting.value);
    if found.is_none() {
        import.note(
            &setting.at,
            format!("{} = {}", setting.key, setting.value),
            "it is no duration: left out",
        );
    }
    found
}

/// A duration of ours, in which 0 is none.
fn off(seconds: u64) -> String {
    if seconds == 0 { "off".to_owned() } else { super::show_seconds(seconds) }
}
