//! `snapcow doctor`: a machine without a cloud, the lab, and what is wrong with either.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::lab::command::{Ran, run, snapcow, snapcow_in};
use crate::lab::{Lab, lab};
use serde_json::Value;

fn checks(ran: &Ran) -> Value {
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["schema"], "snapcow/doctor/1");
    json
}

#[track_caller]
fn check<'a>(json: &'a Value, name: &str) -> &'a Value {
    let all = json["checks"].as_array().unwrap();
    all.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {json:#}"))
}

#[track_caller]
fn has(json: &Value, name: &str, level: &str, words: &str) {
    let check = check(json, name);
    assert_eq!(check["level"], level, "{check:#}");
    assert!(check["text"].as_str().unwrap().contains(words), "{check:#}");
    if level == "problem" || level == "warning" {
        assert!(check["advice"].is_string(), "no next step: {check:#}");
    }
}

/// A clouds.yaml with one cloud, for its owner alone.
fn clouds_yaml(folder: &Path, keystone: &str, password: &str) -> std::path::PathBuf {
    let path = folder.join("clouds.yaml");
    let text = format!(
        "clouds:\n  only:\n    auth:\n      auth_url: {keystone}\n      username: lab-a\n      password: {password}\n      \
         project_name: lab-a\n      user_domain_id: default\n      project_domain_id: default\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn without_a_cloud_the_machine_alone_is_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let mut command = snapcow(["doctor", "--json"]);
    command
        .env("HOME", home.path())
        .current_dir(home.path())
        .env("https_proxy", "http://me:secret@proxy:3128");
    let ran = run(&mut command).ok();
    let json = checks(&ran);
    assert_eq!(json["usable"], true);
    has(&json, "cloud", "note", "none is configured");
    has(&json, "program", "ok", "libdeflater");
    assert_ne!(check(&json, "spool")["level"], "problem", "{json:#}");
    has(&json, "proxy", "note", "https_proxy");
    let all = format!("{}{}", String::from_utf8_lossy(&ran.stdout), ran.stderr);
    assert!(!all.contains("secret"), "{all}");
    let text = run(snapcow(["doctor"]).env("HOME", home.path()).current_dir(home.path())).ok();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_spool_folder_that_nobody_can_write_to_is_a_problem() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = home.path().join("nowhere");
    let mut command = snapcow(["doctor", "--json", "--spool-dir", nowhere.to_str().unwrap()]);
    let ran = run(command.env("HOME", home.path()).current_dir(home.path())).refuses(7, &["spool"]);
    let json = checks(&ran);
    assert_eq!(json["usable"], false);
    has(&json, "spool", "problem", "nowhere");
    assert_eq!(check(&json, "spool")["exit_code"], 7);
}

fn doctor(lab: &Lab, cloud: &str) -> Ran {
    run(&mut snapcow_in(lab, cloud, ["doctor", "--json"]))
}

#[test]
fn the_lab_is_usable_and_says_where_ranges_are_served() {
    let Some(lab) = lab() else { return };
    let rest = crate::lab::rest::Rest::new(&lab);
    let own = crate::lab::rest::Named::new(&rest, "doctor");
    rest.make(&own.name, &[7; 9000], serde_json::json!({}));
    for (cloud, level, words) in
        [("lab-ranges", "ok", "served"), ("lab-noranges", "note", "not served"), ("lab-tls", "ok", "served")]
    {
        let json = checks(&doctor(&lab, cloud).ok());
        assert_eq!(json["usable"], true, "{json:#}");
        has(&json, "login", "ok", cloud);
        has(&json, "glance", check(&json, "glance")["level"].as_str().unwrap(), "API v2");
        has(&json, "clock", "ok", "within");
        has(&json, "ranges", level, words);
    }
}

#[test]
fn a_wrong_password_is_a_problem_and_not_shown() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().unwrap();
    let yaml = clouds_yaml(folder.path(), &lab.text("/keystone"), "no-such-password");
    let mut command = snapcow(["doctor", "--json"]);
    let ran = run(command.env("OS_CLIENT_CONFIG_FILE", &yaml)).refuses(4, &["login"]);
    let json = checks(&ran);
    has(&json, "login", "problem", "log in to `only`");
    has(&json, "config", "ok", "owner alone");
    assert!(!String::from_utf8_lossy(&ran.stdout).contains("no-such-password"));

    std::fs::set_permissions(&yaml, std::fs::Permissions::from_mode(0o644)).unwrap();
    let json = checks(&run(snapcow(["doctor", "--json"]).env("OS_CLIENT_CONFIG_FILE", &yaml)).exits(4));
    has(&json, "config", "warning", "everybody");
    assert!(check(&json, "config")["advice"].as_str().unwrap().contains("chmod 600"));
}

#[test]
fn a_glance_and_a_keystone_that_are_down_are_problems_with_their_address() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().unwrap();
    let yaml = clouds_yaml(folder.path(), &lab.text("/keystone"), &lab.text("/users/lab-a/password"));
    let mut command = snapcow(["doctor", "--json", "--retries", "0"]);
    command.env("OS_CLIENT_CONFIG_FILE", &yaml).env("OS_IMAGE_ENDPOINT_OVERRIDE", "http://127.0.0.1:1");
    let json = checks(&run(&mut command).refuses(5, &["glance"]));
    has(&json, "login", "ok", "only");
    has(&json, "glance", "problem", "127.0.0.1:1");

    let yaml = clouds_yaml(folder.path(), "http://127.0.0.1:1/v3", "x");
    let mut command = snapcow(["doctor", "--json", "--retries", "0"]);
    let json = checks(&run(command.env("OS_CLIENT_CONFIG_FILE", &yaml)).refuses(5, &["login"]));
    has(&json, "login", "problem", "127.0.0.1:1");
}
