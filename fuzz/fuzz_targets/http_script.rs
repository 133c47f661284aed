//! Any behaviour of a server: the client ends, does not panic, tells no secret and no control character, and what it
//! takes for data is as long as it says.
#![no_main]

use std::ops::Range;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::error::{Result, Stage};
use snapcow::openstack::{Body, Cloud, Download, NewImage, TlsOptions, Upload, why_not_convertible};
use snapcow::retry::Retry;
use snapcow_fuzz::server::{Answer, TOKEN, play};

const ID: &str = "11111111-2222-3333-4444-555555555555";

const QUICK: Retry = Retry {
    retries: 2,
    time: Duration::from_secs(1),
    first: Duration::from_micros(50),
    longest: Duration::from_micros(200),
    // Nobody is to wait for long for a server that falls silent.
    silence: Duration::from_millis(300),
    upload_silence: Duration::from_millis(300),
};

#[derive(Arbitrary, Debug)]
enum Call {
    FindById,
    FindByName(String),
    Show,
    Delete,
    Probe(u16),
    Download,
    Range { start: u16, len: u8 },
    Create { properties: u8 },
    Upload(u16),
    Settle,
    RaiseMinDisk,
}

#[derive(Arbitrary, Debug)]
struct Case {
    script: Vec<Answer>,
    calls: Vec<Call>,
}

fuzz_target!(|case: Case| {
    let mut script = case.script;
    script.truncate(8);
    let cloud =
        Cloud::with_token(play(script), TOKEN.to_owned().into(), &TlsOptions::default(), Stage::Source)
            .expect("an address")
            // Nobody is to be spared: the server is the fuzzer's own.
            .with_retry(QUICK);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for call in case.calls.iter().take(4) {
            if let Err(error) = make(&cloud, call).await {
                let sentence = error.to_string();
                assert!(!sentence.contains(TOKEN), "{sentence}");
                assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
                assert!(sentence.len() < 8192, "{} bytes of message", sentence.len());
            }
        }
    });
});

async fn make(cloud: &Cloud, call: &Call) -> Result<()> {
    match call {
        Call::FindById => drop(cloud.find_images(ID).await?),
        Call::FindByName(name) => {
            for image in cloud.find_images(name).await? {
                assert_eq!(image.name.as_deref(), Some(name.as_str()), "another image was found");
                let label = image.label();
                assert!(!label.chars().any(char::is_control), "{label:?}");
                if let Some((reason, _)) = why_not_convertible(&image) {
                    assert!(!reason.chars().any(char::is_control), "{reason:?}");
                }
            }
        }
        Call::Show => drop(cloud.show(ID).await?),
        Call::Delete => drop(cloud.delete(ID).await?),
        Call::Probe(size) => drop(cloud.probe_range(ID, u64::from(*size)).await?),
        Call::Download => download(cloud, None).await?,
        Call::Range { start, len } => {
            let start = u64::from(*start);
            download(cloud, Some(start..start + 1 + u64::from(*len))).await?;
        }
        Call::Create { properties } => {
            let properties =
                (0..*properties % 8).map(|number| (format!("p{number}"), "v".to_owned())).collect();
            let new = NewImage { id: ID.into(), name: "n".into(), properties, ..NewImage::default() };
            drop(cloud.create(&new).await?);
        }
        Call::Upload(len) => {
            let body = vec![7; usize::from(*len)];
            return match cloud.upload(ID, body.len() as u64, None, body.into()).await {
                Upload::Done => Ok(()),
                Upload::Lost(error, _) | Upload::Refused(error) => Err(error),
            };
        }
        Call::Settle => drop(cloud.settle(ID, Duration::from_millis(3)).await?),
        Call::RaiseMinDisk => cloud.raise_min_disk(ID, 5).await?,
    }
    Ok(())
}

async fn download(cloud: &Cloud, range: Option<Range<u64>>) -> Result<()> {
    let asked = range.as_ref().map(|range| range.end - range.start);
    match cloud.download(ID, range).await? {
        Download::Whole(body) => {
            assert_eq!(asked, None, "a part was asked for");
            let announced = body.announced();
            let got = all(body).await?;
            assert!(announced.is_none_or(|announced| announced == got), "{got} of {announced:?}");
        }
        Download::Part(body) => assert_eq!(Some(all(body).await?), asked),
        Download::NoRange => assert!(asked.is_some()),
        Download::NoData => {}
    }
    Ok(())
}

async fn all(mut body: Body) -> Result<u64> {
    let mut got = 0;
    while let Some(frame) = body.next().await? {
        got += frame.len() as u64;
    }
    assert_eq!(got, body.received());
    Ok(got)
}
