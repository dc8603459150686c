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
mod token_statistics;

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
        ConfidenceThreshold, Moments, Reliability, accuracy, align_xplore_rewards, aot_reference,
        aot_unpaired, best_and_worst, consistency, easy_pairs, expected_calibration_error,
        fuse_references, group_advantages, keep_largest, kendall_tau, kto_baseline, kto_log_ratios,
        log_odds, log_odds_ratios, mask_dpo_weights, mm_dpo_batch_beta, mm_dpo_beta_factors,
        p3o_advantages, p3o_pairs, posteriors, preference_log_odds, prompt_scaled, ranks,
        shift_labels, strength_log_odds, win_rates, without_neutral,
    };
    #[pymodule_export]
    use super::token_statistics::{
        ld_dpo_weights, mask_low_entropy, mask_off_policy, nash_md_weights, next_quill_weights,
        probability_sums, tgdpo_weights, wpo_pair_weights, wpo_weights,
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
