//! Stage 2 and its backward: the launches of `kernels/sequence_sums.cu`.

use super::context::Context;
use super::tokens::Tokens;
use super::{address, launch, start};
use crate::element::DType;
use crate::error::Result;
use crate::stages::{SequenceSums, TokenGrads};

/// Twin of `SequenceSumsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct SumsArguments {
    log_probs: u64,
    tokens: Tokens,
    offsets: u64,
    sequences: i64,
    sums: u64,
    counts: u64,
    weights: u64,
    error: u64,
}

/// Twin of `TokenGradsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct GradsArguments {
    sequence_grads: u64,
    tokens: Tokens,
    offsets: u64,
    sequences: i64,
    grads: u64,
    error: u64,
}

pub(super) fn sequence_sums(context: &Context, stage: SequenceSums<'_>) -> Result<()> {
    let SequenceSums { log_probs, tokens, packing, totals, .. } = stage;
    // The stage's constructor refused other types.
    let name = match log_probs.dtype() {
        DType::F64 => "sequence_sums_f64",
        _ => "sequence_sums_f32",
    };
    let sequences = packing.packing().sequences();
    let arguments = SumsArguments {
        log_probs: log_probs.address(),
        tokens: Tokens::of(tokens),
        offsets: packing.offsets().address(),
        sequences: sequences as i64,
        sums: address(&totals.sums),
        counts: address(&totals.tokens),
        weights: address(&totals.weights),
        error: context.slot()[0],
    };
    // SAFETY: the kernel takes these arguments; the stage's constructor checked every length and type, and a
    // placed packing's offsets are those of a checked one.
    unsafe { start(context, name, launch::sequence_sums(sequences), &arguments, None) }
}

pub(super) fn token_grads(context: &Context, stage: TokenGrads<'_>) -> Result<()> {
    let TokenGrads { sequence_grads, tokens, packing, grads, .. } = stage;
    let arguments = GradsArguments {
        sequence_grads: sequence_grads.address(),
        tokens: Tokens::of(tokens),
        offsets: packing.offsets().address(),
        sequences: packing.packing().sequences() as i64,
        grads: address(&grads),
        error: context.slot()[0],
    };
    // SAFETY: as above, and it checked that the gradients are f32, which is the type of a device's own.
    unsafe {
        start(context, "token_grads_f32", launch::token_grads(tokens.count()), &arguments, None)
    }
}
