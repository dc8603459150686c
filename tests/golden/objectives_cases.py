"""The cases of objectives.py: which parameters meet which inputs."""

from objectives_inputs import BASES

MODERATE = ("random", "edge")  # log-ratios whose exponentials are harmless
NORMALIZED = {"length_normalized": True}


def divergences(**params):
    """The parameters under each divergence but the reverse KL; alpha 1 is the reverse KL again."""
    kinds = [{"divergence": "JensenShannon"}, {"divergence": "ForwardKl"}]
    kinds += [{"divergence": "Alpha", "alpha": a} for a in (0.5, 2.0, 1.0, -0.5)]
    return [params | kind for kind in kinds]


def plain(**params):
    return params | {"divergence": "ReverseKl", "alpha": 0.5}


def with_defaults(sets):
    """The parameter sets with an alpha where it is not read."""
    return [plain() | params for params in sets]


DPO = {"beta": 0.1, "label_smoothing": 0.0, "length_normalized": False}
SCIR = {"beta": 0.1, "weight": 1.0, "entropy_weight": 0.0}
ATTACHED = {"detach_policy": False, "detach_judge": False}

FACTOR = ("beta",)
SHIFTED = ("beta", "margin")
FULL = ("beta", "margin", "soft_label")

# objective: (score kind, per-pair inputs, parameter sets)
PAIRS = {
    "Dpo": (
        "reward",
        FULL,
        with_defaults(
            [
                DPO,
                DPO | {"beta": 0.5, "label_smoothing": 0.1},
                DPO | {"beta": 2.0} | NORMALIZED,
                DPO | {"beta": 1.5, "label_smoothing": 0.2} | NORMALIZED,
                *divergences(**DPO | {"beta": 0.3}),
                *divergences(**DPO | {"beta": 2.0, "label_smoothing": 0.2} | NORMALIZED),
            ]
        ),
    ),
    "Robust": (
        "reward",
        SHIFTED,
        with_defaults(
            [
                {"beta": 0.1, "label_smoothing": 0.1},
                {"beta": 0.7, "label_smoothing": 0.3},
                *divergences(beta=0.4, label_smoothing=0.2),
            ]
        ),
    ),
    "Hinge": (
        "reward",
        SHIFTED,
        with_defaults([{"beta": 0.5}, {"beta": 0.1}, *divergences(beta=0.4)]),
    ),
    "Ipo": (
        "reward",
        FACTOR,
        with_defaults(
            [
                {"beta": 0.1, "length_normalized": False},
                {"beta": 0.5} | NORMALIZED,
                *divergences(beta=0.3, length_normalized=False),
                *divergences(beta=0.3, length_normalized=True),
            ]
        ),
    ),
    "ExoPair": (
        "reward",
        FACTOR,
        with_defaults(
            [
                {"beta": 0.1, "label_smoothing": 1e-3},
                {"beta": 0.5, "label_smoothing": 0.1},
                *divergences(beta=0.4, label_smoothing=0.05),
            ]
        ),
    ),
    "DiscoPop": (
        "reward",
        FACTOR,
        with_defaults(
            [
                {"beta": 0.1, "tau": 0.05},
                {"beta": 0.5, "tau": 0.5},
                {"beta": 1.0, "tau": 0.05},  # with "extreme", where exp(-u) is beyond f64
                *divergences(beta=0.1, tau=0.1),
            ]
        ),
    ),
    "NcaPair": ("reward", FACTOR, [{"beta": 0.1}, {"beta": 0.7}]),
    "BcoPair": ("reward", FACTOR, [{"beta": 0.1, "shift": 0.3}, {"beta": 0.7, "shift": 0.0}]),
    "ApoZero": ("reward", FACTOR, [{"beta": 0.1}, {"beta": 0.7}]),
    "ApoDown": ("reward", FACTOR, [{"beta": 0.1}, {"beta": 0.7}]),
    "Sppo": ("win", FACTOR, [{"beta": 0.001}, {"beta": 0.1}]),
    "SppoHard": ("reward", FACTOR, [{"beta": 0.001}, {"beta": 0.5}]),
    "Rpo": (
        "reward",
        FACTOR,
        [
            {"beta": beta, "form": form, "reward_scale": scale}
            for form in ("BackwardKl", "ForwardKl", "Squared")
            for beta, scale in ((0.1, 1.0), (0.5, 0.4))
        ],
    ),
    "Irepo": (
        "reward",
        SHIFTED,
        [
            {"beta": 0.1, "probability_form": False},
            {"beta": 0.7, "probability_form": False},
            {"beta": 0.1, "probability_form": True},
            {"beta": 0.7, "probability_form": True},
        ],
    ),
    "Lcpo": (
        "reward",
        FACTOR,
        [
            {"beta": beta, "base": base, "length_normalized": normalized}
            for normalized in (False, True)
            for base in ("Dpo", "Ipo")
            for beta in (0.1, 0.7)
        ],
    ),
    "LcpoSimPo": ("reward", FACTOR, [{"beta": 2.0, "gamma": 0.5}, {"beta": 0.7, "gamma": 0.0}]),
    "LcpoCpo": ("reward", FACTOR, [{"beta": 0.1}, {"beta": 0.7}]),
    "InfiFpo": ("average", FULL, [{"beta": 2.5}, {"beta": 0.1}]),
    "P3o": ("reward", ("margin",), [{"epsilon": 0.2}, {"epsilon": 0.9}]),
    "Cpo": (
        "reward",
        FULL,
        [
            {"beta": 0.1, "label_smoothing": 0.0, "nll_weight": 1.0},
            {"beta": 0.5, "label_smoothing": 0.1, "nll_weight": 0.0},
        ],
    ),
    "Slic": (
        "reward",
        SHIFTED,
        [
            {"delta": 1.0, "beta": 1.0, "length_normalized": False},
            {"delta": 0.4, "beta": 0.2, "length_normalized": False},
            {"delta": 0.0, "beta": 1.0} | NORMALIZED,
            {"delta": 0.5, "beta": 0.7} | NORMALIZED,
        ],
    ),
    "SimPo": (
        "reward",
        FULL,
        [
            {"beta": 2.0, "gamma": 0.5, "label_smoothing": 0.0},
            {"beta": 10.0, "gamma": 3.0, "label_smoothing": 0.1},
        ],
    ),
    "AlphaPo": (
        "reward",
        FULL,
        [
            {"alpha": 0.25, "beta": 2.0, "gamma": 0.5, "label_smoothing": 0.0},
            {"alpha": 0.0, "beta": 2.0, "gamma": 0.5, "label_smoothing": 0.1},
            {"alpha": -0.4, "beta": 2.5, "gamma": 0.1, "label_smoothing": 0.1},
        ],
    ),
    "Orpo": (
        "reward",
        FACTOR,
        [{"lambda": 0.1, "nll_weight": 1.0}, {"lambda": 1.0, "nll_weight": 0.3}],
    ),
}

# objective: (unit, per-unit inputs, parameter sets)
OTHERS = {
    "Nll": ("sequence", (), [{"length_normalized": False}, {"length_normalized": True}]),
    "LogRatio": ("sequence", (), [{}]),
    "Kto": (
        "sequence",
        (),
        [
            {"beta": 0.1, "baseline": 0.0, "desirable_weight": 1.0, "undesirable_weight": 1.0},
            {"beta": 0.5, "baseline": 0.7, "desirable_weight": 1.33, "undesirable_weight": 0.5},
        ],
    ),
    "PointwiseLogistic": (
        "sequence",
        (),
        [
            {"beta": 0.1, "shift": 0.0, "length_normalized": False},
            {"beta": 0.5, "shift": 0.3, "length_normalized": False},
            {"beta": 1.0, "shift": 0.0, "length_normalized": True},
            {"beta": 2.0, "shift": -0.4, "length_normalized": True},
        ],
    ),
    "Poft": ("sequence", (), [{"beta": 1.0, "gamma": 0.0}, {"beta": 2.5, "gamma": 0.3}]),
    "Scir": (
        "judged_pair",
        (),
        [
            SCIR | ATTACHED,
            SCIR | {"beta": 0.5, "weight": 0.7, "entropy_weight": 0.2} | ATTACHED,
            SCIR | {"weight": 0.0, "entropy_weight": 1.0} | ATTACHED,
            SCIR | ATTACHED | {"entropy_weight": 0.3, "detach_policy": True},
            SCIR | ATTACHED | {"entropy_weight": 0.3, "detach_judge": True},
        ],
    ),
    "BradleyTerry": (
        "reward_pair",
        ("margin", "soft_label"),
        [{"centering": 0.0}, {"centering": 0.01}],
    ),
    "Eurus": ("reward_pair", (), [{"absolute_weight": 1.0}, {"absolute_weight": 0.0}]),
    "RewardTie": ("reward_pair", (), [{"centering": 0.0}, {"centering": 0.01}]),
    "RewardGap": ("reward_pair", (), [{"beta": 1.0}, {"beta": 0.1}]),
    "RewardRegression": ("reward", (), [{}]),
}


def bases(objective, params):
    """The inputs on which the objective is finite and, if it takes exponentials, moderate."""
    if objective == "Orpo":
        return ("random", "wide", "extreme", "near_certain")
    exponential = params.get("divergence") == "ForwardKl" or (
        params.get("divergence") == "Alpha" and params["alpha"] != 1
    )
    return MODERATE if exponential else BASES


def plan():
    """(objective, unit, index of the parameter set, parameters, base, score kind, options)."""
    table = [(name, "pair", *row) for name, row in PAIRS.items()]
    table += [(name, row[0], "reward", *row[1:]) for name, row in OTHERS.items()]
    for objective, unit, kind, options, sets in table:
        for index, params in enumerate(sets):
            usable = bases(objective, params)
            forms = [(), options] if options else [()]
            if index == 0 or unit != "pair":
                chosen = [(base, form) for base in usable for form in forms]
                if len(options) > 1:
                    chosen += [("random", (option,)) for option in options]
            else:
                chosen = [("random", form) for form in forms]
                chosen += [(base, forms[-1]) for base in usable[1:2]]
                if objective == "DiscoPop" and "extreme" in usable:
                    chosen += [("extreme", form) for form in forms]
            if objective.startswith("Lcpo"):
                chosen = [(base, (*form, "reliability")) for base, form in chosen]
                chosen += [(base, ("exact_reliability",)) for base in usable if index == 0]
            for base, form in chosen:
                yield objective, unit, index, params, base, kind, form
