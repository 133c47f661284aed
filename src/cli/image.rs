//! What `check`, `verify`, `map` and `info` read: a local file, standard input, or an image in Glance.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
#[cfg(feature = "openstack")]
use snapcow::openstack::{Cloud, Image};
use snapcow::read::Input;
use snapcow::source::{FileSource, PROBE_BYTES, Source, image_format};
#[cfg(feature = "openstack")]
use snapcow::source::{GlanceBytes, GlanceStream};
use snapcow::verify::{Disk, Qcow2Disk, RawDisk, StreamDisk};

#[cfg(feature = "openstack")]
use super::glance::{self, Clouds};

/// Memory for the metadata of one filesystem that is looked at, in bytes.
pub const FREE_MEMORY_BYTES: u64 = 256 << 20;

/// The format of a disk that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Raw,
    Qcow2,
}

/// A disk to be compared.
pub struct Opened {
    pub disk: Box<dyn Disk + Send>,
    /// The file that it lies in; asked at the end whether it changed.
    pub file: Option<Arc<FileSource>>,
}

/// Runs `work`, which may wait for anything, unless a signal comes first. Neither `check` nor `verify` has
/// anything to clean up, so what is left of it ends with the process.
pub fn interruptible<T: Send + 'static>(
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (to, result) = async_channel::bounded(1);
    let wake = result.clone();
    let _guard = cancel.on_trigger(move || {
        wake.close();
    });
    std::thread::Builder::new()
        .name("reader".into())
        .spawn(move || {
            // Nobody listens once a signal came.
            let _ = to.send_blocking(work());
        })
        .map_err(|error| Error::new(Stage::Plan, Kind::Local, "start a thread").because(error))?;
    result.recv_blocking().unwrap_or_else(|_| {
        cancel.check(Stage::Source)?;
        Err(Error::new(Stage::Source, Kind::Other, "a reading thread panicked"))
    })
}

/// A local file as bytes.
pub fn open_file(path: &str) -> Result<(Input, Arc<FileSource>)> {
    let file = Arc::new(
        FileSource::open(Path::new(path), true).map_err(|error| super::near_file::hint(error, path))?,
    );
    let facts = file.facts();
    let input = Input { bytes: file.bytes(), len: facts.len.unwrap_or(0), name: facts.name.clone() };
    Ok((input, file))
}

/// A disk to be compared, by its words; `cloud` is the name of the cloud of a `glance:` image.
pub fn open_disk(
    words: &str,
    format: Option<Format>,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
    #[cfg(feature = "openstack")] cloud: Option<String>,
) -> Result<Opened> {
    if let Some(name) = words.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        return open_glance(name, format, clouds, cloud);
        #[cfg(not(feature = "openstack"))]
        {
            let _ = name;
            return Err(super::convert::no_openstack());
        }
    }
    if words == "-" {
        if format == Some(Format::Qcow2) {
            let what = "standard input can only be a raw disk: a qcow2 image is not read in order";
            return Err(Error::new(Stage::Source, Kind::Usage, what).advise("save it to a file first"));
        }
        let stream = RawStream { stream: std::io::stdin(), is_sure: format.is_some() };
        let disk = StreamDisk::new("standard input", None, Box::new(stream));
        return Ok(Opened { disk: Box::new(disk), file: None });
    }
    let (input, file) = open_file(words)?;
    let disk: Box<dyn Disk + Send> = match format.map_or_else(|| found_format(&input), Ok)? {
        Format::Raw => Box::new(RawDisk::of_file(Arc::clone(&file))),
        Format::Qcow2 => Box::new(Qcow2Disk::open(input)?),
    };
    Ok(Opened { disk, file: Some(file) })
}

/// The format of a file by its first bytes.
pub(super) fn found_format(input: &Input) -> Result<Format> {
    let mut head = [0; PROBE_BYTES];
    let take = input.len.min(PROBE_BYTES as u64) as usize;
    input.bytes.read_at(&mut head[..take], 0)?;
    match image_format(&head[..take]) {
        None => Ok(Format::Raw),
        Some("qcow2") => Ok(Format::Qcow2),
        Some(other) => {
            let what = format!("`{}` begins like a {other} image, which is not read", input.name);
            Err(Error::new(Stage::Source, Kind::Source, what)
                .advise("convert it with qemu-img, or say raw with -f or -F if its guest sees these bytes"))
        }
    }
}

/// Standard input, refused if it begins like an image and nobody said that it is raw.
struct RawStream<T> {
    stream: T,
    is_sure: bool,
}

impl<T: std::io::Read> std::io::Read for RawStream<T> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.is_sure || out.len() < PROBE_BYTES {
            return self.stream.read(out);
        }
        self.is_sure = true;
        let mut read = 0;
        while read < PROBE_BYTES {
            match self.stream.read(&mut out[read..])? {
                0 => break,
                more => read += more,
            }
        }
        match image_format(&out[..read.min(PROBE_BYTES)]) {
            None => Ok(read),
            Some(format) => {
                let what = format!("standard input begins like a {format} image; it can only be a raw disk");
                let error = Error::new(Stage::Source, Kind::Source, what);
                Err(std::io::Error::other(
                    error.advise("save it to a file first, or say raw with -f or -F if it is one"),
                ))
            }
        }
    }
}

/// An image in Glance as bytes at any place.
///
/// # Errors
/// Also if its store serves no ranges.
#[cfg(feature = "openstack")]
pub fn open_ranges(name: &str, cloud: Option<String>, clouds: &mut Clouds) -> Result<Input> {
    let (cloud, image) = find(name, cloud, clouds)?;
    let name = format!("image {}", image.label());
    if !clouds.wait(Stage::Source, cloud.probe_range(&image.id, image.size.unwrap_or(0)))? {
        return Err(no_ranges(&image));
    }
    Ok(Input { bytes: Arc::new(GlanceBytes::new(&cloud, &image)), len: image.size.unwrap_or(0), name })
}

/// Looks an image up that has data.
#[cfg(feature = "openstack")]
pub(super) fn find(name: &str, cloud: Option<String>, clouds: &mut Clouds) -> Result<(Cloud, Image)> {
    let (cloud, image) = glance::find_image(name, cloud, clouds)?;
    if image.status == "active" {
        return Ok((cloud, image));
    }
    let what = format!("image {} cannot be read: it is {}", image.label(), image.status);
    Err(Error::new(Stage::Source, Kind::Source, what).advise("see `openstack image show`"))
}

#[cfg(feature = "openstack")]
pub(super) fn no_ranges(image: &Image) -> Error {
    let what = format!(
        "image {} lies in a store that serves no ranges, and a qcow2 image is not read in order",
        image.label()
    );
    let advice = format!("save it first: openstack image save --file FILE {}", image.id);
    Error::new(Stage::Source, Kind::Source, what).advise(advice)
}

/// The format of an image: what somebody says, or what its record says.
#[cfg(feature = "openstack")]
pub(super) fn record_format(image: &Image, said: Option<Format>) -> Result<Format> {
    match (said, image.disk_format.as_deref()) {
        (Some(format), _) => Ok(format),
        (None, Some("raw")) => Ok(Format::Raw),
        (None, Some("qcow2")) => Ok(Format::Qcow2),
        (None, other) => {
            let other = other.unwrap_or("no format");
            let what = format!("image {} is {other} by its record, neither raw nor qcow2", image.label());
            Err(Error::new(Stage::Source, Kind::Source, what).advise("say with -f or -F what it is"))
        }
    }
}

#[cfg(feature = "openstack")]
fn open_glance(
    name: &str,
    format: Option<Format>,
    clouds: &mut Clouds,
    cloud: Option<String>,
) -> Result<Opened> {
    let (cloud, image) = find(name, cloud, clouds)?;
    let format = record_format(&image, format)?;
    let len = image.size.unwrap_or(0);
    let ranges = clouds.wait(Stage::Source, cloud.probe_range(&image.id, len))?;
    let name = format!("image {}", image.label());
    let input = || Input { bytes: Arc::new(GlanceBytes::new(&cloud, &image)), len, name: name.clone() };
    let disk: Box<dyn Disk + Send> = match format {
        Format::Raw if ranges => Box::new(RawDisk::new(input())),
        Format::Raw => {
            let stream = GlanceStream::new(&cloud, &image)?;
            Box::new(StreamDisk::new(&name, Some(len), Box::new(stream)))
        }
        Format::Qcow2 if ranges => Box::new(Qcow2Disk::open(input())?),
        Format::Qcow2 => return Err(no_ranges(&image)),
    };
    Ok(Opened { disk, file: None })
}
