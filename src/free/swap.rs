//! Swap areas: what a running system has swapped out is of no use to anyone after it has stopped.
//!
//! The header is the first page: `union swap_header` of `include/linux/swap.h`, read as `read_swap_header` of
//! `mm/swapfile.c` does. Its magic ends where the page ends, which tells the page's size. A hibernation image has
//! another magic there ([`super::signatures`]), and is not swap.

use std::collections::BTreeSet;

use super::bytes::{be32, le32};
use super::{Freed, Limits, Outcome, Runs, Trouble, Volume};

/// Page sizes that Linux has.
const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// Where `info.version`, `info.last_page`, `info.nr_badpages` and `info.badpages` lie, and the length of the magic.
const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const BAD_PAGES: usize = 1032;
const BAD_PAGE: usize = 1536;
const MAGIC_LEN: usize = 10;
/// TuxOnIce leaves the swap header as it is, and marks its image at the beginning (libblkid, `superblocks/swap.c`).
const TUX_ON_ICE: &[u8] = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c";

/// What a swap area has of no use: all of its pages but the header and those that it counts as bad.
///
/// # Errors
/// Why it is left whole, and what keeps bytes from coming.
pub fn freed(volume: &Volume<'_>, _limits: Limits) -> Outcome<Freed> {
    let header = volume.read_one(0..volume.len().min(64 << 10))?;
    if header.starts_with(TUX_ON_ICE) {
        return Err(Trouble::whole("it holds a hibernation image of TuxOnIce"));
    }
    let magic = |page: u64| header.get(page as usize - MAGIC_LEN..page as usize);
    let mut pages = PAGES.into_iter().filter(|&page| magic(page) == Some(b"SWAPSPACE2"));
    let page = match (pages.next(), pages.next()) {
        (Some(page), None) => page,
        (Some(_), Some(_)) => return Err(Trouble::whole("it has swap headers of two page sizes")),
        _ if PAGES.into_iter().any(|page| magic(page) == Some(b"SWAP-SPACE")) => {
            return Err(Trouble::whole("its swap header is of version 0, which Linux no longer reads"));
        }
        _ => return Err(Trouble::whole("it has no swap header")),
    };
    let word: fn(&[u8], usize) -> Option<u32> = match (le32(&header, VERSION), be32(&header, VERSION)) {
        (Some(1), _) => le32,
        (_, Some(1)) => be32,
        _ => return Err(Trouble::whole("the version of its swap header is not known")),
    };
    let field =
        |at| word(&header, at).map(u64::from).ok_or_else(|| Trouble::whole("its swap header is cut off"));
    let (last, bad_count) = (field(LAST_PAGE)?, field(BAD_PAGES)?);
    let end = (last + 1) * page;
    if last == 0 || end > volume.len() {
        return Err(Trouble::whole(format_args!(
            "its swap header says {end} bytes, and its place has {}",
            volume.len()
        )));
    }
    // MAX_SWAP_BADPAGES
    let bad_most = (page - BAD_PAGE as u64 - MAGIC_LEN as u64) / 4;
    if bad_count > bad_most {
        return Err(Trouble::whole(format_args!(
            "its swap header says {bad_count} bad pages, and has room for {bad_most}"
        )));
    }
    let bad = (0..bad_count)
        .map(|index| field(BAD_PAGE + 4 * index as usize))
        .collect::<Outcome<BTreeSet<u64>>>()?;
    if bad.iter().any(|&number| number == 0 || number > last) {
        return Err(Trouble::whole("its swap header lists a bad page outside of the area"));
    }
    let mut free = Runs::new();
    let mut from = 1;
    for number in bad.into_iter().chain([last + 1]) {
        free.push(from * page..number * page).map_err(Trouble::whole)?;
        from = number + 1;
    }
    Ok(Freed { kind: "swap".to_owned(), len: end, free, note: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 1 << 20 };

    /// A swap area as on a machine of either byte order.
    fn swap(page: usize, last: u32, bad: &[u32], order: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut disk = vec![0x77; (last as usize + 2) * page];
        disk[..page].fill(0);
        let words = [(VERSION, 1), (LAST_PAGE, last), (BAD_PAGES, bad.len() as u32)];
        let listed = bad.iter().enumerate().map(|(index, &number)| (BAD_PAGE + 4 * index, number));
        for (at, word) in words.into_iter().chain(listed) {
            disk[at..at + 4].copy_from_slice(&order(word));
        }
        disk[page - 10..page].copy_from_slice(b"SWAPSPACE2");
        disk
    }

    fn of(disk: &Vec<u8>) -> Result<Vec<(u64, u64)>, String> {
        match freed(&Volume::linear(disk, 0..disk.len() as u64), LIMITS) {
            Ok(freed) => Ok(freed.free.as_slice().iter().map(|run| (run.start, run.end)).collect()),
            Err(Trouble::Whole(reason)) => Err(reason),
            Err(Trouble::Failed(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn all_but_the_header_and_bad_pages_is_free() {
        for page in [4096, 8192, 16384, 32768, 65536] {
            let at = |number: u64| number * page as u64;
            let orders: [fn(u32) -> [u8; 4]; 2] = [u32::to_le_bytes, u32::to_be_bytes];
            for order in orders {
                assert_eq!(of(&swap(page, 9, &[], order)).unwrap(), [(at(1), at(10))]);
                let bad = swap(page, 9, &[5, 1, 9, 4], order);
                assert_eq!(of(&bad).unwrap(), [(at(2), at(4)), (at(6), at(9))]);
            }
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_leaves_it_whole() {
        let good = swap(4096, 9, &[3], u32::to_le_bytes);
        let with = |at: usize, bytes: &[u8]| {
            let mut disk = good.clone();
            disk[at..at + bytes.len()].copy_from_slice(bytes);
            of(&disk)
        };
        with(4000, &[1]).unwrap();
        for (at, bytes) in [
            (VERSION, &[2u8][..]),
            (LAST_PAGE, &[0]),
            (LAST_PAGE, &[11]),
            (LAST_PAGE, &[0xff; 4]),
            (BAD_PAGES, &[0xff; 4]),
            (BAD_PAGES, &[0x60, 0x02]),
            (BAD_PAGE, &[0]),
            (BAD_PAGE, &[10]),
            (4086, b"SWAP-SPACE"),
            (4086, b"S1SUSPEND\0"),
            (8182, b"SWAPSPACE2"),
            (0, TUX_ON_ICE),
        ] {
            with(at, bytes).unwrap_err();
        }
        let short = good[..9 * 4096].to_vec();
        of(&short).unwrap_err();
        of(&vec![0; 4000]).unwrap_err();
        of(&Vec::new()).unwrap_err();
    }
}
