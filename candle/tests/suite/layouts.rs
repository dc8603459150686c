//! Logits that are not simply a contiguous matrix, and the gradient that reaches what is behind.

use candle_core::{DType, Tensor};
use prefuse_candle::preference_loss;

use crate::Outcome;
use crate::composed;
use crate::example::{Kind, SEQUENCES, TOKENS, VOCAB, assert_close, grad, variable};

const LENGTH: usize = TOKENS / SEQUENCES;

/// The gradient by `variable` of the fused loss of `logits(variable)`, against the composed one.
fn check(shape: &[usize], logits: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Outcome {
    for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 2e-6)] {
        for kind in Kind::ALL {
            let variable = variable(3, shape, dtype)?;
            let rows = logits(&variable)?;
            let composed = composed::loss(kind, &rows.contiguous()?.reshape(((), VOCAB))?)?;
            let ours = preference_loss(&rows, &kind.loss()?)?.loss;
            assert_close(&ours, &composed, bound)?;
            assert_close(&grad(&ours, &variable)?, &grad(&composed, &variable)?, bound)?;
        }
    }
    Ok(())
}

#[test]
fn gradient_flows_to_the_weight_of_a_linear_layer() -> Outcome {
    check(&[VOCAB, 5], |weight| {
        let hidden = variable(4, &[TOKENS, 5], weight.dtype())?;
        (hidden.matmul(&weight.t()?)? * 0.3)?.reshape((TOKENS, VOCAB))
    })
}

#[test]
fn three_dimensions_are_flattened_to_tokens() -> Outcome {
    check(&[SEQUENCES, LENGTH, VOCAB], |logits| Ok(logits.clone()))?;
    check(&[1, SEQUENCES, 1, LENGTH, VOCAB], |logits| Ok(logits.clone()))
}

#[test]
fn narrowed_logits_have_row_stride_and_start_offset() -> Outcome {
    check(&[TOKENS + 3, VOCAB + 5], |wide| wide.narrow(0, 2, TOKENS)?.narrow(1, 4, VOCAB))?;
    check(&[SEQUENCES, LENGTH, VOCAB + 1], |wide| wide.narrow(2, 1, VOCAB))?;
    check(&[SEQUENCES + 1, LENGTH, VOCAB], |long| long.narrow(0, 1, SEQUENCES))
}

#[test]
fn what_lies_between_the_rows_is_never_read() -> Outcome {
    let inside = variable(5, &[TOKENS, VOCAB], DType::F32)?;
    let outside = Tensor::full(f32::NAN, (TOKENS, 2), inside.device())?;
    let wide = Tensor::cat(&[&outside, inside.as_tensor(), &outside], 1)?;
    let loss = Kind::Dpo.loss()?;
    let ours = preference_loss(&wide.narrow(1, 2, VOCAB)?, &loss)?.loss;
    let expected = preference_loss(&inside, &loss)?.loss;
    assert_eq!(ours.to_scalar::<f32>()?, expected.to_scalar::<f32>()?);
    assert_close(&grad(&ours, &inside)?, &grad(&expected, &inside)?, 0.0)?;
    Ok(())
}
