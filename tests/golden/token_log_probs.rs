//! Log-probs, entropies and gradients of torch.

use prefuse::batch::{Labels, Logits, LogitsMut, Packing};
use prefuse::{MaskedRows, Reference, RowOptions, Slice, Target, token_log_probs};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};
use crate::common::rows;

/// Logits row `[sequence, position]` predicts the label of `[sequence, position + 1]`.
#[test]
fn token_log_probs_of_torch() {
    let file = load("token_logps_f64");
    let mut cases = 0;
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [sequences, length, vocab] = shape(&input["logits"])[..] else { panic!() };
        let (data, ids) = (numbers(&input["logits"]), integers(&input["labels"]));
        let packing = Packing::padded(sequences, length).unwrap();
        let ids = prefuse::batch::shift_labels(&ids, &packing, -100).unwrap();
        let labels = Labels::new(&ids[..]);
        let options = RowOptions::default()
            .with_temperature(number(&case["params"]["temperature"]))
            .with_entropy()
            .with_log_sum_squares()
            .with_argmax();
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let reference = Reference::new();
        let ours = token_log_probs(&reference, logits, &labels, None, options).unwrap();
        // The files leave each sequence's last position out.
        let shifted = |values: Vec<f64>| -> Vec<f64> {
            values.chunks(length).flat_map(|row| row[..length - 1].to_vec()).collect()
        };
        close(
            &shifted(ours.log_probs().to_vec().unwrap()),
            &numbers(&expected["token_logps"]),
            TIGHT,
            id,
        );

        let counted: Vec<bool> =
            shifted(ids.iter().map(|&id| f64::from(u8::from(id != -100))).collect())
                .iter()
                .map(|&x| x == 1.0)
                .collect();
        let only = |values: Vec<f64>| -> Vec<f64> {
            values
                .into_iter()
                .zip(&counted)
                .map(|(x, &counted)| if counted { x } else { 0.0 })
                .collect()
        };
        // torch.distributions clamps log 0 to the most negative number, so its entropy is finite.
        let entropy = only(numbers(&expected["entropy_torch_distributions"]));
        close(&shifted(ours.entropy().unwrap().to_vec().unwrap()), &entropy, (1e-9, 1e-9), id);

        let squares = only(numbers(&expected["log_sum_sq_probs"]));
        close(&shifted(ours.log_sum_squares().unwrap().to_vec().unwrap()), &squares, TIGHT, id);

        let cotangent = numbers(&expected["cotangent"]);
        let mut upstream = Vec::new();
        for row in cotangent.chunks(length - 1) {
            upstream.extend_from_slice(row);
            upstream.push(0.0);
        }
        let mut grads = vec![f64::NAN; data.len()];
        let target = Target::OutOfPlace {
            logits,
            grads: LogitsMut::new(&mut grads, sequences * length, vocab).unwrap(),
        };
        let upstream = (Slice::new(&upstream), None);
        ours.logit_grads(&reference, target, (&labels, None), upstream, MaskedRows::Zero).unwrap();
        close(&grads, &numbers(&expected["grad_logits"]), TIGHT, id);
        cases += 1;
    }
    assert_eq!(cases, 27);
}

/// The same for f32, f16 and bf16 inputs, on every backend, against the file's own f64 values. The
/// file also holds what torch returns in that dtype; ours is closer to the truth at every token.
#[test]
fn token_log_probs_in_low_precision() {
    let file = load("token_logps_lowprec");
    for case in file["cases"].as_array().unwrap() {
        match case["id"].as_str().unwrap() {
            "f32" => low_precision::<f32>(&file, case),
            "f16" => low_precision::<half::f16>(&file, case),
            "bf16" => low_precision::<half::bf16>(&file, case),
            other => panic!("{other}"),
        }
    }
}

fn low_precision<T: prefuse::Element>(file: &Value, case: &Value) {
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    let input = &file["inputs"][case["input"].as_str().unwrap()];
    let [sequences, length, _] = shape(&input["logits"])[..] else { panic!() };
    let data: Vec<T> = numbers(&input["logits"]).into_iter().map(T::from_f64).collect();
    let packing = Packing::padded(sequences, length).unwrap();
    let ids = integers(&input["labels"]);
    let ids = prefuse::batch::shift_labels(&ids, &packing, -100).unwrap();
    let labels = Labels::new(&ids[..]);
    let (truth, torch) =
        (numbers(&expected["token_logps_f64"]), numbers(&expected["trl_token_logps_same_dtype"]));
    for backend in crate::backends::backends() {
        let ours = rows(&*backend, &data, &labels, None, RowOptions::default());
        let ours = ours.log_probs().to_vec().unwrap();
        let ours = ours.chunks(length).flat_map(|row| &row[..length - 1]);
        for ((got, truth), torch) in ours.zip(&truth).zip(&torch) {
            let bound = (torch - truth).abs() + 2f64.powi(-22) * truth.abs();
            assert!((got - truth).abs() <= bound, "{} {id}: {got} for {truth}", backend.name());
        }
    }
}
