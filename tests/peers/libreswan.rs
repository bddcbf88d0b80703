//! libreswan in the guest: pluto with the kernel's ESP and AH, its keys in an NSS database, and whack.

use crate::far::Far;
use crate::ground::End;
use crate::lab::ipsecd::PSK;
use crate::lab::uml::{Guest, Host};
use crate::tunnel::{Proof, Tunnel, pki_text};

pub(crate) struct Libreswan;

/// Where all that is its own lies.
const DIR: &str = "/run/pluto";

/// Its programs: they call one another where Debian has them, which is where nothing is outside the guest.
const PROGRAMS: &str = "/usr/libexec/ipsec";
const UNPACKED: &str = "/usr/local/lib/ipsecd-lab/libreswan/usr/libexec";

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
        let mut files =
            vec![(own("ipsec.conf"), ipsec_conf(tunnel)), (own("ipsec.secrets"), secret)];
        let mut keys = format!("certutil -N -d sql:{DIR}/nss --empty-password\n");
        if tunnel.has_certificates() {
            files.push((own("ca.pem"), pki_text(&format!("{}.pem", tunnel.ca))));
            keys += &format!("certutil -A -d sql:{DIR}/nss -n ca -t CT,, -i {DIR}/ca.pem\n");
        }
        if let Proof::Certificate(name) = tunnel.theirs {
            files.push((own("mine.pem"), pki_text(&format!("{name}.pem"))));
            files.push((own("mine.key"), pki_text(&format!("{name}.key"))));
            keys += &format!(
                "openssl pkcs12 -export -in {DIR}/mine.pem -inkey {DIR}/mine.key -name mine -passout pass:x -out {DIR}/mine.p12\n\
                 pk12util -i {DIR}/mine.p12 -d sql:{DIR}/nss -W x\n"
            );
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
        let what = if ike { "--rekey-ike --name net" } else { "--rekey-ipsec --name net" };
        whack(guest, what).expect("whack rekeys");
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
    let ca = if let Proof::Certificate(_) = tunnel.ours { "\trightca=%same\n" } else { "" };
    let busy = if tunnel.busy { "busy" } else { "auto" };
    let dpd = if tunnel.their_dpd {
        "\tdpddelay=1\n\tdpdtimeout=3\n\tdpdaction=restart\n\tretransmit-interval=300ms\n\tretransmit-timeout=2s\n"
    } else {
        ""
    };
    let narrowing = if tunnel.their_subnets.is_some() { "\tnarrowing=yes\n" } else { "" };
    let esn = if tunnel.esp.contains("-esn") { "\tesn=yes\n" } else { "" };
    let mut text = format!(
        "config setup\n\
         \tlogfile={DIR}/pluto.log\n\
         \tplutodebug=none\n\
         \tdnssec-enable=no\n\
         \tlisten-tcp=no\n\
         \tddos-mode={busy}\n"
    );
    for (name, [left, right]) in tunnel.peers_children() {
        let selectors = if tunnel.transport {
            "type=transport".to_owned()
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
             {certificates}\
             \tright={}\n\
             \trightid=@{}\n\
             {ca}\
             \tike={}\n\
             \t{}={}\n\
             \tpfs={}\n\
             {esn}{dpd}{narrowing}\
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

fn auth(proof: Proof) -> &'static str {
    match proof {
        Proof::Psk => "secret",
        Proof::Certificate(name) if name.contains("rsa") => "rsasig",
        Proof::Certificate(_) => "ecdsa",
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
