//! The one error type: which stage failed, doing what, where, why, and what to do next.
//!
//! A leaf: it imports nothing of this crate. Secrets never enter an error: the modules that hold
//! them redact before they build one.

use std::error::Error as StdError;
use std::fmt;

/// A stage of the pipeline, in the order the bytes pass them; `Plan`, `Spool` and `Cloud` stand beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Deciding what to do; no byte has moved.
    Plan,
    /// Bytes in.
    Source,
    /// Finding what is zero.
    Scan,
    /// Compressing clusters.
    Encode,
    /// Giving clusters their place in the file.
    Place,
    /// Keeping encoded clusters until they can leave.
    Spool,
    /// Bytes out.
    Sink,
    /// Calls to the cloud that move no bytes of a disk.
    Cloud,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Source => "source",
            Self::Scan => "scan",
            Self::Encode => "encode",
            Self::Place => "place",
            Self::Spool => "spool",
            Self::Sink => "sink",
            Self::Cloud => "cloud",
        })
    }
}

/// What a failure means to the caller; each kind has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Anything without a kind of its own.
    Other,
    /// The options contradict each other or have no meaning.
    Usage,
    /// The source is refused, not found or ambiguous.
    Source,
    /// Login or permission.
    Login,
    /// The network, after all retries.
    Network,
    /// The target is refused, exists, or a quota forbids it.
    Target,
    /// Memory, disk or another resource of this machine.
    Local,
    /// The source changed while it was read, or its hash differs from the service's.
    SourceChanged,
    /// The hash of what was sent differs from the service's.
    TargetHash,
    /// Two disks that were to be equal are not.
    Differs,
    /// A qcow2 image is damaged.
    Damaged,
    /// A qcow2 image has leaks: space that nothing uses.
    Leaks,
    /// The new image is made, but its source, which was to be deleted, is still there.
    SourceKept,
    /// A signal ended the run; the number of the signal.
    Interrupted(i32),
    /// Whoever read our standard output went away.
    ClosedPipe,
}

impl Kind {
    /// The exit code of the command for this kind of failure.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::Source => 3,
            Self::Login => 4,
            Self::Network => 5,
            Self::Target => 6,
            Self::Local => 7,
            Self::SourceChanged => 8,
            Self::TargetHash => 9,
            Self::Differs => 10,
            Self::Damaged => 11,
            Self::Leaks => 12,
            Self::SourceKept => 13,
            Self::Interrupted(signal) => 128u8.wrapping_add(signal as u8),
            Self::ClosedPipe => 141,
        }
    }

    /// The word that stands for this kind in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Other => "failed",
            Self::Usage => "usage",
            Self::Source => "source_refused",
            Self::Login => "login",
            Self::Network => "network",
            Self::Target => "target_refused",
            Self::Local => "local_resource",
            Self::SourceChanged => "source_changed",
            Self::TargetHash => "target_hash",
            Self::Differs => "differs",
            Self::Damaged => "image_damaged",
            Self::Leaks => "image_leaks",
            Self::SourceKept => "source_kept",
            Self::Interrupted(_) => "interrupted",
            Self::ClosedPipe => "closed_pipe",
        }
    }
}

/// Why a conversion failed.
///
/// `Display` gives one sentence: stage, operation, cause, and the next step where one is known.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    stage: Stage,
    kind: Kind,
    operation: String,
    advice: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    retryable: bool,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of `stage`; `operation` says what was attempted on what, and at which offset.
    pub fn new(stage: Stage, kind: Kind, operation: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            stage,
            kind,
            operation: operation.into(),
            advice: None,
            cause: None,
            retryable: false,
        }))
    }

    /// Adds the next step, as an order: «use --cluster-size 8k».
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Adds the underlying failure.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Marks the failure as one that may pass if the operation is repeated.
    #[must_use]
    pub fn retry(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Takes that mark away: all that could be tried was tried, and the outcome is known.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.0.retryable = false;
        self
    }

    /// The stage that failed.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// What the failure means to the caller.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The next step, where one is known.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// Whether repeating the operation may help.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.stage, self.0.operation)?;
        let mut cause: Option<&dyn StdError> = self.0.cause.as_deref().map(|c| c as &dyn StdError);
        let mut last = String::new();
        while let Some(error) = cause {
            // Many libraries repeat their source in their own text; say each thing once.
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        match &self.0.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|c| c as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_stage_operation_cause_and_next_step() {
        let error = Error::new(Stage::Sink, Kind::Local, "write 65536 bytes at host offset 0 of `a.qcow2`")
            .because(std::io::Error::from_raw_os_error(28))
            .advise("free some space and run it again");
        assert_eq!(
            error.to_string(),
            "sink: write 65536 bytes at host offset 0 of `a.qcow2`: No space left on device (os error 28); \
             free some space and run it again"
        );
        assert_eq!(error.kind().exit_code(), 7);
        assert_eq!(Kind::Interrupted(2).exit_code(), 130);
        assert_eq!(Kind::Interrupted(15).exit_code(), 143);
    }
}
