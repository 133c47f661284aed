//! A real Glance behind a real uWSGI at its default timeout, which cuts whoever is slow: a slow uplink, and
//! a service with a single worker.
#![cfg(all(feature = "cli", feature = "embedded"))]

#[path = "faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
mod lab;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{MIB, Noise, Tune, job, open, plan, sink, wait};
use bytes::Bytes;
use lab::{Lab, all_of, lab, named, new_image, uploaded};
use snapcow::convert::{Cancel, Receipt, RouteTaken, Target, convert};
use snapcow::embedded::{ImageData, prove_equal};
use snapcow::error::{Error, Kind, Stage};
use snapcow::openstack::{Cloud, Download};
use snapcow::source::Source as _;

/// What an attempt came to: the outcome, and the new image's ID.
type Attempt = (Result<Receipt, Error>, String);

/// Passes connections on; what goes up, it passes at `rate` bytes a second.
fn slow_uplink(to: &str, rate: u64) -> String {
    let to = to.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass(up, server, Some(rate)));
            std::thread::spawn(move || pass(down, client, None));
        }
    });
    address
}

/// Until one side ends; then both are told.
fn pass(mut from: TcpStream, mut to: TcpStream, rate: Option<u64>) {
    let (begin, mut passed) = (Instant::now(), 0u64);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 || to.write_all(&buffer[..len]).is_err() {
            break;
        }
        passed += len as u64;
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(passed as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

fn bytes_of(disk: &Noise) -> Bytes {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes);
    bytes.into()
}

/// Converts an image that has been looked up by `down` into a new one that goes up by `up`.
fn attempt(down: &Cloud, up: &Cloud, source: &str, tune: &Tune) -> Attempt {
    let source = open(&down.for_stage(Stage::Source), source).unwrap();
    let plan = plan(source.facts().clone(), tune).unwrap();
    let digest = source.digest();
    let mut new = new_image("uwsgi-compact");
    new.disk_format = "qcow2".into();
    let created = wait(down.create(&new)).unwrap();
    let cancel = Cancel::new();
    let sink = sink(up, &created, &plan, cancel.clone());
    let job = job(Arc::new(source), digest, tune, cancel);
    (convert(&plan, &job, Target::Delivery(Box::new(sink))), new.id)
}

fn check(cloud: &Cloud, disk: &Noise, attempt: Attempt) -> Receipt {
    let (result, id) = attempt;
    let receipt = result.unwrap_or_else(|error| panic!("{error}"));
    let made = wait(async {
        let Download::Whole(body) = cloud.download(&id, None).await.unwrap() else {
            panic!("{id} has no data")
        };
        all_of(body).await
    });
    wait(cloud.delete(&id)).unwrap();
    prove_equal(disk, Arc::new(Bytes::from(made))).unwrap();
    receipt
}

/// Runs a test with an image in one of the lab's clouds; the image is deleted afterwards.
fn with_image(cloud: &str, disk: &Noise, test: impl FnOnce(&Lab, &Cloud, &str)) {
    let Some(lab) = lab() else { return };
    let cloud = wait(lab.connect(cloud));
    let image = wait(uploaded(&cloud, "uwsgi-snapshot", &bytes_of(disk)));
    test(&lab, &cloud, &image.id);
    wait(cloud.delete(&image.id)).unwrap();
}

#[test]
fn a_slow_uplink_is_no_reason_to_be_cut() {
    let disk = Noise { len: 48 * MIB, extents: vec![0..24 * MIB, 40 * MIB..48 * MIB] };
    with_image("lab-uwsgi", &disk, |lab, cloud, source| {
        let proxy = slow_uplink(cloud.image_endpoint(), 3 * MIB / 2);
        // The same cloud, entered by another door.
        let clouds = std::fs::read_to_string(lab.folder.join("clouds.yaml")).unwrap();
        let moved = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        let entry = "\n  lab-uwsgi:\n";
        assert!(clouds.contains(entry));
        let door = format!("{entry}    image_endpoint_override: \"{proxy}\"\n");
        std::fs::write(moved.path(), clouds.replacen(entry, &door, 1)).unwrap();
        let file = moved.path().to_str().unwrap();
        let up = wait(lab.try_connect(named("lab-uwsgi"), &[("OS_CLIENT_CONFIG_FILE", file)])).unwrap();
        assert_eq!(up.image_endpoint().trim_end_matches('/'), proxy);
        let receipt = check(cloud, &disk, attempt(cloud, &up, source, &Tune::reread().narrow()));
        assert_eq!(receipt.route, Some(RouteTaken::Reread));
        assert_eq!(receipt.delivered.unwrap().retries, 0, "the upload was cut");
    });
}

#[test]
fn a_single_worker_serves_the_spool_route_and_stops_a_second_read() {
    let disk = Noise::full(48 * MIB);
    with_image("lab-uwsgi1", &disk, |_, cloud, source| {
        let receipt = check(cloud, &disk, attempt(cloud, cloud, source, &Tune::spool()));
        assert_eq!(receipt.route, Some(RouteTaken::Spool));

        let (result, id) = attempt(cloud, cloud, source, &Tune::reread().narrow());
        let error = result.expect_err("one worker cannot serve two at once");
        assert_eq!((error.stage(), error.kind()), (Stage::Source, Kind::Network), "{error}");
        assert!(error.to_string().contains("--spool-disk"), "{error}");
        let left = wait(cloud.find_images(&id)).unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}
