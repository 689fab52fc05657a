//! The table: what was computed, and a line for each edge, in the width that there is.

use std::fmt::Write as _;

use flowtrail_query::{Edge, Graph};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::text::{bytes, day_and_time, milliseconds, names, shown, time};

/// Blanks between columns.
const GAP: usize = 2;

/// How wide it may be, and whether it may have colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Columns of the terminal; none where nobody's terminal is asked, and nothing is left out.
    pub(super) width: Option<usize>,
    pub(super) colours: bool,
}

struct Column {
    title: &'static str,
    /// Numbers are to the right.
    right: bool,
    /// A list is cut between its items: half a port is another one.
    list: bool,
    /// What it may be narrowed to, for names.
    narrowest: Option<usize>,
    /// Lower ones leave a narrow terminal first; those without stay.
    rank: Option<u8>,
    /// A count that somebody should look at if there is any.
    alarming: bool,
}

const fn name(title: &'static str, narrowest: usize, rank: Option<u8>) -> Column {
    Column { title, right: false, list: false, narrowest: Some(narrowest), rank, alarming: false }
}

const fn number(title: &'static str, rank: Option<u8>) -> Column {
    Column { title, right: true, list: false, narrowest: None, rank, alarming: false }
}

const COLUMNS: [Column; 13] = [
    name("CLIENT", 14, None),
    name("SERVER", 14, None),
    Column { list: true, ..name("PORTS", 7, Some(8)) },
    name("VIA", 10, Some(6)),
    number("CONNS", None),
    number("OPEN", Some(7)),
    Column { alarming: true, ..number("FAILED", None) },
    number("SENT", None),
    number("RECEIVED", None),
    number("RETRANS", Some(4)),
    number("P95", Some(5)),
    number("DURATION", Some(2)),
    number("LAST SEEN", Some(3)),
];

fn cells(name: impl Fn(&str) -> String, edge: &Edge) -> [String; COLUMNS.len()] {
    let traffic = &edge.traffic;
    let mut ports: Vec<_> = edge.server_ports.iter().map(u16::to_string).collect();
    if edge.more {
        ports.push("…".to_owned());
    }
    [
        name(&edge.source),
        name(&edge.target),
        ports.join(","),
        shown(&edge.services.join(",")),
        traffic.connections.to_string(),
        traffic.open.to_string(),
        traffic.failed.to_string(),
        bytes(traffic.sent.bytes),
        bytes(traffic.received.bytes),
        traffic.retransmits.to_string(),
        milliseconds(traffic.latency.p95_ms),
        milliseconds(traffic.duration.avg_ms),
        day_and_time(edge.last_seen),
    ]
}

/// What was computed, and below it a line for each edge, in the order of the answer.
pub(super) fn table(graph: &Graph, style: Style) -> String {
    let names = names(graph);
    let name = |id: &str| names.get(id).cloned().unwrap_or_else(|| shown(id));
    let rows: Vec<_> = graph.edges.iter().map(|edge| cells(name, edge)).collect();
    let natural: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].width());
            cells.chain([COLUMNS[column].title.width()]).max().unwrap_or_default()
        })
        .collect();
    let layout = layout(&natural, style.width);

    let mut text = head(graph, style);
    let titles = COLUMNS.each_ref().map(|column| column.title.to_owned());
    text.push('\n');
    text.push_str(&painted(&line(&layout, &titles, false), "1", style));
    for row in &rows {
        text.push('\n');
        text.push_str(&line(&layout, row, style.colours));
    }
    if rows.is_empty() {
        text.push_str("\nno connections");
    }
    text
}

/// Which columns there is room for, and how wide they are.
fn layout(natural: &[usize], width: Option<usize>) -> Vec<(usize, usize)> {
    let mut kept: Vec<usize> = (0..COLUMNS.len()).collect();
    let Some(width) = width else {
        return kept.into_iter().map(|column| (column, natural[column])).collect();
    };
    let narrowest = |column: usize| {
        COLUMNS[column].narrowest.map_or(natural[column], |least| least.min(natural[column]))
    };
    let gaps = |kept: &[usize]| GAP * kept.len().saturating_sub(1);
    while kept.iter().map(|column| narrowest(*column)).sum::<usize>() + gaps(&kept) > width {
        let ranked = kept.iter().filter_map(|column| Some((COLUMNS[*column].rank?, *column)));
        let Some((_, lowest)) = ranked.min() else { break };
        kept.retain(|column| *column != lowest);
    }
    let mut layout: Vec<_> = kept.iter().map(|column| (*column, natural[*column])).collect();
    let room = width.saturating_sub(gaps(&kept));
    while layout.iter().map(|(_, width)| width).sum::<usize>() > room {
        // Of the names the longest gives way, so that short ones stay whole.
        let wide = layout.iter_mut().filter(|(column, width)| *width > narrowest(*column));
        let Some((_, width)) = wide.max_by_key(|(_, width)| *width) else { break };
        *width -= 1;
    }
    layout
}

fn line(layout: &[(usize, usize)], cells: &[String; COLUMNS.len()], colours: bool) -> String {
    let mut line = String::new();
    for (position, (column, width)) in layout.iter().enumerate() {
        if position > 0 {
            line.push_str(&" ".repeat(GAP));
        }
        let elide = if COLUMNS[*column].list { elided_list } else { elided };
        let cell = elide(&cells[*column], *width);
        let blanks = " ".repeat(width.saturating_sub(cell.width()));
        let alarms = COLUMNS[*column].alarming && cell != "0";
        let cell = if colours && alarms { format!("\x1b[31m{cell}\x1b[0m") } else { cell };
        if COLUMNS[*column].right {
            line.push_str(&blanks);
            line.push_str(&cell);
        } else {
            line.push_str(&cell);
            line.push_str(&blanks);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// A text with its middle left out if it is too wide: the ends of names tell most.
fn elided(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let end: String = fitting(text.chars().rev(), room / 2).chars().rev().collect();
    let start = fitting(text.chars(), room - end.width());
    format!("{start}…{end}")
}

/// As many items from the start as fit.
fn elided_list(list: &str, width: usize) -> String {
    if list.width() <= width {
        return list.to_owned();
    }
    let ends = list.match_indices(',').map(|(comma, _)| &list[..=comma]);
    let start = ends.take_while(|start| start.width() < width).last().unwrap_or_default();
    format!("{start}…")
}

/// As many characters as fit.
fn fitting(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut taken = 0;
    let fits = |character: &char| {
        taken += character.width().unwrap_or_default();
        taken <= width
    };
    characters.take_while(fits).collect()
}

/// Which window it is, until when it is complete, and how much of it the agents saw.
fn head(graph: &Graph, style: Style) -> String {
    let (window, coverage) = (&graph.window, &graph.coverage);
    let widened = (window.from, window.to) != (window.requested_from, window.requested_to);
    let widened =
        if widened { format!(", in steps of {} s", window.resolution_s) } else { String::new() };
    let mut text = format!("{} to {}{widened}", time(window.from), time(window.to));
    let mut add = |line: String, warns: bool| {
        let line = if warns { painted(&line, "33", style) } else { line };
        let _ = write!(text, "\n{line}");
    };
    if coverage.agents == 0 {
        add("no agent reported: nobody looked".to_owned(), true);
    } else {
        let (reported, expected) = (coverage.intervals_reported, coverage.intervals_expected);
        let agents = counted(coverage.agents, "agent");
        add(format!("{reported} of {expected} reports by {agents}"), reported < expected);
        let incomplete = window.complete_until < window.to;
        let until = if incomplete { window.complete_until } else { window.to };
        add(format!("complete until {}", time(until)), incomplete);
    }
    if coverage.packets_dropped > 0 || coverage.records_dropped > 0 {
        let packets = counted(coverage.packets_dropped, "packet");
        add(format!("dropped: {packets}, {}", counted(coverage.records_dropped, "record")), true);
    }
    let _ = write!(text, "\n{}\n", counted(graph.edges.len() as u64, "edge"));
    text
}

fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn painted(text: &str, colour: &str, style: Style) -> String {
    if style.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::graph::text::tests::example;

    fn plain(width: Option<usize>) -> String {
        table(&example(), Style { width, colours: false })
    }

    #[test]
    fn as_wide_as_the_terminal() {
        for (width, expected) in [
            (Some(80), include_str!("golden/80.txt")),
            (Some(120), include_str!("golden/120.txt")),
            (Some(200), include_str!("golden/200.txt")),
            (None, include_str!("golden/unlimited.txt")),
        ] {
            let printed = plain(width);
            assert_eq!(printed.trim_end(), expected.trim_end(), "{width:?}:\n{printed}\n");
            let widest = printed.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(width.is_none_or(|width| widest <= width), "{widest}");
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = table(&example(), Style { width: Some(80), colours: true });
        assert!(coloured.contains("\x1b[31m3\x1b[0m"), "{coloured}");
        let mut stripped = coloured;
        for code in ["\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain(Some(80)));
    }

    #[test]
    fn nothing_found_is_said() {
        let mut graph = example();
        (graph.edges, graph.coverage) = (Vec::new(), flowtrail_query::Coverage::default());
        let printed = table(&graph, Style { width: Some(80), colours: false });
        assert!(
            printed.contains("nobody looked") && printed.contains("no connections"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn what_is_elided_fits(text in "\\PC{0,40}", width in 1_usize..30) {
            let elided = elided(&text, width);
            prop_assert!(elided.width() <= width);
            prop_assert!(text.width() > width || elided == text);
        }

        #[test]
        fn columns_are_dropped_before_anything_is_too_wide(width in 70_usize..300) {
            let printed = plain(Some(width));
            prop_assert!(printed.lines().all(|line| line.width() <= width), "{}", printed);
        }
    }
}
