//! The core's threads in processes that were forked, such as those of torch's `DataLoader`.
//!
//! The threads of rayon's pool are not there in a child, which would wait for them forever; it gets a pool of
//! its own.

use std::process::id;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The process that loaded the module.
static HOME: OnceLock<u32> = OnceLock::new();

/// The pool of a child, and whose it is: a child may be forked too.
static CHILD: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// Called when the module is loaded.
pub fn remember() {
    HOME.get_or_init(id);
}

/// Runs `call` where its parallel parts find threads.
pub fn install<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    if HOME.get() == Some(&id()) {
        return call();
    }
    match pool() {
        Some(pool) => pool.install(call),
        // The system gives no threads; what is small enough needs none.
        None => call(),
    }
}

fn pool() -> Option<Arc<ThreadPool>> {
    let mut child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    match child.take() {
        Some((process, pool)) if process == id() => {
            *child = Some((process, pool.clone()));
            Some(pool)
        }
        // Dropping a parent's would wait for its threads.
        other => {
            std::mem::forget(other);
            let pool = Arc::new(ThreadPoolBuilder::new().build().ok()?);
            *child = Some((id(), pool.clone()));
            Some(pool)
        }
    }
}
