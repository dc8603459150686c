//! The module `prefuse._core`: the core's calls on memory that Python names by its address. What is right of a
//! tensor's shape, type and device is checked in `prefuse.torch`; what is right of its numbers by the core.

mod backend;
mod batch;
mod divergence;
mod error;
mod memory;
mod objectives;
mod statistics;
mod threads;

use pyo3::pymodule;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::backend::Backend;
    #[pymodule_export]
    use super::error::{CudaUnavailable, DeviceError};
    #[pymodule_export]
    use super::objectives::{check_objective, objectives};
    #[pymodule_export]
    use super::statistics::{
        accuracy, aot_reference, consistency, expected_calibration_error, group_advantages,
        kendall_tau, kto_log_ratios, log_odds, log_odds_ratios, mask_dpo_weights,
        mm_dpo_beta_factors, preference_log_odds, shift_labels, strength_log_odds,
    };

    /// What is known when the module is made: its version, and the GPU architectures that it has kernels for,
    /// `None` where it was built without nvcc.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::threads::remember();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("CUDA_BUILT_FOR", prefuse::Cuda::built_for().ok())
    }
}
