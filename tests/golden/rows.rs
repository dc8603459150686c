//! Padded rows of tokens through stage 3 of the reference.

use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs};
use prefuse::stages::{
    TokenAdvantages, TokenInputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
    Tokens, UnitScale,
};
use prefuse::{Backend, Reference, Slice, SliceMut, Term};
use serde_json::Value;

use super::{numbers, shape};

/// Rows of tokens, padded.
pub struct Rows {
    pub count: usize,
    pub length: usize,
    pub log_probs: Vec<f64>,
    pub old: Vec<f64>,
    pub reference: Vec<f64>,
    pub entropy: Vec<f64>,
    pub mask: Vec<f64>,
    pub advantages: Vec<f64>,
}

/// What a term came to: its value, the losses of the rows, and the gradients of the value by token.
pub struct Evaluated {
    pub value: f64,
    pub losses: Vec<f64>,
    pub by_log_prob: Vec<f64>,
    pub by_entropy: Vec<f64>,
}

impl Rows {
    /// The rows of an input, whose log-probs of the policy, of the old one and of the reference have
    /// these names.
    pub fn new(input: &Value, [policy, old, reference]: [&str; 3]) -> Self {
        let [count, length] = shape(&input[policy]).try_into().unwrap();
        let get = |key: &str| numbers(&input[key]);
        Self {
            count,
            length,
            log_probs: get(policy),
            old: get(old),
            reference: get(reference),
            entropy: get("entropy"),
            mask: get("mask"),
            advantages: get("advantages"),
        }
    }

    /// The same tokens, each a row.
    pub fn apart(self) -> Self {
        let tokens = self.log_probs.len();
        let advantages = (0..tokens).map(|token| self.advantages[token / self.length]).collect();
        Self { count: tokens, length: 1, advantages, ..self }
    }

    pub fn counts(&self) -> Vec<f64> {
        self.mask.chunks(self.length).map(|row| row.iter().sum()).collect()
    }

    pub fn labels(&self) -> Labels<'static> {
        let label = |&counts: &f64| if counts == 0.0 { -100 } else { 1 };
        Labels::new(self.mask.iter().map(label).collect::<Vec<i64>>())
    }

    pub fn packing(&self) -> Packing {
        Packing::padded(self.count, self.length).unwrap()
    }

    pub fn batch<'a>(&self, old: bool, advantages: Advantages<'a>) -> Batch<'a> {
        Batch::new(self.labels(), self.packing())
            .and_then(|batch| match old {
                true => batch.with_old(ReferenceLogProbs::per_token(&self.old)),
                false => Ok(batch),
            })
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&self.reference)))
            .and_then(|batch| batch.with_advantages(advantages))
            .unwrap()
    }

    /// A term over all rows.
    pub fn evaluate(&self, term: &Term, old: bool, advantages: &Advantages<'_>) -> Evaluated {
        let reference = Reference::new();
        let batch = self.batch(true, advantages.clone());
        let placed = batch.packing().place(&reference).unwrap();
        let counts = self.counts();
        let inputs = TokenInputs {
            log_probs: Slice::new(&self.log_probs),
            old: old.then(|| Slice::new(&self.old)),
            reference: Some(Slice::new(&self.reference)),
            entropy: Some(Slice::new(&self.entropy)),
            advantages: Some(match advantages.slice() {
                slice if slice.len() == self.count => TokenAdvantages::Sequences(slice),
                slice => TokenAdvantages::Tokens(slice),
            }),
        };
        let mut by_log_prob = vec![0.0; self.log_probs.len()];
        let mut by_entropy = by_log_prob.clone();
        let mut losses = vec![0.0; self.count];
        let resolved = term.resolve(&batch).unwrap();
        let term = resolved.place(&reference, &batch).unwrap();
        let outputs = TokenObjectiveOutputs {
            losses: SliceMut::new(&mut losses),
            grads: Some((
                TokenObjectiveGrads {
                    log_probs: SliceMut::new(&mut by_log_prob),
                    entropy: Some(SliceMut::new(&mut by_entropy)),
                },
                UnitScale::Reduced(1.0),
            )),
        };
        let tokens = (Tokens::of(&batch), &placed);
        let known = (inputs, Slice::new(&counts));
        let stage = TokenObjective::new(&reference, &term, tokens, known, outputs).unwrap();
        reference.token_objective(stage).unwrap();
        let value = resolved.token_value(&losses, &counts).unwrap();
        Evaluated { value, losses, by_log_prob, by_entropy }
    }
}
