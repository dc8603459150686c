//! One test body for each stage and property, over every backend, element type and vocabulary.
//! `tests/emulator` includes the bodies that a backend takes part in, for emulated CUDA devices.
#![allow(missing_docs, clippy::unwrap_used)]

mod adding_a_loss;
mod advantages;
mod alignment;
mod backends;
mod bad_call;
mod bad_input;
mod bad_stage;
mod bad_terms;
#[cfg(unix)]
mod build_script;
mod common;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda_driver;
#[cfg(feature = "cuda")]
mod device_errors;
mod distillation;
mod divergence;
mod docs;
mod examples;
mod golden;
mod large_offsets;
#[cfg(feature = "cuda")]
mod large_offsets_on_device;
mod layout;
mod lcpo;
mod log_probs;
mod logit_grads;
mod mask_dpo;
mod mixed_log_probs;
mod mixed_logit_grads;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod mock_libcuda;
mod objective;
mod objective_source;
mod objectives_table;
mod own_objectives;
mod papers;
mod properties;
mod ranking;
mod ranking_on_rewards;
mod sequence_sums;
mod sparse_divergence;
mod speed;
mod statistics;
mod statistics_bad_input;
mod terms;
mod threads;
mod token_loss;
mod token_metrics;
mod token_objective;
mod units;
