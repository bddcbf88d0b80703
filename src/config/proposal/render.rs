//! Proposals as they would be written.

use core::fmt::Display;

use super::keywords::{GMAC, KEYWORDS, Transform};
use crate::ipsec::suite::{ADDKES, ChildProposal, IkeProposal};
use crate::wire::ike::numbers::{EsnId, IntegId, KeId};

/// The proposal in keywords, as `proposals` takes it.
#[must_use]
pub fn render_ike(proposal: &IkeProposal) -> String {
    let encr = proposal.encr.iter().map(|encr| Transform::Encr(*encr));
    let prf = proposal.prf.iter().map(|prf| Transform::Prf(*prf));
    let ke = proposal.ke.iter().map(|ke| Transform::Ke(*ke));
    join(encr.chain(integ(&proposal.integ)).chain(prf).chain(ke)) + &render_addke(&proposal.addke)
}

/// The proposal in keywords, as `proposals` takes it.
#[must_use]
pub fn render_child(proposal: &ChildProposal) -> String {
    let encr = proposal.encr.iter().map(|encr| Transform::Encr(*encr));
    let ke = proposal.ke.iter().map(|ke| Transform::Ke(*ke));
    let esn = proposal.esn.iter().filter(|_| proposal.esn != [EsnId::NO_ESN]);
    let esn = join(esn.map(|esn| Transform::Esn(*esn)));
    let esn = if esn.is_empty() { esn } else { format!("-{esn}") };
    join(encr.chain(integ(&proposal.integ)).chain(ke)) + &render_addke(&proposal.addke) + &esn
}

/// `-ke1_mlkem768-ke1_none`; nothing for none.
fn render_addke(addke: &[Vec<KeId>; ADDKES]) -> String {
    let mut out = String::new();
    for (number, methods) in (1..).zip(addke) {
        for method in methods {
            let name = match *method {
                KeId::NONE => "none".to_owned(),
                method => join(core::iter::once(Transform::Ke(method))),
            };
            out += &format!("-ke{number}_{name}");
        }
    }
    out
}

fn integ(list: &[IntegId]) -> impl Iterator<Item = Transform> {
    list.iter().filter_map(|id| {
        if let Some((_, as_encr)) = GMAC.iter().find(|(gmac, _)| gmac == id) {
            return Some(Transform::Encr(*as_encr));
        }
        KEYWORDS
            .iter()
            .map(|(_, transform)| *transform)
            .find(|transform| matches!(transform, Transform::Integ(i, _) if i == id))
    })
}

/// The keywords of transforms with `-` between.
pub(super) fn join(transforms: impl Iterator<Item = Transform>) -> String {
    let word = |transform: Transform| -> Box<dyn Display> {
        match KEYWORDS.iter().find(|(_, known)| *known == transform) {
            Some((name, _)) => Box::new(*name),
            None => Box::new(format!("{transform:?}")),
        }
    };
    transforms.map(|transform| word(transform).to_string()).collect::<Vec<_>>().join("-")
}
