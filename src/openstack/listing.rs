//! Listing images: takes an [`ImageFilter`], gives the records that fit, page by page; holds as many of
//! them as were asked for, and no more than [`MOST_LISTED_BYTES`] of their JSON.

use serde_json::Value;

use super::Cloud;
use super::answer::one_line;
use super::record::Image;
use crate::error::Result;

/// Images asked for in one page; small, since one image may carry many KiB of properties.
const PAGE: usize = 50;
/// Pages without anything new in them that are read before a list that never ends is given up.
const MOST_IDLE_PAGES: usize = 100;
/// So much JSON is read for one list: about 1.5 KiB an image is usual, so this is some 40 000 of them.
const MOST_LISTED_BYTES: usize = 64 << 20;

/// Which images; what is `None` does not matter. All by Glance's own filters (Image API v2, «List images»), and
/// looked at again here where the record shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// `private`, `shared`, `community`, `public`, or `all`. Without it: public ones, those of the project, and those
    /// shared with it and accepted.
    pub visibility: Option<String>,
    /// `active`, `queued`, …
    pub status: Option<String>,
    /// `raw`, `qcow2`, …
    pub disk_format: Option<String>,
    /// `pending`, `accepted`, `rejected` or `all`; Glance asks for `visibility` `shared` with it.
    pub member_status: Option<String>,
    /// At least so many bytes of data.
    pub size_min_bytes: Option<u64>,
    /// A property, and the value that it has.
    pub property: Option<(String, String)>,
    /// Only those that lists leave out, instead of the others.
    pub hidden: bool,
}

/// A list of images, and whether it is all.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// In Glance's order: the newest first.
    pub images: Vec<Image>,
    /// `false`: there are more, or too many to look at.
    pub complete: bool,
}

impl ImageFilter {
    fn fits(&self, image: &Image) -> bool {
        let same = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
        // Databases compare names without regard to case or spaces at the end; we do not.
        same(&self.name, &image.name)
            && same(&self.owner, &image.owner)
            && same(&self.disk_format, &image.disk_format)
            && self.status.as_ref().is_none_or(|status| *status == image.status)
            && self.property.as_ref().is_none_or(|(key, value)| image.properties.get(key) == Some(value))
            && self.size_min_bytes.is_none_or(|min| image.size.unwrap_or(0) >= min)
    }

    fn query(&self) -> Vec<(&str, String)> {
        let texts = [
            ("name", self.name.as_deref().map(name_filter)),
            ("owner", self.owner.clone()),
            ("visibility", self.visibility.clone()),
            ("status", self.status.clone()),
            ("disk_format", self.disk_format.clone()),
            ("member_status", self.member_status.clone()),
            ("size_min", self.size_min_bytes.map(|bytes| bytes.to_string())),
            ("os_hidden", Some(self.hidden.to_string())),
            ("limit", Some(PAGE.to_string())),
        ];
        let property = self.property.iter().map(|(key, value)| (key.as_str(), value.clone()));
        texts.into_iter().filter_map(|(key, value)| Some((key, value?))).chain(property).collect()
    }
}

impl Cloud {
    /// Lists the images that the project may see and that fit, at most `most` of them.
    ///
    /// # Errors
    /// Of a request; a list that does not end. That there are more than `most` is no error, see [`Listed::complete`].
    pub async fn list_images(&self, filter: &ImageFilter, most: usize) -> Result<Listed> {
        let what = format!("list the images of `{}`", one_line(self.label()));
        self.pages(filter, most, &what).await
    }

    /// The same for callers that know better what it is for.
    pub(super) async fn pages(&self, filter: &ImageFilter, most: usize, what: &str) -> Result<Listed> {
        let mut listed = Listed::default();
        let mut marker: Option<String> = None;
        let (mut idle_pages, mut bytes) = (0, 0);
        loop {
            let mut url = self.url(["images"]);
            url.query_pairs_mut()
                .extend_pairs(filter.query())
                .extend_pairs(marker.as_deref().map(|marker| ("marker", marker)));
            let answer = self.ask(what, |client| client.get(url.clone())).await?;
            if answer.status != 200 {
                return Err(self.refuse(&answer, what));
            }
            bytes += answer.body.len();
            let mut page = answer.json(self.stage, what)?;
            let Some(Value::Array(images)) = page.get_mut("images").map(Value::take) else {
                return Err(self.strange(what, "there is no list of images in it"));
            };
            let before = listed.images.len();
            for json in images {
                let image = Image::from_json(json).map_err(|why| self.strange(what, &why))?;
                if filter.fits(&image) {
                    listed.images.push(image);
                }
            }
            if listed.images.len() > most || bytes > MOST_LISTED_BYTES {
                listed.images.truncate(most);
                return Ok(listed);
            }
            idle_pages = if listed.images.len() > before { 0 } else { idle_pages + 1 };
            if idle_pages > MOST_IDLE_PAGES {
                return Err(self.strange(what, "the list does not end"));
            }
            match page.get("next").and_then(Value::as_str).and_then(next_marker) {
                Some(next) if marker.as_deref() != Some(next.as_str()) => marker = Some(next),
                _ => {
                    listed.complete = true;
                    return Ok(listed);
                }
            }
        }
    }
}

/// The value of the `name` filter that means exactly this name. Glance takes what stands before the
/// first colon for an operator (`glance/common/utils.py`, `split_filter_op`), so a name with one
/// needs `eq:` before it.
fn name_filter(name: &str) -> String {
    if name.contains(':') { format!("eq:{name}") } else { name.to_owned() }
}

/// The marker in a `next` link. Nothing else of the link is used: it comes from the service, and our
/// token must not follow it to another host.
fn next_marker(next: &str) -> Option<String> {
    let base = reqwest::Url::parse("http://glance/").ok()?;
    let url = base.join(next).ok()?;
    url.query_pairs().find(|(key, _)| key == "marker").map(|(_, marker)| marker.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_colon_is_no_operator() {
        assert_eq!(name_filter("in:a,b"), "eq:in:a,b");
        assert_eq!(name_filter("a,\"b\" ü"), "a,\"b\" ü");
    }

    #[test]
    fn of_a_next_link_only_the_marker_counts() {
        assert_eq!(next_marker("/v2/images?limit=50&marker=a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(next_marker("https://evil/?marker=x").as_deref(), Some("x"));
        for none in ["", "/v2/images", "http://[", "?limit=5"] {
            assert_eq!(next_marker(none), None, "{none}");
        }
    }

    #[test]
    fn what_the_service_lets_through_is_looked_at_again() {
        let image =
            Image { name: Some("Web ".into()), size: Some(5), status: "active".into(), ..Image::default() };
        let fits = |filter: ImageFilter| filter.fits(&image);
        assert!(fits(ImageFilter::default()));
        assert!(!fits(ImageFilter { name: Some("web".into()), ..ImageFilter::default() }));
        assert!(!fits(ImageFilter { owner: Some("p".into()), ..ImageFilter::default() }));
        assert!(!fits(ImageFilter { size_min_bytes: Some(6), ..ImageFilter::default() }));
        assert!(fits(ImageFilter { size_min_bytes: Some(5), ..ImageFilter::default() }));
        assert_eq!(
            ImageFilter { hidden: true, ..ImageFilter::default() }.query(),
            [("os_hidden", "true".to_owned()), ("limit", "50".to_owned())]
        );
    }
}
