//! The description of a loss as Python gives it: a text of names and numbers, and tensors by name.

use std::collections::HashMap;

use prefuse::batch::{
    Advantages, Batch, Groups, Labels, Packing, Pairs, ReferenceLogProbs, Weights,
};
use prefuse::objectives::{Reduction, from_named, ranking_from_named};
use prefuse::{Result, Sequences, Slice, Term};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;

use crate::backend::{Device, HOST};
use crate::memory::Memory;

/// Tensors by the name of the argument that they were given for.
pub type Tensors = HashMap<String, Memory>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossText {
    terms: Vec<TermText>,
    pairs: Option<PairsText>,
    verdicts: Option<Vec<(usize, usize)>>,
    groups: Option<GroupsText>,
    ignore_index: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermText {
    objective: String,
    is_ranking: bool,
    parameters: HashMap<String, f64>,
    /// Their product is the weight.
    weights: Vec<f64>,
    reduction: ReductionText,
    sequences: Option<SequencesText>,
    pairs: Option<Vec<usize>>,
}

/// Sizes of groups of neighbouring sequences.
#[derive(Deserialize)]
#[serde(untagged)]
enum GroupsText {
    All(usize),
    Each(Vec<usize>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Halves,
    Interleaved,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PairsText {
    Way(Way),
    Indices(Vec<(usize, usize)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Selection {
    All,
    Chosen,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SequencesText {
    Selection(Selection),
    Indices(Vec<usize>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Mean,
    Sum,
    TokenMean,
    SequenceMean,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReductionText {
    Named(Named),
    Divisor(f64),
}

impl LossText {
    /// # Errors
    /// `ValueError` of what `prefuse.torch` never writes.
    pub fn parse(text: &str) -> PyResult<Self> {
        serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// # Errors
    /// `ValueError` of unknown objectives and parameters, and of parameters outside their domains.
    pub fn terms(&self) -> PyResult<Vec<Term>> {
        self.terms.iter().map(TermText::term).collect()
    }

    /// A batch of tokens.
    ///
    /// # Errors
    /// What the core finds wrong.
    ///
    /// # Safety
    /// As for [`Memory::slice`], of all tensors.
    pub unsafe fn of_tokens<'a>(&self, device: &'a Device, tensors: &Tensors) -> Result<Batch<'a>> {
        let given = Given { device, tensors };
        let labels = given.slice("labels")?.unwrap_or(Slice::new::<i64>(&[]));
        let labels = Labels::from_slice(labels)?.with_ignore(self.ignore_index);
        let packing = match given.host("cu_seqlens")? {
            Some(offsets) => Packing::new(&offsets.read::<i64>()?)?,
            None => Packing::padded(1, labels.len())?,
        };
        let sequences = packing.sequences();
        let mut batch = Batch::new(labels, packing)?;
        if let Some(weights) = given.slice("weights")? {
            batch = batch.with_weights(Weights::from_slice(weights)?)?;
        }
        if let Some(reference) = given.slice("reference")? {
            batch = batch.with_reference(ReferenceLogProbs::from_slice(reference)?)?;
        }
        if let Some(old) = given.slice("old")? {
            batch = batch.with_old(ReferenceLogProbs::from_slice(old)?)?;
        }
        if let Some(advantages) = given.numbers("advantages")? {
            batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
        }
        if let Some(advantages) = given.slice("token_advantages")? {
            batch = batch.with_advantages(Advantages::from_slice(advantages)?)?;
        }
        let weighted = batch.weights().is_some();
        self.complete(batch, given, sequences, weighted)
    }

    /// A batch of as many sequences of which one number is known.
    ///
    /// # Errors
    /// What the core finds wrong.
    ///
    /// # Safety
    /// As for [`Memory::slice`], of all tensors.
    pub unsafe fn of_sequences<'a>(
        &self,
        device: &'a Device,
        tensors: &Tensors,
        sequences: usize,
    ) -> Result<Batch<'a>> {
        let given = Given { device, tensors };
        self.complete(Batch::of_sequences(sequences)?, given, sequences, false)
    }

    fn complete<'a>(
        &self,
        mut batch: Batch<'a>,
        given: Given<'a, '_>,
        sequences: usize,
        weighted: bool,
    ) -> Result<Batch<'a>> {
        if let Some(sums) = given.numbers("reference_sums")? {
            batch = batch.with_reference(match weighted {
                true => ReferenceLogProbs::per_sequence_weighted(&sums),
                false => ReferenceLogProbs::per_sequence(&sums),
            })?;
        }
        if let Some(scores) = given.numbers("scores")? {
            batch = batch.with_scores(scores)?;
        }
        if let Some(labels) = given.numbers("soft_labels")? {
            batch = batch.with_soft_labels(labels)?;
        }
        if let Some(weights) = given.numbers("sequence_weights")? {
            batch = batch.with_sequence_weights(weights)?;
        }
        if let Some(sizes) = &self.groups {
            let mut groups = match sizes {
                GroupsText::All(size) => {
                    let count = sequences.checked_div(*size).unwrap_or(0);
                    Groups::consecutive(&vec![*size; count])?
                }
                GroupsText::Each(sizes) => Groups::consecutive(sizes)?,
            };
            if let Some(weight) = given.numbers("group_weights")? {
                groups = groups.with_weight(weight)?;
            }
            batch = batch.with_groups(groups)?;
        }
        match self.pairs(given, sequences)? {
            Some(pairs) => batch.with_pairs(pairs),
            None => Ok(batch),
        }
    }

    fn pairs(&self, given: Given<'_, '_>, sequences: usize) -> Result<Option<Pairs<'static>>> {
        let mut pairs = match &self.pairs {
            None => return Ok(None),
            Some(PairsText::Way(Way::Halves)) => Pairs::halves(sequences / 2)?,
            Some(PairsText::Way(Way::Interleaved)) => Pairs::interleaved(sequences / 2)?,
            Some(PairsText::Indices(indices)) => Pairs::new(indices.clone())?,
        };
        if let Some(beta) = given.numbers("pair_beta")? {
            pairs = pairs.with_beta(beta)?;
        }
        if let Some(margin) = given.numbers("margin")? {
            pairs = pairs.with_margin(margin)?;
        }
        if let Some(labels) = given.numbers("pair_soft_labels")? {
            pairs = pairs.with_soft_label(labels)?;
        }
        if let Some(weight) = given.numbers("pair_weights")? {
            pairs = pairs.with_weight(weight)?;
        }
        if let Some(verdicts) = &self.verdicts {
            pairs = pairs.with_verdicts(verdicts.clone())?;
        }
        Ok(Some(pairs))
    }
}

impl TermText {
    fn term(&self) -> PyResult<Term> {
        let parameters: Vec<(&str, f64)> =
            self.parameters.iter().map(|(name, &value)| (name.as_str(), value)).collect();
        let refused = |error: prefuse::objectives::NamedError| {
            PyValueError::new_err(format!("{}: {error}", self.objective))
        };
        let term = match self.is_ranking {
            true => {
                Term::groups(ranking_from_named(&self.objective, &parameters).map_err(refused)?)
            }
            false => Term::new(from_named(&self.objective, &parameters).map_err(refused)?),
        };
        let weight = self.weights.iter().product();
        let mut term = term.with_weight(weight).with_reduction(match self.reduction {
            ReductionText::Named(Named::Mean) => Reduction::Mean,
            ReductionText::Named(Named::Sum) => Reduction::Sum,
            ReductionText::Named(Named::TokenMean) => Reduction::TokenMean,
            ReductionText::Named(Named::SequenceMean) => Reduction::SequenceMean,
            ReductionText::Divisor(divisor) => Reduction::Divisor(divisor),
        });
        match &self.sequences {
            None | Some(SequencesText::Selection(Selection::All)) => {}
            Some(SequencesText::Selection(Selection::Chosen)) => {
                term = term.with_sequences(Sequences::Chosen);
            }
            Some(SequencesText::Indices(indices)) => {
                term = term.with_sequences(Sequences::Indices(indices.clone()));
            }
        }
        if let Some(pairs) = &self.pairs {
            term = term.with_pairs(pairs.clone());
        }
        Ok(term)
    }
}

#[derive(Clone, Copy)]
struct Given<'a, 't> {
    device: &'a Device,
    tensors: &'t Tensors,
}

impl<'a> Given<'a, '_> {
    fn slice(self, name: &str) -> Result<Option<Slice<'a>>> {
        // SAFETY: the promise of both constructors of batches, which alone make a `Given`.
        self.tensors.get(name).map(|memory| unsafe { memory.slice(self.device) }).transpose()
    }

    fn numbers(self, name: &str) -> Result<Option<Vec<f64>>> {
        self.host(name)?.map(Slice::to_vec).transpose()
    }

    /// Numbers by sequence, pair or group are on the host whatever the device is.
    fn host(self, name: &str) -> Result<Option<Slice<'a>>> {
        // SAFETY: as above.
        self.tensors.get(name).map(|memory| unsafe { memory.slice(&HOST) }).transpose()
    }
}
