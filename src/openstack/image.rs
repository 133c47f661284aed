//! Finding, showing and deleting images: takes a name or an ID, gives records; holds at most
//! [`MOST_HITS`] of them.

use std::time::Duration;

use super::answer::{kind_of, one_line};
use super::listing::ImageFilter;
use super::record::Image;
use super::{Cloud, answer::Answer};
use crate::error::{Error, Result};
use crate::retry::Attempts;

/// More images of one name than this are not listed.
const MOST_HITS: usize = 200;
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
                .advise("check the ID with `snapcow list`")),
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
        let filter = ImageFilter {
            name: Some(name.to_owned()),
            owner: owner.map(str::to_owned),
            hidden,
            ..ImageFilter::default()
        };
        let listed = self.pages(&filter, MOST_HITS, &what).await?;
        if !listed.complete {
            let what = format!("{what}: there are more than {MOST_HITS}");
            return Err(Error::new(self.stage, kind_of(self.stage), what).advise("name the image by its ID"));
        }
        Ok(listed.images)
    }

    /// The image of an answer to a single-image call.
    pub(super) fn image_of(&self, answer: Answer, what: &str) -> Result<Image> {
        Image::from_json(answer.json(self.stage, what)?).map_err(|why| self.strange(what, &why))
    }

    pub(super) fn strange(&self, what: &str, why: &str) -> Error {
        Error::new(
            self.stage,
            crate::error::Kind::Network,
            format!("{what}: the answer is not Glance's: {why}"),
        )
        .advise("check the image endpoint")
    }
}
