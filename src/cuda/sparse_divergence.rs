//! Divergences from a sparse teacher: the launches of `kernels/sparse_ids.cu`, which checks what it lists,
//! and `kernels/sparse_divergence.cu`.

use super::context::Context;
use super::divergence::{MeasureArguments, target, type_number};
use super::tokens::{self, Tokens};
use super::{address, launch, scale, start};
use crate::error::Result;
use crate::memory::Slice;
use crate::stages::SparseDivergence;

/// Twin of `SparseIdsArguments` in kernels/sparse_ids.cu.
#[repr(C)]
#[derive(Debug)]
struct Ids {
    tokens: Tokens,
    ids: u64,
    log_probs: u64,
    entries: i64,
    vocab: i64,
    first_bad: u64,
    error: u64,
    mapped: u64,
    dtype: i64,
}

/// Twin of `SparseArguments` in kernels/sparse_divergence.cu.
#[repr(C)]
#[derive(Debug)]
struct Arguments {
    logits: u64,
    stride: i64,
    grads: u64,
    grads_stride: i64,
    vocab: i64,
    tokens: Tokens,
    ids: u64,
    log_probs: u64,
    upstream: u64,
    values: u64,
    student_entropy: u64,
    teacher_entropy: u64,
    error: u64,
    measure: MeasureArguments,
    inverse_temperature: f64,
    scale: f32,
    entries: i32,
    dtype: i32,
    target: i32,
    renormalised: i32,
}

/// The kernel asserts the same.
const _: () = assert!(size_of::<Arguments>() == 200);

/// f64 numbers of memory for an int32 of each row.
pub(super) fn scratch(tokens: usize) -> usize {
    tokens.div_ceil(2)
}

fn arguments(context: &Context, stage: &SparseDivergence<'_>) -> Arguments {
    let SparseDivergence { student, teacher, outputs, temperature, .. } = stage;
    let logits = student.logits();
    let (target, grads) = target(student);
    Arguments {
        logits: logits.data().address(),
        stride: logits.shape().stride as i64,
        grads: grads.map_or(0, |grads| grads.data().address()),
        grads_stride: grads.map_or(0, |grads| grads.shape().stride as i64),
        vocab: logits.vocab() as i64,
        tokens: Tokens::of(stage.tokens),
        ids: teacher.ids.address(),
        log_probs: teacher.log_probs.address(),
        upstream: stage.upstream.map_or(0, Slice::address),
        values: address(&outputs.values),
        student_entropy: outputs.student_entropy.as_ref().map_or(0, address),
        teacher_entropy: outputs.teacher_entropy.as_ref().map_or(0, address),
        error: context.slot()[0],
        measure: MeasureArguments::new(stage.measure),
        inverse_temperature: 1.0 / temperature,
        scale: scale(*temperature),
        entries: teacher.entries as i32,
        dtype: type_number(teacher.log_probs.dtype()),
        target,
        renormalised: i32::from(teacher.leaves_nothing(logits.vocab())),
    }
}

pub(super) fn sparse_divergence(context: &Context, stage: SparseDivergence<'_>) -> Result<()> {
    let logits = stage.student.logits();
    let (shape, [error, mapped]) = (logits.shape(), context.slot());
    let arguments = arguments(context, &stage);
    let ids = Ids {
        tokens: arguments.tokens,
        ids: arguments.ids,
        log_probs: arguments.log_probs,
        entries: i64::from(arguments.entries),
        vocab: arguments.vocab,
        first_bad: address(&stage.scratch),
        error,
        mapped,
        dtype: i64::from(arguments.dtype),
    };
    tokens::check(context, arguments.tokens, shape.vocab)?;
    let (check, report) =
        (launch::check_sparse_ids(shape.tokens, shape.vocab), launch::report_sparse_ids());
    let device = context.driver().device();
    let rows = launch::sparse_divergence(device, logits.dtype(), shape.tokens, shape.vocab);
    let name = format!("sparse_divergence_{}", logits.dtype());
    // SAFETY: the kernels take these arguments; the stage's constructor checked every length, and that the
    // scratch has room for an int32 of each row.
    unsafe {
        start(context, "check_sparse_ids", check, &ids, None)?;
        start(context, "report_sparse_ids", report, &ids, None)?;
        start(context, &name, rows, &arguments, None)
    }
}
