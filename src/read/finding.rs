//! What a check finds: counted without end, kept up to a bound.

use std::collections::BTreeMap;
use std::fmt;

/// Findings of one class that are kept with their text; the others are counted.
const KEPT_OF_A_CLASS: usize = 100;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Allowed, but worth a word.
    Note,
    /// Space of the file that nothing uses; no data is in danger.
    Leak,
    /// Damage: data are lost or wrong, will be after the next write, or cannot be read at all.
    Error,
}

impl Severity {
    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Leak => "leak",
            Self::Error => "error",
        }
    }
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A field of the header has a value that it may not have.
    Header,
    /// A header extension does not fit, or is not what its type says.
    Extension,
    /// The dirty bit: the image was not closed.
    Dirty,
    /// The corrupt bit: QEMU itself marked the image as damaged.
    Corrupt,
    /// A backing file or an external data file.
    ExternalFile,
    /// Bits that have to be zero are not.
    ReservedBits,
    /// An offset of a cluster or a table that is no multiple of the cluster size.
    Unaligned,
    /// Something lies behind the end of the file: the tail was cut, or the offset is wrong.
    Outside,
    /// Two things that cannot share a place do.
    Overlap,
    /// A refcount below the number of references: the next write may overwrite data.
    RefcountTooLow,
    /// A COPIED flag that contradicts the refcount.
    CopiedFlag,
    /// A compressed cluster that cannot be decoded.
    Undecodable,
    /// The table of internal snapshots.
    Snapshots,
    /// The directory of bitmaps or one of their tables.
    Bitmaps,
    /// A guest cluster behind the end of the disk has data.
    BehindDisk,
    /// A refcount above the number of references.
    Leak,
    /// Bytes behind the last cluster in use.
    TrailingData,
    /// Something allowed.
    Note,
}

impl Class {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Note => Severity::Note,
            Self::Leak | Self::TrailingData => Severity::Leak,
            _ => Severity::Error,
        }
    }

    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Extension => "extension",
            Self::Dirty => "dirty",
            Self::Corrupt => "corrupt",
            Self::ExternalFile => "external_file",
            Self::ReservedBits => "reserved_bits",
            Self::Unaligned => "unaligned",
            Self::Outside => "outside_of_file",
            Self::Overlap => "overlap",
            Self::RefcountTooLow => "refcount_too_low",
            Self::CopiedFlag => "copied_flag",
            Self::Undecodable => "undecodable",
            Self::Snapshots => "snapshots",
            Self::Bitmaps => "bitmaps",
            Self::BehindDisk => "behind_disk",
            Self::Leak => "leak",
            Self::TrailingData => "trailing_data",
            Self::Note => "note",
        }
    }
}

/// One thing that is worth a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub class: Class,
    /// Where in the file, where that is one place.
    pub host_offset: Option<u64>,
    /// Where on the disk, where that is one place.
    pub guest_offset: Option<u64>,
    /// The finding as a sentence. Names from the file are escaped.
    pub text: String,
}

/// All that was found: every finding counted, the first ones of each class kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    kept: Vec<Finding>,
    kept_of: BTreeMap<Class, usize>,
    counts: BTreeMap<Class, u64>,
}

/// Where a finding lies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub host: Option<u64>,
    pub guest: Option<u64>,
}

impl Place {
    pub(super) const NONE: Self = Self { host: None, guest: None };

    pub(super) fn host(offset: u64) -> Self {
        Self { host: Some(offset), guest: None }
    }

    pub(super) fn both(host: u64, guest: Option<u64>) -> Self {
        Self { host: Some(host), guest }
    }
}

impl Findings {
    /// Notes something that counts once.
    pub(super) fn add(&mut self, class: Class, place: Place, text: fmt::Arguments<'_>) {
        self.add_many(class, 1, place, text);
    }

    /// Notes something that stands for `times` clusters.
    pub(super) fn add_many(&mut self, class: Class, times: u64, place: Place, text: fmt::Arguments<'_>) {
        let count = self.counts.entry(class).or_default();
        *count = count.saturating_add(times);
        // A hostile file may have billions; their text is not even made.
        let kept = self.kept_of.entry(class).or_default();
        if *kept < KEPT_OF_A_CLASS {
            *kept += 1;
            let (host_offset, guest_offset) = (place.host, place.guest);
            self.kept.push(Finding { class, host_offset, guest_offset, text: text.to_string() });
        }
    }

    /// The findings that were kept, in the order in which they were made.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// How often each class was found. Leaks count clusters.
    pub fn counts(&self) -> &BTreeMap<Class, u64> {
        &self.counts
    }

    /// How many findings of this severity there are.
    pub fn count(&self, severity: Severity) -> u64 {
        let fits = |(class, count): (&Class, &u64)| if class.severity() == severity { *count } else { 0 };
        self.counts.iter().map(fits).fold(0, u64::saturating_add)
    }

    /// The worst severity there is.
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|class| class.severity()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_of_each_class_are_kept() {
        let mut findings = Findings::default();
        assert_eq!(findings.worst(), None);
        for number in 0..5000 {
            findings.add(Class::Overlap, Place::host(number), format_args!("the {number}th"));
        }
        findings.add_many(Class::Leak, 7, Place::NONE, format_args!("seven clusters"));
        assert_eq!(findings.kept().len(), KEPT_OF_A_CLASS + 1);
        assert_eq!((findings.count(Severity::Error), findings.count(Severity::Leak)), (5000, 7));
        assert_eq!((findings.count(Severity::Note), findings.worst()), (0, Some(Severity::Error)));
    }
}
