//! `ppk`, `ppk-required`: a post-quantum preshared key (RFC 8784).

use super::super::diagnostic::Report;
use super::super::raw::Raw;
use super::super::secret::{self, SecretSource};
use crate::ipsec::pad::Ppk;

/// The longest name, in bytes: it travels in a notify, and in IKE_INTERMEDIATE with eight others at most.
const MAX_ID: usize = 255;

/// `Some(None)`: there is none.
pub(in crate::config) fn ppk(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Option<Ppk>> {
    let auth = &raw.auth;
    let Some(written) = &auth.ppk else {
        if let Some(required) = auth.ppk_required.as_ref().filter(|_| !raw.excused("auth", "ppk")) {
            report
                .error(required.span(), "[auth] ppk-required: there is no ppk")
                .help("add ppk = { id = \"a-b\", file = \"b.ppk\" }, or leave it out");
        }
        return Some(None);
    };
    let key = written.key.as_ref().and_then(|key| secret::load_ppk(key, mode, secrets, report));
    let id = match &written.id {
        Some(id) if (1..=MAX_ID).contains(&id.get_ref().len()) => {
            Some(id.get_ref().as_bytes().to_vec())
        }
        Some(id) => {
            let n = id.get_ref().len();
            report
                .error(id.span(), format!("[auth] ppk.id: {n} bytes"))
                .help(format!("1 to {MAX_ID}, the same at the peer, which finds the key by it"));
            None
        }
        None => {
            if !raw.excused("auth", "ppk.id") {
                report
                    .error(written.span.clone(), "[auth] ppk: its id is missing")
                    .help("ppk = { id = \"a-b\", file = \"b.ppk\" }, the same at the peer");
            }
            None
        }
    };
    let required = auth.ppk_required.as_ref().is_some_and(|required| *required.get_ref());
    Some(Some(Ppk { id: id?, key: key?, required }))
}
