//! A loss is a list of weighted terms over one visit of the logits.

use std::borrow::Cow;
use std::sync::Arc;

use crate::batch::{Batch, Groups, GroupsError, Pairs};
use crate::error::{Error, Result};
use crate::objectives::{
    AnyObjective, Domain, Inputs, JudgedPair, Layout, Objective, Pair, ParameterError, Ranking,
    Reduction, Reward, RewardPair, Sequence, Token,
};
use crate::resolved::Resolved;

/// One term of a loss: an objective, the units that it looks at, and its share.
#[derive(Clone, Debug)]
pub struct Term {
    pub(crate) objective: Compared,
    sequences: Sequences,
    pairs: Option<Vec<usize>>,
    pub(crate) weight: f64,
    pub(crate) reduction: Reduction,
}

/// An objective, by what it is a function of.
#[derive(Clone, Debug)]
pub(crate) enum Compared {
    Units(AnyObjective),
    Groups(Ranking),
}

/// Which sequences a term looks at.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// Every sequence of the pack.
    #[default]
    All,
    /// The chosen sequence of each pair, in pair order; one that stands in two pairs counts twice.
    /// The weights of the pairs are for terms over pairs and do not enter, nor does another term's selection
    /// of pairs: [`Indices`](Self::Indices) names their chosen sequences.
    Chosen,
    /// These, in this order.
    Indices(Vec<usize>),
}

impl Layout {
    pub(crate) fn is_over_pairs(self) -> bool {
        matches!(self, Self::Pairs | Self::RewardPairs | Self::JudgedPairs)
    }

    pub(crate) fn is_over_sequences(self) -> bool {
        matches!(self, Self::Sequences | Self::Rewards)
    }

    /// Whether the units are numbers of a reward model.
    pub(crate) fn is_over_rewards(self) -> bool {
        matches!(self, Self::Rewards | Self::RewardPairs)
    }

    /// What a unit has for an objective to look at.
    fn inputs(self) -> Inputs {
        let none = Inputs::NONE;
        let judged = Inputs { reference: true, score: true, ..none };
        match self {
            Self::Groups | Self::JudgedPairs => judged,
            Self::Sequences => Inputs { soft_label: true, ..judged },
            Self::Pairs => Inputs { beta: true, margin: true, soft_label: true, ..judged },
            Self::Rewards => Inputs { score: true, ..none },
            Self::RewardPairs => Inputs { margin: true, soft_label: true, ..none },
            Self::Tokens => Inputs {
                reference: true,
                old: true,
                advantage: true,
                entropy: true,
                sequence: true,
                ..none
            },
        }
    }
}

/// The inputs by the names that [`objective!`](crate::objective) has for them.
fn named(inputs: Inputs) -> [(&'static str, bool); 9] {
    let Inputs { reference, beta, margin, soft_label, score, old, advantage, entropy, sequence } =
        inputs;
    [
        ("reference", reference),
        ("beta", beta),
        ("margin", margin),
        ("soft_label", soft_label),
        ("score", score),
        ("old", old),
        ("advantage", advantage),
        ("entropy", entropy),
        ("sequence", sequence),
    ]
}

impl Term {
    /// Any objective over all units of its kind; weight 1, mean over the units.
    pub fn new(objective: AnyObjective) -> Self {
        Self::over(Compared::Units(objective))
    }

    fn over(objective: Compared) -> Self {
        let (sequences, reduction) = (Sequences::All, Reduction::Mean);
        Self { objective, sequences, pairs: None, weight: 1.0, reduction }
    }

    /// A ranking of the batch's groups; weight 1, mean over the groups.
    pub fn groups(ranking: Ranking) -> Self {
        Self::over(Compared::Groups(ranking))
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
    /// them; of none there is no mean, and other reductions are 0.
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
        match &self.objective {
            Compared::Units(objective) => objective.name(),
            Compared::Groups(ranking) => ranking.name(),
        }
    }

    pub(crate) fn inputs(&self) -> Inputs {
        match &self.objective {
            Compared::Units(objective) => objective.inputs(),
            Compared::Groups(ranking) => ranking.inputs(),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        match &self.objective {
            Compared::Units(objective) => objective.layout(),
            Compared::Groups(_) => Layout::Groups,
        }
    }

    pub(crate) fn check(&self, batch: &Batch<'_>) -> Result<()> {
        let (objective, inputs) = (self.name(), self.inputs());
        let checked = match &self.objective {
            Compared::Units(objective) => objective.check(),
            Compared::Groups(ranking) => ranking.check(),
        };
        checked.and_then(|()| self.reduction.check()).map_err(|error| {
            let ParameterError { parameter, expected, got } = error;
            Error::Parameter { objective, parameter, expected, got }
        })?;
        if self.weight.is_nan() || self.weight.abs() > 1e30 {
            let (parameter, expected) = ("term weight", "a number from -1e30 to 1e30");
            return Err(Error::Parameter { objective, parameter, expected, got: self.weight });
        }
        let missing = |what| Err(Error::Missing { objective, what });
        if self.reduction == Reduction::SequenceMean && self.layout() != Layout::Tokens {
            let expected = "Mean or another reduction over units, SequenceMean being over tokens";
            return Err(Error::Selection { objective, expected, got: "SequenceMean" });
        }
        let (layout, sequences) = (self.layout(), &self.sequences);
        match (layout, sequences, &self.pairs) {
            (Layout::Sequences | Layout::Rewards | Layout::Tokens, _, Some(_)) => {
                let (expected, got) = ("a selection of sequences", "one of pairs");
                return Err(Error::Selection { objective, expected, got });
            }
            (Layout::Groups, Sequences::Chosen | Sequences::Indices(_), _)
            | (Layout::Groups, _, Some(_)) => {
                let (expected, got) = ("all groups", "a selection");
                return Err(Error::Selection { objective, expected, got });
            }
            (over, Sequences::Chosen | Sequences::Indices(_), _) if over.is_over_pairs() => {
                let (expected, got) = ("a selection of pairs", "one of sequences");
                return Err(Error::Selection { objective, expected, got });
            }
            _ => {}
        }
        let mut uses = named(inputs).into_iter().zip(named(layout.inputs()));
        if let Some(((got, _), _)) = uses.find(|(used, has)| used.1 && !has.1) {
            let expected = "inputs that its unit has";
            return Err(Error::Selection { objective, expected, got });
        }
        if inputs.reference && batch.reference().is_none() {
            return missing("reference log-probs");
        }
        if inputs.score && batch.scores().is_none() {
            return missing("scores");
        }
        if inputs.soft_label && layout.is_over_sequences() && batch.soft_labels().is_none() {
            return missing("soft labels of the sequences");
        }
        if inputs.advantage && batch.advantages().is_none() {
            return missing("advantages");
        }
        if layout == Layout::Groups {
            self.check_groups(batch)?;
        }
        let per_token = batch.reference().is_some_and(|reference| reference.tokens().is_some());
        if layout == Layout::Tokens && inputs.reference && !per_token {
            let (expected, got) = ("reference log-probs per token", "sums per sequence");
            return Err(Error::Selection { objective, expected, got });
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

    fn check_groups(&self, batch: &Batch<'_>) -> Result<()> {
        let objective = self.name();
        let groups = batch.groups().ok_or(Error::Missing { objective, what: "groups" })?;
        let Compared::Groups(ranking) = &self.objective else { return Ok(()) };
        // Scores for another term contradict an order all the same.
        let looks = ranking.inputs().score || ranking.is_ordered();
        let Some(scores) = batch.scores().filter(|_| looks) else { return Ok(()) };
        let Domain { expected, contains } = ranking.scores();
        let mut members = groups.members().iter().copied();
        if let Some(sequence) = members.find(|&sequence| !contains(scores[sequence])) {
            let (input, got) = ("score", scores[sequence]);
            return Err(Error::SequenceInput { input, sequence, expected, got });
        }
        if !ranking.is_ordered() {
            return Ok(());
        }
        for (group, members) in groups.iter().enumerate() {
            for (position, two) in members.windows(2).enumerate() {
                let (previous, got) = (scores[two[0]], scores[two[1]]);
                if got > previous {
                    let position = position + 1;
                    let order = GroupsError::Order { objective, group, position, previous, got };
                    return Err(order.into());
                }
            }
        }
        Ok(())
    }

    /// What the objective requires for its pairs, and the scores of the members.
    fn check_numbers(&self, batch: &Batch<'_>, members: &[i64]) -> Result<()> {
        let Compared::Units(unit) = &self.objective else { return Ok(()) };
        let (objective, required) = (self.name(), unit.required());
        let [beta, margin, soft_label, _] = batch.pairs().map_or([None; 4], Pairs::inputs);
        for (what, required, given) in [
            ("betas of the pairs", required.beta, beta),
            ("margins of the pairs", required.margin, margin),
            ("soft labels of the pairs", required.soft_label, soft_label),
        ] {
            if required && given.is_none() {
                return Err(Error::Missing { objective, what });
            }
        }
        let Some(scores) = batch.scores().filter(|_| unit.inputs().score) else { return Ok(()) };
        let domain = unit.score_domain();
        let outside = members.iter().map(|&member| member as usize);
        match outside.into_iter().find(|&sequence| !(domain.contains)(scores[sequence])) {
            None => Ok(()),
            Some(sequence) => Err(Error::SequenceInput {
                input: "score",
                sequence,
                expected: domain.expected,
                got: scores[sequence],
            }),
        }
    }

    /// The pairs of the units of a term over pairs, in order.
    pub(crate) fn selected_pairs(&self, batch: &Batch<'_>) -> Vec<usize> {
        let pairs = batch.pairs().map_or(0, Pairs::len);
        self.pairs.clone().unwrap_or_else(|| (0..pairs).collect())
    }

    /// The sequences of all units, unit by unit.
    pub(crate) fn members(&self, batch: &Batch<'_>) -> Arc<[i64]> {
        let pairs = batch.pairs().map_or(&[][..], Pairs::indices);
        let verdicts = batch.pairs().and_then(Pairs::verdicts).unwrap_or_default();
        // An index beyond i64 is beyond every pack.
        let index = |&sequence: &usize| i64::try_from(sequence).unwrap_or(i64::MAX);
        let both = |pair: &(usize, usize)| [index(&pair.0), index(&pair.1)];
        let selected = self.selected_pairs(batch);
        let mut selected = selected.iter().copied();
        match (self.layout(), &self.sequences) {
            (Layout::Pairs | Layout::RewardPairs, _) => {
                selected.flat_map(|pair| both(&pairs[pair])).collect()
            }
            (Layout::JudgedPairs, _) => selected
                .by_ref()
                .flat_map(|pair| both(&pairs[pair]).into_iter().chain(both(&verdicts[pair])))
                .collect(),
            (Layout::Groups, _) => {
                batch.groups().map_or(&[][..], Groups::members).iter().map(index).collect()
            }
            (_, Sequences::All) => (0..batch.packing().sequences() as i64).collect(),
            (_, Sequences::Chosen) => pairs.iter().map(|(chosen, _)| index(chosen)).collect(),
            (_, Sequences::Indices(indices)) => indices.iter().map(index).collect(),
        }
    }

    /// What the batch gives for each unit: beta, margin, soft label and weight. The members are
    /// sequences of the batch.
    pub(crate) fn given<'b>(
        &self,
        batch: &'b Batch<'_>,
        members: &[i64],
    ) -> [Option<Cow<'b, [f64]>>; 4] {
        let picked = |values: &[f64], at: &mut dyn Iterator<Item = usize>| {
            Cow::Owned(at.map(|index| values[index]).collect())
        };
        if self.layout() == Layout::Groups {
            let weight = batch.groups().and_then(Groups::weight).map(Cow::Borrowed);
            return [None, None, None, weight];
        }
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
    /// a mean over no units.
    pub fn resolve(&self, batch: &Batch<'_>) -> Result<Resolved> {
        self.check(batch)?;
        let sequences = batch.packing().sequences();
        let members = self.members(batch);
        let by_units = matches!(self.reduction, Reduction::Mean | Reduction::SequenceMean);
        if members.is_empty() && by_units {
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
        self.check_numbers(batch, &members)?;
        let inputs = self.given(batch, &members).map(|values| values.map(Arc::from));
        let scores = batch.scores().filter(|_| self.inputs().score).map(Arc::from);
        let groups = match self.layout() {
            Layout::Groups => batch
                .groups()
                .map(|groups| groups.offsets().iter().map(|&offset| offset as i64).collect()),
            _ => None,
        };
        Ok(Resolved { term: self.clone(), members, inputs, scores, groups })
    }
}
