//! Fused preference losses.

pub mod backend;
pub mod batch;
mod element;
mod error;
mod memory;
mod metrics;
pub mod objectives;
mod pipeline;
mod reference;
pub mod stages;
mod term;
mod token_log_probs;

pub use backend::Backend;
pub use element::{DType, Element};
pub use error::{Error, Result};
pub use memory::{Buffer, Slice, SliceMut};
pub use metrics::PairMetrics;
pub use pipeline::{Forward, Loss, TermValue, Upstream};
pub use reference::Reference;
pub use stages::{MaskedRows, Target};
pub use term::{Resolved, Sequences, Term};
pub use token_log_probs::{RowOptions, TokenLogProbs, token_log_probs};
