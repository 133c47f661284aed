//! Against the real Glance: what is taken over, who is told, what is refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::command::{run, snapcow_in};
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab};

fn small() -> Vec<u8> {
    let mut bytes = b"not all the same ".repeat(100_000);
    bytes.resize(3 << 20, 0);
    bytes
}

fn members(rest: &Rest, id: &str) -> Vec<Value> {
    let (status, mut list) = rest.call(Method::GET, &format!("images/{id}/members"), "application/json", "");
    assert_eq!(status, 200, "{list}");
    serde_json::from_value(list["members"].take()).unwrap()
}

fn shared_with(rest: &Rest, lab: &Lab, id: &str) -> String {
    let project = lab.text("/projects/lab-b");
    let body = json!({"member": project}).to_string();
    let (status, answer) = rest.call(Method::POST, &format!("images/{id}/members"), "application/json", body);
    assert!(status == 200 || status == 409, "{answer}");
    project
}

#[test]
fn everything_is_taken_over_and_members_are_shared_with_again_if_wanted() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    for again in [true, false] {
        let image = Named::new(&rest, "replace");
        let more = json!({"visibility": "shared", "os_distro": "debian", "min_ram": 96, "min_disk": 7, "tags": ["t"]});
        let old = rest.make(&image.name, &small(), more);
        let project = shared_with(&rest, &lab, &old);
        let mut words = vec!["replace", &image.name, "--yes"];
        words.extend(again.then_some("--share-again"));
        let ran = run(&mut snapcow_in(&lab, "lab-noranges", words)).ok();
        let (new, said) = (ran.image_id(), ran.stderr);
        let images = image.images();
        assert_eq!((images.len(), images[0]["id"].as_str()), (1, Some(new.as_str())), "{images:?}");
        for (key, value) in [
            ("disk_format", json!("qcow2")),
            ("visibility", json!("shared")),
            ("os_distro", json!("debian")),
            ("min_ram", json!(96)),
            ("min_disk", json!(7)),
            ("tags", json!(["t"])),
            ("protected", json!(false)),
            ("snapcow_replaces", json!(null)),
        ] {
            assert_eq!(images[0][key], value, "{key}");
        }
        assert!(said.contains(&project) && said.contains(&old), "{said}");
        let members = members(&rest, &new);
        if again {
            assert_eq!(
                (&members[0]["member_id"], &members[0]["status"]),
                (&json!(project), &json!("pending"))
            );
        } else {
            assert!(members.is_empty() && said.contains("--share-again"), "{members:?} {said}");
        }
    }
}

#[test]
fn what_cannot_be_replaced_is_refused_before_anything_is_made() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "kept");
    let id = rest.make(&image.name, &small(), json!({"visibility": "community"}));
    let refuses = |cloud: &str, words: &str, said: &[&str]| {
        run(&mut snapcow_in(&lab, cloud, ["replace", words, "--yes"])).refuses(3, said);
        assert_eq!(rest.named(&image.name).iter().filter(|one| one["id"] == id.as_str()).count(), 1);
    };
    refuses("lab-b", &id, &["another project"]);
    rest.patch(&id, json!([{"op": "replace", "path": "/protected", "value": true}]));
    refuses("lab-noranges", &image.name, &["protected"]);
    rest.patch(&id, json!([{"op": "replace", "path": "/protected", "value": false}]));
    let child = Named::new(&rest, "child");
    let child_id = rest.make(&child.name, b"x", json!({"base_image_ref": id}));
    refuses("lab-noranges", &image.name, &["base", &child_id]);
    rest.delete(&child_id);
    let twin = rest.make(&image.name, &small(), json!({}));
    refuses("lab-noranges", &image.name, &["2 images", &id, &twin]);
    rest.delete(&twin);
    let empty = Named::new(&rest, "empty");
    let queued = rest.create(json!({"name": empty.name, "disk_format": "raw", "container_format": "bare"}));
    refuses("lab-noranges", &queued, &["not complete"]);
    let none = Named::new(&rest, "none");
    refuses("lab-noranges", &none.name, &["no image"]);
}
