//! A tunnel that stands, and what is held against it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::far::Far;
use crate::ground::{End, Ground, Seen};
use crate::lab::uml::{Guest, Host, Local, Probe};
use crate::lab::{Ipsecd, wait};
use crate::tunnel::Tunnel;

/// How long the two may take over what they have to agree on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Packets that these are in all, at the least.
const LEAST: u64 = 20;

/// Pings a second during a rekey.
const RATE: u32 = 200;

/// Pings, and bytes over TCP, that each end sends to the other.
const PINGS: &[usize] = &[56, 1_000];
const TCP: usize = 20_000;

/// The two ends before anything has begun.
pub(crate) struct Stage<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) guest: Guest<'a>,
    near: Local<'a>,
    pub(crate) far: &'a dyn Far,
}

impl<'a> Stage<'a> {
    #[track_caller]
    pub(crate) fn open(ground: &'a Ground, far: &'a dyn Far) -> Self {
        ground.watch(&[]);
        Self { ground, guest: ground.guest(), near: ground.near(), far }
    }

    /// Starts both as `tunnel` says, and lets nobody begin.
    #[track_caller]
    pub(crate) fn prepare(&self, tunnel: &Tunnel) -> Session<'_> {
        let tunnel = self.far.within_reach(tunnel);
        self.ground.watch(tunnel.nat);
        self.far.start(&self.guest, &tunnel);
        let dir = self.ground.dir("gw");
        let ipsecd = Ipsecd::start_for_file_in(&self.ground.gw, &dir, tunnel.write(&dir));
        Session { stage: self, tunnel, ipsecd }
    }

    /// Brings `tunnel` up and sees traffic through it.
    #[track_caller]
    pub(crate) fn meet(&self, tunnel: &Tunnel) -> Session<'_> {
        let session = self.prepare(tunnel);
        session.begin();
        session.carry();
        session
    }

    /// Ends the peer at once, telling nobody, and takes away what a case has left in the kernel.
    pub(crate) fn clear(&self) {
        self.near.ask(&json!({ "settle": true }));
        self.far.kill(&self.guest);
        self.guest.run("ip xfrm state flush; ip xfrm policy flush");
    }

    /// The tail of all logs.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.ground.dir("gw").join("ipsecd.log"));
        let answer =
            self.guest.ask(&json!({ "run": "ip -s xfrm state; awk '$2' /proc/net/xfrm_stat" }));
        format!(
            "--- ipsecd\n{}\n--- {}\n{}\n--- kernel\n{}\n--- router\n{:?}\n",
            tail(&log.unwrap_or_default()),
            self.far.name(),
            tail(&self.far.log(&self.guest)),
            tail(answer["output"].as_str().unwrap_or_default()),
            self.ground.seen()
        )
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(8_192);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// One tunnel.
pub(crate) struct Session<'a> {
    pub(crate) stage: &'a Stage<'a>,
    pub(crate) tunnel: Tunnel,
    pub(crate) ipsecd: Ipsecd<'a>,
}

impl<'a> Session<'a> {
    /// Lets the one begin whose turn it is, and waits until the CHILD_SA stands.
    #[track_caller]
    pub(crate) fn begin(&self) {
        let children = self.tunnel.peers_children();
        let names: Vec<_> = children.into_iter().map(|(name, _)| name).collect();
        self.ipsecd.must_up();
        // What is exported says that it begins of itself.
        if self.tunnel.begins == End::Peer
            && !self.tunnel.exported
            && let Err(said) = self.stage.far.begin(&self.stage.guest, &names)
        {
            panic!("{} does not come up: {said}", self.stage.far.name());
        }
        self.ipsecd.up_within(PATIENCE);
        assert_eq!(self.ipsecd.ike()["initiator"], self.tunnel.begins == End::Ipsecd);
    }

    /// Has the CHILD_SA rekeyed, and waits until another is in its place.
    #[track_caller]
    pub(crate) fn rekeyed(&self, what: &str, rekey: impl FnOnce()) {
        let old = self.ipsecd.child()["spi_inbound"].clone();
        rekey();
        wait::until(what, PATIENCE, || (self.ipsecd.child()["spi_inbound"] != old).then_some(()));
    }

    /// Lets packets of all networks pass, begun by either; nothing may have gone in clear, and all in the form expected.
    #[track_caller]
    pub(crate) fn carry(&self) {
        let ground = self.stage.ground;
        let before = ground.seen();
        let near = (&self.stage.near as &dyn Host, "ipsecd", End::Ipsecd);
        let far = (&self.stage.guest as &dyn Host, self.stage.far.name(), End::Peer);
        for (host, name, end) in [near, far] {
            let flows = self.tunnel.flows(end);
            let probes: Vec<_> = flows
                .iter()
                .map(|&[source, target]| Probe { source, target, pings: PINGS, size: TCP })
                .collect();
            for (flow, fault) in flows.iter().zip(host.probe(&probes)) {
                assert_eq!(fault, None, "from {name}, {flow:?}");
            }
        }
        let seen = ground.seen();
        let moved = |count: fn(&Seen) -> u64| count(&seen) - count(&before);
        let forms =
            [moved(|seen| seen.esp), moved(|seen| seen.ah), moved(|seen| seen.encapsulated)];
        let form = if !self.tunnel.nat.is_empty() { 2 } else { usize::from(self.tunnel.ah) };
        for (at, &count) in forms.iter().enumerate() {
            let expected = if at == form { count >= LEAST } else { count == 0 };
            assert!(expected, "the router saw {before:?}, then {seen:?}");
        }
        assert_eq!(moved(|seen| seen.clear), 0, "in clear: {before:?}, {seen:?}");
    }

    /// The kernel's SAs, `ip -s xfrm state`.
    #[track_caller]
    pub(crate) fn kernel(&self) -> String {
        self.stage.guest.run("ip -s xfrm state")
    }

    /// The SPIs of all SAs, IKE's too, at both ends.
    #[track_caller]
    pub(crate) fn spis(&self) -> BTreeSet<String> {
        let kernel = self.kernel();
        let kernel = kernel.split("spi ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        let mut spis: BTreeSet<_> = kernel.map(str::to_owned).collect();
        let status = self.ipsecd.status();
        for sa in status["peers"][0]["ike_sas"].as_array().into_iter().flatten() {
            spis.insert(sa["spi_i"].to_string());
            for child in sa["child_sas"].as_array().into_iter().flatten() {
                spis.insert(child["spi_inbound"].to_string());
            }
        }
        spis
    }

    /// Waits until neither end has any of these any more.
    #[track_caller]
    pub(crate) fn gone(&self, old: &BTreeSet<String>) {
        assert!(!old.is_empty(), "there were SAs");
        let gone = wait::within(PATIENCE, || self.spis().is_disjoint(old).then_some(()));
        assert!(
            gone.is_some(),
            "{old:?} are still there\n{}\n{:#}",
            self.kernel(),
            self.ipsecd.status()
        );
    }

    /// Ends it from our side: nothing is left at either end.
    #[track_caller]
    pub(crate) fn end(self) {
        let answers = || self.ipsecd.log().matches("DELETE answered").count();
        let before = answers();
        self.ipsecd.down();
        wait::until("the DELETE to be answered", PATIENCE, || (answers() > before).then_some(()));
        wait::until("all SAs to be gone", PATIENCE, || self.spis().is_empty().then_some(()));
        assert!(self.ipsecd.stop().success());
        self.stage.clear();
    }

    /// Sends two hundred pings a second until `work` is done: none may be lost, or answered twice.
    #[track_caller]
    pub(crate) fn under_traffic(&self, work: impl FnOnce()) {
        self.under_traffic_of(self.stage.far.may_send_early(), work);
    }

    /// As [`Session::under_traffic`]; with `early`, the peer may send with a new CHILD_SA before its answer is here.
    #[track_caller]
    pub(crate) fn under_traffic_of(&self, early: bool, work: impl FnOnce()) {
        let [source, target] = self.tunnel.flows(End::Ipsecd)[0];
        let near = &self.stage.near;
        near.ask(&json!({ "stream": [source, target, RATE] }));
        work();
        let account = near.ask(&json!({ "settle": true }));
        assert!(account["sent"].as_u64().is_some_and(|sent| sent > u64::from(RATE)), "{account}");
        assert_eq!(account["twice"], json!([]), "{account}");
        let lost = account["lost"].as_array().map_or(0, Vec::len) as u64;
        let status = self.ipsecd.status();
        let came_early = status["drops"]["no-inbound-sa"].as_u64().unwrap_or_default();
        assert!(
            lost <= if early { came_early } else { 0 },
            "lost {lost}, {came_early} came before their SA\n{account}\n{status:#}"
        );
    }
}
