//! `docs/papers.md`: every paper of the source list, what it trains with, and the call that gives it. A
//! call is the body of a function here; it runs, and the table shows its text.

mod given;
mod groups;
mod names;
mod pairs;
mod rewards;
mod sampled;
mod users;

use std::fmt::Write;

use prefuse::Result;

use self::names::{Name, names};
use crate::common::root;
use crate::docs::assert_docs;

/// A row of the table.
pub struct Paper {
    /// What it is called.
    pub name: &'static str,
    /// The title, where it says more than the name.
    pub title: &'static str,
    /// The formula, in words and code.
    pub trains: &'static str,
    /// None where nothing is trained.
    pub calls: Vec<Call>,
    /// What this crate does not have, if anything.
    pub missing: &'static str,
    /// One of [`KNOWN`], and what else is to be said.
    pub known: &'static str,
}

/// How certain a formula is.
const KNOWN: [&str; 7] = [
    "authors' code and paper read",
    "authors' code read",
    "authors' README read",
    "paper read",
    "abstract read",
    "third-party notes",
    "reconstructed",
];

/// A function's body, as it is written and to be run.
pub struct Call {
    /// Which part of the paper, where there are several.
    pub part: &'static str,
    pub code: String,
    pub run: fn() -> Result<()>,
}

/// The call that a function of these files is.
macro_rules! call {
    ($part:literal, $function:ident) => {{
        $crate::papers::Call {
            part: $part,
            code: $crate::papers::body(stringify!($function)),
            run: || {
                let made = $function($crate::papers::given::Given::new()?)?;
                $crate::papers::given::Made::run(&made)
            },
        }
    }};
    ($function:ident) => {
        $crate::papers::call!("", $function)
    };
}
use call;

/// The files, of which no two have a function of the same name.
const SOURCE: &str = concat!(
    include_str!("pairs.rs"),
    include_str!("groups.rs"),
    include_str!("rewards.rs"),
    include_str!("users.rs"),
    include_str!("names.rs"),
    include_str!("sampled.rs"),
);

/// The lines between the braces of a function, with its author's line breaks, which `stringify!` loses.
pub fn body(function: &str) -> String {
    let start = format!("fn {function}(");
    let mut found = SOURCE.split(&start).skip(1);
    let (Some(rest), None) = (found.next(), found.next()) else { panic!("not one {function}") };
    // Where the signature ends: each returns a `Result<..<..>>`.
    let (_, rest) = rest.split_once(">> {\n").unwrap();
    let (lines, _) = rest.split_once("\n}\n").unwrap();
    let lines: Vec<_> = lines.lines().map(|line| line.strip_prefix("    ").unwrap()).collect();
    lines.join("\n")
}

const HEAD: &str = "\
# Papers

Every paper that this crate was planned from, what it trains with, and the call that gives it. A test compiles
and runs the calls, forward and gradient, and writes this table ([`tests/papers`](../tests/papers/mod.rs)).

Of a response, `s` is the sum of the log-probs `l` of its tokens, `a` their average, `d` the sum less that of
the reference (the log-ratio), `r` its reward; `_w` is chosen, `_l` rejected. Weights, labels and targets are
constants for the gradient; `n` counts tokens, `A` is an advantage. A call ends in a `Result` of a `Loss`, a `ScalarLoss`, distillations, gradients or
numbers; it is made of:

| name | what it is |
|---|---|
| `batch` | labels, packing, reference log-probs by token, and pairs of 8 sequences: 0 and 1 are chosen, 2 and 3 rejected, the others more responses to the same two prompts |
| `rewards` | the same sequences without tokens, `Batch::of_sequences(8)`, for a reward model |
| `labels`, `packing`, `pairs` | those of the batch |
| `groups` | the responses to each prompt, best first |
| `policy`, `reference`, `other` | by token: log-probs under the policy, the reference, and another model |
| `log_sum_squares` | by token: the logarithm of the sum over the vocabulary of the policy's squared probabilities |
| `scores`, `averages`, `prompts`, `desirable` | by sequence: of a judge or reward model; average log-probs of other models; which prompt it answers; 1 or 0 |
| `sums` | by sequence: sums of log-probs under the policy as it is, the policy that sampled, and the reference |
| `gaps`, `margins`, `annotators` | by pair: of rewards; of implicit rewards, chosen less rejected in `forward.terms()[0].rewards`; who labelled it |
| `dpo`, `before`, `swapped` | logits of teachers: after DPO, before it, and after DPO on swapped pairs |
| `logits`, `others` | `[32, 7]` logits of the policy, and of the reference or of the policy without the user's history |
| `sentences` | which tokens are a sentence, and whether it is true |

The calls need `use prefuse::{Cpu, Distillation, Loss, MaskedRows, ScalarLoss, Sequences, Slice, Term}` and
`prefuse::mixed_token_log_probs`; `Teacher` and `TokenDivergence` are in
`prefuse::stages`, objectives and what they are set with, `Ranking` and `Reduction` are in
`prefuse::objectives`, what a batch is made of in `prefuse::batch`, all else in `prefuse::statistics`.

The last column says where the formula was read. Losses that are no paper of the list, and others that are better
known by another name, stand at the end.

";

const NAMES_HEAD: &str = "\
## By the names that people know

Losses whose name is not that of an objective, with their variants; [`objectives.md`](objectives.md) has the
objectives by theirs, and their parameters.

| name | what it is | call |
|---|---|---|
";

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The calls by line, each after what part it is.
fn lines(calls: &[Call]) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for call in calls {
        if !call.part.is_empty() {
            lines.push(format!("{}:", call.part));
        }
        lines.extend(call.code.lines().map(|line| format!("`{}`", line.replace('|', "\\|"))));
    }
    lines
}

fn row(paper: &Paper) -> String {
    let mut what = format!("**{}**", cell(paper.name));
    if !paper.title.is_empty() {
        write!(what, "<br>{}", cell(paper.title)).unwrap();
    }
    let mut calls = lines(&paper.calls);
    if !paper.missing.is_empty() {
        calls.push(cell(paper.missing));
    }
    let [trains, known] = [paper.trains, paper.known].map(cell);
    format!("| {what} | {trains} | {} | {known} |\n", calls.join("<br>"))
}

fn sections() -> [(&'static str, Vec<Paper>); 5] {
    [
        ("Pairs and single responses", pairs::papers()),
        ("Groups, policy gradients and distillation", groups::papers()),
        ("Reward models", rewards::papers()),
        ("With a loss that is there already", users::papers()),
        ("Without a training objective", users::without_an_objective()),
    ]
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    for (title, papers) in sections() {
        writeln!(text, "## {title}\n").unwrap();
        text += "| paper | trains with | call | certainty |\n|---|---|---|---|\n";
        papers.iter().for_each(|paper| text += &row(paper));
        text.push('\n');
    }
    text += NAMES_HEAD;
    for Name { name, is, calls } in names() {
        let (name, is, calls) = (cell(name), cell(is), lines(&calls).join("<br>"));
        writeln!(text, "| **{name}** | {is} | {calls} |").unwrap();
    }
    text
}

/// What each call is for, and the call.
fn calls() -> Vec<(&'static str, Vec<Call>)> {
    let papers = sections().into_iter().flat_map(|(_, papers)| papers);
    let named = names().into_iter().map(|name| (name.name, name.calls));
    papers.map(|paper| (paper.name, paper.calls)).chain(named).collect()
}

#[test]
fn every_call_runs() {
    for (name, calls) in calls() {
        for call in calls {
            (call.run)().unwrap_or_else(|error| panic!("{name}: {error}\n{}", call.code));
        }
    }
}

#[test]
fn the_table_is_that_of_the_calls() {
    assert_docs("papers.md", &table(), "papers");
}

/// Without a call a row says why; what is known of the formula is said in the same words everywhere.
#[test]
fn every_row_is_complete() {
    for paper in sections().into_iter().flat_map(|(_, papers)| papers) {
        let Paper { name, trains, calls, missing, known, .. } = paper;
        assert!(KNOWN.iter().any(|start| known.starts_with(start)), "{name}: {known}");
        let nothing = trains.contains("nothing is trained");
        assert!(nothing == (calls.is_empty() && missing.is_empty()), "{name}");
        assert!(missing.is_empty() || missing.contains("outside"), "{name}");
    }
    for (name, calls) in calls() {
        let parts = calls.iter().filter(|call| !call.part.is_empty()).count();
        assert!(
            parts == calls.len() || calls.len() == 1,
            "{name}: each of several calls says what"
        );
        for call in calls {
            // A backtick would end the code that a line of a cell is.
            let fits = |line: &str| line.len() <= 100 && !line.contains('`');
            assert!(call.code.lines().all(fits), "{name}: {}", call.code);
        }
    }
}

#[test]
fn no_paper_is_left_out() {
    let papers = sections().into_iter().flat_map(|(_, papers)| papers);
    let mut names: Vec<&str> = papers.map(|paper| paper.name).collect();
    names.sort_unstable();
    let mut expected: Vec<&str> = NAMES.lines().flat_map(|line| line.split(", ")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(names.len(), 56);
}

/// What people ask for by name stands in one of the tables.
#[test]
fn no_name_is_left_out() {
    let read = |file: &str| std::fs::read_to_string(root().join("docs").join(file)).unwrap();
    let tables = read("objectives.md") + &table();
    for name in LOSSES.lines().flat_map(|line| line.split(", ")) {
        assert!(tables.contains(name), "{name}");
    }
}

const LOSSES: &str = "\
cDPO, robust, IPO, RSO, SLiC, EXO, NCA, bco_pair, SPPO, SPPO hard, APO, DiscoPOP, Length-normalised DPO, f-DPO
AOT, AOT-unpaired, RPO (reward-aware), RPO (iterative reasoning), LD-DPO, WPO, TGDPO, SAIL, MPO, MM-DPO, RE-PO
CPO, SimPO, CPO-SimPO, AlphaPO, ORPO, TPO, TPO-L, PoFT, InfiFPO, CREAM, SPA, Selfie, SELM, iREPO, SCIR
Curry-DPO, PA-RAG, KTO, APO-zero without pairs, BCO without pairs, NLL, Nash-MD, XPO, Scaled Bradley-Terry, Eurus
Centered Bradley-Terry, Bradley-Terry with margins, Masked multi-attribute regression, MM-RLHF, Keep-masks
PPO, dual clip, GRPO, Dr. GRPO, BNPO, DAPO, GSPO, GMPO, CISPO, SAPO, LUSPO, RLOO, P3O, TRPA, GRPO-S, ReSpace, VESPO
k1, k2, k3, entropy bonus, Plackett-Luce, PRO, KnowPAT, RRHF, LiPO-lambda, InfoNCA, SteerLM 2.0, soft-target
All-pairs Bradley-Terry, DPA-RAG, MORE, TRPA's preference levels, CycleAlign, ListMLE, REINFORCE, HelpSteer2, ArmoRM";

/// The source list: 15 papers whose loss asks for something new, 20 more with an objective of their own,
/// 21 that use an existing one or none.
const NAMES: &str = "\
Mask-DPO, PRO, KnowPAT, ADPA and DCKD, AlignDistil, InfiFPO, MM-RLHF, LCPO, SPPO, TPO
NextQuill, SAIL, PoFT, DPA-RAG, DPA
Eurus, iREPO, CREAM, SPA, SELM, TRPA, P3O, CycleAlign, MPO, Curry-DPO
DR-IRL, CRM, SCIR, HelpSteer2, ArmoRM, MORE, Reward-augmented DPO, DPORM, AlignXplore, ReSpace
PA-RAG, TEMPLE, Prompt-A-Video, AesthetiQ, CrisiText, COIG-P, EVOREFUSE, Weaver, CodeUltraFeedback
OpenRubrics, Value Drifts, Dialectical Alignment, Align2LLaVA, RAG-RewardBench, JudgeBench, Janus
PREFDISCO, CIPHER, PROFILE, Dissecting Preferences, MLLM preference survey";
