//! Logins against the real Keystone and Glance of `tools/openstack`; see `lab`.
#![cfg(all(feature = "cli", feature = "openstack"))]

mod lab;

use std::path::{Path, PathBuf};
use std::process::Command;

use lab::*;
use secrecy::SecretString;
use snapcow::error::{Kind, Stage};
use snapcow::openstack::{Cloud, CloudOptions, TlsOptions};

#[test]
fn wrong_credentials_are_a_login_failure_without_a_secret() {
    run(|lab| async move {
        let keystone = lab.text("/keystone");
        let vars = [
            ("OS_AUTH_URL", keystone.as_str()),
            ("OS_USERNAME", "lab-a"),
            ("OS_PASSWORD", "hunter2-hunter2"),
            ("OS_PROJECT_NAME", "lab-a"),
        ];
        let error = lab.try_connect(CloudOptions::default(), &vars).await.unwrap_err();
        assert_eq!((error.kind(), error.stage()), (Kind::Login, Stage::Source), "{error}");
        assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
        assert!(error.to_string().contains("check user, password"), "{error}");
        let error = lab.try_connect(CloudOptions::default(), &vars[..2]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Login, "{error}");
        assert!(error.to_string().contains("password"), "{error}");
        println!("{error}");
    });
}

#[test]
fn unknown_clouds_and_regions_are_named_with_those_that_are_there() {
    run(|lab| async move {
        let error = lab.try_connect(named("nowhere"), &[]).await.unwrap_err();
        assert!(error.kind() == Kind::Login && error.to_string().contains("`lab-ranges`"), "{error}");
        let options = CloudOptions { region_name: Some("Mars".into()), ..named("lab-ranges") };
        let error = lab.try_connect(options, &[]).await.unwrap_err();
        assert!(error.kind() == Kind::Login && error.to_string().contains("RegionNoRanges"), "{error}");
    });
}

#[test]
fn an_unreachable_keystone_is_a_network_failure_with_its_cause() {
    run(|lab| async move {
        let vars = [
            ("OS_AUTH_URL", "http://127.0.0.1:1/v3"),
            ("OS_USERNAME", "u"),
            ("OS_PASSWORD", "p"),
            ("OS_PROJECT_NAME", "p"),
        ];
        let error = lab.try_connect(CloudOptions::default(), &vars).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    });
}

#[test]
fn tls_is_believed_only_with_its_ca() {
    run(|lab| async move {
        let (ca, keystone) = (lab.text("/ca"), lab.text("/keystone_tls"));
        let password = lab.text("/users/lab-a/password");
        let vars = [
            ("OS_AUTH_URL", keystone.as_str()),
            ("OS_USERNAME", "lab-a"),
            ("OS_PASSWORD", password.as_str()),
            ("OS_PROJECT_NAME", "lab-a"),
            ("OS_REGION_NAME", "RegionTls"),
        ];
        let error = lab.try_connect(CloudOptions::default(), &vars).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error}");
        assert!(
            error.to_string().contains("not trusted") && error.to_string().contains("--os-cacert"),
            "{error}"
        );
        let trusting = CloudOptions { cacert: Some(ca.clone().into()), ..CloudOptions::default() };
        let blind = CloudOptions { insecure: true, ..CloudOptions::default() };
        let mut with_variable = vars.to_vec();
        with_variable.push(("OS_CACERT", &ca));
        for cloud in [
            lab.try_connect(trusting, &vars).await,
            lab.try_connect(blind, &vars).await,
            lab.try_connect(CloudOptions::default(), &with_variable).await,
        ] {
            assert!(cloud.unwrap().find_images("no such image").await.unwrap().is_empty());
        }
        // Keystone is trusted, Glance is not: its certificate is looked at too.
        let glance = lab.text("/variants/tls/url");
        let bare =
            Cloud::with_token(&glance, SecretString::from("t"), &TlsOptions::default(), Stage::Sink).unwrap();
        let error = bare.find_images("x").await.unwrap_err();
        assert!(
            error.kind() == Kind::Network
                && error.stage() == Stage::Sink
                && error.to_string().contains("not trusted"),
            "{error}"
        );
    });
}

#[test]
fn application_credentials_and_overrides_work() {
    run(|lab| async move {
        let cloud = lab.connect("lab-appcred").await;
        assert_eq!(cloud.project_id(), Some(lab.text("/projects/lab-a").as_str()));
        assert!(cloud.find_images("no such image").await.unwrap().is_empty());
        let cloud = lab.connect("lab-override").await;
        assert_eq!(cloud.image_endpoint().trim_end_matches('/'), lab.text("/variants/noranges/url"));
        cloud.renew().await.unwrap();
        assert!(cloud.find_images("no such image").await.unwrap().is_empty());
    });
}

/// A token from Keystone by hand.
async fn token_of(lab: &Lab) -> String {
    let domain = serde_json::json!({"id": "default"});
    let user =
        serde_json::json!({"name": "lab-a", "password": lab.text("/users/lab-a/password"), "domain": domain});
    let body = serde_json::json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": "lab-a", "domain": domain}}
    }});
    let url = format!("{}/auth/tokens", lab.text("/keystone"));
    let request =
        reqwest::Client::new().post(url).header("Content-Type", "application/json").body(body.to_string());
    let answer = request.send().await.unwrap();
    answer.headers()["x-subject-token"].to_str().unwrap().to_owned()
}

#[test]
fn a_token_logs_in_with_and_without_keystone() {
    run(|lab| async move {
        let token = token_of(&lab).await;
        let (keystone, glance, project) =
            (lab.text("/keystone"), lab.text("/variants/noranges/url"), lab.text("/projects/lab-a"));
        let vars = [
            ("OS_AUTH_URL", keystone.as_str()),
            ("OS_AUTH_TYPE", "token"),
            ("OS_TOKEN", &token),
            ("OS_PROJECT_ID", &project),
            ("OS_REGION_NAME", "RegionNoRanges"),
        ];
        let cloud = lab.try_connect(CloudOptions::default(), &vars).await.unwrap();
        assert!(cloud.find_images("no such image").await.unwrap().is_empty());
        let bare = [("OS_TOKEN", token.as_str()), ("OS_ENDPOINT", &glance)];
        let cloud = lab.try_connect(CloudOptions::default(), &bare).await.unwrap();
        assert!(cloud.find_images("no such image").await.unwrap().is_empty());
        let wrong =
            Cloud::with_token(&glance, SecretString::from("wrong"), &TlsOptions::default(), Stage::Source)
                .unwrap();
        let error = wrong.find_images("x").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Login, "{error}");
    });
}

/// Runs only as a child of the next test, with a home of its own.
#[test]
#[ignore = "a child of a_login_leaves_nothing_behind"]
fn child_that_logs_in() {
    run(|_| async move {
        let options = CloudOptions { cloud: Some("lab-ranges".into()), ..CloudOptions::default() };
        let cloud = Cloud::connect(&options, Stage::Source).await.unwrap();
        cloud.renew().await.unwrap();
    });
}

#[test]
fn a_login_leaves_nothing_behind() {
    let Some(lab) = lab() else { return };
    let home = tempfile::tempdir().unwrap();
    // The login finds its cloud in this home only, so nobody writes to another one.
    let folder = home.path().join(".config/openstack");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(lab.folder.join("clouds.yaml"), folder.join("clouds.yaml")).unwrap();
    let before = paths(home.path());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "child_that_logs_in", "--ignored"])
        .env("HOME", home.path())
        .env("SNAPCOW_LAB", lab.folder.canonicalize().unwrap())
        .current_dir(home.path());
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        child.env_remove(name);
    }
    let output = child.env_remove("OS_CLIENT_CONFIG_FILE").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(paths(home.path()), before);
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(paths(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
