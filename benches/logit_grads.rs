//! Stage 4: bytes of logits read and of gradient written in a second.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{labels, logits};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Logits, LogitsMut};
use prefuse::{Cpu, Element, MaskedRows, RowOptions, Slice, Target, token_log_probs};

fn bench<T: Element>(criterion: &mut Criterion, tokens: usize, vocab: usize) {
    let (data, labels) = (logits::<T>(tokens, vocab), labels(tokens, vocab, false));
    let view = Logits::new(&data, tokens, vocab).unwrap();
    let cpu = Cpu::new();
    let forward = token_log_probs(&cpu, view, &labels, None, RowOptions::default()).unwrap();
    let upstream = vec![1.0_f32; tokens];
    let run = |target: Target<'_>| {
        let upstream = (Slice::new(&upstream), None);
        forward.logit_grads(&cpu, target, (&labels, None), upstream, MaskedRows::Zero).unwrap();
    };
    let mut grads = data.clone();
    let mut group = criterion.benchmark_group(format!("logit_grads/{}/{tokens}x{vocab}", T::DTYPE));
    group.throughput(Throughput::Bytes((2 * data.len() * T::DTYPE.size()) as u64));
    group.bench_function("out of place", |bencher| {
        bencher.iter(|| {
            let grads = LogitsMut::new(&mut grads, tokens, vocab).unwrap();
            run(Target::OutOfPlace { logits: view, grads });
        });
    });
    let sum: f64 = grads[..vocab].iter().map(|grad| grad.to_f64()).sum();
    assert!(sum.abs() < 1e-2, "a row of the gradient sums to 0");
    group.bench_function("in place", |bencher| {
        bencher.iter_batched_ref(
            || data.clone(),
            |data| run(Target::InPlace(LogitsMut::new(data, tokens, vocab).unwrap())),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    each_shape!(bench, criterion);
}

criterion_group! { name = group; config = Criterion::default().sample_size(20); targets = benches }
criterion_main!(group);
