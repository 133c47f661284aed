//! The JSON of `qemu-img map --output=json` and of `rbd diff --format json`, read as it comes.
//!
//! Both are one array of objects. `qemu-img` lists all of the disk: `start`, `length`, `zero`, … `rbd diff` (of a
//! whole image, without `--from-snap`) lists what the image holds: `offset`, `length`, `exists`; the rest is zero.

use std::io::{BufReader, Error, Read, Result as IoResult};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::error::Category;

use super::Holes;

/// Bytes of a map that are read at most.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a string, and depth of brackets: the JSON library keeps both in memory.
const STRING_BYTES_MAX: u32 = 4096;
const DEPTH_MAX: u32 = 16;
/// No disk is longer: file offsets end there.
const DISK_BYTES_MAX: u64 = i64::MAX as u64;

/// Reads a map.
///
/// # Errors
/// What is wrong with it, in words that can follow its name; nothing of what it holds but numbers.
pub fn parse(map: impl Read) -> Result<Holes, String> {
    let guard = Guard { map, read: 0, string: None, escaped: false, depth: 0 };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(guard));
    let mut state = State::default();
    let read = Entries(&mut state).deserialize(&mut json).and_then(|()| json.end());
    if let Some(why) = state.wrong {
        return Err(why);
    }
    read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Io => error.to_string(),
            Category::Eof => "ends too early".into(),
            Category::Syntax => format!("is no JSON, in line {line}, column {column}"),
            Category::Data => format!(
                "is no map of qemu-img or rbd diff: line {line}, column {column} is something else than expected"
            ),
        }
    })?;
    let mut holes = state.holes;
    if state.kind != Some(Form::Qemu) {
        holes.open_end();
    }
    Ok(holes)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Qemu,
    Rbd,
}

#[derive(Default)]
struct State {
    holes: Holes,
    kind: Option<Form>,
    /// Where the last entry ended.
    at: u64,
    entries: u64,
    wrong: Option<String>,
}

/// An object of either form.
#[derive(Deserialize)]
struct Entry {
    start: Option<u64>,
    offset: Option<u64>,
    length: Option<u64>,
    zero: Option<bool>,
    exists: Option<Exists>,
}

/// `rbd` writes a text.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Exists {
    Flag(bool),
    Word(Word),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    True,
    False,
}

impl State {
    fn add(&mut self, entry: &Entry) -> Result<(), String> {
        self.entries += 1;
        let number = self.entries;
        let form = if entry.start.is_some() { Form::Qemu } else { Form::Rbd };
        if *self.kind.get_or_insert(form) != form {
            return Err(format!("mixes two kinds of maps: entry {number} is of the other one"));
        }
        let missing =
            |what: &str| format!("is no map of qemu-img or rbd diff: entry {number} has no `{what}`");
        let start = match form {
            Form::Qemu => entry.start,
            Form::Rbd => entry.offset,
        };
        let start = start.ok_or_else(|| missing("offset"))?;
        let len = entry.length.ok_or_else(|| missing("length"))?;
        let is_zero = match (form, entry.exists) {
            (Form::Qemu, _) => entry.zero.ok_or_else(|| missing("zero"))?,
            (Form::Rbd, Some(Exists::Flag(there))) => !there,
            (Form::Rbd, Some(Exists::Word(word))) => matches!(word, Word::False),
            (Form::Rbd, None) => return Err(missing("exists")),
        };
        let end = start.checked_add(len).filter(|end| *end <= DISK_BYTES_MAX);
        let end = end.ok_or_else(|| format!("does not fit any disk: entry {number} ends behind 8 EiB"))?;
        if start < self.at {
            return Err(format!(
                "overlaps or is not in order: entry {number} begins at {start}, before {}",
                self.at
            ));
        }
        if form == Form::Qemu && start > self.at {
            return Err(format!("has a gap: nothing is said of {} to {start}", self.at));
        }
        self.at = end;
        let kept = self.holes.push(start, true).and_then(|()| self.holes.push(end, is_zero));
        kept.map_err(|why| format!("is too large: {why}"))
    }
}

/// The array; what is wrong with its entries stays in the state.
struct Entries<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of extents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Entry>()? {
            if let Err(why) = self.0.add(&entry) {
                self.0.wrong = Some(why);
                return Err(serde::de::Error::custom("an entry"));
            }
        }
        Ok(())
    }
}

/// Lets nothing through that would take memory.
struct Guard<R> {
    map: R,
    read: u64,
    /// Bytes of the string that it is in.
    string: Option<u32>,
    escaped: bool,
    depth: u32,
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let read = self.map.read(out)?;
        self.read += read as u64;
        if self.read > FILE_BYTES_MAX {
            return Err(Error::other("is too large for a map: more than 1 GiB"));
        }
        out[..read].iter().try_for_each(|&byte| self.pass(byte))?;
        Ok(read)
    }
}

impl<R> Guard<R> {
    fn pass(&mut self, byte: u8) -> IoResult<()> {
        if let Some(len) = &mut self.string {
            *len += 1;
            if *len > STRING_BYTES_MAX {
                return Err(Error::other("is no map: it has a text of more than 4096 bytes"));
            }
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = None,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => self.string = Some(0),
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > DEPTH_MAX {
            return Err(Error::other("is no map: its brackets are too deep"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, and some have one")]

    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Holes, String> {
        parse(text.as_bytes())
    }

    #[test]
    fn both_forms_are_read() {
        let qemu = r#"[{"start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "offset": 7},
            {"start": 512, "length": 4096, "depth": 0, "zero": true, "data": false}]"#;
        let mut holes = of(qemu).unwrap();
        holes.fit(4608).unwrap();
        assert_eq!(holes.runs(), [512..4608]);
        let rbd = r#"[{"offset":4096,"length":4096,"exists":"true"},{"offset":8192,"length":4096,"exists":"false"},
            {"offset":16384,"length":1024,"exists":true}]"#;
        let mut holes = of(rbd).unwrap();
        holes.fit(1 << 20).unwrap();
        assert_eq!(holes.runs(), [0..4096, 8192..16384, 17408..1 << 20]);
        let mut nothing = of("[]").unwrap();
        nothing.fit(8192).unwrap();
        assert_eq!(nothing.zero_bytes(), 8192, "an image of Ceph in which nothing was ever written");
    }

    #[test]
    fn what_is_no_map_is_told_in_words() {
        let deep = "[".repeat(100_000);
        let long = format!("[{{\"x\": \"{}\"}}]", "a".repeat(5000));
        for (text, words) in [
            ("", "ends too early"),
            ("[", "ends too early"),
            ("[{\"start\":0,\"length\":1,\"zero\":tr", "ends too early"),
            ("nonsense\u{1b}[m", "is no JSON"),
            ("{}", "something else"),
            ("[5]", "something else"),
            ("[{\"start\":-1,\"length\":1,\"zero\":true}]", "something else"),
            ("[{\"start\":1.5,\"length\":1,\"zero\":true}]", "something else"),
            ("[{\"start\":0,\"start\":0,\"length\":1,\"zero\":true}]", "something else"),
            ("[{\"offset\":0,\"length\":1,\"exists\":\"maybe\\u001b\"}]", "something else"),
            ("[{}]", "no `offset`"),
            ("[{\"start\":0,\"zero\":true}]", "no `length`"),
            ("[{\"start\":0,\"length\":5}]", "no `zero`"),
            ("[{\"offset\":0,\"length\":5}]", "no `exists`"),
            (
                "[{\"start\":0,\"length\":5,\"zero\":true},{\"offset\":5,\"length\":5,\"exists\":\"true\"}]",
                "mixes",
            ),
            (
                "[{\"start\":0,\"length\":5,\"zero\":true},{\"start\":4,\"length\":5,\"zero\":true}]",
                "overlaps",
            ),
            (
                "[{\"offset\":9,\"length\":5,\"exists\":\"true\"},{\"offset\":0,\"length\":5,\"exists\":\"true\"}]",
                "in order",
            ),
            ("[{\"start\":512,\"length\":5,\"zero\":true}]", "gap"),
            ("[{\"start\":0,\"length\":9223372036854775808,\"zero\":true}]", "8 EiB"),
            ("[{\"start\":18446744073709551615,\"length\":18446744073709551615,\"zero\":true}]", "8 EiB"),
            ("[] []", "is no JSON"),
            (&deep, "too deep"),
            (&long, "4096 bytes"),
        ] {
            let why = of(text).unwrap_err();
            assert!(why.contains(words) && !why.contains('\u{1b}'), "{:.60}: {why}", text);
        }
    }

    #[test]
    fn an_endless_map_ends() {
        let spaces = std::io::repeat(b' ');
        assert!(parse(spaces).unwrap_err().contains("1 GiB"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// What was written is read, in both forms and whatever the spacing.
        #[test]
        fn any_map_is_read_as_it_was_meant(
            parts in proptest::collection::vec((1u64..5000, any::<bool>()), 0..50), spaced in any::<bool>(), tail in 0u64..3,
        ) {
            let mut meant = vec![];
            let (mut qemu, mut rbd) = (Vec::new(), Vec::new());
            let mut at = 0;
            for (sectors, is_zero) in parts {
                let len = sectors * 512;
                qemu.push(serde_json::json!({"start": at, "length": len, "zero": is_zero, "data": !is_zero, "depth": 0}));
                if !is_zero {
                    rbd.push(serde_json::json!({"offset": at, "length": len, "exists": "true"}));
                }
                meant.extend(std::iter::repeat_n(is_zero, sectors as usize));
                at += len;
            }
            let write = |entries: &Vec<serde_json::Value>| if spaced {
                serde_json::to_string_pretty(entries).unwrap()
            } else {
                serde_json::to_string(entries).unwrap()
            };
            for (text, len) in [(write(&qemu), at), (write(&rbd), at + tail * 512)] {
                // Of an empty disk nobody can tell which form it is.
                let mut holes = of(&text).unwrap();
                holes.fit(len).unwrap();
                let mut meant = meant.clone();
                meant.resize((len / 512) as usize, true);
                let mut read = vec![false; meant.len()];
                for run in holes.runs() {
                    read[(run.start / 512) as usize..(run.end / 512) as usize].fill(true);
                }
                prop_assert_eq!(read, meant);
            }
        }

        /// Any bytes are a map or a sentence.
        #[test]
        fn any_text_is_borne(text in "[\\[\\]{},:\"a-z0-9 .-]{0,80}") {
            if let Err(why) = of(&text) {
                prop_assert!(!why.chars().any(char::is_control));
            }
        }
    }
}
