//! `ipsecd top`: the tunnels as they live, on a terminal.
//!
//! [`model`] keeps what is shown and how it came about, [`view`] draws it; this file has the terminal, its keys and the
//! daemon's answers.

pub mod model;
pub mod view;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};

use super::{CliError, Global, duration, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, Status};
use crate::io::clock;
use model::{Model, Move};

/// Size of the frame of `--once`.
const ONCE: (u16, u16) = (80, 24);

/// Arguments of `top`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Keys:
  q, Ctrl-C            quit
  arrows, PgUp, PgDn   move through the tunnels
  s, r                 sort by the next column; reverse
  /                    filter by name, state or address; Enter keeps it, Esc clears it
  h, ?                 help")]
pub struct TopArgs {
    /// Time between two looks, at least 200ms
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub interval: Duration,
    /// Print one frame of 80 columns and 24 lines, and end
    #[arg(long)]
    pub once: bool,
}

/// Runs it, until q is pressed.
///
/// # Errors
/// No daemon runs at the start, or there is no terminal.
pub fn run(global: &Global, args: &TopArgs) -> Result<(), CliError> {
    let mut model = Model::default();
    model.update(clock::now(), ask(&global.socket)?);
    if args.once {
        say(once(&model));
        return Ok(());
    }
    let failed = |error| CliError::Io("no terminal".to_owned(), error);
    restore_on_signals().map_err(failed)?;
    // Restores the terminal should we panic, too.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let interval = args.interval.max(Duration::from_millis(200));
    let result = live(&mut terminal, &mut model, &global.socket, interval);
    ratatui::restore();
    result.map_err(failed)
}

/// One frame as text.
#[must_use]
pub fn once(model: &Model) -> String {
    frame(model, ONCE.0, ONCE.1)
}

/// A frame of any size as text, without the spaces at the ends of its lines.
#[must_use]
pub fn frame(model: &Model, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_frame) = terminal.draw(|frame| view::draw(frame, model));
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width.max(1)));
    let lines = lines.map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn ask(socket: &Path) -> Result<Status, ClientError> {
    let answer = Client::connect(socket)?.ask(Ask::Status { peer: None }, |_| {})?;
    let Body::Status(status) = answer else { return Err(ClientError::Ended) };
    Ok(*status)
}

fn live(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    socket: &Path,
    interval: Duration,
) -> io::Result<()> {
    let mut next_look = clock::now() + interval;
    loop {
        terminal.draw(|frame| view::draw(frame, model))?;
        loop {
            let left = next_look.saturating_duration_since(clock::now());
            if !event::poll(left)? {
                look(model, socket);
                next_look = after(next_look, interval);
                break;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if press(model, key) {
                        return Ok(());
                    }
                    break;
                }
                // Drawn anew at another size.
                Event::Resize(..) => break,
                Event::Key(_)
                | Event::FocusGained
                | Event::FocusLost
                | Event::Mouse(_)
                | Event::Paste(_) => {}
            }
        }
    }
}

/// Looks that were missed are not made up for.
fn after(due: Instant, interval: Duration) -> Instant {
    (due + interval).max(clock::now())
}

fn look(model: &mut Model, socket: &Path) {
    match ask(socket) {
        Ok(status) => model.update(clock::now(), status),
        Err(error) => model.fail(error.to_string()),
    }
}

/// `true`: quit.
fn press(model: &mut Model, key: KeyEvent) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return true;
    }
    if model.is_typing() {
        #[expect(clippy::wildcard_enum_match_arm, reason = "four of many keys")]
        match key.code {
            KeyCode::Char(c) => model.type_char(c),
            KeyCode::Backspace => model.erase_char(),
            KeyCode::Enter => model.end_typing(true),
            KeyCode::Esc => model.end_typing(false),
            _ => {}
        }
        return false;
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "some of many keys")]
    match key.code {
        KeyCode::Char('q') => return true,
        KeyCode::Char('h' | '?') => model.toggle_help(),
        KeyCode::Char('s') => model.next_sort(),
        KeyCode::Char('r') => model.reverse(),
        KeyCode::Char('/') => model.begin_typing(),
        KeyCode::Esc => model.escape(),
        KeyCode::Up => model.go(Move::By(-1)),
        KeyCode::Down => model.go(Move::By(1)),
        KeyCode::PageUp => model.go(Move::By(-10)),
        KeyCode::PageDown => model.go(Move::By(10)),
        KeyCode::Home => model.go(Move::First),
        KeyCode::End => model.go(Move::Last),
        _ => {}
    }
    false
}

/// Who ends us from outside finds the terminal as it was.
fn restore_on_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let number = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            Ok::<_, io::Error>(tokio::select! {
                _ = terminate.recv() => libc::SIGTERM,
                _ = hangup.recv() => libc::SIGHUP,
            })
        });
        if let Ok(number) = number {
            ratatui::restore();
            std::process::exit(128 + number);
        }
    })?;
    Ok(())
}
