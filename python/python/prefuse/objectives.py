"""Every objective and ranking, by its name in Rust.

Written by `generate_objectives.py` from the list in `src/objectives/mod.rs`.
"""

from __future__ import annotations

from typing import Literal

from ._objective import Objective

__all__ = [
    "AlphaPo",
    "ApoDown",
    "ApoZero",
    "BcoPair",
    "BradleyTerry",
    "Cispo",
    "Cpo",
    "DiscoPop",
    "Dpo",
    "EntropyBonus",
    "Eurus",
    "ExoPair",
    "Gmpo",
    "Gspo",
    "Hinge",
    "InfiFpo",
    "InfoNca",
    "Ipo",
    "Irepo",
    "KlPenalty",
    "KnowPat",
    "KnowPatReleased",
    "Kto",
    "Lcpo",
    "LcpoCpo",
    "LcpoSimPo",
    "LipoLambda",
    "LipoLambdaRax",
    "LogProbClip",
    "LogRatio",
    "Nca",
    "NcaPair",
    "Nll",
    "Orpo",
    "P3o",
    "PlackettLuce",
    "Poft",
    "PointwiseLogistic",
    "PpoClip",
    "Pro",
    "Reinforce",
    "RewardGap",
    "RewardRegression",
    "RewardTie",
    "Rloo",
    "Robust",
    "Rpo",
    "Sapo",
    "Scir",
    "SimPo",
    "Slic",
    "Sppo",
    "SppoHard",
    "SteerLm",
    "Tdpo1",
    "Tdpo2",
    "TrustRegion",
    "Vespo",
]


class AlphaPo(Objective):
    """AlphaPO (Gupta et al., 2025): SimPO with another shape of the reward, `r = beta * (1 - p^-alpha) / alpha`,
    `p` the exponential of the average log-prob; `-log sigmoid(r_w - r_l - gamma - margin)`. At alpha 0 it is
    SimPO.

    Beyond the range of f64 (average log-probs below `-709 / alpha`) a reward is infinite, and two of them
    differ by the larger exponent.

    Over pairs of responses.

    Args:
        alpha: The shape; the paper uses -0.25 to 0.25 (a number from -10 to 10).
        beta: Scale of the rewards (a number from 1e-30 to 1e30).
        gamma: Target margin, absolute (a number from 0 to 1e30).
        label_smoothing: Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label (a
            number from 0 to 0.5).
    """

    unit = "Pair"

    def __init__(
        self,
        alpha: float,
        beta: float,
        gamma: float,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            label_smoothing=label_smoothing,
        )


class ApoDown(Objective):
    """Anchored Preference Optimization, down (D'Oosterlinck et al., 2024): for chosen responses worse than the
    model's own, pushes both down and the rejected one further, `sigmoid(r_w) + 1 - sigmoid(r_w - r_l)`, `r =
    beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class ApoZero(Objective):
    """Anchored Preference Optimization, zero (D'Oosterlinck et al., 2024): pushes the chosen response up and the
    rejected one down, `1 - sigmoid(r_w) + sigmoid(r_l)`, `r = beta * log-ratio`.

    Between 0 and 2; it saturates on both sides.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class BcoPair(Objective):
    """Binary Classifier Optimization on pairs (Jung et al., 2024; TRL's `bco_pair`): `-log sigmoid(r_w - shift)
    - log sigmoid(shift - r_l)`, `r = beta * log-ratio`.

    For data without pairs there is `PointwiseLogistic`.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards (a number from 1e-30 to 1e30).
        shift: The running mean of all rewards, a constant (`statistics::Moments`). TRL up to 0.28 takes the
            current batch in first; TRL since 0.29 has 0 (a number from -1e30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        *,
        shift: float = 0.0,
    ) -> None:
        super().__init__(
            beta=beta,
            shift=shift,
        )


class BradleyTerry(Objective):
    """The Bradley-Terry loss of a reward model (Ouyang et al., 2022), with margins (Llama 2; Touvron et al.,
    2023) and centering (Eisenstein et al., 2023): `-log sigmoid(u) + centering * (r_w + r_l)^2`, `u = r_w -
    r_l - margin`.

    The scaled form of HelpSteer2-Preference (Wang et al., 2024) is that with the weights of the pairs, CRM's
    keep-masks are a selection of pairs. Rewards: the rewards.

    Over pairs of rewards.

    Args:
        centering: Holds the rewards of a pair around 0; TRL recommends 0.01 (a number from 0 to 1e30).
    """

    unit = "RewardPair"

    def __init__(
        self,
        *,
        centering: float = 0.0,
    ) -> None:
        super().__init__(
            centering=centering,
        )


class Cispo(Objective):
    """Clipped importance sampling (CISPO; MiniMax-M1, 2025): REINFORCE whose clipped ratio is a constant,
    `-clip(ratio, floor, cap) * A * log-prob`.

    Over sampled tokens.

    Args:
        cap: The largest ratio; TRL's `epsilon_high` is this itself, verl's is this less 1 (a number from
            1e-30 to 1e30).
        floor: The smallest ratio; verl has `1 - epsilon_low` (a number from 0 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        cap: float,
        *,
        floor: float = 0.0,
    ) -> None:
        super().__init__(
            cap=cap,
            floor=floor,
        )


class Cpo(Objective):
    """Contrastive Preference Optimization (Xu et al., 2024): `-log sigmoid(u) - nll_weight * log-prob chosen`,
    `u = beta * (log-prob chosen - log-prob rejected) - margin`, on sums, without a reference.

    TRL's NLL is a mean over the tokens of the batch: `with_nll_weight(0.0)` and an `Nll` term. Without NLL it
    is also TPO's pair term, and DPO without a reference. Rewards: `beta * log-prob`.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards; the paper uses 0.1 (a number from 1e-30 to 1e30).
        label_smoothing: Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label (a
            number from 0 to 0.5).
        nll_weight: Weight of the chosen response's negative log-likelihood; the paper's 1 (a number from 0 to
            1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        *,
        label_smoothing: float = 0.0,
        nll_weight: float = 1.0,
    ) -> None:
        super().__init__(
            beta=beta,
            label_smoothing=label_smoothing,
            nll_weight=nll_weight,
        )


class DiscoPop(Objective):
    """DiscoPOP, the log-ratio modulated loss (Lu et al., 2024): `(1 - m) * -log sigmoid(u) + m * exp(-u)` with
    `m = sigmoid(u / temperature)`, `u = beta * (log-ratio chosen - log-ratio rejected)`.

    `m * exp(-u)` is taken as one exponential, `exp(u * (1 / temperature - 1)) / (1 + exp(u / temperature))`
    below 0: TRL and Liger have NaN where `exp(-u)` overflows. Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference (a number from 1e-30 to 1e30).
        temperature: How sharply the two losses meet; the paper's 0.05 (a number from 1e-30 to 1e30).
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        temperature: float = 0.05,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            temperature=temperature,
            divergence=divergence,
            alpha=alpha,
        )


class Dpo(Objective):
    """Direct Preference Optimization (Rafailov et al., 2023, eq. 7): `-log sigmoid(u)`, `u = beta * (log-ratio
    chosen - log-ratio rejected) - margin`.

    With label smoothing (cDPO; Mitchell, 2023, eq. 3) or a soft label `w` for each pair: `-w log sigmoid(u) -
    (1 - w) log sigmoid(-u)`. Rewards: `beta * log-ratio`, never divided by length, whatever the divergence
    (as TRL logs them).

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference; the paper and TRL use 0.1 (a number from 1e-30
            to 1e30).
        label_smoothing: Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label (a
            number from 0 to 0.5).
        length_normalized: Divides each score by its response's counted tokens (at least 1): Tulu 3 (Lambert
            et al., 2024), TRL's `sigmoid_norm`.
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        label_smoothing: float = 0.0,
        length_normalized: bool = False,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            label_smoothing=label_smoothing,
            length_normalized=length_normalized,
            divergence=divergence,
            alpha=alpha,
        )


class EntropyBonus(Objective):
    """Minus the entropy of the policy at each token, which keeps it exploring (Williams and Peng, 1991); the
    term's weight is the bonus's coefficient. The gradient is exact over the vocabulary.

    Over sampled tokens.
    """

    unit = "Token"

    def __init__(self) -> None:
        super().__init__()


class Eurus(Objective):
    """The reward model loss of Eurus (Yuan et al., 2024, section 3): `-log sigmoid(r_w - r_l)`, and
    `absolute_weight * (-log sigmoid(r_w) - log sigmoid(-r_l))`, which holds the rewards themselves above and
    below 0.

    Pairs that are not UltraInteract's have `BradleyTerry` alone: a term over a selection of pairs. Rewards:
    the rewards.

    Over pairs of rewards.

    Args:
        absolute_weight: Weight of the second part; the paper's 1 (a number from 0 to 1e30).
    """

    unit = "RewardPair"

    def __init__(
        self,
        *,
        absolute_weight: float = 1.0,
    ) -> None:
        super().__init__(
            absolute_weight=absolute_weight,
        )


class ExoPair(Objective):
    """Efficient Exact Optimization on pairs (EXO; Ji et al., 2024): the reverse KL of the policy's preference `q
    = sigmoid(u)` from a smoothed label, `q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e)`, `u = beta *
    (log-ratio chosen - log-ratio rejected)`.

    Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference (a number from 1e-30 to 1e30).
        label_smoothing: `e`, the probability that a label is wrong; 0 would make the loss infinite, TRL up to
            0.28 takes 0.001 in its place (a number above 0 and up to 0.5).
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        label_smoothing: float,
        *,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            label_smoothing=label_smoothing,
            divergence=divergence,
            alpha=alpha,
        )


class Gmpo(Objective):
    """Geometric-Mean Policy Optimization (GMPO; Zhao et al., 2025): `-ratio * A`, `ratio` the geometric mean of
    a sequence's ratios, each of whose logarithms is clipped, above for a positive advantage and below for a
    negative one.

    At the clip's edge a log-ratio has the gradient of the inside, as torch's clamp has it.

    Over sampled tokens.

    Args:
        epsilon: Where the log-ratios are clipped; 0.4 in the paper (a number from 1e-30 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        epsilon: float,
    ) -> None:
        super().__init__(
            epsilon=epsilon,
        )


class Gspo(Objective):
    """Group Sequence Policy Optimization (GSPO; Zheng et al., 2025, eq. 5 to 7): PPO's clip on the geometric
    mean of a sequence's ratios, `ratio = exp(mean over tokens of log-prob - old log-prob)`, the same for each
    of its tokens.

    With `SequenceMean` it is the paper's mean over sequences. At the clip's edges the gradient is that of the
    inside, as torch's clamp has it.

    Over sampled tokens.

    Args:
        epsilon_low: How far the ratio may fall; 3e-4 in the paper (a number from 0 to 1e30).
        epsilon_high: How far it may rise; 4e-4 in the paper (a number from 0 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        epsilon_low: float,
        epsilon_high: float,
    ) -> None:
        super().__init__(
            epsilon_low=epsilon_low,
            epsilon_high=epsilon_high,
        )


class Hinge(Objective):
    """Hinge loss on the normalised likelihood (RSO; Liu et al., 2023, eq. 9; SLiC-HF with a reference): `max(0,
    1 - u)`, `u` as in `Dpo`.

    At the kink `u == 1` the gradient is 0, as torch's relu has it. Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference (RSO's gamma) (a number from 1e-30 to 1e30).
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            divergence=divergence,
            alpha=alpha,
        )


class InfiFpo(Objective):
    """InfiFPO (Gu et al., 2025, eq. 13): DPO on averages, against several source models fused into one
    reference, `u = beta * ((average log-prob - score) chosen - (average log-prob - score) rejected) -
    margin`, `-log sigmoid(u)`.

    The score of a sequence is its fused average log-prob, by each source's own count of tokens
    (`statistics::fuse_references`). Rewards: `beta * (average log-prob - score)`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the sources; the paper uses 2.5 (a number from 1e-30 to
            1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class InfoNca(Objective):
    """The ranking `info_nca(beta, temperature)` of docs/objectives.md.

    Over groups of responses.

    Args:
        beta: a number from 1e-30 to 1e30.
        temperature: a number from 1e-30 to 1e30.
    """

    unit = "Ranking"

    def __init__(
        self,
        beta: float,
        temperature: float,
    ) -> None:
        super().__init__(
            beta=beta,
            temperature=temperature,
        )


class Ipo(Objective):
    """Identity Preference Optimization (Azar et al., 2023, eq. 17): `(log-ratio chosen - log-ratio rejected - 1
    / (2 beta))^2` on sums over tokens, as the paper and OpenRLHF have it.

    Rewards: `beta * log-ratio`, never divided by length (as TRL logs them).

    Over pairs of responses.

    Args:
        beta: The paper's tau: the squared distance is to a margin of `1 / (2 beta)` (a number from 1e-30 to
            1e30).
        length_normalized: Divides each score by its response's counted tokens (at least 1), which the authors
            confirmed to TRL as their practice; TRL and LLaMA-Factory always do it.
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        length_normalized: bool = False,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            length_normalized=length_normalized,
            divergence=divergence,
            alpha=alpha,
        )


class Irepo(Objective):
    """iREPO (Le et al., 2024), reconstructed from its abstract and reviews: regression of the implicit reward
    difference on the logit of an empirical preference, `(beta * (log-ratio chosen - log-ratio rejected) -
    margin)^2`.

    The margin of a pair has to be given: `log(p / (1 - p))`, `p` the share of annotators who prefer the
    chosen response, or the difference of the logarithms of fitted strengths. Any factor 1/2 is unknown: use
    the term's weight. Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards (a number from 1e-30 to 1e30).
        of_probabilities: `(sigmoid(u) - p)^2` in place of the logits' squared difference, as one reviewer
            describes the loss.
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        *,
        of_probabilities: bool = False,
    ) -> None:
        super().__init__(
            beta=beta,
            of_probabilities=of_probabilities,
        )


class KlPenalty(Objective):
    """The divergence from the reference that GRPO adds to its loss (Shao et al., 2024, eq. 4), estimated at each
    sampled token; the term's weight is its beta.

    TRL 1.16 multiplies the estimate by the ratio to the old policy, which has a gradient too; earlier NeMo-RL
    by the same ratio without its gradient. At a limit the gradient is that of the inside, as torch's clamp
    has it.

    Over sampled tokens.

    Args:
        estimator: The estimator.
        importance: What it is multiplied by.
        input_limit: The difference of log-probs is held to this magnitude (verl and NeMo-RL use 20) (a number
            from 1e-30 to 1e30).
        output_limit: The estimate is held to this magnitude (verl, NeMo-RL and OpenRLHF use 10) (a number
            from 1e-30 to 1e30).
    """

    unit = "Token"
    variants = {
        "estimator": (
            "K1",
            "K2",
            "K3",
        ),
        "importance": (
            "None",
            "Token",
            "Sequence",
            "FixedToken",
        ),
    }

    def __init__(
        self,
        *,
        estimator: Literal["K1", "K2", "K3"] = "K3",
        importance: Literal["None", "Token", "Sequence", "FixedToken"] = "None",
        input_limit: float = 700.0,
        output_limit: float = 1e30,
    ) -> None:
        super().__init__(
            estimator=estimator,
            importance=importance,
            input_limit=input_limit,
            output_limit=output_limit,
        )


class KnowPat(Objective):
    """The ranking `know_pat()` of docs/objectives.md.

    Over groups of responses.
    """

    unit = "Ranking"

    def __init__(self) -> None:
        super().__init__()


class KnowPatReleased(Objective):
    """The ranking `know_pat_released()` of docs/objectives.md.

    Over groups of responses.
    """

    unit = "Ranking"

    def __init__(self) -> None:
        super().__init__()


class Kto(Objective):
    """Kahneman-Tversky Optimization (Ethayarajh et al., 2024), for data without pairs: `weight * (1 -
    sigmoid(beta * (d - z)))` of a desirable sequence and `weight * (1 - sigmoid(beta * (z - d)))` of an
    undesirable one, `d` the log-ratio and `z` the baseline.

    Desirable sequences have the soft label 1, undesirable ones 0. With the baseline at 0 it is APO-zero
    without pairs (TRL's `apo_zero_unpaired`). Reward: `beta * log-ratio`.

    Over single sequences.

    Args:
        beta: Scale of the log-ratios; 0.1 in the paper and in TRL (a number from 1e-30 to 1e30).
        baseline: `z`, an estimate of the policy's divergence from the reference, a constant
            (`statistics::kto_baseline`); at least 0 (a number from 0 to 1e30).
        desirable_weight: Weight of desirable sequences (a number from 0 to 1e30).
        undesirable_weight: Weight of undesirable sequences; Eurus has 1 to 1.33 for desirable ones (a number
            from 0 to 1e30).
    """

    unit = "Sequence"

    def __init__(
        self,
        beta: float,
        *,
        baseline: float = 0.0,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
    ) -> None:
        super().__init__(
            beta=beta,
            baseline=baseline,
            desirable_weight=desirable_weight,
            undesirable_weight=undesirable_weight,
        )


class Lcpo(Objective):
    """Latent Collective Preference Optimization, later RE-PO (Cao et al., 2026, eq. 2, 4 and 5, table 1): `-w
    log sigmoid(h) - (1 - w) log sigmoid(-h)`, `h` the base loss's log-odds, with the posterior `w = sigmoid(h
    + logit(soft_label))` that the label is right, a constant for the gradient.

    The soft label of a pair is its annotator's reliability eta and has to be given: eta 1 is the logistic
    loss of `h`, which is DPO itself, but not IPO. `statistics::Reliability` keeps eta by its running mean.
    Without a reference: `LcpoSimPo`, `LcpoCpo`. Rewards: `beta * log-ratio`, divided by length if the loss
    divides it, so that `log_odds` are theirs.

    Over pairs of responses.

    Args:
        beta: The base loss's beta (a number from 1e-30 to 1e30).
        base: The base loss.
        length_normalized: Divides each log-ratio by its response's counted tokens (at least 1), as in `Ipo`
            and `Dpo`; the paper has sums.
    """

    unit = "Pair"
    variants = {
        "base": (
            "Dpo",
            "Ipo",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        base: Literal["Dpo", "Ipo"] = "Dpo",
        length_normalized: bool = False,
    ) -> None:
        super().__init__(
            beta=beta,
            base=base,
            length_normalized=length_normalized,
        )


class LcpoCpo(Objective):
    """`Lcpo` (Cao et al., 2026, eq. 2, 4 and 5, table 1) on CPO (Xu et al., 2024), whose NLL is part of the
    loss: log-odds `h = (beta + 1) * (log-prob chosen - log-prob rejected)` on sums.

    The soft label is the annotator's reliability and has to be given. Rewards: `beta * log-prob`.

    Over pairs of responses.

    Args:
        beta: CPO's beta (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class LcpoSimPo(Objective):
    """`Lcpo` (Cao et al., 2026, eq. 2, 4 and 5, table 1) on SimPO (Meng, Xia and Chen, 2024): log-odds `h = log
    sigmoid(m - gamma) - log sigmoid(-m - gamma)`, `m = beta * (average log-prob chosen - average log-prob
    rejected)`.

    The soft label is the annotator's reliability and has to be given. Rewards: `beta * average log-prob`.

    Over pairs of responses.

    Args:
        beta: SimPO's beta (a number from 1e-30 to 1e30).
        gamma: SimPO's gamma, absolute (a number from 0 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        gamma: float,
    ) -> None:
        super().__init__(
            beta=beta,
            gamma=gamma,
        )


class LipoLambda(Objective):
    """The ranking `lipo_lambda(beta)` of docs/objectives.md.

    Over groups of responses.

    Args:
        beta: a number from 1e-30 to 1e30.
    """

    unit = "Ranking"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class LipoLambdaRax(Objective):
    """The ranking `lipo_lambda_rax(beta)` of docs/objectives.md.

    Over groups of responses.

    Args:
        beta: a number from 1e-30 to 1e30.
    """

    unit = "Ranking"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class LogProbClip(Objective):
    """The clip of log-probs in place of ratios, P3O's by token (V3; Wu et al., 2023): `max(-A * l, -A * clip(l,
    old - epsilon, old + epsilon))`, `l` the log-prob of a token, `A` the advantage.

    `P3oAdvantages` makes the advantages. At the clip's edge the gradient is the full one, as torch's clamp
    has it. Source: the authors' code.

    Over sampled tokens.

    Args:
        epsilon: How far the log-prob may fall or rise; 0.2 (a number from 0 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        epsilon: float,
    ) -> None:
        super().__init__(
            epsilon=epsilon,
        )


class LogRatio(Objective):
    """The log-ratio of a sequence, `log-prob - reference log-prob`: SELM's optimism (Zhang et al., 2024, eq.
    4.2) is this over the reference's own answers, with weight `alpha * beta` beside `Dpo`; the loss pushes
    them down.

    The paper's algorithm 1 has `alpha` in place of `alpha * beta`. Unbounded below. Reward: the log-ratio.

    Over single sequences.
    """

    unit = "Sequence"

    def __init__(self) -> None:
        super().__init__()


class Nca(Objective):
    """The ranking `nca(beta, temperature)` of docs/objectives.md.

    Over groups of responses.

    Args:
        beta: a number from 1e-30 to 1e30.
        temperature: a number from 1e-30 to 1e30.
    """

    unit = "Ranking"

    def __init__(
        self,
        beta: float,
        temperature: float,
    ) -> None:
        super().__init__(
            beta=beta,
            temperature=temperature,
        )


class NcaPair(Objective):
    """Noise Contrastive Alignment on pairs (Chen et al., 2024; TRL's `nca_pair`): `-log sigmoid(r_w) - (log
    sigmoid(-r_w) + log sigmoid(-r_l)) / 2` on the absolute rewards `r = beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: Scale of the rewards; the authors' runs use 0.01, TRL 0.1 (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class Nll(Objective):
    """Negative log-likelihood of a sequence: minus the sum of its log-probs. As a second term over the chosen
    sequences it makes RPO (Pang et al., 2024), CPO-SimPO and MPO, over a third response TPO (Saeidi et al.,
    2024); with a negative weight XPO's exploration (Xie et al., 2024).

    With `Reduction::TokenMean` it is TRL's `sft` term, with `length_normalized` and the mean that of LLaMA-
    Factory and OpenRLHF, with the plain mean NeMo-RL's. Reward: 0.

    Over single sequences.

    Args:
        length_normalized: Divides by the sequence's counted tokens (at least 1); for the mean or the sum, as
            `TokenMean` would divide by them again.
    """

    unit = "Sequence"

    def __init__(
        self,
        *,
        length_normalized: bool = False,
    ) -> None:
        super().__init__(
            length_normalized=length_normalized,
        )


class Orpo(Objective):
    """Odds Ratio Preference Optimization (Hong, Lee and Thorne, 2024): `-nll_weight * a_w - lambda * log
    sigmoid(log odds(a_w) - log odds(a_l))`, `a` the average log-prob and `odds = exp(a) / (1 - exp(a))`,
    without a reference.

    TRL's NLL is a mean over prompt and completion of the batch's tokens: `with_nll_weight(0.0)`, and an `Nll`
    term of its own. An average of exactly 0 has infinite odds; the pair of an empty response has no odds, and
    keeps its NLL alone. Rewards: `lambda * a`, as TRL logs them.

    Over pairs of responses.

    Args:
        lambda_: Weight of the odds ratio; the paper uses 0.1 and 0.25, TRL's `beta` 0.1 (a number from 1e-30
            to 1e30).
        nll_weight: Weight of the chosen response's negative average log-prob; the paper's 1 (a number from 0
            to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        lambda_: float,
        *,
        nll_weight: float = 1.0,
    ) -> None:
        super().__init__(
            lambda_=lambda_,
            nll_weight=nll_weight,
        )


class P3o(Objective):
    """Pairwise Proximal Policy Optimization (P3O; Wu et al., 2023), its joint clip (V2): `max(-u, -clip(u,
    margin - epsilon, margin + epsilon)) / 2`, `u = log-ratio chosen - log-ratio rejected`.

    `P3oAdvantages` makes the order, the weights and the margins of the pairs: the margin is `u` under the
    policy that sampled. The mean over tokens without the half (the code's `avg_tokenwise`) is weight 2 and
    `TokenMean`. At the clip's upper edge the gradient is the full one, as torch's clamp has it. Rewards: the
    log-ratios. Source: the authors' code.

    Over pairs of responses.

    Args:
        epsilon: How far the difference may rise; 0.2 (a number from 0 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        epsilon: float,
    ) -> None:
        super().__init__(
            epsilon=epsilon,
        )


class PlackettLuce(Objective):
    """The ranking `plackett_luce(beta)` of docs/objectives.md.

    Over groups of responses.

    Args:
        beta: a number from 1e-30 to 1e30.
    """

    unit = "Ranking"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class Poft(Objective):
    """Preference-oriented Supervised Fine-Tuning (Fan et al., 2025): a Bradley-Terry loss of the policy against
    aligned models on the same answer, `-log sigmoid(beta * (average log-prob - score) + gamma)`.

    The score of a sequence is the mean of the aligned models' average log-probs, each by its own count of
    tokens. The policy's average is over the tokens that count: over the response in the paper; the released
    code's is over the prompt too, for which the prompt's labels have to count. Reward: `beta * average log-
    prob`.

    Over single sequences.

    Args:
        beta: Scale of the averages; 1 in the released code (a number from 1e-30 to 1e30).
        gamma: Added inside; 0 in the released code (a number from -1e30 to 1e30).
    """

    unit = "Sequence"

    def __init__(
        self,
        *,
        beta: float = 1.0,
        gamma: float = 0.0,
    ) -> None:
        super().__init__(
            beta=beta,
            gamma=gamma,
        )


class PointwiseLogistic(Objective):
    """Logistic loss of single sequences, for data without pairs: `-log sigmoid(u)` of a desirable one and `-log
    sigmoid(-u)` of an undesirable one, `u = beta * log-ratio - shift`. With the running mean of the rewards
    as its shift it is BCO (Jung et al., 2024).

    Desirable sequences have the soft label 1, undesirable ones 0; BCO's density ratio, which weighs
    undesirable sequences, is given by the weights of the sequences. With beta 1 and `length_normalized` it is
    what TRPA falls back to. Reward: `beta * log-ratio`, divided by length if the loss divides it, so that the
    shift is the mean of the rewards.

    Over single sequences.

    Args:
        beta: Scale of the log-ratios (a number from 1e-30 to 1e30).
        shift: The running mean of all rewards, a constant (`statistics::Moments`); TRL takes the current
            batch in first (a number from -1e30 to 1e30).
        length_normalized: Divides the log-ratio by the sequence's counted tokens (at least 1).
    """

    unit = "Sequence"

    def __init__(
        self,
        beta: float,
        *,
        shift: float = 0.0,
        length_normalized: bool = False,
    ) -> None:
        super().__init__(
            beta=beta,
            shift=shift,
            length_normalized=length_normalized,
        )


class PpoClip(Objective):
    """The clipped surrogate of PPO (Schulman et al., 2017, eq. 7) on tokens: `-min(ratio * A, clip(ratio, 1 -
    epsilon_low, 1 + epsilon_high) * A)`, `ratio = exp(log-prob - old log-prob)`, `A` the advantage.

    The reduction tells the variants apart: `SequenceMean` is GRPO's (Shao et al., 2024), `TokenMean` BNPO's,
    `Divisor` of the tokens of the whole window DAPO's (Yu et al., 2025, whose `epsilon_high` is 0.28), of
    sequences times the largest length Dr. GRPO's (Liu et al., 2025), of sequences LUSPO's. At the clip's
    edges, and at the cap, the gradient is that of the inside, as torch's clamp has it.

    Over sampled tokens.

    Args:
        epsilon_low: How far the ratio may fall; 0.2 (a number from 0 to 1e30).
        epsilon_high: How far it may rise; 0.2, in DAPO 0.28 (a number from 0 to 1e30).
        ratio_cap: The ratio beside the clip is no more than this (TRL's `delta`) (a number from 1e-30 to
            1e30).
        dual_clip: The loss of a negative advantage is no more than `-dual_clip * A` (Ye et al., 2020; verl
            uses 3) (a number from 1e-30 to 1e30).
        log_ratio_limit: The log-ratio is held to this magnitude (verl uses 20); f64 ends at 709 (a number
            from 1e-30 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        epsilon_low: float,
        epsilon_high: float,
        *,
        ratio_cap: float = 1e30,
        dual_clip: float = 1e30,
        log_ratio_limit: float = 700.0,
    ) -> None:
        super().__init__(
            epsilon_low=epsilon_low,
            epsilon_high=epsilon_high,
            ratio_cap=ratio_cap,
            dual_clip=dual_clip,
            log_ratio_limit=log_ratio_limit,
        )


class Pro(Objective):
    """The ranking `pro()` of docs/objectives.md.

    Over groups of responses.
    """

    unit = "Ranking"

    def __init__(self) -> None:
        super().__init__()


class Reinforce(Objective):
    """The policy gradient itself (REINFORCE; Williams, 1992): `-A * log-prob`.

    Over sampled tokens.
    """

    unit = "Token"

    def __init__(self) -> None:
        super().__init__()


class RewardGap(Objective):
    """The reward loss of inverse reinforcement learning in DR-IRL (2025), known from reading notes: `-(r_w -
    r_l) / beta`, the chosen response a demonstration and the rejected one the policy's own. Linear and
    unbounded below.

    Rewards: the rewards.

    Over pairs of rewards.

    Args:
        beta: What divides the gap (a number from 1e-30 to 1e30).
    """

    unit = "RewardPair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class RewardRegression(Objective):
    """Regression of a reward model on attribute ratings: `(prediction - target)^2`, the target the score of the
    response.

    A response of several attributes is several entries; those without a rating are left out by selecting the
    others, so that the mean is over the ratings that exist, as HelpSteer2 (Wang et al., 2024) has it. ArmoRM
    and DPA are the same by attribute, with a sum over the attributes. Reward: the prediction.

    Over rewards.
    """

    unit = "Reward"

    def __init__(self) -> None:
        super().__init__()


class RewardTie(Objective):
    """What MM-RLHF's reward model has for pairs of equal rank (Zhang et al., 2025, released code): `(r_w -
    r_l)^2 + centering * (r_w + r_l)^2`. A term over a selection of pairs, beside `BradleyTerry` over the
    others.

    Rewards: the rewards.

    Over pairs of rewards.

    Args:
        centering: Holds the rewards of a pair around 0. The released code has 0.01 in a mean over all pairs,
            ties or not: in the mean of either term it is that times the term's share of the pairs (a number
            from 0 to 1e30).
    """

    unit = "RewardPair"

    def __init__(
        self,
        *,
        centering: float = 0.0,
    ) -> None:
        super().__init__(
            centering=centering,
        )


class Rloo(Objective):
    """TRL's clipped form of REINFORCE leave-one-out (RLOO; Ahmadian et al., 2024): PPO's clip on the ratio of
    whole sequences, `ratio = exp(log-prob - old log-prob)` of the sums, the same for each token. The paper's
    own form is `Reinforce` with leave-one-out advantages.

    Those are `statistics::GroupAdvantages` with `Baseline::LeaveOneOut`. With `SequenceMean` it is the mean
    over sequences. At the clip's edges the gradient is that of the inside, as torch's clamp has it.

    Over sampled tokens.

    Args:
        epsilon: How far the ratio may fall or rise; 0.2 (a number from 0 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        epsilon: float,
    ) -> None:
        super().__init__(
            epsilon=epsilon,
        )


class Robust(Objective):
    """Provably robust DPO (Chowdhury, Kini and Natarajan, 2024, eq. 12): the loss whose expectation under
    flipped labels is DPO's, `(-(1 - e) log sigmoid(u) + e log sigmoid(-u)) / (1 - 2 e)`, `u` as in `Dpo`.

    It may be negative, and it is unbounded below as `u` grows. Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference (a number from 1e-30 to 1e30).
        label_smoothing: `e`, the probability that a label is wrong, 0 to below 0.5 (a number from 0 to below
            0.5).
        divergence: What the policy is held to the reference by; the score of each log-ratio takes its place.
        alpha: The order of `Divergence::Alpha` (a number from -10 to 10).
    """

    unit = "Pair"
    variants = {
        "divergence": (
            "ReverseKl",
            "ForwardKl",
            "JensenShannon",
            "Alpha",
        ),
    }

    def __init__(
        self,
        beta: float,
        label_smoothing: float,
        *,
        divergence: Literal["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"] = "ReverseKl",
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            label_smoothing=label_smoothing,
            divergence=divergence,
            alpha=alpha,
        )


class Rpo(Objective):
    """Reward-aware Preference Optimization (Nemotron-4; Adler et al., 2024): holds the policy's preference `b =
    sigmoid(u)` to that of a reward model, `a = sigmoid(reward_scale * (score chosen - score rejected))`, `u`
    DPO's margin.

    The scores of the sequences are rewards. Not the RPO of Pang et al., which is DPO beside an `Nll` term.
    Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference (a number from 1e-30 to 1e30).
        distance: The distance.
        reward_scale: The paper's eta, NeMo-Aligner's `gt_reward_scale` (a number from 1e-30 to 1e30).
    """

    unit = "Pair"
    variants = {
        "distance": (
            "BackwardKl",
            "ForwardKl",
            "Squared",
        ),
    }

    def __init__(
        self,
        beta: float,
        *,
        distance: Literal["BackwardKl", "ForwardKl", "Squared"] = "BackwardKl",
        reward_scale: float = 1.0,
    ) -> None:
        super().__init__(
            beta=beta,
            distance=distance,
            reward_scale=reward_scale,
        )


class Sapo(Objective):
    """Soft Adaptive Policy Optimization (SAPO; 2025): a sigmoid gate in place of the clip, `-4 / tau *
    sigmoid(tau * (ratio - 1)) * A`, tau by the sign of the advantage.

    Over sampled tokens.

    Args:
        tau_positive: How sharply the gate closes for positive advantages (a number from 1e-30 to 1e30).
        tau_negative: For the others (a number from 1e-30 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        *,
        tau_positive: float = 1.0,
        tau_negative: float = 1.05,
    ) -> None:
        super().__init__(
            tau_positive=tau_positive,
            tau_negative=tau_negative,
        )


class Scir(Objective):
    """Self-Consistency of Internal Rewards (SCIR, 2025), its consistency term, reconstructed: the symmetric KL
    of two Bernoulli preferences, `weight * (sigmoid(u) - sigmoid(v)) * (u - v) + entropy_weight * (H(u) +
    H(v))`, with `u = beta * (log-ratio chosen - log-ratio rejected)` the implicit reward's, `v` the
    difference of the log-probs of a judge's two verdicts, and `H` the entropy.

    DPO on the pairs where both agree is a term of its own. The paper's structure is certain, the formula not.
    Rewards: `beta * log-ratio`, and the verdicts' log-probs.

    Over pairs and the verdicts of a judge.

    Args:
        beta: Scale of the implicit rewards (a number from 1e-30 to 1e30).
        entropy_weight: Weight of the entropies, which keeps both sides confident; how large is not known (a
            number from 0 to 1e30).
        weight: Weight of the consistency (a number from 0 to 1e30).
        detach_pair: The pair is a constant for the gradient.
        detach_verdicts: The verdicts are constants for the gradient.
    """

    unit = "JudgedPair"

    def __init__(
        self,
        beta: float,
        entropy_weight: float,
        *,
        weight: float = 1.0,
        detach_pair: bool = False,
        detach_verdicts: bool = False,
    ) -> None:
        super().__init__(
            beta=beta,
            entropy_weight=entropy_weight,
            weight=weight,
            detach_pair=detach_pair,
            detach_verdicts=detach_verdicts,
        )


class SimPo(Objective):
    """Simple Preference Optimization (Meng, Xia and Chen, 2024, eq. 6): `-log sigmoid(u)`, `u = beta * (average
    log-prob chosen - average log-prob rejected) - gamma - margin`, without a reference.

    With an `Nll` term it is CPO-SimPO, over a third response TPO-L. Averages are sums over counted tokens
    divided by their number (at least 1, so that an empty response is finite). Rewards: `beta * average log-
    prob`.

    Over pairs of responses.

    Args:
        beta: Scale of the reward; the paper uses 2 to 10 (a number from 1e-30 to 1e30).
        gamma: Target margin, absolute; the released code and HALOs give it as a ratio to beta, for them it is
            `ratio * beta` (a number from 0 to 1e30).
        label_smoothing: Probability that a label is wrong, 0 to 0.5 (TRL and the released code offer it); it
            flips each pair's soft label (a number from 0 to 0.5).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        gamma: float,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            beta=beta,
            gamma=gamma,
            label_smoothing=label_smoothing,
        )


class Slic(Objective):
    """Sequence Likelihood Calibration (SLiC-HF; Zhao et al., 2023), its first term: `max(0, delta - (beta *
    (log-prob chosen - log-prob rejected) - margin))`, without a reference, on sums, or on averages with
    `length_normalized`. The paper's second term is an `Nll` term.

    At the kink the gradient is 0, as torch's relu has it. Rewards: `beta` times the sum, or the average, that
    is compared.

    Over pairs of responses.

    Args:
        delta: The margin below which a pair counts; HALOs and CPO's hinge in TRL have 1 (a number from 0 to
            1e30).
        beta: Scale of the log-probs; the paper has none, CPO's hinge in TRL has 0.1 (a number from 1e-30 to
            1e30).
        length_normalized: Compares averages over counted tokens (at least 1), as RRHF (Yuan et al., 2023, eq.
            1 to 5) does with a delta of 0, over all pairs of a group and without a mean.
    """

    unit = "Pair"

    def __init__(
        self,
        delta: float,
        *,
        beta: float = 1.0,
        length_normalized: bool = False,
    ) -> None:
        super().__init__(
            delta=delta,
            beta=beta,
            length_normalized=length_normalized,
        )


class Sppo(Objective):
    """Self-Play Preference Optimization (Wu et al., 2024, the authors' code; algorithm 1, with the log-partition
    term as a constant, is reconstructed): `((d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2) /
    2`, `d` the log-ratio.

    The scores of the sequences are win probabilities (`statistics::win_rates`). The authors' `sppo_single` is
    the same with `P(w > l)` and its complement. Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: The paper's `1 / eta`; the authors' runs use 0.001 (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class SppoHard(Objective):
    """SPPO (Wu et al., 2024) with win probabilities of 1 and 0, as TRL and xtuner have it (`sppo_hard`): `(d_w -
    1 / (2 beta))^2 + (d_l + 1 / (2 beta))^2`, `d` the log-ratio, without the factor 1/2 of `Sppo`.

    Rewards: `beta * log-ratio`.

    Over pairs of responses.

    Args:
        beta: The paper's `1 / eta` (a number from 1e-30 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class SteerLm(Objective):
    """The ranking `steer_lm()` of docs/objectives.md.

    Over groups of responses.
    """

    unit = "Ranking"

    def __init__(self) -> None:
        super().__init__()


class Tdpo1(Objective):
    """Token-level Direct Preference Optimization, first form (Zeng et al., 2024, eq. 14; reconstructed from its
    released code): `-log sigmoid(u)`, `u = beta * (log-ratio chosen - log-ratio rejected - (KL rejected - KL
    chosen)) - margin`.

    The scores of the sequences are their sequential KLs: sums of `KL(reference || policy)` over the counted
    tokens (`Distillation`'s, whose teacher is the reference). The gradient here takes them as constants; they
    have one too, by each KL what the loss has by that response's sum of log-probs. Rewards: `beta * (log-
    ratio + KL)`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference; the paper uses 0.1 (a number from 1e-30 to
            1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
    ) -> None:
        super().__init__(
            beta=beta,
        )


class Tdpo2(Objective):
    """Token-level Direct Preference Optimization, second form (Zeng et al., 2024, eq. 17; reconstructed from its
    released code): `-log sigmoid(u)`, `u = beta * (log-ratio chosen - log-ratio rejected - alpha * (KL
    rejected - KL chosen)) - margin`, with the chosen response's KL a constant.

    The scores of the sequences are their sequential KLs: sums of `KL(reference || policy)` over the counted
    tokens (`Distillation`'s, whose teacher is the reference). The gradient here takes them as constants; the
    rejected response's has one too, `alpha` times what the loss has by its sum of log-probs. Rewards: `beta *
    (log-ratio + KL)`.

    Over pairs of responses.

    Args:
        beta: How strongly the policy is held to the reference; the paper uses 0.1 (a number from 1e-30 to
            1e30).
        alpha: Share of the sequential KL in the margin; the paper uses 0.5 (a number from 0 to 1e30).
    """

    unit = "Pair"

    def __init__(
        self,
        beta: float,
        *,
        alpha: float = 0.5,
    ) -> None:
        super().__init__(
            beta=beta,
            alpha=alpha,
        )


class TrustRegion(Objective):
    """The trust region of TRPA (Su et al., 2025): `k3 = exp(-d) + d - 1` at each sampled token, `d = log-prob -
    old log-prob`, held to `limit`; the term's weight is 0.001 in the released code.

    At the limit the gradient is that of the inside, as torch's clamp has it.

    Over sampled tokens.

    Args:
        limit: The estimate is held to this magnitude (a number from 1e-30 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        *,
        limit: float = 10.0,
    ) -> None:
        super().__init__(
            limit=limit,
        )


class Vespo(Objective):
    """Variational sequence-level soft policy optimization (VESPO; Shen et al., 2026): REINFORCE under a gamma
    weight of the sequence's ratio `w`, not divided by length, which is a constant for the gradient: `-w^k *
    exp(lambda * (1 - w)) * A * log-prob`, `k` and `lambda` by the sign of the advantage.

    As in TRL 1.16 and the released code, `log w` is held to log 1e-8 to 20; unlike there, each token's part
    of it is not held to 20. `Divisor` of the tokens of the whole window is TRL's reduction.

    Over sampled tokens.

    Args:
        k_positive: How fast the weight falls where the ratio does, for advantages from 0 (a number from 1e-30
            to 1e30).
        lambda_positive: How fast it falls where the ratio rises (a number from 1e-30 to 1e30).
        k_negative: The first for negative advantages (a number from 1e-30 to 1e30).
        lambda_negative: The second for negative advantages (a number from 1e-30 to 1e30).
    """

    unit = "Token"

    def __init__(
        self,
        *,
        k_positive: float = 2.0,
        lambda_positive: float = 3.0,
        k_negative: float = 3.0,
        lambda_negative: float = 2.0,
    ) -> None:
        super().__init__(
            k_positive=k_positive,
            lambda_positive=lambda_positive,
            k_negative=k_negative,
            lambda_negative=lambda_negative,
        )
