//! One small batch, and the losses that the tests put on it.

use candle_core::{DType, Device, Tensor, Var};
use prefuse::batch::{
    Batch, Labels, Packing, Pairs, ReferenceLogProbs, Sentence, Unlabelled, Weights,
};
use prefuse::objectives::{Dpo, Nll, SimPo};
use prefuse::{Loss, Sequences, Term};

pub const VOCAB: usize = 11;
pub const TOKENS: usize = 12;
pub const SEQUENCES: usize = 4;
pub const IGNORE: i64 = Labels::IGNORE;

/// Two pairs, chosen first; every sequence ends in an ignored token, as after `shift_labels`.
pub const LABELS: [i64; TOKENS] = [4, 10, IGNORE, 0, 7, IGNORE, 3, 3, IGNORE, 9, 1, IGNORE];
pub const OFFSETS: [i64; SEQUENCES + 1] = [0, 3, 6, 9, 12];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Dpo,
    MaskDpo,
    SimPoNll,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Dpo, Self::MaskDpo, Self::SimPoNll];

    /// 1 for tokens that count, from the labels and Mask-DPO's sentences.
    pub fn mask(self) -> Vec<f64> {
        let weights = match self {
            Self::MaskDpo => vec![1., 0., 1., 1., 1., 1., 0., 1., 1., 1., 1., 1.],
            _ => vec![1.; TOKENS],
        };
        let counts = |(label, weight): (&i64, f64)| if *label == IGNORE { 0. } else { weight };
        LABELS.iter().zip(weights).map(counts).collect()
    }

    pub fn loss(self) -> prefuse::Result<Loss<'static>> {
        let packing = Packing::new(&OFFSETS)?;
        let batch = Batch::new(Labels::new(LABELS.to_vec()), packing.clone())?
            .with_pairs(Pairs::halves(2)?)?;
        match self {
            Self::Dpo => {
                let sums = ReferenceLogProbs::per_sequence(&reference_sums(self));
                Loss::new(batch.with_reference(sums)?, [Term::pairs(Dpo::new(0.1))])
            }
            Self::MaskDpo => {
                let sentences = [Sentence::new(0, 1..2, false), Sentence::new(2, 0..1, true)];
                let pairs = Pairs::halves(2)?;
                let weights = Weights::mask_dpo(&packing, &pairs, &sentences, Unlabelled::Keep)?;
                let reference = ReferenceLogProbs::per_token(&reference_log_probs());
                let batch = batch.with_weights(weights)?.with_reference(reference)?;
                Loss::new(batch, [Term::pairs(Dpo::new(0.5))])
            }
            Self::SimPoNll => {
                let nll = Term::sequences(Nll::new(), Sequences::Chosen).with_weight(0.2);
                Loss::new(batch, [Term::pairs(SimPo::new(2.0, 0.5)), nll])
            }
        }
    }
}

/// The same numbers on every run, uniform in `[-scale, scale)`.
pub fn noise(seed: u64, count: usize, scale: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 11
    };
    (0..count).map(|_| scale * (next() as f64 / (1_u64 << 52) as f64 - 1.0)).collect()
}

pub fn reference_log_probs() -> Vec<f64> {
    noise(2, TOKENS, 0.5).into_iter().map(|value| value - 2.0).collect()
}

pub fn reference_sums(kind: Kind) -> Vec<f64> {
    let masked: Vec<f64> =
        reference_log_probs().iter().zip(kind.mask()).map(|(value, mask)| value * mask).collect();
    masked.chunks(3).map(|sequence| sequence.iter().sum()).collect()
}

/// A variable of noise, rounded to `dtype`.
pub fn variable(seed: u64, shape: &[usize], dtype: DType) -> candle_core::Result<Var> {
    let values = noise(seed, shape.iter().product(), 2.5);
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
}

pub fn values(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The gradient of `loss` by `variable`.
pub fn grad(loss: &Tensor, variable: &Tensor) -> candle_core::Result<Tensor> {
    let missing = || candle_core::Error::Msg("no gradient".into());
    loss.backward()?.get(variable).cloned().ok_or_else(missing)
}

/// `|got - expected| <= bound`, entry by entry.
#[track_caller]
pub fn assert_close(got: &Tensor, expected: &Tensor, bound: f64) -> candle_core::Result<()> {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (values(got)?, values(expected)?);
    for (index, (got, expected)) in got.into_iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= bound, "{index}: got {got}, expected {expected}");
    }
    Ok(())
}
