//! What is refused before anything is changed.

use serde_json::{Value, json};

use super::stand_in::{CLOUD, Nova};
use crate::lab::command::{run, snapcow, snapcow_in};
use crate::lab::lab;

#[test]
fn servers_in_a_state_that_forbids_it_say_what_to_do() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for (fields, words, sentence) in [
        (json!({"volume_backed": true}), &[][..], &["boots from a volume", "create --volume 5f0f4f4e"][..]),
        (json!({"status": "BUILD"}), &[], &["BUILD", "ACTIVE, SHUTOFF, PAUSED and SUSPENDED"]),
        (json!({"status": "ERROR"}), &[], &["ERROR", "openstack server show"]),
        (json!({"status": "SHELVED_OFFLOADED"}), &[], &["shelved", "unshelve"]),
        (json!({"task_state": "image_uploading"}), &[], &["is busy", "image_uploading"]),
        (json!({"task_state": "powering-off"}), &["--stop"], &["is busy", "powering-off"]),
        (json!({"status": "PAUSED"}), &["--stop"], &["PAUSED", "leave --stop out"]),
    ] {
        let server = nova.server("state", fields);
        run(&mut server.snapshot(words)).refuses(3, sentence);
        assert!(server.events().is_empty());
        server.has_no_image();
    }
}

#[test]
fn a_server_is_named_exactly_or_not_at_all() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let one = nova.server("twins", json!({}));
    let other = nova.named_server(&one.name, json!({}));
    let ran = run(&mut snapcow_in(&lab, CLOUD, ["snapshot", &one.name, "x"]));
    ran.refuses(3, &["names 2 servers", &one.id, &other.id, "give the ID"]);
    for name in [
        one.name.to_uppercase().as_str(),
        "snapcow-test-twins-.*",
        "00000000-0000-4000-8000-000000000000",
        "[",
    ] {
        run(&mut snapcow_in(&lab, CLOUD, ["snapshot", name, "x"]))
            .refuses(3, &["no server", "openstack server list"]);
    }
    // Another project's server is nobody's.
    run(&mut snapcow_in(&lab, "lab-b", ["snapshot", &one.id, "x"])).refuses(3, &["no server"]);
    assert!(one.events().is_empty() && other.events().is_empty());
}

#[test]
fn names_options_and_clouds_are_looked_at_first() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("options", json!({}));
    let taken = nova.rest.make(&server.image, b"x", json!({"instance_uuid": server.id}));
    run(&mut server.snapshot(&["--stop"])).refuses(6, &["an image of that name already", &taken]);
    for (words, sentence) in [
        (["snapshot", &server.id, " x", "--stop"], "white space"),
        (["snapshot", &server.id, "", "--stop"], "is empty"),
        (["snapshot", &server.id, &"x".repeat(251), "--stop"], "longer than 250"),
        (["snapshot", &server.id, "x", "--verify-source=off"], "--keep-raw"),
        (["snapshot", &server.id, "x", "--verify-encode=off"], "--keep-raw"),
    ] {
        run(&mut snapcow_in(&lab, CLOUD, words)).refuses(2, &[sentence]);
    }
    // A cloud without Nova says so, and is as good for images as before.
    run(&mut snapcow_in(&lab, "lab-tls", ["snapshot", &server.id, "x"]))
        .refuses(4, &["compute endpoint", "RegionTls"]);
    let mut elsewhere = server.snapshot(&["--retries", "0"]);
    elsewhere.env("OS_COMPUTE_ENDPOINT_OVERRIDE", "http://127.0.0.1:1/v2.1");
    run(&mut elsewhere).refuses(5, &["versions of Nova", "127.0.0.1:1"]);
    let mut file = server.snapshot(&[]);
    run(file.env("OS_COMPUTE_ENDPOINT_OVERRIDE", "file:///etc")).refuses(4, &["no http address"]);
    let mut glance = server.snapshot(&[]);
    glance.env("OS_COMPUTE_ENDPOINT_OVERRIDE", lab.text("/variants/noranges/url"));
    run(&mut glance).exits(3);
    run(&mut snapcow(["snapshot", "x"])).exits(4);
    assert!(server.events().is_empty());
    assert_eq!(server.state()["metadata"], Value::from(serde_json::Map::new()));
}
