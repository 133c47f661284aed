//! The lab of `tools/openstack`: takes `SNAPCOW_LAB` (default `target/lab`), gives logins and images to tests.
//!
//! Without a lab the tests say so and pass, unless `SNAPCOW_REQUIRE=1`.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod command;
pub mod disk;
pub mod machine;
pub mod proxy;
pub mod rest;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use snapcow::error::{Error, Stage};
use snapcow::openstack::{Body, Cloud, CloudOptions, Created, Image, NewImage, Settled, Upload};

pub struct Lab {
    pub folder: PathBuf,
    pub json: Value,
}

pub fn lab() -> Option<Lab> {
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
    pub fn text(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("lab.json has no {pointer}"))
            .to_owned()
    }

    pub async fn try_connect(&self, options: CloudOptions, extra: &[(&str, &str)]) -> Result<Cloud, Error> {
        let file = self.folder.join("clouds.yaml").to_string_lossy().into_owned();
        let mut vars: BTreeMap<String, String> =
            extra.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        vars.entry("OS_CLIENT_CONFIG_FILE".into()).or_insert(file);
        Cloud::connect_with(&options, &|name| vars.get(name).cloned(), Stage::Source).await
    }

    pub async fn connect(&self, cloud: &str) -> Cloud {
        self.try_connect(named(cloud), &[]).await.unwrap_or_else(|error| panic!("{cloud}: {error}"))
    }
}

pub fn named(cloud: &str) -> CloudOptions {
    CloudOptions { cloud: Some(cloud.to_owned()), ..CloudOptions::default() }
}

/// Runs a test as the product runs a transfer: on a current-thread runtime.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F) {
    if let Some(lab) = lab() {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(lab));
    }
}

pub fn new_image(name: &str) -> NewImage {
    NewImage::private(name, "raw")
}

/// Bytes that are no disk format and differ everywhere.
pub fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>().into()
}

/// A body of several frames, as the product sends it.
pub fn frames(data: &Bytes) -> reqwest::Body {
    let parts: Vec<Result<Bytes, std::io::Error>> =
        data.chunks(100_000).map(|part| Ok(data.slice_ref(part))).collect();
    reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
}

pub async fn all_of(mut body: Body) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = body.next().await.unwrap() {
        out.extend_from_slice(&bytes);
    }
    out
}

pub async fn uploaded(cloud: &Cloud, name: &str, data: &Bytes) -> Image {
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
pub async fn sent(cloud: &Cloud, id: &str, store: Option<&str>, data: &Bytes) -> Result<Image, Error> {
    for _ in 0..5 {
        match cloud.upload(id, data.len() as u64, store, frames(data)).await {
            Upload::Done => return cloud.show(id).await,
            Upload::Lost(error, _) => eprintln!("lost: {error}"),
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
