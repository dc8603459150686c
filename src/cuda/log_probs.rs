//! Stage 1: the launch of `kernels/log_probs.cu`.

use super::context::Context;
use super::launch::{self, LogProbsShape};
use super::tokens::{self, Tokens};
use super::{address, kernel, scale, start};
use crate::batch::Logits;
use crate::error::Result;
use crate::stages::{self, LogProbs, TokenOutputs};

/// Twin of `LogProbsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Arguments {
    logits: u64,
    stride: i64,
    vocab: i64,
    tokens: Tokens,
    inverse_temperature: f64,
    scale: f32,
    segments: i32,
    log_probs: u64,
    maximum: u64,
    log_sum: u64,
    entropy: u64,
    log_sum_squares: u64,
    argmax: u64,
    states: u64,
    error: u64,
}

/// What a visit of the rows is asked for; `states` is the address of its scratch, if it has any.
pub(super) fn arguments(
    context: &Context,
    (logits, tokens): (Logits<'_>, stages::Tokens<'_>),
    (temperature, outputs): (f64, &TokenOutputs<'_>),
    states: u64,
) -> Arguments {
    let shape = logits.shape();
    Arguments {
        logits: logits.data().address(),
        stride: shape.stride as i64,
        vocab: shape.vocab as i64,
        tokens: Tokens::of(tokens),
        inverse_temperature: 1.0 / temperature,
        scale: scale(temperature),
        segments: shape.vocab.div_ceil(launch::SEGMENT) as i32,
        log_probs: address(&outputs.log_probs),
        maximum: address(&outputs.maximum),
        log_sum: address(&outputs.log_sum),
        entropy: outputs.entropy.as_ref().map_or(0, address),
        log_sum_squares: outputs.log_sum_squares.as_ref().map_or(0, address),
        argmax: outputs.argmax.as_ref().map_or(0, address),
        states,
        error: context.slot()[0],
    }
}

pub(super) fn log_probs(context: &Context, stage: LogProbs<'_>) -> Result<()> {
    let LogProbs { logits, tokens, temperature, outputs, scratch, .. } = stage;
    let (shape, device) = (logits.shape(), context.driver().device());
    let launch_shape = launch::log_probs(device, shape.tokens, shape.vocab);
    let states = match launch_shape {
        LogProbsShape::Part(..) => address(&scratch),
        _ => 0,
    };
    let arguments = arguments(context, (logits, tokens), (temperature, &outputs), states);
    tokens::check(context, arguments.tokens, shape.vocab)?;
    // Both come from the same sums, so that one more kernel serves either.
    let moments = outputs.entropy.is_some() || outputs.log_sum_squares.is_some();
    let extra = if moments { "_moments" } else { "" };
    let name = |form: &str| kernel("log_probs", form, logits.dtype(), extra);
    // SAFETY: the kernels take these arguments; the stage's constructor checked every length, and that
    // the scratch has room for the states of this shape.
    unsafe { start_states(context, launch_shape, name, &arguments) }
}

/// Enqueues the kernel that computes and merges states, or the two kernels, `name` of their form.
///
/// # Safety
/// As [`start`]'s, of all forms.
pub(super) unsafe fn start_states<A>(
    context: &Context,
    shape: LogProbsShape,
    name: impl Fn(&str) -> String,
    arguments: &A,
) -> Result<()> {
    let (form, first, parts, second) = match shape {
        LogProbsShape::Rows(first) => ("rows", first, None, None),
        LogProbsShape::Block(first) => ("block", first, None, None),
        LogProbsShape::Cluster(first) => ("cluster", first, None, None),
        LogProbsShape::Part(first, parts, second) => ("part", first, Some(parts), Some(second)),
    };
    // SAFETY: the caller's promise.
    unsafe { start(context, &name(form), first, arguments, parts) }?;
    if let Some(second) = second {
        // SAFETY: as above.
        unsafe { start(context, &name("merge"), second, arguments, None) }?;
    }
    Ok(())
}
