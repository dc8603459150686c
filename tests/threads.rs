//! The CPU backend's own promise: no number of threads changes a bit.

use prefuse::{Backend, Element};

use crate::alignment::row_bits;
use crate::backends::cpus;
use crate::common::{labels, logits};
use crate::each_dtype;

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
