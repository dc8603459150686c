//! Log-probs under combinations of logits, and their gradients, against torch.

use prefuse::{DType, Reference};

use super::{TIGHT, close, integers, load, number, numbers, shape};
use crate::mixed_log_probs::{Case, Part};

/// Multiplies logits of 1e4 in f64 before they are subtracted, as torch does, and in another order.
const AT_OFFSETS: (f64, f64) = (1e-9, 1e-10);

#[test]
fn mixed_log_probs_of_torch() {
    let file = load("mixed_log_probs_f64");
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 28);
    for case in cases {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let logits = case["logits"].as_array().unwrap();
        let parts = numbers(&case["coefficients"]).into_iter().zip(logits);
        let found = Case {
            parts: parts
                .map(|(coefficient, logits)| Part {
                    coefficient,
                    dtype: DType::F64,
                    data: numbers(logits),
                })
                .collect(),
            vocab: shape(&logits[0])[1],
            temperature: number(&case["temperature"]),
            ids: integers(&case["labels"]),
            weights: None,
            upstream: numbers(&case["upstream"]),
            gaps: [0, 0],
            wanted: [true; 3],
        }
        .run(&Reference::new());
        let within = if id.contains("offset") { AT_OFFSETS } else { TIGHT };
        close(&found.log_probs, &numbers(&expected["log_probs"]), within, id);
        for (got, expected) in found.grads.iter().zip(expected["grads"].as_array().unwrap()) {
            close(got, &numbers(expected), within, id);
        }
    }
}
