//! Test equipment: runs the very `.cu` files of `kernels/`, compiled as C++, on the CPU, behind the
//! [`Driver`] trait that the CUDA backend launches through. Never a backend to pick.
//!
//! Every CUDA thread is a fiber, and a schedule says in which order they take their turns. What
//! depends on the order is wrong, so tests run under several. Reports come back as
//! [`Error::Driver`], with file and line of the kernel.
//!
//! The environment variable `PREFUSE_EMULATOR` chooses at build time what is watched:
//!
//! | [`Mode`] | wrong results aside, it reports |
//! |---|---|
//! | `fast` | wrong masks, divergent barriers, deadlocks, misaligned accesses, clusters misused, writes next to buffers |
//! | `race` | also data races in every schedule, accesses out of bounds, uninitialised shared memory, freed memory |
//! | `asan` | what AddressSanitizer and UndefinedBehaviorSanitizer see, instead of races |
//!
//! # What it cannot see
//!
//! It compiles the source and not the machine code, so errors of nvcc and in the PTX of `ptx.cuh`
//! stay hidden, and so does everything about speed. Execution is sequentially consistent: the race
//! mode knows barriers, fences and atomics, and not the finer orders of the memory model.
//! Approximate instructions are exact, so results are close to a GPU's and not equal.

mod emulator;
mod interface;

pub use emulator::{Emulator, Mode, Schedule, kernel_names, mode};

#[cfg(doc)]
use prefuse::{Error, cuda::Driver};
