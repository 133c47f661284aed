//! Events for programs: a JSON object a line, `schema` is `snapcow/progress/1`, described by
//! `progress-1.schema.json` in the folder of the command line. Every line has all fields.

use std::time::Duration;

use serde_json::{Value, json};

use super::Show;
use super::line::word;
use super::pace::{Look, Pace};

/// Between two lines of `progress`.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Events {
    last: Duration,
}

impl Events {
    fn tell(&mut self, event: &str, look: &Look, pace: &Pace, outcome: Option<bool>) {
        self.last = look.at;
        super::super::tell(event_of(event, look, pace, outcome));
    }
}

fn event_of(event: &str, look: &Look, pace: &Pace, outcome: Option<bool>) -> Value {
    let (done, whole) = look.part();
    json!({
        "schema": "snapcow/progress/1",
        "event": event,
        "outcome": outcome.map(|is_ok| if is_ok { "ok" } else { "failed" }),
        "phase": word(look.phase),
        "elapsed_seconds": look.at.as_secs_f64(),
        "left_seconds": pace.left(),
        "rate_bytes_per_second": pace.rate(),
        "phase_done_bytes": done,
        "phase_whole_bytes": whole,
        "source_len_bytes": look.source_len,
        "source_bytes": look.source_bytes,
        "guest_bytes": look.guest_bytes,
        "zero_bytes": look.zero_bytes - look.hole_bytes,
        "hole_bytes": look.hole_bytes,
        "stored_bytes": look.stored_bytes,
        "sink_bytes": look.sink_bytes,
        "image_bytes": look.image_bytes,
        "reread_bytes": look.reread_bytes,
    })
}

impl Show for Events {
    fn begin(&mut self, look: &Look, pace: &Pace) {
        self.tell("stage", look, pace, None);
    }

    fn tick(&mut self, look: &Look, pace: &Pace, _: Duration) {
        if look.at - self.last >= PERIOD {
            self.tell("progress", look, pace, None);
        }
    }

    fn settle(&mut self, _: &Look, _: Duration, _: bool) {}

    fn end(&mut self, look: &Look, pace: &Pace, outcome: Option<bool>) {
        self.tell("done", look, pace, outcome);
    }
}
