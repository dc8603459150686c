//! That no row kernel falls far behind what it cannot be faster than: its bytes moved once, and its exponentials in
//! registers, of the same instruction set, in the same run; and the exponentials not behind those bytes.
//! `cargo bench --bench against_copy` has the figures, of 0.7 to 1.6, as optimised as tests are up to 4.1.

use std::time::{Duration, Instant};

use half::{bf16, f16};
use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing};
use prefuse::stages::{StudentTarget, Teacher, TokenDivergence};
use prefuse::{
    Cpu, Distillation, Element, MaskedRows, RowOptions, SimdLevel, Slice, Target, TokenLogProbs,
    token_log_probs,
};

const SHAPE: [usize; 2] = [32, 16_384];
const ROUNDS: usize = 30;

/// Others may take the processor for a while: the least of some rounds.
fn least(mut work: impl FnMut()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed());
    }
    least
}

struct Rows<T> {
    cpu: Cpu,
    data: Vec<T>,
    labels: Labels<'static>,
}

impl<T: Element> Rows<T> {
    fn new(cpu: Cpu) -> Self {
        let [tokens, vocab] = SHAPE;
        let value = |index: usize| T::from_f64(6.0 * (index as f64 * 0.7).sin());
        let data = (0..tokens * vocab).map(value).collect();
        let labels = Labels::new((0..tokens as i64).collect::<Vec<_>>());
        Self { cpu, data, labels }
    }

    fn logits(&self) -> Logits<'_> {
        Logits::new(&self.data, SHAPE[0], SHAPE[1]).unwrap()
    }

    fn forward(&self) -> TokenLogProbs {
        let options = RowOptions::default();
        token_log_probs(&self.cpu, self.logits(), &self.labels, None, options).unwrap()
    }

    fn gradient_in_place(&self, forward: &TokenLogProbs, data: &mut [T]) {
        let target = Target::InPlace(LogitsMut::new(data, SHAPE[0], SHAPE[1]).unwrap());
        let upstream = [1.0_f32; SHAPE[0]];
        let upstream = (Slice::new(&upstream), None);
        let labels = (&self.labels, None);
        forward.logit_grads(&self.cpu, target, labels, upstream, MaskedRows::Zero).unwrap();
    }

    fn forward_kl(&self, grads: &mut [T]) {
        let packing = Packing::new(&[0, SHAPE[0] as u32]).unwrap();
        let batch = Batch::new(self.labels.clone(), packing).unwrap();
        let kl = Distillation::new(batch, TokenDivergence::ForwardKl).unwrap();
        let grads = LogitsMut::new(grads, SHAPE[0], SHAPE[1]).unwrap();
        let target = Target::OutOfPlace { logits: self.logits(), grads };
        let target = StudentTarget::Written(target, MaskedRows::Zero);
        kl.forward_with_logit_grads(&self.cpu, target, &Teacher::new(self.logits()), 1.0).unwrap();
    }

    fn check(&self) {
        let row = SHAPE[1] * T::DTYPE.size();
        let exponentials = least(|| {
            std::hint::black_box(self.cpu.floor_exponentials(SHAPE[0], SHAPE[1]));
        });
        let read = least(|| {
            std::hint::black_box(self.cpu.floor_read(bytemuck::cast_slice(&self.data), row));
        });
        let mut buffer = self.data.clone();
        let update = least(|| self.cpu.floor_update(bytemuck::cast_slice_mut(&mut buffer), row));
        let forward = self.forward();
        // 5.0 with AVX2 and 2.6 with AVX-512; four times as much where the compiler did not vectorise them.
        let bytes = update.as_secs_f64() * 4.0 / T::DTYPE.size() as f64;
        let ratio = exponentials.as_secs_f64() / bytes;
        println!("exponentials, {:?}: {ratio:.2} of the bytes of f32", self.cpu.simd());
        let has_vectors = self.cpu.simd() != SimdLevel::Baseline;
        assert!(!has_vectors || ratio < 15.0, "exponentials, {:?}: {ratio}", self.cpu.simd());
        for (what, floor, time, bound) in [
            ("log_probs", exponentials.max(read), least(|| drop(self.forward())), 6.0),
            (
                "logit_grads",
                exponentials.max(update),
                least(|| self.gradient_in_place(&forward, &mut buffer)),
                6.0,
            ),
            ("forward KL", 4 * exponentials, least(|| self.forward_kl(&mut buffer)), 12.0),
        ] {
            let ratio = time.as_secs_f64() / floor.as_secs_f64();
            println!("{what}, {} {:?}: {ratio:.2} of the floor", T::DTYPE, self.cpu.simd());
            assert!(ratio < bound, "{what}, {} {:?}: {ratio}", T::DTYPE, self.cpu.simd());
        }
    }
}

#[test]
fn no_kernel_is_far_above_its_floor() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        for cpu in SimdLevel::ALL.into_iter().filter_map(Cpu::with_simd) {
            Rows::<f32>::new(cpu).check();
            Rows::<f16>::new(cpu).check();
            Rows::<bf16>::new(cpu).check();
        }
    });
}
