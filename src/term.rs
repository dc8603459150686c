//! A loss is a list of weighted terms over one visit of the logits.

use std::sync::Arc;

use crate::batch::{Batch, Pairs};
use crate::error::{Error, Result};
use crate::objectives::{Inputs, Objective, Pair, ParameterError, Reduction, Sequence};

/// One term of a loss: an objective, the units that it looks at, and its share.
#[derive(Clone, Debug)]
pub struct Term {
    over: Over,
    weight: f64,
    reduction: Reduction,
}

/// An objective and its units.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    Pairs(Arc<dyn Objective<Pair>>),
    Sequences(Arc<dyn Objective<Sequence>>, Sequences),
}

/// Which sequences a term looks at.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// Every sequence of the pack.
    #[default]
    All,
    /// The chosen sequence of each pair, in pair order; one that stands in two pairs counts twice.
    /// The weights of the pairs are for terms over pairs and do not enter.
    Chosen,
    /// These, in this order.
    Indices(Vec<usize>),
}

impl Term {
    /// An objective over the batch's pairs; weight 1, mean over the pairs.
    pub fn pairs(objective: impl Objective<Pair> + 'static) -> Self {
        Self::shared_pairs(Arc::new(objective))
    }

    /// The same for an objective that is shared.
    pub fn shared_pairs(objective: Arc<dyn Objective<Pair>>) -> Self {
        Self { over: Over::Pairs(objective), weight: 1.0, reduction: Reduction::Mean }
    }

    /// An objective over sequences; weight 1, mean over the sequences.
    pub fn sequences(objective: impl Objective<Sequence> + 'static, sequences: Sequences) -> Self {
        Self::shared_sequences(Arc::new(objective), sequences)
    }

    /// The same for an objective that is shared.
    pub fn shared_sequences(objective: Arc<dyn Objective<Sequence>>, sequences: Sequences) -> Self {
        let over = Over::Sequences(objective, sequences);
        Self { over, weight: 1.0, reduction: Reduction::Mean }
    }

    /// Another weight in the sum of the terms; checked when the loss is made.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Another reduction; checked when the loss is made.
    #[must_use]
    pub fn with_reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        match &self.over {
            Over::Pairs(objective) => objective.name(),
            Over::Sequences(objective, _) => objective.name(),
        }
    }

    fn inputs(&self) -> Inputs {
        match &self.over {
            Over::Pairs(objective) => objective.inputs(),
            Over::Sequences(objective, _) => objective.inputs(),
        }
    }

    fn check(&self, batch: &Batch<'_>) -> Result<()> {
        let checked = match &self.over {
            Over::Pairs(objective) => objective.check(),
            Over::Sequences(objective, _) => objective.check(),
        };
        let objective = self.name();
        checked.and_then(|()| self.reduction.check()).map_err(|error| {
            let ParameterError { parameter, expected, got } = error;
            Error::Parameter { objective, parameter, expected, got }
        })?;
        if self.weight.is_nan() || self.weight.abs() > 1e30 {
            let (what, expected) = ("term weight", "a number from -1e30 to 1e30");
            return Err(Error::Scalar { what, expected, got: self.weight });
        }
        if self.inputs().reference && batch.reference().is_none() {
            return Err(Error::MissingReference { objective });
        }
        let over_pairs =
            matches!(self.over, Over::Pairs(_) | Over::Sequences(_, Sequences::Chosen));
        if over_pairs && batch.pairs().is_none() {
            return Err(Error::MissingPairs { objective });
        }
        Ok(())
    }

    /// The sequences of all units, unit by unit.
    fn members(&self, batch: &Batch<'_>) -> Arc<[i64]> {
        let pairs = batch.pairs().map_or(&[][..], Pairs::indices);
        // An index beyond i64 is beyond every pack.
        let index = |&sequence: &usize| i64::try_from(sequence).unwrap_or(i64::MAX);
        match &self.over {
            Over::Pairs(_) => pairs
                .iter()
                .flat_map(|(chosen, rejected)| [index(chosen), index(rejected)])
                .collect(),
            Over::Sequences(_, Sequences::All) => (0..batch.packing().sequences() as i64).collect(),
            Over::Sequences(_, Sequences::Chosen) => pairs.iter().map(|(c, _)| index(c)).collect(),
            Over::Sequences(_, Sequences::Indices(indices)) => indices.iter().map(index).collect(),
        }
    }

    /// What the batch gives for each unit.
    fn given<'b>(&self, batch: &'b Batch<'_>) -> [Option<&'b [f64]>; 4] {
        match self.over {
            Over::Pairs(_) => batch.pairs().map_or([None; 4], Pairs::inputs),
            Over::Sequences(..) => [None; 4],
        }
    }

    /// Checks the term against a batch and lists its units.
    ///
    /// # Errors
    /// A parameter outside its domain, an input that the batch lacks, or no units.
    pub fn resolve(&self, batch: &Batch<'_>) -> Result<Resolved> {
        self.check(batch)?;
        let sequences = batch.packing().sequences();
        let responses = if matches!(self.over, Over::Pairs(_)) { 2 } else { 1 };
        let members = self.members(batch);
        if members.is_empty() {
            return Err(Error::NoUnits { objective: self.name() });
        }
        if let Some(position) = members.iter().position(|&member| member as usize >= sequences) {
            return Err(Error::SequenceIndex {
                what: "selection",
                position,
                sequences,
                got: match &self.over {
                    Over::Sequences(_, Sequences::Indices(indices)) => indices[position],
                    _ => members[position] as usize,
                },
            });
        }
        let inputs = self.given(batch).map(|values| values.map(Arc::from));
        Ok(Resolved { term: self.clone(), members, responses, inputs })
    }
}

/// The beta, margin, soft label and weight of a unit for which the dataset gives none.
const NEUTRAL: [f64; 4] = [1.0, 0.0, 1.0, 1.0];

/// A term and the sequences of its units in one batch.
#[derive(Clone, Debug)]
pub struct Resolved {
    term: Term,
    members: Arc<[i64]>,
    responses: usize,
    /// `[units]` numbers that the dataset gives: beta, margin, soft label, weight.
    inputs: [Option<Arc<[f64]>>; 4],
}

impl Resolved {
    /// How many units the term looks at; at least 1.
    pub fn units(&self) -> usize {
        self.members.len() / self.responses
    }

    pub(crate) fn is_over_pairs(&self) -> bool {
        matches!(self.term.over, Over::Pairs(_))
    }

    pub(crate) fn over(&self) -> &Over {
        &self.term.over
    }

    /// The sequences of a unit's responses.
    pub(crate) fn members(&self, unit: usize) -> impl Iterator<Item = usize> {
        let members = &self.members[unit * self.responses..(unit + 1) * self.responses];
        members.iter().map(|&sequence| sequence as usize)
    }

    /// `[units, responses]` sequences.
    pub(crate) fn all_members(&self) -> &[i64] {
        &self.members
    }

    /// `[units]` betas, margins, soft labels and weights, as far as they are given.
    pub(crate) fn inputs(&self) -> &[Option<Arc<[f64]>>; 4] {
        &self.inputs
    }

    /// The same for one unit, neutral where they are not given.
    pub(crate) fn unit_inputs(&self, unit: usize) -> [f64; 4] {
        std::array::from_fn(|i| self.inputs[i].as_ref().map_or(NEUTRAL[i], |values| values[unit]))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.term.name()
    }

    pub(crate) fn uses_reference(&self) -> bool {
        self.term.inputs().reference
    }

    pub(crate) fn weight(&self) -> f64 {
        self.term.weight
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn reduction(&self) -> Reduction {
        self.term.reduction
    }

    pub(crate) fn divisor(&self, tokens: f64) -> f64 {
        self.term.reduction.divisor(self.units(), tokens)
    }

    /// Whether the units are those of this batch, and what is given for them.
    pub(crate) fn fits(&self, batch: &Batch<'_>) -> bool {
        self.term.members(batch) == self.members
            && self.term.given(batch) == self.inputs.each_ref().map(Option::as_deref)
            && self.members.iter().all(|&member| (member as usize) < batch.packing().sequences())
    }
}

/// A number that the dataset gives for a pair and that an objective does not look at would be lost
/// in silence: each term over pairs has to use it, and there has to be one.
///
/// # Errors
/// The first such number.
pub(crate) fn check_inputs(terms: &[Resolved], pairs: &Pairs<'_>) -> Result<()> {
    let over_pairs = terms.iter().filter(|term| term.is_over_pairs());
    let mut checked: Vec<_> =
        over_pairs.map(|term| (term.name(), term.term.inputs(), true)).collect();
    if checked.is_empty() {
        checked.extend(terms.first().map(|term| (term.name(), Inputs::NONE, false)));
    }
    for (objective, inputs, weight) in checked {
        let names = ["beta", "margin", "soft_label", "weight"];
        let used = [inputs.beta, inputs.margin, inputs.soft_label, weight];
        for pair in 0..pairs.len() {
            for (i, values) in pairs.inputs().into_iter().enumerate() {
                let (input, neutral) = (names[i], NEUTRAL[i]);
                let got = values.map_or(neutral, |values| values[pair]);
                if !used[i] && got != neutral {
                    return Err(Error::UnusedInput { objective, input, pair, neutral, got });
                }
            }
        }
    }
    Ok(())
}
