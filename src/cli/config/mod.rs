//! Defaults from a file: `$XDG_CONFIG_HOME/snapcow/config.toml`, else `~/.config/snapcow/config.toml`, or what
//! `--config` or `$SNAPCOW_CONFIG` names.
//!
//! A key is the long name of an option, for every command that has it; in a table it is for the command of that name
//! alone. The values become clap's own defaults, so that they are checked, shown and replaced like those that are
//! built in: command line before environment before file before program.

mod file;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use snapcow::error::{Error, Kind, Result, Stage};

use super::args::Args;
use file::Entry;

/// Larger than anybody's defaults, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Options whose default makes no sense beside another one that is given: the default gives way.
const BELONGS: &[(&str, &str)] = &[
    ("level", "compression"),
    ("deflate-window", "compression"),
    ("source-cloud", "os-cloud"),
    ("target-cloud", "os-cloud"),
    ("progress", "quiet"),
];

/// Options that the environment can give too: it is asked by those who use the option, not by clap.
const ENVIRONMENT: &[(&str, &[&str])] = &[
    ("os-cloud", &["OS_CLOUD", "OS_AUTH_URL", "OS_TOKEN"]),
    ("os-region-name", &["OS_REGION_NAME"]),
    ("os-interface", &["OS_INTERFACE", "OS_ENDPOINT_TYPE"]),
    ("os-cacert", &["OS_CACERT"]),
    ("insecure", &["OS_INSECURE"]),
];

/// What was not understood: words, or the file.
pub enum Refused {
    Words(clap::Error),
    File(Error),
}

/// The arguments that these words and the file of defaults give.
pub fn parse(command: Command, words: Vec<OsString>) -> Result<Args, Refused> {
    // Whoever asks for help or errs is answered without the file; and only so is it known which file is meant.
    let asked = command.clone().try_get_matches_from(&words).map_err(Refused::Words)?;
    let entries = match chosen(&asked) {
        Some((path, is_asked_for)) => {
            file::read(&path, is_asked_for, FILE_BYTES_MAX, &command).map_err(Refused::File)?
        }
        None => Vec::new(),
    };
    let entries = effective(&entries, command.clone(), &asked);
    let matches = if entries.is_empty() {
        asked
    } else {
        with_defaults(command, &entries).try_get_matches_from(&words).map_err(Refused::Words)?
    };
    Args::from_arg_matches(&matches).map_err(Refused::Words)
}

/// Which file is meant, and whether somebody asked for it.
fn chosen(asked: &ArgMatches) -> Option<(PathBuf, bool)> {
    if asked.get_flag("no_config") {
        return None;
    }
    let named = asked.get_one::<PathBuf>("config").cloned();
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.or_else(|| variable("SNAPCOW_CONFIG")) {
        return Some((path, true));
    }
    // By the XDG base directory specification a relative path there is to be ignored.
    let home = || variable("HOME").map(|home| home.join(".config"));
    let folder = variable("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute()).or_else(home)?;
    Some((folder.join("snapcow/config.toml"), false))
}

/// The entries that count for the command that was asked for: those that nothing stronger replaces.
fn effective(entries: &[Entry], mut command: Command, asked: &ArgMatches) -> Vec<Entry> {
    command.build();
    let Some((name, given)) = asked.subcommand() else { return Vec::new() };
    let Some(sub) = command.find_subcommand(name) else { return Vec::new() };
    let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    let gives_way = |entry: &Entry| {
        let Some(own) = sub.get_arguments().find(|arg| arg.get_long() == Some(&*entry.key)) else {
            return true;
        };
        let others = sub.get_arguments().filter(|arg| is_given(arg.get_id().as_str()));
        let from_environment =
            ENVIRONMENT.iter().filter(|(key, _)| *key == entry.key).flat_map(|(_, names)| names.iter());
        others.into_iter().any(|other| {
            let name = other.get_long().unwrap_or_default();
            BELONGS.contains(&(&*entry.key, name))
                || sub.get_arg_conflicts_with(own).iter().any(|arg| arg.get_id() == other.get_id())
                || sub.get_arg_conflicts_with(other).iter().any(|arg| arg.get_id() == own.get_id())
        }) || from_environment
            .into_iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    };
    let is_meant = |entry: &&Entry| entry.command.as_deref().is_none_or(|command| command == name);
    entries.iter().filter(is_meant).filter(|entry| !gives_way(entry)).cloned().collect()
}

/// The command with the file's values as its defaults; those of one command are stronger than those of all.
fn with_defaults(mut command: Command, entries: &[Entry]) -> Command {
    let (own, general): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.command.is_some());
    for entry in general.into_iter().chain(own) {
        command = set_default(command, entry);
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| entry.command.as_ref().is_none_or(|own| own == *name)) {
            command = command.mut_subcommand(name, |sub| set_default(sub, entry));
        }
    }
    command
}

fn set_default(command: Command, entry: &Entry) -> Command {
    let id = command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(&*entry.key))
        .map(|arg| arg.get_id().clone());
    match id {
        Some(id) => command.mut_arg(id, |arg| arg.default_values(entry.values.clone())),
        None => command,
    }
}

/// An error of the file.
fn wrong(what: String) -> Error {
    Error::new(Stage::Plan, Kind::Usage, what)
}

#[cfg(test)]
mod tests;
