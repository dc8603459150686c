//! Papers whose loss looks at all responses to a prompt, at sampled tokens, or at other models'
//! distributions.

use prefuse::batch::{Advantages, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Dpo, KlPenalty, Nll, PointwiseLogistic, PpoClip, Ranking, Reduction, Rloo, Slic, TrustRegion,
};
use prefuse::statistics::{ALIGN_XPLORE_THRESHOLD, align_xplore_rewards, probability_sums};
use prefuse::{Loss, Result, Sequences, Term};

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
            trains: "`sum over i of mu_i * (log(1 + exp(-a_i)) + sum over worse j of log(1 + exp(a_j)))`, \
                `mu_i = (a_i - min a) / (max a - min a)`, and NLL of the best; as a loss of single responses \
                `j` has the weight `mu_j + sum of mu over better ones`, of the last only the sum, and the \
                label `mu_j / weight`",
            calls: vec![call!("ranking", knowpat), call!("NLL", knowpat_nll)],
            missing: "the statistic that makes weights and labels from the averages: to come; weights of \
                sequences are for every term over sequences, hence two losses",
            known: "authors' code read, whose constants differ (a mean over `j`, 3 for the responses less \
                1); the paper through notes",
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
                the old policy. Where no two levels differ: `-log sigmoid` of `d / n` or of its negative",
            calls: vec![call!("pairs", trpa), call!("fallback", trpa_fallback)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "P3O",
            title: "Pairwise Proximal Policy Optimization",
            trains: "PPO's clip on the ratios of two whole responses, with the advantages `D * t_2` and \
                `-D * t_1`, `D = r_1 - r_2 - beta * (d_1 - d_2)`, `t` the other's ratio held to 1/10 to 10",
            calls: vec![call!("clipped apart (V1)", p3o)],
            missing: "the statistic that makes these advantages, the joint clip (V2) and the clip of \
                log-probs by token (V3): to come",
            known: "authors' code read",
        },
        Paper {
            name: "DR-IRL",
            title: "Inverse Reinforcement Learning with Dynamic Reward Scaling; GRPO-S",
            trains: "a reward by `-(r_w - r_l) / beta`, demonstration against sample; then GRPO whose \
                advantages a factor of the prompt's difficulty multiplies",
            calls: vec![call!("reward", dr_irl_rewards), call!("policy", grpo)],
            missing: "the similarity of texts behind that factor is outside of this crate",
            known: "third-party notes; the constants are unknown",
        },
        Paper {
            name: "AlignXplore",
            title: "Extended Inductive Reasoning for Personalized Preference Inference",
            trains: "PPO's clip, `A = R - mean of R` over a group; `R` is 1 where an inferred preference \
                raises the ratio of two sums of label probabilities by more than 1.03",
            calls: vec![call!("rewards", align_xplore), call!("policy", token_mean_clip)],
            missing: "",
            known: "authors' code read",
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
            calls: vec![call!("NLL", chosen_nll)],
            missing: "both terms over teachers' logits: distillation, to come",
            known: "authors' code read, most likely theirs; the structure through reviews",
        },
        Paper {
            name: "AlignDistil",
            title: "Token-Level Alignment as Adaptive Policy Distillation",
            trains: "reverse KL by token to `softmax(z + c * (z - z'))`, `z` a DPO model's logits and `z'` \
                those of one trained on swapped pairs, `c` from their total variation, times `beta / c`",
            calls: vec![call!("the second teacher", swapped_dpo)],
            missing: "the reverse KL to mixed teachers: distillation, to come",
            known: "authors' code read; the paper through notes",
        },
    ]
}

fn pro(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1])); // the best of each group
    let terms = [Term::groups(Ranking::pro()), nll.with_weight(0.05 * 3.0 * 3.0)];
    Loss::new(batch.with_groups(groups)?.with_scores(scores)?, terms)
}

fn knowpat(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    // By sequence, for mu = 1, 0.5, 0.25 and 0 along each group.
    let weights = vec![1.0, 1.0, 1.75, 1.75, 1.5, 1.5, 1.75, 1.75];
    let labels = vec![1.0, 1.0, 0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 7.0, 1.0 / 7.0];
    let batch = batch.with_reference(ReferenceLogProbs::per_sequence(&[0.0; 8]))?; // there is none
    let logistic = PointwiseLogistic::new(1.0).with_length_normalized(true);
    let ranking = Term::sequences(logistic, Sequences::All).with_weight(0.1 / 3.0);
    let ranking = ranking.with_reduction(Reduction::Divisor(2.0)); // groups
    Loss::new(batch.with_sequence_weights(weights)?.with_soft_labels(labels)?, [ranking])
}

fn knowpat_nll(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let best = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1]));
    Loss::new(batch, [best.with_reduction(Reduction::TokenMean)])
}

fn rrhf(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let hinge = Term::pairs(Slic::new(0.0).with_length_normalized(true));
    let nll = Term::sequences(Nll::new(), Sequences::Indices(vec![0, 1]));
    let terms = [hinge, nll].map(|term| term.with_reduction(Reduction::Divisor(2.0))); // groups
    Loss::new(batch.with_pairs(groups.pairs(&scores)?)?, terms)
}

fn trpa(Given { batch, groups, policy, .. }: Given) -> Result<Loss<'static>> {
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

fn p3o(Given { batch, policy, advantages, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(Rloo::new(0.2), Sequences::Indices(vec![0, 2, 1, 3]));
    Loss::new(batch, [clip.with_reduction(Reduction::SequenceMean)])
}

fn grpo(Given { batch, policy, advantages, .. }: Given) -> Result<Loss<'static>> {
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

fn token_mean_clip(Given { batch, advantages, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])
}

fn respace(Given { batch, policy, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let advantages = vec![1.5, 1.25, -0.75, -1.0, 0.0, 0.0, -0.75, -0.25]; // 4 and 5 are neutral
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

/// The form with single responses is the paper's with a ranked set.
#[test]
fn knowpat_is_a_loss_of_single_responses() {
    let forward = forward(&knowpat(Given::new().unwrap()).unwrap()).unwrap();
    let [sums, tokens] =
        [forward.totals().sums, forward.totals().tokens].map(|x| x.to_vec().unwrap());
    let softplus = |x: f64| x.exp().ln_1p();
    let mut expected = 0.0;
    for group in Given::new().unwrap().groups.iter() {
        let averages: Vec<f64> = group.iter().map(|&i| sums[i] / tokens[i]).collect();
        for (better, mu) in [1.0, 0.5, 0.25].into_iter().enumerate() {
            let worse: f64 = averages[better + 1..].iter().map(|&a| softplus(a)).sum();
            expected += 0.1 / 3.0 / 2.0 * mu * (softplus(-averages[better]) + worse);
        }
    }
    approx::assert_relative_eq!(forward.loss(), expected, max_relative = 1e-12);
}

/// The clip of whole sequences, meant over the sequences, is half of each pair's two clips, meant over
/// the pairs.
#[test]
fn p3o_is_a_clip_of_whole_sequences() {
    let given = Given::new().unwrap();
    let (old, advantages) = (given.policy.clone(), given.advantages.clone());
    let packing = given.packing.clone();
    let forward = forward(&p3o(given).unwrap()).unwrap();
    let log_probs = forward.tokens().log_probs().to_vec().unwrap();
    let side = |sequence: usize| {
        let tokens = packing.get(sequence).unwrap().filter(|token| token % 9 != 6);
        let log_ratio: f64 = tokens.map(|token| log_probs[token] - f64::from(old[token])).sum();
        let (ratio, advantage) = (log_ratio.exp(), advantages[sequence]);
        f64::max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    };
    let expected = ((side(0) + side(2)) / 2.0 + (side(1) + side(3)) / 2.0) / 2.0;
    approx::assert_relative_eq!(forward.loss(), expected, max_relative = 1e-12);
}
