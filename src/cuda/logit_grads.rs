//! Stage 4: the launch of `kernels/logit_grads.cu`.

use super::context::Context;
use super::launch::{self, LogitGradsShape};
use super::tokens::{self, Tokens};
use super::{kernel, scale, start};
use crate::error::Result;
use crate::stages::{LogitGrads, MaskedRows};

/// Twin of `LogitGradsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    logits: u64,
    stride: i64,
    grads: u64,
    grads_stride: i64,
    vocab: i64,
    tokens: Tokens,
    maximum: u64,
    log_sum: u64,
    by_log_prob: u64,
    by_entropy: u64,
    entropy: u64,
    inverse_temperature: f32,
    scale: f32,
    keep_masked: i32,
    error: u64,
}

pub(super) fn logit_grads(context: &Context, stage: LogitGrads<'_>) -> Result<()> {
    let LogitGrads { target, tokens, temperature, statistics, upstream, masked, .. } = stage;
    let (logits, grads) = target.views();
    let shape = logits.shape();
    let (by_entropy, entropy) =
        upstream.entropy.map_or((0, 0), |(grads, entropy)| (grads.address(), entropy.address()));
    let arguments = Arguments {
        logits: logits.data().address(),
        stride: shape.stride as i64,
        grads: grads.data().address(),
        grads_stride: grads.shape().stride as i64,
        vocab: shape.vocab as i64,
        tokens: Tokens::of(tokens),
        maximum: statistics.maximum.address(),
        log_sum: statistics.log_sum.address(),
        by_log_prob: upstream.log_probs.address(),
        by_entropy,
        entropy,
        inverse_temperature: (1.0 / temperature) as f32,
        scale: scale(temperature),
        keep_masked: i32::from(masked == MaskedRows::AlreadyZero),
        error: context.slot()[0],
    };
    tokens::check(context, arguments.tokens, shape.vocab)?;
    let (device, dtype) = (context.driver().device(), logits.dtype());
    let extra = if by_entropy != 0 { "_entropy" } else { "" };
    let name = |form: &str| kernel("logit_grads", form, dtype, extra);
    // SAFETY: the kernels take these arguments; the stage's constructor checked every length.
    unsafe {
        match launch::logit_grads(device, dtype, shape.tokens, shape.vocab) {
            LogitGradsShape::Rows(shape) => start(context, &name("rows"), shape, &arguments, None),
            LogitGradsShape::Block(shape, parts) => {
                start(context, &name("block"), shape, &arguments, Some(parts))
            }
        }
    }
}
