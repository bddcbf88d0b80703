//! What no gateway of ours makes or takes, and a capture may have: 3DES, DES, AES-CTR in IKE, ICVs that nobody can check. Among it are the
//! captures of tcpdump's own tests (`tcpdump/README.md`).

use std::path::{Path, PathBuf};

use des::cipher::consts::U8;
use des::cipher::{
    Array, BlockCipherEncrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit, KeyInit,
};
use ipsecd::capture::{Frame, Inside, KeyRing, LinkType, Opener, Record, Verdict};
use ipsecd::crypto::Encr;
use ipsecd::crypto::cipher::Ctr;
use ipsecd::crypto::integ::Integ;
use ipsecd::wire::checksum;
use ipsecd::wire::icmp::IcmpPacket;
use ipsecd::wire::ike::numbers::{EncrId, IntegId};
use ipsecd::wire::ip::IpPacket;

use crate::{frames, records, verdicts};

fn tcpdumps(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decrypt/tcpdump").join(name)
}

fn capture(name: &str) -> Vec<Frame> {
    frames(&std::fs::read(tcpdumps(name)).unwrap())
}

fn secrets(name: &str) -> String {
    std::fs::read_to_string(tcpdumps(name)).unwrap()
}

fn read(keys: &str, frames: &[Frame]) -> (Vec<Record>, Opener) {
    let mut opener = Opener::new(KeyRing::read("secrets", keys).unwrap());
    (records(&mut opener, frames), opener)
}

/// The arguments of `-E` in tcpdump's tests.
const ESP1: &str =
    "0x12345678@192.1.2.45 3des-cbc-hmac96:0x4043434545464649494a4a4c4c4f4f515152525454575758";
const ESP2: &str = "0x12345678@192.1.2.45 3des-cbc-hmac96:0x43434545464649494a4a4c4c4f4f51515252545457575840,\
     0xabcdabcd@192.0.1.1 3des-cbc-hmac96:0x434545464649494a4a4c4c4f4f5151525254545757584043";
const ESP3: &str = "3des-cbc-hmac96:0x4043434545464649494a4a4c4c4f4f515152525454575758";

#[test]
fn esp_of_tcpdumps_own_tests_is_opened_by_their_secrets() {
    let file = secrets("esp-secrets.txt");
    for (name, keys, layers) in [
        ("02-sunrise-sunset-esp.pcap", ESP1, 1),
        ("08-sunrise-sunset-esp2.pcap", ESP2, 2),
        ("02-sunrise-sunset-esp.pcap", ESP3, 1),
        ("08-sunrise-sunset-esp2.pcap", &file, 2),
        ("08-sunrise-sunset-aes.pcap", &file, 1),
        ("espudp1.pcap", ESP1, 1),
    ] {
        let (found, opener) = read(keys, &capture(name));
        assert_eq!(verdicts(&found), ["unverified"], "{name}");
        assert!(opener.findings().is_empty(), "{name}");
        // What tcpdump prints: the addresses, and each echo with its number.
        for (number, record) in (0..).zip(&found) {
            assert_eq!(record.layers.len(), layers, "{name}");
            let inner = record.inner.as_ref().unwrap();
            let ip = IpPacket::new_checked(&inner[..]).unwrap();
            let (src, dst) = (ip.src_addr().to_string(), ip.dst_addr().to_string());
            assert_eq!((&*src, &*dst, inner.len()), ("192.0.2.1", "192.0.1.1", 84), "{name}");
            let icmp = IcmpPacket::new_checked(&inner[20..]).unwrap();
            assert!(icmp.message_type() == 8 && icmp.verify_checksum_v4(), "{name}");
            if name != "espudp1.pcap" {
                assert_eq!(
                    (icmp.echo_ident(), icmp.echo_sequence()),
                    (28_416, 1280 + number * 256)
                );
            }
        }
        assert_eq!(found.len(), 8, "{name}");
    }
}

/// A secret for every SPI is one for what is inside, too; if it does not open that, it is for somebody else.
#[test]
fn what_is_inside_may_be_for_somebody_else() {
    let (_, outer) = ESP2.split_once(' ').unwrap();
    let (outer, _) = outer.split_once(',').unwrap();
    let (found, _) = read(outer, &capture("08-sunrise-sunset-esp2.pcap"));
    assert_eq!(verdicts(&found), ["unverified"]);
    assert!(found.iter().all(|record| record.layers.len() == 1));
    assert!(found[0].to_string().contains(": 192.1.2.23 > 192.0.1.1 ESP, "), "{}", found[0]);
    // With the SPI of the inner one alone nothing is opened, and that is told.
    let (_, inner) = ESP2.split_once(',').unwrap();
    let (found, _) = read(inner, &capture("08-sunrise-sunset-esp2.pcap"));
    assert_eq!(verdicts(&found), ["no-key"]);
    let wrong = ESP2.replace("434545464649494a", "444545464649494a");
    let (found, _) = read(&wrong, &capture("08-sunrise-sunset-esp2.pcap"));
    assert_eq!(verdicts(&found), ["bad-padding"]);
}

#[test]
fn a_wrong_secret_of_3des_is_told_and_gives_no_garbage() {
    // tcpdump prints garbage for this one.
    let (found, opener) = read(&secrets("esp-secrets.txt"), &capture("espudp1.pcap"));
    assert_eq!(verdicts(&found), ["bad-padding"]);
    assert!(opener.findings()[0].text.ends_with("the key does not match"));
    let (name, digits) = ESP1.split_once(":0x").unwrap();
    let key: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let frames = capture("02-sunrise-sunset-esp.pcap");
    // Every bit but those of parity, which DES does not look at.
    for at in (0..key.len() * 8).filter(|at| at % 8 != 0) {
        let mut wrong = key.clone();
        wrong[at / 8] ^= 1 << (at % 8);
        let digits: String = wrong.iter().map(|byte| format!("{byte:02x}")).collect();
        let (found, opener) = read(&format!("{name}:0x{digits}"), &frames);
        assert_eq!(verdicts(&found), ["bad-padding"], "bit {at}");
        assert!(found.iter().all(|record| record.inner.is_none()), "bit {at}");
        assert_eq!(opener.findings().len(), 1, "bit {at}");
    }
}

#[test]
fn ike_of_tcpdumps_own_tests_is_read_though_its_icv_is_wrong() {
    let keys = secrets("ikev2pI2-secrets.txt");
    let (found, opener) = read(&keys, &capture("ikev2pI2.pcap"));
    let line = found[1].to_string();
    assert!(line.ends_with("SK{ID_I AUTH}, decrypted, integrity not proved"), "{line}");
    assert!(opener.findings().is_empty());
    assert_eq!(found[1].is_opened(), Some(true));
    // As a table of Wireshark, by which ICVs are looked at, the same keys do not match.
    let (sk_ai, sk_ei) =
        ("4ea8e662b07cdd430f6944c6723e4b82d5722418", "3f44bf47cafd8150591deb088199fcbf");
    let row = format!(
        "0001020304050607,c02e7a3031a03188,{sk_ei},{sk_ei},\"AES-CBC-128 [RFC3602]\",{sk_ai},{sk_ai},\"HMAC_SHA1_96 [RFC2404]\""
    );
    let (found, opener) = read(&row, &capture("ikev2pI2.pcap"));
    assert!(found[1].to_string().ends_with("SK, bad ICV"));
    assert!(opener.findings()[0].text.ends_with("the key does not match"));
    for wrong in ["3f44bf48", "4f44bf47", "3f44bf46"] {
        let (found, _) = read(&keys.replace("3f44bf47", wrong), &capture("ikev2pI2.pcap"));
        assert_eq!(found[1].is_opened(), Some(false), "{wrong}: {}", found[1]);
    }
}

#[test]
fn what_has_no_key_or_is_of_ikev1_says_so() {
    let (found, _) = read(ESP1, &capture("isakmp4500.pcap"));
    assert_eq!(verdicts(&found), ["keepalive", "malformed", "no-key", "other"]);
    assert!(found[2].to_string().ends_with("version 1.0, and only version 2 is read"));
    let (found, _) = read(ESP1, &capture("esp_truncated.pcap"));
    assert!(found[0].to_string().ends_with("cut by the capture"), "{}", found[0]);
}

/// Linux 6.1 with `ip xfrm`, both ends of it (`linux/`, in the form of `vectors/captures`).
#[test]
fn what_a_linux_kernel_sealed_with_des_and_3des_is_opened_to_what_the_other_made_of_it() {
    for name in ["esp-tun4-3des-sha1", "esp-trn4-des-sha1"] {
        let file = |ending: &str| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decrypt/linux");
            std::fs::read(dir.join(format!("{name}{ending}"))).unwrap()
        };
        let json = String::from_utf8(file(".json")).unwrap();
        let (wire, plain) = (frames(&file(".wire.pcap")), frames(&file(".plain.pcap")));
        let (found, _) = read(&json, &wire);
        assert_eq!(verdicts(&found), ["ok"], "{name}");
        let inner: Vec<_> = found.into_iter().filter_map(|record| record.inner).collect();
        let plain: Vec<_> = plain.into_iter().map(|frame| frame.data).collect();
        assert!(inner == plain && !plain.is_empty(), "{name}");
        let noted: serde_json::Value = serde_json::from_str(&json).unwrap();
        let key = noted["sas"][0]["auth"]["key"].as_str().unwrap();
        let (found, _) = read(&json.replace(key, &"00".repeat(20)), &wire);
        assert_eq!(verdicts(&found), ["bad-icv"], "{name}");
    }
}

/// An IPv4 packet, as a frame of raw IP.
fn packet(protocol: u8, payload: &[u8]) -> Frame {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut data = vec![0x45, 0, len[0], len[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    data.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    let sum = (!checksum::data(&data)).to_be_bytes();
    data[10..12].copy_from_slice(&sum);
    data.extend(payload);
    let original_len = u32::try_from(data.len()).unwrap();
    Frame { time: 0, link: LinkType::RAW, data, original_len }
}

fn encrypt<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U8>>(des: &C, data: &mut [u8]) {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    assert!(rest.is_empty());
    cbc::Encryptor::inner_iv_init(des, &Array([7; 8])).encrypt_blocks(blocks);
}

const SHA1_KEY: [u8; 20] = [0x5a; 20];

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    let mut icv = vec![0; 12];
    Integ::new(IntegId::AUTH_HMAC_SHA1_96, &SHA1_KEY).unwrap().sign(parts, &mut icv);
    icv
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn des_and_3des_with_an_integrity_key_are_verified() {
    let key: Vec<u8> = (1..25).collect();
    let inner = packet(1, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1]).data;
    for (len, name, linux) in
        [(24, "TripleDES-CBC [RFC2451]", "cbc(des3_ede)"), (8, "DES-CBC [RFC2405]", "cbc(des)")]
    {
        for esn in [None, Some(9_u32)] {
            let mut body = [&inner[..], &[1, 2, 2, 4]].concat();
            if len == 24 {
                encrypt(&des::TdesEde3::new_from_slice(&key).unwrap(), &mut body);
            } else {
                encrypt(&des::Des::new_from_slice(&key[..8]).unwrap(), &mut body);
            }
            let mut esp = [&[0xc0, 0, 0, 1, 0, 0, 0, 5][..], &[7; 8], &body].concat();
            let high = esn.map_or(Vec::new(), |high| high.to_be_bytes().to_vec());
            esp.extend(sha1(&[&esp, &high]));
            let frames = [packet(50, &esp)];
            let row = |encr: &[u8], integ: &[u8]| {
                let esn = esn.map_or(String::new(), |high| format!(",\"64-bit\",\"{high:x}\""));
                format!(
                    "\"IPv4\",\"*\",\"*\",\"0xc0000001\",\"{name}\",\"0x{}\",\"HMAC-SHA-1-96 [RFC2404]\",\"0x{}\"{esn}",
                    hex(encr),
                    hex(integ)
                )
            };
            let (found, _) = read(&row(&key[..len], &SHA1_KEY), &frames);
            assert_eq!(verdicts(&found), ["ok"], "{}", found[0]);
            assert_eq!(found[0].inner.as_deref(), Some(&*inner));
            let sequence = u64::from(esn.unwrap_or(0)) << 32 | 5;
            assert_eq!(found[0].layers[0].sequence, sequence);
            let (found, _) = read(&row(&key[..len], &[0; 20]), &frames);
            assert_eq!(verdicts(&found), ["bad-icv"]);
            let (found, _) = read(&row(&vec![9; len], &SHA1_KEY), &frames);
            assert!(found[0].inner.is_none(), "{}", found[0]);
            if esn.is_none() {
                let json = format!(
                    r#"{{"format": "ipsec-lab-capture/1", "sas": [{{"name": "a-to-b", "proto": "esp", "mode": "tunnel", "spi": "0xc0000001",
                    "src": "192.0.2.1", "dst": "192.0.2.2", "enc": {{"linux": "{linux}", "key": "{}"}},
                    "auth": {{"linux": "hmac(sha1)", "key": "{}", "icv_bits": 96}}}}]}}"#,
                    hex(&key[..len]),
                    hex(&SHA1_KEY)
                );
                assert_eq!(verdicts(&read(&json, &frames).0), ["ok"]);
            }
        }
    }
}

/// Whose ICV is right is not told to have another key, whatever the padding is.
#[test]
fn wrong_padding_under_the_right_key_is_no_wrong_key() {
    let inner = packet(1, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1]).data;
    let mut esp = [&[0xc0, 0, 0, 1, 0, 0, 0, 5][..], &inner, &[0, 0, 2, 4]].concat();
    esp.extend(sha1(&[&esp]));
    let row = format!(
        "\"IPv4\",\"*\",\"*\",\"0xc0000001\",\"NULL\",\"\",\"HMAC-SHA-1-96 [RFC2404]\",\"0x{}\"",
        hex(&SHA1_KEY)
    );
    let (found, opener) = read(&row, &[packet(50, &esp)]);
    assert_eq!(verdicts(&found), ["bad-padding"]);
    assert!(opener.findings().is_empty(), "{:?}", opener.findings());
}

/// An IKE_AUTH request with INITIAL_CONTACT in it; `seal` encrypts it with its padding, and gives the IV.
fn ike_auth(block: usize, icv_len: usize, seal: impl Fn(&mut [u8]) -> Vec<u8>) -> Frame {
    let mut body = vec![0, 0, 0, 8, 0, 0, 0x40, 0];
    let pad = block - 1 - body.len() % block;
    body.resize(body.len() + pad, 0);
    body.push(u8::try_from(pad).unwrap());
    let iv = seal(&mut body);
    let payload_len = 4 + iv.len() + body.len() + icv_len;
    let mut message = [[1; 8], [2; 8]].concat();
    message.extend([46, 0x20, 35, 0x08, 0, 0, 0, 1]);
    message.extend(u32::try_from(28 + payload_len).unwrap().to_be_bytes());
    message.extend([41, 0]);
    message.extend(u16::try_from(payload_len).unwrap().to_be_bytes());
    message.extend([iv, body].concat());
    let icv = if icv_len == 12 { sha1(&[&message]) } else { vec![0x33; icv_len] };
    message.extend(icv);
    let len = u16::try_from(8 + message.len()).unwrap().to_be_bytes();
    packet(17, &[&[1, 0xf4, 1, 0xf4, len[0], len[1], 0, 0][..], &message].concat())
}

#[test]
fn ike_with_what_only_captures_have_is_read() {
    let key: Vec<u8> = (1..25).collect();
    let encr = Encr { id: EncrId::ENCR_AES_CTR, key_bits: Some(128) };
    let aes = Ctr::new(encr, &key[..20]).unwrap();
    let triple = des::TdesEde3::new_from_slice(&key).unwrap();
    let by_ctr = |body: &mut [u8]| {
        aes.apply(&[7; 8], body);
        vec![7; 8]
    };
    let by_3des = |body: &mut [u8]| {
        encrypt(&triple, body);
        vec![7; 8]
    };
    let sha1 = ("HMAC_SHA1_96 [RFC2404]", &SHA1_KEY[..], true);
    for (frame, encr, key, (integ, integ_key, verified)) in [
        (ike_auth(1, 12, by_ctr), "AES-CTR-128 [RFC5930]", &key[..20], sha1),
        (ike_auth(8, 12, by_3des), "3DES [RFC2451]", &key, sha1),
        (ike_auth(4, 12, |_| Vec::new()), "NULL [RFC2410]", &[], sha1),
        (
            ike_auth(8, 20, by_3des),
            "3DES [RFC2451]",
            &key,
            ("HMAC_SHA1_160 [RFC4595]", &[1; 20], false),
        ),
        (
            ike_auth(8, 16, by_3des),
            "3DES [RFC2451]",
            &key,
            ("HMAC_MD5_128 [RFC4595]", &[1; 16], false),
        ),
    ] {
        let spis = ("01".repeat(8), "02".repeat(8));
        let row = |key: &[u8], integ_key: &[u8]| {
            let (key, integ_key) = (hex(key), hex(integ_key));
            let (i, r) = &spis;
            format!("{i},{r},{key},{key},\"{encr}\",{integ_key},{integ_key},\"{integ}\"")
        };
        let inside = |row: &str| {
            let (found, opener) = read(row, std::slice::from_ref(&frame));
            let Verdict::Ike(message) = &found[0].verdict else { panic!("{}", found[0]) };
            (message.inside.clone(), opener.findings().len())
        };
        let (what, findings) = inside(&row(key, integ_key));
        let payloads = if verified && let Inside::Opened(payloads) = &what {
            payloads
        } else if !verified && let Inside::Unverified(payloads) = &what {
            payloads
        } else {
            panic!("{encr}, {integ}: {what:?}");
        };
        let names: Vec<_> = payloads.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["N(INITIAL_CONTACT)"], "{encr}, {integ}");
        assert_eq!(findings, 0);
        if verified {
            assert_eq!(inside(&row(key, &[0; 20])), (Inside::BadIcv, 1), "{encr}");
        } else {
            assert_eq!(inside(&row(&[9; 24], integ_key)), (Inside::Nonsense, 1), "{integ}");
        }
    }
}
