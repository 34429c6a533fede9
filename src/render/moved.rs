//! What a step moves (pulls, pushes, writes): bytes so far and in all.

use std::collections::BTreeMap;

/// Bytes by what is moved: so far, and in all if that is known.
#[derive(Default)]
pub struct Moved(BTreeMap<String, (u64, Option<u64>)>);

impl Moved {
    /// So much of something is there.
    pub fn tell(&mut self, what: &str, done: u64, total: Option<u64>) {
        match self.0.get_mut(what) {
            Some(known) => *known = (done, total),
            None => drop(self.0.insert(what.to_owned(), (done, total))),
        }
    }

    /// How much was moved, and which part of it all in percent.
    pub fn shown(&self) -> Option<(String, Option<u64>)> {
        if self.0.is_empty() {
            return None;
        }
        let done: u64 = self.0.values().map(|(done, _)| *done).sum();
        let total: Option<u64> = self.0.values().map(|(_, total)| *total).sum();
        Some(match total.filter(|total| *total > 0) {
            Some(total) if done < total => (
                format!("{}/{} MB", megabytes(done), megabytes(total)),
                Some(done.saturating_mul(100) / total),
            ),
            _ => (format!("{} MB", megabytes(done)), None),
        })
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
