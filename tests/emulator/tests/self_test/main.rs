//! The emulator itself: correct kernels pass in silence, mistakes are caught where they can be.
#![cfg(emulator)]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
mod driver;
mod entries;
mod good;
mod planted;
mod precision;
