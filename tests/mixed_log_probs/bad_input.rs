//! What is refused, and how it is said.

use prefuse::batch::{Combination, Labels, Logits, Weights};
use prefuse::stages::{MixedLogProbs, MixedOutputs, Tokens};
use prefuse::{Backend, Buffer, Cpu, DType, Reference, mixed_token_log_probs};

use crate::backends::composed_backends;
use crate::common::{Placed, refused};

#[test]
fn combinations() {
    let data = [0.0_f32; 6];
    let (logits, wide) = (Logits::new(&data, 2, 3).unwrap(), Logits::new(&data, 1, 6).unwrap());
    refused(Combination::new(&[]), "logits of a combination: expected at least 1, got 0");
    refused(
        Combination::new(&[(1.0, logits); 4]),
        "a combination: expected logits of 1 to 3 models, got those of more",
    );
    refused(
        Combination::new(&[(1.0, logits), (f64::NAN, logits)]),
        "coefficient of a combination: expected 0 or a normal f32, got NaN",
    );
    refused(
        Combination::new(&[(1.0, logits), (1.0, wide)]),
        "logits of a combination: expected shape [2, 3], got [1, 6]",
    );
}

#[test]
fn calls() {
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.0_f32; 6]);
        let double = [0.0_f64; 6];
        let single = Combination::new(&[(1.0, data.logits(2, 3))]).unwrap();
        let call = |mixture: &Combination<'_>, ids: &[i64], temperature: f64| {
            let labels = Labels::new(ids);
            let found = mixed_token_log_probs(&*backend, mixture, &labels, None, temperature)?;
            // Devices say what is wrong with a label where the host waits.
            found.log_probs().to_vec().map(|_| ())
        };
        call(&single, &[0, 2], 1.0).unwrap();
        refused(call(&single, &[0], 1.0), "rows of logits: expected length 1, got 2");
        refused(call(&single, &[], 1.0), "tokens: expected at least 1, got 0");
        refused(
            call(&single, &[0, 1], 0.0),
            "temperature: expected a number from 1e-30 to 1e30, got 0.0",
        );
        refused(
            call(&single, &[0, 3], 1.0),
            "label of token 1: expected 0 to 2 or the ignore value -100, got 3",
        );
        if !backend.dtypes().contains(&DType::F64) {
            let parts = [(1.0, data.logits(2, 3)), (1.0, Logits::new(&double, 2, 3).unwrap())];
            refused(
                call(&Combination::new(&parts).unwrap(), &[0, 1], 1.0),
                &format!(
                    "logits: the {} backend takes [f32, f16, bf16], got f64; Reference takes f64",
                    backend.name()
                ),
            );
        }
        let (labels, weights) = (Labels::new(&[0, 1]), Weights::new(vec![1.0]).unwrap());
        refused(
            mixed_token_log_probs(&*backend, &single, &labels, Some(&weights), 1.0),
            "token weights: expected length 2, got 1",
        );
    }
}

/// The stage's own outputs and scratch.
#[test]
fn outputs() {
    for backend in composed_backends() {
        let data = Placed::new(&*backend, &[0.0_f32; 6]);
        let mixture = Combination::new(&[(1.0, data.logits(2, 3))]).unwrap();
        let ids = Placed::new(&*backend, &[0_i64, 1]);
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let needed = backend.mixed_log_probs_scratch(2, 3);
        let call = |lengths: [usize; 3], maxima: DType, scratch: usize| {
            let numbers = |dtype, len| backend.allocate(dtype, len).unwrap();
            let types = [DType::F32, maxima, DType::F32];
            let mut buffers = [0, 1, 2].map(|i| numbers(types[i], lengths[i]));
            let [log_probs, maximum, log_sum] = buffers.each_mut().map(Buffer::slice_mut);
            let mut scratch = numbers(DType::F64, scratch);
            MixedLogProbs::new(
                &*backend,
                mixture,
                Tokens::new(&labels, None)?,
                1.0,
                MixedOutputs { log_probs, maximum, log_sum },
                scratch.slice_mut(),
            )
            .map(|_| ())
        };
        call([2; 3], DType::F64, needed).unwrap();
        refused(call([1, 2, 2], DType::F64, needed), "log_probs: expected length 2, got 1");
        refused(call([2, 3, 2], DType::F64, needed), "maximum: expected length 2, got 3");
        refused(call([2, 2, 0], DType::F64, needed), "log_sum: expected length 2, got 0");
        refused(call([2; 3], DType::F32, needed), "maximum: expected f64, got f32");
        if needed > 0 {
            let got = needed - 1;
            refused(
                call([2; 3], DType::F64, got),
                &format!("scratch of mixed_log_probs: expected length {needed}, got {got}"),
            );
        }
    }
}

/// Outputs of which every number is 7.
fn sevens(backend: &dyn Backend) -> [Placed; 3] {
    let single = || Placed::new(backend, &[7.0_f32; 2]);
    [single(), Placed::new(backend, &[7.0_f64; 2]), single()]
}

fn outputs_of(buffers: &mut [Placed; 3]) -> MixedOutputs<'_> {
    let [log_probs, maximum, log_sum] = buffers.each_mut().map(Placed::slice_mut);
    MixedOutputs { log_probs, maximum, log_sum }
}

/// A label outside the vocabulary is an error before anything is written; so is another backend.
#[test]
fn nothing_is_written() {
    for backend in composed_backends() {
        let (data, ids) =
            (Placed::new(&*backend, &[0.0_f32; 6]), Placed::new(&*backend, &[0_i64, -1]));
        let mixture = Combination::new(&[(1.0, data.logits(2, 3))]).unwrap();
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let mut buffers = sevens(&*backend);
        let mut scratch =
            backend.allocate(DType::F64, backend.mixed_log_probs_scratch(2, 3)).unwrap();
        let (other, name): (&dyn Backend, _) = match backend.name() {
            "cpu" => (&Reference::new(), "reference"),
            _ => (&Cpu::new(), "cpu"),
        };
        let mut run = |on: &dyn Backend| {
            let (tokens, outputs) = (Tokens::new(&labels, None).unwrap(), outputs_of(&mut buffers));
            let scratch = scratch.slice_mut();
            on.mixed_log_probs(
                MixedLogProbs::new(&*backend, mixture, tokens, 1.0, outputs, scratch).unwrap(),
            )
        };
        refused(
            run(other),
            &format!(
                "stage: expected one made for the {name} backend, got one for {}",
                backend.name()
            ),
        );
        let result = run(&*backend);
        refused(
            result.and_then(|()| buffers[0].slice().to_vec()),
            "label of token 1: expected 0 to 2 or the ignore value -100, got -1",
        );
        for buffer in &buffers {
            assert_eq!(buffer.slice().to_vec().unwrap(), [7.0; 2], "{backend:?}");
        }
    }
}
