//! A signal in each step, then the same command: it ends right.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::stand_in::{Nova, Server, each};
use crate::lab::command::{Running, run, start};
use crate::lab::lab;
use crate::lab::proxy::{Hold, Proxy};

/// The stages of Nova, in order.
const STAGES: [&str; 6] =
    ["stopping", "image_snapshot_pending", "image_snapshot", "image_uploading", "upload", "starting"];

fn signalled_at(server: &Server<'_>, stage: &str, signal: Signal) -> Running {
    let running = start(&mut server.snapshot(&["--stop"]));
    server.wait_at(stage, || !running.has_ended());
    // The command has seen where it is.
    std::thread::sleep(Duration::from_millis(700));
    running.signal(signal);
    running
}

#[test]
fn an_interrupt_in_any_step_leaves_the_server_as_it_was_and_nothing_half_made() {
    each(&STAGES, |nova, stage| {
        let server = nova.server("interrupted", json!({"hold": stage}));
        let running = signalled_at(&server, stage, Signal::INT);
        std::thread::sleep(Duration::from_millis(300));
        server.change(json!({"hold": null}));
        let ran = running.finish().refuses(130, &["interrupted"]);
        server.runs();
        assert!(ran.stdout.is_empty());
        // Only in the last step is there an image that is whole, and that is said.
        if stage == "starting" {
            assert_eq!(server.images().len(), 1);
            assert!(ran.stderr.contains("is whole and kept"), "{}", ran.stderr);
        } else {
            server.has_no_image();
        }
        let ran = run(&mut server.snapshot(&["--stop"])).ok();
        server.has_one_compact_image(&ran.image_id());
        server.runs();
    });
}

#[test]
fn after_a_kill_in_any_step_the_same_command_ends_right() {
    each(&STAGES, |nova, stage| {
        let server = nova.server("killed", json!({"hold": stage}));
        let running = signalled_at(&server, stage, Signal::KILL);
        running.finish();
        server.change(json!({"hold": null}));
        let ran = run(&mut server.snapshot(&["--stop"])).ok();
        server.has_one_compact_image(&ran.image_id());
        server.runs();
        // Nova's work was not ordered twice.
        assert_eq!(server.asked("createImage"), 1, "{stage}: {:?}", server.events());
    });
}

/// The next run comes only when Nova has ended everything that was under way.
#[test]
fn after_a_kill_and_a_long_pause_the_same_command_ends_right() {
    each(
        &[("stopping", "SHUTOFF"), ("upload", "SHUTOFF"), ("starting", "ACTIVE")],
        |nova, (stage, status)| {
            let server = nova.server("killed-long", json!({"hold": stage}));
            let running = signalled_at(&server, stage, Signal::KILL);
            running.finish();
            server.change(json!({"hold": null}));
            server.wait_until(status);
            // Without --stop, and on another day without a name: the notes know both.
            let mut words = vec!["snapshot", server.id.as_str()];
            words.extend((stage == "stopping").then_some(server.image.as_str()));
            let ran = run(&mut crate::lab::command::snapcow_in(nova.lab, super::stand_in::CLOUD, words)).ok();
            server.has_one_compact_image(&ran.image_id());
            server.runs();
        },
    );
}

/// A record of ours that Nova's own death left half-made is no snapshot under way.
#[test]
fn what_nova_left_half_made_is_cleared_away() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("dead-nova", json!({"status": "SHUTOFF"}));
    let dead = nova.rest.create(json!({
        "name": format!("{}-raw", server.image), "visibility": "private", "instance_uuid": server.id,
        "snapcow_snapshot_of": server.id, "snapcow_target": server.image,
    }));
    let ran = run(&mut server.snapshot(&[])).ok();
    assert!(ran.stderr.contains(&dead) && ran.stderr.contains("half-made"), "{}", ran.stderr);
    server.has_one_compact_image(&ran.image_id());
}

/// A run that was killed behind the deletion of the raw image, or behind the decision to keep it, has only its notes
/// to take off.
#[test]
fn what_is_finished_but_for_its_notes_is_finished() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for keep in [false, true] {
        let server = nova.server("notes", json!({"status": "SHUTOFF"}));
        let words: &[&str] = if keep { &["--keep-raw"] } else { &[] };
        let id = run(&mut server.snapshot(words)).ok().image_id();
        let raw =
            server.events().into_iter().find_map(|event| Some(event.strip_prefix("image ")?.to_owned()));
        let add = |key: &str, value: &str| json!({"op": "add", "path": format!("/{key}"), "value": value});
        let notes = json!([add("snapcow_unfinished", &raw.unwrap()), add("snapcow_snapshot_of", &server.id)]);
        nova.rest.patch(&id, notes);
        server.change(json!({"metadata": {"snapcow_stopped": server.image}}));
        let ran = run(&mut server.snapshot(words)).ok();
        assert_eq!(ran.image_id(), id);
        assert_eq!(server.asked("createImage"), 1);
        assert_eq!(server.images().len(), if keep { 2 } else { 1 });
        let image = server.images().into_iter().find(|image| image["id"] == id.as_str()).unwrap();
        server.is_compact(&image, &id);
        server.runs();
    }
}

/// The command with its way to Glance through a door.
fn behind(proxy: &Proxy, server: &Server<'_>, folder: &std::path::Path) -> Command {
    let mut command = server.snapshot(&["--stop"]);
    let file = proxy.clouds_yaml(&lab().unwrap(), folder);
    command.env("OS_CLIENT_CONFIG_FILE", file).env("OS_CLOUD", "held");
    command
}

#[test]
fn a_signal_while_it_converts_keeps_the_raw_image_for_the_same_command() {
    let cases = [
        (Hold::Download(4 << 20), Signal::INT),
        (Hold::Upload(2 << 20), Signal::INT),
        (Hold::Download(4 << 20), Signal::KILL),
        (Hold::Upload(2 << 20), Signal::KILL),
        (Hold::UploadAnswer, Signal::KILL),
    ];
    each(&cases, |nova, (hold, signal)| {
        let server = nova.server("converting", json!({}));
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(nova.lab, "noranges", hold);
        let running = start(&mut behind(&proxy, &server, folder.path()));
        proxy.wait_until_held(|| !running.has_ended());
        running.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        proxy.cut();
        let ran = running.finish();
        server.runs();
        let raw = server.images().into_iter().find(|image| image["disk_format"] == "raw").unwrap();
        assert_eq!(raw["status"], "active");
        if signal == Signal::INT {
            let ran = ran.refuses(130, &["interrupted"]);
            assert!(ran.stderr.contains(raw["id"].as_str().unwrap()), "{}", ran.stderr);
            assert_eq!(server.images().len(), 1, "{hold:?}");
        }
        let ran = run(&mut server.snapshot(&["--stop"])).ok();
        server.has_one_compact_image(&ran.image_id());
        assert_eq!(server.asked("createImage"), 1);
        assert_eq!(server.asked("os-stop"), 1);
        server.runs();
    });
}
