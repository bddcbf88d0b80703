//! The IKE messages of a capture: read and written again, as noted, and by exchange.

use super::json::{Lab, Message as Noted};
use super::{Checked, Mismatch, record_of, same};
use crate::capture::ike::{IkeMessage, Inside};
use crate::capture::open::{Record, Verdict};
use crate::wire::ike::header::{Header, IkeSpi};
use crate::wire::ike::message::{Message, emit_chain, parse_chain};
use crate::wire::ike::numbers::ExchangeType;
use crate::wire::ike::payload::{Payload, Sa};

fn messages(records: &[Record]) -> impl Iterator<Item = (&Record, &IkeMessage)> {
    records.iter().filter_map(|record| {
        if let Verdict::Ike(message) = &record.verdict { Some((record, &**message)) } else { None }
    })
}

/// Every message, and what is inside, is written as it came; where it is not (reserved bits, say), it reads the same.
pub(super) fn check_written_again(
    records: &[Record],
    checked: &mut Checked,
) -> Result<(), Mismatch> {
    for (record, message) in messages(records) {
        let place = format!("IKE message in packet {}", record.index);
        let again = Message { header: message.header, payloads: message.payloads.clone() };
        let bytes = again.emit();
        if bytes != message.datagram {
            checked.not_canonical += 1;
            let read = Message::parse(&bytes).map(|read| read.payloads);
            if read.as_ref() != Ok(&message.payloads) {
                return Err(Mismatch::new("it does not read the same written again").at(place));
            }
        }
        if let (Inside::Opened(payloads), Some(content)) = (&message.inside, &message.whole) {
            let mut bytes = Vec::new();
            let first = emit_chain(payloads, &mut bytes);
            if first != content.first || bytes != *content.plain {
                checked.not_canonical += 1;
                if parse_chain(first, &bytes).as_ref() != Ok(payloads) {
                    return Err(Mismatch::new("what is inside does not read the same").at(place));
                }
            }
        }
    }
    Ok(())
}

/// Every encrypted payload of an IKE SA whose keys are noted is opened.
pub(super) fn check_opened(
    lab: &Lab,
    records: &[Record],
    checked: &mut Checked,
) -> Result<(), Mismatch> {
    for (record, message) in messages(records) {
        checked.messages += 1;
        let place = format!("IKE message in packet {}", record.index);
        let is_known = lab.ike_sas.iter().any(|sa| (sa.spi_i.0, sa.spi_r.0) == message.spis());
        let why = match &message.inside {
            Inside::Clear => continue,
            Inside::Opened(_) | Inside::Fragment { .. } => {
                checked.opened += 1;
                continue;
            }
            Inside::NoKey if !is_known => continue,
            Inside::NoKey => "there is no key".to_owned(),
            Inside::BadIcv => "the ICV is wrong".to_owned(),
            Inside::Unsupported(what) => format!("algorithm not supported: {what}"),
            Inside::Malformed(why) => format!("malformed inside: {why}"),
            Inside::Unverified(_) => "its integrity cannot be checked".to_owned(),
            Inside::Nonsense => "it decrypts to nonsense".to_owned(),
        };
        return Err(Mismatch::new(why).at(place));
    }
    Ok(())
}

/// Every message that is noted came, and says what is noted.
pub(super) fn check_noted(lab: &Lab, records: &[Record]) -> Result<(), Mismatch> {
    for noted in &lab.messages {
        let place = format!("IKE message {:?}", noted.wire);
        check_message(noted, records).map_err(|error| error.at(place))?;
    }
    Ok(())
}

fn check_message(noted: &Noted, records: &[Record]) -> Result<(), Mismatch> {
    let record = record_of(records, &noted.wire)?;
    let Verdict::Ike(message) = &record.verdict else {
        return Err(Mismatch::new(format!("it is {}", record.verdict)));
    };
    let header = &message.header;
    if header.exchange.0 != noted.exchange
        || header.flags.initiator != noted.initiator_flag
        || header.flags.response != noted.response_flag
        || header.message_id != noted.message_id
        || message.spis() != (noted.spi_i.0, noted.spi_r.0)
    {
        return Err(Mismatch::new("its header is another"));
    }
    if !noted.payloads.is_empty() {
        let chain = message.datagram.get(Header::LEN..).unwrap_or_default();
        check_chain(&message.payloads, chain, &noted.payloads)?;
    }
    if let (Some(noted), Some(whole), Inside::Opened(payloads)) =
        (&noted.payloads_decrypted, &message.whole, &message.inside)
    {
        check_chain(payloads, &whole.plain, noted).map_err(|error| error.at("inside"))?;
    }
    let fragment = match message.payloads.last() {
        Some(Payload::Skf(skf)) => Some((skf.number, skf.total)),
        _ => None,
    };
    if noted.fragment.is_some_and(|noted| Some(noted) != fragment) {
        return Err(Mismatch::new("it is another fragment"));
    }
    if let Some(noted) = &noted.decrypted_fragment {
        let part = message.part.as_ref().ok_or_else(|| Mismatch::new("it was not opened"))?;
        same("what is in the fragment", &part.plain, noted.bytes())?;
    }
    if let Some(chain) = &noted.decrypted {
        let whole = message.whole.as_ref().ok_or_else(|| Mismatch::new("it was not opened"))?;
        same("what is inside", &whole.plain, chain.bytes())?;
        if noted.decrypted_first_payload.is_some_and(|first| first != whole.first.0) {
            return Err(Mismatch::new("the first payload inside is another"));
        }
    }
    // The value itself is computed with the keys.
    if noted.intauth.is_some() && header.exchange != ExchangeType::IKE_INTERMEDIATE {
        return Err(Mismatch::new("IntAuth is noted of another exchange"));
    }
    Ok(())
}

/// These payloads, that stand in `chain`, are those that are noted.
fn check_chain(
    payloads: &[Payload],
    mut chain: &[u8],
    noted: &[super::json::Payload],
) -> Result<(), Mismatch> {
    let ours = payloads.iter().map(|payload| payload.payload_type().0);
    if !ours.eq(noted.iter().map(|noted| noted.payload_type)) {
        return Err(Mismatch::new("its payloads are others"));
    }
    for (payload, noted) in payloads.iter().zip(noted) {
        let (body, rest) =
            split_body(chain).ok_or_else(|| Mismatch::new("its payloads are others"))?;
        same(&payload.to_string(), body, noted.body.bytes())?;
        chain = rest;
    }
    Ok(())
}

/// The body of the first payload of a chain, and the rest of the chain.
fn split_body(chain: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*chain.get(2)?, *chain.get(3)?]));
    let (payload, rest) = chain.split_at_checked(length)?;
    Some((payload.get(4..)?, rest))
}

/// A request and its response.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) request: &'a IkeMessage,
    pub(super) response: &'a IkeMessage,
}

/// The messages of a capture in order, each once, fragments put together.
pub(super) struct Sent<'a> {
    messages: Vec<&'a IkeMessage>,
}

impl<'a> Sent<'a> {
    pub(super) fn of(records: &'a [Record]) -> Self {
        let mut sent: Vec<&IkeMessage> = Vec::new();
        for (_, message) in messages(records) {
            if matches!(message.inside, Inside::Fragment { .. }) {
                continue;
            }
            let key = |message: &IkeMessage| {
                let header = message.header;
                (message.spis(), header.flags.initiator, header.flags.response, header.message_id)
            };
            // IKE_SA_INIT comes again in other words; all else under one Message ID is a retransmission.
            let is_init = message.header.exchange == ExchangeType::IKE_SA_INIT;
            let again = sent.iter().any(|other| {
                key(other) == key(message) && (!is_init || other.datagram == message.datagram)
            });
            if !again {
                sent.push(message);
            }
        }
        Self { messages: sent }
    }

    /// The messages of an exchange type in an IKE SA, in the order in which they were made.
    pub(super) fn of_sa(
        &self,
        spis: (IkeSpi, IkeSpi),
        exchange: ExchangeType,
    ) -> impl Iterator<Item = &'a IkeMessage> {
        let mut found: Vec<_> = self
            .messages
            .iter()
            .copied()
            .filter(|message| message.spis() == spis && message.header.exchange == exchange)
            .collect();
        found.sort_by_key(|message| (message.header.message_id, message.header.flags.response));
        found.into_iter()
    }

    /// IKE_SA_INIT: the response with these SPIs, and the last request before it.
    pub(super) fn init(&self, spis: (IkeSpi, IkeSpi)) -> Result<Exchange<'a>, Mismatch> {
        let is_init = |message: &IkeMessage| message.header.exchange == ExchangeType::IKE_SA_INIT;
        let at = self.messages.iter().position(|message| {
            is_init(message) && message.header.flags.response && message.spis() == spis
        });
        let at = at.ok_or_else(|| Mismatch::new("no IKE_SA_INIT response came"))?;
        let (before, rest) = self.messages.split_at(at);
        let request = before.iter().rev().find(|message| {
            is_init(message) && !message.header.flags.response && message.header.spi_i == spis.0
        });
        match (request, rest.first()) {
            (Some(request), Some(response)) => Ok(Exchange { request, response }),
            _ => Err(Mismatch::new("no IKE_SA_INIT request came")),
        }
    }

    /// The CREATE_CHILD_SA in `old` that offered and took these SPIs.
    pub(super) fn rekey_of_ike(
        &self,
        old: (IkeSpi, IkeSpi),
        spis: (IkeSpi, IkeSpi),
    ) -> Result<Exchange<'a>, Mismatch> {
        let (i, r) = (spis.0.0.to_be_bytes(), spis.1.0.to_be_bytes());
        let found = self.with_spis(old, &i, &r);
        found.ok_or_else(|| Mismatch::new("no CREATE_CHILD_SA has its SPIs"))
    }

    /// The exchange in an IKE SA that offered and took these SPIs of ESP or AH.
    pub(super) fn child(
        &self,
        sa: (IkeSpi, IkeSpi),
        spis: (u32, u32),
    ) -> Result<Exchange<'a>, Mismatch> {
        let found = self.with_spis(sa, &spis.0.to_be_bytes(), &spis.1.to_be_bytes());
        found.ok_or_else(|| Mismatch::new("no exchange has its SPIs"))
    }

    fn with_spis(&self, sa: (IkeSpi, IkeSpi), i: &[u8], r: &[u8]) -> Option<Exchange<'a>> {
        let has = |message: &IkeMessage, spi: &[u8]| {
            message.payloads().iter().any(|payload| {
                matches!(payload, Payload::Sa(Sa { proposals })
                    if proposals.iter().any(|proposal| proposal.spi == spi))
            })
        };
        let requests = self.messages.iter().filter(|message| {
            message.spis() == sa && !message.header.flags.response && has(message, i)
        });
        requests.copied().find_map(|request| {
            // With EAP the answer to the first request of IKE_AUTH comes in the last.
            let is_auth = request.header.exchange == ExchangeType::IKE_AUTH;
            let response = self.messages.iter().copied().find(|message| {
                let header = message.header;
                message.spis() == sa
                    && header.flags.response
                    && header.exchange == request.header.exchange
                    && header.flags.initiator != request.header.flags.initiator
                    && (is_auth || header.message_id == request.header.message_id)
                    && has(message, r)
            })?;
            Some(Exchange { request, response })
        })
    }

    /// A later exchange in the same IKE SA, begun by the same side; of IKE_SA_INIT, by the initiator.
    pub(super) fn exchange(
        &self,
        first: &Exchange<'a>,
        name: &str,
        message_id: u32,
    ) -> Option<Exchange<'a>> {
        let spis = first.response.spis();
        let initiator = first.request.header.flags.initiator;
        let found = |response: bool| {
            self.messages.iter().copied().find(|message| {
                let header = message.header;
                message.spis() == spis
                    && header.flags.response == response
                    && header.flags.initiator == (initiator != response)
                    && header.message_id == message_id
                    && header.exchange.to_string() == name
            })
        };
        Some(Exchange { request: found(false)?, response: found(true)? })
    }
}
