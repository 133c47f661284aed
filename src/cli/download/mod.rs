//! `snapcow download`: an image in Glance as a file, proved by Glance's hash.
//!
//! `--json` prints one object, `schema` is `snapcow/download/1`; sizes are bytes.

mod name;
mod said;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use snapcow::convert::{Cancel, Counters};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::fetch::{Fetch, Fetched, FileLanding, StreamLanding, expand, part_as_input};
use snapcow::openstack::{Cloud, Image};
use snapcow::read::{GuestImage, Input};
use snapcow::sink::{FileSink, Part, SparseFile};
use snapcow::source::{GlanceBytes, GlanceSource};
use snapcow::units::Human;

use super::args::{CloudArgs, ProgressMode};
use super::glance::{self, Clouds};
use super::progress::Progress;
use super::stdout::Stdout;
use super::tell;
use name::{file_name, space};

/// Buffers of 2 MiB for each connection: one is filled, one waits for its turn, and some slack for a slow disk.
const BUFFERS_PER_CONNECTION: usize = 8;
/// Such buffers at most: 256 MiB.
const BUFFERS_MAX: usize = 128;
/// Decoding threads at most: each holds some MiB.
const THREADS_MAX: usize = 16;

#[derive(Clone, Debug, Parser)]
pub struct DownloadArgs {
    /// NAME or ID of the image, with or without glance: before it
    pub image: String,
    /// PATH of the file or of a folder for it, or - for standard output [default: the image's name in this folder]
    pub file: Option<String>,

    /// Expand a qcow2 image into the raw disk that its guest sees
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<To>,
    /// Replace an existing file; the old one stays until the new one is whole and proved
    #[arg(long)]
    pub force: bool,
    /// Neither use what an earlier run left nor leave anything for a later one
    #[arg(long)]
    pub no_resume: bool,
    /// Connections to read with at most, where Glance serves ranges
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Decoding threads of --to raw [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Look up, probe, say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as a JSON object instead of the file's path
    #[arg(long)]
    pub json: bool,
    /// How to show progress, on standard error
    #[arg(long, default_value = "auto")]
    pub progress: ProgressMode,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    Raw,
}

/// Where it goes.
enum Target {
    Stdout,
    File(PathBuf),
}

/// An image that is about to be downloaded.
struct Download<'a> {
    options: &'a DownloadArgs,
    quiet: bool,
    cloud: Cloud,
    image: Image,
    len: u64,
    ranges: bool,
    expands: bool,
    cancel: &'a Cancel,
    counters: Arc<Counters>,
}

/// What came of it.
struct Done {
    fetched: Fetched,
    /// Size of the raw disk, where the image was expanded.
    virtual_size: Option<u64>,
}

/// Runs the command.
pub fn run(options: &DownloadArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let result = carry_out(options, quiet, cancel, &mut clouds);
    // An interrupted run fails in whatever it was doing; the signal is the reason.
    result.map_err(|error| match (error.kind(), cancel.check(error.stage())) {
        (Kind::Interrupted(_), _) | (_, Ok(())) => error,
        (_, Err(signal)) => match error.advice() {
            Some(advice) => signal.advise(advice),
            None => signal,
        },
    })
}

fn carry_out(options: &DownloadArgs, quiet: bool, cancel: &Cancel, clouds: &mut Clouds) -> Result<()> {
    if options.json && options.file.as_deref() == Some("-") {
        let what = "--json and the image cannot both go to standard output";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give a FILE, or leave --json out"));
    }
    let begin = Instant::now();
    let name = options.image.strip_prefix("glance:").unwrap_or(&options.image);
    let (cloud, image) = glance::find_image(name, None, clouds)?;
    let (len, expands) = check(options, &image)?;
    let target = target(options, &image, expands)?;
    if let Target::File(path) = &target {
        FileSink::check(path, options.force)?;
    }
    let ranges = clouds.wait(Stage::Source, cloud.probe_range(&image.id, len))?;
    let counters = Arc::new(Counters::default());
    let download = Download { options, quiet, cloud, image, len, ranges, expands, cancel, counters };
    if options.dry_run {
        return download.rehearse(&target);
    }
    if expands && ranges {
        // Before the first byte of many: whether it can be expanded at all.
        let bytes = Arc::new(GlanceBytes::new(&download.cloud, &download.image));
        GuestImage::open(Input { bytes, len, name: format!("image {}", download.image.label()) })?;
    }
    let done = match &target {
        Target::Stdout => download.to_stdout()?,
        Target::File(path) => download.to_file(path, clouds)?,
    };
    download.tell_result(&target, &done, begin)
}

/// Whether the image can be downloaded at all: its length, and whether it is to be expanded.
fn check(options: &DownloadArgs, image: &Image) -> Result<(u64, bool)> {
    let refuse = |what: String| Error::new(Stage::Source, Kind::Source, what);
    let label = image.label();
    let len = match (image.status.as_str(), image.size) {
        ("active", Some(len)) => len,
        ("active", None) => return Err(refuse(format!("image {label} does not say how long it is"))),
        ("deactivated", _) => {
            return Err(refuse(format!("image {label} is deactivated: nobody may read it"))
                .advise("ask its owner or an administrator to reactivate it"));
        }
        ("queued" | "saving" | "uploading" | "importing", _) => {
            return Err(refuse(format!("image {label} has no data yet: it is {}", image.status))
                .advise("wait until it is active"));
        }
        (status, _) => return Err(refuse(format!("image {label} cannot be read: it is {status}"))),
    };
    let container = image.container_format.as_deref().unwrap_or("bare");
    match (options.to, image.disk_format.as_deref()) {
        (None, _) | (Some(To::Raw), Some("raw")) => Ok((len, false)),
        (Some(To::Raw), Some("qcow2")) if container == "bare" => Ok((len, true)),
        (Some(To::Raw), format) => {
            let format = format.unwrap_or("of no format");
            Err(refuse(format!(
                "image {label} is {format} ({container}) by its record, and only qcow2 is expanded"
            ))
            .advise("leave --to out, and convert the file with qemu-img"))
        }
    }
}

fn target(options: &DownloadArgs, image: &Image, expands: bool) -> Result<Target> {
    let name = || file_name(image, expands);
    Ok(match options.file.as_deref() {
        Some("-") => Target::Stdout,
        Some("") => return Err(Error::new(Stage::Sink, Kind::Usage, "the file has no name")),
        Some(words) if words.starts_with("glance:") => {
            let what = format!("`{words}` is no file");
            return Err(Error::new(Stage::Sink, Kind::Usage, what)
                .advise("to convert from Glance to Glance use snapcow convert"));
        }
        Some(path) if Path::new(path).is_dir() => Target::File(Path::new(path).join(name())),
        Some(path) => Target::File(path.into()),
        None => Target::File(name().into()),
    })
}

impl Download<'_> {
    fn fetch(&self) -> Fetch {
        let connections = usize::from(self.options.connections);
        let source =
            GlanceSource::new(self.cloud.clone(), self.image.clone(), self.ranges, connections, true)
                .as_bytes();
        Fetch {
            digest: source.digest(),
            source: Arc::new(source),
            buffers: (connections * BUFFERS_PER_CONNECTION).clamp(16, BUFFERS_MAX),
            counters: Arc::clone(&self.counters),
            cancel: self.cancel.clone(),
        }
    }

    fn progress(&self) -> Progress {
        Progress::start(self.options.progress, self.quiet, Arc::clone(&self.counters), Some(self.len))
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        self.options.threads.map_or_else(cores, usize::from)
    }

    fn note(&self, note: impl std::fmt::Display) {
        if !self.quiet {
            tell(format_args!("snapcow: note: {note}"));
        }
    }

    /// What a part is a part of. An image's bytes never change; its hash and size are said for the reader, and in case
    /// that they do.
    fn about(&self) -> String {
        let hash = match self.fetch().digest {
            Ok(digest) => format!("{} {}", digest.algorithm.name(), digest.hex),
            Err(_) => "hash unknown".into(),
        };
        format!("snapcow-part/1\nimage {}\nsize {} bytes\n{hash}\n", self.image.id, self.len)
    }

    fn to_stdout(&self) -> Result<Done> {
        let open = |error| Error::new(Stage::Sink, Kind::Local, "open standard output").because(error);
        let mut stdout = Stdout::new(self.cancel).map_err(open)?;
        let name = "standard output";
        if !self.expands {
            let _progress = self.progress();
            let fetched = self.fetch().into_stream(&mut stdout, name)?;
            return Ok(Done { fetched, virtual_size: None });
        }
        // A qcow2 image is not read in order, and its hash is one of all of it: it has to lie somewhere.
        let local = |error| Error::new(Stage::Sink, Kind::Local, "make a temporary file").because(error);
        let place = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).unwrap_or("/var/tmp".into());
        let folder = tempfile::Builder::new().prefix("snapcow-").tempdir_in(&place).map_err(local)?;
        self.check_space(Path::new(&place), 0)?;
        let mut part = Part::open(&folder.path().join("image"), &self.about(), true)?;
        // Without a name it goes with the process.
        folder.close().map_err(local)?;
        let _progress = self.progress();
        let fetched = self.fetch().into_part(&mut part)?;
        let mut landing = StreamLanding::new(&mut stdout, name, Arc::clone(&self.counters));
        let size = expand(part_as_input(&part), self.threads(), &mut landing, &self.counters, self.cancel)?;
        Ok(Done { fetched, virtual_size: Some(size) })
    }

    fn to_file(&self, path: &Path, clouds: &Clouds) -> Result<Done> {
        let mut part = Part::open(path, &self.about(), self.options.no_resume)?;
        let result = self.check_space(path, part.len()).and_then(|()| self.land(path, &mut part));
        match result {
            Ok(done) if self.expands => {
                part.discard();
                Ok(done)
            }
            Ok(done) => match part.commit(self.options.force) {
                Ok(()) => Ok(done),
                // What is whole and proved is kept; another command gives it its name.
                Err(error) => Err(self.kept(error, path)),
            },
            Err(error) => Err(self.after_failure(error, part, clouds)),
        }
    }

    /// All but the file's last name.
    fn land(&self, path: &Path, part: &mut Part) -> Result<Done> {
        if !part.is_empty() && (self.ranges || part.len() == self.len) {
            self.note(format_args!("{} of {} are here already", Human(part.len()), Human(self.len)));
        } else if !part.is_empty() {
            self.note("the store serves no ranges, so what an earlier run left is of no use");
        }
        let fetch = self.fetch();
        if let Err(why) = &fetch.digest {
            self.note(format_args!("the image cannot be verified: {why}"));
        }
        let _progress = self.progress();
        let fetched = fetch.into_part(part)?;
        if !self.expands {
            return Ok(Done { fetched, virtual_size: None });
        }
        let mut file = SparseFile::create(path, self.options.force)?;
        let mut landing = FileLanding::new(&mut file, &self.counters);
        let size = expand(part_as_input(part), self.threads(), &mut landing, &self.counters, self.cancel)?;
        file.commit()?;
        Ok(Done { fetched, virtual_size: Some(size) })
    }

    /// Whether it fits, as far as that can be known.
    fn check_space(&self, path: &Path, there: u64) -> Result<()> {
        let Some(free) = space(path) else { return Ok(()) };
        let needed = self.len.saturating_sub(there);
        let is_raw = self.image.disk_format.as_deref() == Some("raw");
        if needed > free && !is_raw {
            let what =
                format!("{} are needed beside `{}`, {} are free", Human(needed), path.display(), Human(free));
            return Err(Error::new(Stage::Sink, Kind::Local, what)
                .advise("free some space, or write to another disk"));
        }
        if needed > free {
            self.note(format_args!(
                "up to {} are needed and {} are free; zeros take no room, so it may fit",
                Human(needed),
                Human(free)
            ));
        } else if self.expands {
            let size =
                self.image.virtual_size.map_or_else(|| "the disk".into(), |size| Human(size).to_string());
            self.note(format_args!(
                "{} are needed for the qcow2 image, and for a while beside it up to {size} for the raw disk, whose zeros take no room; {} are free",
                Human(needed),
                Human(free)
            ));
        }
        Ok(())
    }

    /// What becomes of the part after a failure, and what to do next.
    fn after_failure(&self, error: Error, part: Part, clouds: &Clouds) -> Error {
        let is_gone = error.kind() == Kind::Source
            && clouds
                .wait(Stage::Source, self.cloud.find_images(&self.image.id))
                .is_ok_and(|found| found.is_empty());
        if is_gone {
            part.discard();
            let what = format!("image {} was deleted while it was downloaded", self.image.label());
            return Error::new(Stage::Source, Kind::Source, what).because(error);
        }
        // What has another hash is of no use, and a store without ranges gives all of it anew.
        let is_useless = error.kind() == Kind::SourceChanged || (!self.ranges && part.len() < self.len);
        if part.is_empty() || self.options.no_resume || is_useless {
            part.discard();
            return error;
        }
        let first = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
        let kept = Human(part.len());
        let advice = format!(
            "{first}{kept} of {} are kept in `{}`: the same command goes on from there, and begins anew with --no-resume",
            Human(self.len),
            part.path().display()
        );
        error.advise(advice)
    }

    fn kept(&self, error: Error, path: &Path) -> Error {
        let advice = format!(
            "all of it is kept in `{}`: choose what becomes of the file that is there, and run this again",
            Part::path_for(path).display()
        );
        error.advise(advice)
    }
}
