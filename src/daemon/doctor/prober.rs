//! [`Prober`]: IKE with one peer from sockets of its own, beside the daemon and without its privileges: an [`Endpoint`] whose
//! SAs are never used, and single messages that ask for nothing but an answer.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use crate::crypto::SecureRandom;
use crate::crypto::random::OsRandom;
use crate::doctor::{Answer, AuthSent, PathMtu, Rekeyed, Route};
use crate::ike::{
    ChildStatus, CloseReason, Command, Endpoint, EndpointConfig, Env, Event, SaStatus, Transmit,
    WallClock,
};
use crate::io::clock;
use crate::io::probe::{self, Df, Probe};
use crate::ipsec::pad::Peer;
use crate::ipsec::{Encap, Path};
use crate::wire::Reader;
use crate::wire::ike::header::{Flags, Header, IkeSpi, PORT as IKE_PORT};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{
    CertEncoding, EncrId, ExchangeType, KeId, PrfId, ProtocolId, TransformType,
};
use crate::wire::ike::payload::{Ke, Nonce, Payload, Proposal, Sa, Transform, Vendor};
use crate::wire::natt::{NON_ESP_MARKER, PORT as NATT_PORT};

/// An attempt takes no longer than this, whatever the peer does.
const LONGEST: Duration = Duration::from_secs(15);
/// How long DELETE may go unanswered.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long the answer to a single message may take, and how often it is sent.
const PATIENCE: Duration = Duration::from_millis(700);
const TRIES: usize = 3;
/// No path that carries IPv4 has less (RFC 791).
const LEAST_MTU: u16 = 576;

/// See the module.
pub(super) struct Prober {
    remote: IpAddr,
    ike: Probe,
    natt: Probe,
    own_ports: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Ran {
    /// The IKE SA, if it came so far.
    pub(super) sa: Option<SaStatus>,
    /// The CHILD_SA.
    pub(super) child: Option<ChildStatus>,
    /// Why it failed.
    pub(super) reason: Option<CloseReason>,
    pub(super) rekeyed: Rekeyed,
    pub(super) init_answered: bool,
    pub(super) auth_sent: Option<AuthSent>,
    /// What the responder chose in IKE_SA_INIT.
    pub(super) chosen: Option<Sa>,
    pub(super) peer_cas: Option<Vec<[u8; 20]>>,
    /// What ICMP said of IKE_SA_INIT.
    pub(super) icmp: Option<Answer>,
}

impl Prober {
    /// From ports 500 and 4500 if they are free, otherwise from others.
    pub(super) fn open(route: &Route) -> io::Result<Self> {
        let (local, remote) = (route.local, route.remote);
        let pair = |ike: u16, natt: u16| -> io::Result<(Probe, Probe)> {
            let one = |ours, theirs| {
                Probe::connect(
                    SocketAddr::new(local, ours),
                    SocketAddr::new(remote, theirs),
                    Df::Clear,
                )
            };
            Ok((one(ike, IKE_PORT)?, one(natt, NATT_PORT)?))
        };
        let (own_ports, (ike, natt)) = match pair(IKE_PORT, NATT_PORT) {
            Ok(pair) => (true, pair),
            Err(_) => (false, pair(0, 0)?),
        };
        Ok(Self { remote, ike, natt, own_ports })
    }

    /// Whether it has ports 500 and 4500.
    pub(super) const fn has_own_ports(&self) -> bool {
        self.own_ports
    }

    /// Makes an IKE SA and a CHILD_SA, rekeys that if `rekey`, and deletes both.
    pub(super) fn attempt(&self, peer: Peer, rekey: bool) -> Ran {
        let mut run = Run {
            prober: self,
            endpoint: Endpoint::new(
                EndpointConfig::default(),
                Env { rng: Box::new(OsRandom), wall_clock: Arc::new(SystemClock) },
            ),
            name: Arc::clone(&peer.name),
            rekey,
            over: false,
            ran: Ran {
                sa: None,
                child: None,
                reason: None,
                rekeyed: Rekeyed::Untried,
                init_answered: false,
                auth_sent: None,
                chosen: None,
                peer_cas: None,
                icmp: None,
            },
        };
        run.go(peer);
        run.ran
    }

    /// Whether a port answers IKE.
    pub(super) fn ask(&self, natt: bool) -> Answer {
        let probe = if natt { &self.natt } else { &self.ike };
        hello(probe, natt, None, TRIES)
    }

    /// Whether an ICMP echo comes back; `None` if it cannot be tried.
    pub(super) fn echo(&self) -> Option<bool> {
        let answered = |_| probe::echo(self.remote, PATIENCE);
        let tried: io::Result<Vec<bool>> = (0..2).map(answered).collect();
        tried.ok().map(|all| all.contains(&true))
    }

    /// The longest packet that is answered, with DF set; `None` if not even a short one is.
    pub(super) fn mtu(&self, natt: bool) -> Option<PathMtu> {
        let port = if natt { NATT_PORT } else { IKE_PORT };
        let local = SocketAddr::new(self.ike.local().ok()?.ip(), 0);
        let probe = Probe::connect(local, SocketAddr::new(self.remote, port), Df::Probe).ok()?;
        let interface = probe.mtu().ok()?;
        // Nothing longer is asked of a peer: loopback has 65536.
        let most = interface.min(9000);
        let passes = |size: u16| hello(&probe, natt, Some(size), TRIES) == Answer::Ike;
        let measured = if passes(most) {
            interface
        } else {
            let (mut good, mut bad) = (LEAST_MTU, most);
            if !passes(good) {
                return None;
            }
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                if passes(middle) {
                    good = middle;
                } else {
                    bad = middle;
                }
            }
            good
        };
        Some(PathMtu { interface, measured, known: probe.mtu().ok()? })
    }
}

/// One attempt.
struct Run<'a> {
    prober: &'a Prober,
    endpoint: Endpoint,
    name: Arc<str>,
    rekey: bool,
    over: bool,
    ran: Ran,
}

impl Run<'_> {
    fn go(&mut self, peer: Peer) {
        let began = clock::now();
        let Ok(local) = self.prober.ike.local() else { return };
        // With the ports as they are, so that NAT detection (RFC 7296 §2.23) finds a NAT where there is one.
        let path = Path { local, remote: self.prober.ike.remote(), encap: Encap::Plain };
        let initiate = Command::Initiate { peer: Arc::clone(&self.name), path };
        for command in [Command::AddPeer(Arc::new(peer)), initiate] {
            if self.endpoint.handle_command(began, command).is_err() {
                self.ran.reason = Some(CloseReason::Limit("the attempt could not be begun"));
                return;
            }
        }
        self.drive(began + LONGEST);
        if !self.over {
            let exchange = if self.ran.init_answered { "IKE_AUTH" } else { "IKE_SA_INIT" };
            match self.ran.child {
                Some(_) if self.rekey => self.ran.rekeyed = Rekeyed::Unanswered,
                Some(_) => {}
                None => self.ran.reason = Some(CloseReason::Unreachable { exchange, tries: 0 }),
            }
        }
        // What was made goes again; `over` is set once DELETE is answered.
        self.over = self.endpoint.status(clock::now()).is_empty();
        let _known = self.endpoint.handle_command(clock::now(), Command::TerminateAll);
        self.drive(clock::now() + GOODBYE);
    }

    fn drive(&mut self, deadline: Instant) {
        loop {
            self.drain();
            let now = clock::now();
            if self.over || now >= deadline {
                return;
            }
            let due = self.endpoint.poll_timeout().map_or(deadline, |(due, _)| due.min(deadline));
            if due <= now {
                self.endpoint.handle_timeout(now);
                continue;
            }
            let limit = due.saturating_duration_since(now);
            if probe::wait(&[&self.prober.ike, &self.prober.natt], limit).is_err() {
                return;
            }
            self.receive(false);
            self.receive(true);
        }
    }

    fn receive(&mut self, natt: bool) {
        let probe = if natt { &self.prober.natt } else { &self.prober.ike };
        match probe.receive() {
            Ok(None) => {}
            Ok(Some(datagram)) => {
                let message = if natt {
                    // What is no IKE is a keepalive, or ESP for the SA that nobody uses.
                    let Some(message) = datagram.strip_prefix(&NON_ESP_MARKER) else { return };
                    message
                } else {
                    &datagram[..]
                };
                let Ok(local) = self.prober.ike.local() else { return };
                let path = if natt {
                    let local = SocketAddr::new(local.ip(), NATT_PORT);
                    Path { local, remote: probe.remote(), encap: Encap::Udp }
                } else {
                    Path { local, remote: probe.remote(), encap: Encap::Plain }
                };
                self.look_at(message);
                self.endpoint.handle_datagram(clock::now(), path, message);
            }
            Err(error) => {
                if !self.ran.init_answered
                    && let Some(answer) = of_error(&error)
                {
                    self.ran.icmp = Some(answer);
                }
            }
        }
    }

    /// What IKE_SA_INIT says, which is in the clear.
    fn look_at(&mut self, datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else { return };
        if message.header.exchange != ExchangeType::IKE_SA_INIT || !message.header.flags.response {
            return;
        }
        self.ran.init_answered = true;
        for payload in &message.payloads {
            #[expect(clippy::wildcard_enum_match_arm, reason = "two of many payloads")]
            match payload {
                Payload::Sa(sa) => self.ran.chosen = Some(sa.clone()),
                Payload::CertReq(request) if request.encoding == CertEncoding::X509_SIGNATURE => {
                    let hashes = request.authority.chunks_exact(20);
                    let hashes = hashes.filter_map(|hash| <[u8; 20]>::try_from(hash).ok());
                    self.ran.peer_cas.get_or_insert_default().extend(hashes);
                }
                _ => {}
            }
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.send(&transmit);
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.hear(event);
        }
        // What an event has begun.
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.send(&transmit);
        }
    }

    fn send(&mut self, transmit: &Transmit) {
        let natt = transmit.path.encap == Encap::Udp;
        let probe = if natt { &self.prober.natt } else { &self.prober.ike };
        let marker: &[u8] = if natt && !transmit.keepalive { &NON_ESP_MARKER } else { &[] };
        let datagram = [marker, &transmit.payload[..]].concat();
        let mut reader = Reader::new("IKE header", &transmit.payload);
        if Header::parse(&mut reader).is_ok_and(|it| it.exchange == ExchangeType::IKE_AUTH) {
            let longest = datagram.len() + headers(self.prober.remote);
            let sent = self.ran.auth_sent.get_or_insert(AuthSent { natt, longest: 0 });
            sent.longest = sent.longest.max(longest);
        }
        if let Err(error) = probe.send(&datagram)
            && let Some(answer) = of_error(&error)
            && !self.ran.init_answered
        {
            self.ran.icmp = Some(answer);
        }
    }

    fn hear(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::IkeSaEstablished { status, .. } => self.ran.sa = Some(*status),
            Event::ChildSaEstablished { child, rekeyed: false, .. } => {
                self.ran.child = Some(*child);
                let rekey = Command::RekeyChildren { peer: Arc::clone(&self.name) };
                self.over = !self.rekey || self.endpoint.handle_command(now, rekey).is_err();
            }
            Event::ChildSaEstablished { rekeyed: true, .. } => {
                self.ran.rekeyed = Rekeyed::Yes;
                self.over = true;
            }
            Event::RekeyRefused { reason, .. } => {
                self.ran.rekeyed = Rekeyed::Refused(reason);
                self.over = true;
            }
            Event::IkeSaClosed { reason, .. } | Event::ChildSaFailed { reason, .. } => {
                if self.ran.child.is_none() {
                    self.ran.reason.get_or_insert(reason);
                }
                self.over = true;
            }
            Event::IkeSaDeleted { .. } => self.over = true,
            // What they bring is told by the events above.
            Event::AuthenticationFailed { .. }
            | Event::ChildSaClosed { .. }
            | Event::Configured { .. }
            | Event::IkeKeys { .. }
            | Event::Progress { .. }
            | Event::Sad(_) => {}
        }
    }
}

/// Sends an IKE_SA_INIT that nobody can take, of so many bytes with IP and UDP headers, and says what comes back. It leaves
/// no state at the responder, which answers with NO_PROPOSAL_CHOSEN, or asks for a COOKIE.
fn hello(probe: &Probe, natt: bool, size: Option<u16>, tries: usize) -> Answer {
    let mut random = OsRandom;
    let mut spi = [0; 8];
    random.fill(&mut spi);
    let spi_i = IkeSpi(u64::from_be_bytes(spi));
    let marker: &[u8] = if natt { &NON_ESP_MARKER } else { &[] };
    let mut padding = 0;
    if let Some(size) = size {
        let short = marker.len() + unacceptable(spi_i, 0).len() + headers(probe.remote().ip());
        padding = usize::from(size).saturating_sub(short);
    }
    let message = [marker, &unacceptable(spi_i, padding)[..]].concat();
    let mut answer = Answer::Silence;
    for _ in 0..tries {
        // An error here may be about the one before.
        if let Err(error) = probe.send(&message) {
            match of_error(&error) {
                Some(found) => answer = found,
                None => {
                    let _repeated = probe.send(&message);
                }
            }
        }
        let deadline = clock::now() + PATIENCE;
        loop {
            match probe.receive() {
                Ok(Some(datagram)) => {
                    let datagram = datagram.strip_prefix(marker).unwrap_or(&datagram);
                    let header = Header::parse(&mut Reader::new("IKE header", datagram));
                    if header.is_ok_and(|it| it.spi_i == spi_i) {
                        return Answer::Ike;
                    }
                }
                Ok(None) => {
                    let now = clock::now();
                    if now >= deadline || probe::wait(&[probe], deadline - now).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    if let Some(found) = of_error(&error) {
                        answer = found;
                        break;
                    }
                }
            }
        }
    }
    answer
}

/// IKE_SA_INIT with DES, which is no algorithm of IKEv2 any more, and with so many bytes that say nothing.
fn unacceptable(spi_i: IkeSpi, padding: usize) -> Vec<u8> {
    let mut random = OsRandom;
    let mut bytes = [0; 64];
    random.fill(&mut bytes);
    let transforms = vec![
        Transform::new(TransformType::ENCR, EncrId(1).0),
        Transform::new(TransformType::PRF, PrfId::PRF_HMAC_SHA2_256.0),
        Transform::new(TransformType::KE, KeId::CURVE25519.0),
    ];
    let proposal = Proposal { number: 1, protocol: ProtocolId::IKE, spi: Vec::new(), transforms };
    let (public, nonce) = bytes.split_at(32);
    let mut payloads = vec![
        Payload::Sa(Sa { proposals: vec![proposal] }),
        Payload::Ke(Ke { group: KeId::CURVE25519, data: public.to_vec() }),
        Payload::Nonce(Nonce { data: nonce.to_vec() }),
    ];
    // RFC 7296 §3.12: a Vendor ID that is not known is ignored.
    if let Some(len) = padding.checked_sub(4) {
        payloads.push(Payload::Vendor(Vendor { data: vec![0x43; len] }));
    }
    let flags = Flags::new(true, false);
    let header = Header::new(spi_i, IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, 0);
    Message { header, payloads }.emit()
}

/// What the system's word on a datagram means; `None`: nothing of the peer.
#[expect(clippy::wildcard_enum_match_arm, reason = "three of many kinds")]
fn of_error(error: &io::Error) -> Option<Answer> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Answer::Closed),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Answer::Unreachable)
        }
        io::ErrorKind::PermissionDenied => Some(Answer::Filtered),
        _ => None,
    }
}

/// IP and UDP headers, in bytes.
const fn headers(remote: IpAddr) -> usize {
    if remote.is_ipv4() { 28 } else { 48 }
}

struct SystemClock;

impl WallClock for SystemClock {
    fn since_1970(&self) -> Duration {
        clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
