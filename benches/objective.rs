//! Stage 3: units that each objective evaluates in a second.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prefuse::objectives::{Given, Response, objectives};

fn benches(criterion: &mut Criterion) {
    let response = |policy: f64| Response::new(policy, 30.0).with_reference(-40.0).with_score(0.5);
    let units: Vec<[Response; 4]> = (0..4096)
        .map(|unit| [13, 7, 5, 3].map(|period| response(f64::from(unit % period) - 40.0)))
        .collect();
    let mut group = criterion.benchmark_group("objective");
    group.throughput(Throughput::Elements(units.len() as u64));
    // Those on tokens have a bench of their own.
    for objective in objectives().into_iter().filter(|objective| objective.unit()[0] != "Token") {
        let evaluate = |unit| objective.evaluate(unit, Given::NEUTRAL).loss;
        let run = || units.iter().map(evaluate).sum::<f64>();
        assert!(run().is_finite());
        group.bench_function(common::name(&objective), |bencher| bencher.iter(run));
    }
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
