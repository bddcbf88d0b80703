//! `[[manual]]`: what is read of it, and what two files of it must not have in common.

use ipsecd::config::{Config, conflicts};
use ipsecd::ipsec::manual::{ManualSa, counts};
use ipsecd::ipsec::pad::PeerAddress;
use ipsecd::ipsec::{DfPolicy, DscpPolicy, Encap, Mode};

use super::secrets::{Memory, minimal, minimal_manual, parse};

fn config(file: &str, text: &str) -> Config {
    match parse(file, text) {
        Ok(loaded) => loaded.config,
        Err(found) => panic!("{found}"),
    }
}

fn only(text: &str) -> ManualSa {
    config("a.conf", text).manual().unwrap().sas[0].clone()
}

fn tunnel(text: &str) -> String {
    text.replace(
        "\"transport\"",
        "\"tunnel\"\nlocal = \"10.1.0.0/16\"\npeer = [\"10.2.0.0/16[udp/53]\"]",
    )
}

#[test]
fn manual_keys_are_read_as_written() {
    let more = "replay-window = 100\nseq-in = 7\nseq-out = \"0x10\"\ntfc = 1200\ndf = \"set\"\ndscp = 46\n";
    let text = tunnel(&minimal_manual(more));
    let config = config("a.conf", &text);
    let peer = config.manual().unwrap();
    assert_eq!(peer.address, PeerAddress::Ip("198.51.100.1".parse().unwrap()));
    assert_eq!(peer.local_addr, Some("192.0.2.1".parse().unwrap()));
    assert!(config.ike().is_none());
    let sa = &peer.sas[0];
    assert_eq!((&*sa.name, sa.mode, sa.encap), ("manual-1", Mode::Tunnel, Encap::Plain));
    assert_eq!(sa.suite.to_string(), "ENCR_AES_CBC-256/AUTH_HMAC_SHA2_256_128");
    assert_eq!((sa.inbound.spi.get(), sa.outbound.spi.get()), (0x1001, 0x2001));
    assert_eq!((sa.inbound.sequence, sa.outbound.sequence), (7, 16));
    assert_eq!(
        (sa.inbound.encr_key.expose(), sa.outbound.encr_key.expose()),
        (&[0x11; 32][..], &[0x22; 32][..])
    );
    assert_eq!(
        (sa.inbound.integ_key.expose(), sa.outbound.integ_key.expose()),
        (&[0x33; 32][..], &[0x44; 32][..])
    );
    assert_eq!(
        (sa.ts_local[0].to_string(), sa.ts_peer[0].to_string()),
        ("10.1.0.0/16".into(), "10.2.0.0/16[udp/53]".into())
    );
    assert_eq!(
        (sa.replay_window, sa.tfc, sa.df, sa.dscp),
        (128, 1200, DfPolicy::Set, DscpPolicy::Set(46))
    );
    assert!(sa.around.is_none());
}

#[test]
fn transport_mode_has_the_two_addresses_and_may_have_ah_around_it() {
    let hex = |digit: &str| digit.repeat(64);
    let ah = format!(
        "[manual.ah]\nproposal = \"sha256-esn\"\nspi-in = 4098\nspi-out = 8194\nauth-key-in = \"{}\"\nauth-key-out = \"0x{}\"\n",
        hex("5"),
        hex("6")
    );
    let sa = only(&minimal_manual(&ah));
    assert_eq!(
        (sa.ts_local[0].to_string(), sa.ts_peer[0].to_string()),
        ("192.0.2.1/32".into(), "198.51.100.1/32".into())
    );
    let around = sa.around.as_ref().unwrap();
    assert_eq!(around.suite.to_string(), "AUTH_HMAC_SHA2_256_128/ESN");
    assert_eq!((around.inbound.spi.get(), around.outbound.spi.get()), (0x1002, 0x2002));
    assert_eq!(around.outbound.integ_key.expose(), [0x66; 32]);
    assert!(around.outbound.encr_key.is_empty());
    assert_eq!(sa.layers().count(), 2);
}

#[test]
fn every_algorithm_that_counts_is_warned_of_and_no_other() {
    for (proposal, key, auth_key) in [
        ("aes128gcm16", 20, 0),
        ("aes256gcm16-esn", 36, 0),
        ("aes128-sha384", 16, 48),
        ("aes192-sha512-esn", 24, 64),
    ] {
        let hex = |byte: &str, len: usize| format!("\"{}\"", byte.repeat(len));
        let mut text = minimal_manual("").replace("aes256-sha256", proposal);
        let old = |digit: &str| format!("\"{}\"", digit.repeat(64));
        text = text.replace(&old("1"), &hex("11", key)).replace(&old("2"), &hex("22", key));
        text = if auth_key > 0 {
            text.replace(&old("3"), &hex("33", auth_key)).replace(&old("4"), &hex("44", auth_key))
        } else {
            text.lines().filter(|line| !line.starts_with("auth-")).collect::<Vec<_>>().join("\n")
        };
        let loaded = match parse("a.conf", &text) {
            Ok(loaded) => loaded,
            Err(found) => panic!("{proposal}: {found}"),
        };
        let sa = &loaded.config.manual().unwrap().sas[0];
        assert_eq!(loaded.warnings.is_empty(), !counts(sa.suite), "{proposal}");
        assert_eq!(loaded.warnings.is_empty(), auth_key > 0, "{proposal}");
    }
}

#[test]
fn no_message_and_no_debug_output_has_a_manual_key_in_it() {
    for (old, new) in [
        ("", ""),
        ("aes256-sha256", "aes256gcm16"),
        ("key-in = \"1", "key-in = \"x1"),
        ("key-in = \"1", "kye-in = \"1"),
        ("key-in = \"1", "key-in = \"\"\"1"),
        ("key-in = \"1", "key-in = 1"),
        ("[[manual]]", "[[manul]]"),
        ("[[manual]]", "[manual]"),
        ("[[manual]]", "[[manual]"),
        ("spi-in = \"0x1001\"", "spi-in ="),
    ] {
        let text = minimal_manual("").replacen(old, new, 1);
        let shown = match parse("a.conf", &text) {
            Ok(loaded) => format!("{loaded:?} {}", loaded.warnings),
            Err(found) => format!("{found:?} {found}"),
        };
        for digit in ["1", "2", "3", "4"] {
            assert!(!shown.contains(&digit.repeat(16)), "{new}: {shown}");
        }
    }
}

#[test]
fn a_manual_key_in_a_file_that_others_can_read_is_an_error() {
    use ipsecd::config::load;
    use std::path::Path;
    let memory = Memory::usual().with("a.conf", &minimal_manual(""), 0o640).with(
        "b.conf",
        &minimal_manual(""),
        0o600,
    );
    let found = load(Path::new("a.conf"), &memory).unwrap_err();
    assert_eq!(found.len(), 4, "{found}");
    assert_eq!(found.as_slice()[0].message, "the key-in stands in a file that others can read");
    assert!(load(Path::new("b.conf"), &memory).is_ok());
}

fn other(spi: &str, digit: &str) -> String {
    let text = minimal_manual("").replace("198.51.100.1", "198.51.100.2").replace("0x1001", spi);
    text.replace(&"1".repeat(64), &digit.repeat(64))
}

fn between(a: &str, b: &str) -> String {
    conflicts(&[&config("a.conf", a), &config("b.conf", b)]).to_string()
}

#[test]
fn files_with_manual_keys_share_no_spi_and_no_selector() {
    let a = minimal_manual("");
    assert_eq!(between(&a, &other("0x1003", "5")), "", "spi-out is the peer's to choose");
    let found = between(&a, &other("0x1001", "5"));
    assert!(found.starts_with("error: spi-in 0x00001001 is in a.conf too"), "{found}");
    let same_peer = other("0x1003", "5").replace("198.51.100.2", "198.51.100.1");
    let found = between(&a, &same_peer);
    assert!(found.contains("error: 192.0.2.1 <-> 198.51.100.1 is in a.conf too"), "{found}");
    assert!(found.contains("error: spi-out 0x00002001 is in a.conf too"), "{found}");
    let narrow = same_peer
        .replace("mode", "peer = \"198.51.100.1[tcp/80]\"\nmode")
        .replace("0x2001", "0x2003");
    let found = between(&a, &narrow);
    assert!(found.contains("198.51.100.1[tcp/80] overlaps selectors in a.conf"), "{found}");
    assert!(found.starts_with("error"), "{found}");
    let beside = a.replace("mode", "peer = \"198.51.100.1[tcp/81]\"\nmode");
    assert_eq!(between(&beside, &narrow), "");
}

#[test]
fn manual_selectors_do_not_meet_subnets_of_ike() {
    let manual = tunnel(&minimal_manual(""));
    let found = between(&minimal(""), &manual);
    assert!(
        found
            .starts_with("error: 10.1.0.0/16 <-> 10.2.0.0/16[udp/53] overlaps selectors in a.conf"),
        "{found}"
    );
    assert_eq!(between(&minimal("").replace("10.2.0", "10.9.0"), &manual), "");
}

#[test]
fn a_key_that_counts_is_in_no_two_files() {
    let gcm = |peer: &str, spi: &str, key_in: &str, key_out: &str| {
        format!(
            "[local]\naddress = \"192.0.2.1\"\n[peer]\naddress = \"{peer}\"\n[[manual]]\nprotocol = \"esp\"\n\
             mode = \"transport\"\nproposal = \"aes256gcm16\"\nspi-in = {spi}\nspi-out = 9999\n\
             key-in = \"{}\"\nkey-out = \"{}\"\n",
            key_in.repeat(36),
            key_out.repeat(36)
        )
    };
    let a = gcm("198.51.100.1", "4097", "01", "02");
    assert_eq!(between(&a, &gcm("198.51.100.2", "4098", "03", "04")), "");
    for (key_in, key_out) in [("01", "04"), ("03", "02"), ("02", "03"), ("03", "01")] {
        let found = between(&a, &gcm("198.51.100.2", "4098", key_in, key_out));
        assert!(found.starts_with("error: a key is in a.conf too"), "{found}");
    }
    // What does not count may serve twice.
    assert_eq!(between(&minimal_manual(""), &other("0x1003", "1")), "");
}

#[test]
fn the_summary_says_that_there_is_no_rekey() {
    let shown = config("a.conf", &minimal_manual("")).summary();
    assert_eq!(shown, "192.0.2.1 <-> 198.51.100.1 with 198.51.100.1, manual keys: no rekey");
}
