//! Calls into the driver: finding its library, its results as our errors, and the thread's current
//! context left as it was.

use std::error::Error as _;
use std::ptr::null_mut;
use std::sync::OnceLock;

use cudarc::driver::{DriverError, sys};
use libloading::Library;

use super::driver::LaunchShape;
use crate::error::{Error, Result};

/// `call!(cuInit(0))`: calls the function, and names it in the error.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::call::checked(
            stringify!($function),
            ::cudarc::driver::sys::$function($($argument),*),
        )
    };
}
pub(super) use call;

pub(super) fn checked(call: &'static str, code: sys::CUresult) -> Result<()> {
    match code.result() {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::Driver { call, message: describe(error) }),
    }
}

/// The driver's words and its name for an error.
pub(super) fn describe(error: DriverError) -> String {
    let text = error.error_string().map_or("unknown error".into(), |text| text.to_string_lossy());
    format!("{text} ({:?})", error.0)
}

/// Must come before every other call: cudarc panics where there is no library.
pub(super) fn find_library() -> Result<()> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    if LIBRARY.get().is_some() {
        return Ok(());
    }
    let names: &[&str] =
        if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
    let mut complaints = Vec::new();
    for name in names {
        // SAFETY: loading runs the library's initialisers; the driver's are made to run in any
        // process.
        match unsafe { Library::new(*name) } {
            Ok(library) => {
                // Kept open: cudarc's own handle may come from a later look-up.
                LIBRARY.get_or_init(|| library);
                return Ok(());
            }
            // The loader's words are in the source; they begin with the name.
            Err(error) => complaints.push(match error.source() {
                Some(source) => source.to_string(),
                None => format!("{name}: {error}"),
            }),
        }
    }
    Err(Error::NoDriver { reason: complaints.join("; ") })
}

/// Hands a launch's shape to a call of the driver, in the driver's own form.
pub(super) fn with_config<T>(
    shape: LaunchShape,
    stream: sys::CUstream,
    call: impl FnOnce(&sys::CUlaunchConfig) -> T,
) -> T {
    let dimensions =
        sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: shape.cluster, y: 1, z: 1 };
    let mut cluster = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { clusterDim: dimensions },
    };
    call(&sys::CUlaunchConfig {
        gridDimX: shape.grid,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: shape.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared,
        hStream: stream,
        attrs: &mut cluster,
        numAttrs: u32::from(shape.cluster > 1),
    })
}

/// A context that is current in this thread while this lives; then the one before it is again, so
/// that a caller that works on another device notices nothing.
pub(super) struct Current {
    previous: Option<sys::CUcontext>,
}

impl Current {
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// `context` is alive, and remains so while this lives.
    pub(super) unsafe fn enter(context: sys::CUcontext) -> Result<Self> {
        let mut previous = null_mut();
        // SAFETY: the driver is initialised where there is a context, and writes one handle.
        unsafe { call!(cuCtxGetCurrent(&mut previous)) }?;
        if previous == context {
            return Ok(Self { previous: None });
        }
        // SAFETY: the caller's promise.
        unsafe { call!(cuCtxSetCurrent(context)) }?;
        Ok(Self { previous: Some(previous) })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(previous) = self.previous {
            // SAFETY: it was current when this was made (null stands for none), and whoever destroys
            // it in between, from another thread, breaks the driver's own rules.
            let _ = unsafe { call!(cuCtxSetCurrent(previous)) };
        }
    }
}
