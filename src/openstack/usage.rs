//! Quotas of the project's images: takes nothing, gives what is used and what is allowed; holds four pairs.

use serde_json::Value;

use super::Cloud;
use super::answer::one_line;
use crate::error::Result;

/// What is used of something, and how much may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// So much is used.
    pub used: u64,
    /// So much may be used; `None`: any amount.
    pub limit: Option<u64>,
}

/// What the project uses of its image quotas, as far as the cloud has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Data of all images, in bytes (Glance counts whole MiB).
    pub total_bytes: Option<Quota>,
    /// Images in any state but deleted.
    pub images: Option<Quota>,
    /// Images that are being uploaded at this moment.
    pub uploads: Option<Quota>,
}

impl Quota {
    /// How much more there may be; `None`: any amount.
    pub fn free(self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.used))
    }

    /// From `{"usage": n, "limit": n}`, in units of `unit`; -1 is no limit.
    fn from_json(json: &Value, unit: u64) -> Option<Self> {
        let used = json.get("usage")?.as_u64()?.saturating_mul(unit);
        let limit = json.get("limit")?.as_i64()?;
        Some(Self { used, limit: u64::try_from(limit).ok().map(|limit| limit.saturating_mul(unit)) })
    }
}

impl Cloud {
    /// The project's image quotas (Image API v2.15, «Quota usage»); `None` where Glance is older or keeps no quotas,
    /// or does not tell them.
    ///
    /// # Errors
    /// Of the connection and the login only: quotas are good to know, not needed.
    pub async fn usage(&self) -> Result<Option<Usage>> {
        let what = format!("ask for the image quotas of `{}`", one_line(self.label()));
        let url = self.url(["info", "usage"]);
        let answer = self.ask(&what, |client| client.get(url.clone())).await?;
        if answer.status != 200 {
            return if answer.status == 401 { Err(self.refuse(&answer, &what)) } else { Ok(None) };
        }
        let json = answer.json(self.stage, &what)?;
        let usage = usage_of(&json);
        Ok(Some(usage).filter(|usage| *usage != Usage::default()))
    }
}

/// The names are those of `glance/quota/keystone.py`, where `image_size_total` is in MiB.
fn usage_of(json: &Value) -> Usage {
    let quota = |name: &str, unit| Quota::from_json(json.pointer(&format!("/usage/{name}"))?, unit);
    Usage {
        total_bytes: quota("image_size_total", 1 << 20),
        images: quota("image_count_total", 1),
        uploads: quota("image_count_uploading", 1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotas_are_read_in_bytes_and_may_be_missing_or_endless() {
        let usage = usage_of(&json!({"usage": {
            "image_size_total": {"usage": 3, "limit": 10},
            "image_count_total": {"usage": 7, "limit": -1},
            "image_count_uploading": {"usage": "x", "limit": 5},
            "image_stage_total": {"usage": 0, "limit": 0},
        }}));
        let bytes = Quota { used: 3 << 20, limit: Some(10 << 20) };
        let images = Quota { used: 7, limit: None };
        assert_eq!(usage, Usage { total_bytes: Some(bytes), images: Some(images), uploads: None });
        assert_eq!((bytes.free(), images.free()), (Some(7 << 20), None));
        for json in [json!({"usage": {}}), json!([]), json!({"usage": null})] {
            assert_eq!(usage_of(&json), Usage::default());
        }
    }
}
