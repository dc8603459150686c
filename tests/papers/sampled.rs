//! The names of losses over sampled tokens and over groups.

use prefuse::batch::{Advantages, ReferenceLogProbs};
use prefuse::objectives::{
    Cispo, EntropyBonus, Gspo, Importance, KlEstimator, KlPenalty, PpoClip, Ranking, Reduction,
    Reinforce, Rloo,
};
use prefuse::statistics::{Baseline, GroupAdvantages, Spread};
use prefuse::{Loss, Result, Sequences, Term};

use super::call;
use super::given::Given;
use super::groups::{grpo_s, respace, rrhf, trpa};
use super::names::{Name, row};
use super::rewards::steer_lm;

pub fn of_tokens() -> Vec<Name> {
    vec![
        row(
            "PPO with dual clip",
            "the loss of a negative advantage is bounded, as in verl",
            [call!(dual_clip)],
        ),
        row("REINFORCE with an entropy bonus", "`-A * l - 0.01 * entropy`", [call!(entropy_bonus)]),
        row(
            "GRPO",
            "a mean over tokens, then over sequences; advantages by the group's mean and deviation",
            [call!(grpo)],
        ),
        row("Dr. GRPO", "a sum over a constant; advantages less the mean alone", [call!(dr_grpo)]),
        row("BNPO", "a mean over the batch's tokens", [call!(bnpo)]),
        row("DAPO", "a mean over the whole window's tokens, a higher upper clip", [call!(dapo)]),
        row("GSPO", "PPO's clip on the mean log-ratio of a sequence", [call!(gspo)]),
        row(
            "LUSPO",
            "a sum over tokens, a mean over sequences",
            [call!("ratio by token", luspo), call!("ratio by sequence", luspo_by_sequence)],
        ),
        row("CISPO", "a clipped ratio as a constant, TRL's cap", [call!(cispo)]),
        row(
            "RLOO",
            "leave-one-out advantages; the paper's is REINFORCE",
            [call!("paper", rloo), call!("TRL", rloo_of_trl)],
        ),
        row("GRPO-S", "GRPO with a factor for each prompt", [call!(grpo_s)]),
        row(
            "ReSpace's zeroed samples",
            "advantages of 0 after the normalisation",
            [call!(respace)],
        ),
        row(
            "KL estimators k1, k2, k3",
            "a penalty by itself; with clamps (verl, NeMo-RL), with the ratio (TRL's \
             `use_bias_correction_kl`)",
            [
                call!("k1", k1),
                call!("k2", k2),
                call!("k3 with clamps", k3_with_clamps),
                call!("k3 with the ratio", k3_with_ratio),
            ],
        ),
    ]
}

pub fn of_groups() -> Vec<Name> {
    vec![
        row("Plackett-Luce DPO", "DPO of a whole ranking", [call!(plackett_luce)]),
        row("LiPO-lambda", "DPO of all pairs, weighted by their part in the DCG", [call!(lipo)]),
        row(
            "InfoNCA, NCA of a list",
            "soft targets from scores",
            [call!("InfoNCA", info_nca), call!("NCA", nca)],
        ),
        row(
            "SteerLM 2.0, soft-target list cross-entropy",
            "the reference is the proposal's log-prob",
            [call!(steer_lm)],
        ),
        row(
            "RRHF",
            "`max(0, a_j - a_i)` summed over all pairs, and NLL of the best",
            [call!(rrhf)],
        ),
        row("TRPA's preference levels", "DPO of averages over all pairs of levels", [call!(trpa)]),
    ]
}

fn dual_clip(Given { batch, policy, other, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_token(&other))?; // of a value model
    let clip = PpoClip::new(0.2, 0.2).with_dual_clip(3.0).with_log_ratio_limit(20.0);
    Loss::new(batch, [Term::tokens(clip, Sequences::All)])
}

fn entropy_bonus(Given { batch, other, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_advantages(Advantages::per_token(&other))?; // of a value model
    let bonus = Term::tokens(EntropyBonus::new(), Sequences::All).with_weight(0.01);
    Loss::new(batch, [Term::tokens(Reinforce::new(), Sequences::All), bonus])
}

fn grpo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    let kl = Term::tokens(KlPenalty::new(), Sequences::All).with_weight(0.04);
    Loss::new(batch, [clip, kl].map(|term| term.with_reduction(Reduction::SequenceMean)))
}

fn dr_grpo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let less_mean = GroupAdvantages { spread: Spread::One, ..GroupAdvantages::default() };
    let advantages = less_mean.of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    let constant = Reduction::Divisor(8.0 * 5.0); // responses times the largest length
    Loss::new(batch, [clip.with_reduction(constant)])
}

fn bnpo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    Loss::new(batch, [clip.with_reduction(Reduction::TokenMean)])
}

fn dapo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.28), Sequences::All);
    let window = Reduction::Divisor(64.0); // tokens of all ranks and accumulated batches
    Loss::new(batch, [clip.with_reduction(window)])
}

fn gspo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(Gspo::new(3e-4, 4e-4), Sequences::All);
    Loss::new(batch, [clip.with_reduction(Reduction::SequenceMean)])
}

fn luspo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    Loss::new(batch, [clip.with_reduction(Reduction::Divisor(8.0))]) // responses
}

fn luspo_by_sequence(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(Gspo::new(3e-4, 4e-4), Sequences::All);
    Loss::new(batch, [clip.with_reduction(Reduction::Divisor(8.0))]) // responses
}

fn cispo(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let advantages = GroupAdvantages::default().of(&scores, &prompts)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let batch = batch.with_advantages(Advantages::per_sequence(advantages)?)?;
    let clip = Term::tokens(Cispo::new(1.28), Sequences::All);
    let window = Reduction::Divisor(64.0); // tokens of all ranks and accumulated batches
    Loss::new(batch, [clip.with_reduction(window)])
}

fn rloo(Given { batch, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let (baseline, spread) = (Baseline::LeaveOneOut, Spread::One);
    let others = GroupAdvantages { baseline, spread, ..GroupAdvantages::default() };
    let advantages = Advantages::per_sequence(others.of(&scores, &prompts)?)?;
    let reinforce = Term::tokens(Reinforce::new(), Sequences::All);
    let mean = Reduction::Divisor(8.0); // over responses, of sums over their tokens
    Loss::new(batch.with_advantages(advantages)?, [reinforce.with_reduction(mean)])
}

fn rloo_of_trl(Given { batch, policy, scores, prompts, .. }: Given) -> Result<Loss<'static>> {
    let (baseline, spread) = (Baseline::LeaveOneOut, Spread::One);
    let others = GroupAdvantages { baseline, spread, ..GroupAdvantages::default() };
    let advantages = Advantages::per_sequence(others.of(&scores, &prompts)?)?;
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let clip = Term::tokens(Rloo::new(0.2), Sequences::All);
    let mean = clip.with_reduction(Reduction::SequenceMean);
    Loss::new(batch.with_advantages(advantages)?, [mean])
}

fn k1(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let kl = KlPenalty::new().with_estimator(KlEstimator::K1);
    Loss::new(batch, [Term::tokens(kl, Sequences::All)])
}

fn k2(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let kl = KlPenalty::new().with_estimator(KlEstimator::K2);
    Loss::new(batch, [Term::tokens(kl, Sequences::All)])
}

fn k3_with_clamps(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let kl = KlPenalty::new().with_input_limit(20.0).with_output_limit(10.0);
    Loss::new(batch, [Term::tokens(kl, Sequences::All)])
}

fn k3_with_ratio(Given { batch, policy, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_old(ReferenceLogProbs::per_token(&policy))?;
    let kl = KlPenalty::new().with_importance(Importance::Token);
    Loss::new(batch, [Term::tokens(kl, Sequences::All)])
}

fn plackett_luce(Given { batch, groups, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch.with_groups(groups)?, [Term::groups(Ranking::plackett_luce(0.1))])
}

fn lipo(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_groups(groups)?.with_scores(scores)?;
    Loss::new(batch, [Term::groups(Ranking::lipo_lambda(0.1))])
}

fn info_nca(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_groups(groups)?.with_scores(scores)?;
    Loss::new(batch, [Term::groups(Ranking::info_nca(0.1, 0.5))])
}

fn nca(Given { batch, groups, scores, .. }: Given) -> Result<Loss<'static>> {
    let batch = batch.with_groups(groups)?.with_scores(scores)?;
    Loss::new(batch, [Term::groups(Ranking::nca(0.1, 0.5))])
}
