//! Signals end a run in good order.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use snapcow::convert::Cancel;

/// Starts to watch. The first signal ends the run; a second one ends the process at once. SIGXFSZ alone would kill
/// without a clean-up; once it is caught, the write behind a limit on file sizes fails like one to a full disk.
pub fn watch() -> Cancel {
    let cancel = Cancel::new();
    let trigger = cancel.clone();
    match Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXFSZ]) {
        Ok(mut signals) => {
            let run = move || {
                for signal in signals.forever().filter(|signal| *signal != SIGXFSZ) {
                    if trigger.signal().is_some() {
                        std::process::exit(128 + signal);
                    }
                    trigger.trigger(signal);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("signals".into()).spawn(run) {
                tracing::warn!("signals will end the process at once: {error}");
            }
        }
        Err(error) => tracing::warn!("signals will end the process at once: {error}"),
    }
    cancel
}
