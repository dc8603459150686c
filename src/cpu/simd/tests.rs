//! Every level and element type against a naive f64 softmax, and the bit-for-bit promises.

mod conversions;
mod two_ulps;

use super::*;
use crate::cpu::gradient::RowGradient;
use crate::cpu::rows::BLOCK;
use crate::cpu::state::{BlockState, RowBlocks, RowState};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const VOCABULARIES: [usize; 9] = [1, 2, 31, 32, 33, 1000, 4099, 32_000, 151_936];

/// The same scalar steps in f64, over the values that the elements hold.
struct Exact {
    log_p: Vec<f64>,
    log_sum: f64,
    entropy: f64,
    inverse_temperature: f64,
}

impl Exact {
    fn new<E: Lanes>(row: &[E], inverse_temperature: f64) -> Self {
        let x: Vec<f64> = row.iter().map(|v| f64::from(v.load())).collect();
        let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z: Vec<f64> = x.iter().map(|v| (v - maximum) * inverse_temperature).collect();
        let peak = z.iter().position(|z| *z == 0.0).unwrap_or(0);
        let rest: f64 = (0..z.len()).filter(|v| *v != peak).map(|v| z[v].exp()).sum();
        let log_sum = rest.ln_1p();
        let log_p: Vec<f64> = z.iter().map(|z| z - log_sum).collect();
        let entropy =
            -log_p.iter().map(|l| if l.is_finite() { l.exp() * l } else { 0.0 }).sum::<f64>();
        Self { log_p, log_sum, entropy, inverse_temperature }
    }

    fn gradient(&self, row: &RowGradient, label: usize) -> Vec<f64> {
        let (a, c) = (f64::from(row.a), f64::from(row.c));
        let term = |(v, log_p): (usize, &f64)| {
            let p = log_p.exp();
            let entropy = if p == 0.0 { 0.0 } else { c * p * (log_p + self.entropy) };
            let value = if v == label { a * log_p.exp_m1() } else { a * p };
            (value + entropy) * self.inverse_temperature
        };
        self.log_p.iter().enumerate().map(term).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal,
    Offset,
    Masked,
    MaskedBlock,
    OneFinite,
    Confident(f32),
}

const KINDS: [Kind; 7] = [
    Kind::Normal,
    Kind::Offset,
    Kind::Masked,
    Kind::MaskedBlock,
    Kind::OneFinite,
    Kind::Confident(20.0),
    Kind::Confident(60.0),
];

fn row<E: Lanes>(kind: Kind, columns: usize, seed: u64) -> Vec<E> {
    let mut random = SmallRng::seed_from_u64(seed);
    let peak = columns / 3;
    let value = |v: usize| {
        let normal: f32 = (0..12).map(|_| random.random::<f32>() - 0.5).sum();
        match kind {
            Kind::Normal => 3.0 * normal,
            Kind::Offset => 1e4 + 3.0 * normal,
            Kind::Masked if v % 3 == 1 => f32::NEG_INFINITY,
            Kind::MaskedBlock if v / BLOCK == 1 || v < 7 && columns > 7 => f32::NEG_INFINITY,
            Kind::Masked | Kind::MaskedBlock => 3.0 * normal,
            Kind::OneFinite if v == peak => -5.0,
            Kind::OneFinite => f32::NEG_INFINITY,
            Kind::Confident(gap) if v == peak => gap + 4.0,
            Kind::Confident(_) => (0.5 * normal).clamp(-1.0, 1.0),
        }
    };
    (0..columns).map(value).map(E::store).collect()
}

/// Every exponential below the cutoff may be lost.
fn relative(got: f64, want: f64, columns: usize) -> f64 {
    let lost = columns as f64 * f64::from(f32::MIN_POSITIVE) * 100.0;
    if got == want { 0.0 } else { ((got - want).abs() - lost).max(0.0) / want.abs() }
}

#[derive(Default, Debug)]
struct Worst {
    log_sum: f64,
    entropy: f64,
    label_log_prob: f64,
    gradient: f64,
    label_gradient: f64,
}

/// Half a unit in the last place of a stored value, relative.
fn storage_error<E: Lanes>() -> f64 {
    let mut step = 1.0;
    while E::store(1.0 + step).load() != 1.0 {
        step *= 0.5;
    }
    if size_of::<E>() == 4 { 0.0 } else { f64::from(step) }
}

fn compare<E: Lanes>(simd: Simd, kind: Kind, columns: usize, temperature: f64, worst: &mut Worst) {
    let x = row::<E>(kind, columns, columns as u64);
    let exact = Exact::new(&x, 1.0 / temperature);
    let state = simd.row_state(&x, 1.0 / temperature, true);
    assert_eq!(simd.row_state(&x, 1.0 / temperature, false).log_sum(), state.log_sum());
    let label = columns / 3;
    worst.log_sum = worst.log_sum.max(relative(state.log_sum(), exact.log_sum, columns));
    worst.entropy = worst.entropy.max(relative(state.entropy(), exact.entropy, columns));
    let log_prob = state.log_prob(x[label].load());
    worst.label_log_prob =
        worst.label_log_prob.max(relative(log_prob, exact.log_p[label], columns));

    let first = x.iter().position(|v| v.load() == state.maximum()).expect("a maximum");
    assert_eq!(simd.argmax(&x, &state), first);

    for (a, c) in [(-0.5, 0.0), (0.3, 0.7)] {
        let row = RowGradient {
            maximum: state.maximum(),
            log_sum: state.log_sum() as f32,
            entropy: state.entropy() as f32,
            inverse_temperature: 1.0 / temperature,
            a,
            c,
        };
        let mut dx = vec![E::store(9.0); columns];
        simd.gradient(&x, &mut dx, &row, Some(label));
        let want = exact.gradient(&row, label);
        for v in 0..columns {
            let (got, want) = (f64::from(dx[v].load()), want[v]);
            if x[v].load() == f32::NEG_INFINITY && v != label {
                assert_eq!(got, 0.0);
            }
            // Rounding to the element type is allowed for, what is left is measured against the
            // size of the terms.
            let p = exact.log_p[v].exp();
            let terms = (f64::from(a).abs() * p
                + f64::from(c).abs() * p * (exact.log_p[v].max(-1e3).abs() + exact.entropy))
                / temperature;
            // The smallest f16 is 2^-24.
            let smallest =
                if E::store(1e-30).load() == 0.0 { 6e-8 } else { columns as f64 * 1e-36 };
            let excess = (got - want).abs() - storage_error::<E>() * want.abs() - smallest;
            if v == label && c == 0.0 {
                worst.label_gradient = worst.label_gradient.max(excess / want.abs().max(smallest));
            } else if v != label {
                worst.gradient = worst.gradient.max(excess / terms.max(smallest));
            }
        }
    }
}

/// Relative to the value, or for a gradient to the sum of its terms' magnitudes. The argument z of
/// an exponential is itself rounded (|z| 2^-24, and as much again for 1/T unless T = 1), which for
/// a gap of 60 is most of the error. Measured, worst of all levels and types: 2.7e-7, 2.7e-7,
/// 2.7e-7, 3.8e-6 and 2.7e-7 for T = 1; 2.2e-6, 2.2e-6, 2.2e-6, 4.2e-6 and 1.9e-6 for 0.7 and 2.
/// The gradients of f16 and bf16 stay within half a unit of their last place.
const UNIT_TEMPERATURE: Worst = Worst {
    log_sum: 6e-7,
    entropy: 6e-7,
    label_log_prob: 6e-7,
    gradient: 4e-6,
    label_gradient: 6e-7,
};
const OTHER_TEMPERATURE: Worst = Worst {
    log_sum: 4e-6,
    entropy: 4e-6,
    label_log_prob: 4e-6,
    gradient: 8e-6,
    label_gradient: 4e-6,
};

fn compare_all<E: Lanes>() {
    for simd in levels() {
        for (temperatures, bound) in
            [(&[1.0][..], UNIT_TEMPERATURE), (&[0.7, 2.0], OTHER_TEMPERATURE)]
        {
            let mut worst = Worst::default();
            for columns in VOCABULARIES {
                // The longest rows take most of the time, and two kinds of them say what all do.
                let kinds = if columns > 100_000 {
                    &[Kind::Normal, Kind::Confident(20.0)][..]
                } else {
                    &KINDS
                };
                for kind in kinds {
                    for temperature in temperatures {
                        compare::<E>(simd, *kind, columns, *temperature, &mut worst);
                    }
                }
            }
            println!(
                "{} {:?} {temperatures:?} {worst:?}",
                std::any::type_name::<E>(),
                simd.level()
            );
            assert!(worst.log_sum < bound.log_sum, "{worst:?}");
            assert!(worst.entropy < bound.entropy, "{worst:?}");
            assert!(worst.label_log_prob < bound.label_log_prob, "{worst:?}");
            assert!(worst.gradient < bound.gradient, "{worst:?}");
            assert!(worst.label_gradient < bound.label_gradient, "{worst:?}");
        }
    }
}

#[test]
fn f32_agrees_with_f64() {
    compare_all::<f32>();
}

#[test]
fn f16_agrees_with_f64() {
    compare_all::<f16>();
}

#[test]
fn bf16_agrees_with_f64() {
    compare_all::<bf16>();
}

fn state_bits(state: &RowState) -> [u64; 5] {
    [
        u64::from(state.maximum().to_bits()),
        state.log_sum().to_bits(),
        state.entropy().to_bits(),
        state.log_sum_squares().to_bits(),
        state.peak_block() as u64,
    ]
}

fn gradient_of<E: Lanes>(simd: Simd, x: &[E], state: &RowState, c: f32, label: usize) -> Vec<E> {
    let row = RowGradient {
        maximum: state.maximum(),
        log_sum: state.log_sum() as f32,
        entropy: state.entropy() as f32,
        inverse_temperature: 1.0 / 0.7,
        a: -0.5,
        c,
    };
    let mut dx = vec![E::store(7.0); x.len()];
    simd.gradient(x, &mut dx, &row, Some(label));
    let mut in_place = x.to_vec();
    simd.gradient_in_place(&mut in_place, &row, Some(label));
    assert_eq!(bits(&dx), bits(&in_place));
    let mut in_parts = x.to_vec();
    let (left, right) = in_parts.split_at_mut(x.len() / 3);
    simd.gradient_in_place(left, &row, (label < left.len()).then_some(label));
    let label = label.checked_sub(left.len());
    simd.gradient_in_place(right, &row, label);
    assert_eq!(bits(&dx), bits(&in_parts));
    dx
}

fn bits<E: Lanes>(values: &[E]) -> Vec<u32> {
    values.iter().map(|v| v.load().to_bits()).collect()
}

/// Equal rows at every offset of a buffer, blocks computed one by one in any order, in place, out
/// of place and in parts.
fn bits_depend_on_the_row_alone<E: Lanes>() {
    let inverse_temperature = 1.0 / 0.7;
    for columns in [1, 33, 4099, 3 * BLOCK + 77] {
        let x = row::<E>(Kind::Normal, columns, 5);
        let mut across_levels = vec![];
        for simd in levels() {
            let state = simd.row_state(&x, inverse_temperature, true);
            for offset in 0..32 {
                let mut buffer = vec![E::store(50.0); offset];
                buffer.extend_from_slice(&x);
                let moved = simd.row_state(&buffer[offset..], inverse_temperature, true);
                assert_eq!(state_bits(&state), state_bits(&moved), "{columns} {offset}");
            }
            let mut states = vec![BlockState::EMPTY; columns.div_ceil(BLOCK)];
            for (index, block) in x.chunks(BLOCK).enumerate().collect::<Vec<_>>().into_iter().rev()
            {
                simd.block_states(block, inverse_temperature, true, &mut states[index..=index]);
            }
            let mut blocks = RowBlocks::new(inverse_temperature);
            states.iter().for_each(|state| blocks.push(*state));
            let merged = simd.merged(&x, blocks, true);
            assert_eq!(state_bits(&state), state_bits(&merged), "{columns}");

            for c in [0.0, 0.7] {
                let dx = gradient_of(simd, &x, &state, c, columns / 2);
                if simd.level() != SimdLevel::Baseline {
                    across_levels.push((c, state_bits(&state), bits(&dx)));
                }
            }
        }
        for pair in across_levels.chunks(2).collect::<Vec<_>>().windows(2) {
            assert!(pair[0] == pair[1], "AVX2 and AVX-512 differ at {columns} columns");
        }
    }
}

#[test]
fn bits_depend_on_the_row_alone_in_every_type() {
    bits_depend_on_the_row_alone::<f32>();
    bits_depend_on_the_row_alone::<f16>();
    bits_depend_on_the_row_alone::<bf16>();
}

fn special<E: Lanes>() {
    let (inf, nan) = (E::store(f32::INFINITY), E::store(f32::NAN));
    let columns = 2 * BLOCK + 100;
    for simd in levels() {
        let state_of = |x: &[E]| simd.row_state(x, 1.0, true);

        for at in [0, 70, BLOCK - 1, BLOCK, columns - 1] {
            let mut x = row::<E>(Kind::Normal, columns, 1);
            (x[at], x[columns - 1]) = (nan, nan);
            let state = state_of(&x);
            assert!(
                state.log_sum().is_nan()
                    && state.entropy().is_nan()
                    && state.log_prob(0.0).is_nan()
            );
            assert_eq!(simd.argmax(&x, &state), at);
            assert!(gradient_of(simd, &x, &state, 0.7, 1).iter().all(|v| v.load().is_nan()));

            // +inf before the NaN does not hide it, and one alone makes the row NaN with its own
            // argmax.
            x[0] = inf;
            assert_eq!(simd.argmax(&x, &state_of(&x)), if at == 0 { columns - 1 } else { at });
            let mut x = row::<E>(Kind::Normal, columns, 1);
            x[at] = inf;
            let state = state_of(&x);
            assert!(state.log_sum().is_nan() && state.entropy().is_nan());
            assert_eq!((simd.argmax(&x, &state), state.maximum()), (at, f32::INFINITY));
        }

        let masked = vec![E::NEG_INFINITY; columns];
        let state = state_of(&masked);
        assert!(state.log_prob(f32::NEG_INFINITY).is_nan() && state.entropy().is_nan());
        assert_eq!(simd.argmax(&masked, &state), 0);
        let mut nan_among_masked = masked.clone();
        nan_among_masked[BLOCK + 3] = nan;
        let state = state_of(&nan_among_masked);
        assert!(state.log_sum().is_nan());
        assert_eq!(simd.argmax(&nan_among_masked, &state), BLOCK + 3);

        // Two equal maxima in one block, in two blocks; a certain column; the extremes of the type.
        let mut x = masked.clone();
        x[5] = E::store(2.0);
        let state = state_of(&x);
        assert_eq!((state.log_sum(), state.entropy(), state.log_prob(2.0)), (0.0, 0.0, 0.0));
        for second in [6, BLOCK + 6] {
            let mut x = x.clone();
            x[second] = E::store(2.0);
            let state = state_of(&x);
            // Of two blocks, one keeps its sum of f32, in which an exponential is an ulp off at most.
            let bound = if second < BLOCK { 1e-15 } else { f64::from(f32::EPSILON) / 2.0 };
            let off = [state.log_sum(), state.entropy()].map(|got| (got - 2f64.ln()).abs());
            assert!(off.iter().all(|off| *off < bound), "{second}: {off:?}");
            assert_eq!(simd.argmax(&x, &state), 5);
        }
        let huge = if size_of::<E>() == 2 { 6e4 } else { f32::MAX };
        let x = [E::store(huge), E::store(-huge), E::store(-huge)];
        let state = state_of(&x);
        assert_eq!((state.log_sum(), state.entropy()), (0.0, 0.0));
        assert!(state.log_prob(x[1].load()) < -1e5 && state.log_prob(x[1].load()).is_finite());
    }
}

#[test]
fn nan_and_infinities() {
    special::<f32>();
    special::<f16>();
    special::<bf16>();
}

/// Without an entropy term the entropy is not read, in no column.
#[test]
fn an_unused_entropy_does_not_matter() {
    for simd in levels() {
        for entropy in [f32::NAN, f32::INFINITY] {
            let row = RowGradient {
                maximum: 1.0,
                log_sum: 0.5,
                entropy,
                inverse_temperature: 1.0,
                a: 1.0,
                c: 0.0,
            };
            let mut x = vec![0.5f32; 130];
            simd.gradient_in_place(&mut x, &row, Some(7));
            assert!(x.iter().all(|dx| dx.is_finite()));
        }
    }
}

/// CUDA's NaN has all bits set; rounding it carelessly to bf16 gives -0.
#[test]
fn nan_of_any_payload_survives_the_gradient() {
    let nan = f32::from_bits(0x7fff_ffff);
    let fine = RowGradient {
        maximum: 1.0,
        log_sum: 1.0,
        entropy: 1.0,
        inverse_temperature: 1.0,
        a: 1.0,
        c: 1.0,
    };
    let rows = [
        RowGradient { maximum: nan, ..fine },
        RowGradient { log_sum: nan, ..fine },
        RowGradient { entropy: nan, ..fine },
        RowGradient { a: nan, ..fine },
        RowGradient { c: nan, ..fine },
    ];
    for simd in levels() {
        for row in rows {
            let mut x = [bf16::ONE; 130];
            simd.gradient_in_place(&mut x, &row, Some(3));
            assert!(x.iter().all(|v| v.is_nan()), "{row:?}");
        }
    }
}

#[test]
fn absent_levels_have_no_value() {
    for level in SimdLevel::ALL {
        assert_eq!(Simd::new(level).is_some(), level.available());
    }
    assert!(Simd::new(SimdLevel::best()) == Some(Simd::best()));
}
