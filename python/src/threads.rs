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
    pool().install(call)
}

/// # Panics
/// Where the system gives no thread: the caller makes an exception of that, where waiting would never end.
fn pool() -> Arc<ThreadPool> {
    let mut child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    match child.take() {
        Some((process, pool)) if process == id() => {
            *child = Some((process, pool.clone()));
            pool
        }
        // Dropping a parent's would wait for its threads.
        other => {
            std::mem::forget(other);
            // As torch does in its workers, of which there are several.
            let built = ThreadPoolBuilder::new().num_threads(1).build();
            let pool = Arc::new(built.expect("a thread of the forked process"));
            *child = Some((id(), pool.clone()));
            pool
        }
    }
}
