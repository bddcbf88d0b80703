//! What a packet filter makes of a packet: `nft -j list ruleset`, read as far as it can be known without the packet.
//!
//! A rule matches, does not, or may (a limit, a mark, a set that changes). Only what is dropped for certain is told.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::Value;
use thiserror::Error;

/// Chains that call each other deeper than this are not followed.
const MAX_DEPTH: usize = 16;

/// The rules of all tables.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    chains: BTreeMap<Name, Chain>,
}

/// The text is not what `nft -j` writes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the packet filter's rules are not understood: {0}")]
pub struct RulesetError(String);

/// Family, table, chain.
type Name = (String, String, String);

#[derive(Clone, Debug, Default)]
struct Chain {
    /// Of a base chain: its hook, and whether what reaches its end is dropped.
    base: Option<(String, bool)>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    handle: u64,
    matches: Vec<Value>,
    /// Something in it that is not understood, or that depends on more than the packet.
    depends: bool,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Goto(String),
    Jump(String),
    Return,
    /// It may be anything.
    Unknown,
}

/// A packet, and where it passes.
#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// The IP protocol.
    pub(super) protocol: u8,
    /// Of UDP: source and destination.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) inbound: Option<&'a str>,
    pub(super) outbound: Option<&'a str>,
    /// Whether we sent the first packet of its kind, so that connection tracking knows it.
    pub(super) answers: bool,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes, or that cannot be known.
    Passes,
    /// It is dropped here: table, chain and rule, for people.
    Dropped(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

/// How a chain ended.
enum End {
    Accept,
    Drop(String),
    /// The end of it was reached.
    Over,
    Unknown,
}

impl Ruleset {
    /// Reads what `nft -j list ruleset` writes.
    ///
    /// # Errors
    /// If it is not JSON of that form.
    pub fn from_json(text: &str) -> Result<Self, RulesetError> {
        let bad = |what: &str| RulesetError(what.to_owned());
        let value: Value =
            serde_json::from_str(text).map_err(|error| RulesetError(error.to_string()))?;
        let items = value["nftables"].as_array().ok_or_else(|| bad("there is no \"nftables\""))?;
        let mut chains: BTreeMap<Name, Chain> = BTreeMap::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for item in items {
            if let Some(chain) = item.get("chain") {
                let name = (text(&chain["family"]), text(&chain["table"]), text(&chain["name"]));
                let filters = matches!(chain["type"].as_str(), Some("filter" | "route"));
                let base = chain["hook"]
                    .as_str()
                    .filter(|_| filters)
                    .map(|hook| (hook.to_owned(), chain["policy"].as_str() == Some("drop")));
                chains.entry(name).or_default().base = base;
            } else if let Some(rule) = item.get("rule") {
                let name = (text(&rule["family"]), text(&rule["table"]), text(&rule["chain"]));
                let expr = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
                let rule = Rule::read(rule["handle"].as_u64().unwrap_or_default(), expr);
                chains.entry(name).or_default().rules.push(rule);
            }
        }
        Ok(Self { chains })
    }

    /// Whether there is a rule, or a policy that drops.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let idle = |chain: &Chain| {
            chain.rules.is_empty() && chain.base.as_ref().is_none_or(|(_, drops)| !drops)
        };
        self.chains.values().all(idle)
    }

    /// What becomes of a packet at the hooks of these names.
    pub(super) fn fate(&self, hooks: &[&str], packet: &Packet<'_>) -> Fate {
        for hook in hooks {
            for (name, chain) in &self.chains {
                let Some((at, drops)) = &chain.base else { continue };
                if at != hook || !covers(&name.0, packet) {
                    continue;
                }
                match self.walk(name, chain, packet, 0) {
                    End::Drop(place) => return Fate::Dropped(place),
                    End::Over if *drops => {
                        return Fate::Dropped(format!("{}: its policy is drop", shown(name)));
                    }
                    End::Accept | End::Over | End::Unknown => {}
                }
            }
        }
        Fate::Passes
    }

    fn walk(&self, name: &Name, chain: &Chain, packet: &Packet<'_>, depth: usize) -> End {
        if depth > MAX_DEPTH {
            return End::Unknown;
        }
        // Whether a rule before may have ended it.
        let mut doubt = false;
        for rule in &chain.rules {
            let truth = rule.matches(packet);
            let Some(verdict) = rule.verdict.as_ref().filter(|_| truth != Truth::No) else {
                continue;
            };
            let place = || format!("{}, rule with handle {}", shown(name), rule.handle);
            let end = match verdict {
                Verdict::Accept => End::Accept,
                Verdict::Drop => End::Drop(place()),
                Verdict::Return if truth == Truth::Yes => {
                    return if doubt { End::Unknown } else { End::Over };
                }
                Verdict::Return | Verdict::Unknown => End::Unknown,
                Verdict::Goto(target) | Verdict::Jump(target) => {
                    let target = (name.0.clone(), name.1.clone(), target.clone());
                    match self.chains.get(&target) {
                        Some(chain) => self.walk(&target, chain, packet, depth + 1),
                        None => End::Unknown,
                    }
                }
            };
            let leaves = matches!(verdict, Verdict::Goto(_));
            if matches!(end, End::Over) && !leaves {
                continue;
            }
            if matches!(end, End::Unknown) || truth == Truth::Maybe {
                doubt = true;
            } else {
                return if doubt { End::Unknown } else { end };
            }
        }
        if doubt { End::Unknown } else { End::Over }
    }
}

impl Rule {
    fn read(handle: u64, expr: &[Value]) -> Self {
        let mut rule = Self { handle, ..Self::default() };
        for statement in expr {
            let Some((key, value)) = statement.as_object().and_then(|one| one.iter().next()) else {
                rule.depends = true;
                continue;
            };
            let target = || value["target"].as_str().unwrap_or_default().to_owned();
            match key.as_str() {
                "match" => rule.matches.push(value.clone()),
                "accept" => rule.verdict = Some(Verdict::Accept),
                "drop" | "reject" => rule.verdict = Some(Verdict::Drop),
                "goto" => rule.verdict = Some(Verdict::Goto(target())),
                "jump" => rule.verdict = Some(Verdict::Jump(target())),
                "return" => rule.verdict = Some(Verdict::Return),
                // They neither choose packets nor end their way.
                "counter" | "log" | "mangle" | "notrack" | "meta" | "ct helper" | "set" => {}
                "vmap" | "queue" | "xt" => {
                    rule.depends = true;
                    rule.verdict.get_or_insert(Verdict::Unknown);
                }
                _ => rule.depends = true,
            }
        }
        rule
    }

    fn matches(&self, packet: &Packet<'_>) -> Truth {
        let mut all = if self.depends { Truth::Maybe } else { Truth::Yes };
        for one in &self.matches {
            match matches(one, packet) {
                Truth::No => return Truth::No,
                Truth::Maybe => all = Truth::Maybe,
                Truth::Yes => {}
            }
        }
        all
    }
}

fn shown((family, table, chain): &Name) -> String {
    format!("{family} {table} {chain}")
}

fn covers(family: &str, packet: &Packet<'_>) -> bool {
    match family {
        "ip" => packet.dst.is_ipv4(),
        "ip6" => packet.dst.is_ipv6(),
        _ => family == "inet",
    }
}

/// What of a packet a match looks at.
enum Seen<'a> {
    Number(u64),
    Name(&'a str),
    Address(IpAddr),
    /// One of these words.
    Words(&'a [&'a str]),
}

fn matches(one: &Value, packet: &Packet<'_>) -> Truth {
    let left = &one["left"];
    let seen = if let Some(key) = left["meta"]["key"].as_str() {
        match key {
            "l4proto" => Some(Seen::Number(packet.protocol.into())),
            "iifname" | "iif" => packet.inbound.map(Seen::Name),
            "oifname" | "oif" => packet.outbound.map(Seen::Name),
            "nfproto" => {
                Some(Seen::Words(if packet.dst.is_ipv4() { &["ipv4"] } else { &["ipv6"] }))
            }
            _ => None,
        }
    } else if left["ct"]["key"].as_str() == Some("state") {
        Some(Seen::Words(if packet.answers { &["established"] } else { &["new"] }))
    } else if let (Some(protocol), Some(field)) =
        (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str())
    {
        match (protocol, field) {
            ("ip" | "ip6", _) if (protocol == "ip") != packet.dst.is_ipv4() => return Truth::No,
            ("ip" | "ip6", "saddr") => Some(Seen::Address(packet.src)),
            ("ip" | "ip6", "daddr") => Some(Seen::Address(packet.dst)),
            ("ip", "protocol") | ("ip6", "nexthdr") => Some(Seen::Number(packet.protocol.into())),
            ("udp" | "th", _) => match (packet.protocol, packet.ports, field) {
                (17, Some((sport, _)), "sport") => Some(Seen::Number(sport.into())),
                (17, Some((_, dport)), "dport") => Some(Seen::Number(dport.into())),
                (17, _, _) => None,
                _ if protocol == "udp" => return Truth::No,
                _ => None,
            },
            ("tcp" | "icmp" | "icmpv6" | "sctp" | "dccp" | "udplite" | "igmp", _) => {
                return Truth::No;
            }
            ("esp", _) if packet.protocol != 50 => return Truth::No,
            ("ah", _) if packet.protocol != 51 => return Truth::No,
            _ => None,
        }
    } else {
        None
    };
    let found = seen.map_or(Truth::Maybe, |seen| is_in(&seen, &one["right"]));
    match (one["op"].as_str(), found) {
        (Some("==" | "in"), found) => found,
        (Some("!="), Truth::Yes) => Truth::No,
        (Some("!="), Truth::No) => Truth::Yes,
        _ => Truth::Maybe,
    }
}

fn is_in(seen: &Seen<'_>, right: &Value) -> Truth {
    let any = |items: &[Value]| {
        let truths: Vec<_> = items.iter().map(|item| is_in(seen, item)).collect();
        if truths.contains(&Truth::Yes) {
            Truth::Yes
        } else if truths.contains(&Truth::Maybe) {
            Truth::Maybe
        } else {
            Truth::No
        }
    };
    if let Some(items) = right.as_array().or_else(|| right["set"].as_array()) {
        return any(items);
    }
    if let Some(inner) = right.get("elem") {
        return is_in(seen, &inner["val"]);
    }
    let truth = |yes: bool| if yes { Truth::Yes } else { Truth::No };
    match seen {
        Seen::Number(number) => {
            if let Some([low, high]) = right["range"].as_array().map(Vec::as_slice) {
                return match (low.as_u64(), high.as_u64()) {
                    (Some(low), Some(high)) => truth((low..=high).contains(number)),
                    _ => Truth::Maybe,
                };
            }
            right
                .as_u64()
                .or_else(|| protocol_number(right.as_str()?))
                .map_or(Truth::Maybe, |right| truth(right == *number))
        }
        Seen::Name(name) => match right.as_str() {
            Some(right) if right.starts_with('@') => Truth::Maybe,
            Some(right) => truth(match right.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => right == *name,
            }),
            None => Truth::Maybe,
        },
        Seen::Words(words) => match right.as_str() {
            Some(right) if right.starts_with('@') => Truth::Maybe,
            Some(right) => truth(words.contains(&right)),
            None => Truth::Maybe,
        },
        Seen::Address(address) => {
            if let Some(prefix) = right.get("prefix") {
                let addr = prefix["addr"].as_str().and_then(|addr| addr.parse().ok());
                let len = prefix["len"].as_u64().and_then(|len| u8::try_from(len).ok());
                let net = addr.zip(len).and_then(|(addr, len)| IpNet::new(addr, len).ok());
                return net.map_or(Truth::Maybe, |net| truth(net.contains(address)));
            }
            if let Some([low, high]) = right["range"].as_array().map(Vec::as_slice) {
                let end = |end: &Value| end.as_str().and_then(|text| text.parse::<IpAddr>().ok());
                return match (end(low), end(high)) {
                    (Some(low), Some(high)) => truth((low..=high).contains(address)),
                    _ => Truth::Maybe,
                };
            }
            let right = right.as_str().and_then(|right| right.parse::<IpAddr>().ok());
            right.map_or(Truth::Maybe, |right| truth(right == *address))
        }
    }
}

fn protocol_number(name: &str) -> Option<u64> {
    [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("esp", 50),
        ("ah", 51),
        ("ipv6-icmp", 58),
        ("icmpv6", 58),
    ]
    .iter()
    .find(|(known, _)| *known == name)
    .map(|(_, number)| *number)
}
