//! What swanctl.conf and ipsec.conf have in common once they are read: who the two sides are, and how they prove it.

use super::draft::{Draft, Item};
use super::pki::{Found, Pki, base};
use super::secrets::{Id, Secrets, identity};
use super::{At, Import, file_name};
use crate::config;
use crate::ipsec::pad::Identity;

/// How a side proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By these methods, `mschapv2` and `tls`; none for whichever there is.
    Eap(Vec<String>),
    Psk,
    Signature,
}

/// One side of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) at: At,
    pub(super) how: How,
    pub(super) id: Option<String>,
    /// Files with certificates.
    pub(super) certs: Vec<String>,
    /// Files with public keys.
    pub(super) public_keys: Vec<String>,
    pub(super) cas: Vec<String>,
    pub(super) eap_id: Option<String>,
    pub(super) revocation: Option<String>,
}

impl End {
    pub(super) fn new(at: &At) -> Self {
        Self {
            at: at.clone(),
            how: How::Signature,
            id: None,
            certs: Vec::new(),
            public_keys: Vec::new(),
            cas: Vec::new(),
            eap_id: None,
            revocation: None,
        }
    }
}

/// How a word of strongSwan for `auth` is understood; on failure, why it cannot be carried.
pub(super) fn how(word: &str) -> Result<How, String> {
    // `pubkey-sha384-sha256` and `rsa-2048-sha256` name what is wanted of the signature.
    let kind = word.split('-').next().unwrap_or(word);
    Ok(match (kind, word) {
        ("psk" | "secret", _) => How::Psk,
        ("pubkey" | "rsa" | "rsasig" | "ecdsa" | "ed25519" | "ike:pubkey" | "ike:rsa", _) => {
            How::Signature
        }
        (_, "eap" | "eap-dynamic") => How::Eap(Vec::new()),
        (_, "eap-mschapv2") => How::Eap(vec!["mschapv2".to_owned()]),
        (_, "eap-tls") => How::Eap(vec!["tls".to_owned()]),
        ("xauth", _) => return Err("XAUTH is of IKEv1, which ipsecd does not have".to_owned()),
        ("never" | "null", _) => {
            return Err("ipsecd has no authentication that proves nothing (RFC 7619)".to_owned());
        }
        ("eap", _) => {
            return Err(format!("ipsecd has EAP-MSCHAPv2 and EAP-TLS, and not `{word}`"));
        }
        _ => return Err(format!("`{word}` is no authentication that ipsecd knows")),
    })
}

/// Where identities come from that are not written.
pub(super) struct Absent {
    /// Whether the peer may be anybody who holds the key; else it has to have its address as identity.
    pub(super) peer_is_any: bool,
}

/// Everything that `[auth]`, and the identities in `[local]` and `[peer]`, need. `false`: the connection was left out, which a
/// note says.
pub(super) fn authenticate(
    draft: &mut Draft,
    ours: &End,
    theirs: &End,
    absent: &Absent,
    secrets: &Secrets,
    pki: &Pki<'_>,
    import: &mut Import,
) -> bool {
    let what = format!("connection `{}`", draft.name);
    if matches!(
        (&ours.how, &theirs.how),
        (How::Eap(_), How::Eap(_) | How::Psk) | (How::Psk, How::Eap(_))
    ) {
        import.leave_out(
            &ours.at,
            what,
            "with EAP on one side the other has a certificate (RFC 7296 §2.16)",
        );
        return false;
    }
    let mut certs: Vec<Found> = Vec::new();
    let is_tls = matches!(&ours.how, How::Eap(methods) if methods.iter().any(|it| it == "tls"));
    if ours.how == How::Signature || is_tls {
        for name in &ours.certs {
            match pki.find(name, false) {
                Some(found) => certs.push(found),
                None => import.note(
                    &ours.at,
                    format!("certificate `{name}`"),
                    "there is no such file: put it, and its key, beside the new one",
                ),
            }
        }
    }
    let Some(local_id) = local_id(draft, ours, &mut certs, pki, secrets, &what, import) else {
        return false;
    };
    let Some(peer_id) = peer_id(draft, theirs, absent, &what, import) else { return false };
    let names = |id: Option<&String>, side: &super::draft::Table| -> Vec<String> {
        let address = match side.get("address") {
            Some(Item::Text(text)) => Some(text.clone()),
            _ => None,
        };
        id.cloned().into_iter().chain(address).collect()
    };
    let (our_names, their_names) =
        (names(local_id.as_ref(), &draft.local), names(peer_id.as_ref(), &draft.peer));
    if ours.how == How::Psk || theirs.how == How::Psk {
        let file = match secrets.psk(&our_names, &their_names) {
            Some(found) => {
                let mut text = found.secret.clone();
                text.push('\n');
                import.add(&format!("{}.psk", draft.name), text, true)
            }
            None => {
                let file = format!("{}.psk", draft.name);
                import.note(
                    &ours.at,
                    format!("the pre-shared key of `{}`", draft.name),
                    format!("none was found for it: put it into {file}, owner-only"),
                );
                file
            }
        };
        draft.auth.set("psk", Item::File(file));
    }
    match &ours.how {
        How::Psk => {}
        How::Signature => own_keys(draft, ours, certs, pki, secrets, import),
        How::Eap(methods) => {
            eap_client(draft, ours, methods, certs, pki, secrets, import);
        }
    }
    peer_keys(draft, theirs, pki, import);
    if let How::Eap(methods) = &theirs.how {
        eap_server(draft, theirs, methods, secrets, import);
    }
    if (&ours.how, &theirs.how) == (&How::Signature, &How::Psk) {
        draft.auth.text("peer", "psk");
    }
    true
}

/// `[local] id`; `None` if the connection was left out, `Some(None)` if it is the address.
fn local_id(
    draft: &mut Draft,
    ours: &End,
    certs: &mut Vec<Found>,
    pki: &Pki<'_>,
    secrets: &Secrets,
    what: &str,
    import: &mut Import,
) -> Option<Option<String>> {
    let written = match ours.id.as_deref().map(identity) {
        Some(Ok(Id::Exact(id))) => Some(id),
        Some(Ok(Id::Any)) | None => None,
        Some(Err(why)) => {
            import.leave_out(&ours.at, what, why);
            return None;
        }
    };
    if let Some(id) = written {
        // strongSwan looks for a certificate with that identity where none is named.
        let unnamed = ours.certs.is_empty() && ours.public_keys.is_empty();
        if certs.is_empty()
            && ours.how == How::Signature
            && unnamed
            && let Ok(wanted) = config::read_identity(&id)
        {
            let mut own = pki.certificates().into_iter().filter(|found| {
                found.certificate.as_ref().is_some_and(|it| wanted.is_in(it))
                    && pki.private(&found.public, &secrets.passphrases).is_some()
            });
            certs.extend(own.next());
        }
        draft.local.text("id", id.as_str());
        return Some(Some(id));
    }
    if let Some(certificate) = certs.iter().find_map(|found| found.certificate.as_ref()) {
        let id = config::render_identity(&Identity::Dn(certificate.subject().to_vec()));
        draft.local.text("id", id.as_str());
        return Some(Some(id));
    }
    if draft.local.has("address") {
        return Some(None);
    }
    import.leave_out(
        &ours.at,
        what,
        "our identity is not written, and would be whatever address routing chooses: write our id, or our address, there first",
    );
    None
}

fn peer_id(
    draft: &mut Draft,
    theirs: &End,
    absent: &Absent,
    what: &str,
    import: &mut Import,
) -> Option<Option<String>> {
    let address = match draft.peer.get("address") {
        Some(Item::Text(text)) if text.parse::<core::net::IpAddr>().is_ok() => Some(text.clone()),
        _ => None,
    };
    match theirs.id.as_deref().map(identity) {
        Some(Ok(Id::Exact(id))) => {
            draft.peer.text("id", id.as_str());
            Some(Some(id))
        }
        Some(Ok(Id::Any)) => {
            draft.peer.text("id", "any");
            Some(None)
        }
        None if absent.peer_is_any || address.is_none() => {
            draft.peer.text("id", "any");
            import.note(
                &theirs.at,
                format!("the peer's identity in `{}`", draft.name),
                "it is not written, so that whoever holds the key is let in, as before: better name it, [peer] id",
            );
            Some(None)
        }
        None => Some(address),
        Some(Err(why)) => {
            import.leave_out(&theirs.at, what, why);
            None
        }
    }
}

/// `cert` and `key`, or `key` and what the peer knows of it.
fn own_keys(
    draft: &mut Draft,
    ours: &End,
    mut found: Vec<Found>,
    pki: &Pki<'_>,
    secrets: &Secrets,
    import: &mut Import,
) {
    let raw = found.is_empty() && !ours.public_keys.is_empty();
    if raw {
        found.extend(ours.public_keys.iter().filter_map(|name| pki.find(name, true)));
        draft.auth.text("local", "public-key");
    }
    let (mut certs, mut keys) = (Vec::new(), Vec::new());
    for found in found {
        match pki.private(&found.public, &secrets.passphrases) {
            Some((name, text, passphrase)) => {
                keys.push(import.add(&name, text, true));
                if let Some(mut phrase) = passphrase {
                    phrase.push('\n');
                    let file = import.add(&format!("{}.pass", draft.name), phrase, true);
                    draft.auth.set("passphrase", Item::File(file));
                }
            }
            None => {
                let name =
                    format!("{}.key", found.name.rsplit_once('.').map_or(&*found.name, |it| it.0));
                import.note(
                    &ours.at,
                    format!("the private key of `{}`", found.name),
                    format!(
                        "it was not found, or not opened: put it beside the new file as {name}"
                    ),
                );
                keys.push(file_name(&name));
            }
        }
        if !raw {
            certs.push(import.add(&found.name, found.text, false));
        }
    }
    if keys.is_empty() {
        // What is missing has been said, or nothing was named.
        let name =
            ours.certs.first().or(ours.public_keys.first()).map_or("local.pem", |it| base(it));
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        if ours.certs.is_empty() && ours.public_keys.is_empty() {
            import.note(
                &ours.at,
                format!("the certificate of `{}`", draft.name),
                format!("none is named or was found: put it beside the new file as {name}, and its key as {stem}.key"),
            );
        }
        keys.push(file_name(&format!("{stem}.key")));
        if !raw {
            certs.push(file_name(name));
        }
    }
    if !raw {
        draft.auth.list("cert", certs);
    }
    draft.auth.list("key", keys);
}

/// `ca`, `crl`, `public-key`.
fn peer_keys(draft: &mut Draft, theirs: &End, pki: &Pki<'_>, import: &mut Import) {
    let is_tls = matches!(&theirs.how, How::Eap(methods) if methods.iter().any(|it| it == "tls"));
    if theirs.how != How::Signature && !is_tls {
        return;
    }
    let mut public = Vec::new();
    for (names, is_key) in [(&theirs.certs, false), (&theirs.public_keys, true)] {
        for name in names {
            match pki.find(name, is_key) {
                Some(found) => public.push(import.add(&found.name, found.text, false)),
                None => {
                    import.note(
                        &theirs.at,
                        format!("`{name}`"),
                        "there is no such file: put it beside the new one",
                    );
                    public.push(file_name(base(name)));
                }
            }
        }
    }
    if !public.is_empty() && !is_tls {
        draft.auth.list("public-key", public);
        if theirs.cas.is_empty() {
            return;
        }
    }
    let cas = pki.cas(&theirs.cas, &theirs.at, import);
    if cas.is_empty() {
        import.note(
            &theirs.at,
            format!("the CAs of `{}`", draft.name),
            "none was found: put that of the peer beside the new file as ca.pem",
        );
        draft.auth.list("ca", vec!["ca.pem".to_owned()]);
        return;
    }
    draft.auth.list("ca", cas);
    let crls = pki.crls(import);
    if !crls.is_empty() {
        draft.auth.list("crl", crls);
    }
    if let Some(word) = theirs.revocation.as_deref().filter(|word| *word != "relaxed") {
        draft.auth.text("revocation", word);
    }
}

fn eap_client(
    draft: &mut Draft,
    ours: &End,
    methods: &[String],
    certs: Vec<Found>,
    pki: &Pki<'_>,
    secrets: &Secrets,
    import: &mut Import,
) {
    let is_tls = methods.iter().any(|it| it == "tls");
    if is_tls {
        own_keys(draft, ours, certs, pki, secrets, import);
    }
    draft.auth.text("local", "eap");
    if !methods.is_empty() {
        draft.auth.list("eap-methods", methods.to_vec());
    }
    if let Some(id) = ours.eap_id.as_deref().filter(|id| *id != "%any" && *id != "%identity") {
        draft.auth.text("eap-identity", id);
    }
    if is_tls {
        return;
    }
    let user = ours.eap_id.as_deref().or(ours.id.as_deref()).unwrap_or_default();
    let fits = |ids: &[String]| ids.is_empty() || ids.iter().any(|id| id == user);
    let file = match secrets.passwords.iter().find(|shared| fits(&shared.ids)) {
        Some(shared) => {
            let mut text = shared.secret.clone();
            text.push('\n');
            import.add(&format!("{}.pass", draft.name), text, true)
        }
        None => {
            let file = format!("{}.pass", draft.name);
            let what = format!("the password of `{user}`");
            import.note(&ours.at, what, format!("none was found: put it into {file}, owner-only"));
            file
        }
    };
    draft.auth.set("eap-password", Item::File(file));
}

fn eap_server(
    draft: &mut Draft,
    theirs: &End,
    methods: &[String],
    secrets: &Secrets,
    import: &mut Import,
) {
    draft.auth.text("peer", "eap");
    if !methods.is_empty() {
        draft.auth.list("eap-methods", methods.to_vec());
    }
    if methods.iter().any(|it| it == "tls") {
        return;
    }
    for shared in &secrets.passwords {
        for name in &shared.ids {
            let mut text = shared.secret.clone();
            text.push('\n');
            let file = import.add(&format!("{}.pass", file_name(name)), text, true);
            if !draft.users.iter().any(|(there, _)| there == name) {
                draft.users.push((name.clone(), file));
            }
        }
    }
    if draft.users.is_empty() {
        import.note(
            &theirs.at,
            format!("the users of `{}`", draft.name),
            "no name with a password was found: add [[auth.eap-user]]s",
        );
    }
}
