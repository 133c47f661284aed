//! `snapcow completions`: a script by which a shell completes commands and options.

use clap::Parser;
use clap_complete::Shell;
use snapcow::error::Result;

use super::convert::say_bytes;
use super::help;

#[derive(Clone, Debug, Parser)]
pub struct CompletionsArgs {
    /// The shell that is to read it
    pub shell: Shell,
}

/// Runs the command.
pub fn run(options: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut help::command(), "snapcow", &mut script);
    say_bytes(&script)
}
