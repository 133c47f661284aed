//! Changing a record: takes an image's ID and [`ImageChanges`], gives the image as it is then; holds
//! one record.
//!
//! One PATCH carries all changes, so either all of them are made or none (Image API v2, «Update image»; the
//! operations of `application/openstack-images-v2.1-json-patch`). `add` also replaces what is there; only `remove` is
//! refused (409) where there is nothing, so such keys are left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Cloud;
use super::answer::{Answer, kind_of, one_line};
use super::record::{Image, is_attribute};
use crate::error::{Error, Kind, Result};

/// Glance's media type for changes (API v2, RFC 6902 pointers).
const PATCH_TYPE: &str = "application/openstack-images-v2.1-json-patch";

/// What is to be another in an image's record; whatever is `None` or empty stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageChanges {
    /// Another name, up to 255 characters.
    pub name: Option<String>,
    /// `private`, `shared`, `community` or `public`; the last two are often forbidden by policy.
    pub visibility: Option<String>,
    /// Whether the image cannot be deleted.
    pub protected: Option<bool>,
    /// Whether lists leave it out.
    pub hidden: Option<bool>,
    /// Smallest root disk, in GiB.
    pub min_disk: Option<u64>,
    /// Smallest memory, in MiB.
    pub min_ram: Option<u64>,
    /// All tags, instead of those that there are.
    pub tags: Option<Vec<String>>,
    /// Properties that are added or replaced.
    pub set_properties: BTreeMap<String, String>,
    /// Properties that are removed; one that is not there is fine.
    pub remove_properties: Vec<String>,
}

impl ImageChanges {
    /// Only another name.
    pub fn name(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Only another visibility.
    pub fn visibility(visibility: impl Into<String>) -> Self {
        Self { visibility: Some(visibility.into()), ..Self::default() }
    }

    /// A key that is no property of the user's, but an attribute of Glance's own.
    fn misplaced(&self) -> Option<&str> {
        self.set_properties
            .keys()
            .chain(&self.remove_properties)
            .map(String::as_str)
            .find(|key| is_attribute(key))
    }

    /// The operations, without the removal of what `is_there` denies.
    fn operations(&self, is_there: impl Fn(&str) -> bool) -> Vec<Value> {
        let attributes = [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("visibility", self.visibility.as_ref().map(|visibility| json!(visibility))),
            ("protected", self.protected.map(Value::Bool)),
            ("os_hidden", self.hidden.map(Value::Bool)),
            ("min_disk", self.min_disk.map(|gib| json!(gib))),
            ("min_ram", self.min_ram.map(|mib| json!(mib))),
            ("tags", self.tags.as_ref().map(|tags| json!(tags))),
        ];
        let attributes =
            attributes.into_iter().filter_map(|(key, value)| Some(operation("replace", key, value?)));
        let added = self.set_properties.iter().map(|(key, value)| operation("add", key, json!(value)));
        let removed = self.remove_properties.iter().filter(|key| is_there(key));
        let removed = removed.map(|key| json!({"op": "remove", "path": pointer(key)}));
        attributes.chain(added).chain(removed).collect()
    }
}

impl Cloud {
    /// Changes an image's record, all or nothing, and gives the record as it is then. Nothing to change is no
    /// request but for the record.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a property with the name of an attribute; [`Kind::Login`] for what a policy forbids, or an
    /// image of another project; `Source` or `Target`, by the stage, if there is no such image, if its state
    /// forbids it (409), or a value is refused.
    pub async fn update_image(&self, id: &str, changes: &ImageChanges) -> Result<Image> {
        let what = format!("change image `{}` in `{}`", one_line(id), self.label());
        if let Some(key) = changes.misplaced() {
            let what = format!("{what}: `{}` is an attribute of Glance's, no property", one_line(key));
            return Err(Error::new(self.stage, Kind::Usage, what));
        }
        // A removal whose answer was lost is refused when it is repeated; then a second look shows that it is done.
        let mut once_more = true;
        loop {
            let Some(image) = self.peek(id, &what).await? else {
                return Err(Error::new(self.stage, kind_of(self.stage), format!("{what}: there is none"))
                    .advise("check the ID with `snapcow list`"));
            };
            let operations = changes.operations(|key| image.properties.contains_key(key));
            if operations.is_empty() {
                return Ok(image);
            }
            let answer = self.patch_image(id, &operations, &what).await?;
            match answer.status.as_u16() {
                200..300 => return self.image_of(answer, &what),
                409 if once_more && !changes.remove_properties.is_empty() => once_more = false,
                403 => return Err(self.explain_forbidden(&answer, &image, changes, &what)),
                _ => return Err(self.refuse(&answer, &what)),
            }
        }
    }

    /// Sets the smallest root disk of an image, in GiB, where it is smaller.
    ///
    /// # Errors
    /// What Glance refused.
    pub async fn raise_min_disk(&self, id: &str, gib: u64) -> Result<()> {
        let what = format!("set min_disk of image `{}` in `{}`", one_line(id), self.label());
        if self.peek(id, &what).await?.is_some_and(|image| image.min_disk >= gib) {
            return Ok(());
        }
        let answer = self.patch_image(id, &[operation("replace", "min_disk", json!(gib))], &what).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.refuse(&answer, &what)) }
    }

    /// Sends operations of a JSON patch, and gives whatever Glance says to them.
    pub(super) async fn patch_image(&self, id: &str, operations: &[Value], what: &str) -> Result<Answer> {
        let url = self.url(["images", id]);
        let body = json!(operations).to_string();
        self.ask(what, |client| {
            client.patch(url.clone()).header("Content-Type", PATCH_TYPE).body(body.clone())
        })
        .await
    }

    /// Glance's 403 says «You are not authorized» for everything; what was wanted tells more.
    fn explain_forbidden(&self, answer: &Answer, image: &Image, changes: &ImageChanges, what: &str) -> Error {
        let refused = self.refuse(answer, what);
        let foreign = match (&image.owner, self.project_id()) {
            (Some(owner), Some(own)) => owner != own,
            _ => false,
        };
        if foreign {
            let owner = one_line(image.owner.as_deref().unwrap_or_default());
            return refused
                .advise(format!("it belongs to project {owner}: ask there, or use a login of that project"));
        }
        match changes.visibility.as_deref() {
            Some(wide @ ("public" | "community")) => refused.advise(format!(
                "this cloud's policy may not let you make images {wide}: share it with single projects by `snapcow share`"
            )),
            _ => refused,
        }
    }
}

/// One operation of a JSON patch on an attribute or property.
pub(super) fn operation(op: &str, key: &str, value: Value) -> Value {
    json!({"op": op, "path": pointer(key), "value": value})
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_as_json_pointers() {
        assert_eq!(operation("add", "a/b~c", json!("v"))["path"], "/a~1b~0c");
    }

    #[test]
    fn what_is_not_asked_for_is_not_sent() {
        assert!(ImageChanges::default().operations(|_| true).is_empty());
        let changes = ImageChanges {
            protected: Some(false),
            set_properties: BTreeMap::from([("os_distro".into(), "debian".into())]),
            remove_properties: vec!["gone".into(), "there".into()],
            ..ImageChanges::name("n")
        };
        assert_eq!(
            json!(changes.operations(|key| key == "there")),
            json!([
                {"op": "replace", "path": "/name", "value": "n"},
                {"op": "replace", "path": "/protected", "value": false},
                {"op": "add", "path": "/os_distro", "value": "debian"},
                {"op": "remove", "path": "/there"},
            ])
        );
    }

    #[test]
    fn an_attribute_is_no_property() {
        let set = BTreeMap::from([("visibility".to_owned(), "public".to_owned())]);
        assert_eq!(
            ImageChanges { set_properties: set, ..ImageChanges::default() }.misplaced(),
            Some("visibility")
        );
        assert_eq!(ImageChanges::visibility("public").misplaced(), None);
    }
}
