//! List-wise losses of rax: Plackett-Luce, soft labels, pairs within lists under weights, LiPO-lambda.

use prefuse::batch::{Batch, Groups, Pairs, ReferenceLogProbs};
use prefuse::objectives::{Dpo, Hinge, Ranking, Reduction};
use prefuse::{Reference, ScalarLoss, Slice, Term, Upstream};
use serde_json::Value;

use super::{TIGHT, close, load, number, numbers, shape};

/// The lists of an input, each as its columns in the flattened tensor.
fn lists(input: &Value) -> (Vec<Vec<usize>>, usize) {
    let [count, size] = shape(&input["logratios"]).try_into().unwrap();
    let kept = input.get("where").map_or(vec![1.0; count * size], numbers);
    let of = |row: usize| (row * size..(row + 1) * size).filter(|&i| kept[i] != 0.0).collect();
    ((0..count).map(of).collect(), size)
}

/// Losses by group and the gradient of their sum.
fn ranked(ranking: Ranking, values: &[f64], lists: &[Vec<usize>], scores: &[f64]) -> [Vec<f64>; 2] {
    let sizes: Vec<usize> = lists.iter().map(Vec::len).collect();
    let groups = Groups::new(lists.concat(), &sizes).unwrap();
    let batch = Batch::of_sequences(values.len())
        .and_then(|batch| batch.with_groups(groups))
        .and_then(|batch| {
            batch.with_reference(ReferenceLogProbs::per_sequence(&vec![0.0; values.len()]))
        })
        .unwrap();
    let batch = match ranking.inputs().score {
        true => batch.with_scores(scores.to_vec()).unwrap(),
        false => batch,
    };
    let terms = [Term::groups(ranking).with_reduction(Reduction::Sum)];
    let loss = ScalarLoss::new(batch, terms).unwrap();
    let forward = loss.forward(&Reference::new(), Slice::new(values), None).unwrap();
    let grads = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
    [forward.terms()[0].losses.clone(), grads]
}

#[test]
fn lists_of_rax() {
    let file = load("listwise_rax_f64");
    let mut used = [0; 4];
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let kind = id.split('/').next().unwrap();
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let beta = number(&case["params"]["beta"]);
        let (values, labels) = (numbers(&input["logratios"]), numbers(&input["labels"]));
        let rewards = numbers(&input["rewards"]);
        let (mut lists, size) = lists(input);
        match kind {
            "plackett_luce_dpo" => {
                // Ties keep their order, as rax's sort does.
                let best_first = |list: &mut Vec<usize>| {
                    list.sort_by(|&a, &b| labels[b].total_cmp(&labels[a]));
                };
                lists.iter_mut().for_each(best_first);
                let got = ranked(Ranking::plackett_luce(beta), &values, &lists, &labels);
                close(&got[0], &numbers(&expected["losses"]), TIGHT, id);
                close(&got[1], &numbers(&expected["grad_logratios_of_sum"]), TIGHT, id);
                used[0] += 1;
            }
            "infonca_listwise_softmax" => {
                let got = ranked(Ranking::info_nca(beta, 1.0), &values, &lists, &rewards);
                close(&got[0], &numbers(&expected["losses"]), TIGHT, id);
                close(&got[1], &numbers(&expected["grad_logratios_of_sum"]), TIGHT, id);
                used[1] += 1;
            }
            _ => {
                if case["loss_type"] == "lipo_logistic_dcg_lambdaweight" {
                    lipo_lambda(case, (beta, &values), (&lists, size), &labels);
                    used[3] += 1;
                }
                let sizes: Vec<usize> = lists.iter().map(Vec::len).collect();
                let groups = Groups::new(lists.concat(), &sizes).unwrap();
                let pairs = groups.pairs(&labels);
                let given = expected.get("lambdaweights").map(numbers);
                let Ok(pairs) = pairs else {
                    assert_eq!(number(&expected["loss_sum_over_pairs"]), 0.0);
                    continue;
                };
                let weight = |&(chosen, rejected): &(usize, usize)| match &given {
                    Some(given) => {
                        let row = chosen / size;
                        given[row * size * size + (chosen % size) * size + rejected % size]
                    }
                    None => 1.0,
                };
                let weights: Vec<f64> = pairs.indices().iter().map(weight).collect();
                let count = pairs.len() as f64;
                assert_eq!(number(&expected["n_pairs"]), count, "{id}");
                let (loss, grads) =
                    paired(kind, beta, &values, pairs.with_weight(weights).unwrap());
                let sum = number(&expected["loss_sum_over_pairs"]);
                close(&[loss], &[sum], TIGHT, id);
                close(&grads, &numbers(&expected["grad_logratios"]), TIGHT, id);
                used[2] += 1;
            }
        }
    }
    assert_eq!(used, [10, 12, 96, 12], "{used:?}");
}

/// The weights that the kernel finds itself; rax's number of responses counts the padding.
fn lipo_lambda(
    case: &Value,
    (beta, values): (f64, &[f64]),
    (lists, size): (&[Vec<usize>], usize),
    labels: &[f64],
) {
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    let scaled = |ranking: Ranking, factor: &dyn Fn(&Vec<usize>) -> f64| {
        let (mut loss, mut grads) = (0.0, vec![0.0; values.len()]);
        for list in lists.iter().filter(|list| list.len() > 1) {
            let [losses, of_list] = ranked(ranking, values, std::slice::from_ref(list), labels);
            loss += factor(list) * losses[0];
            grads.iter_mut().zip(of_list).for_each(|(sum, grad)| *sum += factor(list) * grad);
        }
        close(&[loss], &[number(&expected["loss_sum_over_pairs"])], TIGHT, id);
        close(&grads, &numbers(&expected["grad_logratios"]), TIGHT, id);
    };
    let padded = |list: &Vec<usize>| size as f64 / list.len() as f64;
    scaled(Ranking::lipo_lambda_rax(beta), &padded);
    scaled(Ranking::lipo_lambda(beta), &|_| size as f64 * std::f64::consts::LN_2);
}

fn paired(kind: &str, beta: f64, values: &[f64], pairs: Pairs<'_>) -> (f64, Vec<f64>) {
    let zeros = vec![0.0; values.len()];
    let batch = Batch::of_sequences(values.len())
        .and_then(|batch| batch.with_pairs(pairs))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&zeros)))
        .unwrap();
    let term = match kind {
        "pairwise_logistic" => Term::pairs(Dpo::new(beta)),
        "pairwise_hinge" => Term::pairs(Hinge::new(beta)),
        other => panic!("{other}"),
    };
    let loss = ScalarLoss::new(batch, [term.with_reduction(Reduction::Sum)]).unwrap();
    let forward = loss.forward(&Reference::new(), Slice::new(values), None).unwrap();
    (forward.loss(), forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap())
}
