//! Creating a record: takes a [`NewImage`], gives the image as Glance made it and the properties it
//! refused; holds one record.
//!
//! The ID is ours, so a lost answer is no riddle: the record is asked for by its ID. A 403 does not
//! say reliably which property it is about, and the ID of a deleted image cannot be used again; so the record
//! is then made without properties, and they are added in halves until the forbidden ones stand alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::one_line;
use super::http::JSON_WAIT;
use super::record::Image;
use super::update::operation;
use super::{Cloud, answer::Answer};
use crate::error::{Error, Kind, Result};
use crate::retry::Attempts;

/// A record to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewImage {
    /// A fresh UUID: see [`NewImage::new_id`].
    pub id: String,
    /// Up to 255 characters; need not be unique.
    pub name: String,
    /// `qcow2`, `raw`, …
    pub disk_format: String,
    /// `bare`, …
    pub container_format: String,
    /// `private`, `shared`, `community` or `public`; `None` leaves it to Glance (`shared`).
    pub visibility: Option<String>,
    /// Smallest root disk, in GiB.
    pub min_disk: u64,
    /// Smallest memory, in MiB.
    pub min_ram: u64,
    /// Tags.
    pub tags: Vec<String>,
    /// Properties; those with the name of an attribute are ignored.
    pub properties: BTreeMap<String, String>,
}

impl NewImage {
    /// A private record with a fresh ID, no container around its data, and nothing else said.
    pub fn private(name: &str, disk_format: &str) -> Self {
        Self {
            id: Self::new_id(),
            name: name.into(),
            disk_format: disk_format.into(),
            container_format: "bare".into(),
            visibility: Some("private".into()),
            ..Self::default()
        }
    }

    /// An ID that no image has.
    pub fn new_id() -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn json(&self, properties: &BTreeMap<String, String>) -> Value {
        let mut json = json!(properties);
        json["id"] = json!(self.id);
        json["name"] = json!(self.name);
        json["disk_format"] = json!(self.disk_format);
        json["container_format"] = json!(self.container_format);
        json["min_disk"] = json!(self.min_disk);
        json["min_ram"] = json!(self.min_ram);
        json["tags"] = json!(self.tags);
        if let Some(visibility) = &self.visibility {
            json["visibility"] = json!(visibility);
        }
        json
    }
}

/// A record that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The image, `queued`.
    pub image: Image,
    /// Properties that Glance forbids to us (403), in order of their names.
    pub dropped_properties: Vec<String>,
}

enum Posted {
    Made(Box<Image>),
    Forbidden(Box<Answer>),
}

impl Cloud {
    /// Makes the record of an image. If this fails after the record was made, it is deleted again.
    ///
    /// # Errors
    /// What Glance refused: a policy, a quota, a visibility, an ID in use. Where it is retryable nobody knows whether
    /// there is a record now.
    pub async fn create(&self, new: &NewImage) -> Result<Created> {
        let what = format!("create image `{}` in `{}`", one_line(&new.name), self.label());
        let none = BTreeMap::new();
        let forbidden = match self.post(new, &new.properties, &what).await? {
            Posted::Made(image) => return Ok(Created { image: *image, dropped_properties: Vec::new() }),
            Posted::Forbidden(answer) => answer,
        };
        if new.properties.is_empty() {
            return Err(self.refuse(&forbidden, &what));
        }
        if let Posted::Forbidden(answer) = self.post(new, &none, &what).await? {
            return Err(self.refuse(&answer, &what));
        }
        let added = self.add_properties(new, &what).await;
        match added {
            Ok(created) => Ok(created),
            Err(error) => {
                if let Err(left) = self.delete(&new.id).await {
                    return Err(error.advise(format!("delete image {} by hand: {left}", new.id)));
                }
                Err(error)
            }
        }
    }

    /// One record by one POST, repeated until it is known whether it was made.
    async fn post(
        &self,
        new: &NewImage,
        properties: &BTreeMap<String, String>,
        what: &str,
    ) -> Result<Posted> {
        let url = self.url(["images"]);
        let body = new.json(properties).to_string();
        let mut attempts = Attempts::new(self.retry);
        loop {
            let mut once = Attempts::new(self.retry.once());
            let tried = self
                .ask_with(what, JSON_WAIT, &mut once, false, |client| {
                    client.post(url.clone()).header("Content-Type", "application/json").body(body.clone())
                })
                .await;
            let error = match tried {
                Ok(answer) if answer.status.is_success() => {
                    return self.image_of(answer, what).map(|image| Posted::Made(Box::new(image)));
                }
                Ok(answer) if answer.status == 403 => return Ok(Posted::Forbidden(Box::new(answer))),
                // After a lost answer any refusal may come too late, and an ID in use is most likely our own record.
                Ok(answer) if attempts.failures() > 0 => {
                    return self.made_after_all(new, what, self.refuse(&answer, what)).await;
                }
                Ok(answer) => return Err(self.refuse(&answer, what)),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            let Some(pause) = attempts.after_failure(once.asked()) else {
                return self.made_after_all(new, what, error).await;
            };
            tokio::time::sleep(pause).await;
            if let Ok(Some(image)) = self.peek(&new.id, what).await {
                return Ok(Posted::Made(Box::new(image)));
            }
        }
    }

    /// After the last try: a record that was made although no answer said so is taken, and where that cannot be
    /// found out the error says so and stays retryable.
    async fn made_after_all(&self, new: &NewImage, what: &str, error: Error) -> Result<Posted> {
        match self.peek(&new.id, what).await {
            Ok(Some(image)) => Ok(Posted::Made(Box::new(image))),
            Ok(None) => Err(error.settled()),
            Err(_) => {
                Err(error.retry().advise(format!("see whether image {} exists, and delete it", new.id)))
            }
        }
    }

    /// Adds all properties that may be added to a record without any.
    async fn add_properties(&self, new: &NewImage, what: &str) -> Result<Created> {
        let all: Vec<(&String, &String)> = new.properties.iter().collect();
        let mut groups: Vec<&[(&String, &String)]> = vec![&all];
        let mut dropped = Vec::new();
        while let Some(group) = groups.pop() {
            let additions: Vec<Value> =
                group.iter().map(|(key, value)| operation("add", key, json!(value))).collect();
            let answer = self.patch_image(&new.id, &additions, what).await?;
            match (answer.status.as_u16(), group) {
                (200..300, _) => {}
                (403, [(key, _)]) => dropped.push((*key).clone()),
                (403, _) => {
                    let (low, high) = group.split_at(group.len() / 2);
                    groups.extend([high, low]);
                }
                _ => return Err(self.refuse(&answer, what)),
            }
        }
        let image = self.peek(&new.id, what).await?;
        let gone = || Error::new(self.stage, Kind::Target, format!("{what}: somebody deleted it at once"));
        Ok(Created { image: image.ok_or_else(gone)?, dropped_properties: dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stand_above_properties_of_the_same_name() {
        let properties = BTreeMap::from([
            ("name".to_owned(), "evil".to_owned()),
            ("os_distro".to_owned(), "debian".to_owned()),
        ]);
        let new = NewImage { id: NewImage::new_id(), name: "n".into(), properties, ..NewImage::default() };
        let json = new.json(&new.properties);
        assert_eq!((json["name"].as_str(), json["os_distro"].as_str()), (Some("n"), Some("debian")));
        assert!(json.get("visibility").is_none());
    }
}
