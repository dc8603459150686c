//! Stages on a GPU.

#[doc(hidden)]
pub mod driver;

pub use driver::{Device, Driver, LaunchShape, Mapped};
