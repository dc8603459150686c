//! Stage 1 of a difference of two models' logits: bytes of both read in a second, beside the log-probs under
//! each of them, which read as many.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{labels, logits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::batch::{Combination, Logits};
use prefuse::{Cpu, Element, RowOptions, mixed_token_log_probs, token_log_probs};

fn bench<T: Element>(criterion: &mut Criterion, tokens: usize, vocab: usize) {
    let (data, labels) = (logits::<T>(tokens, vocab), labels(tokens, vocab, false));
    let near = |(i, x): (usize, &T)| T::from_f64(x.to_f64() / 2.0 + (i as f64).sin());
    let other: Vec<T> = data.iter().enumerate().map(near).collect();
    let both = [&data, &other].map(|data| Logits::new(data, tokens, vocab).unwrap());
    let mixture = Combination::new(&[(1.0, both[0]), (-1.0, both[1])]).unwrap();
    let (cpu, plain) = (Cpu::new(), RowOptions::default());
    let name = format!("mixed_log_probs/{}/{tokens}x{vocab}", T::DTYPE);
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes((2 * data.len() * T::DTYPE.size()) as u64));
    let run = || mixed_token_log_probs(&cpu, &mixture, &labels, None, 1.0).unwrap();
    assert!(run().log_probs().to_vec().unwrap().iter().all(|&x| x < 0.0 && x > -40.0));
    group.bench_function("difference", |bencher| bencher.iter(run));
    let run = || both.map(|logits| token_log_probs(&cpu, logits, &labels, None, plain).unwrap());
    group.bench_function("each by itself", |bencher| bencher.iter(run));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    each_shape!(bench, criterion);
}

criterion_group! { name = group; config = Criterion::default().sample_size(20); targets = benches }
criterion_main!(group);
