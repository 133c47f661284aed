//! A server as Nova shows it: takes its JSON, gives a [`Server`]; holds what one answer held.
//!
//! The JSON comes from outside: a field of a wrong type is an error or is left out, never a panic.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::openstack::answer::one_line;

/// Nova's IDs are UUIDs; whatever is longer is not Nova's.
const LONGEST_ID: usize = 64;
/// Metadata of a server: Nova's own limit is 128 items.
const MOST_ITEMS: usize = 1024;

/// What Nova says about a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The UUID.
    pub id: String,
    /// The name; names are not unique.
    pub name: String,
    /// `ACTIVE`, `SHUTOFF`, `PAUSED`, `SUSPENDED`, `ERROR`, `BUILD`, `RESCUE`, `SHELVED_OFFLOADED`, …
    pub status: String,
    /// What Nova is doing with it: `powering-off`, `image_uploading`, …; `None` when it is left alone.
    pub task_state: Option<String>,
    /// `active`, `stopped`, …
    pub vm_state: Option<String>,
    /// As the hypervisor counts: 1 runs, 3 is paused, 4 is off.
    pub power_state: Option<u64>,
    /// Whether its root disk is a volume of Cinder's: Nova shows no image then.
    pub is_volume_backed: bool,
    /// The IDs of the volumes that are attached to it.
    pub volumes: Vec<String>,
    /// Notes that users have put on it.
    pub metadata: BTreeMap<String, String>,
}

impl Server {
    pub(super) fn from_json(json: Value) -> Result<Self, String> {
        let Value::Object(map) = json else { return Err("a server is not a JSON object".into()) };
        let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text("id").ok_or("a server has no id")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > LONGEST_ID || !id.chars().all(plain) {
            return Err("a server has an id that is none".into());
        }
        let attached = map.get("os-extended-volumes:volumes_attached").and_then(Value::as_array);
        let noted = map.get("metadata").and_then(Value::as_object);
        Ok(Self {
            id,
            name: text("name").unwrap_or_default(),
            status: text("status").map(|text| one_line(&text)).ok_or("a server has no status")?,
            task_state: text("OS-EXT-STS:task_state").map(|text| one_line(&text)),
            vm_state: text("OS-EXT-STS:vm_state").map(|text| one_line(&text)),
            power_state: map.get("OS-EXT-STS:power_state").and_then(Value::as_u64),
            is_volume_backed: map.get("image").and_then(Value::as_str) == Some(""),
            volumes: attached
                .into_iter()
                .flatten()
                .filter_map(|volume| volume.get("id").and_then(Value::as_str))
                .map(one_line)
                .take(MOST_ITEMS)
                .collect(),
            metadata: noted
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .take(MOST_ITEMS)
                .collect(),
        })
    }

    /// Name and ID, for messages.
    pub fn label(&self) -> String {
        format!("`{}` ({})", one_line(&self.name), self.id)
    }

    /// Status and task, for messages.
    pub fn state(&self) -> String {
        match &self.task_state {
            Some(task) => format!("{} ({task})", self.status),
            None => self.status.clone(),
        }
    }

    /// Whether a snapshot of it is being taken.
    pub fn is_in_snapshot(&self) -> bool {
        self.task_state.as_deref().is_some_and(|task| task.starts_with("image_"))
    }

    /// Why no image of it can be made now, and what to do about it; `None` if it can. The states are those of
    /// `createImage` in the Compute API.
    pub fn why_no_snapshot(&self) -> Option<(String, String)> {
        if self.is_volume_backed {
            let volume = self.volumes.first().map_or("VOLUME", String::as_str);
            return Some((
                "it boots from a volume: its disk is in Cinder, and a snapshot of it would be an image without data"
                    .into(),
                format!(
                    "make an image of the volume instead: openstack image create --volume {volume} --force NAME, \
                     then snapcow convert glance:NAME"
                ),
            ));
        }
        match self.status.as_str() {
            "ACTIVE" | "SHUTOFF" | "PAUSED" | "SUSPENDED" => None,
            "ERROR" => Some((
                "its status is ERROR".into(),
                format!(
                    "see why with: openstack server show {}; once it runs or is off, run this again",
                    self.id
                ),
            )),
            "SHELVED" | "SHELVED_OFFLOADED" => Some((
                "it is shelved".into(),
                format!(
                    "its disk is in Glance already, as `{}-shelved`: convert that, or openstack server unshelve {}",
                    one_line(&self.name),
                    self.id
                ),
            )),
            other => Some((
                format!(
                    "its status is {other}; Nova makes images of ACTIVE, SHUTOFF, PAUSED and SUSPENDED servers"
                ),
                "wait, or bring it into one of these".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hostile_json_is_an_error_not_a_panic() {
        for bad in [
            json!(null),
            json!([]),
            json!({"name": "x", "status": "ACTIVE"}),
            json!({"id": "../x", "status": "ACTIVE"}),
            json!({"id": "a".repeat(65), "status": "ACTIVE"}),
            json!({"id": "a", "status": 5}),
        ] {
            assert!(Server::from_json(bad.clone()).is_err(), "{bad}");
        }
        let odd = json!({"id": "a", "status": "ACTIVE\u{1b}[2J", "name": [], "image": 7, "metadata": [1],
            "OS-EXT-STS:task_state": {}, "OS-EXT-STS:power_state": -1, "os-extended-volumes:volumes_attached": {}});
        let server = Server::from_json(odd).unwrap();
        assert_eq!(
            (server.status.as_str(), server.task_state, server.power_state),
            ("ACTIVE[2J", None, None)
        );
    }

    #[test]
    fn states_that_forbid_a_snapshot_say_what_to_do() {
        let server = |status: &str, image: Value| {
            Server::from_json(json!({"id": "a", "name": "n", "status": status, "image": image,
                "os-extended-volumes:volumes_attached": [{"id": "v-1"}]}))
            .unwrap()
        };
        for status in ["ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"] {
            assert_eq!(server(status, json!({"id": "i"})).why_no_snapshot(), None);
        }
        for status in ["ERROR", "BUILD", "SHELVED_OFFLOADED", "RESCUE", ""] {
            assert!(server(status, json!({"id": "i"})).why_no_snapshot().is_some(), "{status}");
        }
        let (why, advice) = server("ACTIVE", json!("")).why_no_snapshot().unwrap();
        assert!(why.contains("Cinder") && advice.contains("--volume v-1"), "{why}; {advice}");
    }
}
