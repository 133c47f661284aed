//! What goes wrong on the way: a clear sentence, the server as it was, nothing half-made.

use serde_json::json;

use super::stand_in::Nova;
use crate::lab::command::run;
use crate::lab::lab;

#[test]
fn a_snapshot_that_comes_to_nothing_leaves_nothing() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for (fault, sentence) in [
        ("killed", &["ended as `killed`", "openstack server event list"][..]),
        ("deleted", &["ended as `deleted`"]),
        ("queued", &["stays `queued`", "let go"]),
    ] {
        let server = nova.server("nothing", json!({"faults": {"image": fault}}));
        let ran = run(&mut server.snapshot(&["--stop"])).refuses(3, sentence);
        assert!(ran.stderr.contains("the server runs"), "{}", ran.stderr);
        server.has_no_image();
        server.runs();
    }
}

#[test]
fn a_snapshot_that_never_ends_is_given_up() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("endless", json!({"hold": "upload"}));
    let running = crate::lab::command::start(&mut server.snapshot(&["--stop", "--timeout", "15s"]));
    // Nova notices that its image is gone some time after that.
    while !server.images().is_empty() || server.asked("image ") == 0 {
        assert!(!running.has_ended());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.change(json!({"hold": null}));
    let ran = running.finish().refuses(3, &["is `saving`", "`image_uploading` after 15 s", "--timeout"]);
    assert!(ran.stderr.contains("half-made raw image"), "{}", ran.stderr);
    server.has_no_image();
    server.runs();
}

/// The image is whole, but Nova does not let go of the server: the image stays for the next run, which ends right.
#[test]
fn a_task_that_never_ends_keeps_the_whole_image() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("task", json!({"faults": {"task": "never"}}));
    // The image has to become whole meanwhile, on a machine that does other things too.
    let words = ["--stop", "--timeout", "20s", "--stop-timeout", "10s"];
    let ran = run(&mut server.snapshot(&words)).refuses(3, &["is `active`", "image_uploading"]);
    assert!(ran.stderr.contains("is whole and kept"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("openstack server start {}", server.id)), "{}", ran.stderr);
    assert_eq!(server.images().len(), 1);
    // The operator sets the state right.
    server.change(json!({"task_state": null, "faults": {}}));
    let ran = run(&mut server.snapshot(&["--stop"])).ok();
    assert!(ran.stderr.contains("this goes on with raw snapshot"), "{}", ran.stderr);
    server.has_one_compact_image(&ran.image_id());
    server.runs();
}

#[test]
fn a_server_that_does_not_stop_is_left_as_it_is() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("locked", json!({"faults": {"stop": "refuse"}}));
    run(&mut server.snapshot(&["--stop"])).refuses(3, &["os-stop", "is locked", "openstack server show"]);
    server.runs();
    server.has_no_image();
    let server = nova.server("endless-stop", json!({"faults": {"stop": "never"}}));
    let ran = run(&mut server.snapshot(&["--stop", "--stop-timeout", "2s"]));
    let ran = ran.refuses(3, &["still ACTIVE (powering-off)", "--stop-timeout"]);
    assert!(
        ran.stderr.contains("WARNING") && ran.stderr.contains("openstack server start"),
        "{}",
        ran.stderr
    );
    server.has_no_image();
    let server = nova.server("error", json!({"faults": {"stop": "error"}}));
    let ran = run(&mut server.snapshot(&["--stop"])).refuses(3, &["was to become SHUTOFF, and is ERROR"]);
    assert!(ran.stderr.contains("WARNING"), "{}", ran.stderr);
    server.has_no_image();
}

#[test]
fn a_server_that_does_not_start_is_said_and_the_next_run_goes_on() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for (fault, sentence) in [("refuse", "is locked"), ("never", "still SHUTOFF (powering-on)")] {
        let server = nova.server("no-start", json!({"faults": {"start": fault}}));
        let words = ["--stop", "--stop-timeout", "10s"];
        let ran = run(&mut server.snapshot(&words)).refuses(3, &[sentence]);
        assert!(ran.stderr.contains(&format!("openstack server start {}", server.id)), "{}", ran.stderr);
        assert!(ran.stderr.contains("is whole and kept"), "{}", ran.stderr);
        if fault == "never" {
            server.change(json!({"status": "ACTIVE", "task_state": null}));
        }
        server.change(json!({"faults": {}}));
        let ran = run(&mut server.snapshot(&["--stop"])).ok();
        server.has_one_compact_image(&ran.image_id());
        server.runs();
    }
}

#[test]
fn nova_refuses_the_snapshot() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for (status, code, sentence) in [
        (403, 4, &["Quota exceeded", "make room in the quota"][..]),
        (413, 3, &["Quota exceeded", "make room in the quota"]),
        (409, 3, &["409", "openstack server show"]),
        (503, 5, &["503"]),
    ] {
        let server = nova.server("refused", json!({"faults": {"create": status}}));
        run(&mut server.snapshot(&["--stop", "--retries", "1"])).refuses(code, sentence);
        server.runs();
        server.has_no_image();
    }
}

/// A Nova that names somebody's image as the snapshot must not bring that image into danger.
#[test]
fn an_image_that_was_not_ordered_is_not_touched() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let mine = nova.rest.make("snapcow-test-not-ordered", b"precious", json!({}));
    let server = nova.server("not-ordered", json!({"faults": {"answer": mine}}));
    run(&mut server.snapshot(&["--stop"])).refuses(3, &[&mine, "does not bear the notes"]);
    let left = nova.rest.show(&mine);
    assert_eq!((&left["status"], &left["name"]), (&json!("active"), &json!("snapcow-test-not-ordered")));
    nova.rest.delete(&mine);
    server.wait_until("ACTIVE");
}

#[test]
fn a_server_that_vanishes_is_said() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for stage in ["image_snapshot", "upload"] {
        let server = nova.server("vanishes", json!({"faults": {"vanish": stage}}));
        run(&mut server.snapshot(&["--stop"])).refuses(3, &["is gone"]);
        server.has_no_image();
    }
}

/// Where notes on servers are forbidden all goes well, with a word of warning.
#[test]
fn a_server_without_notes_will_do() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("no-notes", json!({"faults": {"metadata": 403}}));
    let ran = run(&mut server.snapshot(&["--stop"])).ok();
    assert!(ran.stderr.contains("WARNING") && ran.stderr.contains("Policy"), "{}", ran.stderr);
    server.has_one_compact_image(&ran.image_id());
    server.runs();
}
