//! What a replacement changes for others, said before anything is done; and the question whether it is wanted.

use std::io::{BufRead, IsTerminal, Write};

use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};

use super::ReplaceArgs;
use crate::cli::delete_source::Doomed;
use crate::cli::{image, tell};

/// Says what will be another afterwards.
pub fn tell_consequences(doomed: &Doomed, options: &ReplaceArgs, quiet: bool) {
    if quiet {
        return;
    }
    let old = doomed.image();
    let note = |words: std::fmt::Arguments<'_>| tell(format_args!("snapcow: note: {words}"));
    note(format_args!(
        "the ID changes: servers, Terraform, Heat and scripts that name {} have to be told the new one",
        old.id
    ));
    doomed.notes.iter().for_each(|words| note(format_args!("{words}")));
    if doomed.members.as_ref().is_some_and(|members| !members.is_empty()) {
        note(format_args!(
            "{}",
            if options.share_again {
                "the new image is shared with them, and they have to accept it again"
            } else {
                "--share-again shares the new image with them"
            }
        ));
    }
}

/// Asks on a terminal; without one `--yes` is the answer.
///
/// # Errors
/// [`Kind::Usage`] if nobody can be asked, [`Kind::Other`] for a no, and the signal that came instead.
pub fn ask(doomed: &Doomed, options: &ReplaceArgs, cancel: &Cancel) -> Result<()> {
    if options.yes {
        return Ok(());
    }
    let label = doomed.image().label();
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let what = format!("replacing image {label} deletes it in the end, and there is no terminal to ask");
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give --yes"));
    }
    let mut to = std::io::stderr().lock();
    let asked =
        write!(to, "Replace image {}? [y/N] ", crate::cli::terminal::Plain(&label)).and_then(|()| to.flush());
    drop(to);
    let local =
        |error: std::io::Error| Error::new(Stage::Plan, Kind::Local, "ask on the terminal").because(error);
    asked.map_err(local)?;
    let answer = image::interruptible(cancel, move || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(local)?;
        Ok(line)
    })?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::new(Stage::Plan, Kind::Other, "not confirmed; nothing was done")),
    }
}
