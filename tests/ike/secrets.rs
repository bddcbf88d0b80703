//! No key reaches a log or a `Debug` print: complete exchanges with every trace event caught.

use core::fmt::{self, Write};
use core::time::Duration;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Once;

use ipsecd::crypto::Secret;
use ipsecd::ike;
use ipsecd::testing::{ModelSad, Stage};
use ipsecd::wire::ike::payload::{Delete, Payload};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::*;

/// Catches every event and span of every level, with all fields, of the threads that ask for it.
///
/// It is the process's subscriber, not a thread's: whether a log line is wanted at all is decided once for all threads,
/// by whichever meets it first, and one without a subscriber would decide for the others too.
struct Catcher;

thread_local! {
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

struct Writer<'a>(&'a mut String);

impl Visit for Writer<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }
}

impl Catcher {
    /// What `body` logs in this thread.
    fn catch(body: impl FnOnce()) -> String {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| tracing::subscriber::set_global_default(Self).unwrap());
        CAUGHT.set(Some(String::new()));
        body();
        CAUGHT.take().unwrap()
    }

    fn write(f: impl FnOnce(&mut String)) {
        CAUGHT.with_borrow_mut(|text| text.as_mut().map(f));
    }

    fn line(metadata: &Metadata<'_>, fields: impl FnOnce(&mut dyn Visit)) {
        Self::write(|text| {
            write!(text, "{} {}", metadata.level(), metadata.target()).unwrap();
            fields(&mut Writer(text));
            text.push('\n');
        });
    }
}

impl Subscriber for Catcher {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::line(span.metadata(), |visit| span.record(visit));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        Self::write(|text| values.record(&mut Writer(text)));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        Self::line(event.metadata(), |visit| event.record(visit));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The ways in which the beginning of a secret could be written.
fn spellings(secret: &[u8]) -> Vec<String> {
    let start: Vec<u8> = secret.iter().copied().take(9).collect();
    let head = &start[..8];
    let hex: String = head.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let list = format!("{head:?}");
    vec![
        String::from_utf8_lossy(head).into_owned(),
        hex.to_uppercase(),
        hex,
        list.trim_matches(['[', ']']).to_owned(),
        format!("{head:02x?}").trim_matches(['[', ']']).to_owned(),
        format!("{head:#x?}").trim_matches(['[', ']']).trim().to_owned(),
        head.escape_ascii().to_string(),
        base64(&start),
    ]
}

/// Of three bytes or a multiple, so without padding.
fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for shift in [18, 12, 6, 0] {
            out.push(char::from(alphabet[usize::try_from(bits >> shift & 63).unwrap()]));
        }
    }
    out
}

fn found(text: &str, secrets: &BTreeSet<Vec<u8>>) -> Vec<String> {
    secrets
        .iter()
        .filter(|secret| secret.len() >= 9)
        .flat_map(|secret| spellings(secret))
        .filter(|spelling| text.contains(spelling.as_str()))
        .collect()
}

fn collect(secrets: &mut BTreeSet<Vec<u8>>, sad: &ModelSad) {
    for sa in sad.all_inbound().chain(sad.all_outbound()) {
        secrets.insert(sa.encr_key.expose().to_vec());
        secrets.insert(sa.integ_key.expose().to_vec());
    }
}

#[test]
fn search_finds_a_secret_however_it_is_written() {
    let secret = b"correct horse battery staple".to_vec();
    let secrets = BTreeSet::from([secret.clone()]);
    let hex = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for text in [
        format!("psk={}", String::from_utf8_lossy(&secret)),
        format!("key {hex}."),
        hex.to_uppercase(),
        format!("{secret:?}"),
        format!("{secret:02x?}"),
        format!("{secret:#x?}"),
        base64(&secret[..27]),
        format!("{:?}", String::from_utf8(secret.clone()).unwrap()),
    ] {
        assert!(!found(&text, &secrets).is_empty(), "not found in {text}");
    }
    assert!(found(&format!("{:?}", Secret::new(secret)), &secrets).is_empty());
}

#[test]
fn no_key_is_in_any_log_line_or_debug_print() {
    let mut secrets = BTreeSet::from([peers::PSK.to_vec()]);
    let mut prints = String::new();
    let text = Catcher::catch(|| {
        // Two endpoints: everything from the first message to the last.
        let mut pair = established();
        for begin in [Pair::rekey_children, Pair::rekey_ike, Pair::rekey_children, Pair::terminate]
        {
            for side in [A, B] {
                collect(&mut secrets, &pair.node(side).sad);
                write!(prints, "{:?}{:?}", pair.status(side), pair.node(side).sad).unwrap();
            }
            begin(&mut pair, A).unwrap();
            settle(&mut pair);
        }
        for side in [A, B] {
            let events = &pair.node(side).events;
            let exported =
                events.iter().any(|event| matches!(event, (_, ike::Event::IkeKeys { .. })));
            assert!(!exported, "keys are told only to an operator who asks for them");
            write!(prints, "{:?}", pair.node(side).events).unwrap();
        }
        write!(prints, "{}", pair.trace).unwrap();
        write!(prints, "{:?}{:?}", peers::site_a(), peers::sa_params()).unwrap();

        // One endpoint and a puppet that knows every SK_*, in both roles, up to errors.
        for mut stage in
            [Stage::established_responder(5).unwrap(), Stage::established_initiator(5).unwrap()]
        {
            let keys = stage.puppet.keys.as_ref().unwrap();
            let all = [
                &keys.sk_d,
                &keys.sk_ai,
                &keys.sk_ar,
                &keys.sk_ei,
                &keys.sk_er,
                &keys.sk_pi,
                &keys.sk_pr,
            ];
            secrets.extend(all.iter().map(|key| key.expose().to_vec()));
            write!(prints, "{keys:?}").unwrap();
            collect(&mut secrets, &stage.sad);
            let rubbish = stage.puppet.seal(CREATE_CHILD_SA, false, 77, &[]).unwrap();
            stage.give(&rubbish);
            let mut forged = rubbish.clone();
            forged[40] ^= 1;
            stage.give(&forged);
            let delete = [Payload::Delete(Delete::ike())];
            let request = stage.puppet.request(INFORMATIONAL, &delete).unwrap();
            stage.give(&request);
            stage.pass_time(Duration::from_secs(300));
            write!(prints, "{:?}", stage.events).unwrap();
        }
        let mut refused = Stage::responder(6);
        refused.puppet.psk = Secret::copy_of(b"another horse, another staple");
        secrets.insert(b"another horse, another staple".to_vec());
        let payloads = refused.puppet.init_payloads();
        let request = refused.puppet.init_request(payloads);
        let response = refused.give(&request);
        refused.puppet.read_init_response(&response[0]).unwrap();
        let payloads = refused.puppet.auth_payloads().unwrap();
        let request = refused.puppet.request(IKE_AUTH, &payloads).unwrap();
        refused.give(&request);
    });
    assert!(text.lines().count() > 10, "the endpoints log what they do:\n{text}");
    assert!(secrets.len() > 15, "{} secrets", secrets.len());
    assert_eq!(found(&text, &secrets), Vec::<String>::new(), "{text}");
    assert_eq!(found(&prints, &secrets), Vec::<String>::new(), "{prints}");
}

#[test]
fn no_password_of_eap_reaches_a_log_or_a_debug_print() {
    use ipsecd::testing::eap;
    let password = BTreeSet::from([b"correct horse".to_vec()]);
    let (a, b) = (eap::client().unwrap(), eap::server().unwrap());
    let mut shown = format!("{a:?} {b:?}");
    shown += &Catcher::catch(|| {
        let mut pair = pair_of(a, b);
        pair.initiate(A);
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        CAUGHT.with_borrow_mut(|text| {
            let status = (pair.status(A), pair.status(B));
            write!(text.as_mut().unwrap(), "{status:?}").unwrap();
        });
    });
    assert!(shown.contains("IKE_SA established") && shown.contains("joe"), "{shown}");
    assert_eq!(found(&shown, &password), Vec::<String>::new());
}
