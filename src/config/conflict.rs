//! What is wrong only where several configurations meet: [`conflicts`].

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::manual::{Clash, spi_clashes};
use super::place::Place;
use super::selector::show;
use super::{Config, Keying, PolicyRef, identity};
use crate::crypto::Secret;
use crate::ipsec::fixed::{Direction, Order};
use crate::ipsec::manual::ManualPeer;
use crate::ipsec::pad::{Identity, Peer, PeerAddress, PeerAuth};
use crate::ipsec::selector::common_prefix;
use crate::ipsec::{FixedPolicy, TrafficSelector};

/// What is wrong between configurations that are to be used together, each by itself being right. The findings are
/// those of the later file and name the earlier.
#[must_use]
pub fn conflicts(configs: &[&Config]) -> Diagnostics {
    let mut found = Diagnostics::default();
    let mut earlier = Beside::default();
    for later in configs {
        found.append(earlier.conflicts_with(later));
        earlier.add(later);
    }
    found
}

/// What is wrong between a configuration and those that are in use, which go with each other. For many, one after the other, see
/// [`Beside`].
#[must_use]
pub fn conflicts_with<'a>(
    later: &Config,
    earlier: impl IntoIterator<Item = &'a Config>,
) -> Diagnostics {
    earlier.into_iter().collect::<Beside<'a>>().conflicts_with(later)
}

/// Configurations, in such an order that those which another may be in conflict with are found without looking at all of them:
/// ten thousand files would be fifty million pairs.
#[derive(Default)]
pub struct Beside<'a> {
    all: Vec<&'a Config>,
    /// Each of these has numbers of `all`.
    by_name: HashMap<&'a str, Vec<usize>>,
    /// Of those with a key, by the key.
    by_identities: HashMap<Identities<'a>, Vec<(&'a Secret, Vec<usize>)>>,
    /// By name, and by what those who share one must agree on.
    interfaces: HashMap<&'a str, Vec<(Agreed, Vec<usize>)>>,
    /// By the first address and the length of the smallest prefix that a selector of the peer's side lies in.
    places: BTreeMap<(IpAddr, u8), Vec<usize>>,
    manual: Vec<usize>,
    /// Those without peer.
    fixed: Vec<usize>,
}

/// Ours, and the peer's.
type Identities<'a> = (&'a Identity, Option<&'a Identity>);

/// MTU, `clamp-mss` and `routes` of an interface.
type Agreed = (Option<u16>, bool, bool);

impl<'a> Beside<'a> {
    /// One more.
    pub fn add(&mut self, config: &'a Config) {
        let number = self.all.len();
        self.all.push(config);
        self.by_name.entry(config.name()).or_default().push(number);
        if config.manual().is_some() {
            self.manual.push(number);
        }
        if !config.fixed().is_empty() {
            self.fixed.push(number);
            return;
        }
        if let Some((identities, psk)) = psk_of(config) {
            put(self.by_identities.entry(identities).or_default(), psk, number);
        }
        let of_name = self.interfaces.entry(&config.interface.name).or_default();
        put(of_name, agreed(config), number);
        for place in places(config) {
            self.places.entry(place).or_default().push(number);
        }
    }

    /// What is wrong between one more and these.
    #[must_use]
    pub fn conflicts_with(&self, later: &Config) -> Diagnostics {
        self.conflicts(later, |_| true)
    }

    /// The same, where one of the same name is what it takes the place of.
    #[must_use]
    pub fn conflicts_with_others(&self, later: &Config) -> Diagnostics {
        self.conflicts(later, |earlier| earlier.name() != later.name())
    }

    fn conflicts(&self, later: &Config, counts: impl Fn(&Config) -> bool) -> Diagnostics {
        let mut found = Diagnostics::default();
        let selectors = pairs(later);
        let earlier = self.candidates(later).into_iter().map(|number| self.all[number]);
        for earlier in earlier.filter(|earlier| counts(earlier)) {
            pair(earlier, later, &selectors, &mut found);
        }
        found
    }

    /// The numbers of those that may be in conflict.
    fn candidates(&self, later: &Config) -> BTreeSet<usize> {
        let mut numbers = BTreeSet::new();
        numbers.extend(self.by_name.get(&**later.name()).into_iter().flatten());
        numbers.extend(&self.fixed);
        if !later.fixed().is_empty() {
            numbers.extend(0..self.all.len());
            return numbers;
        }
        if later.manual().is_some() {
            numbers.extend(&self.manual);
        }
        if let Some((identities, psk)) = psk_of(later) {
            let same = self.by_identities.get(&identities).into_iter().flatten();
            numbers.extend(same.filter(|(other, _)| *other != psk).flat_map(|(_, all)| all));
        }
        let same = self.interfaces.get(&*later.interface.name).into_iter().flatten();
        let agreed = agreed(later);
        numbers.extend(same.filter(|(other, _)| *other != agreed).flat_map(|(_, all)| all));
        // Two prefixes meet where one is within the other.
        for (first, len) in places(later) {
            let Some(prefix) = TrafficSelector::from_prefix(first, len) else { continue };
            let within = self.places.range((first, 0)..=(prefix.end_addr, u8::MAX));
            numbers.extend(within.flat_map(|(_, others)| others));
            let around = (0..len).filter_map(|len| {
                let around = TrafficSelector::from_prefix(first, len)?;
                self.places.get(&(around.start_addr, len))
            });
            numbers.extend(around.flatten());
        }
        numbers
    }
}

impl<'a> FromIterator<&'a Config> for Beside<'a> {
    fn from_iter<T: IntoIterator<Item = &'a Config>>(configs: T) -> Self {
        let mut all = Self::default();
        configs.into_iter().for_each(|config| all.add(config));
        all
    }
}

/// Puts a number to those with the same `what`.
fn put<T: PartialEq>(groups: &mut Vec<(T, Vec<usize>)>, what: T, number: usize) {
    match groups.iter_mut().find(|(other, _)| *other == what) {
        Some((_, numbers)) => numbers.push(number),
        None => groups.push((what, vec![number])),
    }
}

/// The identities, and the key that the peer proves to have; `None` where it is none that two have.
fn psk_of(config: &Config) -> Option<(Identities<'_>, &Secret)> {
    let peer = config.ike()?;
    match &peer.auth.peer {
        PeerAuth::Psk(psk) => Some(((&peer.local_id, peer.peer_id.as_ref()), psk)),
        PeerAuth::Eap(_) | PeerAuth::Signature(_) => None,
    }
}

fn agreed(config: &Config) -> Agreed {
    let interface = &config.interface;
    (interface.mtu, interface.clamp_mss, interface.routes)
}

/// The smallest prefixes that the selectors of the peer's side lie in, each once.
fn places(config: &Config) -> BTreeSet<(IpAddr, u8)> {
    let policies = config.policies();
    let selectors = policies.iter().flat_map(|policy| policy.ts_peer);
    let covers = selectors.filter_map(|ts| common_prefix(core::slice::from_ref(ts)));
    covers.map(|(len, first)| (first, len)).collect()
}

/// A selector of our side, and one of the peer's.
type Selectors = (TrafficSelector, TrafficSelector);

fn pair(earlier: &Config, later: &Config, selectors: &[Selectors], found: &mut Diagnostics) {
    let other = || earlier.file.display().to_string();
    let mut add = |severity, place: Place, message: String, help: String| {
        let mut diagnostic = Diagnostic::of_file(severity, &later.file, message);
        if let Some(span) = place.find(&later.shown) {
            diagnostic.at(&later.shown, span);
        }
        diagnostic.help(help);
        found.push(diagnostic);
    };
    if earlier.file == later.file && earlier.name() == later.name() {
        add(
            Severity::Error,
            Place::Whole,
            "the file is named twice".to_owned(),
            "name it once: each file is one peer".to_owned(),
        );
        return;
    }
    if earlier.name() == later.name() {
        add(
            Severity::Error,
            Place::Keys("", &["name"]),
            format!("the name `{}` is taken by {}", later.name(), other()),
            "rename one of the files, or begin it with: name = \"…\"".to_owned(),
        );
    }
    let is_fixed = [earlier, later].map(|config| !config.fixed().is_empty());
    if is_fixed != [false; 2] {
        return fixed(earlier, later, &other(), &mut add);
    }
    let manual = earlier.manual().is_some() || later.manual().is_some();
    match overlap(earlier, selectors) {
        Some((ours, theirs, true)) => add(
            Severity::Error,
            Place::Selector(theirs.clone()),
            format!("{ours} <-> {theirs} is in {} too", other()),
            "traffic can take one tunnel only: give each peer subnets of its own".to_owned(),
        ),
        Some((ours, theirs, false)) if manual => add(
            Severity::Error,
            Place::Selector(theirs.clone()),
            format!("{ours} <-> {theirs} overlaps selectors in {}", other()),
            "nobody narrows the selectors of manual keys: write such as do not meet".to_owned(),
        ),
        Some((ours, theirs, false)) => add(
            Severity::Warning,
            Place::Selector(theirs.clone()),
            format!("{ours} <-> {theirs} overlaps subnets in {}", other()),
            "the peer that was loaded first gets the traffic of both".to_owned(),
        ),
        None => {}
    }
    match (&earlier.keying, &later.keying) {
        (Keying::Ike(a), Keying::Ike(b)) => identities(a, b, &other, &mut add),
        (Keying::Manual(a), Keying::Manual(b)) => manual_keys(a, b, &other(), &mut add),
        (Keying::Ike(_), Keying::Manual(_))
        | (Keying::Manual(_), Keying::Ike(_))
        | (Keying::None { .. }, _)
        | (_, Keying::None { .. }) => {}
    }
    let (a, b) = (&earlier.interface, &later.interface);
    if a.name == b.name && agreed(earlier) != agreed(later) {
        add(
            Severity::Error,
            Place::Keys("interface", &["mtu", "routes", "clamp-mss", "name"]),
            format!("[interface] `{}` is set up differently in {}", b.name, other()),
            "files that share an interface agree on mtu, routes and clamp-mss; else give it another name"
                .to_owned(),
        );
    }
}

/// What policies that need no SA have to do with those of another file.
fn fixed(
    earlier: &Config,
    later: &Config,
    other: &str,
    add: &mut dyn FnMut(Severity, Place, String, String),
) {
    for policy in later.fixed() {
        let mut met = earlier.fixed().iter().filter(|it| {
            it.order == policy.order && it.bypass != policy.bypass && it.meets(policy)
        });
        if let Some(met) = met.next() {
            let first = earlier.name().min(later.name());
            add(
                Severity::Warning,
                Place::Whole,
                format!(
                    "[[policy]] `{}` meets `{}` of {other}, which says the opposite",
                    policy.name, met.name
                ),
                format!(
                    "files go by their names, and so `{first}` decides; if that is not meant, put both into one file"
                ),
            );
        }
    }
    let (files, peer) = if later.fixed().is_empty() { (earlier, later) } else { (later, earlier) };
    for policy in files.fixed().iter().filter(|policy| policy.order == Order::First) {
        for (local, remote) in pairs(peer) {
            if policy.covers(&local, &remote) {
                let what = if policy.bypass { "lets pass in clear" } else { "drops" };
                add(
                    Severity::Warning,
                    Place::Whole,
                    format!(
                        "[[policy]] `{}` of {} {what} all of {} <-> {} of {}",
                        policy.name,
                        files.file.display(),
                        show(&local),
                        show(&remote),
                        peer.file.display(),
                    ),
                    "no packet is left for that tunnel: narrow the policy, or let it stand after the tunnels: order = \"last\"".to_owned(),
                );
            }
        }
    }
}

fn identities(
    a: &Peer,
    b: &Peer,
    other: &dyn Fn() -> String,
    add: &mut dyn FnMut(Severity, Place, String, String),
) {
    let psks = match (&a.auth.peer, &b.auth.peer) {
        (PeerAuth::Psk(a), PeerAuth::Psk(b)) => Some((a, b)),
        (PeerAuth::Eap(_) | PeerAuth::Signature(_), _)
        | (_, PeerAuth::Eap(_) | PeerAuth::Signature(_)) => None,
    };
    if a.peer_id == b.peer_id && a.local_id == b.local_id && psks.is_some_and(|(a, b)| a != b) {
        // The responder learns who asks by the identity alone (RFC 7296 §2.15).
        let id = b.peer_id.as_ref().map_or_else(|| "any".to_owned(), identity::render);
        add(
            Severity::Error,
            Place::Keys("peer", &["id", "address"]),
            format!("the peer's id {id} has another psk in {}", other()),
            "two peers need two identities, or one key".to_owned(),
        );
    }
}

fn manual_keys(
    a: &ManualPeer,
    b: &ManualPeer,
    other: &str,
    add: &mut dyn FnMut(Severity, Place, String, String),
) {
    for clash in spi_clashes(b.layers(), a.layers().collect()) {
        let (message, help) = match clash {
            Clash::Inbound(spi) => {
                (format!("spi-in {spi} is in {other} too"), "every SA has an SPI of its own")
            }
            // Another peer may have chosen the same.
            Clash::Outbound(_) if a.address != b.address => continue,
            Clash::Outbound(spi) => {
                (format!("spi-out {spi} is in {other} too"), "every SA has an SPI of its own")
            }
            Clash::Key => (
                format!("a key is in {other} too"),
                "each SA its own: with this algorithm, a sequence number used twice under one key gives plaintext away",
            ),
        };
        add(Severity::Error, Place::Whole, message, help.to_owned());
    }
}

fn pairs(config: &Config) -> Vec<Selectors> {
    let policies = config.policies().into_iter();
    policies
        .flat_map(|c| c.ts_local.iter().flat_map(|l| c.ts_peer.iter().map(|p| (*l, *p))))
        .filter(|(l, p)| l.start_addr.is_ipv6() == p.start_addr.is_ipv6())
        .collect()
}

/// The first of these selectors that the other configuration has as well, and whether it is the same there.
fn overlap(other: &Config, selectors: &[Selectors]) -> Option<(String, String, bool)> {
    let others = pairs(other);
    let mut partial = None;
    for &(local, peer) in selectors {
        for &(other_local, other_peer) in &others {
            if local == other_local && peer == other_peer {
                return Some((show(&local), show(&peer), true));
            }
            let met = local.intersect(&other_local).and(peer.intersect(&other_peer));
            if met.is_some() {
                partial.get_or_insert_with(|| (show(&local), show(&peer), false));
            }
        }
    }
    partial
}

impl Config {
    /// One line: the name, the subnets of both sides, and the peer.
    #[must_use]
    pub fn summary(&self) -> String {
        if !self.fixed().is_empty() {
            let all: Vec<_> = self.fixed().iter().map(FixedPolicy::summary).collect();
            return all.join("; ");
        }
        let policies = self.policies();
        let list = |of: fn(&PolicyRef<'_>) -> Vec<String>| {
            policies.iter().flat_map(of).collect::<Vec<_>>().join(", ")
        };
        let with = match self.address() {
            PeerAddress::Any => match self.ike().and_then(|peer| peer.peer_id.as_ref()) {
                Some(id) => format!("{} from anywhere", identity::render(id)),
                None => "anyone from anywhere".to_owned(),
            },
            PeerAddress::Ip(address) => address.to_string(),
            PeerAddress::Name(name) => name.clone(),
        };
        let keys = if self.manual().is_some() { ", manual keys: no rekey" } else { "" };
        let local = list(|policy| policy.ts_local.iter().map(show).collect());
        let peer = list(|policy| policy.ts_peer.iter().map(show).collect());
        format!("{local} <-> {peer} with {with}{keys}")
    }
}

impl FixedPolicy {
    /// Name, selectors of both sides, and what becomes of it.
    #[must_use]
    pub fn summary(&self) -> String {
        let list = |side: &[TrafficSelector]| side.iter().map(show).collect::<Vec<_>>().join(", ");
        let arrow = match self.direction {
            Direction::Both => "<->",
            Direction::Inbound => "<-",
            Direction::Outbound => "->",
        };
        let action = if self.bypass { "BYPASS" } else { "DISCARD" };
        let order = match self.order {
            Order::First => "before",
            Order::Last => "after",
        };
        let (local, remote) = (list(&self.ts_local), list(&self.ts_remote));
        format!("{} {action} {local} {arrow} {remote}, {order} the tunnels", self.name)
    }
}

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{SecretError, SecretFile, SecretSource, Source, parse};

    struct Nothing;

    impl SecretSource for Nothing {
        fn read(&self, _path: &Path) -> Result<SecretFile, SecretError> {
            Err(SecretError::Missing)
        }

        fn credential(&self, _name: &str) -> Result<SecretFile, SecretError> {
            Err(SecretError::NoCredentials)
        }
    }

    fn config(name: &str, id: &str, key: u32, subnets: &str, interface: &str) -> Config {
        // Of the versions that are opposite.
        let local = match (subnets.contains('.'), subnets.contains(':')) {
            (true, true) => "\"10.1.0.0/16\", \"fd01::/64\"",
            (true, false) => "\"10.1.0.0/16\"",
            _ => "\"fd01::/64\"",
        };
        let text = format!(
            "name = \"{name}\"\n\
             [local]\nid = \"a.example.net\"\nsubnets = [{local}]\n\
             [peer]\naddress = \"b.example.net\"\nid = \"{id}\"\nsubnets = [{subnets}]\n\
             [auth]\npsk = \"a key that nobody would guess {key}\"\n[interface]\n{interface}\n"
        );
        let file = format!("{name}.conf");
        let source = Source { file: Path::new(&file), text: &text, mode: Some(0o600) };
        parse(source, &Nothing).expect("a configuration").config
    }

    /// As if every pair was looked at.
    fn by_looking_at_all(configs: &[&Config], later: &Config) -> String {
        let mut found = Diagnostics::default();
        let selectors = pairs(later);
        for earlier in configs {
            pair(earlier, later, &selectors, &mut found);
        }
        found.to_string()
    }

    #[test]
    fn what_is_found_is_what_looking_at_all_of_them_finds() {
        let subnets = |number: u32| match number % 7 {
            0 => format!("\"10.{}.0.0/16\"", 2 + number % 5),
            1 => format!("\"10.{}.{}.0/24\", \"fd02::{number:x}/128\"", 2 + number % 3, number % 4),
            2 => format!("\"10.2.{}.0-10.2.{}.9\"", number % 9, number % 9 + 3),
            3 => format!("\"fd02::/{}\"", 32 + number % 96),
            4 => "\"0.0.0.0/0\"".to_owned(),
            5 => format!("\"10.2.{}.7\"", number % 9),
            _ => format!("\"10.200.{}.0/24[tcp/443]\"", number % 250),
        };
        let all: Vec<_> = (0..140_u32)
            .map(|number| {
                let id = format!("peer-{}.example.net", number % 90);
                let interface = if number % 11 == 0 { "mtu = 1300" } else { "clamp-mss = true" };
                let name = format!("n{}", number % 130);
                config(&name, &id, number % 4, &subnets(number * 13), interface)
            })
            .collect();
        let all: Vec<_> = all.iter().collect();
        let mut beside = Beside::default();
        let mut seen = 0;
        for (at, later) in all.iter().enumerate() {
            let want = by_looking_at_all(&all[..at], later);
            assert_eq!(beside.conflicts_with(later).to_string(), want);
            seen += usize::from(!want.is_empty());
            beside.add(later);
        }
        assert!(seen > 20 && seen < 140, "{seen} of them conflict");
    }

    #[test]
    fn of_many_that_have_nothing_in_common_none_is_looked_at() {
        let of = |number: u32| {
            let (name, id) = (format!("n{number}"), format!("peer-{number}.example.net"));
            let subnet = format!("\"10.{}.{}.0/24\"", 2 + number / 256, number % 256);
            config(&name, &id, number, &subnet, "clamp-mss = true")
        };
        let all: Vec<_> = (0..600).map(of).collect();
        let mut beside = Beside::default();
        for config in &all {
            assert!(beside.candidates(config).is_empty());
            beside.add(config);
        }
        let again = beside.candidates(&of(77));
        assert_eq!(again.into_iter().collect::<Vec<_>>(), [77]);
    }
}
