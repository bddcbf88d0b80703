//! What both ends are told: one description, which each writes in its own words.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::ground::End;
use crate::lab::ipsecd::{BINARY, PSK};
use crate::lab::process;

/// How an end proves itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    Psk,
    /// A certificate of `tests/pki` and its key.
    Certificate(&'static str),
    /// The key of a certificate of `tests/pki`, which the other end knows.
    Key(&'static str),
    /// A name and a password: EAP-MSCHAPv2. For ipsecd's end alone.
    Password,
}

/// The name and the password of [`Proof::Password`].
pub(crate) const USER: [&str; 2] = ["joe", "correct horse"];

/// The address that whoever has none is given.
pub(crate) const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 10);

#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    pub(crate) ours: Proof,
    pub(crate) theirs: Proof,
    /// The CA of both, where there are certificates.
    pub(crate) ca: &'static str,
    pub(crate) begins: End,
    pub(crate) v6: bool,
    /// In front of whom a NAT stands.
    pub(crate) nat: &'static [End],
    /// Whether it is AH; `esp` is its proposal then.
    pub(crate) ah: bool,
    /// Whether packets between the two hosts themselves are protected; `nets` means nothing then.
    pub(crate) transport: bool,
    /// Proposals, in the keywords that ipsecd and strongSwan have.
    pub(crate) ike: String,
    pub(crate) esp: String,
    /// What ipsecd is told instead.
    pub(crate) our_ike: Option<String>,
    pub(crate) our_esp: Option<String>,
    /// The networks: numbers and families, the same on both sides.
    pub(crate) nets: Vec<(u8, bool)>,
    /// Whether each of the networks has a CHILD_SA of its own.
    pub(crate) apart: bool,
    /// What ipsecd is told instead, its own and the peer's.
    pub(crate) our_subnets: Option<[String; 2]>,
    /// What the peer is told instead, its own and ours.
    pub(crate) their_subnets: Option<[String; 2]>,
    /// Whether the peer may be anywhere, for ipsecd.
    pub(crate) anywhere: bool,
    /// Further lines of `[ike]` and `[esp]`.
    pub(crate) ike_lines: String,
    pub(crate) esp_lines: String,
    /// Whether the peer asks a dead one, and begins again.
    pub(crate) their_dpd: bool,
    /// Whether the peer demands COOKIE.
    pub(crate) busy: bool,
    /// When the peer rekeys the IKE SA by itself.
    pub(crate) their_ike_life: Option<Duration>,
    /// Whether ipsecd may move to another address (MOBIKE), and the peer takes it from anywhere.
    pub(crate) mobile: bool,
    /// Who has an inner address of the other instead of its networks.
    pub(crate) guest: Option<End>,
    /// The address that the peer has instead of its own.
    pub(crate) their_address: Option<IpAddr>,
    /// Further lines of the peer's connection, and of its daemon's settings, in its own words.
    pub(crate) their_lines: &'static str,
    pub(crate) their_daemon: &'static str,
    /// Whether the peer is told what `ipsecd export` says.
    pub(crate) exported: bool,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            ours: Proof::Psk,
            theirs: Proof::Psk,
            ca: "ca-p256",
            begins: End::Ipsecd,
            v6: false,
            nat: &[],
            ah: false,
            transport: false,
            ike: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp: "aes256gcm16".to_owned(),
            our_ike: None,
            our_esp: None,
            nets: vec![(1, false)],
            apart: false,
            our_subnets: None,
            their_subnets: None,
            anywhere: false,
            ike_lines: String::new(),
            esp_lines: String::new(),
            their_dpd: false,
            busy: false,
            their_ike_life: None,
            mobile: false,
            guest: None,
            their_address: None,
            their_lines: "",
            their_daemon: "",
            exported: false,
        }
    }
}

impl Tunnel {
    pub(crate) fn begun_by(begins: End) -> Self {
        Self { begins, ..Self::default() }
    }

    /// The peer's address towards the router.
    pub(crate) fn their_address(&self) -> IpAddr {
        self.their_address.unwrap_or_else(|| End::Peer.outside(self.v6))
    }

    /// The identity of an end.
    pub(crate) fn id(end: End) -> &'static str {
        match end {
            End::Ipsecd => "a.example.net",
            End::Peer => "b.example.net",
        }
    }

    pub(crate) fn proof(&self, end: End) -> Proof {
        match end {
            End::Ipsecd => self.ours,
            End::Peer => self.theirs,
        }
    }

    pub(crate) fn has_certificates(&self) -> bool {
        matches!(self.ours, Proof::Certificate(_)) || matches!(self.theirs, Proof::Certificate(_))
    }

    /// The address at which `end` finds the other; `None`: it is behind a NAT and comes by itself.
    pub(crate) fn remote(&self, end: End) -> Option<String> {
        if end == End::Peer && (self.mobile || self.guest == Some(End::Ipsecd)) {
            return None;
        }
        if self.nat.contains(&end.other()) {
            // Transport mode wants an address.
            let known = self.begins == end || self.transport && end == End::Ipsecd;
            return known.then(|| end.router().to_string());
        }
        Some(end.other().outside(self.v6).to_string())
    }

    /// Where a packet is sent from and to, at `end`: for each of the networks, or between the hosts.
    pub(crate) fn flows(&self, end: End) -> Vec<[IpAddr; 2]> {
        if self.transport {
            let behind_nat = self.nat.contains(&end.other());
            let target = if behind_nat { end.router() } else { end.other().outside(self.v6) };
            return vec![[end.outside(self.v6), target]];
        }
        let host = |end: End, net, v6| {
            if self.guest == Some(end) { GIVEN.into() } else { end.host(net, v6) }
        };
        let flow = |&(net, v6): &(u8, bool)| [host(end, net, v6), host(end.other(), net, v6)];
        self.nets.iter().map(flow).collect()
    }

    /// The names of the peer's CHILD_SAs, and for each what it is told of its own networks and of ours; nothing in transport mode.
    pub(crate) fn peers_children(&self) -> Vec<(String, [String; 2])> {
        if let Some(subnets) = &self.their_subnets {
            return vec![("net".to_owned(), subnets.clone())];
        }
        if !self.apart {
            let subnets = [End::Peer, End::Ipsecd].map(|end| self.subnets(end).join(","));
            return vec![("net".to_owned(), subnets)];
        }
        let child = |(at, &(net, v6)): (usize, &(u8, bool))| {
            let name = if at == 0 { "net".to_owned() } else { format!("net{}", at + 1) };
            (name, [End::Peer, End::Ipsecd].map(|end| end.subnet(net, v6)))
        };
        self.nets.iter().enumerate().map(child).collect()
    }

    fn subnets(&self, end: End) -> Vec<String> {
        self.nets.iter().map(|&(net, v6)| end.subnet(net, v6)).collect()
    }

    /// Writes ipsecd's file, and what it names, into `dir`.
    #[track_caller]
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let mut auth = String::new();
        if let Proof::Certificate(name) = self.ours {
            write(&dir.join("ours.pem"), &pki(&format!("{name}.pem")));
            write(&dir.join("ours.key"), &pki(&format!("{name}.key")));
            auth += "cert = \"ours.pem\"\nkey = \"ours.key\"\n";
        }
        if let Proof::Key(name) = self.ours {
            write(&dir.join("ours.key"), &pki(&format!("{name}.key")));
            auth += "local = \"public-key\"\nkey = \"ours.key\"\n";
        }
        if let Proof::Key(name) = self.theirs {
            write(&dir.join("theirs.pub"), public_key(name).as_bytes());
            auth += "public-key = [\"theirs.pub\"]\n";
        }
        if let Proof::Password = self.ours {
            let [name, password] = USER;
            auth +=
                &format!("local = \"eap\"\neap-identity = {name:?}\neap-password = {password:?}\n");
        }
        if matches!(self.ours, Proof::Psk) || matches!(self.theirs, Proof::Psk) {
            write(&dir.join("far.psk"), PSK.as_bytes());
            auth += "psk = { file = \"far.psk\" }\n";
        }
        if let Proof::Certificate(_) = self.theirs {
            write(&dir.join("ca.pem"), &pki(&format!("{}.pem", self.ca)));
            auth += "ca = [\"ca.pem\"]\n";
        }
        let [locals, remotes] = match &self.our_subnets {
            Some(subnets) => subnets.clone().map(|list| vec![list]),
            None => [End::Ipsecd, End::Peer].map(|end| self.subnets(end)),
        };
        let remote = self.remote(End::Ipsecd).filter(|_| !self.anywhere);
        let remote = remote.unwrap_or_else(|| "any".to_owned());
        let [ike, esp] = [(&self.our_ike, &self.ike), (&self.our_esp, &self.esp)]
            .map(|(ours, both)| ours.as_ref().unwrap_or(both));
        let subnets = |end: End, list: Vec<String>| match self.guest {
            _ if self.transport => String::new(),
            Some(guest) if guest == end && end == End::Ipsecd => {
                "virtual = [\"ipv4\"]\n".to_owned()
            }
            Some(guest) if guest == end => format!("pool = [\"{GIVEN}\"]\n"),
            _ => format!("subnets = {list:?}\n"),
        };
        let mut lines = format!("proposals = {esp:?}\n");
        for (wanted, line) in [
            (self.begins == End::Peer, "start = \"respond\"\n"),
            (self.ah, "protocol = \"ah\"\n"),
            (self.transport, "mode = \"transport\"\n"),
        ] {
            lines += if wanted { line } else { "" };
        }
        // One that moves has no address of its own.
        let address = if self.mobile {
            String::new()
        } else {
            format!("address = \"{}\"\n", End::Ipsecd.outside(self.v6))
        };
        let text = format!(
            "[local]\n{address}id = {:?}\n{}\
             [peer]\naddress = {remote:?}\nid = {:?}\n{}\
             [auth]\n{auth}\
             [ike]\nproposals = {ike:?}\nmobike = {}\n{}\n\
             [esp]\n{lines}{}\n",
            Self::id(End::Ipsecd),
            subnets(End::Ipsecd, locals),
            Self::id(End::Peer),
            subnets(End::Peer, remotes),
            self.mobile,
            self.ike_lines,
            self.esp_lines,
        );
        let mut text = text;
        for &(net, v6) in self.nets.iter().filter(|_| self.apart) {
            let [local, peer] = [End::Ipsecd, End::Peer].map(|end| end.subnet(net, v6));
            text += &format!(
                "[[child]]\nname = \"net-{net}\"\nlocal = [{local:?}]\npeer = [{peer:?}]\n"
            );
        }
        let file = dir.join("far.conf");
        write(&file, text.as_bytes());
        file
    }
}

impl Tunnel {
    /// What `ipsecd export` writes for the peer, of the very file that ipsecd has.
    #[track_caller]
    pub(crate) fn export(&self, program: &str) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(BINARY);
        command.args(["export", "--with-secrets", "--for", program]).arg(self.write(dir.path()));
        process::run(&mut command)
    }
}

/// The public key in a certificate of `tests/pki`, as a file of its own.
#[track_caller]
pub(crate) fn public_key(name: &str) -> String {
    let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/pki/{name}.pem"));
    let mut openssl = Command::new("openssl");
    process::run(openssl.args(["x509", "-noout", "-pubkey", "-in"]).arg(certificate))
}

/// A file of `tests/pki`.
#[track_caller]
pub(crate) fn pki(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As [`pki`], for a shell line.
#[track_caller]
pub(crate) fn pki_text(name: &str) -> String {
    String::from_utf8(pki(name)).expect("PEM is text")
}

#[track_caller]
fn write(path: &Path, contents: &[u8]) {
    fs::write(path, contents).expect("file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode is set");
}
