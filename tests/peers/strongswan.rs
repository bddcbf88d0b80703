//! strongSwan in the guest: charon with the kernel's ESP and AH, and swanctl.

use crate::far::Far;
use crate::ground::End;
use crate::lab::ipsecd::PSK;
use crate::lab::uml::{Guest, Host};
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

    fn may_send_early(&self) -> bool {
        false
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
        Proof::Certificate(_) if end == End::Peer => "auth = pubkey\ncerts = mine.pem",
        Proof::Certificate(_) => "auth = pubkey",
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
           local {{ {}
             id = {} }}
           remote {{ {}
             id = {} }}
           children {{ {children} }}
         }} }}
         secrets {{ ike-lab {{ secret = \"{PSK}\" }} }}\n",
        End::Peer.outside(tunnel.v6),
        tunnel.remote(End::Peer).unwrap_or_else(|| "%any".to_owned()),
        tunnel.ike,
        if tunnel.their_dpd { "dpd_delay = 1s" } else { "" },
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
         }}\n"
    )
}
