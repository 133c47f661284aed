//! An image's record: which attributes Glance knows, which it lets a client set, and to what.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::answer::Refused;

/// An image's attributes, as Glance shows them.
pub(super) type Attributes = Map<String, Value>;

/// Attributes that only the server sets.
const READ_ONLY: [&str; 13] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "os_hash_algo",
    "os_hash_value",
    "direct_url",
    "self",
    "file",
    "schema",
    "stores",
];

/// The record of a new image before anything of the request is in it.
pub(super) fn blank(id: &str, owner: &str) -> Attributes {
    let now = timestamp();
    let value = json!({
        "id": id, "name": null, "owner": owner, "status": "queued", "visibility": "shared",
        "disk_format": null, "container_format": null, "size": null, "virtual_size": null, "checksum": null,
        "os_hash_algo": null, "os_hash_value": null, "os_hidden": false, "protected": false,
        "min_disk": 0, "min_ram": 0, "tags": [], "created_at": now, "updated_at": now,
        "self": format!("/v2/images/{id}"), "file": format!("/v2/images/{id}/file"), "schema": "/v2/schemas/image",
    });
    match value {
        Value::Object(attributes) => attributes,
        _ => unreachable!("an object was written above"),
    }
}

/// Checks one attribute of a create or an update.
pub(super) fn check(name: &str, value: &Value, forbidden: &[String]) -> Result<(), Refused> {
    if READ_ONLY.contains(&name) {
        return Err(Refused::new(403, format!("Attribute '{name}' is read-only.")));
    }
    if name.starts_with("os_glance") || forbidden.iter().any(|property| property == name) {
        return Err(Refused::new(403, format!("Attribute '{name}' is reserved.")));
    }
    let one_of = |values: &[&str]| value.as_str().is_some_and(|value| values.contains(&value));
    let fits = match name {
        "id" => value.as_str().is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()),
        "name" => value.is_null() || value.as_str().is_some_and(|name| name.chars().count() <= 255),
        "owner" => value.is_null() || value.is_string(),
        "visibility" => one_of(&["public", "private", "shared", "community"]),
        "disk_format" => {
            value.is_null()
                || one_of(&[
                    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt",
                ])
        }
        "container_format" => {
            value.is_null() || one_of(&["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"])
        }
        "protected" | "os_hidden" => value.is_boolean(),
        "min_disk" | "min_ram" => value.as_u64().is_some_and(|number| number <= i32::MAX as u64),
        "tags" => value.as_array().is_some_and(|tags| {
            tags.iter().all(|tag| tag.as_str().is_some_and(|tag| tag.chars().count() <= 255))
        }),
        _ => value.is_string(),
    };
    if !fits {
        let text =
            format!("Provided object does not match schema 'image': {value} is not valid for '{name}'");
        return Err(Refused::new(400, text));
    }
    if name == "visibility" && value == "public" {
        return Err(Refused::new(403, "You are not authorized to complete publicize_image action."));
    }
    Ok(())
}

/// Now, as Glance writes it.
pub(super) fn timestamp() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The date of a day counted from 1970-01-01, by the usual arithmetic over eras of 400 years that
/// begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_648, (2026, 7, 14))] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn what_a_client_may_set() {
        let status =
            |name: &str, value: Value| check(name, &value, &["locked".into()]).map_err(|error| error.status);
        for (name, value) in [
            ("name", json!("in:a,b")),
            ("disk_format", json!("qcow2")),
            ("min_disk", json!(20)),
            ("tags", json!(["a"])),
            ("base_image_ref", json!("x")),
            ("visibility", json!("private")),
            ("id", json!("6a0f1c6e-2f4f-4a57-9c0c-6f5a3b1d2e3f")),
        ] {
            assert_eq!(status(name, value), Ok(()), "{name}");
        }
        for (name, value) in
            [("size", json!(1)), ("checksum", json!("")), ("locked", json!("x")), ("os_glance_x", json!(""))]
        {
            assert_eq!(status(name, value), Err(403), "{name}");
        }
        for (name, value) in
            [("x", Value::Null), ("x", json!(1)), ("id", json!("no")), ("disk_format", json!("gif"))]
        {
            assert_eq!(status(name, value), Err(400), "{name}");
        }
    }
}
