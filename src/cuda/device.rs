//! [`Driver`] on a real device.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use cudarc::driver::sys;

use super::call::{Current, call, with_config};
use super::driver::{Device, Driver, LaunchShape, Mapped};
use super::fatbins::Kernels;
use super::loaded::Loaded;
use crate::error::{Error, Result};

/// One stream of one device, in the device's primary context.
#[derive(Debug)]
pub struct CudaDriver {
    loaded: Arc<Loaded>,
    stream: sys::CUstream,
    owned: bool,
}

// SAFETY: the driver lets every thread use a stream, and locks what it shares.
unsafe impl Send for CudaDriver {}
// SAFETY: as above; nothing here changes after it was made.
unsafe impl Sync for CudaDriver {}

impl CudaDriver {
    /// A stream of its own, which does not wait for the default stream.
    ///
    /// # Errors
    /// In this order: [`Error::NoDriver`], [`Error::NoDevice`] or [`Error::DeviceOrdinal`],
    /// [`Error::KernelsNotBuilt`], [`Error::DriverTooOld`] or [`Error::NoKernelsForDevice`],
    /// [`Error::Driver`].
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::with_kernels(ordinal, Kernels::embedded())
    }

    /// [`open`](Self::open) with other kernels than those of the build.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn with_kernels(ordinal: usize, kernels: Result<&'static Kernels>) -> Result<Self> {
        let mut driver =
            Self { loaded: Loaded::get(ordinal, kernels)?, stream: null_mut(), owned: false };
        let current = driver.enter()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: there is a current context; the driver writes one handle.
        unsafe { call!(cuStreamCreate(&mut driver.stream, flags)) }?;
        drop(current);
        driver.owned = true;
        Ok(driver)
    }

    /// A stream of somebody else, in the device's primary context; null is the default stream. It
    /// is never destroyed.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::Driver`] for a stream of another context.
    ///
    /// # Safety
    /// `stream` is a `CUstream` (`cudaStream_t`) and lives longer than this does. The per-thread
    /// default stream (`CU_STREAM_PER_THREAD`, the handle 2) is another stream in each thread: with it,
    /// this and everything made of it stay in one thread.
    pub unsafe fn on_stream(ordinal: usize, stream: *mut c_void) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::with_kernels_on_stream(ordinal, stream, Kernels::embedded()) }
    }

    /// [`on_stream`](Self::on_stream) with other kernels than those of the build.
    ///
    /// # Errors
    /// Those of [`on_stream`](Self::on_stream).
    ///
    /// # Safety
    /// That of [`on_stream`](Self::on_stream): with the per-thread default stream everything stays in
    /// one thread.
    pub unsafe fn with_kernels_on_stream(
        ordinal: usize,
        stream: *mut c_void,
        kernels: Result<&'static Kernels>,
    ) -> Result<Self> {
        let loaded = Loaded::get(ordinal, kernels)?;
        let driver = Self { loaded, stream: stream.cast(), owned: false };
        let current = driver.enter()?;
        let mut context = null_mut();
        // SAFETY: the stream is alive; the driver writes one handle.
        unsafe { call!(cuStreamGetCtx(driver.stream, &mut context)) }?;
        drop(current);
        if context != driver.loaded.context() {
            return Err(Error::Driver {
                call: "cuStreamGetCtx",
                message: format!(
                    "expected a stream of the primary context of device {ordinal}, got one of another"
                ),
            });
        }
        Ok(driver)
    }

    fn enter(&self) -> Result<Current> {
        // SAFETY: `self` holds the context.
        unsafe { Current::enter(self.loaded.context()) }
    }

    /// Copies that are recorded in a graph run later, when the host memory may be gone.
    fn refuse_capture(&self) -> Result<()> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is alive; the driver writes one number.
        unsafe { call!(cuStreamIsCapturing(self.stream, &mut status)) }?;
        if status == sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Ok(());
        }
        Err(Error::Driver {
            call: "cuMemcpyHtoDAsync",
            message: "the stream is being captured in a graph; upload before the capture".into(),
        })
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        if self.owned
            && let Ok(_current) = self.enter()
        {
            // SAFETY: it was created here and nobody else has it. What is enqueued still runs.
            let _ = unsafe { call!(cuStreamDestroy_v2(self.stream)) };
        }
    }
}

// SAFETY: addresses are the driver's own, of allocations of at least the size asked for; mapped memory
// is page-locked, written and not freed before `free_mapped`. One stream orders all calls, and what
// has to be done when a call returns has been waited for.
unsafe impl Driver for CudaDriver {
    fn device(&self) -> &Device {
        &self.loaded.device
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let _current = self.enter()?;
        // The driver allocates nothing less.
        let bytes = bytes.max(1);
        let mut address = 0;
        if self.loaded.pools {
            // SAFETY: the stream is alive; the driver writes one address.
            unsafe { call!(cuMemAllocAsync(&mut address, bytes, self.stream)) }?;
        } else {
            // SAFETY: the driver writes one address.
            unsafe { call!(cuMemAlloc_v2(&mut address, bytes)) }?;
        }
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        let Ok(_current) = self.enter() else { return };
        if self.loaded.pools {
            // SAFETY: the caller's promise; the stream orders it behind every use.
            let _ = unsafe { call!(cuMemFreeAsync(address, self.stream)) };
        } else {
            let _ = self.synchronize();
            // SAFETY: the caller's promise; every use has run.
            let _ = unsafe { call!(cuMemFree_v2(address)) };
        }
    }

    fn allocate_mapped(&self, bytes: usize) -> Result<Mapped> {
        let _current = self.enter()?;
        let bytes = bytes.max(1);
        let mut host = null_mut();
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: there is a current context; the driver writes one address.
        unsafe { call!(cuMemHostAlloc(&mut host, bytes, flags)) }?;
        let Some(memory) = NonNull::new(host.cast::<u8>()) else {
            let message = "got no address".to_owned();
            return Err(Error::Driver { call: "cuMemHostAlloc", message });
        };
        // SAFETY: `bytes` bytes were just allocated there.
        unsafe { memory.write_bytes(0, bytes) };
        let mut device = 0;
        // SAFETY: the memory is mapped; the driver writes one address.
        if let Err(error) = unsafe { call!(cuMemHostGetDevicePointer_v2(&mut device, host, 0)) } {
            // SAFETY: nobody has seen it.
            let _ = unsafe { call!(cuMemFreeHost(host)) };
            return Err(error);
        }
        Ok(Mapped { host: memory, device, bytes })
    }

    unsafe fn free_mapped(&self, memory: Mapped) {
        let Ok(_current) = self.enter() else { return };
        // SAFETY: the caller's promise.
        let _ = unsafe { call!(cuMemFreeHost(memory.host.as_ptr().cast())) };
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let _current = self.enter()?;
        self.refuse_capture()?;
        // SAFETY: the caller's promise, and `from` is readable until the copy is done below.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), self.stream)) }?;
        // The driver may read `from` after it has returned, page-locked or not: that it stages
        // pageable memory first is a habit and no promise.
        self.synchronize()
    }

    unsafe fn download(&self, to: &mut [u8], from: u64) -> Result<()> {
        let _current = self.enter()?;
        if !to.is_empty() {
            // SAFETY: the caller's promise, and `to` is writable until the copy is done below.
            unsafe {
                call!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), self.stream))
            }?;
        }
        self.synchronize()
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream)) }
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(cuMemsetD8Async(address, 0, bytes, self.stream)) }
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let function = self.loaded.function(kernel)?;
        let _current = self.enter()?;
        let arguments = arguments.as_mut_ptr();
        with_config(shape, self.stream, |config| {
            // SAFETY: the function is loaded, and the call copies the arguments; that they fit is the
            // caller's promise.
            unsafe { call!(cuLaunchKernelEx(config, function, arguments, null_mut())) }
        })
    }

    fn synchronize(&self) -> Result<()> {
        let _current = self.enter()?;
        // SAFETY: the stream is alive.
        unsafe { call!(cuStreamSynchronize(self.stream)) }
    }
}
