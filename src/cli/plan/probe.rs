//! How fast the target's Glance takes bytes: the only way to know is to send some.

use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use snapcow::convert::Cancel;
use snapcow::error::{Result, Stage};
use snapcow::openstack::{Cloud, NewImage, Upload};

use super::super::args::{CloudPairArgs, ConvertArgs};
use super::super::glance::Clouds;

/// Sizes of the first two images, in bytes: what an upload costs however short it is, and what each byte adds.
const SHORT_BYTES: u64 = 1 << 20;
const LONG_BYTES: u64 = 32 << 20;
/// Where the long one takes less than so many seconds, it is over before the service has come into its stride, and a
/// longer one tells.
const FAST_SECONDS: f64 = 2.0;
const LONGEST_BYTES: u64 = 128 << 20;
/// Where the short one takes so many seconds, it says enough.
const SLOW_SECONDS: f64 = 2.0;
/// Bytes handed to the connection at once.
const FRAME_BYTES: usize = 256 << 10;

/// Sends two images, or three where they arrive fast, and deletes them again. Gives bytes a second, and the seconds that an upload takes besides.
pub fn upload(clouds: &mut Clouds, options: &ConvertArgs) -> Result<(f64, f64)> {
    let cloud = clouds.target_cloud()?;
    let short = one(clouds, &cloud, options, SHORT_BYTES)?;
    if short > SLOW_SECONDS {
        return Ok((SHORT_BYTES as f64 / short, 0.0));
    }
    let mut bytes = LONG_BYTES;
    let mut long = one(clouds, &cloud, options, bytes)?;
    if long < FAST_SECONDS {
        bytes = LONGEST_BYTES;
        long = one(clouds, &cloud, options, bytes)?;
    }
    let rate = (bytes - SHORT_BYTES) as f64 / (long - short).max(1e-3);
    Ok((rate, (short - SHORT_BYTES as f64 / rate).max(0.0)))
}

/// Seconds of one upload. Whatever happens, the image is deleted.
fn one(clouds: &Clouds, cloud: &Cloud, options: &ConvertArgs, len: u64) -> Result<f64> {
    let id = NewImage::new_id();
    let new = NewImage {
        name: format!("snapcow-probe-{id}"),
        id: id.clone(),
        disk_format: "raw".into(),
        container_format: "bare".into(),
        visibility: Some("private".into()),
        ..NewImage::default()
    };
    let sent = clouds.wait(Stage::Sink, async {
        cloud.create(&new).await?;
        let begin = Instant::now();
        match cloud.upload(&id, len, options.image.store.as_deref(), body(len)).await {
            Upload::Done => Ok(begin.elapsed().as_secs_f64()),
            Upload::Lost(error, _) | Upload::Refused(error) => Err(error),
        }
    });
    // A signal must not keep it from being deleted.
    let uninterrupted = Clouds::new(CloudPairArgs::default(), Cancel::new());
    let deleted = uninterrupted.wait(Stage::Sink, cloud.delete(&id));
    let seconds = sent?;
    deleted?;
    Ok(seconds)
}

/// Bytes that do not compress and are no disk format.
fn body(len: u64) -> reqwest::Body {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(FRAME_BYTES)
    .collect();
    let noise = Bytes::from(noise);
    let frames = (0..len.div_ceil(FRAME_BYTES as u64)).map(move |index| {
        let take = (len - index * FRAME_BYTES as u64).min(FRAME_BYTES as u64);
        Ok::<_, std::io::Error>(noise.slice(..take as usize))
    });
    reqwest::Body::wrap_stream(stream::iter(frames))
}
