//! How `top` is drawn: readable from 60 columns and 12 lines on; columns and parts that find no room are left out.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::model::{Model, Sort, Tunnel};

/// Looks that a tunnel's own curve shows.
const CURVE: usize = 8;
/// Below this width, replays and ICVs are one column, and tunnels have no curves of their own.
const WIDE: u16 = 76;

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const FAINT: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const MARKED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Nothing but ASCII.
    Ascii,
    /// Everything.
    Utf8,
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, charset: Charset) {
    let area = frame.area();
    let curves = if area.height >= 16 { 3 } else { 0 };
    let events = match area.height {
        0..12 => 0,
        12..20 => 3,
        20..40 => 6,
        _ => 10,
    };
    let [title, traffic, table, log, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(curves),
        Constraint::Min(3),
        Constraint::Length(events),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, model, title);
    draw_traffic(frame, model, traffic);
    draw_table(frame, model, table);
    draw_events(frame, model, log);
    draw_foot(frame, model, foot);
    if model.help {
        draw_help(frame, area);
    }
    if charset == Charset::Ascii {
        to_ascii(frame.buffer_mut());
    }
}

/// Curves, lines and arrows in ASCII; of names, what it does not have is a question mark.
fn to_ascii(buffer: &mut Buffer) {
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().is_ascii()) {
        let plain = match cell.symbol() {
            "▁" => "_",
            "▂" => ".",
            "▃" | "▄" => "-",
            "▅" => "=",
            "▆" => "+",
            "▇" => "*",
            "█" => "#",
            "─" => "-",
            "│" => "|",
            "┌" | "┐" | "└" | "┘" => "+",
            "↓" => "v",
            "↑" => "^",
            _ => "?",
        };
        cell.set_symbol(plain);
    }
}

fn draw_title(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let (version, pid, uptime) = &model.daemon;
    let (peers, up) = model.peers;
    let up_style = if up == peers { GOOD } else { BAD };
    let first = Line::from(vec![
        Span::styled(format!("ipsecd {version}"), BOLD),
        Span::raw(format!("  pid {pid}  age {}  peers {peers}, ", time(*uptime))),
        Span::styled(format!("{up} up"), up_style),
        Span::raw(format!("  tunnels {}", model.count())),
    ]);
    let second = if let Some(why) = &model.failure {
        Line::styled(why.clone(), BAD)
    } else if model.drops.is_empty() {
        Line::styled("nothing dropped", FAINT)
    } else {
        let all = model.drops.values().fold(0, |all: u64, count| all.saturating_add(*count));
        let mut drops: Vec<_> = model.drops.iter().collect();
        drops.sort_by_key(|(_, count)| Reverse(**count));
        let parts: Vec<_> =
            drops.iter().map(|(reason, count)| format!("{reason} {}", short(**count))).collect();
        Line::raw(format!("dropped {}: {}", short(all), parts.join(", ")))
    };
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

fn draw_traffic(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1);
    let [left, right] = halves.areas(area);
    for (area, name, history) in [(left, "in", &model.totals.0), (right, "out", &model.totals.1)] {
        let newest = history.back().copied().unwrap_or(0);
        let most = history.iter().copied().max().unwrap_or(0);
        let title = format!("{name} {}/s, at most {}/s", bytes(newest), bytes(most));
        let block = Block::new().borders(Borders::TOP).title(title);
        let width = usize::from(area.width);
        let newest_first = history.iter().rev().take(width).rev().copied();
        let data: Vec<u64> = newest_first.collect();
        frame.render_widget(Sparkline::default().block(block).data(data).style(GOOD), area);
    }
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let wide = area.width >= WIDE;
    let shown = model.shown();
    let marked = model.marked(&shown);
    let (sort, reversed) = model.sort();
    let head = |text: &str, column: Sort| {
        let arrow = match (sort == column, reversed) {
            (false, _) => "",
            (true, false) => "↓",
            (true, true) => "↑",
        };
        format!("{text}{arrow}")
    };
    let mut header =
        vec![head("TUNNEL", Sort::Name), head("STATE", Sort::State), "IN/s".to_owned()];
    header.push("OUT/s".to_owned());
    if wide {
        header.push(head("TRAFFIC", Sort::Traffic));
    }
    header.push(head("LOSS", Sort::Loss));
    if wide {
        header.extend([head("REPL", Sort::Drops), "ICV".to_owned()]);
    } else {
        header.push(head("DROP", Sort::Drops));
    }
    header.extend([head("RTT", Sort::Rtt), head("REKEY", Sort::Rekey)]);
    // Rows that are not to be seen cost nothing: a thousand tunnels are drawn as fast as twenty.
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    let first = marked.saturating_sub(room - 1);
    let visible = shown.iter().skip(first).take(room);
    let rows = visible.map(|it| row(it, wide));
    // As wide as the longest that can stand there: `connecting`, `999K`, `100.0%`, `9.9ms`, `49m08s`.
    let mut widths = vec![Constraint::Min(10), Constraint::Length(10)];
    widths.extend([Constraint::Length(5), Constraint::Length(5)]);
    if wide {
        widths.push(Constraint::Length(8));
    }
    widths.push(Constraint::Length(6));
    if wide {
        widths.extend([Constraint::Length(5), Constraint::Length(4)]);
    } else {
        widths.push(Constraint::Length(5));
    }
    widths.extend([Constraint::Length(5), Constraint::Length(6)]);
    let table =
        Table::new(rows, widths).header(Row::new(header).style(BOLD)).row_highlight_style(MARKED);
    let selected = (!shown.is_empty()).then_some(marked - first);
    let mut state = TableState::default().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn row(it: &Tunnel, wide: bool) -> Row<'static> {
    let mut cells = vec![
        Span::raw(it.name.clone()),
        Span::styled(it.state.clone(), if it.good { GOOD } else { BAD }),
        Span::raw(bytes(it.inbound)),
        Span::raw(bytes(it.outbound)),
    ];
    if wide {
        cells.push(Span::styled(curve(&it.history), GOOD));
    }
    cells.push(Span::styled(
        it.loss.map_or_else(|| "-".to_owned(), |loss| format!("{}.{}%", loss / 10, loss % 10)),
        if it.loss.unwrap_or(0) >= 10 { BAD } else { Style::new() },
    ));
    let count = |count: u64| Span::styled(short(count), if count > 0 { BAD } else { FAINT });
    if wide {
        cells.extend([count(it.replays), count(it.bad_icvs)]);
    } else {
        cells.push(count(it.replays.saturating_add(it.bad_icvs).saturating_add(it.other_drops)));
    }
    cells.push(Span::raw(it.rtt_us.map_or_else(|| "-".to_owned(), rtt)));
    cells.push(Span::raw(it.rekey_in.map_or_else(|| "never".to_owned(), time)));
    Row::new(cells)
}

fn draw_events(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let newest = model.events.iter().rev().take(room).rev();
    let lines: Vec<_> = newest
        .map(|it| {
            let style = if it.bad { BAD } else { Style::new() };
            Line::from(vec![
                Span::styled(format!("{:>7} ", time(it.at)), FAINT),
                Span::styled(it.what.clone(), style),
            ])
        })
        .collect();
    let block = Block::new().borders(Borders::TOP).title("events, by the daemon's age");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let (filter, typing) = model.filter();
    let text = if typing {
        format!("filter: {filter}_  Enter keeps it, Esc clears it")
    } else {
        let (sort, reversed) = model.sort();
        let order = if reversed { ", reversed" } else { "" };
        let mut text =
            format!("q quit  h help  s sort: {}{order}  r reverse  / filter", sort.name());
        if !filter.is_empty() {
            text.push_str(&format!(": {filter}"));
        }
        text
    };
    frame.render_widget(Paragraph::new(Line::styled(text, MARKED)).style(MARKED), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    const TEXT: &str = "\
q, Ctrl-C           quit
arrows, PgUp, PgDn  move the mark; Home and End, too
s, r                sort by the next column; reverse
/                   filter by name, state or address
Esc                 clear the filter, hide this

LOSS   of what the peer sent, the share that never came
REPL   packets dropped as replayed; ICV: as forged or damaged
RTT    of the last IKE request, a liveness check mostly
REKEY  time to the next rekey of the CHILD_SA";
    let (width, height) = (62, 12);
    let left = area.width.saturating_sub(width) / 2;
    let top = area.height.saturating_sub(height) / 2;
    let place = Rect::new(left, top, width.min(area.width), height.min(area.height));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(TEXT).block(Block::bordered().title("help")), place);
}

/// The newest looks as a curve of one line.
fn curve(history: &VecDeque<u64>) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = history.iter().rev().take(CURVE).max().copied().unwrap_or(0).max(1);
    let newest = history.iter().rev().take(CURVE).rev();
    newest
        .map(|rate| {
            // Below eight, since no rate is above the most.
            let level = u128::from(*rate) * 7 / u128::from(most);
            usize::try_from(level).ok().and_then(|at| LEVELS.get(at)).copied().unwrap_or('█')
        })
        .collect()
}

/// `17`, `1.2k`, `34M`: at most four characters.
fn short(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// `17`, `1.2K`, `34M`: of 1,024 bytes.
fn bytes(count: u64) -> String {
    scaled(count, 1024, &["", "K", "M", "G", "T", "P", "E"])
}

fn scaled(count: u64, base: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let (mut whole, mut rest) = (count, 0);
    while whole >= 1000 && unit + 1 < units.len() {
        rest = whole % base;
        whole /= base;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit > 0 && whole < 10 {
        let tenths = rest * 10 / base;
        return format!("{whole}.{tenths}{name}");
    }
    format!("{whole}{name}")
}

/// `340us`, `23ms`, `1.2s`.
fn rtt(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros}us"),
        1000..10_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `59s`, `5m03s`, `3h12m`, `8d04h`.
fn time(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    match time {
        0..60 => format!("{time}s"),
        60..3600 => format!("{}m{:02}s", time / 60, time % 60),
        3600..86_400 => format!("{}h{:02}m", time / 3600, time % 3600 / 60),
        _ => format!("{}d{:02}h", time / 86_400, time % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (count, want) in
            [(0, "0"), (999, "999"), (1000, "1.0k"), (12_345, "12k"), (1_234_567, "1.2M")]
        {
            assert_eq!(short(count), want);
        }
        assert_eq!((bytes(1023), bytes(1 << 20)), ("0.9K".to_owned(), "1.0M".to_owned()));
        assert_eq!(rtt(340), "340us");
        assert_eq!(
            (rtt(2_340), rtt(23_400), rtt(1_230_000)),
            ("2.3ms".into(), "23ms".into(), "1.2s".into())
        );
        assert_eq!((time(59), time(303)), ("59s".to_owned(), "5m03s".to_owned()));
        assert_eq!((time(11_520), time(705_600)), ("3h12m".to_owned(), "8d04h".to_owned()));
    }

    #[test]
    fn a_curve_is_as_high_as_its_highest() {
        let of = |rates: &[u64]| curve(&rates.iter().copied().collect());
        assert_eq!(of(&[0, 7, 14]), "▁▄█");
        assert_eq!(of(&[u64::MAX, 0]), "█▁");
        assert_eq!(of(&[0, 0]), "▁▁");
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[9; 20]).chars().count(), CURVE);
    }
}
