//! Stage 4 of a difference of two models' logits: bytes of both read, and of the gradients written, in a
//! second.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{labels, logits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Combination, Logits, LogitsMut};
use prefuse::{Cpu, Element, MaskedRows, Slice, mixed_token_log_probs};

fn bench<T: Element>(criterion: &mut Criterion, tokens: usize, vocab: usize) {
    let (data, labels) = (logits::<T>(tokens, vocab), labels(tokens, vocab, false));
    let near = |(i, x): (usize, &T)| T::from_f64(x.to_f64() / 2.0 + (i as f64).sin());
    let other: Vec<T> = data.iter().enumerate().map(near).collect();
    let both = [&data, &other].map(|data| Logits::new(data, tokens, vocab).unwrap());
    let mixture = Combination::new(&[(1.0, both[0]), (-1.0, both[1])]).unwrap();
    let cpu = Cpu::new();
    let forward = mixed_token_log_probs(&cpu, &mixture, &labels, None, 1.0).unwrap();
    let upstream = vec![1.0_f32; tokens];
    let mut grads = [data.clone(), data.clone()];
    let name = format!("mixed_logit_grads/{}/{tokens}x{vocab}", T::DTYPE);
    let mut group = criterion.benchmark_group(name);
    for (name, parts) in [("by both", 2), ("by the first", 1)] {
        let bytes = (2 + parts) * data.len() * T::DTYPE.size();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let to = grads.iter_mut().enumerate().map(|(part, grads)| {
                    (part < parts).then(|| LogitsMut::new(grads, tokens, vocab).unwrap())
                });
                let (both, tokens) = ((&mixture, to.collect()), (&labels, None));
                let (upstream, masked) = (Slice::new(&upstream), MaskedRows::Zero);
                forward.logit_grads(&cpu, both, tokens, upstream, masked).unwrap();
            });
        });
    }
    for grads in &grads {
        let sum: f64 = grads[..vocab].iter().map(|grad| grad.to_f64()).sum();
        assert!(sum.abs() < 1e-2, "a row of the gradient sums to 0");
    }
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    each_shape!(bench, criterion);
}

criterion_group! { name = group; config = Criterion::default().sample_size(20); targets = benches }
criterion_main!(group);
