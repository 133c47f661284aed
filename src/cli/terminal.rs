//! Text on its way to a terminal. Names, properties and error texts come from services and from others' files: they
//! are shown, never obeyed.

use std::fmt::{self, Display, Write};

/// Shows text with a mark in place of every character that commands a terminal or turns the writing around.
pub struct Plain<T>(pub T);

impl<T: Display> Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Filter(f), "{}", self.0)
    }
}

struct Filter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split_inclusive(commands).try_for_each(|piece| match piece.chars().next_back() {
            Some(last) if commands(last) => {
                self.0.write_str(&piece[..piece.len() - last.len_utf8()])?;
                self.0.write_char(char::REPLACEMENT_CHARACTER)
            }
            _ => self.0.write_str(piece),
        })
    }
}

/// Control characters but the end of a line, and those that change the direction of writing (Unicode, UAX 9).
pub fn commands(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON in which such characters are escaped: they can stand only inside of its strings.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if commands(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
