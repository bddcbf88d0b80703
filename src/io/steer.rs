//! Which worker's socket a packet comes to: programs for the kernel (classic BPF) that say it by the SPI, as
//! [`Worker::has`](crate::ipsec::Worker::has) does. What has no SPI comes to the first, and IKE in UDP to a socket
//! of its own.

use socket2::SockFilter;

use crate::ipsec::Worker;

// Instructions, as linux/filter.h and linux/bpf_common.h have them.
const LOAD_WORD_AT: u16 = 0x20;
const LOAD_WORD_BEHIND_X: u16 = 0x40;
const LOAD_LEN: u16 = 0x80;
const X_IS: u16 = 0x01;
const X_IS_IPV4_HEADER_LEN: u16 = 0xb1;
const SUBTRACT_X: u16 = 0x1c;
const MODULO: u16 = 0x94;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_IT: u16 = 0x16;

/// The whole packet is received.
const ALL: u32 = u32::MAX;
/// Nothing is.
const NOTHING: SockFilter = instruction(RETURN, 0);

const fn instruction(code: u16, k: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, k)
}

/// A filter that takes nothing.
pub(super) const TAKE_NOTHING: [SockFilter; 1] = [NOTHING];

/// For sockets that share a port of UDP: which of the first `of` has a datagram, by the SPI in its first four bytes. Where those are
/// the zeros before an IKE message (RFC 3948 §2.2), it is number `ike`. What has no four bytes is the first one's, since to read beyond
/// the end ends a program with 0.
pub(super) fn datagrams(of: u16, ike: u16) -> Vec<libc::sock_filter> {
    let instruction = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    vec![
        instruction(LOAD_WORD_AT, 0, 0),
        instruction(IF_EQUAL, 1, 0),
        instruction(RETURN, 0, ike.into()),
        instruction(MODULO, 0, of.max(1).into()),
        instruction(RETURN_IT, 0, 0),
    ]
}

/// For a raw socket, of each of which there is one a worker: what it receives. `at`: where behind the IP header the SPI is. A raw
/// socket of IPv4 sees that header, one of IPv6 does not.
pub(super) fn packets(v6: bool, at: u32, worker: Worker) -> Vec<SockFilter> {
    let header = if v6 { instruction(X_IS, 0) } else { instruction(X_IS_IPV4_HEADER_LEN, 0) };
    let too_short = if worker.index() == 0 { instruction(RETURN, ALL) } else { NOTHING };
    vec![
        header,
        instruction(LOAD_LEN, 0),
        instruction(SUBTRACT_X, 0),
        SockFilter::new(IF_AT_LEAST, 1, 0, at + 4),
        too_short,
        instruction(LOAD_WORD_BEHIND_X, at),
        instruction(MODULO, worker.of().into()),
        SockFilter::new(IF_EQUAL, 0, 1, worker.index().into()),
        instruction(RETURN, ALL),
        NOTHING,
    ]
}
