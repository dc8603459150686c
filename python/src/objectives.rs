//! What there is to choose from, for the classes of `prefuse.objectives`.

use prefuse::objectives::{ParameterKind, from_named, ranking_from_named, rankings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Name, doc comment, domain, default (none of a required one), variants (none of a number; `["False", "True"]`
/// of a switch).
type Parameter = (&'static str, &'static str, &'static str, Option<f64>, Vec<&'static str>);

/// Name, unit, doc comment, parameters.
type Listed = (&'static str, &'static str, &'static str, Vec<Parameter>);

/// `(name, unit, doc, parameters)` of every objective, and of every ranking with the unit `Ranking`; a parameter
/// is `(name, doc, domain, default, variants)`.
#[pyfunction]
pub fn objectives() -> Vec<Listed> {
    let mut list: Vec<Listed> = vec![];
    for objective in prefuse::objectives::objectives() {
        if list.last().is_some_and(|(name, ..)| *name == objective.name()) {
            continue;
        }
        let Some(description) = objective.description() else { continue };
        let parameters = description.parameters.iter();
        let parameters =
            parameters.map(|of| (of.name, of.doc, of.expected, of.default, variants(of.kind)));
        let [unit, _] = objective.unit();
        list.push((objective.name(), unit, description.doc, parameters.collect()));
    }
    for ranking in rankings() {
        let names = ranking.call.split(['(', ')', ',']).skip(1).map(str::trim);
        let parameters = names.filter(|name| !name.is_empty());
        let parameters =
            parameters.map(|name| (name, "", prefuse::objectives::POSITIVE.expected, None, vec![]));
        list.push((ranking.name, "Ranking", ranking.call, parameters.collect()));
    }
    list
}

fn variants(kind: ParameterKind) -> Vec<&'static str> {
    match kind {
        ParameterKind::Number => vec![],
        ParameterKind::Switch => vec!["False", "True"],
        ParameterKind::OneOf { variants, .. } => variants.to_vec(),
    }
}

/// What it looks at beside the policy, by the names of the arguments of `prefuse.torch.preference_loss`. Raises
/// `ValueError` where a name or a parameter is none of the list's, or a parameter lies outside its domain.
#[pyfunction]
pub fn check_objective(
    name: &str,
    is_ranking: bool,
    parameters: Vec<(String, f64)>,
) -> PyResult<Vec<&'static str>> {
    let parameters: Vec<(&str, f64)> =
        parameters.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let found = match is_ranking {
        true => ranking_from_named(name, &parameters).map(|of| (of.inputs(), "Ranking")),
        false => from_named(name, &parameters).map(|of| (of.inputs(), of.unit()[0])),
    };
    let (inputs, unit) =
        found.map_err(|error| PyValueError::new_err(format!("{name}: {error}")))?;
    let soft_labels = if unit == "Sequence" { "soft_labels" } else { "pair_soft_labels" };
    let named = [
        (inputs.reference, "reference"),
        (inputs.beta, "pair_beta"),
        (inputs.margin, "margin"),
        (inputs.soft_label, soft_labels),
        (inputs.score, "scores"),
        (inputs.old, "old"),
        (inputs.advantage, "advantages"),
        (inputs.entropy, "entropy"),
    ];
    Ok(named.into_iter().filter_map(|(uses, name)| uses.then_some(name)).collect())
}
