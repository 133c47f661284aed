//! Faults of a real Glance: killed with transfers under way and started again, tokens that live shorter than a
//! transfer, a store that is full. These tests have the lab for themselves, one after the other.
#![cfg(feature = "embedded")]

#[path = "faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
mod lab;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bench::{MIB, Noise, Tune, job, open, plan, sink, wait};
use bytes::Bytes;
use lab::{Lab, all_of, lab, named, new_image, uploaded};
use snapcow::convert::{Cancel, Receipt, Target, convert};
use snapcow::embedded::{ImageData, prove_equal};
use snapcow::error::{Error, Kind, Stage};
use snapcow::openstack::{Cloud, Download};
use snapcow::retry::Retry;
use snapcow::source::Source as _;

/// The variant that is treated badly.
const PART: &str = "noranges";
static ALONE: Mutex<()> = Mutex::new(());

/// A door before a Glance that lets so many bytes a second through each way, and counts them.
struct Door {
    url: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Door {
    fn open(to: &str, rate: u64) -> Self {
        let to = to.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let door = Self { url, up: Arc::default(), down: Arc::default() };
        let (up, down) = (Arc::clone(&door.up), Arc::clone(&door.down));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Nobody may be there: then the client is told by a closed connection.
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                std::thread::spawn(move || pass(from, server, rate, &up));
                std::thread::spawn(move || pass(back, client, rate, &down));
            }
        });
        door
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, rate: u64, count: &AtomicU64) {
    let (begin, mut passed) = (Instant::now(), 0);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
        passed += len as u64;
        count.fetch_add(len as u64, Ordering::SeqCst);
        let due = Duration::from_secs_f64(passed as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

fn openstack(lab: &Lab, words: &[&str]) {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/openstack");
    let folder = std::fs::canonicalize(&lab.folder).unwrap();
    let status = Command::new(tool).args(words).env("SNAPCOW_LAB", folder).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// A lab, a cloud of it, an image in it, and the same cloud through a door.
fn with_image(disk: &Noise, rate: u64, test: impl FnOnce(&Lab, &Cloud, &Cloud, &Door, &str)) {
    let Some(lab) = lab() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("lab-{PART}");
    let cloud = wait(lab.connect(&name));
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_at(0, &mut bytes);
    let image = wait(uploaded(&cloud, "lab-faults-snapshot", &Bytes::from(bytes)));
    let door = Door::open(cloud.image_endpoint(), rate);
    let vars = [("OS_IMAGE_ENDPOINT_OVERRIDE", door.url.as_str())];
    let through = wait(lab.try_connect(named(&name), &vars)).unwrap();
    assert_eq!(through.image_endpoint().trim_end_matches('/'), door.url);
    test(&lab, &cloud, &through, &door, &image.id);
    wait(cloud.delete(&image.id)).unwrap();
}

/// Converts an image; the result and the new image's ID.
fn attempt(cloud: &Cloud, source: &str, tune: &Tune) -> (Result<Receipt, Error>, String) {
    let source = open(&cloud.for_stage(Stage::Source), source).unwrap();
    let plan = plan(source.facts().clone(), tune).unwrap();
    let digest = source.digest();
    let mut new = new_image("lab-faults-compact");
    new.disk_format = "qcow2".into();
    let created = wait(cloud.for_stage(Stage::Sink).create(&new)).unwrap();
    let cancel = Cancel::new();
    let sink = sink(cloud, &created, &plan, cancel.clone());
    let job = job(Arc::new(source), digest, tune, cancel);
    (convert(&plan, &job, Target::Delivery(Box::new(sink))), new.id)
}

#[track_caller]
fn check(cloud: &Cloud, disk: &Noise, result: Result<Receipt, Error>, id: &str) -> Receipt {
    let receipt = result.unwrap_or_else(|error| panic!("{error}"));
    let made = wait(async {
        let Download::Whole(body) = cloud.download(id, None).await.unwrap() else { panic!("{id}: no data") };
        all_of(body).await
    });
    wait(cloud.delete(id)).unwrap();
    prove_equal(disk, Arc::new(Bytes::from(made))).unwrap();
    receipt
}

#[track_caller]
fn is_gone(cloud: &Cloud, id: &str) {
    let left = wait(cloud.find_images(id)).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Converts, and treats Glance badly as soon as `bytes` have passed one way.
fn attempt_with(
    cloud: &Cloud,
    source: &str,
    tune: &Tune,
    passed: &AtomicU64,
    bytes: u64,
    bad: impl FnOnce() + Send,
) -> (Result<Receipt, Error>, String) {
    passed.store(0, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            while passed.load(Ordering::SeqCst) < bytes {
                assert!(begin.elapsed() < Duration::from_secs(120), "the transfer never came so far");
                std::thread::sleep(Duration::from_millis(5));
            }
            bad();
        });
        attempt(cloud, source, tune)
    })
}

#[test]
fn a_glance_that_is_killed_while_it_sends_and_restarted_is_survived() {
    let disk = Noise { len: 48 * MIB, extents: vec![0..24 * MIB, 40 * MIB..48 * MIB] };
    with_image(&disk, 12 * MIB, |lab, cloud, through, door, source| {
        let cloud_of_run = through.with_retry(Retry::default());
        let bad = || {
            openstack(lab, &["kill", PART]);
            openstack(lab, &["restart", PART]);
        };
        let (result, id) = attempt_with(&cloud_of_run, source, &Tune::spool(), &door.down, 10 * MIB, bad);
        check(cloud, &disk, result, &id);
        assert!(door.down.load(Ordering::SeqCst) > 50 * MIB, "nothing broke");
    });
}

#[test]
fn a_glance_that_is_killed_while_it_takes_and_restarted_is_survived() {
    let disk = Noise::at(32 * MIB, 0..24 * MIB);
    with_image(&disk, 12 * MIB, |lab, cloud, through, door, source| {
        let cloud_of_run = through.with_retry(Retry { time: Duration::from_secs(40), ..Retry::default() });
        let bad = || {
            openstack(lab, &["kill", PART]);
            openstack(lab, &["restart", PART]);
        };
        let (result, id) = attempt_with(&cloud_of_run, source, &Tune::spool(), &door.up, 8 * MIB, bad);
        match result {
            Ok(_) => {
                let receipt = check(cloud, &disk, result, &id);
                println!("sent again, {} times", receipt.delivered.unwrap().retries);
            }
            // Whoever might have put the image back to `queued` was killed: nobody can send it again.
            Err(error) => {
                println!("{error}");
                assert_eq!((error.stage(), error.kind()), (Stage::Sink, Kind::Network), "{error}");
                assert!(error.to_string().contains("still `saving`"), "{error}");
                is_gone(cloud, &id);
                let (result, id) = attempt(&cloud_of_run, source, &Tune::spool());
                check(cloud, &disk, result, &id);
            }
        }
    });
}

#[test]
fn tokens_that_live_shorter_than_a_transfer_are_renewed() {
    let Some(own) = lab() else { return };
    let life = own.json["token_ttl"].as_u64().unwrap_or(u64::MAX);
    if life > 30 {
        eprintln!("SKIPPED: tokens live for {life} s: tools/openstack up --token-ttl 20");
        return;
    }
    let disk = Noise::full(48 * MIB);
    // Half a minute for each way, and a second read beside the upload.
    with_image(&disk, 2 * MIB, |_, cloud, through, _, source| {
        let begin = Instant::now();
        let (result, id) = attempt(&through.with_retry(Retry::default()), source, &Tune::reread());
        let receipt = check(cloud, &disk, result, &id);
        assert!(begin.elapsed() > Duration::from_secs(2 * life), "{:?}", begin.elapsed());
        assert_eq!(receipt.delivered.unwrap().retries, 0);
    });
}

/// A limit on the size of files that a part of the lab may write, which its store calls full; lifted when dropped.
struct Limited(Vec<String>);

impl Limited {
    fn new(lab: &Lab, bytes: u64) -> Self {
        let main = lab.json["pids"][PART].as_u64().unwrap().to_string();
        let children = Command::new("pgrep").args(["-P", &main]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let limited = Self(children.lines().map(str::to_owned).chain([main]).collect());
        limited.set(&bytes.to_string());
        limited
    }

    /// The soft limit alone: a hard one that was lowered takes a privilege to be raised again.
    fn set(&self, size: &str) {
        for pid in &self.0 {
            let status =
                Command::new("prlimit").args(["--pid", pid, &format!("--fsize={size}:")]).status().unwrap();
            assert!(status.success() || std::thread::panicking(), "prlimit of {pid}");
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.set("unlimited");
    }
}

#[test]
fn a_full_store_is_said_and_nothing_is_left() {
    let disk = Noise::full(48 * MIB);
    with_image(&disk, 64 * MIB, |lab, cloud, through, _, source| {
        let limited = Limited::new(lab, 16 * MIB);
        let retry = Retry { retries: 1, time: Duration::from_secs(20), ..Retry::default() };
        let (result, id) = attempt(&through.with_retry(retry), source, &Tune::spool());
        drop(limited);
        let error = result.unwrap_err();
        println!("{error}");
        assert_eq!(error.stage(), Stage::Sink, "{error}");
        // Glance says so before it has read all, and a reset may overtake its answer.
        let words = match error.kind() {
            Kind::Target => "storage media is full",
            Kind::Network => "where a quota is full",
            _ => panic!("{error}"),
        };
        assert!(error.to_string().contains(words), "{error}");
        is_gone(cloud, &id);
        let (result, id) = attempt(&through.with_retry(Retry::default()), source, &Tune::spool());
        check(cloud, &disk, result, &id);
    });
}
