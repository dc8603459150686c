//! On a device: the same numbers as on the host, from memory that is not copied.

use candle_core::{DType, Device, Tensor, Var};
use prefuse::RowOptions;
use prefuse::batch::{Batch, Labels, Packing, Weights};
use prefuse::objectives::Nll;
use prefuse::{Loss, Sequences, Term};
use prefuse_candle::{preference_loss, token_log_probs};

use crate::Outcome;
use crate::example::{
    Kind, LABELS, SEQUENCES, TOKENS, VOCAB, assert_close, grad, noise, values, variable,
};

/// By how much gradients may differ: each is rounded on its own, so by one unit in the last place of
/// an entry below 4, and by what separates two computations in f32.
const DTYPES: [(DType, f64); 3] = [(DType::F32, 4e-6), (DType::F16, 2e-3), (DType::BF16, 1.6e-2)];

/// Of both kinds: on the stream of the calling thread, and on one of its own.
fn devices() -> Result<Vec<Device>, Box<dyn std::error::Error>> {
    let opened = std::panic::catch_unwind(|| {
        Ok::<_, candle_core::Error>(vec![Device::new_cuda(0)?, Device::new_cuda_with_stream(0)?])
    });
    let missing = match opened {
        Ok(Ok(devices)) => return Ok(devices),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the driver's library is missing".to_owned(),
    };
    if std::env::var("PREFUSE_REQUIRE_CUDA").is_ok_and(|value| value == "1") {
        return Err(format!("PREFUSE_REQUIRE_CUDA=1, and no CUDA device: {missing}").into());
    }
    eprintln!("skipped: no CUDA device ({missing})");
    Ok(vec![])
}

fn copy_to(device: &Device, variable: &Tensor) -> candle_core::Result<Var> {
    Var::from_tensor(&variable.detach().to_device(device)?)
}

#[track_caller]
fn assert_same(got: &Tensor, expected: &Tensor, bound: f64) -> Outcome {
    assert_eq!(got.dtype(), expected.dtype());
    Ok(assert_close(&got.to_device(&Device::Cpu)?, expected, bound)?)
}

/// Loss and gradient of `logits(variable)`, against the host's.
fn check(
    device: &Device,
    shape: &[usize],
    logits: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Outcome {
    for (dtype, bound) in DTYPES {
        for kind in Kind::ALL {
            let host = variable(3, shape, dtype)?;
            let there = copy_to(device, &host)?;
            let expected = preference_loss(&logits(&host)?, &kind.loss()?)?;
            let got = preference_loss(&logits(&there)?, &kind.loss()?)?;
            assert_same(&got.loss, &expected.loss, 4e-6)?;
            assert!(got.loss.device().same_device(device));
            let (metrics, truth) = (got.forward.metrics(), expected.forward.metrics());
            assert_eq!(
                metrics.map(|metrics| metrics.rewards_accuracy),
                truth.map(|metrics| metrics.rewards_accuracy)
            );
            let larger = |loss: &Tensor| (loss * -3.0)? + loss.sqr()?;
            let expected = grad(&larger(&expected.loss)?, &host)?;
            assert_same(&grad(&larger(&got.loss)?, &there)?, &expected, bound)?;
        }
    }
    Ok(())
}

#[test]
fn losses_and_gradients_are_those_of_the_host() -> Outcome {
    for device in devices()? {
        check(&device, &[TOKENS, VOCAB], |logits| Ok(logits.clone()))?;
        check(&device, &[SEQUENCES, TOKENS / SEQUENCES, VOCAB], |logits| Ok(logits.clone()))?;
    }
    Ok(())
}

#[test]
fn rows_may_have_a_stride_and_a_start() -> Outcome {
    for device in devices()? {
        check(&device, &[TOKENS + 3, VOCAB + 5], |wide| {
            wide.narrow(0, 2, TOKENS)?.narrow(1, 4, VOCAB)
        })?;
        let inside = variable(5, &[TOKENS, VOCAB], DType::F32)?;
        let outside = Tensor::full(f32::NAN, (TOKENS, 2), &Device::Cpu)?;
        let wide = Tensor::cat(&[&outside, inside.as_tensor(), &outside], 1)?;
        let wide = copy_to(&device, &wide)?.narrow(1, 2, VOCAB)?;
        let (got, expected) = (
            preference_loss(&wide, &Kind::Dpo.loss()?)?.loss,
            preference_loss(&inside, &Kind::Dpo.loss()?)?.loss,
        );
        assert_same(&got, &expected, 4e-6)?;
    }
    Ok(())
}

#[test]
fn token_log_probs_are_those_of_the_host() -> Outcome {
    let labels = Labels::new(&LABELS[..]);
    let mut weights = [2.5_f32; TOKENS];
    weights[3] = 0.0;
    let weights = Weights::new(&weights[..])?;
    let factors = |seed| Tensor::new(noise(seed, TOKENS, 2.0), &Device::Cpu)?.to_dtype(DType::F32);
    let factors = [factors(12)?, factors(13)?];
    for device in devices()? {
        for (dtype, bound) in DTYPES {
            let options = RowOptions::default().with_temperature(0.7).with_argmax();
            for options in [options, options.with_entropy().with_log_sum_squares()] {
                let host = variable(11, &[TOKENS, VOCAB], dtype)?;
                let there = copy_to(&device, &host)?;
                let expected = token_log_probs(&host, &labels, Some(&weights), options)?;
                let got = token_log_probs(&there, &labels, Some(&weights), options)?;
                assert_same(&got.log_probs, &expected.log_probs, 4e-6)?;
                assert_eq!(got.argmax, expected.argmax);
                let squares = [&got, &expected].map(|tokens| tokens.log_sum_squares.clone());
                if let [Some(got), Some(expected)] = squares {
                    let close = |(got, expected): (&f64, &f64)| (got - expected).abs() < 4e-6;
                    assert!(got.iter().zip(&expected).all(close), "{got:?}, not {expected:?}");
                }
                assert_eq!(got.entropies.is_some(), options.has_entropy());

                let scalar = |tokens: &prefuse_candle::TokenLogProbs, device: &Device| {
                    let [by_log_prob, by_entropy] = &factors;
                    let by_log_prob = by_log_prob.to_device(device)?;
                    let sum = (&tokens.log_probs * by_log_prob)?.sum_all()?;
                    match &tokens.entropies {
                        Some(entropies) => {
                            sum + (entropies * by_entropy.to_device(device)?)?.sum_all()?
                        }
                        None => Ok(sum),
                    }
                };
                if let (Some(got), Some(expected)) = (&got.entropies, &expected.entropies) {
                    assert_same(got, expected, 4e-6)?;
                }
                let expected = grad(&scalar(&expected, &Device::Cpu)?, &host)?;
                let got = grad(&scalar(&got, &device)?, &there)?;
                assert_same(&got, &expected, 4.0 * bound)?;
                // The masked rows of memory that came as it was.
                let got = values(&got.to_device(&Device::Cpu)?)?;
                assert!(got[3 * VOCAB..4 * VOCAB].iter().all(|&grad| grad == 0.0));
            }
        }
    }
    Ok(())
}

#[test]
fn a_loss_is_differentiated_and_dropped_on_another_thread() -> Outcome {
    for device in devices()? {
        let host = variable(6, &[TOKENS, VOCAB], DType::F32)?;
        let there = copy_to(&device, &host)?;
        let options = RowOptions::default();
        let labels = Labels::new(&LABELS[..]);
        let expected = token_log_probs(&host, &labels, None, options)?.log_probs.sum_all()?;
        let expected = grad(&expected, &host)?;
        let tokens = token_log_probs(&there, &labels, None, options)?;
        // Candle's tensors themselves have the order of one thread, and reading is what ends it.
        let loss = tokens.log_probs.sum_all()?;
        loss.to_scalar::<f32>()?;
        let got = std::thread::spawn(move || {
            let grad = grad(&loss, &there)?;
            drop((loss, tokens));
            grad.to_device(&Device::Cpu)
        });
        let got = got.join().map_err(|_| "the thread panicked")??;
        assert_same(&got, &expected, 4e-6)?;
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_said_at_once_and_spoils_nothing() -> Outcome {
    for device in devices()? {
        let logits = variable(1, &[TOKENS, VOCAB], DType::F32)?;
        let logits = copy_to(&device, &logits)?;
        let mut labels = LABELS;
        labels[4] = VOCAB as i64;
        let labels = Labels::new(&labels[..]);
        let batch = Batch::new(labels.clone(), Packing::padded(SEQUENCES, 3)?)?;
        let loss = Loss::new(batch, [Term::sequences(Nll::new(), Sequences::All)])?;
        let by_loss = preference_loss(&logits, &loss).map(|_| ());
        let by_tokens = token_log_probs(&logits, &labels, None, RowOptions::default()).map(|_| ());
        for refused in [by_loss, by_tokens] {
            let message = refused.expect_err("refused").to_string();
            assert!(message.contains("label of token 4"), "{message}");
        }
        let doubles = logits.to_dtype(DType::F64)?;
        let message = preference_loss(&doubles, &Kind::Dpo.loss()?).expect_err("refused");
        assert!(message.to_string().contains("f32, f16 or bf16 on CUDA, got f64"), "{message}");
        assert!(preference_loss(&logits, &Kind::Dpo.loss()?)?.loss.to_scalar::<f32>()?.is_finite());
    }
    Ok(())
}
