//! Progress on standard error: a bar, or a JSON object a second. Pass 1 moves it too.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use snapcow::convert::{Counters, Phase};

use super::args::ProgressMode;

/// Shows progress until it is dropped.
pub struct Progress {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub fn start(mode: ProgressMode, quiet: bool, counters: Arc<Counters>, len: Option<u64>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let bar = match mode {
            ProgressMode::Bar => true,
            ProgressMode::Auto => !quiet && std::io::stderr().is_terminal(),
            ProgressMode::Json | ProgressMode::None => false,
        };
        let flag = Arc::clone(&done);
        let thread = if bar {
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || show_bar(&flag, &counters, len))
                .ok()
        } else if mode == ProgressMode::Json {
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || show_json(&flag, &counters, len))
                .ok()
        } else {
            None
        };
        Self { done, thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::Survey => "reading",
        Phase::Deliver => "sending",
        Phase::Settle => "finishing",
    }
}

fn show_bar(done: &AtomicBool, counters: &Counters, len: Option<u64>) {
    let bar = ProgressBar::new(0);
    let with_len = "{prefix:9} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}  {msg}";
    let without = "{prefix:9} {spinner} {bytes}  {bytes_per_sec}  {msg}";
    if let Ok(style) = ProgressStyle::with_template(if len.is_some() { with_len } else { without }) {
        bar.set_style(style);
    }
    let mut phase = Phase::Preparing;
    while !done.load(Ordering::Relaxed) {
        let now = counters.phase();
        if now != phase {
            phase = now;
            bar.set_prefix(phase_word(phase));
            bar.reset_eta();
        }
        let (position, total) = position(counters, phase, len);
        bar.set_length(total.max(position));
        bar.set_position(position);
        let zero = Counters::get(&counters.zero_bytes) + Counters::get(&counters.hole_bytes);
        bar.set_message(format!("zero {}", snapcow::units::Human(zero)));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    bar.finish_and_clear();
}

fn position(counters: &Counters, phase: Phase, len: Option<u64>) -> (u64, u64) {
    match phase {
        Phase::Preparing | Phase::Survey => {
            let guest = Counters::get(&counters.guest_bytes);
            (len.map_or(guest, |len| guest.min(len)), len.unwrap_or(guest))
        }
        Phase::Deliver | Phase::Settle => {
            (Counters::get(&counters.sink_bytes), Counters::get(&counters.image_bytes))
        }
    }
}

fn show_json(done: &AtomicBool, counters: &Counters, len: Option<u64>) {
    let begin = Instant::now();
    loop {
        let last = done.load(Ordering::Relaxed);
        let line = serde_json::json!({
            "phase": phase_word(counters.phase()),
            "elapsed_seconds": begin.elapsed().as_secs_f64(),
            "source_len_bytes": len,
            "source_bytes": Counters::get(&counters.source_bytes),
            "guest_bytes": Counters::get(&counters.guest_bytes),
            "zero_bytes": Counters::get(&counters.zero_bytes),
            "hole_bytes": Counters::get(&counters.hole_bytes),
            "stored_bytes": Counters::get(&counters.stored_bytes),
            "sink_bytes": Counters::get(&counters.sink_bytes),
            "image_bytes": Counters::get(&counters.image_bytes),
        });
        super::tell(line);
        if last {
            return;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
