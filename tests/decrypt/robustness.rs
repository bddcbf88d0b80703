//! Mutated captures and key files: errors and verdicts, never a panic, and never a packet that was not there.

use std::collections::BTreeSet;

use ipsecd::capture::{CaptureReader, KeyRing, Opener};
use ipsecd::crypto::SecureRandom;
use ipsecd::testing::FixedRandom;

use crate::{Case, pcapng};

/// Changes, inserts or removes some bytes.
fn mutate(bytes: &[u8], rng: &mut FixedRandom) -> Vec<u8> {
    let mut next = |below: usize| {
        let mut bytes = [0; 4];
        rng.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % below.max(1)
    };
    let mut out = bytes.to_vec();
    for _ in 0..=next(4) {
        let at = next(out.len());
        match next(5) {
            0 => out.truncate(at),
            1 => out.insert(at, next(256).to_le_bytes()[0]),
            2 if !out.is_empty() => drop(out.remove(at)),
            3 if !out.is_empty() => out[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
            _ if !out.is_empty() => out[at] ^= 1 << next(8),
            _ => {}
        }
    }
    out
}

#[test]
fn no_mutated_capture_panics_or_gives_a_packet_that_was_not_in_it() {
    let mut rng = FixedRandom::new(1, 0);
    for name in
        ["esp-tun4-aes256gcm16", "espesn-cross-aes256ctr-sha384", "esp-frag-tun-4in6-aes256gcm16"]
    {
        let case = Case::named("kernel", name);
        let genuine: BTreeSet<_> = case.plain().into_iter().collect();
        let classic = std::fs::read(&case.wire).unwrap();
        for file in [classic, pcapng(&case.wire())] {
            for _ in 0..300 {
                let mutated = mutate(&file, &mut rng);
                let Ok(mut reader) = CaptureReader::new(&*mutated) else { continue };
                let mut opener = Opener::new(case.ring());
                while let Ok(Some(frame)) = reader.next_frame() {
                    let record = opener.frame(&frame);
                    let _printed = record.to_string();
                    let Some(mut inner) = record.inner else { continue };
                    if !genuine.contains(&inner) {
                        // Congestion on the outer header is copied in (RFC 6040).
                        assert_eq!(inner[1] & 3, 3, "{name}: {inner:02x?}");
                        inner[1] &= !3;
                    }
                }
            }
        }
    }
}

#[test]
fn no_mutated_key_file_panics() {
    let case = Case::named("ike", "ike-frag-v6");
    let json = std::fs::read(&case.json).unwrap();
    let table = b"\"IPv4\",\"*\",\"10.*.0.1\",\"0x12****78\",\"AES-CBC [RFC3602]\",\"0x00112233445566778899aabbccddeeff\",\"NULL\",\"\",\"64-bit\",\"1f\"\n\
        0102030405060708,1112131415161718,00112233445566778899aabbccddeeff,00112233445566778899aabbccddeeff,\"AES-CBC-128 [RFC3602]\",,,\"NONE [RFC4306]\"\n\
        0xd1234567@192.1.2.45 aes128-cbc-hmac96:0x00112233445566778899aabbccddeeff\n\
        ikev2 I 0x0102030405060708 0x1112131415161718 sha1:0x00 aes128:0x00112233445566778899aabbccddeeff\n";
    assert!(KeyRing::read("keys", core::str::from_utf8(table).unwrap()).is_ok());
    let mut rng = FixedRandom::new(2, 0);
    let (mut good, mut bad) = (0, 0);
    for (file, times) in [(&table[..], 20_000), (&json[..], 300)] {
        for _ in 0..times {
            let mutated = mutate(file, &mut rng);
            match KeyRing::read("keys", &String::from_utf8_lossy(&mutated)) {
                Ok(_) => good += 1,
                Err(errors) => {
                    bad += 1;
                    assert!(errors.iter().all(|error| error.line > 0 && error.column > 0));
                    assert!(!format!("{errors:?}").contains("0011223344"), "{errors:?}");
                }
            }
        }
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}
