//! Losses by the names that people know, where no objective's first sentence and no paper's row has them.

use prefuse::batch::ReferenceLogProbs;
use prefuse::objectives::{
    BcoPair, BradleyTerry, Cpo, Divergence, Dpo, Hinge, Ipo, Kto, Nll, PointwiseLogistic, Ranking,
    RankingValue, Reduction, Rpo, RpoDistance, SimPo, Slic, SppoHard,
};
use prefuse::statistics::{
    Moments, WpoClamp, aot_reference, aot_unpaired, ld_dpo_weights, nash_md_weights,
    wpo_pair_weights, wpo_weights,
};
use prefuse::{Loss, Result, ScalarLoss, Sequences, Term};

use super::given::Given;
use super::pairs::{sail, tpo, tpo_l};
use super::rewards::{
    all_pairs, crm, eurus_kto, help_steer_regression, margin_bradley_terry, more,
    scaled_bradley_terry,
};
use super::sampled::{of_groups, of_tokens};
use super::users::sft;
use super::{Call, call};

/// A row of the table.
pub struct Name {
    pub name: &'static str,
    /// What tells it from others, in words and code.
    pub is: &'static str,
    pub calls: Vec<Call>,
}

pub fn row(name: &'static str, is: &'static str, calls: impl Into<Vec<Call>>) -> Name {
    Name { name, is, calls: calls.into() }
}

pub fn names() -> Vec<Name> {
    let parts = [of_pairs(), without_reference(), of_sequences(), of_rewards()];
    parts.into_iter().flatten().chain(of_tokens()).chain(of_groups()).collect()
}

fn of_pairs() -> Vec<Name> {
    vec![
        row("cDPO", "DPO with a share of wrong labels", [call!(cdpo)]),
        row(
            "Length-normalised DPO",
            "TRL's `sigmoid_norm`, Tulu 3: `-log sigmoid(beta * (d_w / n_w - d_l / n_l))`",
            [call!(length_normalized_dpo)],
        ),
        row(
            "f-DPO",
            "another divergence than the reverse KL; `Ipo`, `Hinge`, `Robust`, `ExoPair` and `DiscoPop` \
             take it too",
            [
                call!("forward KL", forward_kl_dpo),
                call!("Jensen-Shannon", jensen_shannon_dpo),
                call!("alpha", alpha_dpo),
            ],
        ),
        row(
            "IPO",
            "the paper's sums, or the averages that TRL and LLaMA-Factory have",
            [call!("sums", ipo), call!("averages", ipo_of_averages)],
        ),
        row("RSO", "a hinge, `max(0, 1 - beta * (d_w - d_l))`", [call!(rso)]),
        row("BCO on pairs", "TRL's `bco_pair`; since 0.29 without a shift", [call!(bco_pair)]),
        row("SPPO hard", "TRL's `sppo_hard`: win probabilities of 1 and 0", [call!(sppo_hard)]),
        row(
            "AOT",
            "DPO of the gaps of policy and of reference, each sorted over the batch",
            [call!(aot)],
        ),
        row(
            "AOT-unpaired",
            "DPO of the log-ratios of the chosen and of the rejected responses, each sorted",
            [call!(aot_without_pairs)],
        ),
        row("WPO", "DPO of pairs weighted by how likely they are under the policy", [call!(wpo)]),
        row(
            "LD-DPO",
            "DPO whose tokens beyond the shorter response's length count less",
            [call!(ld_dpo)],
        ),
        row("TGDPO, SAIL", "DPO of tokens weighted by an aligned model", [call!(sail)]),
        row(
            "RPO (iterative reasoning)",
            "DPO and NLL of the chosen response; TRL's `rpo_alpha`",
            [call!(rpo)],
        ),
        row(
            "RPO (reward-aware)",
            "NVIDIA's, in three forms, the scores being rewards",
            [
                call!("`rpo_bwd_kl`", reward_aware_rpo),
                call!("`rpo_fwd_kl`", reward_aware_rpo_forward),
                call!("`rpo_sq`", reward_aware_rpo_squared),
            ],
        ),
        row(
            "MPO (mixed preference optimization of several losses)",
            "TRL's `sigmoid`, `bco_pair` and `sft` with the weights 0.8, 0.2 and 1",
            [call!(mixture)],
        ),
    ]
}

fn without_reference() -> Vec<Name> {
    vec![
        row("SLiC", "`max(0, delta - s_w + s_l)` and NLL; HALOs' weight", [call!(slic)]),
        row(
            "CPO",
            "the paper's NLL is a sum, TRL's a mean over tokens",
            [call!("paper", cpo), call!("TRL", cpo_of_trl)],
        ),
        row(
            "CPO-SimPO",
            "SimPO and NLL: TRL's `simpo` with its `cpo_alpha` of 1",
            [call!(cpo_sim_po)],
        ),
        row("TPO", "CPO's pair term and NLL of a third response", [call!(tpo)]),
        row("TPO-L", "SimPO's pair term and NLL of a third response", [call!(tpo_l)]),
    ]
}

fn of_sequences() -> Vec<Name> {
    vec![
        row("SFT, NLL", "a mean over tokens", [call!(sft)]),
        row("KTO", "with the baseline of mismatched pairs", [call!(eurus_kto)]),
        row(
            "APO-zero without pairs",
            "TRL's `apo_zero_unpaired`: KTO without baseline",
            [call!(apo_zero_without_pairs)],
        ),
        row(
            "BCO without pairs",
            "a logistic loss around the running mean of the rewards",
            [call!(bco_without_pairs)],
        ),
        row(
            "XPO",
            "DPO on a sample of the policy and one of the reference, and `alpha` times the latter's `s`",
            [call!(xpo)],
        ),
        row(
            "Nash-MD",
            "`-(P - 1/2) * s`, and `beta` times each token's log-ratio, a constant, times its `l`",
            [call!(nash_md)],
        ),
    ]
}

fn of_rewards() -> Vec<Name> {
    vec![
        row(
            "Bradley-Terry with margins",
            "`-log sigmoid(r_w - r_l - m)`",
            [call!(margin_bradley_terry)],
        ),
        row("Centered Bradley-Terry", "and `0.01 * (r_w + r_l)^2`", [call!(centered)]),
        row("Scaled Bradley-Terry", "`-m * log sigmoid(r_w - r_l)`", [call!(scaled_bradley_terry)]),
        row(
            "Masked multi-attribute regression",
            "over the ratings that exist, as in HelpSteer2",
            [call!(help_steer_regression)],
        ),
        row("Keep-masks", "Bradley-Terry on the pairs that a peer keeps, as in CRM", [call!(crm)]),
        row(
            "All-pairs Bradley-Terry",
            "over all pairs of a ranking",
            [call!("DPA-RAG", all_pairs), call!("with task weights, MORE", more)],
        ),
        row("ListMLE", "Plackett-Luce on rewards", [call!(list_mle)]),
    ]
}

fn cdpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Dpo::new(0.1).with_label_smoothing(0.1))])
}

fn length_normalized_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Dpo::new(5.0).with_length_normalized(true))])
}

fn forward_kl_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Dpo::new(0.1).with_divergence(Divergence::ForwardKl))])
}

fn jensen_shannon_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Dpo::new(0.1).with_divergence(Divergence::JensenShannon))])
}

fn alpha_dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let dpo = Dpo::new(0.1).with_divergence(Divergence::Alpha).with_alpha(0.5);
    Loss::new(batch, [Term::pairs(dpo)])
}

fn ipo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Ipo::new(0.1))])
}

fn ipo_of_averages(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Ipo::new(0.1).with_length_normalized(true))])
}

fn rso(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Hinge::new(0.1))])
}

fn bco_pair(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let rewards = Moments::from_iter([0.5, 0.25, -0.25, -0.125]); // beta * d of all responses so far
    Loss::new(batch, [Term::pairs(BcoPair::new(0.1).with_shift(rewards.mean()))])
}

fn sppo_hard(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(SppoHard::new(0.1))])
}

fn aot(Given { batch, pairs, sums, .. }: Given) -> Result<Loss<'static>> {
    let [now, _, reference] = sums;
    let reference = aot_reference(&pairs, &now, &reference)?; // exchanged among the pairs
    let batch = batch.with_reference(ReferenceLogProbs::per_sequence(&reference))?;
    Loss::new(batch, [Term::pairs(Dpo::new(0.1))])
}

fn aot_without_pairs(Given { batch, pairs, sums, .. }: Given) -> Result<Loss<'static>> {
    let [now, _, reference] = sums;
    let pairs = aot_unpaired(&pairs, &now, &reference)?; // matched anew
    Loss::new(batch.with_pairs(pairs)?, [Term::pairs(Dpo::new(0.1))])
}

fn wpo(
    Given { batch, labels, packing, pairs, policy, log_sum_squares, .. }: Given,
) -> Result<Loss<'static>> {
    let weights = wpo_weights(&policy, &log_sum_squares, &labels, None, &packing)?;
    let weights = wpo_pair_weights(&pairs, &weights, WpoClamp::None)?;
    Loss::new(batch.with_pairs(pairs.with_weight(weights)?)?, [Term::pairs(Dpo::new(0.1))])
}

fn ld_dpo(Given { batch, labels, packing, pairs, .. }: Given) -> Result<Loss<'static>> {
    let weights = ld_dpo_weights(0.5, &labels, None, &packing, &pairs)?;
    Loss::new(batch.with_weights(weights)?, [Term::pairs(Dpo::new(0.1))])
}

fn rpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen);
    Loss::new(batch, [Term::pairs(Dpo::new(0.1)), nll.with_reduction(Reduction::TokenMean)])
}

fn reward_aware_rpo(Given { batch, scores, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch.with_scores(scores)?, [Term::pairs(Rpo::new(0.1))])
}

fn reward_aware_rpo_forward(Given { batch, scores, .. }: Given) -> Result<Loss<'static>> {
    let rpo = Rpo::new(0.1).with_distance(RpoDistance::ForwardKl);
    Loss::new(batch.with_scores(scores)?, [Term::pairs(rpo)])
}

fn reward_aware_rpo_squared(Given { batch, scores, .. }: Given) -> Result<Loss<'static>> {
    let rpo = Rpo::new(0.1).with_distance(RpoDistance::Squared);
    Loss::new(batch.with_scores(scores)?, [Term::pairs(rpo)])
}

fn mixture(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen);
    let dpo = Term::pairs(Dpo::new(0.1)).with_weight(0.8);
    let bco = Term::pairs(BcoPair::new(0.1)).with_weight(0.2);
    Loss::new(batch, [dpo, bco, nll.with_reduction(Reduction::TokenMean)])
}

fn slic(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen).with_weight(0.1);
    Loss::new(batch, [Term::pairs(Slic::new(1.0)), nll])
}

fn cpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Cpo::new(0.1))])
}

fn cpo_of_trl(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean);
    Loss::new(batch, [Term::pairs(Cpo::new(0.1).with_nll_weight(0.0)), nll])
}

fn cpo_sim_po(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean);
    Loss::new(batch, [Term::pairs(SimPo::new(2.0, 0.5)), nll])
}

fn apo_zero_without_pairs(Given { batch, desirable, .. }: Given) -> Result<Loss<'static>> {
    let apo = Term::sequences(Kto::new(0.1), Sequences::All);
    Loss::new(batch.with_soft_labels(desirable)?, [apo])
}

fn bco_without_pairs(Given { batch, desirable, .. }: Given) -> Result<Loss<'static>> {
    let rewards = Moments::from_iter([0.5, 0.25, -0.25, -0.125]); // beta * d of all responses so far
    let bco = PointwiseLogistic::new(0.1).with_shift(rewards.mean());
    Loss::new(batch.with_soft_labels(desirable)?, [Term::sequences(bco, Sequences::All)])
}

fn xpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    // Of the reference are the rejected response of the first pair and the chosen one of the second.
    let samples = Term::sequences(Nll::new(), Sequences::Indices(vec![2, 1]));
    Loss::new(batch, [Term::pairs(Dpo::new(0.1)), samples.with_weight(-1e-5)])
}

fn nash_md(
    Given { batch, labels, packing, policy, reference, scores, .. }: Given,
) -> Result<Loss<'static>> {
    // Scores are the probabilities that the response beats the mixture's.
    let weights = nash_md_weights(&policy, &reference, &scores, 0.1, &labels, None, &packing)?;
    let sums = Term::sequences(Nll::new(), Sequences::All).with_weight(-1.0);
    Loss::new(batch.with_weights(weights)?, [sums])
}

fn centered(Given { rewards, .. }: Given) -> Result<ScalarLoss<'static>> {
    ScalarLoss::new(rewards, [Term::reward_pairs(BradleyTerry::new().with_centering(0.01))])
}

fn list_mle(Given { rewards, groups, .. }: Given) -> Result<ScalarLoss<'static>> {
    let ranking = Ranking::plackett_luce(1.0).with_value(RankingValue::Sum);
    ScalarLoss::new(rewards.with_groups(groups)?, [Term::groups(ranking)])
}
