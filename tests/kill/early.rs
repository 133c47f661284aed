//! Runs that end before they have anything to keep.

use snapcow::embedded::{Answer, Fault, Faults, Refusal, Route};

use super::{Folder, bench, convert, refuses, usual};

#[test]
fn a_state_file_that_cannot_be_written_ends_the_run_before_an_image_is_made() {
    let (bench, folder) = (bench(), Folder::new());
    let words = ["glance:snapshot", "glance:compact", "--state", "/nonexistent/state"];
    refuses(
        &mut convert(&bench, folder.0.path(), &words),
        7,
        &["the state file `/nonexistent/state", "No such file"],
    );
    assert!(bench.records(Route::Create).is_empty());
    assert_eq!((bench.glance.images().len(), folder.names()), (1, vec!["spool".to_owned()]));
}

#[test]
fn a_refusal_leaves_neither_image_nor_state_file_without_a_survey() {
    let (bench, folder) = (bench(), Folder::new());
    bench.glance.faults().update(|faults| {
        faults.answers.push((Some(Route::Create), Fault::always(Answer::status(413))));
    });
    refuses(&mut usual(&bench, &folder), 6, &["413"]);
    assert_eq!(folder.names(), ["spool"]);
    bench.glance.faults().set(Faults {
        upload_refused: Some(Fault::always(Refusal { status: 415, text: "no".into(), after_bytes: None })),
        ..Faults::default()
    });
    refuses(&mut usual(&bench, &folder), 6, &["415"]);
    assert_eq!((bench.glance.images().len(), folder.names().len()), (1, 2), "pass 1 is not lost");
}
