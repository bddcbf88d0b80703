//! Our own certificate, before the peer looks at it.

use super::dialect;
use super::facts::{Attempt, Facts, Outcome};
use super::report::{Finding, Kind, Note, list};
use crate::config::render_identity;
use crate::ike::CloseReason;
use crate::ipsec::pad::{Credential, Identity, LocalAuth, PeerAuth};

const NAME: &str = "certificate";
const CAS: &str = "CAs";

fn credentials(facts: &Facts) -> &[Credential] {
    match facts.config.ike().map(|peer| &peer.auth.local) {
        Some(LocalAuth::Signature(credentials)) => credentials,
        Some(LocalAuth::Eap(_) | LocalAuth::Psk(_)) | None => &[],
    }
}

/// When ours are in force. Whose they are is a matter of `check`.
pub(super) fn ours(facts: &Facts, notes: &mut Vec<Note>) {
    let now = facts.host.now;
    for credential in credentials(facts) {
        for (number, certificate) in (1..).zip(credential.chain()) {
            let Some((from, to)) = certificate.validity() else { continue };
            let what = if number == 1 { "our certificate" } else { "a CA above our certificate" };
            let wrong = if now > to {
                format!("{what} expired {}", dialect::date(to))
            } else if now < from {
                format!("{what} is not valid before {}", dialect::date(from))
            } else {
                if number == 1 {
                    let text = format!("ours is in force until {}", dialect::date(to));
                    notes.push(Note::Healthy(NAME, text));
                }
                continue;
            };
            notes.push(
                Finding::new(Kind::Expired, wrong)
                    .seen(format!("this host's clock says {} UTC", dialect::date(now)))
                    .fix("if the clock is right, get another certificate from the CA and put it in place of this one")
                    .fix("if it is not, set the clock: timedatectl set-ntp true")
                    .ipsecd(&["[auth]", "cert = \"new.pem\"", "key = \"new.key\""])
                    .into(),
            );
        }
    }
}

/// Whether the peer trusts a CA of ours, as far as it has said (CERTREQ, RFC 7296 §3.7).
pub(super) fn cas(facts: &Facts, notes: &mut Vec<Note>) {
    let Some(Attempt { peer_cas: Some(theirs), .. }) = &facts.attempt else { return };
    if credentials(facts).is_empty() || theirs.is_empty() {
        return;
    }
    if let Some(finding) = unknown_ca(facts) {
        notes.push(finding.into());
    } else if credentials(facts).iter().flat_map(Credential::roots).any(|ca| theirs.contains(ca)) {
        let text = "the peer trusts the CA of our certificate";
        notes.push(Note::Healthy(CAS, text.to_owned()));
    } else {
        let text =
            "the CA of our certificate is not among those in [auth] ca, so nothing is known of it";
        notes.push(Note::Unchecked(CAS, text.to_owned()));
    }
}

/// That the peer does not know our CA: it says which it trusts, ours is not among them, and it has refused us.
pub(super) fn unknown_ca(facts: &Facts) -> Option<Finding> {
    let attempt = facts.attempt.as_ref()?;
    let theirs = attempt.peer_cas.as_ref().filter(|all| !all.is_empty())?;
    let refused = matches!(
        &attempt.outcome,
        Outcome::Failed(last) if last.reason == CloseReason::AuthenticationRefused
    );
    let mut ours = credentials(facts).iter().filter(|it| !it.chain().is_empty()).peekable();
    ours.peek()?;
    let trusted: Vec<_> = match facts.config.ike().map(|peer| &peer.auth.peer) {
        Some(PeerAuth::Signature(authority)) => authority.trust.certreq_hashes().collect(),
        Some(PeerAuth::Eap(_) | PeerAuth::Psk(_)) | None => Vec::new(),
    };
    let known = |it: &Credential| match it.roots() {
        // Which key has issued ours is not known here: it may be any CA that we do not know.
        [] => theirs.iter().any(|ca| !trusted.contains(ca)),
        roots => roots.iter().any(|root| theirs.contains(root)),
    };
    if !refused || ours.any(known) {
        return None;
    }
    let name = facts.config.name();
    let issuers = credentials(facts).iter().filter_map(|it| it.chain().last());
    let issuers = list(issuers.map(|it| render_identity(&Identity::Dn(it.issuer().to_vec()))));
    Some(
        Finding::new(Kind::Ca, format!("{name} does not trust the CA of our certificate"))
            .seen(format!("ours is issued by {issuers}"))
            .seen(format!("{name} asks for certificates of {} other CAs (CERTREQ)", theirs.len()))
            .fix(format!("put the CA's certificate where {name} looks for it"))
            .fix("or use a certificate of a CA that it trusts")
            .ipsecd(&[
                "[auth]",
                "cert = \"ours.pem\"   # of a CA that both know",
                "key = \"ours.key\"",
            ])
            .swanctl(&[
                "# copy our CA's certificate to /etc/swanctl/x509ca/, then: swanctl --load-creds",
            ]),
    )
}
