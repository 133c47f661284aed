//! `snapcow upload`: a raw disk or a qcow2 image from a file into Glance. A raw disk is compacted on the way, a qcow2 image
//! is checked and goes as it is; the hash that Glance finds is compared with that of the bytes sent.

mod as_is;
mod format;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::read::Input;
use snapcow::source::{FileSource, Source};
use snapcow::units::ClusterSize;

use super::args::{
    CloudArgs, CompatName, CompressionName, ConversionArgs, ConvertArgs, DeflateWindow, ImageArgs,
    SourceFormat,
};
use super::glance::Clouds;
use super::{convert, image, tell};
use format::Format;

#[derive(Clone, Debug, Parser)]
#[command(mut_arg("copy_properties", |arg| arg.hide(true)))]
pub struct UploadArgs {
    /// PATH of a raw disk or a qcow2 image
    pub file: PathBuf,
    /// Name of the new image [default: the file's, without its ending]
    pub name: Option<String>,
    /// What the file has to be; raw: take it for a raw disk even if it begins like something else
    #[arg(short = 'f', long = "format", value_name = "FORMAT", help_heading = "Format")]
    pub format: Option<Format>,
    /// Upload a raw disk byte for byte, without compacting it
    #[arg(long, visible_alias = "no-compact", help_heading = "Format")]
    pub as_is: bool,
    #[command(flatten)]
    pub how: ConversionArgs,
    #[command(flatten)]
    pub image: ImageArgs,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Runs the command.
pub fn run(options: &UploadArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let path = options.file.to_str().ok_or_else(|| {
        let what = format!("`{}` has a name that is no text", options.file.display());
        Error::new(Stage::Plan, Kind::Usage, what).advise("give it another name")
    })?;
    if path == "-" {
        let what = "standard input is not uploaded: its format cannot be looked at first";
        return Err(Error::new(Stage::Plan, Kind::Usage, what)
            .advise("for a raw disk: snapcow convert - glance:NAME"));
    }
    let name = name(options, path)?;
    let file = Arc::new(FileSource::open(&options.file, true)?);
    let input =
        || Input { bytes: file.bytes(), len: file.facts().len.unwrap_or(0), name: file.facts().name.clone() };
    let format = format::format(&input(), options.format)?;
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    if format == Format::Raw && !options.as_is {
        let args = conversion(options, path, &name);
        return convert::recorded(&args, quiet, cancel, &mut clouds).1;
    }
    refuse_conversion(options)?;
    let virtual_size = match format {
        Format::Raw => file.facts().len.unwrap_or(0),
        Format::Qcow2 => {
            let (input, memory) = (input(), options.how.memory.max(CHECK_BYTES));
            let sound = image::interruptible(cancel, move || format::examine(input, memory))?;
            if !quiet {
                sound.notes.iter().for_each(|note| tell(format_args!("snapcow: note: {note}")));
            }
            sound.virtual_size
        }
    };
    as_is::upload(
        &as_is::Upload { options, name: &name, file, format, virtual_size, quiet, cancel },
        &mut clouds,
    )
}

/// Memory that a check may use, if `--memory` is not larger; see `snapcow check`.
const CHECK_BYTES: u64 = 512 << 20;

fn name(options: &UploadArgs, path: &str) -> Result<String> {
    let stem = || options.file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    match options.name.clone().or_else(stem) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => {
            let what = format!("`{path}` gives no name for the image");
            Err(Error::new(Stage::Plan, Kind::Usage, what).advise("write snapcow upload FILE NAME"))
        }
    }
}

/// A raw disk is converted like any other.
fn conversion(options: &UploadArgs, path: &str, name: &str) -> ConvertArgs {
    // A file whose name looks like something else is a file all the same.
    let source = if path.starts_with("glance:") { format!("./{path}") } else { path.to_owned() };
    ConvertArgs {
        source,
        target: format!("glance:{name}"),
        source_format: (options.format == Some(Format::Raw)).then_some(SourceFormat::Raw),
        force: false,
        delete_source: None,
        how: options.how.clone(),
        image: options.image.clone(),
        cloud: options.cloud.clone().into(),
    }
}

/// What has no meaning for bytes that go as they are is refused rather than ignored.
fn refuse_conversion(options: &UploadArgs) -> Result<()> {
    let how = &options.how;
    let given = [
        ("--compression", how.compression != CompressionName::Zlib),
        ("--level", how.level.is_some()),
        ("--deflate-window", how.deflate_window != DeflateWindow::Large),
        ("--cluster-size", how.cluster_size != ClusterSize::DEFAULT),
        ("--compat", how.compat != CompatName::V1_1),
        ("--verify-encode", how.verify_encode.is_some()),
        ("--guest-digest", how.guest_digest.is_some()),
        ("--state", how.state.is_some()),
        ("--report", how.report.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let what = format!("{option} means nothing for a file that is uploaded as it is");
            Err(Error::new(Stage::Plan, Kind::Usage, what)
                .advise("leave it out; it is for raw disks that are compacted"))
        }
    }
}
