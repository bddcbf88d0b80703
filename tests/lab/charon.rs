//! strongSwan: charon with its ESP in user space (kernel-libipsec), so that the kernel needs none.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::ipsecd::PSK;
use super::netns::Netns;
use super::process::{self, Process};
use super::topology::Side;
use super::wait;

/// How long charon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection of swanctl.conf, called `lab`, with one child, called `net`.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) local_addr: String,
    pub(crate) remote_addr: String,
    pub(crate) local_id: String,
    pub(crate) remote_id: String,
    pub(crate) psk: String,
    pub(crate) ike: String,
    pub(crate) esp: String,
    pub(crate) local_ts: String,
    pub(crate) remote_ts: String,
    /// Further lines of the connection.
    pub(crate) extra: String,
    /// Further lines of the child.
    pub(crate) child_extra: String,
}

impl Connection {
    /// From `local` to `remote`: first subnets, IPv4 in IPv4 (or in IPv6), AES-GCM.
    pub(crate) fn new(local: &Side, remote: &Side, v6_outside: bool) -> Self {
        Self {
            local_addr: local.outside(v6_outside).to_string(),
            remote_addr: remote.outside(v6_outside).to_string(),
            local_id: local.id(),
            remote_id: remote.id(),
            psk: PSK.to_owned(),
            ike: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp: "aes256gcm16".to_owned(),
            local_ts: local.subnet(1, false),
            remote_ts: remote.subnet(1, false),
            extra: String::new(),
            child_extra: String::new(),
        }
    }

    fn to_conf(&self) -> String {
        let Self { local_addr, remote_addr, local_id, remote_id, psk, .. } = self;
        let Self { ike, esp, local_ts, remote_ts, extra, child_extra, .. } = self;
        format!(
            "connections {{ lab {{
               version = 2
               mobike = no
               local_addrs = {local_addr}
               remote_addrs = {remote_addr}
               proposals = {ike}
               {extra}
               local {{ auth = psk
                 id = {local_id} }}
               remote {{ auth = psk
                 id = {remote_id} }}
               children {{ net {{
                 local_ts = {local_ts}
                 remote_ts = {remote_ts}
                 esp_proposals = {esp}
                 {child_extra}
               }} }}
             }} }}
             secrets {{ ike-lab {{ secret = \"{psk}\" }} }}\n"
        )
    }
}

/// A running charon on a gateway. Dropping it kills it.
pub(crate) struct Charon<'a> {
    gw: &'a Netns,
    dir: PathBuf,
    process: Process,
    /// Where in the log this run begins.
    log_from: usize,
}

impl<'a> Charon<'a> {
    /// Starts charon and loads the connection.
    #[track_caller]
    pub(crate) fn start(side: &'a Side, connection: &Connection) -> Self {
        Self::start_with(side, connection, "")
    }

    /// As [`Charon::start`], with further lines for the section `charon` of strongswan.conf.
    #[track_caller]
    pub(crate) fn start_with(side: &'a Side, connection: &Connection, extra: &str) -> Self {
        Self::start_conf(side, &connection.to_conf(), extra)
    }

    /// As [`Charon::start_with`], with a swanctl.conf as it is.
    #[track_caller]
    pub(crate) fn start_conf(side: &'a Side, swanctl_conf: &str, extra: &str) -> Self {
        let dir = side.dir.join("charon");
        for sub in ["x509", "x509ca", "private", "rsa", "ecdsa", "pkcs8", "pubkey", "pkcs12"] {
            fs::create_dir_all(dir.join(sub)).expect("directory is made");
        }
        fs::write(dir.join("swanctl.conf"), swanctl_conf).expect("file is written");
        let (log, vici) = (side.dir.join("charon-messages.log"), dir.join("vici"));
        let _none = fs::remove_file(&vici);
        let conf = format!(
            "charon {{
               load = random nonce openssl drbg kdf hmac sha1 sha2 aes pem pkcs1 pubkey x509 \
                      kernel-libipsec kernel-netlink socket-default vici updown \
                      eap-identity eap-mschapv2 eap-tls
               {extra}
               filelog {{ f {{
                 path = {}
                 append = yes
                 flush_line = yes
                 ike_name = yes
                 time_format = %H:%M:%S
                 default = 1
                 ike = 4
                 chd = 4
                 esp = 1
                 knl = 1
               }} }}
               plugins {{
                 vici {{ socket = unix://{} }}
                 kernel-netlink {{ fwmark = !0x42 }}
                 socket-default {{ fwmark = 0x42 }}
               }}
             }}\n",
            log.display(),
            vici.display()
        );
        fs::write(dir.join("strongswan.conf"), conf).expect("file is written");
        let mut command = side.gw.command("/usr/lib/ipsec/charon");
        command.env("STRONGSWAN_CONF", dir.join("strongswan.conf"));
        let process = Process::start(&mut command, &side.dir.join("charon-output.log"));
        let log_from = fs::read(&log).map_or(0, |log| log.len());
        let mut charon = Self { gw: &side.gw, dir, process, log_from };
        let started = wait::within(PATIENCE, || {
            assert!(charon.process.ended().is_none(), "charon ended\n{}", charon.process.log());
            process::output(&mut charon.swanctl(&["--stats"])).status.success().then_some(())
        });
        assert!(started.is_some(), "charon does not answer\n{}", charon.process.log());
        process::run(&mut charon.swanctl(&["--load-all", "--noprompt"]));
        charon
    }

    /// Brings the child up, waiting at most `seconds`.
    pub(crate) fn initiate(&self, seconds: u32) -> Output {
        let timeout = seconds.to_string();
        let args = ["--initiate", "--child", "net", "--timeout", &timeout];
        process::output(&mut self.swanctl(&args))
    }

    /// Brings the child up; a failed test unless that works.
    #[track_caller]
    pub(crate) fn must_initiate(&self) {
        let output = self.initiate(10);
        assert!(output.status.success(), "swanctl --initiate:\n{}", process::text(&output));
    }

    /// Rekeys the child, or the IKE SA.
    #[track_caller]
    pub(crate) fn rekey(&self, ike: bool) {
        let what = if ike { ["--ike", "lab"] } else { ["--child", "net"] };
        process::run(&mut self.swanctl(&["--rekey", what[0], what[1]]));
    }

    /// Deletes the IKE SA.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        process::run(&mut self.swanctl(&["--terminate", "--ike", "lab"]));
    }

    /// The SAs in swanctl's words.
    #[track_caller]
    pub(crate) fn sas(&self) -> String {
        process::run(&mut self.swanctl(&["--list-sas"]))
    }

    /// All that it logged since it was started, keys included.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.dir.with_file_name("charon-messages.log")).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// Ends it in its own time: it deletes its SAs.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.process.end(Signal::SIGTERM, PATIENCE);
    }

    /// Ends it at once: its peer is told nothing.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.process.end(Signal::SIGKILL, PATIENCE);
    }

    /// A swanctl command that will talk to this charon.
    pub(crate) fn swanctl(&self, args: &[&str]) -> Command {
        let mut command = self.gw.command("swanctl");
        command.env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        command.env("SWANCTL_DIR", &self.dir);
        command.args(args);
        command.arg("--uri").arg(format!("unix://{}", self.dir.join("vici").display()));
        command
    }
}

/// The bytes of a dump in charon's log, as hex digits; `lines` begins with its first.
pub(crate) fn dump(lines: &[&str]) -> String {
    let mut hex = String::new();
    for line in lines {
        // TIME THREAD[GROUP] <name|1>   16: 42 EC 8F ...  B..
        let Some((offset, bytes)) = line.split_once(": ") else { break };
        let Some(offset) = offset.split_whitespace().last() else { break };
        if offset.parse() != Ok(hex.len() / 2) {
            break;
        }
        let digits = bytes.split("  ").next().unwrap_or_default();
        hex.extend(digits.chars().filter(char::is_ascii_hexdigit));
    }
    hex
}
