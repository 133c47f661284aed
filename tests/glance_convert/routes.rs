//! Glance to Glance: every server, every route, the same bytes.

use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::lab::command::{Ran, convert_in, run};
use crate::lab::disk::{Noise, disk};
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab};
use crate::proof::image_equals;

const MIB: u64 = 1 << 20;

/// What one conversion of the shared disk gave.
struct Converted {
    ran: Ran,
    report: Value,
    image: Value,
}

/// Converts the shared disk, proves the result, looks at the report, deletes the image.
#[track_caller]
fn converted(lab: &Lab, cloud: &str, more: &[&str]) -> Converted {
    converted_as(lab, cloud, more, None)
}

/// The same, where the bytes have to be those of another run, by Glance's hash, if there is one: then what
/// has been proven of those holds for these.
fn converted_as(lab: &Lab, cloud: &str, more: &[&str], proven: Option<&Value>) -> Converted {
    let rest = Rest::new(lab);
    let disk = disk(lab);
    let target = Named::new(&rest, "route");
    let folder = tempfile::tempdir().unwrap();
    // The report that was asked for is no write of the conversion: it goes to memory.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (report, spool) = (memory.path().join("report.json"), folder.path().join("spool"));
    std::fs::create_dir(&spool).unwrap();
    let (source, glance) = (format!("glance:{}", disk.name), target.glance());
    let (report_word, spool_word) = (report.to_str().unwrap(), spool.to_str().unwrap());
    let words =
        [&[source.as_str(), &glance, "--report", report_word, "--spool-dir", spool_word], more].concat();
    let ran = run(&mut convert_in(lab, cloud, words)).ok();
    let id = ran.image_id();
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let image = match proven {
        Some(hash) => {
            let image = rest.show(&id);
            assert_eq!(image["os_hash_value"], *hash);
            image
        }
        None => image_equals(&rest, &id, &disk.raw),
    };
    check_report(&report, &image, &rest.show(&disk.id));
    assert_eq!(target.images().len(), 1);
    println!(
        "{cloud} {more:?}: {}, {} MiB peak, {} B to disks, {:.1} s",
        report["receipt"]["route"],
        ran.peak_rss_bytes / MIB,
        ran.disk_write_bytes,
        ran.wall.as_secs_f64()
    );
    Converted { ran, report, image }
}

#[track_caller]
fn check_report(report: &Value, image: &Value, source: &Value) {
    let receipt = &report["receipt"];
    assert_eq!(report["schema"], "snapcow/report/1");
    assert_eq!((&report["outcome"], &report["exit_code"]), (&json!("ok"), &json!(0)));
    assert_eq!(report["image_id"], image["id"]);
    assert_eq!(receipt["target_digest"], json!({"algorithm": "sha512", "value": image["os_hash_value"]}));
    assert_eq!(receipt["source_digest"], json!({"algorithm": "sha512", "value": source["os_hash_value"]}));
    assert_eq!(receipt["image_bytes"], image["size"]);
    assert_eq!(
        (&receipt["source_len_bytes"], &receipt["virtual_size_bytes"]),
        (&source["size"], &source["size"])
    );
    for stage in ["source", "scan", "encode", "place", "sink"] {
        assert!(report["stages"][stage].is_object(), "{stage}");
    }
    let scan = &report["stages"]["scan"];
    let sum = scan["zero_bytes"].as_u64().unwrap() + scan["data_bytes"].as_u64().unwrap();
    assert_eq!(sum, source["size"].as_u64().unwrap());
    assert_eq!(report["stages"]["place"]["image_bytes"], image["size"]);
}

/// With defaults every server gives the same bytes, and memory stays within bounds.
#[track_caller]
fn with_defaults(cloud: &str) {
    static HASH: Mutex<Option<Value>> = Mutex::new(None);
    let Some(lab) = lab() else { return };
    // Each is proven by itself where there is time for it.
    let full = std::env::var("SNAPCOW_FULL").as_deref() == Ok("1");
    let proven = HASH.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone().filter(|_| !full);
    let words = ["--spool-disk", "1GiB"];
    let Converted { ran, report, image } = converted_as(&lab, cloud, &words, proven.as_ref());
    assert_eq!(report["receipt"]["route"], "spool");
    assert!(ran.peak_rss_bytes <= 400 * MIB, "{}", ran.peak_rss_bytes);
    let hash = &image["os_hash_value"];
    let mut known = HASH.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert_eq!(known.get_or_insert(hash.clone()), hash);
}

#[test]
fn a_store_without_ranges_serves() {
    with_defaults("lab-noranges");
}

#[test]
fn a_store_with_ranges_serves() {
    with_defaults("lab-ranges");
}

#[test]
fn uwsgi_serves() {
    with_defaults("lab-uwsgi");
}

#[test]
fn a_server_with_tls_serves() {
    with_defaults("lab-tls");
}

/// Another login or address, the same services: the bytes' way is no other, so few of them do.
#[track_caller]
fn another_way_in(cloud: &str) {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "way in"), Named::new(&rest, "way out"));
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let bytes = [vec![0; 3 << 20], Noise(31).bytes(5 << 20), b"end".repeat(200_000)].concat();
    std::fs::write(&raw, &bytes).unwrap();
    rest.make(&source.name, &bytes, json!({}));
    let ran = run(&mut convert_in(&lab, cloud, [source.glance(), target.glance()])).ok();
    image_equals(&rest, &ran.image_id(), &raw);
}

#[test]
fn an_application_credential_serves() {
    another_way_in("lab-appcred");
}

#[test]
fn an_endpoint_from_clouds_yaml_serves() {
    another_way_in("lab-override");
}

/// The small machine: no spool on disk, 128 MiB.
#[track_caller]
fn with_little(cloud: &str, more: &[&str], proven: Option<&Value>) -> Converted {
    let lab = lab().unwrap();
    // Who reads a file for the first time since it was written has its new access time written, and counted
    // to him, by the kernel: program, libraries and clouds.yaml may be as new as that.
    let source = format!("glance:{}", disk(&lab).name);
    run(&mut convert_in(&lab, cloud, ["-q", "--dry-run", &source, "glance:never made"])).ok();
    let words = [&["--spool-disk", "0", "--memory", "128MiB", "--compression", "none"], more].concat();
    let converted = converted_as(&lab, cloud, &words, proven);
    assert_eq!(converted.report["receipt"]["route"], "reread");
    assert!(converted.report["receipt"]["spool"]["dropped_bytes"].as_u64().unwrap() > 0);
    assert!(converted.report["receipt"]["spool_disk_to_save_reread_bytes"].as_u64().unwrap() > 0);
    assert_eq!(converted.ran.disk_write_bytes, 0);
    assert!(converted.ran.peak_rss_bytes <= 256 * MIB, "{}", converted.ran.peak_rss_bytes);
    assert!(converted.ran.stderr.contains("would have saved"), "{}", converted.ran.stderr);
    converted
}

#[test]
fn a_small_machine_reads_twice_and_sends_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let in_order = with_little("lab-noranges", &[], None);
    let proven = Some(&in_order.image["os_hash_value"]);
    let ranges = with_little("lab-ranges", &[], proven);
    with_little("lab-uwsgi", &["--threads", "1"], proven);
    let on_disk = converted_as(
        &lab,
        "lab-noranges",
        &["--memory", "128MiB", "--compression", "none", "--spool-disk", "4GiB"],
        proven,
    );
    assert_eq!(on_disk.report["receipt"]["route"], "spool");
    assert!(on_disk.report["receipt"]["spool"]["disk_written_bytes"].as_u64().unwrap() > 0);
    let memory = if disk(&lab).len > 4 << 30 { "2600MiB" } else { "1GiB" };
    let words = ["--memory", memory, "--compression", "none", "--spool-disk", "0"];
    let in_memory = converted_as(&lab, "lab-ranges", &words, proven);
    assert_eq!((&in_memory.report["receipt"]["route"], in_memory.ran.disk_write_bytes), (&json!("spool"), 0));
    let again =
        |run: &Converted| run.report["stages"]["source"]["read_bytes"].as_u64().unwrap() - disk(&lab).len;
    let dropped = |run: &Converted| run.report["receipt"]["spool"]["dropped_bytes"].as_u64().unwrap();
    // Where ranges work, what is missing is read again, with short runs of zeros; else all that lies before it.
    assert!(again(&ranges) < dropped(&ranges) * 3 / 2, "{} of {}", again(&ranges), dropped(&ranges));
    assert!(again(&in_order) < disk(&lab).len * 3 / 4, "{}", again(&in_order));
    println!("read again: {} by ranges, {} in order", again(&ranges), again(&in_order));
}

#[test]
fn the_records_of_both_images_differ_only_where_they_must() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let source = rest.show(&disk(&lab).id);
    let words =
        ["--property", "os_distro=snapcow", "--property", "mine=1", "--tag", "mine", "--compression", "zstd"];
    let image = converted(&lab, "lab-noranges", &words).image;
    let must_differ = [
        "id",
        "name",
        "self",
        "file",
        "disk_format",
        "size",
        "virtual_size",
        "checksum",
        "os_hash_value",
        "created_at",
        "updated_at",
        "tags",
        "os_distro",
        "mine",
        "stores",
        "direct_url",
        "locations",
        "owner_specified.openstack.md5",
        "img_signature_hash_method",
        "cinder_encryption_key_deletion_policy",
    ];
    for (key, value) in source.as_object().unwrap() {
        assert!(
            must_differ.contains(&key.as_str()) || image[key] == *value,
            "{key}: {value} became {}",
            image[key]
        );
    }
    for never in [
        "owner_specified.openstack.md5",
        "img_signature_hash_method",
        "cinder_encryption_key_deletion_policy",
    ] {
        assert!(source.get(never).is_some() && image.get(never).is_none(), "{never}");
    }
    for key in image.as_object().unwrap().keys() {
        assert!(source.get(key).is_some() || key == "mine", "{key} is new");
    }
    assert_eq!(
        (&image["os_distro"], &image["mine"], &image["hw_disk_bus"]),
        (&json!("snapcow"), &json!("1"), &json!("virtio"))
    );
    assert_eq!((&image["min_disk"], &image["min_ram"]), (&json!(12), &json!(96)));
    assert_eq!((&image["visibility"], &image["virtual_size"]), (&json!("private"), &source["size"]));
    let mut tags: Vec<_> =
        image["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["mine", "seeded", "snapshot"]);
}

#[test]
fn hidden_and_protected_stay_with_the_source_and_other_wishes_are_heard() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "hidden"), Named::new(&rest, "unhidden"));
    let data = vec![7; 1 << 20];
    let more =
        json!({"os_hidden": true, "protected": true, "hw_disk_bus": "scsi", "tags": ["t"], "min_ram": 5});
    rest.make(&source.name, &data, more);
    let words = [
        "--copy-properties",
        "off",
        "--min-disk",
        "3",
        "--min-ram",
        "7",
        "--visibility",
        "shared",
        "--store",
        "fs2",
    ];
    let (from, to) = (source.glance(), target.glance());
    let words = [[from.as_str(), &to].as_slice(), &words].concat();
    let ran = run(&mut convert_in(&lab, "lab-ranges", words)).ok();
    let folder = tempfile::tempdir().unwrap();
    let raw: &Path = &folder.path().join("raw");
    std::fs::write(raw, &data).unwrap();
    let image = image_equals(&rest, &ran.image_id(), raw);
    assert_eq!(
        (&image["os_hidden"], &image["protected"], &image["visibility"]),
        (&json!(false), &json!(false), &json!("shared"))
    );
    assert_eq!((&image["min_disk"], &image["min_ram"], &image["tags"]), (&json!(3), &json!(7), &json!([])));
    assert!(image.get("hw_disk_bus").is_none(), "{image}");
    assert!(image.get("stores").is_none_or(|stores| stores == "fs2"), "{image}");
}
