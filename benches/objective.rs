//! Stage 3: bytes of pairs that each objective evaluates in a second.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::objectives::{Pair, Response, pair_objectives};

fn benches(criterion: &mut Criterion) {
    let response = |policy: f64| Response::new(policy, 30.0).with_reference(-40.0);
    let pairs: Vec<Pair> = (0..4096)
        .map(|pair| {
            let shift = |period| f64::from(pair % period) - 40.0;
            Pair::new(response(shift(13)), response(shift(7)))
        })
        .collect();
    let mut group = criterion.benchmark_group("objective");
    group.throughput(Throughput::Bytes(size_of_val(&pairs[..]) as u64));
    for objective in pair_objectives() {
        let run = || pairs.iter().map(|pair| objective.evaluate(pair).loss).sum::<f64>();
        assert!(run().is_finite());
        let name = objective
            .parameters()
            .iter()
            .fold(objective.name().to_owned(), |name, (key, value)| {
                format!("{name} {key} {value}")
            });
        group.bench_function(name, |bencher| bencher.iter(run));
    }
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
