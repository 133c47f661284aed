//! Images and clouds that are refused: the exit code, one sentence, and nothing left in the project.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::lab::command::{convert, convert_in, run, start};
use crate::lab::disk::Noise;
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab};
use crate::proof::image_equals;

fn words(source: &str, target: &str) -> [String; 2] {
    [source.to_owned(), target.to_owned()]
}

#[test]
fn images_that_cannot_be_meant_are_refused() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let target = Named::new(&rest, "target");
    let refused = |source: &str, code, expected: &[&str]| {
        let ran = run(&mut convert_in(&lab, "lab-noranges", words(source, &target.glance())))
            .refuses(code, expected);
        assert!(ran.stdout.is_empty());
        target.assert_none();
    };
    refused("glance:no such image", 3, &["no such image", "snapcow list"]);
    let twice = Named::new(&rest, "twice");
    let ids = [rest.make(&twice.name, &[1; 600], json!({})), rest.make(&twice.name, &[2; 600], json!({}))];
    refused(&twice.glance(), 3, &["2 images", &ids[0], &ids[1], "ID"]);
    let queued = Named::new(&rest, "queued");
    rest.create(json!({"name": queued.name, "disk_format": "raw", "container_format": "bare"}));
    refused(&queued.glance(), 3, &["queued"]);
    let vdi = Named::new(&rest, "iso");
    rest.make(&vdi.name, &[1; 600], json!({"disk_format": "aki", "container_format": "aki"}));
    refused(&vdi.glance(), 3, &["aki"]);
    let key = Named::new(&rest, "key");
    rest.make(
        &key.name,
        &[1; 600],
        json!({"cinder_encryption_key_id": "8c1f3f6e-0000-0000-0000-000000000000"}),
    );
    refused(&key.glance(), 3, &["cannot be converted"]);
    let volume = Named::new(&rest, "volume");
    rest.make(&volume.name, &[1; 600], json!({"block_device_mapping": "[{\"snapshot_id\": \"x\"}]"}));
    refused(&volume.glance(), 3, &["cannot be converted"]);
    // Another project does not see it.
    let mut other = convert_in(&lab, "lab-b", words(&format!("glance:{}", ids[0]), &target.glance()));
    run(&mut other).refuses(3, &[&ids[0]]);
}

#[test]
fn deactivated_images_are_refused() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "deactivated"), Named::new(&rest, "target"));
    let id = rest.make(&source.name, &[1; 600], json!({}));
    let (status, answer) =
        rest.call(reqwest::Method::POST, &format!("images/{id}/actions/deactivate"), "application/json", "");
    assert_eq!(status, 204, "{answer}");
    run(&mut convert_in(&lab, "lab-noranges", words(&source.glance(), &target.glance())))
        .refuses(3, &["deactivated"]);
    target.assert_none();
}

#[test]
fn names_that_are_taken_are_refused_unless_asked_for() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, Noise(21).bytes(100_000)).unwrap();
    let raw_word = raw.to_str().unwrap();
    let target = Named::new(&rest, "taken");
    let go =
        |more: &[&str]| run(convert_in(&lab, "lab-ranges", words(raw_word, &target.glance())).args(more));
    let plan = go(&["--dry-run"]).ok();
    assert!(String::from_utf8(plan.stdout).unwrap().contains("spool"));
    target.assert_none();
    let first = go(&[]).ok().image_id();
    go(&[]).refuses(6, &[&first, "--allow-duplicate"]);
    go(&["--dry-run"]).refuses(6, &[&first, "--allow-duplicate"]);
    assert_eq!(target.images().len(), 1);
    let second = go(&["--allow-duplicate", "--compat", "0.10"]).ok().image_id();
    assert_ne!(first, second);
    image_equals(&rest, &second, &raw);
    // What a killed run leaves is named as such.
    let left = Named::new(&rest, "left");
    let id = rest.create(json!({"name": left.name, "disk_format": "qcow2", "container_format": "bare"}));
    run(&mut convert_in(&lab, "lab-ranges", words(raw_word, &left.glance())))
        .refuses(6, &[&id, "interrupted run"]);
}

#[test]
fn what_glance_does_not_permit_is_said_at_once() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, [1; 70_000]).unwrap();
    let target = Named::new(&rest, "policy");
    let go = |more: &[&str]| {
        run(convert_in(&lab, "lab-ranges", words(raw.to_str().unwrap(), &target.glance())).args(more))
    };
    go(&["--visibility", "public"]).refuses(4, &["public"]);
    go(&["--store", "no-such-store"]).refuses(6, &["no-such-store"]);
    let long = "n".repeat(300);
    run(&mut convert_in(&lab, "lab-ranges", words(raw.to_str().unwrap(), &format!("glance:{long}"))))
        .exits(6);
    target.assert_none();
    // A property that is Glance's own is left out, and that is said.
    let ran = go(&["--property", "os_glance_stage=x", "--property", "free=1"]).ok();
    let image = rest.show(&ran.image_id());
    assert_eq!(image["free"], "1");
    assert!(
        image.get("os_glance_stage").is_none() && ran.stderr.contains("os_glance_stage"),
        "{}",
        ran.stderr
    );
}

/// The environment of a login by a password.
fn login<'a>(command: &'a mut Command, url: &str, password: &str) -> &'a mut Command {
    let vars = [
        ("OS_AUTH_URL", url),
        ("OS_USERNAME", "lab-a"),
        ("OS_PASSWORD", password),
        ("OS_PROJECT_NAME", "lab-a"),
    ];
    command
        .envs(vars)
        .env("OS_REGION_NAME", "RegionTls")
        .env("OS_USER_DOMAIN_NAME", "Default")
        .env("OS_PROJECT_DOMAIN_NAME", "Default")
}

#[test]
fn logins_that_fail_say_why() {
    let Some(lab) = lab() else { return };
    let password = lab.text("/users/lab-a/password");
    let (plain, tls) = (lab.text("/keystone"), lab.text("/keystone_tls"));
    let go = |url: &str, password: &str, more: &[&str]| {
        run(login(&mut convert(["glance:no such image", "/nonexistent/x"]), url, password).args(more))
    };
    let wrong = go(&plain, "hunter2-hunter2", &["-vvv"]).refuses(4, &["password"]);
    assert!(!wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
    go("http://127.0.0.1:1/v3", &password, &[]).refuses(5, &["127.0.0.1", "refused"]);
    go(&tls, &password, &[]).refuses(5, &["not trusted", "--os-cacert"]);
    let ca = lab.text("/ca");
    go(&tls, &password, &["--os-cacert", &ca]).refuses(3, &["no such image"]);
    go(&tls, &password, &["--insecure"]).refuses(3, &["no such image"]);
    go(&tls, &password, &["--os-cacert", "/nonexistent/ca.pem"]).refuses(7, &["CA certificates"]);
    let unknown = run(&mut convert_in(&lab, "nowhere", ["glance:x", "-"]));
    unknown.refuses(4, &["nowhere", "lab-ranges"]);
    let bare = run(&mut convert(["glance:x", "-"]));
    assert_ne!(bare.code, 0);
    println!("{}", bare.stderr);
}

#[test]
fn no_secret_is_told() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    for cloud in ["lab-appcred", "lab-tls"] {
        let (source, target) = (Named::new(&rest, "told"), Named::new(&rest, "untold"));
        rest.make(&source.name, &Noise(22).bytes(3 << 20), json!({}));
        let mut command = convert_in(&lab, cloud, words(&source.glance(), &target.glance()));
        let ran = run(command.args(["-vvv", "--report", report.to_str().unwrap()])).ok();
        let told = ran.stderr + &std::fs::read_to_string(&report).unwrap();
        let secret = lab.text("/application_credential/secret");
        // Every token of Keystone's begins like this.
        for word in [lab.text("/users/lab-a/password").as_str(), &secret, "gAAAA"] {
            assert!(!told.contains(word), "{cloud}: {told}");
        }
    }
}

#[test]
fn bytes_that_were_damaged_in_the_store_are_noticed() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "damaged"), Named::new(&rest, "target"));
    let id = rest.make(&source.name, &Noise(23).bytes(5 << 20), json!({}));
    let stored = Path::new(&lab.text("/stores/fs")).join(&id);
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[3 << 20] ^= 1;
    std::fs::write(&stored, &bytes).unwrap();
    for cloud in ["lab-noranges", "lab-ranges"] {
        run(&mut convert_in(&lab, cloud, words(&source.glance(), &target.glance())))
            .refuses(8, &["sha512", &id]);
        target.assert_none();
    }
    std::fs::write(&stored, &bytes[..4 << 20]).unwrap();
    let ran = run(&mut convert_in(&lab, "lab-noranges", words(&source.glance(), &target.glance())));
    println!("{} {}", ran.code, ran.stderr);
    assert!([5, 8].contains(&ran.code));
    target.assert_none();
    std::fs::write(&stored, &bytes).unwrap();
    let ran = run(convert_in(&lab, "lab-noranges", words(&source.glance(), &target.glance()))
        .args(["--verify-source", "off"]))
    .ok();
    assert!(ran.stderr.contains("not verified"), "{}", ran.stderr);
}

/// The conversion of a small file, and a pipe that nobody reads.
fn unheard(lab: &Lab, raw: &Path, target: &Named<'_>) -> (Command, std::io::PipeWriter) {
    std::fs::write(raw, [1; 70_000]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    (convert_in(lab, "lab-ranges", words(raw.to_str().unwrap(), &target.glance())), writer)
}

#[test]
fn an_image_whose_id_nobody_hears_is_still_there() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let target = Named::new(&rest, "unheard");
    let (mut command, writer) = unheard(&lab, &raw, &target);
    let ran = start(command.stdout(writer)).finish().exits(141);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let images = target.images();
    assert_eq!(images.len(), 1);
    assert!(ran.stderr.contains(images[0]["id"].as_str().unwrap()), "{}", ran.stderr);
}

#[test]
fn nobody_has_to_listen_to_standard_error() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let target = Named::new(&rest, "unheard");
    let (mut command, writer) = unheard(&lab, &raw, &target);
    let answer = command.args(["-vvv", "--progress", "json"]).stderr(writer).output().unwrap();
    assert_eq!(answer.status.code(), Some(0));
    image_equals(&rest, String::from_utf8(answer.stdout).unwrap().trim(), &raw);
}

#[test]
fn a_report_that_cannot_be_written_fails_the_run_and_the_image_stays() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let folder = tempfile::tempdir().unwrap();
    let (raw, report) = (folder.path().join("raw"), folder.path().join("no/report.json"));
    std::fs::write(&raw, Noise(24).bytes(300_000)).unwrap();
    let target = Named::new(&rest, "unreported");
    let mut command = convert_in(&lab, "lab-noranges", words(raw.to_str().unwrap(), &target.glance()));
    let ran = run(command.arg("--report").arg(&report)).refuses(7, &["the report", "report.json"]);
    assert_eq!(target.images().len(), 1);
    image_equals(&rest, &ran.image_id(), &raw);
}
