//! Stage `mixed_logit_grads`: the launch of `kernels/mixed_logit_grads.cu`.

use super::context::Context;
use super::divergence::type_number;
use super::mixed_log_probs::Parts;
use super::tokens::{self, Tokens};
use super::{launch, scale, start};
use crate::batch::{LogitsMut, MOST_PARTS};
use crate::element::DType;
use crate::error::Result;
use crate::stages::{MaskedRows, MixedLogitGrads};

/// Twin of `MixedTarget` in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Target {
    grads: u64,
    stride: i64,
    coefficient: f64,
    dtype: i64,
}

/// Twin of `MixedLogitGradsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    parts: Parts,
    targets: [Target; MOST_PARTS],
    tokens: Tokens,
    maximum: u64,
    log_sum: u64,
    upstream: u64,
    error: u64,
    inverse_temperature: f64,
    scale: f32,
    target_count: i32,
    segments: i32,
    warps: i32,
    keep_masked: i32,
    single_inverse: f32,
}

/// The kernel asserts the same.
const _: () = assert!(size_of::<Arguments>() == 328);

impl Target {
    fn new(coefficient: f64, grads: &LogitsMut<'_>) -> Self {
        let grads = grads.view();
        Self {
            grads: grads.data().address(),
            stride: grads.shape().stride as i64,
            coefficient,
            dtype: i64::from(type_number(grads.dtype())),
        }
    }
}

pub(super) fn mixed_logit_grads(context: &Context, stage: MixedLogitGrads<'_>) -> Result<()> {
    let MixedLogitGrads { logits, grads, tokens, temperature, statistics, masked, .. } = stage;
    let ([count, vocab], parts) = (logits.size(), Parts::new(&logits));
    let wanted = logits.parts().iter().zip(&grads);
    let wanted =
        wanted.filter_map(|((coefficient, _), grads)| Some((*coefficient, grads.as_ref()?)));
    let (mut targets, mut target_count) = ([Target::default(); MOST_PARTS], 0);
    for (to, (coefficient, grads)) in targets.iter_mut().zip(wanted) {
        *to = Target::new(coefficient, grads);
        target_count += 1;
    }
    let device = context.driver().device();
    let (shape, warps) = launch::mixed_logit_grads(device, parts.vectors(), count, vocab);
    let arguments = Arguments {
        parts,
        targets,
        tokens: Tokens::of(tokens),
        maximum: statistics.maximum.address(),
        log_sum: statistics.log_sum.address(),
        upstream: stage.upstream.address(),
        error: context.slot()[0],
        inverse_temperature: 1.0 / temperature,
        scale: scale(temperature),
        target_count,
        segments: vocab.div_ceil(launch::SEGMENT) as i32,
        warps: warps as i32,
        keep_masked: i32::from(masked == MaskedRows::AlreadyZero),
        single_inverse: (1.0 / temperature) as f32,
    };
    // A part that is not read may have a gradient, of zeros.
    let bf16 = i64::from(type_number(DType::BF16));
    let is_bf16 = arguments.targets[..target_count as usize].iter().all(|to| to.dtype == bf16);
    let of = if is_bf16 { arguments.parts.name() } else { "any" };
    let name = format!("mixed_logit_grads_{of}");
    tokens::check(context, arguments.tokens, vocab)?;
    // SAFETY: the kernel takes these arguments; the stage's constructor checked every length.
    unsafe { start(context, &name, shape, &arguments, None) }
}
