//! What passes without IPsec, or does not pass, in other programs: `[[policy]]` of ours, in a file of their own.

use zeroize::Zeroizing;

use super::draft::Table;
use super::selector::{narrowed, subnet};
use super::{At, Import, file_name};
use crate::config;
use crate::ipsec::fixed::check_routable;

/// Such a policy, as it was written elsewhere.
pub(super) struct Shunt<'a> {
    pub(super) name: &'a str,
    /// What it is, for notes.
    pub(super) what: &'a str,
    pub(super) at: &'a At,
    /// Passes; otherwise it is dropped.
    pub(super) bypass: bool,
    /// Selectors of our side as written; none for every address.
    pub(super) local: Vec<String>,
    /// Those of the far side.
    pub(super) remote: Vec<String>,
    /// It is there as soon as it is loaded.
    pub(super) is_installed: bool,
}

impl Import {
    /// Takes one over, or leaves it out with a note.
    pub(super) fn add_shunt(&mut self, shunt: &Shunt<'_>) {
        let Shunt { name, what, at, bypass, local, remote, is_installed } = shunt;
        let mut sides = Vec::new();
        for written in [local, remote] {
            let mut side = Vec::new();
            for text in written {
                match selector(text) {
                    Ok(made) => side.extend(made),
                    Err(why) => return self.leave_out(at, format!("{what}: `{text}`"), why),
                }
            }
            sides.push(side);
        }
        let [local, remote] = sides.as_slice() else { return };
        let all = |side: &[String]| side.is_empty() || side.iter().any(|item| item == "any");
        if *bypass && all(local) && all(remote) {
            return self.leave_out(
                at,
                *what,
                "it is for everything: no tunnel would carry any packet",
            );
        }
        let mut table = Table::default();
        table.text("name", self.free_name(name));
        table.text("action", if *bypass { "bypass" } else { "discard" });
        for (key, side) in [("local", local), ("remote", remote)] {
            if !side.is_empty() {
                table.list(key, side.clone());
            }
        }
        if !bypass {
            // There it gives way to every policy with IPsec.
            table.text("order", "last");
        }
        if !is_installed {
            self.note(
                at,
                *what,
                "there it was to be installed by hand; here it holds as soon as its file is loaded",
            );
        }
        self.policies.push(table);
    }

    fn free_name(&self, name: &str) -> String {
        let name = file_name(name);
        let taken = |name: &str| {
            let is_it = |table: &Table| table.is_text("name", name);
            self.policies.iter().any(is_it)
        };
        let mut numbered = (2..).map(|number| format!("{name}-{number}"));
        if taken(&name) { numbered.find(|name| !taken(name)).unwrap_or(name) } else { name }
    }

    /// Writes those that there are.
    pub(super) fn finish_shunts(&mut self) {
        let policies = core::mem::take(&mut self.policies);
        if policies.is_empty() {
            return;
        }
        let mut text = "# What passes without IPsec, and what does not pass.\n".to_owned();
        for table in policies {
            table.write("[[policy]]", &mut text);
        }
        self.add("policies.conf", Zeroizing::new(text), false);
    }
}

/// One of ours; none where it is every address.
fn selector(text: &str) -> Result<Option<String>, &'static str> {
    let (address, rest) = match text.split_once('[') {
        Some((address, rest)) => (address.trim(), rest.trim_end_matches(']')),
        None => (text.trim(), ""),
    };
    let narrowed = narrowed(rest).ok_or("it is narrowed to what ipsecd cannot narrow to")?;
    let address = match address {
        "dynamic" | "%dynamic" | "%any" | "any" => "any".to_owned(),
        other => subnet(other).ok_or("it is no subnet, address or range")?,
    };
    if address == "any" && narrowed.is_empty() {
        return Ok(None);
    }
    let made = format!("{address}{narrowed}");
    let read = config::read_selectors(&made).map_err(|_| "ipsecd cannot read it")?;
    if read.iter().any(|ts| check_routable(ts).is_err()) {
        return Err("a policy without IPsec is for prefixes, and for ports from 1 to 65534");
    }
    Ok(Some(made))
}
