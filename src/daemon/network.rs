//! What the daemon puts into the host's network, and takes out again: TUNs, their addresses, routes and rules.

mod fixed;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use super::worker::{Shared, TunPort, Workers};
use crate::config::{Config, PolicyRef};
use crate::ike::Configuration;
use crate::io::resolved::{Dns, Resolved};
use crate::io::route::{Kept, Netlink, Route, RouteError, TABLE, Via, exceptions, prefixes};
use crate::io::rule::{self, HOST_TABLE, Rule};
use crate::io::tun::{self, Offload};
use crate::io::watch::Seen;
use crate::ipsec::{FixedPolicy, Mode, TrafficSelector};

/// MTU of a TUN before an SA says what fits: right for most paths, and corrected before traffic flows.
const FIRST_MTU: u16 = 1400;
/// IPv6 needs this much (RFC 8200 §5); below it, the kernel takes IPv6 away from an interface for good. What does not
/// fit the tunnel is answered by the datapath.
const LEAST_MTU: u16 = 1280;

/// The host's network could not be changed.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A TUN could not be made.
    #[error("cannot make the TUN interface {name}: {cause} ({})", advice(cause))]
    Tun {
        /// Its name.
        name: String,
        /// The system's words.
        cause: io::Error,
    },
    /// Netlink refused something.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// TUNs, routes and rules of this daemon.
pub struct Network {
    netlink: Netlink,
    shared: Arc<Shared>,
    tuns: BTreeMap<String, TunState>,
    rules: bool,
    /// What a killed daemon left may still be there.
    unsettled: bool,
    offload: Offload,
    /// Queues of each TUN.
    queues: u16,
    /// What peers configured us with, and the TUN that has it.
    configured: BTreeMap<Arc<str>, (String, Arc<Configuration>)>,
    resolved: Option<Resolved>,
    /// What systemd-resolved was told of each TUN.
    dns: BTreeMap<String, Dns>,
    /// How many peers have a route to each prefix of each table.
    routed: BTreeMap<(u32, IpNet), usize>,
    /// Peers came or went that the workers do not know of.
    changed: bool,
    /// Policies without SAs, by their file, and the rules that they have made.
    fixed: BTreeMap<Arc<str>, Vec<FixedPolicy>>,
    fixed_rules: Vec<Rule>,
    /// The addresses of this host, as they were when the first of several peers came.
    local_addresses: Option<Vec<IpAddr>>,
}

struct TunState {
    port: Arc<TunPort>,
    index: u32,
    mtu: u16,
    /// Somebody set it down.
    is_down: bool,
    /// Set by the configuration.
    fixed_mtu: Option<u16>,
    /// Routes and selectors of each peer that uses it.
    peers: BTreeMap<Arc<str>, Attached>,
}

struct Attached {
    routes: Vec<Route>,
    /// Of transport mode.
    rules: Vec<Rule>,
    /// Of the interface, as the peer's file has them.
    addresses: Vec<(IpAddr, u8)>,
    selectors: Vec<TrafficSelector>,
}

impl Network {
    /// Nothing is set up, and nothing removed: what a killed daemon left refuses what it would have protected, until
    /// [`settle`](Self::settle).
    #[must_use]
    pub const fn new(netlink: Netlink, shared: Arc<Shared>, offload: Offload, queues: u16) -> Self {
        Self {
            netlink,
            shared,
            tuns: BTreeMap::new(),
            rules: false,
            unsettled: true,
            offload,
            queues,
            configured: BTreeMap::new(),
            resolved: None,
            dns: BTreeMap::new(),
            routed: BTreeMap::new(),
            changed: false,
            fixed: BTreeMap::new(),
            fixed_rules: Vec::new(),
            local_addresses: None,
        }
    }

    /// Removes what a killed daemon left, once the peers are attached that there are: what is theirs stays, so that nothing
    /// of them leaves in clear in between. Only the first call does anything.
    ///
    /// # Errors
    /// If netlink does not work.
    pub async fn settle(&mut self) -> Result<(), NetworkError> {
        if !self.unsettled {
            return Ok(());
        }
        self.unsettled = false;
        let attached = || self.tuns.values().flat_map(|tun| tun.peers.values());
        let kept = Kept {
            routes: attached().flat_map(|attached| &attached.routes).collect(),
            rules: self.host_rules().collect(),
            main_rule: self.rules,
        };
        let removed = self.netlink.clean_up(&kept).await?;
        if removed > 0 {
            tracing::info!(removed, "routes and rules of an earlier daemon removed");
        }
        Ok(())
    }

    /// The connection to the kernel.
    #[must_use]
    pub const fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Sets up everything for a peer: TUN, addresses, rules, routes. For one that is there already, only what differs
    /// changes. What the workers are to know of several that come together is told them once, by [`publish`](Self::publish).
    ///
    /// # Errors
    /// What the system says; then nothing of this peer stays.
    pub async fn attach(
        &mut self,
        config: &Config,
        workers: &Workers,
    ) -> Result<Vec<IpNet>, NetworkError> {
        let peer = Arc::clone(config.name());
        if !config.fixed().is_empty() {
            self.set_fixed(&peer, config.fixed().to_vec()).await?;
            self.leave_tuns(&peer, workers).await;
            return Ok(Vec::new());
        }
        let elsewhere = |(tun, _): &&(String, _)| *tun != config.interface.name;
        let given =
            self.configured.get(&peer).filter(elsewhere).map(|(_, given)| Arc::clone(given));
        if given.is_some() {
            self.configure(&peer, None).await;
        }
        let before = self.forget(&peer);
        let result = self.try_attach(config, workers).await;
        self.remove_addresses(&before).await;
        self.remove(before.into_iter().map(|(_, attached)| attached).collect()).await;
        if result.is_err() {
            self.detach(&peer, workers).await;
        } else {
            if given.is_some() {
                self.configure(&peer, given).await;
            }
            self.drop_idle(workers).await;
            self.set_fixed(&peer, Vec::new()).await?;
        }
        result
    }

    /// Takes a peer out of the TUNs; its routes and rules are still set.
    fn forget(&mut self, peer: &Arc<str>) -> Vec<(String, Attached)> {
        let all = self.tuns.iter_mut();
        let gone: Vec<(String, Attached)> =
            all.filter_map(|(name, tun)| Some((name.clone(), tun.peers.remove(peer)?))).collect();
        for route in gone.iter().flat_map(|(_, attached)| &attached.routes) {
            if let Some(count) = self.routed.get_mut(&route.key()) {
                *count -= 1;
                if *count == 0 {
                    self.routed.remove(&route.key());
                }
            }
        }
        gone
    }

    /// Takes the addresses of these from their TUNs, but for those that another peer has there.
    async fn remove_addresses(&self, attached: &[(String, Attached)]) {
        for (name, attached) in attached {
            let Some(tun) = self.tuns.get(name) else { continue };
            for (address, prefix_len) in &attached.addresses {
                let mut others = tun.peers.values().flat_map(|peer| &peer.addresses);
                if !others.any(|other| other.0 == *address) {
                    warn(self.netlink.remove_address(tun.index, *address, *prefix_len).await);
                }
            }
        }
    }

    /// Removes rules and routes, but for those that a peer has (routes are set again, since they may differ).
    async fn remove(&self, attached: Vec<Attached>) {
        let all = || self.tuns.values().flat_map(|tun| tun.peers.values());
        let has_rule = |rule: &Rule| self.host_rules().any(|other| other == rule);
        // The last one that was added goes first: what lets our own packets pass goes last.
        for rule in attached.iter().flat_map(|attached| attached.rules.iter().rev()) {
            if !has_rule(rule) {
                warn(self.netlink.remove_host_rule(rule).await);
            }
        }
        for route in attached.into_iter().flat_map(|attached| attached.routes) {
            let is_shared = self.routed.contains_key(&route.key());
            let mut others = all().filter(|_| is_shared).flat_map(|attached| &attached.routes);
            let same = others.find(|other| other.key() == route.key());
            warn(match same {
                Some(other) => self.netlink.add_route(other).await,
                None => self.remove_route(&route).await,
            });
        }
    }

    async fn remove_route(&self, route: &Route) -> Result<(), RouteError> {
        if let Some(refusal) = route.refusal() {
            self.netlink.remove_route(&refusal).await?;
        }
        self.netlink.remove_route(route).await
    }

    async fn try_attach(
        &mut self,
        config: &Config,
        workers: &Workers,
    ) -> Result<Vec<IpNet>, NetworkError> {
        let name = &config.interface.name;
        let peer = config.name();
        let policies = config.policies();
        let selectors: Vec<_> =
            policies.iter().flat_map(|policy| policy.ts_peer.to_vec()).collect();
        let (transport, tunnel): (Vec<_>, Vec<_>) =
            policies.iter().partition(|policy| policy.mode == Mode::Transport);
        let is_new = !self.tuns.contains_key(name);
        if is_new {
            self.create(name, config.interface.mtu).await?;
        }
        let Some(tun) = self.tuns.get_mut(name) else { return Ok(Vec::new()) };
        let index = tun.index;
        // The files that share it agree on this; it is set with the MTUs of the SAs.
        tun.fixed_mtu = config.interface.mtu;
        let addresses = config.interface.addresses.clone();
        let attached = Attached { routes: Vec::new(), rules: Vec::new(), addresses, selectors };
        tun.peers.insert(Arc::clone(peer), attached);
        self.changed = true;
        if is_new {
            self.publish(workers);
        }
        for (address, prefix_len) in &config.interface.addresses {
            self.local_addresses = None;
            self.netlink.add_address(index, *address, *prefix_len).await?;
        }
        if !config.interface.routes {
            return Ok(Vec::new());
        }
        if !self.rules {
            self.netlink.add_rule(false).await?;
            if self.shared.sockets.v6.is_some() {
                self.netlink.add_rule(true).await?;
            }
            self.rules = true;
        }
        let side = |policies: &[&PolicyRef<'_>], of: fn(&PolicyRef<'_>) -> Vec<TrafficSelector>| {
            prefixes(&policies.iter().flat_map(|policy| of(policy)).collect::<Vec<_>>())
        };
        let remote = side(&tunnel, |policy| policy.ts_peer.to_vec());
        let local = side(&tunnel, |policy| policy.ts_local.to_vec());
        // Of an address that the peer gives us nothing is known yet.
        let is_given = config.ike().is_some_and(|peer| peer.request.is_some());
        let ours = if is_given {
            self.configured.get(peer).map(|(_, given)| given.addresses.clone()).unwrap_or_default()
        } else {
            match &self.local_addresses {
                Some(known) => known.clone(),
                None => {
                    let found = self.netlink.local_addresses().await?;
                    self.local_addresses.insert(found).clone()
                }
            }
        };
        let thrown = exceptions(&local, &remote);
        let mut routes: Vec<_> =
            thrown.into_iter().map(|dst| Route { table: TABLE, dst, via: Via::Throw }).collect();
        for dst in &remote {
            // So that what the gateway itself sends into the tunnel is within the selectors.
            let source = ours.iter().copied().find(|addr| {
                addr.is_ipv4() == dst.addr().is_ipv4() && local.iter().any(|net| net.contains(addr))
            });
            let via = Via::Tun { index, mtu: None, source };
            routes.push(Route { table: TABLE, dst: *dst, via });
        }
        let hosts = side(&transport, |policy| policy.ts_peer.to_vec());
        for dst in &hosts {
            // In transport mode each side is one address.
            let ours = transport.iter().flat_map(|policy| policy.ts_local).map(|ts| ts.start_addr);
            let source = ours.clone().find(|addr| addr.is_ipv4() == dst.addr().is_ipv4());
            let via = Via::Tun { index, mtu: None, source };
            routes.push(Route { table: HOST_TABLE, dst: *dst, via });
        }
        for route in &routes {
            // Before it is there, so that an error finds what is to be removed.
            if let Some(attached) = self.tuns.get_mut(name).and_then(|tun| tun.peers.get_mut(peer))
            {
                attached.routes.push(route.clone());
                *self.routed.entry(route.key()).or_default() += 1;
            }
            if let Some(refusal) = route.refusal() {
                self.netlink.add_route(&refusal).await?;
            }
            self.netlink.add_route(route).await?;
        }
        for rule in host_rules(&transport) {
            if let Some(attached) = self.tuns.get_mut(name).and_then(|tun| tun.peers.get_mut(peer))
            {
                attached.rules.push(rule.clone());
            }
            self.netlink.add_host_rule(&rule).await?;
        }
        Ok(remote.into_iter().chain(hosts).collect())
    }

    async fn create(&mut self, name: &str, mtu: Option<u16>) -> Result<(), NetworkError> {
        let queues = tun::create(name, self.offload, self.queues)
            .map_err(|cause| NetworkError::Tun { name: name.into(), cause })?;
        let port = TunPort { queues: queues.into(), peers: Vec::new() };
        let tun = port.device();
        // The kernel would speak IPv6 neighbour discovery into the tunnel; without IPv6 there is no such file.
        let addr_gen = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", tun.name());
        if let Err(error) = std::fs::write(&addr_gen, "1") {
            tracing::debug!(%error, file = addr_gen, "no link-local address is kept off the TUN");
        }
        let index = self.netlink.index_of(tun.name()).await?;
        let first = mtu.unwrap_or(FIRST_MTU);
        self.netlink.set_up(index, first).await?;
        tracing::info!(interface = tun.name(), mtu = first, "TUN interface is up");
        let state = TunState {
            port: Arc::new(port),
            index,
            mtu: first,
            is_down: false,
            fixed_mtu: mtu,
            peers: BTreeMap::new(),
        };
        self.tuns.insert(name.to_owned(), state);
        Ok(())
    }

    /// Puts back what of ours somebody else took away: rules, routes, and those, and the addresses, that an interface loses
    /// when it is set down.
    pub async fn mend(&mut self, seen: &Seen) {
        let mut restored = Vec::new();
        if self.rules && seen.took_main_rule() {
            for v6 in [false, true] {
                if (!v6 || self.shared.sockets.v6.is_some())
                    && count(self.netlink.add_rule(v6).await)
                {
                    restored.push(format!("the {} rule", if v6 { "IPv6" } else { "IPv4" }));
                }
            }
        }
        for (name, tun) in &mut self.tuns {
            let came_up = match seen.came_up(tun.index, tun.is_down) {
                Some(false) => {
                    if !core::mem::replace(&mut tun.is_down, true) {
                        tracing::warn!(
                            interface = name,
                            "somebody set the interface down: nothing passes its tunnels until it is set up again"
                        );
                    }
                    false
                }
                Some(true) => {
                    tun.is_down = false;
                    true
                }
                None => false,
            };
            if tun.is_down || !(came_up || seen.took_routes() || seen.took_rules()) {
                continue;
            }
            if came_up {
                let own = tun.peers.values().flat_map(|attached| attached.addresses.clone());
                let given = self.configured.values().filter(|(at, _)| at == name);
                let given = given.flat_map(|(_, given)| &given.addresses);
                for (address, len) in own.chain(given.map(|it| (*it, length_of(*it)))) {
                    warn(self.netlink.add_address(tun.index, address, len).await);
                }
            }
            for attached in tun.peers.values() {
                let is_gone = |route: &&Route| came_up || seen.took_route(route.key());
                for route in attached.routes.iter().filter(is_gone) {
                    for route in route.refusal().iter().chain([route]) {
                        if count(self.netlink.restore_route(route).await) {
                            restored.push(format!("the route to {}", route.dst));
                        }
                    }
                }
                for rule in attached.rules.iter().filter(|rule| seen.took_rule(rule)) {
                    if count(self.netlink.add_host_rule(rule).await) {
                        restored.push("a rule of transport mode".to_owned());
                    }
                }
            }
        }
        for rule in self.fixed_rules.iter().filter(|rule| seen.took_rule(rule)) {
            if count(self.netlink.add_host_rule(rule).await) {
                restored.push("a rule of a policy".to_owned());
            }
        }
        restored.dedup();
        if let [first, rest @ ..] = restored.as_slice() {
            let more = rest.len();
            tracing::warn!(
                first,
                more,
                "somebody removed rules or routes of ours: they are there again"
            );
        }
    }

    /// Takes away everything of a peer: routes, and with the last peer of a TUN the TUN, and with the last TUN the
    /// rules. What cannot be removed is logged.
    pub async fn detach(&mut self, peer: &Arc<str>, workers: &Workers) {
        warn(self.set_fixed(peer, Vec::new()).await);
        self.leave_tuns(peer, workers).await;
    }

    async fn leave_tuns(&mut self, peer: &Arc<str>, workers: &Workers) {
        self.configure(peer, None).await;
        let attached = self.forget(peer);
        self.remove_addresses(&attached).await;
        self.remove(attached.into_iter().map(|(_, attached)| attached).collect()).await;
        self.drop_idle(workers).await;
    }

    async fn drop_idle(&mut self, workers: &Workers) {
        let idle = self.tuns.iter().filter(|(_, tun)| tun.peers.is_empty());
        let idle: Vec<_> = idle.map(|(name, tun)| (name.clone(), tun.index)).collect();
        for (name, index) in idle {
            self.tuns.remove(&name);
            // First out of the workers' sight, then gone: a worker forgives a TUN that is not listed any more.
            self.changed = true;
            self.publish(workers);
            warn(self.netlink.remove_link(index).await);
            tracing::info!(interface = name, "TUN interface removed");
        }
        self.changed = true;
        if self.tuns.is_empty() && self.rules {
            self.rules = false;
            let kept = Kept { rules: self.host_rules().collect(), ..Kept::default() };
            if let Err(error) = self.netlink.clean_up(&kept).await {
                tracing::warn!(%error, "something was left behind");
            }
        }
    }

    /// Sets up what a peer configured us with, in place of what it did before: addresses, where packets to it come from, DNS
    /// servers. What cannot be done is logged.
    pub async fn configure(&mut self, peer: &Arc<str>, given: Option<Arc<Configuration>>) {
        let before = self.configured.remove(peer);
        let at = self.tuns.iter().find(|(_, tun)| tun.peers.contains_key(peer));
        let Some((name, index)) = at.map(|(name, tun)| (name.clone(), tun.index)) else { return };
        let addresses = given.as_ref().map(|given| given.addresses.clone()).unwrap_or_default();
        for address in &addresses {
            warn(self.netlink.add_address(index, *address, length_of(*address)).await);
        }
        if before.is_some() || given.is_some() {
            self.set_sources(&name, peer, &addresses).await;
        }
        if let Some(given) = given {
            self.configured.insert(Arc::clone(peer), (name.clone(), given));
        }
        let gone = before.iter().flat_map(|(_, before)| &before.addresses);
        for address in gone.filter(|address| !addresses.contains(address)) {
            let mut others = self.configured.values();
            if !others.any(|(tun, other)| *tun == name && other.addresses.contains(address)) {
                warn(self.netlink.remove_address(index, *address, length_of(*address)).await);
            }
        }
        self.set_dns(&name);
    }

    /// What this host sends to a peer comes from these addresses.
    async fn set_sources(&mut self, name: &str, peer: &Arc<str>, addresses: &[IpAddr]) {
        let Some(attached) = self.tuns.get_mut(name).and_then(|tun| tun.peers.get_mut(peer)) else {
            return;
        };
        for route in &mut attached.routes {
            let v6 = route.dst.addr().is_ipv6();
            let want = addresses.iter().copied().find(|address| address.is_ipv6() == v6);
            if let Via::Tun { source, .. } = &mut route.via
                && *source != want
            {
                *source = want;
                warn(self.netlink.add_route(route).await);
            }
        }
    }

    /// Tells systemd-resolved of the DNS servers of the first peer on a TUN that has any: to ask those of one peer for the names
    /// of another would tell it of them (RFC 8598 §3.3).
    fn set_dns(&mut self, name: &str) {
        let on_it = self.configured.iter().filter(|(_, (tun, _))| tun == name);
        let mut with_dns = on_it.filter(|(_, (_, given))| !given.dns.is_empty());
        let want = with_dns.next().map(|(_, (_, given))| Dns {
            servers: given.dns.clone(),
            domains: given.domains.clone(),
        });
        for (peer, _) in with_dns {
            tracing::warn!(%peer, interface = name, "its DNS servers are not used: another peer on this interface has some. Give it an [interface] name of its own");
        }
        if self.dns.get(name) == want.as_ref() {
            return;
        }
        if self.resolved.is_none() {
            match Resolved::start() {
                Ok(resolved) => self.resolved = Some(resolved),
                Err(error) => tracing::warn!(%error, "DNS servers not set: no thread for it"),
            }
        }
        if let Some(resolved) = &self.resolved {
            resolved.set(name, want.clone());
        }
        match want {
            Some(want) => self.dns.insert(name.to_owned(), want),
            None => self.dns.remove(name),
        };
    }

    /// Sets the MTU of TUNs and routes. `fits`: for each peer with an SA, the longest packet that fits all of its SAs.
    pub async fn set_mtus(&mut self, fits: &BTreeMap<Arc<str>, u16>) {
        for (name, tun) in &mut self.tuns {
            let largest = tun.peers.keys().filter_map(|peer| fits.get(peer)).max();
            let Some(wanted) = tun.fixed_mtu.or(largest.map(|mtu| *mtu.max(&LEAST_MTU))) else {
                continue;
            };
            if wanted != tun.mtu {
                match self.netlink.set_up(tun.index, wanted).await {
                    Ok(()) => {
                        tracing::info!(interface = name, mtu = wanted, "MTU set");
                        tun.mtu = wanted;
                    }
                    Err(error) => tracing::warn!(%error, "MTU not set"),
                }
            }
            for (peer, attached) in &mut tun.peers {
                let Some(fit) = fits.get(peer) else { continue };
                for route in &mut attached.routes {
                    let want = mtu_of(route, *fit, tun.mtu);
                    if let Via::Tun { mtu, .. } = &mut route.via
                        && *mtu != want
                    {
                        *mtu = want;
                        warn(self.netlink.add_route(route).await);
                    }
                }
            }
        }
    }

    /// Whether TUN and routes of a peer are as they are to be with an SA in which packets of this length fit; of one that goes
    /// (not `stays`), whether none is shorter because of it. Only where not, [`set_mtus`](Self::set_mtus) looks at all peers.
    #[must_use]
    pub fn is_as_fits(&self, peer: &Arc<str>, fit: u16, stays: bool) -> bool {
        let on = self.tuns.values().filter_map(|tun| Some((tun, tun.peers.get(peer)?)));
        on.into_iter().all(|(tun, attached)| {
            let is_right = |route: &Route| match route.via {
                Via::Tun { mtu, .. } => mtu == mtu_of(route, fit, tun.mtu),
                Via::Refuse | Via::Throw => true,
            };
            let is_long = match tun.fixed_mtu {
                Some(fixed) => tun.mtu == fixed,
                // Without a route of its own the TUN's is all that it has.
                None if attached.routes.is_empty() => tun.mtu == fit.max(LEAST_MTU),
                None => tun.mtu >= fit,
            };
            if stays { is_long && attached.routes.iter().all(is_right) } else { fit >= tun.mtu }
        })
    }

    /// MTU of a TUN.
    #[must_use]
    pub fn mtu(&self, name: &str) -> Option<u16> {
        self.tuns.get(name).map(|tun| tun.mtu)
    }

    /// Shows the workers the TUNs there are, and the peers of each, if anything is new.
    pub fn publish(&mut self, workers: &Workers) {
        self.local_addresses = None;
        if !core::mem::take(&mut self.changed) {
            return;
        }
        let mut ports = Vec::new();
        for tun in self.tuns.values_mut() {
            let peers: Vec<_> =
                tun.peers.values().flat_map(|attached| attached.selectors.clone()).collect();
            if peers != tun.port.peers {
                let queues = Arc::clone(&tun.port.queues);
                tun.port = Arc::new(TunPort { queues, peers });
            }
            ports.push(Arc::clone(&tun.port));
        }
        self.shared.tuns.store(Arc::new(ports));
        workers.wake();
    }
}

/// Removes what a killed daemon left, where none runs; how many routes and rules there were.
///
/// # Errors
/// If netlink does not work.
pub async fn remove_leftovers() -> Result<usize, NetworkError> {
    let netlink = Netlink::new().map_err(|cause| RouteError {
        action: "open netlink".to_owned(),
        cause: cause.to_string(),
    })?;
    Ok(netlink.clean_up(&Kept::default()).await?)
}

/// The rules that SAs in transport mode need.
fn host_rules(transport: &[&PolicyRef<'_>]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for policy in transport {
        let pairs = policy.ts_local.iter().flat_map(|l| policy.ts_peer.iter().map(|p| (*l, *p)));
        let pairs: Vec<_> = pairs.collect();
        let Some((_, theirs)) = pairs.first() else { continue };
        for rule in rule::for_transport(theirs.start_addr, &pairs) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

/// The MTU of a route, where packets of a length fit, if it is another than that of its TUN.
fn mtu_of(route: &Route, fit: u16, tun: u16) -> Option<u16> {
    let least = if route.dst.addr().is_ipv6() { LEAST_MTU } else { 0 };
    Some(fit.max(least)).filter(|mtu| *mtu < tun)
}

/// Of an address that stands for itself alone.
const fn length_of(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// What to do where a TUN cannot be made.
#[expect(clippy::wildcard_enum_match_arm, reason = "there will be others")]
fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::InvalidInput => {
            "if an interface of another kind has this name, choose one by [interface] name"
        }
        io::ErrorKind::NotFound => {
            "there is no /dev/net/tun: modprobe tun, or, for a container, --device /dev/net/tun"
        }
        io::ErrorKind::PermissionDenied => {
            "it needs CAP_NET_ADMIN: for a container, --cap-add NET_ADMIN"
        }
        io::ErrorKind::ResourceBusy => {
            "another program has it: end that, or choose a name by [interface] name"
        }
        _ => "the kernel needs CONFIG_TUN",
    }
}

/// Whether something was added.
fn count(result: Result<bool, RouteError>) -> bool {
    result.unwrap_or_else(|error| {
        warn(Err(error));
        false
    })
}

fn warn(result: Result<(), RouteError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the network is not as it should be");
    }
}
