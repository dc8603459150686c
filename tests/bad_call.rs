//! Bad inputs that are found with the logits: refused by every backend, on a device where the host next
//! waits, and the caller's buffers are as they were.

use half::bf16;
use prefuse::batch::Labels;
use prefuse::objectives::Dpo;
use prefuse::stages::{LogProbs, TokenOutputs, Tokens};
use prefuse::{Error, Loss, MaskedRows, RowOptions, Target, Term, Upstream, token_log_probs};

use crate::backends::{composed_backends, fast_backends};
use crate::common::{Placed, ready, refused};

/// Labels are known against the vocabulary only with the logits.
#[test]
fn labels() {
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.0_f32; 12]);
        let run = |labels: &Labels<'_>| {
            let plain = RowOptions::default();
            token_log_probs(&*backend, data.logits(4, 3), labels, None, plain)?.log_probs().to_vec()
        };
        for label in [3, -1, i64::MAX, i64::MIN] {
            refused(
                run(&Labels::new(vec![0, -100, label, label])),
                &format!("label of token 2: expected 0 to 2 or the ignore value -100, got {label}"),
            );
        }
        refused(
            run(&Labels::new(vec![0, -100, 0, 0]).with_ignore(7)),
            "label of token 1: expected 0 to 2 or the ignore value 7, got -100",
        );
        refused(run(&Labels::new(vec![0; 3])), "rows of logits: expected length 3, got 4");
        refused(run(&Labels::new(vec![])), "tokens: expected at least 1, got 0");
    }
}

#[test]
fn options() {
    let labels = Labels::new(&[0; 4]);
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.0_f32; 12]);
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let rows = RowOptions::default().with_temperature(temperature);
            let message =
                format!("temperature: expected a number from 1e-30 to 1e30, got {temperature:?}");
            let logits = data.logits(4, 3);
            refused(token_log_probs(&*backend, logits, &labels, None, rows), &message);
            let loss = Loss::new(ready(), [Term::pairs(Dpo::new(0.1))]).unwrap().with_rows(rows);
            refused(loss.forward(&*backend, logits), &message);
        }
    }
    for backend in fast_backends() {
        let data = Placed::new(&*backend, &[0.0_f64; 12]);
        let plain = RowOptions::default();
        refused(
            token_log_probs(&*backend, data.logits(4, 3), &labels, None, plain),
            &format!(
                "logits: the {} backend takes [f32, f16, bf16], got f64; Reference takes f64",
                backend.name()
            ),
        );
    }
}

/// A refused backward leaves every buffer as it was.
#[test]
fn gradients() {
    for backend in composed_backends() {
        let backend = &*backend;
        let data = Placed::new(backend, &[0.5_f32; 12]);
        let logits = data.logits(4, 3);
        let loss = Loss::new(ready(), [Term::pairs(Dpo::new(0.1))]).unwrap();
        let forward = loss.forward(backend, logits).unwrap();
        let mut grads = Placed::new(backend, &[7.0_f32; 15]);
        let mut run = |tokens: usize, vocab: usize, upstream: Upstream<'_>| {
            let target = (logits, grads.target(tokens, vocab));
            loss.logit_grads(backend, &forward, target, upstream, MaskedRows::Zero)
        };
        let one = Upstream::Loss(1.0);
        refused(run(3, 3, one), "logits gradient: expected shape [4, 3], got [3, 3]");
        refused(run(3, 4, one), "logits gradient: expected shape [4, 3], got [3, 4]");
        for got in [f64::NAN, f64::INFINITY, 1e300] {
            let message = format!(
                "upstream gradient: expected a finite number in the range of f32, got {got:?}"
            );
            refused(run(4, 3, Upstream::Loss(got)), &message);
            refused(run(4, 3, Upstream::Units(&[&[got]])), &message);
        }
        let heavy = Loss::new(ready(), [Term::pairs(Dpo::new(0.1)).with_weight(1e30)]).unwrap();
        let of_heavy = heavy.forward(backend, logits).unwrap();
        let target = (logits, grads.target(4, 3));
        refused(
            heavy.logit_grads(backend, &of_heavy, target, Upstream::Loss(1e20), MaskedRows::Zero),
            "upstream gradient times a term's weight over its divisor: expected a finite number in the \
             range of f32, got 1e50",
        );
        let mut run = |tokens: usize, vocab: usize, upstream: Upstream<'_>| {
            let target = (logits, grads.target(tokens, vocab));
            loss.logit_grads(backend, &forward, target, upstream, MaskedRows::Zero)
        };
        refused(run(4, 3, Upstream::Units(&[])), "upstream terms: expected length 1, got 0");
        refused(
            run(4, 3, Upstream::Units(&[&[1.0, 1.0]])),
            "upstream gradient: expected length 1, got 2",
        );
        assert_eq!(grads.read::<f32>(), [7.0; 15]);

        let mut half = Placed::new(backend, &[bf16::ONE; 12]);
        refused(
            loss.logit_grads(backend, &forward, (logits, half.target(4, 3)), one, MaskedRows::Zero),
            "logits gradient: expected f32, got bf16",
        );
        let mut other = Placed::new(backend, &[0.5_f32; 15]);
        let target = other.target(5, 3);
        refused(
            loss.logit_grads_in_place(backend, forward, target, one, MaskedRows::Zero),
            "logits: expected shape [4, 3], got [5, 3]",
        );
        assert_eq!(other.read::<f32>(), [0.5; 15]);
    }
}

#[test]
fn token_gradients() {
    for backend in composed_backends() {
        let backend = &*backend;
        let data = Placed::new(backend, &[0.5_f32; 12]);
        let labels = Labels::new(&[0, 1, 2, -100][..]);
        let logits = data.logits(4, 3);
        let plain = token_log_probs(backend, logits, &labels, None, RowOptions::default()).unwrap();
        let mut grads = Placed::new(backend, &[7.0_f32; 12]);
        let mut run = |by_log_prob: &Placed, by_entropy: Option<&Placed>, labels: &Labels<'_>| {
            let upstream = (by_log_prob.slice(), by_entropy.map(Placed::slice));
            let target = Target::OutOfPlace { logits, grads: grads.target(4, 3) };
            plain.logit_grads(backend, target, (labels, None), upstream, MaskedRows::Zero)?;
            grads.slice().to_vec()
        };
        let single = Placed::new(backend, &[1.0_f32; 4]);
        let double = Placed::new(backend, &[1.0_f64; 4]);
        let short = Placed::new(backend, &[1.0_f32; 3]);
        refused(
            run(&short, None, &labels),
            "upstream gradient by log_probs: expected length 4, got 3",
        );
        refused(
            run(&double, None, &labels),
            "upstream gradient by log_probs: expected f32, got f64",
        );
        refused(
            run(&single, Some(&single), &labels),
            "log-probs: expected those of RowOptions { temperature: 1.0, entropy: true, \
             log_sum_squares: false, argmax: false }, got those of RowOptions { temperature: 1.0, \
             entropy: false, log_sum_squares: false, argmax: false }",
        );
        refused(
            run(&single, None, &Labels::new(&[0, 1, 2, 3][..])),
            "label of token 3: expected 0 to 2 or the ignore value -100, got 3",
        );
        assert_eq!(grads.read::<f32>(), [7.0; 12]);
    }
}

/// A label outside the vocabulary is found before anything is written.
#[test]
fn a_bad_label_leaves_the_outputs() {
    for backend in composed_backends() {
        let backend = &*backend;
        let data = Placed::new(backend, &[0.5_f32; 12]);
        let ids = Placed::new(backend, &[0_i64, 1, 2, 3]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let mut buffers = [(); 4].map(|()| Placed::new(backend, &[7.0_f32; 4]));
        let mut scratch = Placed::poisoned::<f64>(backend, backend.log_probs_scratch(4, 3));
        let [log_probs, maximum, log_sum, entropy] = buffers.each_mut().map(Placed::slice_mut);
        let outputs = TokenOutputs {
            entropy: Some(entropy),
            ..TokenOutputs::new(log_probs, maximum, log_sum)
        };
        let (logits, scratch) = (data.logits(4, 3), scratch.slice_mut());
        let tokens = Tokens::new(&labels, None).unwrap();
        let stage = LogProbs::new(backend, logits, tokens, 1.0, outputs, scratch).unwrap();
        let waited = |()| -> Result<_, Error> { data.slice().to_vec() };
        refused(
            backend.log_probs(stage).and_then(waited),
            "label of token 3: expected 0 to 2 or the ignore value -100, got 3",
        );
        for buffer in buffers {
            assert_eq!(buffer.read::<f32>(), [7.0; 4]);
        }
    }
}
