//! The papers, and the calls.
#![allow(unused_variables, reason = "each call takes what it needs of the given")]

use prefuse::batch::{Advantages, Unlabelled, Weights};
use prefuse::objectives::*;
use prefuse::statistics::*;
use prefuse::{Loss, ScalarLoss, Sequences, Term};

use super::{Given as All, Made, Row};

macro_rules! papers {
    (given $labels:ident $packing:ident $batch:ident $rewards:ident $pairs:ident $groups:ident $policy:ident $reference:ident $aligned:ident $scores:ident $gaps:ident $sentences:ident;
     $($name:literal: $trains:literal; $certainty:ident; [$($call:expr),*])*) => {
        pub fn rows() -> Vec<Row> {
            vec![$(Row {
                name: $name,
                trains: $trains,
                certainty: $certainty,
                calls: vec![$(stringify!($call)),*],
                run: || {
                    $({
                        let All {
                            labels: $labels, packing: $packing, batch: $batch, rewards: $rewards, pairs: $pairs, groups: $groups, policy: $policy, reference: $reference, aligned: $aligned, scores: $scores, gaps: $gaps, sentences: $sentences
                        } = All::new();
                        Made::run(&$call)?;
                    })*
                    Ok(())
                },
            }),*]
        }
    };
}

const CODE: &str = "authors' code";
const PAPER: &str = "paper";
const NOTES: &str = "others' notes";
const RECONSTRUCTED: &str = "reconstructed";
const NONE: &str = "no objective";

papers! {
    given labels packing batch rewards pairs groups policy reference aligned scores gaps sentences;
    "Mask-DPO": "DPO on sums over true sentences of the chosen and false ones of the rejected answer"; CODE;
        [Loss::new(batch.with_weights(Weights::mask_dpo(&packing, &pairs, &sentences, Unlabelled::Keep)?)?.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "PRO (Preference Ranking Optimization)": "softmax choices along a ranking, reward gaps as inverse temperatures, and the best answer's likelihood"; CODE;
        [Loss::new(batch.with_groups(groups)?.with_scores(&scores)?, [Term::groups(Ranking::pro()), Term::sequences(Nll::new(), Sequences::Indices(vec![0, 3])).with_weight(0.05 * 4.0)])?]
    "KnowPAT": "logistic terms of average log-probs in a ranked set, weighted by detached scores, and NLL; the statistic that makes labels and weights from the scores is to come"; CODE;
        [Loss::new(batch.with_soft_labels(&[1.0, 0.5, 0.0, 1.0, 0.5, 0.0])?.with_sequence_weights(&scores)?, [Term::sequences(PointwiseLogistic::new(1.0).with_length_normalized(true), Sequences::All), Term::sequences(Nll::new(), Sequences::Indices(vec![0, 3]))])?]
    "ADPA and DCKD": "NLL of the chosen answer (the call), and distillation terms, which are to come"; CODE;
        [Loss::new(batch.with_pairs(pairs)?, [Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean)])?]
    "AlignDistil": "reverse KL to an extrapolated teacher at each token; distillation is to come"; CODE; []
    "InfiFPO": "DPO on averages against fused source models"; PAPER;
        [{ let fused = fuse_references(&[&[-1.0; 6], &[-1.5; 6]], &[-1.25; 6], &pairs, Fusion::MaxMargin)?; Loss::new(batch.with_scores(fused)?.with_pairs(pairs)?, [Term::pairs(InfiFpo::new(2.5))])? }]
    "MM-RLHF (MM-DPO)": "DPO whose beta grows with the reward gap, and NLL; a reward model with ties"; PAPER;
        [{ let pairs = pairs.with_beta(mm_dpo_beta_factors(&gaps, 0.5, 0.5)?)?; Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1)), Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean).with_weight(0.25)])? },
         ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new().with_centering(0.01)).with_pairs([0]), Term::reward_pairs(RewardTie::new()).with_pairs([1])])?]
    "LCPO (RE-PO)": "a logistic loss whose soft label is the posterior that the annotator was right"; PAPER;
        [{ let pairs = pairs.with_soft_label(Reliability::new(2)?.of(&[0, 1])?)?; Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Lcpo::new(0.1))])? }]
    "SPPO": "squared distance of log-ratios from win probabilities"; CODE;
        [Loss::new(batch.with_scores(win_rates(&scores)?)?.with_pairs(pairs)?, [Term::pairs(Sppo::new(0.001))])?]
    "TPO (Triple Preference Optimization)": "a pair term without a reference, and the likelihood of a third answer"; CODE;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Cpo::new(0.1).with_nll_weight(0.0)), Term::sequences(Nll::new(), Sequences::Indices(vec![1, 5])).with_reduction(Reduction::TokenMean)])?,
         Loss::new(batch.with_pairs(pairs)?, [Term::pairs(SimPo::new(2.0, 0.5)), Term::sequences(Nll::new(), Sequences::Indices(vec![1, 5])).with_reduction(Reduction::TokenMean)])?]
    "NextQuill": "NLL under weights from the effect of a user's history (the call); cross-entropy on a difference of logits, which is distillation to come"; CODE;
        [{ let (weights, sum) = NextQuill::default().weights(&policy, &reference, &labels, None)?; Loss::new(batch.with_weights(weights)?, [Term::sequences(Nll::new(), Sequences::All).with_reduction(Reduction::Divisor(sum))])? }]
    "SAIL (TGDPO)": "DPO under token weights from an aligned model"; CODE;
        [{ let weights = TgDpo::default().weights(&aligned, &reference, &labels, None, &packing, &pairs)?; Loss::new(batch.with_weights(weights)?.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])? }]
    "PoFT": "Bradley-Terry against aligned models on the same answer"; CODE;
        [Loss::new(batch.with_scores(&[-1.0; 6])?, [Term::sequences(Poft::new(), Sequences::All)])?]
    "DPA-RAG": "a reranker on all pairs of a ranked list (the call) and contrastive terms on embeddings, which are outside of this crate; NLL"; CODE;
        [ScalarLoss::new(rewards.with_pairs(groups.pairs(&scores)?)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "DPA (Directional Preference Alignment)": "regression of a reward vector; NLL on answers that rejection sampling keeps"; NOTES;
        [ScalarLoss::new(rewards.with_scores(&scores)?, [Term::rewards(RewardRegression::new(), Sequences::All)])?,
         Loss::new(batch, [Term::sequences(Nll::new(), Sequences::All).with_reduction(Reduction::TokenMean)])?]
    "Eurus (UltraInteract)": "Bradley-Terry with absolute terms for its own pairs; KTO or NCA for the policy"; PAPER;
        [ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(Eurus::new()).with_pairs([0]), Term::reward_pairs(BradleyTerry::new()).with_pairs([1])])?,
         Loss::new(batch.with_soft_labels(&[1.0, 0.0, 0.0, 1.0, 0.0, 1.0])?, [Term::sequences(Kto::new(0.1).with_baseline(kto_baseline(&Moments::from_iter([0.5, 0.25]))).with_desirable_weight(1.33), Sequences::All)])?,
         Loss::new(batch.with_pairs(pairs)?, [Term::pairs(NcaPair::new(0.1))])?]
    "iREPO": "regression of the reward difference on the logit of an empirical preference"; RECONSTRUCTED;
        [{ let pairs = pairs.with_margin(preference_log_odds(&[0.8, 0.6])?)?; Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Irepo::new(0.1))])? }]
    "CREAM": "DPO whose soft label is the consistency of two rankings"; CODE;
        [{ let sure = consistency(&[3.0, 2.0, 1.0], &[3.0, 1.0, 2.0])?; Loss::new(batch.with_pairs(pairs.with_soft_label(vec![sure; 2])?)?, [Term::pairs(Dpo::new(0.1))])? }]
    "SPA (Selfie)": "DPO with smoothed labels for the least confident pairs; the log-prob under mixed logits, which finds them, is distillation to come"; CODE;
        [{ let sure = ConfidenceThreshold::default().soft_labels(&gaps, 0.1)?; Loss::new(batch.with_pairs(pairs.with_soft_label(sure)?)?, [Term::pairs(Dpo::new(0.1))])? }]
    "SELM": "DPO, and the log-ratio of the reference's own answers, pushed down"; PAPER;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.01)), Term::sequences(LogRatio::new(), Sequences::Indices(vec![1, 5])).with_weight(0.001 * 0.01)])?]
    "TRPA": "a logistic loss on all pairs of preference levels, length-normalised, beta 2.5 times as large from the best level, and k3 to the old policy"; CODE;
        [{ let pairs = groups.pairs(&scores)?; let best = |&(chosen, _): &(usize, usize)| if scores[chosen] > 0.7 { 2.5 } else { 1.0 }; let betas: Vec<f64> = pairs.indices().iter().map(best).collect(); Loss::new(batch.with_pairs(pairs.with_beta(betas)?)?, [Term::pairs(Dpo::new(0.1).with_length_normalized(true)), Term::tokens(TrustRegion::new(), Sequences::All).with_weight(0.001)])? }]
    "P3O": "a pairwise clipped policy gradient; its statistic is to come, its clip on whole sequences is RLOO's"; CODE; []
    "CycleAlign": "RRHF's hinge on all pairs of a ranking, and the best answer's likelihood"; RECONSTRUCTED;
        [Loss::new(batch.with_pairs(groups.pairs(&scores)?)?, [Term::pairs(Slic::new(0.0).with_length_normalized(true)).with_reduction(Reduction::Sum), Term::sequences(Nll::new(), Sequences::Indices(vec![0, 3])).with_reduction(Reduction::Sum)])?]
    "MPO (Mixed Preference Optimization)": "DPO on easy pairs, then PPO on prompts of the others"; NOTES;
        [{ let easy = easy_pairs(&gaps, 1.0)?; Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1)).with_pairs(easy)])? },
         Loss::new(batch.with_advantages(Advantages::per_sequence(&scores)?)?, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])?]
    "Curry-DPO": "DPO in stages, easiest pairs first, each stage's start as its reference"; NOTES;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "DR-IRL (GRPO-S)": "a linear reward loss; GRPO whose advantages a factor of the prompt scales"; NOTES;
        [ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(RewardGap::new(0.1))])?,
         Loss::new(batch.with_advantages(Advantages::per_sequence(&scores)?)?, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All).with_reduction(Reduction::SequenceMean), Term::tokens(KlPenalty::new(), Sequences::All).with_reduction(Reduction::SequenceMean).with_weight(0.04)])?]
    "CRM (Collaborative Reward Modeling)": "Bradley-Terry on the pairs that a peer model keeps"; NOTES;
        [ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new()).with_pairs(keep_largest(&gaps, 0.5)?)])?]
    "SCIR": "symmetric KL of the implicit reward's and a judge's preference, and DPO where they agree"; RECONSTRUCTED;
        [Loss::new(batch.with_pairs(pairs.with_verdicts(vec![(1, 5), (5, 1)])?)?, [Term::judged_pairs(Scir::new(0.1)), Term::pairs(Dpo::new(0.1)).with_pairs([0])])?]
    "HelpSteer2 (SteerLM 2.0, scaled Bradley-Terry)": "masked regression of attributes; Bradley-Terry weighted by the strength of the preference; list cross-entropy"; CODE;
        [ScalarLoss::new(rewards.with_scores(&scores)?, [Term::rewards(RewardRegression::new(), Sequences::Indices(vec![0, 2, 5]))])?,
         ScalarLoss::new(rewards.with_pairs(pairs.with_weight(&[3.0, 1.0])?)?, [Term::reward_pairs(BradleyTerry::new())])?,
         Loss::new(batch.with_groups(groups)?.with_scores(&scores)?, [Term::groups(Ranking::steer_lm())])?]
    "ArmoRM": "regression of attributes on frozen features; Bradley-Terry on gated scores"; CODE;
        [ScalarLoss::new(rewards.with_scores(&scores)?, [Term::rewards(RewardRegression::new(), Sequences::All).with_reduction(Reduction::Sum)])?,
         ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "MORE": "Bradley-Terry on all pairs of lists, weighted by task; the weights' min-norm solver is outside of this crate"; CODE;
        [{ let pairs = groups.pairs(&scores)?; let weights = vec![1.0; pairs.len()]; ScalarLoss::new(rewards.with_pairs(pairs.with_weight(weights)?)?, [Term::reward_pairs(BradleyTerry::new())])? }]
    "Reward-Augmented Data (RPA)": "DPO with label smoothing on prompts that name a reward"; CODE;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.01).with_label_smoothing(0.3))])?]
    "DPORM (implicit reward models)": "compares DPO with a Bradley-Terry reward model; accuracy of margins"; PAPER;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?,
         ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "AlignXplore": "PPO's clip, rewards from sums of label probabilities"; CODE;
        [{ let sums = probability_sums(&policy, &labels, None, &packing)?; let without = probability_sums(&reference, &labels, None, &packing)?; let r = align_xplore_rewards(&pairs, &sums, &without, ALIGN_XPLORE_THRESHOLD)?; Loss::new(batch.with_advantages(Advantages::per_sequence(vec![r[0] - 0.5, 0.5 - r[0], 0.5, -0.5, 0.5, -0.5])?)?, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All).with_reduction(Reduction::SequenceMean)])? }]
    "ReSpace": "GRPO whose neutral samples have an advantage of 0"; CODE;
        [Loss::new(batch.with_advantages(Advantages::per_sequence(&[1.0, 0.0, -1.0, 0.5, 0.0, -0.5])?)?, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All).with_reduction(Reduction::SequenceMean)])?]
    "PA-RAG": "three DPO stages after SFT"; PAPER; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "TEMPLE": "DPO in stages of fewer frames, the stage before as the reference"; CODE; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "Prompt-A-Video": "SFT, then DPO"; CODE; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "AesthetiQ": "cross-entropy, then DPO on layout tokens"; RECONSTRUCTED; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "CrisiText": "SFT against a preference alignment that the sources do not name; DPO is a guess"; RECONSTRUCTED; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "COIG-P": "DPO; a Bradley-Terry reward model"; CODE;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?, ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "EVOREFUSE": "a search; then SFT and DPO"; NOTES; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "Weaver": "DPO on expert texts against rewritten ones"; RECONSTRUCTED; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "CodeUltraFeedback": "SFT, then DPO"; CODE; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "OpenRubrics": "SFT of a generator and a judge, then DPO"; RECONSTRUCTED;
        [Loss::new(batch, [Term::sequences(Nll::new(), Sequences::All).with_reduction(Reduction::TokenMean)])?, Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "Value Drifts": "compares SFT, PPO, DPO and SimPO"; NOTES;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(SimPo::new(2.0, 1.0))])?]
    "Dialectical Alignment": "SFT and a DPO-type alignment"; RECONSTRUCTED; [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])?]
    "Align2LLaVA": "a pair reward model"; RECONSTRUCTED; [ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "RAG-RewardBench": "a benchmark of reward models' accuracy: nothing is trained"; NONE; []
    "JudgeBench": "a benchmark of judges: nothing is trained"; NONE; []
    "Janus": "SFT, DPO, ORPO; a Bradley-Terry reward model"; CODE;
        [Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Orpo::new(0.1))])?, ScalarLoss::new(rewards.with_pairs(pairs)?, [Term::reward_pairs(BradleyTerry::new())])?]
    "PREFDISCO (Personalized Reasoning)": "an evaluation: nothing is trained"; NONE; []
    "CIPHER": "prompts and retrieval learned from edits: nothing is trained"; NONE; []
    "PROFILE": "factor-level correlations of preferences: nothing is trained"; NONE; []
    "Dissecting Human and LLM Preferences": "Bayesian logistic regression on properties of answers, an analysis: no model is trained"; NONE; []
    "MLLM preference survey": "a survey: nothing is trained"; NONE; []
}
