//! Words from a command line: sizes, durations, levels, endpoints.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use snapcow::encode::{Family, Level};
use snapcow::error::Stage;
use snapcow::openstack::{Cloud, TlsOptions};
use snapcow::units::{ClusterSize, Human, parse_duration, parse_size};

fuzz_target!(|text: &str| {
    size(text);
    duration(text);
    level(text);
    endpoint(text);
});

fn size(text: &str) {
    match parse_size(text) {
        Ok(bytes) => {
            assert_eq!(parse_size(&bytes.to_string()), Ok(bytes), "a number is itself");
            assert_eq!(parse_size(&format!(" {text}\n")), Ok(bytes), "white space means nothing");
            assert!(text.chars().any(|c| c.is_ascii_digit()), "a size has a digit");
            if let Some(kib) = bytes.checked_mul(1024)
                && text.trim().bytes().all(|byte| byte.is_ascii_digit())
            {
                assert_eq!(parse_size(&format!("{text}k")), Ok(kib));
            }
            if let Some(size) = ClusterSize::from_bytes(bytes) {
                assert_eq!(size.bytes(), bytes);
            }
            assert!(!Human(bytes).to_string().is_empty());
        }
        Err(sentence) => assert!(sentence.contains("is not a size"), "{sentence}"),
    }
}

fn duration(text: &str) {
    match parse_duration(text) {
        Ok(time) => {
            let seconds = time.as_secs_f64();
            for same in [seconds.to_string(), format!("{seconds}s"), format!(" {text}\n")] {
                assert_eq!(parse_duration(&same), Ok(time), "{same:?}");
            }
            assert!(time <= Duration::from_secs(366 * 86400), "no longer than is said");
            assert!(text.chars().any(|c| c.is_ascii_digit()), "a duration has a digit");
            if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
                let minutes = time.as_secs() * 60;
                assert_eq!(
                    parse_duration(&format!("{}m", text.trim())).ok(),
                    parse_duration(&minutes.to_string()).ok()
                );
            }
        }
        Err(sentence) => assert!(sentence.contains("is not a duration"), "{sentence}"),
    }
}

fn level(text: &str) {
    let Ok(level) = text.parse::<Level>() else { return };
    assert_eq!(level.to_string().parse(), Ok(level));
    for family in Family::ALL {
        let known = match level {
            Level::Number(number) => family.numbers().contains(&number),
            _ => true,
        };
        assert_eq!(family.at(level).is_some(), known);
    }
}

fn endpoint(text: &str) {
    let open = |endpoint: &str| {
        Cloud::with_token(endpoint, "t".to_owned().into(), &TlsOptions::default(), Stage::Plan)
    };
    match open(text) {
        Ok(cloud) => {
            let root = cloud.image_endpoint();
            assert!(root.starts_with("http://") || root.starts_with("https://"), "{root}");
            assert!(!root.contains(['?', '#']), "{root}");
            let again = open(root).unwrap_or_else(|error| panic!("{root}: {error}"));
            // What is cut once may end like a version again (`/v2/v2`), but it never grows.
            assert!(again.image_endpoint().len() <= root.len(), "{root}");
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
        }
    }
}
