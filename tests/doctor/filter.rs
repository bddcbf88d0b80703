//! What the packet filter of this host makes of the packets of a tunnel: only what it drops for certain is told.

use ipsecd::doctor::{Firewall, Kind, Ruleset, examine};

use crate::{config, facts};

const PORTS: &str = r#"{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":{"set":[500,4500]}}}"#;
const STATE: &str = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
const LIMIT: &str = r#"{"limit":{"rate":10,"per":"second"}},{"accept":null}"#;
const DROP: &str = r#"{"drop":null}"#;

/// As `nft -j` writes a chain of a hook with these rules, beside one that drops all that comes to it.
fn rules(hook: &str, policy: &str, rules: &[&str]) -> Ruleset {
    let rules: String = rules
        .iter()
        .zip(1..)
        .map(|(expr, handle)| {
            format!(r#",{{"rule":{{"family":"inet","table":"t","chain":"base","handle":{handle},"expr":[{expr}]}}}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"nftables":[{{"metainfo":{{"version":"1.0.6"}}}},{{"table":{{"family":"inet","name":"t"}}}},
           {{"chain":{{"family":"inet","table":"t","name":"base","type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}},
           {{"chain":{{"family":"inet","table":"t","name":"ours"}}}},
           {{"rule":{{"family":"inet","table":"t","chain":"ours","handle":90,"expr":[{DROP}]}}}}{rules}]}}"#
    );
    Ruleset::from_json(&text).expect("the form of nft")
}

/// What is found: the causes.
fn found(rules: Ruleset, more: &str) -> Vec<String> {
    let mut facts = facts(config(more));
    facts.host.firewall = Firewall::Rules(rules);
    let report = examine(&facts);
    assert!(report.findings.iter().all(|it| it.kind == Kind::Firewall), "{report}");
    report.findings.into_iter().map(|it| format!("{} {}", it.cause, it.seen.join(" "))).collect()
}

#[test]
fn a_rule_that_drops_the_ports_drops_them_alone() {
    let found = found(
        rules("input", "accept", &[&format!(r#"{PORTS},{{"counter":{{"packets":1}}}},{DROP}"#)]),
        "",
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("drops UDP port 500 from 198.51.100.1"), "{found:?}");
    assert!(found[0].contains("inet t base, rule with handle 1"), "{found:?}");
    assert!(found[1].contains("4500"), "{found:?}");
}

#[test]
fn a_policy_drops_what_no_rule_takes_unless_we_have_asked_for_it() {
    assert_eq!(found(rules("input", "drop", &[]), "").len(), 3, "both ports, and ESP");
    assert_eq!(found(rules("input", "drop", &[STATE]), ""), [""; 0], "an answer to what we sent");
    let respond = "[esp]\nstart = \"respond\"\n";
    assert_eq!(found(rules("input", "drop", &[STATE]), respond).len(), 3, "the peer begins");
    let open = format!(r#"{PORTS},{{"accept":null}}"#);
    let found = found(rules("input", "drop", &[&open]), respond);
    assert!(found.len() == 1 && found[0].contains("ESP"), "{found:?}");
}

#[test]
fn what_may_pass_is_not_said_to_be_dropped() {
    let xt = r#"{"xt":{"type":"match","name":"u32"}}"#;
    let set = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@bad"}},{"drop":null}"#;
    for (policy, rule) in [("drop", LIMIT), ("drop", xt), ("accept", set)] {
        assert_eq!(found(rules("input", policy, &[rule]), ""), [""; 0], "{rule}");
    }
}

#[test]
fn a_chain_that_is_jumped_to_is_followed_and_a_loop_ends() {
    let jump = format!(r#"{PORTS},{{"jump":{{"target":"ours"}}}}"#);
    let all = found(rules("input", "accept", &[&jump]), "");
    assert!(all.len() == 2 && all[0].contains("inet t ours, rule with handle 90"), "{all:?}");
    let looped = r#"{"jump":{"target":"base"}}"#;
    assert_eq!(found(rules("input", "accept", &[looped]), ""), [""; 0]);
}

#[test]
fn what_leaves_is_looked_at_too() {
    let all = found(rules("output", "accept", &[&format!("{PORTS},{DROP}")]), "");
    assert!(all.len() == 2 && all[0].contains("drops UDP port 500 to 198.51.100.1"), "{all:?}");
}

#[test]
fn addresses_and_interfaces_are_compared() {
    let from = |right: &str, op: &str| {
        format!(
            r#"{{"match":{{"op":"{op}","left":{{"payload":{{"protocol":"ip","field":"saddr"}}}},"right":{right}}}}},{DROP}"#
        )
    };
    let net = r#"{"prefix":{"addr":"198.51.100.0","len":24}}"#;
    let count = |rule: &str| found(rules("input", "accept", &[rule]), "").len();
    assert_eq!(count(&from(net, "==")), 3);
    assert_eq!(count(&from(net, "!=")), 0);
    assert_eq!(count(&from(r#""203.0.113.1""#, "==")), 0);
    let device = |name: &str| {
        format!(
            r#"{{"match":{{"op":"==","left":{{"meta":{{"key":"iifname"}}}},"right":"{name}"}}}},{DROP}"#
        )
    };
    assert_eq!(count(&device("wan*")), 3);
    assert_eq!(count(&device("eth0")), 0);
}

#[test]
fn a_filter_that_forwards_nothing_either_way_is_found() {
    let all = found(rules("forward", "drop", &[STATE]), "");
    assert!(all.len() == 1 && all[0].contains("between lan0 and ipsec0"), "{all:?}");
    // One way may be meant.
    let out = r#"{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"ipsec0"}},{"accept":null}"#;
    assert_eq!(found(rules("forward", "drop", &[STATE, out]), ""), [""; 0]);
}

#[test]
fn junk_is_an_error() {
    assert!(Ruleset::from_json("").is_err());
    assert!(Ruleset::from_json("{}").is_err());
    let odd = r#"{"nftables":[1,{"rule":3},{"chain":[]},{"rule":{"expr":[7,{}]}}]}"#;
    assert_eq!(found(Ruleset::from_json(odd).unwrap(), ""), [""; 0], "no form that is known");
}
