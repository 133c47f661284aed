//! The name of a new image: no two in a project that snapcow makes, unless that is asked for. Glance itself lets many
//! images have one name.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::Image;

use super::args::ConvertArgs;
use super::glance::Clouds;

/// So long may the requests take by which another run sees this one and gives way.
const GIVING_WAY: Duration = Duration::from_secs(4);

impl Clouds {
    /// Refuses a name that the project has already, unless it is `own` image's.
    pub fn check_target_name(&mut self, name: &str, options: &ConvertArgs, own: Option<&str>) -> Result<()> {
        let cloud = self.target_cloud()?;
        if options.image.allow_duplicate {
            return Ok(());
        }
        let mut same = self.wait(Stage::Sink, cloud.images_named_in_project(name))?;
        same.retain(|image| own != Some(image.id.as_str()));
        let Some(first) = same.first() else { return Ok(()) };
        let refusal = Error::new(
            Stage::Sink,
            Kind::Target,
            format!("the project has an image of that name already: {}", list(&same)),
        );
        Err(if first.status == "queued" && first.size.unwrap_or(0) == 0 {
            refusal.advise(format!(
                "it is empty, perhaps left by an interrupted run: openstack image delete {}, or give --allow-duplicate",
                first.id
            ))
        } else {
            refusal.advise("choose another name, or give --allow-duplicate")
        })
    }

    /// Looks at the names again once the record is made: another run may have made one since. One of the two takes
    /// its record back.
    ///
    /// # Errors
    /// [`Kind::Target`]: it was this one, and `own` is deleted.
    pub(super) fn give_way(&mut self, name: &str, own: &Image, options: &ConvertArgs) -> Result<()> {
        if options.image.allow_duplicate {
            return Ok(());
        }
        let cloud = self.target_cloud()?;
        let until = Instant::now() + GIVING_WAY;
        let rival = loop {
            let same = match self.wait(Stage::Sink, cloud.images_named_in_project(name)) {
                Ok(same) => same,
                Err(error) => {
                    tracing::warn!("{error}; whether another run makes an image of that name is not known");
                    return Ok(());
                }
            };
            match standing(own, &same) {
                Standing::Alone => return Ok(()),
                Standing::First if Instant::now() < until => {
                    let moment = async {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        Ok(())
                    };
                    self.wait(Stage::Sink, moment).ok();
                }
                Standing::First | Standing::Second => {
                    break same.into_iter().filter(|image| image.id != own.id).collect::<Vec<_>>();
                }
            }
        };
        let what = format!("another run has begun to make an image of that name: {}", list(&rival));
        let error = Error::new(Stage::Sink, Kind::Target, what);
        Err(match self.wait(Stage::Sink, cloud.delete(&own.id)) {
            Ok(_) => error.advise("wait for it, choose another name, or give --allow-duplicate"),
            Err(left) => error
                .advise(format!("delete what this run has made: openstack image delete {} ({left})", own.id)),
        })
    }
}

/// A record among those of the same name.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody else is there.
    Alone,
    /// Older than all others, or as old and first by its ID: they give way, unless they looked before this one came
    /// into sight. A record is dated before the database has it, and perhaps by another clock: an older one may
    /// appear later.
    First,
    /// Another one is older, or as old and first by its ID.
    Second,
}

fn standing(own: &Image, same: &[Image]) -> Standing {
    let others = same.iter().filter(|image| image.id != own.id);
    let mut standing = Standing::Alone;
    for other in others {
        // Times as Glance writes them are ordered as texts.
        let age = match (&other.created_at, &own.created_at) {
            (Some(other), Some(own)) => other.cmp(own),
            _ => Ordering::Equal,
        };
        match age.then_with(|| other.id.cmp(&own.id)) {
            Ordering::Less => return Standing::Second,
            _ => standing = Standing::First,
        }
    }
    standing
}

/// Images by ID and status.
pub(super) fn list(images: &[Image]) -> String {
    let shown: Vec<_> =
        images.iter().take(20).map(|image| format!("{} ({})", image.id, image.status)).collect();
    let more = if images.len() > 20 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, created_at: &str) -> Image {
        Image { id: id.into(), created_at: Some(created_at.into()), ..Image::default() }
    }

    #[test]
    fn of_two_records_exactly_one_stays() {
        let (early, late) = ("2026-11-23T10:00:00Z", "2026-11-23T10:00:01Z");
        let own = image("b", early);
        for (other, expected, others) in [
            (image("b", early), Standing::Alone, Standing::Alone),
            (image("a", late), Standing::First, Standing::Second),
            (image("c", early), Standing::First, Standing::Second),
            (image("a", early), Standing::Second, Standing::First),
        ] {
            let same = [own.clone(), other.clone()];
            assert_eq!(standing(&own, &same), expected);
            assert_eq!(standing(&other, &same), others);
        }
    }
}
