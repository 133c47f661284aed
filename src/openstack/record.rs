//! An image's record: takes the JSON that Glance shows, gives an [`Image`] and what follows from it
//! (may it be converted, which of its properties go along); holds what one answer held.
//!
//! The JSON comes from outside: a field of a wrong type is an error or is left out, never a panic.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What Glance says about an image. Sizes are bytes, `min_disk` GiB, `min_ram` MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The UUID.
    pub id: String,
    /// The name; names are not unique.
    pub name: Option<String>,
    /// `queued`, `saving`, `active`, `deactivated`, `killed`, `deleted`, `uploading`, `importing` or
    /// `pending_delete`.
    pub status: String,
    /// Length of the data; `None` before there is any.
    pub size: Option<u64>,
    /// Size of the disk inside, where Glance found it out.
    pub virtual_size: Option<u64>,
    /// `raw`, `qcow2`, …; `None` while Nova is still taking the snapshot.
    pub disk_format: Option<String>,
    /// `bare`, `compressed`, …
    pub container_format: Option<String>,
    /// MD5 of the data, in hexadecimal.
    pub checksum: Option<String>,
    /// `sha512` or whatever the operator chose.
    pub os_hash_algo: Option<String>,
    /// The hash by `os_hash_algo`, in hexadecimal.
    pub os_hash_value: Option<String>,
    /// Smallest root disk that boots it, in GiB.
    pub min_disk: u64,
    /// Smallest memory that boots it, in MiB.
    pub min_ram: u64,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// `private`, `shared`, `community`, `public`.
    pub visibility: Option<String>,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// Whether lists leave it out.
    pub os_hidden: bool,
    /// Its tags, in Glance's order.
    pub tags: Vec<String>,
    /// When the record was made, as Glance writes it.
    pub created_at: Option<String>,
    /// When the record was last changed.
    pub updated_at: Option<String>,
    /// Everything that is no attribute of Glance's own. What is no text is kept as JSON; nulls are left out.
    pub properties: BTreeMap<String, String>,
}

/// Glance's own attributes and links; the schema of API v2. What is not here is a property.
const ATTRIBUTES: [&str; 26] = [
    "id",
    "name",
    "status",
    "size",
    "virtual_size",
    "disk_format",
    "container_format",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "min_disk",
    "min_ram",
    "owner",
    "visibility",
    "protected",
    "os_hidden",
    "tags",
    "created_at",
    "updated_at",
    "deleted_at",
    "self",
    "file",
    "schema",
    "direct_url",
    "locations",
    "stores",
];

/// Properties that describe this image alone or that Glance refuses: hashes and signatures of other
/// bytes, keys whose life is tied to the source, what openstacksdk notes about its own uploads.
const NEVER_COPIED: [&str; 10] = [
    "os_hash_",
    "os_glance",
    "os_hidden",
    "img_signature",
    "cinder_encryption_",
    "owner_specified.openstack.",
    "os_encrypt_",
    "block_device_mapping",
    "bdm_v2",
    // Notes of our own about what is under way.
    "snapcow_",
];
const NEVER_COPIED_NAMES: [&str; 4] = ["location", "deleted", "deleted_at", "is_public"];

/// Lengths of Glance's columns; whatever is longer is not Glance's.
const LONGEST_ID: usize = 64;

impl Image {
    /// From the JSON of one image.
    ///
    /// # Errors
    /// What is missing or has a wrong type, in words.
    pub(super) fn from_json(json: Value) -> Result<Self, String> {
        let Value::Object(mut map) = json else { return Err("an image is not a JSON object".into()) };
        let id = text(&mut map, "id")?.ok_or("an image has no id")?;
        if !is_plain(&id) {
            return Err("an image has an id that is none".into());
        }
        let mut image = Self {
            id,
            name: text(&mut map, "name")?,
            status: text(&mut map, "status")?.ok_or("an image has no status")?,
            size: number(&mut map, "size")?,
            virtual_size: number(&mut map, "virtual_size")?,
            disk_format: text(&mut map, "disk_format")?,
            container_format: text(&mut map, "container_format")?,
            checksum: text(&mut map, "checksum")?,
            os_hash_algo: text(&mut map, "os_hash_algo")?,
            os_hash_value: text(&mut map, "os_hash_value")?,
            min_disk: number(&mut map, "min_disk")?.unwrap_or(0),
            min_ram: number(&mut map, "min_ram")?.unwrap_or(0),
            owner: text(&mut map, "owner")?,
            visibility: text(&mut map, "visibility")?,
            protected: flag(&mut map, "protected"),
            os_hidden: flag(&mut map, "os_hidden"),
            tags: Vec::new(),
            created_at: text(&mut map, "created_at")?,
            updated_at: text(&mut map, "updated_at")?,
            properties: BTreeMap::new(),
        };
        if let Some(Value::Array(tags)) = map.remove("tags") {
            image.tags = tags
                .into_iter()
                .filter_map(|tag| if let Value::String(tag) = tag { Some(tag) } else { None })
                .collect();
        }
        for (key, value) in map {
            let value = match value {
                _ if ATTRIBUTES.contains(&key.as_str()) => continue,
                Value::Null => continue,
                Value::String(text) => text,
                other => other.to_string(),
            };
            image.properties.insert(key, value);
        }
        Ok(image)
    }

    /// Name and ID, for messages.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("`{}` ({})", super::answer::one_line(name), self.id),
            None => format!("`{}`", self.id),
        }
    }
}

fn text(map: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("an image's `{key}` is no text")),
    }
}

/// A count; a negative one is an error, a float too.
fn number(map: &mut Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| format!("an image's `{key}` is no whole number"))
        }
    }
}

fn flag(map: &mut Map<String, Value>, key: &str) -> bool {
    map.remove(key).is_some_and(|value| value == Value::Bool(true))
}

/// Whether an ID is one: it becomes a part of an address.
pub(super) fn is_plain(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(plain)
}

/// Whether Glance itself gives the key its meaning.
pub(super) fn is_attribute(key: &str) -> bool {
    ATTRIBUTES.contains(&key)
}

/// The properties that a converted copy of the image takes over. Left out are Glance's own, signatures and
/// encryption keys; attributes (`visibility`, `protected`, `stores`, …) are no properties to begin with.
pub fn copyable_properties(image: &Image) -> BTreeMap<String, String> {
    let own = |key: &str| {
        NEVER_COPIED.iter().any(|prefix| key.starts_with(prefix))
            || NEVER_COPIED_NAMES.contains(&key)
            || ATTRIBUTES.contains(&key)
    };
    image
        .properties
        .iter()
        .filter(|(key, _)| !own(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Why an image cannot be the source of a conversion, and what to do about it; `None` if it can.
///
/// The conditions are those under which its bytes are not there, are no raw disk, or under which a
/// copy endangers the original: Glance and Cinder delete an encryption key with the first
/// image that names it.
pub fn why_not_convertible(image: &Image) -> Option<(String, String)> {
    let refused = |reason: String, advice: &str| Some((reason, advice.to_owned()));
    let property = |prefix: &str| image.properties.keys().find(|key| key.starts_with(prefix));
    if let Some(key) = property("cinder_encryption_key_id").or_else(|| property("os_encrypt_")) {
        let reason =
            format!("it is encrypted (`{key}`), and deleting a copy can destroy the key of the original");
        return refused(
            reason,
            "decrypt it first: boot it, copy the disk to an unencrypted volume, make an image of that",
        );
    }
    if let Some(mapping) = image.properties.get("block_device_mapping")
        && (mapping.trim() != "[]" || image.size.unwrap_or(0) == 0)
    {
        let advice = "make an image of the volume: openstack image create --volume VOLUME NAME";
        return refused(
            "it is the snapshot of a server that boots from a volume: its data is in Cinder".into(),
            advice,
        );
    }
    match image.status.as_str() {
        "active" => {}
        "deactivated" => return refused("it is deactivated".into(), "openstack image set --activate IMAGE"),
        "queued" | "saving" | "uploading" | "importing" => {
            let reason = format!("it is not complete yet: its status is `{}`", image.status);
            return refused(reason, "wait until `openstack image show` says active");
        }
        other => {
            return refused(
                format!("its status is `{}`", super::answer::one_line(other)),
                "take a new snapshot",
            );
        }
    }
    match image.container_format.as_deref() {
        None | Some("bare") => {}
        Some(other) => {
            let reason = format!("its container format is `{}`, not `bare`", super::answer::one_line(other));
            return refused(reason, "unpack it first and upload the disk as a raw image");
        }
    }
    match image.disk_format.as_deref() {
        Some("raw") => {}
        Some(other) => {
            let reason = format!("its disk format is `{}`, not `raw`", super::answer::one_line(other));
            return refused(reason, "there is nothing to gain, or download it and use `qemu-img convert`");
        }
        None => return refused("it has no disk format".into(), "wait until the snapshot is complete"),
    }
    if image.size.unwrap_or(0) == 0 {
        return refused("it has no data: its size is 0".into(), "take a new snapshot");
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(extra: Value) -> Image {
        let mut json = json!({"id": "a-1", "status": "active", "disk_format": "raw", "container_format": "bare", "size": 5});
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Image::from_json(json).unwrap()
    }

    #[test]
    fn what_is_no_attribute_is_a_property() {
        let found = image(
            json!({"hw_disk_bus": "scsi", "n": 3, "list": [1], "gone": null, "tags": ["a", 5, "b"], "self": "/v2", "stores": "fs"}),
        );
        assert_eq!(
            found.properties,
            BTreeMap::from(
                [("hw_disk_bus", "scsi"), ("n", "3"), ("list", "[1]")].map(|(k, v)| (k.into(), v.into()))
            )
        );
        assert_eq!(found.tags, ["a", "b"]);
    }

    #[test]
    fn hostile_json_is_an_error_not_a_panic() {
        for bad in [
            json!(null),
            json!([]),
            json!({}),
            json!({"id": 5, "status": "active"}),
            json!({"id": "../../x", "status": "active"}),
            json!({"id": "", "status": "active"}),
            json!({"id": "a".repeat(65), "status": "active"}),
            json!({"id": "a"}),
            json!({"id": "a", "status": {}}),
            json!({"id": "a", "status": "active", "size": -1}),
            json!({"id": "a", "status": "active", "size": 1.5}),
            json!({"id": "a", "status": "active", "size": "5"}),
            json!({"id": "a", "status": "active", "min_disk": 1e30}),
            json!({"id": "a", "status": "active", "name": []}),
        ] {
            assert!(Image::from_json(bad.clone()).is_err(), "{bad}");
        }
        assert!(
            Image::from_json(
                json!({"id": "a", "status": "x", "tags": {}, "protected": "yes", "size": u64::MAX})
            )
            .is_ok()
        );
    }

    #[test]
    fn properties_of_the_source_alone_stay_behind() {
        let source = image(json!({
            "os_hash_x": "1", "os_glance_import_task": "1", "img_signature_key_type": "RSA", "cinder_encryption_key_deletion_policy": "on",
            "owner_specified.openstack.md5": "x", "owner_specified.openstack.object": "images/x", "os_hidden": true, "protected": true,
            "visibility": "public", "stores": "a", "locations": [], "hw_qemu_guest_agent": "yes", "os_distro": "debian", "base_image_ref": "r"
        }));
        let copied: Vec<_> = copyable_properties(&source).into_keys().collect();
        assert_eq!(copied, ["base_image_ref", "hw_qemu_guest_agent", "os_distro"]);
    }

    #[test]
    fn images_that_cannot_be_converted_say_why() {
        assert_eq!(why_not_convertible(&image(json!({}))), None);
        assert_eq!(why_not_convertible(&image(json!({"block_device_mapping": "[]"}))), None);
        for (extra, word) in [
            (json!({"status": "deactivated"}), "deactivated"),
            (json!({"status": "saving"}), "not complete"),
            (json!({"status": "killed\u{1b}[2J"}), "killed"),
            (json!({"size": 0}), "size is 0"),
            (json!({"size": null}), "size is 0"),
            (json!({"disk_format": "qcow2"}), "qcow2"),
            (json!({"disk_format": null}), "no disk format"),
            (json!({"container_format": "compressed"}), "compressed"),
            (json!({"container_format": "docker"}), "docker"),
            (json!({"block_device_mapping": "[{\"x\": 1}]", "size": 0}), "Cinder"),
            (json!({"cinder_encryption_key_id": "k"}), "destroy the key"),
            (json!({"os_encrypt_key_id": "k"}), "destroy the key"),
        ] {
            let (reason, advice) =
                why_not_convertible(&image(extra.clone())).unwrap_or_else(|| panic!("{extra}"));
            assert!(reason.contains(word) && !reason.contains('\u{1b}') && !advice.is_empty(), "{reason}");
        }
    }
}
