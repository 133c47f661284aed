//! The source of a conversion, opened.

use std::path::Path;
use std::sync::Arc;

use snapcow::error::Result;
use snapcow::hash::Digest;
use snapcow::source::{FileSource, Source, StreamSource};

use super::args::{ConvertArgs, SourceFormat};
#[cfg(not(feature = "openstack"))]
use super::convert::no_openstack;
#[cfg(feature = "openstack")]
use super::glance::{self, Clouds};
use super::near_file;

/// An opened source.
pub struct Opened {
    pub source: Arc<dyn Source>,
    pub digest: Result<Digest, String>,
    /// Device and inode, where the source is a file or a block device.
    pub identity: Option<(u64, u64)>,
    #[cfg(feature = "openstack")]
    pub image: Option<snapcow::openstack::Image>,
}

/// Opens what the words name.
pub fn open_source(
    options: &ConvertArgs,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
) -> Result<Opened> {
    let raw_by_order = options.source_format == Some(SourceFormat::Raw);
    let unverified = |what: &str| Err(format!("{what} has no hash to compare with"));
    if let Some(name) = options.source.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        return glance::open_source(name, options, clouds);
        #[cfg(not(feature = "openstack"))]
        {
            let _ = name;
            return Err(no_openstack());
        }
    }
    if options.source == "-" {
        let source = StreamSource::new("standard input", Box::new(std::io::stdin()), raw_by_order);
        return Ok(Opened {
            source: Arc::new(source),
            digest: unverified("standard input"),
            identity: None,
            #[cfg(feature = "openstack")]
            image: None,
        });
    }
    let file = FileSource::open(Path::new(&options.source), raw_by_order)
        .map_err(|error| near_file::hint(error, &options.source))?;
    let identity = file.identity().ok();
    Ok(Opened {
        source: Arc::new(file),
        digest: unverified("a file"),
        identity,
        #[cfg(feature = "openstack")]
        image: None,
    })
}

impl Opened {
    /// What tells this source from others, for the report.
    pub fn describe(&self) -> serde_json::Value {
        #[cfg(feature = "openstack")]
        if let Some(image) = &self.image {
            return glance::describe(image);
        }
        match self.identity {
            Some((device, inode)) => serde_json::json!({
                "kind": "file",
                "device": device,
                "inode": inode,
                "size_bytes": self.source.facts().len,
            }),
            None => serde_json::json!({"kind": "stream"}),
        }
    }

    /// A source in Glance.
    #[cfg(feature = "openstack")]
    pub fn image(
        source: Arc<dyn Source>,
        digest: Result<Digest, String>,
        image: snapcow::openstack::Image,
    ) -> Self {
        Self { source, digest, identity: None, image: Some(image) }
    }
}
