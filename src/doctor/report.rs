//! What was found: [`Report`], its text and its JSON.

use core::fmt::{self, Write as _};

use serde::Serialize;

use crate::config::Config;

/// What one check has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Something is wrong.
    Found(Finding),
    /// It was checked, and is right: of what, and what was seen.
    Healthy(&'static str, String),
    /// It could not be checked: of what, and why.
    Unchecked(&'static str, String),
}

/// Something that is wrong, and how to set it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind it is.
    pub kind: Kind,
    /// The cause in one line, no full stop.
    pub cause: String,
    /// What was seen that shows it.
    pub seen: Vec<String>,
    /// What to do, the likeliest first.
    pub fix: Vec<String>,
    /// Lines for our configuration file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipsecd: Vec<String>,
    /// Lines for the swanctl.conf of a strongSwan at the far end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub swanctl: Vec<String>,
}

/// What a finding is about, what causes others first: a finding hides nothing that stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// This host's clock.
    Clock,
    /// /dev/net/tun.
    Tun,
    /// Privileges of the process.
    Capabilities,
    /// Another IKE daemon has the ports.
    PortTaken,
    /// The peer's name leads nowhere.
    Resolve,
    /// `[local] address` is none of this host's.
    LocalAddress,
    /// No route to the peer.
    Route,
    /// Packets are dropped for the way that they came.
    RpFilter,
    /// A packet filter of this host.
    Firewall,
    /// Subnets that overlap.
    Subnets,
    /// A certificate's time.
    Expired,
    /// A CA that one side does not know.
    Ca,
    /// Nobody answers.
    PeerDown,
    /// One of the UDP ports is blocked on the way.
    PortBlocked,
    /// Fragments are lost on the way.
    Fragments,
    /// NAT.
    Nat,
    /// No proposal in common.
    Proposal,
    /// An identity.
    Identity,
    /// Key or certificate.
    Auth,
    /// No traffic selectors in common.
    Selectors,
    /// Perfect forward secrecy: the first rekey will fail.
    Pfs,
    /// Whatever else IKE says.
    Ike,
    /// The path's MTU is less than anybody knows.
    Mtu,
    /// This host does not forward.
    Forwarding,
    /// Established, and no packets.
    Traffic,
    /// The pre-shared key looks odd.
    Secret,
    /// The configuration, warnings of `check`.
    Configuration,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The peer's name.
    pub peer: String,
    /// Its configuration file.
    pub file: String,
    /// What is wrong; the cause first.
    pub findings: Vec<Finding>,
    /// What is right.
    pub healthy: Vec<Line>,
    /// What could not be checked.
    pub unchecked: Vec<Line>,
}

/// A check that found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was checked.
    pub check: &'static str,
    /// What was seen, or why it could not be.
    pub text: String,
}

impl Finding {
    /// A finding with its cause alone.
    pub(super) fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
            seen: Vec::new(),
            fix: Vec::new(),
            ipsecd: Vec::new(),
            swanctl: Vec::new(),
        }
    }

    pub(super) fn seen(mut self, seen: impl Into<String>) -> Self {
        self.seen.push(seen.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    pub(super) fn ipsecd(mut self, lines: &[&str]) -> Self {
        self.ipsecd.extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }

    pub(super) fn swanctl(mut self, lines: &[&str]) -> Self {
        self.swanctl.extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }
}

impl From<Finding> for Note {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

impl Report {
    pub(super) fn new(config: &Config, notes: Vec<Note>) -> Self {
        let mut report = Self {
            peer: config.name().to_string(),
            file: config.file.display().to_string(),
            findings: Vec::new(),
            healthy: Vec::new(),
            unchecked: Vec::new(),
        };
        for note in notes {
            match note {
                Note::Found(finding) => report.findings.push(finding),
                Note::Healthy(check, text) => report.healthy.push(Line { check, text }),
                Note::Unchecked(check, text) => report.unchecked.push(Line { check, text }),
            }
        }
        // Stable: of one kind, the first that was found stays first.
        report.findings.sort_by_key(|finding| finding.kind);
        report
    }
}

/// For a terminal, without colour.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.findings.len() {
            0 => writeln!(f, "{}: nothing wrong was found", self.peer)?,
            1 => writeln!(f, "{}: 1 finding", self.peer)?,
            n => writeln!(f, "{}: {n} findings, the cause first", self.peer)?,
        }
        for (number, finding) in (1..).zip(&self.findings) {
            writeln!(f, "\n{number}. {}", finding.cause)?;
            for seen in &finding.seen {
                writeln!(f, "   seen: {seen}")?;
            }
            for fix in &finding.fix {
                writeln!(f, "   fix:  {fix}")?;
            }
            let ours = format!("here, in {}:", self.file);
            for (place, lines) in [
                (&*ours, &finding.ipsecd),
                ("at a strongSwan far end, in swanctl.conf:", &finding.swanctl),
            ] {
                if !lines.is_empty() {
                    writeln!(f, "   {place}")?;
                    lines.iter().try_for_each(|line| writeln!(f, "     {line}"))?;
                }
            }
        }
        for (title, lines) in [("healthy", &self.healthy), ("not checked", &self.unchecked)] {
            if !lines.is_empty() {
                writeln!(f, "\n{title}:")?;
            }
            for Line { check, text } in lines {
                writeln!(f, "  {check:<14} {text}")?;
            }
        }
        Ok(())
    }
}

/// Items with `, ` between; `none` for none.
pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing into a String does not fail.
        let _infallible = write!(text, "{item}");
    }
    if text.is_empty() { "none".to_owned() } else { text }
}
