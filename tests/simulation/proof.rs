//! Is an image the disk? By imago, which shares nothing with the writer; what is compressed by zstd, which imago does
//! not know, by the strict reader.

use std::sync::Arc;

use snapcow::embedded::{ImageData, prove_equal};
use snapcow::encode::Compression;
use snapcow::read::{CheckOptions, GuestImage, Input, Severity, check};

use crate::schedule::Schedule;

pub fn prove(schedule: &Schedule, image: Arc<dyn ImageData>) -> Result<(), String> {
    let disk = schedule.bytes();
    match schedule.compression {
        Compression::Zstd(_) => by_own_reader(&disk, &*image),
        _ => prove_equal(&*disk, image).map(drop).map_err(|error| error.to_string()),
    }
}

fn by_own_reader(disk: &[u8], image: &dyn ImageData) -> Result<(), String> {
    let mut bytes = vec![0; image.len() as usize];
    image.read_at(0, &mut bytes);
    let input = Input { len: bytes.len() as u64, bytes: Arc::new(bytes), name: "the image".into() };
    let report = check(input.clone(), CheckOptions { decode: true, ..CheckOptions::default() });
    let report = report.map_err(|error| error.to_string())?;
    if report.worst() >= Some(Severity::Leak) {
        return Err(format!("{:?}", report.findings.kept()));
    }
    let guest = GuestImage::open(input).map_err(|error| error.to_string())?;
    let mut read = vec![0xa5; guest.virtual_size() as usize];
    guest.reader().read(&mut read, 0).map_err(|error| error.to_string())?;
    let mut expected = disk.to_vec();
    expected.resize(disk.len().next_multiple_of(512), 0);
    if read == expected { Ok(()) } else { Err("the guest reads other bytes".into()) }
}
