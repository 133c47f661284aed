//! Names that nearly fit: what a person may have meant who named an image that there is not.

use snapcow::openstack::{Cloud, Image, ImageFilter};

use super::glance::Clouds;
use snapcow::error::Stage;

/// Images that are looked at; more would keep people waiting for a guess.
const MOST_IMAGES: usize = 1000;
/// As many are proposed.
const MOST_PROPOSED: usize = 3;
/// How alike two names must be, from 0 to 1 (normalized Damerau-Levenshtein distance): one slip in three letters.
const ALIKE: f64 = 0.66;
/// Beginnings of names and IDs that are shorter than this fit too much.
const SHORTEST: usize = 4;

/// The next step for somebody whose image was not found: what the cloud has that is called nearly so, else where to
/// look. Nothing that goes wrong here matters.
pub fn advice(name: &str, cloud: &Cloud, clouds: &Clouds) -> String {
    let listed = clouds.wait(Stage::Cloud, cloud.list_images(&ImageFilter::default(), MOST_IMAGES));
    let images = listed.map(|listed| listed.images).unwrap_or_default();
    among(name, &images).unwrap_or_else(|| "see what there is with: snapcow list".into())
}

/// The same among images that are known; `None` if none of them comes near.
pub fn among(name: &str, images: &[Image]) -> Option<String> {
    let wanted = name.trim().to_lowercase();
    let mut near: Vec<(u32, &Image)> =
        images.iter().filter_map(|image| Some((distance(&wanted, image)?, image))).collect();
    near.sort_by_key(|(distance, _)| *distance);
    let (nearest, _) = near.first()?;
    let labels: Vec<String> = near.iter().take(MOST_PROPOSED).map(|(_, image)| image.label()).collect();
    let (last, others) = labels.split_last()?;
    let list = if others.is_empty() { last.clone() } else { format!("{} or {last}", others.join(", ")) };
    let why = if *nearest == 0 { "upper and lower case differ, or spaces: " } else { "" };
    Some(format!("{why}did you mean {list}?"))
}

/// How far a name is from an image's, 0 to 1000; `None` if they have nothing in common. `wanted` is in lower case.
fn distance(wanted: &str, image: &Image) -> Option<u32> {
    let own = image.name.as_deref().unwrap_or_default().trim().to_lowercase();
    if !own.is_empty() && own == wanted {
        return Some(0);
    }
    let long_enough = wanted.len() >= SHORTEST;
    if long_enough && image.id.starts_with(wanted) {
        return Some(1);
    }
    let alike = strsim::normalized_damerau_levenshtein(wanted, &own)
        .max(strsim::normalized_damerau_levenshtein(wanted, &image.id));
    if alike >= ALIKE {
        return Some(1000 - (alike * 900.0) as u32);
    }
    (long_enough && own.contains(wanted)).then_some(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, id: &str) -> Image {
        Image { name: Some(name.into()), id: id.into(), ..Image::default() }
    }

    #[test]
    fn slips_cases_and_beginnings_are_seen_and_strangers_are_not() {
        let images = [
            image("web-server-2026", "0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
            image("Database", "1cc22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
            image("debian-13", "2dd22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
            image("debian-12", "3ee22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
            image("debian-11", "4ff22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
            image("debian-10", "5aa22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"),
        ];
        let found = |name: &str| among(name, &images).unwrap_or_default();
        assert_eq!(
            found("database"),
            "upper and lower case differ, or spaces: did you mean `Database` (1cc22bac-9ff5-4a02-8f87-ff2fd1b1a9fd)?"
        );
        assert!(found("web-sevrer-2026").contains("`web-server-2026`"));
        assert!(found("web-server").contains("`web-server-2026`"));
        assert!(found("0bb22b").contains("`web-server-2026`"));
        assert!(found("0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fe").contains("`web-server-2026`"));
        let three = found("debian-14");
        assert_eq!(three.matches("`debian-").count(), 3, "{three}");
        for stranger in ["", "x", "win", "kubernetes"] {
            assert_eq!(among(stranger, &images), None, "{stranger}");
        }
    }

    #[test]
    fn hostile_names_are_shown_and_not_obeyed() {
        let images = [image("we\u{1b}[2Jb", "0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd"), Image::default()];
        assert!(!among("we[2jb", &images).unwrap().contains('\u{1b}'));
    }
}
