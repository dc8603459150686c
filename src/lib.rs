//! Fused preference losses for language models: from `[tokens, vocab]` logits to DPO and its
//! relatives, with the gradient, in the two passes over memory that the mathematics needs.
//!
//! A preference loss never needs the logits as a whole. Everything passes through one number for
//! each token, so only two steps touch the logits, and neither knows the loss:
//!
//! | stage | computes | traffic on the logits |
//! |---|---|---|
//! | 1 [`log_probs`](Backend::log_probs) | log-prob of each label; if asked for entropy, sum of squared probabilities, argmax | one read |
//! | 2 [`sequence_sums`](Backend::sequence_sums) | weighted sums over each sequence of a ragged pack | none |
//! | 3 [`objective`](Backend::objective), [`ranking`](Backend::ranking), [`token_objective`](Backend::token_objective) | the losses, and their derivative by each sum or log-prob | none |
//! | 4 [`logit_grads`](Backend::logit_grads) | the gradient by the logits, in place or not | one read, one write |
//! | [`mixed_log_probs`](Backend::mixed_log_probs), [`mixed_logit_grads`](Backend::mixed_logit_grads) | stages 1 and 4 of a combination of several models' logits, with the gradient by each | one read of each; one read, one write of each |
//! | [`divergence`](Backend::divergence), [`sparse_divergence`](Backend::sparse_divergence) | how far the student is from a teacher at each token, and the gradient of that | one read of both, one write |
//!
//! [`Loss`] runs them in order; start there. Where each token's loss needs nothing of the others,
//! [`Loss::forward_with_logit_grads`] makes one visit of stages 1, 3 and 4
//! ([`token_loss`](Backend::token_loss)): one read and one write in all. [`token_log_probs`] is stage 1
//! by itself, with its own gradient, for a loss of yours that this crate does not know;
//! [`Loss::evaluate`] goes on from it. [`mixed_token_log_probs`] has those under several models' logits at
//! once, with the gradient by each. [`ScalarLoss`] is stage 3 by itself, for rewards and for sums of
//! log-probs that are known. [`Distillation`] runs the last one, from the logits of one to three teachers.
//!
//! # Where things are
//!
//! - [`batch`]: what the caller hands over. Constructors check what they can see.
//! - [`objectives`]: one file for each loss, with paper, formula and gradient, and the list of them.
//! - [`statistics`]: numbers without gradient that losses take as constants, and what they are for.
//! - [`stages`]: what each stage reads and writes. [`Backend`] runs them over buffers whose element
//!   type is a run-time fact.
//! - [`Reference`]: each stage as its formula reads, in f64; the oracle of the tests.
//! - [`Cpu`]: the fast one on the CPU. [`Cuda`]: the CUDA kernels; [`default_backend`] chooses.
//!
//! # What stays true
//!
//! - Row kernels do not know the loss; objectives do not know element types, devices or
//!   vocabularies.
//! - Only constructors return shape errors; stages assume shapes. After an error (a label
//!   outside the vocabulary) every buffer of the caller is as it was. On a device it comes where the
//!   host next waits.
//! - `objectives` depends on nothing else in the crate; `unsafe` lives in `cuda` and in one file of
//!   `cpu`, the SIMD dispatch.
//! - The same bits on every run, for any number of threads, and for a row whatever batch it sits in.
//! - Memory beyond inputs and gradient is O(tokens).
//! - NaN logits are data: they reach their own row's outputs and nothing else's.

pub mod backend;
pub mod batch;
mod cpu;
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub mod cuda;
mod distillation;
mod element;
mod error;
mod evaluated;
mod forward;
mod memory;
mod metrics;
mod mixed_token_log_probs;
pub mod objectives;
mod pipeline;
mod placed;
mod reference;
mod resolved;
mod scalar_loss;
pub mod stages;
pub mod statistics;
mod term;
mod token_log_probs;
mod token_metrics;

pub use backend::{Backend, DefaultBackend, default_backend};
#[doc(hidden)]
pub use cpu::objective::evaluate_vectorized;
pub use cpu::{Cpu, SimdLevel};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use distillation::{AnyTeacher, Distillation, Distilled};
pub use element::{DType, Element};
pub use error::{Error, Result};
pub use evaluated::{TermValue, Upstream};
pub use forward::Forward;
pub use memory::{Buffer, Slice, SliceMut};
pub use metrics::{PairMetrics, SequenceMetrics};
pub use mixed_token_log_probs::{MixedTokenLogProbs, mixed_token_log_probs};
pub use pipeline::Loss;
pub use placed::{PlacedPacking, PlacedTerm};
pub use reference::Reference;
pub use resolved::Resolved;
pub use scalar_loss::{ScalarForward, ScalarLoss};
pub use stages::{MaskedRows, Target};
pub use term::{Sequences, Term};
pub use token_log_probs::{RowOptions, SequenceTotals, TokenLogProbs, token_log_probs};
pub use token_metrics::{ClipFraction, ClipMetrics, TokenMetrics};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
