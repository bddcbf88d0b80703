//! strongSwan in the guest: charon with the kernel's ESP and AH, and swanctl.

use serde_json::Value;

use crate::cases::Case;
use crate::far::Far;
use crate::ground::End;
use crate::lab::ipsecd::PSK;
use crate::lab::uml::{Guest, Host};
use crate::lab::wait;
use crate::session::{PATIENCE, Session, Stage};
use crate::tunnel::{Proof, Tunnel, pki_text};

pub(crate) struct StrongSwan;

/// Where all that is its own lies.
const DIR: &str = "/run/charon";

/// swanctl, which talks to it.
const SWANCTL: &str = "swanctl() { what=$1; shift; \
     SWANCTL_DIR=/run/charon STRONGSWAN_CONF=/run/charon/strongswan.conf \
     /usr/sbin/swanctl $what \"$@\" --uri unix:///run/charon/vici; }\n";

impl Far for StrongSwan {
    fn name(&self) -> &'static str {
        "strongSwan"
    }

    fn start(&self, guest: &Guest<'_>, tunnel: &Tunnel) {
        let own = |name: &str| format!("{DIR}/{name}");
        guest.run(&format!("rm -rf {DIR} /run/charon.pid; mkdir -p {DIR}/x509 {DIR}/private"));
        let mut files = vec![
            (own("swanctl.conf"), swanctl_conf(tunnel)),
            (own("strongswan.conf"), strongswan_conf(tunnel)),
        ];
        if let Proof::Certificate(name) = tunnel.theirs {
            files.push((own("x509/mine.pem"), pki_text(&format!("{name}.pem"))));
            files.push((own("private/mine.key"), pki_text(&format!("{name}.key"))));
        }
        if tunnel.has_certificates() {
            files.push((own("x509ca/ca.pem"), pki_text(&format!("{}.pem", tunnel.ca))));
        }
        guest.put(&files);
        guest.run(&format!(
            "export STRONGSWAN_CONF={DIR}/strongswan.conf\n\
             setsid /usr/lib/ipsec/charon </dev/null >{DIR}/output.log 2>&1 & echo $! >{DIR}/pid"
        ));
        guest.must_read(&own("charon.log"), "worker threads");
        ask(guest, "--load-all --noprompt").expect("swanctl loads");
    }

    fn begin(&self, guest: &Guest<'_>, children: &[String]) -> Result<(), String> {
        children
            .iter()
            .try_for_each(|name| ask(guest, &format!("--initiate --child {name} --timeout 20")))
    }

    fn rekey(&self, guest: &Guest<'_>, ike: bool) {
        let what = if ike { "--rekey --ike lab" } else { "--rekey --child net" };
        ask(guest, what).expect("swanctl rekeys");
    }

    fn delete(&self, guest: &Guest<'_>, ike: bool) {
        let what = if ike { "--terminate --ike lab" } else { "--terminate --child net" };
        ask(guest, what).expect("swanctl terminates");
    }

    fn kill(&self, guest: &Guest<'_>) {
        guest.kill(&format!("{DIR}/pid"));
    }

    fn wants_half_open_for_a_cookie(&self) -> bool {
        true
    }

    fn may_send_early(&self) -> bool {
        false
    }

    fn more(&self) -> &'static [(&'static str, Case)] {
        &[
            ("our_reauthentication_loses_nothing", our_reauthentication_loses_nothing),
            ("their_reauthentication_loses_nothing", their_reauthentication_loses_nothing),
            ("reauthentication_that_breaks_first", reauthentication_that_breaks_first),
            ("our_lifetime_is_their_reauthentication", our_lifetime_is_their_reauthentication),
            ("childless_by_either_side", childless_by_either_side),
            ("who_comes_back_elsewhere_replaces_itself", who_comes_back_elsewhere_replaces_itself),
        ]
    }

    fn log(&self, guest: &Guest<'_>) -> String {
        guest.run(&format!("cat 2>&1 {DIR}/charon.log || true"))
    }
}

/// Runs swanctl; what it said unless it succeeded.
fn ask(guest: &Guest<'_>, args: &str) -> Result<(), String> {
    let answer = guest.ask(&serde_json::json!({ "run": format!("{SWANCTL}swanctl {args}") }));
    if answer["status"] == 0 {
        return Ok(());
    }
    Err(answer["output"].as_str().unwrap_or_default().to_owned())
}

fn swanctl_conf(tunnel: &Tunnel) -> String {
    let proof = |end: End| match tunnel.proof(end) {
        Proof::Psk => "auth = psk",
        Proof::Password => "auth = eap-mschapv2",
        Proof::Certificate(_) if end == End::Peer => "auth = pubkey\ncerts = mine.pem",
        Proof::Certificate(_) | Proof::Key(_) => "auth = pubkey",
    };
    let mut children = String::new();
    for (name, [local_ts, remote_ts]) in tunnel.peers_children() {
        let selectors = if tunnel.transport {
            "mode = transport".to_owned()
        } else {
            format!("local_ts = {local_ts}\nremote_ts = {remote_ts}")
        };
        children += &format!(
            "{name} {{\n{selectors}\n{}_proposals = {}\n{}\n}}\n",
            if tunnel.ah { "ah" } else { "esp" },
            tunnel.esp,
            if tunnel.their_dpd { "dpd_action = restart" } else { "" },
        );
    }
    format!(
        "connections {{ lab {{
           version = 2
           mobike = no
           local_addrs = {}
           remote_addrs = {}
           proposals = {}
           {}
           {}
           local {{ {}
             id = {} }}
           remote {{ {}
             id = {} }}
           children {{ {children} }}
         }} }}
         secrets {{ ike-lab {{ secret = \"{PSK}\" }} }}\n",
        tunnel.their_address(),
        tunnel.remote(End::Peer).unwrap_or_else(|| "%any".to_owned()),
        tunnel.ike,
        if tunnel.their_dpd { "dpd_delay = 1s" } else { "" },
        tunnel.their_lines,
        proof(End::Peer),
        Tunnel::id(End::Peer),
        proof(End::Ipsecd),
        Tunnel::id(End::Ipsecd),
    )
}

fn strongswan_conf(tunnel: &Tunnel) -> String {
    let busy = if tunnel.busy { "cookie_threshold = 1" } else { "" };
    let dpd = if tunnel.their_dpd { "retransmit_timeout = 0.3\nretransmit_tries = 3" } else { "" };
    format!(
        "charon {{
           load = random nonce openssl drbg kdf hmac sha1 sha2 aes gcm pem pkcs1 pkcs8 pubkey x509 \
                  constraints kernel-netlink socket-default vici updown
           install_routes = no
           {busy}
           {dpd}
           {}
           filelog {{ f {{
             path = {DIR}/charon.log
             flush_line = yes
             ike_name = yes
             time_format = %H:%M:%S
             default = 1
             ike = 2
             chd = 2
             knl = 2
           }} }}
           plugins {{ vici {{ socket = unix://{DIR}/vici }} }}
         }}\n",
        tunnel.their_daemon
    )
}

/// The initiator's SPIs of all IKE SAs.
fn ike_spis(session: &Session<'_>) -> Vec<Value> {
    let status = session.ipsecd.status();
    let sas = status["peers"][0]["ike_sas"].as_array().cloned().unwrap_or_default();
    sas.iter().map(|sa| sa["spi_i"].clone()).collect()
}

/// Waits until another IKE SA is there, and those that were there are gone.
#[track_caller]
fn reauthenticated(session: &Session<'_>) {
    let old = ike_spis(session);
    wait::until("another IKE SA in place of the old", 2 * PATIENCE, || {
        let now = ike_spis(session);
        (!now.is_empty() && !now.iter().any(|spi| old.contains(spi))).then_some(())
    });
}

/// But for what it sends with the CHILD_SA of its IKE_AUTH response before that is here (RFC 7296 §2.8 has it so).
fn our_reauthentication_loses_nothing(stage: &Stage<'_>) {
    let ike_lines = "reauth-time = \"8s\"".to_owned();
    let session = stage.meet(&Tunnel { ike_lines, ..Tunnel::default() });
    session.under_traffic_of(true, || reauthenticated(&session));
    session.end();
}

fn their_reauthentication_loses_nothing(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel {
        their_lines: "reauth_time = 8s\nrand_time = 0\nover_time = 20s",
        their_daemon: "make_before_break = yes",
        ..Tunnel::begun_by(End::Peer)
    });
    session.under_traffic(|| reauthenticated(&session));
    session.carry();
    session.end();
}

/// Its default: it deletes what there is, and begins anew.
fn reauthentication_that_breaks_first(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel {
        their_lines: "reauth_time = 8s\nrand_time = 0\nover_time = 20s",
        ..Tunnel::begun_by(End::Peer)
    });
    reauthenticated(&session);
    session.carry();
    session.end();
}

/// RFC 4478: it begins in time, since ipsecd has told it how long the IKE SA lives.
fn our_lifetime_is_their_reauthentication(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel {
        ike_lines: "reauth-time = \"20s\"".to_owned(),
        their_lines: "over_time = 12s",
        their_daemon: "make_before_break = yes",
        ..Tunnel::begun_by(End::Peer)
    });
    session.under_traffic(|| reauthenticated(&session));
    let log = stage.far.log(&stage.guest);
    assert!(log.contains("received AUTH_LIFETIME of 20s, scheduling reauthentication"), "{log}");
    session.end();
}

fn childless_by_either_side(stage: &Stage<'_>) {
    let ours = "childless = true".to_owned();
    for (begins, ike_lines, their_lines) in [
        (End::Ipsecd, ours.clone(), "childless = allow"),
        (End::Ipsecd, ours, "childless = force"),
        (End::Peer, String::new(), "childless = force"),
    ] {
        let tunnel = Tunnel { ike_lines, their_lines, ..Tunnel::begun_by(begins) };
        let session = stage.meet(&tunnel);
        let log = stage.far.log(&stage.guest);
        assert!(log.contains("CREATE_CHILD_SA request 2 [ SA No TSi TSr ]"), "{log}");
        session.end();
    }
}

/// A host that has lost its state and its address: INITIAL_CONTACT, or that there may be one IKE SA of it alone.
fn who_comes_back_elsewhere_replaces_itself(stage: &Stage<'_>) {
    for (unique, their_lines) in [("no", ""), ("replace", "unique = never")] {
        // The old one does not answer its DELETE.
        let ike_lines =
            format!("unique = {unique:?}\nretransmit-timeout = \"500ms\"\nretransmit-tries = 3");
        let tunnel =
            Tunnel { anywhere: true, ike_lines, their_lines, ..Tunnel::begun_by(End::Peer) };
        let session = stage.meet(&tunnel);
        let old = session.spis();
        stage.clear();
        stage.guest.run("ip addr replace 10.77.0.4/24 dev vec0");
        let mut tunnel = session.tunnel.clone();
        tunnel.their_address = Some("10.77.0.4".parse().expect("an address"));
        stage.far.start(&stage.guest, &tunnel);
        stage.far.begin(&stage.guest, &["net".to_owned()]).expect("it comes back");
        session.gone(&old);
        assert_eq!(ike_spis(&session).len(), 1, "{:#}", session.ipsecd.status());
        session.carry();
        session.end();
    }
}
