//! Text for HTML and SVG. A leaf.

/// Text as HTML and XML show it, inside of elements and of attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No control character has a meaning here, and some are forbidden.
            c if c.is_control() && c != '\n' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(
            escape("<a href=\"x\">'&'\u{1b}[m</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39; [m&lt;/a&gt;"
        );
    }
}
