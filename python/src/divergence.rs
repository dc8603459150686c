//! The divergence of a student from teachers, dense or sparse.

use prefuse::batch::Logits;
use prefuse::stages::{
    Divergence, DivergenceOutputs, Remainder, SparseDivergence, SparseTeacher, StudentTarget,
    Teacher, TokenDivergence, Tokens,
};
use prefuse::{DType, MaskedRows, Result, Target};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;

use crate::backend::{Counted, Device, labels};
use crate::memory::{Memory, Rows};

/// A divergence, and what the teacher's tensors are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DivergenceText {
    divergence: DivergenceName,
    /// Of student and teacher.
    temperatures: [f64; 2],
    teacher: TeacherText,
}

#[derive(Clone, Copy, Deserialize)]
enum DivergenceName {
    ForwardKl,
    ReverseKl,
    SymmetricKl { reverse: f64 },
    JensenShannon { beta: f64 },
    SkewForwardKl { alpha: f64 },
    SkewReverseKl { alpha: f64 },
    TotalVariation,
    SoftCrossEntropy,
    ExpectedAdvantage { beta: f64, low: Option<f64>, high: Option<f64> },
}

#[derive(Deserialize)]
enum TeacherText {
    Logits,
    Combination { coefficients: Vec<f64> },
    AlignDistil { beta: f64, ratio: f64, doubled: bool },
    Sparse { entries: usize, has_bin: bool },
}

impl DivergenceText {
    /// # Errors
    /// `ValueError` of what `prefuse.torch` never writes.
    pub fn parse(text: &str) -> PyResult<Self> {
        serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

impl From<DivergenceName> for TokenDivergence {
    fn from(name: DivergenceName) -> Self {
        use DivergenceName as Name;
        match name {
            Name::ForwardKl => Self::ForwardKl,
            Name::ReverseKl => Self::ReverseKl,
            Name::SymmetricKl { reverse } => Self::SymmetricKl { reverse },
            Name::JensenShannon { beta } => Self::JensenShannon { beta },
            Name::SkewForwardKl { alpha } => Self::SkewForwardKl { alpha },
            Name::SkewReverseKl { alpha } => Self::SkewReverseKl { alpha },
            Name::TotalVariation => Self::TotalVariation,
            Name::SoftCrossEntropy => Self::SoftCrossEntropy,
            Name::ExpectedAdvantage { beta, low, high } => Self::ExpectedAdvantage {
                beta,
                clip: (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)),
            },
        }
    }
}

/// Values and entropies of student and teacher go to `outputs`, the gradient by the student's logits to the
/// rows of `gradient`.
///
/// # Errors
/// What the core finds wrong.
///
/// # Safety
/// As for [`Memory::slice_mut`] of what is written, and [`Memory::slice`] of the rest.
pub unsafe fn run_divergence(
    device: &Device,
    text: &DivergenceText,
    student: Rows,
    (teachers, entries): (Vec<Rows>, Option<[Memory; 2]>),
    counted: Counted,
    (values, entropies): (Memory, [Option<Memory>; 2]),
    gradient: Option<(Memory, Rows)>,
) -> Result<()> {
    let backend = device.backend();
    // SAFETY: the caller's promise.
    let slice = |of: Memory| unsafe { of.slice(device) };
    // SAFETY: as above.
    let output = |of: Memory| unsafe { of.slice_mut(device) };
    // SAFETY: as above.
    let labels = unsafe { labels(device, counted) }?;
    let tokens = Tokens::new(&labels, None)?;
    let [student_entropy, teacher_entropy] = entropies;
    let outputs = DivergenceOutputs {
        values: output(values)?,
        student_entropy: student_entropy.map(output).transpose()?,
        teacher_entropy: teacher_entropy.map(output).transpose()?,
    };
    // SAFETY: as above.
    let logits = unsafe { student.logits(device) }?;
    let (count, vocab) = (logits.tokens(), logits.vocab());
    let (to, upstream) = match gradient {
        None => (StudentTarget::Values(logits), None),
        Some((upstream, grads)) => {
            // SAFETY: as above.
            let grads = unsafe { grads.logits_mut(device) }?;
            let target = Target::OutOfPlace { logits, grads };
            (StudentTarget::Written(target, MaskedRows::Zero), Some(slice(upstream)?))
        }
    };
    let (outputs, kind) = ((outputs, upstream), TokenDivergence::from(text.divergence));
    if let (TeacherText::Sparse { entries: k, has_bin }, Some([ids, log_probs])) =
        (&text.teacher, entries)
    {
        let remainder = if *has_bin { Remainder::Bin } else { Remainder::Renormalised };
        let teacher = SparseTeacher::new(slice(ids)?, slice(log_probs)?, *k, remainder)?;
        let needed = backend.sparse_divergence_scratch(count, vocab);
        let mut scratch = backend.allocate(DType::F64, needed)?;
        let (kind, scratch) = ((kind, text.temperatures[0]), scratch.slice_mut());
        let stage = SparseDivergence::new(backend, (to, teacher), kind, tokens, outputs, scratch)?;
        return backend.sparse_divergence(stage);
    }
    // SAFETY: as above.
    let logits = teachers.into_iter().map(|rows| unsafe { rows.logits(device) });
    let teacher = teacher(&text.teacher, &logits.collect::<Result<Vec<_>>>()?)?;
    let needed = backend.divergence_scratch(count, vocab);
    let mut scratch = backend.allocate(DType::F64, needed)?;
    let (kind, scratch) = ((kind, text.temperatures), scratch.slice_mut());
    backend.divergence(Divergence::new(backend, (to, teacher), kind, tokens, outputs, scratch)?)
}

fn teacher<'a>(text: &TeacherText, logits: &[Logits<'a>]) -> Result<Teacher<'a>> {
    match (text, logits) {
        (TeacherText::Logits, &[logits]) => Ok(Teacher::new(logits)),
        (&TeacherText::AlignDistil { beta, ratio, doubled }, &[dpo, reverse]) => {
            let teacher = Teacher::align_distil(dpo, reverse, (beta, ratio))?;
            Ok(if doubled { teacher.with_doubled_variation() } else { teacher })
        }
        (TeacherText::Combination { coefficients }, logits) => {
            let parts: Vec<_> = coefficients.iter().copied().zip(logits.iter().copied()).collect();
            Teacher::combination(&parts)
        }
        _ => Teacher::combination(&[]),
    }
}
