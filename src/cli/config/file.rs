//! The file of defaults, read and checked entry by entry, so that whatever is wrong is named with its line.

use std::io::Read;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use snapcow::error::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::wrong;
use crate::cli::near_file::nearest;

/// Options that are for one run, and why.
const REFUSED: &[(&str, &str)] = &[
    ("help", "it does nothing as a default"),
    ("version", "it does nothing as a default"),
    ("config", "one file of defaults cannot name another"),
    ("no-config", "the file would undo itself"),
    ("force", "what replaces or deletes is asked for on the command line, each time"),
    ("delete-source", "what replaces or deletes is asked for on the command line, each time"),
    ("unproven", "what replaces or deletes is asked for on the command line, each time"),
    ("yes", "what replaces or deletes is asked for on the command line, each time"),
];

/// One default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The command that it is for; `None`: all that have such an option.
    pub command: Option<String>,
    /// The long name of the option.
    pub key: String,
    pub values: Vec<String>,
}

/// The entries of a file. One that nobody asked for need not be there, nor lie where this user may look: `sudo -u` and
/// containers leave HOME at another user's.
///
/// # Errors
/// `Usage`, with file and line.
pub fn read(path: &Path, is_asked_for: bool, bytes_max: u64, command: &Command) -> Result<Vec<Entry>> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        wrong(format!("read the defaults in `{shown}`"))
            .because(error)
            .advise("mend it, name another with --config, or use --no-config")
    };
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(bytes_max + 1).read_to_string(&mut text).map_err(cannot)?,
        Err(error) if !is_asked_for && (is_absent(&error) || is_out_of_sight(path)) => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    if text.len() as u64 > bytes_max {
        return Err(wrong(format!("`{shown}` has more than {bytes_max} bytes: it is no file of defaults")));
    }
    parse(&text, &shown.to_string(), command)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Not a file that may not be read, but a folder that may not be entered.
fn is_out_of_sight(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The entries of a text; `name` is what errors call it.
pub fn parse(text: &str, name: &str, command: &Command) -> Result<Vec<Entry>> {
    let reader = Reader { text, name, command };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        reader.wrong(at, error.message().trim().replace('\n', ", "))
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(own) => {
                let sub = reader.command_of(key)?;
                for (key, value) in own {
                    entries.push(reader.entry(Some(sub), key, value)?);
                }
            }
            _ => entries.push(reader.entry(None, key, value)?),
        }
    }
    Ok(entries)
}

struct Reader<'a> {
    text: &'a str,
    name: &'a str,
    command: &'a Command,
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn wrong(&self, at: usize, what: impl std::fmt::Display) -> Error {
        let before = self.text.get(..at).unwrap_or(self.text);
        wrong(format!("{}, line {}: {what}", self.name, before.matches('\n').count() + 1))
    }

    fn command_of(&self, key: &Key<'_>) -> Result<&Command> {
        let name = key.get_ref();
        self.command.get_subcommands().find(|sub| sub.get_name() == *name).ok_or_else(|| {
            let names =
                self.command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name);
            let error = self.wrong(key.span().start, format_args!("there is no command `{name}`"));
            advise(error, nearest(name, names))
        })
    }

    /// One default, checked by every command that it is for.
    fn entry(&self, own: Option<&Command>, key: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<Entry> {
        let name = key.get_ref();
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == *name) {
            return Err(self.wrong(key.span().start, format_args!("`{name}` cannot be a default: {why}")));
        }
        let places: Vec<&Command> = match own {
            Some(sub) => vec![self.command, sub],
            None => std::iter::once(self.command).chain(self.command.get_subcommands()).collect(),
        };
        let options =
            || places.iter().flat_map(|place| place.get_arguments()).filter(|arg| !arg.is_positional());
        let mut meant = options().filter(|arg| arg.get_long() == Some(name)).peekable();
        if meant.peek().is_none() {
            let whose = own.map_or("any command".to_owned(), |sub| format!("`{}`", sub.get_name()));
            let error = self.wrong(key.span().start, format_args!("`{name}` is no option of {whose}"));
            return Err(advise(error, nearest(name, options().filter_map(Arg::get_long))));
        }
        let mut values = Vec::new();
        for arg in meant {
            values = texts(arg, value.get_ref())
                .and_then(|values| check(arg, &values).map(|()| values))
                .map_err(|what| self.wrong(value.span().start, format_args!("{name}: {what}")))?;
        }
        Ok(Entry { command: own.map(|sub| sub.get_name().to_owned()), key: name.to_string(), values })
    }
}

fn advise(error: Error, near: Option<&str>) -> Error {
    match near {
        Some(near) => error.advise(format!("did you mean `{near}`?")),
        None => error.advise("keys are the long names of options, as in memory = \"1GiB\""),
    }
}

/// A value in the words of the command line.
fn texts(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let takes_many = matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let is_switch = arg.get_possible_values().iter().any(|value| value.get_name() == "on");
    match value {
        DeValue::Boolean(value) if is_flag => Ok(vec![value.to_string()]),
        _ if is_flag => Err("write true or false".into()),
        DeValue::Boolean(value) if is_switch => Ok(vec![if *value { "on" } else { "off" }.into()]),
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Integer(number) if number.radix() == 10 => Ok(vec![number.as_str().replace('_', "")]),
        DeValue::Float(number) => Ok(vec![number.as_str().replace('_', "")]),
        DeValue::Array(items) if takes_many => {
            let mut all = Vec::new();
            for item in items.iter() {
                if item.get_ref().is_array() {
                    return Err("a list in a list".into());
                }
                all.extend(texts(arg, item.get_ref())?);
            }
            if all.is_empty() { Err("an empty list; leave the line out".into()) } else { Ok(all) }
        }
        DeValue::Array(_) => Err("a list, where one value is wanted".into()),
        other => Err(format!("a {}, where a text or a number is wanted", other.type_str())),
    }
}

/// Asks the option's own parser.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        return Ok(());
    }
    let long = arg.get_long().unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::Count) {
        let is_count = values.iter().all(|value| value.parse::<u8>().is_ok());
        return if is_count { Ok(()) } else { Err("write how often, as in 1".into()) };
    }
    let probe = Arg::new("value")
        .long(long.to_owned())
        .action(ArgAction::Append)
        .num_args(1)
        .allow_hyphen_values(true)
        .value_parser(arg.get_value_parser().clone());
    let words = values.iter().map(|value| format!("--{long}={value}"));
    match Command::new("probe")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(probe)
        .try_get_matches_from(words)
    {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let sentence = lines.collect::<Vec<_>>().join(" ");
            Err(sentence.trim_start_matches("error: ").to_owned())
        }
    }
}
