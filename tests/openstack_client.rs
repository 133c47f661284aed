//! The cloud client against the real Keystone and Glance of `tools/openstack`.
//!
//! The lab is found by `SNAPCOW_LAB` (default `target/lab`). Without one these tests say so and pass,
//! unless `SNAPCOW_REQUIRE=1`.
#![cfg(feature = "openstack")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use serde_json::Value;
use snapcow::error::{Error, Kind, Stage};
use snapcow::openstack::{
    Body, Cloud, CloudOptions, Created, Download, Image, NewImage, Settled, TlsOptions, Upload,
    why_not_convertible,
};

/// The servers of the lab, and whether their stores serve ranges.
const SERVERS: [(&str, bool); 5] = [
    ("lab-ranges", true),
    ("lab-noranges", false),
    ("lab-uwsgi", false),
    ("lab-uwsgi1", false),
    ("lab-tls", true),
];

struct Lab {
    folder: PathBuf,
    json: Value,
}

fn lab() -> Option<Lab> {
    let folder = PathBuf::from(std::env::var_os("SNAPCOW_LAB").unwrap_or_else(|| "target/lab".into()));
    match std::fs::read(folder.join("lab.json")) {
        Ok(json) => Some(Lab { folder, json: serde_json::from_slice(&json).unwrap() }),
        Err(error) => {
            assert!(
                std::env::var("SNAPCOW_REQUIRE").as_deref() != Ok("1"),
                "no lab in {}: {error}",
                folder.display()
            );
            eprintln!("SKIPPED: no lab in {}: run tools/openstack up", folder.display());
            None
        }
    }
}

impl Lab {
    fn text(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("lab.json has no {pointer}"))
            .to_owned()
    }

    async fn try_connect(&self, options: CloudOptions, extra: &[(&str, &str)]) -> Result<Cloud, Error> {
        let file = self.folder.join("clouds.yaml").to_string_lossy().into_owned();
        let mut vars: BTreeMap<String, String> =
            extra.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        vars.entry("OS_CLIENT_CONFIG_FILE".into()).or_insert(file);
        Cloud::connect_with(&options, &|name| vars.get(name).cloned(), Stage::Source).await
    }

    async fn connect(&self, cloud: &str) -> Cloud {
        self.try_connect(named(cloud), &[]).await.unwrap_or_else(|error| panic!("{cloud}: {error}"))
    }
}

fn named(cloud: &str) -> CloudOptions {
    CloudOptions { cloud: Some(cloud.to_owned()), ..CloudOptions::default() }
}

/// Runs a test as the product runs a transfer: on a current-thread runtime.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F) {
    if let Some(lab) = lab() {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(lab));
    }
}

fn new_image(name: &str) -> NewImage {
    NewImage {
        id: NewImage::new_id(),
        name: name.into(),
        disk_format: "raw".into(),
        container_format: "bare".into(),
        visibility: Some("private".into()),
        ..NewImage::default()
    }
}

/// Bytes that are no disk format and differ everywhere.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>().into()
}

/// A body of several frames, as the product sends it.
fn frames(data: &Bytes) -> reqwest::Body {
    let parts: Vec<Result<Bytes, std::io::Error>> =
        data.chunks(100_000).map(|part| Ok(data.slice_ref(part))).collect();
    reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
}

async fn all_of(mut body: Body) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = body.next().await.unwrap() {
        out.extend_from_slice(&bytes);
    }
    out
}

async fn uploaded(cloud: &Cloud, name: &str, data: &Bytes) -> Image {
    for _ in 0..3 {
        let new = new_image(name);
        let Created { image, dropped_properties } = cloud.create(&new).await.unwrap();
        assert_eq!((image.id.as_str(), image.status.as_str()), (new.id.as_str(), "queued"));
        assert!(dropped_properties.is_empty());
        match sent(cloud, &new.id, None, data).await {
            Ok(image) => return image,
            Err(error) => {
                eprintln!("stuck: {error}");
                cloud.delete(&new.id).await.unwrap();
            }
        }
    }
    panic!("every upload got stuck");
}

/// Sends as the product does: what is lost is settled and sent again (the lab's sqlite answers 500 with
/// «database is locked» now and then, and may leave an image `saving` for ever).
async fn sent(cloud: &Cloud, id: &str, store: Option<&str>, data: &Bytes) -> Result<Image, Error> {
    for _ in 0..5 {
        match cloud.upload(id, data.len() as u64, store, frames(data)).await {
            Upload::Done => return cloud.show(id).await,
            Upload::Lost(error) => eprintln!("lost: {error}"),
            Upload::Refused(error) => panic!("{error}"),
        }
        match cloud.settle(id, Duration::from_secs(10)).await? {
            Settled::Active(image) => return Ok(*image),
            Settled::Queued => {}
            Settled::Gone(status) => panic!("{status}"),
        }
    }
    panic!("no upload came through");
}

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
        let error = lab.connect("lab-ranges").await;
        drop(error);
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

#[test]
fn images_are_found_by_exact_names_and_ids() {
    run(|lab| async move {
        let cloud = lab.connect("lab-noranges").await;
        let unique = NewImage::new_id();
        let names = [
            "plain",
            "in:a,b",
            "comma, \"quote\" 'x'",
            "ümläut/✓ %41+&=?#",
            "eq:x",
            " space ",
            "2020-01-01T00:00:00Z",
        ];
        for name in names {
            let name = format!("{name} {unique}");
            let made = cloud.create(&new_image(&name)).await.unwrap().image;
            let found = cloud.find_images(&name).await.unwrap();
            assert_eq!(found.iter().map(|image| &image.id).collect::<Vec<_>>(), [&made.id], "{name}");
            assert!(cloud.find_images(&name.to_uppercase()).await.unwrap().is_empty());
            assert_eq!(cloud.find_images(&made.id).await.unwrap()[0].name.as_deref(), Some(name.as_str()));
            assert_eq!(cloud.images_named_in_project(&name).await.unwrap().len(), 1);
            cloud.delete(&made.id).await.unwrap();
            assert!(cloud.find_images(&made.id).await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_list_longer_than_a_page_is_read_to_its_end() {
    run(|lab| async move {
        let cloud = lab.connect("lab-noranges").await;
        let name = NewImage::new_id().replace('-', "x");
        let mut ids = Vec::new();
        for _ in 0..53 {
            ids.push(cloud.create(&new_image(&name)).await.unwrap().image.id);
        }
        let mut found: Vec<String> =
            cloud.find_images(&name).await.unwrap().into_iter().map(|image| image.id).collect();
        for id in &ids {
            cloud.delete(id).await.unwrap();
        }
        found.sort();
        ids.sort();
        assert_eq!(found, ids);
    });
}

#[test]
fn forbidden_properties_are_dropped_and_named() {
    run(|lab| async move {
        let cloud = lab.connect("lab-noranges").await;
        let mut new = new_image("properties");
        let wanted = [
            ("os_distro", "debian"),
            ("os_glance_b", "1"),
            ("a/b~c", "v"),
            ("os_glance_a", "1"),
            ("hw_x", "ü"),
        ];
        new.properties = wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        new.tags = vec!["t1".into(), "t ü".into()];
        (new.min_disk, new.min_ram) = (3, 512);
        let Created { image, dropped_properties } = cloud.create(&new).await.unwrap();
        assert_eq!(dropped_properties, ["os_glance_a", "os_glance_b"]);
        let kept: BTreeMap<String, String> =
            new.properties.into_iter().filter(|(key, _)| !key.starts_with("os_glance")).collect();
        assert_eq!(
            kept.iter().filter(|(key, value)| image.properties.get(*key) == Some(value)).count(),
            3,
            "{image:?}"
        );
        assert_eq!((image.min_disk, image.min_ram, image.tags.len()), (3, 512, 2));
        assert_eq!(image.visibility.as_deref(), Some("private"));
        assert!(why_not_convertible(&image).unwrap().0.contains("queued"));
        let again =
            cloud.for_stage(Stage::Sink).create(&new_image("x").with_id(&image.id)).await.unwrap_err();
        assert_eq!((again.kind(), again.stage()), (Kind::Target, Stage::Sink), "{again}");
        let public = NewImage { visibility: Some("public".into()), ..new_image("public") };
        assert_eq!(cloud.create(&public).await.unwrap_err().kind(), Kind::Login);
        cloud.delete(&image.id).await.unwrap();
        cloud.delete(&image.id).await.unwrap();
        assert_eq!(cloud.show(&image.id).await.unwrap_err().kind(), Kind::Source);
    });
}

trait WithId {
    fn with_id(self, id: &str) -> Self;
}

impl WithId for NewImage {
    fn with_id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }
}

#[test]
fn every_server_takes_and_gives_the_same_bytes() {
    for (server, ranges) in SERVERS {
        run(|lab| async move {
            let cloud = lab.connect(server).await;
            let data = pattern(3_000_001);
            let image = uploaded(&cloud, &format!("bytes on {server}"), &data).await;
            let size = data.len() as u64;
            assert_eq!((image.status.as_str(), image.size), ("active", Some(size)));
            assert_eq!(why_not_convertible(&image), None);
            let Download::Whole(body) = cloud.download(&image.id, None).await.unwrap() else {
                panic!("{server}")
            };
            assert_eq!(body.announced(), Some(size));
            assert!(all_of(body).await == data, "{server}");
            assert_eq!(cloud.probe_range(&image.id, size).await.unwrap(), ranges, "{server}");
            for range in [0..1, 1_000_000..2_000_000, size - 1..size] {
                match cloud.download(&image.id, Some(range.clone())).await.unwrap() {
                    Download::Part(body) if ranges => {
                        assert!(all_of(body).await == data[range.start as usize..range.end as usize]);
                    }
                    Download::NoRange if !ranges => {}
                    other => panic!("{server}: {other:?}"),
                }
            }
            let end = cloud.download(&image.id, Some(size - 1..size + 5)).await.unwrap();
            assert!(matches!(end, Download::NoRange), "{server}: {end:?}");
            let again = cloud.upload(&image.id, 3, None, reqwest::Body::from("abc")).await;
            assert!(
                matches!(&again, Upload::Refused(error) if error.kind() == Kind::Source),
                "{server}: {again:?}"
            );
            cloud.delete(&image.id).await.unwrap();
        });
    }
}

#[test]
fn a_queued_image_has_no_data_and_a_cut_upload_can_be_sent_again() {
    for (server, _) in SERVERS {
        run(|lab| async move {
            let cloud = lab.connect(server).await.for_stage(Stage::Sink);
            let new = new_image(&format!("cut on {server}"));
            cloud.create(&new).await.unwrap();
            assert!(matches!(cloud.download(&new.id, None).await.unwrap(), Download::NoData));
            let data = pattern(700_000);
            let cut: Vec<Result<Bytes, std::io::Error>> =
                vec![Ok(data.slice(..300_000)), Err(std::io::Error::other("the disk broke"))];
            let body = reqwest::Body::wrap_stream(futures_util::stream::iter(cut));
            let lost = cloud.upload(&new.id, 700_000, None, body).await;
            assert!(
                matches!(&lost, Upload::Lost(error) if error.kind() == Kind::Network),
                "{server}: {lost:?}"
            );
            let settled = cloud.settle(&new.id, Duration::from_secs(30)).await.unwrap();
            assert!(matches!(settled, Settled::Queued), "{server}: {settled:?}");
            sent(&cloud, &new.id, Some("fs2"), &data).await.unwrap();
            let Settled::Active(image) = cloud.settle(&new.id, Duration::from_secs(30)).await.unwrap() else {
                panic!()
            };
            assert_eq!(image.size, Some(700_000));
            cloud.delete(&new.id).await.unwrap();
            assert!(matches!(cloud.settle(&new.id, Duration::ZERO).await.unwrap(), Settled::Gone(_)));
        });
    }
}

#[test]
fn another_projects_image_and_a_wrong_format_are_refused_with_glances_words() {
    run(|lab| async move {
        let (cloud, other) = (lab.connect("lab-noranges").await, lab.connect("lab-b").await);
        let new = NewImage { disk_format: "qcow2".into(), ..new_image("no qcow2") };
        cloud.create(&new).await.unwrap();
        assert_eq!(other.show(&new.id).await.unwrap_err().kind(), Kind::Source);
        let refused = cloud.upload(&new.id, 100_000, None, frames(&pattern(100_000))).await;
        let Upload::Refused(error) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("415") && error.to_string().contains("qcow2"), "{error}");
        let nowhere = cloud.upload(&new.id, 3, Some("no-such-store"), reqwest::Body::from("abc")).await;
        assert!(matches!(nowhere, Upload::Refused(_)), "{nowhere:?}");
        cloud.delete(&new.id).await.unwrap();
    });
}

#[test]
fn one_cloud_serves_threads_with_runtimes_of_their_own() {
    run(|lab| async move {
        let cloud = lab.connect("lab-ranges").await;
        let data = pattern(1_000_000);
        let image = uploaded(&cloud, "threads", &data).await;
        for _ in 0..2 {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (cloud, id, data) = (cloud.clone(), image.id.clone(), data.clone());
                    std::thread::spawn(move || {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(async {
                            cloud.renew().await.unwrap();
                            for range in [0..500_000_u64, 500_000..1_000_000] {
                                let part = cloud.download(&id, Some(range.clone())).await.unwrap();
                                let Download::Part(body) = part else { panic!("{part:?}") };
                                assert!(all_of(body).await == data[range.start as usize..range.end as usize]);
                            }
                        });
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        cloud.delete(&image.id).await.unwrap();
    });
}

/// Runs only as a child of the next test, with a home of its own.
#[test]
#[ignore = "a child of a_login_leaves_no_file_behind"]
fn child_that_logs_in() {
    let with_cache = std::env::var("WITH_CACHE").is_ok();
    run(|lab| async move {
        if with_cache {
            let clouds =
                openstack_sdk::config::ConfigFile::builder().add_source(lab.folder.join("clouds.yaml"));
            let config = clouds
                .map_err(|_| ())
                .unwrap()
                .build()
                .unwrap()
                .get_cloud_config("lab-ranges")
                .unwrap()
                .unwrap();
            openstack_sdk::AsyncOpenStack::builder(&config).connect().await.unwrap();
        } else {
            let cloud = lab.connect("lab-ranges").await;
            cloud.renew().await.unwrap();
        }
    });
}

#[test]
fn a_login_leaves_no_file_behind() {
    let Some(lab) = lab() else { return };
    let files_after = |with_cache: bool| {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "child_that_logs_in", "--ignored"])
            .env("HOME", home.path())
            .env("SNAPCOW_LAB", lab.folder.canonicalize().unwrap());
        for name in ["CONFIG", "CACHE", "DATA", "STATE", "RUNTIME"] {
            let end = if name == "RUNTIME" { "DIR" } else { "HOME" };
            child.env(format!("XDG_{name}_{end}"), home.path().join(name));
        }
        if with_cache {
            child.env("WITH_CACHE", "1");
        }
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        count_files(home.path())
    };
    // With the SDK's cache on the files would be seen here; with ours there are none.
    assert!(files_after(true) > 0);
    assert_eq!(files_after(false), 0);
}

fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}
