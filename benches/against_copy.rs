//! The row stages, losses and divergences against a copy of the same tensor and against their floor, on the same
//! threads, in turn, minimum of N: `cargo bench --bench against_copy [-- ROWS]`. The floor is the larger of two
//! times: to move the same bytes once, and to compute as many exponentials in registers. All buffers are
//! ready, so no page faults are counted; each tensor was touched shortly before, so a last-level cache that
//! holds it serves it.
//!
//! `-- --sweep FILE` measures numbers of threads, vocabularies and few rows, and writes JSON for
//! `benches/table.py`.
//!
//! With `-- --serve TYPE ROWS FILE` it takes the logits from a file, runs what it reads from standard input
//! once each (its first line lists what there is, as JSON), and answers in nanoseconds and with the bytes that
//! were allocated at most meanwhile; `benches/against_torch.py` alternates that with torch.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
mod work;

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use common::{VOCAB, logits};
use half::{bf16, f16};
use peak_alloc::PeakAlloc;
use prefuse::{Cpu, Element, SimdLevel};
use serde_json::{Map, Value, json};
use work::{Bench, COPY, EXPONENTIALS, WORK, Work};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Rows where none are asked for.
const TOKENS: usize = 256;
const ROUNDS: usize = 30;

/// The least seconds of each work.
struct Times([f64; WORK.len()]);

impl Times {
    fn of<T: Element>(bench: &mut Bench<T>) -> Self {
        bench.check();
        let mut best = [Duration::MAX; WORK.len()];
        for _ in 0..ROUNDS {
            for (best, work) in best.iter_mut().zip(&WORK) {
                *best = bench.run(work.name).min(*best);
            }
        }
        Self(best.map(|best| best.as_secs_f64()))
    }

    fn get(&self, name: &str) -> f64 {
        self.0[WORK.iter().position(|work| work.name == name).unwrap()]
    }

    fn floor(&self, work: &Work) -> Option<f64> {
        let moves: f64 = work.moves.iter().map(|name| self.get(name)).sum();
        let exponentials = f64::from(work.exponentials) * self.get(EXPONENTIALS);
        (!work.moves.is_empty()).then_some(moves.max(exponentials))
    }

    fn json(&self) -> Value {
        let times = WORK.iter().zip(self.0).map(|(work, time)| {
            let floor = self.floor(work).map(|floor| floor * 1e3);
            (work.name.to_owned(), json!({ "milliseconds": time * 1e3, "floor": floor }))
        });
        Value::Object(times.collect::<Map<_, _>>())
    }

    fn print(&self) {
        for (work, time) in WORK.iter().zip(self.0) {
            let floor = self
                .floor(work)
                .map_or(String::new(), |floor| format!("{:6.2} of the floor", time / floor));
            let ratio = time / self.get(COPY);
            println!("{:48} {:8.2} ms {ratio:6.2} of the copy {floor}", work.name, time * 1e3);
        }
    }
}

fn report<T: Element>(cpu: Cpu, tokens: usize) {
    let mut bench = Bench::<T>::new(cpu, [tokens, VOCAB], logits(tokens, VOCAB));
    let times = Times::of(&mut bench);
    println!(
        "\n{} [{tokens}, {VOCAB}] {:?}, {} threads, minimum of {ROUNDS} rounds in turn; the copy moves {:.1} GB/s",
        T::DTYPE,
        cpu.simd(),
        rayon::current_num_threads(),
        2.0 * bench.bytes() as f64 / times.get(COPY) / 1e9,
    );
    times.print();
}

/// The types, instruction sets, numbers of threads, vocabularies and rows that are worth a figure of their own.
fn sweep(path: &str) {
    let most = rayon::current_num_threads();
    let elements = TOKENS * VOCAB;
    let mut cases = vec![];
    for threads in 1..=most {
        cases.push((Cpu::new(), threads, [TOKENS, VOCAB]));
    }
    for cpu in SimdLevel::ALL.into_iter().filter_map(Cpu::with_simd) {
        if cpu.simd() != Cpu::new().simd() {
            cases.push((cpu, most, [TOKENS, VOCAB]));
        }
    }
    for vocab in [1000, 8000, 32_000, 128_256, 262_144] {
        cases.push((Cpu::new(), most, [(elements / vocab).next_multiple_of(4), vocab]));
    }
    for threads in 1..=most {
        cases.push((Cpu::new(), threads, [8, VOCAB]));
    }
    let mut found = vec![];
    for (cpu, threads, shape) in cases {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let [tokens, vocab] = shape;
        for (dtype, times) in pool.install(|| {
            [
                ("bf16", Times::of(&mut Bench::<bf16>::new(cpu, shape, logits(tokens, vocab)))),
                ("f32", Times::of(&mut Bench::<f32>::new(cpu, shape, logits(tokens, vocab)))),
            ]
        }) {
            println!("\n{dtype} {shape:?} {:?}, {threads} threads", cpu.simd());
            times.print();
            found.push(json!({
                "dtype": dtype,
                "shape": shape,
                "simd": format!("{:?}", cpu.simd()),
                "threads": threads,
                "results": times.json(),
            }));
        }
    }
    std::fs::write(path, serde_json::to_string_pretty(&found).unwrap()).unwrap();
}

fn serve<T: Element>(tokens: usize, path: &str) {
    let mut bench = Bench::<T>::new(Cpu::new(), [tokens, VOCAB], read(path, tokens));
    bench.check();
    let all = WORK.iter().map(|work| json!([work.name, work.moves, work.exponentials]));
    println!("{}", Value::Array(all.collect()));
    for line in std::io::stdin().lock().lines() {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let nanoseconds = bench.run(line.unwrap().trim()).as_nanos();
        println!("{nanoseconds} {}", MEMORY.peak_usage() - before);
        std::io::stdout().flush().unwrap();
    }
}

fn read<T: Element>(path: &str, tokens: usize) -> Vec<T> {
    let mut data = vec![T::zeroed(); tokens * VOCAB];
    let mut file = std::fs::File::open(path).unwrap();
    file.read_exact(bytemuck::cast_slice_mut(&mut data)).unwrap();
    data
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let tokens = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(TOKENS);
    let last = arguments.last().unwrap();
    match (given("--serve"), given("--sweep")) {
        (true, _) if given("f32") => serve::<f32>(tokens, last),
        (true, _) => serve::<bf16>(tokens, last),
        (_, true) => sweep(last),
        _ => {
            for cpu in SimdLevel::ALL.into_iter().rev().filter_map(Cpu::with_simd) {
                report::<bf16>(cpu, tokens);
                report::<f32>(cpu, tokens);
                report::<f16>(cpu, tokens);
            }
        }
    }
}
