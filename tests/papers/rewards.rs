//! Papers that train a reward model.

use prefuse::batch::ReferenceLogProbs;
use prefuse::objectives::{
    BradleyTerry, Eurus, Kto, NcaPair, Nll, Ranking, Reduction, RewardGap, RewardRegression,
    RewardTie,
};
use prefuse::statistics::{Moments, expected_calibration_error, keep_largest, kto_baseline};
use prefuse::{Loss, Result, ScalarLoss, Sequences, Term};

use super::given::Given;
use super::{Paper, call};

pub fn papers() -> Vec<Paper> {
    vec![
        Paper {
            name: "Eurus",
            title: "Advancing LLM Reasoning Generalists with Preference Trees",
            trains: "reward model: `-log sigmoid(r_w - r_l)`, for its own pairs also \
                `-log sigmoid(r_w) - log sigmoid(-r_l)`; policy: KTO, `1 - \
                sigmoid(beta * (d - z))` of a desirable response, times 1.33, and `1 - sigmoid(beta * (z - \
                d))` of another, or NCA, `-log sigmoid(u_w) - (log sigmoid(-u_w) + log sigmoid(-u_l)) / 2`, \
                `u = beta * d`",
            calls: vec![
                call!("reward model", eurus),
                call!("KTO", eurus_kto),
                call!("NCA", eurus_nca),
            ],
            missing: "",
            known: "paper read; KTO and NCA in their own authors' code",
        },
        Paper {
            name: "HelpSteer2",
            title: "Regression, Bradley-Terry variants and SteerLM 2.0",
            trains: "`(prediction - rating)^2` over the ratings that exist; `-log sigmoid(r_w - r_l)`, with \
                the strength `m` of the preference as a margin or as a weight; SteerLM 2.0: cross-entropy \
                of `softmax(s - log Q)` from `softmax(log P(attributes) + log P - log Q)` over sampled \
                responses",
            calls: vec![
                call!("regression", help_steer_regression),
                call!("scaled Bradley-Terry", scaled_bradley_terry),
                call!("with margins", margin_bradley_terry),
                call!("SteerLM 2.0", steer_lm),
            ],
            missing: "",
            known: "authors' code read; scaled Bradley-Terry on the authors' poster too",
        },
        Paper {
            name: "ArmoRM",
            title: "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts",
            trains: "ridge regression of each attribute on frozen features; then a gate `g` by \
                `-log sigmoid(R_w - R_l)`, `R = sum of g_k * r_k`",
            calls: vec![call!("attributes", attributes), call!("gate", bradley_terry)],
            missing: "the gate and its gradient from that of `R` are outside of this crate",
            known: "authors' code read; the paper corrects the rewards for length, the script does not",
        },
        Paper {
            name: "MORE",
            title: "On Diversified Preferences of Large Language Model Alignment",
            trains: "Bradley-Terry on all pairs of a list, each task weighted by `tasks * lambda` from the \
                min-norm point of the tasks' gradients",
            calls: vec![call!("reward model", more), call!("calibration", calibration)],
            missing: "the min-norm solver is outside of this crate",
            known: "authors' code read",
        },
        Paper {
            name: "CRM",
            title: "Two Minds Better Than One: Collaborative Reward Modeling",
            trains: "Bradley-Terry, or DPO, of two models, each on the pairs that have the largest margins \
                under the other",
            calls: vec![call!(crm)],
            missing: "",
            known: "third-party notes, four reviews; that a share of `1 - noise rate` is kept is inferred",
        },
        Paper {
            name: "DPA",
            title: "Directional Preference Alignment, arithmetic control of LLMs",
            trains: "regression of a vector of ratings, `sum over attributes of (prediction - rating)^2`; \
                NLL of the sample that is best along a drawn direction",
            calls: vec![call!("reward model", attributes), call!("policy", kept_nll)],
            missing: "",
            known: "third-party notes; how directions are drawn is reconstructed",
        },
        Paper {
            name: "DPA-RAG",
            title: "Dual Preference Alignment for Retrieval-Augmented Generation",
            trains: "reranker: `-log sigmoid(r_i - r_j)` over all pairs of 4 ranked documents, cross-entropy \
                of 2 classes, and a contrastive loss, mixed by their gradients; language model: NLL",
            calls: vec![call!("pairs of documents", all_pairs), call!("language model", all_nll)],
            missing: "the contrastive loss on embeddings and the mixture are outside of this crate; the \
                classes are `Nll` over rows of 2 logits",
            known: "authors' code read",
        },
        Paper {
            name: "Align2LLaVA",
            title: "Cascaded Human and LLM Preference Alignment for Multi-modal Instruction Curation",
            trains: "a reward model on pairs, `-log sigmoid(r_w - r_l)`, that selects data",
            calls: vec![call!(bradley_terry)],
            missing: "",
            known: "abstract read; the pair loss is reconstructed",
        },
    ]
}

fn eurus(Given { rewards, .. }: Given) -> Result<ScalarLoss<'static>> {
    // Pair 0 is one of UltraInteract's; the mean is over both.
    let terms = [
        Term::reward_pairs(Eurus::new()).with_pairs([0]),
        Term::reward_pairs(BradleyTerry::new()).with_pairs([1]),
    ];
    ScalarLoss::new(rewards, terms.map(|term| term.with_reduction(Reduction::Divisor(2.0))))
}

pub fn eurus_kto(Given { batch, desirable, .. }: Given) -> Result<Loss<'static>> {
    let log_ratios = Moments::from_iter([0.5, -0.25]); // of prompts with others' responses
    let kto = Kto::new(0.1).with_baseline(kto_baseline(&log_ratios)).with_desirable_weight(1.33);
    Loss::new(batch.with_soft_labels(desirable)?, [Term::sequences(kto, Sequences::All)])
}

fn eurus_nca(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(NcaPair::new(0.1))])
}

pub fn help_steer_regression(Given { rewards, scores, .. }: Given) -> Result<ScalarLoss<'static>> {
    let rated = Sequences::Indices(vec![0, 2, 3, 5]); // the others have no rating
    ScalarLoss::new(rewards.with_scores(scores)?, [Term::rewards(RewardRegression::new(), rated)])
}

pub fn scaled_bradley_terry(Given { rewards, pairs, .. }: Given) -> Result<ScalarLoss<'static>> {
    let pairs = pairs.with_weight(vec![3.0, 1.0])?;
    ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])
}

pub fn margin_bradley_terry(Given { rewards, pairs, .. }: Given) -> Result<ScalarLoss<'static>> {
    let pairs = pairs.with_margin(vec![3.0, 1.0])?;
    ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])
}

pub fn steer_lm(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    // The reference is log Q, scores are the logits of the targets, weights 1 / mean length.
    let batch = batch.with_reference(ReferenceLogProbs::per_sequence(&[-4.5; 8]))?;
    let groups = groups.with_weight(vec![0.25, 0.2])?;
    let batch = batch.with_groups(groups)?.with_scores(scores)?;
    Loss::new(batch, [Term::groups(Ranking::steer_lm())])
}

fn attributes(Given { rewards, scores, .. }: Given) -> Result<ScalarLoss<'static>> {
    // An entry for each attribute of each response, here 2 of 4.
    let term = Term::rewards(RewardRegression::new(), Sequences::All);
    let term = term.with_reduction(Reduction::Divisor(4.0)); // responses
    ScalarLoss::new(rewards.with_scores(scores)?, [term])
}

pub fn more(Given { rewards, groups, scores, .. }: Given) -> Result<ScalarLoss<'static>> {
    let pairs = groups.pairs(&scores)?;
    let lambda = [0.4, 0.6]; // of 2 tasks, one for each prompt
    let weight = |&(better, _): &(usize, usize)| 2.0 * lambda[better % 2];
    let weights: Vec<f64> = pairs.indices().iter().map(weight).collect();
    let rewards = rewards.with_pairs(pairs.with_weight(weights)?)?;
    ScalarLoss::new(rewards, [Term::reward_pairs(BradleyTerry::new())])
}

fn calibration(Given { .. }: Given) -> Result<Vec<f64>> {
    Ok(vec![expected_calibration_error(&[0.9, 0.6, 0.3], &[1.0, 0.0, 0.0], 5)?])
}

pub fn crm(Given { rewards, gaps, .. }: Given) -> Result<ScalarLoss<'static>> {
    let kept = keep_largest(&gaps, 0.5)?; // by the other model's gaps
    ScalarLoss::new(rewards, [Term::reward_pairs(BradleyTerry::new()).with_pairs(kept)])
}

fn kept_nll(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let kept = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 5]));
    Loss::new(batch, [kept.with_reduction(Reduction::TokenMean)])
}

pub fn all_pairs(Given { rewards, groups, scores, .. }: Given) -> Result<ScalarLoss<'static>> {
    let rewards = rewards.with_pairs(groups.pairs(&scores)?)?;
    ScalarLoss::new(rewards, [Term::reward_pairs(BradleyTerry::new())])
}

fn all_nll(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::All);
    Loss::new(batch, [nll.with_reduction(Reduction::TokenMean)])
}

pub fn bradley_terry(Given { rewards, .. }: Given) -> Result<ScalarLoss<'static>> {
    ScalarLoss::new(rewards, [Term::reward_pairs(BradleyTerry::new())])
}

pub fn mm_rlhf_rewards(Given { rewards, .. }: Given) -> Result<ScalarLoss<'static>> {
    // Pair 1 is a tie. Ties have a mean of their own, the centering one over all 2 pairs.
    let ranked = BradleyTerry::new().with_centering(0.01 * 1.0 / 2.0);
    let tie = RewardTie::new().with_centering(0.01 * 1.0 / 2.0);
    let ranked = Term::reward_pairs(ranked).with_pairs([0]);
    ScalarLoss::new(rewards, [ranked, Term::reward_pairs(tie).with_pairs([1])])
}

pub fn dr_irl_rewards(Given { rewards, .. }: Given) -> Result<ScalarLoss<'static>> {
    ScalarLoss::new(rewards, [Term::reward_pairs(RewardGap::new(0.1))])
}
