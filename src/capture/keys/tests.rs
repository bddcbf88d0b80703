use super::*;
use crate::ipsec::suite::AddKe;
use crate::wire::ike::numbers::{KeId, PrfId};

fn ring(text: &str) -> KeyRing {
    KeyRing::read("keys", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

fn errors(text: &str) -> Vec<String> {
    KeyRing::read("keys", text).expect_err(text).iter().map(ToString::to_string).collect()
}

fn sa(algorithms: Algorithms, encr_key: usize, integ_key: usize) -> SaKey {
    SaKey {
        origin: "keys:1".to_owned(),
        protocol: if algorithms.encr.is_some() { Protocol::Esp } else { Protocol::Ah },
        src: AddrPattern::any_of(false),
        dst: AddrPattern::exactly("10.0.0.1".parse().unwrap()),
        spi: SpiPattern::exactly(0xc000_0001),
        algorithms: Ok(algorithms),
        encr_key: Secret::new((0..encr_key).map(|i| u8::try_from(i).unwrap()).collect()),
        integ_key: Secret::new(vec![0xa5; integ_key]),
        esn: false,
        start: Start::Within(0),
        replay_window: None,
        mode: None,
        selectors: None,
    }
}

fn all_algorithms() -> Vec<SaKey> {
    let encr = |id, len: usize| encr_of(id, len).unwrap();
    let integs = [
        (Integrity::Full(IntegId::AUTH_HMAC_SHA1_96), 20),
        (Integrity::Full(IntegId::AUTH_AES_XCBC_96), 16),
        (Integrity::Full(IntegId::AUTH_AES_CMAC_96), 16),
        (Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_128), 32),
        (Integrity::Full(IntegId::AUTH_HMAC_SHA2_384_192), 48),
        (Integrity::Full(IntegId::AUTH_HMAC_SHA2_512_256), 64),
        (Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_96), 32),
        (Integrity::Unchecked(0), 0),
        (Integrity::Unchecked(12), 0),
    ];
    let mut all = Vec::new();
    for (integrity, integ_key) in integs {
        for (id, lens) in [
            (EncrId::ENCR_NULL, &[0][..]),
            (EncrId::ENCR_AES_CBC, &[16, 24, 32]),
            (EncrId::ENCR_AES_CTR, &[20, 28, 36]),
        ] {
            for &len in lens {
                all.push(sa(Algorithms { encr: Some(encr(id, len)), integrity }, len, integ_key));
            }
        }
        if !matches!(integrity, Integrity::Unchecked(_)) {
            all.push(sa(Algorithms { encr: None, integrity }, 0, integ_key));
        }
    }
    for &id in EncrId::KNOWN.iter().filter(|id| id.is_aead()) {
        for len in [16, 24, 32] {
            for salt in [3, 4] {
                if let Ok(encr) = encr_of(id, len + salt) {
                    let algorithms = Algorithms { encr: Some(encr), integrity: Integrity::Aead };
                    all.push(sa(algorithms, len + salt, 0));
                }
            }
        }
    }
    all
}

#[test]
fn every_sa_that_is_written_is_read_back() {
    let all = all_algorithms();
    assert!(all.len() > 80, "{}", all.len());
    for written in all {
        for esn in [false, true] {
            let start = Start::Within(if esn { 7 } else { 0 });
            let written = SaKey { esn, start, ..written.clone() };
            let row = esp_sa::write(&written).unwrap();
            let read = ring(&row).sas.pop().unwrap_or_else(|| panic!("{row}"));
            assert_eq!(format!("{read:?}"), format!("{written:?}"), "{row}");
            assert_eq!(read.encr_key, written.encr_key);
            assert_eq!(read.integ_key, written.integ_key);
        }
    }
}

#[test]
fn rows_for_wireshark_are_as_wireshark_writes_them() {
    let gcm = Algorithms {
        encr: Some(encr_of(EncrId::ENCR_AES_GCM_16, 20).unwrap()),
        integrity: Integrity::Aead,
    };
    let row = r#""IPv4","*","10.0.0.1","0xc0000001","AES-GCM with 16 octet ICV [RFC4106]","0x000102030405060708090a0b0c0d0e0f10111213","NULL","""#;
    assert_eq!(esp_sa::write(&sa(gcm, 20, 0)).unwrap(), row);
    let ccm = Algorithms {
        encr: Some(encr_of(EncrId::ENCR_AES_CCM_16, 19).unwrap()),
        integrity: Integrity::Aead,
    };
    assert!(esp_sa::write(&sa(ccm, 19, 0)).unwrap().starts_with("#ipsecd \"IPv4\""));
}

#[test]
fn every_ike_sa_that_is_written_is_read_back() {
    let (spi_i, spi_r) = (IkeSpi(0x0102_0304_0506_0708), IkeSpi(9));
    let mut rows = 0;
    for &id in EncrId::KNOWN {
        for len in [16, 19, 20, 24, 27, 28, 32, 35, 36] {
            let Ok(encr) = encr_of(id, len) else { continue };
            let integs: &[_] = if id.is_aead() {
                &[(IntegId::NONE, 0)]
            } else {
                &[
                    (IntegId::AUTH_HMAC_SHA1_96, 20),
                    (IntegId::AUTH_AES_XCBC_96, 16),
                    (IntegId::AUTH_HMAC_SHA2_256_128, 32),
                    (IntegId::AUTH_HMAC_SHA2_384_192, 48),
                    (IntegId::AUTH_HMAC_SHA2_512_256, 64),
                ]
            };
            for &(integ, integ_len) in integs {
                let key = |len, byte| Secret::new(vec![byte; len]);
                let (ei, er) = (key(len, 1), key(len, 2));
                let (ai, ar) = (key(integ_len, 3), key(integ_len, 4));
                let row = ikev2::write(&ikev2::Row {
                    spi_i,
                    spi_r,
                    encr,
                    integ,
                    sk_ei: &ei,
                    sk_er: &er,
                    sk_ai: &ai,
                    sk_ar: &ar,
                });
                let read = ring(&row).ike;
                let suite =
                    IkeSuite { encr, integ, prf: PrfId(0), ke: KeId::NONE, addke: AddKe::NONE };
                assert_eq!(read.len(), 2, "{row}");
                for (read, initiator, e, a) in [(&read[0], true, ei, ai), (&read[1], false, er, ar)]
                {
                    assert_eq!((read.spi_i, read.spi_r), (spi_i, spi_r), "{row}");
                    assert_eq!(read.suite, Ok(suite), "{row}");
                    assert_eq!((read.initiator, &read.sk_e, &read.sk_a), (initiator, &e, &a));
                }
                rows += 1;
            }
        }
    }
    assert!(rows > 50, "{rows}");
}

#[test]
fn secrets_of_tcpdump_are_read() {
    let key = "00112233445566778899aabbccddeeff";
    let read = ring(&format!(
        "# a comment\n\n\
         0x12345678@192.1.2.45 3des-cbc-hmac96:0x{key}{key}\n\
         0xd1234567@192.1.2.45 \t aes256-cbc-hmac96:0x{key}{key}\n\
         256@fd00::1 aes-128-cbc:0x{key}ffff\n\
         none:\n\
         ikev2 I 0x0001020304050607 0xc02e7a3031a03188 sha1:0x{key}00112233 aes128:0x{key}\n"
    ));
    let [des, aes, short, null] = &read.sas[..] else { panic!("{read:?}") };
    let triple = Encr { id: EncrId::ENCR_3DES, key_bits: None };
    let des_algorithms = Algorithms { encr: Some(triple), integrity: Integrity::Unchecked(12) };
    assert_eq!((&des.algorithms, des.encr_key.len()), (&Ok(des_algorithms), 24));
    let cbc = |bits| Some(Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(bits) });
    let unchecked = Integrity::Unchecked;
    assert_eq!(aes.algorithms, Ok(Algorithms { encr: cbc(256), integrity: unchecked(12) }));
    assert!(aes.spi.matches(0xd123_4567) && !aes.dst.matches("192.1.2.46".parse().unwrap()));
    assert_eq!(short.algorithms, Ok(Algorithms { encr: cbc(128), integrity: unchecked(0) }));
    assert_eq!(short.encr_key.len(), 16, "as much as it needs");
    assert!(null.spi == SpiPattern::ANY && null.dst == AddrPattern::Any);
    let [ike] = &read.ike[..] else { panic!("{read:?}") };
    assert_eq!((ike.initiator, ike.sk_e.len(), ike.sk_a.len()), (true, 16, 20));
}

#[test]
fn several_secrets_of_tcpdump_may_stand_in_a_line() {
    let key = "00112233445566778899aabbccddeeff";
    let read = ring(&format!(
        "0x100@192.1.2.45 aes128-cbc:0x{key},0x101@fd00::1 3des-cbc-hmac96:0x{key}{key}, aes128:0x{key}"
    ));
    let spis: Vec<_> = read.sas.iter().map(|sa| sa.spi.to_string()).collect();
    assert_eq!(spis, ["0x00000100", "0x00000101", "*"]);
    // A comma of a secret that is text.
    let read = ring("0x100@192.1.2.45 aes128-cbc:sixteen,letters,and");
    assert_eq!(read.sas.len(), 1);
    let wrong = "0x100@192.1.2.45 none:,0x101@192.1.2.45 aes128-cbc:0x00";
    assert_eq!(errors(wrong), ["1:52: a secret of 1 bytes; aes128-cbc takes 16"]);
}

#[test]
fn old_names_and_unchecked_authentication_are_understood() {
    let row = |encr: &str, auth: &str, key: &str| {
        ring(&format!("\"Any\",\"*\",\"*\",\"*\",\"{encr}\",\"0x{key}\",\"{auth}\",\"\""))
            .sas
            .remove(0)
            .algorithms
    };
    let key = "00".repeat(20);
    let id = |algorithms: Result<Algorithms, String>| algorithms.unwrap().encr.unwrap().id;
    assert_eq!(id(row("AES-GCM [RFC4106]", "NULL", &key)), EncrId::ENCR_AES_GCM_16);
    let any = "ANY 96 bit authentication [no checking]";
    assert_eq!(id(row("AES-GCM [RFC4106]", any, &key)), EncrId::ENCR_AES_GCM_12);
    let cbc = row("AES-CBC [RFC3602]", "HMAC-MD5-96 [RFC2403]", &"00".repeat(16));
    assert_eq!(cbc.unwrap().integrity, Integrity::Unchecked(12));
    let des = row("TripleDES-CBC [RFC2451]", any, &"00".repeat(24));
    assert_eq!(id(des), EncrId::ENCR_3DES);
    let des = row("BLOWFISH-CBC [RFC2451]", any, &"00".repeat(24));
    assert_eq!(des, Err("blowfish-cbc".to_owned()));
    // Its key is no matter to Wireshark.
    assert_eq!(id(row("NULL", any, &key)), EncrId::ENCR_NULL);
}

#[test]
fn errors_have_line_and_column_and_come_all_at_once() {
    let good = r#""IPv4","*","*","0x100","NULL","","NULL","""#;
    let cases = [
        (r#""IPv4","*","*""#, "1:15: 3 fields; an SA has 8 or 10"),
        (
            r#""IPv5","*","*","0x100","NULL","","NULL","""#,
            r#"1:1: "IPv5" is none of IPv4, IPv6, Any"#,
        ),
        (
            r#""IPv4","x","*","0x100","NULL","","NULL","""#,
            r#"1:8: "x" is no IPv4 address, prefix or *"#,
        ),
        (
            r#""IPv4","*","*","spi","NULL","","NULL","""#,
            r#"1:16: "spi" is no SPI, such as 0x12345678, and not *"#,
        ),
        (
            r#""IPv4","*","*","*","ROT13","0x00","NULL","""#,
            r#"1:20: "rot13" is no encryption algorithm"#,
        ),
        (r#""IPv4","*","*","*","AES-CBC [RFC3602]","0x0g","NULL","""#, "1:44: not a hex digit"),
        (
            r#""IPv4","*","*","*","AES-CBC [RFC3602]","0x00","NULL","""#,
            "1:40: a key of 1 bytes; ENCR_AES_CBC takes 16, 24 or 32",
        ),
        (
            r#""IPv4","*","*","*","NULL","","CRC","""#,
            r#"1:30: "CRC" is no authentication algorithm"#,
        ),
        (
            r#""IPv4","*","*","*","NULL","","NULL","","48-bit","0""#,
            "1:40: neither 32-bit nor 64-bit",
        ),
        ("0102030405060708,01,00,00", "1:26: 4 fields; an IKE SA has 8"),
        ("0102030405060708,01,00,00,\"x\",,,\"x\"", "1:18: an SPI of IKE has 16 hex digits"),
        ("0x100@10.0.0.1 rot13:0x00", "1:16: \"rot13\" is no algorithm, such as aes256-cbc-hmac96"),
        ("0x100@10.0.0 aes128-cbc:0x00", "1:7: \"10.0.0\" is no IP address"),
        ("0x100@10.0.0.1 aes128-cbc:0x00", "1:27: a secret of 1 bytes; aes128-cbc takes 16"),
        (
            "what is this",
            "1:1: neither a row of esp_sa or ikev2_decryption_table nor SPI@ADDRESS ALGORITHM:SECRET",
        ),
    ];
    for (text, error) in cases {
        assert_eq!(errors(text), [error], "{text}");
    }
    let both = errors(&format!("{good}\nhello you two\n  # \"é\"x\n{good}\nuat:esp_sa: \"x\n"));
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[0].starts_with("2:1: ") && both[1].starts_with("5:15: "), "{both:?}");
}

#[test]
fn json_is_read_and_its_errors_have_a_place() {
    let sa = r#"{"name": "a", "proto": "esp", "mode": "tunnel", "spi": "0xc0000001",
        "src": "10.0.0.1", "dst": "10.0.0.2", "esn": true, "initial_oseq": 5, "replay_window": 64,
        "aead": {"linux": "rfc4106(gcm(aes))", "key": "00112233445566778899aabbccddeeff",
                 "salt": "01020304", "icv_bits": 128},
        "encap": {"type": "espinudp", "sport": 34567, "dport": 4500},
        "selector": {"src": "10.1.0.0/16", "dst": "10.2.0.0/16"}}"#;
    let file = format!("{{\"format\": \"ipsec-lab-capture/1\", \"sas\": [{sa}]}}");
    let read = ring(&file);
    let [key] = &read.sas[..] else { panic!("{read:?}") };
    assert_eq!((key.start, key.esn, key.replay_window), (Start::After(5), true, Some(64)));
    assert_eq!(key.encr_key.len(), 20);
    assert!(read.ports.contains(&34567));
    // What is null is as if it were not there.
    let nothing = file
        .replace(
            "\"esn\": true, \"initial_oseq\": 5, \"replay_window\": 64",
            "\"esn\": null, \"initial_oseq\": null, \"replay_window\": null",
        )
        .replace("\"sas\"", "\"ike_sas\": null, \"sas\"");
    let read = ring(&nothing);
    let key = &read.sas[0];
    assert_eq!((key.start, key.esn, key.replay_window), (Start::After(0), false, None));
    for (from, to, error) in [
        ("capture/1", "capture/2", "1:"),
        ("0xc0000001", "c0000001", "1:"),
        ("8899aabb", "8899aabx", "3:"),
        ("10.1.0.0/16", "10.1.0.0/36", "6:"),
        ("}]}", "}]", "6:"),
    ] {
        let wrong = errors(&file.replace(from, to));
        assert!(wrong[0].starts_with(error), "{wrong:?}");
        assert!(!wrong[0].contains("aabb"), "no key in an error: {wrong:?}");
    }
    let other = file.replace("rfc4106(gcm(aes))", "gcm(sm4)");
    assert_eq!(ring(&other).sas[0].algorithms, Err("gcm(sm4) with an ICV of 128 bits".to_owned()));
}

#[test]
fn no_key_is_in_a_debug_print() {
    let text = "0xd1234567@192.1.2.45 aes128-cbc:0x00112233445566778899aabbccddeeff";
    let printed = format!("{:?}", ring(text));
    assert!(!printed.contains("00112233") && !printed.contains("17, 34"), "{printed}");
}
