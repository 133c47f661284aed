//! Finding, showing and deleting images: takes a name or an ID, gives records; holds at most
//! [`MOST_HITS`] of them.

use std::time::Duration;

use serde_json::Value;

use super::answer::{kind_of, one_line};
use super::record::Image;
use super::{Cloud, answer::Answer};
use crate::error::{Error, Result};
use crate::retry::Attempts;

/// Images asked for in one page; small, since one image may carry many KiB of properties.
const PAGE: &str = "50";
/// More images of one name than this are not listed.
const MOST_HITS: usize = 200;
/// Pages read before a list that never ends is given up.
const MOST_PAGES: usize = 100;
/// Deleting waits until the store is done, which on Ceph may take minutes.
const DELETE_WAIT: Duration = Duration::from_secs(300);

/// How an image came to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Glance has deleted it.
    Now,
    /// Glance says that there is none: somebody else was faster, or the deletion's first answer was lost. A service
    /// that does not know its own images (a lagging copy of its database, a wrong address) says the same.
    Absent,
}

impl Cloud {
    /// All images that `name_or_id` may mean: the one with that ID, else those with exactly that
    /// name, hidden ones included.
    ///
    /// # Errors
    /// Of the request; not finding any is an empty list.
    pub async fn find_images(&self, name_or_id: &str) -> Result<Vec<Image>> {
        if uuid::Uuid::try_parse(name_or_id).is_ok() && name_or_id.len() == 36 {
            let what = format!("look up image `{}` in `{}`", one_line(name_or_id), self.label());
            let url = self.url(["images", name_or_id]);
            let answer = self.ask(&what, |client| client.get(url.clone())).await?;
            match answer.status.as_u16() {
                404 => {}
                200 => return Ok(vec![self.image_of(answer, &what)?]),
                _ => return Err(self.refuse(&answer, &what)),
            }
        }
        let mut found = self.list(name_or_id, None, false).await?;
        found.extend(self.list(name_or_id, None, true).await?);
        Ok(found)
    }

    /// Images of that name that belong to the project, hidden ones included. Where the project is
    /// not known (only a token was given), all that the token may see.
    ///
    /// # Errors
    /// Of the request.
    pub async fn images_named_in_project(&self, name: &str) -> Result<Vec<Image>> {
        let mut found = self.list(name, self.project_id(), false).await?;
        found.extend(self.list(name, self.project_id(), true).await?);
        Ok(found)
    }

    /// The record of an image.
    ///
    /// # Errors
    /// `Source` or `Target`, by the stage, if there is none.
    pub async fn show(&self, id: &str) -> Result<Image> {
        let what = format!("look up image `{}` in `{}`", one_line(id), self.label());
        match self.peek(id, &what).await? {
            Some(image) => Ok(image),
            None => Err(Error::new(self.stage, kind_of(self.stage), format!("{what}: there is none"))
                .advise("check the ID with `openstack image list`")),
        }
    }

    /// The record, or `None` if there is none.
    pub(super) async fn peek(&self, id: &str, what: &str) -> Result<Option<Image>> {
        let url = self.url(["images", id]);
        let answer = self.ask(what, |client| client.get(url.clone())).await?;
        match answer.status.as_u16() {
            200 => self.image_of(answer, what).map(Some),
            404 | 410 => Ok(None),
            _ => Err(self.refuse(&answer, what)),
        }
    }

    /// Deletes an image; one that is gone already is fine. Tried again while it is in use.
    ///
    /// # Errors
    /// What Glance refused; then the image is still there.
    pub async fn delete(&self, id: &str) -> Result<Deleted> {
        let what = format!("delete image `{}` in `{}`", one_line(id), self.label());
        let url = self.url(["images", id]);
        let mut conflicts = Attempts::new(self.retry);
        loop {
            let answer = self
                .ask_with(&what, DELETE_WAIT, &mut Attempts::new(self.retry), false, |client| {
                    client.delete(url.clone())
                })
                .await?;
            if answer.status.is_success() {
                return Ok(Deleted::Now);
            }
            // Two deletions that meet (one of ours may have lost its answer) end in a 400 although the image is
            // gone. A 404 is believed where there is nothing to be seen either.
            if let Some(deleted) = self.gone(id, &what).await {
                return Ok(deleted);
            }
            let pause = match answer.status.as_u16() {
                409 => conflicts.after_failure(answer.retry_after),
                _ => None,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.refuse(&answer, &what)),
            }
        }
    }

    /// How it is known that there is no such image any more, if it is: Glance shows none, or itself calls it deleted
    /// (seen after a database error in the middle of a deletion).
    async fn gone(&self, id: &str, what: &str) -> Option<Deleted> {
        match self.peek(id, what).await {
            Ok(None) => Some(Deleted::Absent),
            Ok(Some(image)) if matches!(image.status.as_str(), "deleted" | "pending_delete") => {
                Some(Deleted::Now)
            }
            _ => None,
        }
    }

    /// The images with exactly that name, page by page.
    async fn list(&self, name: &str, owner: Option<&str>, hidden: bool) -> Result<Vec<Image>> {
        let what = format!("look for images called `{}` in `{}`", one_line(name), self.label());
        let mut found = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut url = self.url(["images"]);
            {
                let mut query = url.query_pairs_mut();
                query.append_pair("name", &name_filter(name)).append_pair("limit", PAGE);
                query.append_pair("os_hidden", if hidden { "true" } else { "false" });
                owner.map(|owner| query.append_pair("owner", owner));
                marker.as_deref().map(|marker| query.append_pair("marker", marker));
            }
            let answer = self.ask(&what, |client| client.get(url.clone())).await?;
            if answer.status != 200 {
                return Err(self.refuse(&answer, &what));
            }
            let mut page = answer.json(self.stage, &what)?;
            let Some(Value::Array(images)) = page.get_mut("images").map(Value::take) else {
                return Err(self.strange(&what, "there is no list of images in it"));
            };
            for json in images {
                let image = Image::from_json(json).map_err(|why| self.strange(&what, &why))?;
                // Databases compare names without regard to case or spaces at the end; we do not.
                let fits = image.name.as_deref() == Some(name)
                    && owner.is_none_or(|owner| image.owner.as_deref() == Some(owner));
                if fits {
                    found.push(image);
                }
            }
            if found.len() > MOST_HITS {
                return Err(Error::new(
                    self.stage,
                    kind_of(self.stage),
                    format!("{what}: there are more than {MOST_HITS}"),
                )
                .advise("name the image by its ID"));
            }
            let next = page.get("next").and_then(Value::as_str).and_then(next_marker);
            match next {
                Some(next) if marker.as_deref() != Some(next.as_str()) => marker = Some(next),
                _ => return Ok(found),
            }
        }
        Err(self.strange(&what, "the list does not end"))
    }

    /// The image of an answer to a single-image call.
    pub(super) fn image_of(&self, answer: Answer, what: &str) -> Result<Image> {
        Image::from_json(answer.json(self.stage, what)?).map_err(|why| self.strange(what, &why))
    }

    fn strange(&self, what: &str, why: &str) -> Error {
        Error::new(
            self.stage,
            crate::error::Kind::Network,
            format!("{what}: the answer is not Glance's: {why}"),
        )
        .advise("check the image endpoint")
    }
}

/// The value of the `name` filter that means exactly this name. Glance takes what stands before the
/// first colon for an operator (`glance/common/utils.py`, `split_filter_op`), so a name with one
/// needs `eq:` before it.
fn name_filter(name: &str) -> String {
    if name.contains(':') { format!("eq:{name}") } else { name.to_owned() }
}

/// The marker in a `next` link. Nothing else of the link is used: it comes from the service, and our
/// token must not follow it to another host.
fn next_marker(next: &str) -> Option<String> {
    let base = reqwest::Url::parse("http://glance/").ok()?;
    let url = base.join(next).ok()?;
    url.query_pairs().find(|(key, _)| key == "marker").map(|(_, marker)| marker.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_colon_is_no_operator() {
        assert_eq!(name_filter("in:a,b"), "eq:in:a,b");
        assert_eq!(name_filter("a,\"b\" ü"), "a,\"b\" ü");
    }

    #[test]
    fn of_a_next_link_only_the_marker_counts() {
        assert_eq!(next_marker("/v2/images?limit=50&marker=a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(next_marker("https://evil/?marker=x").as_deref(), Some("x"));
        for none in ["", "/v2/images", "http://[", "?limit=5"] {
            assert_eq!(next_marker(none), None, "{none}");
        }
    }
}
