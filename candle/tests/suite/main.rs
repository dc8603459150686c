//! Against candle's own autograd on the same losses, composed from its operations.

mod composed;
#[cfg(feature = "cuda")]
mod cuda;
mod errors;
mod example;
mod layouts;
mod precision;
mod second_derivative;
mod token_log_probs;
mod upstream;

type Outcome = Result<(), Box<dyn std::error::Error>>;
