use super::*;
use crate::hash::{Algorithm, Digest};
use crate::map::{DataCluster, ImageMap};
use crate::units::ClusterSize;

fn key() -> Key {
    Key { build: "b".into(), format: "f".into(), source: "s".into(), target: "t".into() }
}

/// Zeros and data in runs of all lengths; not a multiple of 8 clusters.
fn survey() -> Survey {
    let mut map = ImageMap::new(ClusterSize::DEFAULT, 0);
    for round in 0..300u32 {
        map.push_zeros(u64::from(round % 13));
        for at in 0..round % 7 {
            map.push_data(DataCluster { stored_len: 1 + round * 100 + at, guest_crc: !round });
        }
    }
    map.push_zeros(3);
    let digest = Some(Digest { algorithm: Algorithm::Sha512, hex: "ab".repeat(64) });
    let guest_digest = Some("cd".repeat(32));
    Survey { len: map.clusters() * 65536 - 77, digest, guest_digest, image_len: 4711 * 512, map }
}

fn bytes(survey: Option<&Survey>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&key(), Some("id"), survey.map(Survey::found), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_written_comes_back() {
    let survey = survey();
    let saved = read(&mut &bytes(Some(&survey))[..], survey.len).unwrap();
    let back = saved.survey.unwrap();
    assert_eq!((saved.key, saved.image.as_deref()), (key(), Some("id")));
    assert_eq!((back.len, back.image_len, back.digest), (survey.len, survey.image_len, survey.digest));
    assert_eq!(back.guest_digest, survey.guest_digest);
    assert_eq!(back.map.clusters(), survey.map.clusters());
    assert!(back.map.data().eq(survey.map.data()));
    let saved = read(&mut &bytes(None)[..], 0).unwrap();
    assert!(saved.survey.is_none());
}

#[test]
fn every_damage_is_noticed() {
    let survey = survey();
    let good = bytes(Some(&survey));
    let len = survey.len;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(read(&mut &bad[..], len).is_err(), "byte {at}");
        assert!(read(&mut &good[..at], len).is_err(), "cut at {at}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(read(&mut &longer[..], len).unwrap_err().contains("behind its end"));
    assert!(read(&mut &good[..], len - 1).unwrap_err().contains("larger disk"));
}

#[test]
fn enormous_numbers_cost_nothing() {
    let mut head = Vec::new();
    write(&key(), None, None, &mut head).unwrap();
    let mut hostile = head[..head.len() - 32].to_vec();
    hostile[12..16].copy_from_slice(&9u32.to_le_bytes());
    let clusters = 1u64 << 54;
    for (at, number) in [(16, clusters << 9), (24, 0), (32, clusters), (40, clusters)] {
        hostile[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    assert!(read(&mut &hostile[..], u64::MAX).unwrap_err().contains("ends early"));
    assert!(read(&mut &hostile[..], 1 << 20).unwrap_err().contains("larger disk"));
}

#[test]
fn a_keeper_holds_refuses_and_removes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (survey, len) = (survey(), survey().len);
    let mut keeper = Keeper::open(&path, key(), len).unwrap();
    assert!(!path.exists() && keeper.image().is_none());
    keeper.begin(Some("first")).unwrap();
    assert!(!keeper.has_survey());
    keeper.surveyed(survey.found()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let busy = Keeper::open(&path, key(), len).unwrap_err();
    assert!(busy.kind() == Kind::Local && busy.to_string().contains("in use"), "{busy}");
    drop(keeper);

    let mut keeper = Keeper::open(&path, key(), len).unwrap();
    assert_eq!((keeper.image(), keeper.has_survey()), (Some("first"), true));
    keeper.begin(Some("second")).unwrap();
    let back = keeper.take_survey().unwrap();
    assert!(back.map.data().eq(survey.map.data()));
    drop(keeper);

    for name in ["build", "format", "source", "target"] {
        let mut other = key();
        match name {
            "build" => other.build.push('x'),
            "format" => other.format.push('x'),
            "source" => other.source.push('x'),
            _ => other.target.push('x'),
        }
        let error = Keeper::open(&path, other, len).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains(&format!("another {name}")), "{error}");
    }
    let mut keeper = Keeper::open(&path, key(), len).unwrap();
    assert_eq!((keeper.image(), keeper.has_survey()), (Some("second"), true));
    keeper.finish().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(&path, b"").unwrap();
    assert_eq!(Keeper::open(&path, key(), len).unwrap_err().kind(), Kind::Local);
}

#[test]
fn of_two_that_begin_at_once_one_is_refused_and_the_others_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let open = || Keeper::open(&path, key(), 0).unwrap();
    let (mut first, mut second) = (open(), open());
    first.begin(Some("first")).unwrap();
    let refused = second.begin(Some("second")).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    second.finish().unwrap();
    drop((first, second));
    assert_eq!(open().image(), Some("first"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_of_somebody_else_is_not_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let (path, beside) = (folder.path().join("disk"), folder.path().join("disk.new"));
    let begin = || Keeper::open(&path, key(), 0).unwrap().begin(Some("id"));
    std::fs::write(&beside, b"a disk").unwrap();
    assert!(begin().unwrap_err().to_string().contains("in the way"));
    let linked = folder.path().join("linked");
    std::fs::rename(&beside, &linked).unwrap();
    std::os::unix::fs::symlink(&linked, &beside).unwrap();
    begin().unwrap_err();
    assert_eq!(std::fs::read(&linked).unwrap(), b"a disk");
    std::fs::remove_file(&beside).unwrap();
    // What a killed run leaves.
    std::fs::write(&beside, b"snapc").unwrap();
    begin().unwrap();
    assert!(path.exists() && !beside.exists());
}
