//! Negotiation of algorithms: SA payloads made from configured proposals, and the choice among a
//! peer's (RFC 7296 §2.7, §3.3); with additional key exchanges (RFC 9370 §2.2.1).
//!
//! An offer is read leniently where RFC 7296 §3.3.6 says so (a transform or a proposal that we do
//! not understand is passed over); an answer to our own offer is read strictly.

use crate::ike::limits;
use crate::ipsec::Spi;
use crate::ipsec::suite::{
    ADDKES, AddKe, AhSuite, ChildProposal, Encr, EspSuite, IkeProposal, IkeSuite, Protocol, Suite,
};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EsnId, IntegId, KeId, PrfId, ProtocolId, TransformType};
use crate::wire::ike::payload::{Proposal, Sa, Transform};

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<S> {
    /// Number of the initiator's proposal that was chosen.
    pub number: u8,
    /// The algorithms.
    pub suite: S,
    /// The peer's SPI as it stood in the proposal: 4 bytes for ESP and AH and never a reserved one, 8 for
    /// a rekeyed IKE SA and never zero, empty for the first IKE SA.
    pub peer_spi: Vec<u8>,
    /// Group of the key exchange: for an IKE SA always there, for a CHILD_SA with perfect forward
    /// secrecy.
    pub ke: Option<KeId>,
    /// The key exchanges after that one.
    pub addke: AddKe,
    /// The peer listed NONE as an integrity algorithm, or as a group, and that is what was chosen:
    /// the answer has exactly one transform of each type in the offer (RFC 7296 §2.7), so it lists
    /// NONE too.
    pub listed_none: ListedNone,
}

/// Transform types for which NONE was chosen from an offer that lists it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListedNone {
    /// Integrity algorithm.
    pub integ: bool,
    /// Key exchange.
    pub ke: bool,
    /// ADDKE1 to ADDKE7.
    pub addke: [bool; ADDKES],
}

/// What the offer of an IKE SA is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// IKE_SA_INIT, whose peers both have IKE_INTERMEDIATE (RFC 9242 §3.1), or do not. Without it there are no additional key
    /// exchanges (RFC 9370 §2.2.1).
    First {
        /// Whether both have it.
        intermediate: bool,
    },
    /// CREATE_CHILD_SA, which replaces another IKE SA.
    Rekeyed,
}

/// Our offer for an IKE SA. `spi` is ours when an IKE SA is rekeyed; the first has none in it (RFC
/// 7296 §3.3.1).
#[must_use]
pub fn ike_offer(ours: &[IkeProposal], spi: Option<IkeSpi>) -> Sa {
    let spi = ike_spi_field(spi);
    let proposals = (1..=u8::MAX).zip(ours).map(|(number, ours)| {
        let mut transforms: Vec<_> = ours.encr.iter().copied().map(encr).collect();
        transforms.extend(ours.integ.iter().copied().map(integ));
        transforms.extend(ours.prf.iter().copied().map(prf));
        transforms.extend(ours.ke.iter().copied().map(ke));
        transforms.extend(addke_offer(&ours.addke));
        Proposal { number, protocol: ProtocolId::IKE, spi: spi.clone(), transforms }
    });
    Sa { proposals: proposals.collect() }
}

/// Our offer for a CHILD_SA that will receive on `spi`. Without `with_ke` there are no key exchanges in it,
/// as in IKE_AUTH (RFC 7296 §1.2).
#[must_use]
pub fn child_offer(ours: &[ChildProposal], spi: Spi, with_ke: bool) -> Sa {
    let proposals = (1..=u8::MAX).zip(ours).map(|(number, ours)| {
        let mut transforms: Vec<_> = ours.encr.iter().copied().map(encr).collect();
        transforms.extend(ours.integ.iter().copied().map(integ));
        if with_ke {
            transforms.extend(ours.ke.iter().copied().map(ke));
            transforms.extend(addke_offer(&ours.addke));
        }
        transforms.extend(ours.esn.iter().copied().map(esn));
        let protocol = ours.protocol.id();
        Proposal { number, protocol, spi: spi.to_be_bytes().to_vec(), transforms }
    });
    Sa { proposals: proposals.collect() }
}

/// The responder's choice for an IKE SA: the first of our proposals that one of the peer's meets,
/// and in it the first of our algorithms that is offered. Only the group of the peer's KE payload,
/// `peer_ke`, goes before our first one, because it saves a round trip.
#[must_use]
pub fn choose_ike(
    ours: &[IkeProposal],
    offer: &Sa,
    made: Made,
    peer_ke: Option<KeId>,
) -> Option<Chosen<IkeSuite>> {
    ours.iter().find_map(|ours| {
        offer.proposals.iter().find_map(|theirs| match_ike(ours, theirs, made, peer_ke))
    })
}

/// The responder's choice for a CHILD_SA, in the order of [`choose_ike`]. `with_ke` says that this
/// is CREATE_CHILD_SA, where a key exchange can be.
#[must_use]
pub fn choose_child(
    ours: &[ChildProposal],
    offer: &Sa,
    with_ke: bool,
    peer_ke: Option<KeId>,
) -> Option<Chosen<Suite>> {
    ours.iter().find_map(|ours| {
        offer.proposals.iter().find_map(|theirs| match_child(ours, theirs, with_ke, peer_ke))
    })
}

/// The responder's answer for an IKE SA. `spi` is ours when an IKE SA is rekeyed.
#[must_use]
pub fn answer_ike(chosen: &Chosen<IkeSuite>, spi: Option<IkeSpi>) -> Sa {
    let suite = &chosen.suite;
    let mut transforms = vec![encr(suite.encr)];
    if suite.integ != IntegId::NONE || chosen.listed_none.integ {
        transforms.push(integ(suite.integ));
    }
    transforms.extend([prf(suite.prf), ke(suite.ke)]);
    transforms.extend(addke_answer(suite.addke, chosen.listed_none.addke));
    let spi = ike_spi_field(spi);
    Sa {
        proposals: vec![Proposal {
            number: chosen.number,
            protocol: ProtocolId::IKE,
            spi,
            transforms,
        }],
    }
}

/// The responder's answer for a CHILD_SA that will receive on `spi`.
#[must_use]
pub fn answer_child(chosen: &Chosen<Suite>, spi: Spi) -> Sa {
    let mut transforms = Vec::new();
    let esn_id = match chosen.suite {
        Suite::Ah(suite) => {
            transforms.push(integ(suite.integ));
            suite.esn
        }
        Suite::Esp(suite) => {
            transforms.push(encr(suite.encr));
            if suite.integ != IntegId::NONE || chosen.listed_none.integ {
                transforms.push(integ(suite.integ));
            }
            suite.esn
        }
    };
    if let Some(group) = chosen.ke {
        transforms.push(ke(group));
    } else if chosen.listed_none.ke {
        transforms.push(ke(KeId::NONE));
    }
    transforms.extend(addke_answer(chosen.addke, chosen.listed_none.addke));
    transforms.push(esn(esn_id));
    Sa {
        proposals: vec![Proposal {
            number: chosen.number,
            protocol: chosen.suite.protocol().id(),
            spi: spi.to_be_bytes().to_vec(),
            transforms,
        }],
    }
}

/// The initiator's check of the answer to [`ike_offer`]: one proposal, in it one transform of each
/// type, all of them among those of our proposal with that number (RFC 7296 §3.3.6). `None` ends
/// the exchange.
#[must_use]
pub fn accept_ike(ours: &[IkeProposal], answer: &Sa, made: Made) -> Option<Chosen<IkeSuite>> {
    let theirs = only_proposal(answer)?;
    match_ike(numbered(ours, theirs.number)?, theirs, made, None)
}

/// The initiator's check of the answer to [`child_offer`]; `with_ke` as there.
#[must_use]
pub fn accept_child(ours: &[ChildProposal], answer: &Sa, with_ke: bool) -> Option<Chosen<Suite>> {
    let theirs = only_proposal(answer)?;
    if !with_ke && Offer(&theirs.transforms).has_other_than_none(TransformType::KE) {
        return None;
    }
    match_child(numbered(ours, theirs.number)?, theirs, with_ke, None)
}

fn match_ike(
    ours: &IkeProposal,
    theirs: &Proposal,
    made: Made,
    peer_ke: Option<KeId>,
) -> Option<Chosen<IkeSuite>> {
    let rekey = made == Made::Rekeyed;
    let spi_fits = match <[u8; 8]>::try_from(theirs.spi.as_slice()) {
        Ok(spi) => rekey && spi != [0; 8],
        Err(_) => !rekey && theirs.spi.is_empty(),
    };
    if theirs.protocol != ProtocolId::IKE || !spi_fits {
        return None;
    }
    let offer = Offer::of(
        theirs,
        &[TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE],
    )?;
    let (encr, integ) = offer.encr_and_integ(&ours.encr, &ours.integ)?;
    let prf = first(&ours.prf, |id| offer.has(prf(id)))?;
    // RFC 7296 §2.18: an IKE SA is never made without a key exchange.
    let usable = |id: KeId| id != KeId::NONE && offer.has(ke(id));
    let group = peer_ke
        .filter(|id| ours.ke.contains(id) && usable(*id))
        .or_else(|| first(&ours.ke, usable))?;
    let allowed = made != Made::First { intermediate: false };
    let addke = offer.addke(&ours.addke, group, allowed)?;
    Some(Chosen {
        number: theirs.number,
        suite: IkeSuite { encr, integ, prf, ke: group, addke },
        peer_spi: theirs.spi.clone(),
        ke: Some(group),
        addke,
        listed_none: ListedNone {
            integ: integ == IntegId::NONE && offer.has_type(TransformType::INTEG),
            ke: false,
            addke: offer.listed_none(addke),
        },
    })
}

fn match_child(
    ours: &ChildProposal,
    theirs: &Proposal,
    with_ke: bool,
    peer_ke: Option<KeId>,
) -> Option<Chosen<Suite>> {
    if theirs.protocol != ours.protocol.id() {
        return None;
    }
    let spi = <[u8; 4]>::try_from(theirs.spi.as_slice()).ok()?;
    Spi::new(u32::from_be_bytes(spi))?;
    // RFC 7296 §3.3.3: AH encrypts nothing.
    let types: &[_] = match ours.protocol {
        Protocol::Ah => &[TransformType::INTEG, TransformType::KE, TransformType::ESN],
        Protocol::Esp => {
            &[TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN]
        }
    };
    let offer = Offer::of(theirs, types)?;
    // RFC 7296 §3.3.3: mandatory, so a proposal without any is not acceptable.
    let esn = first(&ours.esn, |id| offer.has(esn(id)))?;
    let (suite, integ): (Suite, _) = match ours.protocol {
        Protocol::Ah => {
            let integ = first(&ours.integ, |id| id != IntegId::NONE && offer.has(integ(id)))?;
            (AhSuite { integ, esn }.into(), integ)
        }
        Protocol::Esp => {
            let (encr, integ) = offer.encr_and_integ(&ours.encr, &ours.integ)?;
            (EspSuite { encr, integ, esn }.into(), integ)
        }
    };
    // RFC 7296 §1.2 allows no group but NONE in IKE_AUTH. We pass over what a peer lists there all
    // the same: no key exchange can come of it, and the answer has none.
    let group = if with_ke { offer.child_ke(&ours.ke, peer_ke)? } else { KeId::NONE };
    // Additional ones follow the first (RFC 9370 §2.2.4): without that there are none.
    let addke =
        if with_ke { offer.addke(&ours.addke, group, group != KeId::NONE)? } else { AddKe::NONE };
    Some(Chosen {
        number: theirs.number,
        suite,
        peer_spi: theirs.spi.clone(),
        ke: (group != KeId::NONE).then_some(group),
        addke,
        listed_none: ListedNone {
            integ: integ == IntegId::NONE && offer.has_type(TransformType::INTEG),
            ke: group == KeId::NONE && offer.has(ke(KeId::NONE)),
            addke: if with_ke { offer.listed_none(addke) } else { [false; ADDKES] },
        },
    })
}

/// The transforms of one of the peer's proposals.
struct Offer<'a>(&'a [Transform]);

impl<'a> Offer<'a> {
    /// `None` if there is a transform type other than `types`: RFC 7296 §3.3.6, the proposal is
    /// unacceptable then, and a type that does not belong to the protocol (§3.3.3) is no better
    /// than an unknown one.
    fn of(proposal: &'a Proposal, types: &[TransformType]) -> Option<Self> {
        let known = |transform: &Transform| {
            types.contains(&transform.transform_type)
                || ADDKE_TYPES.contains(&transform.transform_type)
        };
        proposal.transforms.iter().all(known).then_some(Self(&proposal.transforms))
    }

    /// Whether exactly this transform is there. One with an attribute that we do not understand
    /// never is (RFC 7296 §3.3.6), nor one with another key length, or with one where the algorithm
    /// takes none.
    fn has(&self, transform: Transform) -> bool {
        self.0.contains(&transform)
    }

    fn has_type(&self, transform_type: TransformType) -> bool {
        self.0.iter().any(|transform| transform.transform_type == transform_type)
    }

    fn has_other_than_none(&self, transform_type: TransformType) -> bool {
        self.0
            .iter()
            .any(|transform| transform.transform_type == transform_type && transform.id != 0)
    }

    /// An AEAD goes with no integrity algorithm: none listed, or NONE among those listed (RFC 7296
    /// §3.3). Any other cipher goes with one.
    fn encr_and_integ(&self, ours: &[Encr], ours_integ: &[IntegId]) -> Option<(Encr, IntegId)> {
        let none_is_offered =
            !self.has_type(TransformType::INTEG) || self.has(integ(IntegId::NONE));
        ours.iter().copied().filter(|id| self.has(encr(*id))).find_map(|id| {
            if id.id.is_aead() {
                none_is_offered.then_some((id, IntegId::NONE))
            } else {
                let integ = first(ours_integ, |id| id != IntegId::NONE && self.has(integ(id)))?;
                Some((id, integ))
            }
        })
    }

    /// The group for a CHILD_SA; [`KeId::NONE`] for no key exchange, `None` if nothing fits. We go
    /// without one if none is configured, or NONE is among those configured.
    fn child_ke(&self, ours: &[KeId], peer_ke: Option<KeId>) -> Option<KeId> {
        let none_is_offered = !self.has_type(TransformType::KE) || self.has(ke(KeId::NONE));
        let usable = |id: KeId| if id == KeId::NONE { none_is_offered } else { self.has(ke(id)) };
        if ours.is_empty() {
            return none_is_offered.then_some(KeId::NONE);
        }
        peer_ke.filter(|id| ours.contains(id) && usable(*id)).or_else(|| first(ours, usable))
    }

    /// The additional key exchanges beside `ke`; unless they are `allowed`, only their absence fits. `None` if nothing does.
    fn addke(&self, ours: &[Vec<KeId>; ADDKES], ke: KeId, allowed: bool) -> Option<AddKe> {
        let mut chosen = AddKe::NONE;
        let mut steps = limits::MAX_ADDKE_STEPS;
        self.addke_from(0, ours, ke, allowed, &mut chosen, &mut steps).then_some(chosen)
    }

    /// Chooses from the method with index `at` on. RFC 9370 §2.2.1: none twice, but for NONE.
    fn addke_from(
        &self,
        at: usize,
        ours: &[Vec<KeId>; ADDKES],
        ke: KeId,
        allowed: bool,
        chosen: &mut AddKe,
        steps: &mut u32,
    ) -> bool {
        let (Some(ours_here), Some(kind)) = (ours.get(at), ADDKE_TYPES.get(at)) else {
            return true;
        };
        let none_is_offered =
            !self.has_type(*kind) || self.has(Transform::new(*kind, KeId::NONE.0));
        let none = [KeId::NONE];
        let candidates = if ours_here.is_empty() { &none[..] } else { ours_here };
        for id in candidates {
            let Some(left) = steps.checked_sub(1) else { return false };
            *steps = left;
            let fits = if *id == KeId::NONE {
                none_is_offered
            } else {
                allowed
                    && *id != ke
                    && !chosen.0.iter().take(at).any(|before| before == id)
                    && self.has(Transform::new(*kind, id.0))
            };
            if !fits {
                continue;
            }
            if let Some(here) = chosen.0.get_mut(at) {
                *here = *id;
            }
            if self.addke_from(at + 1, ours, ke, allowed, chosen, steps) {
                return true;
            }
        }
        if let Some(here) = chosen.0.get_mut(at) {
            *here = KeId::NONE;
        }
        false
    }

    /// For which of ADDKE1 to ADDKE7 NONE was chosen from an offer that lists it.
    fn listed_none(&self, chosen: AddKe) -> [bool; ADDKES] {
        let mut listed = [false; ADDKES];
        for ((listed, kind), method) in listed.iter_mut().zip(ADDKE_TYPES).zip(chosen.0) {
            *listed = method == KeId::NONE && self.has(Transform::new(kind, KeId::NONE.0));
        }
        listed
    }
}

/// Transform types of the additional key exchanges, in their order.
const ADDKE_TYPES: [TransformType; ADDKES] = [
    TransformType::ADDKE1,
    TransformType::ADDKE2,
    TransformType::ADDKE3,
    TransformType::ADDKE4,
    TransformType::ADDKE5,
    TransformType::ADDKE6,
    TransformType::ADDKE7,
];

fn addke_offer(ours: &[Vec<KeId>; ADDKES]) -> impl Iterator<Item = Transform> {
    ADDKE_TYPES
        .into_iter()
        .zip(ours)
        .flat_map(|(kind, methods)| methods.iter().map(move |id| Transform::new(kind, id.0)))
}

fn addke_answer(chosen: AddKe, listed_none: [bool; ADDKES]) -> impl Iterator<Item = Transform> {
    ADDKE_TYPES
        .into_iter()
        .zip(chosen.0)
        .zip(listed_none)
        .filter(|((_, id), listed)| *id != KeId::NONE || *listed)
        .map(|((kind, id), _)| Transform::new(kind, id.0))
}

/// The proposal of an answer: the only one, with no transform type twice (RFC 7296 §2.7).
fn only_proposal(answer: &Sa) -> Option<&Proposal> {
    let [proposal] = answer.proposals.as_slice() else {
        return None;
    };
    let count = |wanted: TransformType| {
        proposal.transforms.iter().filter(|transform| transform.transform_type == wanted).count()
    };
    proposal
        .transforms
        .iter()
        .all(|transform| count(transform.transform_type) == 1)
        .then_some(proposal)
}

/// RFC 7296 §3.3.1: our proposals are numbered from 1.
fn numbered<P>(ours: &[P], number: u8) -> Option<&P> {
    ours.get(usize::from(number).checked_sub(1)?)
}

fn first<T: Copy>(ours: &[T], fits: impl Fn(T) -> bool) -> Option<T> {
    ours.iter().copied().find(|id| fits(*id))
}

fn ike_spi_field(spi: Option<IkeSpi>) -> Vec<u8> {
    spi.map(|spi| spi.0.to_be_bytes().to_vec()).unwrap_or_default()
}

const fn encr(encr: Encr) -> Transform {
    match encr.key_bits {
        Some(bits) => Transform::with_key_length(TransformType::ENCR, encr.id.0, bits),
        None => Transform::new(TransformType::ENCR, encr.id.0),
    }
}

const fn integ(id: IntegId) -> Transform {
    Transform::new(TransformType::INTEG, id.0)
}

const fn prf(id: PrfId) -> Transform {
    Transform::new(TransformType::PRF, id.0)
}

const fn ke(id: KeId) -> Transform {
    Transform::new(TransformType::KE, id.0)
}

const fn esn(id: EsnId) -> Transform {
    Transform::new(TransformType::ESN, id.0)
}

#[cfg(test)]
mod tests;
