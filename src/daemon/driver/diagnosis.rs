//! What clients want to know of packets and SAs: `explain`, `trace`, `services`.

use super::*;
use crate::control::explain::Question;
use tokio::sync::OwnedSemaphorePermit;

use crate::control::capture::Wanted;
use crate::daemon::{capture, explain, services, trace};
use crate::datapath::filter::{Filter, FilterError};

impl Driver {
    /// Answers from the snapshot of this moment. The kernel's answer may take its time, for which nobody waits.
    pub(super) fn explain(&self, question: Question, reply: jobs::Reply) {
        let datapath = self.shared.datapath.load_full();
        let names = self.shared.names.load_full();
        let tuns = self.shared.tuns.load();
        let tuns: Vec<_> = tuns.iter().map(|tun| tun.device().name().to_owned()).collect();
        let netlink = self.network.netlink().clone();
        tokio::spawn(async move {
            let told = explain::explain(&question, &datapath, &names, Some(&netlink), &tuns).await;
            let body = match told {
                Ok(told) => Body::Explanation(Box::new(told)),
                Err(failure) => Body::Error(failure),
            };
            let _gone = reply.send(body).await;
        });
    }

    /// Which services each SA gives.
    pub(super) fn services(&self, only: Option<&str>) -> Body {
        if let Some(name) = only.filter(|name| !self.peers.contains_key(*name)) {
            let message = format!("no peer is named {name}");
            return Body::Error(Failure { code: Code::NotFound, message });
        }
        Body::Services(services::of(&self.shared.datapath.load(), &self.shared.names.load(), only))
    }

    /// Begins a trace, which ends with its client.
    pub(super) fn trace(&self, filter: &str, count: Option<u64>, reply: jobs::Reply) {
        let Some((filter, place)) = self.listener(filter, &reply) else { return };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            trace::follow(shared, filter, count, reply).await;
            drop(place);
        });
    }

    /// Begins a capture, which ends with its client.
    pub(super) fn capture(&self, wanted: Wanted, reply: jobs::Reply) {
        let Some((filter, place)) = self.listener(&wanted.filter, &reply) else { return };
        let shared = Arc::clone(&self.shared);
        let keylog = self.keylog.as_ref().map(|log| log.dir().to_owned());
        tracing::warn!("packets are captured in clear for a client of the control socket");
        tokio::spawn(async move {
            capture::follow(shared, filter, &wanted, keylog, reply).await;
            drop(place);
        });
    }

    /// A place among those that listen; `None` if there is none, or the filter is wrong, which was answered.
    fn listener(
        &self,
        filter: &str,
        reply: &jobs::Reply,
    ) -> Option<(Filter, OwnedSemaphorePermit)> {
        let failure = match (filter.parse(), Arc::clone(&self.traces).try_acquire_owned()) {
            (Ok(filter), Ok(place)) => return Some((filter, place)),
            (Err(error), _) => {
                let error: FilterError = error;
                Failure { code: Code::BadRequest, message: error.to_string() }
            }
            (Ok(_), Err(_)) => {
                let message = format!("{MAX_TRACES} traces run already: end one of them");
                Failure { code: Code::System, message }
            }
        };
        let _gone = reply.try_send(Body::Error(failure));
        None
    }
}
