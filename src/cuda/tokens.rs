//! Which tokens count, and the check that every label and weight is one.

use super::context::Context;
use super::{launch, start};
use crate::error::Result;
use crate::memory::Slice;
use crate::stages;

/// Twin of `Tokens` in kernels/include/tokens.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    labels: u64,
    weights: u64,
    count: i64,
    ignore: i64,
}

impl Tokens {
    pub fn of(tokens: stages::Tokens<'_>) -> Self {
        Self {
            labels: tokens.labels.address(),
            weights: tokens.weights.map_or(0, Slice::address),
            count: tokens.count() as i64,
            ignore: tokens.ignore,
        }
    }
}

/// Twin of `CheckTokensArguments` in kernels/tokens.cu.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    tokens: Tokens,
    vocab: i64,
    error: u64,
    mapped: u64,
}

/// Enqueues the check; kernels after it write nothing if it fails.
pub(super) fn check(context: &Context, tokens: Tokens, vocab: usize) -> Result<()> {
    let [error, mapped] = context.slot();
    let arguments = Arguments { tokens, vocab: vocab as i64, error, mapped };
    // SAFETY: the kernel takes these arguments and reads `count` labels and weights.
    unsafe { start(context, "check_tokens", launch::check_tokens(), &arguments, None) }
}
