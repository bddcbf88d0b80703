//! Named fields of the header views: reading and writing a fixed range of a checked buffer.

use core::ops::Range;

/// The bytes of a field. The range has `N` bytes and lies in the checked part of the buffer.
#[inline]
pub(super) fn get<const N: usize>(data: &[u8], field: Range<usize>) -> [u8; N] {
    *data[field].first_chunk().expect("the field has so many bytes")
}

/// A 16-bit field in network byte order.
#[inline]
pub(super) fn u16_at(data: &[u8], field: Range<usize>) -> u16 {
    u16::from_be_bytes(get(data, field))
}

/// A 32-bit field in network byte order.
#[inline]
pub(super) fn u32_at(data: &[u8], field: Range<usize>) -> u32 {
    u32::from_be_bytes(get(data, field))
}

/// Writes the bytes of a field.
#[inline]
pub(super) fn put<const N: usize>(data: &mut [u8], field: Range<usize>, bytes: &[u8; N]) {
    *data[field].first_chunk_mut().expect("the field has so many bytes") = *bytes;
}
