//! `docs/objectives.md` is written from the list of objectives.

use std::fmt::Write;

use prefuse::objectives::{
    AnyObjective, Description, ParameterDescription, ParameterKind, objectives, rankings,
};

use crate::common::root;
use crate::docs::assert_docs;

const HEAD: &str = "\
# Objectives

Every loss of the crate, from the list in [`src/objectives/mod.rs`](../src/objectives/mod.rs); this table is
written from it. What its paper calls the loss is the default; where published code differs, that is an
option. A loss over several kinds of units is a list of terms: [`papers.md`](papers.md) has the calls, by paper and
by the names that people know, such as AOT, WPO, RRHF or Dr. GRPO.

`log-ratio` is the policy's sum of log-probs minus the reference's, over the counted tokens of a response
under the batch's token weights. A parameter with a default is set by `with_` and its name. *Uses* names the
inputs beside the policy's sums and counts: a reference, scores and a single sequence's soft labels have to be
there, what is given for a pair (beta as a factor of the objective's, margin, soft label) may be, and has to be
where it says so. What is given and not used is an error, but for pairs beside terms over others, for parameters
that another parameter leaves unread, such as `alpha` without `Divergence::Alpha`, and in a `Loss` for a reference:
`Forward::reference_sums` has its sums, for logs of implicit rewards, whatever the terms are. No metric reads it but
by a term that uses it, and a `ScalarLoss` without such a term refuses it. Each term over pairs or sequences
also takes a weight for each of them; 0 takes it out of the sum, not out of a mean's count.

";

const RANKINGS: &str = "\
## Over groups: `Term::groups`

A `Ranking` (`src/objectives/ranking.rs`) is a loss of the `K` responses of a group, of `z`, `scale` times a
response's `Sum`, `Average` or `LogRatio`; `with_value` and `with_scale` choose others than the default. The
groups may have a weight each. Sums over pairs of responses by themselves are terms over `Groups::pairs`. Where
responses stand best first, scores may be equal along a group but not rise, whichever term they are for.

| ranking | what it is | uses |
|---|---|---|
| `plackett_luce(beta)` | Plackett-Luce DPO (Rafailov et al., 2023, appendix A.3): `sum over k of log(sum over j >= k of exp(z[j])) - z[k]`, best response first, `z = beta * log-ratio` | reference |
| `pro()` | The ranking term of PRO (Song et al., 2024): the same with `z[j] * (r[k] - r[j])` and `z[k]` times the largest of these gaps, `z` the average log-prob | scores, best first |
| `info_nca(beta, temperature)` | InfoNCA (Chen et al., 2024): `-sum over i of q[i] * log softmax(z)[i]`, `q = softmax(score / temperature)`, `z = beta * log-ratio` | reference, scores |
| `nca(beta, temperature)` | NCA (Chen et al., 2024): `sum over i of q[i] * softplus(-z[i]) + softplus(z[i]) / K`, `q` and `z` as for InfoNCA | reference, scores |
| `steer_lm()` | SteerLM 2.0 (HelpSteer2; Wang et al., 2024): InfoNCA with beta and temperature 1, the reference the proposal's log-prob | reference, scores |
| `know_pat()` | The ranking term of KnowPAT (Zhang et al., 2024): `sum over i < K of mu[i] * (softplus(-z[i]) + sum over j > i of softplus(z[j])) / (K - 1)`, best response first, `z` the average log-prob, `mu[i] = (z[i] - min z) / (max z - min z)` constants, 0 where all are equal. `know_pat_released()`: the mean over `j`, and 3 for `K - 1` | |
| `lipo_lambda(beta)` | LiPO-lambda (Liu et al., 2024): `sum over r[i] > r[j] of w[i, j] * softplus(-(z[i] - z[j]))`, `z = beta * log-ratio`, `w[i, j] = abs(2^r[i] - 2^r[j]) * abs(1 / log(1 + t[i]) - 1 / log(1 + t[j]))`, `t` the rank by `z`, constants; the natural logarithm and no factor are reconstructed. `lipo_lambda_rax(beta)`: the logarithm to base 2, and times `K` | reference, scores up to 500 |

";

const TAIL: &str = "\
## Reductions

What divides the sum of a term's losses ([`Reduction`](../src/objectives/reduction.rs)); the term's weight
multiplies the result.

| reduction | divisor | as in |
|---|---|---|
| `Mean` | the term's units: pairs, sequences, or for token objectives counted tokens | every published pair loss; with `length_normalized` the mean over sequences of a mean over tokens |
| `TokenMean` | the counted tokens of the term's units, at least 1 | TRL's `sft` term |
| `SequenceMean` | for token objectives only: each sequence's counted tokens (at least 1) and the number of sequences | GRPO |
| `Divisor(n)` | a number from outside | the tokens or pairs of a whole accumulation window or of all ranks; a fixed constant |
| `Sum` | 1 | Plackett-Luce and other sums; a caller who divides later |

## What surprises

* A response without counted tokens, empty or wholly masked, is a response all the same: its sums and averages are
  0, and a mean counts its unit. `forward.totals().tokens` tells which they are; select the others to leave them
  out.
* `Sequences::Chosen` are the chosen sequences of all the batch's pairs, also beside a term over a selection of
  them: name theirs by `Sequences::Indices`.
* `Nll` with `length_normalized` and `TokenMean` divides by the tokens twice.
* A selection by a statistic, such as `easy_pairs` or `keep_largest`, may be empty, and a mean over nothing is an
  error: leave the term out of that step, or give it another reduction.
";

/// A doc comment's paragraph on one line, for a cell of a table.
fn cell(paragraph: &str) -> String {
    let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    without_links(text)
}

fn without_links(mut text: String) -> String {
    // Links within the crate's own documentation lead nowhere here.
    while let Some(start) = text.find("](super::").or(text.find("](crate::")) {
        let end = start + text[start..].find(')').unwrap();
        text.replace_range(start + 1..=end, "");
    }
    text.replace("[`", "`").replace("`]", "`")
}

fn default(parameter: &ParameterDescription) -> Option<String> {
    let default = parameter.default?;
    Some(match parameter.kind {
        ParameterKind::Number => format!("{default}"),
        ParameterKind::Switch => format!("{}", default == 1.0),
        ParameterKind::OneOf { name, variants } => {
            format!("{name}::{}", variants[default as usize])
        }
    })
}

fn parameter(parameter: &ParameterDescription) -> String {
    let default = default(parameter).map_or(String::new(), |default| format!(" = `{default}`"));
    let domain = match parameter.kind {
        ParameterKind::Number => parameter.expected.to_owned(),
        ParameterKind::Switch => "a switch".to_owned(),
        ParameterKind::OneOf { variants, .. } => variants.join(", "),
    };
    let doc = cell(parameter.doc);
    format!("`{}`{default}: {} ({domain})", parameter.name, doc.trim_end_matches('.'))
}

fn row(table: &mut String, objective: &AnyObjective, description: &Description) {
    let (name, inputs, required) = (objective.name(), objective.inputs(), objective.required());
    let mut file = String::new();
    for (position, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && position > 0 {
            file.push('_');
        }
        file.extend(letter.to_lowercase());
    }
    assert!(root().join(format!("src/objectives/{file}.rs")).exists(), "{file}");
    let what = cell(description.doc.split("\n\n").next().unwrap());
    let parameters: Vec<_> = description.parameters.iter().map(parameter).collect();
    let uses = [
        (inputs.reference, "reference"),
        (inputs.score, "scores"),
        (inputs.soft_label && !required.soft_label, "soft label"),
        (required.soft_label, "soft label, which has to be given"),
        (inputs.beta, "beta"),
        (inputs.margin && !required.margin, "margin"),
        (required.margin, "margin, which has to be given"),
        (inputs.advantage, "advantages"),
        (inputs.old, "old log-probs (else the policy's own)"),
        (inputs.entropy, "entropies"),
    ];
    let uses: Vec<_> = uses.into_iter().filter(|(uses, _)| *uses).map(|(_, name)| name).collect();
    writeln!(
        table,
        "| [`{name}`](../src/objectives/{file}.rs) | {what} | {} | {} |",
        parameters.join("<br>"),
        uses.join(", ")
    )
    .unwrap();
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    for (unit, title) in [
        ("Pair", "Over pairs: `Term::pairs`"),
        ("Sequence", "Over single sequences: `Term::sequences`"),
        ("Token", "Over sampled tokens: `Term::tokens`"),
        ("JudgedPair", "Over pairs and a judge's verdicts: `Term::judged_pairs`"),
        ("RewardPair", "Over pairs of rewards: `Term::reward_pairs`, in a `ScalarLoss`"),
        ("Reward", "Over rewards: `Term::rewards`, in a `ScalarLoss`"),
    ] {
        writeln!(text, "## {title}\n").unwrap();
        text += "| objective | what it is | parameters | uses |\n|---|---|---|---|\n";
        let mut last = "";
        for objective in objectives().iter().filter(|objective| objective.unit()[0] == unit) {
            if objective.name() != last {
                row(&mut text, objective, &objective.description().unwrap());
                last = objective.name();
            }
        }
        text.push('\n');
    }
    for listed in rankings() {
        assert!(RANKINGS.contains(&format!("`{}`", listed.call)), "{listed:?}");
    }
    text + RANKINGS + &statistics() + TAIL
}

const STATISTICS: &str = "\
## Statistics

Numbers without gradient, `prefuse::statistics`, that a loss then takes as constants.

";

fn statistics_source() -> String {
    std::fs::read_to_string(root().join("src/statistics/mod.rs")).unwrap()
}

/// The table of the module's documentation, without its links, and what each of its items is.
fn statistics() -> String {
    let source = statistics_source();
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! |"));
    let rows = rows.map(|row| format!("|{}\n", without_links(row.to_owned())));
    let mut text = format!("{STATISTICS}{}\n", rows.collect::<String>());
    text += "| statistic | what it is |\n|---|---|\n";
    let files = std::fs::read_dir(root().join("src/statistics")).unwrap();
    let files: Vec<String> =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for name in statistics_names() {
        let docs = files.iter().filter_map(|file| doc_of(file, &name));
        let [doc] = &docs.collect::<Vec<_>>()[..] else { panic!("not one {name}") };
        writeln!(text, "| `{name}` | {} |", cell(doc)).unwrap();
    }
    text + "\n"
}

/// The first paragraph about a public function or type, if the file has it.
fn doc_of(file: &str, name: &str) -> Option<String> {
    let starts = |line: &str, kind: &str| {
        let rest = line.strip_prefix(kind).and_then(|line| line.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['(', '<', ' ']))
    };
    let lines: Vec<&str> = file.lines().collect();
    let item = |line: &&str| starts(line, "pub fn ") || starts(line, "pub struct ");
    let end = lines.iter().position(item)?;
    let above = lines[..end].iter().rev().take_while(|line| line.starts_with(['/', '#']));
    let mut doc: Vec<&str> = above.filter_map(|line| line.strip_prefix("///")).collect();
    doc.reverse();
    let paragraph: Vec<&str> = doc.into_iter().take_while(|line| !line.is_empty()).collect();
    Some(paragraph.join(" "))
}

/// Functions and types that the module exports and that compute something.
fn statistics_names() -> Vec<String> {
    let source = statistics_source();
    let exports = source.split("pub use ").skip(1).flat_map(|export| {
        let (_, names) = export.split_once(';').unwrap().0.split_once("::").unwrap();
        names.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned)
    });
    // What they are set with.
    let settings =
        ["Baseline", "EmptySequences", "Fusion", "Singleton", "Spread", "Ties", "WpoClamp"];
    let settings = settings.into_iter().chain(["ALIGN_XPLORE_THRESHOLD", ""]);
    let settings: Vec<_> = settings.collect();
    exports.filter(|name| !settings.contains(&name.as_str())).collect()
}

#[test]
fn the_table_is_that_of_the_list() {
    let table = table();
    assert_docs("objectives.md", &table, "objectives_table");
    let names: std::collections::BTreeSet<_> =
        objectives().iter().map(AnyObjective::name).collect();
    assert_eq!(table.matches("](../src/objectives/").count(), names.len() + 2);
    for name in statistics_names() {
        assert!(table.contains(&format!("`{name}`")), "{name} is in no row");
    }
}
