//! The same command twice at once: a second terminal, or a timer that goes off too early.

use std::time::Duration;

use serde_json::json;

use super::stand_in::each;
use crate::lab::command::{run, start};

#[test]
fn two_at_once_make_one_image_and_name_what_else_is_left() {
    each(&["stopping", "image_snapshot", "upload", "starting"], |nova, stage| {
        let server = nova.server("together", json!({"hold": stage}));
        let first = start(&mut server.snapshot(&["--stop"]));
        server.wait_at(stage, || !first.has_ended());
        let second = start(&mut server.snapshot(&["--stop"]));
        std::thread::sleep(Duration::from_secs(2));
        server.change(json!({"hold": null}));
        let ended = [first.finish(), second.finish()];
        let mut made = Vec::new();
        let mut refused = String::new();
        for ran in ended {
            match ran.code {
                0 => made.push(ran.image_id()),
                // Proven, but somebody changed the raw image meanwhile: it stays.
                13 => {
                    made.push(ran.image_id());
                    refused += &ran.stderr;
                }
                // It found the server, or the name, in the other one's hands.
                code => {
                    assert!([3, 6].contains(&code), "{}", ran.stderr);
                    refused += &ran.refuses(code, &[]).stderr;
                }
            }
        }
        // Both may give way to each other.
        if made.is_empty() {
            made.push(run(&mut server.snapshot(&["--stop"])).ok().image_id());
        }
        let [made] = &made[..] else { panic!("two images of one name: {made:?}") };
        for image in server.images() {
            let id = image["id"].as_str().unwrap();
            if id == made {
                server.is_compact(&image, id);
            } else {
                // Both may have been in time for a snapshot.
                assert!(refused.contains(id), "{image}: {refused}");
            }
        }
        server.runs();
    });
}
