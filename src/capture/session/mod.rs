//! [`Session`]: whether a capture is what the JSON beside it says, as far as that can be computed again.
//!
//! Every IKE message is read and written again; SKEYSEED, `SK_*`, IntAuth, AUTH and KEYMAT come from shared secrets, nonces and
//! messages; every packet has the verdict that was noted. What the capture says of itself (SPIs, nonces, algorithms, methods of key
//! exchanges) is taken from its messages. Nothing here depends on the names in the JSON.

mod auth;
mod json;
mod keys;
mod messages;

use core::fmt;

use auth::Said;
use json::{ChildSa, IkeSa, KeyExchange, Lab};
use keys::Suite;
use messages::{Exchange, Sent};

use super::ike::{IkeMessage, Inside};
use super::open::{Record, Verdict};
use crate::crypto::Secret;
use crate::ike::keymat;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{ExchangeType, ProtocolId, TransformType};
use crate::wire::ike::payload::{Payload, Sa};

/// What a JSON says of a capture.
pub struct Session {
    lab: Lab,
}

/// What was found to be so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// IKE messages read; each is as noted.
    pub messages: usize,
    /// SK and SKF payloads opened.
    pub opened: usize,
    /// Messages, and contents of SK, that are written again in another way than they came: reserved bits, unknown attributes.
    pub not_canonical: usize,
    /// IKE SAs whose keys were computed.
    pub ike_sas: usize,
    /// CHILD_SAs whose keys were computed.
    pub child_sas: usize,
    /// AUTH payloads, and NO_PPK_AUTH notifies, that were computed or verified.
    pub proofs: usize,
    /// Those whose signed octets are right, but whose key is not there.
    pub proofs_without_key: usize,
    /// ESP and AH packets whose verdict, SPI and sequence number are as noted.
    pub packets: usize,
}

/// The first difference. Never contains a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    place: String,
    what: String,
}

impl Mismatch {
    fn new(what: impl Into<String>) -> Self {
        Self { place: String::new(), what: what.into() }
    }

    fn at(self, place: impl fmt::Display) -> Self {
        let place = if self.place.is_empty() {
            place.to_string()
        } else {
            format!("{place}, {}", self.place)
        };
        Self { place, ..self }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Without the bytes, which may be a key.
fn same(what: &str, ours: &[u8], noted: &[u8]) -> Result<(), Mismatch> {
    if ours == noted { Ok(()) } else { Err(Mismatch::new(format!("{what} is another"))) }
}

impl Session {
    /// Reads the JSON of a capture; `None` if `text` is another key file.
    ///
    /// # Errors
    /// It is one, and what is wrong in it.
    pub fn read(text: &str) -> Result<Option<Self>, String> {
        if !text.trim_start().starts_with('{') {
            return Ok(None);
        }
        match serde_json::from_str(text) {
            Ok(lab) => Ok(Some(Self { lab })),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Compares the records of a whole capture with what is noted.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, records: &[Record]) -> Result<Checked, Mismatch> {
        let mut checked = Checked::default();
        messages::check_written_again(records, &mut checked)?;
        messages::check_opened(&self.lab, records, &mut checked)?;
        messages::check_noted(&self.lab, records)?;
        let sent = Sent::of(records);
        for (index, sa) in self.lab.ike_sas.iter().enumerate() {
            let place = format!("IKE SA {index} ({}/{})", sa.spi_i.0, sa.spi_r.0);
            self.check_ike_sa(sa, &sent, &mut checked).map_err(|error| error.at(&place))?;
            checked.ike_sas += 1;
        }
        for (index, child) in self.lab.child_sas.iter().enumerate() {
            let place = format!("CHILD_SA {index} (0x{:08x})", child.spi_of_initiator.0);
            self.check_child(child, &sent).map_err(|error| error.at(&place))?;
            checked.child_sas += 1;
        }
        self.check_packets(records, &mut checked)?;
        Ok(checked)
    }

    fn ike_sa(&self, index: usize) -> Result<&IkeSa, Mismatch> {
        let found = self.lab.ike_sas.iter().find(|sa| sa.index == index);
        found.ok_or_else(|| Mismatch::new(format!("there is no IKE SA {index}")))
    }

    fn check_ike_sa(
        &self,
        sa: &IkeSa,
        sent: &Sent<'_>,
        checked: &mut Checked,
    ) -> Result<(), Mismatch> {
        let suite = Suite::of(&sa.algorithms)?;
        let nonces = (sa.ni.bytes(), sa.nr.bytes());
        let spis = (sa.spi_i.0, sa.spi_r.0);
        let stages = if sa.key_stages.is_empty() {
            core::slice::from_ref(&sa.keys)
        } else {
            sa.key_stages.as_slice()
        };
        let shared = shared_secrets(&sa.key_exchanges, Some(sa.dh_shared_secret.bytes()))?;
        let (exchange, seed) = match sa.rekeyed_from {
            None => {
                let exchange = sent.init(spis)?;
                let Some(first) = shared.first() else {
                    return Err(Mismatch::new("no shared secret is noted"));
                };
                (exchange, keys::first_seed(suite.prf, nonces.0, nonces.1, first))
            }
            Some(old) => {
                let old = self.ike_sa(old)?;
                let exchange = sent.rekey_of_ike((old.spi_i.0, old.spi_r.0), spis)?;
                let old_prf = Suite::of(&old.algorithms)?.prf;
                let old_sk_d = old.keys.sk_d.bytes();
                (exchange, keys::rekeyed_seed(old_prf, old_sk_d, nonces.0, nonces.1, &shared))
            }
        };
        check_nonces(&exchange, nonces)?;
        check_algorithms(&exchange, sa)?;
        check_methods(sent, &exchange, &sa.key_exchanges, sa.algorithms.dh)?;

        // The PPK is mixed in once all key exchanges are done (RFC 8784 §3).
        let mut seed = seed;
        for (number, keys) in stages.iter().enumerate() {
            let is_last = number + 1 == stages.len();
            let mixed = sa.before_ppk.as_ref().filter(|_| is_last && sa.key_stages.is_empty());
            if number > 0 {
                let (Some(before), Some(shared)) = (stages.get(number - 1), shared.get(number))
                else {
                    return Err(Mismatch::new("there are more stages than key exchanges"));
                };
                let sk_d = before.sk_d.bytes();
                seed = keys::next_seed(suite.prf, sk_d, nonces.0, nonces.1, shared);
            }
            keys::check_keys(suite, &seed, nonces, spis, keys, mixed)
                .map_err(|error| error.at(format!("stage {number}")))?;
        }
        if sa.rekeyed_from.is_none() && !sa.key_exchanges.is_empty() && stages.len() != shared.len()
        {
            return Err(Mismatch::new("there are fewer stages than key exchanges"));
        }
        if !sa.key_stages.is_empty() {
            // What is noted as the keys of the IKE SA are those of the last stage.
            keys::check_keys(suite, &seed, nonces, spis, &sa.keys, sa.before_ppk.as_ref())?;
        }
        match (&sa.ppk, &sa.before_ppk) {
            (Some(ppk), Some(before)) => {
                keys::check_ppk(suite.prf, ppk.secret.bytes(), before, &sa.keys)?;
            }
            (None, None) => {}
            _ => return Err(Mismatch::new("a PPK, or the keys before it, is missing")),
        }
        if sa.rekeyed_from.is_none() {
            let int_auth = check_int_auth(sa, suite, stages, sent)?;
            self.check_auth(sa, suite, &exchange, &int_auth, sent, checked)?;
        }
        Ok(())
    }

    fn check_auth(
        &self,
        sa: &IkeSa,
        suite: Suite,
        init: &Exchange<'_>,
        int_auth: &[u8],
        sent: &Sent<'_>,
        checked: &mut Checked,
    ) -> Result<(), Mismatch> {
        let mut said = [Said::default(), Said::default()];
        for message in sent.of_sa((sa.spi_i.0, sa.spi_r.0), ExchangeType::IKE_AUTH) {
            let (id, initiator) = (message.header.message_id, message.header.flags.initiator);
            said[usize::from(!initiator)].add(id, initiator, message.payloads());
        }
        let Some(noted) = &sa.auth else { return Ok(()) };
        let before = sa.before_ppk.as_ref();
        let [initiator, responder] = &said;
        let nonce_i = sa.ni.bytes();
        let sides = [
            ("initiator", initiator, &noted.initiator, init.request, sa.nr.bytes()),
            ("responder", responder, &noted.responder, init.response, nonce_i),
        ];
        for (side, said, noted, message, nonce) in sides {
            let (sk_p, before) = if side == "initiator" {
                (&sa.keys.sk_pi, before.map(|before| &before.sk_pi))
            } else {
                (&sa.keys.sk_pr, before.map(|before| &before.sk_pr))
            };
            if said.shown.len() != noted.len() {
                let (came, noted) = (said.shown.len(), noted.len());
                let what = format!("{noted} AUTH are noted of the {side}, and {came} came");
                return Err(Mismatch::new(what));
            }
            for (number, (shown, proof)) in said.shown.iter().zip(noted).enumerate() {
                let mut keys = vec![Secret::copy_of(sk_p.bytes())];
                keys.extend(before.map(|before| Secret::copy_of(before.bytes())));
                // Of a PPK that the other side turned out not to have, only this proof is made.
                keys.extend(
                    self.lab.ppks().map(|ppk| keymat::mix_ppk(suite.prf, ppk, sk_p.bytes())),
                );
                let message = message.datagram.as_slice();
                let signed = auth::Signed { message, nonce, keys, int_auth };
                let proved = auth::check(suite.prf, said, shown, proof, &signed)
                    .map_err(|error| error.at(format!("AUTH {number} of the {side}")))?;
                if proved {
                    checked.proofs += 1;
                } else {
                    checked.proofs_without_key += 1;
                }
            }
        }
        Ok(())
    }

    fn check_child(&self, child: &ChildSa, sent: &Sent<'_>) -> Result<(), Mismatch> {
        let sa = self.ike_sa(child.ike_sa)?;
        let suite = Suite::of(&sa.algorithms)?;
        let nonces = (child.ni.bytes(), child.nr.bytes());
        let spis = (sa.spi_i.0, sa.spi_r.0);
        let ours = (child.spi_of_initiator.0, child.spi_of_responder.0);
        let exchange = sent.child(spis, ours)?;
        if exchange.request.header.exchange == ExchangeType::IKE_AUTH {
            check_nonces(&sent.init(spis)?, nonces)?;
        } else {
            check_nonces(&exchange, nonces)?;
        }
        let noted = &child.exchange;
        if exchange.request.header.exchange.to_string() != *noted {
            return Err(Mismatch::new(format!("it was not made by {noted}")));
        }
        check_child_algorithms(&exchange, child)?;
        check_selectors(&exchange, child)?;
        let first = child.dh_shared_secret.as_ref().map(|secret| secret.bytes());
        let shared = shared_secrets(&child.key_exchanges, first)?;
        check_methods(sent, &exchange, &child.key_exchanges, None)?;
        let len = keys::child_len(&child.transforms)?;
        let (ni, nr) = nonces;
        let keymat = keys::keymat(suite.prf, sa.keys.sk_d.bytes(), ni, nr, &shared, 2 * len);
        same("KEYMAT", keymat.expose(), child.keymat.bytes())?;
        let (to_responder, to_initiator) = keymat.expose().split_at(len);
        for ((name, keys), spi) in
            child.sas.iter().zip([to_responder, to_initiator]).zip([ours.1, ours.0])
        {
            let found = self.lab.sas.iter().find(|sa| sa.name == *name);
            let found = found.ok_or_else(|| Mismatch::new(format!("there is no SA {name}")))?;
            if found.spi.0 != spi {
                return Err(Mismatch::new("it has another SPI").at(name));
            }
            same("its key", keys, &found.keys()).map_err(|error| error.at(name))?;
        }
        Ok(())
    }

    fn check_packets(&self, records: &[Record], checked: &mut Checked) -> Result<(), Mismatch> {
        for packet in &self.lab.packets {
            let place = format!("packet {:?}", packet.wire);
            self.check_packet(packet, records).map_err(|error| error.at(place))?;
            checked.packets += usize::from(packet.verdict == "ok");
        }
        Ok(())
    }

    fn check_packet(&self, packet: &json::Packet, records: &[Record]) -> Result<(), Mismatch> {
        let record = record_of(records, &packet.wire)?;
        let verdict = packet.verdict.as_str();
        let expected = match verdict {
            "replay-dup" => "replayed",
            "replay-old" => "too-old",
            other => other,
        };
        // Four zero bytes may be followed by what is no IKE message.
        let is_ike = verdict == "ike" && matches!(record.verdict, Verdict::Malformed(_));
        if record.verdict.name() != expected && !is_ike {
            return Err(Mismatch::new(format!("{verdict} is noted, and it is {}", record.verdict)));
        }
        if verdict != "ok" {
            return Ok(());
        }
        if packet.layers.len() != record.layers.len() {
            return Err(Mismatch::new(format!("{} SAs are noted", packet.layers.len())));
        }
        for (noted, layer) in packet.layers.iter().zip(&record.layers) {
            let sa = self.lab.sas.iter().find(|sa| sa.name == noted.sa);
            if sa.is_none_or(|sa| sa.spi.0 != layer.spi) || noted.seq != layer.sequence {
                let Some(sa) = sa else {
                    return Err(Mismatch::new(format!("there is no SA {}", noted.sa)));
                };
                let (spi, seq) = (sa.spi.0, noted.seq);
                return Err(Mismatch::new(format!(
                    "0x{spi:08x} seq {seq} is noted, it is {layer}"
                )));
            }
        }
        Ok(())
    }
}

/// The record of a packet that came in these frames.
fn record_of<'a>(records: &'a [Record], frames: &[usize]) -> Result<&'a Record, Mismatch> {
    let last = frames.iter().copied().max();
    let record = last.and_then(|last| records.get(last));
    let record = record.ok_or_else(|| Mismatch::new("there is no such packet"))?;
    if record.frames != frames {
        return Err(Mismatch::new(format!("it is found in packets {:?}", record.frames)));
    }
    Ok(record)
}

/// The shared secrets of an SA, in order; `first` is noted by itself, too.
fn shared_secrets<'a>(
    exchanges: &'a [KeyExchange],
    first: Option<&'a [u8]>,
) -> Result<Vec<&'a [u8]>, Mismatch> {
    let Some(exchange) = exchanges.first() else { return Ok(first.into_iter().collect()) };
    if let Some(first) = first {
        same("the first shared secret", first, exchange.shared_secret.bytes())?;
    }
    Ok(exchanges.iter().map(|exchange| exchange.shared_secret.bytes()).collect())
}

fn check_nonces(exchange: &Exchange<'_>, (ni, nr): (&[u8], &[u8])) -> Result<(), Mismatch> {
    for (name, message, noted) in [("Ni", exchange.request, ni), ("Nr", exchange.response, nr)] {
        let nonce = message.payloads().iter().find_map(|payload| {
            if let Payload::Nonce(nonce) = payload { Some(&nonce.data) } else { None }
        });
        let nonce = nonce.ok_or_else(|| Mismatch::new(format!("{name} did not come")))?;
        same(name, nonce, noted)?;
    }
    Ok(())
}

/// The algorithms that the response chose.
fn chosen<'a>(exchange: &Exchange<'a>) -> Result<&'a Sa, Mismatch> {
    let sa = exchange
        .response
        .payloads()
        .iter()
        .find_map(|payload| if let Payload::Sa(sa) = payload { Some(sa) } else { None });
    sa.ok_or_else(|| Mismatch::new("the response has no SA payload"))
}

fn check_algorithms(exchange: &Exchange<'_>, sa: &IkeSa) -> Result<(), Mismatch> {
    let chosen = chosen(exchange)?;
    let transforms = chosen.proposals.first().map_or(&[][..], |proposal| &proposal.transforms);
    let ids = |wanted: TransformType| -> Vec<u16> {
        let found = transforms.iter().filter(|transform| transform.transform_type == wanted);
        found.map(|transform| transform.id).filter(|id| *id != 0).collect()
    };
    let noted = &sa.algorithms;
    let some = |id: u16| if id == 0 { Vec::new() } else { vec![id] };
    for (name, wanted, noted) in [
        ("encryption algorithm", TransformType::ENCR, vec![noted.encr]),
        ("PRF", TransformType::PRF, vec![noted.prf]),
        ("integrity algorithm", TransformType::INTEG, some(noted.integ)),
    ] {
        if ids(wanted) != noted {
            return Err(Mismatch::new(format!("the {name} is another")));
        }
    }
    if noted.dh.is_some_and(|dh| ids(TransformType::KE) != some(dh)) {
        return Err(Mismatch::new("the key exchange method is another"));
    }
    let additional: Vec<u16> = transforms
        .iter()
        .filter(|transform| transform.transform_type.0 > TransformType::ESN.0 && transform.id != 0)
        .map(|transform| transform.id)
        .collect();
    if additional != noted.addke {
        return Err(Mismatch::new("the additional key exchange methods are others"));
    }
    let key_bits = transforms
        .iter()
        .find(|transform| transform.transform_type == TransformType::ENCR)
        .and_then(|transform| transform.key_length);
    if key_bits.is_some() && key_bits != noted.encr_key_bits {
        return Err(Mismatch::new("the length of the encryption key is another"));
    }
    Ok(())
}

fn check_child_algorithms(exchange: &Exchange<'_>, child: &ChildSa) -> Result<(), Mismatch> {
    let chosen = chosen(exchange)?;
    let proposal = chosen.proposals.iter().find(|proposal| proposal.protocol != ProtocolId::IKE);
    let transforms = proposal.map_or(&[][..], |proposal| &proposal.transforms);
    for wanted in [TransformType::ENCR, TransformType::INTEG] {
        let came = transforms
            .iter()
            .find(|transform| transform.transform_type == wanted && transform.id != 0)
            .map(|transform| (transform.id, transform.key_length));
        let noted = child
            .transforms
            .iter()
            .find(|transform| transform.transform_type == wanted.0 && transform.id != 0)
            .map(|transform| (transform.id, transform.key_bits));
        let same = match (came, noted) {
            (Some((id, Some(len))), Some((other, bits))) => (id, Some(len)) == (other, bits),
            (Some((id, None)), Some((other, _))) => id == other,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Err(Mismatch::new(format!("{wanted} is another")));
        }
    }
    Ok(())
}

/// The TS payloads of the response are those that are noted.
fn check_selectors(exchange: &Exchange<'_>, child: &ChildSa) -> Result<(), Mismatch> {
    for payload in exchange.response.payloads() {
        let (name, ts, noted) = if let Payload::TsI(ts) = payload {
            ("TSi", ts, &child.tsi)
        } else if let Payload::TsR(ts) = payload {
            ("TSr", ts, &child.tsr)
        } else {
            continue;
        };
        let Some(noted) = noted else { continue };
        let mut body = Vec::new();
        ts.emit(&mut body);
        same(name, &body, noted.bytes())?;
    }
    Ok(())
}

/// Each key exchange has its KE payloads, of the method that is noted.
fn check_methods(
    sent: &Sent<'_>,
    exchange: &Exchange<'_>,
    noted: &[KeyExchange],
    first: Option<u16>,
) -> Result<(), Mismatch> {
    let group = |message: &IkeMessage| {
        message
            .payloads()
            .iter()
            .find_map(|payload| if let Payload::Ke(ke) = payload { Some(ke.group.0) } else { None })
    };
    if noted.is_empty() {
        let is_other = first.is_some_and(|first| group(exchange.response) != Some(first));
        return if is_other { Err(Mismatch::new("KEr is of another method")) } else { Ok(()) };
    }
    for (number, noted) in noted.iter().enumerate() {
        let place = format!("key exchange {number}");
        let is_first = |id: u32| exchange.request.header.message_id == id;
        let found = if number == 0 {
            noted.message_id.is_none_or(is_first).then_some(*exchange)
        } else {
            noted.message_id.and_then(|id| sent.exchange(exchange, &noted.exchange, id))
        };
        let found = found.ok_or_else(|| Mismatch::new("it did not come").at(&place))?;
        for message in [found.request, found.response] {
            if group(message) != Some(noted.method) {
                return Err(Mismatch::new("its method is another").at(&place));
            }
        }
    }
    Ok(())
}

/// IntAuth_i, IntAuth_r and the Message ID of IKE_AUTH; nothing without IKE_INTERMEDIATE.
fn check_int_auth(
    sa: &IkeSa,
    suite: Suite,
    stages: &[json::Keys],
    sent: &Sent<'_>,
) -> Result<Vec<u8>, Mismatch> {
    let mut values = [Secret::empty(), Secret::empty()];
    let mut last_id = 0;
    let noted = |initiator: bool| {
        let noted = sa.int_auth.as_ref();
        noted.map_or(&[][..], |noted| if initiator { &noted.initiator } else { &noted.responder })
    };
    for message in sent.of_sa((sa.spi_i.0, sa.spi_r.0), ExchangeType::IKE_INTERMEDIATE) {
        let header = &message.header;
        let number = usize::try_from(header.message_id).unwrap_or(usize::MAX).saturating_sub(1);
        // The keys that protect it: those of the stage before the exchange.
        let Some(keys) = stages.get(number) else {
            return Err(Mismatch::new("an IKE_INTERMEDIATE too many"));
        };
        let (sk_p, at) = if header.flags.initiator { (&keys.sk_pi, 0) } else { (&keys.sk_pr, 1) };
        let Some(content) = &message.whole else { continue };
        let next = keys::int_auth(suite.prf, sk_p.bytes(), values[at].expose(), header, content);
        let noted = noted(header.flags.initiator).get(number);
        let noted = noted.ok_or_else(|| Mismatch::new("an IntAuth value is not noted"))?;
        same("an IntAuth value", next.expose(), noted.bytes())?;
        values[at] = next;
        last_id = header.message_id;
    }
    if last_id == 0 {
        return match sa.int_auth {
            None => Ok(Vec::new()),
            Some(_) => Err(Mismatch::new("IntAuth is noted, and no IKE_INTERMEDIATE came")),
        };
    }
    let [i, r] = &values;
    let octets = [i.expose(), r.expose(), &(last_id + 1).to_be_bytes()].concat();
    if let Some(noted) = sa.int_auth.as_ref().and_then(|noted| noted.octets.as_ref()) {
        same("IntAuth", &octets, noted.bytes())?;
    }
    Ok(octets)
}

impl IkeMessage {
    /// The payloads that matter: what is in SK, or what is in clear.
    fn payloads(&self) -> &[Payload] {
        if let Inside::Opened(payloads) = &self.inside { payloads } else { &self.payloads }
    }

    /// The IKE SA that it belongs to.
    fn spis(&self) -> (IkeSpi, IkeSpi) {
        (self.header.spi_i, self.header.spi_r)
    }
}

/// `18 IKE messages as noted, 14 of them opened; keys of 1 IKE_SA and 1 CHILD_SA, 2 AUTH, 16 packets`.
impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, opened, ike_sas, child_sas, proofs, packets, .. } = self;
        write!(
            f,
            "{messages} IKE messages ({opened} encrypted payloads), keys of {ike_sas} IKE_SAs and {child_sas} CHILD_SAs, \
             {proofs} AUTH, {packets} packets"
        )?;
        if self.proofs_without_key > 0 {
            write!(f, "; {} AUTH without a key to verify it", self.proofs_without_key)?;
        }
        if self.not_canonical > 0 {
            write!(f, "; {} not in canonical form", self.not_canonical)?;
        }
        Ok(())
    }
}
