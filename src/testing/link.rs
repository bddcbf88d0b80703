//! [`Link`]: one direction of a network that loses, doubles, delays, reorders and spoils; and [`Nat`].

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::FixedRandom;

/// What one direction of the network does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Every datagram takes this long.
    pub delay: Duration,
    /// Share of datagrams that vanish, in percent.
    pub loss: u8,
    /// Share of datagrams that come twice, in percent.
    pub duplicate: u8,
    /// Share of datagrams that take up to `reorder_by` longer, and so are overtaken, in percent.
    pub reorder: u8,
    /// How much longer at most.
    pub reorder_by: Duration,
    /// Share of datagrams of which one bit changes, in percent.
    pub corrupt: u8,
    /// Everything vanishes.
    pub black_hole: bool,
    /// IKE messages that are longer vanish.
    pub longest: usize,
}

impl LinkConfig {
    /// Ten milliseconds, in order, nothing lost.
    pub const PERFECT: Self = Self {
        delay: Duration::from_millis(10),
        loss: 0,
        duplicate: 0,
        reorder: 0,
        reorder_by: Duration::ZERO,
        corrupt: 0,
        black_hole: false,
        longest: usize::MAX,
    };

    /// 20 % lost, 20 % doubled, 30 % late by up to a tenth of a second.
    pub const BAD: Self = Self {
        loss: 20,
        duplicate: 20,
        reorder: 30,
        reorder_by: Duration::from_millis(100),
        ..Self::PERFECT
    };
}

/// One direction of the network.
pub struct Link {
    /// What it does; may be changed at any time.
    pub config: LinkConfig,
    random: FixedRandom,
}

impl Link {
    /// A link whose whims follow from `random`.
    #[must_use]
    pub const fn new(config: LinkConfig, random: FixedRandom) -> Self {
        Self { config, random }
    }

    /// The copies of `datagram` that arrive, each with the time it takes.
    pub fn carry(&mut self, datagram: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let config = self.config;
        if config.black_hole || datagram.len() > config.longest || self.random.chance(config.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.random.chance(config.duplicate));
        (0..copies)
            .map(|_| {
                let mut copy = datagram.to_vec();
                if self.random.chance(config.corrupt)
                    && let at = self.random.below(copy.len())
                    && let Some(byte) = copy.get_mut(at)
                {
                    *byte ^= 1 << (self.random.below(8));
                }
                (self.delay(), copy)
            })
            .collect()
    }

    /// The time that the next datagram takes.
    pub fn delay(&mut self) -> Duration {
        let mut delay = self.config.delay;
        if self.random.chance(self.config.reorder) {
            let most = usize::try_from(self.config.reorder_by.as_micros()).unwrap_or(usize::MAX);
            let extra = self.random.below(most.saturating_add(1));
            delay += Duration::from_micros(u64::try_from(extra).unwrap_or(u64::MAX));
        }
        delay
    }
}

/// An address and port translator in front of a node: endpoint-independent mapping (RFC 4787 §4.1), no filter.
#[derive(Clone, Debug)]
pub struct Nat {
    /// The address that the others see.
    pub public: IpAddr,
    mappings: Vec<(SocketAddr, u16)>,
    next_port: u16,
}

impl Nat {
    /// A translator without mappings.
    #[must_use]
    pub const fn new(public: IpAddr) -> Self {
        Self { public, mappings: Vec::new(), next_port: 20_000 }
    }

    /// The address that the others see of a datagram from `inside`.
    pub fn outward(&mut self, inside: SocketAddr) -> SocketAddr {
        let port = match self.mappings.iter().find(|(addr, _)| *addr == inside) {
            Some((_, port)) => *port,
            None => {
                let port = self.next_port;
                self.next_port = self.next_port.wrapping_add(1).max(20_000);
                self.mappings.push((inside, port));
                port
            }
        };
        SocketAddr::new(self.public, port)
    }

    /// Lets datagrams to a public port in, as the operator of the translator would configure it.
    pub fn forward(&mut self, inside: SocketAddr, port: u16) {
        self.mappings.retain(|(addr, public)| *addr != inside && *public != port);
        self.mappings.push((inside, port));
    }

    /// Where a datagram to this public port goes; `None`: no mapping, it is dropped.
    #[must_use]
    pub fn inward(&self, port: u16) -> Option<SocketAddr> {
        self.mappings.iter().find(|(_, public)| *public == port).map(|(inside, _)| *inside)
    }

    /// Forgets every mapping, as after a restart: old ports lead nowhere, datagrams from inside get new ones.
    pub fn rebind(&mut self) {
        self.mappings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(config: LinkConfig) -> Link {
        Link::new(config, FixedRandom::new(3, 0))
    }

    #[test]
    fn perfect_link_delivers_each_datagram_once_and_unchanged() {
        let mut link = link(LinkConfig::PERFECT);
        for _ in 0..100 {
            assert_eq!(link.carry(b"ike"), [(LinkConfig::PERFECT.delay, b"ike".to_vec())]);
        }
    }

    #[test]
    fn bad_link_loses_doubles_and_delays_in_its_measure() {
        let mut link = link(LinkConfig::BAD);
        let arrivals: Vec<_> = (0..10_000).map(|_| link.carry(b"ike")).collect();
        let lost = arrivals.iter().filter(|copies| copies.is_empty()).count();
        let doubled = arrivals.iter().filter(|copies| copies.len() == 2).count();
        let late =
            arrivals.iter().flatten().filter(|(delay, _)| *delay > LinkConfig::BAD.delay).count();
        assert!((1_800..2_200).contains(&lost), "{lost} lost");
        assert!((1_400..1_800).contains(&doubled), "{doubled} doubled");
        assert!((2_500..3_300).contains(&late), "{late} late");
    }

    #[test]
    fn corruption_changes_one_bit() {
        let mut link = link(LinkConfig { corrupt: 100, ..LinkConfig::PERFECT });
        let copies = link.carry(&[0; 32]);
        let ones: u32 =
            copies.iter().flat_map(|(_, copy)| copy).map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
    }

    #[test]
    fn black_hole_swallows_everything() {
        let mut link = link(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
        assert!(link.carry(b"ike").is_empty());
    }

    #[test]
    fn nat_maps_back_until_it_is_rebound() {
        let inside: SocketAddr = "10.0.0.1:4500".parse().unwrap();
        let mut nat = Nat::new("198.51.100.1".parse().unwrap());
        let public = nat.outward(inside);
        assert_eq!(nat.outward(inside), public);
        assert_eq!(nat.inward(public.port()), Some(inside));
        nat.rebind();
        assert_eq!(nat.inward(public.port()), None);
        assert_ne!(nat.outward(inside), public);
    }
}
