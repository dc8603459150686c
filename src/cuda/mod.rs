//! The CUDA backend: what its launchers ask of a device, and the device itself.

mod call;
mod device;
#[doc(hidden)]
pub mod driver;
mod fatbins;
mod loaded;

#[doc(hidden)]
pub use device::CudaDriver;
#[doc(hidden)]
pub use fatbins::{Kernels, Module};
