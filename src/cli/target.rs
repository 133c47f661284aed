//! The target of a conversion, as far as the words tell.

use std::path::Path;

use snapcow::convert::{Cancel, Target};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{SinkFacts, SinkOrder};
use snapcow::sink::StreamSink;
use snapcow::state::Keeper;

use super::args::ConvertArgs;
#[cfg(not(feature = "openstack"))]
use super::convert::no_openstack;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::opened::Opened;
use super::stdout::Stdout;

/// Where the image goes.
pub enum TargetWords<'a> {
    Stdout,
    #[cfg_attr(not(feature = "openstack"), expect(dead_code, reason = "only to be refused"))]
    Glance(&'a str),
    File(&'a Path),
}

impl<'a> TargetWords<'a> {
    /// Reads the word.
    pub fn parse(words: &'a str) -> Result<Self> {
        match words.strip_prefix("glance:") {
            Some("") => {
                Err(Error::new(Stage::Sink, Kind::Usage, "`glance:` names no image")
                    .advise("write glance:NAME"))
            }
            Some(name) => Ok(Self::Glance(name)),
            None if words == "-" => Ok(Self::Stdout),
            None => Ok(Self::File(Path::new(words))),
        }
    }

    /// Where the image goes, in words that are the same for the same place.
    pub fn name(
        &self,
        options: &ConvertArgs,
        #[cfg(feature = "openstack")] clouds: &mut Clouds,
    ) -> Result<String> {
        Ok(match self {
            #[cfg(feature = "openstack")]
            Self::Glance(name) => {
                // The attributes are many and long, and nobody has to read them.
                let attributes = crc32fast::hash(format!("{:?}", options.image).as_bytes());
                format!("image {name} {}, attributes {attributes:08x}", clouds.target_place()?)
            }
            #[cfg(not(feature = "openstack"))]
            Self::Glance(_) => return Err(no_openstack()),
            Self::Stdout => "standard output".into(),
            Self::File(path) => path.display().to_string(),
        })
    }

    /// What planning has to know of it.
    pub fn facts(&self) -> SinkFacts {
        match self {
            Self::Stdout => SinkFacts { name: "standard output".into(), order: SinkOrder::InOrder },
            Self::Glance(name) => SinkFacts { name: format!("image `{name}`"), order: SinkOrder::InOrder },
            Self::File(path) => SinkFacts { name: path.display().to_string(), order: SinkOrder::Random },
        }
    }

    /// Refuses a target that is the source.
    pub fn refuse_source(&self, opened: &Opened) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Self::File(path) = self else { return Ok(()) };
        let same =
            std::fs::metadata(path).is_ok_and(|meta| opened.identity == Some((meta.dev(), meta.ino())));
        if same {
            let what = format!("`{}` is both source and target", path.display());
            return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give the image another name"));
        }
        Ok(())
    }
}

/// Standard output as a target.
pub fn to_stdout(cancel: &Cancel, keeper: Option<&mut Keeper>) -> Result<Target> {
    keeper.map_or(Ok(()), |keeper| keeper.begin(None))?;
    let stdout = Stdout::new(cancel)
        .map_err(|error| Error::new(Stage::Sink, Kind::Local, "open standard output").because(error))?;
    Ok(Target::Delivery(Box::new(StreamSink::new("standard output", Box::new(stdout)))))
}
