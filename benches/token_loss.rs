//! A policy gradient's loss and its gradient by the logits: the stages one after another, and in one
//! visit; bytes are those of one read and one write.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use prefuse::batch::{Advantages, Batch, LogitsMut, Packing, ReferenceLogProbs};
use prefuse::objectives::{KlPenalty, PpoClip};
use prefuse::{Cpu, Element, Loss, MaskedRows, Sequences, Target, Term, Upstream};

const TOKENS: usize = 256;

fn bench<T: Element>(criterion: &mut Criterion) {
    let near = |shift: f64| -> Vec<f64> {
        (0..TOKENS).map(|t| -12.0 + shift * (t as f64).sin()).collect()
    };
    let packing = Packing::padded(4, TOKENS / 4).unwrap();
    let batch = Batch::new(common::labels(TOKENS, common::VOCAB, false), packing)
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&near(0.2))))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&near(-0.3))))
        .and_then(|batch| batch.with_advantages(Advantages::per_sequence(&[1., -1., 0.5, -0.5])?))
        .unwrap();
    let all = || Sequences::All;
    let kl = Term::tokens(KlPenalty::new(), all()).with_weight(0.04);
    let loss = Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.28), all()), kl]).unwrap();
    let mut logits: Vec<T> = common::logits(TOKENS, common::VOCAB);
    let (cpu, upstream, masked) = (Cpu::new(), Upstream::Loss(1.0), MaskedRows::Zero);
    let mut group = criterion.benchmark_group("token_loss");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(2 * size_of_val(&logits[..]) as u64));
    // In place, as trainers run it: from the second time on the logits are gradients, which take as
    // long.
    group.bench_function(format!("stages {}", T::DTYPE), |bencher| {
        bencher.iter(|| {
            let target = LogitsMut::new(&mut logits, TOKENS, common::VOCAB).unwrap();
            let forward = loss.forward(&cpu, target.view()).unwrap();
            let value = forward.loss();
            loss.logit_grads_in_place(&cpu, forward, target, upstream, masked).unwrap();
            value
        });
    });
    group.bench_function(format!("one visit {}", T::DTYPE), |bencher| {
        bencher.iter(|| {
            let target = LogitsMut::new(&mut logits, TOKENS, common::VOCAB).unwrap();
            let target = Target::InPlace(target);
            loss.forward_with_logit_grads(&cpu, target, upstream, masked).unwrap().loss()
        });
    });
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    bench::<f32>(criterion);
    bench::<bf16>(criterion);
}

criterion_group!(group, benches);
criterion_main!(group);
