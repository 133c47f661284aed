//! Signals end a run in good order.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use snapcow::convert::Cancel;

/// Starts to watch. The first signal ends the run; a second one ends the process at once.
pub fn watch() -> Cancel {
    let cancel = Cancel::new();
    let trigger = cancel.clone();
    match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            let run = move || {
                for signal in signals.forever() {
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
