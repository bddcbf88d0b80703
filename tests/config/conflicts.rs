//! Configurations that are right by themselves and not together.

use ipsecd::config::{Config, conflicts, conflicts_with};

use super::secrets::{minimal, parse};

fn config(file: &str, text: &str) -> Config {
    parse(file, text).unwrap().config
}

fn between(a: &Config, b: &Config) -> String {
    conflicts(&[a, b]).to_string()
}

#[test]
fn two_peers_with_nothing_in_common_do_not_conflict() {
    let a = config("a.conf", &minimal(""));
    let b = config(
        "b.conf",
        &minimal("").replace("10.2.0", "10.3.0").replace("b.example", "c.example"),
    );
    assert_eq!(between(&a, &b), "");
}

#[test]
fn the_same_name_is_an_error() {
    let a = config("a.conf", &minimal(""));
    let text = minimal("").replace("10.2.0", "10.3.0").replace("b.example", "c.example");
    let mut b = config("b.conf", &format!("name = \"a\"\n{text}"));
    b.file = "x/a.conf".into();
    assert_eq!(
        between(&a, &b),
        "error: the name `a` is taken by a.conf\n --> x/a.conf:1:8\n  |\n1 | name = \"a\"\n  |        ^^^\n  |\n  = help: rename one of the files, or begin it with: name = \"…\""
    );
}

#[test]
fn file_that_is_named_twice_is_told_as_that_alone() {
    let a = config("a.conf", &minimal(""));
    assert_eq!(
        between(&a, &a),
        "error: the file is named twice\n--> a.conf\n = help: name it once: each file is one peer"
    );
}

#[test]
fn the_same_subnets_are_an_error_and_overlapping_ones_a_warning() {
    let a = config("a.conf", &minimal(""));
    let same = config("b.conf", &minimal(""));
    let found = conflicts(&[&a, &same]);
    assert!(found.has_errors());
    assert_eq!(found.as_slice()[0].message, "10.1.0.0/16 <-> 10.2.0.0/16 is in a.conf too");
    let part = config("b.conf", &minimal("").replace("10.2.0.0/16", "10.2.7.0/24"));
    let found = conflicts(&[&a, &part]);
    assert!(!found.has_errors());
    assert_eq!(
        found.as_slice()[0].message,
        "10.1.0.0/16 <-> 10.2.7.0/24 overlaps subnets in a.conf"
    );
}

#[test]
fn what_overlaps_another_file_is_underlined_where_it_is_written() {
    let a = config("a.conf", &minimal(""));
    let place = |text: &str| {
        let b = config("b.conf", text);
        let found = conflicts(&[&a, &b]);
        let first = found.as_slice().first().expect("they conflict");
        let shown = first.to_string();
        let marks = shown.lines().find(|line| line.contains('^')).expect("it is underlined");
        let line = text.lines().nth(first.line - 1).expect("the line is there");
        let written = line.chars().skip(first.column - 1).take(marks.matches('^').count());
        written.collect::<String>()
    };
    assert_eq!(place(&minimal("")), "\"10.2.0.0/16\"");
    let several =
        minimal("").replace("[\"10.2.0.0/16\"]", "[\n\"10.9.0.0/16\", # ü\n \"10.2.7.0/24\"]");
    assert_eq!(place(&several), "\"10.2.7.0/24\"");
    let child = "[[child]]\nname = \"one\"\n[[child]]\nname = \"two\"\npeer = [\"10.2.8.0/24\"]\n";
    let children = minimal(child).replace("10.2.0.0/16", "10.9.0.0/16");
    assert_eq!(place(&children), "\"10.2.8.0/24\"");
    let address = minimal("")
        .replace("subnets = [\"10.2.0.0/16\"]\n", "")
        .replace("address = \"b.example.net\"", "address = \"10.2.0.9\"");
    assert_eq!(place(&address), "\"10.2.0.9\"");
    let other_key = minimal("")
        .replace("{ file = \"good.psk\" }", "\"a key that is another one\"")
        .replace("10.2.0", "10.3.0");
    assert_eq!(place(&other_key), "\"b.example.net\"");
}

#[test]
fn what_is_loaded_later_is_what_is_found_wrong() {
    let a = config("a.conf", &minimal(""));
    let b = config(
        "b.conf",
        &minimal("").replace("10.2.0", "10.3.0").replace("b.example", "c.example"),
    );
    let c = config("c.conf", &minimal("").replace("10.2.0", "10.3.0"));
    let found = conflicts_with(&c, [&a, &b]);
    assert_eq!(found.to_string(), conflicts(&[&a, &b, &c]).to_string());
    let found: Vec<_> =
        found.as_slice().iter().map(|found| (&*found.file, &found.message)).collect();
    assert_eq!(
        found,
        [("c.conf".as_ref(), &"10.1.0.0/16 <-> 10.3.0.0/16 is in b.conf too".to_owned())]
    );
}

#[test]
fn one_identity_with_two_keys_is_an_error() {
    let a = config("a.conf", &minimal(""));
    let other = minimal("")
        .replace("10.2.0", "10.3.0")
        .replace("{ file = \"good.psk\" }", "\"another key, quite as long\"");
    let b = config("b.conf", &other);
    let found = conflicts(&[&a, &b]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found.as_slice()[0].message,
        "the peer's id b.example.net has another psk in a.conf"
    );
}

#[test]
fn a_shared_interface_is_agreed_on() {
    let a = config("a.conf", &minimal(""));
    let text = minimal("[interface]\nmtu = 1400\n").replace("10.2.0", "10.3.0");
    let found = between(&a, &config("b.conf", &text));
    assert!(found.contains("`ipsec0` is set up differently in a.conf"), "{found}");
    let text = text.replace("mtu", "name = \"ipsec1\"\nmtu");
    assert_eq!(between(&a, &config("b.conf", &text)), "");
}

fn policies(file: &str, text: &str) -> Config {
    config(file, &format!("[[policy]]\n{text}"))
}

#[test]
fn policies_that_leave_a_tunnel_nothing_are_told_in_either_order_of_the_files() {
    let peer = config("a.conf", &minimal(""));
    let all = policies("holes.conf", "action = \"bypass\"\nremote = [\"10.2.0.0/15\"]\n");
    for (earlier, later) in [(&peer, &all), (&all, &peer)] {
        let found = conflicts(&[earlier, later]);
        assert!(!found.has_errors());
        assert_eq!(
            found.as_slice()[0].message,
            "[[policy]] `policy-1` of holes.conf lets pass in clear all of 10.1.0.0/16 <-> 10.2.0.0/16 of a.conf"
        );
    }
    for part in [
        "action = \"bypass\"\nremote = [\"10.2.0.0/16[tcp/22]\"]\n",
        "action = \"discard\"\nremote = [\"10.2.9.0/24\"]\n",
        "action = \"discard\"\norder = \"last\"\n",
        "action = \"bypass\"\ndirection = \"inbound\"\nremote = [\"10.2.0.0/16\"]\n",
    ] {
        assert_eq!(between(&peer, &policies("holes.conf", part)), "", "{part}");
    }
}

#[test]
fn policies_of_two_files_that_say_the_opposite_of_a_packet_are_told() {
    let pass = policies("b.conf", "action = \"bypass\"\nremote = [\"10.2.0.0/16\"]\n");
    let drop = policies("a.conf", "action = \"discard\"\nremote = [\"10.2.9.0/24\"]\n");
    let found = conflicts(&[&pass, &drop]);
    assert_eq!(
        found.as_slice()[0].message,
        "[[policy]] `policy-1` meets `policy-1` of b.conf, which says the opposite"
    );
    assert!(found.as_slice()[0].help.as_ref().unwrap().contains("`a` decides"), "{found}");
    let last = policies("a.conf", "action = \"discard\"\norder = \"last\"\n");
    assert_eq!(between(&pass, &last), "");
    // A name is taken once, by whatever it is.
    let peer = config("b.conf", &minimal(""));
    assert!(conflicts(&[&pass, &peer]).has_errors());
}
