//! What the calls of the table are made of, and what running them means.

use prefuse::batch::{
    Batch, Groups, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Sentence,
};
use prefuse::stages::{StudentTarget, Teacher};
use prefuse::{
    Backend, Cpu, Distillation, Forward, Loss, MaskedRows, Reference, Result, ScalarLoss, Slice,
    Target, Upstream,
};

const TOKENS: usize = 32;
const VOCAB: usize = 7;

/// Steps of the policy's logits and the others.
pub const OF_LOGITS: [usize; 2] = [37, 53];

/// `[TOKENS, VOCAB]` logits, for each step others.
pub fn numbers(step: usize) -> Vec<f32> {
    (0..TOKENS * VOCAB).map(|i| ((i * step % 101) as f32) / 25.0).collect()
}

/// Inputs under the names that the calls use; the head of the table says what they are.
pub struct Given {
    pub batch: Batch<'static>,
    pub rewards: Batch<'static>,
    pub labels: Labels<'static>,
    pub packing: Packing,
    pub pairs: Pairs<'static>,
    pub groups: Groups<'static>,
    pub sentences: Vec<Sentence>,
    pub policy: Vec<f32>,
    pub reference: Vec<f32>,
    pub other: Vec<f32>,
    pub log_sum_squares: Vec<f32>,
    pub sums: [Vec<f64>; 3],
    pub scores: Vec<f64>,
    pub averages: Vec<f64>,
    pub prompts: Vec<usize>,
    pub desirable: Vec<f64>,
    pub gaps: Vec<f64>,
    pub margins: Vec<f64>,
    pub annotators: Vec<usize>,
    pub dpo: Logits<'static>,
    pub before: Logits<'static>,
    pub swapped: Logits<'static>,
    pub logits: Logits<'static>,
    pub others: Logits<'static>,
}

impl Given {
    /// Chosen 0 and 1, rejected 2 and 3, and two more responses to each of the two prompts.
    pub fn new() -> Result<Self> {
        let packing = Packing::new(&[0, 5, 8, 13, 17, 20, 25, 28, TOKENS])?;
        let ids = |token: usize| if token % 9 == 6 { -100 } else { (token * 4 % VOCAB) as i64 };
        let labels = Labels::new((0..TOKENS).map(ids).collect::<Vec<_>>());
        let log_probs = |step: usize| -> Vec<f32> {
            (0..TOKENS).map(|token| -((token * step % 11) as f32) / 8.0 - 0.5).collect()
        };
        let [policy, reference, other] = [3, 5, 7].map(log_probs);
        let log_sum_squares = other.iter().map(|log_prob| log_prob / 2.0).collect();
        let sum = |log_probs: &[f32], range: std::ops::Range<usize>| -> f64 {
            let counted = range.filter(|token| token % 9 != 6);
            counted.map(|token| f64::from(log_probs[token])).sum()
        };
        let sums =
            |log_probs: &[f32]| packing.ranges().map(|range| sum(log_probs, range)).collect();
        let [old, of_reference]: [Vec<f64>; 2] = [sums(&policy), sums(&reference)];
        let model = |step| Logits::new(numbers(step).leak(), TOKENS, VOCAB);
        let moved = [0.5, -0.25, 0.125, 1.0, 0.0, 0.25, -0.5, 0.0];
        let now = old.iter().zip(moved).map(|(sum, by)| sum + by).collect();
        let pairs = Pairs::halves(2)?;
        let batch = Batch::new(labels.clone(), packing.clone())?
            .with_reference(ReferenceLogProbs::per_token(&reference))?
            .with_pairs(pairs.clone())?;
        Ok(Self {
            batch,
            rewards: Batch::of_sequences(8)?.with_pairs(pairs.clone())?,
            labels,
            packing,
            pairs,
            groups: Groups::new(vec![0, 4, 6, 2, 1, 5, 7, 3], &[4, 4])?,
            sentences: vec![Sentence::new(0, 0..3, true), Sentence::new(2, 1..4, false)],
            policy,
            reference,
            other,
            log_sum_squares,
            sums: [now, old, of_reference],
            scores: vec![0.875, 0.75, 0.125, 0.25, 0.625, 0.5, 0.5, 0.375],
            averages: vec![-0.75, -1.0, -1.5, -1.25, -0.5, -1.75, -2.0, -1.125],
            prompts: vec![0, 1, 0, 1, 0, 1, 0, 1],
            desirable: vec![1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
            gaps: vec![1.5, 0.25],
            margins: vec![0.5, -0.25],
            annotators: vec![0, 1],
            dpo: model(17)?,
            before: model(29)?,
            swapped: model(43)?,
            logits: model(OF_LOGITS[0])?,
            others: model(OF_LOGITS[1])?,
        })
    }
}

/// What a call gives.
pub trait Made {
    /// Runs it to its gradient where it has one; every number has to be finite.
    fn run(&self) -> Result<()>;
}

fn near(got: f64, expected: f64) {
    approx::assert_relative_eq!(got, expected, max_relative = 1e-5, epsilon = 1e-5);
}

/// The logits that losses run on.
fn logits() -> Vec<f32> {
    numbers(OF_LOGITS[0])
}

/// A loss under the reference backend.
pub fn forward(loss: &Loss<'_>) -> Result<Forward> {
    loss.forward(&Reference::new(), Logits::new(&logits(), TOKENS, VOCAB)?)
}

impl Made for Loss<'_> {
    fn run(&self) -> Result<()> {
        let data = logits();
        let run = |backend: &dyn Backend| -> Result<(f64, Vec<f32>)> {
            let logits = Logits::new(&data, TOKENS, VOCAB)?;
            let forward = self.forward(backend, logits)?;
            let mut grads = vec![f32::NAN; data.len()];
            let target = (logits, LogitsMut::new(&mut grads, TOKENS, VOCAB)?);
            self.logit_grads(backend, &forward, target, Upstream::Loss(1.0), MaskedRows::Zero)?;
            Ok((forward.loss(), grads))
        };
        let ((truth, exact), (loss, grads)) = (run(&Reference::new())?, run(&Cpu::new())?);
        assert!(truth.is_finite() && exact.iter().any(|&grad| grad != 0.0));
        near(loss, truth);
        grads.iter().zip(exact).for_each(|(&got, expected)| near(got.into(), expected.into()));
        Ok(())
    }
}

/// Distillations, each from its teacher.
pub type Distillations = Vec<(Distillation<'static>, Teacher<'static>)>;

impl Made for Distillations {
    fn run(&self) -> Result<()> {
        let data = logits();
        for (distillation, teacher) in self {
            let run = |backend: &dyn Backend| -> Result<(f64, Vec<f32>)> {
                let mut grads = vec![f32::NAN; data.len()];
                let target = Target::OutOfPlace {
                    logits: Logits::new(&data, TOKENS, VOCAB)?,
                    grads: LogitsMut::new(&mut grads, TOKENS, VOCAB)?,
                };
                let target = StudentTarget::Written(target, MaskedRows::Zero);
                let found = distillation.forward_with_logit_grads(backend, target, teacher, 1.0)?;
                Ok((found.loss(), grads))
            };
            let ((truth, exact), (loss, grads)) = (run(&Reference::new())?, run(&Cpu::new())?);
            assert!(truth.is_finite() && exact.iter().any(|&grad| grad != 0.0));
            near(loss, truth);
            grads.iter().zip(exact).for_each(|(&got, expected)| near(got.into(), expected.into()));
        }
        Ok(())
    }
}

impl Made for ScalarLoss<'_> {
    fn run(&self) -> Result<()> {
        let rewards = [0.5, 1.5, -0.25, 2.0, 0.75, -1.0, 0.125, 0.25];
        let run = |backend: &dyn Backend| -> Result<(f64, Vec<f64>)> {
            let forward = self.forward(backend, Slice::new(&rewards), None)?;
            Ok((forward.loss(), forward.grads(backend, Upstream::Loss(1.0))?))
        };
        let ((truth, exact), (loss, grads)) = (run(&Reference::new())?, run(&Cpu::new())?);
        assert!(truth.is_finite() && exact.iter().any(|&grad| grad != 0.0));
        near(loss, truth);
        grads.into_iter().zip(exact).for_each(|(got, expected)| near(got, expected));
        Ok(())
    }
}

/// Gradients by several models' logits.
impl Made for Vec<Vec<f32>> {
    fn run(&self) -> Result<()> {
        for grads in self {
            assert!(grads.iter().all(|grad| grad.is_finite()));
            assert!(grads.iter().any(|&grad| grad != 0.0));
        }
        Ok(())
    }
}

/// A statistic.
impl Made for Vec<f64> {
    fn run(&self) -> Result<()> {
        assert!(!self.is_empty() && self.iter().all(|number| number.is_finite()));
        Ok(())
    }
}
