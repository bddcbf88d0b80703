//! Which services each SA gives, in the words of the control protocol.

use super::names::Names;
use super::status::mode_name;
use crate::control::services::{SaServices, Service};
use crate::datapath::Datapath;
use crate::datapath::tap::Direction;
use crate::ipsec::sad::Bundle;
use crate::ipsec::{SaParams, services};

/// Of every SA, or those of one peer. A bundle is one.
#[must_use]
pub fn of(datapath: &Datapath, names: &Names, only: Option<&str>) -> Vec<SaServices> {
    let sad = datapath.sad();
    let outbound = sad.all_outbound().map(|entry| {
        let around = entry.sa.around().map(|around| around.params());
        one(entry.sa.params(), around, Direction::Outbound, names)
    });
    let inbound = sad.all_inbound().filter_map(|entry| {
        let around = match entry.bundle {
            Some(Bundle::Around(_)) => return None,
            Some(Bundle::Inside(spi)) => sad.inbound(spi).map(|around| around.sa.params()),
            None => None,
        };
        Some(one(entry.sa.params(), around, Direction::Inbound, names))
    });
    let mut all: Vec<_> =
        outbound.chain(inbound).filter(|sa| only.is_none_or(|only| sa.peer == only)).collect();
    let key = |sa: &SaServices| (sa.peer.clone(), sa.child.clone(), sa.direction.clone());
    all.sort_by_key(key);
    all
}

fn one(
    params: &SaParams,
    around: Option<&SaParams>,
    direction: Direction,
    names: &Names,
) -> SaServices {
    let given = services::of(params, around, direction == Direction::Inbound);
    SaServices {
        peer: params.peer.to_string(),
        child: names.get(params.policy).map(|(_, child)| child.to_owned()),
        direction: direction.name().to_owned(),
        spi: params.spi.to_string(),
        suite: match around {
            Some(around) => format!("{} in {}", params.suite, around.suite),
            None => params.suite.to_string(),
        },
        mode: mode_name(params.mode).to_owned(),
        services: given
            .into_iter()
            .map(|it| Service {
                service: it.service.name().to_owned(),
                given: it.given,
                why: it.why,
            })
            .collect(),
    }
}
