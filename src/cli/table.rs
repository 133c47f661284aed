//! A table for people: as wide as the terminal at most, and whole where nobody's window is in the way.
//!
//! What does not fit is given up in an order that the columns state: long texts are cut first, IDs are shown by their
//! beginning, then columns that one can do without are left out. A pipe gets everything, unless `COLUMNS` says how wide
//! it may be.

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr;

use super::terminal::commands;

/// What stands between two columns.
const GAP: &str = "  ";
/// What a terminal has that does not tell its width.
const UNTOLD: usize = 80;
/// A column that may be cut is not cut below this while anything else can give way.
const READABLE: usize = 16;
/// Below this nothing is shown of it.
const LEAST: usize = 4;

/// What a column does when it gets narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// It stays.
    Stays,
    /// Its texts are cut.
    IsCut,
    /// Its texts are shown by so many characters of their beginning.
    Begins(usize),
    /// It goes; those with the smallest number first.
    Goes(u8),
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// Whether it is set flush right, as numbers are.
    pub right: bool,
    pub narrow: Narrow,
}

/// Rows of as many texts as there are columns.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// How wide a table on standard output may be; `None`: as wide as it likes.
pub fn width() -> Option<usize> {
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|&columns| columns > 0);
    said.or_else(|| {
        let size = tcgetwinsize(std::io::stdout()).ok()?;
        Some(if size.ws_col > 0 { usize::from(size.ws_col) } else { UNTOLD })
    })
}

impl Table {
    pub fn new(columns: &[Column]) -> Self {
        let titles = columns.iter().map(|column| column.title.to_owned()).collect();
        Self { columns: columns.to_vec(), rows: vec![titles] }
    }

    pub fn row(&mut self, texts: impl IntoIterator<Item = String>) {
        self.rows.push(texts.into_iter().map(|text| plain(&text)).collect());
    }

    /// The lines, none of them wider than `width` unless that is less than can be shown.
    pub fn render(&self, width: Option<usize>) -> String {
        let widths = self.fit(width.unwrap_or(usize::MAX));
        let mut lines = Vec::new();
        for row in &self.rows {
            let mut line = String::new();
            let shown = row.iter().zip(&self.columns).zip(&widths).filter(|(_, width)| **width > 0);
            for (at, ((text, column), &width)) in shown.enumerate() {
                let text = match column.narrow {
                    Narrow::Begins(_) => text.chars().take(width).collect(),
                    _ => cut(text, width),
                };
                let pad = " ".repeat(width - text.width().min(width));
                let gap = if at > 0 { GAP } else { "" };
                let (before, after) = if column.right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line.push_str(&format!("{gap}{before}{text}{after}"));
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// The width of each column; 0 is one that is left out.
    fn fit(&self, most: usize) -> Vec<usize> {
        let natural = |at: usize| self.rows.iter().map(|row| row[at].width()).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let needs = |widths: &[usize]| {
            let shown = widths.iter().filter(|width| **width > 0).count();
            widths.iter().sum::<usize>() + GAP.len() * shown.saturating_sub(1)
        };
        self.shrink(&mut widths, most, READABLE, needs);
        for (at, column) in self.columns.iter().enumerate() {
            if let Narrow::Begins(chars) = column.narrow
                && needs(&widths) > most
            {
                widths[at] = widths[at].min(chars);
            }
        }
        let mut can_go: Vec<(u8, usize)> = self
            .columns
            .iter()
            .enumerate()
            .filter_map(
                |(at, column)| if let Narrow::Goes(rank) = column.narrow { Some((rank, at)) } else { None },
            )
            .collect();
        can_go.sort_unstable();
        for (_, at) in can_go {
            if needs(&widths) > most {
                widths[at] = 0;
            }
        }
        self.shrink(&mut widths, most, LEAST, needs);
        // What was cut too far before others gave way gets back what is left.
        for (at, column) in self.columns.iter().enumerate() {
            if column.narrow == Narrow::IsCut {
                let spare = most.saturating_sub(needs(&widths));
                widths[at] = natural(at).min(widths[at].saturating_add(spare));
            }
        }
        widths
    }

    /// Cuts what may be cut, each down to `least`.
    fn shrink(&self, widths: &mut [usize], most: usize, least: usize, needs: impl Fn(&[usize]) -> usize) {
        for (at, column) in self.columns.iter().enumerate() {
            if column.narrow == Narrow::IsCut {
                let excess = needs(widths).saturating_sub(most);
                widths[at] = widths[at].saturating_sub(excess).max(widths[at].min(least));
            }
        }
    }
}

/// On one line, and nothing in it that a terminal obeys.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        c if c.is_whitespace() => ' ',
        c if commands(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// At most so many columns of a text; that there is more is shown by `…`.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    // One column for the mark; a wide character that would cross the end stays away.
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let next = at + c.len_utf8();
        if text[..next].width() + 1 > width {
            break;
        }
        end = next;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { title: "NAME", right: false, narrow: Narrow::IsCut },
        Column { title: "ID", right: false, narrow: Narrow::Begins(8) },
        Column { title: "SIZE", right: true, narrow: Narrow::Stays },
        Column { title: "AGE", right: true, narrow: Narrow::Goes(0) },
    ];

    fn table(name: &str) -> Table {
        let mut table = Table::new(&COLUMNS);
        table.row([name, "0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd", "1 GiB", "3 d"].map(str::to_owned));
        table
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for name in [
            "a",
            "a-name-of-some-length",
            &"n".repeat(300),
            "数据库快照二零二六年十一月备份数据",
            "e\u{301}".repeat(40).as_str(),
            "\u{1b}[2J\u{202e}x\ny",
        ] {
            for width in [24, 30, 40, 56, 57, 80, 120] {
                let text = table(name).render(Some(width));
                assert_eq!(text.lines().count(), 2);
                for line in text.lines() {
                    assert!(line.width() <= width, "{width}: {line}");
                    assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line}");
                }
            }
        }
    }

    #[test]
    fn what_can_be_done_without_goes_first_and_nothing_goes_without_need() {
        let lines = |width| table("web-server").render(width).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(None)[1], "web-server  0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd  1 GiB  3 d");
        assert_eq!(lines(Some(40))[0], "NAME        ID         SIZE  AGE");
        assert_eq!(lines(Some(40))[1], "web-server  0bb22bac  1 GiB  3 d");
        assert_eq!(lines(Some(28))[1], "web-server  0bb22bac  1 GiB");
        assert_eq!(lines(Some(24))[1], "web-se…  0bb22bac  1 GiB");
    }

    #[test]
    fn wide_characters_count_as_two() {
        assert_eq!(cut("数据库快照", 10), "数据库快照");
        assert_eq!(cut("数据库快照", 9), "数据库快…");
        assert_eq!(cut("数据库快照", 8), "数据库…");
        assert_eq!(cut("abc", 1), "…");
    }
}
