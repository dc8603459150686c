//! Test equipment: runs the very `.cu` files of `kernels/`, compiled as C++, on the CPU, behind the
//! [`Driver`] trait that the CUDA backend launches through. Never a backend to pick.
//!
//! Every CUDA thread is a fiber, and a [`Schedule`] says in which order they take their turns. What
//! depends on the order is wrong, so tests run under several. Reports come back as
//! [`Error::Driver`], with file and line of the kernel, and stay: nothing works after one, as on a
//! GPU.
//!
//! The environment variable `PREFUSE_EMULATOR` chooses at build time what is watched:
//!
//! | [`Mode`] | besides wrong results, it reports |
//! |---|---|
//! | `fast` | wrong masks, divergent barriers, deadlocks, misaligned accesses, clusters misused, faults, writes next to buffers |
//! | `race` | also data races in every schedule, accesses out of bounds, memory that was freed or never written |
//! | `asan` | what AddressSanitizer and UndefinedBehaviorSanitizer see, instead of races |
//!
//! # What kernels keep to
//!
//! - PTX stands in `ptx.cuh` alone, which has a twin here; a new function there needs one in the twin.
//! - Shared memory is had through `block_shared<T>()`, and accesses of 16 bytes through `ld16` and
//!   its like, which check alignment.
//! - Entry points are `extern "C" __global__` and share their names with no other function. The build
//!   finds them by itself.
//! - Loops that wait for other threads call `__nanosleep`, or a function of `ptx.cuh` that waits.
//! - What CUDA function is missing in `cuda/` is a compile error, and a line there.
//!
//! # What it cannot see
//!
//! It compiles the source and not the machine code, so errors of nvcc and in the PTX of `ptx.cuh`
//! stay hidden, and so does everything about speed. Execution is sequentially consistent: the race
//! mode knows barriers, fences and atomics, and not the finer orders of the memory model.
//! Approximate instructions are exact, so results are close to a GPU's and not equal.
//!
//! # Where things are
//!
//! - `cuda/`: what the compiler sees before a `.cu` file: CUDA's keywords and functions, and the twin.
//! - `runtime/`: threads and their scheduler, barriers, memory, the race detector.
//! - `kernels/`: kernels that test the emulator itself, good and bad.
#![cfg(emulator)]

mod emulator;
mod interface;

pub use emulator::{Emulator, Mode, Schedule, kernel_names, mode, parameter_sizes};

#[cfg(doc)]
use prefuse::{Error, cuda::Driver};
