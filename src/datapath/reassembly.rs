//! [`Reassembly`]: fragments from the TUN put together again, for SAs in transport mode, which protect whole packets (RFC
//! 4303 §3.3.4, RFC 4302 §3.3.4).
//!
//! Bounded in packets, bytes and time. Not on the way of packets that are whole, so it may lock and allocate. Fragments of
//! what came from the network are put together by the kernel.

use core::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::ipsec::inner::Inner;
use crate::ipsec::{DropCounters, DropReason, PacketBuf};
use crate::wire::ip::{Fragment, IpPacket, Ipv4Packet, Ipv6Packet};

/// Packets of which the fragments are waited for.
const MAX_PENDING: usize = 64;
/// Bytes of all of them.
const MAX_BYTES: usize = 1 << 20;
/// How long the first fragment waits for the last, in milliseconds. RFC 1122 §3.3.2 and RFC 8200 §4.5 have a minute for
/// what crosses a network; these come from this host.
const PATIENCE: u64 = 5_000;
/// The longest payload, in the units of 8 bytes in which fragments are placed.
const MAX_UNITS: usize = 8192;

/// What is waited for, shared by workers.
#[derive(Debug, Default)]
pub(super) struct Reassembly(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// The oldest first.
    packets: Vec<Packet>,
    bytes: usize,
}

/// Fragments with the same key are of one packet (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    ident: u32,
    /// Of IPv4; of IPv6 it does not count.
    protocol: u8,
}

/// A packet of which something has come.
#[derive(Debug)]
struct Packet {
    key: Key,
    since: u64,
    /// How many fragments have come.
    fragments: u32,
    /// The headers before the fragments' data, of the first fragment, without its Fragment header.
    front: Option<Vec<u8>>,
    data: Vec<u8>,
    /// Which units of `data` have come.
    units: Box<[u64; MAX_UNITS / 64]>,
    /// How many bytes have.
    received: usize,
    /// How long `data` is in the end, once the last fragment has come.
    total: Option<usize>,
}

impl Reassembly {
    /// Takes a fragment. `true`: with it the packet is there, and is in `whole`.
    ///
    /// # Errors
    /// Why this fragment is dropped. Those dropped besides, which had been taken, are counted in `drops`.
    pub(super) fn take(
        &self,
        now: u64,
        inner: &Inner,
        packet: &[u8],
        whole: &mut PacketBuf,
        drops: &DropCounters,
    ) -> Result<bool, DropReason> {
        let fragment = inner.fragment.ok_or(DropReason::FragmentsWrong)?;
        let parts = Parts::of(packet).ok_or(DropReason::FragmentsWrong)?;
        let key = Key {
            src: inner.flow.src,
            dst: inner.flow.dst,
            ident: fragment.ident,
            protocol: if inner.is_ipv6() { 0 } else { inner.flow.protocol },
        };
        // Whoever panicked with it left at worst a packet that never becomes whole.
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.expire(now, drops);
        let at = pending.find(now, key, parts.data.len(), drops);
        pending.bytes += parts.data.len();
        match pending.packets[at].add(fragment, &parts) {
            Ok(false) => Ok(false),
            Ok(true) => {
                let packet = pending.remove(at);
                packet.write_to(whole)?;
                Ok(true)
            }
            // RFC 5722 §3: the whole packet goes.
            Err(reason) => {
                let packet = pending.remove(at);
                count(drops, reason, packet.fragments);
                Err(reason)
            }
        }
    }
}

impl Pending {
    fn expire(&mut self, now: u64, drops: &DropCounters) {
        while self.packets.first().is_some_and(|oldest| now.saturating_sub(oldest.since) > PATIENCE)
        {
            count(drops, DropReason::FragmentsLate, self.remove(0).fragments);
        }
    }

    /// Where the packet with this key is, of which `more` bytes have come. The oldest make room for it.
    fn find(&mut self, now: u64, key: Key, more: usize, drops: &DropCounters) -> usize {
        loop {
            let known = self.packets.iter().position(|packet| packet.key == key);
            let room = (known.is_some() || self.packets.len() < MAX_PENDING)
                && self.bytes + more <= MAX_BYTES;
            let victim = self.packets.iter().position(|packet| packet.key != key);
            match (room, known, victim) {
                (true, Some(at), _) | (false, Some(at), None) => return at,
                (false, _, Some(victim)) => {
                    count(drops, DropReason::FragmentsFull, self.remove(victim).fragments);
                }
                (_, None, _) => {
                    self.packets.push(Packet::new(key, now));
                    return self.packets.len() - 1;
                }
            }
        }
    }

    fn remove(&mut self, at: usize) -> Packet {
        let packet = self.packets.remove(at);
        self.bytes = self.bytes.saturating_sub(packet.received);
        packet
    }
}

impl Packet {
    fn new(key: Key, since: u64) -> Self {
        Self {
            key,
            since,
            fragments: 0,
            front: None,
            data: Vec::new(),
            units: Box::new([0; MAX_UNITS / 64]),
            received: 0,
            total: None,
        }
    }

    /// Whether the packet is whole now.
    fn add(&mut self, fragment: Fragment, parts: &Parts<'_>) -> Result<bool, DropReason> {
        let data = parts.data;
        self.received += data.len();
        let start = usize::from(fragment.offset);
        let end = start + data.len();
        let wrong = data.is_empty()
            || end > usize::from(u16::MAX)
            || fragment.more && !data.len().is_multiple_of(8)
            || self.total.is_some_and(|total| end > total)
            || !fragment.more && (self.total.is_some() || end < self.data.len());
        if wrong || !self.mark(start / 8..end.div_ceil(8)) {
            return Err(DropReason::FragmentsWrong);
        }
        self.fragments += 1;
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(data);
        if !fragment.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.front = Some(parts.headers());
        }
        Ok(self.total == Some(self.received))
    }

    /// `false` if one of the units has come before.
    fn mark(&mut self, units: core::ops::Range<usize>) -> bool {
        for unit in units {
            let Some(word) = self.units.get_mut(unit / 64) else { return false };
            let bit = 1 << (unit % 64);
            if *word & bit != 0 {
                return false;
            }
            *word |= bit;
        }
        true
    }

    fn write_to(&self, whole: &mut PacketBuf) -> Result<(), DropReason> {
        let front = self.front.as_deref().ok_or(DropReason::FragmentsWrong)?;
        let len = front.len() + self.data.len();
        let packet = whole.space_mut().get_mut(..len).ok_or(DropReason::NoRoom)?;
        let (header, data) = packet.split_at_mut(front.len());
        header.copy_from_slice(front);
        data.copy_from_slice(&self.data);
        let resized = if front[0] >> 4 == 4 {
            Ipv4Packet::new_resized(packet).map(|mut ip| ip.fill_checksum())
        } else {
            Ipv6Packet::new_resized(packet).map(drop)
        };
        resized.map_err(|_| DropReason::FragmentsWrong)?;
        whole.set_len(len);
        Ok(())
    }
}

/// A fragment, taken apart.
struct Parts<'a> {
    /// What stands before the data, without the Fragment header of IPv6.
    front: &'a [u8],
    /// In IPv6: where in it the Fragment header is named, and what comes in its place.
    named: Option<(usize, u8)>,
    data: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        match IpPacket::new_checked(packet).ok()? {
            IpPacket::V4(ip) => {
                let whole = packet.get(..ip.total_len().into())?;
                let (front, data) = whole.split_at_checked(ip.header_len())?;
                Some(Self { front, named: None, data })
            }
            IpPacket::V6(ip) => {
                let headers = ip.extension_headers();
                let header =
                    headers.map_while(Result::ok).find(|header| header.fragment.is_some())?;
                let front = packet.get(..header.at)?;
                let data = packet.get(header.end()..ip.total_len())?;
                Some(Self { front, named: Some((header.named_at, packet[header.at])), data })
            }
        }
    }

    /// The headers as they are before a whole packet; its length is still to be filled in.
    fn headers(&self) -> Vec<u8> {
        let mut front = self.front.to_vec();
        match self.named {
            Some((at, next_header)) => front[at] = next_header,
            // Flags and offset of IPv4.
            None => front[6..8].fill(0),
        }
        front
    }
}

fn count(drops: &DropCounters, reason: DropReason, times: u32) {
    (0..times).for_each(|_| drops.count(reason));
}
