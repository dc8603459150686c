//! Every objective of the list against `objectives.py`, which was written from the papers by somebody
//! who had not seen the bodies.

use std::collections::{BTreeMap, BTreeSet};

use prefuse::objectives::{
    AnyObjective, Given, MAX_RESPONSES, ParameterKind, Response, from_named, objectives,
};
use serde_json::Value;

use super::{TIGHT, close, load, number, numbers};

/// The objective of a case; the script names some parameters by its sources' words.
fn objective(case: &Value) -> AnyObjective {
    let name = case["objective"].as_str().unwrap();
    let list = objectives();
    let listed = list.iter().find(|objective| objective.name() == name).unwrap();
    let described = listed.description().unwrap().parameters;
    let parameters: Vec<(&str, f64)> = case["params"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let key = match key.as_str() {
                "tau" => "temperature",
                "form" => "distance",
                "probability_form" => "of_probabilities",
                "detach_policy" => "detach_pair",
                "detach_judge" => "detach_verdicts",
                key => key,
            };
            let parameter = described.iter().find(|parameter| parameter.name == key).unwrap();
            let value = match (parameter.kind, value.as_str()) {
                (ParameterKind::OneOf { variants, .. }, Some(variant)) => {
                    variants.iter().position(|name| *name == variant).unwrap() as f64
                }
                _ => number(value),
            };
            (key, value)
        })
        .collect();
    from_named(name, &parameters).unwrap()
}

/// The units of an input.
fn units(objective: &AnyObjective, input: &Value) -> Vec<([Response; MAX_RESPONSES], Given)> {
    let column = |key: &str| input.get(key).map(numbers);
    let either = |keys: [String; 2]| keys.iter().find_map(|key| column(key));
    let names = objective.responses();
    let of = |response: &str, what: &str| match (objective.unit()[0], response, what) {
        ("RewardPair", response, "policy") => column(response),
        ("Reward", _, "policy") => column("prediction"),
        ("Reward", _, "score") => column("target"),
        (_, "response", what) => column(what),
        (_, response, what) => either([format!("{response}_{what}"), what.to_owned()]),
    };
    let columns: Vec<_> = names
        .iter()
        .map(|response| ["policy", "reference", "tokens", "score"].map(|what| of(response, what)))
        .collect();
    let given = ["beta", "margin", "soft_label"].map(column);
    let count = columns[0][0].as_ref().unwrap().len();
    let at = |column: &Option<Vec<f64>>, unit: usize, otherwise: f64| {
        column.as_ref().map_or(otherwise, |column| column[unit])
    };
    let unit = |unit: usize| {
        let mut responses = [Response::default(); MAX_RESPONSES];
        for (response, [policy, reference, tokens, score]) in responses.iter_mut().zip(&columns) {
            *response = Response::new(at(policy, unit, f64::NAN), at(tokens, unit, 1.0))
                .with_reference(at(reference, unit, f64::NAN))
                .with_score(at(score, unit, f64::NAN));
        }
        let [beta, margin, soft_label] = &given;
        let beta = at(beta, unit, Given::NEUTRAL.beta);
        let margin = at(margin, unit, Given::NEUTRAL.margin);
        let soft_label = at(soft_label, unit, Given::NEUTRAL.soft_label);
        (responses, Given { beta, margin, soft_label })
    };
    (0..count).map(unit).collect()
}

#[test]
fn objectives_of_an_independent_script() {
    let file = load("objectives_f64");
    let mut checked = BTreeMap::new();
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let objective = objective(case);
        let units = units(&objective, &file["inputs"][case["input"].as_str().unwrap()]);
        let given = |by: &dyn Fn(&Given) -> bool| units.iter().any(|(_, given)| by(given));
        let inputs = objective.inputs();
        assert!(inputs.margin || !given(&|given| given.margin != 0.0), "{id}");
        assert!(inputs.beta || !given(&|given| given.beta != 1.0), "{id}");
        let results: Vec<_> =
            units.iter().map(|(responses, given)| objective.evaluate(responses, *given)).collect();
        let losses: Vec<f64> = results.iter().map(|result| result.loss).collect();
        close(&losses, &numbers(&expected["losses"]), TIGHT, id);
        for (index, response) in objective.responses().iter().enumerate() {
            let grads: Vec<f64> = results.iter().map(|result| result.grads[index]).collect();
            close(&grads, &numbers(&expected[format!("grad_{response}")]), TIGHT, id);
            let rewards: Vec<f64> = results.iter().map(|result| result.rewards[index]).collect();
            close(&rewards, &numbers(&expected[format!("reward_{response}")]), TIGHT, id);
        }
        *checked.entry(objective.name()).or_insert(0_u64) += 1;
    }
    // Those on tokens are TRL's: see `trl_tokens`; TDPO begins at the logits: see `tdpo`.
    let list = objectives();
    let elsewhere = |objective: &AnyObjective| {
        objective.unit()[0] == "Token" || objective.name().starts_with("Tdpo")
    };
    let others = list.iter().filter(|objective| !elsewhere(objective));
    for name in others.map(AnyObjective::name).collect::<BTreeSet<_>>() {
        let cases = checked.get(name).copied().unwrap_or(0);
        assert!(
            cases >= 4,
            "{name}: expected at least 4 cases in objectives_f64.json, got {cases}; \
             docs/adding_a_loss.md says how to add them"
        );
    }
    assert_eq!(checked.values().sum::<u64>(), file["count"].as_u64().unwrap());
}
