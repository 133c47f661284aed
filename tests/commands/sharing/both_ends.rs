//! What two projects do with an image, and what a second time of it does.

use reqwest::Method;
use serde_json::{Value, json};

use super::{as_a, as_b, lab_b, members, rest_b, stdout};
use crate::lab::rest::{Named, Rest};
use crate::lab::{lab, pattern};

#[test]
fn one_command_does_both_ends_and_a_second_time_changes_nothing() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "share-both");
    let id = rest.make(&image.name, &pattern(1000), json!({"protected": true}));
    let b = lab_b(&lab);

    let ran = as_a(&lab, &["share", &image.name, "--with", &b, "--accept-as", "lab-b"]).ok();
    assert!(stdout(&ran).contains(&format!("{b}  accepted")), "{ran:?}");
    assert!(ran.stderr.contains("was private; its visibility is `shared` now"), "{ran:?}");
    assert!(!ran.stderr.contains("note: whether"), "the login that accepts shows that there is one: {ran:?}");
    assert_eq!(rest.show(&id)["visibility"], "shared");
    assert_eq!(members(&rest, &id), [(b.clone(), "accepted".to_owned())]);
    let listed = rest_b(&lab).named(&image.name);
    assert_eq!(listed.len(), 1, "{listed:?}");

    let ran = as_a(&lab, &["share", &id, "--with", &b, "--accept-as", "lab-b"]).ok();
    assert!(ran.stderr.contains("is already shared with project"), "{ran:?}");
    assert!(ran.stderr.contains("it has accepted"), "{ran:?}");
    let ran = as_a(&lab, &["--quiet", "share", &id, "--accept-as", "lab-b"]).ok();
    assert_eq!(ran.stderr, "");

    let ran = as_a(&lab, &["unshare", &image.name, "--from", &b]).ok();
    assert!(ran.stderr.contains("is not shared any more with project"), "{ran:?}");
    assert_eq!(members(&rest, &id), []);
    let (gone, _) = rest_b(&lab).call(Method::GET, &format!("images/{id}"), "application/json", "");
    assert_eq!(gone, 404);
    let ran = as_a(&lab, &["unshare", &image.name, "--with", &b]).ok();
    assert!(ran.stderr.contains("was not shared with project"), "{ran:?}");
}

#[test]
fn a_member_is_pending_until_it_accepts_and_may_reject() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "share-pending");
    let id = rest.make(&image.name, &pattern(1000), json!({"visibility": "shared"}));
    let b = lab_b(&lab);
    let status = || members(&rest, &id).pop().unwrap().1;

    let ran = as_a(&lab, &["share", &image.name, "--with", &b]).ok();
    assert!(stdout(&ran).contains(&format!("{b}  pending")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("snapcow accept {id}")), "{ran:?}");
    assert!(ran.stderr.contains("note: whether there is a project"), "{ran:?}");
    assert_eq!(status(), "pending");

    // By its name, which no list shows yet.
    let ran = as_b(&lab, &["accept", &image.name]).ok();
    assert_eq!((ran.image_id(), status()), (id.clone(), "accepted".to_owned()), "{ran:?}");
    let again = as_b(&lab, &["accept", &format!("glance:{id}")]).ok();
    assert!(again.stderr.contains("already accepted"), "{again:?}");
    as_b(&lab, &["reject", &image.name]).ok();
    assert_eq!(status(), "rejected");
    assert_eq!(rest_b(&lab).named(&image.name).len(), 0);
    let told = as_a(&lab, &["share", &image.name, "--with", &b]).ok();
    assert!(told.stderr.contains("it has rejected the image"), "{told:?}");
    as_b(&lab, &["accept", &id]).ok();
    assert_eq!(status(), "accepted");
}

#[test]
fn members_are_shown_to_people_and_to_programs() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "share-members");
    let id = rest.make(&image.name, &pattern(1000), json!({}));
    let b = lab_b(&lab);
    let none = as_a(&lab, &["members", &image.name]).ok();
    assert_eq!(none.stdout, b"");
    assert!(none.stderr.contains("is private: it is shared with nobody"), "{none:?}");

    as_a(&lab, &["share", &image.name, "--with", &b]).ok();
    let shown = stdout(&as_a(&lab, &["members", &image.name]).ok());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(lines[0].starts_with("PROJECT") && lines[1].starts_with(&format!("{b}  pending")), "{shown}");

    let json: Value = serde_json::from_slice(&as_a(&lab, &["members", &id, "--json"]).ok().stdout).unwrap();
    assert_eq!((&json["schema"], &json["image_id"]), (&json!("snapcow/members/1"), &json!(id)));
    assert_eq!(json["visibility"], "shared");
    assert_eq!(json["members"][0]["project_id"], json!(b));
    assert_eq!(json["members"][0]["status"], "pending");
    assert!(json["members"][0]["created_at"].is_string(), "{json}");
    // The member itself sees that it is one.
    let own = stdout(&as_b(&lab, &["members", &id]).ok());
    assert!(own.contains(&b) && own.contains("lab-b"), "{own}");
}

/// Glance keeps the members of an image that was made private.
#[test]
fn members_of_before_are_named_and_a_share_that_fails_leaves_the_image_private() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "share-many");
    let id = rest.make(&image.name, &pattern(1000), json!({"visibility": "shared"}));
    // Glance's default for image_member_quota.
    for number in 0..128 {
        let body = json!({"member": format!("{number:032x}")}).to_string();
        let (status, answer) =
            rest.call(Method::POST, &format!("images/{id}/members"), "application/json", body);
        assert!(status == 200 || status == 409, "{answer}");
    }
    rest.patch(&id, json!([{"op": "replace", "path": "/visibility", "value": "private"}]));

    let ran =
        as_a(&lab, &["share", &image.name, "--with", &lab_b(&lab)]).refuses(3, &["413", "snapcow unshare"]);
    assert!(
        ran.stderr.contains("members since before") && ran.stderr.contains(" and 123 more"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("is private again"), "{}", ran.stderr);
    assert_eq!(rest.show(&id)["visibility"], "private");
}
