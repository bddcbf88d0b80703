//! The runner for `ipsecd::ipsec::esp`: whole packets.

use ipsecd::crypto::Secret;
use ipsecd::ipsec::esp::{EspLayout, peek_spi};
use ipsecd::ipsec::suite::EspSuite;
use ipsecd::ipsec::{InboundSa, OutboundSa, PacketBuf, SaParams, Spi};
use ipsecd::testing::peers::sa_params;
use ipsecd::wire::ike::numbers::{EsnId, IntegId};

use crate::crypto::{named, same};
use crate::file::Case;
use crate::ike::encr;

/// `encr`, `key_bits`, `encr_key` (with salt) unless it is NULL, `integ` and `integ_key` unless it is an AEAD,
/// `seq_high` with extended sequence numbers, `packet` (from SPI to ICV), `next_header`, `payload`.
pub(crate) fn esp(case: &Case) -> Result<(), String> {
    let key = |field| Ok::<_, String>(Secret::new(case.hex_or_none(field)?.unwrap_or_default()));
    let integ = match case.get("integ") {
        Some(_) => named(case, "integ", IntegId::KNOWN, IntegId::name)?,
        None => IntegId::NONE,
    };
    let high = case.hex_or_none("seq_high")?;
    let esn = if high.is_some() { EsnId::ESN } else { EsnId::NO_ESN };
    let suite = EspSuite { encr: encr(case)?, integ, esn };
    let packet = case.hex("packet")?;
    let low = packet.get(4..8).ok_or("packet too short")?;
    let sequence = [high.as_deref().unwrap_or(&[0; 4]), low].concat();
    let sequence = u64::from_be_bytes(sequence.try_into().map_err(|_| "`seq_high` has 4 bytes")?);
    let params = SaParams {
        encr_key: key("encr_key")?,
        integ_key: key("integ_key")?,
        sequence: sequence.checked_sub(1).ok_or("no packet has the number 0")?,
        ..params(suite, peek_spi(&packet).ok_or("reserved SPI")?)
    };

    let refused = "algorithms or keys refused";
    let inbound = InboundSa::new(params.clone()).ok_or(refused)?;
    let mut buf = PacketBuf::copy_of(&packet);
    let opened = inbound.open(&mut buf).map_err(|reason| format!("{reason:?}"))?;
    same("payload", &buf, &case.hex("payload")?)?;
    let next_header = case.number::<u8>("next_header")?;
    if opened.next_header.0 != next_header {
        return Err(format!("next header is {}", opened.next_header.0));
    }

    // Made by us it differs by the IV, and what depends on it; where there is none it is the same.
    let outbound = OutboundSa::new(params).ok_or(refused)?;
    let _ = outbound.seal(&mut buf, opened.next_header).map_err(|reason| format!("{reason:?}"))?;
    if EspLayout::of(suite).is_some_and(|layout| layout.iv_len == 0) {
        return same("our packet", &buf, &packet);
    }
    same("header of our packet", &buf[..8], &packet[..8])?;
    if buf.len() != packet.len() {
        return Err(format!("our packet has {} bytes and not {}", buf.len(), packet.len()));
    }
    Ok(())
}

fn params(suite: EspSuite, spi: Spi) -> SaParams {
    SaParams { spi, suite: suite.into(), replay_window: 64, ..sa_params() }
}
