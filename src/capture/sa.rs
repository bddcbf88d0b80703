//! [`Sa`]: one direction of an SA as a reader has it: its key, and the receiver that opens its packets.
//!
//! Receivers are `ipsec`'s own, the same that the datapath uses. What no gateway accepts, but a key file may ask for (no
//! key to check the integrity with, 3DES), is read by [`Lenient`], and said to be so.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

use super::keys::{Algorithms, Integrity, SaKey, Start};
use super::lenient::Lenient;
use crate::ipsec::inbound::Opened;
use crate::ipsec::suite::{AhSuite, EspSuite, Protocol, Suite};
use crate::ipsec::{
    DfPolicy, DropReason, DscpPolicy, Encap, InboundSa, Lifetime, Mode, PacketBuf, Path, Place,
    PolicyId, SaParams, Spi,
};
use crate::wire::ah::AhPacket;
use crate::wire::esp::EspPacket;
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId};
use crate::wire::ip::NextHeader;

/// A key, with a receiver for each SPI that it was used with: one, unless it has a wildcard.
#[derive(Debug)]
pub(super) struct Sa {
    pub(super) key: SaKey,
    receivers: BTreeMap<u32, Receiver>,
    pub(super) tally: Tally,
}

/// How the packets of a key went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) opened: u64,
    pub(super) bad_icv: u64,
    pub(super) nonsense: u64,
}

#[derive(Debug)]
enum Receiver {
    Real(Box<InboundSa>),
    Lenient(Box<Lenient>),
    Unsupported(String),
}

/// What came out of a packet.
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    pub(super) next_header: NextHeader,
    pub(super) sequence: u64,
    /// Whether the integrity was checked.
    pub(super) verified: bool,
}

/// Why nothing came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Drop(DropReason),
    Unsupported(String),
}

impl Sa {
    /// SPIs that a key with a wildcard is tried for.
    const MAX_RECEIVERS: usize = 4096;

    pub(super) fn new(key: SaKey) -> Self {
        Self { key, receivers: BTreeMap::new(), tally: Tally::default() }
    }

    /// Opens an ESP packet, from its SPI on.
    pub(super) fn open_esp(&mut self, window: u32, packet: &[u8]) -> Result<Payload, Refusal> {
        let malformed = Refusal::Drop(DropReason::EspMalformed);
        let Ok(header) = EspPacket::new_checked(packet) else { return Err(malformed) };
        let Some(spi) = Spi::new(header.spi()) else { return Err(malformed) };
        let low = header.sequence();
        let opened = match self.receiver(spi, low, window)? {
            Receiver::Real(sa) => open_with(sa, low, packet, InboundSa::open),
            Receiver::Lenient(lenient) => lenient.open(packet),
            Receiver::Unsupported(what) => return Err(Refusal::Unsupported(what.clone())),
        };
        self.count(spi, &opened);
        opened.map_err(Refusal::Drop)
    }

    /// Verifies AH in a whole packet, where it stands at `place`.
    pub(super) fn open_ah(
        &mut self,
        window: u32,
        packet: &[u8],
        place: Place,
    ) -> Result<Payload, Refusal> {
        let malformed = Refusal::Drop(DropReason::AhMalformed);
        let header = packet.get(place.at..).map(AhPacket::new_checked);
        let Some(Ok(header)) = header else { return Err(malformed) };
        let Some(spi) = Spi::new(header.spi()) else { return Err(malformed) };
        let low = header.sequence();
        let opened = match self.receiver(spi, low, window)? {
            Receiver::Real(sa) => open_with(sa, low, packet, |sa, buf| sa.open_at(buf, place)),
            Receiver::Lenient(_) => return Err(malformed),
            Receiver::Unsupported(what) => return Err(Refusal::Unsupported(what.clone())),
        };
        self.count(spi, &opened);
        opened.map_err(Refusal::Drop)
    }

    fn count(&mut self, spi: Spi, opened: &Result<Payload, DropReason>) {
        match opened {
            Ok(_) => self.tally.opened += 1,
            Err(DropReason::IcvMismatch) => {
                self.tally.bad_icv += 1;
                // A forged packet must not decide where the sequence numbers begin.
                if self.tally.opened == 0 {
                    self.receivers.remove(&spi.get());
                }
            }
            // Where the ICV was right, so is the key.
            Err(DropReason::BadPadding) if !self.key.is_checked() => self.tally.nonsense += 1,
            Err(_) => {}
        }
    }

    /// The receiver of an SPI; `low` is the sequence number in the packet, which is the first if there is none yet.
    fn receiver(&mut self, spi: Spi, low: u32, window: u32) -> Result<&mut Receiver, Refusal> {
        if !self.receivers.contains_key(&spi.get()) {
            if self.receivers.len() >= Self::MAX_RECEIVERS {
                return Err(Refusal::Unsupported("a wildcard for so many SPIs".to_owned()));
            }
            let window = self.key.replay_window.unwrap_or(window);
            let sequence = match self.key.start {
                Start::After(sequence) => sequence,
                Start::Within(_) if !self.key.esn => 0,
                // Room for those that it overtook.
                Start::Within(high) => {
                    u64::from(high) << 32 | u64::from(low.saturating_sub(window.max(1)))
                }
            };
            let receiver = Receiver::new(&self.key, spi, sequence, window);
            self.receivers.insert(spi.get(), receiver);
        }
        self.receivers.get_mut(&spi.get()).ok_or(Refusal::Drop(DropReason::NoInboundSa))
    }
}

impl Receiver {
    fn new(key: &SaKey, spi: Spi, sequence: u64, replay_window: u32) -> Self {
        let algorithms = match &key.algorithms {
            Ok(algorithms) => *algorithms,
            Err(what) => return Self::Unsupported(what.clone()),
        };
        let made = Self::of(key, algorithms, spi, sequence, replay_window);
        made.unwrap_or_else(|| Self::Unsupported(describe(key.protocol, algorithms)))
    }

    fn of(
        key: &SaKey,
        algorithms: Algorithms,
        spi: Spi,
        sequence: u64,
        replay_window: u32,
    ) -> Option<Self> {
        let lenient = || Lenient::new(key, algorithms).map(|sa| Self::Lenient(Box::new(sa)));
        let old = [EncrId::ENCR_DES, EncrId::ENCR_3DES];
        let integ = match algorithms.integrity {
            Integrity::Unchecked(_) => return lenient(),
            _ if algorithms.encr.is_some_and(|encr| old.contains(&encr.id)) => return lenient(),
            Integrity::Aead => IntegId::NONE,
            Integrity::Full(id) => id,
        };
        let esn = if key.esn { EsnId::ESN } else { EsnId::NO_ESN };
        let suite = match (key.protocol, algorithms.encr) {
            (Protocol::Esp, Some(encr)) => EspSuite { encr, integ, esn }.into(),
            (Protocol::Ah, None) => AhSuite { integ, esn }.into(),
            (Protocol::Esp, None) | (Protocol::Ah, Some(_)) => return None,
        };
        let sa = InboundSa::new(params(key, suite, spi, sequence, replay_window))?;
        Some(Self::Real(Box::new(sa)))
    }
}

/// What `open` makes of a packet whose sequence number ends in `low`.
fn open_with(
    sa: &InboundSa,
    low: u32,
    packet: &[u8],
    open: impl FnOnce(&InboundSa, &mut PacketBuf) -> Result<Opened, DropReason>,
) -> Result<Payload, DropReason> {
    let mut buf = PacketBuf::copy_of(packet);
    let opened = open(sa, &mut buf)?;
    Ok(Payload {
        bytes: buf.to_vec(),
        next_header: opened.next_header,
        sequence: whole(low, sa.sequence(), sa.params().suite.esn()),
        verified: true,
    })
}

/// What a receiver is made from: of a reader, much is not there.
fn params(key: &SaKey, suite: Suite, spi: Spi, sequence: u64, replay_window: u32) -> SaParams {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    SaParams {
        spi,
        other_spi: spi,
        policy: PolicyId(0),
        peer: "capture".into(),
        path: Path { local: nowhere, remote: nowhere, encap: Encap::Plain },
        // The payload by itself; what becomes of it is for `open` to say, where the mode may be unknown.
        mode: Mode::Tunnel,
        suite,
        encr_key: key.encr_key.clone(),
        integ_key: key.integ_key.clone(),
        ts_local: [].into(),
        ts_peer: [].into(),
        sequence,
        replay_window,
        lifetime: Lifetime::default(),
        df: DfPolicy::default(),
        dscp: DscpPolicy::default(),
        tfc: 0,
        ah_align: 4,
        resource: None,
        around: None,
    }
}

fn describe(protocol: Protocol, algorithms: Algorithms) -> String {
    let Algorithms { encr, integrity } = algorithms;
    let integrity = match integrity {
        Integrity::Aead => None,
        Integrity::Full(id) => Some(id.to_string()),
        Integrity::Unchecked(_) => Some("no integrity key".to_owned()),
    };
    let names: Vec<_> = encr.map(|encr| encr.to_string()).into_iter().chain(integrity).collect();
    format!("{protocol} with {}", names.join("/"))
}

/// The whole of a sequence number that was accepted, of which `low` was in the packet: the highest up to half a subspace
/// above `top`.
pub(super) fn whole(low: u32, top: u64, esn: bool) -> u64 {
    if !esn {
        return low.into();
    }
    let [.., t4, t5, t6, t7] = top.to_be_bytes();
    let top_low = u32::from_be_bytes([t4, t5, t6, t7]);
    // `low` was accepted, so it is `top` or before it, by less than a subspace.
    top.saturating_sub(top_low.wrapping_sub(low).into())
}
