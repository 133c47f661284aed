//! What SIGKILL leaves without a state file, in the middle and in the last moments of a run; and a second signal, which
//! waits for nothing.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use snapcow::embedded::{Answer, Fault, Faults, Route};

use super::{Folder, bench, completes, convert, in_pass_2, is_uploading, kill, refuses, text, wait_until};

#[test]
fn a_kill_without_a_state_file_leaves_an_empty_image_that_the_next_run_names() {
    let (bench, folder) = (bench(), Folder::new());
    let words = ["glance:snapshot", "glance:compact"];
    let child = convert(&bench, folder.0.path(), &words).spawn().unwrap();
    wait_until("an upload", || is_uploading(&bench));
    kill(child);
    assert_eq!(folder.names(), ["spool"]);
    wait_until("a queued image", || bench.glance.images()[0]["status"] == "queued");
    let id = bench.glance.images()[0]["id"].as_str().unwrap().to_owned();
    let again = &mut convert(&bench, folder.0.path(), &words);
    refuses(again, 6, &[&format!("openstack image delete {id}")]);
}

#[test]
fn a_kill_in_the_last_moments_leaves_a_whole_image_that_the_next_run_names() {
    let (bench, folder) = (bench(), Folder::new());
    let words = ["glance:snapshot", "glance:compact"];
    let child = convert(&bench, folder.0.path(), &words).spawn().unwrap();
    wait_until("an upload", || is_uploading(&bench));
    // Glance takes it all, and is busy whenever the run asks what became of it.
    let busy = Fault::always(Answer::status(503));
    bench.glance.faults().update(|faults| faults.answers.push((Some(Route::Show), busy)));
    wait_until("a whole upload", || bench.records(Route::Upload).iter().any(|put| put.status == Some(204)));
    let output = kill(child);
    bench.glance.faults().set(Faults::default());
    assert!(output.stdout.is_empty() && folder.names() == ["spool"]);
    let id = bench.glance.images()[0]["id"].as_str().unwrap().to_owned();
    bench.prove(&id);
    let again = &mut convert(&bench, folder.0.path(), &words);
    refuses(again, 6, &["an image of that name", &id]);
}

#[test]
fn a_second_signal_ends_the_run_at_once_and_leaves_what_a_kill_leaves() {
    for with_state in [true, false] {
        let (bench, folder) = (bench(), Folder::new());
        let child = if with_state {
            in_pass_2(&bench, &folder)
        } else {
            let words = ["glance:snapshot", "glance:compact"];
            let child = convert(&bench, folder.0.path(), &words).spawn().unwrap();
            wait_until("an upload", || is_uploading(&bench));
            child
        };
        // The new image cannot be deleted for the next half a minute.
        let busy = Answer { retry_after: Some(30), ..Answer::status(503) };
        bench.glance.faults().update(|faults| {
            faults.answers.push((Some(Route::Delete), Fault::always(busy)));
        });
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        wait_until("a deletion", || !bench.records(Route::Delete).is_empty());
        let begin = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{}", text(&output));
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        bench.glance.faults().set(Faults::default());
        assert_eq!(folder.names(), if with_state { &["spool", "state"][..] } else { &["spool"] });
        assert_eq!(bench.glance.images().len(), 2, "the new image is still there");
        if with_state {
            completes(&bench, &folder);
        }
    }
}
