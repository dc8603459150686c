//! Papers whose loss looks at all responses to a prompt, at sampled tokens, or at other models'
//! distributions.

use prefuse::batch::{Advantages, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Dpo, KlPenalty, LogProbClip, Nll, P3o, PointwiseLogistic, PpoClip, Ranking, Reduction, Rloo,
    Slic, TrustRegion,
};
use prefuse::stages::{Teacher, TokenDivergence};
use prefuse::statistics::{
    ALIGN_XPLORE_THRESHOLD, GroupAdvantages, P3oAdvantages, Spread, align_xplore_rewards,
    probability_sums, prompt_scaled, without_neutral,
};
use prefuse::{Distillation, Loss, Result, Sequences, Term};

use super::given::{Given, forward};
use super::rewards::dr_irl_rewards;
use super::{Paper, call};

pub fn papers() -> Vec<Paper> {
    vec![
        Paper {
            name: "PRO",
            title: "Preference Ranking Optimization for Human Alignment",
            trains: "choosing along a ranking, `sum over k of log(sum over j >= k of exp(a_j * T_kj)) - a_k \
                * T_kk`, `T_kj = r_k - r_j` and `T_kk` the largest of them; and \
                `lambda * (responses - 1)^2` times the NLL of the best",
            calls: vec![call!(pro)],
            missing: "",
            known: "authors' code read; the paper's temperatures are the same numbers",
        },
        Paper {
            name: "KnowPAT",
            title: "Knowledgeable Preference Alignment for LLMs in Domain-specific Question Answering",
            trains: "`lambda / (responses - 1)` times `sum over i of mu_i * (log(1 + exp(-a_i)) + sum over \
                worse j of log(1 + exp(a_j)))`, `i` all but the worst, `mu_i = (a_i - min a) / (max a - min \
                a)`; and NLL of the best",
            calls: vec![call!(knowpat)],
            missing: "",
            known: "authors' code read, whose constants are `Ranking::know_pat_released`; the paper through \
                notes",
        },
        Paper {
            name: "CycleAlign",
            title: "Iterative Distillation from Black-box LLM to White-box Models; its base is RRHF",
            trains: "`max(0, a_j - a_i)` summed over all pairs of a ranking, `i` the better one, and NLL of \
                the best",
            calls: vec![call!(rrhf)],
            missing: "",
            known: "reconstructed: that CycleAlign trains with RRHF; RRHF itself is read",
        },
        Paper {
            name: "TRPA",
            title: "Trust Region Preference Approximation",
            trains: "`-log sigmoid(beta * k * (d_i / n_i - d_j / n_j))` over all pairs of preference levels, \
                `k = 2.5` where `i` has the best level; and `exp(-x) + x - 1` by token, `x` the log-ratio to \
                the old policy. Where no two levels differ: `-log sigmoid` of `d / n` or of its negative. An \
                option has `0.001 * sqrt(KL + 0.25)` for `0.001 * KL`, the mean over tokens: the gradient of \
                the same term with another weight",
            calls: vec![
                call!("pairs", trpa),
                call!("fallback", trpa_fallback),
                call!("the option's region", trpa_root),
            ],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "P3O",
            title: "Pairwise Proximal Policy Optimization",
            trains: "two samples each, `D = r_1 - r_2 - beta * (d_1 - d_2)`, `t` a ratio held to 1/10 to 10. \
                V1: PPO's clip on the ratio of each whole response, with the advantages `D * t_2` and `-D * \
                t_1`. V2: `max(-D * t * u, -D * t * clip(u, u' - 0.2, u' + 0.2)) / 2`, `u = d_1 - d_2`, `u'` \
                the same of the policy that sampled, `t` of both ratios. V3: such a clip of each log-prob",
            calls: vec![
                call!("clipped apart (V1)", p3o),
                call!("clipped together (V2)", p3o_joint),
                call!("by token (V3)", p3o_by_token),
            ],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "DR-IRL",
            title: "Inverse Reinforcement Learning with Dynamic Reward Scaling; GRPO-S",
            trains: "a reward by `-(r_w - r_l) / beta`, demonstration against sample; then GRPO whose \
                advantages a factor of the prompt's difficulty multiplies",
            calls: vec![call!("reward", dr_irl_rewards), call!("policy", grpo_s)],
            missing: "the similarity of texts behind that factor is outside of this crate",
            known: "third-party notes; the constants are unknown",
        },
        Paper {
            name: "AlignXplore",
            title: "Extended Inductive Reasoning for Personalized Preference Inference",
            trains: "PPO's clip, `A = (R - mean of R) / deviation of R` over a group; `R` is 1 where an inferred preference \
                raises the ratio of two sums of label probabilities by more than 1.03",
            calls: vec![
                call!("rewards", align_xplore),
                call!("policy", align_xplore_policy),
                call!("policy, as the released code runs", centered_clip),
            ],
            missing: "",
            known: "authors' code read, where a slip of operator precedence turns the deviation into a \
                truth value, in effect 1",
        },
        Paper {
            name: "ReSpace",
            title: "Text-Driven 3D Scene Synthesis and Editing with Preference Alignment",
            trains: "SFT, then GRPO with rewards 1, 0.2 and 0, where samples of 0.2 have an advantage of 0 \
                after the group's normalisation",
            calls: vec![call!(respace)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "ADPA and DCKD",
            title: "Advantage-Guided Distillation for Preference Alignment in Small Language Models",
            trains: "NLL of the chosen response, and: DCKD the forward KL from a DPO teacher on both \
                responses; ADPA `-gamma * sum over v of p(v) * log(dpo(v) / ref(v))`, the advantage that the \
                student expects at each token",
            calls: vec![call!("NLL", chosen_nll), call!("DCKD", dckd), call!("ADPA", adpa)],
            missing: "",
            known: "authors' code read, most likely theirs; the structure through reviews",
        },
        Paper {
            name: "AlignDistil",
            title: "Token-Level Alignment as Adaptive Policy Distillation",
            trains: "reverse KL by token to `softmax(z + c * (z - z'))`, `z` a DPO model's logits and `z'` \
                those of one trained on swapped pairs, `c` from their total variation, times `beta / c`",
            calls: vec![
                call!("the second teacher", swapped_dpo),
                call!("the student", align_distil),
            ],
            missing: "",
            known: "authors' code read; the paper through notes",
        },
    ]
}

fn pro(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1])); // the best of each group
    let terms = [Term::groups(Ranking::pro()), nll.with_weight(0.05 * 3.0 * 3.0)];
    Loss::new(batch.with_groups(groups)?.with_scores(scores)?, terms)
}

fn knowpat(Given { batch, groups, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1])); // the best of each group
    let ranking = Term::groups(Ranking::know_pat()).with_weight(0.1);
    Loss::new(batch.with_groups(groups)?, [ranking, nll.with_reduction(Reduction::TokenMean)])
}

pub fn rrhf(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let hinge = Term::pairs(Slic::new(0.0).with_length_normalized(true));
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1]));
    let terms = [hinge, nll].map(|term| term.with_reduction(Reduction::Divisor(2.0))); // groups
    Loss::new(batch.with_pairs(groups.pairs(&scores)?)?, terms)
}

pub fn trpa(Given { batch, groups, policy, .. }: Given) -> Result<Loss<'static>> {
    let levels = [4.0, 4.0, 1.0, 2.0, 4.0, 3.0, 2.0, 1.0]; // of the sequences, 4 the best
    let pairs = groups.pairs(&levels)?;
    let factor = |&(better, _): &(usize, usize)| if levels[better] == 4.0 { 2.5 } else { 1.0 };
    let factors: Vec<f64> = pairs.indices().iter().map(factor).collect();
    let batch = batch.with_pairs(pairs.with_beta(factors)?)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let preference = Term::pairs(Dpo::new(0.1).with_length_normalized(true));
    let region = Term::tokens(TrustRegion::new(), Sequences::All).with_weight(0.001);
    Loss::new(batch, [preference, region])
}

fn trpa_fallback(Given { batch, desirable, policy, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let logistic = PointwiseLogistic::new(1.0).with_length_normalized(true);
    let preference = Term::sequences(logistic, Sequences::All);
    let region = Term::tokens(TrustRegion::new(), Sequences::All).with_weight(0.001);
    Loss::new(batch.with_soft_labels(desirable)?, [preference, region])
}

fn trpa_root(Given { batch, policy, .. }: Given) -> Result<Loss<'static>> {
    let kl: f64 = 0.125; // of a forward call, the term's value over its weight
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let region = Term::tokens(TrustRegion::new(), Sequences::All);
    Loss::new(batch, [region.with_weight(0.001 / (2.0 * (kl + 0.25).sqrt()))])
}

fn p3o(Given { batch, pairs, policy, sums, scores, .. }: Given) -> Result<Loss<'static>> {
    let [now, old, reference] = sums;
    let settings = P3oAdvantages::default();
    let advantages = settings.separate(&pairs, &now, &old, &reference, &scores)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(Rloo::new(0.2), Sequences::Indices(vec![0, 2, 1, 3]));
    Loss::new(batch, [clip.with_reduction(Reduction::SequenceMean)])
}

fn p3o_joint(Given { batch, pairs, sums, scores, .. }: Given) -> Result<Loss<'static>> {
    let [now, old, reference] = sums;
    let settings = P3oAdvantages::default();
    let pairs = settings.joint(&pairs, &now, &old, &reference, &scores)?;
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(P3o::new(0.2))])
}

fn p3o_by_token(Given { batch, pairs, policy, sums, scores, .. }: Given) -> Result<Loss<'static>> {
    let [now, old, reference] = sums;
    let settings = P3oAdvantages::default();
    let advantages = settings.by_token(&pairs, &now, &old, &reference, &scores)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(LogProbClip::new(0.2), Sequences::Indices(vec![0, 2, 1, 3]));
    Loss::new(batch, [clip])
}

pub fn grpo_s(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let advantages = prompt_scaled(&advantages, &prompts, &[1.25, 0.75])?; // their difficulty
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    let kl = Term::tokens(KlPenalty::new(), Sequences::All).with_weight(0.04);
    Loss::new(batch, [clip, kl].map(|term| term.with_reduction(Reduction::SequenceMean)))
}

pub fn ppo(Given { batch, policy, other, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_token(&other))?; // of a value model
    Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])
}

fn align_xplore(Given { labels, packing, pairs, policy, other, .. }: Given) -> Result<Vec<f64>> {
    // Log-probs of a frozen model, with the inferred preference in the prompt and without.
    let with_preference = probability_sums(&policy, &labels, None, &packing)?;
    let without = probability_sums(&other, &labels, None, &packing)?;
    align_xplore_rewards(&pairs, &with_preference, &without, ALIGN_XPLORE_THRESHOLD)
}

fn align_xplore_policy(Given { batch, desirable, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&desirable, &prompts)?; // rewards of 1 or 0
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])
}

fn centered_clip(Given { batch, desirable, prompts, .. }: Given) -> Result<Loss<'static>> {
    let less_mean = GroupAdvantages { spread: Spread::One, ..GroupAdvantages::default() };
    let advantages = less_mean.of(&desirable, &prompts)?; // rewards of 1 or 0
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])
}

pub fn respace(Given { batch, policy, prompts, .. }: Given) -> Result<Loss<'static>> {
    let rewards = [1.0, 1.0, 0.0, 0.0, 0.2, 0.2, 0.0, 1.0];
    let advantages = GroupAdvantages::default().of(&rewards, &prompts)?;
    let advantages = without_neutral(&advantages, &rewards.map(|reward| reward == 0.2))?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    Loss::new(batch, [clip.with_reduction(Reduction::SequenceMean)])
}

fn chosen_nll(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen);
    Loss::new(batch, [nll.with_reduction(Reduction::TokenMean)])
}

fn swapped_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let pairs = Pairs::new(vec![(2, 0), (3, 1)])?; // rejected as chosen
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])
}

/// The three clips of P3O as its code writes them, of the log-probs that the forward call finds.
#[test]
fn p3o_as_its_code_writes_it() {
    let made = [p3o, p3o_joint, p3o_by_token].map(|make| {
        let forward = forward(&make(Given::new().unwrap()).unwrap()).unwrap();
        let log_probs = forward.tokens().log_probs().to_vec().unwrap();
        (forward.loss(), log_probs)
    });
    let Given { packing, pairs, policy, sums, scores, .. } = Given::new().unwrap();
    let [now, old, reference] = sums;
    let log_probs = &made[0].1;
    let counted = |sequence: usize| packing.get(sequence).unwrap().filter(|token| token % 9 != 6);
    let sum = |sequence: usize| counted(sequence).map(|token| log_probs[token]).sum::<f64>();
    let held = |x: f64| x.exp().clamp(0.1, 10.0);
    let (mut expected, mut tokens) = ([0.0; 3], 0.0);
    for &(first, second) in pairs.indices() {
        let margin =
            |sums: &[f64]| (sums[first] - reference[first]) - (sums[second] - reference[second]);
        let d = scores[first] - scores[second] - 0.05 * margin(&now);
        let ratios = [first, second].map(|sequence| now[sequence] - old[sequence]);
        for (sequence, advantage) in [(first, d * held(ratios[1])), (second, -d * held(ratios[0]))]
        {
            let ratio = (sum(sequence) - old[sequence]).exp();
            expected[0] +=
                f64::max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)) / 2.0 / 2.0;
        }
        let weight = d * held(ratios[0] + ratios[1]);
        let u = sum(first) - reference[first] - (sum(second) - reference[second]);
        let clipped = u.clamp(margin(&old) - 0.2, margin(&old) + 0.2);
        expected[1] += f64::max(-weight * u, -weight * clipped) / 2.0 / 2.0;
        for (sequence, advantage) in [(first, weight), (second, -weight)] {
            for token in counted(sequence) {
                let (l, was) = (log_probs[token], f64::from(policy[token]));
                expected[2] += f64::max(-advantage * l, -advantage * l.clamp(was - 0.2, was + 0.2));
                tokens += 1.0;
            }
        }
    }
    expected[2] /= tokens;
    for ((loss, _), expected) in made.iter().zip(expected) {
        approx::assert_relative_eq!(*loss, expected, max_relative = 1e-12);
    }
}

fn dckd(Given { batch, dpo, .. }: Given) -> Result<Vec<(Distillation<'static>, Teacher<'static>)>> {
    // Each by its own tokens: the chosen and the rejected.
    let sides = [Sequences::Chosen, Sequences::Indices(vec![2, 3])];
    let kl = Distillation::new(batch, TokenDivergence::ForwardKl)?.with_weight(0.2);
    let side = |side| (kl.clone().with_sequences(side), Teacher::new(dpo));
    Ok(sides.map(side).into())
}

fn adpa(
    Given { batch, dpo, before, .. }: Given,
) -> Result<Vec<(Distillation<'static>, Teacher<'static>)>> {
    let unclipped = (f64::NEG_INFINITY, f64::INFINITY); // the code has (1e-8, 1.0 - 1e-8)
    let advantage = TokenDivergence::ExpectedAdvantage { beta: 1.0, clip: unclipped };
    let own = Sequences::Indices(vec![2, 3]); // the student's own responses stand there
    let teacher = Teacher::combination(&[(1.0, dpo), (-1.0, before)])?;
    let gamma = Distillation::new(batch, advantage)?.with_sequences(own).with_weight(1.5);
    Ok(vec![(gamma, teacher)])
}

fn align_distil(
    Given { batch, dpo, swapped, .. }: Given,
) -> Result<Vec<(Distillation<'static>, Teacher<'static>)>> {
    let teacher = Teacher::align_distil(dpo, swapped, (0.1, 10.0))?; // 15 on the policy's own samples
    let kl = Distillation::new(batch, TokenDivergence::ReverseKl)?;
    let kl = kl.with_sequences(Sequences::Chosen).with_reduction(Reduction::SequenceMean);
    Ok(vec![(kl, teacher)])
}
