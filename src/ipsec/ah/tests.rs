use super::*;
use crate::wire::ip::Ipv4Packet;

const SPI: u32 = 0x0102_0304;

fn ah(id: IntegId, align: Align) -> Ah {
    let key = vec![7; Integ::key_len(id).expect("an algorithm")];
    Ah::new(id, &key, align).expect("an algorithm")
}

fn sha256() -> Ah {
    ah(IntegId::AUTH_HMAC_SHA2_256_128, Align::Four)
}

/// UDP in either version, with what an IPv6 packet has before it.
fn packet(v6: bool, chain: &[(u8, &[u8])]) -> Vec<u8> {
    let udp = [0, 9, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4];
    if !v6 {
        let mut bytes = vec![0x45, 0, 0, 0, 1, 2, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend(udp);
        Ipv4Packet::new_resized(&mut bytes[..]).expect("well-formed").fill_checksum();
        return bytes;
    }
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, chain.first().map_or(17, |(kind, _)| *kind), 64];
    bytes.extend(1_u128.to_be_bytes());
    bytes.extend(2_u128.to_be_bytes());
    for (index, (_, header)) in chain.iter().enumerate() {
        bytes.push(chain.get(index + 1).map_or(17, |(next, _)| *next));
        bytes.extend(&header[1..]);
    }
    bytes.extend(udp);
    Ipv6Packet::new_resized(&mut bytes[..]).expect("well-formed");
    bytes
}

fn seal(ah: &Ah, plain: &[u8], sequence: u64, esn: bool) -> Result<PacketBuf, DropReason> {
    let mut buf = PacketBuf::copy_of(plain);
    let place = Place::for_insertion(plain).expect("a place");
    ah.seal(&mut buf, place, Spi::new(SPI).expect("not reserved"), sequence, esn)?;
    Ok(buf)
}

#[test]
fn the_header_is_aligned_and_no_longer_than_that() {
    let four = |id| ah(id, Align::Four);
    let eight = |id| ah(id, Align::Eight);
    let (sha256, sha384, sha512) = (
        IntegId::AUTH_HMAC_SHA2_256_128,
        IntegId::AUTH_HMAC_SHA2_384_192,
        IntegId::AUTH_HMAC_SHA2_512_256,
    );
    assert_eq!((four(sha256).header_len(false), four(sha256).header_len(true)), (28, 32));
    assert_eq!((eight(sha256).header_len(false), eight(sha256).header_len(true)), (32, 32));
    assert_eq!((four(sha384).header_len(false), four(sha384).header_len(true)), (36, 40));
    assert_eq!((four(sha512).header_len(false), four(sha512).header_len(true)), (44, 48));
    let (cmac, gmac) = (IntegId::AUTH_AES_CMAC_96, IntegId::AUTH_AES_256_GMAC);
    assert_eq!((four(cmac).header_len(false), four(cmac).header_len(true)), (24, 24));
    assert_eq!((four(gmac).header_len(false), four(gmac).header_len(true)), (36, 40));
    assert!(Ah::new(IntegId::NONE, &[], Align::Four).is_none());
    assert!(Ah::new(sha256, &[7; 31], Align::Four).is_none());
}

#[test]
fn the_iv_of_gmac_is_the_sequence_number() {
    let gmac = ah(IntegId::AUTH_AES_128_GMAC, Align::Four);
    let sequence = 0x0102_0304_0506_0708;
    for esn in [false, true] {
        let buf = seal(&gmac, &packet(false, &[]), sequence, esn).expect("room");
        assert_eq!(buf[32..40], sequence.to_be_bytes());
        let place = Place::of(&buf, NextHeader::AH).expect("AH");
        assert!(gmac.open(&buf, place, sequence, esn).is_ok());
    }
}

#[test]
fn a_sealed_packet_opens_and_becomes_what_it_was() {
    for (v6, align, esn) in [
        (false, Align::Four, false),
        (false, Align::Eight, true),
        (true, Align::Four, true),
        (true, Align::Eight, false),
    ] {
        let ah = ah(IntegId::AUTH_HMAC_SHA2_256_128, align);
        let plain = packet(v6, &[(0, &[0, 0, 0x3e, 4, 1, 2, 3, 4])]);
        let sequence = 0x5_0000_0007;
        let mut buf = seal(&ah, &plain, sequence, esn).expect("room");
        assert_eq!(buf.len(), plain.len() + ah.header_len(v6));
        let place = Place::of(&buf, NextHeader::AH).expect("AH");
        let header = AhPacket::new_checked(&buf[place.at..]).expect("a header");
        assert_eq!((header.spi(), header.sequence()), (SPI, 7));
        assert_eq!((header.next_header(), header.reserved()), (NextHeader::UDP, 0));
        let sealed = buf.to_vec();
        assert!(ah.open(&buf, place, sequence, esn).is_ok());
        let other = ah.open(&buf, place, sequence + (1 << 32), esn);
        assert_eq!(other.is_ok(), !esn, "the high half is covered with ESN alone");
        assert_eq!(&*buf, sealed, "opening changes nothing");
        assert_eq!(strip(&mut buf, place), Ok(NextHeader::UDP));
        assert_eq!(&*buf, plain);
    }
}

#[test]
fn padding_is_covered_as_it_came() {
    let ah = ah(IntegId::AUTH_HMAC_SHA2_256_128, Align::Eight);
    let mut buf = seal(&ah, &packet(false, &[]), 1, false).expect("room");
    let place = Place::of(&buf, NextHeader::AH).expect("AH");
    buf[place.at + 28..place.at + 32].copy_from_slice(&[1, 2, 3, 4]);
    let open = |buf: &PacketBuf| ah.open(buf, place, 1, false).map(|_| ());
    assert_eq!(open(&buf), Err(DropReason::IcvMismatch));
    // A sender that pads with something else computes its ICV over that.
    let covered = Covered::of(&buf, place, Side::Receiver).expect("well-formed");
    let mut zeroed = buf[place.at..].to_vec();
    zeroed[12..28].fill(0);
    let mut icv = [0; 16];
    ah.integ.sign(&[covered.as_slice(), &zeroed], &mut icv);
    buf[place.at + 12..place.at + 28].copy_from_slice(&icv);
    assert_eq!(open(&buf), Ok(()));
    // And either alignment is taken from an IPv4 peer.
    assert!(sha256().open(&buf, place, 1, false).is_ok());
}

#[test]
fn the_header_of_an_atomic_fragment_is_taken_out_before_sealing() {
    let hop_by_hop: (u8, &[u8]) = (0, &[0, 0, 0x1e, 4, 1, 2, 3, 4]);
    let atomic: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 0, 0, 9]);
    for chain in [&[hop_by_hop, atomic][..], &[atomic]] {
        let without: Vec<_> = chain.iter().filter(|(kind, _)| *kind != 44).copied().collect();
        let sealed = seal(&sha256(), &packet(true, chain), 1, false).expect("room");
        let expected = seal(&sha256(), &packet(true, &without), 1, false).expect("room");
        assert_eq!(&*sealed, &*expected);
    }
    let twice = seal(&sha256(), &packet(true, &[atomic, atomic]), 1, false).map(|_| ());
    assert_eq!(twice, Err(DropReason::OutboundMalformed));
}

#[test]
fn a_receiver_skips_the_header_that_reassembly_has_left() {
    let mut buf = seal(&sha256(), &packet(true, &[]), 1, false).expect("room").to_vec();
    buf.splice(40..40, [51, 0, 0, 0, 0, 0, 0, 9]);
    buf[6] = 44;
    Ipv6Packet::new_resized(&mut buf[..]).expect("well-formed");
    let place = Place::of(&buf, NextHeader::AH).expect("AH");
    assert_eq!(place.at, 48);
    assert!(sha256().open(&buf, place, 1, false).is_ok());
}

#[test]
fn what_cannot_be_sealed_is_refused_and_means_what_it_did() {
    let spi = Spi::new(SPI).expect("not reserved");
    for v6 in [false, true] {
        let plain = packet(v6, &[]);
        let place = Place::for_insertion(&plain).expect("a place");
        let mut full = PacketBuf::copy_of(&plain);
        assert!(full.push_front(PacketBuf::HEADROOM));
        full.copy_within(PacketBuf::HEADROOM.., 0);
        full.truncate(plain.len());
        let refused = sha256().seal(&mut full, place, spi, 1, false);
        assert_eq!((refused, &*full), (Err(DropReason::NoRoom), &*plain));

        let mut trailing = PacketBuf::copy_of(&[&plain[..], &[0]].concat());
        let refused = sha256().seal(&mut trailing, place, spi, 1, false);
        assert_eq!(refused, Err(DropReason::OutboundMalformed));

        let wrong = Place { at: place.at, next_header_at: place.at };
        let mut buf = PacketBuf::copy_of(&plain);
        let refused = sha256().seal(&mut buf, wrong, spi, 1, false);
        assert_eq!((refused, &*buf), (Err(DropReason::OutboundMalformed), &*plain));

        let mut longest = plain.clone();
        longest.resize(if v6 { 65_575 - 31 } else { 65_535 - 27 }, 0);
        place.mend(&mut longest, NextHeader::UDP).expect("a length");
        let mut buf = PacketBuf::copy_of(&longest);
        let refused = sha256().seal(&mut buf, place, spi, 1, false);
        assert_eq!((refused, *buf == *longest), (Err(DropReason::TooBig), true));
        longest.pop();
        place.mend(&mut longest, NextHeader::UDP).expect("a length");
        let mut buf = PacketBuf::copy_of(&longest);
        assert_eq!(sha256().seal(&mut buf, place, spi, 1, false), Ok(()));
    }
}

#[test]
fn what_is_no_ah_packet_is_neither_opened_nor_stripped() {
    for v6 in [false, true] {
        let sealed = seal(&sha256(), &packet(v6, &[]), 1, false).expect("room").to_vec();
        let place = Place::of(&sealed, NextHeader::AH).expect("AH");
        for len in 0..sealed.len() {
            let cut = &sealed[..len];
            let opened = sha256().open(cut, place, 1, false).map(|_| ());
            assert_eq!(opened, Err(DropReason::AhMalformed), "{len}");
            let mut buf = PacketBuf::copy_of(cut);
            assert_eq!(strip(&mut buf, place), Err(DropReason::AhMalformed));
            assert_eq!(&*buf, cut);
        }
        // Cut, with a length in the IP header that agrees.
        for len in place.at..sealed.len() {
            let mut cut = sealed[..len].to_vec();
            place.mend(&mut cut, NextHeader::AH).expect("a length");
            assert!(sha256().open(&cut, place, 1, false).is_err(), "{len}");
            let mut buf = PacketBuf::copy_of(&cut);
            let stripped = strip(&mut buf, place);
            assert_eq!(stripped.is_ok(), len >= place.at + sha256().header_len(v6), "{len}");
        }
        for payload_len in (0..=u8::MAX).filter(|&len| len != sealed[place.at + 1]) {
            let mut other = sealed.clone();
            other[place.at + 1] = payload_len;
            assert!(sha256().open(&other, place, 1, false).is_err(), "{payload_len}");
        }
        for place in [Place { at: 0, ..place }, Place { at: place.at + 4, ..place }] {
            assert!(sha256().open(&sealed, place, 1, false).is_err());
            assert!(strip(&mut PacketBuf::copy_of(&sealed), place).is_err());
        }
    }
}

#[test]
fn a_fragment_is_refused_by_its_own_reason() {
    let mut sealed = seal(&sha256(), &packet(false, &[]), 1, false).expect("room");
    let place = Place::of(&sealed, NextHeader::AH).expect("AH");
    sealed[6] = 0x20;
    let opened = sha256().open(&sealed, place, 1, false).map(|_| ());
    assert_eq!(opened, Err(DropReason::AhFragment));
}
