//! The text of each objective through a C++ compiler gives the same numbers as its Rust: it is what
//! will be compiled for CUDA.

use std::collections::BTreeMap;
use std::process::Command;

use prefuse::objectives::{AnyObjective, Response, objectives};

use crate::units::{Unit, random_unit};

/// The types, one call for each evaluation, and what Rust says of it.
#[derive(Default)]
struct Program {
    types: BTreeMap<&'static str, String>,
    calls: String,
    expected: Vec<f64>,
}

impl Program {
    fn add(&mut self, objective: &AnyObjective, unit: &Unit) {
        let (name, [unit_type, _]) = (objective.name(), objective.unit());
        self.types.insert(name, objective.cuda().unwrap());
        let list = |values: &[f64]| {
            values.iter().map(|value| format!("{value:.17e}")).collect::<Vec<_>>().join(", ")
        };
        let parameters: Vec<f64> = objective.parameters().iter().map(|p| p.1).collect();
        // Brace elision fills nested structs in order.
        self.calls += &format!(
            "  show({name}{{{}}}, {unit_type}{{{}}});\n",
            list(&parameters),
            list(&fields(objective, unit))
        );
        let got = objective.evaluate(&unit.0, unit.1);
        let responses = objective.responses().len();
        self.expected.push(got.loss);
        self.expected.extend(&got.grads[..responses]);
        self.expected.extend(&got.rewards[..responses]);
    }

    fn source(&self) -> String {
        let types = self.types.values().cloned().collect::<Vec<_>>().join("\n");
        format!(
            r#"#include <cmath>
#include <cstdio>
#define __device__
#include "units.cuh"
#include "scalar.cuh"
namespace prefuse {{
{types}
void show(double x) {{ printf("%.17g\n", x); }}
void show(PerPair x) {{ show(x.chosen); show(x.rejected); }}
void show(PerSequence x) {{ show(x.response); }}
void show(PerJudgedPair x) {{
  show(x.chosen); show(x.rejected); show(x.verdict_chosen); show(x.verdict_rejected);
}}
PerPair per_response(Pair) {{ return {{}}; }}
PerSequence per_response(Sequence) {{ return {{}}; }}
PerJudgedPair per_response(JudgedPair) {{ return {{}}; }}
PerPair per_response(RewardPair) {{ return {{}}; }}
PerSequence per_response(Reward) {{ return {{}}; }}
void show(PerToken x) {{ show(x.policy); show(x.sequence); show(x.entropy); }}
PerToken per_response(Token) {{ return {{}}; }}
template <class Objective, class Unit> void show(Objective objective, Unit unit) {{
  double loss = 0.0;
  auto grad = per_response(unit), reward = per_response(unit);
  evaluate(objective, unit, loss, grad, reward);
  show(loss); show(grad); show(reward);
}}
void run() {{
{}}}
}}
int main() {{ prefuse::run(); }}
"#,
            self.calls
        )
    }

    /// What the compiled program prints, or `None` where there is no C++ compiler.
    fn run(&self) -> Option<Vec<f64>> {
        let folder = std::env::temp_dir().join(format!("prefuse-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, binary) = (folder.join("objectives.cpp"), folder.join("objectives"));
        std::fs::write(&file, self.source()).unwrap();
        let include = format!("-I{}", crate::common::root().join("kernels/include").display());
        let flags = ["-std=c++17", "-Wall", "-Werror", "-ffp-contract=off", &include, "-o"];
        let compiler = std::env::var("CXX").unwrap_or("c++".to_owned());
        let compiled = Command::new(&compiler).args(flags).arg(&binary).arg(&file).output();
        let output = compiled.ok().map(|compiled| {
            assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
            String::from_utf8(Command::new(&binary).output().unwrap().stdout).unwrap()
        });
        std::fs::remove_dir_all(folder).unwrap();
        output.map(|output| output.lines().map(|line| line.parse().unwrap()).collect())
    }
}

/// The fields of a unit's struct, in order.
fn fields(objective: &AnyObjective, (responses, given): &Unit) -> Vec<f64> {
    let all = |response: &Response| {
        let Response { policy, reference, tokens, weights, score, old, .. } = *response;
        [policy, reference, tokens, weights, score, old]
    };
    let count = objective.responses().len();
    let of_responses = || responses[..count].iter().flat_map(all);
    let policies = || responses[..count].iter().map(|response| response.policy);
    match objective.unit()[0] {
        "Pair" => of_responses().chain([given.beta, given.margin, given.soft_label]).collect(),
        "Sequence" => of_responses().chain([given.soft_label]).collect(),
        "JudgedPair" => of_responses().collect(),
        "RewardPair" => policies().chain([given.margin, given.soft_label]).collect(),
        "Token" => {
            let [token, sequence, entropy, _] = responses;
            let Response { policy, reference, score, old, .. } = *token;
            vec![policy, old, reference, score, entropy.policy, sequence.policy, sequence.tokens]
        }
        "Reward" => vec![responses[0].policy, responses[0].score],
        unit => panic!("{unit}"),
    }
}

/// The C library's functions may differ from those of Rust's platform by an ulp, and a loss may be a
/// difference of two that are 100 times as large.
#[test]
fn bodies_are_also_cpp() {
    let mut program = Program::default();
    for objective in objectives() {
        for seed in 0..30 {
            program.add(&objective, &random_unit(seed, &objective));
        }
    }
    let Some(got) = program.run() else {
        assert!(std::env::var_os("PREFUSE_REQUIRE_CXX").is_none(), "no C++ compiler");
        eprintln!("skipped: no C++ compiler");
        return;
    };
    assert_eq!(got.len(), program.expected.len());
    for (got, expected) in got.iter().zip(&program.expected) {
        approx::assert_relative_eq!(got, expected, max_relative = 1e-14, epsilon = 1e-14);
    }
}

/// The objectives of the list check themselves, and have names, parameters, a text and a description.
#[test]
fn the_list_is_complete() {
    let others = [
        "any",
        "columns",
        "elementary",
        "mod",
        "objective",
        "parameter",
        "ranking",
        "rankings",
        "reduction",
        "scalar",
        "units",
    ];
    let mut files: Vec<String> = std::fs::read_dir(crate::common::root().join("src/objectives"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !others.contains(&name.as_str()))
        .map(|name| name.replace('_', ""))
        .collect();
    for objective in objectives() {
        let name = objective.name();
        assert!(objective.check().is_ok(), "{name}");
        assert!(objective.source().is_some(), "{name}");
        let described = objective.description().unwrap();
        assert!(described.doc.len() > 40, "{name}");
        let parameters = objective.parameters();
        assert!(parameters.iter().all(|(_, value)| value.is_finite()), "{name}");
        let names = described.parameters.iter().map(|parameter| parameter.name);
        assert!(names.eq(parameters.iter().map(|parameter| parameter.0)), "{name}");
        assert!(described.parameters.iter().all(|parameter| parameter.doc.len() > 3), "{name}");
        files.retain(|file| *file != name.to_lowercase());
    }
    assert_eq!(files, Vec::<String>::new(), "files without an entry in the list");
}
