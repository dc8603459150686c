#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod device;
mod host;
mod operation;
mod place;
mod preference_loss;
mod rows;
mod token_log_probs;

pub use preference_loss::{PreferenceLoss, preference_loss};
pub use token_log_probs::{TokenLogProbs, token_log_probs};
