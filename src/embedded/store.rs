//! The images: their records, their data, and the states that they go through.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::answer::Refused;
use super::data::ImageData;
use super::image::{self, Attributes};
use super::lock;

/// The project that every image belongs to.
pub(super) const OWNER: &str = "5ca1ab1e0000400080000000000c0de5";

/// An image.
struct Image {
    attributes: Attributes,
    data: Option<Arc<dyn ImageData>>,
}

impl Image {
    fn id(&self) -> &str {
        self.text("id")
    }

    fn text(&self, name: &str) -> &str {
        self.attributes.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a download gives: the data, and the checksum that goes into a header.
pub(super) type Download = (Arc<dyn ImageData>, Option<String>);

/// All images, the oldest first.
#[derive(Default)]
pub(super) struct Store {
    images: Mutex<Vec<Image>>,
}

impl Store {
    /// Adds an image as it is, ready to be downloaded; its ID.
    pub(super) fn seed(&self, over: Attributes, data: Arc<dyn ImageData>) -> String {
        let id = over.get("id").and_then(Value::as_str).map_or_else(new_id, str::to_owned);
        let mut attributes = image::blank(&id, OWNER);
        attributes.extend(over);
        lock(&self.images).push(Image { attributes, data: Some(data) });
        id
    }

    /// Adds a queued image; its record.
    pub(super) fn create(&self, body: Attributes, forbidden: &[String]) -> Result<Value, Refused> {
        for (name, value) in &body {
            image::check(name, value, forbidden)?;
        }
        let id = body.get("id").and_then(Value::as_str).map_or_else(new_id, str::to_owned);
        let mut images = lock(&self.images);
        if images.iter().any(|image| image.id() == id) {
            return Err(Refused::new(409, format!("Image ID {id} already exists!")));
        }
        let mut attributes = image::blank(&id, OWNER);
        attributes.extend(body);
        let shown = Value::Object(attributes.clone());
        images.push(Image { attributes, data: None });
        Ok(shown)
    }

    /// An image's record.
    pub(super) fn show(&self, id: &str) -> Result<Value, Refused> {
        self.with(id, |image| Ok(Value::Object(image.attributes.clone())))
    }

    /// The records that match a query, the newest first. `visibility`, sorting and paging are ignored.
    pub(super) fn list(&self, query: &[(String, String)]) -> Value {
        const IGNORED: [&str; 8] =
            ["limit", "marker", "sort", "sort_key", "sort_dir", "visibility", "member_status", "os_hidden"];
        let hidden =
            query.iter().any(|(name, value)| name == "os_hidden" && value.eq_ignore_ascii_case("true"));
        let matches = |image: &Image| {
            image.attributes.get("os_hidden") == Some(&Value::Bool(hidden))
                && query.iter().filter(|(name, _)| !IGNORED.contains(&name.as_str())).all(|(name, value)| {
                    match image.attributes.get(if name == "tag" { "tags" } else { name }) {
                        Some(Value::String(text)) => text == value,
                        Some(Value::Array(tags)) => tags.iter().any(|tag| tag == value.as_str()),
                        Some(Value::Number(number)) => value.parse().ok() == number.as_u64(),
                        Some(Value::Bool(flag)) => {
                            value.eq_ignore_ascii_case(if *flag { "true" } else { "false" })
                        }
                        Some(_) => false,
                        None => false,
                    }
                })
        };
        let images = lock(&self.images);
        let found = images.iter().rev().filter(|image| matches(image));
        let found: Vec<Value> = found.map(|image| Value::Object(image.attributes.clone())).collect();
        json!({"images": found, "first": "/v2/images", "schema": "/v2/schemas/images"})
    }

    /// Applies a JSON patch; the record after it.
    pub(super) fn update(&self, id: &str, patch: &Value, forbidden: &[String]) -> Result<Value, Refused> {
        let wrong = || Refused::new(400, "Request body must be a JSON array of operation objects.");
        let operations = patch.as_array().ok_or_else(wrong)?;
        self.with(id, |image| {
            let mut attributes = image.attributes.clone();
            let active = image.text("status") != "queued";
            for operation in operations {
                let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or_else(wrong);
                let (verb, path) = (text("op")?, text("path")?);
                let name = path.trim_start_matches('/').replace("~1", "/").replace("~0", "~");
                if active && matches!(name.as_str(), "disk_format" | "container_format") {
                    return Err(Refused::new(403, format!("Attribute '{name}' is read-only.")));
                }
                if verb == "remove" {
                    image::check(&name, &Value::String(String::new()), forbidden)?;
                    let gone = attributes.remove(&name);
                    gone.ok_or_else(|| Refused::new(409, format!("Property {name} does not exist.")))?;
                } else {
                    let value = operation.get("value").ok_or_else(wrong)?;
                    image::check(&name, value, forbidden)?;
                    attributes.insert(name, value.clone());
                }
            }
            attributes.insert("updated_at".into(), image::timestamp().into());
            image.attributes = attributes;
            Ok(Value::Object(image.attributes.clone()))
        })
    }

    /// Deletes an image, an upload under way or not.
    pub(super) fn delete(&self, id: &str) -> Result<(), Refused> {
        let mut images = lock(&self.images);
        let at = images.iter().position(|image| image.id() == id).ok_or_else(|| Refused::no_image(id))?;
        if images[at].attributes.get("protected") == Some(&Value::Bool(true)) {
            return Err(Refused::new(403, format!("Image {id} is protected and cannot be deleted.")));
        }
        images.remove(at);
        Ok(())
    }

    /// An image's data and its checksum; `None` while it has no data.
    pub(super) fn download(&self, id: &str) -> Result<Option<Download>, Refused> {
        self.with(id, |image| {
            if image.text("status") == "deactivated" {
                return Err(Refused::new(
                    403,
                    "The requested image has been deactivated. Image data download is forbidden.",
                ));
            }
            let checksum = image.attributes.get("checksum").and_then(Value::as_str).map(str::to_owned);
            Ok(image.data.clone().map(|data| (data, checksum)))
        })
    }

    /// An image's data, for proof.
    pub(super) fn data(&self, id: &str) -> Option<Arc<dyn ImageData>> {
        self.with(id, |image| Ok(image.data.clone())).ok().flatten()
    }

    /// Begins an upload: the image is `saving` until the returned guard is finished or dropped.
    pub(super) fn begin_upload(self: &Arc<Self>, id: &str) -> Result<Saving, Refused> {
        self.with(id, |image| {
            let status = image.text("status");
            if status != "queued" {
                let text = format!("Image status transition from {status} to saving is not allowed");
                return Err(Refused::new(409, text));
            }
            if image.text("disk_format").is_empty() || image.text("container_format").is_empty() {
                let text = "Properties disk_format, container_format must be set prior to saving data.";
                return Err(Refused::new(400, text));
            }
            let disk_format = image.text("disk_format").to_owned();
            image.attributes.insert("status".into(), "saving".into());
            Ok(Saving { store: Arc::clone(self), id: id.to_owned(), disk_format, finished: false })
        })
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Image) -> Result<T, Refused>) -> Result<T, Refused> {
        let mut images = lock(&self.images);
        let image = images.iter_mut().find(|image| image.id() == id);
        act(image.ok_or_else(|| Refused::no_image(id))?)
    }
}

/// An upload under way. Dropped unfinished, for whatever reason, the image is `queued` again.
pub(super) struct Saving {
    store: Arc<Store>,
    id: String,
    /// What the image says that the bytes are.
    pub(super) disk_format: String,
    finished: bool,
}

impl Saving {
    /// Makes the image active, with these attributes.
    pub(super) fn finish(mut self, attributes: Attributes, data: Arc<dyn ImageData>) -> Result<(), Refused> {
        self.finished = true;
        let saved = self.store.with(&self.id, |image| {
            image.attributes.extend(attributes);
            image.attributes.insert("status".into(), "active".into());
            image.attributes.insert("updated_at".into(), image::timestamp().into());
            image.data = Some(data);
            Ok(())
        });
        saved.map_err(|_| Refused::new(410, format!("Image {} could not be found after upload.", self.id)))
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.store.with(&self.id, |image| {
                image.attributes.insert("status".into(), "queued".into());
                Ok(())
            });
        }
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
