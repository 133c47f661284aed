//! What is known of an image, and where that comes from. Nothing here is believed, and all of it is bounded.

#[cfg(feature = "openstack")]
use std::io::Read;
use std::sync::Arc;

use snapcow::error::Result;
use snapcow::extents::{Extent, Kind, of_qcow2, of_raw};
use snapcow::free::table::{HEAD_BYTES, Table};
#[cfg(feature = "openstack")]
use snapcow::openstack::Image;
use snapcow::qcow2::parse::NoHeader;
use snapcow::read::{DESCRIBED_BYTES, Description, GuestImage, Input, describe};
use snapcow::source::{FileSource, Source, image_format};

#[cfg(feature = "openstack")]
use crate::cli::glance::{self, Clouds};
use crate::cli::image;
use crate::cli::partitions::{self, Partitions};

/// Something to be looked at.
pub struct Subject {
    name: String,
    len: u64,
    bytes: Bytes,
    #[cfg(feature = "openstack")]
    record: Option<Image>,
    #[cfg(feature = "openstack")]
    members: Option<usize>,
}

enum Bytes {
    File(Input, Arc<FileSource>),
    #[cfg(feature = "openstack")]
    Ranges(Input),
    /// From the beginning only.
    #[cfg(feature = "openstack")]
    Stream(Box<dyn Read + Send>),
    /// A record without data.
    #[cfg(feature = "openstack")]
    Nothing,
}

/// What stretches of one kind come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub bytes: u64,
    pub stored: u64,
    pub extents: u64,
}

/// What the disk is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    pub plain: Sum,
    pub compressed: Sum,
    pub zero: Sum,
    pub unallocated: Sum,
}

/// All of it.
pub struct Facts {
    pub name: String,
    pub file_len: u64,
    /// Whether parts of it can be read; `None` for a file.
    pub ranges: Option<bool>,
    pub format: &'static str,
    pub qcow2: Option<Description>,
    /// Or why they are not known.
    pub contents: Result<Contents, String>,
    pub table: Option<Table>,
    pub warnings: Vec<String>,
    #[cfg(feature = "openstack")]
    pub record: Option<Image>,
    #[cfg(feature = "openstack")]
    pub members: Option<usize>,
}

impl Facts {
    /// Size of the disk, if it is known.
    pub fn virtual_size(&self) -> Option<u64> {
        match (&self.qcow2, self.format) {
            (Some(description), _) => Some(description.header.virtual_size),
            (None, "raw") => Some(self.file_len),
            _ => None,
        }
    }
}

impl Contents {
    fn of(extents: impl Iterator<Item = Result<Extent>>) -> Result<Self> {
        let mut contents = Self::default();
        for extent in extents {
            let extent = extent?;
            let sum = match extent.kind {
                Kind::Unallocated => &mut contents.unallocated,
                Kind::Zero | Kind::Preallocated => &mut contents.zero,
                Kind::Data => &mut contents.plain,
                Kind::Compressed => &mut contents.compressed,
            };
            sum.bytes += extent.len;
            sum.stored = sum.stored.saturating_add(extent.stored);
            sum.extents += 1;
        }
        Ok(contents)
    }

    pub fn data_bytes(&self) -> u64 {
        self.plain.bytes + self.compressed.bytes
    }

    pub fn stored(&self) -> u64 {
        self.plain.stored.saturating_add(self.compressed.stored)
    }

    pub fn extents(&self) -> u64 {
        [self.plain, self.compressed, self.zero, self.unallocated].iter().map(|sum| sum.extents).sum()
    }
}

/// Finds what the words name.
pub fn open(words: &str, #[cfg(feature = "openstack")] clouds: &mut Clouds) -> Result<Subject> {
    if let Some(name) = words.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        return open_glance(name, clouds);
        #[cfg(not(feature = "openstack"))]
        {
            let _ = name;
            return Err(crate::cli::convert::no_openstack());
        }
    }
    let (input, file) = image::open_file(words)?;
    Ok(Subject {
        name: input.name.clone(),
        len: input.len,
        bytes: Bytes::File(input, file),
        #[cfg(feature = "openstack")]
        record: None,
        #[cfg(feature = "openstack")]
        members: None,
    })
}

#[cfg(feature = "openstack")]
fn open_glance(name: &str, clouds: &mut Clouds) -> Result<Subject> {
    use snapcow::error::Stage;
    use snapcow::source::{GlanceBytes, GlanceStream};

    let (cloud, found) = glance::find_image(name, None, clouds)?;
    let (name, len) = (format!("image {}", found.label()), found.size.unwrap_or(0));
    let bytes = if found.status != "active" || len == 0 {
        Bytes::Nothing
    } else if clouds.wait(Stage::Source, cloud.probe_range(&found.id, len))? {
        let bytes = Arc::new(GlanceBytes::new(&cloud, &found));
        Bytes::Ranges(Input { bytes, len, name: name.clone() })
    } else {
        Bytes::Stream(Box::new(GlanceStream::new(&cloud, &found)?))
    };
    // Members exist of shared images alone, and who may not see them is no worse off.
    let members = match found.visibility.as_deref() {
        Some("shared") => {
            clouds.wait(Stage::Source, cloud.members(&found.id)).ok().map(|members| members.len())
        }
        _ => None,
    };
    Ok(Subject { name, len, bytes, record: Some(found), members })
}

/// Looks at it.
pub fn look(subject: Subject) -> Result<Facts> {
    let Subject { name, len, mut bytes, .. } = subject;
    let head = head(&mut bytes, len)?;
    let format = match image_format(&head) {
        Some(format) => format,
        None if len == 0 => "empty",
        None => "raw",
    };
    let mut warnings = Vec::new();
    let qcow2 = match describe(&head) {
        Ok(description) => Some(description),
        Err(NoHeader::OtherFormat) => None,
        Err(NoHeader::Cut) => {
            warnings.push("its qcow2 header is cut".into());
            None
        }
        Err(NoHeader::Version(version)) => {
            warnings.push(format!("it is a qcow2 image of version {version}; only 2 and 3 are known"));
            None
        }
    };
    warnings.extend(qcow2.iter().flat_map(|description| description.warnings.clone()));
    let ranges = match bytes {
        Bytes::File(..) => None,
        #[cfg(feature = "openstack")]
        Bytes::Ranges(_) => Some(true),
        #[cfg(feature = "openstack")]
        _ => Some(false),
    };
    let (contents, Partitions { table, doubt }) = inside(&bytes, format, &head, len, qcow2.is_some())?;
    warnings.extend(doubt.map(|why| format!("its partitions are not known: {why}")));
    warnings.extend(table.iter().flat_map(|table| table.note.clone()));
    if let Err(why) = &contents
        && qcow2.is_some()
        && ranges != Some(false)
    {
        warnings.push(why.clone());
    }
    #[cfg(feature = "openstack")]
    if let Some(record) = &subject.record {
        warnings.extend(contradictions(record, format, qcow2.as_ref()));
    }
    Ok(Facts {
        name,
        file_len: len,
        ranges,
        format,
        qcow2,
        contents,
        table,
        warnings,
        #[cfg(feature = "openstack")]
        record: subject.record,
        #[cfg(feature = "openstack")]
        members: subject.members,
    })
}

/// The first bytes of the file.
fn head(bytes: &mut Bytes, len: u64) -> Result<Vec<u8>> {
    let mut head = vec![0; len.min(HEAD_BYTES.max(DESCRIBED_BYTES as u64)) as usize];
    match bytes {
        Bytes::File(input, _) => input.bytes.read_at(&mut head, 0)?,
        #[cfg(feature = "openstack")]
        Bytes::Ranges(input) => input.bytes.read_at(&mut head, 0)?,
        #[cfg(feature = "openstack")]
        Bytes::Stream(stream) => stream.read_exact(&mut head).map_err(|error| {
            use snapcow::error::{Error, Kind, Stage};
            Error::new(Stage::Source, Kind::Network, "read the first bytes of the image").because(error)
        })?,
        #[cfg(feature = "openstack")]
        Bytes::Nothing => head.clear(),
    }
    Ok(head)
}

type Inside = (Result<Contents, String>, Partitions);

/// What the disk is made of, and its partitions. Damage is a fact like others.
#[cfg_attr(
    not(feature = "openstack"),
    expect(unused_variables, reason = "streams alone have but their head")
)]
fn inside(bytes: &Bytes, format: &str, head: &[u8], len: u64, is_qcow2: bool) -> Result<Inside> {
    let unknown = |why: &str| Ok((Err(why.to_owned()), Partitions::default()));
    match (bytes, format) {
        (Bytes::File(input, file), "raw") => {
            let contents = Contents::of(of_raw(file))?;
            file.settle()?;
            Ok((Ok(contents), partitions::find(len, |out, at| input.bytes.read_at(out, at))))
        }
        (Bytes::File(input, file), _) if is_qcow2 => Ok(qcow2(input, Some(file))),
        #[cfg(feature = "openstack")]
        (Bytes::Ranges(input), _) if is_qcow2 => Ok(qcow2(input, None)),
        #[cfg(feature = "openstack")]
        (Bytes::Stream(_), _) if is_qcow2 => {
            unknown("its store serves no ranges, and its tables are not read in order")
        }
        #[cfg(feature = "openstack")]
        (Bytes::Ranges(_) | Bytes::Stream(_), "raw") => {
            let found = match bytes {
                Bytes::Ranges(input) => partitions::find(len, |out, at| input.bytes.read_at(out, at)),
                _ => partitions::find(len, |out, at| of_head(head, out, at)),
            };
            Ok((Err("Glance does not know the holes of a raw image".into()), found))
        }
        #[cfg(feature = "openstack")]
        (Bytes::Nothing, _) => unknown("it has no data"),
        _ => unknown("the format is not read"),
    }
}

/// Bytes of a disk of which only the first ones can be had.
#[cfg(feature = "openstack")]
fn of_head(head: &[u8], out: &mut [u8], at: u64) -> Result<()> {
    use snapcow::error::{Error, Kind, Stage};
    let from = usize::try_from(at).ok().and_then(|at| head.get(at..)?.get(..out.len()));
    let from =
        from.ok_or_else(|| Error::new(Stage::Source, Kind::Other, "only the first bytes are at hand"))?;
    out.copy_from_slice(from);
    Ok(())
}

fn qcow2(input: &Input, file: Option<&FileSource>) -> Inside {
    let counted =
        GuestImage::open_tables(input.clone()).and_then(|guest| Contents::of(of_qcow2(&guest, file)));
    // An image that needs another file has no first bytes of its own.
    let partitions = GuestImage::open(input.clone())
        .map(|guest| partitions::find(guest.virtual_size(), |out, at| guest.reader().read(out, at)));
    (counted.map_err(|error| error.to_string()), partitions.unwrap_or_default())
}

/// Where record and bytes tell different things.
#[cfg(feature = "openstack")]
fn contradictions(record: &Image, format: &str, qcow2: Option<&Description>) -> Vec<String> {
    let mut found = Vec::new();
    let said = record.disk_format.as_deref().unwrap_or("none");
    match (said, format) {
        ("raw", "raw") | (_, "empty") => {}
        ("raw", other) => found.push(format!("it is raw by its record, but begins like a {other} image")),
        ("qcow2" | "vmdk" | "vdi" | "vhdx", other) if !said.eq_ignore_ascii_case(other) => {
            found.push(format!("it is {said} by its record, but its first bytes are {other}"));
        }
        _ => {}
    }
    if let (Some(said), Some(description)) = (record.virtual_size, qcow2)
        && said != description.header.virtual_size
        && said != 0
    {
        let own = description.header.virtual_size;
        found.push(format!("its disk has {own} bytes by its header, {said} by its record"));
    }
    found
}
