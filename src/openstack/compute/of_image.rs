//! Which servers were made from an image: takes the image's ID, gives the servers; holds a few of them.

use serde_json::Value;

use super::{Compute, Server};
use crate::error::Result;
use crate::openstack::answer::one_line;

impl Compute {
    /// Servers of the project that were made from this image, at most `most` (up to 100) of them. Nova needs the image to
    /// rebuild and to migrate them.
    ///
    /// # Errors
    /// Of the request.
    pub async fn servers_from(&self, image: &str, most: usize) -> Result<Vec<Server>> {
        let what =
            format!("look for servers made from image `{}` in `{}`", one_line(image), self.cloud.label());
        let mut url = self.url(["servers", "detail"]);
        url.query_pairs_mut().append_pair("image", image).append_pair("limit", &most.to_string());
        let mut page = self.json(self.get(&url, &what).await?, &what)?;
        let Some(Value::Array(servers)) = page.get_mut("servers").map(Value::take) else {
            return Err(self.strange(&what, "there is no list of servers in it"));
        };
        servers
            .into_iter()
            .filter(|json| json.pointer("/image/id").and_then(Value::as_str) == Some(image))
            .take(most)
            .map(|json| Server::from_json(json).map_err(|why| self.strange(&what, &why)))
            .collect()
    }
}
