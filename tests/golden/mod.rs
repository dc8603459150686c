//! The reference against values computed by others: TRL 1.16 and 0.28, torch, and independent scripts
//! (`independent.py`, `policy_gradient.py`, `groups.py`) where no package has the formula.

mod divergence;
mod groups;
mod independent;
mod listwise;
mod mixed_log_probs;
mod objectives;
mod policy_gradient;
mod rows;
mod statistics;
mod statistics_values;
mod tdpo;
mod token_log_probs;
mod trl;
mod trl_sums;
mod trl_tokens;

use serde_json::Value;

fn load(name: &str) -> Value {
    let path = crate::common::root().join(format!("tests/golden/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) if text == "-Infinity" => f64::NEG_INFINITY,
        Value::String(text) if text == "Infinity" => f64::INFINITY,
        Value::String(text) if text == "NaN" => f64::NAN,
        Value::Bool(value) => f64::from(u8::from(*value)),
        value => value.as_f64().unwrap(),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = if value.is_object() { &value["data"] } else { value };
    list.as_array().unwrap().iter().map(number).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    numbers(value).into_iter().map(|value| value as i64).collect()
}

fn shape(value: &Value) -> Vec<usize> {
    value["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn close(got: &[f64], expected: &[f64], (relative, absolute): (f64, f64), what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || got.is_nan() && expected.is_nan();
        let error = (got - expected).abs();
        assert!(
            same || error <= absolute + relative * expected.abs(),
            "{what}[{index}]: {got} for {expected}"
        );
    }
}

/// What the files promise.
const TIGHT: (f64, f64) = (1e-9, 1e-12);
