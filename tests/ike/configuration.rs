//! The Configuration payload (RFC 7296 §2.19, §3.15; RFC 8598): addresses of a pool, in both roles.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command, Configuration, Event};
use ipsecd::ipsec::TrafficSelector;
use ipsecd::ipsec::pad::{AddressPool, AddressRequest, Identity, Peer, Wish};
use ipsecd::testing::{Puppet, Stage};
use ipsecd::wire::ike::cp::{CfgAttribute, Cp};
use ipsecd::wire::ike::numbers::{CfgAttributeType, CfgType, IdType, NotifyType};
use ipsecd::wire::ike::payload::{Id, Payload, Ts};

use crate::support::*;

const EVERYTHING: TrafficSelector = peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(text: &str) -> TrafficSelector {
    TrafficSelector::from_addr(ip(text))
}

/// A asks for an address, and what is behind B.
fn client() -> Peer {
    let mut a = peers::site_a();
    let addresses = vec![Wish::V4(None)];
    a.request = Some(AddressRequest { addresses, dns: true, domains: None });
    a.children = vec![peers::child("lan", 1, &[EVERYTHING], &[peers::subnet(2)])];
    a
}

/// B gives the addresses 10.3.0.1 to 10.3.0.`last`.
fn server(last: u8) -> Peer {
    let (first, last) = (Ipv4Addr::new(10, 3, 0, 1), Ipv4Addr::new(10, 3, 0, last));
    let mut b = peers::site_b();
    b.pool = Some(AddressPool {
        ranges: vec![(first.into(), last.into())],
        dns: vec![ip("10.2.0.53")],
        domains: vec!["corp.example".to_owned()],
    });
    b.children = vec![peers::child("lan", 1, &[peers::subnet(2)], &[peers::range(first, last)])];
    b.children[0].start = ipsecd::ipsec::pad::StartPolicy::Respond;
    b
}

fn connected() -> Pair {
    established_of(1, client(), server(2))
}

fn has(pair: &Pair, side: Side) -> Option<Arc<Configuration>> {
    only_sa(pair, side).configuration
}

/// What the daemon was told last of what its peer configured it with.
fn told(pair: &Pair) -> Option<Arc<Configuration>> {
    let mut events = pair.node(A).events.iter().rev();
    events
        .find_map(|(_, event)| {
            let Event::Configured { configuration, .. } = event else { return None };
            Some(configuration.clone())
        })
        .flatten()
}

#[test]
fn address_of_the_pool_is_the_selector_on_both_sides() {
    let pair = connected();
    let configuration = has(&pair, A).unwrap();
    assert_eq!(configuration.addresses, [ip("10.3.0.1")]);
    assert_eq!(configuration.dns, [ip("10.2.0.53")]);
    assert_eq!(configuration.domains, ["corp.example"]);
    assert_eq!(configuration.subnets, [peers::subnet(2)]);
    assert_eq!(told(&pair), Some(configuration));
    assert_eq!(only_sa(&pair, B).leased, [ip("10.3.0.1")]);
    assert_eq!(only_child(&pair, A).ts_local[..], [host("10.3.0.1")]);
    assert_eq!(only_child(&pair, A).ts_peer[..], [peers::subnet(2)]);
    assert_eq!(only_child(&pair, B).ts_peer[..], [host("10.3.0.1")]);
    assert_eq!(pair.node(B).endpoint.leases(), (1, 0));
}

#[test]
fn address_outlives_every_rekey_and_is_given_back_with_the_ike_sa() {
    let mut pair = connected();
    for side in [A, B] {
        pair.rekey_ike(side).unwrap();
        settle(&mut pair);
        pair.rekey_children(side).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_eq!(only_sa(&pair, B).leased, [ip("10.3.0.1")]);
        assert_eq!(has(&pair, A).unwrap().addresses, [ip("10.3.0.1")]);
        assert_eq!(only_child(&pair, side).ts_peer.len(), 1);
        assert_eq!(pair.node(B).endpoint.leases(), (1, 0));
        assert_eq!(told(&pair), has(&pair, A), "the daemon keeps what it has");
    }
    pair.terminate(A).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.node(B).endpoint.leases(), (0, 1));
    assert_eq!(told(&pair), None, "the daemon takes the address away");
}

#[test]
fn who_comes_back_is_given_the_same_address() {
    let mut pair = connected();
    pair.terminate(B).unwrap();
    settle(&mut pair);
    pair.initiate(A);
    settle(&mut pair);
    assert_eq!(only_sa(&pair, B).leased, [ip("10.3.0.1")]);
    // After a crash, too: INITIAL_CONTACT gives back what was held.
    pair.restart(A);
    pair.command(A, Command::AddPeer(Arc::new(client()))).unwrap();
    pair.initiate(A);
    settle(&mut pair);
    assert_eq!(only_sa(&pair, B).leased, [ip("10.3.0.1")]);
    assert_eq!(pair.node(B).endpoint.leases(), (1, 0));
}

#[test]
fn certain_address_is_asked_for_and_given_if_it_is_free() {
    let mut a = client();
    a.request.as_mut().unwrap().addresses = vec![Wish::V4(Some(Ipv4Addr::new(10, 3, 0, 2)))];
    let pair = established_of(1, a, server(9));
    assert_eq!(only_sa(&pair, B).leased, [ip("10.3.0.2")]);
}

#[test]
fn both_versions_are_given_and_one_of_them_will_do() {
    let both = vec![Wish::V4(None), Wish::V6(None)];
    let mut a = client();
    a.request.as_mut().unwrap().addresses.clone_from(&both);
    let mut b = server(2);
    let all = TrafficSelector::from_prefix(ip("::"), 0).unwrap();
    let (v6, pool) = (TrafficSelector::from_prefix(ip("fd02::"), 64).unwrap(), "fd03::");
    a.children[0].ts_local.push(all);
    a.children[0].ts_peer.push(v6);
    let pair = established_of(1, a.clone(), b.clone());
    assert_eq!(has(&pair, A).unwrap().addresses, [ip("10.3.0.1")], "B has no IPv6");
    assert_eq!(only_child(&pair, A).ts_local[..], [host("10.3.0.1")]);

    b.pool.as_mut().unwrap().ranges.push((ip("fd03::1"), ip("fd03::9")));
    b.children[0].ts_peer.push(TrafficSelector::from_prefix(ip(pool), 64).unwrap());
    b.children[0].ts_local.push(v6);
    let pair = established_of(1, a, b);
    let given = [ip("10.3.0.1"), ip("fd03::1")];
    assert_eq!(has(&pair, A).unwrap().addresses, given);
    assert_eq!(only_child(&pair, B).ts_peer[..], [host("10.3.0.1"), host("fd03::1")]);
}

#[test]
fn second_child_sa_has_the_same_address() {
    let (mut a, mut b) = (client(), server(2));
    a.children.push(peers::child("more", 2, &[EVERYTHING], &[peers::subnet(4)]));
    let pool = b.children[0].ts_peer.clone();
    b.children.push(peers::child("more", 2, &[peers::subnet(4)], &pool));
    b.children[1].start = ipsecd::ipsec::pad::StartPolicy::Respond;
    let pair = established_of(1, a, b);
    for child in only_sa(&pair, B).children {
        assert_eq!(child.ts_peer[..], [host("10.3.0.1")], "{}", child.name);
    }
}

#[test]
fn peer_that_has_no_pool_for_us_is_left() {
    let mut b = peers::site_b();
    b.children = vec![peers::child("lan", 1, &[peers::subnet(2)], &[EVERYTHING])];
    let mut pair = pair_of(client(), b);
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(A), [CloseReason::NoAddress { refused: false }]);
}

#[test]
fn what_comes_unasked_is_ignored() {
    let mut b = peers::site_b();
    b.pool = None;
    let (mut stage, init) = Stage::initiator(1);
    stage.puppet.read_init_request(&init).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let auth = one(stage.give(&response));
    let request = stage.puppet.open(&auth).unwrap();
    assert!(cp_of(&request).is_none(), "nothing is asked for");
    let mut answer = stage.puppet.auth_response_payloads(&request).unwrap();
    answer.insert(2, reply(&[("10.9.9.9", CfgAttributeType::INTERNAL_IP4_ADDRESS)]));
    stage.answer(&auth, &answer);
    let status = stage.endpoint.status(stage.clock.now());
    assert_eq!(status[0].configuration, None);
    assert_eq!(status[0].children[0].ts_local[..], [peers::subnet(1)]);
}

// Our initiator before a puppet.

#[track_caller]
fn one(sent: Vec<Vec<u8>>) -> Vec<u8> {
    let [only] = <[_; 1]>::try_from(sent).unwrap_or_else(|sent| panic!("{} sent", sent.len()));
    only
}

fn cp_of(payloads: &[Payload]) -> Option<Cp> {
    payloads.iter().find_map(|payload| {
        let Payload::Cp(cp) = payload else { return None };
        Some(cp.clone())
    })
}

fn reply(attributes: &[(&str, CfgAttributeType)]) -> Payload {
    let octets = |text: &str| match ip(text) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let attributes = attributes
        .iter()
        .map(|(text, number)| CfgAttribute { attribute_type: *number, value: octets(text) })
        .collect();
    Payload::Cp(Cp { cfg_type: CfgType::CFG_REPLY, attributes })
}

fn place(payloads: &[Payload], wanted: fn(&Payload) -> bool) -> usize {
    payloads.iter().position(wanted).unwrap_or_else(|| panic!("{payloads:?}"))
}

/// Our IKE_AUTH request to the puppet: the datagram, and what is in it.
fn auth_request() -> (Stage, Vec<u8>, Vec<Payload>) {
    let (mut stage, init) = Stage::initiator_of(1, client());
    stage.puppet.read_init_request(&init).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let auth = one(stage.give(&response));
    let request = stage.puppet.open(&auth).unwrap();
    (stage, auth, request)
}

#[test]
fn request_comes_before_the_sa_payload_and_asks_for_servers_with_the_domains() {
    let (_, _, request) = auth_request();
    assert!(
        place(&request, |p| matches!(p, Payload::Cp(_)))
            < place(&request, |p| matches!(p, Payload::Sa(_)))
    );
    let asked: Vec<_> = cp_of(&request).unwrap().attributes;
    assert!(asked.iter().all(|attribute| attribute.value.is_empty()), "{asked:?}");
    let numbers = asked.iter().map(|attribute| attribute.attribute_type).collect::<Vec<_>>();
    assert_eq!(
        numbers,
        [
            CfgAttributeType::INTERNAL_IP4_ADDRESS,
            CfgAttributeType::INTERNAL_IP4_DNS,
            CfgAttributeType::INTERNAL_DNS_DOMAIN,
        ]
    );
}

#[test]
fn selectors_wider_than_the_address_are_cut_to_it() {
    let (mut stage, auth, request) = auth_request();
    let mut answer = stage.puppet.auth_response_payloads(&request).unwrap();
    for payload in &mut answer {
        if let Payload::TsI(ts) = payload {
            *ts = Ts { selectors: vec![EVERYTHING] };
        }
    }
    answer.insert(2, reply(&[("10.3.0.7", CfgAttributeType::INTERNAL_IP4_ADDRESS)]));
    stage.answer(&auth, &answer);
    let status = stage.endpoint.status(stage.clock.now());
    assert_eq!(status[0].children[0].ts_local[..], [host("10.3.0.7")]);
}

#[test]
fn without_an_address_the_ike_sa_is_deleted() {
    for refused in [false, true] {
        let (mut stage, auth, request) = auth_request();
        let mut answer = stage.puppet.auth_response_payloads(&request).unwrap();
        if refused {
            answer.truncate(2);
            let failure = NotifyType::INTERNAL_ADDRESS_FAILURE;
            answer.push(Payload::Notify(ipsecd::wire::ike::payload::Notify::new(failure, [])));
        }
        let delete = one(stage.answer(&auth, &answer));
        let delete = stage.puppet.open(&delete).unwrap();
        assert!(matches!(delete.as_slice(), [Payload::Delete(_)]), "{delete:?}");
        assert!(stage.sad.is_empty());
        let reason = CloseReason::NoAddress { refused };
        let is_told =
            |event: &Event| matches!(event, Event::IkeSaClosed { reason: r, .. } if *r == reason);
        assert!(stage.events.iter().any(is_told), "{:?}", stage.events);
    }
}

// Puppets before our pool.

fn cfg_request(attributes: &[(CfgAttributeType, &[u8])]) -> Payload {
    let attributes = attributes
        .iter()
        .map(|(number, value)| CfgAttribute { attribute_type: *number, value: value.to_vec() })
        .collect();
    Payload::Cp(Cp { cfg_type: CfgType::CFG_REQUEST, attributes })
}

const IP4: CfgAttributeType = CfgAttributeType::INTERNAL_IP4_ADDRESS;

/// B as a gateway for anybody with the key.
fn gateway(last: u8) -> Stage {
    let mut b = server(last);
    b.peer_id = None;
    Stage::responder_with(1, b)
}

/// Lets another puppet begin, called `name`, with this CP payload; what it is answered in IKE_AUTH. It is at the place of the
/// one before then.
fn begin(stage: &mut Stage, name: &str, seed: u64, cp: Option<Payload>) -> Vec<Payload> {
    let spi = stage.puppet.esp_spi;
    stage.puppet = Puppet::initiator(seed);
    stage.puppet.esp_spi = spi;
    stage.puppet.id = Id::new(IdType::ID_FQDN, name.as_bytes().to_vec());
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = one(stage.give(&request));
    stage.puppet.read_init_response(&response).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    for payload in &mut payloads {
        if let Payload::TsI(ts) = payload {
            *ts = Ts { selectors: vec![EVERYTHING] };
        }
    }
    if let Some(cp) = cp {
        payloads.insert(2, cp);
    }
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let response = one(stage.give(&request));
    stage.puppet.open(&response).unwrap()
}

/// The first address of a CFG_REPLY.
fn given(answer: &[Payload]) -> Option<IpAddr> {
    let value = cp_of(answer)?.attributes.first()?.value.clone();
    <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into())
}

fn refused_with(answer: &[Payload]) -> Option<NotifyType> {
    answer.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        notify.notify_type.is_error().then_some(notify.notify_type)
    })
}

#[test]
fn reply_comes_before_the_sa_payload() {
    let mut stage = gateway(9);
    let answer = begin(&mut stage, "joe", 5, Some(cfg_request(&[(IP4, &[])])));
    assert_eq!(given(&answer), Some(ip("10.3.0.1")));
    assert!(
        place(&answer, |p| matches!(p, Payload::Cp(_)))
            < place(&answer, |p| matches!(p, Payload::Sa(_)))
    );
    assert!(answer.contains(&Payload::TsI(Ts { selectors: vec![host("10.3.0.1")] })));
}

#[test]
fn many_peers_of_one_configuration_have_each_an_address_and_sas() {
    let mut stage = gateway(9);
    let names = ["joe", "ann", "eve"];
    for (seed, name) in (5..).zip(names) {
        // All of them chose the same SPI, as they may.
        let answer = begin(&mut stage, name, seed, Some(cfg_request(&[(IP4, &[])])));
        let address = format!("10.3.0.{}", seed - 4);
        assert_eq!(given(&answer), Some(ip(&address)));
    }
    assert_eq!(stage.violations, []);
    assert_eq!((stage.sad.all_inbound().count(), stage.sad.all_outbound().count()), (3, 3));
    assert_eq!(stage.endpoint.leases(), (3, 0));
    // The last one goes, and nothing of the others.
    let delete = Payload::Delete(ipsecd::wire::ike::payload::Delete::ike());
    let request = stage.puppet.request(INFORMATIONAL, &[delete]).unwrap();
    stage.give(&request);
    assert_eq!(stage.violations, []);
    let left: Vec<_> = stage.sad.all_outbound().map(|sa| sa.ts_peer[0]).collect();
    assert_eq!(left, [host("10.3.0.1"), host("10.3.0.2")]);
    assert_eq!(stage.endpoint.leases(), (2, 1));
}

#[test]
fn used_up_pool_is_an_error_and_the_ike_sa_stands() {
    let mut stage = gateway(1);
    begin(&mut stage, "joe", 5, Some(cfg_request(&[(IP4, &[])])));
    let answer = begin(&mut stage, "ann", 6, Some(cfg_request(&[(IP4, &[])])));
    assert_eq!(refused_with(&answer), Some(NotifyType::INTERNAL_ADDRESS_FAILURE));
    assert!(cp_of(&answer).is_none());
    assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (2, 1));
}

#[test]
fn address_of_another_is_not_to_be_had() {
    let mut stage = gateway(9);
    begin(&mut stage, "joe", 5, Some(cfg_request(&[(IP4, &[])])));
    let answer = begin(&mut stage, "ann", 6, Some(cfg_request(&[(IP4, &[10, 3, 0, 1])])));
    assert_eq!(given(&answer), Some(ip("10.3.0.2")));
    // The same one from the same place, before it leaves what it has.
    let answer = begin(&mut stage, "joe", 7, Some(cfg_request(&[(IP4, &[10, 3, 0, 1])])));
    assert_eq!(given(&answer), Some(ip("10.3.0.1")));
    assert_eq!(stage.endpoint.leases(), (2, 0));
}

#[test]
fn who_does_not_ask_has_no_child_sa_until_it_does() {
    let mut stage = gateway(9);
    let dns_alone = cfg_request(&[(CfgAttributeType::INTERNAL_IP4_DNS, &[])]);
    for (seed, cp) in [(5, None), (6, Some(dns_alone))] {
        let answer = begin(&mut stage, "joe", seed, cp);
        assert_eq!(refused_with(&answer), Some(NotifyType::FAILED_CP_REQUIRED));
        assert!(stage.sad.is_empty());
        // INFORMATIONAL { N(FAILED_CP_REQUIRED) } as well.
        let request = stage.puppet.request(INFORMATIONAL, &[cfg_request(&[])]).unwrap();
        let answer = one(stage.give(&request));
        let answer = stage.puppet.open(&answer).unwrap();
        assert_eq!(refused_with(&answer), Some(NotifyType::FAILED_CP_REQUIRED));
        let delete = Payload::Delete(ipsecd::wire::ike::payload::Delete::ike());
        let request = stage.puppet.request(INFORMATIONAL, &[delete]).unwrap();
        stage.give(&request);
    }
    begin(&mut stage, "joe", 7, None);
    // CREATE_CHILD_SA { CP(CFG_REQUEST), SA, Ni, TSi, TSr } -->
    let mut request = stage.puppet.child_offer();
    request.insert(1, stage.puppet.fresh_nonce());
    request.insert(0, cfg_request(&[(IP4, &[])]));
    if let Some(Payload::TsI(ts)) = request.iter_mut().find(|p| matches!(p, Payload::TsI(_))) {
        *ts = Ts { selectors: vec![EVERYTHING] };
    }
    let request = stage.puppet.request(CREATE_CHILD_SA, &request).unwrap();
    let answer = one(stage.give(&request));
    let answer = stage.puppet.open(&answer).unwrap();
    assert_eq!(given(&answer), Some(ip("10.3.0.1")));
    assert_eq!(stage.sad.all_inbound().count(), 1);
    // INFORMATIONAL { CP(CFG_REQUEST) } says the same again.
    let request = stage.puppet.request(INFORMATIONAL, &[cfg_request(&[])]).unwrap();
    let answer = one(stage.give(&request));
    assert_eq!(given(&stage.puppet.open(&answer).unwrap()), Some(ip("10.3.0.1")));
}

#[test]
fn version_of_ip_that_the_pool_has_not_is_passed_over() {
    let mut stage = gateway(9);
    let ip6 = CfgAttributeType::INTERNAL_IP6_ADDRESS;
    // An unknown attribute, and one of IKEv1, beside.
    let request = cfg_request(&[
        (ip6, &[]),
        (CfgAttributeType(5), &[0, 0, 0, 0]),
        (CfgAttributeType(0x3fff), b"?"),
        (IP4, &[]),
    ]);
    let answer = begin(&mut stage, "joe", 5, Some(request));
    assert_eq!(given(&answer), Some(ip("10.3.0.1")));
    let cp = cp_of(&answer).unwrap();
    assert!(cp.attributes.iter().all(|attribute| attribute.attribute_type != ip6));
    let answer = begin(&mut stage, "ann", 6, Some(cfg_request(&[(ip6, &[])])));
    assert_eq!(refused_with(&answer), Some(NotifyType::INTERNAL_ADDRESS_FAILURE));
}

#[test]
fn cfg_set_changes_nothing_and_is_not_acknowledged() {
    let mut stage = gateway(9);
    begin(&mut stage, "joe", 5, Some(cfg_request(&[(IP4, &[])])));
    let set = Cp {
        cfg_type: CfgType::CFG_SET,
        attributes: vec![CfgAttribute { attribute_type: IP4, value: vec![10, 3, 0, 9] }],
    };
    let request = stage.puppet.request(INFORMATIONAL, &[Payload::Cp(set)]).unwrap();
    let answer = one(stage.give(&request));
    assert_eq!(stage.puppet.open(&answer).unwrap(), []);
    assert_eq!(stage.endpoint.status(stage.clock.now())[0].leased, [ip("10.3.0.1")]);
}

#[test]
fn no_more_addresses_are_given_than_were_asked_for() {
    let mut stage = gateway(9);
    let asked: Vec<(CfgAttributeType, &[u8])> = vec![(IP4, &[]); 9];
    let answer = begin(&mut stage, "joe", 5, Some(cfg_request(&asked[..2])));
    let count = |answer: &[Payload]| {
        let cp = cp_of(answer).unwrap();
        cp.attributes.iter().filter(|attribute| attribute.attribute_type == IP4).count()
    };
    assert_eq!(count(&answer), 2);
    let answer = begin(&mut stage, "ann", 6, Some(cfg_request(&asked)));
    assert_eq!(count(&answer), 4, "nobody gets the whole pool");
}

#[test]
fn identity_that_nobody_has_is_given_nothing() {
    let mut b = server(9);
    b.peer_id = Some(Identity::Fqdn("joe".to_owned()));
    let mut stage = Stage::responder_with(1, b);
    let answer = begin(&mut stage, "ann", 5, Some(cfg_request(&[(IP4, &[])])));
    assert_eq!(refused_with(&answer), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(stage.endpoint.leases(), (0, 0));
}
