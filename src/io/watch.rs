//! What netlink tells of changes in the host's network: addresses and routes of others, and what of ours others took away.
//!
//! What sets up a host's network may take all of it for its own: when systemd-networkd starts, it removes rules that it has
//! not made (`ManageForeignRoutingPolicyRules=`). What the rule led into a tunnel would go on in clear.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use ipnet::IpNet;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::RuleMessage;
use tokio::sync::Notify;

use super::route::{self, PROTOCOL};
use super::rule::{self, Rule};

/// So many removed rules are told apart; if there are more, all may be gone.
const MAX_RULES: usize = 256;

/// What has changed since it was taken the last time.
#[derive(Debug, Default)]
pub struct Changes {
    told: Notify,
    seen: Mutex<Seen>,
}

/// See [`Changes`].
#[derive(Debug, Default)]
pub struct Seen {
    /// Addresses of this host, or routes that are not ours, may be others.
    pub of_host: bool,
    routes: BTreeSet<(u32, IpNet)>,
    rules: Vec<RuleMessage>,
    links: BTreeMap<u32, Link>,
    /// The kernel could not tell everything.
    missed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    was_down: bool,
    is_up: bool,
}

impl Changes {
    /// Begins to watch, until what is returned is dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn watch() -> io::Result<Arc<Self>> {
        const GROUPS: [MulticastGroup; 7] = [
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Link,
        ];
        let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        tokio::spawn(connection);
        let changes = Arc::new(Self::default());
        let told = Arc::downgrade(&changes);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let Some(changes) = told.upgrade() else { return };
                let mut seen = changes.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.note(message.payload) {
                    changes.told.notify_one();
                }
            }
        });
        Ok(changes)
    }

    /// Until something has changed.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// Whether something may be gone that keeps packets from leaving in clear.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.missed || !seen.routes.is_empty() || !seen.rules.is_empty()
    }

    /// What has changed; from then on it counts anew.
    #[must_use]
    pub fn take(&self) -> Seen {
        core::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// Whether a route of ours to this destination may have been removed.
    #[must_use]
    pub fn took_route(&self, (table, dst): (u32, IpNet)) -> bool {
        self.missed || self.routes.contains(&(table, dst.trunc()))
    }

    /// Whether any of them may.
    #[must_use]
    pub fn took_routes(&self) -> bool {
        self.missed || !self.routes.is_empty()
    }

    /// Whether any rule of ours may have been removed.
    #[must_use]
    pub const fn took_rules(&self) -> bool {
        self.missed || !self.rules.is_empty()
    }

    /// Whether the rule that leads to our table may.
    #[must_use]
    pub fn took_main_rule(&self) -> bool {
        self.missed || self.rules.iter().any(route::is_ours)
    }

    /// Whether this rule, of transport mode or a policy, may.
    #[must_use]
    pub fn took_rule(&self, rule: &Rule) -> bool {
        let is_many = self.rules.len() > MAX_RULES;
        self.missed || is_many || self.rules.iter().any(|found| rule.is(found))
    }

    /// Whether an interface is up after it was down, so that it may have lost routes and addresses of which nothing was told;
    /// `None` if nothing has changed. `was_down`: whether it was when this was asked last.
    #[must_use]
    pub fn came_up(&self, index: u32, was_down: bool) -> Option<bool> {
        match self.links.get(&index) {
            Some(link) if link.was_down || was_down => Some(link.is_up),
            Some(_) | None => self.missed.then_some(true),
        }
    }

    /// Whether that tells anything new.
    fn note(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                (self.missed, self.of_host) = (true, true);
                return true;
            }
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | NetlinkPayload::Noop | _ => {
                return false;
            }
        };
        let ours = RouteProtocol::from(PROTOCOL);
        #[expect(clippy::wildcard_enum_match_arm, reason = "some of many messages")]
        match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.protocol == ours => return false,
            RouteNetlinkMessage::DelRoute(route) if route.header.protocol == ours => {
                self.routes.extend(route::place_of(&route));
            }
            RouteNetlinkMessage::DelRule(gone) => {
                let is_ours = route::is_ours(&gone) || rule::is_ours(&gone);
                // One more than can be told apart says that there were more.
                if !is_ours || self.rules.len() > MAX_RULES || self.rules.contains(&gone) {
                    return false;
                }
                self.rules.push(gone);
            }
            RouteNetlinkMessage::NewRule(_) => return false,
            RouteNetlinkMessage::NewLink(link) => {
                let is_up = link.header.flags.contains(LinkFlags::Up);
                let fresh = Link { was_down: false, is_up };
                let known = self.links.entry(link.header.index).or_insert(fresh);
                known.is_up = is_up;
                known.was_down |= !is_up;
            }
            RouteNetlinkMessage::DelLink(link) => {
                self.links.remove(&link.header.index);
                return false;
            }
            _ => self.of_host = true,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkMessage;
    use rtnetlink::packet_route::route::RouteMessage;

    use super::*;

    fn note(seen: &mut Seen, message: RouteNetlinkMessage) -> bool {
        seen.note(NetlinkPayload::InnerMessage(message))
    }

    fn link(index: u32, is_up: bool) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = if is_up { LinkFlags::Up } else { LinkFlags::empty() };
        RouteNetlinkMessage::NewLink(message)
    }

    #[test]
    fn interface_that_was_down_came_up_only_once_it_is() {
        let mut seen = Seen::default();
        assert_eq!(seen.came_up(7, false), None);
        let _new = note(&mut seen, link(7, true));
        assert_eq!(seen.came_up(7, false), None, "it was never down");
        assert_eq!(seen.came_up(7, true), Some(true));
        let _new = note(&mut seen, link(7, false));
        assert_eq!(seen.came_up(7, false), Some(false));
        let _new = note(&mut seen, link(7, true));
        assert_eq!(seen.came_up(7, false), Some(true));
        assert_eq!(seen.came_up(8, false), None);
    }

    #[test]
    fn routes_of_others_are_the_host_s_and_nothing_of_ours() {
        let mut seen = Seen::default();
        assert!(note(&mut seen, RouteNetlinkMessage::DelRoute(RouteMessage::default())));
        assert!(seen.of_host && !seen.took_routes());
        let mut ours = RouteMessage::default();
        ours.header.protocol = RouteProtocol::from(PROTOCOL);
        let mut seen = Seen::default();
        assert!(!note(&mut seen, RouteNetlinkMessage::NewRoute(ours)));
        assert!(!seen.of_host);
    }

    #[test]
    fn rule_that_is_not_ours_may_go() {
        let mut seen = Seen::default();
        assert!(!note(&mut seen, RouteNetlinkMessage::DelRule(RuleMessage::default())));
        assert!(!seen.took_rules());
    }

    #[test]
    fn more_than_the_kernel_could_tell_may_be_everything() {
        let mut seen = Seen::default();
        assert!(seen.note(NetlinkPayload::Overrun(Vec::new())));
        assert!(seen.took_main_rule() && seen.took_routes() && seen.of_host);
        assert_eq!(seen.came_up(7, false), Some(true));
    }
}
