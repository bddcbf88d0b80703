//! Scapy's ESP against ours, both ways: what it seals we open, what we seal it opens, and with the IV that we took it seals to
//! the same bytes.
//!
//! Scapy 2.5 has neither AES-XCBC, GMAC nor implicit IVs, of AES-GCM the ICV of 16 bytes alone, and extended sequence numbers
//! with AEADs alone. It leaves destination options before ESP, as Linux does.

use ipsecd::crypto::{Encr, Secret};
use ipsecd::ipsec::esp::EspLayout;
use ipsecd::ipsec::suite::EspSuite;
use ipsecd::ipsec::{InboundSa, Mode, OutboundSa, Place, SaParams, Spi};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::NextHeader;
use serde_json::{Value, json};

use crate::ah_scapy::{Shape, hex, lacks_scapy, scapy, scapys_place, shapes, unhex};
use crate::support::{buf, gcm, ip_between, params};

const SPI: u32 = 0x1234_5678;

/// A suite in Scapy's words.
struct Algorithms {
    suite: EspSuite,
    encryption: &'static str,
    icv_size: Option<u8>,
    integrity: Option<&'static str>,
}

const INTEGRITY: [(IntegId, &str); 5] = [
    (IntegId::AUTH_HMAC_SHA1_96, "HMAC-SHA1-96"),
    (IntegId::AUTH_HMAC_SHA2_256_128, "SHA2-256-128"),
    (IntegId::AUTH_HMAC_SHA2_384_192, "SHA2-384-192"),
    (IntegId::AUTH_HMAC_SHA2_512_256, "SHA2-512-256"),
    (IntegId::AUTH_AES_CMAC_96, "AES-CMAC-96"),
];

fn algorithms() -> Vec<Algorithms> {
    let mut all = Vec::new();
    for (id, encryption, icv_size, lengths) in [
        (EncrId::ENCR_AES_GCM_16, "AES-GCM", 16, &[Some(128), Some(192), Some(256)][..]),
        (EncrId::ENCR_AES_CCM_16, "AES-CCM", 16, &[Some(128), Some(192), Some(256)]),
        (EncrId::ENCR_AES_CCM_12, "AES-CCM", 12, &[Some(128), Some(192), Some(256)]),
        (EncrId::ENCR_AES_CCM_8, "AES-CCM", 8, &[Some(128), Some(192), Some(256)]),
        (EncrId::ENCR_CHACHA20_POLY1305, "CHACHA20-POLY1305", 16, &[None]),
    ] {
        for &key_bits in lengths {
            for esn in [EsnId::NO_ESN, EsnId::ESN] {
                let suite = EspSuite { encr: Encr { id, key_bits }, integ: IntegId::NONE, esn };
                all.push(Algorithms {
                    suite,
                    encryption,
                    icv_size: Some(icv_size),
                    integrity: None,
                });
            }
        }
    }
    for (id, encryption, lengths) in [
        (EncrId::ENCR_AES_CBC, "AES-CBC", &[Some(128), Some(192), Some(256)][..]),
        (EncrId::ENCR_AES_CTR, "AES-CTR", &[Some(128), Some(192), Some(256)]),
        (EncrId::ENCR_NULL, "NULL", &[None]),
    ] {
        for &key_bits in lengths {
            for (integ, integrity) in INTEGRITY {
                let esn = EsnId::NO_ESN;
                let suite = EspSuite { encr: Encr { id, key_bits }, integ, esn };
                let integrity = Some(integrity);
                all.push(Algorithms { suite, encryption, icv_size: None, integrity });
            }
        }
    }
    all
}

/// Both ends of an SA that goes on after `sequence`.
fn ends(suite: EspSuite, mode: Mode, sequence: u64) -> (OutboundSa, InboundSa, SaParams) {
    let (mut params, _) = params(suite, true, 0);
    params.spi = Spi::new(SPI).unwrap();
    params.mode = mode;
    params.sequence = sequence;
    // The keys are wiped from what an SA is made of.
    let outbound = OutboundSa::new(params.clone()).unwrap();
    let inbound = InboundSa::new(params.clone()).unwrap();
    (outbound, inbound, params)
}

/// The whole packet that we send.
fn seal(outbound: &OutboundSa, shape: &Shape) -> Vec<u8> {
    let Some(outer_len) = shape.outer_len else {
        let mut packet = buf(&shape.plain);
        let _ = outbound.seal_at(&mut packet, scapys_place(&shape.plain)).unwrap();
        return packet.to_vec();
    };
    let (outer, inner) = shape.plain.split_at(outer_len);
    let mut packet = buf(inner);
    let v6 = inner[0] >> 4 == 6;
    let next = if v6 { NextHeader::IPV6 } else { NextHeader::IPV4 };
    let _ = outbound.seal(&mut packet, next).unwrap();
    let (src, dst) = if outer[0] >> 4 == 4 {
        ("192.0.2.1", "192.0.2.2")
    } else {
        ("2001:db8::1", "2001:db8::2")
    };
    ip_between(src, dst, 50, &packet)
}

/// What we make of a whole packet.
fn open(inbound: &InboundSa, shape: &Shape, sealed: &[u8]) -> Vec<u8> {
    let place = Place::of(sealed, NextHeader::ESP).unwrap();
    let mut packet = buf(sealed);
    let _ = match shape.outer_len {
        Some(_) => {
            packet.trim_front(place.at);
            inbound.open(&mut packet).unwrap()
        }
        None => inbound.open_at(&mut packet, place).unwrap(),
    };
    packet.to_vec()
}

fn case(
    op: &str,
    packet: &[u8],
    iv: &[u8],
    of: &Algorithms,
    keys: &SaParams,
    shape: &Shape,
) -> Value {
    let sequence = keys.sequence + 1;
    let key = |key: &Secret| (!key.is_empty()).then(|| hex(key.expose()));
    json!({
        "op": op,
        "protocol": "ESP",
        "encryption": of.encryption,
        "encryption_key": key(&keys.encr_key),
        "icv_size": of.icv_size,
        "algorithm": of.integrity,
        "key": key(&keys.integ_key),
        "iv": hex(iv),
        "spi": SPI,
        "sequence": sequence & 0xffff_ffff,
        "esn": (of.suite.esn == EsnId::ESN).then_some(sequence >> 32),
        "packet": hex(packet),
        "tunnel": shape.outer_len.map(|len| hex(&shape.plain[..len])),
    })
}

#[test]
fn scapy_opens_the_esp_that_we_seal_and_seals_what_we_open() {
    if lacks_scapy() {
        return;
    }
    // Where Scapy and we differ on what a route means, AH is concerned; ESP does not cover it.
    let shapes: Vec<_> =
        shapes().into_iter().filter(|shape| !shape.name.contains("route ")).collect();
    let all = algorithms();
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for of in &all {
        let sequence = if of.suite.esn == EsnId::ESN { 0x5_ffff_fff0 } else { 6 };
        for shape in &shapes {
            let mode = if shape.outer_len.is_some() { Mode::Tunnel } else { Mode::Transport };
            let (outbound, inbound, keys) = ends(of.suite, mode, sequence);
            let sealed = seal(&outbound, shape);
            let at = Place::of(&sealed, NextHeader::ESP).unwrap().at + 8;
            let iv = &sealed[at..at + EspLayout::of(of.suite).unwrap().iv_len];
            let inner = &shape.plain[shape.outer_len.unwrap_or(0)..];
            cases.push(case("seal", inner, iv, of, &keys, shape));
            cases.push(case("open", &sealed, iv, of, &keys, shape));
            expected.push((of, shape, sealed, inner, inbound));
        }
    }
    let answers = scapy(&cases);
    assert_eq!(answers.len(), expected.len() * 2);
    for (answers, (of, shape, sealed, inner, inbound)) in answers.chunks(2).zip(&expected) {
        let [theirs, opened] = answers else { panic!("a pair") };
        let name = format!("{} {}", of.suite, shape.name);
        assert_eq!(opened["packet"].as_str(), Some(&*hex(inner)), "{name}: opened: {opened}");
        let theirs = unhex(theirs["packet"].as_str().unwrap_or_else(|| panic!("{name}: {theirs}")));
        let place = |packet: &[u8]| Place::of(packet, NextHeader::ESP).unwrap().at;
        assert_eq!(theirs[place(&theirs)..], sealed[place(sealed)..], "{name}: sealed");
        assert_eq!(open(inbound, shape, &theirs), *inner, "{name}: opened by us");
    }
    assert!(expected.len() > 500, "{} packets each way", expected.len());
}

#[test]
fn scapy_refuses_esp_that_was_changed() {
    if lacks_scapy() {
        return;
    }
    let of =
        Algorithms { suite: gcm(), encryption: "AES-GCM", icv_size: Some(16), integrity: None };
    let shape = shapes().remove(0);
    let (outbound, _, keys) = ends(of.suite, Mode::Transport, 6);
    let sealed = seal(&outbound, &shape);
    let cases: Vec<_> = [0, 1]
        .map(|change| {
            let mut packet = sealed.clone();
            *packet.last_mut().unwrap() ^= change;
            case("open", &packet, &[], &of, &keys, &shape)
        })
        .into();
    let answers = scapy(&cases);
    assert!(answers[0]["packet"].is_string(), "{}", answers[0]);
    let error = answers[1]["error"].as_str().unwrap();
    assert!(error.contains("IPSecIntegrityError"), "{error}");
}
