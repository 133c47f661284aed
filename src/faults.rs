//! Every way in which a run can be disturbed, as one list: what becomes of the run, what its user sees, what is left
//! behind, and the test that produces it. The README's table is made from it, and a test holds both together.
//!
//! «Nothing» left behind means: no new image, no file, no temporary file; the source is never touched at all, unless
//! it was to be deleted in the end.

/// What a fault does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tried again, within `--retries` and `--retry-time`; fatal only if it stays.
    Retried,
    /// The run goes on in another way, and says so.
    Downgraded,
    /// The run ends with one sentence and an exit code.
    Fatal,
}

impl Class {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Downgraded => "downgraded",
            Self::Fatal => "fatal",
        }
    }
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What happens to the run.
    pub fault: &'static str,
    /// What becomes of the run.
    pub class: Class,
    /// What the user sees; a number is the exit code where the fault stays.
    pub sees: &'static str,
    /// What is left behind where the run ends.
    pub left: &'static str,
    /// The test that produces it: its file, `::`, its name.
    pub test: &'static str,
}

const NOTHING: &str = "nothing";

const fn row(fault: &'static str, class: Class, sees: &'static str, test: &'static str) -> Row {
    Row { fault, class, sees, left: NOTHING, test }
}

impl Row {
    const fn leaves(self, left: &'static str) -> Self {
        Self { left, ..self }
    }
}

use Class::{Downgraded, Fatal, Retried};

// One row a line, as in the table.
/// All of them: on the way in, on the way out, in the service, on this machine, from outside.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row("connection refused, host name unknown, TLS handshake fails", Retried, "5, with the address", "tests/faults/wire.rs::nobody_listens_at_an_address_that_does_not_exist_or_speaks_no_tls"),
    row("certificate of an unknown CA", Fatal, "5, with the option that names the CA", "tests/openstack_client.rs::tls_is_believed_only_with_its_ca"),
    row("download reset or cut short (sequential)", Retried, "a line with `-v`; the rest alone is asked for, else all again, and what is skipped is compared", "tests/faults/retries.rs::a_sequential_download_that_breaks_starts_over_and_skips"),
    row("download reset or cut short (range)", Retried, "a line with `-v`; goes on where it broke", "tests/faults/ranges.rs::a_broken_range_is_taken_up_where_it_broke"),
    row("second read reset or cut short", Retried, "the same; the upload is kept alive meanwhile", "tests/faults/retries.rs::the_second_read_starts_over_too"),
    row("download silent for 60 s", Retried, "as a reset", "tests/faults/retries.rs::a_download_that_falls_silent_is_taken_up_again"),
    row("download that breaks and never gets further", Fatal, "5, after `--retries`", "tests/faults/retries.rs::a_download_that_never_gets_further_is_given_up"),
    row("body longer or shorter than the record says", Fatal, "8, with both lengths", "tests/faults/changed.rs::a_source_longer_or_shorter_than_its_record_is_refused"),
    row("400 to a Range", Downgraded, "the plan: read from the beginning each time", "tests/faults/ranges.rs::a_store_without_random_reads_is_read_in_order"),
    row("206 with the whole body, the wrong bytes or the wrong Content-Range; 200: at the probe", Downgraded, "the plan: read from the beginning each time", "tests/faults/ranges.rs::wrong_answers_are_recognised_by_the_probe"),
    row("the same, half way", Fatal, "5: the endpoints behind the service differ", "tests/faults/ranges.rs::a_range_service_that_turns_bad_half_way_ends_the_run"),
    row("204 for an image that is active", Fatal, "3: it has no data", "tests/faults/ranges.rs::no_content_is_no_empty_image"),
    row("source changed between the passes", Fatal, "8, with the guest offset", "tests/faults/changed.rs::a_source_that_changes_between_the_passes_stops_the_run_before_the_last_byte"),
    row("source changed while a download was broken", Fatal, "8, with the offset", "tests/faults/retries.rs::a_source_that_changed_while_a_download_was_broken_is_refused"),
    row("source whose hash is another", Fatal, "8, with both hashes; nothing is sent", "tests/faults/changed.rs::a_source_whose_hash_is_another_is_not_converted"),
    row("source without a hash", Downgraded, "the summary: not verified, and why", "tests/faults/changed.rs::a_source_without_a_hash_is_converted_and_said_to_be_unverified"),
    row("`verify`: image changed while a download was broken", Fatal, "8, with the offset", "tests/faults/verify.rs::an_image_that_changed_while_a_download_was_broken_is_refused"),
    row("source file written to meanwhile", Fatal, "8", "tests/glance_convert/file_refusals.rs::a_source_that_is_written_to_is_noticed"),
    row("service that cuts who reads slowly", Downgraded, "the second read hangs up in good order and comes back", "tests/faults/slow.rs::a_slow_uplink_makes_the_second_read_hang_up_and_come_back"),
    row("the same, where this machine is too slow for its level", Fatal, "5, with `--level` and `--threads`", "tests/faults/slow.rs::a_machine_too_slow_for_its_level_is_told_so"),
    row("service with a single worker: upload and second read block each other", Fatal, "5, with `--spool-disk`", "tests/faults/slow.rs::a_single_worker_stops_a_second_read_and_the_way_out_is_named"),
    row("uWSGI's 4 s", Downgraded, "nothing: transfers never pause for so long", "tests/uwsgi.rs::a_slow_uplink_is_no_reason_to_be_cut"),
    row("upload reset or cut; image `queued` again", Retried, "a line with `-v`; sent again from the plan, without a new pass 1", "tests/faults/retries.rs::a_broken_upload_is_sent_again_without_a_new_survey"),
    row("upload of which no byte is taken for 300 s", Retried, "as a reset", "tests/faults/retries.rs::an_upload_that_nobody_reads_is_sent_again"),
    row("upload that always breaks", Fatal, "5, with the number of tries", "tests/faults/upload.rs::an_upload_that_always_breaks_is_given_up"),
    row("answer to the PUT lost while Glance finishes (reset, 502, 504)", Retried, "nothing: the image's status is asked for, nothing is sent twice", "tests/faults/upload.rs::a_lost_answer_to_a_finished_upload_is_success"),
    row("answer to the POST lost (reset, 502, 504)", Retried, "nothing: the record is looked up by its ID", "tests/faults/cleanup.rs::a_record_whose_answer_was_lost_is_found_by_its_id"),
    row("409, 413 (quota), 415 (image inspector)", Fatal, "6, with Glance's own text", "tests/faults/upload.rs::a_refusal_is_shown_and_not_tried_again"),
    row("413 or 415 before the body has been sent", Fatal, "6, with Glance's own text", "tests/faults/upload.rs::a_refusal_in_the_middle_of_the_body_is_shown_too"),
    row("the same, lost in a reset", Retried, "5: a quota may be full", "tests/faults/wire.rs::an_early_refusal_that_is_lost_in_a_reset_ends_the_run_all_the_same"),
    row("image stuck in `saving`", Fatal, "5, after `--retry-time`", "tests/faults/wire.rs::an_image_that_stays_saving_is_given_up_and_deleted"),
    row("Glance takes its time after the last byte", Retried, "nothing: it is waited for", "tests/faults/upload.rs::glance_may_take_its_time_to_finish"),
    row("proxy that buffers the whole body", Downgraded, "nothing: it is waited for", "tests/faults/wire.rs::a_proxy_that_buffers_everything_is_waited_for"),
    row("target whose hash is another", Fatal, "9, with both hashes", "tests/faults/changed.rs::a_target_whose_hash_is_another_is_deleted"),
    row("target without a hash", Downgraded, "the summary: not verified, and why", "tests/faults/changed.rs::a_target_without_a_hash_is_said_to_be_unverified"),
    row("properties that nobody may set (403)", Downgraded, "a note that names them", "tests/faults/cleanup.rs::properties_that_nobody_may_set_are_dropped_and_named"),
    row("the new image cannot be deleted after a failure", Fatal, "the first failure's code, with the command that deletes it", "tests/faults/cleanup.rs::an_image_that_cannot_be_deleted_is_named").leaves("the image, named"),
    row("`--delete-source`: the service does not delete the source (409: in use, clones; 403; 5xx)", Fatal, "13, with both IDs and Glance's own text", "tests/commands/delete_source.rs::what_the_cloud_does_not_delete_stays_and_so_does_the_copy").leaves("both images"),
    row("`--delete-source`: the source was changed meanwhile, or the proof is not whole", Fatal, "13, with both IDs and the reason", "tests/commands/delete_source.rs::a_source_that_was_changed_meanwhile_is_kept").leaves("both images"),
    row("`--delete-source`: a signal between proof and deletion", Fatal, "130, 143, 129, 131, with both IDs", "tests/commands/delete_source.rs::a_signal_between_proof_and_deletion_leaves_both_and_names_them").leaves("both images"),
    row("`replace`: SIGKILL in any step", Fatal, "137; the same command goes on, and makes nothing again that is proven", "tests/commands/replace/ended.rs::killed_in_any_step_the_same_command_comes_to_its_end").leaves("the old image, or the new one, proven and protected"),
    row("`replace`: two of them at once", Fatal, "6 for the one whose half-made image the other has cleared away", "tests/commands/replace/ended.rs::two_replacements_at_once_lose_nothing").leaves("what the other makes"),
    row("`upload`: the file changes while it is sent", Fatal, "8, with the path", "tests/commands/upload.rs::a_signal_or_a_file_that_changes_leaves_no_image"),
    row("401 half way, token expired between the passes", Retried, "nothing: one new login for all", "tests/faults/wire.rs::a_token_that_expires_between_the_passes_or_on_the_way_is_renewed"),
    row("401 that stays, 403, 404 of an image deleted meanwhile, 410", Fatal, "4, 3 or 6, with Glance's own text", "tests/faults/wire.rs::answers_that_stand_end_the_run_at_once"),
    row("429, 500, 502, 503, 504", Retried, "a line with `-v`; 5 if it stays", "tests/faults/ranges.rs::first_answers_of_a_busy_service_are_tried_again"),
    row("429 with Retry-After", Retried, "obeyed, up to 60 s", "tests/faults/retries.rs::a_wish_for_a_pause_is_obeyed"),
    row("service that stays busy", Fatal, "5, with its text", "tests/faults/ranges.rs::a_service_that_stays_busy_is_a_network_failure"),
    row("redirect to another host", Fatal, "5; the token is not carried along", "src/openstack/loop_tests.rs::a_redirect_does_not_carry_the_token_away"),
    row("Glance is killed while it sends, and comes back", Retried, "as a reset", "tests/lab_faults.rs::a_glance_that_is_killed_while_it_sends_and_restarted_is_survived"),
    row("Glance is killed while it takes the upload, and comes back", Retried, "as a reset; 5 if the image stays `saving`", "tests/lab_faults.rs::a_glance_that_is_killed_while_it_takes_and_restarted_is_survived"),
    row("token lifetime of 20 s, transfers that take longer", Retried, "nothing: one new login each time", "tests/lab_faults.rs::tokens_that_live_shorter_than_a_transfer_are_renewed"),
    row("store full", Fatal, "6, with Glance's own text; 5 where a reset has overtaken it", "tests/lab_faults.rs::a_full_store_is_said_and_nothing_is_left"),
    row("bit flipped in the spool's file", Fatal, "7: look at the disk of `--spool-dir`", "src/spool/tests.rs::a_bit_that_flips_on_disk_is_noticed"),
    row("spool's disk full", Downgraded, "what it let go is read again; 7 where the source cannot be read again", "tests/glance_convert/resources.rs::a_full_spool_disk_is_an_overflow_and_no_failure"),
    row("spool's disk fails (EIO)", Downgraded, "a warning; memory alone goes on; 7 where the source cannot be read again", "src/spool/tests.rs::a_disk_that_fails_is_given_up_only_where_clusters_may_go"),
    row("spool's disk is too slow", Downgraded, "a warning; memory alone goes on; waited for where the source cannot be read again", "src/spool/tests.rs::a_disk_that_cannot_keep_up_is_given_up_and_not_waited_for"),
    row("source disk: EIO", Fatal, "3, with the offset", "tests/faults/local.rs::a_disk_that_cannot_be_read_is_named_with_its_offset"),
    row("target disk full", Fatal, "7; a file that is to be replaced stays", "tests/glance_convert/resources.rs::a_full_target_leaves_nothing"),
    row("target disk: EIO", Fatal, "7, with the offset", "tests/faults/local.rs::a_target_disk_that_fails_is_named_with_its_offset"),
    row("limit on file sizes (`ulimit -f`)", Fatal, "7, as a full disk", "tests/local_faults.rs::a_limit_on_file_sizes_is_a_full_disk"),
    row("target read-only", Fatal, "7, with the path", "tests/local_faults.rs::a_read_only_target_is_refused_at_once"),
    row("standard output full", Fatal, "7, with the offset", "tests/local_faults.rs::a_full_standard_output_ends_the_run"),
    row("memory limit (cgroup) below what the map may take", Fatal, "7, with a larger `--cluster-size`, before a byte moves", "tests/local_faults.rs::a_memory_limit_is_seen_before_a_byte_moves"),
    row("SIGINT, SIGTERM, SIGHUP, SIGQUIT", Fatal, "130, 143, 129, 131", "tests/kill.rs::after_a_failure_or_a_signal_no_image_is_left_and_the_same_command_goes_on").leaves("with `--state`: the state file, once pass 1 has ended"),
    row("a second signal", Fatal, "the same numbers, at once", "tests/kill/moments.rs::a_second_signal_ends_the_run_at_once_and_leaves_what_a_kill_leaves").leaves("what SIGKILL leaves"),
    row("SIGKILL", Fatal, "137; the next run names the image that is left", "tests/kill/moments.rs::a_kill_without_a_state_file_leaves_an_empty_image_that_the_next_run_names").leaves("an image, queued and empty; beside a target file `.NAME.PID.part`, if its file system has no O_TMPFILE or, with `--force`, in the last moment"),
    row("SIGKILL in the last moments", Fatal, "137; the next run names it", "tests/kill/moments.rs::a_kill_in_the_last_moments_leaves_a_whole_image_that_the_next_run_names").leaves("the image, active and whole"),
    row("SIGKILL with `--state FILE`", Fatal, "137; the same command goes on", "tests/kill.rs::killed_at_any_moment_the_same_command_comes_to_the_right_result").leaves("FILE, perhaps `FILE.new`, and until the next run the image that FILE names"),
    row("state file of another source, target, format or build; damaged", Fatal, "2 or 7, with the reason", "tests/kill.rs::what_does_not_fit_is_refused_with_the_reason").leaves("the state file"),
    row("state file that cannot be written", Fatal, "7, before an image is made", "tests/kill/early.rs::a_state_file_that_cannot_be_written_ends_the_run_before_an_image_is_made"),
    row("state file that names an image of somebody else's", Fatal, "6, with its ID", "tests/kill.rs::an_image_that_no_earlier_run_made_is_not_touched").leaves("that image, untouched, and the state file"),
    row("failure while an image that an earlier run has sent whole is compared", Fatal, "its own number, with the image's ID", "tests/kill.rs::an_image_that_an_earlier_run_sent_whole_survives_the_failure_of_the_next").leaves("that image, and the state file"),
    row("two runs with one state file, two with the same target name", Fatal, "7; 6", "tests/kill.rs::two_runs_do_not_get_into_each_others_way").leaves("what the first run makes"),
    row("panic in a worker", Fatal, "1: which thread", "tests/faults/local.rs::a_panic_in_any_thread_is_a_failure_like_others"),
    row("clock jumps", Downgraded, "nothing: no wait and no bound looks at the wall clock", "tests/local_faults.rs::a_clock_that_jumps_changes_nothing"),
    row("standard output closed while it carries the image", Fatal, "141, nothing", "tests/glance_convert/file_refusals.rs::whoever_stops_reading_hears_no_complaint"),
    row("standard output closed before the new image's ID is told", Fatal, "141; the ID is on standard error", "tests/glance_convert/cloud_refusals.rs::an_image_whose_id_nobody_hears_is_still_there").leaves("the whole image"),
    row("standard error closed", Downgraded, "nothing", "tests/glance_convert/cloud_refusals.rs::nobody_has_to_listen_to_standard_error"),
    row("report that cannot be written after a success", Fatal, "7, with the path; the ID has been told", "tests/glance_convert/cloud_refusals.rs::a_report_that_cannot_be_written_fails_the_run_and_the_image_stays").leaves("the whole image"),
    row("`snapshot`: server in a state that forbids it, busy, or booted from a volume", Fatal, "3, with what to do instead", "tests/commands/snapshot/refused.rs::servers_in_a_state_that_forbids_it_say_what_to_do"),
    row("`snapshot`: name of several servers, of none, or another project's", Fatal, "3, with the IDs", "tests/commands/snapshot/refused.rs::a_server_is_named_exactly_or_not_at_all"),
    row("`snapshot`: image that ends as `killed` or `deleted`, or stays `queued`", Fatal, "3, with both IDs; the server as it was", "tests/commands/snapshot/failing.rs::a_snapshot_that_comes_to_nothing_leaves_nothing"),
    row("`snapshot`: image that stays `saving`", Fatal, "3, after `--timeout`; the server as it was", "tests/commands/snapshot/failing.rs::a_snapshot_that_never_ends_is_given_up"),
    row("`snapshot`: task of the server that never ends", Fatal, "3, after `--timeout`, with the command that starts the server", "tests/commands/snapshot/failing.rs::a_task_that_never_ends_keeps_the_whole_image").leaves("the raw image, whole; the same command goes on"),
    row("`snapshot`: Nova refuses to stop the server, or it does not stop", Fatal, "3; the server as it was, or the command that starts it", "tests/commands/snapshot/failing.rs::a_server_that_does_not_stop_is_left_as_it_is"),
    row("`snapshot`: Nova refuses to start the server, or it does not start", Fatal, "3, with the command that starts it", "tests/commands/snapshot/failing.rs::a_server_that_does_not_start_is_said_and_the_next_run_goes_on").leaves("the raw image, whole; the same command goes on"),
    row("`snapshot`: quota, policy or conflict at createImage", Fatal, "3 or 4, with Nova's words; the server as it was", "tests/commands/snapshot/failing.rs::nova_refuses_the_snapshot"),
    row("`snapshot`: lost answer to createImage", Retried, "nothing: the image is looked for by a property of its own", "tests/commands/snapshot/whole.rs::a_lost_answer_is_looked_into"),
    row("`snapshot`: server deleted meanwhile", Fatal, "3, which says so", "tests/commands/snapshot/failing.rs::a_server_that_vanishes_is_said"),
    row("`snapshot`: signal while Nova is at work", Fatal, "130 and so on; the server as it was", "tests/commands/snapshot/resumed.rs::an_interrupt_in_any_step_leaves_the_server_as_it_was_and_nothing_half_made").leaves("nothing, or the raw image, whole"),
    row("`snapshot`: SIGKILL while Nova is at work", Fatal, "137; the same command goes on", "tests/commands/snapshot/resumed.rs::after_a_kill_in_any_step_the_same_command_ends_right").leaves("the server as it is, with a note; Nova's work"),
    row("`snapshot`: signal or SIGKILL while it converts", Fatal, "130 and so on, 137; the same command goes on", "tests/commands/snapshot/resumed.rs::a_signal_while_it_converts_keeps_the_raw_image_for_the_same_command").leaves("the raw image, whole; after SIGKILL an image with notes, too"),
    row("`snapshot`: no hash of the raw image", Downgraded, "13: both images are there", "tests/commands/snapshot/whole.rs::without_a_hash_the_raw_image_stays_unless_that_is_good_enough").leaves("both images"),
];

/// The table in Markdown, as the README has it.
pub fn markdown() -> String {
    let mut text =
        String::from("| fault | class | what you see | left behind | test |\n|---|---|---|---|---|\n");
    for Row { fault, class, sees, left, test } in TABLE {
        let name = test.rsplit("::").next().unwrap_or(test);
        text.push_str(&format!("| {fault} | {} | {sees} | {left} | `{name}` |\n", class.word()));
    }
    text
}
