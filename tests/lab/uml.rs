//! User-Mode-Linux: a Linux kernel of its own, with its IPsec, as a process in a namespace; and the agent by which a
//! test works on it (`uml-init.sh`, `agent.py`).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::netns::Netns;
use super::process::Process;
use super::wait;

/// How long a guest may take to boot, on a machine that has other things to do.
const BOOT: Duration = Duration::from_secs(60);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The agent's port.
const CONTROL: u16 = 99;

const INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/uml-init.sh");
const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/agent.py");

/// A host that an agent answers for.
pub(crate) trait Host {
    /// Asks its agent.
    fn ask(&self, request: &Value) -> Value;

    /// Runs shell lines; a failed test unless all succeed.
    #[track_caller]
    fn run(&self, lines: &str) -> String {
        let answer = self.ask(&json!({ "run": lines }));
        let output = answer["output"].as_str().unwrap_or_default();
        let begin: String = lines.chars().take(2_000).collect();
        assert_eq!(answer["status"], 0, "{begin}\n{output}");
        output.to_owned()
    }

    /// Writes files, for their owner alone: paths and contents.
    #[track_caller]
    fn put(&self, files: &[(String, String)]) {
        let files: serde_json::Map<_, _> =
            files.iter().map(|(path, text)| (path.clone(), text.as_str().into())).collect();
        self.ask(&json!({ "put": files }));
    }

    /// Waits until `text` is in a file; a failed test, with the file, if it does not come.
    #[track_caller]
    fn must_read(&self, path: &str, text: &str) {
        let answer = self.ask(&json!({ "await": [path, text, 60] }));
        assert!(
            answer["found"] == true,
            "{text:?} is not in {path}:\n{}",
            self.run(&format!("cat {path}"))
        );
    }

    /// Ends the process whose id is in a file, at once, and removes the file.
    #[track_caller]
    fn kill(&self, path: &str) {
        self.ask(&json!({ "kill": path }));
    }

    /// Sends pings and a TCP stream and compares what comes back; what was wrong with each, if anything.
    fn probe(&self, probes: &[Probe<'_>]) -> Vec<Option<String>> {
        let probes: Vec<Value> = probes
            .iter()
            .map(|Probe { source, target, pings, size }| json!([source, target, pings, size]))
            .collect();
        let answer = self.ask(&json!({ "probe": probes }));
        let faults = answer["faults"].as_array().cloned().unwrap_or_default();
        assert_eq!(faults.len(), probes.len(), "{answer}");
        let text = |fault: Value| fault.as_str().map(str::to_owned);
        faults.into_iter().map(|fault| text(fault).filter(|text| !text.is_empty())).collect()
    }
}

/// What to send from where to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) source: IpAddr,
    pub(crate) target: IpAddr,
    /// Echo requests, one after the other: the bytes in each.
    pub(crate) pings: &'a [usize],
    /// Bytes over TCP, and back.
    pub(crate) size: usize,
}

/// A booted guest. Dropping it ends it.
pub(crate) struct Guest<'a> {
    agent: Agent<'a>,
    process: Process,
}

impl<'a> Guest<'a> {
    /// Boots one in `net` on a tap device of that name, which becomes its link; it returns when its agent answers.
    /// `number` gives it its addresses, `dir` is its own.
    #[track_caller]
    pub(crate) fn boot(net: &'a Netns, tap: &str, number: u8, dir: &Path) -> Self {
        Self::boot_with(net, tap, number, dir, &[])
    }

    /// As [`Guest::boot`], for a guest in which IKE will speak for itself.
    #[track_caller]
    pub(crate) fn boot_for_ike(net: &'a Netns, tap: &str, number: u8, dir: &Path) -> Self {
        Self::boot_with(net, tap, number, dir, &["ike"])
    }

    #[track_caller]
    fn boot_with(net: &'a Netns, tap: &str, number: u8, dir: &Path, words: &[&str]) -> Self {
        let mut command = net.command("/usr/bin/linux.uml");
        command
            .args(["mem=256M", "ro", "root=/dev/root", "rootfstype=hostfs", "rootflags=/"])
            .args(["con=null", "con0=null,fd:1", "quiet", "random.trust_cpu=on"])
            .arg(format!("umid={tap}"))
            .arg(format!("uml_dir={}", dir.display()))
            .arg(format!("vec0:transport=tap,ifname={tap},depth=128,mac={}", mac(number)))
            .arg(format!("init={INIT}"))
            .arg(format!("lab={number}"))
            .args(words);
        let process = Process::start(&mut command, &dir.join("console.log"));
        let mut guest = Self { agent: Agent { net, number }, process };
        let booted = wait::within(BOOT, || {
            if let Some(status) = guest.process.ended() {
                panic!("the guest ended: {status}\n{}", guest.process.log());
            }
            guest.agent.try_ask(&json!({ "run": "true" }), Duration::from_secs(2))
        });
        assert!(booted.is_some(), "the guest does not answer\n{}", guest.process.log());
        guest
    }
}

impl Host for Guest<'_> {
    #[track_caller]
    fn ask(&self, request: &Value) -> Value {
        match self.agent.try_ask(request, PATIENCE) {
            Some(answer) => answer,
            None => panic!("no answer from the guest\n{}", self.process.log()),
        }
    }
}

/// An agent that answers for a namespace. Dropping it ends it.
pub(crate) struct Local<'a> {
    agent: Agent<'a>,
    process: Process,
}

impl<'a> Local<'a> {
    /// Starts one at `number`'s address, which `net` must have.
    #[track_caller]
    pub(crate) fn start(net: &'a Netns, number: u8, dir: &Path) -> Self {
        let address = address(number).to_string();
        let mut command = net.command("/usr/bin/python3");
        let process = Process::start(command.args([AGENT, &address]), &dir.join("agent.log"));
        let local = Self { agent: Agent { net, number }, process };
        wait::until("the agent to answer", Duration::from_secs(20), || {
            local.agent.try_ask(&json!({ "run": "true" }), Duration::from_secs(2))
        });
        local
    }
}

impl Host for Local<'_> {
    #[track_caller]
    fn ask(&self, request: &Value) -> Value {
        match self.agent.try_ask(request, PATIENCE) {
            Some(answer) => answer,
            None => panic!("no answer from the agent\n{}", self.process.log()),
        }
    }
}

/// Where an agent is reached from.
struct Agent<'a> {
    net: &'a Netns,
    number: u8,
}

impl Agent<'_> {
    fn try_ask(&self, request: &Value, limit: Duration) -> Option<Value> {
        let agent = SocketAddr::new(address(self.number), CONTROL);
        let mut stream = self.net.enter(|| TcpStream::connect_timeout(&agent, limit)).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(request.to_string().as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }
}

/// Where a host of that number is found in clear, on its link.
pub(crate) fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number).into()
}

/// Its hardware address, which the others know without asking.
pub(crate) fn mac(number: u8) -> String {
    format!("02:00:00:00:77:{number:02x}")
}
