//! Stage 3 over tokens: tokens that each objective evaluates in a second on one core, gradient included.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs};
use prefuse::objectives::objectives;
use prefuse::stages::{
    TokenAdvantages, TokenInputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
    Tokens, UnitScale,
};
use prefuse::{Backend, Cpu, Slice, SliceMut, Term};

fn benches(criterion: &mut Criterion) {
    let (sequences, length) = (256, 1024);
    let count = sequences * length;
    let log_probs: Vec<f32> = (0..count).map(|t| -((t % 17) as f32) / 4.0).collect();
    let other = |period: usize| -> Vec<f32> {
        let shift = |t: usize| ((t % period) as f32 - 9.0) / 16.0;
        log_probs.iter().enumerate().map(|(t, x)| x + shift(t)).collect()
    };
    let (old, reference) = (other(19), other(23));
    let entropy: Vec<f32> = (0..count).map(|t| (t % 13) as f32 / 4.0).collect();
    let advantages: Vec<f64> = (0..sequences).map(|s| (s % 7) as f64 - 3.0).collect();
    let batch =
        Batch::new(Labels::new(vec![1; count]), Packing::padded(sequences, length).unwrap())
            .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&old)))
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
            .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&advantages[..])?))
            .unwrap();
    let cpu = Cpu::new();
    let packing = batch.packing().place(&cpu).unwrap();
    let counts = vec![length as f64; sequences];
    let core = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("token_objective");
    group.throughput(Throughput::Elements(count as u64));
    for objective in objectives().into_iter().filter(|objective| objective.unit()[0] == "Token") {
        let name = common::name(&objective);
        let term = Term::new(objective).resolve(&batch).unwrap().place(&cpu, &batch).unwrap();
        let mut losses = vec![0.0_f64; sequences];
        let (mut grads, mut by_entropy) = (vec![0.0_f32; count], vec![0.0_f32; count]);
        let mut run = || {
            let grads = TokenObjectiveGrads {
                log_probs: SliceMut::new(&mut grads),
                entropy: Some(SliceMut::new(&mut by_entropy)),
            };
            let outputs = TokenObjectiveOutputs {
                losses: SliceMut::new(&mut losses),
                grads: Some((grads, UnitScale::Reduced(1.0))),
            };
            let inputs = TokenInputs {
                log_probs: Slice::new(&log_probs),
                old: Some(Slice::new(&old)),
                reference: Some(Slice::new(&reference)),
                entropy: Some(Slice::new(&entropy)),
                advantages: Some(TokenAdvantages::Sequences(Slice::new(&advantages))),
            };
            let tokens = (Tokens::of(&batch), &packing);
            let known = (inputs, Slice::new(&counts));
            let stage = TokenObjective::new(&cpu, &term, tokens, known, outputs).unwrap();
            cpu.token_objective(stage).unwrap();
            losses[0]
        };
        assert!(run().is_finite());
        group.bench_function(name, |bencher| bencher.iter(|| core.install(&mut run)));
    }
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
