//! What SAs with manual keys must not have in common: within one, within a file, and between files.

use toml::Spanned;

use super::super::diagnostic::Report;
use super::super::raw::{self, Text, WrittenKey};
use crate::ipsec::manual::{ManualKeys, ManualSa, counts};
use crate::ipsec::{Spi, Suite};

/// A key that both directions have is used with each sequence number twice.
pub(super) fn same_both_ways(sa: &ManualSa, manual: &raw::Manual<'_>, report: &mut Report) {
    if let (Some(around), Some(ah)) = (&sa.around, &manual.ah)
        && around.inbound.spi == sa.inbound.spi
    {
        let at = ah.inbound.spi.as_ref().map_or_else(|| ah.span.clone(), Spanned::span);
        let found = report.error(at, "[[manual]] ah.spi-in: the ESP in it has the same");
        found.help("every SA has an SPI of its own");
        if let Some(esp) = &manual.inbound.spi {
            found.related(esp.span(), "there");
        }
    }
    for ((suite, inbound, outbound), written) in
        sa.layers().zip([Some(&manual.outbound), manual.ah.as_ref().map(|ah| &ah.outbound)])
    {
        if counts(suite) && inbound.counted_key() == outbound.counted_key() {
            let key = written.and_then(|keys| keys.key.as_ref().or(keys.auth_key.as_ref()));
            let at = key.map_or_else(|| manual.span.clone(), WrittenKey::span);
            report
                .error(at, "[[manual]]: both directions have one key")
                .label("the same as inbound")
                .help("each its own: with this algorithm, a sequence number used twice under one key gives plaintext away");
        }
    }
}

/// What two of one file must not have in common.
pub(super) fn clash(
    (later, at): (&ManualSa, &raw::Manual<'_>),
    (earlier, other): (&ManualSa, &raw::Manual<'_>),
    report: &mut Report,
) {
    let name_at = |manual: &raw::Manual<'_>| {
        manual.name.as_ref().map_or_else(|| manual.span.clone(), Text::span)
    };
    if later.name == earlier.name {
        report
            .error(name_at(at), format!("[[manual]] name: a second `{}`", later.name))
            .related(name_at(other), "the first")
            .help("give each its own name");
    }
    let overlap = || {
        let pairs = later.ts_local.iter().flat_map(|l| later.ts_peer.iter().map(move |p| (l, p)));
        pairs.into_iter().any(|(l, p)| {
            earlier.ts_local.iter().any(|o| o.intersect(l).is_some())
                && earlier.ts_peer.iter().any(|o| o.intersect(p).is_some())
        })
    };
    if overlap() {
        report
            .error(
                name_at(at),
                format!("[[manual]] `{}` overlaps the selectors of `{}`", later.name, earlier.name),
            )
            .related(name_at(other), "this one")
            .help("a packet can take one SA only: write selectors that do not meet");
    }
    for clash in spi_clashes(later.layers(), earlier.layers().collect()) {
        let (keys, name) = match clash {
            Clash::Inbound(_) => (&at.inbound, "spi-in"),
            Clash::Outbound(_) => (&at.outbound, "spi-out"),
            Clash::Key => {
                report
                    .error(name_at(at), format!("[[manual]] `{}` has a key of `{}`", later.name, earlier.name))
                    .related(name_at(other), "this one")
                    .help("each SA its own: with this algorithm, a sequence number used twice under one key gives plaintext away");
                continue;
            }
        };
        let spi = keys.spi.as_ref().map_or_else(|| at.span.clone(), Spanned::span);
        report
            .error(spi, format!("[[manual]] {name}: `{}` has the same", earlier.name))
            .related(name_at(other), "there")
            .help("every SA has an SPI of its own");
    }
}

/// What SAs have in common that they must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Clash {
    /// An SPI of ours.
    Inbound(Spi),
    /// An SPI of the peer's.
    Outbound(Spi),
    /// A key, with an algorithm that counts.
    Key,
}

type Layer<'a> = (Suite, &'a ManualKeys, &'a ManualKeys);

/// Of SAs with one peer.
pub(in super::super) fn spi_clashes<'a>(
    later: impl Iterator<Item = Layer<'a>>,
    earlier: Vec<Layer<'a>>,
) -> Vec<Clash> {
    let mut found = Vec::new();
    for (suite, inbound, outbound) in later {
        for (other, other_in, other_out) in &earlier {
            // The SAD finds inbound SAs of either protocol by SPI alone (RFC 4301 §4.1).
            if inbound.spi == other_in.spi {
                found.push(Clash::Inbound(inbound.spi));
            }
            if outbound.spi == other_out.spi && suite.protocol() == other.protocol() {
                found.push(Clash::Outbound(outbound.spi));
            }
            let counted = counts(suite) && counts(*other);
            let same = |a: &ManualKeys, b: &ManualKeys| a.counted_key() == b.counted_key();
            let any = [inbound, outbound]
                .into_iter()
                .any(|key| same(key, other_in) || same(key, other_out));
            if counted && any {
                found.push(Clash::Key);
            }
        }
    }
    found
}
