//! The text of each objective through a C++ compiler gives the same numbers as its Rust: it is what
//! will be compiled for CUDA.

use std::collections::BTreeMap;
use std::process::Command;

use prefuse::objectives::{
    Objective, Response, Sequence, Unit, pair_objectives, sequence_objectives,
};

use crate::objective::random_pair;

/// The types, one call for each evaluation, and what Rust says of it.
#[derive(Default)]
struct Program {
    types: BTreeMap<&'static str, String>,
    calls: String,
    expected: Vec<f64>,
}

impl Program {
    fn add<U: Unit>(&mut self, objective: &dyn Objective<U>, fields: &[f64], expected: &[f64]) {
        let (name, [unit, _]) = (objective.name(), U::NAMES);
        self.types.insert(name, objective.source().unwrap().cuda(objective));
        let list = |values: &[f64]| {
            values.iter().map(|value| format!("{value:.17e}")).collect::<Vec<_>>().join(", ")
        };
        let parameters: Vec<f64> = objective.parameters().iter().map(|p| p.1).collect();
        // Brace elision fills nested structs in order.
        self.calls +=
            &format!("  show({name}{{{}}}, {unit}{{{}}});\n", list(&parameters), list(fields));
        self.expected.extend(expected);
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
PerPair per_response(Pair) {{ return {{}}; }}
PerSequence per_response(Sequence) {{ return {{}}; }}
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

fn fields(response: Response) -> [f64; 4] {
    [response.policy, response.reference, response.tokens, response.weights]
}

/// The C library's exponential may differ from that of Rust's platform by an ulp.
#[test]
fn bodies_are_also_cpp() {
    let mut program = Program::default();
    for objective in pair_objectives() {
        for seed in 0..50 {
            let pair = random_pair(seed, &*objective);
            let got = objective.evaluate(&pair);
            let responses = [fields(pair.chosen), fields(pair.rejected)].concat();
            let unit = [responses, vec![pair.beta, pair.margin, pair.soft_label]].concat();
            let (grad, reward) = (got.grad, got.reward);
            let expected = [got.loss, grad.chosen, grad.rejected, reward.chosen, reward.rejected];
            program.add(&*objective, &unit, &expected);
        }
    }
    for objective in sequence_objectives() {
        let response = Response::new(-7.5, 17.0);
        let got = objective.evaluate(&Sequence::new(response));
        let expected = [got.loss, got.grad.response, got.reward.response];
        program.add(&*objective, &fields(response), &expected);
    }
    let Some(got) = program.run() else {
        assert!(std::env::var_os("PREFUSE_REQUIRE_CXX").is_none(), "no C++ compiler");
        eprintln!("skipped: no C++ compiler");
        return;
    };
    assert_eq!(got.len(), program.expected.len());
    for (got, expected) in got.iter().zip(&program.expected) {
        approx::assert_relative_eq!(got, expected, max_relative = 1e-14, epsilon = 1e-15);
    }
}

/// The objectives of the list check themselves, and have names, parameters and a text.
#[test]
fn the_list_is_complete() {
    let mut files: Vec<String> = std::fs::read_dir(crate::common::root().join("src/objectives"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !["mod.rs", "objective.rs", "scalar.rs", "units.rs", "reduction.rs"]
                .contains(&name.as_str())
        })
        .map(|name| name.trim_end_matches(".rs").replace('_', ""))
        .collect();
    let pairs = pair_objectives();
    let sequences = sequence_objectives();
    for (name, parameters, checked, source) in pairs
        .iter()
        .map(|o| (o.name(), o.parameters(), o.check(), o.source()))
        .chain(sequences.iter().map(|o| (o.name(), o.parameters(), o.check(), o.source())))
    {
        assert!(checked.is_ok(), "{name}");
        assert!(parameters.iter().all(|(_, value)| value.is_finite()), "{name}");
        assert!(source.is_some(), "{name}");
        files.retain(|file| *file != name.to_lowercase());
    }
    assert_eq!(files, Vec::<String>::new(), "files without an entry in the list");
}
