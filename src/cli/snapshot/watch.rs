//! Waiting for Nova and Glance: growing pauses, a bound, and a line whenever something has changed.

use std::time::{Duration, Instant};

use super::super::args::ProgressMode;
use super::super::tell;

/// The first pause and the longest one. A server that was stopped waits for us, so the longest is short.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);
/// Where nothing changes, that is said so often.
const STILL: Duration = Duration::from_secs(60);

/// One wait.
pub struct Watch {
    begin: Instant,
    bound: Duration,
    pause: Duration,
    said: Option<(String, Instant)>,
    quiet: bool,
    json: bool,
}

impl Watch {
    pub fn new(bound: Duration, quiet: bool, mode: ProgressMode) -> Self {
        let json = mode == ProgressMode::Json;
        Self { begin: Instant::now(), bound, pause: FIRST, said: None, quiet, json }
    }

    /// Another wait of the same kind.
    pub fn anew(&self) -> Self {
        Self { begin: Instant::now(), pause: FIRST, said: None, ..*self }
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Whether the wait has been long enough.
    pub fn is_late(&self) -> bool {
        self.elapsed() >= self.bound
    }

    /// The bound, for messages.
    pub fn bound(&self) -> String {
        seconds(self.bound)
    }

    /// Says how things stand, if they are not what they were.
    pub fn note(&mut self, state: String) {
        let old = self.said.as_ref();
        if old.is_some_and(|(said, at)| *said == state && at.elapsed() < STILL) {
            return;
        }
        if old.is_none_or(|(said, _)| *said != state) {
            self.pause = FIRST;
        }
        if self.json {
            let elapsed = self.elapsed().as_secs_f64();
            tell(serde_json::json!({
                "schema": super::EVENT, "event": "wait", "state": state, "elapsed_seconds": elapsed
            }));
        } else if !self.quiet {
            tell(format_args!("snapcow:   {state}, {}", seconds(self.elapsed())));
        }
        self.said = Some((state, Instant::now()));
    }

    /// Waits for the next look.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause.min(self.bound)).await;
        self.pause = self.pause.mul_f64(1.5).min(LONGEST);
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        whole @ ..120 => format!("{whole} s"),
        whole @ ..7200 => format!("{} min {} s", whole / 60, whole % 60),
        whole => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}
