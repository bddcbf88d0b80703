use super::keywords::FOREIGN;
use super::*;
use crate::crypto::integ::Integ;

fn help_of<T: core::fmt::Debug>(result: Result<T, Vec<Fault>>) -> String {
    let faults = result.unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    format!("{}; {}", faults[0].wrong.message, faults[0].wrong.help)
}

#[test]
fn an_ike_proposal_lists_what_is_acceptable_in_order() {
    let proposal =
        ike("aes256gcm16-aes128gcm128-prfsha384-prfsha256-x25519-ecp384", false).unwrap();
    let gcm = |bits| Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) };
    assert_eq!(
        proposal,
        IkeProposal {
            encr: vec![gcm(256), gcm(128)],
            integ: vec![],
            prf: vec![PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_256],
            ke: vec![KeId::CURVE25519, KeId::ECP_384],
            addke: Default::default(),
        }
    );
}

#[test]
fn without_a_prf_that_of_the_integrity_keyword_is_taken() {
    let cbc = ike("aes256-sha512-modp2048", false).unwrap();
    assert_eq!(cbc.prf, [PrfId::PRF_HMAC_SHA2_512]);
    assert_eq!(cbc.integ, [IntegId::AUTH_HMAC_SHA2_512_256]);
    let aead = ike("aes256gcm16-sha384-ecp384", false).unwrap();
    assert_eq!(aead.prf, [PrfId::PRF_HMAC_SHA2_384]);
    assert!(aead.integ.is_empty());
    let both = ike("aes128-sha256-prfsha512-x25519", false).unwrap();
    assert_eq!(both.prf, [PrfId::PRF_HMAC_SHA2_512]);
}

#[test]
fn an_esp_proposal_may_have_a_group_and_esn() {
    let plain = esp("aes256gcm16", false).unwrap();
    assert!(plain.ke.is_empty());
    assert_eq!(plain.esn, [EsnId::NO_ESN]);
    let full = esp("aes256-sha256-ecp256-esn-noesn", false).unwrap();
    assert_eq!(full.ke, [KeId::ECP_256]);
    assert_eq!(full.esn, [EsnId::ESN, EsnId::NO_ESN]);
}

#[test]
fn each_fault_is_told_with_what_would_be_right() {
    for (text, expected) in [
        (
            "aes265gcm16-prfsha384-x25519",
            "unknown keyword `aes265gcm16`; did you mean `aes256gcm16`?",
        ),
        ("aes256gcm16-prfsha1-x25519", "`prfsha1` is not supported; nearest that is: `prfsha256`"),
        (
            "aes256gcm16-x25519",
            "the proposal names no PRF; add a PRF, for example \"aes256gcm16-x25519-prfsha384\"",
        ),
        (
            "aes256gcm16-prfsha384",
            "the proposal names no key exchange group; add a key exchange group, for example \"aes256gcm16-prfsha384-x25519\"",
        ),
        (
            "aes256-prfsha384-x25519",
            "the proposal names no integrity; add integrity, for example \"aes256-prfsha384-x25519-sha256\"",
        ),
        (
            "prfsha384-x25519",
            "the proposal names no encryption; begin with encryption, for example \"aes256gcm16-prfsha384-x25519\"",
        ),
        (
            "aes256gcm16-aes256-sha256-prfsha256-x25519",
            "AEADs (gcm, ccm, gmac, chacha20poly1305) do not mix with other encryption in one proposal; make two: \"aes256gcm16-prfsha256-x25519\", \"aes256-sha256-prfsha256-x25519\"",
        ),
        (
            "aes256gcm16-sha256-prfsha256-x25519",
            "`sha256` beside an AEAD; an AEAD protects integrity by itself: leave out `-sha256`",
        ),
        (
            "aes256gcm16-prfsha256-x25519-esn",
            "`esn` is about ESP's sequence numbers, which IKE has not; it belongs in [esp] proposals: leave out `-esn`",
        ),
    ] {
        assert_eq!(help_of(ike(text, false)), expected);
    }
    assert!(help_of(esp("aes256gcm16-sha256", false)).contains("beside an AEAD"));
    assert!(help_of(esp("aes256gcm16-prfsha256", false)).contains("belong in [ike]"));
    assert!(help_of(esp("aes256", false)).contains("\"aes256-sha256\""));
    assert!(help_of(esp("", false)).contains("a keyword is missing"));
    assert!(help_of(esp("aes256gcm16,aes128gcm16", false)).contains("strings of their own"));
}

#[test]
fn all_faults_of_a_proposal_are_found_and_placed() {
    let faults = ike("aes256gmc16-prfsha348-x25519", false).unwrap_err();
    assert_eq!(faults.iter().map(|f| f.at.clone()).collect::<Vec<_>>(), [0..11, 12..21]);
}

#[test]
fn defaults_and_every_keyword_render_as_they_are_read() {
    for text in DEFAULT_IKE {
        assert_eq!(render_ike(&ike(text, false).unwrap()), *text);
    }
    for text in DEFAULT_ESP {
        assert_eq!(render_child(&esp(text, false).unwrap()), *text);
    }
    assert_eq!(
        render_child(&esp("aes128-sha512-modp4096-esn", false).unwrap()),
        "aes128-sha512-modp4096-esn"
    );
}

#[test]
fn every_keyword_renders_as_itself_or_its_first_name() {
    let mut written = 0;
    for (word, transform) in KEYWORDS {
        let (first, _) = KEYWORDS.iter().find(|(_, known)| known == transform).unwrap();
        let around = |word: &str| match transform {
            Transform::Encr(encr) if encr.id.is_aead() => Some(word.to_owned()),
            Transform::Encr(_) => Some(format!("{word}-sha256")),
            Transform::Integ(..) => Some(format!("aes256-{word}")),
            Transform::Ke(_) => Some(format!("aes256gcm16-{word}")),
            Transform::Esn(_) | Transform::Prf(_) => None,
        };
        let (Some(text), Some(first)) = (around(word), around(first)) else { continue };
        assert_eq!(render_child(&esp(&text, true).unwrap()), first);
        written += 1;
    }
    assert!(written > 60, "{written}");
}

#[test]
fn what_the_parser_takes_the_datapath_has() {
    for (word, transform) in KEYWORDS {
        match *transform {
            Transform::Encr(encr) => assert!(encr.keymat_len().is_some(), "{word}"),
            Transform::Integ(id, _) => assert!(Integ::key_len(id).is_some(), "{word}"),
            Transform::Esn(_) | Transform::Ke(_) | Transform::Prf(_) => {}
        }
    }
}

#[test]
fn legacy_algorithms_must_be_allowed() {
    for (word, section, result) in [
        ("sha1", "[esp]", esp("aes128-sha1", false).map(drop)),
        ("sha", "[esp]", esp("null-sha", false).map(drop)),
        ("sha256_96", "[esp]", esp("aes128ctr-sha256_96", false).map(drop)),
        ("sha1", "[[manual]]", esp_suite("aes128-sha1", false).map(drop)),
        ("sha1", "[[manual]]", ah_suite("sha1", false).map(drop)),
        ("sha1", "[ike]", ike("aes128-sha1-prfsha256-x25519", false).map(drop)),
    ] {
        let help = help_of(result);
        assert!(help.starts_with(&format!("`{word}` is not safe enough: ")), "{help}");
        assert!(help.contains("take `sha256`"), "{help}");
        assert!(help.ends_with(&format!("`allow-legacy = true` in {section}")), "{help}");
    }
    assert_eq!(esp("aes128-sha1", true).unwrap().integ, [IntegId::AUTH_HMAC_SHA1_96]);
    assert_eq!(esp_suite("aes128-sha1", true).unwrap().integ, IntegId::AUTH_HMAC_SHA1_96);
    assert_eq!(ah_suite("sha1", true).unwrap().integ, IntegId::AUTH_HMAC_SHA1_96);
    let ike = ike("aes128-sha1-prfsha256-x25519", true).unwrap();
    assert_eq!(ike.integ, [IntegId::AUTH_HMAC_SHA1_96]);
    // RFC 8221 §6: of XCBC and CMAC nothing bad is said.
    assert!(esp("aes128-aesxcbc", false).is_ok() && esp("aes128-aescmac", false).is_ok());
    // MUST NOT: there is nothing to allow.
    for text in ["3des-sha256", "aes128-md5"] {
        assert!(help_of(esp(text, true)).contains("is not supported"), "{text}");
    }
}

#[test]
fn gmac_is_an_integrity_transform_where_it_stands_for_ah() {
    for (word, integ) in [
        ("aes128gmac", IntegId::AUTH_AES_128_GMAC),
        ("aes192gmac", IntegId::AUTH_AES_192_GMAC),
        ("aes256gmac-esn", IntegId::AUTH_AES_256_GMAC),
    ] {
        assert_eq!(ah_suite(word, false).unwrap().integ, integ);
    }
    let help = help_of(ah_suite("aes256gcm16", false));
    assert!(help.starts_with("AH encrypts nothing"), "{help}");
    let help = help_of(ah_suite("aes256gmac-sha256", false));
    assert!(help.starts_with("manual keys are for one algorithm"), "{help}");
}

#[test]
fn encryption_without_integrity_is_refused_whatever_is_allowed() {
    for text in ["aes128", "aes256ctr", "null", "null-aes192ctr-esn"] {
        for legacy in [false, true] {
            let help = help_of(esp(text, legacy));
            assert!(help.contains(&format!("add integrity, for example \"{text}-sha256\"")));
        }
    }
}

#[test]
fn what_is_for_esp_only_is_refused_in_ike() {
    for word in [
        "null",
        "aes128ctr",
        "aes128gmac",
        "aes256gcm16iiv",
        "chacha20poly1305iiv",
        "aes128ccm8iiv",
    ] {
        let help = help_of(ike(&format!("{word}-sha256-x25519"), true));
        assert!(help.starts_with(&format!("`{word}` is for ESP only; ")), "{help}");
    }
    for word in ["aes128gcm8", "aes192gcm12", "aes256ccm16", "chacha20poly1305"] {
        assert!(ike(&format!("{word}-prfsha256-x25519"), false).is_ok(), "{word}");
    }
}

#[test]
fn integrity_that_has_no_prf_of_ours_wants_one_named() {
    let help = help_of(ike("aes128-aesxcbc-x25519", false));
    assert!(help.contains("add a PRF, for example \"aes128-aesxcbc-x25519-prfsha256\""), "{help}");
    assert!(ike("aes128-aesxcbc-prfsha256-x25519", false).is_ok());
}

#[test]
fn gmac_is_an_integrity_algorithm_in_ah() {
    assert_eq!(ah_suite("aes256gmac", false).unwrap().integ, IntegId::AUTH_AES_256_GMAC);
    assert!(help_of(ah_suite("aes128gmac-sha256", false)).contains("one algorithm of each"));
    assert!(help_of(ah_suite("aes128gcm16", false)).contains("AH encrypts nothing"));
}

#[test]
fn additional_key_exchanges_are_written_as_strongswan_writes_them() {
    let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none-ke3_ecp384";
    let proposal = ike(text, false).unwrap();
    assert_eq!(proposal.addke[0], [KeId::ML_KEM_768, KeId::NONE]);
    assert!(proposal.addke[1].is_empty());
    assert_eq!(proposal.addke[2], [KeId::ECP_384]);
    assert_eq!(render_ike(&proposal), text);
    let upper = ike("AES256GCM16-PRFSHA384-X25519-KE1_MLKEM768", false).unwrap();
    assert_eq!(upper.addke[0], [KeId::ML_KEM_768]);
    assert_eq!(ike("aes256gcm16-prfsha384-mlkem1024", false).unwrap().ke, [KeId::ML_KEM_1024]);
}

#[test]
fn additional_key_exchanges_that_cannot_be_are_refused() {
    for (text, expected) in [
        ("aes256gcm16-prfsha384-ke1_mlkem768", "and there is no first; add one before it"),
        ("aes256gcm16-prfsha384-x25519-ke1_x25519", "`x25519` would be made twice"),
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_mlkem768", "`mlkem768` would be"),
        ("aes256gcm16-prfsha384-x25519-ke8_mlkem768", "unknown keyword `ke8_mlkem768`"),
        ("aes256gcm16-prfsha384-x25519-ke0_mlkem768", "unknown keyword `ke0_mlkem768`"),
        ("aes256gcm16-prfsha384-x25519-ke1_aes256", "unknown keyword `ke1_aes256`"),
    ] {
        let help = help_of(ike(text, false));
        assert!(help.contains(expected), "{help}");
    }
    let help = help_of(esp_suite("aes256gcm16-x25519-ke1_mlkem768", false));
    assert!(help.contains("manual keys have no key exchange"), "{help}");
}

#[test]
fn every_keyword_has_an_implementation() {
    for (name, transform) in FOREIGN
        .iter()
        .map(|(_, name)| (*name, KEYWORDS.iter().find(|(word, _)| word == name).map(|(_, t)| *t)))
    {
        assert!(transform.is_some(), "{name} is recommended but unknown");
    }
}
