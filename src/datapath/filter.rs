//! [`Filter`]: which packets an operator wants to see: `src 10.1.0.0/16 port 443 verdict drop`.

use core::net::IpAddr;
use core::str::FromStr;

use super::DropReason;
use super::probe::protocol_of;
use super::tap::{Direction, Record, Verdict};
use crate::ipsec::{Flow, PolicyId, Spi, TrafficSelector};
use crate::wire::ip::NextHeader;

/// Terms that all have to match; none: every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    not: bool,
    what: What,
}

/// Of each list one has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Direction(Direction),
    Dst(Vec<TrafficSelector>),
    DstPort(Vec<(u16, u16)>),
    Host(Vec<TrafficSelector>),
    Port(Vec<(u16, u16)>),
    Protocol(Vec<u8>),
    Reason(Vec<DropReason>),
    Spi(Vec<Spi>),
    Src(Vec<TrafficSelector>),
    SrcPort(Vec<(u16, u16)>),
    Tunnel(Vec<String>),
    Verdict(Vec<String>),
}

/// What is wrong with a filter, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// The words that a filter has, for help and errors.
pub const WORDS: &str = "in, out, src, dst, host (PREFIX), sport, dport, port (N or N-M), proto (NAME or N), \
    tunnel (PEER or CHILD), spi (0x…), verdict, reason; each with several values by commas, `not` before any";

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut words = text.split_whitespace();
        let mut terms = Vec::new();
        let mut not = false;
        // The word after which a term has to come.
        let mut before = None;
        while let Some(word) = words.next() {
            let mut value = || {
                let text = format!("{word} needs a value");
                words.next().ok_or(FilterError(text))
            };
            let what = match word {
                "not" => {
                    not = !not;
                    before = Some(word);
                    continue;
                }
                // As people join terms; all of them have to match anyway.
                "and" if terms.is_empty() => {
                    return Err(FilterError("and stands after nothing".to_owned()));
                }
                "and" if before.is_none() => {
                    before = Some(word);
                    continue;
                }
                "and" => return Err(FilterError("and stands between two terms".to_owned())),
                "in" | "inbound" => What::Direction(Direction::Inbound),
                "out" | "outbound" => What::Direction(Direction::Outbound),
                "src" => What::Src(list(word, value()?, "a prefix such as 10.1.0.0/16", prefix)?),
                "dst" => What::Dst(list(word, value()?, "a prefix such as 10.1.0.0/16", prefix)?),
                "host" | "net" => {
                    What::Host(list(word, value()?, "a prefix such as 10.1.0.0/16", prefix)?)
                }
                "sport" => What::SrcPort(list(word, value()?, "a port such as 443 or 1-9", range)?),
                "dport" => What::DstPort(list(word, value()?, "a port such as 443 or 1-9", range)?),
                "port" => What::Port(list(word, value()?, "a port such as 443 or 1-9", range)?),
                "proto" => What::Protocol(list(
                    word,
                    value()?,
                    "a protocol such as tcp or 89",
                    protocol_of,
                )?),
                "spi" => What::Spi(list(word, value()?, "an SPI such as 0xc0ffee01", spi)?),
                "tunnel" | "peer" => What::Tunnel(value()?.split(',').map(str::to_owned).collect()),
                "verdict" => {
                    let right = format!("one of {}", Verdict::NAMES.join(", "));
                    What::Verdict(list(word, value()?, &right, |text| {
                        Verdict::NAMES.contains(&text).then(|| text.to_owned())
                    })?)
                }
                "reason" => {
                    let names: Vec<_> = DropReason::ALL.iter().map(|it| it.name()).collect();
                    let right = format!("one of {}", names.join(", "));
                    What::Reason(list(word, value()?, &right, |text| {
                        DropReason::ALL.iter().copied().find(|it| it.name() == text)
                    })?)
                }
                _ => {
                    return Err(FilterError(format!(
                        "{word:?} is no word of a filter; there are {WORDS}"
                    )));
                }
            };
            terms.push(Term { not, what });
            (not, before) = (false, None);
        }
        if let Some(word) = before {
            return Err(FilterError(format!("{word} stands before nothing")));
        }
        Ok(Self { terms })
    }
}

fn list<T>(
    word: &str,
    value: &str,
    right: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, FilterError> {
    let wrong = |part: &str| FilterError(format!("{word} {part}: {right} is expected"));
    value.split(',').map(|part| parse(part).ok_or_else(|| wrong(part))).collect()
}

fn prefix(text: &str) -> Option<TrafficSelector> {
    match text.split_once('/') {
        Some((addr, len)) => TrafficSelector::from_prefix(addr.parse().ok()?, len.parse().ok()?),
        None => Some(TrafficSelector::from_addr(text.parse().ok()?)),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn spi(text: &str) -> Option<Spi> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    Spi::new(u32::from_str_radix(digits, 16).ok()?)
}

impl Filter {
    /// Whether the packet is wanted. `names` tells the names of a policy: its peer's, and its own.
    #[must_use]
    pub fn matches<'a>(
        &self,
        record: &Record<'_>,
        names: impl Fn(PolicyId) -> Option<(&'a str, &'a str)>,
    ) -> bool {
        self.terms.iter().all(|term| term.what.matches(record, &names) != term.not)
    }
}

impl What {
    fn matches<'a>(
        &self,
        record: &Record<'_>,
        names: &impl Fn(PolicyId) -> Option<(&'a str, &'a str)>,
    ) -> bool {
        let flow = record.flow.as_ref();
        let holds = |all: &[TrafficSelector], addr: IpAddr| {
            all.iter().any(|prefix| prefix.contains_addr(addr))
        };
        let within = |all: &[(u16, u16)], port: u16| {
            all.iter().any(|&(first, last)| first <= port && port <= last)
        };
        match self {
            Self::Direction(direction) => record.direction == *direction,
            Self::Src(all) => flow.is_some_and(|flow| holds(all, flow.src)),
            Self::Dst(all) => flow.is_some_and(|flow| holds(all, flow.dst)),
            Self::Host(all) => {
                flow.is_some_and(|flow| holds(all, flow.src) || holds(all, flow.dst))
            }
            Self::SrcPort(all) => ports(flow).is_some_and(|(src, _)| within(all, src)),
            Self::DstPort(all) => ports(flow).is_some_and(|(_, dst)| within(all, dst)),
            Self::Port(all) => {
                ports(flow).is_some_and(|(src, dst)| within(all, src) || within(all, dst))
            }
            Self::Protocol(all) => flow.is_some_and(|flow| all.contains(&flow.protocol)),
            Self::Spi(all) => record.spi.is_some_and(|spi| all.contains(&spi)),
            Self::Verdict(all) => all.iter().any(|name| name == record.verdict.name()),
            Self::Reason(all) => record.verdict.reason().is_some_and(|it| all.contains(&it)),
            Self::Tunnel(all) => all.iter().any(|wanted| {
                record.peer.as_deref() == Some(wanted)
                    || record.policy.and_then(names).is_some_and(|(peer, child)| {
                        wanted == peer
                            || wanted == child
                            || wanted.split_once('/') == Some((peer, child))
                    })
            }),
        }
    }
}

/// Of a protocol that has ports.
fn ports(flow: Option<&Flow>) -> Option<(u16, u16)> {
    let flow = flow?;
    let kind = matches!(
        NextHeader(flow.protocol),
        NextHeader::ICMP | NextHeader::ICMPV6 | NextHeader::MOBILITY
    );
    flow.ports.filter(|_| !kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::probe::Probe;
    use crate::datapath::tap::Wire;

    fn record(flow: &str, verdict: Verdict) -> Record<'static> {
        Record {
            direction: Direction::Outbound,
            verdict,
            flow: Some(flow.parse::<Probe>().expect("right").flow),
            len: 100,
            policy: Some(PolicyId(1)),
            spi: Spi::new(0xc0ff_ee01),
            peer: None,
            path: None,
            packets: 1,
            wire_len: 160,
            inner: &[],
            outer: Wire::None,
        }
    }

    #[test]
    fn each_word_takes_what_it_says_and_nothing_else() {
        let tcp = record("10.1.0.5:1234 > 10.2.0.9:443/tcp", Verdict::Protect);
        let icmp = record("10.1.0.5 > 10.2.0.9/icmp", Verdict::Drop(DropReason::TooBig));
        // Filter, whether it takes the first, and the second.
        for (text, takes_tcp, takes_icmp) in [
            ("", true, true),
            ("out", true, true),
            ("in", false, false),
            ("src 10.1.0.0/16", true, true),
            ("src 10.2.0.0/16", false, false),
            ("dst 10.2.0.9", true, true),
            ("host 10.2.0.0/16,10.7.0.0/16 and not port 80", true, true),
            ("port 443", true, false),
            ("sport 443", false, false),
            ("dport 400-450", true, false),
            ("not dport 400-450", false, true),
            // Type 8 of ICMP is no port.
            ("port 8", false, false),
            ("proto icmp,udp", false, true),
            ("proto 6", true, false),
            ("spi 0xc0ffee01", true, true),
            ("spi 0x100", false, false),
            ("verdict drop", false, true),
            ("reason too-big,no-policy", false, true),
            ("reason no-policy", false, false),
            ("tunnel b", true, true),
            ("tunnel lan", true, true),
            ("tunnel b/lan", true, true),
            ("tunnel c,d", false, false),
        ] {
            let filter: Filter = text.parse().expect(text);
            let names = |policy| (policy == PolicyId(1)).then_some(("b", "lan"));
            assert_eq!(filter.matches(&tcp, names), takes_tcp, "{text}");
            assert_eq!(filter.matches(&icmp, names), takes_icmp, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, parts) in [
            ("src", ["src", "value"]),
            ("src 10.1.0.0/40", ["10.1.0.0/40", "10.1.0.0/16"]),
            ("port 9-1", ["9-1", "443"]),
            ("proto ssh", ["ssh", "tcp"]),
            ("verdict lost", ["lost", "deliver"]),
            ("reason bad", ["bad", "too-big"]),
            ("spi 0", ["spi 0", "0xc0ffee01"]),
            ("colour red", ["colour", "verdict"]),
            ("not", ["not", "nothing"]),
            ("port 443 and", ["and", "nothing"]),
            ("and port 443", ["and", "nothing"]),
            ("port 443 and and in", ["and", "two terms"]),
            ("port 443 not and in", ["and", "two terms"]),
            ("port 443 and not", ["not", "nothing"]),
        ] {
            let error = text.parse::<Filter>().expect_err(text).to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
