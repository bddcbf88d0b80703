//! The system calls that have no safe wrapper with what we need: `recvmmsg` and `sendmmsg` with the control messages of
//! each datagram (local address, TOS / traffic class, length of the segments), integer socket options without a name in
//! our libraries, making a TUN, and taking over a descriptor. The only unsafe code of the project.

#![expect(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block says why it is sound"
)]

use core::ffi::{c_int, c_uint};
use core::mem::{self, MaybeUninit};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::num::NonZeroU16;
use core::ptr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Most datagrams in one system call.
pub const BATCH: usize = 64;
/// So many take little memory.
pub const FEW: usize = 4;

/// What came with a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes written into its buffer.
    pub len: usize,
    /// Who sent it; the port is 0 on a raw socket.
    pub from: SocketAddr,
    /// Which of our addresses it was sent to.
    pub local: Option<IpAddr>,
    /// TOS byte (IPv4) or traffic class (IPv6) of its header.
    pub tos: u8,
    /// Several of one sender came in one piece, each so long but the last (UDP_GRO). `None`: there is one.
    pub segment_len: Option<NonZeroU16>,
    /// It, or what was to be told of it, did not fit and was cut.
    pub truncated: bool,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct ToSend<'a> {
    /// The payload of UDP or of IP, in pieces.
    pub parts: &'a [IoSlice<'a>],
    /// It is several datagrams, each so long but the last (UDP_SEGMENT). `None`: it is one.
    pub segment_len: Option<NonZeroU16>,
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses; `None` or unspecified: the kernel chooses.
    pub local: Option<IpAddr>,
    /// TOS byte (IPv4) or traffic class (IPv6) of its header.
    pub tos: u8,
}

/// Room for the control messages of one datagram.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control<const N: usize>([u8; N]);

/// The local address (at most 20 bytes), TOS (4) and length of the segments (4), each after a header of 16.
const ADDRESS_AND_TOS: usize = 96;
/// Those, hop limit and flow (4 each), and extension headers of 512 bytes in all.
const WITH_EXTENSIONS: usize = 768;

/// Room for a `sockaddr_in` or `sockaddr_in6`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Name([u8; NAME]);

const NAME: usize = size_of::<libc::sockaddr_in6>();

/// Takes control messages of IPv6 that [`Received`] has no place for: index of the datagram, type, data.
pub type OnControl<'a> = &'a mut dyn FnMut(usize, c_int, &[u8]);

/// Receives what is there, at most [`BATCH`] and at most one datagram a buffer, without waiting. `received` is cleared
/// and gets an entry a datagram.
///
/// # Errors
/// Those of recvmmsg(2); `WouldBlock` if there is nothing. A pending error of the socket (an ICMP error that came for a
/// datagram sent before) counts as such an error and is cleared by it.
pub fn recv_batch(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
) -> io::Result<()> {
    if buffers.len() <= FEW {
        recv::<FEW, ADDRESS_AND_TOS>(socket, buffers, received, &mut |_, _, _| {})
    } else {
        recv_many(socket, buffers, received)
    }
}

/// By itself: the arrays for many take 16 KB of the stack, which a single packet after some silence would find in no cache.
#[inline(never)]
fn recv_many(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
) -> io::Result<()> {
    recv::<BATCH, ADDRESS_AND_TOS>(socket, buffers, received, &mut |_, _, _| {})
}

/// As [`recv_batch`], with all that the socket was asked to tell of the IPv6 headers.
///
/// # Errors
/// As there.
pub fn recv_batch_with(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
    on_control: OnControl<'_>,
) -> io::Result<()> {
    if buffers.len() <= FEW {
        recv::<FEW, WITH_EXTENSIONS>(socket, buffers, received, on_control)
    } else {
        recv::<BATCH, WITH_EXTENSIONS>(socket, buffers, received, on_control)
    }
}

fn recv<const MAX: usize, const CONTROL: usize>(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
    on_control: OnControl<'_>,
) -> io::Result<()> {
    received.clear();
    let count = buffers.len().min(MAX);
    // SAFETY: these are plain C structs of integers and pointers, for which all zero bytes are a value.
    let mut headers: [libc::mmsghdr; MAX] = unsafe { mem::zeroed() };
    let mut names = [Name([0; NAME]); MAX];
    // The kernel writes them, and says how far.
    let mut controls = [const { MaybeUninit::<Control<CONTROL>>::uninit() }; MAX];
    for (i, buffer) in buffers.iter_mut().take(count).enumerate() {
        let header = &mut headers[i].msg_hdr;
        header.msg_name = ptr::from_mut(&mut names[i]).cast();
        header.msg_namelen = socklen::<Name>();
        // IoSliceMut is guaranteed to have the layout of iovec.
        header.msg_iov = ptr::from_mut(buffer).cast();
        header.msg_iovlen = 1;
        header.msg_control = controls[i].as_mut_ptr().cast();
        header.msg_controllen = c_len(CONTROL);
    }
    // SAFETY: the first `count` headers point to live names, buffers and control areas of the lengths stated, none of
    // which is used otherwise until the call returns.
    let n = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            u32::try_from(count).unwrap_or(0),
            c_flags(libc::MSG_DONTWAIT),
            ptr::null_mut(),
        )
    };
    let n = usize::try_from(n).map_err(|_negative| io::Error::last_os_error())?;
    for (i, message) in headers.iter().take(n).enumerate() {
        // Each entry stands for the buffer in its place, so none may be left out.
        let from = read_name(&names[i]);
        let cut = libc::MSG_TRUNC | libc::MSG_CTRUNC;
        let mut entry = Received {
            len: if from.is_some() { message.msg_len as usize } else { 0 },
            from: from.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
            local: None,
            tos: 0,
            segment_len: None,
            truncated: message.msg_hdr.msg_flags & cut != 0,
        };
        read_control(&message.msg_hdr, &mut entry, &mut |kind, data| on_control(i, kind, data));
        received.push(entry);
    }
    Ok(())
}

/// Sends `messages`, at most [`BATCH`]; returns how many were taken, at least one.
///
/// # Errors
/// Those of sendmmsg(2), and then they concern the first message, of which nothing was sent.
pub fn send_batch(socket: BorrowedFd<'_>, messages: &[ToSend<'_>]) -> io::Result<usize> {
    // Most often there are few, and then the arrays are small.
    if messages.len() <= FEW {
        send::<FEW>(socket, messages)
    } else {
        send::<BATCH>(socket, messages)
    }
}

fn send<const MAX: usize>(socket: BorrowedFd<'_>, messages: &[ToSend<'_>]) -> io::Result<usize> {
    let count = messages.len().min(MAX);
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: as in `recv_batch`.
    let mut headers: [libc::mmsghdr; MAX] = unsafe { mem::zeroed() };
    let mut controls = [Control([0; ADDRESS_AND_TOS]); MAX];
    let mut names = [Name([0; NAME]); MAX];
    for (i, message) in messages.iter().take(count).enumerate() {
        let header = &mut headers[i].msg_hdr;
        header.msg_namelen = write_name(&mut names[i], message.to);
        header.msg_name = ptr::from_mut(&mut names[i]).cast();
        // IoSlice is guaranteed to have the layout of iovec.
        header.msg_iov = message.parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = c_len(message.parts.len());
        header.msg_control = ptr::from_mut(&mut controls[i]).cast();
        header.msg_controllen = c_len(ADDRESS_AND_TOS);
        header.msg_controllen = c_len(write_control(header, message));
        if header.msg_controllen == 0 {
            header.msg_control = ptr::null_mut();
        }
    }
    let (socket, count) = (socket.as_raw_fd(), u32::try_from(count).unwrap_or(0));
    // SAFETY: the first `count` headers point to live names, payloads and control areas of the lengths stated;
    // sendmmsg only reads them.
    #[cfg(not(target_env = "musl"))]
    let n = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    // musl's function sends them one by one, lest bytes between the fields that are not zero confuse the kernel; here they are.
    // SAFETY: as above.
    #[cfg(target_env = "musl")]
    let n = unsafe {
        let headers = headers.as_mut_ptr();
        libc::syscall(libc::SYS_sendmmsg, socket, headers, count, libc::MSG_DONTWAIT)
    };
    usize::try_from(n).map_err(|_negative| io::Error::last_os_error())
}

/// Sets an integer socket option.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a live integer of the size stated, and only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            socklen::<c_int>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an integer socket option.
///
/// # Errors
/// Those of getsockopt(2).
pub fn get_option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = socklen::<c_int>();
    // SAFETY: both pointers are to live variables, and `len` says the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_mut(&mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// How many datagrams the kernel had for a socket and dropped, since it was opened, most often because its receive buffer was full.
/// Starts again at 0 after 2^32 - 1.
///
/// # Errors
/// Those of getsockopt(2); `InvalidInput` or similar before Linux 4.12.
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut counts = [0_u32; 9];
    let mut len = socklen::<[u32; 9]>();
    // SAFETY: both pointers are to live variables, and `len` says the size of `counts`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counts.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    check(result)?;
    // Its place is the last of them: SK_MEMINFO_DROPS.
    let [.., dropped] = counts;
    Ok(dropped)
}

/// A TUN whose packets each have a virtio header in front, little-endian, and the name that it got. It has no offloads yet. With
/// `queues` it may have several (`IFF_MULTI_QUEUE`): to open one that has is to get another queue of it.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `ResourceBusy` if the name is taken; `NotFound` without /dev/net/tun;
/// `InvalidInput` for a name that is too long, or if the kernel has no such header.
pub fn open_tun(name: &str, queues: bool) -> io::Result<(File, String)> {
    // SAFETY: a plain C struct of integers, for which all zero bytes are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let (bytes, room) = (name.as_bytes(), request.ifr_name.len() - 1);
    if bytes.len() > room || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, &byte) in request.ifr_name.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    // The kernel looks at 16 bits, all of which these flags have.
    let several = if queues { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several).to_le_bytes();
    request.ifr_ifru.ifru_flags = i16::from_le_bytes([flags[0], flags[1]]);
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: the kernel reads and writes the request, which is of the size that this ioctl takes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let one: c_int = 1;
    // SAFETY: the kernel reads an integer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETLE, &raw const one) })?;
    let name = request.ifr_name.iter().map(|&byte| byte.cast_unsigned());
    let name = name.take_while(|&byte| byte != 0).collect();
    let name = String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((file, name))
}

/// What may come from a TUN, and be written to it, in one piece or without checksum: `TUN_F_*`.
///
/// # Errors
/// `InvalidInput` if the kernel does not have all of it.
pub fn set_tun_offloads(tun: BorrowedFd<'_>, flags: c_uint) -> io::Result<()> {
    // SAFETY: this ioctl takes an integer.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Gives the memory that the allocator holds and nobody uses back to the system, as far as the allocator can do that.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    let _whether_any = unsafe { libc::malloc_trim(0) };
}

/// Whether the allocator takes memory from the system by the piece, as it is asked for zeros. Otherwise it takes some in advance, and
/// then writes the zeros itself, so that buffers which may never be used are resident.
pub fn take_memory_by_the_piece(on: bool) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) may be called at any time; it takes integers.
    let _whether_taken = unsafe { libc::mallopt(libc::M_TOP_PAD, if on { 0 } else { IN_ADVANCE }) };
    #[cfg(not(target_env = "gnu"))]
    let _nothing_to_do = on;
}

/// Bytes that the allocator takes in advance by default.
#[cfg(target_env = "gnu")]
const IN_ADVANCE: c_int = 128 << 10;

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptor of an object that can only give it away as a number.
#[must_use]
pub fn into_owned(object: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` hands over an open descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(object.into_raw_fd()) }
}

/// The size of `T` as the socket calls want it.
#[expect(clippy::cast_possible_truncation, reason = "every T here is smaller than 200 bytes")]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// What [`write_name`] writes.
fn read_name(Name(bytes): &Name) -> Option<SocketAddr> {
    let part = |at: usize| bytes[at..at + 4].first_chunk().copied().unwrap_or_default();
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match c_int::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
        libc::AF_INET => Some(SocketAddr::new(Ipv4Addr::from(part(4)).into(), port)),
        libc::AF_INET6 => {
            let addr: [u8; 16] = bytes[8..24].first_chunk().copied().unwrap_or_default();
            // The scope is that of a link-local address; the kernel gives 0 for others.
            let scope = u32::from_ne_bytes(part(24));
            Some(SocketAddrV6::new(addr.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// A length as the C library has it in its structs, whose types differ.
fn c_len<T: TryFrom<usize> + Default>(len: usize) -> T {
    T::try_from(len).unwrap_or_default()
}

/// Flags as the C library takes them: of either sign.
fn c_flags<T: TryFrom<c_int> + Default>(flags: c_int) -> T {
    T::try_from(flags).unwrap_or_default()
}

fn rust_len<T>(len: T) -> usize
where
    usize: TryFrom<T>,
{
    usize::try_from(len).unwrap_or_default()
}

fn read_control(header: &libc::msghdr, entry: &mut Received, other: &mut dyn FnMut(c_int, &[u8])) {
    // SAFETY: the kernel filled the control area and set its length in `header`; the CMSG macros stay within it. The
    // data is copied out unaligned, after its length was checked; the slice lives as long as `header` is borrowed.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = cmsg.as_ref() {
            let data = libc::CMSG_DATA(cmsg);
            let len = rust_len(message.cmsg_len).saturating_sub(data as usize - cmsg as usize);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= size_of::<libc::in_pktinfo>() => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    entry.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
                    if len >= size_of::<libc::in6_pktinfo>() =>
                {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    entry.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) if len >= 1 => entry.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if len >= size_of::<c_int>() => {
                    let class = data.cast::<c_int>().read_unaligned();
                    entry.tos = class.to_le_bytes()[0];
                }
                (libc::SOL_UDP, libc::UDP_GRO) if len >= size_of::<c_int>() => {
                    let segment = data.cast::<c_int>().read_unaligned();
                    entry.segment_len = u16::try_from(segment).ok().and_then(NonZeroU16::new);
                }
                (libc::IPPROTO_IPV6, kind) => other(kind, core::slice::from_raw_parts(data, len)),
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
}

/// Writes an address as sendmmsg(2) takes it; returns its length.
fn write_name(name: &mut Name, to: SocketAddr) -> libc::socklen_t {
    let bytes = &mut name.0;
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let [low, high, ..] = family.to_le_bytes();
    bytes[..2].copy_from_slice(&u16::from_le_bytes([low, high]).to_ne_bytes());
    bytes[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to {
        // struct sockaddr_in: family, port, address, eight bytes of nothing.
        SocketAddr::V4(to) => {
            bytes[4..8].copy_from_slice(&to.ip().octets());
            socklen::<libc::sockaddr_in>()
        }
        // struct sockaddr_in6: family, port, flow, address, scope.
        SocketAddr::V6(to) => {
            bytes[4..8].copy_from_slice(&to.flowinfo().to_ne_bytes());
            bytes[8..24].copy_from_slice(&to.ip().octets());
            bytes[24..28].copy_from_slice(&to.scope_id().to_ne_bytes());
            socklen::<libc::sockaddr_in6>()
        }
    }
}

/// Writes the control messages of one datagram; returns their length.
fn write_control(header: &libc::msghdr, message: &ToSend<'_>) -> usize {
    let mut used = 0;
    let mut next = |level: c_int, kind: c_int, bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        // SAFETY: the area holds 96 zero bytes; the three messages written into it take 40 + 24 + 24 at most. The first is
        // at its beginning, each other where the space of the one before ends, which keeps the alignment.
        unsafe {
            let cmsg = header.msg_control.cast::<u8>().add(used).cast::<libc::cmsghdr>();
            (*cmsg).cmsg_level = level;
            (*cmsg).cmsg_type = kind;
            (*cmsg).cmsg_len = c_len(libc::CMSG_LEN(len) as usize);
            ptr::copy_nonoverlapping(bytes.as_ptr(), libc::CMSG_DATA(cmsg), bytes.len());
            used += libc::CMSG_SPACE(len) as usize;
        }
    };
    let tos = c_int::from(message.tos).to_ne_bytes();
    match message.local.filter(|local| !local.is_unspecified()) {
        // struct in_pktinfo: interface index (0: any), the local address, an address that is ignored here.
        Some(IpAddr::V4(local)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&local.octets());
            next(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        // struct in6_pktinfo: the local address, interface index (0: any).
        Some(IpAddr::V6(local)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&local.octets());
            next(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    match message.to {
        // As the socket has it anyway.
        _ if message.tos == 0 => {}
        SocketAddr::V4(_) => next(libc::IPPROTO_IP, libc::IP_TOS, &tos),
        SocketAddr::V6(_) => next(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos),
    }
    if let Some(len) = message.segment_len {
        next(libc::SOL_UDP, libc::UDP_SEGMENT, &len.get().to_ne_bytes());
    }
    used
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair(host: &str) -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind((host, 0)).unwrap();
        let b = UdpSocket::bind((host, 0)).unwrap();
        for socket in [&a, &b] {
            let fd = socket.as_fd();
            if host.contains(':') {
                set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1).unwrap();
                set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1).unwrap();
            } else {
                set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).unwrap();
                set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
            }
        }
        (a, b)
    }

    fn batch_crosses(host: &str) {
        let (a, b) = pair(host);
        let to = b.local_addr().unwrap();
        let local = Some(a.local_addr().unwrap().ip());
        let parts = [&b"one"[..], b"th", b"ree", b""].map(IoSlice::new);
        let send = |parts, tos| ToSend { parts, segment_len: None, to, local, tos };
        let messages = [send(&parts[..1], 0), send(&parts[1..3], 0xb9), send(&parts[3..], 2)];
        assert_eq!(send_batch(a.as_fd(), &messages).unwrap(), 3);

        let mut storage = [[0u8; 4]; 4];
        let mut buffers: Vec<_> = storage.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut received = Vec::new();
        recv_batch(b.as_fd(), &mut buffers, &mut received).unwrap();
        assert_eq!(received.len(), 3);
        assert_eq!(received.iter().map(|r| r.len).collect::<Vec<_>>(), [3, 4, 0]);
        assert_eq!(received.iter().map(|r| r.tos).collect::<Vec<_>>(), [0, 0xb9, 2]);
        assert_eq!(received.iter().map(|r| r.truncated).collect::<Vec<_>>(), [false, true, false]);
        for entry in &received {
            assert_eq!(entry.from, a.local_addr().unwrap());
            assert_eq!(entry.local, Some(to.ip()));
        }
        assert_eq!(&storage[0][..3], b"one");
        let mut buffers: Vec<_> = storage.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let error = recv_batch(b.as_fd(), &mut buffers, &mut received).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn batch_over_ipv4_keeps_addresses_and_tos() {
        batch_crosses("127.0.0.1");
    }

    #[test]
    fn batch_over_ipv6_keeps_addresses_and_traffic_class() {
        batch_crosses("::1");
    }

    #[test]
    fn chosen_local_address_is_the_source() {
        let (a, b) =
            (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let local: IpAddr = "127.0.0.9".parse().unwrap();
        let to = b.local_addr().unwrap();
        let parts = [IoSlice::new(b"x")];
        let message = ToSend { parts: &parts, segment_len: None, to, local: Some(local), tos: 0 };
        send_batch(a.as_fd(), &[message]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(b.recv_from(&mut buffer).unwrap().1.ip(), local);
    }

    fn run_crosses(host: &str) {
        let (a, b) = pair(host);
        set_option(b.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        let (to, local) = (b.local_addr().unwrap(), Some(a.local_addr().unwrap().ip()));
        let segment_len = NonZeroU16::new(4);
        let parts = [&b"0123"[..], b"45", b"6789"].map(IoSlice::new);
        let run = ToSend { parts: &parts, segment_len, to, local, tos: 0xb8 };
        assert_eq!(send_batch(a.as_fd(), &[run]).unwrap(), 1);
        let mut storage = [[0u8; 64]; 4];
        let mut buffers: Vec<_> = storage.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut received = Vec::new();
        recv_batch(b.as_fd(), &mut buffers, &mut received).unwrap();
        assert_eq!(received.len(), 1, "loopback keeps it in one piece");
        assert_eq!((received[0].len, received[0].segment_len), (10, segment_len));
        assert_eq!((received[0].tos, received[0].truncated), (0xb8, false));
        assert_eq!(&storage[0][..10], b"0123456789");
    }

    #[test]
    fn run_of_datagrams_crosses_in_one_piece() {
        run_crosses("127.0.0.1");
        run_crosses("::1");
    }

    #[test]
    fn options_read_back() {
        let (a, _) = pair("127.0.0.1");
        set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
            .unwrap();
        let value = get_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER).unwrap();
        assert_eq!(value, libc::IP_PMTUDISC_DO);
    }
}
