//! `ipsecd top`: the tunnels as they live, on a terminal.
//!
//! [`model`] keeps what is shown and how it came about, [`view`] draws it; this file has the terminal, its keys and the
//! daemon's answers.

pub mod model;
pub mod view;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::backend::TestBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::{DefaultTerminal, Frame, Terminal};

use super::{CliError, Global, duration, say, speaks_utf8};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, Status};
use crate::io::clock;
use model::{Model, Move};
use view::Charset;

/// How long an answer may take before the daemon is said not to give one.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is said then.
const SILENT: &str = "the daemon does not answer";
/// How often it is looked whether the answer is there, while there is none. Keys are heard at once.
const LISTEN: Duration = Duration::from_millis(25);
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
    if !args.once && !io::stdout().is_terminal() {
        let text = "top: the standard output is no terminal; for one frame there is --once, and for scripts \
                    ipsecd status --watch --json";
        return Err(CliError::Usage(text.to_owned()));
    }
    model.update(clock::now(), ask(&global.socket)?);
    let charset = if speaks_utf8() { Charset::Utf8 } else { Charset::Ascii };
    if args.once {
        say(frame(&model, ONCE.0, ONCE.1, charset));
        return Ok(());
    }
    let interval = args.interval.max(Duration::from_millis(200));
    on_screen(|screen| {
        let looker = Looker::start(&global.socket)?;
        live(screen, &mut model, looker, interval, charset)
    })
    .map_err(|error| CliError::Io("no terminal".to_owned(), error))
}

/// A frame of any size as text, without the spaces at the ends of its lines.
#[must_use]
pub fn frame(model: &Model, width: u16, height: u16, charset: Charset) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_frame) = terminal.draw(|frame| view::draw(frame, model, charset));
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width.max(1)));
    let lines = lines.map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The terminal, as long as it is ours.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    /// Held while something is written.
    writing: Arc<Mutex<()>>,
}

impl Screen {
    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn draw(&mut self, how: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let _whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.terminal.draw(how).map(drop)
    }
}

/// Gives `body` the terminal, and puts it back as it was: when `body` is done, when it panics, and when the process is ended
/// from outside.
///
/// # Errors
/// There is none, or what `body` says.
pub fn on_screen<T>(body: impl FnOnce(&mut Screen) -> io::Result<T>) -> io::Result<T> {
    let writing = Arc::new(Mutex::new(()));
    restore_on_signals(Arc::clone(&writing))?;
    // Restores the terminal should we panic, too.
    let terminal = ratatui::try_init()?;
    let result = body(&mut Screen { terminal, writing });
    ratatui::restore();
    result
}

fn ask(socket: &Path) -> Result<Status, ClientError> {
    let answer = Client::connect(socket)?.ask(Ask::Status { peer: None }, |_| {})?;
    let Body::Status(status) = answer else { return Err(ClientError::Ended) };
    Ok(*status)
}

/// Asks the daemon in a thread of its own: one that hangs keeps nobody from quitting.
struct Looker {
    asks: mpsc::Sender<()>,
    answers: mpsc::Receiver<(Instant, Result<Status, ClientError>)>,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
}

impl Looker {
    fn start(socket: &Path) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let socket: PathBuf = socket.to_owned();
        let body = move || {
            while asked.recv().is_ok() {
                let status = ask(&socket);
                if answer.send((clock::now(), status)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("looker".to_owned()).spawn(body)?;
        Ok(Self { asks, answers, asked: None })
    }

    fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
        // It ends after us.
        let _sent = self.asks.send(());
    }

    /// What is new: an answer, or that there is none in time.
    fn news(&mut self, now: Instant, model: &mut Model) -> bool {
        match self.answers.try_recv() {
            Ok((at, Ok(status))) => model.update(at, status),
            Ok((_, Err(error))) => model.fail(error.to_string()),
            Err(_) => {
                let late = self.asked.is_some_and(|asked| now >= asked + PATIENCE);
                if late && model.failure.as_deref() != Some(SILENT) {
                    model.fail(SILENT.to_owned());
                    return true;
                }
                return false;
            }
        }
        self.asked = None;
        true
    }
}

fn live(
    screen: &mut Screen,
    model: &mut Model,
    mut looker: Looker,
    interval: Duration,
    charset: Charset,
) -> io::Result<()> {
    let mut next_look = clock::now() + interval;
    loop {
        screen.draw(|frame| view::draw(frame, model, charset))?;
        loop {
            let now = clock::now();
            if looker.asked.is_none() && now >= next_look {
                looker.ask(now);
                // Looks that were missed are not made up for.
                next_look = (next_look + interval).max(now);
            }
            if looker.news(now, model) {
                break;
            }
            let left = if looker.asked.is_some() {
                LISTEN
            } else {
                next_look.saturating_duration_since(now)
            };
            if !event::poll(left)? {
                continue;
            }
            // All that waits, for one frame: keys that are held down come faster than a slow terminal takes frames.
            let mut changed = false;
            while event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if press(model, key) {
                            return Ok(());
                        }
                        changed = true;
                    }
                    // Drawn anew at another size.
                    Event::Resize(..) => changed = true,
                    Event::Key(_)
                    | Event::FocusGained
                    | Event::FocusLost
                    | Event::Mouse(_)
                    | Event::Paste(_) => {}
                }
            }
            if changed {
                break;
            }
        }
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
fn restore_on_signals(writing: Arc<Mutex<()>>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let number = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut quit = signal(SignalKind::quit())?;
            Ok::<_, io::Error>(tokio::select! {
                _ = terminate.recv() => libc::SIGTERM,
                _ = hangup.recv() => libc::SIGHUP,
                _ = interrupt.recv() => libc::SIGINT,
                _ = quit.recv() => libc::SIGQUIT,
            })
        });
        if let Ok(number) = number {
            // Nothing is drawn after it.
            let _last = writing.lock().unwrap_or_else(PoisonError::into_inner);
            ratatui::restore();
            // Which hides it, and would show it when it is dropped.
            let _gone = execute!(io::stdout(), Show);
            std::process::exit(128 + number);
        }
    })?;
    Ok(())
}
