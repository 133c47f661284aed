//! `snapcow list` against the real Glance of `tools/openstack`; see `lab`.

use crate::lab::command::{Ran, run, snapcow_in};
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab, pattern};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

fn list(lab: &Lab, cloud: &str, words: &[&str]) -> Ran {
    let words = ["list"].into_iter().chain(words.iter().copied());
    run(&mut snapcow_in(lab, cloud, words))
}

fn listed(lab: &Lab, cloud: &str, words: &[&str]) -> Vec<Value> {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let ran = list(lab, cloud, &words).ok();
    let mut json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["schema"], "snapcow/list/1");
    serde_json::from_value(json["images"].take()).unwrap()
}

fn find<'a>(images: &'a [Value], id: &str) -> Option<&'a Value> {
    images.iter().find(|image| image["id"] == id)
}

/// Half noise and half zeros.
fn disk(len: usize) -> Vec<u8> {
    let mut disk = pattern(len / 2).to_vec();
    disk.resize(len, 0);
    disk
}

#[test]
fn images_are_listed_by_size_and_filtered() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let names = ["small", "large", "queued"].map(|what| Named::new(&rest, &format!("list-{what}")));
    let small = rest.make(&names[0].name, &pattern(10_000), json!({"protected": true}));
    let large = rest.make(&names[1].name, &pattern(3_000_000), json!({"os_hidden": true}));
    let queued =
        rest.create(json!({"name": names[2].name, "disk_format": "qcow2", "container_format": "bare"}));

    let images = listed(&lab, "lab-noranges", &[]);
    let sizes: Vec<Option<u64>> = images.iter().map(|image| image["size_bytes"].as_u64()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let image = find(&images, &small).unwrap();
    assert_eq!((&image["size_bytes"], &image["protected"]), (&json!(10_000), &json!(true)));
    assert_eq!((&image["visibility"], &image["is_own"]), (&json!("private"), &json!(true)));
    assert_eq!(find(&images, &large).unwrap()["hidden"], true);
    assert_eq!(find(&images, &queued).unwrap()["size_bytes"], Value::Null);

    let of_name = listed(&lab, "lab-noranges", &[&names[0].name.to_uppercase()]);
    assert_eq!(of_name.iter().map(|image| image["id"].as_str().unwrap()).collect::<Vec<_>>(), [&small]);
    assert!(find(&listed(&lab, "lab-noranges", &[&large[..9]]), &large).is_some());
    let has = |words: &[&str], id: &str| find(&listed(&lab, "lab-noranges", words), id).is_some();
    assert!(has(&["--raw"], &small) && !has(&["--raw"], &queued));
    assert!(has(&["--larger-than", "9999"], &small) && !has(&["--larger-than", "10000"], &small));
    assert!(has(&["--larger-than", "2M", "--raw"], &large) && !has(&["--larger-than", "2M"], &queued));
    list(&lab, "lab-noranges", &["--larger-than", "much"]).exits(2);
    // Nothing of this size is in the lab.
    let none = list(&lab, "lab-noranges", &["--larger-than", "900T"]).ok();
    assert_eq!(none.stdout, b"");
    assert!(none.stderr.contains("no image fits"), "{none:?}");
}

#[test]
fn a_table_fits_every_terminal_and_obeys_no_name() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let unique = Named::new(&rest, "list-wide");
    let evil = format!("数据库快照\u{1b}[2J\u{202e}{}", unique.name);
    let id = rest.make(&evil, &pattern(1000), json!({"name": evil}));
    for columns in [30_usize, 40, 60, 80, 132] {
        let mut command = snapcow_in(&lab, "lab-noranges", ["list", "--raw"]);
        let ran = run(command.env("COLUMNS", columns.to_string())).ok();
        let text = String::from_utf8(ran.stdout).unwrap();
        let wide = text.lines().find(|line| line.width() > columns);
        assert_eq!(wide, None, "{columns}");
        assert!(text.contains("数据") && text.contains(&id[..8]), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
    // Nothing is cut where no terminal is in the way.
    let whole = String::from_utf8(list(&lab, "lab-noranges", &["--raw"]).ok().stdout).unwrap();
    rest.delete(&id);
    assert!(whole.contains(&id) && whole.contains(&unique.name), "{whole}");
}

#[test]
fn what_others_share_is_listed_once_it_is_accepted() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "list-shared");
    let id = rest.make(&image.name, &pattern(1000), json!({"visibility": "shared"}));
    let b = lab.text("/projects/lab-b");
    run(&mut snapcow_in(&lab, "lab-noranges", ["share", id.as_str(), "--with", &b])).ok();
    assert!(find(&listed(&lab, "lab-b", &[]), &id).is_none());
    run(&mut snapcow_in(&lab, "lab-b", ["accept", id.as_str()])).ok();
    let images = listed(&lab, "lab-b", &[]);
    assert_eq!(find(&images, &id).unwrap()["is_own"], false);
    let table = String::from_utf8(list(&lab, "lab-b", &[]).ok().stdout).unwrap();
    let line = table.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.ends_with("shared with us"), "{line}");
}

#[test]
fn what_compacting_saves_is_estimated_where_ranges_are_served_and_else_called_unknown() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "list-reclaimable");
    let len = 6_000_128_usize;
    let id = rest.make(&image.name, &disk(len), json!({}));
    let words = [image.name.as_str(), "--reclaimable"];
    // In order, as into Glance: a file has another layout.
    let source = format!("glance:{id}");
    let truth = run(&mut snapcow_in(&lab, "lab-ranges", ["convert", &source, "-"])).ok().stdout.len() as u64;

    let images = listed(&lab, "lab-ranges", &words);
    let found = find(&images, &id).unwrap();
    let bound = |name: &str| found["compact_bytes"][name].as_u64().unwrap();
    assert!(bound("low") <= truth && truth <= bound("high"), "{truth}: {found}");
    assert!(bound("high") < len as u64, "{found}");
    assert_eq!(found["compact_unknown"], Value::Null);

    let images = listed(&lab, "lab-noranges", &words);
    let found = find(&images, &id).unwrap();
    assert_eq!(found["compact_bytes"], Value::Null);
    assert!(found["compact_unknown"].as_str().unwrap().contains("no ranges"), "{found}");
    let ran = list(&lab, "lab-noranges", &words).ok();
    let table = String::from_utf8(ran.stdout).unwrap();
    let line = table.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.contains("unknown") && ran.stderr.contains("serves no ranges"), "{line}: {}", ran.stderr);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "list-pipe");
    rest.make(&image.name, &pattern(1000), json!({}));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = snapcow_in(&lab, "lab-noranges", ["list"]);
    let ran = run(command.stdout(writer)).exits(141);
    assert_eq!(ran.stderr, "");
}
