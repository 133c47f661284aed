//! From a server to a compact image, the raw one gone, equal to the disk.

use serde_json::{Value, json};

use super::stand_in::{CLOUD, Nova, each};
use crate::lab::command::{run, snapcow_in};
use crate::lab::lab;

#[test]
fn a_running_server_is_stopped_taken_started_and_compacted() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("whole", json!({}));
    let ran = run(&mut server.snapshot(&["--stop"])).ok();
    server.has_one_compact_image(&ran.image_id());
    server.runs();
    let raw = server.events().into_iter().find_map(|event| Some(event.strip_prefix("image ")?.to_owned()));
    let raw = raw.unwrap();
    let order = ["os-stop", "createImage 2.45", &format!("image {raw}"), "snapshot ended", "os-start"];
    assert_eq!(server.events(), order);
    let said = |text: &str| ran.stderr.find(text).unwrap_or_else(|| panic!("no «{text}» in {}", ran.stderr));
    assert!(said("step 1 of 5") < said("step 2 of 5: stop server"));
    assert!(said("step 3 of 5: take a snapshot") < said("step 4 of 5: start server"));
    assert!(said("step 4 of 5") < said("step 5 of 5: convert"));
    assert!(said("step 5 of 5") < said("is deleted"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("crash-consistent"));
    assert_eq!(nova.rest.named(&format!("{}-raw", server.image)), Vec::<Value>::new());
}

#[test]
fn a_server_runs_on_unless_it_is_to_be_stopped_and_one_that_is_off_stays_off() {
    let cases = [
        ("ACTIVE", &[][..], "crash-consistent"),
        ("SHUTOFF", &["--stop"], "it is SHUTOFF"),
        ("PAUSED", &[], "it is PAUSED"),
        ("SUSPENDED", &[], "it is SUSPENDED"),
    ];
    each(&cases, |nova, (status, words, said)| {
        let server = nova.server("as-it-is", json!({"status": status}));
        let ran = run(&mut server.snapshot(words)).ok();
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        server.has_one_compact_image(&ran.image_id());
        assert_eq!(server.state()["status"], status);
        assert_eq!(server.asked("os-"), 0, "{:?}", server.events());
    });
}

/// Below 2.45 the image is in a header, from there on in the body; some clouds tell no version at all.
#[test]
fn every_version_of_nova_will_do() {
    let cases = [
        ("/max-2.1/v2.1", "2.1"),
        ("/max-2.44/v2.1", "2.44"),
        ("/max-2.45/v2.1/", "2.45"),
        ("/max-2.90", "2.45"),
        ("/max-2.0/v2.1", "2.1"),
    ];
    each(&cases, |nova, (path, version)| {
        let base = nova.lab.text("/nova");
        let server = nova.server("version", json!({"status": "SHUTOFF"}));
        let mut command = server.snapshot(&[]);
        let ran = run(command.env("OS_COMPUTE_ENDPOINT_OVERRIDE", format!("{base}{path}"))).ok();
        server.has_one_compact_image(&ran.image_id());
        assert_eq!(server.asked(&format!("createImage {version}")), 1, "{path}: {:?}", server.events());
    });
}

#[test]
fn names_are_exact_and_the_raw_image_may_stay() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("a.b*(c)", json!({"status": "SHUTOFF"}));
    let trap = nova.named_server(&server.name.replace("a.b*(c)", "aXb*(c)"), json!({}));
    let words = ["snapshot", &server.name, "--keep-raw", "--compression", "zstd"];
    let ran = run(&mut snapcow_in(&lab, CLOUD, words)).ok();
    assert!(trap.images().is_empty());
    let images = server.images();
    assert_eq!(images.len(), 2, "{images:?}");
    let of = |format: &str| images.iter().find(|image| image["disk_format"] == format).unwrap();
    assert_eq!(of("qcow2")["id"], ran.image_id());
    let name = of("qcow2")["name"].as_str().unwrap();
    assert!(name.starts_with(&format!("{}-snapshot-20", server.name)), "{name}");
    assert_eq!(of("raw")["name"], format!("{name}-raw"));
    for image in &images {
        assert!(image.as_object().unwrap().keys().all(|key| !key.starts_with("snapcow_")), "{image}");
    }
    assert!(ran.stderr.contains("is kept, as asked for"), "{}", ran.stderr);
}

#[test]
fn a_program_reads_every_step() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("json", json!({}));
    let ran = run(&mut server.snapshot(&["--stop", "--progress", "json", "-q"])).ok();
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["schema"] == "snapcow/snapshot/1")
        .collect();
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    let steps: Vec<u64> = of("step").map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    assert!(of("step").all(|line| line["steps"] == 5 && line["text"].is_string()));
    assert!(of("wait").any(|line| line["state"] == "server SHUTOFF" && line["elapsed_seconds"].is_number()));
    server.has_one_compact_image(&ran.image_id());
}

#[test]
fn a_rehearsal_changes_nothing() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("rehearsal", json!({}));
    let ran = run(&mut server.snapshot(&["--stop", "--dry-run"])).ok();
    let said = String::from_utf8(ran.stdout).unwrap();
    for word in ["stop the server", "take a raw snapshot", "start the server", "delete the raw image"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(server.events().is_empty());
    server.runs();
    server.has_no_image();
}

/// Where Nova's disks are qcow2 files so are its snapshots: there is nothing to convert.
#[test]
fn a_snapshot_that_is_qcow2_already_is_the_image() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.qcow2");
    let mut command = std::process::Command::new("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(super::stand_in::disk(&lab)).arg(&file);
    assert!(command.status().expect("qemu-img, of Debian's qemu-utils").success());
    let server = nova.server("qcow2", json!({"format": "qcow2", "disk": file}));
    let ran = run(&mut server.snapshot(&["--stop", "--property", "os_distro=debian"])).ok();
    assert!(ran.stderr.contains("are qcow2 already"), "{}", ran.stderr);
    server.has_one_compact_image(&ran.image_id());
    assert_eq!(server.images()[0]["os_distro"], "debian");
    server.runs();
}

/// A snapshot inside of Ceph has no hash: nothing is deleted unproven, unless that is asked for.
#[test]
fn without_a_hash_the_raw_image_stays_unless_that_is_good_enough() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let fields = json!({"status": "SHUTOFF", "faults": {"image": "hashless"}});
    let server = nova.server("hashless", fields.clone());
    let ran = run(&mut server.snapshot(&[])).refuses(13, &["is kept", "no hash", "--unproven"]);
    let (raw, compact): (Vec<_>, Vec<_>) =
        server.images().into_iter().partition(|image| image["disk_format"] == "raw");
    assert_eq!((raw.len(), compact.len()), (1, 1));
    assert!(raw[0].as_object().unwrap().keys().all(|key| !key.starts_with("snapcow_")), "{raw:?}");
    server.is_compact(&compact[0], &ran.image_id());
    let server = nova.server("hashless", fields);
    let ran = run(&mut server.snapshot(&["--unproven"])).ok();
    server.has_one_compact_image(&ran.image_id());
}

/// The answer to createImage gets lost: the order is neither lost nor given twice.
#[test]
fn a_lost_answer_is_looked_into() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    for (fault, orders) in [("lost", 1), ("unmade", 2)] {
        let server = nova.server("lost", json!({"faults": {"create": fault, "create_times": 1}}));
        let ran = run(&mut server.snapshot(&["--stop"])).ok();
        server.has_one_compact_image(&ran.image_id());
        assert_eq!(server.asked("createImage"), orders, "{fault}: {:?}", server.events());
        assert_eq!(server.asked("image "), 1, "{fault}: {:?}", server.events());
        server.runs();
    }
}

/// The whole guide in two commands: from a running server to an image that another project uses.
#[test]
fn two_commands_from_a_running_server_to_a_shared_and_accepted_image() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let server = nova.server("guide", json!({}));
    let ran = run(&mut server.snapshot(&["--stop"])).ok();
    let id = ran.image_id();
    run(&mut snapcow_in(&lab, CLOUD, ["share", &id, "--accept-as", "lab-b"])).ok();
    server.has_one_compact_image(&id);
    server.runs();
    let members =
        nova.rest.call(reqwest::Method::GET, &format!("images/{id}/members"), "application/json", "");
    let member = &members.1["members"][0];
    assert_eq!(
        (&member["member_id"], &member["status"]),
        (&json!(lab.text("/projects/lab-b")), &json!("accepted"))
    );
    let (source, file) = (format!("glance:{id}"), super::stand_in::disk(&lab));
    // The other project reads what the disk holds.
    let words = ["verify", file.to_str().unwrap(), &source, "--json"];
    run(snapcow_in(&lab, "lab-b", words).env("OS_REGION_NAME", "RegionRanges")).ok();
}
