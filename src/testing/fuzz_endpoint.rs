//! The bodies of the fuzz targets `endpoint` and `endpoint_sealed`.
//!
//! Both take a first byte that chooses a [`State`] and then records, each of a length (two bytes) and as many bytes.

use core::time::Duration;

use super::{Stage, State};
use crate::wire::Reader;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, PayloadType};

/// The numbers of every run: SPIs and keys that a corpus can learn.
const SEED: u64 = 1;
/// More than one peer's half-open IKE SAs.
const MOST_IKE_SAS: usize = 5_000;
/// To a datagram that the peer protected: a response, and a request for each SA that it is about.
const MOST_ANSWERS: usize = 3;

/// Each record is a datagram, given to an endpoint.
pub(super) fn endpoint(data: &[u8]) {
    let mut reader = Reader::new("fuzz input", data);
    let Some((mut stage, genuine)) = stage(&mut reader, &State::ALL) else { return };
    while let Some(record) = record(&mut reader) {
        let sent = stage.give(record);
        // The peer's own may give rise to requests beside the response; nothing else can.
        let most = if genuine.iter().any(|datagram| datagram == record) { MOST_ANSWERS } else { 1 };
        assert!(sent.len() <= most, "{} datagrams in answer to one", sent.len());
    }
    end(&mut stage);
}

/// Each record is what a peer that holds the keys puts into an SK or SKF payload: exchange type, flags, type of the first payload,
/// payloads. Bits of the flags: response; fragment; three of its number; three of how many follow it.
pub(super) fn endpoint_sealed(data: &[u8]) {
    let mut reader = Reader::new("fuzz input", data);
    let Some((mut stage, _)) = stage(&mut reader, &State::ESTABLISHED) else { return };
    let mut iv = 1 << 40;
    while let Some(record) = record(&mut reader) {
        let [exchange, flags, first, inner @ ..] = record else { continue };
        let response = flags & 1 != 0;
        let message_id = if response { 0 } else { stage.puppet.message_id };
        let header: Header = stage.puppet.header(ExchangeType(*exchange), response, message_id);
        iv += 1;
        let (first, number) = (PayloadType(*first), u16::from(flags >> 2 & 7) + 1);
        let fragment = (number, number + u16::from(flags >> 5));
        let sealed = if flags & 2 == 0 {
            stage.puppet.seal_bytes(header, first, inner, iv)
        } else {
            stage.puppet.seal_fragment_bytes(header, first, fragment, inner, iv)
        };
        let Some(sealed) = sealed else { return };
        let sent = stage.give(&sealed);
        assert!(sent.len() <= MOST_ANSWERS, "{} datagrams in answer to one", sent.len());
        if !response && !sent.is_empty() {
            stage.puppet.message_id += 1;
        }
    }
    end(&mut stage);
}

fn stage(reader: &mut Reader<'_>, states: &[State]) -> Option<(Stage, Vec<Vec<u8>>)> {
    let choice = usize::from(reader.u8().ok()?);
    states.get(choice % states.len())?.stage(SEED)
}

fn record<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = usize::from(reader.u16().ok()?);
    let rest = reader.rest();
    let (record, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    *reader = Reader::new("fuzz input", rest);
    Some(record)
}

fn end(stage: &mut Stage) {
    assert!(stage.ike_sas() <= MOST_IKE_SAS, "{} IKE SAs", stage.ike_sas());
    stage.pass_time(Duration::from_secs(600));
    assert!(stage.violations.is_empty(), "{:?}", stage.violations);
}
