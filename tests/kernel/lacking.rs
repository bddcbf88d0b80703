//! What no kernel has: ipsecd at both ends, and a reader of what is between them that shares no code with it.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::ground::{Ground, addresses};
use crate::lab::capture::Capture;
use crate::lab::uml::Local;
use crate::lab::{Ipsecd, Need, process};
use crate::live::{SOME, all_up, probes};
use crate::manual;
use crate::matrix::{Cell, End, Protocol};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/read_lacking.py");

#[test]
fn what_no_kernel_has_is_opened_by_the_words_of_its_rfc() {
    let Some(ground) = Ground::open(&[Need::Scapy]) else { return };
    let far = ground.two_hosts();
    let cells: Vec<_> = Cell::all().into_iter().filter(|cell| !cell.transform.linux()).collect();
    ground.batch(&ground.net, &addresses(&cells, End::Near, "wire1"));
    ground.batch(&far, &addresses(&cells, End::Far, "wire2"));
    let wire = Capture::start(&ground.net, "wire1", &ground.dir("wire").join("wire.pcap"));
    let hosts = [(End::Near, &ground.net, 1), (End::Far, &far, 2)];
    let [near_agent, far_agent] =
        hosts.map(|(end, net, number)| Local::start(net, number, &ground.dir(end.name())));
    let daemons = hosts.map(|(end, net, _)| {
        let dir = ground.dir(end.name());
        manual::write(&dir.join("peers"), &cells, end);
        Ipsecd::start_in(net, &dir, &dir.join("peers"), &ground.state().join(end.name()))
    });
    daemons.iter().for_each(|daemon| all_up(daemon, &cells));
    let mut faults = probes(&near_agent, &cells, End::Near, SOME);
    faults.extend(probes(&far_agent, &cells, End::Far, SOME));
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
    let wire = wire.stop();

    let sas = ground.dir("wire").join("sas");
    fs::write(&sas, keys(&cells)).expect("file is written");
    let mut reader = ground.net.command("/usr/bin/python3");
    let said = process::run(reader.arg(READER).arg(wire).arg(sas));
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let refused = said["faults"].as_array().expect("a list").iter();
    faults.extend(refused.filter_map(|fault| fault.as_str().map(str::to_owned)));
    for cell in &cells {
        for to in [End::Near, End::Far] {
            let opened = said["opened"][cell.spi(to).to_string()].as_u64().unwrap_or_default();
            if opened < 10 {
                faults.push(format!("{cell}: {opened} packets to {to:?} opened"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    println!("{} cells", cells.len());
}

/// Every SA for the reader.
fn keys(cells: &[Cell]) -> String {
    let mut sas = String::new();
    for cell in cells {
        for to in [End::Near, End::Far] {
            let proposal = &cell.transform.proposal;
            let (kind, key) = match cell.form.protocol {
                Protocol::Ah => ("gmac", cell.integ_key(to)),
                Protocol::Esp if proposal.ends_with("gcm16iiv") => ("gcm16iiv", cell.encr_key(to)),
                Protocol::Esp if proposal.ends_with("ccm8iiv") => ("ccm8iiv", cell.encr_key(to)),
                Protocol::Esp => ("chacha20poly1305iiv", cell.encr_key(to)),
            };
            let sa = json!({
                "spi": cell.spi(to), "kind": kind, "key": key, "esn": cell.esn,
                "source": cell.inner(to.other()), "target": cell.inner(to),
            });
            let _ = writeln!(sas, "{sa}");
        }
    }
    sas
}
