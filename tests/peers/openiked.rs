//! OpenIKED in the guest: iked with the kernel's ESP and AH by way of PF_KEY, and ikectl.

use std::time::Duration;

use serde_json::json;

use crate::cases::{Case, its_export_is_a_tunnel};
use crate::far::Far;
use crate::ground::End;
use crate::lab::ipsecd::PSK;
use crate::lab::uml::{Guest, Host};
use crate::lab::wait;
use crate::session::{PATIENCE, Stage};
use crate::tunnel::{GIVEN, Proof, Tunnel, USER, pki_text};

pub(crate) struct OpenIked;

/// Where all that is its own lies.
const DIR: &str = "/run/openiked";

/// Its programs.
const PROGRAMS: &str = "/usr/local/lib/ipsecd-lab/openiked/usr/sbin";

/// What it wants in places of its own: its certificates under /etc, a user without rights, and a directory for that to be locked
/// into. The guest gets an /etc with this and what programs look for there.
const ETC: &str = r#"[ -d /etc/iked ] || {
  mkdir -p /run/etc /run/openiked-empty
  for name in passwd group nsswitch.conf hosts protocols services ssl ld.so.cache alternatives localtime; do
    [ ! -e /etc/$name ] || cp -a /etc/$name /run/etc/
  done
  echo '_iked:x:499:499::/run/openiked-empty:/usr/sbin/nologin' >>/run/etc/passwd
  echo '_iked:x:499:' >>/run/etc/group
  mkdir -p /run/etc/iked
  mount --bind /run/etc /etc
  # PF_KEY looks for every algorithm that it has a number for, each time that it is asked for what there is: half a minute of modules.
  cat >/run/modprobe.new <<'END'
#!/bin/sh
case $* in
  *blowfish*|*cast*|*camellia*|*serpent*|*twofish*|*des*|*md5*|*rmd*|*xcbc*|*cmac*|*rfc*|*gcm*|*ccm*|*chacha*|*deflate*|*lz*|*sm[34]*) exit 1 ;;
esac
exec modprobe -d /run/modules -C /run/modules/conf "$@"
END
  chmod 755 /run/modprobe.new
  mv /run/modprobe.new /run/modprobe
}
rm -rf /etc/iked
for name in ca certs crls private pubkeys; do mkdir -p /etc/iked/$name; done
"#;

impl Far for OpenIked {
    fn name(&self) -> &'static str {
        "OpenIKED"
    }

    fn within_reach(&self, tunnel: &Tunnel) -> Tunnel {
        let mut tunnel = tunnel.clone();
        // PF_KEY of Linux has no algorithm that encrypts and authenticates in one, SHA-256 cut to 96 bits alone, and pads AH
        // over IPv4 to eight bytes: IPv6 has that anyway.
        if tunnel.ah {
            (tunnel.v6, tunnel.esp) = (true, "sha384".to_owned());
        }
        tunnel.esp = tunnel.esp.replace("aes256gcm16", "aes256-sha512");
        // Nor has it one IP version in the other.
        tunnel.nets.iter_mut().for_each(|(_, v6)| *v6 = tunnel.v6);
        tunnel
    }

    fn start(&self, guest: &Guest<'_>, tunnel: &Tunnel) {
        let own = |name: &str| format!("{DIR}/{name}");
        guest.run(&format!("rm -rf {DIR}; mkdir -p {DIR}\n{ETC}"));
        // Without a key it does not start.
        let name = if let Proof::Certificate(name) = tunnel.theirs { name } else { "b-p256" };
        let mut files = vec![
            (
                own("iked.conf"),
                if tunnel.exported { tunnel.export("openiked") } else { iked_conf(tunnel) },
            ),
            ("/etc/iked/certs/mine.crt".to_owned(), pki_text(&format!("{name}.pem"))),
            ("/etc/iked/private/local.key".to_owned(), pki_text(&format!("{name}.key"))),
        ];
        if tunnel.has_certificates() {
            let ca = pki_text(&format!("{}.pem", tunnel.ca));
            files.push(("/etc/iked/ca/ca.crt".to_owned(), ca));
        }
        guest.put(&files);
        // One of its processes reads what is here after it has given up its rights.
        guest.run("chmod 755 /etc/iked/*; chmod 644 /etc/iked/*/*.crt 2>/dev/null || true");
        guest.run(&format!(
            "setsid {PROGRAMS}/iked -d -vv -f {DIR}/iked.conf -s {DIR}/iked.sock \
             </dev/null >{DIR}/iked.log 2>&1 & echo $! >{DIR}/pid"
        ));
        let listens = wait::within(PATIENCE, || {
            let sockets = guest.run("ss -Hlun 'sport = :500'; ss -Hlun 'sport = :4500'");
            // Of either family.
            (sockets.lines().count() >= 4).then_some(())
        });
        assert!(listens.is_some(), "iked does not listen:\n{}", self.log(guest));
        // The last that it is told; what it had begun before, it forgets at this.
        guest.must_read(&own("iked.log"), "config_getstatic: no stickyaddress");
    }

    fn begin(&self, guest: &Guest<'_>, _children: &[String]) -> Result<(), String> {
        // It begins all that is `active` in its file.
        let line = format!("{PROGRAMS}/ikectl -s {DIR}/iked.sock active");
        let answer = guest.ask(&json!({ "run": line }));
        if answer["status"] == 0 {
            return Ok(());
        }
        Err(answer["output"].as_str().unwrap_or_default().to_owned())
    }

    fn rekey(&self, guest: &Guest<'_>, ike: bool) {
        assert!(!ike, "by its lifetime alone");
        // It has no command for this: the kernel tells it that the SA has come to its soft lifetime.
        let here = [false, true].map(|v6| End::Peer.outside(v6).to_string());
        let (target, protocol, spi) = wait::until("one pair of SAs", PATIENCE, || {
            let states = guest.run("ip xfrm state");
            let mut heads = states.split("\nsrc ").map(parse_state);
            let inbound = heads.find(|(target, ..)| here.contains(target))?;
            (states.matches("spi 0x").count() == 2).then_some(inbound)
        });
        let answer = guest.ask(&json!({ "expire": [target, protocol, spi] }));
        assert_eq!(answer["error"], 0, "{answer}");
    }

    fn rekeys_ike_when_told(&self) -> bool {
        false
    }

    fn delete(&self, guest: &Guest<'_>, ike: bool) {
        assert!(ike, "it has no command for a CHILD_SA");
        let id = Tunnel::id(End::Ipsecd);
        guest.run(&format!("{PROGRAMS}/ikectl -s {DIR}/iked.sock reset id FQDN/{id}"));
    }

    fn kill(&self, guest: &Guest<'_>) {
        // All of its processes at once: those that are left would take their leave of the peer.
        guest.run(&format!(
            "[ -e {DIR}/pid ] || exit 0\n\
             pid=$(cat {DIR}/pid)\n\
             kill -9 $pid $(pgrep -P $pid) || true\n\
             rm {DIR}/pid"
        ));
        wait::until("iked's ports to be free", PATIENCE, || {
            let sockets = guest.run("ss -Hlun 'sport = :500'; ss -Hlun 'sport = :4500'");
            sockets.trim().is_empty().then_some(())
        });
    }

    fn wants_half_open_for_a_cookie(&self) -> bool {
        false
    }

    fn may_send_early(&self) -> bool {
        true
    }

    fn lacks(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("every_suite_in_raw_esp", "Linux's PF_KEY has hardly one of them"),
            ("extended_sequence_numbers", "Linux's PF_KEY has none"),
            ("a_child_sa_deleted_by_the_peer_goes", "it has no command for it"),
            ("our_death_is_noticed_and_met_again", "it begins anew only after minutes"),
            ("ah_in_tunnel_mode", "it offers encryption with AH, so that it cannot begin"),
            ("ah_in_transport_mode", "it offers encryption with AH, so that it cannot begin"),
            (
                "rekeys_begun_by_either_side_lose_nothing",
                "for a moment its kernel has no SA in either direction, and loses a packet or two",
            ),
            ("a_cookie_is_returned", "it never asks for one"),
            ("several_child_sas", "it answers with all of its networks where one is asked for"),
        ]
    }

    fn more(&self) -> &'static [(&'static str, Case)] {
        &[
            ("its_export_is_a_tunnel", its_export_is_a_tunnel),
            ("an_ike_sa_is_rekeyed_by_its_lifetime", an_ike_sa_is_rekeyed_by_its_lifetime),
            ("ah_in_tunnel_mode_that_ipsecd_begins", ah_in_tunnel_mode_that_ipsecd_begins),
            ("ah_in_transport_mode_that_ipsecd_begins", ah_in_transport_mode_that_ipsecd_begins),
            ("mschapv2_with_it_as_server", mschapv2_with_it_as_server),
            ("it_gives_us_an_address", it_gives_us_an_address),
            ("it_gets_an_address_of_our_pool", it_gets_an_address_of_our_pool),
        ]
    }

    fn log(&self, guest: &Guest<'_>) -> String {
        guest.run(&format!("cat 2>&1 {DIR}/iked.log || true"))
    }
}

/// `src A dst B\n\tproto P spi S ...` behind its first word: target, protocol and SPI.
fn parse_state(text: &str) -> (String, String, String) {
    let word = |after: &str| {
        let mut words = text.split_whitespace().skip_while(|word| *word != after);
        words.nth(1).unwrap_or_else(|| panic!("no {after} in {text}")).to_owned()
    };
    (word("dst"), word("proto"), word("spi"))
}

fn iked_conf(tunnel: &Tunnel) -> String {
    let mut text = "set nomobike\nset fragmentation\nset dpd_check_interval 0\n".to_owned();
    // Until it is told to begin.
    text += if tunnel.begins == End::Peer { "set passive\n" } else { "" };
    let mode = if tunnel.begins == End::Peer { "active" } else { "passive" };
    let kind = if tunnel.transport { "transport" } else { "tunnel" };
    let protocol = if tunnel.ah { "ah" } else { "esp" };
    let proof = match (tunnel.ours, tunnel.theirs) {
        (Proof::Password, _) => "eap \"mschap-v2\"".to_owned(),
        (_, Proof::Certificate(_) | Proof::Key(_)) => "rfc7427".to_owned(),
        (_, Proof::Psk | Proof::Password) => format!("psk \"{PSK}\""),
    };
    if let Proof::Password = tunnel.ours {
        let [name, password] = USER;
        text += &format!("user \"{name}\" \"{password}\"\n");
    }
    // Its `dynamic` is 0.0.0.0 alone on the wire.
    let given = match tunnel.guest {
        Some(End::Ipsecd) => format!("config address {GIVEN}"),
        Some(End::Peer) => "request address any".to_owned(),
        None => String::new(),
    };
    let local = End::Peer.outside(tunnel.v6).to_string();
    let remote = tunnel.remote(End::Peer);
    let life = tunnel
        .their_ike_life
        .map_or_else(String::new, |life| format!("ikelifetime {}", life.as_secs()));
    // With EAP it wants none.
    let dstid = match tunnel.ours {
        Proof::Password => String::new(),
        Proof::Psk | Proof::Certificate(_) | Proof::Key(_) => {
            format!(" dstid {}", Tunnel::id(End::Ipsecd))
        }
    };
    let mut flows = Vec::new();
    if tunnel.transport {
        let [source, target] = tunnel.flows(End::Peer)[0];
        flows.push(format!("from {source} to {target}"));
    }
    for (_, [ours, theirs]) in tunnel.peers_children().iter().filter(|_| !tunnel.transport) {
        let pairs = ours.split(',').zip(theirs.split(','));
        flows.extend(pairs.map(|(ours, theirs)| match tunnel.guest {
            Some(End::Ipsecd) => format!("from {ours} to {GIVEN}"),
            Some(End::Peer) => format!("from 0.0.0.0/0 to {theirs}"),
            None => format!("from {ours} to {theirs}"),
        }));
    }
    text + &format!(
        "ikev2 \"net\" {mode} {kind} {protocol} {} local {local} peer {} \
         ikesa {} childsa {} noesn srcid {}{dstid} {life} lifetime 3h bytes 4G {proof} {given}\n",
        flows.join(" "),
        remote.as_deref().unwrap_or("any"),
        words(&tunnel.ike, true),
        words(&tunnel.esp, false),
        Tunnel::id(End::Peer),
    )
}

/// A proposal in its words.
fn words(proposal: &str, ike: bool) -> String {
    let word = |word: &str| match word {
        "aes256gcm16" => "enc aes-256-gcm".to_owned(),
        "aes256" => "enc aes-256".to_owned(),
        "sha384" => "auth hmac-sha2-384".to_owned(),
        "sha512" if ike => "auth hmac-sha2-512 prf hmac-sha2-512".to_owned(),
        "sha512" => "auth hmac-sha2-512".to_owned(),
        "prfsha256" => "prf hmac-sha2-256".to_owned(),
        "prfsha384" => "prf hmac-sha2-384".to_owned(),
        "x25519" => "group curve25519".to_owned(),
        group if group.starts_with("ecp") => format!("group {group}"),
        other => panic!("{other} has no name in iked.conf here"),
    };
    proposal.split('-').map(word).collect::<Vec<_>>().join(" ")
}

/// Twice.
fn an_ike_sa_is_rekeyed_by_its_lifetime(stage: &Stage<'_>) {
    let their_ike_life = Some(Duration::from_secs(5));
    let session = stage.meet(&Tunnel { their_ike_life, ..Tunnel::default() });
    for _ in 0..2 {
        let old = session.ipsecd.ike()["spi_i"].clone();
        wait::until("a rekey by iked", PATIENCE, || {
            (session.ipsecd.ike()["spi_i"] != old).then_some(())
        });
        session.carry();
    }
    session.end();
}

/// And that it rekeys: a rekey of iked's would offer encryption, too, and end in clear on its side (see docs/interop.md).
fn ah_that_ipsecd_begins(stage: &Stage<'_>, transport: bool) {
    let session = stage.meet(&Tunnel { ah: true, transport, ..Tunnel::default() });
    session.rekeyed("the new CHILD_SA", || session.ipsecd.rekey(false));
    session.carry();
    session.end();
}

fn ah_in_tunnel_mode_that_ipsecd_begins(stage: &Stage<'_>) {
    ah_that_ipsecd_begins(stage, false);
}

fn ah_in_transport_mode_that_ipsecd_begins(stage: &Stage<'_>) {
    ah_that_ipsecd_begins(stage, true);
}

fn mschapv2_with_it_as_server(stage: &Stage<'_>) {
    let [ours, theirs] = [Proof::Password, Proof::Certificate("b-p256")];
    stage.meet(&Tunnel { ours, theirs, ..Tunnel::default() }).end();
}

fn it_gives_us_an_address(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel { guest: Some(End::Ipsecd), ..Tunnel::default() });
    session.ipsecd.rekey(false);
    session.carry();
    session.end();
}

fn it_gets_an_address_of_our_pool(stage: &Stage<'_>) {
    // Without a device for it, it does not set the address itself.
    stage.guest.run(&format!("ip addr replace {GIVEN}/32 dev lo"));
    let tunnel = Tunnel { guest: Some(End::Peer), anywhere: true, ..Tunnel::begun_by(End::Peer) };
    let session = stage.meet(&tunnel);
    // A rekey of ours it answers with the selectors of its file, which are more than those of the CHILD_SA.
    session.rekeyed("a rekey by iked", || stage.far.rekey(&stage.guest, false));
    session.carry();
    session.end();
    stage.guest.run(&format!("ip addr del {GIVEN}/32 dev lo"));
}
