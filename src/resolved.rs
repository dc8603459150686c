//! Terms whose units are known: what stage 3 runs over.

use std::sync::Arc;

use crate::batch::{Batch, Groups, Pairs};
use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::objectives::AnyObjective;
use crate::objectives::{
    AnyEvaluation, Clipped, Columns, Evaluated, Evaluation, Given, Inputs, Layout, MAX_RESPONSES,
    Ranking, Reduction, Response, Token,
};
use crate::stages::Tokens;
use crate::term::{Compared, Term};

/// The beta, margin, soft label and weight of a unit for which the dataset gives none.
const NEUTRAL: [f64; 4] = [1.0, 0.0, 1.0, 1.0];

/// What stage 3 looks at: each of its forms has kernels that read other arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Sequences, rewards or pairs of them.
    Responses,
    Tokens,
    Groups,
}

impl Over {
    /// A term of that form, in words.
    pub fn term(self) -> &'static str {
        match self {
            Self::Responses => "a term over sequences or pairs",
            Self::Tokens => "a term over tokens",
            Self::Groups => "a term over groups",
        }
    }
}

/// A term and the sequences of its units in one batch.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub(crate) term: Term,
    pub(crate) members: Arc<[i64]>,
    /// `[units]` numbers that the dataset gives: beta, margin, soft label, weight.
    pub(crate) inputs: [Option<Arc<[f64]>>; 4],
    /// `[sequences]` scores, for an objective that uses them.
    pub(crate) scores: Option<Arc<[f64]>>,
    /// `[groups + 1]` where each group's members begin, of a term over groups.
    pub(crate) groups: Option<Arc<[i64]>>,
}

impl Resolved {
    /// How many units the term looks at; a term that is a mean over them has some.
    pub fn units(&self) -> usize {
        match &self.groups {
            Some(offsets) => offsets.len() - 1,
            None => self.members.len() / self.members_of_unit(),
        }
    }

    /// How many responses of the batch each unit has; groups have any number.
    pub(crate) fn members_of_unit(&self) -> usize {
        match self.term.layout() {
            Layout::Sequences | Layout::Rewards | Layout::Tokens | Layout::Groups => 1,
            Layout::Pairs | Layout::RewardPairs => 2,
            Layout::JudgedPairs => 4,
        }
    }

    pub(crate) fn is_over_pairs(&self) -> bool {
        self.term.layout().is_over_pairs()
    }

    pub(crate) fn is_over_sequences(&self) -> bool {
        self.term.layout().is_over_sequences()
    }

    pub(crate) fn is_over_rewards(&self) -> bool {
        self.term.layout().is_over_rewards()
    }

    /// Which form of stage 3 runs the term.
    pub(crate) fn over(&self) -> Over {
        match self.term.layout() {
            Layout::Tokens => Over::Tokens,
            Layout::Groups => Over::Groups,
            _ => Over::Responses,
        }
    }

    /// The ranking of a term over groups, and where each group's members begin.
    pub(crate) fn ranking(&self) -> Option<(&Ranking, &[i64])> {
        match (&self.term.objective, &self.groups) {
            (Compared::Groups(ranking), Some(offsets)) => Some((ranking, offsets)),
            _ => None,
        }
    }

    pub(crate) fn is_over_tokens(&self) -> bool {
        self.term.layout() == Layout::Tokens
    }

    /// What the objective looks at.
    pub(crate) fn inputs_used(&self) -> Inputs {
        self.term.inputs()
    }

    pub(crate) fn log_ratio_bound(&self) -> f64 {
        match &self.term.objective {
            Compared::Units(objective) => objective.log_ratio_bound(),
            Compared::Groups(_) => f64::INFINITY,
        }
    }

    /// The factor of a unit's losses.
    pub(crate) fn unit_weight(&self, unit: usize) -> f64 {
        self.inputs[3].as_ref().map_or(NEUTRAL[3], |weights| weights[unit])
    }

    /// The objective of a term over other units than groups.
    #[cfg(feature = "cuda")]
    pub(crate) fn objective(&self) -> Option<&AnyObjective> {
        match &self.term.objective {
            Compared::Units(objective) => Some(objective),
            Compared::Groups(_) => None,
        }
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

    /// What the objective says about a unit.
    pub(crate) fn evaluate(
        &self,
        responses: &[Response; MAX_RESPONSES],
        given: Given,
    ) -> AnyEvaluation {
        match &self.term.objective {
            Compared::Units(objective) => objective.evaluate(responses, given),
            // Groups have a stage of their own.
            Compared::Groups(_) => AnyEvaluation::default(),
        }
    }

    /// What the objective says about as many units as there are losses, from the first on.
    pub(crate) fn evaluate_all(&self, units: &Columns<'_>, first: usize, to: Evaluated<'_>) {
        if let Compared::Units(objective) = &self.term.objective {
            objective.evaluate_all(units, first, to);
        }
    }

    /// What the objective says about tokens, into as many places.
    pub(crate) fn evaluate_tokens(&self, tokens: &[Token], to: &mut [Evaluation<Token>]) {
        if let Compared::Units(objective) = &self.term.objective {
            objective.evaluate_tokens(tokens, to);
        }
    }

    /// Which sides of its clip hold at a token, of an objective that has one.
    pub(crate) fn clipped(&self, token: &Token) -> Option<Clipped> {
        match &self.term.objective {
            Compared::Units(objective) => objective.clipped(&token.responses()),
            Compared::Groups(_) => None,
        }
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
            && self.groups.as_deref().is_none_or(|offsets| {
                let now = batch.groups().map_or(&[][..], Groups::offsets);
                now.iter().map(|&offset| offset as i64).eq(offsets.iter().copied())
            })
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
fn check_inputs(terms: &[Resolved], batch: &Batch<'_>) -> Result<()> {
    let sequences =
        || terms.iter().filter(|term| term.is_over_sequences() || term.is_over_tokens());
    let ranked = terms.iter().any(|term| term.ranking().is_some());
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
        ("groups", batch.groups().is_some() && !ranked),
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
        let names = ["beta", "margin", "soft label", "weight"];
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

/// Terms over one batch, checked together.
///
/// # Errors
/// No terms, or one that does not fit the batch.
pub(crate) fn resolve(
    batch: &Batch<'_>,
    terms: impl IntoIterator<Item = Term>,
) -> Result<Vec<Resolved>> {
    let terms = terms.into_iter().map(|term| term.resolve(batch)).collect::<Result<Vec<_>>>()?;
    if terms.is_empty() {
        return Err(Error::TooFew { what: "terms", expected: 1, got: 0 });
    }
    check_inputs(&terms, batch)?;
    Ok(terms)
}

/// On a device advantages are data, like log-probs.
///
/// # Errors
/// In host memory an advantage of a token that counts that is not finite.
pub(crate) fn check_advantages(batch: &Batch<'_>) -> Result<()> {
    let by_token = batch.advantages().filter(|advantages| advantages.is_per_token());
    let Some(Ok(numbers)) = by_token.map(|advantages| advantages.slice().host::<f64>()) else {
        return Ok(());
    };
    let Ok(tokens) = Tokens::of(batch).host() else { return Ok(()) };
    let bad = |&token: &usize| tokens.counted_label(token).is_some() && !numbers[token].is_finite();
    match (0..numbers.len()).find(bad) {
        None => Ok(()),
        Some(token) => Err(Error::TokenInput { input: "advantage", token, got: numbers[token] }),
    }
}
