//! Divergences of tokens: the launch of `kernels/divergence.cu`.

use std::f64::consts::LN_2;

use super::context::Context;
use super::launch;
use super::tokens::{self, Tokens};
use super::{address, kernel, scale, start};
use crate::batch::{Logits, MOST_PARTS};
use crate::element::DType;
use crate::error::Result;
use crate::memory::Slice;
use crate::stages::{Divergence, MaskedRows, Measure, StudentTarget};

/// 16-byte vectors that a lane has of a segment of 16-bit logits; of f32 there are twice as many.
pub(super) const HALF_VECTORS: usize = 4;

/// Number of the measure in the kernels.
const ADVANTAGE: i32 = 3;

/// Twin of `DivergenceLogits` in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct LogitsArguments {
    data: u64,
    stride: i64,
    coefficient: f32,
    factor: f32,
    dtype: i32,
    place: i32,
}

/// Twin of `DivergenceMeasure` in the kernels.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct MeasureArguments {
    kind: i32,
    cross: i32,
    forward: f32,
    reverse: f32,
    teacher: f32,
    student: f32,
    lean: f32,
    beta: f32,
    low: f32,
    high: f32,
}

/// Twin of `DivergenceArguments` in the kernel.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    logits: [LogitsArguments; 1 + MOST_PARTS],
    grads: u64,
    grads_stride: i64,
    vocab: i64,
    columns: i64,
    tokens: Tokens,
    upstream: u64,
    values: u64,
    student_entropy: u64,
    teacher_entropy: u64,
    error: u64,
    measure: MeasureArguments,
    inverse_temperature: f32,
    teacher_scale: f32,
    ratio: f32,
    beta: f32,
    parts: i32,
    segments: i32,
    slots: i32,
    slot_vectors: i32,
    target: i32,
    moments: i32,
}

/// The kernel asserts the same.
const _: () = assert!(size_of::<LogitsArguments>() == 32 && size_of::<MeasureArguments>() == 40);
const _: () = assert!(size_of::<Arguments>() == 312);

pub(super) fn divergence(context: &Context, stage: Divergence<'_>) -> Result<()> {
    let Divergence { student, teacher, temperatures, outputs, .. } = &stage;
    let logits = student.logits();
    let shape = logits.shape();
    let measure = MeasureArguments::new(stage.measure);
    // A part of coefficient 0 excludes nothing, and is not read.
    let parts = teacher.parts().iter().filter(|(coefficient, _)| *coefficient != 0.0);
    let all = [(1.0, logits)].into_iter().chain(parts.copied());
    let (mut of_all, mut place, mut parts) = ([LogitsArguments::default(); 1 + MOST_PARTS], 0, 0);
    for (index, (to, (coefficient, logits))) in of_all.iter_mut().zip(all).enumerate() {
        let temperature = temperatures[index.min(1)];
        *to = LogitsArguments::new(logits, coefficient, temperature, place);
        place += HALF_VECTORS * logits.dtype().size() / 2;
        parts = index;
    }
    let device = context.driver().device();
    let (launch_shape, slots) = launch::divergence(device, place, shape.tokens, stage.columns);
    let (target, grads) = target(student);
    let adaptive = teacher.adaptive();
    let arguments = Arguments {
        logits: of_all,
        grads: grads.map_or(0, |grads| grads.data().address()),
        grads_stride: grads.map_or(0, |grads| grads.shape().stride as i64),
        vocab: shape.vocab as i64,
        columns: stage.columns as i64,
        tokens: Tokens::of(stage.tokens),
        upstream: stage.upstream.map_or(0, Slice::address),
        values: address(&outputs.values),
        student_entropy: outputs.student_entropy.as_ref().map_or(0, address),
        teacher_entropy: outputs.teacher_entropy.as_ref().map_or(0, address),
        error: context.slot()[0],
        inverse_temperature: (1.0 / temperatures[0]) as f32,
        teacher_scale: scale(temperatures[1]),
        // 0 says that there is none.
        ratio: adaptive.map_or(0.0, |adaptive| (adaptive.ratio as f32).max(f32::MIN_POSITIVE)),
        beta: adaptive.map_or(0.0, |adaptive| adaptive.beta as f32),
        parts: parts as i32,
        segments: stage.columns.div_ceil(launch::SEGMENT) as i32,
        slots: slots as i32,
        slot_vectors: place as i32,
        target,
        moments: i32::from(
            measure.cross != 0
                || outputs.student_entropy.is_some()
                || outputs.teacher_entropy.is_some(),
        ),
        measure,
    };
    let kernel = name(&arguments, logits.dtype());
    tokens::check(context, arguments.tokens, shape.vocab)?;
    // SAFETY: the kernel takes these arguments; the stage's constructor checked every length, and the
    // launch has room for the slots.
    unsafe { start(context, &kernel, launch_shape, &arguments, None) }
}

/// The kernel for one model of the student's type, which needs no maximum of a combination, or that for all
/// others.
fn name(arguments: &Arguments, dtype: DType) -> String {
    let [student, teacher, ..] = &arguments.logits;
    let is_plain = arguments.parts == 1
        && teacher.dtype == student.dtype
        && teacher.factor > 0.0
        && arguments.measure.kind != ADVANTAGE;
    if is_plain {
        kernel("divergence", "cluster", dtype, "")
    } else {
        String::from("divergence_cluster_any")
    }
}

/// Number of an element type in the kernels.
pub(super) fn type_number(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => 1,
        DType::BF16 => 2,
        _ => 0,
    }
}

/// What becomes of the gradient, by the numbers of the kernel, and where it goes.
pub(super) fn target<'a>(student: &'a StudentTarget<'_>) -> (i32, Option<Logits<'a>>) {
    match student {
        StudentTarget::Values(_) => (0, None),
        StudentTarget::Written(target, masked) => {
            let number = if *masked == MaskedRows::AlreadyZero { 2 } else { 1 };
            (number, Some(target.views().1))
        }
        StudentTarget::Added { grads, .. } => (3, Some(grads.view())),
    }
}

impl LogitsArguments {
    fn new(logits: Logits<'_>, coefficient: f64, temperature: f64, place: usize) -> Self {
        Self {
            data: logits.data().address(),
            stride: logits.shape().stride as i64,
            coefficient: coefficient as f32,
            factor: (coefficient * std::f64::consts::LOG2_E / temperature) as f32,
            dtype: type_number(logits.dtype()),
            place: place as i32,
        }
    }
}

impl MeasureArguments {
    pub(super) fn new(measure: Measure) -> Self {
        match measure.without_ends() {
            Measure::Kl { forward, reverse, cross } => Self {
                forward: forward as f32,
                reverse: reverse as f32,
                cross: i32::from(cross),
                ..Self::default()
            },
            Measure::Mixture { teacher: part, forward, reverse } => {
                let [teacher, student] = Measure::parts(part);
                Self {
                    kind: 1,
                    forward: forward as f32,
                    reverse: reverse as f32,
                    teacher,
                    student,
                    lean: (forward * (1.0 - part) - reverse * part) as f32,
                    ..Self::default()
                }
            }
            Measure::TotalVariation => Self { kind: 2, ..Self::default() },
            Measure::Advantage { beta, low, high } => Self {
                kind: ADVANTAGE,
                beta: (beta * LN_2) as f32,
                low: low as f32,
                high: high as f32,
                ..Self::default()
            },
        }
    }
}
