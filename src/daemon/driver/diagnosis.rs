//! What clients want to know of packets and SAs: `explain`, `trace`, `services`.

use super::*;
use crate::control::explain::Question;
use crate::daemon::{explain, services, trace};

impl Driver {
    /// Answers from the snapshot of this moment. The kernel's answer may take its time, for which nobody waits.
    pub(super) fn explain(&self, question: Question, reply: jobs::Reply) {
        let datapath = self.shared.datapath.load_full();
        let names = self.shared.names.load_full();
        let tuns = self.shared.tuns.load();
        let tuns: Vec<_> = tuns.iter().map(|tun| tun.device.name().to_owned()).collect();
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
        let failure = match (filter.parse(), Arc::clone(&self.traces).try_acquire_owned()) {
            (Ok(filter), Ok(place)) => {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move {
                    trace::follow(shared, filter, count, reply).await;
                    drop(place);
                });
                return;
            }
            (Err(error), _) => Failure { code: Code::BadRequest, message: format!("{error}") },
            (Ok(_), Err(_)) => {
                let message = format!("{MAX_TRACES} traces run already: end one of them");
                Failure { code: Code::System, message }
            }
        };
        let _gone = reply.try_send(Body::Error(failure));
    }
}
