//! Papers that train with a loss of others, and papers that train nothing.

use prefuse::objectives::{Dpo, Nll, Orpo, Reduction, SimPo};
use prefuse::{Loss, Result, Sequences, Term};

use super::given::Given;
use super::groups::ppo;
use super::rewards::bradley_terry;
use super::{Paper, call};

pub fn papers() -> Vec<Paper> {
    vec![
        Paper {
            name: "PA-RAG",
            title: "",
            trains: "SFT, then DPO three times: for informativeness, robustness, citations",
            calls: vec![call!("SFT", sft), call!("each stage", dpo)],
            missing: "",
            known: "authors' README read; beta is their framework's default",
        },
        Paper {
            name: "TEMPLE",
            title: "",
            trains: "DPO in stages, each with the one before as its reference, then SFT",
            calls: vec![call!("each stage", dpo), call!("SFT", sft)],
            missing: "",
            known: "authors' code read: scripts; beta is their framework's default",
        },
        Paper {
            name: "Prompt-A-Video",
            title: "",
            trains: "SFT, then DPO on pairs whose weighted score gap is above 1.4",
            calls: vec![call!("SFT", sft), call!("DPO", dpo)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "AesthetiQ",
            title: "",
            trains: "cross-entropy, then DPO on layout tokens, with pairs of a multimodal judge",
            calls: vec![call!("cross-entropy", sft), call!("DPO", dpo)],
            missing: "",
            known: "abstract read; details reconstructed",
        },
        Paper {
            name: "CrisiText",
            title: "",
            trains: "SFT against a preference alignment that its abstract does not name",
            calls: vec![call!("SFT", sft), call!("if it is DPO", dpo)],
            missing: "",
            known: "abstract read; the alignment's loss was not found",
        },
        Paper {
            name: "COIG-P",
            title: "",
            trains: "DPO, and a Bradley-Terry reward model",
            calls: vec![call!("DPO", dpo), call!("reward model", bradley_terry)],
            missing: "",
            known: "authors' code read; that the reward model's loss is their framework's is assumed",
        },
        Paper {
            name: "EVOREFUSE",
            title: "",
            trains: "a search for prompts by `log p(response) + log p(refusal)`, sums that \
                `Forward::totals` has; then SFT and DPO",
            calls: vec![call!("SFT", sft), call!("DPO", dpo)],
            missing: "",
            known: "third-party notes",
        },
        Paper {
            name: "Weaver",
            title: "",
            trains: "SFT, then Constitutional DPO: DPO of an expert's text against a rewrite that breaks a \
                principle",
            calls: vec![call!("SFT", sft), call!("Constitutional DPO", dpo)],
            missing: "",
            known: "reconstructed",
        },
        Paper {
            name: "CodeUltraFeedback",
            title: "",
            trains: "SFT, then DPO with beta 0.1",
            calls: vec![call!("SFT", sft), call!("DPO", dpo)],
            missing: "",
            known: "authors' code read",
        },
        Paper {
            name: "OpenRubrics",
            title: "",
            trains: "SFT of a rubric generator and of a judge, then DPO of a policy",
            calls: vec![call!("SFT", sft), call!("DPO", dpo)],
            missing: "",
            known: "abstract read; the training is reconstructed",
        },
        Paper {
            name: "Value Drifts",
            title: "",
            trains: "a comparison of SFT, PPO, DPO and SimPO, by the drift of stances",
            calls: vec![
                call!("SFT", sft),
                call!("DPO", dpo),
                call!("SimPO", sim_po),
                call!("PPO", ppo),
            ],
            missing: "PPO's value model is outside of this crate",
            known: "third-party notes",
        },
        Paper {
            name: "Dialectical Alignment",
            title: "",
            trains: "SFT and a loss of DPO's kind on an AI's feedback",
            calls: vec![call!("SFT", sft), call!("DPO", dpo)],
            missing: "",
            known: "abstract read; which loss is reconstructed",
        },
        Paper {
            name: "Janus",
            title: "",
            trains: "SFT; DPO; ORPO, `-a_w - lambda * log sigmoid(log odds_w - log odds_l)`; a Bradley-Terry \
                reward model",
            calls: vec![
                call!("SFT", sft),
                call!("DPO", dpo),
                call!("ORPO", orpo),
                call!("reward model", bradley_terry),
            ],
            missing: "",
            known: "authors' code read: configurations",
        },
    ]
}

pub fn without_an_objective() -> Vec<Paper> {
    let row = |name, trains| {
        let known = match name {
            "PROFILE" => "abstract read; the statistic is reconstructed",
            "Dissecting Preferences" => "reconstructed",
            _ => "abstract read",
        };
        let (title, calls, missing) = ("", vec![], "");
        Paper { name, title, trains, calls, missing, known }
    };
    vec![
        row(
            "RAG-RewardBench",
            "a benchmark of reward models, by their accuracy: nothing is trained",
        ),
        row("JudgeBench", "a benchmark of judges, by their accuracy: nothing is trained"),
        row("PREFDISCO", "an evaluation of personalized reasoning: nothing is trained"),
        row(
            "CIPHER",
            "preferences inferred from edits, by prompts and retrieval: nothing is trained",
        ),
        row("PROFILE", "rank correlations of preferences by factor: nothing is trained"),
        row(
            "Dissecting Preferences",
            "logistic regression of human and model preferences on properties of answers: nothing is \
             trained on tokens",
        ),
        row("MLLM preference survey", "a survey: nothing is trained"),
    ]
}

pub fn dpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Dpo::new(0.1))])
}

pub fn sft(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    let nll = Term::sequences(Nll::new(), Sequences::All);
    Loss::new(batch, [nll.with_reduction(Reduction::TokenMean)])
}

fn sim_po(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(SimPo::new(2.0, 1.0))])
}

fn orpo(Given { batch, .. }: Given) -> Result<Loss<'static>> {
    Loss::new(batch, [Term::pairs(Orpo::new(0.1))])
}
