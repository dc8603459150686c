//! Papers whose loss looks at pairs of responses, or at single ones.

use prefuse::batch::{Combination, LogitsMut, Pairs, Unlabelled, Weights};
use prefuse::objectives::{
    Cpo, Dpo, InfiFpo, Irepo, Lcpo, LogRatio, Nll, Poft, Reduction, Scir, SimPo, Sppo,
};
use prefuse::statistics::{
    ConfidenceThreshold, Fusion, NextQuill, Reliability, TgDpo, accuracy, best_and_worst,
    consistency, easy_pairs, fuse_references, mm_dpo_beta_factors, posteriors, preference_log_odds,
    win_rates,
};
use prefuse::{Cpu, Loss, MaskedRows, Result, Sequences, Slice, Term, mixed_token_log_probs};

use super::given::{Given, OF_LOGITS, numbers};
use super::groups::ppo;
use super::rewards::{bradley_terry, mm_rlhf_rewards};
use super::users::dpo;
use super::{Paper, call};

pub fn papers() -> Vec<Paper> {
    vec![
        Paper {
            name: "Mask-DPO",
            title: "Generalizable Fine-grained Factuality Alignment of LLMs",
            trains: "DPO on sums over the true sentences of the chosen and the false ones of the \
                rejected answer, policy and reference alike: `-log sigmoid(beta * (d_w - d_l))`",
            calls: vec![call!(mask_dpo)],
            missing: "",
            known: "authors' code read; the paper through its reviews",
        },
        Paper {
            name: "InfiFPO",
            title: "Implicit Model Fusion via Preference Optimization",
            trains: "DPO on averages, against source models that are clipped by the policy's start and \
                fused to `F`: `-log sigmoid(beta * ((a_w - F_w) - (a_l - F_l)))`",
            calls: vec![call!(infi_fpo)],
            missing: "",
            known: "paper read, with its figure and data sample; the trainer is not published",
        },
        Paper {
            name: "MM-RLHF",
            title: "MM-DPO, dynamic reward scaling",
            trains: "DPO whose beta grows with the reward gap, `beta * (1 + w * (1 - exp(-k * gap)))`, \
                and NLL of the chosen response; a reward model with ties, `-log sigmoid(r_w - r_l)` or \
                `(r_w - r_l)^2`, and `0.01 * (r_w + r_l)^2` over all pairs",
            calls: vec![call!("policy", mm_dpo), call!("reward model", mm_rlhf_rewards)],
            missing: "",
            known: "authors' code and paper read; the code's own beta, from the implicit margins of the \
                batch, is what the paper rejects: `mm_dpo_batch_beta`",
        },
        Paper {
            name: "LCPO",
            title: "Latent Collective Preference Optimization, later RE-PO",
            trains: "`-w log sigmoid(h) - (1 - w) log sigmoid(-h)`, `h` the log-odds of a base loss (DPO: \
                `beta * (d_w - d_l)`), `w = sigmoid(h + logit(eta))` the posterior that the label is \
                right, `eta` the annotator's reliability, a running mean of `w`. On IPO: \
                `with_base(LcpoBase::Ipo)`; on SimPO and CPO: `LcpoSimPo`, `LcpoCpo`",
            calls: vec![call!("loss", lcpo), call!("after the step", lcpo_update)],
            missing: "",
            known: "paper read",
        },
        Paper {
            name: "SPPO",
            title: "Self-Play Preference Optimization",
            trains: "squared distance of each log-ratio from its win probability: \
                `((d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2) / 2`",
            calls: vec![call!(sppo)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "TPO",
            title: "Triple Preference Optimization",
            trains: "DPO without a reference, `-log sigmoid(beta * (s_w - s_l))`, and NLL of a third, best \
                response; its later form TPO-L: `-log sigmoid(beta * (a_w - a_l) - gamma)`",
            calls: vec![call!("TPO", tpo), call!("TPO-L", tpo_l)],
            missing: "",
            known: "authors' code read, TPO-L in TRL",
        },
        Paper {
            name: "NextQuill",
            title: "Causal Preference Modeling for Personalization",
            trains: "by token a weight for whether the user's history makes it likelier; NLL and `alpha` \
                times the cross-entropy of the difference of the logits with and without history, both \
                weighted, summed over tokens and averaged over responses. The released code has \
                `sum of weight * -l / sum of weight`, and the second part without weights, a mean over tokens",
            calls: vec![
                call!("first part", next_quill),
                call!("second part, with the gradient by both", next_quill_effect),
                call!("first part, released code", next_quill_released),
                call!("second part, released code", next_quill_effect_released),
            ],
            missing: "",
            known: "authors' code read; the paper, with its equation 7, through notes and reviews",
        },
        Paper {
            name: "SAIL",
            title: "Diagnose, Localize, Align; as released it is TGDPO",
            trains: "DPO on weighted tokens: `1 + alpha * beta * rho` in the chosen and \
                `1 - alpha * beta * rho` in the rejected response, `rho` an aligned model's `l` less the \
                reference's",
            calls: vec![call!(sail)],
            missing: "",
            known: "authors' code read; the paper's weights, from attention, are not known: `Weights::new` \
                takes any",
        },
        Paper {
            name: "PoFT",
            title: "Preference-Oriented Supervised Fine-Tuning",
            trains: "Bradley-Terry against aligned models on the same answer: \
                `-log sigmoid(beta * (a - mean of their a) + gamma)`",
            calls: vec![call!(poft)],
            missing: "",
            known: "authors' code and paper read; the code averages over the prompt too: count its labels",
        },
        Paper {
            name: "iREPO",
            title: "implicit Reward Pairwise Difference based Empirical Preference Optimization",
            trains: "regression on the logit of the share of annotators who prefer the chosen response: \
                `(beta * (d_w - d_l) - log(p / (1 - p)))^2`",
            calls: vec![call!(irepo)],
            missing: "",
            known: "reconstructed from abstract and reviews; a factor 1/2 would be the term's weight",
        },
        Paper {
            name: "CREAM",
            title: "Consistency Regularized Self-Rewarding Language Models",
            trains: "DPO with the soft label `C = (Kendall's tau + 1) / 2` of the rankings by this model and \
                by the one before: `-C log sigmoid(u) - (1 - C) log sigmoid(-u)`, `u = beta * (d_w - d_l)`",
            calls: vec![call!(cream)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "SPA",
            title: "Aligning LLMs with Self-generated Preference Data, first called Selfie",
            trains: "DPO whose label is 0.9 where the pair's margin, under logits mixed as \
                `mu * policy + (1 - mu) * reference`, is in the lowest tenth, else 1; `mu = 1 + lambda`, \
                `lambda` falling from iteration to iteration",
            calls: vec![
                call!("margins", spa_margins),
                call!(
                    "loss; on the policy's own margins it is the released code's, whose `mu` is 1",
                    spa
                ),
            ],
            missing: "",
            known: "authors' code read, whose shipped configuration has `mu = 1`; the `lambda` of 1/2, 1/3 and \
                so on is reconstructed",
        },
        Paper {
            name: "SELM",
            title: "Self-Exploring Language Models",
            trains: "DPO, and `alpha * beta * d` of the reference's own greedy answers, which are so pushed \
                down",
            calls: vec![call!(selm)],
            missing: "",
            known: "authors' code and paper read",
        },
        Paper {
            name: "MPO",
            title: "Mixed Preference Optimization",
            trains: "DPO on pairs whose reward gap is above a threshold; then PPO on the prompts of the \
                others, with the DPO model as the reference",
            calls: vec![call!("easy pairs", mpo), call!("hard prompts", ppo)],
            missing: "PPO's value model is outside of this crate",
            known: "abstract read, and a digest; threshold and beta are unknown",
        },
        Paper {
            name: "Curry-DPO",
            title: "Curriculum Learning & Ranked Preferences",
            trains: "DPO in stages, the best response against each other one, the largest score gap first; \
                each stage has the one before as its reference",
            calls: vec![call!("first stage", curry_dpo)],
            missing: "",
            known: "abstract read, and a caption; beta is unknown",
        },
        Paper {
            name: "SCIR",
            title: "Self-Consistency of the Internal Reward Models",
            trains: "DPO where the implicit reward and the model as a judge agree; everywhere the symmetric KL \
                of their preferences, `(sigmoid(u) - sigmoid(v)) * (u - v)`, `v` the difference of the \
                verdicts' log-probs, and entropies",
            calls: vec![call!(scir)],
            missing: "",
            known: "reconstructed; that both parts are there is read in the abstract",
        },
        Paper {
            name: "Reward-augmented DPO",
            title: "Reward-Augmented Data Enhances Direct Preference Alignment of LLMs",
            trains: "cDPO on two copies of each pair, whose prompts ask for a reward: for the rejected \
                answer's reward that answer is the chosen one",
            calls: vec![call!(reward_augmented)],
            missing: "",
            known: "authors' code read; smoothing 0.3 in two recipes, 0 in two",
        },
        Paper {
            name: "DPORM",
            title: "On the Limited Generalization Capability of the Implicit Reward Model Induced by DPO",
            trains: "a comparison of DPO's implicit rewards with a Bradley-Terry reward model, by the share \
                of pairs with a margin above 0",
            calls: vec![
                call!("implicit", dpo),
                call!("explicit", bradley_terry),
                call!("share", share_of_right_pairs),
            ],
            missing: "",
            known: "abstract read; the losses are standard",
        },
    ]
}

fn mask_dpo(Given { batch, packing, pairs, sentences, .. }: Given) -> Result<Loss<'static>> {
    let weights = Weights::mask_dpo(&packing, &pairs, &sentences, Unlabelled::Keep)?;
    Loss::new(batch.with_weights(weights)?, [Term::pairs(Dpo::new(0.1))])
}

fn infi_fpo(Given { batch, pairs, averages, .. }: Given) -> Result<Loss<'static>> {
    // Average log-probs of each source and of the policy before training.
    let (sources, start) = ([&averages[..]], [-1.0; 8]);
    let fused = fuse_references(&sources, &start, &pairs, Fusion::MaxMargin)?;
    Loss::new(batch.with_scores(fused)?, [Term::pairs(InfiFpo::new(2.5))])
}

fn mm_dpo(Given { batch, pairs, gaps, .. }: Given) -> Result<Loss<'static>> {
    let pairs = pairs.with_beta(mm_dpo_beta_factors(&gaps, 0.5, 0.5)?)?;
    let nll = Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean);
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1)), nll.with_weight(0.25)])
}

fn lcpo(Given { batch, pairs, annotators, .. }: Given) -> Result<Loss<'static>> {
    let reliability = Reliability::new(2)?; // of 2 annotators, kept between the steps
    let pairs = pairs.with_soft_label(reliability.of(&annotators)?)?;
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Lcpo::new(0.1))])
}

fn lcpo_update(Given { annotators, margins, .. }: Given) -> Result<Vec<f64>> {
    let (lcpo, mut reliability) = (Lcpo::new(0.1), Reliability::new(2)?);
    let log_odds: Vec<f64> = margins.iter().map(|&margin| lcpo.log_odds(margin)).collect();
    let posteriors = posteriors(&log_odds, &reliability.of(&annotators)?)?;
    reliability.update(&annotators, &posteriors)?;
    Ok(reliability.values().to_vec())
}

fn sppo(Given { batch, scores, .. }: Given) -> Result<Loss<'static>> {
    let pairs = Pairs::new(vec![best_and_worst(&scores)?])?; // all 8 answer one prompt here
    let batch = batch.with_pairs(pairs)?.with_scores(win_rates(&scores)?)?;
    Loss::new(batch, [Term::pairs(Sppo::new(0.001))])
}

pub fn tpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![4, 5]));
    let nll = nll.with_reduction(Reduction::TokenMean).with_weight(0.5);
    Loss::new(batch, [Term::pairs(Cpo::new(0.1).with_nll_weight(0.0)), nll])
}

pub fn tpo_l(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![4, 5]));
    let nll = nll.with_reduction(Reduction::TokenMean);
    Loss::new(batch, [Term::pairs(SimPo::new(0.01, 0.5)), nll])
}

fn next_quill(Given { batch, labels, policy, other, .. }: Given) -> Result<Loss<'static>> {
    // Log-probs of a frozen model, with the history and without.
    let (weights, _) = NextQuill::default().weights(&policy, &other, &labels, None)?;
    Loss::new(batch.with_weights(weights)?, [Term::sequences(Nll::new(), Sequences::All)])
}

fn next_quill_effect(
    Given { labels, policy, other, logits, others, .. }: Given,
) -> Result<Vec<Vec<f32>>> {
    let (alpha, responses, cpu) = (0.1, 8.0, Cpu::new());
    let (weights, _) = NextQuill::default().weights(&policy, &other, &labels, None)?;
    let each = weights.host()?.iter().map(|weight| -alpha / responses * weight);
    let each: Vec<f32> = each.collect(); // the loss is the sum of these times the log-probs
    let effect = Combination::new(&[(1.0, logits), (-1.0, others)])?;
    let found = mixed_token_log_probs(&cpu, &effect, &labels, None, 1.0)?;
    let mut grads = vec![vec![0.0; 32 * 7]; 2];
    let to = grads.iter_mut().map(|grads| LogitsMut::new(grads, 32, 7).map(Some));
    let both = (&effect, to.collect::<Result<_>>()?);
    found.logit_grads(&cpu, both, (&labels, None), Slice::new(&each), MaskedRows::Zero)?;
    Ok(grads)
}

fn next_quill_released(Given { batch, labels, policy, other, .. }: Given) -> Result<Loss<'static>> {
    // Log-probs of the policy in training, with the history and without.
    let (weights, sum) = NextQuill::default().weights(&policy, &other, &labels, None)?;
    let nll = Term::sequences(Nll::new(), Sequences::All);
    Loss::new(batch.with_weights(weights)?, [nll.with_reduction(Reduction::Divisor(sum))])
}

fn next_quill_effect_released(
    Given { labels, packing, logits, others, .. }: Given,
) -> Result<Vec<Vec<f32>>> {
    let (alpha, cpu) = (0.1, Cpu::new());
    let effect = Combination::new(&[(1.0, logits), (-1.0, others)])?;
    let found = mixed_token_log_probs(&cpu, &effect, &labels, None, 1.0)?;
    let tokens: f64 = found.sums(&cpu, (&labels, None), &packing)?.tokens.iter().sum();
    let each = [(-alpha / tokens) as f32; 32]; // the loss is the sum of these times the log-probs
    let mut grads = vec![vec![0.0; 32 * 7]; 2];
    let to = grads.iter_mut().map(|grads| LogitsMut::new(grads, 32, 7).map(Some));
    let both = (&effect, to.collect::<Result<_>>()?);
    found.logit_grads(&cpu, both, (&labels, None), Slice::new(&each), MaskedRows::Zero)?;
    Ok(grads)
}

pub fn sail(
    Given { batch, labels, packing, pairs, other, reference, .. }: Given,
) -> Result<Loss<'static>> {
    let tgdpo = TgDpo::default();
    let weights = tgdpo.weights(&other, &reference, &labels, None, &packing, &pairs)?;
    Loss::new(batch.with_weights(weights)?, [Term::pairs(Dpo::new(tgdpo.beta))])
}

fn poft(Given { batch, averages, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch.with_scores(averages)?, [Term::sequences(Poft::new(), Sequences::All)])
}

fn irepo(Given { batch, pairs, .. }: Given) -> Result<Loss<'static>> {
    let pairs = pairs.with_margin(preference_log_odds(&[0.8, 0.6])?)?; // shares of annotators
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Irepo::new(0.1))])
}

fn cream(Given { batch, pairs, .. }: Given) -> Result<Loss<'static>> {
    // Rewards of the responses to each prompt under this model and the one before.
    let first = consistency(&[0.9, 0.1, 0.4, 0.3], &[0.8, 0.2, 0.1, 0.5])?;
    let second = consistency(&[0.2, 0.1, 0.7, 0.6], &[0.3, 0.2, 0.9, 0.5])?;
    let pairs = pairs.with_soft_label(vec![(first + second) / 2.0; 2])?;
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])
}

fn spa(Given { batch, pairs, margins, .. }: Given) -> Result<Loss<'static>> {
    let mut threshold = ConfidenceThreshold::default(); // kept between the steps
    let labels = threshold.soft_labels(&margins, 0.1)?; // strength 0 in the first fifth of the steps
    threshold.push(margins.iter().sum::<f64>() / margins.len() as f64)?;
    Loss::new(batch.with_pairs(pairs.with_soft_label(labels)?)?, [Term::pairs(Dpo::new(0.1))])
}

fn spa_margins(
    Given { labels, packing, pairs, logits, others, sums, .. }: Given,
) -> Result<Vec<f64>> {
    let (lambda, beta, cpu) = (0.5, 0.1, Cpu::new());
    let mu = 1.0 + lambda;
    let mixed = Combination::new(&[(mu, logits), (1.0 - mu, others)])?;
    let mixed = mixed_token_log_probs(&cpu, &mixed, &labels, None, 1.0)?;
    let mixed = mixed.sums(&cpu, (&labels, None), &packing)?.sums;
    let [.., reference] = sums;
    let reward = |sequence: usize| beta * (mixed[sequence] - reference[sequence]);
    Ok(pairs.indices().iter().map(|&(w, l)| reward(w) - reward(l)).collect())
}

fn selm(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let (alpha, beta) = (0.001, 0.01);
    let own = Term::sequences(LogRatio::new(), Sequences::Indices(vec![4, 5]));
    Loss::new(batch, [Term::pairs(Dpo::new(beta)), own.with_weight(alpha * beta)])
}

fn mpo(Given { batch, gaps, .. }: Given) -> Result<Loss<'static>> {
    let easy = easy_pairs(&gaps, 1.0)?;
    Loss::new(batch, [Term::pairs(Dpo::new(0.1)).with_pairs(easy)])
}

fn curry_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let pairs = Pairs::new(vec![(0, 2), (0, 6), (0, 4)])?; // best against others, largest gap first
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1)).with_pairs([0])])
}

fn scir(Given { batch, pairs, .. }: Given) -> Result<Loss<'static>> {
    let pairs = pairs.with_verdicts(vec![(4, 6), (5, 7)])?; // "the chosen one", "the rejected one"
    let agreed = Term::pairs(Dpo::new(0.1)).with_pairs([0]);
    let consistency = Term::judged_pairs(Scir::new(0.1, 0.1));
    Loss::new(batch.with_pairs(pairs)?, [agreed, consistency])
}

fn reward_augmented(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    // 0 and 2 after the chosen answer's reward, 4 and 6 the same answers after the rejected one's.
    let pairs = Pairs::new(vec![(0, 2), (6, 4)])?;
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.01).with_label_smoothing(0.3))])
}

fn share_of_right_pairs(Given { margins, .. }: Given) -> Result<Vec<f64>> {
    Ok(vec![accuracy(&margins)?])
}

/// NextQuill's second part and SPA's margins as their formulas are, entry by entry.
#[test]
fn mixed_logits_as_the_papers_write_them() {
    let Given { labels, packing, pairs, sums, policy, other, .. } = Given::new().unwrap();
    let ids: Vec<i64> = labels.slice().read().unwrap();
    let counted: Vec<usize> = (0..32).filter(|&token| ids[token] != -100).collect();
    let [z, z0] =
        OF_LOGITS.map(|step| numbers(step).into_iter().map(f64::from).collect::<Vec<_>>());
    let softmax = |token: usize, c: f64, c0: f64| -> Vec<f64> {
        let exp: Vec<f64> =
            (token * 7..token * 7 + 7).map(|at| (c * z[at] + c0 * z0[at]).exp()).collect();
        exp.iter().map(|x| x / exp.iter().sum::<f64>()).collect()
    };
    let [grads, released] = [next_quill_effect, next_quill_effect_released]
        .map(|make| make(Given::new().unwrap()).unwrap());
    let likelier = |token: usize| policy[token].exp() - other[token].exp() > 0.05;
    for token in 0..32 {
        for (v, q) in softmax(token, 1.0, -1.0).into_iter().enumerate() {
            let one_hot = f64::from(u8::from(ids[token] == v as i64));
            let by_difference = if ids[token] == -100 { 0.0 } else { q - one_hot };
            let weight = if likelier(token) { 0.9 } else { 0.1 };
            let each = [(&grads, 0.1 / 8.0 * weight), (&released, 0.1 / counted.len() as f64)];
            for (grads, each) in each {
                for (grads, sign) in grads.iter().zip([1.0, -1.0]) {
                    approx::assert_relative_eq!(
                        f64::from(grads[token * 7 + v]),
                        sign * each * by_difference,
                        max_relative = 1e-5,
                        epsilon = 1e-9
                    );
                }
            }
        }
    }
    let sum = |sequence: usize| -> f64 {
        let tokens = packing.get(sequence).unwrap().filter(|token| counted.contains(token));
        tokens.map(|token| softmax(token, 1.5, -0.5)[ids[token] as usize].ln()).sum()
    };
    let margins = spa_margins(Given::new().unwrap()).unwrap();
    for (&(w, l), margin) in pairs.indices().iter().zip(margins) {
        let expected = 0.1 * ((sum(w) - sum(l)) - (sums[2][w] - sums[2][l]));
        approx::assert_relative_eq!(margin, expected, max_relative = 1e-5);
    }
}
