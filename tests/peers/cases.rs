//! What every peer on a real kernel is put through, in the same words.

use crate::ground::{ENDS, End};
use crate::lab::wait;
use crate::session::{PATIENCE, Session, Stage};
use crate::tunnel::{Proof, Tunnel};

pub(crate) type Case = fn(&Stage<'_>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as Case)),*] };
}

/// All of them, by name.
pub(crate) const CASES: &[(&str, Case)] = cases![
    psk_in_both_roles,
    rsa_certificates_in_both_roles,
    ecdsa_certificates_in_both_roles,
    every_suite_in_raw_esp,
    extended_sequence_numbers,
    ipv6_outside_and_inside,
    rekeys_begun_by_either_side_lose_nothing,
    rekeys_with_pfs,
    a_delete_by_either_side_is_followed,
    a_child_sa_deleted_by_the_peer_goes,
    a_dead_peer_is_met_again,
    our_death_is_noticed_and_met_again,
    narrowing_by_either_side,
    invalid_ke_is_answered_by_either_side,
    a_cookie_is_returned,
    our_cookie_is_returned,
    several_child_sas,
    fragments_both_ways,
    nat_in_front_of_either_side,
    nat_in_front_of_both_sides,
    ah_in_tunnel_mode,
    transport_mode,
    ah_in_transport_mode,
    transport_mode_through_a_nat,
];

fn psk_in_both_roles(stage: &Stage<'_>) {
    for begins in ENDS {
        stage.meet(&Tunnel::begun_by(begins)).end();
    }
}

/// What `ipsecd export` says, and no more than where its own files are, is the other end; whoever is to begin does so of itself.
pub(crate) fn its_export_is_a_tunnel(stage: &Stage<'_>) {
    for begins in ENDS {
        let session = stage.meet(&Tunnel { exported: true, ..Tunnel::begun_by(begins) });
        session.rekeyed("the new CHILD_SA", || session.ipsecd.rekey(false));
        session.carry();
        session.end();
    }
}

fn certificates(stage: &Stage<'_>, ours: &'static str, theirs: &'static str, ca: &'static str) {
    for begins in ENDS {
        let [ours, theirs] = [ours, theirs].map(Proof::Certificate);
        stage.meet(&Tunnel { ours, theirs, ca, ..Tunnel::begun_by(begins) }).end();
    }
}

fn rsa_certificates_in_both_roles(stage: &Stage<'_>) {
    certificates(stage, "a-rsa2048", "b-rsa2048", "ca-rsa2048");
}

fn ecdsa_certificates_in_both_roles(stage: &Stage<'_>) {
    certificates(stage, "a-p256", "b-p256", "ca-p256");
}

fn every_suite_in_raw_esp(stage: &Stage<'_>) {
    let suites = [
        ("aes128gcm16-prfsha256-x25519", "aes128gcm16"),
        ("aes256-sha512-modp3072", "aes256-sha512"),
        ("aes128-sha256-ecp256", "aes128-sha256"),
        ("aes256gcm16-prfsha512-ecp384", "chacha20poly1305"),
    ];
    for (number, (ike, esp)) in suites.into_iter().enumerate() {
        let begins = ENDS[number % ENDS.len()];
        println!("{ike} {esp}, {begins:?} begins");
        let tunnel =
            Tunnel { ike: ike.to_owned(), esp: esp.to_owned(), ..Tunnel::begun_by(begins) };
        let session = stage.meet(&tunnel);
        let algorithm = match esp {
            "aes128gcm16" => "rfc4106(gcm(aes))",
            "chacha20poly1305" => "rfc7539esp(chacha20,poly1305)",
            "aes256-sha512" => "hmac(sha512)",
            _ => "hmac(sha256)",
        };
        assert_eq!(session.kernel().matches(algorithm).count(), 2, "{}", session.kernel());
        session.end();
    }
}

fn extended_sequence_numbers(stage: &Stage<'_>) {
    for (begins, esp) in ENDS.into_iter().zip(["aes256gcm16-esn", "aes256-sha256-esn"]) {
        let session = stage.meet(&Tunnel { esp: esp.to_owned(), ..Tunnel::begun_by(begins) });
        assert_eq!(
            session.kernel().matches("flag af-unspec esn").count(),
            2,
            "{}",
            session.kernel()
        );
        session.end();
    }
}

fn ipv6_outside_and_inside(stage: &Stage<'_>) {
    // Outside, inside.
    let forms = [(true, true), (true, true), (false, true), (true, false)];
    for (number, (v6, inside)) in forms.into_iter().enumerate() {
        let begins = ENDS[number % ENDS.len()];
        stage.meet(&Tunnel { v6, nets: vec![(1, inside)], ..Tunnel::begun_by(begins) }).end();
    }
}

/// Who rekeys what: `true` is the IKE SA.
type Rekey = (End, bool);

/// Rekeys, each waited for and seen to carry.
fn rekey_each_in_turn(session: &Session<'_>, rekeys: &[Rekey]) {
    let (a, stage) = (&session.ipsecd, session.stage);
    let spi =
        |ike: bool| if ike { a.ike()["spi_i"].clone() } else { a.child()["spi_inbound"].clone() };
    for &(by, ike) in rekeys {
        let old = spi(ike);
        match by {
            End::Ipsecd => a.rekey(ike),
            End::Peer => stage.far.rekey(&stage.guest, ike),
        }
        let fresh = wait::within(PATIENCE, || (spi(ike) != old).then_some(()));
        let what = if ike { "IKE_SA" } else { "CHILD_SA" };
        assert!(fresh.is_some(), "no new {what} by {by:?}");
        session.carry();
    }
}

/// Rekeys of both kinds by both, while pings pass.
fn rekey_by_either(stage: &Stage<'_>, tunnel: &Tunnel) {
    let session = stage.meet(tunnel);
    let (us, peer) = (End::Ipsecd, End::Peer);
    let rekeys = [(us, false), (peer, false), (us, true), (peer, true), (peer, false), (us, false)];
    let told = |&(by, ike): &Rekey| by == us || !ike || stage.far.rekeys_ike_when_told();
    let rekeys: Vec<_> = rekeys.into_iter().filter(told).collect();
    session.under_traffic(|| rekey_each_in_turn(&session, &rekeys));
    wait::until("the old SAs to be gone", PATIENCE, || {
        (session.kernel().matches("proto esp").count() == 2).then_some(())
    });
    session.end();
}

fn rekeys_begun_by_either_side_lose_nothing(stage: &Stage<'_>) {
    rekey_by_either(stage, &Tunnel::default());
}

fn rekeys_with_pfs(stage: &Stage<'_>) {
    // The group of the IKE SA: libreswan asks for no other.
    let tunnel = Tunnel {
        ike: "aes256gcm16-prfsha384-ecp256".to_owned(),
        esp: "aes256gcm16-ecp256".to_owned(),
        ..Tunnel::begun_by(End::Peer)
    };
    let session = stage.meet(&tunnel);
    let mut rekeys = vec![(End::Ipsecd, false), (End::Peer, false), (End::Ipsecd, true)];
    rekeys.extend(stage.far.rekeys_ike_when_told().then_some((End::Peer, true)));
    rekey_each_in_turn(&session, &rekeys);
    session.end();
}

fn a_delete_by_either_side_is_followed(stage: &Stage<'_>) {
    for begins in ENDS {
        // By us it is in every case's end.
        let session = stage.meet(&Tunnel::begun_by(begins));
        let old = session.spis();
        stage.far.delete(&stage.guest, true);
        // Who began begins again, perhaps before anybody looks.
        session.gone(&old);
        stage.clear();
    }
}

fn a_child_sa_deleted_by_the_peer_goes(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel::begun_by(End::Peer));
    stage.far.delete(&stage.guest, false);
    wait::until("the CHILD_SA to be gone", PATIENCE, || {
        let sa = session.ipsecd.status()["peers"][0]["ike_sas"].clone();
        sa.as_array()?
            .iter()
            .all(|sa| sa["child_sas"].as_array().is_some_and(Vec::is_empty))
            .then_some(())
    });
    assert_eq!(session.kernel().trim(), "");
    session.end();
}

const QUICK: &str = "dpd = \"1s\"\nretransmit-timeout = \"200ms\"\nretransmit-tries = 3";

fn a_dead_peer_is_met_again(stage: &Stage<'_>) {
    let tunnel = Tunnel { ike_lines: QUICK.to_owned(), ..Tunnel::default() };
    let session = stage.meet(&tunnel);
    stage.clear();
    wait::until("the liveness check to fail", PATIENCE, || {
        (session.ipsecd.state() != "up").then_some(())
    });
    stage.far.start(&stage.guest, &session.tunnel);
    session.ipsecd.up_within(PATIENCE);
    session.carry();
    session.end();
}

fn our_death_is_noticed_and_met_again(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel { their_dpd: true, ..Tunnel::begun_by(End::Peer) });
    let spis = session.kernel();
    let tunnel = session.tunnel.clone();
    session.ipsecd.kill();
    let dir = stage.ground.dir("gw");
    let ipsecd = crate::lab::Ipsecd::start_for_file_in(&stage.ground.gw, &dir, tunnel.write(&dir));
    ipsecd.must_up();
    // It asks, hears nothing of the old SA, and begins anew.
    ipsecd.up_within(PATIENCE);
    let session = Session { stage, tunnel, ipsecd };
    assert_ne!(session.kernel(), spis);
    session.carry();
    session.end();
}

fn narrowing_by_either_side(stage: &Stage<'_>) {
    let wide = ["10.1.0.0/16".to_owned(), "10.2.0.0/16".to_owned()];
    let narrow = [End::Ipsecd, End::Peer].map(|end| end.subnet(1, false));
    let turned = |[ours, theirs]: [String; 2]| [theirs, ours];
    for begins in ENDS {
        let session = stage.meet(&match begins {
            // Who answers is the narrower.
            End::Ipsecd => Tunnel {
                our_subnets: Some(wide.clone()),
                their_subnets: Some(turned(narrow.clone())),
                ..Tunnel::begun_by(begins)
            },
            End::Peer => Tunnel {
                our_subnets: Some(narrow.clone()),
                their_subnets: Some(turned(wide.clone())),
                ..Tunnel::begun_by(begins)
            },
        });
        let child = session.ipsecd.child();
        assert_eq!(child["ts_peer"][0], *narrow[1], "{child:#}");
        session.end();
    }
}

fn invalid_ke_is_answered_by_either_side(stage: &Stage<'_>) {
    let (wide, narrow) = ("aes256gcm16-prfsha384-x25519-ecp256", "aes256gcm16-prfsha384-ecp256");
    for begins in ENDS {
        let (ours, theirs) = if begins == End::Ipsecd { (wide, narrow) } else { (narrow, wide) };
        let tunnel = Tunnel {
            ike: theirs.to_owned(),
            our_ike: Some(ours.to_owned()),
            ..Tunnel::begun_by(begins)
        };
        let session = stage.meet(&tunnel);
        let log = stage.far.log(&stage.guest);
        assert!(
            log.contains("INVALID_KE") || log.contains("INVAL_KE"),
            "no INVALID_KE_PAYLOAD was heard of\n{log}"
        );
        session.end();
    }
}

fn a_cookie_is_returned(stage: &Stage<'_>) {
    let session = stage.prepare(&Tunnel { busy: true, ..Tunnel::default() });
    if stage.far.wants_half_open_for_a_cookie() {
        stage.ground.refuse_ike_auth();
        let output = session.ipsecd.up(1);
        assert!(!output.status.success(), "without IKE_AUTH");
        stage.ground.watch(&[]);
    }
    session.begin();
    session.carry();
    let seen = stage.ground.seen();
    assert!(seen.cookies[0] > 0, "no COOKIE came back: {seen:?}");
    session.end();
}

fn our_cookie_is_returned(stage: &Stage<'_>) {
    // What the strangers propose.
    let ike = "aes256gcm16-prfsha256-x25519".to_owned();
    let tunnel = Tunnel { anywhere: true, ike, ..Tunnel::begun_by(End::Peer) };
    let session = stage.prepare(&tunnel);
    session.ipsecd.must_up();
    stage.ground.beset_ipsecd();
    session.begin();
    session.carry();
    let seen = stage.ground.seen();
    assert!(seen.cookies[1] > 0, "no COOKIE came back: {seen:?}");
    session.end();
}

fn nat_in_front_of_either_side(stage: &Stage<'_>) {
    for nat in ENDS {
        for begins in ENDS {
            println!("NAT in front of {nat:?}, {begins:?} begins");
            stage.meet(&Tunnel { nat: nat.alone(), ..Tunnel::begun_by(begins) }).end();
        }
    }
}

fn nat_in_front_of_both_sides(stage: &Stage<'_>) {
    for begins in ENDS {
        let session = stage.meet(&Tunnel { nat: &ENDS, ..Tunnel::begun_by(begins) });
        rekey_each_in_turn(&session, &[(End::Ipsecd, false), (End::Peer, false)]);
        session.end();
    }
}

fn several_child_sas(stage: &Stage<'_>) {
    for begins in ENDS {
        let nets = vec![(1, false), (2, false), (3, false)];
        let session = stage.meet(&Tunnel { nets, apart: true, ..Tunnel::begun_by(begins) });
        let status = session.ipsecd.status();
        let ike_sas = status["peers"][0]["ike_sas"].as_array().expect("a list");
        let children = ike_sas.iter().map(|sa| sa["child_sas"].as_array().map_or(0, Vec::len));
        assert_eq!(children.collect::<Vec<_>>(), [3], "{status:#}");
        session.end();
    }
}

fn fragments_both_ways(stage: &Stage<'_>) {
    for begins in ENDS {
        let [ours, theirs] = ["a-rsa2048", "b-rsa2048"].map(Proof::Certificate);
        let ike_lines = "fragment-size = 576".to_owned();
        let tunnel =
            Tunnel { ours, theirs, ca: "ca-rsa2048", ike_lines, ..Tunnel::begun_by(begins) };
        let session = stage.meet(&tunnel);
        let seen = stage.ground.seen();
        assert!(seen.fragments.iter().all(|&fragments| fragments > 1), "{seen:?}");
        session.end();
    }
}

fn ah_in_tunnel_mode(stage: &Stage<'_>) {
    for (begins, v6) in ENDS.into_iter().zip([false, true]) {
        let esp = "sha256".to_owned();
        let tunnel = Tunnel { ah: true, v6, esp, ..Tunnel::begun_by(begins) };
        let session = stage.meet(&tunnel);
        assert_eq!(session.kernel().matches("proto ah").count(), 2, "{}", session.kernel());
        session.end();
    }
}

/// Transport mode in IPv4 and IPv6, each begun by another, and rekeyed by either.
fn transport(stage: &Stage<'_>, ah: bool) {
    for (begins, v6) in ENDS.into_iter().zip([false, true]) {
        let esp = if ah { "sha384" } else { "aes256gcm16" }.to_owned();
        let session =
            stage.meet(&Tunnel { ah, transport: true, v6, esp, ..Tunnel::begun_by(begins) });
        assert_eq!(session.kernel().matches("mode transport").count(), 2, "{}", session.kernel());
        rekey_each_in_turn(&session, &[(End::Ipsecd, false), (End::Peer, false)]);
        session.end();
    }
}

fn transport_mode(stage: &Stage<'_>) {
    transport(stage, false);
}

fn ah_in_transport_mode(stage: &Stage<'_>) {
    transport(stage, true);
}

fn transport_mode_through_a_nat(stage: &Stage<'_>) {
    for nat in ENDS {
        // Who is behind the NAT begins, as ever.
        let session =
            stage.meet(&Tunnel { nat: nat.alone(), transport: true, ..Tunnel::begun_by(nat) });
        assert_eq!(session.kernel().matches("mode transport").count(), 2, "{}", session.kernel());
        session.end();
    }
}
