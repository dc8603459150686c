//! What the launchers ask of a device. [`Driver`] is implemented over cudarc, and by the test
//! equipment that runs the kernels without a GPU; it is no part of the stable API.

use std::ffi::c_void;
use std::fmt::Debug;
use std::ptr::NonNull;

use crate::error::Result;

/// One device and one stream on it: everything below is ordered by that stream.
///
/// # Safety
/// Safe code reads and writes memory on the strength of what an implementation returns:
/// - [`allocate`](Self::allocate) gives at least `bytes` bytes of device memory, which nothing else has
///   until [`free`](Self::free);
/// - [`allocate_mapped`](Self::allocate_mapped) gives host memory of at least `bytes` bytes,
///   initialised and aligned to 16 bytes, which the host may access at `host` and kernels at `device`,
///   and which nothing else has until [`free_mapped`](Self::free_mapped);
/// - copies, fills and launches take effect in the order of the calls, from whichever threads they
///   come;
/// - a call that waits returns when everything enqueued before has taken effect, and a copy from or to
///   host memory when it no longer touches that.
pub unsafe trait Driver: Debug + Send + Sync {
    /// The facts that launch shapes depend on.
    fn device(&self) -> &Device;

    /// Device memory, aligned to 256 bytes at least; its contents are not defined.
    ///
    /// # Errors
    /// The driver's own, such as memory that is not there.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back, once everything enqueued so far has run. Errors have nobody to hear them.
    ///
    /// # Safety
    /// `address` is from [`allocate`](Self::allocate) and is not used again.
    unsafe fn free(&self, address: u64);

    /// Host memory that the device can write, page-locked and filled with 0.
    ///
    /// # Errors
    /// The driver's own.
    fn allocate_mapped(&self, bytes: usize) -> Result<Mapped>;

    /// # Safety
    /// `memory` is from [`allocate_mapped`](Self::allocate_mapped), and nothing that is enqueued
    /// uses it.
    unsafe fn free_mapped(&self, memory: Mapped);

    /// Copies host memory to the device; `from` is free to change when this returns.
    ///
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// `from.len()` bytes of device memory at `to` are writable.
    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<()>;

    /// Copies device memory to the host, and waits for it.
    ///
    /// # Errors
    /// The driver's own, and those of what was enqueued before.
    ///
    /// # Safety
    /// `to.len()` bytes of device memory at `from` are readable.
    unsafe fn download(&self, to: &mut [u8], from: u64) -> Result<()>;

    /// Copies device memory to device memory.
    ///
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// `bytes` bytes of device memory are readable at `from` and writable at `to`, and the two do not
    /// overlap.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;

    /// Sets device memory to 0.
    ///
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// `bytes` bytes of device memory at `address` are writable.
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()>;

    /// Enqueues a kernel with the argument block of `cuLaunchKernel`: a pointer to each argument, in
    /// order.
    ///
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// The arguments are those of the kernel's signature, and what they point to fits the launch.
    unsafe fn launch(
        &self,
        kernel: &str,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()>;

    /// Waits for everything enqueued so far.
    ///
    /// # Errors
    /// Those of what was enqueued.
    fn synchronize(&self) -> Result<()>;
}

/// What launch shapes depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Number among the devices that the driver shows.
    pub ordinal: usize,
    /// The driver's name for it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub processors: u32,
    /// The most bytes of shared memory that a block may ask for; a multiprocessor has 1 KB more, and keeps
    /// 1 KB for each block.
    pub shared: u32,
    /// The most blocks of a cluster that it places of the cluster kernels; 1 for no clusters.
    pub cluster: u32,
}

/// How many threads run a kernel. Rows are on the x axis alone, so one number says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks; a multiple of `cluster`.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

/// Host memory that the device can write.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    /// Where the host finds it.
    pub host: NonNull<u8>,
    /// Where the device finds it.
    pub device: u64,
    /// Its size.
    pub bytes: usize,
}
