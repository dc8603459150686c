//! Losses and statistics of groups from `groups.py`, which was written from the papers and the published
//! code by somebody who had not seen them here.

use std::collections::BTreeMap;

use prefuse::batch::{Batch, Groups, GroupsError, ReferenceLogProbs};
use prefuse::objectives::{BradleyTerry, Dpo, PointwiseLogistic, Ranking, Reduction, Slic};
use prefuse::statistics::{
    Baseline, GroupAdvantages, Singleton, Spread, Ties, prompt_scaled, ranks,
};
use prefuse::{Error, Reference, ScalarLoss, Sequences, Slice, Term, Upstream};
use serde_json::Value;

use super::{TIGHT, close, load, number, numbers};

/// The arrays of a case, by sequence, and the group of each.
struct Input<'a> {
    arrays: &'a Value,
    starts: Vec<usize>,
    group_of: Vec<usize>,
}

/// Losses by group, and the gradient of their sum by sequence.
type Evaluated = (Vec<f64>, Vec<f64>);

impl<'a> Input<'a> {
    fn new(arrays: &'a Value) -> Self {
        let starts: Vec<usize> = numbers(&arrays["cu"]).into_iter().map(|x| x as usize).collect();
        let sizes = starts.windows(2).map(|two| two[1] - two[0]).enumerate();
        let group_of = sizes.flat_map(|(group, size)| std::iter::repeat_n(group, size)).collect();
        Self { arrays, starts, group_of }
    }

    fn get(&self, key: &str) -> Vec<f64> {
        numbers(&self.arrays[key])
    }

    fn lengths(&self) -> Vec<f64> {
        self.get("tokens").iter().map(|tokens| tokens.max(1.0)).collect()
    }

    fn groups(&self) -> impl Iterator<Item = Vec<usize>> {
        self.starts.windows(2).map(|two| (two[0]..two[1]).collect())
    }

    /// The groups of more than one; the crate refuses the others.
    fn compared(&self) -> Groups<'static> {
        let all: Vec<Vec<usize>> = self.groups().collect();
        let sizes = |groups: &[Vec<usize>]| groups.iter().map(Vec::len).collect::<Vec<_>>();
        let made = Groups::new(all.concat(), &sizes(&all));
        let Some(alone) = all.iter().position(|group| group.len() == 1) else {
            return made.unwrap();
        };
        let size = GroupsError::Size { group: alone, got: 1 };
        assert_eq!(made.unwrap_err().to_string(), size.to_string());
        let kept: Vec<Vec<usize>> = all.into_iter().filter(|group| group.len() > 1).collect();
        Groups::new(kept.concat(), &sizes(&kept)).unwrap()
    }

    fn batch(&self) -> Batch<'static> {
        Batch::of_sequences(self.group_of.len()).unwrap()
    }

    fn referenced(&self) -> Batch<'static> {
        let reference = self.get("reference");
        let batch = self.batch().with_reference(ReferenceLogProbs::per_sequence(&reference));
        batch.and_then(Batch::into_owned).unwrap()
    }

    /// A ranking under the scores, best first where it wants that; one that looks at scores refuses others.
    fn ranked(&self, ranking: Ranking, scores: &[f64], weights: Option<&[f64]>) -> Evaluated {
        let batch = || match ranking.inputs().reference {
            true => self.referenced(),
            false => self.batch(),
        };
        let scored = || batch().with_scores(scores.to_vec()).unwrap();
        let term = || Term::groups(ranking).with_reduction(Reduction::Sum);
        let mut groups = self.compared();
        let sorted = |group: &[usize]| group.windows(2).all(|two| scores[two[0]] >= scores[two[1]]);
        if ranking.is_ordered() && !groups.iter().all(sorted) {
            // One that looks at no scores takes the caller's word for the order.
            if ranking.inputs().score {
                let batch = scored().with_groups(groups.clone()).unwrap();
                let error = ScalarLoss::new(batch, [term()]).unwrap_err();
                assert!(matches!(error, Error::Groups(GroupsError::Order { .. })), "{error}");
            }
            let mut ordered: Vec<Vec<usize>> = groups.iter().map(<[usize]>::to_vec).collect();
            for group in &mut ordered {
                group.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            }
            let sizes: Vec<usize> = ordered.iter().map(Vec::len).collect();
            groups = Groups::new(ordered.concat(), &sizes).unwrap();
        }
        if let Some(weights) = weights {
            let of = |group: &[usize]| weights[self.group_of[group[0]]];
            let weights: Vec<f64> = groups.iter().map(of).collect();
            groups = groups.with_weight(weights).unwrap();
        }
        let of_units: Vec<usize> = groups.iter().map(|group| self.group_of[group[0]]).collect();
        let batch = if ranking.inputs().score { scored() } else { batch() };
        let batch = batch.with_groups(groups).unwrap();
        self.evaluate(batch, term(), &self.get("policy"), &of_units)
    }

    /// A term whose units belong to these groups.
    fn evaluate(
        &self,
        batch: Batch<'_>,
        term: Term,
        values: &[f64],
        of_units: &[usize],
    ) -> Evaluated {
        let loss = ScalarLoss::new(batch, [term.with_reduction(Reduction::Sum)]).unwrap();
        let tokens = self.get("tokens");
        let (values, tokens) = (Slice::new(values), Slice::new(&tokens));
        let forward = loss.forward(&Reference::new(), values, Some(tokens)).unwrap();
        let mut losses = vec![0.0; self.starts.len() - 1];
        let units = &forward.terms()[0].losses;
        assert_eq!(units.len(), of_units.len());
        units.iter().zip(of_units).for_each(|(loss, &group)| losses[group] += loss);
        (losses, forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap())
    }

    /// A term over all pairs within the groups whose scores differ.
    fn paired(
        &self,
        batch: Batch<'_>,
        term: Term,
        (values, scores): (&[f64], &[f64]),
        beta: Option<&dyn Fn(usize) -> f64>,
    ) -> Evaluated {
        let mut pairs = self.compared().pairs(scores).unwrap();
        let of_units: Vec<usize> =
            pairs.indices().iter().map(|&(better, _)| self.group_of[better]).collect();
        if let Some(beta) = beta {
            let betas: Vec<f64> = pairs.indices().iter().map(|&(better, _)| beta(better)).collect();
            pairs = pairs.with_beta(betas).unwrap();
        }
        self.evaluate(batch.with_pairs(pairs).unwrap(), term, values, &of_units)
    }

    fn trpa(&self, params: &Value) -> Evaluated {
        let levels = self.get("levels");
        let scores: Vec<f64> = levels.iter().map(|level| -level).collect();
        let best = |sequence: usize| match params["best"].as_str().unwrap() {
            "level_1" => 1.0,
            _ => {
                let group = self.group_of[sequence];
                let levels = &levels[self.starts[group]..self.starts[group + 1]];
                levels.iter().copied().fold(f64::INFINITY, f64::min)
            }
        };
        let anisotropy = number(&params["anisotropy"]);
        let beta = |better: usize| if levels[better] == best(better) { anisotropy } else { 1.0 };
        let dpo = Dpo::new(number(&params["beta"])).with_length_normalized(true);
        let values = (&self.get("policy")[..], &scores[..]);
        self.paired(self.referenced(), Term::pairs(dpo), values, Some(&beta))
    }

    fn steer_lm(&self, params: &Value) -> Evaluated {
        let [attribute, prior, reference] =
            ["attribute", "prior", "reference"].map(|k| self.get(k));
        let scores: Vec<f64> =
            (0..prior.len()).map(|i| attribute[i] + prior[i] - reference[i]).collect();
        let lengths = self.lengths();
        let inverse_mean = |group: Vec<usize>| {
            group.len() as f64 / group.iter().map(|&sequence| lengths[sequence]).sum::<f64>()
        };
        let weights: Vec<f64> = self.groups().map(inverse_mean).collect();
        let normalized = params["length_normalized"].as_bool().unwrap();
        self.ranked(Ranking::steer_lm(), &scores, normalized.then_some(&weights[..]))
    }

    /// What the crate has for a loss, and whether its value is the case's, not its gradient alone.
    fn loss(&self, objective: &str, params: &Value) -> (Evaluated, bool) {
        let get = |key: &str| number(&params[key]);
        let form = params.get("form").and_then(Value::as_str).unwrap_or_default();
        let (policy, scores) = (self.get("policy"), self.get("scores"));
        let ranked = |ranking| self.ranked(ranking, &scores, None);
        let evaluated = match objective {
            "PlackettLuce" => ranked(Ranking::plackett_luce(get("beta"))),
            "Pro" => ranked(Ranking::pro()),
            "KnowPat" if form == "code" => ranked(Ranking::know_pat_released()),
            "KnowPat" => ranked(Ranking::know_pat()),
            "LipoLambda" if form == "rax" => ranked(Ranking::lipo_lambda_rax(get("beta"))),
            "LipoLambda" => ranked(Ranking::lipo_lambda(get("beta"))),
            "InfoNca" => ranked(Ranking::info_nca(get("beta"), get("alpha"))),
            "NcaList" => ranked(Ranking::nca(get("beta"), get("alpha"))),
            "SteerLm" => return (self.steer_lm(params), form == "normalized"),
            "Rrhf" => {
                let hinge = Term::pairs(Slic::new(0.0).with_length_normalized(true));
                self.paired(self.batch(), hinge, (&policy, &scores), None)
            }
            "AllPairsBradleyTerry" => {
                let term = Term::reward_pairs(BradleyTerry::new());
                self.paired(self.batch(), term, (&self.get("rewards"), &scores), None)
            }
            "Trpa" => self.trpa(params),
            "TrpaFallback" => {
                let levels = self.get("levels");
                let desirable: Vec<f64> =
                    levels.iter().map(|&level| f64::from(u8::from(level == 1.0))).collect();
                let batch = self.referenced().with_soft_labels(desirable).unwrap();
                let logistic = PointwiseLogistic::new(1.0).with_length_normalized(true);
                let term = Term::sequences(logistic, Sequences::All);
                self.evaluate(batch, term, &policy, &self.group_of)
            }
            other => panic!("{other}"),
        };
        (evaluated, true)
    }
}

/// What the crate has otherwise.
fn is_left_out(objective: &str, params: &Value, input: &str) -> bool {
    match objective {
        // 1e-10 inside the logarithm, in the code alone.
        "Pro" => number(&params["epsilon"]) != 0.0,
        // Equal scores as no pair: here responses are in order, as `paper_by_position` and the code have it.
        "KnowPat" => params["form"] == "paper" && input == "groups/ties",
        _ => false,
    }
}

#[test]
fn every_case() {
    let file = load("groups_f64");
    let (mut used, mut left_out) = (BTreeMap::new(), 0);
    for case in file["cases"].as_array().unwrap() {
        let (id, objective) = (case["id"].as_str().unwrap(), case["objective"].as_str().unwrap());
        let (params, expected) = (&case["params"], &case["expected"]);
        let name = case["input"].as_str().unwrap();
        let input = Input::new(&file["inputs"][name]);
        if is_left_out(objective, params, name) {
            left_out += 1;
            continue;
        }
        *used.entry(objective).or_insert(0) += 1;
        match objective {
            "advantages" => {
                close(&advantages(&input, params), &numbers(&expected[objective]), TIGHT, id);
                continue;
            }
            "ranks" => {
                assert_eq!(ranked(&input, params), numbers(&expected[objective]), "{id}");
                continue;
            }
            _ => {}
        }
        let ((losses, grads), valued) = input.loss(objective, params);
        let key = if objective == "AllPairsBradleyTerry" { "grad_rewards" } else { "grad_policy" };
        let mut expected = [numbers(&expected["losses"]), numbers(&expected[key])];
        if objective != "TrpaFallback" {
            // Groups that were refused.
            for group in input.groups().filter(|group| group.len() == 1) {
                expected[0][input.group_of[group[0]]] = 0.0;
                expected[1][group[0]] = 0.0;
            }
        }
        let gain = match objective {
            "LipoLambda" => input.get("scores").into_iter().fold(0.0, f64::max).exp2(),
            _ => 1.0,
        };
        let tolerance = (TIGHT.0, TIGHT.1 * gain);
        if valued {
            close(&losses, &expected[0], tolerance, id);
        }
        close(&grads, &expected[1], tolerance, id);
    }
    let used: Vec<_> = used.into_iter().collect();
    assert_eq!(
        used,
        [
            ("AllPairsBradleyTerry", 7),
            ("InfoNca", 12),
            ("KnowPat", 20),
            ("LipoLambda", 20),
            ("NcaList", 12),
            ("PlackettLuce", 14),
            ("Pro", 7),
            ("Rrhf", 7),
            ("SteerLm", 27),
            ("Trpa", 18),
            ("TrpaFallback", 2),
            ("advantages", 33),
            ("ranks", 5),
        ]
    );
    assert_eq!(left_out, 8);
}

fn advantages(input: &Input<'_>, params: &Value) -> Vec<f64> {
    let text = |key: &str| params[key].as_str().unwrap();
    let baseline = match text("baseline") {
        "mean" => Baseline::Mean,
        _ => Baseline::LeaveOneOut,
    };
    let singleton = match text("singleton") {
        "zero" => Singleton::Zero,
        _ => Singleton::Reward,
    };
    let epsilon = params.get("epsilon").map_or(f64::NAN, number);
    let spread = match text("scale") {
        "none" | "whiten" => Spread::One,
        "group" if params["unbiased"] == false => Spread::GroupPopulation { epsilon },
        "group" => Spread::Group { epsilon },
        "batch" => Spread::Batch { epsilon },
        other => panic!("{other}"),
    };
    let settings = GroupAdvantages { baseline, spread, singleton };
    let mut advantages = settings.of(&input.get("rewards"), &input.group_of).unwrap();
    if text("scale") == "whiten" {
        let all =
            GroupAdvantages { spread: Spread::Group { epsilon }, ..GroupAdvantages::default() };
        advantages = all.of(&advantages, &vec![0; advantages.len()]).unwrap();
    }
    match params.get("factors") {
        Some(factors) => prompt_scaled(&advantages, &input.group_of, &numbers(factors)).unwrap(),
        None => advantages,
    }
}

fn ranked(input: &Input<'_>, params: &Value) -> Vec<f64> {
    let ties = match params["ties"].as_str().unwrap() {
        "ordinal" => Ties::Ordinal,
        "min" => Ties::Min,
        "max" => Ties::Max,
        "average" => Ties::Average,
        "dense" => Ties::Dense,
        other => panic!("{other}"),
    };
    let values = input.get("rewards");
    let of_group = |two: &[usize]| ranks(&values[two[0]..two[1]], ties).unwrap();
    input.starts.windows(2).flat_map(of_group).collect()
}
