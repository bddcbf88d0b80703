//! The command line: one file a command, each thin over [`control::client`](crate::control::client).

pub mod bundle;
pub mod capture;
pub mod check;
pub mod daemon;
pub mod decrypt;
pub mod doctor;
pub mod down;
pub mod explain;
pub mod export;
pub mod generate;
pub mod genpsk;
pub mod import;
pub mod init;
pub mod pki;
pub mod rekey;
pub mod reload;
pub mod services;
pub mod spawn;
pub mod status;
pub mod top;
pub mod trace;
pub mod up;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::control::client::ClientError;
use crate::control::protocol::{Code, Failure};
use crate::crypto::random::OsRandom;
use crate::daemon::DaemonError;
use crate::daemon::log::{self, BadFilter};
use crate::daemon::secrets::FsSecrets;
use crate::daemon::version;
use crate::io::clock;
use crate::io::terminal::ask_hidden;
use crate::io::tun::Offload;

/// Where the control socket is unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ipsecd/ipsecd.sock";

/// Where the daemon keeps its state unless said otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/ipsecd";

/// An IPsec gateway in user space: joins networks through ESP tunnels keyed by IKEv2.
///
/// One daemon carries every tunnel of this host (or network namespace). `ipsecd up` starts it if none runs.
#[derive(Debug, Parser)]
#[command(name = "ipsecd", version = version::LONG, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ipsecd genpsk site-b.psk            make a pre-shared key; copy it to the other site
  ipsecd pki a.example b.example      make certificates for two sites instead
  ipsecd check site-b.conf            see whether the file is right
  ipsecd up site-b.conf               bring the tunnel up
  ipsecd status                       look at it
  ipsecd doctor --live site-b.conf    see why it does not come up
  ipsecd down site-b                  take it down

Exit codes:
  0  done
  1  it failed; the reason is printed
  2  wrong usage, or a configuration file has errors
  3  no daemon is running";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The control socket of the daemon
    #[arg(long, global = true, value_name = "PATH", env = "IPSECD_SOCKET", default_value = DEFAULT_SOCKET)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
    /// Where the daemon keeps what must outlive it: the sequence numbers of manual keys
    #[arg(long, global = true, value_name = "DIR", env = "IPSECD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    #[arg(value_hint = ValueHint::DirPath)]
    pub state_dir: PathBuf,
    /// What is logged: error, warn, info, debug, trace, or a list such as info,ipsecd::ike=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// The form of the log
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "IPSECD_LOG_FORMAT",
        default_value = "auto"
    )]
    pub log_format: LogFormat,
    /// What a daemon that is started leaves to the kernel
    #[arg(long, global = true, value_name = "HOW", env = "IPSECD_OFFLOAD", default_value = "auto")]
    pub offload: OffloadArg,
    /// How many workers of a daemon that is started move packets, each with two threads: 1 to 32, or auto, one for each two cores
    #[arg(long, global = true, value_name = "N", env = "IPSECD_WORKERS", default_value = "auto")]
    pub workers: WorkersArg,
}

/// How many workers move packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkersArg {
    /// One for each two cores that there are for us.
    Auto,
    /// So many.
    Count(u16),
}

impl WorkersArg {
    /// More would not be of use: what is shared among all workers then takes most of the time (docs/performance/cores.md).
    const MOST: u16 = 32;

    /// How many they are.
    fn count(self) -> u16 {
        match self {
            Self::Count(count) => count,
            Self::Auto => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                u16::try_from(cores / 2).unwrap_or(Self::MOST).clamp(1, Self::MOST)
            }
        }
    }
}

impl FromStr for WorkersArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=Self::MOST).contains(count));
        count.map(Self::Count).ok_or_else(|| format!("it is auto, or 1 to {}", Self::MOST))
    }
}

impl fmt::Display for WorkersArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// The journal's under systemd, else lines for people
    Auto,
    /// Lines for people
    Human,
    /// A JSON object a line
    Json,
    /// The journal's, with a field for each value
    Journald,
}

impl LogFormat {
    /// As it is written.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How much is left to the kernel.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OffloadArg {
    /// All the cutting and joining of packets that it takes (TSO, USO, UDP GSO and GRO)
    Auto,
    /// Nothing: a packet a system call
    Off,
    /// Nothing, with a plain TUN of another library
    Plain,
}

impl OffloadArg {
    /// As it is written.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl From<OffloadArg> for Offload {
    fn from(arg: OffloadArg) -> Self {
        match arg {
            OffloadArg::Auto => Self::Auto,
            OffloadArg::Off => Self::Off,
            OffloadArg::Plain => Self::Plain,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring tunnels up
    ///
    /// Hands the files to the running daemon, or starts one in the background, and shows the phases as they happen.
    /// Returns 0 when every CHILD_SA is installed and routes are set. A peer that fails is taken down again, unless
    /// --keep is given. A daemon that was started this way ends with its last peer.
    Up(up::UpArgs),
    /// Take tunnels down
    ///
    /// Sends DELETE to the peers, and removes routes, rules and TUN.
    Down(down::DownArgs),
    /// Show the state of the tunnels
    Status(status::StatusArgs),
    /// Show the way that a packet would take
    ///
    /// Asks the daemon and the kernel: route, SPD entry, SA, encapsulation, size against the path MTU, and where and why it
    /// would be dropped. Nothing is sent and nothing is counted.
    Explain(explain::ExplainArgs),
    /// Write packets into pcapng files, as they are inside and outside
    ///
    /// Two interfaces, inner and outer, each packet with verdict, tunnel and SPI as its comment. Inner packets are in clear: the
    /// files are their owner's alone. Never overwrites a file; with --ring at most --files of --size bytes are kept.
    Capture(capture::CaptureArgs),
    /// Watch the tunnels on a terminal
    ///
    /// Throughput, loss, replayed and forged packets, round-trip time, next rekey of every tunnel, and what happened. For
    /// scripts there is `status --watch --json`.
    Top(top::TopArgs),
    /// Show packets as they pass, with what becomes of them
    ///
    /// A packet a line, until interrupted or --count is reached. Packets that come faster than they are taken are left out,
    /// and how many is said. Costs the datapath nothing while nobody traces.
    Trace(trace::TraceArgs),
    /// Show which services each SA gives
    ///
    /// Access control, connectionless integrity, data origin authentication, replay protection, confidentiality and limited
    /// traffic flow confidentiality, in the words of RFC 4301 §3.1, with the reason where one is missing.
    Services(services::ServicesArgs),
    /// Check configuration files, without touching anything
    Check {
        /// The files; they are also checked against each other
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
    },
    /// Make a pre-shared key
    Genpsk {
        /// A new file, readable to its owner alone; without it, or with `-`, the key is printed
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Make a CA, and keys and certificates for sites
    ///
    /// Makes DIR/ca.pem and DIR/ca.key, unless they are there already, and for each site a key and a certificate. Nothing is
    /// ever overwritten. Bring each site its own three files, SITE.pem, SITE.key and ca.pem, by a way you trust; keep ca.key
    /// away from all of them.
    Pki(pki::PkiArgs),
    /// Make configuration files out of another program's configuration
    ///
    /// Reads a swanctl.conf or ipsec.conf of strongSwan, an ipsec.conf of libreswan, or a configuration of wg-quick, and writes a
    /// file for each connection, with its keys owner-only beside it. What could not be carried is named with its line, and why.
    /// The new files are checked. Returns 1 if a connection was left out.
    Import(import::ImportArgs),
    /// Print the far end's configuration
    ///
    /// The same tunnel from its other side, for strongSwan, libreswan, OpenIKED or ipsecd: identities and subnets change places,
    /// proposals are in the words that are used there, and what cannot be said there is a comment.
    Export(export::ExportArgs),
    /// Ask five questions, and write the files of both ends
    ///
    /// What is given by a flag is not asked for. The far end's files come into a directory of their own, for-NAME.
    Init(init::InitArgs),
    /// Print the far end's files as a signed and encrypted OpenPGP message, for mail
    ///
    /// The far end's configuration and its secrets, for who holds the private key to KEY.asc, until it expires. ipsecd accept
    /// writes the files there; gpg can open the message, too. Keys are files, as gpg exports them: no keyring is looked at.
    Invite(bundle::InviteArgs),
    /// Open a message of invite, verify who has signed it, and write its files
    ///
    /// Shows the signer's fingerprint. The files are their owner's alone, and are checked before they are written. Nothing at all
    /// is written if the message is expired, for another, changed, not signed, or signed by another, or if a file is there
    /// already.
    Accept(bundle::AcceptArgs),
    /// Replace the SAs of a peer now
    Rekey(rekey::RekeyArgs),
    /// Read configuration files again and apply what changed
    ///
    /// Tunnels whose configuration is as it was stay as they are, and lose no packet. If any file has an error, nothing is
    /// changed at all. SIGHUP to the daemon does the same for everything that it has.
    Reload(reload::ReloadArgs),
    /// Say why a tunnel fails, and what to change
    ///
    /// Looks at this host, the configuration and what the daemon last met: device, privileges, addresses, routes, packet filter,
    /// switches of the kernel, certificates, clock. With --live it tries the tunnel, and finds out by experiment what IKE
    /// does not say. The cause comes first, then the fix, with the lines to change here and at a strongSwan far end.
    Doctor(doctor::DoctorArgs),
    /// Read a capture with keys
    ///
    /// Prints a line for each packet: SPI, sequence number, verdict with its reason, and what was in it. AH and ESP, in
    /// UDP or not, are opened with the code that the daemon receives with; IKE messages are opened, too.
    Decrypt(decrypt::DecryptArgs),
    /// Run the daemon for a directory of configuration files
    ///
    /// Stays attached, for systemd or a container, tells the service manager when it is ready (sd_notify), and keeps
    /// every peer with `start = "now"` up until SIGTERM.
    Daemon(daemon::DaemonArgs),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        dir: PathBuf,
    },
    /// Print what is made of ipsecd's own descriptions
    #[command(hide = true)]
    Generate {
        /// What: schema, the JSON Schema of a configuration file
        what: generate::What,
    },
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Why a command failed. Says the exit code, too.
#[derive(Debug)]
pub enum CliError {
    /// The daemon, or the connection to it.
    Client(ClientError),
    /// Configuration files have errors, which were printed.
    Config,
    /// This process, as the daemon.
    Daemon(DaemonError),
    /// An argument is wrong.
    Usage(String),
    /// The log filter is none.
    Log(BadFilter),
    /// Reading or writing.
    Io(String, io::Error),
    /// What was given is not taken.
    Refused(String),
    /// It failed, and why was printed.
    Reported,
    /// The daemon did not start.
    Start(String),
}

impl CliError {
    /// See the exit codes in `--help`.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::NotRunning(_)) => 3,
            Self::Client(ClientError::Refused(Failure { code: Code::Config, .. }))
            | Self::Config
            | Self::Daemon(DaemonError::Config(_))
            | Self::Log(_)
            | Self::Usage(_) => 2,
            Self::Client(_)
            | Self::Daemon(_)
            | Self::Io(..)
            | Self::Refused(_)
            | Self::Reported
            | Self::Start(_) => 1,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Config | Self::Reported => Ok(()),
            Self::Daemon(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Refused(text) | Self::Usage(text) => text.fmt(f),
            Self::Start(text) => write!(f, "the daemon did not start: {text}"),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error)
    }
}

impl From<BadFilter> for CliError {
    fn from(error: BadFilter) -> Self {
        Self::Log(error)
    }
}

/// Runs what the command line says; prints why it failed.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                // Nobody left to tell if this fails.
                let _lost = writeln!(io::stderr(), "ipsecd: {text}");
            }
            error.exit_code().into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<u8, CliError> {
    let global = cli.global;
    match cli.command {
        Command::Up(args) => up::run(&global, &args)?,
        Command::Down(args) => down::run(&global, &args)?,
        Command::Status(args) => status::run(&global, &args)?,
        Command::Check { files } => {
            let written = check::run(&files, &secrets(), &mut io::stdout(), &mut io::stderr());
            return written.map_err(|error| CliError::Io("cannot write".to_owned(), error));
        }
        Command::Genpsk { file } => {
            let name = file.as_deref().unwrap_or(Path::new("the key")).display().to_string();
            genpsk::run(file.as_deref(), &mut OsRandom, &mut io::stdout())
                .map_err(|error| CliError::Io(name, error))?;
        }
        Command::Pki(args) => {
            pki::run(&args, &mut OsRandom, clock::wall(), &mut io::stdout())
                .map_err(|error| CliError::Io("pki".to_owned(), error))?;
        }
        Command::Explain(args) => explain::run(&global, &args)?,
        Command::Capture(args) => capture::run(&global, &args)?,
        Command::Top(args) => top::run(&global, &args)?,
        Command::Trace(args) => trace::run(&global, &args)?,
        Command::Services(args) => services::run(&global, &args)?,
        Command::Import(args) => {
            return import::run(
                &args,
                crate::io::route::host_networks().iter().map(ipnet::IpNet::addr).collect(),
                &mut OsRandom,
                &secrets(),
                &mut io::stdout(),
                &mut io::stderr(),
            );
        }
        Command::Export(args) => {
            export::run(&args, &secrets(), &mut io::stdout(), &mut io::stderr())?;
        }
        Command::Init(args) => {
            let address = crate::io::route::way_out();
            let behind = crate::io::route::networks_behind(address);
            let defaults = init::Defaults {
                name: std::fs::read_to_string("/proc/sys/kernel/hostname")
                    .ok()
                    .map(|name| name.trim().to_owned()),
                address,
                networks: behind.iter().map(ToString::to_string).collect(),
            };
            let mut out = io::stdout();
            return init::run(
                &args,
                &defaults,
                &mut OsRandom,
                clock::wall(),
                &secrets(),
                (&mut io::stdin().lock(), &mut out, &mut io::stderr()),
            );
        }
        Command::Invite(args) => {
            let (mut out, mut err) = (io::stdout(), io::stderr());
            let host = bundle::Host { now: clock::wall(), secrets: &secrets(), ask: &ask_hidden };
            bundle::invite(&args, &host, &mut OsRandom, &mut out, &mut err)?;
        }
        Command::Accept(args) => {
            let (mut out, mut err) = (io::stdout(), io::stderr());
            let host = bundle::Host { now: clock::wall(), secrets: &secrets(), ask: &ask_hidden };
            return bundle::accept(&args, &host, &mut io::stdin().lock(), &mut out, &mut err);
        }
        Command::Rekey(args) => rekey::run(&global, &args)?,
        Command::Reload(args) => reload::run(&global, &args)?,
        Command::Daemon(args) => daemon::run(&global, &args)?,
        Command::Doctor(args) => return doctor::run(&global, &args),
        Command::Decrypt(args) => decrypt::run(&args)?,
        Command::Generate { what } => generate::run(what)?,
        Command::Man { dir } => generate::man(&dir)?,
        Command::Completions { shell } => generate::completions(shell)?,
    }
    Ok(0)
}

impl Global {
    /// Starts logging, for a process that is the daemon.
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    fn start_log(&self) -> Result<(), CliError> {
        let format = match self.log_format {
            LogFormat::Auto => {
                log::Format::of_surroundings(std::env::var("JOURNAL_STREAM").ok().as_deref())
            }
            LogFormat::Human => log::Format::Human,
            LogFormat::Json => log::Format::Json,
            LogFormat::Journald => log::Format::Journald,
        };
        Ok(log::start(self.log.as_deref().unwrap_or(log::DEFAULT), format)?)
    }
}

/// The directory of systemd credentials, if there is one.
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn credentials() -> Option<PathBuf> {
    std::env::var("CREDENTIALS_DIRECTORY").ok().map(PathBuf::from)
}

/// Whether the terminal's locale has more than ASCII (POSIX XBD §8.2: the first of the three that is set decides).
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn speaks_utf8() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    is_utf8(["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).as_deref())
}

fn is_utf8(locale: Option<&str>) -> bool {
    let codeset =
        locale.and_then(|locale| locale.split_once('.')).map_or("", |(_, codeset)| codeset);
    let codeset = codeset.split('@').next().unwrap_or_default();
    codeset.eq_ignore_ascii_case("utf-8") || codeset.eq_ignore_ascii_case("utf8")
}

/// Where this process reads configuration and secrets from.
fn secrets() -> FsSecrets {
    FsSecrets::new(credentials())
}

/// An absolute path, links resolved if it exists.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::fs::canonicalize(path)
        .or_else(|_missing| std::path::absolute(path))
        .map_err(|error| CliError::Io(path.display().to_string(), error))
}

/// Writes a line to standard output. That nobody reads it is no failure.
fn say(text: impl fmt::Display) {
    let _closed = writeln!(io::stdout(), "{text}");
}

/// Writes a line to standard error.
fn complain(text: impl fmt::Display) {
    let _closed = writeln!(io::stderr(), "ipsecd: {text}");
}

/// `30`, `30s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| {
        "a number of seconds, or with a unit: 30, \"90s\", \"5m\", \"1h 30m\"".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_locale_says_whether_it_is_utf_8() {
        for utf8 in ["C.UTF-8", "de_DE.utf8", "en_US.UTF-8@euro"] {
            assert!(is_utf8(Some(utf8)), "{utf8}");
        }
        for other in [None, Some("C"), Some("POSIX"), Some("de_DE.ISO-8859-1"), Some("utf8")] {
            assert!(!is_utf8(other), "{other:?}");
        }
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m 5s"), Ok(Duration::from_secs(65)));
        assert!(duration("soon").unwrap_err().contains("\"90s\""), "it says what would be right");
        assert!(duration("-1").is_err());
    }

    #[test]
    fn exit_codes_are_as_documented() {
        let code = |error: ClientError| CliError::from(error).exit_code();
        assert_eq!(code(ClientError::NotRunning("/x".into())), 3);
        assert_eq!(code(ClientError::Ended), 1);
        let refused = |code| ClientError::Refused(Failure { code, message: String::new() });
        assert_eq!(code(refused(Code::Config)), 2);
        assert_eq!(code(refused(Code::NotFound)), 1);
        assert_eq!(CliError::Config.exit_code(), 2);
        assert_eq!(CliError::Daemon(DaemonError::AlreadyRunning { holder: None }).exit_code(), 1);
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["  0  ", "  1  ", "  2  ", "  3  "] {
            assert!(help.contains(code), "{help}");
        }
    }
}
