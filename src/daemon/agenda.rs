//! Which peers are to be looked at: those of which there is news, and those with something due. Ten thousand others are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub struct Agenda {
    /// There may be news of every peer.
    all: bool,
    news: BTreeSet<Arc<str>>,
    /// When something is due of a peer, twice: to find a peer's, and to find the first.
    due_of: BTreeMap<Arc<str>, Instant>,
    by_time: BTreeSet<(Instant, Arc<str>)>,
}

impl Agenda {
    /// Something happened with a peer.
    pub fn note(&mut self, peer: &Arc<str>) {
        if !self.all && !self.news.contains(peer) {
            self.news.insert(Arc::clone(peer));
        }
    }

    /// Something happened that may concern any peer.
    pub fn note_all(&mut self) {
        self.all = true;
        self.news.clear();
    }

    /// When something is due of a peer, as of a look at it; `None`: nothing any more.
    pub fn set(&mut self, peer: &Arc<str>, due: Option<Instant>) {
        if self.due_of.get(peer).copied() == due {
            return;
        }
        if let Some(before) = self.due_of.remove(peer) {
            self.by_time.remove(&(before, Arc::clone(peer)));
        }
        if let Some(due) = due {
            self.due_of.insert(Arc::clone(peer), due);
            self.by_time.insert((due, Arc::clone(peer)));
        }
    }

    /// When the first thing is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Those to look at by now, of all that there are; from here on there is no news.
    pub fn take<'a>(
        &mut self,
        now: Instant,
        all: impl Iterator<Item = &'a Arc<str>>,
    ) -> BTreeSet<Arc<str>> {
        let mut peers = core::mem::take(&mut self.news);
        if core::mem::take(&mut self.all) {
            peers.extend(all.cloned());
        }
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        peers.extend(due.map(|(_, peer)| Arc::clone(peer)));
        peers
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::io::clock;

    fn names() -> Vec<Arc<str>> {
        ["a", "b", "c", "d"].map(Arc::from).to_vec()
    }

    fn taken(agenda: &mut Agenda, now: Instant) -> String {
        let names = names();
        agenda.take(now, names.iter()).iter().map(|name| &**name).collect()
    }

    #[test]
    fn only_peers_with_news_or_with_something_due_are_looked_at() {
        let (mut agenda, now) = (Agenda::default(), clock::now());
        let [a, b, c, _] = <[_; 4]>::try_from(names()).unwrap();
        assert_eq!(taken(&mut agenda, now), "");
        agenda.note(&b);
        agenda.note(&b);
        assert_eq!(taken(&mut agenda, now), "b");
        assert_eq!(taken(&mut agenda, now), "", "no news any more");
        agenda.set(&a, Some(now + Duration::from_secs(2)));
        agenda.set(&c, Some(now + Duration::from_secs(1)));
        assert_eq!(agenda.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(taken(&mut agenda, now), "");
        assert_eq!(taken(&mut agenda, now + Duration::from_secs(1)), "c");
        assert_eq!(
            taken(&mut agenda, now + Duration::from_secs(2)),
            "ac",
            "until that is set anew"
        );
        agenda.set(&c, None);
        agenda.set(&a, Some(now + Duration::from_secs(3)));
        assert_eq!(taken(&mut agenda, now + Duration::from_secs(2)), "");
        assert_eq!(agenda.next(), Some(now + Duration::from_secs(3)));
        agenda.set(&a, None);
        assert_eq!(agenda.next(), None);
        assert!(agenda.due_of.is_empty());
    }

    #[test]
    fn what_may_concern_anybody_has_all_of_them_looked_at_once() {
        let (mut agenda, now) = (Agenda::default(), clock::now());
        agenda.note_all();
        agenda.note(&"a".into());
        assert_eq!(taken(&mut agenda, now), "abcd");
        assert_eq!(taken(&mut agenda, now), "");
    }
}
