//! One call of the stage, and what it came to.

use prefuse::batch::{Labels, Weights};
use prefuse::stages::{
    Divergence, DivergenceOutputs, StudentTarget, Teacher, TokenDivergence, Tokens,
};
use prefuse::{Backend, DType, Element, MaskedRows, Reference, Target};

use crate::common::Placed;

fn cast<T: Element, C: Element>(data: &[T]) -> Vec<C> {
    data.iter().map(|x| C::from_f64(x.to_f64())).collect()
}

/// What the student learns from.
#[derive(Clone)]
pub struct Source<T> {
    pub parts: Vec<(f64, Vec<T>)>,
    pub vocab: usize,
    /// AlignDistil's beta and ratio, and whether its variation is doubled.
    pub adaptive: Option<(f64, f64, bool)>,
}

impl<T: Element> Source<T> {
    pub fn one(data: Vec<T>, vocab: usize) -> Self {
        Self { parts: vec![(1.0, data)], vocab, adaptive: None }
    }

    pub fn cast<C: Element>(&self) -> Source<C> {
        let parts = self.parts.iter().map(|(c, data)| (*c, cast(data))).collect();
        Source { parts, vocab: self.vocab, adaptive: self.adaptive }
    }
}

/// A student, a teacher, and what is asked of them.
#[derive(Clone)]
pub struct Case<S, T> {
    pub student: Vec<S>,
    pub vocab: usize,
    pub source: Source<T>,
    pub divergence: TokenDivergence,
    pub temperatures: [f64; 2],
    pub ids: Vec<i64>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Vec<f64>,
}

/// `[tokens]` numbers, and the gradient.
pub struct Found<S> {
    pub values: Vec<f64>,
    pub student_entropy: Vec<f64>,
    /// Empty of an expected advantage.
    pub teacher_entropy: Vec<f64>,
    pub grads: Vec<S>,
}

/// Where the gradient goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Into {
    Nowhere,
    Place,
    Buffer,
    /// Added to 0.25.
    Sum,
}

impl<S: Element, T: Element> Case<S, T> {
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    pub fn exact(&self) -> Case<f64, f64> {
        self.cast()
    }

    pub fn cast<A: Element, B: Element>(&self) -> Case<A, B> {
        Case {
            student: cast(&self.student),
            vocab: self.vocab,
            source: self.source.cast(),
            divergence: self.divergence,
            temperatures: self.temperatures,
            ids: self.ids.clone(),
            weights: self.weights.clone(),
            upstream: self.upstream.clone(),
        }
    }

    /// The reference's, in f64.
    pub fn truth(&self) -> Found<f64> {
        self.exact().run(&Reference::new(), Into::Buffer)
    }

    pub fn run(&self, backend: &dyn Backend, into: Into) -> Found<S> {
        self.try_run(backend, into).unwrap()
    }

    pub fn try_run(&self, backend: &dyn Backend, into: Into) -> Result<Found<S>, prefuse::Error> {
        let (tokens, vocab, source) = (self.tokens(), self.vocab, &self.source);
        let dtype = S::DTYPE.per_token();
        let mut student = Placed::new(backend, &self.student);
        // Poisoned, so that an element that is not written shows.
        let start = if into == Into::Sum { 0.25 } else { f64::NAN };
        let mut grads = Placed::new(backend, &vec![S::from_f64(start); self.student.len()]);
        let placed: Vec<_> =
            source.parts.iter().map(|(c, data)| (*c, Placed::new(backend, data))).collect();
        let parts: Vec<_> =
            placed.iter().map(|(c, data)| (*c, data.logits(tokens, source.vocab))).collect();
        let teacher = match source.adaptive {
            Some((beta, ratio, doubled)) => {
                let teacher = Teacher::align_distil(parts[0].1, parts[1].1, (beta, ratio));
                teacher.map(|of| if doubled { of.with_doubled_variation() } else { of })
            }
            None => Teacher::combination(&parts),
        }?;
        let ids = Placed::new(backend, &self.ids);
        let labels = Labels::from_slice(ids.slice())?;
        let placed_weights = self.weights.as_ref().map(|weights| Placed::new(backend, weights));
        let weights =
            placed_weights.as_ref().map(|w| Weights::from_slice(w.slice())).transpose()?;
        let has_teacher_entropy =
            !matches!(self.divergence, TokenDivergence::ExpectedAdvantage { .. });
        let floats = |len| Placed::floats(backend, dtype, &vec![f64::NAN; len]);
        let mut outputs = [floats(tokens), floats(tokens), floats(tokens)];
        let upstream = Placed::floats(backend, dtype, &self.upstream);
        let target = match into {
            Into::Nowhere => StudentTarget::Values(student.logits(tokens, vocab)),
            Into::Place => StudentTarget::Written(
                Target::InPlace(student.target(tokens, vocab)),
                MaskedRows::Zero,
            ),
            Into::Buffer => StudentTarget::Written(
                Target::OutOfPlace {
                    logits: student.logits(tokens, vocab),
                    grads: grads.target(tokens, vocab),
                },
                MaskedRows::Zero,
            ),
            Into::Sum => StudentTarget::Added {
                logits: student.logits(tokens, vocab),
                grads: grads.target(tokens, vocab),
            },
        };
        let [values, student_entropy, teacher_entropy] = &mut outputs;
        let mut scratch =
            backend.allocate(DType::F64, backend.divergence_scratch(tokens, vocab)).unwrap();
        backend.divergence(Divergence::new(
            backend,
            (target, teacher),
            (self.divergence, self.temperatures),
            Tokens::new(&labels, weights.as_ref())?,
            (
                DivergenceOutputs {
                    values: values.slice_mut(),
                    student_entropy: Some(student_entropy.slice_mut()),
                    teacher_entropy: has_teacher_entropy.then(|| teacher_entropy.slice_mut()),
                },
                (into != Into::Nowhere).then(|| upstream.slice()),
            ),
            scratch.slice_mut(),
        )?)?;
        let numbers = |placed: &Placed| placed.slice().to_vec().unwrap();
        Ok(Found {
            values: numbers(&outputs[0]),
            student_entropy: numbers(&outputs[1]),
            teacher_entropy: if has_teacher_entropy { numbers(&outputs[2]) } else { vec![] },
            grads: match into {
                Into::Nowhere => vec![],
                Into::Place => student.read(),
                Into::Buffer | Into::Sum => grads.read(),
            },
        })
    }
}
