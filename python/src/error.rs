//! Errors and panics of the core as Python's exceptions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use prefuse::Error;
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::threads;

create_exception!(
    prefuse._core,
    CudaUnavailable,
    PyRuntimeError,
    "There is no CUDA device, driver or kernel for a tensor on CUDA."
);
create_exception!(
    prefuse._core,
    DeviceError,
    PyRuntimeError,
    "A call of the CUDA driver failed, or another call took the error."
);

/// The exception for an error of the core.
pub fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::LogitsType { .. } | Error::DataType { .. } => PyTypeError::new_err(message),
        Error::NoDriver { .. }
        | Error::NoDevice
        | Error::DeviceOrdinal { .. }
        | Error::KernelsNotBuilt { .. }
        | Error::DriverTooOld { .. }
        | Error::NoKernelsForDevice { .. } => CudaUnavailable::new_err(message),
        Error::Driver { .. } | Error::ErrorTaken => DeviceError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

/// Runs the core without the interpreter's lock.
///
/// # Errors
/// The core's own, and a `RuntimeError` in the place of a panic: PyO3's is no `Exception`, so that it would
/// pass every handler.
pub fn run<T: Send>(
    py: Python<'_>,
    call: impl FnOnce() -> prefuse::Result<T> + Send,
) -> PyResult<T> {
    let result = py.detach(|| catch_unwind(AssertUnwindSafe(|| threads::install(call))));
    match result {
        Ok(result) => result.map_err(exception),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            let message = message.unwrap_or("unknown");
            Err(PyRuntimeError::new_err(format!("prefuse: a defect of the library: {message}")))
        }
    }
}
