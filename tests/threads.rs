//! The CPU backend's own promise: no number of threads changes a bit.

use prefuse::{Backend, DType, Element};

use crate::alignment::row_bits;
use crate::backends::cpus;
use crate::common::{labels, logits};
use crate::each_dtype;
use crate::mixed_log_probs::case;

/// The same bits on every run and for any number of threads, also where a few long rows are split
/// over them.
#[test]
fn threads_change_no_bit() {
    fn body<T: Element>(backend: &dyn Backend, tokens: usize, vocab: usize) {
        let data = logits::<T>(5, tokens, vocab);
        let ids = labels(5, &data, vocab);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| row_bits(backend, &data, vocab, &ids))
        };
        let expected = run(1);
        for threads in [1, 2, 3, 5] {
            assert_eq!(run(threads), expected, "{} {threads} threads", backend.name());
        }
    }
    for cpu in cpus() {
        each_dtype!(&cpu as &dyn Backend, body, 2, 50_257);
        each_dtype!(&cpu as &dyn Backend, body, 130, 1000);
    }
}

/// The same of log-probs under several models' logits, and of their gradients.
#[test]
fn threads_change_no_bit_of_mixed_logits() {
    for tokens in [2, 40] {
        let case = case(&[1.5, -0.5], &[DType::BF16, DType::F32], [tokens, 4099], 1.0);
        for cpu in cpus() {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| case.run(&cpu).bits())
            };
            let expected = run(1);
            for threads in [2, 3, 8] {
                assert_eq!(run(threads), expected, "{threads} threads");
            }
        }
    }
}
