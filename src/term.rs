//! A loss is a list of weighted terms over one visit of the logits.

use std::borrow::Cow;
use std::sync::Arc;

use crate::batch::{Batch, Pairs};
use crate::error::{Error, Result};
use crate::objectives::{
    AnyEvaluation, AnyObjective, Given, Inputs, JudgedPair, Objective, Pair, ParameterError,
    Reduction, Response, Reward, RewardPair, Sequence, Token,
};

/// One term of a loss: an objective, the units that it looks at, and its share.
#[derive(Clone, Debug)]
pub struct Term {
    objective: AnyObjective,
    sequences: Sequences,
    pairs: Option<Vec<usize>>,
    weight: f64,
    reduction: Reduction,
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

/// What the units of an objective are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Sequences,
    Tokens,
    Pairs,
    JudgedPairs,
}

impl Layout {
    fn is_over_pairs(self) -> bool {
        matches!(self, Self::Pairs | Self::JudgedPairs)
    }
}

impl Term {
    /// Any objective over all units of its kind; weight 1, mean over the units.
    pub fn new(objective: AnyObjective) -> Self {
        let (sequences, reduction) = (Sequences::All, Reduction::Mean);
        Self { objective, sequences, pairs: None, weight: 1.0, reduction }
    }

    /// An objective over the batch's pairs; weight 1, mean over the pairs.
    pub fn pairs(objective: impl Objective<Pair> + 'static) -> Self {
        Self::new(AnyObjective::new(objective))
    }

    /// An objective over sequences; weight 1, mean over the sequences.
    pub fn sequences(objective: impl Objective<Sequence> + 'static, sequences: Sequences) -> Self {
        Self::new(AnyObjective::new(objective)).with_sequences(sequences)
    }

    /// An objective over the counted tokens of sequences; weight 1, mean over these tokens. A sequence
    /// may be selected once.
    pub fn tokens(objective: impl Objective<Token> + 'static, sequences: Sequences) -> Self {
        Self::new(AnyObjective::new(objective)).with_sequences(sequences)
    }

    /// An objective over the batch's pairs and the verdicts on them; weight 1, mean over the pairs.
    pub fn judged_pairs(objective: impl Objective<JudgedPair> + 'static) -> Self {
        Self::new(AnyObjective::new(objective))
    }

    /// An objective over pairs of rewards, for [`ScalarLoss`](crate::ScalarLoss); weight 1, mean over
    /// the pairs.
    pub fn reward_pairs(objective: impl Objective<RewardPair> + 'static) -> Self {
        Self::new(AnyObjective::new(objective))
    }

    /// An objective over rewards, for [`ScalarLoss`](crate::ScalarLoss); weight 1, mean over them.
    pub fn rewards(objective: impl Objective<Reward> + 'static, sequences: Sequences) -> Self {
        Self::new(AnyObjective::new(objective)).with_sequences(sequences)
    }

    /// Only these sequences; for an objective over sequences or rewards.
    #[must_use]
    pub fn with_sequences(mut self, sequences: Sequences) -> Self {
        self.sequences = sequences;
        self
    }

    /// Only these of the batch's pairs, in this order; for an objective over pairs. The mean is over
    /// them.
    #[must_use]
    pub fn with_pairs(mut self, pairs: impl Into<Vec<usize>>) -> Self {
        self.pairs = Some(pairs.into());
        self
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
        self.objective.name()
    }

    fn inputs(&self) -> Inputs {
        self.objective.inputs()
    }

    fn layout(&self) -> Layout {
        match self.objective.responses().len() {
            1 => Layout::Sequences,
            2 => Layout::Pairs,
            3 => Layout::Tokens,
            _ => Layout::JudgedPairs,
        }
    }

    fn check(&self, batch: &Batch<'_>) -> Result<()> {
        let (objective, inputs) = (self.name(), self.inputs());
        let checked = self.objective.check().and_then(|()| self.reduction.check());
        checked.map_err(|error| {
            let ParameterError { parameter, expected, got } = error;
            Error::Parameter { objective, parameter, expected, got }
        })?;
        if self.weight.is_nan() || self.weight.abs() > 1e30 {
            let (what, expected) = ("term weight", "a number from -1e30 to 1e30");
            return Err(Error::Scalar { what, expected, got: self.weight });
        }
        let missing = |what| Err(Error::Missing { objective, what });
        let (layout, sequences) = (self.layout(), &self.sequences);
        match (layout, sequences, &self.pairs) {
            (Layout::Sequences | Layout::Tokens, _, Some(_)) => {
                let (expected, got) = ("a selection of sequences", "one of pairs");
                return Err(Error::Selection { objective, expected, got });
            }
            (Layout::Pairs | Layout::JudgedPairs, Sequences::Chosen | Sequences::Indices(_), _) => {
                let (expected, got) = ("a selection of pairs", "one of sequences");
                return Err(Error::Selection { objective, expected, got });
            }
            _ => {}
        }
        if inputs.reference && batch.reference().is_none() {
            return missing("reference log-probs");
        }
        if inputs.score && batch.scores().is_none() {
            return missing("scores");
        }
        if inputs.soft_label && layout == Layout::Sequences && batch.soft_labels().is_none() {
            return missing("soft labels of the sequences");
        }
        if inputs.advantage && batch.advantages().is_none() {
            return missing("advantages");
        }
        let per_token = batch.reference().is_some_and(|reference| reference.tokens().is_some());
        if layout == Layout::Tokens && inputs.reference && !per_token {
            return missing("reference log-probs per token");
        }
        let over_pairs = layout.is_over_pairs() || *sequences == Sequences::Chosen;
        if over_pairs && batch.pairs().is_none() {
            return missing("pairs");
        }
        if layout == Layout::JudgedPairs && batch.pairs().and_then(Pairs::verdicts).is_none() {
            return missing("verdicts on the pairs");
        }
        let pairs = batch.pairs().map_or(0, Pairs::len);
        let mut selected = self.pairs.iter().flatten().enumerate();
        if let Some((position, &got)) = selected.find(|(_, pair)| **pair >= pairs) {
            return Err(Error::PairSelection { objective, position, pairs, got });
        }
        Ok(())
    }

    /// The pairs of the units of a term over pairs, in order.
    fn selected_pairs(&self, batch: &Batch<'_>) -> Vec<usize> {
        let pairs = batch.pairs().map_or(0, Pairs::len);
        self.pairs.clone().unwrap_or_else(|| (0..pairs).collect())
    }

    /// The sequences of all units, unit by unit.
    fn members(&self, batch: &Batch<'_>) -> Arc<[i64]> {
        let pairs = batch.pairs().map_or(&[][..], Pairs::indices);
        let verdicts = batch.pairs().and_then(Pairs::verdicts).unwrap_or_default();
        // An index beyond i64 is beyond every pack.
        let index = |&sequence: &usize| i64::try_from(sequence).unwrap_or(i64::MAX);
        let both = |pair: &(usize, usize)| [index(&pair.0), index(&pair.1)];
        let selected = self.selected_pairs(batch);
        let mut selected = selected.iter().copied();
        match (self.layout(), &self.sequences) {
            (Layout::Pairs, _) => selected.flat_map(|pair| both(&pairs[pair])).collect(),
            (Layout::JudgedPairs, _) => selected
                .by_ref()
                .flat_map(|pair| both(&pairs[pair]).into_iter().chain(both(&verdicts[pair])))
                .collect(),
            (_, Sequences::All) => (0..batch.packing().sequences() as i64).collect(),
            (_, Sequences::Chosen) => pairs.iter().map(|(chosen, _)| index(chosen)).collect(),
            (_, Sequences::Indices(indices)) => indices.iter().map(index).collect(),
        }
    }

    /// What the batch gives for each unit: beta, margin, soft label and weight. The members are
    /// sequences of the batch.
    fn given<'b>(&self, batch: &'b Batch<'_>, members: &[i64]) -> [Option<Cow<'b, [f64]>>; 4] {
        let picked = |values: &[f64], at: &mut dyn Iterator<Item = usize>| {
            Cow::Owned(at.map(|index| values[index]).collect())
        };
        if !self.layout().is_over_pairs() {
            let of = |values: Option<&[f64]>| {
                values.map(|values| picked(values, &mut members.iter().map(|&m| m as usize)))
            };
            return [None, None, of(batch.soft_labels()), of(batch.sequence_weights())];
        }
        let inputs = batch.pairs().map_or([None; 4], Pairs::inputs);
        inputs.map(|values| match &self.pairs {
            Some(pairs) => values.map(|values| picked(values, &mut pairs.iter().copied())),
            None => values.map(Cow::Borrowed),
        })
    }

    /// Checks the term against a batch and lists its units.
    ///
    /// # Errors
    /// A parameter outside its domain, an input that the batch lacks, a selection that does not fit, or
    /// no units.
    pub fn resolve(&self, batch: &Batch<'_>) -> Result<Resolved> {
        self.check(batch)?;
        let sequences = batch.packing().sequences();
        let members = self.members(batch);
        if members.is_empty() {
            return Err(Error::NoUnits { objective: self.name() });
        }
        if let Some(position) = members.iter().position(|&member| member as usize >= sequences) {
            return Err(Error::SequenceIndex {
                what: "selection",
                position,
                sequences,
                got: match &self.sequences {
                    Sequences::Indices(indices) => indices[position],
                    _ => members[position] as usize,
                },
            });
        }
        if self.layout() == Layout::Tokens {
            let mut seen = vec![false; sequences];
            for (position, &member) in members.iter().enumerate() {
                if std::mem::replace(&mut seen[member as usize], true) {
                    let (objective, got) = (self.name(), member as usize);
                    return Err(Error::SequenceTwice { objective, position, got });
                }
            }
        }
        let inputs = self.given(batch, &members).map(|values| values.map(Arc::from));
        let scores = batch.scores().filter(|_| self.inputs().score).map(Arc::from);
        Ok(Resolved { term: self.clone(), members, inputs, scores })
    }
}

/// The beta, margin, soft label and weight of a unit for which the dataset gives none.
const NEUTRAL: [f64; 4] = [1.0, 0.0, 1.0, 1.0];

/// A term and the sequences of its units in one batch.
#[derive(Clone, Debug)]
pub struct Resolved {
    term: Term,
    members: Arc<[i64]>,
    /// `[units]` numbers that the dataset gives: beta, margin, soft label, weight.
    inputs: [Option<Arc<[f64]>>; 4],
    /// `[sequences]` scores, for an objective that uses them.
    scores: Option<Arc<[f64]>>,
}

impl Resolved {
    /// How many units the term looks at; at least 1.
    pub fn units(&self) -> usize {
        self.members.len() / self.members_of_unit()
    }

    /// How many responses of the batch each unit has.
    pub(crate) fn members_of_unit(&self) -> usize {
        match self.term.layout() {
            Layout::Sequences | Layout::Tokens => 1,
            Layout::Pairs => 2,
            Layout::JudgedPairs => 4,
        }
    }

    pub(crate) fn is_over_pairs(&self) -> bool {
        self.term.layout().is_over_pairs()
    }

    pub(crate) fn is_over_tokens(&self) -> bool {
        self.term.layout() == Layout::Tokens
    }

    /// What the objective looks at.
    pub(crate) fn inputs_used(&self) -> Inputs {
        self.term.inputs()
    }

    pub(crate) fn log_ratio_bound(&self) -> f64 {
        self.term.objective.log_ratio_bound()
    }

    /// The factor of a unit's losses.
    pub(crate) fn unit_weight(&self, unit: usize) -> f64 {
        self.inputs[3].as_ref().map_or(NEUTRAL[3], |weights| weights[unit])
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn objective(&self) -> &AnyObjective {
        &self.term.objective
    }

    /// The sequences of a unit's responses.
    pub(crate) fn members(&self, unit: usize) -> impl Iterator<Item = usize> {
        let count = self.members_of_unit();
        let members = &self.members[unit * count..(unit + 1) * count];
        members.iter().map(|&sequence| sequence as usize)
    }

    /// The sequence of one of a unit's responses.
    pub(crate) fn member(&self, unit: usize, response: usize) -> usize {
        self.members[unit * self.members_of_unit() + response] as usize
    }

    /// `[units, responses]` sequences.
    pub(crate) fn all_members(&self) -> &[i64] {
        &self.members
    }

    /// `[units]` betas, margins, soft labels and weights, as far as they are given.
    pub(crate) fn inputs(&self) -> &[Option<Arc<[f64]>>; 4] {
        &self.inputs
    }

    /// `[units]` soft labels, if they are given.
    pub(crate) fn soft_labels(&self) -> Option<&[f64]> {
        self.inputs[2].as_deref()
    }

    /// `[sequences]` scores, for an objective that uses them.
    pub(crate) fn scores(&self) -> Option<&[f64]> {
        self.scores.as_deref()
    }

    /// What the objective says about a unit of these responses, and the weight of the unit.
    pub(crate) fn evaluate(
        &self,
        unit: usize,
        responses: &[Response; crate::objectives::MAX_RESPONSES],
    ) -> (AnyEvaluation, f64) {
        let [beta, margin, soft_label, weight] = std::array::from_fn(|i| {
            self.inputs[i].as_ref().map_or(NEUTRAL[i], |values| values[unit])
        });
        let given = Given { beta, margin, soft_label };
        (self.term.objective.evaluate(responses, given), weight)
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

    pub(crate) fn reduction(&self) -> Reduction {
        self.term.reduction
    }

    pub(crate) fn divisor(&self, tokens: f64) -> f64 {
        self.term.reduction.divisor(self.units(), tokens)
    }

    /// Whether the units are those of this batch, and what is given for them.
    pub(crate) fn fits(&self, batch: &Batch<'_>) -> bool {
        let sequences = batch.packing().sequences();
        self.term.check(batch).is_ok()
            && self.members.iter().all(|&member| (member as usize) < sequences)
            && self.term.members(batch) == self.members
            && self.term.given(batch, &self.members).each_ref().map(Option::as_deref)
                == self.inputs.each_ref().map(Option::as_deref)
            && (self.scores.is_none() || self.scores() == batch.scores())
    }
}

/// A number that the dataset gives and that no objective looks at would be lost in silence: each term
/// over pairs has to use what is given for its pairs, and some term what is given for sequences.
///
/// # Errors
/// The first such number.
pub(crate) fn check_inputs(terms: &[Resolved], batch: &Batch<'_>) -> Result<()> {
    let sequences = || terms.iter().filter(|term| !term.is_over_pairs());
    let used = |by: &dyn Fn(Inputs) -> bool| terms.iter().any(|term| by(term.term.inputs()));
    let judged = terms.iter().any(|term| term.term.layout() == Layout::JudgedPairs);
    let verdicts = batch.pairs().and_then(Pairs::verdicts);
    let labelled = sequences().any(|term| term.term.inputs().soft_label);
    let by_tokens = |by: &dyn Fn(Inputs) -> bool| {
        terms.iter().any(|term| term.is_over_tokens() && by(term.term.inputs()))
    };
    for (what, unused) in [
        ("scores", batch.scores().is_some() && !used(&|inputs| inputs.score)),
        ("old log-probs", batch.old().is_some() && !by_tokens(&|inputs| inputs.old)),
        ("advantages", batch.advantages().is_some() && !by_tokens(&|inputs| inputs.advantage)),
        ("soft labels of the sequences", batch.soft_labels().is_some() && !labelled),
        (
            "weights of the sequences",
            batch.sequence_weights().is_some() && sequences().count() == 0,
        ),
        ("verdicts on the pairs", verdicts.is_some() && !judged),
    ] {
        if unused {
            return Err(Error::Unused { what });
        }
    }
    let Some(pairs) = batch.pairs() else { return Ok(()) };
    let over_pairs = terms.iter().filter(|term| term.is_over_pairs());
    let mut checked: Vec<_> = over_pairs
        .map(|term| (term.name(), term.term.inputs(), true, term.term.selected_pairs(batch)))
        .collect();
    if checked.is_empty() {
        let all = || (0..pairs.len()).collect();
        checked.extend(terms.first().map(|term| (term.name(), Inputs::NONE, false, all())));
    }
    for (objective, inputs, weight, selected) in checked {
        let names = ["beta", "margin", "soft_label", "weight"];
        let used = [inputs.beta, inputs.margin, inputs.soft_label, weight];
        for pair in selected {
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
