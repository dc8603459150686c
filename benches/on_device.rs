//! The row stages on CUDA device 0 against a device-to-device copy of as many bytes, in turn, median of
//! N rounds: `cargo bench --bench on_device [-- --json FILE] [--rows ROWS]`.
//!
//! Every kernel is timed by the host over enough launches to last milliseconds, with one wait at the
//! end; what launching costs is thus part of the figure where a kernel is shorter than that.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

#[cfg(feature = "cuda")]
fn main() {
    on_device::main();
}

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("skipped: built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
mod on_device {
    use std::time::Instant;

    use half::{bf16, f16};
    use prefuse::batch::{Labels, Logits, LogitsMut};
    use prefuse::stages::{
        Divergence, DivergenceOutputs, LogProbs, LogitGrads, RowStatistics, StudentTarget, Teacher,
        TokenDivergence, TokenOutputs, TokenUpstream, Tokens,
    };
    use prefuse::{
        Backend, Buffer, Cuda, DType, Element, MaskedRows, Reference, RowOptions, Slice, SliceMut,
        Target, token_log_probs,
    };
    use serde_json::{Value, json};

    use crate::common::{ids as ids_of, logits};

    /// Rows where none are asked for, at Llama 3's vocabulary: 2.1 GB of bf16.
    const ROWS: usize = 8192;

    /// `[rows as a fraction of those asked for, vocabulary]`: Llama 3; an odd vocabulary, whose rows are
    /// not aligned; short rows; few rows.
    const SHAPES: [(usize, usize, usize); 4] =
        [(1, 1, 128_256), (1, 1, 50_257), (8, 1, 1000), (1, 1024, 128_256)];

    /// Seconds that one figure's launches last at least.
    const SECONDS: f64 = 0.02;
    const ROUNDS: usize = 7;

    const WORK: [(&str, f64); 12] = [
        // What is done, and the bytes that it moves for each byte of the logits.
        ("log_probs", 1.0),
        ("log_probs, entropy and argmax", 1.0),
        ("log_probs, half masked", 0.5),
        ("logit_grads in place", 2.0),
        ("logit_grads in place, half masked", 1.5),
        ("logit_grads in place, half masked already zero", 1.0),
        ("logit_grads out of place", 2.0),
        ("logit_grads out of place, entropy", 2.0),
        // The logits are their own teacher.
        ("divergence forward KL", 3.0),
        ("divergence reverse KL", 3.0),
        ("divergence Jensen-Shannon", 3.0),
        ("divergence total variation", 3.0),
    ];

    pub fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1))
        };
        let rows = value("--rows").map_or(ROWS, |rows| rows.parse().unwrap());
        let cuda = match Cuda::new(0) {
            Ok(cuda) => cuda,
            Err(error) if std::env::var_os("PREFUSE_REQUIRE_CUDA").is_some() => panic!("{error}"),
            Err(error) => return eprintln!("skipped: no CUDA device: {error}"),
        };
        println!("{} with {rows} rows", cuda.device().1);
        let mut results = vec![];
        for (more, fewer, vocab) in SHAPES {
            let rows = (rows * more / fewer).max(1);
            results.push(run::<bf16>(&cuda, rows, vocab));
            results.push(run::<f16>(&cuda, rows, vocab));
            results.push(run::<f32>(&cuda, rows, vocab));
        }
        let results = json!({ "device": cuda.device().1, "shapes": results });
        if let Some(file) = value("--json") {
            std::fs::write(file, serde_json::to_string_pretty(&results).unwrap()).unwrap();
        }
    }

    struct Bench<'a> {
        cuda: &'a Cuda,
        tokens: usize,
        vocab: usize,
        data: Buffer,
        grads: Buffer,
        labels: [Buffer; 2],
        outputs: [Buffer; 4],
        argmax: Buffer,
        upstream: Buffer,
        scratch: Buffer,
        values: Buffer,
        divergence_scratch: Buffer,
    }

    fn run<T: Element>(cuda: &Cuda, tokens: usize, vocab: usize) -> Value {
        let mut bench = Bench::new::<T>(cuda, tokens, vocab);
        bench.check::<T>();
        let bytes = (tokens * vocab * T::DTYPE.size()) as f64;
        println!("\n{} [{tokens}, {vocab}]", T::DTYPE);
        let copies = bench.launches(&mut |bench| bench.copy());
        let counts = WORK.map(|(work, _)| bench.launches(&mut |bench| bench.work(work)));
        let mut copy_times = vec![];
        let mut times = WORK.map(|_| vec![]);
        for _ in 0..ROUNDS {
            copy_times.push(bench.seconds(copies, &mut |bench| bench.copy()));
            for (((work, _), times), &count) in WORK.iter().zip(&mut times).zip(&counts) {
                times.push(bench.seconds(count, &mut |bench| bench.work(work)));
            }
        }
        // A copy reads and writes each byte.
        let copy_rate = 2.0 * bytes / median(&mut copy_times);
        println!("{:50} {:8.1} GB/s", "copy", copy_rate / 1e9);
        let rows = WORK.iter().zip(&mut times).map(|(&(work, moved), times)| {
            let (seconds, best) = (median(times), times[0]);
            let rate = moved * bytes / seconds;
            println!(
                "{work:50} {:8.1} GB/s {:6.1} % of the copy's, {:9.1} us",
                rate / 1e9,
                100.0 * rate / copy_rate,
                1e6 * seconds
            );
            json!({ "work": work, "median_us": 1e6 * seconds, "minimum_us": 1e6 * best,
                "bytes": moved * bytes, "of_copy_rate": rate / copy_rate })
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "dtype": T::DTYPE.name(), "tokens": tokens, "vocab": vocab,
            "copy_bytes_per_second": copy_rate, "work": rows })
    }

    /// The middle of the times, which are sorted then.
    fn median(times: &mut [f64]) -> f64 {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    impl<'a> Bench<'a> {
        fn new<T: Element>(cuda: &'a Cuda, tokens: usize, vocab: usize) -> Self {
            let mut data = cuda.allocate(T::DTYPE, tokens * vocab).unwrap();
            // Rows repeat: random numbers for all of them would take the host minutes.
            let some = logits::<T>(tokens.min(64), vocab);
            for start in (0..tokens * vocab).step_by(some.len()) {
                let len = some.len().min(tokens * vocab - start);
                let mut part = data.slice_mut().part(start..start + len).unwrap();
                part.copy_from(Slice::new(&some[..len])).unwrap();
            }
            let ids = |half| {
                let ids = ids_of(tokens, vocab, half);
                cuda.upload(Slice::new(&ids)).unwrap()
            };
            let numbers = || cuda.allocate(DType::F32, tokens).unwrap();
            let upstream: Vec<f32> = (0..tokens).map(|token| (token + 1) as f32).collect();
            Self {
                cuda,
                tokens,
                vocab,
                data,
                grads: cuda.allocate(T::DTYPE, tokens * vocab).unwrap(),
                labels: [ids(false), ids(true)],
                outputs: [numbers(), numbers(), numbers(), numbers()],
                argmax: cuda.allocate(DType::I64, tokens).unwrap(),
                upstream: cuda.upload(Slice::new(&upstream)).unwrap(),
                scratch: cuda.allocate(DType::F64, cuda.log_probs_scratch(tokens, vocab)).unwrap(),
                values: numbers(),
                divergence_scratch: cuda
                    .allocate(DType::F64, cuda.divergence_scratch(tokens, vocab))
                    .unwrap(),
            }
        }

        /// The first row's log-prob is the reference's; and the statistics of all rows are there for
        /// the gradients.
        fn check<T: Element>(&mut self) {
            self.work("log_probs, entropy and argmax");
            let got = self.outputs[0].slice().part(0..1).unwrap().to_vec().unwrap()[0];
            let row: Vec<T> = self.data.slice().part(0..self.vocab).unwrap().read().unwrap();
            let exact: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
            let logits = Logits::new(&exact, 1, self.vocab).unwrap();
            let (labels, options) = (Labels::new(&[0]), RowOptions::default());
            let truth = token_log_probs(&Reference::new(), logits, &labels, None, options);
            let expected = truth.unwrap().log_probs().to_vec().unwrap()[0];
            assert!((got - expected).abs() < 1e-5 * expected.abs(), "{got} for {expected}");
        }

        /// With the student's gradient out of place.
        fn divergence(&mut self, kind: &str) {
            let divergence = match kind {
                "forward KL" => TokenDivergence::ForwardKl,
                "reverse KL" => TokenDivergence::ReverseKl,
                "Jensen-Shannon" => TokenDivergence::JensenShannon { beta: 0.5 },
                _ => TokenDivergence::TotalVariation,
            };
            let (count, vocab) = (self.tokens, self.vocab);
            let labels = Labels::from_slice(self.labels[0].slice()).unwrap();
            let logits = Logits::from_slice(self.data.slice(), count, vocab, vocab).unwrap();
            let grads = LogitsMut::from_slice(self.grads.slice_mut(), count, vocab, vocab).unwrap();
            let target = Target::OutOfPlace { logits, grads };
            let student = StudentTarget::Written(target, MaskedRows::Zero);
            let outputs = DivergenceOutputs {
                values: self.values.slice_mut(),
                student_entropy: None,
                teacher_entropy: None,
            };
            let stage = Divergence::new(
                self.cuda,
                (student, Teacher::new(logits)),
                (divergence, [1.0, 1.0]),
                Tokens::new(&labels, None).unwrap(),
                (outputs, Some(self.upstream.slice())),
                self.divergence_scratch.slice_mut(),
            );
            self.cuda.divergence(stage.unwrap()).unwrap();
        }

        fn work(&mut self, work: &str) {
            if let Some(kind) = work.strip_prefix("divergence ") {
                return self.divergence(kind);
            }
            let half = usize::from(work.contains("half masked"));
            let labels = Labels::from_slice(self.labels[half].slice()).unwrap();
            let tokens = Tokens::new(&labels, None).unwrap();
            let (count, vocab) = (self.tokens, self.vocab);
            let entropy = work.contains("entropy");
            if work.starts_with("log_probs") {
                let [log_probs, maximum, log_sum, entropies] =
                    self.outputs.each_mut().map(Buffer::slice_mut);
                let argmax: Option<SliceMut<'_>> = entropy.then(|| self.argmax.slice_mut());
                let entropy = entropy.then_some(entropies);
                let outputs = TokenOutputs {
                    entropy,
                    argmax,
                    ..TokenOutputs::new(log_probs, maximum, log_sum)
                };
                let logits = Logits::from_slice(self.data.slice(), count, vocab, vocab).unwrap();
                let scratch = self.scratch.slice_mut();
                let stage = LogProbs::new(self.cuda, logits, tokens, 1.0, outputs, scratch);
                return self.cuda.log_probs(stage.unwrap()).unwrap();
            }
            let [_, maximum, log_sum, entropies] = self.outputs.each_ref().map(Buffer::slice);
            let statistics = RowStatistics { maximum, log_sum };
            let log_probs = self.upstream.slice();
            let entropy = entropy.then_some((log_probs, entropies));
            let upstream = TokenUpstream { log_probs, entropy };
            // In place over the other buffer: over the logits the second launch would read gradients.
            let grads = LogitsMut::from_slice(self.grads.slice_mut(), count, vocab, vocab).unwrap();
            let target = match work.contains("in place") {
                true => Target::InPlace(grads),
                false => {
                    let logits = Logits::from_slice(self.data.slice(), count, vocab, vocab);
                    Target::OutOfPlace { logits: logits.unwrap(), grads }
                }
            };
            let masked = match work.contains("already zero") {
                true => MaskedRows::AlreadyZero,
                false => MaskedRows::Zero,
            };
            let stage =
                LogitGrads::new(self.cuda, target, tokens, 1.0, statistics, upstream, masked);
            self.cuda.logit_grads(stage.unwrap()).unwrap();
        }

        fn copy(&mut self) {
            self.grads.slice_mut().copy_from(self.data.slice()).unwrap();
        }

        /// Launches that last [`SECONDS`].
        fn launches(&mut self, launch: &mut dyn FnMut(&mut Self)) -> usize {
            self.seconds(2, launch);
            let once = self.seconds(3, launch);
            ((SECONDS / once).ceil() as usize).clamp(3, 1000)
        }

        /// Seconds for one launch, in the mean over so many.
        fn seconds(&mut self, count: usize, launch: &mut dyn FnMut(&mut Self)) -> f64 {
            self.cuda.check().unwrap();
            let start = Instant::now();
            (0..count).for_each(|_| launch(self));
            self.cuda.check().unwrap();
            start.elapsed().as_secs_f64() / count as f64
        }
    }
}
