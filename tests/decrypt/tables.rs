//! Keys as Wireshark's tables and as tcpdump's secrets open the same captures.

use ipsecd::capture::keys::{AddrPattern, Integrity, SaKey, SpiPattern, esp_sa, ikev2};
use ipsecd::capture::{Frame, Inside, KeyRing, Opener, Verdict};
use ipsecd::wire::ike::numbers::EncrId;

use crate::{Case, opened, records, verdicts};

/// The row of an SA, its IP version as on the wire.
fn row(sa: &SaKey) -> String {
    esp_sa::write(sa).unwrap_or_else(|| panic!("{sa:?}"))
}

#[test]
fn rows_of_esp_sa_open_every_capture_of_the_kernel() {
    let mut cases = 0;
    for case in Case::of_kernel("") {
        let rows: Vec<_> = case.ring().sas.iter().map(row).collect();
        let mut ring = KeyRing::read("esp_sa", &rows.join("\n")).unwrap();
        assert_eq!(ring.sas.len(), rows.len());
        // What the table does not say: the window, by which replays are told from those that are too old.
        for (sa, known) in ring.sas.iter_mut().zip(case.ring().sas) {
            sa.replay_window = known.replay_window;
        }
        ring.ports = case.ring().ports;
        assert_eq!(opened(ring, &case.wire()), case.plain(), "{}", case.name);
        cases += 1;
    }
    assert!(cases >= 70, "{cases}");
}

#[test]
fn a_capture_that_begins_in_the_middle_of_an_sa_is_opened() {
    for name in ["espesn-cross-aes128gcm16", "esp-tun4-aes256gcm16", "ah-esn-cross-tun6-sha512"] {
        let case = Case::named("kernel", name);
        let rows: Vec<_> = case.ring().sas.iter().map(row).collect();
        for skip in [1, 3] {
            let ring = KeyRing::read("esp_sa", &rows.join("\n")).unwrap();
            assert_eq!(opened(ring, &case.wire()[skip..]), case.plain()[skip..], "{name}");
        }
    }
}

#[test]
fn wildcards_open_what_they_match() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let mut ring = case.ring();
    for sa in &mut ring.sas {
        (sa.src, sa.dst) = (AddrPattern::Any, AddrPattern::any_of(false));
        sa.spi = SpiPattern::ANY;
    }
    assert_eq!(opened(ring.clone(), &case.wire()), case.plain(), "each key is tried");
    for sa in &mut ring.sas {
        sa.dst = AddrPattern::any_of(true);
    }
    assert_eq!(
        opened(ring, &case.wire()),
        case.plain(),
        "addresses change on the way; the ICV decides"
    );
}

#[test]
fn rows_of_the_ike_table_open_every_message() {
    let mut messages = 0;
    for name in ["ike-psk-modp2048-aes128-sha256", "ike-frag-v6", "ike-psk-aes128ccm16-ecp256"] {
        let case = Case::named("ike", name);
        let ring = case.ring();
        let mut rows = Vec::new();
        for pair in ring.ike.chunks(2) {
            let [i, r] = pair else { panic!("two directions") };
            let suite = i.suite.clone().unwrap();
            rows.push(ikev2::write(&ikev2::Row {
                spi_i: i.spi_i,
                spi_r: i.spi_r,
                encr: suite.encr,
                integ: suite.integ,
                sk_ei: &i.sk_e,
                sk_er: &r.sk_e,
                sk_ai: &i.sk_a,
                sk_ar: &r.sk_a,
            }));
        }
        let ring = KeyRing::read("ikev2", &rows.join("\n")).unwrap();
        for record in records(&mut Opener::new(ring), &case.wire()) {
            let Verdict::Ike(message) = record.verdict else { continue };
            assert!(
                matches!(
                    message.inside,
                    Inside::Clear | Inside::Opened(_) | Inside::Fragment { .. }
                ),
                "{name}: {message}"
            );
            messages += usize::from(matches!(message.inside, Inside::Opened(_)));
        }
    }
    assert!(messages > 15, "{messages}");
}

/// The line of tcpdump's `-E` for an SA with AES-CBC or no encryption.
fn secret(sa: &SaKey) -> Option<String> {
    let algorithms = sa.algorithms.clone().unwrap();
    let cipher = match algorithms.encr?.id {
        EncrId::ENCR_AES_CBC => format!("aes{}-cbc", sa.encr_key.len() * 8),
        _ => return None,
    };
    let Integrity::Full(integ) = algorithms.integrity else { return None };
    // It knows ICVs of 96 bits and no other.
    let icv_len = ipsecd::crypto::integ::Integ::icv_len(integ)?;
    let key: String = sa.encr_key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    (icv_len == 12).then(|| format!("{}@{} {cipher}-hmac96:0x{key}", sa.spi, sa.dst))
}

#[test]
fn secrets_of_tcpdump_open_what_they_can_and_say_that_nothing_was_verified() {
    let mut cases = 0;
    for case in Case::of_kernel("esp-tun4") {
        let lines: Vec<_> = case.ring().sas.iter().filter_map(secret).collect();
        if lines.is_empty() {
            continue;
        }
        let read = || KeyRing::read("secrets", &lines.join("\n")).unwrap();
        let mut opener = Opener::new(read());
        let found = records(&mut opener, &case.wire());
        assert_eq!(verdicts(&found), ["unverified"], "{}", case.name);
        assert_eq!(opened(read(), &case.wire()), case.plain(), "{}", case.name);
        assert!(opener.findings().is_empty());
        cases += 1;

        // A wrong key: nonsense, and never garbage for a packet.
        let mut wrong = read();
        for sa in &mut wrong.sas {
            let mut key = sa.encr_key.expose().to_vec();
            key[3] ^= 0x10;
            sa.encr_key = ipsecd::crypto::Secret::new(key);
        }
        let mut opener = Opener::new(wrong);
        let found = records(&mut opener, &case.wire());
        assert_eq!(verdicts(&found), ["bad-padding"], "{}", case.name);
        let finding = &opener.findings()[0];
        assert!(finding.text.contains("nonsense"), "{finding:?}");
    }
    assert!(cases >= 3, "{cases} cases with AES-CBC and 96 bits");
}

#[test]
fn an_algorithm_that_is_not_ours_is_named() {
    let case = Case::named("kernel", "esp-tun4-aes128-sha1");
    let key = "43434545464649494a4a4c4c4f4f5151";
    let spi = case.ring().sas[0].spi;
    let dst = case.ring().sas[0].dst;
    for (text, name) in [
        (format!("{spi}@{dst} blowfish-cbc-hmac96:0x{key}"), "blowfish-cbc-hmac96"),
        (
            format!(
                "\"IPv4\",\"*\",\"*\",\"{spi}\",\"BLOWFISH-CBC [RFC2451]\",\"0x{key}\",\"NULL\",\"\""
            ),
            "blowfish-cbc",
        ),
    ] {
        let ring = KeyRing::read("keys", &text).unwrap();
        let to_dst: Vec<Frame> = case.wire().into_iter().step_by(2).collect();
        let records = records(&mut Opener::new(ring), &to_dst[..1]);
        let line = records[0].to_string();
        assert!(line.ends_with(&format!("algorithm not supported: {name}")), "{line}");
    }
}
