//! Standard error as a person sees it: whether it is a terminal, how wide, in colour; and the one live line below
//! all others, which whatever is said meanwhile goes above.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a terminal has that does not tell its width (QEMU's serial console, for one).
const COLUMNS: usize = 80;

/// The live line as it stands there, in columns.
static LIVE: Mutex<Live> = Mutex::new(Live { line: String::new(), columns: 0 });

struct Live {
    line: String,
    columns: usize,
}

/// Whether a line can be drawn again in its place: on a terminal that knows how to.
pub fn can_redraw() -> bool {
    std::io::stderr().is_terminal() && !is_dumb()
}

/// Whether colours are welcome (<https://no-color.org>: any value but the empty one says no).
pub fn has_colour() -> bool {
    can_redraw() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the locale says that the terminal shows more than ASCII.
pub fn has_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| {
        let value = std::env::var(name).unwrap_or_default();
        (!value.is_empty()).then(|| value.to_ascii_lowercase())
    });
    locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}

/// Columns of the terminal at this moment: it may be resized.
pub fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Writes above the live line, if there is one. Nobody has to listen: a closed standard error must not end a run
/// half-way, as the panic of `eprintln!` would.
pub fn write(text: &[u8]) {
    let live = lock();
    let mut out = erased(&live);
    out.extend_from_slice(text);
    out.extend_from_slice(live.line.as_bytes());
    send(&out);
}

/// Draws the live line, which has `columns` columns, in the place of the one before.
pub fn draw(line: String, columns: usize) {
    let mut live = lock();
    let mut out = erased(&live);
    out.extend_from_slice(line.as_bytes());
    *live = Live { line, columns };
    send(&out);
}

/// Takes the live line away and leaves `text`, whole lines, in its place.
pub fn settle(text: &str) {
    let mut live = lock();
    let mut out = erased(&live);
    out.extend_from_slice(text.as_bytes());
    *live = Live { line: String::new(), columns: 0 };
    send(&out);
}

/// What takes the live line away. A terminal that has become narrower has broken it into several.
fn erased(live: &Live) -> Vec<u8> {
    if live.columns == 0 {
        return Vec::new();
    }
    match (live.columns - 1) / columns() {
        0 => b"\r\x1b[J".to_vec(),
        above => format!("\r\x1b[{above}A\x1b[J").into_bytes(),
    }
}

fn send(bytes: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

fn lock() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error for whoever wants a writer.
pub struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `text` in lines of at most `columns` columns, broken between words; a longer word stays whole where it is alone.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let last = lines.len() - 1;
        let taken = lines[last].chars().count();
        if taken == 0 {
            lines[last].push_str(word);
        } else if taken + 1 + word.chars().count() <= columns {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("what is to be done", 7), ["what is", "to be", "done"]);
        assert_eq!(wrap("an unbelievable word", 4), ["an", "unbelievable", "word"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
