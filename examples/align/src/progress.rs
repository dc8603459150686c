//! How far the run is: a bar in a terminal, a line now and then elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Counts the optimizer steps of the whole run; shared between threads.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    plain: Option<Mutex<Instant>>,
}

impl Progress {
    pub fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = "[{elapsed}] {bar:32.cyan/blue} {pos}/{len} steps, {eta} left, {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let started = Instant::now();
        let plain = bar.is_hidden().then(|| Mutex::new(started));
        Self { bar, started, plain }
    }

    /// One more step is done.
    pub fn step(&self, seed: u64, stage: &str, loss: f64) {
        self.bar.inc(1);
        let message = format!("seed {seed} {stage} loss {loss:.3}");
        match &self.plain {
            None => self.bar.set_message(message),
            Some(last) => self.print_line(last, &message),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn print_line(&self, last: &Mutex<Instant>, message: &str) {
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let Ok(mut last) = last.lock() else { return };
        if last.elapsed() < PLAIN_INTERVAL && done < all {
            return;
        }
        *last = Instant::now();
        let elapsed = self.started.elapsed().as_secs_f64();
        let left = elapsed / done.max(1) as f64 * all.saturating_sub(done) as f64;
        eprintln!("step {done}/{all}, {elapsed:.0} s, about {left:.0} s left, {message}");
    }
}
