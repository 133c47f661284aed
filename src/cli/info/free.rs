//! `snapcow info --free`: what the filesystems of a disk have freed, without converting it.
//!
//! `--json` prints what a report has as `trim`, with the `schema` `snapcow/free/1`.

use snapcow::convert::Cancel;
use snapcow::error::Result;
use snapcow::source::Source;
use snapcow::verify::look_for_free;

use super::InfoArgs;
#[cfg(feature = "openstack")]
use crate::cli::glance::Clouds;
use crate::cli::image::{FREE_MEMORY_BYTES, interruptible, open_disk};
use crate::cli::terminal::escape_json;
use crate::cli::{convert, trim};

/// Runs the command.
pub fn run(
    options: &InfoArgs,
    quiet: bool,
    cancel: &Cancel,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
) -> Result<()> {
    let opened = open_disk(
        &options.image,
        None,
        #[cfg(feature = "openstack")]
        clouds,
        #[cfg(feature = "openstack")]
        None,
    )?;
    let name = opened.disk.name().to_owned();
    let findings = interruptible(cancel, move || {
        let findings = look_for_free(&*opened.disk, FREE_MEMORY_BYTES)?;
        opened.file.into_iter().try_for_each(|file| file.settle())?;
        Ok(findings)
    })?;
    if options.json {
        let mut json = trim::json(&findings);
        json["schema"] = "snapcow/free/1".into();
        json["snapcow_version"] = env!("CARGO_PKG_VERSION").into();
        json["image"] = name.into();
        convert::say(&escape_json(&format!("{json:#}")))
    } else if quiet {
        Ok(())
    } else {
        convert::say(&trim::planned(&findings).join("\n"))
    }
}
