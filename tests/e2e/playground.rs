//! `make lab`: two sites to play with.

use std::io::{self, BufRead};

use crate::lab::ipsecd::BINARY;
use crate::lab::{Ipsecd, Lab, Peer};

#[test]
#[ignore = "for people: make lab"]
fn two_sites() {
    let Some(lab) = Lab::open(&[]) else { panic!("there can be no lab here") };
    let _a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    let _b = Ipsecd::start(&lab.b, &Peer::new(&lab.b, &lab.a, false));
    println!(
        "\nTwo gateways with a running daemon each, a host behind each, a router between them.\n"
    );
    for side in lab.both() {
        let run = side.dir.join("run");
        let socket = run.join("ipsecd/ipsecd.sock");
        println!("site {}", side.name.to_uppercase());
        println!("  shell on the gateway   ip netns exec {} bash", side.gw.name());
        println!("  shell on the LAN host  ip netns exec {} bash", side.lan.name());
        println!("  outside                {} {}", side.outside(false), side.outside(true));
        println!("  LAN host               {} {}", side.host(1, false), side.host(1, true));
        println!("  log                    {}", side.dir.join("ipsecd.log").display());
        println!("  export IPSECD_SOCKET={}", socket.display());
        println!("  {BINARY} up {}\n", side.dir.join("ipsecd/far.conf").display());
    }
    println!("router\n  ip netns exec {} tcpdump -ni {}\n", lab.router.name(), lab.a.wire());
    println!("Enter takes everything away.");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("a terminal");
}
