//! Ctrl-C and its kin: what runs is told to end, so that the screen, the history and the state folder
//! are left as after any other end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use rbc_runtime::{registry::Stop, sandbox::Cancel};

/// Cancels at the first signal; a second one ends the program at once. Gives what tells that there
/// was a signal.
pub fn cancel_on_them(cancel: &Cancel) -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("cannot listen for signals")?;
    let cancel = cancel.clone();
    let stopped = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stopped);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (number, signal) in signals.forever().enumerate() {
                cancel.cancel();
                told.store(true, Ordering::Relaxed);
                if number > 0 {
                    // Steps die with this process.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(stopped)
}

/// Ends transfers when something is cancelled.
pub fn stop_of(cancel: &Cancel) -> Stop {
    let cancel = cancel.clone();
    Stop::when(move || cancel.is_cancelled())
}

/// A stop that comes with the first signal.
pub fn stop_on_them() -> anyhow::Result<Stop> {
    let cancel = Cancel::new()?;
    cancel_on_them(&cancel)?;
    Ok(stop_of(&cancel))
}
