//! The text format of lvm2 (libdm/libdm-config.c), as lvm2 writes it: sections, numbers, strings, lists.
//!
//! Stricter than lvm2: what it never writes (paths as names, names twice, floats, bare words, control characters in
//! strings) is refused.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Section(Section),
}

/// Names and values, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section(pub Vec<(String, Value)>);

/// Sections inside of sections; the metadata of a group have four.
const DEPTH_MAX: usize = 8;

impl Section {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    /// A list of strings; `None` if there is none, or something else is in it.
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let text = |value: &'_ _| match value {
            Value::Text(_) => true,
            Value::Number(_) | Value::List(_) | Value::Section(_) => false,
        };
        let list = self.list(name)?;
        list.iter().all(text).then(|| {
            let texts = list.iter().filter_map(|value| match value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect()
        })
    }

    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections().find(|(other, _)| *other == name).map(|(_, section)| section)
    }
}

/// The whole text, up to the byte 0 that ends it.
pub fn parse(bytes: &[u8]) -> Result<Section, &'static str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    if bytes[end..].iter().any(|byte| *byte != 0) {
        return Err("something follows the end of the text");
    }
    // Names are ASCII; a description may hold any bytes of a command line.
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut parser = Parser { rest: &text };
    let section = parser.section(0)?;
    if parser.rest.is_empty() { Ok(section) } else { Err("a section is closed that was not opened") }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Spaces and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |at| &self.rest[at..]);
        }
    }

    fn take(&mut self, token: char) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let at = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(at);
        self.rest = rest;
        word
    }

    fn section(&mut self, depth: usize) -> Result<Section, &'static str> {
        if depth > DEPTH_MAX {
            return Err("its sections are too deep");
        }
        let mut items: Vec<(String, Value)> = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() || self.rest.starts_with('}') {
                break;
            }
            // Names of volumes and groups: letters, digits, and `+_.-` (`validate_name` of lib/misc/lvm-string.c).
            let name = self.word(|c| c.is_ascii_alphanumeric() || "+_.-".contains(c));
            if name.is_empty() {
                return Err("a name is missing");
            }
            let value = if self.take('{') {
                let section = self.section(depth + 1)?;
                if !self.take('}') {
                    return Err("a section does not end");
                }
                Value::Section(section)
            } else if self.take('=') {
                self.value()?
            } else {
                return Err("a name has no value");
            };
            items.push((name.into(), value));
        }
        let mut names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a name is there twice");
        }
        Ok(Section(items))
    }

    fn value(&mut self) -> Result<Value, &'static str> {
        if !self.take('[') {
            return self.simple();
        }
        let mut list = Vec::new();
        while !self.take(']') {
            list.push(self.simple()?);
            if !self.take(',') && !self.rest.starts_with(']') {
                return Err("a list does not end");
            }
        }
        Ok(Value::List(list))
    }

    fn simple(&mut self) -> Result<Value, &'static str> {
        self.skip();
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            return self.string().map(Value::Text);
        }
        let digits = self.word(|c| c.is_ascii_digit() || c == '-');
        // lvm2 reads numbers that begin with 0 as octal ones, and writes none.
        if digits.len() > 1 && digits.starts_with('0') {
            return Err("a number is not decimal");
        }
        digits.parse().map(Value::Number).map_err(|_| "a value is neither a number nor a string")
    }

    fn string(&mut self) -> Result<String, &'static str> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(out);
                }
                '\\' => out.push(chars.next().ok_or("a string does not end")?.1),
                c => out.push(c),
            }
        }
        Err("a string does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lvm_writes_is_read() {
        let text =
            b"vg-0 {\nid = \"a\\\"b\\\\\"\nseqno = 4\n# a { comment\nstatus = [\"READ\", \"WRITE\"] # more\n\
            flags = []\nlv { stripes = [\n\"pv0\", 0,\n\"pv1\", 7\n] }\n}\nversion = 1\n\0";
        let tree = parse(text).unwrap();
        let group = tree.section("vg-0").unwrap();
        assert_eq!(group.text("id"), Some("a\"b\\"));
        assert_eq!((group.number("seqno"), tree.number("version")), (Some(4), Some(1)));
        assert_eq!(group.texts("status").unwrap(), ["READ", "WRITE"]);
        assert_eq!(group.texts("flags").unwrap(), Vec::<&str>::new());
        let stripes = group.section("lv").unwrap();
        let pair = |name: &str, at| [Value::Text(name.into()), Value::Number(at)];
        assert_eq!(stripes.list("stripes").unwrap(), [pair("pv0", 0), pair("pv1", 7)].concat());
        assert_eq!(stripes.texts("stripes"), None);
    }

    #[test]
    fn what_lvm_does_not_write_is_refused() {
        let bad: &[&[u8]] = &[
            b"a",
            b"a =",
            b"a = b",
            b"a = [1",
            b"a = [1 2]",
            b"a {",
            b"}",
            b"a = 1 }",
            b"a = 1 a = 2",
            b"a/b = 1",
            b"a = 1.5",
            b"a = 010",
            b"a = \"b",
            b"a = \"b\\",
            b"= 1",
            b"a = [[1]]",
            b"a = 99999999999999999999",
            b"a = 1\0b",
            b"\xff = 1",
            b"a{a{a{a{a{a{a{a{a{a{}}}}}}}}}}",
            b"a = -",
            b"a = 'b'",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(parse(b"").unwrap(), Section::default());
    }
}
