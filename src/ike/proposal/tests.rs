use super::*;
use crate::wire::ike::numbers::EncrId;

const fn gcm(bits: u16) -> Encr {
    Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) }
}

const fn cbc(bits: u16) -> Encr {
    Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(bits) }
}

const FIRST: Made = Made::First { intermediate: true };

const fn made(rekey: bool) -> Made {
    if rekey { Made::Rekeyed } else { FIRST }
}

fn ike_gcm() -> IkeProposal {
    IkeProposal {
        encr: vec![gcm(256), gcm(128)],
        integ: vec![],
        prf: vec![PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_256],
        ke: vec![KeId::CURVE25519, KeId::ECP_256],
        addke: Default::default(),
    }
}

fn ike_cbc() -> IkeProposal {
    IkeProposal {
        encr: vec![cbc(256), cbc(128)],
        integ: vec![IntegId::AUTH_HMAC_SHA2_256_128, IntegId::AUTH_HMAC_SHA2_512_256],
        prf: vec![PrfId::PRF_HMAC_SHA2_256],
        ke: vec![KeId::MODP_2048],
        addke: Default::default(),
    }
}

fn esp_gcm(ke: &[KeId]) -> ChildProposal {
    ChildProposal {
        protocol: Protocol::Esp,
        encr: vec![gcm(256), gcm(128)],
        integ: vec![],
        ke: ke.to_vec(),
        addke: Default::default(),
        esn: vec![EsnId::ESN, EsnId::NO_ESN],
    }
}

fn esp_cbc() -> ChildProposal {
    ChildProposal {
        protocol: Protocol::Esp,
        encr: vec![cbc(128)],
        integ: vec![IntegId::AUTH_HMAC_SHA2_256_128],
        ke: vec![],
        addke: Default::default(),
        esn: vec![EsnId::NO_ESN],
    }
}

fn spi() -> Spi {
    Spi::new(0x0102_0304).unwrap()
}

/// One proposal with these transforms.
fn offer(protocol: ProtocolId, spi: &[u8], transforms: &[Transform]) -> Sa {
    let transforms = transforms.to_vec();
    Sa { proposals: vec![Proposal { number: 1, protocol, spi: spi.to_vec(), transforms }] }
}

fn ike(transforms: &[Transform]) -> Sa {
    offer(ProtocolId::IKE, &[], transforms)
}

fn esp(transforms: &[Transform]) -> Sa {
    offer(ProtocolId::ESP, &spi().to_be_bytes(), transforms)
}

fn gcm_transforms() -> [Transform; 3] {
    [encr(gcm(128)), prf(PrfId::PRF_HMAC_SHA2_256), ke(KeId::ECP_256)]
}

fn choose(ours: &[IkeProposal], offer: &Sa) -> Option<IkeSuite> {
    choose_ike(ours, offer, FIRST, None).map(|chosen| chosen.suite)
}

fn choose_esp(ours: &[ChildProposal], offer: &Sa) -> Option<Chosen<Suite>> {
    choose_child(ours, offer, true, None)
}

#[test]
fn offers_number_proposals_from_one_and_carry_the_spi() {
    let sa = ike_offer(&[ike_gcm(), ike_cbc()], None);
    let numbers: Vec<_> = sa.proposals.iter().map(|proposal| proposal.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(sa.proposals.iter().all(|proposal| proposal.spi.is_empty()));
    assert_eq!(sa.proposals[0].transforms.len(), 6);

    let sa = ike_offer(&[ike_gcm()], Some(IkeSpi(5)));
    assert_eq!(sa.proposals[0].spi, [0, 0, 0, 0, 0, 0, 0, 5]);

    let with_ke = child_offer(&[esp_gcm(&[KeId::CURVE25519])], spi(), true);
    assert!(with_ke.proposals[0].transforms.contains(&ke(KeId::CURVE25519)));
    assert_eq!(with_ke.proposals[0].spi, [1, 2, 3, 4]);
    let without = child_offer(&[esp_gcm(&[KeId::CURVE25519])], spi(), false);
    assert!(!without.proposals[0].transforms.contains(&ke(KeId::CURVE25519)));
}

#[test]
fn both_sides_hold_the_same_suite_after_offer_choice_and_answer() {
    let ours = [ike_gcm(), ike_cbc()];
    for theirs in [vec![ike_gcm()], vec![ike_cbc()], vec![ike_cbc(), ike_gcm()]] {
        for rekey in [None, Some(IkeSpi(7))] {
            let chosen =
                choose_ike(&ours, &ike_offer(&theirs, rekey), made(rekey.is_some()), None).unwrap();
            let answer = answer_ike(&chosen, rekey.map(|_| IkeSpi(8)));
            let accepted = accept_ike(&theirs, &answer, made(rekey.is_some())).unwrap();
            assert_eq!(accepted.suite, chosen.suite);
            assert_eq!(accepted.number, chosen.number);
            assert_eq!(accepted.ke, Some(chosen.suite.ke));
            let spi = rekey.map(|_| [0, 0, 0, 0, 0, 0, 0, 8].to_vec()).unwrap_or_default();
            assert_eq!(accepted.peer_spi, spi);
        }
    }
    let ours = [esp_gcm(&[KeId::CURVE25519]), esp_cbc()];
    for theirs in [vec![esp_gcm(&[KeId::CURVE25519])], vec![esp_cbc()]] {
        for with_ke in [false, true] {
            let chosen =
                choose_child(&ours, &child_offer(&theirs, spi(), with_ke), with_ke, None).unwrap();
            assert_eq!(chosen.peer_spi, spi().to_be_bytes());
            let answer = answer_child(&chosen, Spi::new(0x0999).unwrap());
            let accepted = accept_child(&theirs, &answer, with_ke).unwrap();
            assert_eq!((accepted.suite, accepted.ke), (chosen.suite, chosen.ke));
            assert_eq!(accepted.peer_spi, [0, 0, 9, 0x99]);
        }
    }
}

#[test]
fn our_order_of_proposals_and_algorithms_decides() {
    let offer = ike_offer(&[ike_cbc(), ike_gcm()], None);
    let chosen = choose_ike(&[ike_gcm(), ike_cbc()], &offer, FIRST, None).unwrap();
    assert_eq!(chosen.number, 2);
    assert_eq!(chosen.suite.encr, gcm(256));
    assert_eq!(chosen.suite.ke, KeId::CURVE25519);
}

#[test]
fn group_of_the_peers_ke_goes_first_where_we_accept_it() {
    let offer = ike_offer(&[ike_gcm()], None);
    let group = |peer_ke| choose_ike(&[ike_gcm()], &offer, FIRST, peer_ke).unwrap().suite.ke;
    assert_eq!(group(None), KeId::CURVE25519);
    assert_eq!(group(Some(KeId::ECP_256)), KeId::ECP_256);
    assert_eq!(group(Some(KeId::MODP_2048)), KeId::CURVE25519, "not ours");
}

#[test]
fn group_of_the_peers_ke_must_be_in_its_proposal() {
    let offer = ike(&gcm_transforms());
    let chosen = choose_ike(&[ike_gcm()], &offer, FIRST, Some(KeId::CURVE25519)).unwrap();
    assert_eq!(chosen.suite.ke, KeId::ECP_256, "only this is proposed");
}

#[test]
fn proposals_without_overlap_in_any_type_are_not_chosen() {
    let good = gcm_transforms();
    assert!(choose(&[ike_gcm()], &ike(&good)).is_some());
    let others = [encr(gcm(192)), prf(PrfId::PRF_HMAC_SHA2_512), ke(KeId::ECP_384)];
    for (i, other) in others.into_iter().enumerate() {
        let mut transforms = good;
        transforms[i] = other;
        assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None, "{other:?}");
    }
}

#[test]
fn proposals_that_lack_a_mandatory_type_are_not_chosen() {
    for missing in 0..3 {
        let mut transforms = gcm_transforms().to_vec();
        transforms.remove(missing);
        assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None, "{missing}");
    }
    let no_esn = esp(&[encr(gcm(256))]);
    assert_eq!(choose_esp(&[esp_gcm(&[])], &no_esn), None, "RFC 7296 §3.3.3: ESN is mandatory");
    let no_integ = esp(&[encr(cbc(128)), esn(EsnId::NO_ESN)]);
    assert_eq!(choose_esp(&[esp_cbc()], &no_integ), None);
}

#[test]
fn unknown_transform_type_spoils_its_proposal_and_no_other() {
    let mut transforms = gcm_transforms().to_vec();
    transforms.push(Transform::new(TransformType(200), 1));
    let mut sa = ike(&transforms);
    assert_eq!(choose(&[ike_gcm()], &sa), None);
    sa.proposals.push(Proposal {
        number: 2,
        protocol: ProtocolId::IKE,
        spi: vec![],
        transforms: gcm_transforms().to_vec(),
    });
    assert_eq!(choose_ike(&[ike_gcm()], &sa, FIRST, None).unwrap().number, 2);

    for stray in [esn(EsnId::NO_ESN), Transform::new(TransformType::ADDKE1, 36)] {
        let mut transforms = gcm_transforms().to_vec();
        transforms.push(stray);
        assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None, "{stray:?}");
    }
    let stray = [encr(gcm(256)), esn(EsnId::NO_ESN), prf(PrfId::PRF_HMAC_SHA2_256)];
    assert_eq!(choose_esp(&[esp_gcm(&[])], &esp(&stray)), None);
}

#[test]
fn transform_with_an_unknown_attribute_is_passed_over() {
    let mut transforms = gcm_transforms().to_vec();
    transforms[0].unknown_attribute = true;
    assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None);
    transforms.push(encr(gcm(128)));
    assert_eq!(choose(&[ike_gcm()], &ike(&transforms)).map(|suite| suite.encr), Some(gcm(128)));
}

#[test]
fn key_length_must_be_there_and_right() {
    for key_length in [None, Some(0), Some(192), Some(512)] {
        let mut transforms = gcm_transforms();
        transforms[0].key_length = key_length;
        assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None, "{key_length:?}");
    }
    let mut transforms = gcm_transforms();
    transforms[1].key_length = Some(256);
    assert_eq!(choose(&[ike_gcm()], &ike(&transforms)), None, "a PRF has no key length");
}

#[test]
fn duplicate_transforms_do_no_harm() {
    let doubled = [gcm_transforms(), gcm_transforms()].concat();
    assert!(choose(&[ike_gcm()], &ike(&doubled)).is_some());
}

#[test]
fn aead_is_chosen_with_no_integrity_algorithm_or_none() {
    let suite = |integs: &[IntegId]| {
        let mut transforms = vec![encr(gcm(256)), esn(EsnId::NO_ESN)];
        transforms.extend(integs.iter().copied().map(integ));
        choose_esp(&[esp_gcm(&[])], &esp(&transforms))
    };
    let chosen = suite(&[]).unwrap();
    assert_eq!(answer_child(&chosen, spi()).proposals[0].transforms.len(), 2);
    let chosen = suite(&[IntegId::NONE]).unwrap();
    assert_eq!(chosen.suite.esp().unwrap().integ, IntegId::NONE);
    let answer = answer_child(&chosen, spi());
    assert!(
        answer.proposals[0].transforms.contains(&integ(IntegId::NONE)),
        "RFC 7296 §2.7: one transform of each type in the offer"
    );
    assert!(suite(&[IntegId::AUTH_HMAC_SHA2_256_128, IntegId::NONE]).is_some());
    assert!(suite(&[IntegId::AUTH_HMAC_SHA2_256_128]).is_none());
}

#[test]
fn plain_cipher_is_never_chosen_without_integrity() {
    let transforms = [encr(cbc(128)), integ(IntegId::NONE), esn(EsnId::NO_ESN)];
    let mut ours = esp_cbc();
    ours.integ.push(IntegId::NONE);
    assert_eq!(choose_esp(&[ours], &esp(&transforms)), None);
}

#[test]
fn mixed_offer_gives_the_cipher_whose_integrity_fits() {
    // Ciphers of both kinds in one proposal, which RFC 7296 §3.3 asks initiators not to send.
    let transforms = [
        encr(gcm(256)),
        encr(cbc(128)),
        integ(IntegId::AUTH_HMAC_SHA2_256_128),
        esn(EsnId::NO_ESN),
    ];
    let chosen = choose_esp(&[esp_gcm(&[]), esp_cbc()], &esp(&transforms)).unwrap();
    assert_eq!(chosen.suite.esp().unwrap().encr, cbc(128));
}

#[test]
fn spi_must_be_there_exactly_when_it_belongs_there() {
    let transforms = gcm_transforms();
    let choose = |spi: &[u8], rekey| {
        choose_ike(&[ike_gcm()], &offer(ProtocolId::IKE, spi, &transforms), made(rekey), None)
            .is_some()
    };
    assert!(choose(&[], false));
    assert!(choose(&[1; 8], true));
    assert!(!choose(&[1; 8], false), "RFC 7296 §3.3.1: none in the first exchange");
    assert!(!choose(&[], true));
    assert!(!choose(&[1; 4], true));
    assert!(!choose(&[0; 8], true), "RFC 7296 §2.6: no SPI is zero");

    let transforms = [encr(gcm(256)), esn(EsnId::NO_ESN)];
    let choose = |spi: &[u8]| {
        let sa = offer(ProtocolId::ESP, spi, &transforms);
        choose_esp(&[esp_gcm(&[])], &sa).is_some()
    };
    assert!(choose(&[0, 0, 1, 0]));
    assert!(!choose(&[0, 0, 0, 255]), "RFC 4303 §2.1: reserved");
    assert!(!choose(&[]));
    assert!(!choose(&[1; 8]));
}

#[test]
fn protocol_must_be_the_one_negotiated() {
    let sa = offer(ProtocolId::AH, &spi().to_be_bytes(), &[encr(gcm(256)), esn(EsnId::NO_ESN)]);
    assert_eq!(choose_esp(&[esp_gcm(&[])], &sa), None);
    let sa = offer(ProtocolId::ESP, &[], &gcm_transforms());
    assert_eq!(choose(&[ike_gcm()], &sa), None);
}

#[test]
fn forward_secrecy_is_kept_to_what_is_configured() {
    let group = |ours: &[KeId], theirs: &[KeId]| {
        let mut transforms = vec![encr(gcm(256)), esn(EsnId::NO_ESN)];
        transforms.extend(theirs.iter().copied().map(ke));
        choose_esp(&[esp_gcm(ours)], &esp(&transforms)).map(|chosen| chosen.ke)
    };
    let (x, p) = (KeId::CURVE25519, KeId::ECP_256);
    assert_eq!(group(&[x], &[p, x]), Some(Some(x)));
    assert_eq!(group(&[x], &[p]), None);
    assert_eq!(group(&[x], &[]), None, "asked for, not offered");
    assert_eq!(group(&[x], &[KeId::NONE]), None);
    assert_eq!(group(&[x, KeId::NONE], &[]), Some(None));
    assert_eq!(group(&[x, KeId::NONE], &[x]), Some(Some(x)));
    assert_eq!(group(&[], &[]), Some(None));
    assert_eq!(group(&[], &[x]), None, "offered as a must");
    assert_eq!(group(&[], &[x, KeId::NONE]), Some(None));
}

#[test]
fn group_none_is_listed_in_the_answer_when_it_was_in_the_offer() {
    let sa = esp(&[encr(gcm(256)), esn(EsnId::NO_ESN), ke(KeId::NONE)]);
    let chosen = choose_esp(&[esp_gcm(&[])], &sa).unwrap();
    assert!(answer_child(&chosen, spi()).proposals[0].transforms.contains(&ke(KeId::NONE)));
}

#[test]
fn ike_sa_is_never_made_without_a_key_exchange() {
    let mut ours = ike_gcm();
    ours.ke = vec![KeId::NONE];
    let mut transforms = gcm_transforms();
    transforms[2] = ke(KeId::NONE);
    assert_eq!(choose(&[ours.clone()], &ike(&transforms)), None, "RFC 7296 §2.18");
    assert_eq!(choose_ike(&[ours], &ike(&transforms), FIRST, Some(KeId::NONE)), None);
}

#[test]
fn groups_offered_in_ike_auth_are_passed_over() {
    let transforms = [encr(gcm(256)), esn(EsnId::NO_ESN), ke(KeId::MODP_2048)];
    let chosen = choose_child(&[esp_gcm(&[])], &esp(&transforms), false, None).unwrap();
    assert_eq!(chosen.ke, None);
    assert_eq!(answer_child(&chosen, spi()).proposals[0].transforms.len(), 2);
}

#[test]
fn answer_must_be_one_proposal_with_one_transform_a_type() {
    let ours = [ike_gcm(), ike_cbc()];
    let good = ike(&gcm_transforms());
    assert!(accept_ike(&ours, &good, FIRST).is_some());

    let mut two = good.clone();
    two.proposals.push(two.proposals[0].clone());
    assert_eq!(accept_ike(&ours, &two, FIRST), None);
    assert_eq!(accept_ike(&ours, &Sa { proposals: vec![] }, FIRST), None);

    let doubled = [gcm_transforms().as_slice(), &[encr(gcm(256))]].concat();
    assert_eq!(accept_ike(&ours, &ike(&doubled), FIRST), None);
    let same_twice = [gcm_transforms().as_slice(), &[encr(gcm(128))]].concat();
    assert_eq!(accept_ike(&ours, &ike(&same_twice), FIRST), None);
}

#[test]
fn answer_must_be_a_subset_of_the_proposal_whose_number_it_has() {
    let ours = [ike_gcm(), ike_cbc()];
    for (number, accepted) in [(0, false), (1, true), (2, false), (3, false), (255, false)] {
        let mut answer = ike(&gcm_transforms());
        answer.proposals[0].number = number;
        assert_eq!(accept_ike(&ours, &answer, FIRST).is_some(), accepted, "{number}");
    }
    let mut not_offered = gcm_transforms();
    not_offered[0] = encr(gcm(192));
    assert_eq!(accept_ike(&ours, &ike(&not_offered), FIRST), None);
    let extra = [gcm_transforms().as_slice(), &[integ(IntegId::AUTH_HMAC_SHA2_256_128)]].concat();
    assert_eq!(accept_ike(&ours, &ike(&extra), FIRST), None);
}

#[test]
fn answer_in_ike_auth_must_not_choose_a_group() {
    let ours = [esp_gcm(&[KeId::CURVE25519])];
    let base = [encr(gcm(256)), esn(EsnId::ESN)];
    let with = |group| esp(&[base.as_slice(), &[ke(group)]].concat());
    assert!(accept_child(&ours, &esp(&base), false).is_some());
    assert!(accept_child(&ours, &with(KeId::NONE), false).is_some());
    assert_eq!(accept_child(&ours, &with(KeId::CURVE25519), false), None);
    // CREATE_CHILD_SA: asked for, so it must be there.
    assert_eq!(accept_child(&ours, &esp(&base), true), None);
    let chosen = accept_child(&ours, &with(KeId::CURVE25519), true).unwrap();
    assert_eq!(chosen.ke, Some(KeId::CURVE25519));
}

fn hybrid(addke: &[&[KeId]]) -> IkeProposal {
    let mut proposal = ike_gcm();
    for (ours, methods) in proposal.addke.iter_mut().zip(addke) {
        *ours = methods.to_vec();
    }
    proposal
}

fn addke_of(ours: &IkeProposal, theirs: &IkeProposal, made: Made) -> Option<[KeId; ADDKES]> {
    let spi = (made == Made::Rekeyed).then_some(IkeSpi(9));
    let offer = ike_offer(core::slice::from_ref(theirs), spi);
    let chosen = choose_ike(core::slice::from_ref(ours), &offer, made, None)?;
    let answer = answer_ike(&chosen, spi);
    let accepted = accept_ike(core::slice::from_ref(theirs), &answer, made).unwrap();
    assert_eq!(accepted.suite, chosen.suite);
    Some(chosen.suite.addke.0)
}

const KEM512: KeId = KeId::ML_KEM_512;
const KEM768: KeId = KeId::ML_KEM_768;
const KEM1024: KeId = KeId::ML_KEM_1024;
const NONE: KeId = KeId::NONE;

#[test]
fn additional_key_exchanges_are_chosen_in_our_order() {
    let ours = hybrid(&[&[KEM768, KEM512], &[KEM1024, NONE]]);
    let theirs = hybrid(&[&[KEM512, KEM768], &[NONE, KEM1024]]);
    let chosen = addke_of(&ours, &theirs, FIRST).unwrap();
    assert_eq!(chosen[..3], [KEM768, KEM1024, NONE]);
    assert_eq!(addke_of(&ike_gcm(), &ike_gcm(), FIRST), Some([NONE; ADDKES]));
}

#[test]
fn what_only_one_side_wants_must_be_optional() {
    let (optional, required) = (hybrid(&[&[KEM768, NONE]]), hybrid(&[&[KEM768]]));
    for made in [FIRST, Made::Rekeyed] {
        assert_eq!(addke_of(&ike_gcm(), &optional, made), Some([NONE; ADDKES]));
        assert_eq!(addke_of(&optional, &ike_gcm(), made), Some([NONE; ADDKES]));
        assert_eq!(addke_of(&ike_gcm(), &required, made), None);
        assert_eq!(addke_of(&required, &ike_gcm(), made), None);
        assert_eq!(addke_of(&required, &optional, made).unwrap()[0], KEM768);
    }
    // RFC 9370 §2.2.1: without IKE_INTERMEDIATE there is nothing to carry them.
    let without = Made::First { intermediate: false };
    assert_eq!(addke_of(&required, &required, without), None);
    assert_eq!(addke_of(&optional, &optional, without), Some([NONE; ADDKES]));
}

#[test]
fn no_method_is_chosen_twice() {
    let ours = hybrid(&[&[KEM768, KEM512], &[KEM768]]);
    // The second leaves the first no choice.
    assert_eq!(addke_of(&ours, &ours, FIRST).unwrap()[..2], [KEM512, KEM768]);
    let twice = hybrid(&[&[KEM768], &[KEM768]]);
    assert_eq!(addke_of(&twice, &twice, FIRST), None);
    let first_again = hybrid(&[&[KeId::CURVE25519]]);
    assert_eq!(addke_of(&first_again, &first_again, FIRST), None);
    // Whoever would have to look for long does not find any, and is done soon.
    let all: Vec<KeId> = (100..108).map(KeId).collect();
    let last: &[KeId] = &[KeId(999)];
    let many = hybrid(&[&all, &all, &all, &all, &all, &all, last]);
    let theirs = hybrid(&[&all, &all, &all, &all, &all, &all, &[KeId(998)]]);
    assert_eq!(addke_of(&many, &theirs, FIRST), None);
}

#[test]
fn none_is_answered_where_it_is_listed() {
    let offer = ike_offer(&[hybrid(&[&[KEM768, NONE]])], None);
    let chosen = choose_ike(&[ike_gcm()], &offer, FIRST, None).unwrap();
    let mut answer = answer_ike(&chosen, None);
    let none = Transform::new(TransformType::ADDKE1, 0);
    assert!(answer.proposals[0].transforms.contains(&none));
    // strongSwan leaves it out.
    answer.proposals[0].transforms.retain(|transform| *transform != none);
    assert!(accept_ike(&[hybrid(&[&[KEM768, NONE]])], &answer, FIRST).is_some());
    assert!(accept_ike(&[hybrid(&[&[KEM768]])], &answer, FIRST).is_none());
}

fn ah(integs: &[IntegId], esns: &[EsnId]) -> ChildProposal {
    ChildProposal {
        protocol: Protocol::Ah,
        encr: vec![],
        integ: integs.to_vec(),
        ke: vec![],
        addke: Default::default(),
        esn: esns.to_vec(),
    }
}

#[test]
fn ah_is_offered_chosen_answered_and_accepted() {
    let hmac = [IntegId::AUTH_HMAC_SHA2_512_256, IntegId::AUTH_HMAC_SHA2_256_128];
    let theirs = [ah(&hmac, &[EsnId::NO_ESN, EsnId::ESN])];
    let ours = [ah(&hmac[1..], &[EsnId::ESN, EsnId::NO_ESN])];
    let offer = child_offer(&theirs, spi(), true);
    assert_eq!(offer.proposals[0].protocol, ProtocolId::AH);
    let chosen = choose_esp(&ours, &offer).unwrap();
    let suite = AhSuite { integ: hmac[1], esn: EsnId::ESN };
    assert_eq!(chosen.suite, suite.into());
    let answer = answer_child(&chosen, spi());
    assert_eq!(answer.proposals[0].protocol, ProtocolId::AH);
    assert_eq!(answer.proposals[0].transforms, [integ(hmac[1]), esn(EsnId::ESN)]);
    assert_eq!(accept_child(&theirs, &answer, true).unwrap().suite, suite.into());
}

#[test]
fn ah_and_esp_are_not_taken_for_each_other() {
    let hmac = IntegId::AUTH_HMAC_SHA2_256_128;
    let (ah, esp) = (ah(&[hmac], &[EsnId::NO_ESN]), esp_cbc());
    let offer =
        |proposal: &ChildProposal| child_offer(core::slice::from_ref(proposal), spi(), true);
    assert_eq!(choose_esp(core::slice::from_ref(&ah), &offer(&esp)), None);
    assert_eq!(choose_esp(core::slice::from_ref(&esp), &offer(&ah)), None);
    // RFC 7296 §3.3.3: AH has no encryption.
    let mut stray = offer(&ah);
    stray.proposals[0].transforms.push(encr(cbc(128)));
    assert_eq!(choose_esp(core::slice::from_ref(&ah), &stray), None);
    // Of both, in one offer, the first of ours is taken.
    let both = child_offer(&[esp.clone(), ah.clone()], spi(), true);
    let chosen = choose_esp(&[ah, esp], &both).unwrap();
    assert_eq!((chosen.number, chosen.suite.protocol()), (2, Protocol::Ah));
}

#[test]
fn ah_without_integrity_is_not_taken() {
    let ours = ah(&[IntegId::NONE], &[EsnId::NO_ESN]);
    let transforms = [integ(IntegId::NONE), esn(EsnId::NO_ESN)];
    let sa = offer(ProtocolId::AH, &spi().to_be_bytes(), &transforms);
    assert_eq!(choose_esp(&[ours], &sa), None);
}
