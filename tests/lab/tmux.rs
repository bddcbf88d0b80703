//! A real terminal: tmux, with a shell in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::wait;

/// How long a screen may take to be as it should, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of 80 columns and 24 lines. Dropping it ends what runs in it.
pub(crate) struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// Whether there is one; says so where there is none, and is a failed test where the environment says `CI`.
    pub(crate) fn is_here() -> bool {
        let here = Command::new("tmux").arg("-V").output().is_ok();
        assert!(here || std::env::var_os("CI").is_none(), "needs tmux");
        if !here {
            println!("SKIP: needs tmux (tests/lab/install.sh installs it)");
        }
        here
    }

    /// Starts one; `dir` is its own, `command` makes a command where the shell is to run.
    #[track_caller]
    pub(crate) fn open(dir: &Path, command: impl FnOnce(&str) -> Command) -> Self {
        let socket = dir.join("tmux.sock");
        let mut command = command("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&socket);
        command.args(["new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=$ ", "sh"]);
        let output = command.output().expect("tmux runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tmux = Self { socket };
        tmux.until("the shell", |screen| screen.starts_with('$'));
        tmux
    }

    fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-u", "-S"]).arg(&self.socket).args(args);
        command.output().expect("tmux runs")
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, in tmux's names for them.
    #[track_caller]
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"][..], keys].concat());
    }

    /// Types a line.
    #[track_caller]
    pub(crate) fn line(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]);
        self.keys(&["Enter"]);
    }

    /// What is to be seen.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    #[track_caller]
    pub(crate) fn resize(&self, width: u16, height: u16) {
        self.run(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Waits until the screen is as it should be; what it is then.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = wait::within(PATIENCE, || {
            last = self.screen();
            is_so(&last).then_some(())
        });
        assert!(found.is_some(), "waited in vain for {what}; there is:\n{last}");
        last
    }

    /// Waits until this is to be seen.
    #[track_caller]
    pub(crate) fn shows(&self, part: &str) -> String {
        self.until(part, |screen| screen.contains(part))
    }

    /// Waits until a part of the screen that no longer belongs there is gone.
    #[track_caller]
    pub(crate) fn hides(&self, part: &str) -> String {
        self.until(&format!("{part:?} to vanish"), |screen| !screen.contains(part))
    }

    /// The shell answers, on a terminal that is as it was: line by line, echoing, with its cursor, and on its own screen.
    #[track_caller]
    pub(crate) fn is_as_it_was(&self, before: &str) {
        self.until("the prompt", |screen| {
            screen.trim_end().ends_with("\n$") || screen.trim_end() == "$"
        });
        let about = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}";
        assert_eq!(self.run(&["display-message", "-p", about]).trim(), "0 1 0 0");
        assert_eq!(self.modes(), before);
        self.line("echo is o''k");
        // What was typed is echoed.
        self.until("an echo", |screen| {
            screen.contains("echo is o''k") && screen.contains("\nis ok")
        });
    }

    /// The modes of the terminal, as stty writes them.
    #[track_caller]
    pub(crate) fn modes(&self) -> String {
        let tty = self.run(&["display-message", "-p", "#{pane_tty}"]);
        let output = Command::new("stty").args(["-g", "-F", tty.trim()]).output();
        let output = output.expect("stty runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The process that the shell runs.
    #[track_caller]
    pub(crate) fn child(&self) -> i32 {
        let shell = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        wait::until("the process", PATIENCE, || {
            std::fs::read_to_string(&children).ok()?.trim().parse().ok()
        })
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.command(&["kill-server"]);
    }
}
