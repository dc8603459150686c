//! The list's examples, which every other test and the kernels' own iterate over.

use std::collections::BTreeMap;

use prefuse::objectives::{AnyObjective, ParameterKind, objectives};

/// Each optional parameter differs from its default in some example, and each variant is in some.
#[test]
fn examples_use_every_option() {
    let mut by_name: BTreeMap<&str, Vec<AnyObjective>> = BTreeMap::new();
    for objective in objectives() {
        by_name.entry(objective.name()).or_default().push(objective);
    }
    for (name, examples) in by_name {
        for parameter in examples[0].description().unwrap().parameters {
            let of = |example: &AnyObjective| {
                let parameters = example.parameters();
                let is = |other: &&(&str, f64)| other.0 == parameter.name;
                parameters.iter().find(is).unwrap().1
            };
            let values: Vec<f64> = examples.iter().map(of).collect();
            let what = format!("{name}'s examples for {}: {values:?}", parameter.name);
            if let Some(default) = parameter.default {
                assert!(values.iter().any(|&value| value != default), "{what}");
            }
            if let ParameterKind::OneOf { variants, .. } = parameter.kind {
                for (position, variant) in variants.iter().enumerate() {
                    assert!(values.contains(&(position as f64)), "{what}, without {variant}");
                }
            }
        }
    }
}
