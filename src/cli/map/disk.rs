//! The disk that is mapped: a file, or an image in Glance by ranges, or in order where it is raw and read anyway.

#[cfg(feature = "openstack")]
use std::io::Read;
use std::sync::Arc;
#[cfg(feature = "openstack")]
use std::sync::{Mutex, PoisonError};

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::extents::{Extent, of_opaque, of_qcow2, of_raw, scan};
use snapcow::read::{GuestImage, Input};
use snapcow::scan::zero::is_zero;
use snapcow::source::{FileSource, Source};
use snapcow::units::SECTOR_BYTES;

use super::MapArgs;
#[cfg(feature = "openstack")]
use crate::cli::glance::Clouds;
use crate::cli::image::{self, Format};
use crate::cli::partitions::{self, Partitions};

/// A disk, and where it lies.
pub struct Disk {
    pub name: String,
    /// Length of the file or image in bytes.
    pub file_len: u64,
    /// Partitions, where the first bytes could be had for it.
    pub partitions: Partitions,
    scans: bool,
    body: Body,
    file: Option<Arc<FileSource>>,
}

enum Body {
    Qcow2(GuestImage),
    /// Its bytes, if they can be had at any place.
    Raw(Input),
    #[cfg(feature = "openstack")]
    Stream(Mutex<Box<dyn Read + Send>>),
    /// A raw image in a store without ranges that nobody wants to be read.
    Opaque,
}

/// One by one, as they are found.
pub type Extents<'a> = Box<dyn Iterator<Item = Result<Extent>> + 'a>;

impl Disk {
    fn new(name: &str, len: u64, body: Body, file: Option<Arc<FileSource>>, scans: bool) -> Result<Self> {
        if scans && matches!(body, Body::Qcow2(_)) {
            let what = "--scan is for raw disks: a qcow2 image knows its zeros";
            return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("leave it out"));
        }
        // A damaged cluster is no reason not to show the map.
        let partitions = match &body {
            Body::Qcow2(guest) => {
                partitions::find(guest.virtual_size(), |out, at| guest.reader().read(out, at))
            }
            Body::Raw(input) => partitions::find(input.len, |out, at| input.bytes.read_at(out, at)),
            _ => Partitions::default(),
        };
        Ok(Self { name: name.to_owned(), file_len: len, partitions, scans, body, file })
    }

    /// Bytes of the disk, in whole sectors if it is raw.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::Qcow2(guest) => guest.virtual_size(),
            _ => self.file_len.next_multiple_of(SECTOR_BYTES),
        }
    }

    pub fn is_qcow2(&self) -> bool {
        matches!(self.body, Body::Qcow2(_))
    }

    /// Whether data may be zeros that nobody has looked for.
    pub fn is_unseen(&self) -> bool {
        !self.scans && !self.is_qcow2() && self.file.is_none()
    }

    /// All of it. A stream can be gone over once.
    pub fn extents(&self) -> Result<Extents<'_>> {
        let known: Extents<'_> = match (&self.body, &self.file) {
            (Body::Qcow2(guest), file) => return Ok(Box::new(of_qcow2(guest, file.as_deref()))),
            (_, Some(file)) => Box::new(of_raw(file)),
            _ => Box::new(of_opaque(self.file_len)),
        };
        match &self.body {
            Body::Raw(input) if self.scans => {
                let bytes = Arc::clone(&input.bytes);
                let read = move |out: &mut [u8], offset: u64| bytes.read_at(out, offset);
                Ok(Box::new(scan(known, self.file_len, is_zero, read)))
            }
            #[cfg(feature = "openstack")]
            Body::Stream(stream) => {
                let read = move |out: &mut [u8], offset: u64| {
                    stream.lock().unwrap_or_else(PoisonError::into_inner).read_exact(out).map_err(|error| {
                        let what = format!("read {} bytes at offset {offset} of {}", out.len(), self.name);
                        Error::new(Stage::Source, Kind::Network, what).because(error)
                    })
                };
                Ok(Box::new(scan(known, self.file_len, is_zero, read)))
            }
            _ => Ok(known),
        }
    }

    /// Whether what was found can be relied on.
    pub fn settle(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.settle())
    }
}

/// Opens what the words name.
pub fn open(options: &MapArgs, #[cfg(feature = "openstack")] clouds: &mut Clouds) -> Result<Disk> {
    if let Some(name) = options.image.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        return open_glance(name, options, clouds);
        #[cfg(not(feature = "openstack"))]
        {
            let _ = name;
            return Err(crate::cli::convert::no_openstack());
        }
    }
    if options.image == "-" {
        let what = "standard input has no map: it is read once, and in order";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save it to a file first"));
    }
    let (input, file) = image::open_file(&options.image)?;
    let (name, len) = (input.name.clone(), input.len);
    let body = match options.format.map_or_else(|| image::found_format(&input), Ok)? {
        Format::Raw => Body::Raw(input),
        Format::Qcow2 => Body::Qcow2(GuestImage::open(input)?),
    };
    Disk::new(&name, len, body, Some(file), options.scan)
}

#[cfg(feature = "openstack")]
fn open_glance(name: &str, options: &MapArgs, clouds: &mut Clouds) -> Result<Disk> {
    let (cloud, found) = image::find(name, None, clouds)?;
    let format = image::record_format(&found, options.format)?;
    let len = found.size.unwrap_or(0);
    let name = format!("image {}", found.label());
    let ranges = clouds.wait(Stage::Source, cloud.probe_range(&found.id, len))?;
    let input = || {
        let bytes = Arc::new(snapcow::source::GlanceBytes::new(&cloud, &found));
        Input { bytes, len, name: name.clone() }
    };
    let body = match format {
        Format::Qcow2 if ranges => Body::Qcow2(GuestImage::open(input())?),
        Format::Qcow2 => return Err(image::no_ranges(&found)),
        Format::Raw if ranges => Body::Raw(input()),
        Format::Raw if options.scan => {
            Body::Stream(Mutex::new(Box::new(snapcow::source::GlanceStream::new(&cloud, &found)?)))
        }
        Format::Raw => Body::Opaque,
    };
    Disk::new(&name, len, body, None, options.scan)
}
