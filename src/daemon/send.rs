//! What the outbound worker has sealed leaves through the sockets: in its order, neighbours that leave through the same
//! socket in one system call, and what UDP can cut itself in one piece.

use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::ops::Range;
use core::sync::atomic::Ordering;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smallvec::SmallVec;

use super::sockets::Sockets;
use super::worker::{FromWorker, Lost, Queue, Shared};
use crate::datapath::{Form, MAX_RUN, MAX_RUN_LEN, Sealed};
use crate::io::sys::ToSend;
use crate::io::udp::{Fragment, Socket};
use crate::ipsec::{Encap, PacketBuf, Worker};
use crate::wire::ip::IpPacket;

/// How long a worker waits for room in a socket's send buffer before it drops a batch, in milliseconds.
const SEND_PATIENCE: u16 = 20;

/// Sends sealed packets.
pub(super) fn send_sealed(shared: &Shared, queue: &Queue, worker: Worker, sealed: &[Sealed]) {
    let same_socket = |a: &Sealed, b: &Sealed| {
        a.path.encap == b.path.encap
            && a.path.remote.is_ipv4() == b.path.remote.is_ipv4()
            && leaves_by(a) == leaves_by(b)
    };
    for run in sealed.chunk_by(same_socket) {
        match run.first().and_then(|first| socket_of(&shared.sockets, worker, first)) {
            Some(socket) => send_through(socket, &shared.lost, queue, run),
            None => {
                count_lost(&shared.lost, run.iter().map(|sealed| sealed.packets().count()).sum())
            }
        }
    }
}

/// Sends packets that a policy lets pass unprotected as they are: like all that we send they stay out of the TUNs. Most of those
/// that are bypassed do not come this far, since the host's routing knows of them.
pub(super) fn send_bypassed(shared: &Shared, packets: &[PacketBuf]) {
    for packet in packets {
        let Ok(ip) = IpPacket::new_checked(&packet[..]) else { continue };
        let remote = ip.dst_addr();
        let Some(family) = shared.sockets.family(remote) else {
            count_lost(&shared.lost, 1);
            continue;
        };
        // Its source may be none of our addresses: it has it already.
        let message = ToSend {
            parts: &[IoSlice::new(packet)],
            segment_len: None,
            to: SocketAddr::new(remote, 0),
            local: None,
            tos: 0,
        };
        let mut sent = family.whole.send(core::slice::from_ref(&message));
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && wait_for_room(&family.whole)
        {
            sent = family.whole.send(core::slice::from_ref(&message));
        }
        if let Err(error) = sent {
            count_lost(&shared.lost, 1);
            tracing::trace!(%error, %remote, "not sent in clear");
        }
    }
}

/// One message of a system call.
struct Message<'a> {
    /// Its pieces.
    parts: Range<usize>,
    /// Whose path and form it has.
    first: &'a Sealed,
    /// Set if it is several datagrams.
    segment_len: Option<NonZeroU16>,
    packets: usize,
}

fn send_through(socket: &Socket, lost: &Lost, queue: &Queue, sealed: &[Sealed]) {
    if let [Sealed { segment_len: None, .. }] = sealed
        && socket.send(&[to_send(&sealed[0], &[IoSlice::new(&sealed[0].buf)], None)]).is_ok()
    {
        // There was nothing to send it with.
        return;
    }
    send_many(socket, lost, queue, sealed);
}

/// By itself: its plan takes 3 KB of the stack, which a single packet after some silence would find in no cache.
#[inline(never)]
fn send_many(socket: &Socket, lost: &Lost, queue: &Queue, sealed: &[Sealed]) {
    let mut parts = SmallVec::<[IoSlice<'_>; 64]>::new();
    let mut plan = SmallVec::<[Message<'_>; 16]>::new();
    if socket.takes_segments() {
        let mut rest = sealed;
        while let Some((run, others)) = split_run(rest) {
            let start = parts.len();
            parts.extend(run.iter().map(|sealed| IoSlice::new(&sealed.buf)));
            let packets = run.iter().map(|sealed| sealed.packets().count()).sum();
            let segment_len = if packets > 1 { unit(&run[0]) } else { None };
            plan.push(Message { parts: start..parts.len(), first: &run[0], segment_len, packets });
            rest = others;
        }
    } else {
        for first in sealed {
            for packet in first.packets() {
                let parts_of_it = parts.len()..parts.len() + 1;
                parts.push(IoSlice::new(packet));
                plan.push(Message { parts: parts_of_it, first, segment_len: None, packets: 1 });
            }
        }
    }
    let messages: SmallVec<[ToSend<'_>; 16]> = plan
        .iter()
        .map(|message| to_send(message.first, &parts[message.parts.clone()], message.segment_len))
        .collect();
    let mut at = 0;
    while at < messages.len() {
        match socket.send(&messages[at..]) {
            Ok(taken) => at += taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !wait_for_room(socket) {
                    return count_lost(
                        lost,
                        plan[at..].iter().map(|message| message.packets).sum(),
                    );
                }
            }
            // It concerns the first message only.
            Err(error) => {
                refused(socket, lost, queue, &plan[at], &messages[at], &error);
                at += 1;
            }
        }
    }
}

/// The sealed packets at the front that can leave in one piece, and the rest; `None` if there is nothing.
fn split_run(sealed: &[Sealed]) -> Option<(&[Sealed], &[Sealed])> {
    let first = sealed.first()?;
    let unit = unit(first).map_or(usize::MAX, |unit| unit.get().into());
    let mut packets = first.packets().count();
    let mut len = first.buf.len();
    // Only the last may be shorter.
    let mut is_full = len.is_multiple_of(unit);
    let more = sealed[1..].iter().take_while(|next| {
        let count = next.packets().count();
        let joins = is_full
            && next.path == first.path
            && next.form == first.form
            && next
                .packets()
                .next()
                .is_some_and(|packet| packet.len() == unit || packet.len() < unit && count == 1)
            && packets + count <= MAX_RUN
            && len + next.buf.len() <= MAX_RUN_LEN;
        packets += count;
        len += next.buf.len();
        is_full = next.buf.len().is_multiple_of(unit);
        joins
    });
    let count = 1 + more.count();
    Some(sealed.split_at(count))
}

/// How long each packet of it is but the last.
fn unit(sealed: &Sealed) -> Option<NonZeroU16> {
    sealed.segment_len.or_else(|| NonZeroU16::new(u16::try_from(sealed.buf.len()).ok()?))
}

/// What the socket did not take. Some paths refuse what is to be cut (EIO, EINVAL: a device without checksums, an XFRM
/// policy), and then each packet goes by itself.
fn refused(
    socket: &Socket,
    lost: &Lost,
    queue: &Queue,
    message: &Message<'_>,
    to_send: &ToSend<'_>,
    error: &io::Error,
) {
    let code = error.raw_os_error();
    if let Some(len) = message.segment_len
        && matches!(code, Some(libc::EIO | libc::EINVAL))
    {
        let packets = to_send.parts.iter().flat_map(|part| part.chunks(len.get().into()));
        for (nth, packet) in packets.enumerate() {
            let parts = [IoSlice::new(packet)];
            let alone = ToSend { parts: &parts, segment_len: None, ..*to_send };
            match socket.send(&[alone]) {
                Ok(_one) if nth == 0 => {
                    tracing::info!(%error, "no segmentation by UDP: packets leave one by one");
                    socket.refuses_segments();
                }
                Ok(_one) => {}
                Err(error) => not_sent(lost, queue, message.first, 1, &error),
            }
        }
        return;
    }
    not_sent(lost, queue, message.first, message.packets, error);
}

fn not_sent(lost: &Lost, queue: &Queue, sealed: &Sealed, packets: usize, error: &io::Error) {
    if error.raw_os_error() == Some(libc::EMSGSIZE) {
        queue.send(lost, FromWorker::TooBig { path: sealed.path });
    }
    count_lost(lost, packets);
    tracing::trace!(%error, remote = %sealed.path.remote, packets, "not sent");
}

fn count_lost(lost: &Lost, packets: usize) {
    lost.send.fetch_add(packets as u64, Ordering::Relaxed);
}

/// The sockets of a family, as far as a packet's form says which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeavesBy {
    /// The kernel adds the headers.
    Pair(Fragment),
    /// They are there.
    Whole,
}

const fn leaves_by(sealed: &Sealed) -> LeavesBy {
    match sealed.form {
        Form::Packet => LeavesBy::Whole,
        Form::Payload { dont_fragment: true, .. } => LeavesBy::Pair(Fragment::Never),
        Form::Payload { dont_fragment: false, .. } => LeavesBy::Pair(Fragment::Allowed),
    }
}

fn socket_of<'a>(sockets: &'a Sockets, worker: Worker, sealed: &Sealed) -> Option<&'a Socket> {
    let family = sockets.family(sealed.path.remote.ip())?;
    Some(match (leaves_by(sealed), sealed.path.encap) {
        (LeavesBy::Whole, _) => &family.whole,
        (LeavesBy::Pair(fragment), Encap::Udp) => family.natt.choose(fragment, worker),
        (LeavesBy::Pair(fragment), Encap::Plain) => family.esp.choose(fragment, worker),
    })
}

fn to_send<'a>(
    sealed: &Sealed,
    parts: &'a [IoSlice<'a>],
    segment_len: Option<NonZeroU16>,
) -> ToSend<'a> {
    let mut to = sealed.path.remote;
    let tos = match sealed.form {
        Form::Payload { traffic_class, .. } => traffic_class,
        Form::Packet => {
            // Where its own header says, which a source route may have changed.
            if let Ok(ip) = IpPacket::new_checked(&sealed.buf[..]) {
                to.set_ip(ip.dst_addr());
            }
            0
        }
    };
    if sealed.form == Form::Packet || sealed.path.encap == Encap::Plain {
        // A raw socket takes the port of an IPv6 address for the protocol, and refuses another than its own.
        to.set_port(0);
    }
    ToSend { parts, segment_len, to, local: Some(sealed.path.local.ip()), tos }
}

/// Waits for room in the send buffer, not for long. `false` if there is none.
fn wait_for_room(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::from(SEND_PATIENCE)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::io::sys;
    use crate::io::udp::Pair;
    use crate::ipsec::{PacketBuf, Path};

    fn sealed(len: usize, segment_len: u16, remote: &str) -> Sealed {
        let path = Path {
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: remote.parse().unwrap(),
            encap: Encap::Udp,
        };
        let form = Form::Payload { traffic_class: 0, dont_fragment: true };
        let segment_len = NonZeroU16::new(segment_len);
        Sealed { buf: PacketBuf::copy_of(&vec![7; len]), segment_len, path, form }
    }

    /// How many of these leave together each time.
    fn runs(sealed: &[Sealed]) -> Vec<usize> {
        let mut rest = sealed;
        let mut runs = Vec::new();
        while let Some((run, others)) = split_run(rest) {
            runs.push(run.len());
            rest = others;
        }
        runs
    }

    const A: &str = "192.0.2.2:4500";

    #[test]
    fn equal_packets_and_a_shorter_one_leave_together() {
        let packets = [100, 100, 100, 60, 100].map(|len| sealed(len, 0, A));
        assert_eq!(runs(&packets), [4, 1]);
        let packets = [60, 100, 100].map(|len| sealed(len, 0, A));
        assert_eq!(runs(&packets), [1, 2]);
    }

    #[test]
    fn runs_of_equal_packets_are_joined() {
        let whole = [sealed(300, 100, A), sealed(200, 100, A), sealed(100, 0, A)];
        assert_eq!(runs(&whole), [3]);
        let ends = [sealed(250, 100, A), sealed(200, 100, A), sealed(210, 70, A)];
        assert_eq!(runs(&ends), [1, 1, 1]);
        let short = [sealed(200, 100, A), sealed(90, 45, A)];
        assert_eq!(runs(&short), [1, 1], "two that are shorter");
    }

    #[test]
    fn another_path_or_form_is_another_send() {
        let packets = [sealed(100, 0, A), sealed(100, 0, "192.0.2.3:4500"), sealed(100, 0, A)];
        assert_eq!(runs(&packets), [1, 1, 1]);
        let mut marked = sealed(100, 0, A);
        marked.form = Form::Payload { traffic_class: 2, dont_fragment: true };
        assert_eq!(runs(&[sealed(100, 0, A), marked]), [1, 1]);
    }

    #[test]
    fn where_segmentation_is_refused_packets_leave_one_by_one() {
        let Ok(pair) = Pair::udp(0, false, true, 1) else {
            return; // SO_MARK needs CAP_NET_ADMIN.
        };
        let socket = pair.main(Worker::ALONE);
        assert!(socket.takes_segments());
        // UDP that has no checksums to compute refuses to cut: EINVAL.
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let remote = receiver.local_addr().unwrap();
        let (queue, _driver) = Queue::alone();
        let lost = Lost::default();
        let mut run = [sealed(250, 100, A), sealed(60, 0, A)];
        for sealed in &mut run {
            let local = "127.0.0.1:0".parse().unwrap();
            sealed.path = Path { local, remote, encap: Encap::Udp };
        }
        let received = || {
            let mut buffer = [0; 512];
            receiver.recv(&mut buffer).unwrap()
        };
        for _ in 0..2 {
            send_through(socket, &lost, &queue, &run);
            assert_eq!([received(), received(), received(), received()], [100, 100, 50, 60]);
            assert!(!socket.takes_segments());
        }
        assert_eq!(lost.send.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_send_is_longer_than_udp_takes() {
        let small: Vec<_> = (0..130).map(|_| sealed(100, 0, A)).collect();
        assert_eq!(runs(&small), [64, 64, 2]);
        let large: Vec<_> = (0..50).map(|_| sealed(1472, 0, A)).collect();
        assert_eq!(runs(&large), [44, 6]);
        assert_eq!(runs(&[sealed(64_768, 1472, A), sealed(1472, 0, A)]), [1, 1]);
    }
}
