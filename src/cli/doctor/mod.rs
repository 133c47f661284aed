//! `snapcow doctor`: whether this machine and this cloud can do the job, what will be slow, and why.
//!
//! `--json` prints one object, `schema` is `snapcow/doctor/1`: `usable`, and `checks` with `name`, `level` (`ok`, `note`,
//! `warning`, `problem`), `text`, `advice` and, of a problem, `exit_code`.

#[cfg(feature = "openstack")]
mod cloud;
mod local;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use serde_json::json;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};

#[cfg(feature = "openstack")]
use super::args::CloudArgs;
use super::convert::say;
use super::screen::wrap;
use super::terminal::escape_json;

const COLUMNS: usize = 80;
/// Where a check's text begins.
const INDENT: usize = 20;

#[derive(Clone, Debug, Parser)]
pub struct DoctorArgs {
    /// Where the spool's file would be [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Print the checks as a JSON object
    #[arg(long)]
    pub json: bool,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// How good a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok,
    /// Good to know.
    Note,
    /// It works, but worse than it could.
    Warning,
    /// It does not work.
    Problem(Stage, Kind),
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem(..) => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    pub level: Level,
    pub text: String,
    /// What to do next.
    pub advice: Option<String>,
}

/// All that was looked at so far.
#[derive(Debug, Default)]
pub struct Checks(Vec<Check>);

impl Checks {
    pub fn add(&mut self, name: &'static str, level: Level, text: impl Into<String>) {
        self.0.push(Check { name, level, text: text.into(), advice: None });
    }

    /// The same with the next step.
    pub fn advise(&mut self, name: &'static str, level: Level, text: impl Into<String>, advice: &str) {
        self.0.push(Check { name, level, text: text.into(), advice: Some(advice.into()) });
    }

    /// What an error says.
    pub fn fail(&mut self, name: &'static str, error: &Error) {
        let advice = error.advice().map(str::to_owned);
        let text = told(error);
        self.0.push(Check { name, level: Level::Problem(error.stage(), error.kind()), text, advice });
    }
}

/// What an error says, without the stage and the advice, which have places of their own here.
pub fn told(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix(&format!("{}: ", error.stage())).unwrap_or(&text);
    let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
    text.strip_suffix(&advice).unwrap_or(text).to_owned()
}

/// Runs the command.
pub fn run(options: &DoctorArgs, _quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut checks = Checks::default();
    local::look(&mut checks, options.spool_dir.as_deref());
    #[cfg(feature = "openstack")]
    cloud::look(&mut checks, &options.cloud, cancel)?;
    #[cfg(not(feature = "openstack"))]
    {
        let _ = cancel;
        checks.add(
            "cloud",
            Level::Note,
            "this build cannot speak to clouds; only this machine was looked at",
        );
    }
    if options.json {
        say(&escape_json(&format!("{:#}", to_json(&checks.0))))?;
    } else {
        say(to_text(&checks.0).trim_end())?;
    }
    verdict(&checks.0)
}

/// The first problem is the exit code.
fn verdict(checks: &[Check]) -> Result<()> {
    let problems: Vec<_> = checks
        .iter()
        .filter_map(|check| match check.level {
            Level::Problem(stage, kind) => Some((check.name, stage, kind)),
            _ => None,
        })
        .collect();
    let Some((name, stage, kind)) = problems.first() else { return Ok(()) };
    let what = match problems.len() {
        1 => format!("there is a problem: {name}"),
        count => format!("there are {count} problems, the first: {name}"),
    };
    Err(Error::new(*stage, *kind, what).advise("see above for what to do next"))
}

fn to_json(checks: &[Check]) -> serde_json::Value {
    let each = checks.iter().map(|check| {
        let code = match check.level {
            Level::Problem(_, kind) => Some(kind.exit_code()),
            _ => None,
        };
        json!({
            "name": check.name,
            "level": check.level.word(),
            "text": check.text,
            "advice": check.advice,
            "exit_code": code,
        })
    });
    json!({
        "schema": "snapcow/doctor/1",
        "usable": verdict(checks).is_ok(),
        "checks": each.collect::<Vec<_>>(),
    })
}

fn to_text(checks: &[Check]) -> String {
    let mut out = String::new();
    for check in checks {
        let _ = write!(out, "{:<8} {:<10} ", check.level.word(), check.name);
        put(&mut out, &check.text);
        if let Some(advice) = &check.advice {
            let _ = write!(out, "{:INDENT$}", "");
            put(&mut out, &format!("→ {advice}"));
        }
    }
    out
}

/// The rest of a line; what does not fit goes on under its beginning.
fn put(out: &mut String, text: &str) {
    let _ = writeln!(out, "{}", wrap(text, COLUMNS - INDENT).join(&format!("\n{:INDENT$}", "")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_problem_is_the_exit_code_and_lines_are_short() {
        let mut checks = Checks::default();
        checks.add("a", Level::Ok, "word ".repeat(50));
        assert!(verdict(&checks.0).is_ok());
        let error = Error::new(Stage::Spool, Kind::Local, "no room").advise("make some");
        checks.fail("spool", &error);
        checks.advise("login", Level::Problem(Stage::Plan, Kind::Login), "refused", "log in");
        assert_eq!(verdict(&checks.0).unwrap_err().kind(), Kind::Local);
        let text = to_text(&checks.0);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.contains(" no room\n") && text.contains("→ make some"), "{text}");
        let json = to_json(&checks.0);
        assert_eq!(
            (json["usable"].as_bool(), json["checks"][2]["exit_code"].as_u64()),
            (Some(false), Some(4))
        );
    }
}
