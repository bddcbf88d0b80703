//! The table of peers in docs/interop.md: every cell names tests that there are, or says why there is none.

use std::collections::BTreeMap;

use crate::{read, root};

/// What has to be in it, by the words at which its row begins.
const ROWS: &[&str] = &[
    "PSK",
    "RSA",
    "ECDSA",
    "Ed25519",
    "Raw public keys",
    "EAP-MSCHAPv2",
    "EAP-TLS",
    "NAT in front of ipsecd",
    "NAT in front of the peer",
    "NAT in front of both",
    "Fragments from ipsecd",
    "Fragments from the peer",
    "COOKIE",
    "INVALID_KE_PAYLOAD",
    "CHILD_SA rekeyed by ipsecd",
    "CHILD_SA rekeyed by the peer",
    "IKE_SA rekeyed by ipsecd",
    "IKE_SA rekeyed by the peer",
    "Transport mode",
    "Transport mode through a NAT",
    "AH",
    "ESN",
    "Narrowing",
    "Several CHILD_SAs",
    "DPD restart",
    "DELETE by either",
    "Reauthentication",
    "Childless IKE_AUTH",
    "Virtual address",
];

/// Peers, each as responder and as initiator.
const COLUMNS: usize = 6;

const BEGIN: &str = "<!-- peers: begin -->";
const END: &str = "<!-- peers: end -->";

#[test]
fn every_cell_of_the_table_of_peers_names_tests_or_a_reason() {
    let text = read(&root().join("docs/interop.md"));
    let (_, rest) = text.split_once(BEGIN).expect("the table begins");
    let (table, _) = rest.split_once(END).expect("the table ends");
    let files: BTreeMap<&str, &str> =
        table.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ../")).collect();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut seen = Vec::new();
    let mut faults = Vec::new();
    for row in rows.filter(|row| !row.starts_with("| ---")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, cells @ ..] = &cells[..] else { continue };
        seen.push(*name);
        if cells.len() != COLUMNS {
            faults.push(format!("{name}: {} cells", cells.len()));
        }
        for cell in cells {
            faults.extend(look(cell, &files).map(|fault| format!("{name}: {fault}")));
        }
    }
    let absent = ROWS.iter().filter(|row| !seen.contains(row));
    faults.extend(absent.map(|row| format!("{row}: no such row")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is wrong with a cell: `[name][file]` several times, or `no: ` and why.
fn look(cell: &str, files: &BTreeMap<&str, &str>) -> Option<String> {
    if let Some(reason) = cell.strip_prefix("no: ") {
        return (reason.len() < 8).then(|| format!("{cell}: that is no reason"));
    }
    let mut names = 0;
    for part in cell.split("[`").skip(1) {
        let Some((name, rest)) = part.split_once("`][") else {
            return Some(format!("{part}: not [`name`][file]"));
        };
        let file = rest.split(']').next().unwrap_or_default();
        let Some(path) = files.get(file) else { return Some(format!("{file}: no such file")) };
        if !read(&root().join(path)).contains(&format!("\nfn {name}(")) {
            return Some(format!("{name}: not in {path}"));
        }
        names += 1;
    }
    (names == 0).then(|| format!("{cell:?}: neither a test nor a reason"))
}
