//! `up`, `init` and `top` of a live daemon on a real terminal: tmux, in the gateway.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::cert::write;
use crate::lab::ipsecd::BINARY;
use crate::lab::tmux::Tmux;
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Peer, process, wait};

/// The phases of a peer that comes up, as they stand at the beginnings of lines.
const PHASES: [&str; 5] =
    ["far: resolve", "far: IKE_SA_INIT", "far: IKE_AUTH", "far: CHILD_SA", "far: routes"];

fn open(lab: &Lab) -> Tmux {
    Tmux::open(lab.dir(), |program| lab.a.gw.command(program))
}

/// A responder at B, and a daemon at A that knows no peer; what brings it up.
fn both(lab: &Lab) -> (Ipsecd<'_>, Ipsecd<'_>, String) {
    let mut there = Peer::new(&lab.b, &lab.a, false);
    there.esp = "start = \"respond\"".to_owned();
    let near = Peer::new(&lab.a, &lab.b, false);
    let file = Ipsecd::file_of(&lab.a, &near);
    let up = format!("LC_ALL=C.UTF-8 {BINARY} up --timeout=60s {}", file.display());
    (Ipsecd::start(&lab.a, &near), Ipsecd::start(&lab.b, &there), up)
}

/// Every phase is there, in order.
#[track_caller]
fn has_phases(text: &str) {
    let phase_of = |line: &str| PHASES.into_iter().find(|phase| line.starts_with(phase));
    let mut seen: Vec<_> = text.lines().filter_map(phase_of).collect();
    // Some have several steps.
    seen.dedup();
    assert_eq!(seen, PHASES, "{text}");
}

#[test]
fn up_on_a_terminal_shows_phases_and_a_spinner_and_leaves_lines() {
    let Some(lab) = Lab::open(&[]) else { return };
    if !Tmux::is_here() {
        return;
    }
    let (a, b, up) = both(&lab);
    let tmux = open(&lab);
    let before = tmux.modes();
    tmux.line(&format!("clear; {up}; echo e''nded $?"));
    // B does not know the peer yet: IKE_SA_INIT is not answered, and time goes on.
    let spinning = |screen: &str, seconds: &str| {
        let last = screen.trim_end().lines().last().unwrap_or_default().to_owned();
        let mut letters = last.chars();
        let spinner = letters.next().is_some_and(|it| ('\u{2800}'..='\u{28ff}').contains(&it));
        spinner && last.contains("far: IKE_SA_INIT") && last.contains(seconds)
    };
    tmux.until("a spinner", |screen| spinning(screen, "[0s]"));
    tmux.until("time to pass", |screen| spinning(screen, "[1s]") || spinning(screen, "[2s]"));
    b.must_up();
    let shown = tmux.shows("ended 0");
    has_phases(&shown);
    let last: Vec<_> = shown.trim_end().lines().rev().take(3).collect();
    assert!(last[2].starts_with("far: up after ") && last[1] == "ended 0", "{shown}");
    assert!(
        !shown.contains("[0s]") && !shown.contains('\u{2800}'),
        "the spinner is gone:\n{shown}"
    );
    tmux.is_as_it_was(&before);

    // Interrupted, it takes back what it began.
    a.down();
    b.down();
    tmux.line(&format!("clear; {up}"));
    tmux.until("a spinner", |screen| spinning(screen, "[0s]"));
    // What is left of its line, the shell gives up as well.
    tmux.keys(&["C-c"]);
    tmux.line("echo e''nded $?");
    tmux.shows("ended 130");
    tmux.is_as_it_was(&before);
    wait::until("the peer to be gone", wait::PATIENCE, || a.state().is_empty().then_some(()));

    // Where the output is none, and where the locale has no such letters.
    tmux.line(&format!("clear; LC_ALL=C {}", up.replace("LC_ALL=C.UTF-8 ", "")));
    let shown = tmux.until("a spinner", |screen| screen.contains("far: IKE_SA_INIT [1s]"));
    assert!(shown.is_ascii(), "{shown}");
    tmux.keys(&["C-c"]);
    wait::until("the peer to be gone", wait::PATIENCE, || a.state().is_empty().then_some(()));
    b.must_up();
    tmux.line(&format!(
        "clear; {up} > {plain} 2>&1; cat {plain}",
        plain = lab.dir().join("plain.txt").display()
    ));
    let shown = tmux.shows("far: up after ");
    has_phases(&shown);
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn up_without_a_terminal_prints_plain_lines() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b, _) = both(&lab);
    b.must_up();
    let text = a.must_up();
    has_phases(&text);
    assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("far: up after ")), "{text}");
    let phases = text.lines().filter(|line| PHASES.iter().any(|phase| line.starts_with(phase)));
    assert_eq!(text.lines().count(), phases.count() + 1, "{text}");
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn init_asks_five_questions_on_a_terminal_and_top_shows_the_tunnel() {
    let Some(lab) = Lab::open(&[]) else { return };
    if !Tmux::is_here() {
        return;
    }
    let tmux = open(&lab);
    let before = tmux.modes();
    let made = lab.a.dir.join("made");
    tmux.line(&format!("clear; {BINARY} init -o {}", made.display()));
    tmux.shows("1. This end");
    // A letter too many, taken back; a default that is not wanted.
    tmux.run(&["send-keys", "-l", "a.example.nett 192.0.2.1"]);
    tmux.keys(&[
        "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace",
        "BSpace", "BSpace",
    ]);
    tmux.line(" 192.0.2.1");
    tmux.shows("2. The far end");
    tmux.line("a.example.net");
    tmux.shows("both ends cannot be called the same");
    tmux.line("b.example.net 198.51.100.1");
    // What is on the side of the world is not behind it.
    let shown = tmux.shows("3. Subnets behind this end [10.1.1.0/24, 10.1.2.0/24, fd01:");
    assert!(!shown.contains("2001:db8") && !shown.contains("192.0.2.0"), "{shown}");
    tmux.line("10.1.1.0/24");
    tmux.shows("4. Subnets behind the far end");
    tmux.line("10.2.1.0/33");
    tmux.shows("is not a prefix");
    tmux.line("10.2.1.0/24");
    tmux.shows("psk or certificates [psk]");
    tmux.line("");
    tmux.shows("b.example.net: ok");
    tmux.shows("ipsecd up");
    tmux.is_as_it_was(&before);
    // Left in the midst of it, nothing is written.
    let other = lab.a.dir.join("other");
    // The question of before is no sign of this one.
    tmux.line("clear");
    tmux.hides("1. This end");
    tmux.line(&format!("{BINARY} init -o {}; echo e''nded $?", other.display()));
    tmux.shows("1. This end");
    tmux.keys(&["Enter"]);
    tmux.shows("2. The far end");
    tmux.keys(&["C-d"]);
    tmux.shows("ended 2");
    tmux.line("clear");
    tmux.hides("1. This end");
    tmux.line(&format!("{BINARY} init -o {}", other.display()));
    tmux.shows("1. This end");
    tmux.keys(&["C-c"]);
    tmux.line("echo e''nded $?");
    tmux.shows("ended 130");
    tmux.is_as_it_was(&before);
    assert!(!other.exists());

    let there = lab.b.dir.join("brought");
    fs::create_dir_all(&there).expect("directory is made");
    for name in ["a.example.net.conf", "b.example.net.psk"] {
        let file = made.join("for-b.example.net").join(name);
        write(&there.join(name), &fs::read(file).expect("it was made"));
    }
    let b = Ipsecd::start_for_file(&lab.b, there.join("a.example.net.conf"));
    let a = Ipsecd::start_for_file(&lab.a, made.join("b.example.net.conf"));
    b.must_up();
    a.must_up();
    // `top` of the daemon itself.
    tmux.line(&format!("clear; LC_ALL=C.UTF-8 {BINARY} top --interval 200ms"));
    let shown = tmux.until("the tunnel", |screen| {
        screen.lines().any(|it| it.starts_with("b.example.net") && it.contains(" up "))
    });
    assert!(shown.contains("peers 1, 1 up") && shown.contains("REKEY"), "{shown}");
    crate::lab::traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    tmux.until("traffic", |screen| {
        screen.lines().any(|it| it.starts_with("b.example.net") && it.contains('█'))
    });
    a.down();
    tmux.shows("peers 0, 0 up");
    tmux.shows("b.example.net: removed");
    tmux.keys(&["q"]);
    tmux.hides("events");
    tmux.is_as_it_was(&before);
    let mut silent = lab.a.gw.command(BINARY);
    let output = process::output(silent.args(["init", "-o"]).arg(&other).stdin(Stdio::null()));
    assert_eq!(output.status.code(), Some(2), "{}", process::text(&output));
    assert!(process::text(&output).contains("no answer to"), "{}", process::text(&output));
    assert!(a.stop().success() && b.stop().success());
}

/// The files of a thousand peers for `side`.
fn thousand(side: &Side, far: &Side) -> PathBuf {
    let dir = side.dir.join("thousand");
    write(&dir.join("far.psk"), crate::lab::ipsecd::PSK.as_bytes());
    let initiates = side.name == "a";
    for n in 0..TUNNELS {
        let net = |site: &Side| {
            let first = if site.name == "a" { 64 } else { 128 };
            format!("10.{}.{}.0/24", first + n / 250, n % 250)
        };
        let id = |site: &Side| format!("{}-{n}.example.net", site.name);
        let text = format!(
            "[local]\naddress = \"{}\"\nid = {:?}\nsubnets = [{:?}]\n[peer]\naddress = \"{}\"\nid = {:?}\nsubnets = [{:?}]\n\
             [auth]\npsk = {{ file = \"far.psk\" }}\n[ike]\nproposals = [\"aes128gcm16-prfsha256-x25519\"]\ndpd = \"off\"\n\
             [esp]\nproposals = [\"aes128gcm16\"]\nstart = {:?}\n",
            side.outside(false),
            id(side),
            net(side),
            far.outside(false),
            id(far),
            net(far),
            if initiates { "now" } else { "respond" },
        );
        write(&dir.join(format!("site-{n:04}.conf")), text.as_bytes());
    }
    dir
}

const TUNNELS: u32 = 1000;

/// What a process has used of the processor, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    [11, 12].map(|at| fields[at].parse::<u64>().expect("a number")).iter().sum()
}

/// With one look a second, as `top` has it; of a build with optimisation.
#[test]
#[ignore = "a measurement, after minutes in which a thousand tunnels are made: run it alone, in release, on a quiet machine"]
fn a_look_at_a_thousand_tunnels_costs_the_daemon_less_than_a_twentieth_of_a_core() {
    let Some(lab) = Lab::open(&[]) else { return };
    let [here, there] = [(&lab.a, &lab.b), (&lab.b, &lab.a)].map(|(side, far)| thousand(side, far));
    let b = Ipsecd::start_in(&lab.b.gw, &lab.b.dir, &there, &lab.b.dir.join("state"));
    let a = Ipsecd::start_in(&lab.a.gw, &lab.a.dir, &here, &lab.a.dir.join("state"));
    let up = |daemon: &Ipsecd<'_>| {
        let status = daemon.status();
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().filter(|peer| peer["state"] == "up").count()
    };
    wait::until("a thousand tunnels", Duration::from_secs(600), || {
        (up(&a) == TUNNELS as usize).then_some(())
    });
    let before = ticks(a.pid());
    for _ in 0..LOOKS {
        a.status();
    }
    let used = ticks(a.pid()) - before;
    println!("{used} ticks of 10 ms in {LOOKS} looks");
    // Of a second, in ticks: a twentieth.
    assert!(used < LOOKS * 5, "{used} ticks of 10 ms in {LOOKS} looks");
    assert!(a.stop().success() && b.stop().success());
}

const LOOKS: u64 = 20;
