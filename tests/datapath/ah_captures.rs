//! AH that the Linux kernel sent, opened by us: it must be what the kernel opened, packet for packet, and sealing that
//! again must make the kernel's packet, byte for byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::{fs, path};

use ipsecd::datapath::DropReason;
use ipsecd::ipsec::ah::{self, Ah, Align};
use ipsecd::ipsec::replay::ReplayWindow;
use ipsecd::ipsec::{Encap, InboundSa, Path, Place, Spi};
use ipsecd::wire::ah::AhPacket;
use ipsecd::wire::ike::numbers::IntegId;
use ipsecd::wire::ip::{Ipv4Packet, NextHeader};
use serde_json::Value;

use crate::captures::{DIR, hex, params, pcap};
use crate::support::buf;

/// One direction, at its receiver.
struct Sa<'a> {
    ah: Ah,
    spi: Spi,
    esn: bool,
    align: usize,
    window: ReplayWindow,
    /// What is within the AH of a bundle.
    esp: Option<InboundSa>,
    json: &'a Value,
}

fn integ(auth: &Value) -> IntegId {
    let linux = auth["linux"].as_str().unwrap();
    match (linux, auth["icv_bits"].as_u64().unwrap()) {
        ("hmac(sha1)", 96) => IntegId::AUTH_HMAC_SHA1_96,
        ("hmac(sha256)", 128) => IntegId::AUTH_HMAC_SHA2_256_128,
        ("hmac(sha384)", 192) => IntegId::AUTH_HMAC_SHA2_384_192,
        ("hmac(sha512)", 256) => IntegId::AUTH_HMAC_SHA2_512_256,
        ("cmac(aes)", 96) => IntegId::AUTH_AES_CMAC_96,
        ("xcbc(aes)", 96) => IntegId::AUTH_AES_XCBC_96,
        other => panic!("{other:?}"),
    }
}

impl<'a> Sa<'a> {
    fn new(json: &'a Value, all: &'a [Value]) -> Self {
        let spi = u32::from_str_radix(&json["spi"].as_str().unwrap()[2..], 16).unwrap();
        let align = json["align"].as_u64().unwrap();
        let esn = json["esn"].as_bool().unwrap();
        let size = u32::try_from(json["replay_window"].as_u64().unwrap()).unwrap();
        let top = json["initial_oseq"].as_u64().unwrap();
        // The names of a bundle: NAME-outer is around NAME.
        let inner = json["name"].as_str().unwrap().strip_suffix("-outer");
        let inner = inner.and_then(|name| all.iter().find(|sa| sa["name"] == name));
        let any = SocketAddr::new([0, 0, 0, 0].into(), 0);
        let path = Path { local: any, remote: any, encap: Encap::Plain };
        Self {
            ah: Ah::new(
                integ(&json["auth"]),
                &hex(&json["auth"]["key"]),
                Align::of(u8::try_from(align).unwrap()).unwrap(),
            )
            .unwrap(),
            spi: Spi::new(spi).unwrap(),
            esn,
            align: usize::try_from(align).unwrap(),
            window: ReplayWindow::starting_at(size, esn, top),
            esp: inner.map(|sa| InboundSa::new(params(sa, path, true)).unwrap()),
            json,
        }
    }
}

/// The packets as they came, put together again where they came as fragments.
fn reassemble(fragments: &[&[u8]]) -> Vec<u8> {
    let [whole] = fragments else {
        let first = Ipv4Packet::new_checked(fragments[0]).unwrap();
        let mut packet = first.as_bytes()[..first.header_len()].to_vec();
        let mut parts = BTreeMap::new();
        for fragment in fragments {
            let fragment = Ipv4Packet::new_checked(*fragment).unwrap();
            assert_eq!((fragment.ident(), fragment.protocol()), (first.ident(), NextHeader::AH));
            parts.insert(fragment.fragment_offset(), fragment.payload().to_vec());
        }
        for (offset, part) in parts {
            assert_eq!(packet.len() - first.header_len(), usize::from(offset), "no gap");
            packet.extend(part);
        }
        packet[6..8].fill(0);
        Ipv4Packet::new_resized(&mut packet[..]).unwrap().fill_checksum();
        return packet;
    };
    whole.to_vec()
}

fn case(name: &str) -> (Value, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let read =
        |suffix: &str| fs::read(path::Path::new(DIR).join(format!("{name}.{suffix}"))).unwrap();
    let wire = pcap(&read("wire.pcap")).iter().map(|frame| frame[14..].to_vec()).collect();
    (serde_json::from_slice(&read("json")).unwrap(), wire, pcap(&read("plain.pcap")))
}

#[test]
fn ah_of_the_kernel_opens_to_what_it_opened_and_is_sealed_to_the_same_bytes() {
    let mut names: Vec<_> = fs::read_dir(DIR)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json").map(str::to_owned)
        })
        .filter(|name| name.starts_with("ah"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 28, "every capture with AH");
    let (mut delivered, mut equal, mut stale, mut fragmented) = (0, 0, 0, 0);
    let mut verdicts = BTreeMap::<String, usize>::new();
    for name in &names {
        let (json, wire, plain) = case(name);
        let all = json["sas"].as_array().unwrap();
        let ah = all.iter().filter(|sa| sa["proto"] == "ah");
        let mut sas: BTreeMap<_, _> =
            ah.map(|sa| (sa["name"].as_str().unwrap(), Sa::new(sa, all))).collect();
        for packet in json["packets"].as_array().unwrap() {
            let indexes = packet["wire"].as_array().unwrap().iter();
            let fragments: Vec<_> =
                indexes.map(|at| &*wire[usize::try_from(at.as_u64().unwrap()).unwrap()]).collect();
            fragmented += usize::from(fragments.len() > 1);
            let wire = reassemble(&fragments);
            let layer = &packet["layers"][0];
            let sa = sas.get_mut(layer["sa"].as_str().unwrap()).unwrap();
            let verdict = packet["verdict"].as_str().unwrap();
            *verdicts.entry(verdict.into()).or_default() += 1;

            let place = Place::of(&wire, NextHeader::AH).unwrap();
            let header = AhPacket::new_checked(&wire[place.at..]).unwrap();
            assert_eq!(header.spi(), sa.spi.get());
            let sequence = match sa.window.check(header.sequence()) {
                Ok(sequence) => sequence,
                Err(reason) => {
                    assert_eq!((reason, verdict), (DropReason::ReplayDuplicate, "replay-dup"));
                    continue;
                }
            };
            assert_eq!((verdict, sequence), ("ok", layer["seq"].as_u64().unwrap()), "{name}");
            assert_eq!(header.header_len() as u64, layer["ah_len"].as_u64().unwrap());
            let proof = sa.ah.open(&wire, place, sequence, sa.esn);
            let proof = proof.unwrap_or_else(|reason| panic!("{name} {sequence}: {reason}"));
            let _ = sa.window.accept(sequence, proof).unwrap();
            let mut stripped = buf(&wire);
            let next_header = ah::strip(&mut stripped, place).unwrap();
            assert_eq!(next_header.0, layer["next_header"]);

            // What the kernel delivered: from an outer header with congestion, the inner as sent.
            let delivers = &plain[usize::try_from(packet["plain"].as_u64().unwrap()).unwrap()];
            let as_sent = packet["inner_as_sent"].as_str().map(|_| hex(&packet["inner_as_sent"]));
            let expected = as_sent.as_ref().unwrap_or(delivers);
            let got = match &sa.esp {
                Some(esp) => open_esp(esp, &stripped),
                None if sa.json["mode"] == "tunnel" => stripped[place.at..].to_vec(),
                None => stripped.to_vec(),
            };
            assert_eq!(&got, expected, "{name} {sequence}");
            delivered += 1;

            // Linux leaves destination options before AH where we protect them; all else is where we would put it.
            let ours = Place::for_insertion(&stripped).unwrap();
            assert_eq!(ours != place, wire[0] >> 4 == 6 && place.next_header_at > 40, "{name}");
            let mut sealed = stripped;
            sa.ah.seal(&mut sealed, place, sa.spi, sequence, sa.esn).unwrap();
            let icv_len =
                usize::try_from(sa.json["auth"]["icv_bits"].as_u64().unwrap() / 8).unwrap();
            let icv = place.at + 12..place.at + 12 + icv_len;
            let padding = icv.end..place.at + (12 + icv_len).next_multiple_of(sa.align);
            if wire[padding.clone()].iter().all(|&byte| byte == 0) {
                assert_eq!(&*sealed, wire, "{name} {sequence}");
                equal += 1;
            } else {
                // The kernel's padding is what was in its buffer, and the ICV is over that.
                let mut wire = wire;
                wire[padding.clone()].fill(0);
                wire[icv.clone()].copy_from_slice(&sealed[icv]);
                assert_eq!(&*sealed, wire, "{name} {sequence}");
                stale += 1;
            }
        }
    }
    assert_eq!(verdicts["replay-dup"], 4);
    assert_eq!(verdicts["ok"], delivered);
    // Sealed to the same bytes; and to the same but for padding, which was not zero, and so the ICV.
    assert_eq!((equal, stale), (418, 176));
    assert!(fragmented >= 8, "{fragmented}");
}

/// The transport mode ESP within AH.
fn open_esp(sa: &InboundSa, packet: &[u8]) -> Vec<u8> {
    let place = Place::of(packet, NextHeader::ESP).unwrap();
    let mut esp = buf(&packet[place.at..]);
    let opened = sa.open(&mut esp).unwrap();
    let mut packet = [&packet[..place.at], &esp].concat();
    place.mend(&mut packet, opened.next_header).unwrap();
    packet
}
