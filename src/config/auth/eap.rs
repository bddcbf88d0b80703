//! `eap-…`: what we prove ourselves by in EAP, and whom we take.

use std::sync::Arc;

use super::super::diagnostic::Report;
use super::super::raw::{Raw, Text, WrittenKey};
use super::super::secret::{self, SecretSource};
use super::signature;
use crate::crypto::Secret;
use crate::ipsec::pad::{EapClient, EapMethod, EapServer, EapUser, Identity};

/// The longest name: an NAI may have 253 octets (RFC 7542 §2.3).
const MAX_NAME: usize = 253;

/// The longest password, in characters (RFC 2759 §8.3: 256).
const MAX_PASSWORD: usize = 256;

const METHODS: [(&str, EapMethod); 2] =
    [("mschapv2", EapMethod::MsChapV2), ("tls", EapMethod::Tls)];

/// What we prove ourselves by, as initiator.
pub(super) fn client(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    local_id: Option<&Identity>,
    report: &mut Report,
) -> Option<EapClient> {
    let auth = &raw.auth;
    let password = auth.eap_password.as_ref().map(|it| password(it, mode, secrets, report));
    let credential = match (&auth.cert, &auth.key) {
        (Some(certs), Some(keys)) => {
            // The server says which name it wants; that of [local] id need not be it.
            Some(signature::credentials(raw, certs, keys, mode, secrets, None, report))
        }
        _ => None,
    };
    let has = |method: EapMethod| match method {
        EapMethod::MsChapV2 => auth.eap_password.is_some(),
        EapMethod::Tls => auth.cert.is_some() && auth.key.is_some(),
    };
    let methods = methods(raw, has, "eap-password, or cert and key", report);
    let identity = match (&auth.eap_identity, local_id) {
        (Some(text), _) => name(text, "eap-identity", report),
        (None, Some(Identity::Fqdn(name) | Identity::Email(name))) => Some(name.clone()),
        (None, Some(_)) => {
            if let Some(id) = &raw.local.id {
                report
                    .error(id.span(), "[auth] eap-identity is missing: this id is no name for EAP")
                    .help("add the name that the server knows: eap-identity = \"joe\"");
            }
            None
        }
        (None, None) => None,
    };
    let password = match password {
        Some(found) => Some(found?),
        None => None,
    };
    let credential = match credential {
        Some(found) => found?.into_iter().next(),
        None => None,
    };
    let methods = methods?;
    if methods.contains(&EapMethod::Tls) && auth.ca.is_none() {
        report
            .error(
                auth.cert.as_ref().map_or(0..0, |list| list.span.clone()),
                "[auth] cert: for EAP-TLS the CAs are missing whose certificates the server may have",
            )
            .help("add ca = [\"ca.pem\"]");
        return None;
    }
    Some(EapClient { identity: identity?, methods, password, credential })
}

/// Whom we take, as responder.
pub(super) fn server(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<EapServer> {
    let auth = &raw.auth;
    let has = |method: EapMethod| match method {
        EapMethod::MsChapV2 => !auth.eap_users.is_empty(),
        EapMethod::Tls => auth.ca.is_some() && auth.cert.is_some(),
    };
    let methods = methods(raw, has, "[[auth.eap-user]], or ca beside cert and key", report);
    let authority = auth.ca.as_ref().map(|_| signature::authority(raw, secrets, report));
    let mut users: Vec<EapUser> = Vec::new();
    let mut fine = true;
    for user in &auth.eap_users {
        let (Some(written), Some(secret)) = (&user.name, &user.password) else {
            if !raw.excused("auth", "eap-user.name") && !raw.excused("auth", "eap-user.password") {
                let missing = if user.name.is_none() { "name" } else { "password" };
                report
                    .error(
                        user.span.clone(),
                        format!("`{missing}` is missing in [[auth.eap-user]]"),
                    )
                    .help("name = \"joe\" and password = { file = \"joe.pass\" }");
            }
            fine = false;
            continue;
        };
        let found = name(written, "eap-user.name", report);
        let password = password(secret, mode, secrets, report);
        let (Some(name), Some(password)) = (found, password) else {
            fine = false;
            continue;
        };
        if users.iter().any(|other| other.name == name) {
            let shown = name.escape_debug();
            report
                .error(written.span(), format!("[auth] eap-user: `{shown}` is there twice"))
                .help("one password for each name");
            fine = false;
        }
        users.push(EapUser { name, password });
    }
    let authority = match authority {
        Some(found) => Some(Arc::new(found?)),
        None => None,
    };
    fine.then_some(EapServer { methods: methods?, users, authority })
}

/// `eap-methods`, or those for which there is what they need.
fn methods(
    raw: &Raw<'_>,
    has: impl Fn(EapMethod) -> bool,
    needs: &str,
    report: &mut Report,
) -> Option<Vec<EapMethod>> {
    let Some(list) = &raw.auth.eap_methods else {
        let found: Vec<_> = METHODS.iter().map(|(_, method)| *method).filter(|m| has(*m)).collect();
        if found.is_empty() {
            let span = raw.auth.span.clone().unwrap_or(0..0);
            if !raw.excused("auth", "") {
                report
                    .error(span, "[auth] has nothing for any EAP method")
                    .help(format!("add {needs}"));
            }
            return None;
        }
        return Some(found);
    };
    let mut found = Vec::new();
    let mut fine = !list.items.is_empty();
    if list.items.is_empty() {
        report
            .error(list.span.clone(), "[auth] eap-methods: the list is empty")
            .help("\"mschapv2\", \"tls\"");
    }
    for item in &list.items {
        let Some((word, method)) = METHODS.iter().find(|(word, _)| word == item.get_ref()) else {
            let shown = item.get_ref().escape_debug();
            report
                .error(item.span(), format!("[auth] eap-methods: unknown method `{shown}`"))
                .help("\"mschapv2\" or \"tls\": methods without an MSK are not safe in IKE (RFC 7296 §2.16)");
            fine = false;
            continue;
        };
        if !has(*method) {
            report
                .error(item.span(), format!("[auth] eap-methods: there is nothing for \"{word}\""))
                .help(format!("add {needs}"));
            fine = false;
        }
        if !found.contains(method) {
            found.push(*method);
        }
    }
    fine.then_some(found)
}

fn name(written: &Text<'_>, key: &str, report: &mut Report) -> Option<String> {
    let text = *written.get_ref();
    if text.is_empty() || text.len() > MAX_NAME {
        report
            .error(written.span(), format!("[auth] {key}: a name of {} bytes", text.len()))
            .help(format!("1 to {MAX_NAME} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn password(
    written: &WrittenKey<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Secret> {
    let looked = |at: &str| format!("looked for it at {at}");
    let found = secret::fetch(written, "password", &looked, mode, secrets, report)?;
    let text = core::str::from_utf8(found.bytes.expose());
    let long = text.is_ok_and(|text| text.encode_utf16().count() > MAX_PASSWORD);
    if found.bytes.is_empty() || long || text.is_err() {
        let wrong = if found.bytes.is_empty() {
            "is empty"
        } else if long {
            "is too long"
        } else {
            "is not UTF-8"
        };
        report
            .error(found.span, format!("{} {wrong}", found.what))
            .help(format!("1 to {MAX_PASSWORD} characters"));
        return None;
    }
    Some(found.bytes)
}
