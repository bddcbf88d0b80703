//! Metrics in the OpenMetrics format: every family there is ([`FAMILIES`], documented in `docs/metrics.md`), and the values
//! of one moment ([`Snapshot`]). Who reads them is served by [`http`].

pub mod http;

use core::fmt;
use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Several values under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name; that of a counter is followed by `_total` where it is read.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether it can fall.
    pub kind: Kind,
}

/// What a value does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, while the daemon lives.
    Counter,
    /// It rises and falls.
    Gauge,
}

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal, $help:literal;)*) => {
        $($(#[$doc])* pub const $constant: Family =
            Family { name: $name, help: $help, kind: Kind::$kind };)*

        /// Every family, in the order in which they are written.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    /// Of the daemon itself.
    BUILD_INFO = Gauge "ipsecd_build_info", "Always 1: version, commit and features of the daemon";
    /// Of the process.
    START_TIME = Gauge "process_start_time_seconds", "When the daemon was started, in seconds since 1970";
    /// Of the process.
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes", "Memory of the daemon that is in RAM";
    /// Of the process.
    CPU = Counter "process_cpu_seconds", "Processor time that the daemon has taken, user and system";
    /// Of the configuration.
    TUNNELS = Gauge "ipsecd_tunnels", "Configured peers, by state";
    /// Of a peer.
    TUNNEL_UP = Gauge "ipsecd_tunnel_up", "1 if every CHILD_SA of the peer that is to be up is installed, else 0";
    /// Of a peer.
    TUNNEL_WANTED = Gauge "ipsecd_tunnel_wanted", "1 if the daemon keeps the peer up of itself, 0 if traffic or the peer begins";
    /// Of a peer.
    TUNNEL_RETRIES = Counter "ipsecd_tunnel_failures", "Attempts to bring the peer up that failed, and losses of its SAs";
    /// Of a peer.
    IKE_SAS = Gauge "ipsecd_ike_sas", "IKE SAs with the peer, by state";
    /// Of a peer.
    CHILD_SAS = Gauge "ipsecd_child_sas", "CHILD_SAs, and pairs of SAs with manual keys, with the peer";
    /// Of a policy.
    PACKETS = Counter "ipsecd_tunnel_packets", "Inner packets that passed, by peer, child policy and direction, over all its SAs";
    /// Of a policy.
    BYTES = Counter "ipsecd_tunnel_bytes", "Bytes of inner packets that passed, by peer, child policy and direction, over all its SAs";
    /// Of the datapath.
    DROPPED = Counter "ipsecd_dropped_packets", "Packets dropped, by reason";
    /// Of the datapath.
    KEEPALIVES = Counter "ipsecd_nat_keepalives_received", "NAT keepalives received";
    /// Of the datapath.
    BYPASSED = Counter "ipsecd_bypassed_packets", "Packets that passed unprotected since a policy says so";
    /// Of IKE.
    ESTABLISHED = Counter "ipsecd_sas_established", "SAs established other than by rekeying, by kind";
    /// Of IKE.
    REKEYS = Counter "ipsecd_rekeys", "SAs replaced by rekeying, by kind";
    /// Of IKE.
    REKEYS_REFUSED = Counter "ipsecd_rekeys_refused", "Rekeys that a peer refused, by kind";
    /// Of IKE.
    DPD_CHECKS = Counter "ipsecd_dpd_checks", "Liveness checks sent";
    /// Of IKE.
    DPD_TIMEOUTS = Counter "ipsecd_dpd_timeouts", "IKE SAs given up since the peer did not answer";
    /// Of IKE.
    AUTH_FAILURES = Counter "ipsecd_authentication_failures", "Authentications that failed, of peers and of ours";
    /// At the door.
    INIT_REQUESTS = Counter "ipsecd_ike_sa_init_requests", "IKE_SA_INIT requests for a new IKE SA, by what became of them";
    /// At the door.
    COOKIES = Counter "ipsecd_ike_cookies_sent", "Answers to IKE_SA_INIT that asked for a cookie";
    /// At the door.
    PUZZLES = Counter "ipsecd_ike_puzzles_sent", "Answers to IKE_SA_INIT that asked for a puzzle to be solved";
    /// At the door.
    HALF_OPEN = Gauge "ipsecd_ike_half_open", "IKE SAs as responder whose initiator is not authenticated";
    /// At the door.
    EVICTED = Counter "ipsecd_ike_half_open_evicted", "Half-open IKE SAs that made room for others";
    /// At the door.
    KEY_WORK = Counter "ipsecd_ike_key_work_units", "Work with keys that IKE_SA_INIT requests took, in units of docs/limits.md";
    /// Of the operator.
    RELOADS = Counter "ipsecd_reloads", "Times that the configuration was read again, by result";
}

/// The values of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot(BTreeMap<&'static str, Vec<Sample>>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: f64,
    /// Counters are exact as long as they are whole.
    whole: Option<u64>,
}

impl Snapshot {
    /// Notes a whole value.
    pub fn add(&mut self, family: Family, labels: &[(&'static str, &str)], value: u64) {
        // Only the exact form of a counter is written; a gauge of this size there is none.
        #[expect(clippy::cast_precision_loss, reason = "gauges here are below 2^53")]
        self.push(family, labels, value as f64, Some(value));
    }

    /// Notes a value that need not be whole.
    pub fn add_float(&mut self, family: Family, labels: &[(&'static str, &str)], value: f64) {
        self.push(family, labels, value, None);
    }

    fn push(
        &mut self,
        family: Family,
        labels: &[(&'static str, &str)],
        value: f64,
        whole: Option<u64>,
    ) {
        let labels = labels.iter().map(|(name, value)| (*name, escaped(value))).collect();
        self.0.entry(family.name).or_default().push(Sample { labels, value, whole });
    }

    /// As OpenMetrics text, version 1.0.0.
    ///
    /// # Errors
    /// None that these values can cause, but those of `fmt`.
    pub fn open_metrics(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    /// As text of the older Prometheus format, version 0.0.4, for what does not read OpenMetrics.
    ///
    /// # Errors
    /// As of [`open_metrics`](Self::open_metrics).
    pub fn plain(self) -> Result<String, fmt::Error> {
        let text = self.open_metrics()?;
        let mut out = String::with_capacity(text.len());
        for line in text.lines().filter(|line| *line != "# EOF") {
            // There, a counter's description has the name that its values have.
            let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
                let rest = line.strip_prefix(word)?;
                let (name, rest) = rest.split_once(' ')?;
                let family = FAMILIES.iter().find(|family| family.name == name)?;
                (family.kind == Kind::Counter).then(|| format!("{word}{name}_total {rest}"))
            });
            out.push_str(described.as_deref().unwrap_or(line));
            out.push('\n');
        }
        Ok(out)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            let Some(samples) = self.0.get(family.name) else { continue };
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in samples {
                if sample.labels.is_empty() {
                    sample.encode(family.kind, &mut metric)?;
                } else {
                    sample.encode(family.kind, &mut metric.encode_family(&sample.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, kind: Kind, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self.whole) {
            (Kind::Counter, Some(value)) => {
                metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
            }
            (Kind::Counter, None) => {
                metric.encode_counter::<NoLabelSet, f64, u64>(&self.value, None)
            }
            (Kind::Gauge, Some(value)) => metric.encode_gauge(&value),
            (Kind::Gauge, None) => metric.encode_gauge(&self.value),
        }
    }
}

/// The value of a label as both formats have it between its quotes, which the library leaves to us.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sample() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.add(TUNNEL_UP, &[("peer", "a\"b")], 1);
        snapshot.add(REKEYS, &[("kind", "ike")], u64::MAX);
        snapshot.add(HALF_OPEN, &[], 7);
        snapshot.add_float(CPU, &[], 1.5);
        snapshot
    }

    #[test]
    fn counters_are_exact_and_names_follow_each_format() {
        let open = sample().open_metrics().unwrap();
        for line in [
            "# TYPE ipsecd_rekeys counter",
            "ipsecd_rekeys_total{kind=\"ike\"} 18446744073709551615",
            "ipsecd_tunnel_up{peer=\"a\\\"b\"} 1",
            "ipsecd_ike_half_open 7",
            "process_cpu_seconds_total 1.5",
        ] {
            assert!(open.lines().any(|other| other == line), "{line} is not in:\n{open}");
        }
        assert!(open.ends_with("# EOF\n"));
        let plain = sample().plain().unwrap();
        assert!(plain.contains("# TYPE ipsecd_rekeys_total counter\n"), "{plain}");
        assert!(!plain.contains("EOF"));
    }

    #[test]
    fn names_are_unique_and_have_their_unit_at_the_end() {
        let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
        for family in FAMILIES {
            assert!(!family.name.ends_with("_total"), "{family:?}");
            assert!(!family.help.ends_with('.'), "{family:?}");
            assert!(family.name.starts_with("ipsecd_") || family.name.starts_with("process_"));
        }
    }
}
