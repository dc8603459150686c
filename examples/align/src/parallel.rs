//! Independent jobs on the cores of the machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The results of `job(0)` to `job(count - 1)`, in order; the first error, if there is one, after
/// which no further job begins.
///
/// Candle runs most operations on one thread, so whole jobs side by side use the cores better.
pub fn map<T: Send, E: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get()).min(count);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return results;
            }
            let result = job(index);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            results.push((index, result));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| match handle.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|&(index, _)| index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_errors_come_through() {
        assert_eq!(map(5, |index| Ok::<_, ()>(index * index)), Ok(vec![0, 1, 4, 9, 16]));
        assert_eq!(map(5, |index| if index == 3 { Err(index) } else { Ok(()) }), Err(3));
    }
}
