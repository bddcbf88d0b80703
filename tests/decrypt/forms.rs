//! Captures in every form: link types, fragments, damage; keys that do not fit.

use ipsecd::capture::{Frame, LinkType, Opener, Verdict};
use ipsecd::ipsec::DropReason;

use crate::{Case, frames, opened, pcapng, records, verdicts};

/// The IP packets of an Ethernet capture behind another header.
fn behind(frames: &[Frame], link: LinkType, header: impl Fn(bool) -> Vec<u8>) -> Vec<Frame> {
    let one = |frame: &Frame| {
        let packet = &frame.data[14..];
        let data = [header(packet[0] >> 4 == 6), packet.to_vec()].concat();
        let original_len = u32::try_from(data.len()).unwrap();
        Frame { time: frame.time, link, data, original_len }
    };
    frames.iter().map(one).collect()
}

#[test]
fn every_link_type_gives_the_same_packets_in_pcapng_too() {
    for name in ["esp-tun4-aes256gcm16", "espudp-tun6-aes256gcm16", "ah-trn4-sha256"] {
        let case = Case::named("kernel", name);
        let (wire, plain) = (case.wire(), case.plain());
        let ethertype = |v6| if v6 { [0x86, 0xdd] } else { [8, 0] };
        let sll = |v6| [&[0; 14][..], &ethertype(v6)].concat();
        let sll2 = |v6| [&ethertype(v6)[..], &[0; 18]].concat();
        let vlan = |v6| [&[0; 12][..], &[0x81, 0, 0, 7], &ethertype(v6)].concat();
        let qinq = |v6| [&[0; 12][..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 7], &ethertype(v6)].concat();
        let null = |v6| vec![if v6 { 30 } else { 2 }, 0, 0, 0];
        let forms = [
            wire.clone(),
            behind(&wire, LinkType::RAW, |_| Vec::new()),
            behind(&wire, LinkType::LINUX_SLL, sll),
            behind(&wire, LinkType::LINUX_SLL2, sll2),
            behind(&wire, LinkType::ETHERNET, vlan),
            behind(&wire, LinkType::ETHERNET, qinq),
            behind(&wire, LinkType::NULL, null),
        ];
        for form in forms {
            let read = frames(&pcapng(&form));
            assert_eq!(read, form, "{name}");
            assert_eq!(opened(case.ring(), &read), plain, "{name}, {}", form[0].link);
        }
    }
}

#[test]
fn fragments_in_another_order_and_twice_give_the_same_packets() {
    for name in ["esp-frag-tun4-aes256gcm16", "esp-frag-trn6-aes256gcm16", "ah-frag-tun4-sha1"] {
        let case = Case::named("kernel", name);
        let (wire, mut plain) = (case.wire(), case.plain());
        plain.sort();
        let mut other: Vec<_> =
            wire.chunks(2).flat_map(|pair| [&pair[1], &pair[0], &pair[0]]).cloned().collect();
        let mut found = opened(case.ring(), &other);
        found.sort();
        assert_eq!(found, plain, "{name}");
        // Without one of its fragments a packet is not there.
        other = wire[1..].to_vec();
        assert_eq!(opened(case.ring(), &other).len(), plain.len() - 1, "{name}");
    }
}

#[test]
fn a_wrong_key_gives_a_bad_icv_on_every_packet_and_a_hint_and_no_packet() {
    for beginning in ["esp", "ah"] {
        for case in Case::of_kernel(beginning) {
            let mut ring = case.ring();
            for sa in &mut ring.sas {
                for key in [&mut sa.encr_key, &mut sa.integ_key] {
                    if !key.is_empty() {
                        let mut bytes = key.expose().to_vec();
                        bytes[0] ^= 1;
                        *key = ipsecd::crypto::Secret::new(bytes);
                    }
                }
            }
            let mut opener = Opener::new(ring);
            let records = records(&mut opener, &case.wire());
            assert!(records.iter().all(|record| record.inner.is_none()), "{}", case.name);
            for record in &records {
                // Of a replay, too, the ICV decides; only what cannot be in the window is told before.
                assert!(
                    matches!(
                        record.verdict,
                        Verdict::Refused(DropReason::IcvMismatch)
                            | Verdict::Fragment
                            | Verdict::Keepalive
                            | Verdict::Ike(_)
                            | Verdict::Malformed(_)
                    ),
                    "{}: {record}",
                    case.name
                );
            }
            let findings = opener.findings();
            assert!(!findings.is_empty(), "{}", case.name);
            for finding in findings {
                assert!(finding.text.ends_with("the key does not match"), "{finding:?}");
            }
        }
    }
}

#[test]
fn an_spi_without_a_key_says_so() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let mut ring = case.ring();
    ring.sas.truncate(1);
    let records = records(&mut Opener::new(ring), &case.wire());
    assert_eq!(verdicts(&records), ["no-key", "ok"]);
}

#[test]
fn packets_outside_the_selectors_are_told() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let mut ring = case.ring();
    for sa in &mut ring.sas {
        let selectors = sa.selectors.as_mut().unwrap();
        core::mem::swap(&mut selectors.src, &mut selectors.dst);
    }
    let records = records(&mut Opener::new(ring), &case.wire());
    assert_eq!(verdicts(&records), ["selector-mismatch"]);
}

#[test]
fn every_packet_may_come_twice_and_is_opened_once() {
    let case = Case::named("kernel", "espesn-cross-aes128gcm16");
    let wire = case.wire();
    let twice: Vec<_> = wire.iter().flat_map(|frame| [frame, frame]).cloned().collect();
    let records = records(&mut Opener::new(case.ring()), &twice);
    assert_eq!(verdicts(&records), ["ok", "replayed"]);
    let found: Vec<_> = records.into_iter().filter_map(|record| record.inner).collect();
    assert_eq!(found, case.plain());
    let unchecked = Opener::new(case.ring()).with_replay_window(0);
    let records = crate::records(&mut { unchecked }, &twice);
    assert_eq!(verdicts(&records), ["ok"]);
}

/// An IPv4 packet without what may change on the way: TOS, DF, TTL, checksum, options.
fn immutable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let header_len = usize::from(packet[0] & 15) * 4;
    for at in [1, 6, 8, 10, 11].into_iter().chain(20..header_len) {
        packet[at] = 0;
    }
    packet
}

#[test]
fn no_changed_bit_panics_or_changes_what_is_protected() {
    for name in [
        "esp-tun4-aes128-sha256",
        "ahesp-bundle-trn4",
        "espudp-tun4-aes256gcm16",
        "ah-opt-trn4-recordroute-sha256",
    ] {
        let case = Case::named("kernel", name);
        let (frame, plain) = (case.wire().remove(0), immutable(&case.plain()[0]));
        for at in 0..frame.data.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed.data[at] ^= 1 << bit;
                let record = Opener::new(case.ring()).frame(&changed);
                if let Some(inner) = &record.inner {
                    assert_eq!(immutable(inner), plain, "{name}: byte {at}, bit {bit}");
                }
                let _printed = record.to_string();
            }
        }
        for len in 0..frame.data.len() {
            let mut cut = frame.clone();
            cut.data.truncate(len);
            let record = Opener::new(case.ring()).frame(&cut);
            assert!(record.inner.is_none(), "{name}: {len} bytes: {record}");
        }
    }
}

#[test]
fn what_is_cut_by_the_capture_says_so() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let mut frame = case.wire().remove(0);
    frame.data.truncate(60);
    let record = Opener::new(case.ring()).frame(&frame);
    assert!(record.to_string().ends_with("malformed: cut by the capture"), "{record}");
}
