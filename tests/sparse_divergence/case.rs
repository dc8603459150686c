//! A call of the stage.

use prefuse::batch::{Labels, Logits, LogitsMut, Weights};
use prefuse::stages::{
    DivergenceOutputs, Remainder, SparseDivergence, SparseTeacher, StudentTarget, TokenDivergence,
    Tokens,
};
use prefuse::{Backend, DType, Element, Error, MaskedRows, Target};

use crate::common::{Placed, exact};
use crate::divergence::Into;

/// A student, and what a teacher lists for each token.
#[derive(Clone)]
pub struct Case<S, T> {
    pub student: Vec<S>,
    pub vocab: usize,
    /// `[tokens, k]`.
    pub entries: Vec<i64>,
    pub log_probs: Vec<T>,
    pub remainder: Remainder,
    pub divergence: TokenDivergence,
    pub temperature: f64,
    pub ids: Vec<i64>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Vec<f64>,
}

/// Divergences, the entropies of both, and the gradient.
pub struct Found<S> {
    pub numbers: [Vec<f64>; 3],
    pub grads: Vec<S>,
}

impl<S: Element, T: Element> Case<S, T> {
    pub fn cast<C: Element>(&self) -> Case<C, C> {
        let Self { vocab, remainder, divergence, temperature, .. } = *self;
        let cast = |x: f64| C::from_f64(x);
        Case {
            student: exact(&self.student).into_iter().map(cast).collect(),
            entries: self.entries.clone(),
            log_probs: exact(&self.log_probs).into_iter().map(cast).collect(),
            ids: self.ids.clone(),
            weights: self.weights.clone(),
            upstream: self.upstream.clone(),
            vocab,
            remainder,
            divergence,
            temperature,
        }
    }

    pub fn run(&self, backend: &dyn Backend, into: Into) -> Result<Found<S>, Error> {
        self.run_behind(backend, into, 0)
    }

    /// With so many elements before the student's first.
    pub fn run_behind(
        &self,
        backend: &dyn Backend,
        into: Into,
        before: usize,
    ) -> Result<Found<S>, Error> {
        let (tokens, vocab) = (self.ids.len(), self.vocab);
        let k = self.entries.len() / tokens;
        let dtype = S::DTYPE.per_token();
        let all = [&vec![S::from_f64(f64::NAN); before], &*self.student].concat();
        let mut student = Placed::new(backend, &all);
        let start = if into == Into::Sum { 0.25 } else { f64::NAN };
        let mut grads = Placed::new(backend, &vec![S::from_f64(start); self.student.len()]);
        let entries = Placed::new(backend, &self.entries);
        let log_probs = Placed::new(backend, &self.log_probs);
        let teacher = SparseTeacher::new(entries.slice(), log_probs.slice(), k, self.remainder)?;
        let ids = Placed::new(backend, &self.ids);
        let labels = Labels::from_slice(ids.slice())?;
        let placed = self.weights.as_ref().map(|weights| Placed::new(backend, weights));
        let weights = placed.as_ref().map(|w| Weights::from_slice(w.slice())).transpose()?;
        let floats = || Placed::floats(backend, dtype, &vec![f64::NAN; tokens]);
        let mut outputs = [floats(), floats(), floats()];
        let upstream = Placed::floats(backend, dtype, &self.upstream);
        let target = if into == Into::Place {
            let rows = student.slice_mut().part(before..all.len())?;
            let target = Target::InPlace(LogitsMut::from_slice(rows, tokens, vocab, vocab)?);
            StudentTarget::Written(target, MaskedRows::Zero)
        } else {
            let rows = student.slice().part(before..all.len())?;
            let logits = Logits::from_slice(rows, tokens, vocab, vocab)?;
            let grads = grads.target(tokens, vocab);
            match into {
                Into::Nowhere => StudentTarget::Values(logits),
                Into::Sum => StudentTarget::Added { logits, grads },
                _ => StudentTarget::Written(Target::OutOfPlace { logits, grads }, MaskedRows::Zero),
            }
        };
        let needed = backend.sparse_divergence_scratch(tokens, vocab);
        let mut scratch = backend.allocate(DType::F64, needed)?;
        let [values, student_entropy, teacher_entropy] = &mut outputs;
        backend.sparse_divergence(SparseDivergence::new(
            backend,
            (target, teacher),
            (self.divergence, self.temperature),
            Tokens::new(&labels, weights.as_ref())?,
            (
                DivergenceOutputs {
                    values: values.slice_mut(),
                    student_entropy: Some(student_entropy.slice_mut()),
                    teacher_entropy: Some(teacher_entropy.slice_mut()),
                },
                (into != Into::Nowhere).then(|| upstream.slice()),
            ),
            scratch.slice_mut(),
        )?)?;
        let numbers = outputs.each_ref().map(|placed| placed.slice().to_vec());
        let [values, student_entropy, teacher_entropy] = numbers;
        Ok(Found {
            numbers: [values?, student_entropy?, teacher_entropy?],
            grads: match into {
                Into::Nowhere => vec![],
                Into::Place => student.read::<S>().split_off(before),
                Into::Buffer | Into::Sum => grads.read(),
            },
        })
    }
}
