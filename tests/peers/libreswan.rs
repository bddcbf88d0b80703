//! libreswan in the guest: pluto with the kernel's ESP and AH, its keys in an NSS database, and whack.

use std::net::Ipv4Addr;

use crate::cases::{Case, its_export_is_a_tunnel};
use crate::far::Far;
use crate::ground::{ENDS, End};
use crate::lab::ipsecd::PSK;
use crate::lab::uml::{Guest, Host};
use crate::lab::wait;
use crate::session::{PATIENCE, Session, Stage};
use crate::tunnel::{GIVEN, Proof, Tunnel, pki_text};

pub(crate) struct Libreswan;

/// Puts into its file the number that its database has for its own key, and ipsecd's key in the form of RFC 3110 §2.
const RAW_KEYS: &str = r#"
ckaid=$(certutil -K -d sql:/run/pluto/nss | grep -o '[0-9a-f]\{40\}')
modulus=$(openssl x509 -in /run/pluto/ours.pem -noout -modulus)
key=$(python3 -c 'import base64, sys; print("0s" + base64.b64encode(bytes.fromhex("03010001" + sys.argv[1])).decode())' "${modulus#Modulus=}")
sed -i "s|CKAID|$ckaid|; s|RFC3110|$key|" /run/pluto/ipsec.conf
"#;

/// Where all that is its own lies.
const DIR: &str = "/run/pluto";

/// Its programs: they call one another where Debian has them, which is where nothing is outside the guest.
const PROGRAMS: &str = "/usr/libexec/ipsec";
pub(crate) const UNPACKED: &str = "/usr/local/lib/ipsecd-lab/libreswan/usr/libexec";

impl Far for Libreswan {
    fn name(&self) -> &'static str {
        "libreswan"
    }

    fn start(&self, guest: &Guest<'_>, tunnel: &Tunnel) {
        let own = |name: &str| format!("{DIR}/{name}");
        let lines = format!(
            "rm -rf {DIR}; mkdir -p {DIR}/nss {DIR}/d\n\
             [ -x {PROGRAMS}/pluto ] || mount --bind {UNPACKED} /usr/libexec\n"
        );
        let secret =
            format!("@{} @{} : PSK \"{PSK}\"\n", Tunnel::id(End::Peer), Tunnel::id(End::Ipsecd));
        let (conf, secret) = if tunnel.exported {
            let exported = tunnel.export("libreswan");
            // The line of its secrets stands in a comment, as the last.
            let line = exported.lines().last().and_then(|line| line.strip_prefix("# "));
            let line = line.filter(|line| line.contains(" : PSK ")).expect("a secret");
            // Its script, which would set routes, is not there.
            let conns = exported.replace("\tauto=", "\tleftupdown=%disabled\n\tauto=");
            (setup(tunnel) + &conns, format!("{line}\n"))
        } else {
            (ipsec_conf(tunnel), secret)
        };
        let mut files = vec![(own("ipsec.conf"), conf), (own("ipsec.secrets"), secret)];
        let mut keys = format!("certutil -N -d sql:{DIR}/nss --empty-password\n");
        if tunnel.has_certificates() {
            files.push((own("ca.pem"), pki_text(&format!("{}.pem", tunnel.ca))));
            keys += &format!("certutil -A -d sql:{DIR}/nss -n ca -t CT,, -i {DIR}/ca.pem\n");
        }
        if let Proof::Certificate(name) | Proof::Key(name) = tunnel.theirs {
            files.push((own("mine.pem"), pki_text(&format!("{name}.pem"))));
            files.push((own("mine.key"), pki_text(&format!("{name}.key"))));
            keys += &format!(
                "openssl pkcs12 -export -in {DIR}/mine.pem -inkey {DIR}/mine.key -name mine -passout pass:x -out {DIR}/mine.p12\n\
                 pk12util -i {DIR}/mine.p12 -d sql:{DIR}/nss -W x\n"
            );
        }
        if let Proof::Key(name) = tunnel.ours {
            files.push((own("ours.pem"), pki_text(&format!("{name}.pem"))));
            keys += RAW_KEYS;
        }
        guest.run(&lines);
        guest.put(&files);
        guest.run(&format!(
            "{keys}\
             {PROGRAMS}/pluto --config {DIR}/ipsec.conf --nssdir {DIR}/nss --rundir {DIR} \
             --secretsfile {DIR}/ipsec.secrets --ipsecdir {DIR}/d </dev/null >{DIR}/output.log 2>&1\n\
             mv {DIR}/pluto.pid {DIR}/pid\n"
        ));
        // It loads what is in the file by itself, and listens after that.
        guest.must_read(&own("pluto.log"), "added IKEv2 connection");
        guest.must_read(&own("pluto.log"), "adding UDP interface vec0");
    }

    fn begin(&self, guest: &Guest<'_>, children: &[String]) -> Result<(), String> {
        children.iter().try_for_each(|name| whack(guest, &format!("--initiate --name {name}")))
    }

    fn rekey(&self, guest: &Guest<'_>, ike: bool) {
        // The caller sees when it is done; whack may wait for more than that.
        let what = if ike { "--rekey-ike" } else { "--rekey-ipsec" };
        whack(guest, &format!("--asynchronous {what} --name net")).expect("whack rekeys");
    }

    fn delete(&self, guest: &Guest<'_>, ike: bool) {
        if ike {
            whack(guest, "--terminate --name net").expect("whack terminates");
            return;
        }
        let states =
            guest.run(&format!("{PROGRAMS}/whack --ctlsocket {DIR}/pluto.ctl --showstates"));
        let child = states.lines().find(|line| line.contains("CHILD_SA")).expect("a CHILD_SA");
        let number = child.split_once('#').and_then(|(_, rest)| rest.split_once(':'));
        let (number, _) = number.unwrap_or_else(|| panic!("no number in {child}"));
        whack(guest, &format!("--deletestate {number}")).expect("whack deletes");
    }

    fn kill(&self, guest: &Guest<'_>) {
        guest.kill(&format!("{DIR}/pid"));
    }

    fn wants_half_open_for_a_cookie(&self) -> bool {
        false
    }

    fn may_send_early(&self) -> bool {
        true
    }

    fn lacks(&self) -> &'static [(&'static str, &'static str)] {
        // RFC 7296 §2.23.1 would have it put the addresses of the path in.
        &[(
            "transport_mode_through_a_nat",
            "it answers TS_UNACCEPTABLE to the address behind the NAT",
        )]
    }

    fn more(&self) -> &'static [(&'static str, Case)] {
        &[
            ("its_export_is_a_tunnel", its_export_is_a_tunnel),
            ("raw_public_keys_in_both_roles", raw_public_keys_in_both_roles),
            ("it_follows_when_our_address_changes", it_follows_when_our_address_changes),
            ("it_gives_us_an_address", it_gives_us_an_address),
            ("it_gets_an_address_of_our_pool", it_gets_an_address_of_our_pool),
        ]
    }

    fn log(&self, guest: &Guest<'_>) -> String {
        guest.run(&format!("cat 2>&1 {DIR}/pluto.log || true"))
    }
}

/// Runs whack; what it said unless it succeeded.
fn whack(guest: &Guest<'_>, args: &str) -> Result<(), String> {
    let line = format!("timeout 30 {PROGRAMS}/whack --ctlsocket {DIR}/pluto.ctl {args}");
    let answer = guest.ask(&serde_json::json!({ "run": line }));
    if answer["status"] == 0 {
        return Ok(());
    }
    Err(answer["output"].as_str().unwrap_or_default().to_owned())
}

fn ipsec_conf(tunnel: &Tunnel) -> String {
    let by = match (tunnel.theirs, tunnel.ours) {
        (Proof::Psk, Proof::Psk) => "authby=secret".to_owned(),
        (theirs, ours) => format!("leftauth={}\n\trightauth={}", auth(theirs), auth(ours)),
    };
    let certificates = if let Proof::Certificate(_) = tunnel.theirs {
        "\tleftcert=mine\n\tleftsendcert=always\n"
    } else {
        ""
    };
    let raw_keys = if let Proof::Key(_) = tunnel.ours {
        "\tleftckaid=CKAID\n\tleftsendcert=never\n\trightrsasigkey=RFC3110\n"
    } else {
        ""
    };
    let ca = if let Proof::Certificate(_) = tunnel.ours { "\trightca=%same\n" } else { "" };
    let dpd = if tunnel.their_dpd {
        "\tdpddelay=1\n\tdpdtimeout=3\n\tdpdaction=restart\n\tretransmit-interval=300ms\n\tretransmit-timeout=2s\n"
    } else {
        ""
    };
    let mobike = if tunnel.mobile { "\tmobike=yes\n" } else { "" };
    let narrowing = if tunnel.their_subnets.is_some() { "\tnarrowing=yes\n" } else { "" };
    let esn = if tunnel.esp.contains("-esn") { "\tesn=yes\n" } else { "" };
    let mut text = setup(tunnel);
    for (name, [left, right]) in tunnel.peers_children() {
        let selectors = if tunnel.transport {
            "type=transport".to_owned()
        } else if tunnel.guest == Some(End::Ipsecd) {
            format!(
                "type=tunnel\n\tleftsubnet={left}\n\trightaddresspool={GIVEN}-{GIVEN}\n\
                 \tleftmodecfgserver=yes\n\trightmodecfgclient=yes\n\tmodecfgpull=yes"
            )
        } else if tunnel.guest == Some(End::Peer) {
            format!(
                "type=tunnel\n\tleftsubnet=0.0.0.0/0\n\trightsubnet={right}\n\
                 \tleftmodecfgclient=yes\n\tmodecfgpull=yes\n\tnarrowing=yes"
            )
        } else {
            format!("type=tunnel\n\tleftsubnet={left}\n\trightsubnet={right}")
        };
        text += &format!(
            "conn {name}\n\
             \tikev2=yes\n\
             \t{selectors}\n\
             \t{by}\n\
             \tleft={}\n\
             \tleftid=@{}\n\
             {certificates}{raw_keys}\
             \tright={}\n\
             \trightid=@{}\n\
             {ca}\
             \tike={}\n\
             \t{}={}\n\
             \tpfs={}\n\
             {esn}{dpd}{narrowing}{mobike}\
             \tleftupdown=%disabled\n\
             \tauto=add\n",
            End::Peer.outside(tunnel.v6),
            Tunnel::id(End::Peer),
            tunnel.remote(End::Peer).unwrap_or_else(|| "%any".to_owned()),
            Tunnel::id(End::Ipsecd),
            words(&tunnel.ike),
            if tunnel.ah { "phase2=ah\n\tah" } else { "esp" },
            words(&tunnel.esp).split(';').next().unwrap_or_default(),
            // It asks for the group of the IKE SA then.
            if words(&tunnel.esp).contains("dh") { "yes" } else { "no" },
        );
    }
    text
}

/// What is of the daemon.
fn setup(tunnel: &Tunnel) -> String {
    let busy = if tunnel.busy { "busy" } else { "auto" };
    format!(
        "config setup\n\
         \tlogfile={DIR}/pluto.log\n\
         \tplutodebug=none\n\
         \tdnssec-enable=no\n\
         \tlisten-tcp=no\n\
         \tddos-mode={busy}\n"
    )
}

fn auth(proof: Proof) -> &'static str {
    match proof {
        Proof::Psk => "secret",
        Proof::Password => panic!("it has EAP-TLS alone"),
        Proof::Certificate(name) | Proof::Key(name) if name.contains("rsa") => "rsasig",
        Proof::Certificate(_) | Proof::Key(_) => "ecdsa",
    }
}

/// A proposal in libreswan's words.
fn words(proposal: &str) -> String {
    fn word(word: &str) -> Option<&str> {
        Some(match word {
            "aes256gcm16" => "aes_gcm256",
            "aes128gcm16" => "aes_gcm128",
            "chacha20poly1305" => "chacha20_poly1305",
            "sha256" | "prfsha256" => "sha2_256",
            "sha384" | "prfsha384" => "sha2_384",
            "sha512" | "prfsha512" => "sha2_512",
            "x25519" => "dh31",
            "ecp256" => "dh19",
            "ecp384" => "dh20",
            "modp2048" => "dh14",
            "modp3072" => "dh15",
            "modp4096" => "dh16",
            "esn" | "noesn" => return None,
            other => other,
        })
    }
    let list: Vec<_> = proposal.split('-').filter_map(word).collect();
    // Of groups there may be several.
    let (groups, others): (Vec<_>, Vec<_>) =
        list.into_iter().partition(|word| word.starts_with("dh"));
    let semicolon = if groups.is_empty() { "" } else { ";" };
    format!("{}{semicolon}{}", others.join("-"), groups.join("+"))
}

/// RSA: of other keys it takes none that is not in a certificate.
fn raw_public_keys_in_both_roles(stage: &Stage<'_>) {
    for begins in ENDS {
        let [ours, theirs] = ["a-rsa2048", "b-rsa2048"].map(Proof::Key);
        stage.meet(&Tunnel { ours, theirs, ..Tunnel::begun_by(begins) }).end();
    }
}

/// There and back; it takes MOBIKE from a peer that may be anywhere alone (`right=%any`).
fn it_follows_when_our_address_changes(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel { mobile: true, ..Tunnel::default() });
    let spis = session.spis();
    let elsewhere = Ipv4Addr::new(10, 77, 1, 3);
    let moved_to = |address: &str| {
        let there = format!("dst {address}\n");
        wait::until("its kernel's SA to be moved", PATIENCE, || {
            session.kernel().contains(&there).then_some(())
        });
        session.carry();
    };
    let moved = stage.ground.move_ipsecd(elsewhere);
    moved_to(&elsewhere.to_string());
    drop(moved);
    moved_to(&End::Ipsecd.outside(false).to_string());
    assert_eq!(session.spis(), spis, "the same SAs go on");
    session.end();
}

fn it_gives_us_an_address(stage: &Stage<'_>) {
    let session = stage.meet(&Tunnel { guest: Some(End::Ipsecd), ..Tunnel::default() });
    rekeyed_child_carries(&session);
    session.end();
}

fn it_gets_an_address_of_our_pool(stage: &Stage<'_>) {
    // Its script would set it, and is not there.
    stage.guest.run(&format!("ip addr replace {GIVEN}/32 dev lo"));
    let tunnel = Tunnel { guest: Some(End::Peer), anywhere: true, ..Tunnel::begun_by(End::Peer) };
    let session = stage.meet(&tunnel);
    rekeyed_child_carries(&session);
    session.end();
    stage.guest.run(&format!("ip addr del {GIVEN}/32 dev lo"));
}

#[track_caller]
fn rekeyed_child_carries(session: &Session<'_>) {
    session.ipsecd.rekey(false);
    session.carry();
}
