//! `snapcow plan` against what a run then does: the size's interval decides, times are printed.
//!
//! `SNAPCOW_FULL=1 cargo test --release --test commands plan:: -- --nocapture` has disks of 256 MiB to 1 GiB and prints foretold
//! and measured times; on a quiet machine, with `--test-threads=1`.

use std::path::Path;

use crate::lab::command::{Ran, run, snapcow, snapcow_in};
use crate::lab::disk::Noise;
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use serde_json::{Value, json};
use snapcow::embedded::{ImageData, Shape, VmImage};

const MIB: u64 = 1 << 20;

/// How the disks of the table look: name, size at full length in MiB, content, cloud that it is read from.
type Look = fn(u64) -> Vec<u8>;
const LOOKS: [(&str, u64, Look, &str); 12] = [
    ("server, a sixth full", 1024, |len| made_up(1, len, 0.16, 0.25, None), "lab-ranges"),
    ("noise", 256, |len| Noise(2).bytes(len), "lab-ranges"),
    ("text", 512, text, "lab-ranges"),
    ("zeros", 1024, |len| vec![0; len as usize], "lab-ranges"),
    ("mixed extents", 512, |len| made_up(3, len, 0.5, 0.5, Some(1 << 20)), "lab-ranges"),
    ("many small runs", 512, |len| made_up(4, len, 0.4, 0.3, Some(16 << 10)), "lab-ranges"),
    ("nearly full", 512, |len| made_up(5, len, 0.95, 0.25, None), "lab-ranges"),
    ("every other cluster", 512, every_other, "lab-ranges"),
    ("data at the end only", 768, tail, "lab-ranges"),
    ("small", 64, |len| made_up(6, len, 0.3, 0.5, Some(64 << 10)), "lab-ranges"),
    ("full half, empty half", 512, |len| half(&Noise(7).bytes(len / 2), len), "lab-ranges"),
    ("server, no ranges", 256, |len| made_up(8, len, 0.3, 0.25, None), "lab-noranges"),
];

fn is_full() -> bool {
    std::env::var("SNAPCOW_FULL").as_deref() == Ok("1")
}

fn made_up(seed: u64, len: u64, data_fraction: f64, noise_fraction: f64, mean: Option<u64>) -> Vec<u8> {
    let image = VmImage::shaped(seed, len, Shape { data_fraction, noise_fraction, mean_extent_bytes: mean });
    let mut bytes = vec![0; len as usize];
    image.read_at(0, &mut bytes);
    bytes
}

fn text(len: u64) -> Vec<u8> {
    let mut noise = Noise(9);
    let mut bytes = Vec::with_capacity(len as usize + 4096);
    while (bytes.len() as u64) < len {
        for word in noise.bytes(8192).chunks(8) {
            let line =
                format!("{} daemon[{}]: request {} done\n", bytes.len(), word[0], u16::from(word[1]) * 7);
            bytes.extend_from_slice(line.as_bytes());
        }
    }
    bytes.truncate(len as usize);
    bytes
}

fn every_other(len: u64) -> Vec<u8> {
    let mut bytes = Noise(10).bytes(len);
    bytes.chunks_mut(1 << 17).for_each(|pair| pair[1 << 16..].fill(0));
    bytes
}

fn tail(len: u64) -> Vec<u8> {
    let data = Noise(11).bytes(5 * MIB + 513);
    let mut bytes = vec![0; len as usize];
    let at = bytes.len() - data.len();
    bytes[at..].copy_from_slice(&data);
    bytes
}

fn half(data: &[u8], len: u64) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(len as usize, 0);
    bytes
}

fn plan_of(ran: &Ran) -> Value {
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["schema"], "snapcow/plan/1");
    json
}

#[track_caller]
fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {json:#}"))
}

/// Whether the interval holds the image's length, and how wide it is beside it.
fn holds(plan: &Value, len: u64) -> (bool, f64) {
    let [low, high] = ["/image_bytes/low", "/image_bytes/high"].map(|pointer| number(plan, pointer));
    ((low..=high).contains(&(len as f64)), (high - low) / len as f64)
}

#[test]
fn the_size_is_within_its_interval_for_nine_of_ten_images() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (mut held, mut wide) = (0, 0.0);
    println!(
        "{:24} {:>7} {:>23} {:>8}  {:>7} {:>7} {:>6}",
        "disk", "MiB", "image, MiB", "is", "plan s", "run s", "off"
    );
    for (name, mib, look, cloud) in LOOKS {
        let disk = if is_full() { mib * MIB } else { (mib * MIB).min(112 * MIB) };
        let (source, target) = (Named::new(&rest, "plan-source"), Named::new(&rest, "plan-target"));
        rest.make(&source.name, &look(disk), json!({}));
        // So little is looked at that even these small disks are sampled; by default they would be read whole.
        let sample = if is_full() { &["--probe-upload"][..] } else { &["--sample", "24MiB"] };
        let words = [source.glance(), target.glance()];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asked = [&["plan"], &words[..], &["--json"], sample].concat();
        let plan = plan_of(&run(&mut snapcow_in(&lab, cloud, asked)).ok());
        target.assert_none();
        let ran = run(&mut snapcow_in(&lab, cloud, [&["convert", "-q"], &words[..]].concat())).ok();
        let len = rest.show(&ran.image_id())["size"].as_u64().unwrap();
        let (is_held, width) = holds(&plan, len);
        held += usize::from(is_held);
        wide += width.min(10.0);
        let (told, took) = (number(&plan, "/seconds/likely"), ran.wall.as_secs_f64());
        println!(
            "{name:24} {:>7} {:>9.1} to {:>9.1} {:>8.1}  {told:>7.2} {took:>7.2} {:>+5.0}%{}",
            disk >> 20,
            number(&plan, "/image_bytes/low") / MIB as f64,
            number(&plan, "/image_bytes/high") / MIB as f64,
            len as f64 / MIB as f64,
            100.0 * (told / took - 1.0),
            if is_held { "" } else { "  NOT HELD" }
        );
    }
    assert!(held * 10 >= LOOKS.len() * 9, "the interval held {held} of {}", LOOKS.len());
    // An interval from nothing to everything would always hold.
    assert!(wide / LOOKS.len() as f64 <= 3.0, "useless: as wide as {:.1} images", wide / LOOKS.len() as f64);
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn all_data_of_a_file_make_the_size_exact_for_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let raw = file(folder.path(), "raw", &made_up(12, 8 * MIB + 512, 0.3, 0.4, Some(100_000)));
    std::fs::File::options().write(true).open(&raw).unwrap().set_len(3 << 30).unwrap();
    for (index, more) in [
        &[][..],
        &["--compression", "zstd"],
        &["--compression", "none"],
        &["--cluster-size", "4k", "--compat", "0.10"],
        &["--cluster-size", "2M", "--level", "small"],
    ]
    .iter()
    .enumerate()
    {
        let made = folder.path().join(format!("made-{index}"));
        let words = [&["plan", "--json", &raw, made.to_str().unwrap()], *more].concat();
        let plan = plan_of(&run(&mut snapcow(words)).ok());
        assert!(!made.exists());
        assert_eq!((&plan["sample"]["basis"], &plan["route"]), (&json!("all"), &json!("direct")), "{plan:#}");
        let words = [&["convert", "-q", &raw, made.to_str().unwrap()], *more].concat();
        run(&mut snapcow(words)).ok();
        let len = made.metadata().unwrap().len();
        assert_eq!(holds(&plan, len), (true, 0.0), "{more:?}: {len} of {plan:#}");
    }
}

#[test]
fn a_sampled_file_is_told_in_80_columns_and_holds() {
    let folder = tempfile::tempdir().unwrap();
    let raw = file(folder.path(), "raw", &made_up(13, 200 * MIB, 0.5, 0.3, Some(200_000)));
    let made = folder.path().join("made");
    let made = made.to_str().unwrap();
    let plan = plan_of(&run(&mut snapcow(["plan", "--json", "--sample", "16MiB", &raw, made])).ok());
    assert_eq!(plan["sample"]["basis"], "spread", "{plan:#}");
    assert!(number(&plan, "/sample/read_bytes") <= 17.0 * MIB as f64, "{plan:#}");
    let again = plan_of(&run(&mut snapcow(["plan", "--json", "--sample", "16MiB", &raw, made])).ok());
    assert_eq!(plan["image_bytes"], again["image_bytes"], "the same seed, the same pieces");
    let text = run(&mut snapcow(["plan", "--sample", "16MiB", &raw, made, "--compression", "zstd"])).ok();
    let text = String::from_utf8(text.stdout).unwrap();
    // A path is as long as it is.
    let long = |line: &&str| line.chars().count() > 80 && !line.contains(folder.path().to_str().unwrap());
    assert_eq!(text.lines().find(long), None, "{text}");
    for words in ["direct", "likely", "pieces from all over", "QEMU 5.1", "deletes nothing"] {
        assert!(text.contains(words), "no «{words}» in {text}");
    }
    run(&mut snapcow(["convert", "-q", &raw, made])).ok();
    let len = Path::new(made).metadata().unwrap().len();
    assert!(holds(&plan, len).0, "{len} of {plan:#}");
}

#[test]
fn what_can_be_read_but_once_is_not_touched_and_said_so() {
    let plan = plan_of(&run(&mut snapcow(["plan", "--json", "-", "-"])).ok());
    assert_eq!((&plan["image_bytes"], &plan["spool"]), (&Value::Null, &json!("unknown")), "{plan:#}");
    assert!(plan["known_by"].as_str().unwrap().contains("only once"), "{plan:#}");
    let folder = tempfile::tempdir().unwrap();
    let raw = file(folder.path(), "raw", &Noise(3).bytes(MIB));
    let plan = plan_of(&run(&mut snapcow(["plan", "--json", "--sample", "0", &raw, "-"])).ok());
    assert!(plan["known_by"].as_str().unwrap().contains("--sample 0"), "{plan:#}");
}

#[test]
fn a_store_without_ranges_shows_its_first_part_only() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let source = Named::new(&rest, "plan-first");
    rest.make(&source.name, &half(&Noise(5).bytes(8 * MIB), 16 * MIB), json!({"min_disk": 3}));
    let words = ["plan", &source.glance(), "glance:never made", "--sample", "4MiB"].map(str::to_owned);
    let text = run(&mut snapcow_in(&lab, "lab-noranges", &words)).ok();
    let text = String::from_utf8(text.stdout).unwrap();
    for words in ["ONLY", "ASSUMED", "min_disk 3 GiB", "copy-on-write", "log in"] {
        assert!(text.contains(words), "no «{words}» in {text}");
    }
    let words: Vec<String> = words.into_iter().chain(["--json".into()]).collect();
    let plan = plan_of(&run(&mut snapcow_in(&lab, "lab-noranges", &words)).ok());
    assert_eq!(plan["sample"]["basis"], "first_part");
    assert!(number(&plan, "/image_bytes/low") >= 4.0 * MIB as f64, "{plan:#}");
    assert!(number(&plan, "/image_bytes/high") >= 12.0 * MIB as f64, "{plan:#}");
    assert_eq!(plan["upload_is_assumed"], true);
}
