//! Stage `mixed_log_probs`: the launch of `kernels/mixed_log_probs.cu`.

use super::context::Context;
use super::divergence::{HALF_VECTORS, type_number};
use super::launch::{self, LogProbsShape};
use super::log_probs::start_states;
use super::tokens::{self, Tokens};
use super::{address, scale};
use crate::batch::{Combination, MOST_PARTS};
use crate::element::DType;
use crate::error::Result;
use crate::stages::MixedLogProbs;

/// Twin of `Part` in kernels/include/parts.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    logits: u64,
    stride: i64,
    coefficient: f64,
    factor: f32,
    dtype: i32,
    place: i64,
}

/// Twin of `Parts` in kernels/include/parts.cuh.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Parts {
    of: [Part; MOST_PARTS],
    vocab: i64,
    count: i32,
    slot_vectors: i32,
}

/// Twin of `MixedLogProbsArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    parts: Parts,
    tokens: Tokens,
    inverse_temperature: f64,
    scale: f32,
    segments: i32,
    log_probs: u64,
    maximum: u64,
    log_sum: u64,
    states: u64,
    error: u64,
}

/// The kernel asserts the same.
const _: () = assert!(size_of::<Parts>() == 136 && size_of::<Arguments>() == 224);

impl Parts {
    pub fn new(logits: &Combination<'_>) -> Self {
        let mut parts = Self { vocab: logits.size()[1] as i64, ..Self::default() };
        // A part of coefficient 0 excludes nothing, and is not read.
        let all = logits.parts().iter().filter(|(coefficient, _)| *coefficient != 0.0);
        for (to, &(coefficient, logits)) in parts.of.iter_mut().zip(all) {
            *to = Part {
                logits: logits.data().address(),
                stride: logits.shape().stride as i64,
                coefficient,
                factor: coefficient as f32,
                dtype: type_number(logits.dtype()),
                place: i64::from(parts.slot_vectors),
            };
            parts.slot_vectors += (HALF_VECTORS * logits.dtype().size() / 2) as i32;
            parts.count += 1;
        }
        parts
    }

    /// The end of a kernel's name.
    pub fn name(&self) -> &'static str {
        let bf16 = type_number(DType::BF16);
        let read = &self.of[..self.count as usize];
        if read.iter().all(|part| part.dtype == bf16) { "bf16" } else { "any" }
    }

    /// 16-byte vectors that a lane has of a segment.
    pub fn vectors(&self) -> usize {
        self.slot_vectors as usize
    }
}

pub(super) fn mixed_log_probs(context: &Context, stage: MixedLogProbs<'_>) -> Result<()> {
    let MixedLogProbs { logits, tokens, temperature, outputs, scratch, .. } = stage;
    let ([count, vocab], parts) = (logits.size(), Parts::new(&logits));
    let device = context.driver().device();
    let shape = launch::mixed_log_probs(device, parts.vectors(), count, vocab);
    let states = match shape {
        LogProbsShape::Part(..) => address(&scratch),
        _ => 0,
    };
    let arguments = Arguments {
        parts,
        tokens: Tokens::of(tokens),
        inverse_temperature: 1.0 / temperature,
        scale: scale(temperature),
        segments: vocab.div_ceil(launch::SEGMENT) as i32,
        log_probs: address(&outputs.log_probs),
        maximum: address(&outputs.maximum),
        log_sum: address(&outputs.log_sum),
        states,
        error: context.slot()[0],
    };
    let of = arguments.parts.name();
    let name = |form: &str| match form {
        "merge" => String::from("mixed_log_probs_merge"),
        form => format!("mixed_log_probs_{form}_{of}"),
    };
    tokens::check(context, arguments.tokens, vocab)?;
    // SAFETY: the kernels take these arguments; the stage's constructor checked every length, and that the
    // scratch has room for the states of this shape.
    unsafe { start_states(context, shape, name, &arguments) }
}
