//! `ipsecd daemon`: the daemon itself, for a directory of configuration files, or in the background of `up`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{CliError, Global, check, say, secrets, spawn};
use crate::daemon::audit::Target;
use crate::daemon::load::files_of;
use crate::daemon::metrics::http::Address;
use crate::daemon::{self, Options};

/// Arguments of `daemon`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd daemon                           for /etc/ipsecd/*.conf, as the service does
  ipsecd daemon --config-dir ./tunnels --log debug")]
pub struct DaemonArgs {
    /// Where the configuration files (*.conf, one a peer) are
    #[arg(long, value_name = "DIR", default_value = "/etc/ipsecd", value_hint = ValueHint::DirPath)]
    pub config_dir: PathBuf,
    /// Write the keys of every SA into a directory of ours alone, as tables that Wireshark and `decrypt` read
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keylog: Option<PathBuf>,
    /// Write audit events (bad ICV, replay, unknown SPI, …) as JSON lines into a file, or to unix:/PATH
    #[arg(long, value_name = "WHERE", env = "IPSECD_AUDIT")]
    pub audit: Option<Target>,
    /// Let metrics be read (OpenMetrics: /metrics, /livez, /readyz) at ADDRESS:PORT, or at unix:/PATH
    #[arg(long, value_name = "WHERE", env = "IPSECD_METRICS")]
    pub metrics: Option<Address>,
    /// Take an address for --metrics that is not of the loopback: whoever reaches it reads them
    #[arg(long, requires = "metrics")]
    pub metrics_expose: bool,
    /// Started by `up`: no configuration directory, ends with the last peer
    #[arg(long, hide = true)]
    pub background_of_up: bool,
}

/// Runs it until it is told to end.
///
/// # Errors
/// The files have errors, or something of the system is not there.
pub fn run(global: &Global, args: &DaemonArgs) -> Result<(), CliError> {
    global.start_log()?;
    let mut options = Options {
        socket: global.socket.clone(),
        files: Vec::new(),
        config_dir: None,
        state_dir: global.state_dir.clone(),
        credentials: super::credentials(),
        exit_when_empty: args.background_of_up,
        log_from_config: global.log.is_none(),
        keylog: args.keylog.clone(),
        offload: global.offload.into(),
        workers: global.workers.count(),
        audit: args.audit.clone(),
        metrics: args.metrics.clone(),
    };
    if let Some(address) = args.metrics.as_ref().filter(|at| !at.is_local() && !args.metrics_expose)
    {
        return Err(CliError::Usage(format!(
            "--metrics {address} lets everybody who reaches it read the names of peers and what they send; \
             take 127.0.0.1, [::1] or unix:/PATH, or say --metrics-expose"
        )));
    }
    if args.background_of_up {
        return in_background(&options);
    }
    let failed = |error| {
        let dir = args.config_dir.display();
        let what = format!(
            "cannot read the configuration files of {dir} (make it, or name another by --config-dir)"
        );
        CliError::Io(what, error)
    };
    options.files = files_of(&args.config_dir).map_err(failed)?;
    options.config_dir = Some(super::absolute(&args.config_dir)?);
    if !options.files.is_empty() {
        let checked = check::run(&options.files, &secrets(), &mut io::sink(), &mut io::stderr());
        if !matches!(checked, Ok(check::OK)) {
            return Err(CliError::Config);
        }
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        dir = %args.config_dir.display(),
        peers = options.files.len(),
        "starting"
    );
    Ok(daemon::run(&options, spawn::notify_ready)?)
}

/// Our parent waits for a line: that we are ready, or why not.
fn in_background(options: &Options) -> Result<(), CliError> {
    // Away from the terminal of `up`: its Ctrl-C is not ours. As a child we lead no group, so this cannot fail.
    let _own_session = nix::unistd::setsid();
    let mut is_ready = false;
    let result = daemon::run(options, || {
        is_ready = true;
        let mut out = io::stdout();
        let _gone = writeln!(out, "{}", spawn::READY).and_then(|()| out.flush());
    });
    if let Err(error) = &result {
        tracing::error!(%error, "the daemon ends");
        if !is_ready {
            say(error.to_string().replace('\n', " "));
        }
    }
    Ok(result?)
}
