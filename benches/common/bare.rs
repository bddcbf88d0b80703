//! The bare AEAD of `ring`, over buffers like those of the datapath, which are filled as those are just before.

use std::hint::black_box;
use std::time::Duration;

use ipsecd::datapath::PacketBuf;
use ring::aead::{Aad, Algorithm, LessSafeKey, Nonce, Tag, UnboundKey};

use super::common::time;

const ICV_LEN: usize = 16;
/// Header and IV.
const FRONT: usize = 16;

/// The library's AEAD and nothing else.
pub(crate) struct Bare {
    key: LessSafeKey,
}

impl Bare {
    pub(crate) fn new(algorithm: &'static Algorithm) -> Self {
        let key = UnboundKey::new(algorithm, &[7; 32]).expect("its length");
        Self { key: LessSafeKey::new(key) }
    }

    fn seal(&self, number: u8, packet: &mut [u8]) {
        let (data, icv) = packet.split_last_chunk_mut::<ICV_LEN>().expect("longer");
        let nonce = Nonce::assume_unique_for_key([number; 12]);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&[3; 8]), data);
        *icv = *tag.expect("short enough").as_ref().first_chunk().expect("its length");
    }

    fn open(&self, number: u8, packet: &mut [u8]) {
        let (data, icv) = packet.split_last_chunk_mut::<ICV_LEN>().expect("longer");
        let (nonce, tag) = (Nonce::assume_unique_for_key([number; 12]), Tag::from(*icv));
        let aad = Aad::from(&[3; 8]);
        let opened = self.key.open_in_place_separate_tag(nonce, aad, tag, data, 0..);
        let _ = black_box(opened).expect("genuine");
    }
}

/// What is sealed in, and what is opened in: as many buffers, and such ones, as the datapath gets.
pub(crate) struct BareBuffers {
    from_tun: Vec<PacketBuf>,
    from_socket: Vec<PacketBuf>,
    /// What a packet is made of: so long as what is encrypted, and the ICV.
    packet: Vec<u8>,
}

impl BareBuffers {
    pub(crate) fn new(encrypted: usize, buffers: usize, max_len: usize) -> Self {
        let some = || (0..buffers).map(|_| PacketBuf::new(max_len)).collect();
        Self { from_tun: some(), from_socket: some(), packet: vec![5; encrypted + ICV_LEN] }
    }

    /// The `batch`th of so many buffers.
    pub(crate) fn round(&mut self, bare: &Bare, batch: usize, len: usize) -> (Duration, Duration) {
        let of_batch = batch * len..(batch + 1) * len;
        let (from_tun, from_socket) =
            (&mut self.from_tun[of_batch.clone()], &mut self.from_socket[of_batch]);
        let number = u8::try_from(batch).expect("few batches");
        for buf in from_tun.iter_mut() {
            assert!(buf.fill_from(&self.packet));
        }
        let sealing = time(|| {
            for packet in from_tun.iter_mut() {
                bare.seal(number, black_box(packet));
            }
        });
        for (received, sealed) in from_socket.iter_mut().zip(from_tun) {
            // Where it lies behind header and IV.
            assert!(sealed.push_front(FRONT) && received.fill_from(sealed));
            received.trim_front(FRONT);
        }
        let opening = time(|| {
            for packet in from_socket.iter_mut() {
                bare.open(number, black_box(packet));
            }
        });
        (sealing, opening)
    }
}
