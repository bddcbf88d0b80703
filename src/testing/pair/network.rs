//! What lies between the two of a [`Pair`]: a step of time, datagrams on their way, packets of ESP.

use super::*;

impl Pair {
    pub(super) fn step(&mut self) {
        let now = self.clock.elapsed();
        if !self.hold
            && let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= now
        {
            let packet = entry.remove();
            self.arrive(packet);
            return;
        }
        if let Some(interval) = self.stream
            && self.next_stream <= now
        {
            self.next_stream = now + interval;
            self.send_packets();
            return;
        }
        for side in [A, B] {
            if self.timer(side).is_some_and(|due| due <= now) {
                self.fire(side);
                return;
            }
        }
    }

    pub(super) fn fire(&mut self, side: Side) {
        if let Some((_, kind)) = self.node(side).endpoint.poll_timeout() {
            self.note(format_args!("{side} timer {kind:?}"));
        }
        let now = self.clock.now();
        self.node_mut(side).endpoint.handle_timeout(now);
        self.drain(side);
    }

    /// The contract: all datagrams and events, until there are none.
    pub(super) fn drain(&mut self, side: Side) {
        let (mut transmits, mut updates) = (Vec::new(), Vec::new());
        let now = self.clock.elapsed();
        loop {
            let node = self.node_mut(side);
            if let Some(transmit) = node.endpoint.poll_transmit() {
                transmits.push(transmit);
                continue;
            }
            let Some(event) = node.endpoint.poll_event() else { break };
            if let Event::Sad(update) = event {
                updates.push(update);
            } else {
                self.note(format_args!("{side} event {event:?}"));
                self.node_mut(side).events.push((now, event));
            }
        }
        // The moments at which an SA may be missing at the other end are those around a change here.
        let old = self.node(side).sad.in_use();
        let changed = !updates.is_empty();
        if changed {
            self.send_through(side, &old, Duration::ZERO);
        }
        for update in updates {
            self.apply(side, update);
        }
        for transmit in transmits {
            self.send(side, transmit);
        }
        if changed {
            let new = self.node(side).sad.in_use();
            self.send_through(side, &old, DATAPATH_LAG);
            self.send_through(side, &new, Duration::ZERO);
        }
    }

    pub(super) fn apply(&mut self, side: Side, update: SadUpdate) {
        self.note(format_args!("{side} sad {}", summary(&update)));
        let node = self.node_mut(side);
        if let SadUpdate::RemoveInbound(spi) = &update {
            node.alive.remove(spi);
            node.moved.remove(spi);
        }
        if let Err(Violation(what)) = node.sad.apply(update) {
            self.violations.push(Violation(format!("{side}: {what}")));
        }
    }

    pub(super) fn send(&mut self, side: Side, transmit: Transmit) {
        let Transmit { path, payload, keepalive } = transmit;
        if keepalive {
            // It keeps a NAT's mapping, which this one keeps for ever.
            return;
        }
        self.trace_ike(side, "sends", &payload);
        self.node_mut(side).sent += 1;
        if (path.encap == Encap::Udp) != (path.local.port() == 4500) {
            // RFC 7296 §2.23: the non-ESP marker goes with port 4500, and only there.
            self.violations.push(Violation(format!("{side} sends IKE on {path:?}")));
        }
        let (src, dst) = self.translate_out(side, path);
        for (delay, payload) in self.node_mut(side).link.carry(&payload) {
            let body = Body::Ike(payload);
            self.enqueue(
                delay,
                Packet { sequence: 0, from: side, src, dst, encap: path.encap, body },
            );
        }
    }

    pub(super) fn send_through(
        &mut self,
        side: Side,
        in_use: &BTreeMap<(PolicyId, Option<u16>), Arc<SaParams>>,
        lag: Duration,
    ) {
        for sa in in_use.values() {
            let (src, dst) = self.translate_out(side, sa.path);
            let link = &mut self.node_mut(side).link;
            if link.config.black_hole {
                continue;
            }
            // ESP may be lost like anything else; losing it here would only hide what the model is for.
            let delay = link.delay() + lag;
            let (encap, body) = (sa.path.encap, Body::Esp(Arc::clone(sa)));
            self.enqueue(delay, Packet { sequence: 0, from: side, src, dst, encap, body });
        }
    }

    pub(super) fn enqueue(&mut self, delay: Duration, mut packet: Packet) {
        packet.sequence = self.sequence;
        self.sequence += 1;
        self.in_flight.insert((self.clock.elapsed() + delay, packet.sequence), packet);
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        let side = packet.from.other();
        let translated = self.nodes.iter().any(|node| node.nat.is_some());
        if let Body::Esp(sa) = &packet.body
            && packet.encap == Encap::Plain
            && translated
        {
            // A translator of ports cannot carry raw ESP.
            self.missed.push(Missed { at: self.clock.elapsed(), from: packet.from, spi: sa.spi });
            return;
        }
        let Some(local) = self.translate_in(side, packet.dst) else {
            self.note(format_args!("nobody is at {}", packet.dst));
            return;
        };
        // A socket on port 4500 is one of UDP encapsulation (RFC 3948 §2.2).
        let encap = match &packet.body {
            Body::Esp(_) => packet.encap,
            Body::Ike(_) if local.port() == 4500 => Encap::Udp,
            Body::Ike(_) => Encap::Plain,
        };
        let path = Path { local, remote: packet.src, encap };
        match packet.body {
            Body::Esp(sa) => self.arrive_esp(side, path, &sa),
            Body::Ike(datagram) => {
                self.trace_ike(side, "receives", &datagram);
                let now = self.clock.now();
                self.node_mut(side).endpoint.handle_datagram(now, path, &datagram);
                self.drain(side);
            }
        }
    }

    pub(super) fn arrive_esp(&mut self, side: Side, path: Path, sa: &SaParams) {
        let now = self.clock.elapsed();
        let node = self.node_mut(side);
        let met = node
            .sad
            .inbound(sa.spi)
            .filter(|inbound| inbound.encr_key == sa.encr_key && inbound.integ_key == sa.integ_key);
        let Some(expected) = met.map(|inbound| inbound.path) else {
            self.note(format_args!("{side} has no SA for {}", sa.spi));
            self.missed.push(Missed { at: now, from: side.other(), spi: sa.spi });
            let node = self.node_mut(side);
            if node.no_sa.is_none_or(|last| now >= last + ALIVE_INTERVAL) {
                node.no_sa = Some(now);
                self.notice(side, Notice::NoSa { spi: sa.spi, path });
            }
            return;
        };
        node.received += 1;
        let silent = node.alive.get(&sa.spi).is_none_or(|last| now >= *last + ALIVE_INTERVAL);
        if silent {
            node.alive.insert(sa.spi, now);
        }
        // Raw ESP has no ports: there only the address can move.
        let moved = match path.encap {
            Encap::Plain => expected.remote.ip() != path.remote.ip(),
            Encap::Udp => expected.remote != path.remote,
        };
        let moved = moved && node.moved.insert(sa.spi, path) != Some(path);
        if silent {
            self.notice(side, Notice::Alive { spi: sa.spi });
        }
        if moved {
            self.notice(side, Notice::PeerMoved { spi: sa.spi, path });
        }
    }

    pub(super) fn public_addr(&self, side: Side) -> IpAddr {
        let node = self.node(side);
        node.nat.as_ref().map_or(node.addr, |nat| nat.public)
    }

    pub(super) fn translate_out(&mut self, side: Side, path: Path) -> (SocketAddr, SocketAddr) {
        let src = match &mut self.node_mut(side).nat {
            Some(nat) => nat.outward(path.local),
            None => path.local,
        };
        (src, path.remote)
    }

    pub(super) fn translate_in(&self, side: Side, dst: SocketAddr) -> Option<SocketAddr> {
        let node = self.node(side);
        match &node.nat {
            Some(nat) if nat.public == dst.ip() => nat.inward(dst.port()),
            None if node.addr == dst.ip() => Some(dst),
            _ => None,
        }
    }

    pub(super) fn flying(&self, from: Side) -> impl Iterator<Item = &Packet> {
        let mut packets: Vec<_> = self.in_flight.values().filter(|p| p.from == from).collect();
        packets.sort_unstable_by_key(|packet| packet.sequence);
        packets.into_iter()
    }

    pub(super) fn keys(&self, mut wanted: impl FnMut(&Packet) -> bool) -> Vec<(Duration, u64)> {
        self.in_flight.iter().filter(|(_, packet)| wanted(packet)).map(|(key, _)| *key).collect()
    }

    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        let at = self.clock.elapsed();
        self.trace.line(at, what);
    }

    pub(super) fn trace_ike(&mut self, side: Side, verb: &str, datagram: &[u8]) {
        match MessageInfo::of(datagram) {
            Some(info) => self.note(format_args!("{side} {verb} {info}")),
            None => self.note(format_args!("{side} {verb} {} bytes", datagram.len())),
        }
        self.trace.bytes(datagram);
    }
}
