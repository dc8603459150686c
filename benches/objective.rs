//! Stage 3: units of each objective in a second on one core, inputs read and losses, rewards, value and
//! gradients written.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{AnyObjective, objectives};
use prefuse::stages::{Objective, ObjectiveOutputs, Totals, UnitScale};
use prefuse::{Backend, Cpu, Slice, SliceMut, Term};

const UNITS: usize = 4096;

fn benches(criterion: &mut Criterion) {
    let cpu = Cpu::new();
    let core = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("objective");
    group.throughput(Throughput::Elements(UNITS as u64));
    // Those on tokens have a bench of their own.
    for objective in objectives().into_iter().filter(|objective| objective.unit()[0] != "Token") {
        let name = common::name(&objective);
        let sequences = UNITS * objective.responses().len();
        let numbers = |period: usize, least: f64| -> Vec<f64> {
            (0..sequences).map(|sequence| (sequence % period) as f64 + least).collect()
        };
        let (sums, reference, tokens) = (numbers(13, -40.0), numbers(7, -40.0), numbers(5, 20.0));
        let batch = batch(&objective, sequences);
        let term = Term::new(objective).resolve(&batch).unwrap().place(&cpu, &batch).unwrap();
        let (mut losses, mut rewards) = (vec![0.0_f64; UNITS], vec![0.0_f64; 2 * UNITS]);
        let (mut value, mut grads) = ([0.0_f64], vec![0.0_f64; sequences]);
        let mut scratch = vec![0.0_f64; cpu.objective_scratch(sequences)];
        let mut run = || {
            let outputs = ObjectiveOutputs {
                losses: SliceMut::new(&mut losses),
                rewards: SliceMut::new(&mut rewards),
                value: SliceMut::new(&mut value),
                grads: Some((SliceMut::new(&mut grads), UnitScale::Reduced(1.0))),
            };
            let tokens = Slice::new(&tokens);
            let policy = Totals { sums: Slice::new(&sums), tokens, weights: tokens };
            let inputs = (policy, Some(Slice::new(&reference)));
            let scratch = SliceMut::new(&mut scratch);
            cpu.objective(Objective::new(&cpu, &term, inputs, outputs, scratch).unwrap()).unwrap();
            value[0]
        };
        assert!(run().is_finite());
        group.bench_function(name, |bencher| bencher.iter(|| core.install(&mut run)));
    }
    group.finish();
}

/// Each unit's own sequences, with all that the objective looks at, and a weight.
fn batch(objective: &AnyObjective, sequences: usize) -> Batch<'static> {
    let (inputs, responses) = (objective.inputs(), objective.responses().len());
    let numbers =
        |count: usize| -> Vec<f64> { (0..count).map(|i| (i % 11 + 1) as f64 / 16.0).collect() };
    let packing = Packing::padded(sequences, 1).unwrap();
    let mut batch = Batch::new(Labels::new(vec![0; sequences]), packing).unwrap();
    let reference = ReferenceLogProbs::per_sequence(&vec![-40.0; sequences]);
    batch = batch.with_reference(reference).unwrap();
    if inputs.score {
        batch = batch.with_scores(vec![0.0; sequences]).unwrap();
    }
    if responses == 1 {
        if inputs.soft_label {
            batch = batch.with_soft_labels(numbers(sequences)).unwrap();
        }
        return batch.with_sequence_weights(numbers(sequences)).unwrap();
    }
    let of_unit = |first: usize| -> Vec<(usize, usize)> {
        (0..UNITS).map(|unit| unit * responses + first).map(|first| (first, first + 1)).collect()
    };
    let mut pairs =
        Pairs::new(of_unit(0)).and_then(|pairs| pairs.with_weight(numbers(UNITS))).unwrap();
    if responses == 4 {
        pairs = pairs.with_verdicts(of_unit(2)).unwrap();
    }
    if inputs.beta {
        pairs = pairs.with_beta(numbers(UNITS)).unwrap();
    }
    if inputs.margin {
        pairs = pairs.with_margin(numbers(UNITS)).unwrap();
    }
    if inputs.soft_label {
        pairs = pairs.with_soft_label(numbers(UNITS)).unwrap();
    }
    batch.with_pairs(pairs).unwrap()
}

criterion_group!(group, benches);
criterion_main!(group);
