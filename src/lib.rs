//! snapcow turns the RAW snapshot of a virtual machine into a compact qcow2 image while it streams
//! from one place to another: out of OpenStack Glance and back into it, from and to files, pipes and
//! block devices. The raw image is never on disk.
//!
//! ```text
//!  source ──► scan ──► encode ──► place ──► sink
//!  Glance     zero/    none,      host      Glance
//!  file       data     zlib,      offsets,  file
//!  stdin      (SIMD)   zstd       tables    stdout
//!                          │        ▲
//!                          └ spool ─┘   plan decides route and budgets beforehand
//! ```
//!
//! A raw disk becomes an image:
//!
//! ```
//! use snapcow::convert::Conversion;
//! use snapcow::source::FileSource;
//!
//! # let folder = tempfile::tempdir()?;
//! # let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
//! # let disk = std::fs::File::create(&raw)?;
//! # disk.set_len(1 << 30)?;
//! # std::os::unix::fs::FileExt::write_all_at(&disk, &[7; 100_000], 5_000_000)?;
//! let disk = FileSource::open(&raw, false)?;
//! let receipt = Conversion::of(disk).threads(2).to_file(&image)?;
//! assert_eq!(receipt.virtual_size, 1 << 30);
//! assert!(receipt.image_len < 1 << 20, "what is zero takes no room");
//!
//! // The proof: both sides as their guest reads them.
//! use snapcow::verify::{Qcow2Disk, RawDisk, compare};
//! let (raw, image) = (FileSource::open(&raw, false)?, FileSource::open(&image, true)?);
//! let image = snapcow::read::Input { len: receipt.image_len, bytes: image.bytes(), name: "image".into() };
//! assert!(compare(&RawDisk::of_file(raw.into()), &Qcow2Disk::open(image)?, 2)?.is_equal());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! And a snapshot in OpenStack becomes a compact one beside it:
//!
#![cfg_attr(feature = "openstack", doc = "```no_run")]
#![cfg_attr(not(feature = "openstack"), doc = "```ignore")]
//! use snapcow::convert::Conversion;
//! use snapcow::error::{Error, Stage};
//! use snapcow::openstack::{Cloud, CloudOptions, NewImage};
//! use snapcow::source::GlanceSource;
//!
//! let prepared = async {
//!     let cloud = Cloud::connect(&CloudOptions::default(), Stage::Plan).await?;
//!     let source = GlanceSource::find(&cloud, "myVmSnapshot").await?;
//!     let new = NewImage { min_disk: 10, ..NewImage::private("myVmSnapshotCompact", "qcow2") };
//!     Ok::<_, Error>((source, cloud.create(&new).await?.image, cloud))
//! };
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let (source, created, cloud) = runtime.block_on(prepared)?;
//! let digest = source.digest();
//! let receipt = Conversion::of(source).compare_with(digest).to_glance(&cloud, &created)?;
//! println!("{}: {} bytes, {:?}", created.id, receipt.image_len, receipt.source_check);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`convert::Conversion`] takes any [`source::Source`] to a file or to any [`sink::Delivery`]; `tests/examples` has one
//! of each. [`convert::convert`] is the whole story on one page; the modules below follow the bytes. [`fetch`] brings
//! images as they are.

pub mod convert;

pub mod plan;

pub mod source;

pub mod scan;

pub mod encode;

pub mod spool;

pub mod state;

pub mod place;

pub mod sink;

// What reads an image back, and proves that it holds what it should.

pub mod read;

pub mod extents;

pub mod verify;

pub mod fetch;

// What the stages share.

pub mod flow;

pub mod facts;

pub mod map;

pub mod buffers;

pub mod hash;

pub mod units;

pub mod error;

#[cfg(feature = "openstack")]
pub mod retry;

pub mod faults;

pub mod free;

pub mod holes;

pub mod markup;

// What lies below them.

pub mod qcow2;

#[cfg(feature = "openstack")]
pub mod openstack;

#[cfg(feature = "embedded")]
pub mod embedded;

// What measures all of it.

#[cfg(feature = "bench")]
pub mod bench;
