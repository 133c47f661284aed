//! `snapcow map`: what a disk is made of. As the JSON of `qemu-img map`, as a list, as a picture.

mod disk;
mod list;
mod picture;
mod tally;
mod text;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::free::Runs;
use snapcow::verify::look_for_free;

#[cfg(feature = "openstack")]
use super::args::CloudArgs;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::image::{self, FREE_MEMORY_BYTES, Format, interruptible};
use super::trim;
use disk::Disk;
use tally::Tally;

#[derive(Clone, Debug, Parser)]
pub struct MapArgs {
    /// PATH of a raw or qcow2 file or a block device, or glance:NAME-or-ID
    pub image: String,
    /// Format of the image [default: a file's by its first bytes, an image's by its record]
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Read a raw disk to find its zeros, in blocks of 4 KiB
    #[arg(long)]
    pub scan: bool,
    /// Print the JSON of `qemu-img map --output=json`
    #[arg(long, conflicts_with = "list")]
    pub json: bool,
    /// Print every extent, as a table
    #[arg(long)]
    pub list: bool,
    /// Look into the filesystems, and show what they have freed: what `--trim` left out, or would leave out
    #[arg(long, conflicts_with_all = ["json", "list"])]
    pub free: bool,
    /// Draw the disk into FILE, as SVG or PNG by the end of its name
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Width of the picture in pixels
    #[arg(long, value_name = "PIXELS", default_value = "1000", value_parser = clap::value_parser!(u32).range(400..=1600), requires = "picture")]
    pub width: u32,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PictureFormat {
    Svg,
    Png,
}

/// Runs the command.
pub fn run(options: &MapArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let picture = match &options.picture {
        Some(path) => Some((path.clone(), picture_format(path, &options.image)?)),
        None => None,
    };
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let disk = disk::open(
        options,
        #[cfg(feature = "openstack")]
        &mut clouds,
    )?;
    let filesystems = match options.free {
        true => Some(image::open_disk(
            &options.image,
            options.format,
            #[cfg(feature = "openstack")]
            &mut clouds,
            #[cfg(feature = "openstack")]
            None,
        )?),
        false => None,
    };
    let (json, list, width) = (options.json, options.list, options.width);
    interruptible(cancel, move || {
        let findings = match filesystems {
            Some(opened) => Some(look_for_free(&*opened.disk, FREE_MEMORY_BYTES)?),
            None => None,
        };
        let tally = walk(&disk, findings.as_ref().map(|found| found.free.clone()), json, list)?;
        disk.settle()?;
        if let Some((path, format)) = picture {
            let drawing = picture::draw(&tally, &disk, width);
            let bytes = match format {
                PictureFormat::Svg => drawing.svg().into_bytes(),
                PictureFormat::Png => drawing.png(),
            };
            snapcow::sink::write_whole(&path, &bytes).map_err(|error| {
                let what = format!("write the picture `{}`", path.display());
                Error::new(Stage::Sink, Kind::Local, what).because(error)
            })?;
        } else if !json && !list && !quiet {
            let mut text = text::summary(&tally, &disk, text::Look::of_stdout());
            for line in findings.iter().flat_map(trim::parts) {
                text.push('\n');
                text.push_str(&line);
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush()).map_err(unwritten)?;
        }
        Ok(())
    })
}

fn picture_format(path: &Path, image: &str) -> Result<PictureFormat> {
    if path.canonicalize().is_ok_and(|path| Path::new(image).canonicalize().is_ok_and(|image| image == path))
    {
        let what = "the picture would take the place of the image";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give the picture a name of its own"));
    }
    let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
    match end.as_deref() {
        Some("svg") => Ok(PictureFormat::Svg),
        Some("png") => Ok(PictureFormat::Png),
        _ => {
            let what = format!("`{}` ends neither in .svg nor in .png", path.display());
            Err(Error::new(Stage::Plan, Kind::Usage, what).advise("name the picture disk.svg or disk.png"))
        }
    }
}

/// Goes over all extents once: each is printed, where that is wanted, and counted.
fn walk(disk: &Disk, free: Option<Runs>, json: bool, list: bool) -> Result<Tally> {
    let mut tally = Tally::new(disk.size(), free);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut printer = match (json, list) {
        (true, _) => list::Printer::Json { first: true },
        (_, true) => list::Printer::Table { first: true },
        _ => list::Printer::Nothing,
    };
    for extent in disk.extents()? {
        let extent = extent?;
        tally.add(&extent);
        printer.extent(&mut out, &extent).map_err(unwritten)?;
    }
    printer.end(&mut out).and_then(|()| out.flush()).map_err(unwritten)?;
    Ok(tally)
}

fn unwritten(error: std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::BrokenPipe { Kind::ClosedPipe } else { Kind::Local };
    Error::new(Stage::Sink, kind, "write to standard output").because(error)
}
