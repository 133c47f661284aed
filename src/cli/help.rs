//! The command as people meet it: commands in groups, examples, exit codes. `-h`, `--help`, completions and manual
//! pages are all made of it.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, CommandFactory};

use super::args::{Args, EXIT_CODES};

/// The commands by what they are for, in the order in which a person needs them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Make an image compact", &["snapshot", "replace", "convert", "plan"]),
    ("Bring, fetch, share", &["upload", "download", "share", "unshare", "accept", "reject", "members"]),
    ("Look", &["list", "info", "map", "check", "verify"]),
    ("Try and measure", &["demo", "doctor", "bench"]),
    ("Set up", &["completions", "man"]),
];

/// Examples, each with what it does. They are parsed by a test.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "snapshot",
        &[("A compact snapshot of a server, stopped meanwhile", "snapcow snapshot --stop web web-2026-11")],
    ),
    (
        "replace",
        &[
            (
                "A compact image in place of a raw one, asked before anything is deleted",
                "snapcow replace web-2026-11",
            ),
            ("Shared again with the same projects", "snapcow replace --share-again web-2026-11"),
        ],
    ),
    (
        "plan",
        &[(
            "What a conversion would take and give",
            "snapcow plan glance:web-2026-11 glance:web-2026-11-compact",
        )],
    ),
    ("upload", &[("A disk from here, made compact on the way", "snapcow upload disk.raw web")]),
    ("download", &[("An image, verified", "snapcow download web-compact web.qcow2")]),
    (
        "share",
        &[
            ("With another project", "snapcow share web-compact --with other-project"),
            ("And accepted there, in one go", "snapcow share web-compact --accept-as other-cloud"),
        ],
    ),
    ("unshare", &[("No more", "snapcow unshare web-compact --with other-project")]),
    ("accept", &[("What another project shares", "snapcow accept 0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd")]),
    ("reject", &[("What another project shares", "snapcow reject 0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd")]),
    ("members", &[("Who may use an image", "snapcow members web-compact")]),
    (
        "list",
        &[
            ("What takes most room", "snapcow list --raw --larger-than 10G"),
            ("What would be saved", "snapcow list --reclaimable"),
        ],
    ),
    (
        "info",
        &[
            ("An image in Glance", "snapcow info glance:web-2026-11"),
            ("What deleted files would save", "snapcow info --free disk.raw"),
        ],
    ),
    (
        "map",
        &[
            ("In the terminal", "snapcow map disk.qcow2"),
            ("As a picture", "snapcow map --picture disk.svg disk.qcow2"),
            ("With what filesystems have freed", "snapcow map --free --picture disk.svg disk.raw"),
            ("As qemu-img map has it", "snapcow map --json disk.qcow2"),
        ],
    ),
    ("doctor", &[("This machine and the cloud", "snapcow doctor")]),
    (
        "convert",
        &[
            ("Make a snapshot compact", "snapcow convert glance:web-2026-11 glance:web-2026-11-compact"),
            (
                "See the plan, and do nothing",
                "snapcow convert --dry-run glance:web-2026-11 glance:web-compact",
            ),
            (
                "From one cloud to another",
                "snapcow convert --source-cloud old --target-cloud new glance:web glance:web",
            ),
            (
                "On a machine with little disk and memory",
                "snapcow convert --spool-disk 0 --memory 128MiB glance:web glance:web-compact",
            ),
            (
                "A large one, to be taken up again after a failure",
                "snapcow convert --state web.state glance:web glance:web-compact",
            ),
            (
                "A local disk, as small as can be",
                "snapcow convert --compression zstd --level small disk.raw disk.qcow2",
            ),
            ("From a pipe, with a receipt", "snapcow convert --report receipt.json - glance:web"),
        ],
    ),
    (
        "check",
        &[
            ("A file", "snapcow check disk.qcow2"),
            (
                "An image in Glance, each compressed cluster decoded",
                "snapcow check --decode glance:web-compact",
            ),
        ],
    ),
    (
        "verify",
        &[
            (
                "A snapshot and what was made of it",
                "snapcow verify glance:web-2026-11 glance:web-2026-11-compact",
            ),
            ("A file and a disk on standard input", "snapcow verify disk.qcow2 -"),
        ],
    ),
    (
        "demo",
        &[
            ("The whole way, and nothing left", "snapcow demo"),
            ("With a Glance that serves ranges", "snapcow demo --ranges"),
        ],
    ),
    (
        "bench",
        &[
            ("A page with plots", "snapcow bench --html bench.html"),
            ("Before and after", "snapcow bench --compare before.json after.json"),
        ],
    ),
    (
        "completions",
        &[(
            "For bash, for this user",
            "snapcow completions bash > ~/.local/share/bash-completion/completions/snapcow",
        )],
    ),
    (
        "man",
        &[
            ("Read the manual", "snapcow man | man -l -"),
            ("All pages into a folder", "snapcow man /usr/local/share/man/man1"),
        ],
    ),
];

/// The files and variables that every command knows.
pub const DEFAULTS: &str = "\
Defaults for options come from $XDG_CONFIG_HOME/snapcow/config.toml (else ~/.config/snapcow/config.toml), or from the \
file that --config or $SNAPCOW_CONFIG names: keys are the long names of options, tables the names of commands. \
What replaces or deletes is never taken from there. The command line is stronger than OS_* variables, those are \
stronger than the file.";

/// The whole definition.
pub fn command() -> clap::Command {
    let mut command = Args::command().args(config_options());
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let header = *command.get_styles().get_header();
    for name in &names {
        command = command.mut_subcommand(name, |sub| {
            let examples = examples(name);
            let mut text = String::new();
            if !examples.is_empty() {
                let _ = write!(text, "{header}Examples:{header:#}\n{}\n", shown(&examples));
            }
            let _ = write!(text, "{EXIT_CODES}");
            sub.after_help(format!("Examples and exit codes: snapcow {name} --help")).after_long_help(text)
        });
    }
    let about = "{about-with-newline}\n{usage-heading} {usage}\n";
    let template =
        format!("{about}{}\n{header}Options:{header:#}\n{{options}}{{after-help}}", groups(&command));
    command
        .help_template(template)
        .after_help("More: snapcow COMMAND --help, snapcow man")
        .after_long_help(format!("{DEFAULTS}\n\n{EXIT_CODES}"))
}

fn config_options() -> [Arg; 2] {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .global(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Take defaults from FILE")
        .long_help("Take defaults from FILE [default: $SNAPCOW_CONFIG, else snapcow/config.toml in $XDG_CONFIG_HOME]");
    let none = Arg::new("no_config")
        .long("no-config")
        .global(true)
        .action(ArgAction::SetTrue)
        .conflicts_with("config")
        .help("Take no defaults from any file");
    [file, none]
}

/// What a command is used for, and the words; of the program as a whole, the first of each command.
pub fn examples(name: &str) -> Vec<(&'static str, &'static str)> {
    let firsts = EXAMPLES.iter().filter(|_| name == "snapcow").filter_map(|(_, examples)| examples.first());
    let own = EXAMPLES.iter().filter(|(own, _)| *own == name).flat_map(|(_, examples)| examples.iter());
    firsts.chain(own).copied().collect()
}

fn shown(examples: &[(&str, &str)]) -> String {
    examples.iter().fold(String::new(), |mut text, (what, words)| {
        let _ = writeln!(text, "  {what}:\n    {words}");
        text
    })
}

/// The list of commands, in groups; what no group has yet stands last.
fn groups(command: &clap::Command) -> String {
    let header = *command.get_styles().get_header();
    let literal = *command.get_styles().get_literal();
    let all: Vec<&clap::Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    let width = all.iter().map(|sub| sub.get_name().len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut group = |title: &str, members: &[&clap::Command]| {
        if members.is_empty() {
            return;
        }
        let _ = write!(text, "\n{header}{title}:{header:#}\n");
        for sub in members {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let name = sub.get_name();
            let _ = writeln!(text, "  {literal}{name}{literal:#}{}  {about}", " ".repeat(width - name.len()));
        }
    };
    for (title, names) in GROUPS {
        let members: Vec<&clap::Command> =
            names.iter().filter_map(|name| all.iter().find(|sub| sub.get_name() == *name).copied()).collect();
        group(title, &members);
    }
    let is_listed = |sub: &&clap::Command| GROUPS.iter().any(|(_, names)| names.contains(&sub.get_name()));
    let others: Vec<&clap::Command> = all.iter().filter(|sub| !is_listed(sub)).copied().collect();
    group("Others", &others);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_a_group_and_examples_that_are_understood() {
        let command = command();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(GROUPS.iter().any(|(_, names)| names.contains(&name)), "{name} has no group in GROUPS");
            let examples = examples(name);
            assert!(!examples.is_empty(), "{name} has no example in EXAMPLES");
            for (_, line) in &examples {
                let words = line.split(['|', '>']).next().unwrap().split_whitespace();
                let matches = command.clone().try_get_matches_from(words);
                assert_eq!(
                    matches.unwrap_or_else(|e| panic!("{line}: {e}")).subcommand_name(),
                    Some(name),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn short_help_is_short_and_long_help_has_examples_and_exit_codes() {
        let mut command = command();
        let root = command.render_long_help().to_string();
        for words in ["Make an image compact:", "  convert ", "Exit codes:", "--config", "XDG_CONFIG_HOME"] {
            assert!(root.contains(words), "{words}");
        }
        assert!(!root.contains("Others:"));
        command.build();
        for sub in command.get_subcommands_mut() {
            let (short, long) = (sub.render_help().to_string(), sub.render_long_help().to_string());
            assert!(!short.contains("Exit codes:") && long.contains("Exit codes:"), "{short}");
            assert!(long.contains("Examples:\n") && short.lines().count() < long.lines().count(), "{long}");
        }
    }
}
