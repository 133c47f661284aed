//! `snapcow man`: manual pages, made of the same definition as the help.

use std::path::PathBuf;

use clap::Parser;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use snapcow::error::{Error, Kind, Result, Stage};

use super::args::EXIT_CODES;
use super::convert::say_bytes;
use super::help;

const MANUAL: &str = "snapcow manual";

#[derive(Clone, Debug, Parser)]
pub struct ManArgs {
    /// Write all pages to this folder, snapcow.1, one for each command, and snapcow-config.5; without it, snapcow.1 to
    /// standard output
    pub dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(options: &ManArgs) -> Result<()> {
    let pages =
        pages().map_err(|error| Error::new(Stage::Sink, Kind::Other, "make the manual").because(error))?;
    let Some(dir) = &options.dir else {
        return pages.first().map_or(Ok(()), |(_, page)| say_bytes(page));
    };
    let cannot = |what: String| move |error| Error::new(Stage::Sink, Kind::Local, what).because(error);
    std::fs::create_dir_all(dir).map_err(cannot(format!("make the folder `{}`", dir.display())))?;
    for (name, page) in pages {
        let path = dir.join(name);
        std::fs::write(&path, page).map_err(cannot(format!("write `{}`", path.display())))?;
    }
    Ok(())
}

/// Names and texts of all pages, that of the program first.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = help::command();
    root.build();
    let mut pages = vec![("snapcow.1".to_owned(), page(&root)?)];
    for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages.push((format!("snapcow-{}.1", sub.get_name()), page(sub)?));
    }
    pages.push(("snapcow-config.5".to_owned(), config_page()?));
    Ok(pages)
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let version = concat!("snapcow ", env!("CARGO_PKG_VERSION"));
    let is_root = command.has_subcommands();
    let name = if is_root { "snapcow".to_owned() } else { format!("snapcow-{}", command.get_name()) };
    // The help's own layout of commands means nothing on a page.
    let bare = command.clone().display_name(&name).after_help("").after_long_help("");
    let man = Man::new(bare).title(name.to_uppercase()).source(version).manual(MANUAL);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if is_root {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    examples(&mut roff, command.get_name());
    exit_status(&mut roff);
    roff.control("SH", ["FILES"]);
    roff.control("TP", []).text([italic("~/.config/snapcow/config.toml")]);
    roff.text([roman("Defaults for options; see snapcow-config(5).")]);
    roff.control("TP", []).text([italic("clouds.yaml")]);
    roff.text([roman("The clouds and their logins, where every OpenStack client looks for it.")]);
    see_also(&mut roff, &name);
    roff.to_writer(&mut out)?;
    Ok(out)
}

fn examples(roff: &mut Roff, name: &str) {
    let examples = help::examples(name);
    if examples.is_empty() {
        return;
    }
    roff.control("SH", ["EXAMPLES"]);
    for (what, words) in examples {
        roff.control("TP", []).text([roman(format!("{what}:"))]);
        // As it is to be typed: nothing that spreads or breaks the words.
        roff.control("EX", []).text([bold(words)]).control("EE", []);
    }
}

/// The table of the help, one code a line here.
fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (codes, meaning) in exit_codes() {
        roff.control("TP", []).text([bold(codes)]).text([roman(meaning)]);
    }
}

/// Codes and meanings, as the help has them in one or two columns.
fn exit_codes() -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for line in EXIT_CODES.lines().skip(1) {
        for cell in cells(line) {
            let end = cell.find(|c: char| !c.is_ascii_digit() && !", ".contains(c)).unwrap_or(cell.len());
            let (codes, meaning) = cell.split_at(end);
            pairs.push((codes.trim().to_owned(), meaning.trim().to_owned()));
        }
    }
    pairs.sort_by_key(|(codes, _)| codes.split(',').next().and_then(|code| code.parse::<u32>().ok()));
    pairs
}

/// The cells of a line: codes follow each other after a semicolon, or in columns.
fn cells(line: &str) -> Vec<&str> {
    match line.split_once("; ") {
        Some((one, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            [columns(one), cells(rest)].concat()
        }
        _ => columns(line),
    }
}

/// A line of the table, cut where several spaces stand before a number.
fn columns(line: &str) -> Vec<&str> {
    let line = line.trim();
    let cut = line.match_indices("  ").map(|(at, _)| at).find(|at| {
        let rest = line[*at..].trim_start();
        *at > 3 && rest.starts_with(|c: char| c.is_ascii_digit())
    });
    cut.map_or(vec![line], |at| vec![line[..at].trim(), line[at..].trim()])
}

fn see_also(roff: &mut Roff, own: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let mut root = help::command();
    root.build();
    let subs = root
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| format!("snapcow-{}", sub.get_name()));
    let names = std::iter::once("snapcow".to_owned()).chain(subs).filter(|name| name != own);
    let mut line = Vec::new();
    for name in names {
        line.extend([bold(name), roman("(1), ")]);
    }
    line.extend([bold("snapcow-config"), roman("(5), "), bold("qemu-img"), roman("(1)")]);
    roff.text(line);
}

fn config_page() -> std::io::Result<Vec<u8>> {
    let version = concat!("snapcow ", env!("CARGO_PKG_VERSION"));
    let mut roff = Roff::new();
    roff.control("TH", ["SNAPCOW-CONFIG", "5", "", version, MANUAL]);
    roff.control("SH", ["NAME"]).text([roman("snapcow-config - defaults for the options of snapcow")]);
    roff.control("SH", ["SYNOPSIS"]).text([italic("~/.config/snapcow/config.toml")]);
    roff.control("SH", ["DESCRIPTION"]).text([roman(help::DEFAULTS)]);
    roff.control("PP", []).text([roman(
        "The format is TOML. A key before the first table is for every command that has the option; a table is for the \
         command of its name, and stronger. A value is a text or a number, as on the command line; true or false for a \
         flag, and for an option that takes on or off; a list for an option that may be given several times, which one \
         on the command line replaces as a whole. A flag that is on here is switched off by --no-config alone. \
         A default gives way to an option of the command line that it contradicts: level and deflate-window to \
         --compression, source-cloud and target-cloud to --os-cloud, progress to --quiet.",
    )]);
    roff.control("PP", []).text([roman(
        "An unknown key, a value that the option would refuse, and what cannot be a default (force, delete-source) end \
         the run with exit code 2 and a sentence that names the line.",
    )]);
    roff.control("SH", ["EXAMPLE"]).control("EX", []);
    for line in [
        "os-cloud = \"mycloud\"",
        "memory = \"1GiB\"",
        "",
        "[convert]",
        "compression = \"zstd\"",
        "tag = [\"compact\"]",
    ] {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
    roff.control("SH", ["ENVIRONMENT"]);
    roff.control("TP", [])
        .text([bold("SNAPCOW_CONFIG")])
        .text([roman("Names another file; it must be there.")]);
    roff.control("TP", [])
        .text([bold("XDG_CONFIG_HOME")])
        .text([roman("Where the folder of snapcow is, instead of ~/.config.")]);
    roff.control("SH", ["SEE ALSO"]).text([bold("snapcow"), roman("(1)")]);
    let mut out = Vec::new();
    roff.to_writer(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_of_the_help_is_on_the_page() {
        let codes = exit_codes();
        for code in (0..=13).chain([141]) {
            let found = codes.iter().find(|(codes, _)| codes.split(", ").any(|own| own == code.to_string()));
            let (_, meaning) = found.unwrap_or_else(|| panic!("{code} in {codes:?}"));
            assert!(meaning.len() > 3, "{code}: {meaning}");
        }
        assert!(codes.iter().any(|(codes, _)| codes.starts_with("130")), "{codes:?}");
        assert!(codes.iter().all(|(codes, _)| !codes.is_empty()), "{codes:?}");
    }

    #[test]
    fn every_option_is_on_its_page() {
        let pages = pages().unwrap();
        let mut root = help::command();
        root.build();
        for sub in root.get_subcommands() {
            let name = format!("snapcow-{}.1", sub.get_name());
            let (_, page) = pages.iter().find(|(own, _)| *own == name).unwrap();
            let text = String::from_utf8(page.clone()).unwrap().replace("\\-", "-");
            for long in sub.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long) {
                assert!(text.contains(&format!("--{long}")), "{name} without --{long}");
            }
        }
    }
}
