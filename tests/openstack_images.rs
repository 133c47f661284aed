//! Images and their bytes against the real Keystone and Glance of `tools/openstack`; see `lab`.
#![cfg(all(feature = "cli", feature = "openstack"))]

mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lab::*;
use snapcow::error::{Kind, Stage};
use snapcow::openstack::{Created, Download, NewImage, Settled, Upload, why_not_convertible};

/// The servers of the lab, and whether their stores serve ranges.
const SERVERS: [(&str, bool); 5] = [
    ("lab-ranges", true),
    ("lab-noranges", false),
    ("lab-uwsgi", false),
    ("lab-uwsgi1", false),
    ("lab-tls", true),
];

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
                matches!(&lost, Upload::Lost(error, _) if error.kind() == Kind::Network),
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
