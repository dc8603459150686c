//! Stage 4: the logits gradient of one row, in place or out of place.

use crate::cpu::convert::Lanes;
use crate::cpu::exp::Exponential;
use crate::cpu::rows::{LANES, Scale, fused, padded};
use crate::cpu::simd::{Isa, Kernel, Simd};

/// dx_v = (a (p_v - [v = label]) + c p_v (ln p_v + H)) / T, with ln p_v = (x_v - m)/T - `log_sum`.
///
/// For a loss with derivative g with respect to the log-prob of the label and h with respect to the
/// entropy: a = -g, c = -h.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowGradient {
    pub maximum: f32,
    pub log_sum: f32,
    /// H; not read when c is 0.
    pub entropy: f32,
    pub inverse_temperature: f64,
    pub a: f32,
    pub c: f32,
}

impl RowGradient {
    /// The label's column, in f64, with p - 1 from expm1: as a difference it would cancel when p is
    /// near 1.
    pub(crate) fn at_label(&self, logit: f32) -> f64 {
        let log_p = (f64::from(logit) - f64::from(self.maximum)) * self.inverse_temperature
            - f64::from(self.log_sum);
        let (a, c) = (f64::from(self.a), f64::from(self.c));
        let p = log_p.exp();
        // p = 0 would meet ln p = -inf.
        let entropy_term =
            if c == 0.0 || p == 0.0 { 0.0 } else { c * p * (log_p + f64::from(self.entropy)) };
        (a * log_p.exp_m1() + entropy_term) * self.inverse_temperature
    }
}

/// The row's factors as the lanes use them, with p = exp(z) `inverse_sum`.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    scale: Scale,
    log_sum: f32,
    inverse_sum: f32,
    entropy: f32,
    a: f32,
    c: f32,
    /// a `inverse_sum` / T; never subnormal, nor is its product with an exponential.
    factor: f32,
}

impl Factors {
    pub fn new(row: &RowGradient) -> Self {
        let inverse_sum = (-f64::from(row.log_sum)).exp();
        let factor = f64::from(row.a) * inverse_sum * row.inverse_temperature;
        // A subnormal product costs some 150 cycles an element, where a small upstream gradient meets a confident
        // row.
        let size = f64::from(row.a.abs().max(row.c.abs())) * row.inverse_temperature.min(1.0);
        let exponential = Exponential::times(row.inverse_temperature, size * inverse_sum);
        Self {
            scale: Scale { maximum: canonical(row.maximum), exponential },
            log_sum: canonical(row.log_sum),
            inverse_sum: canonical(inverse_sum as f32),
            entropy: if row.c == 0.0 { 0.0 } else { canonical(row.entropy) },
            a: canonical(row.a),
            c: canonical(row.c),
            factor: if factor.abs() < f64::from(f32::MIN_POSITIVE) {
                0.0
            } else {
                canonical(factor as f32)
            },
        }
    }

    /// Whether the columns need more than one factor for all.
    pub fn has_terms(&self) -> bool {
        self.c != 0.0 || self.factor.is_infinite()
    }
}

/// What a gradient of temperature 1 is multiplied by. 1/T comes last: as one factor the two could overflow
/// where the products do not.
#[derive(Clone, Copy)]
pub(crate) struct Factor {
    upstream: f32,
    inverse_temperature: f32,
    /// Gradients below it become 0: subnormal products cost some 150 cycles each.
    least: f32,
}

impl Factor {
    pub fn new(upstream: f64, inverse_temperature: f64) -> Self {
        let size = upstream.abs() * inverse_temperature.min(1.0);
        let least = (f64::from(f32::MIN_POSITIVE) / size.min(1.0)) as f32;
        let inverse_temperature = inverse_temperature as f32;
        Self { upstream: canonical(upstream as f32), inverse_temperature, least }
    }

    #[inline(always)]
    pub fn times(self, gradient: f32) -> f32 {
        let gradient = if gradient.abs() < self.least { 0.0 } else { gradient };
        gradient * self.upstream * self.inverse_temperature
    }
}

/// The vector stores of bf16 rely on NaN having a zero low half, see [`Isa::narrow_bf16`]. Every
/// NaN in this kernel comes from an element (low half zero), from an invalid operation (zero) or
/// from the caller's scalars: CUDA's NaN is 0x7fffffff, which rounding would carry into -0.
#[inline(always)]
pub(crate) fn canonical(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value }
}

/// With `TERMS`, 1/T is multiplied in last: folded into a and c it could overflow where their product with p
/// does not.
#[inline(always)]
fn lanes<E: Lanes, I: Isa, const TERMS: bool>(
    isa: I,
    chunk: &[E; LANES],
    row: Factors,
) -> [f32; LANES] {
    let differences = row.scale.differences(&E::load_lanes(isa, chunk));
    let mut values = row.scale.exponential.of(isa, &differences);
    for lane in 0..LANES {
        let e = values[lane];
        values[lane] = if TERMS {
            let inverse_temperature = row.scale.exponential.inverse_temperature;
            let log_p = fused::<I>(differences[lane], inverse_temperature, -row.log_sum);
            // 0 * -inf would be NaN.
            let finite = if e == 0.0 { 0.0 } else { log_p };
            let factor = fused::<I>(row.c, finite + row.entropy, row.a);
            e * row.inverse_sum * factor * inverse_temperature
        } else {
            e * row.factor
        };
    }
    values
}

#[inline(always)]
fn tail_lanes<E: Lanes, I: Isa, const TERMS: bool>(isa: I, tail: &[E], row: Factors) -> [E; LANES] {
    E::store_lanes(isa, &lanes::<E, I, TERMS>(isa, &padded(tail), row))
}

/// All columns but the label's, which the caller overwrites.
pub(crate) struct InPlace<'a, E, const TERMS: bool> {
    pub x: &'a mut [E],
    pub row: Factors,
}

impl<E: Lanes, const TERMS: bool> Kernel for InPlace<'_, E, TERMS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (chunks, tail) = self.x.as_chunks_mut::<LANES>();
        for chunk in chunks {
            isa.prefetch_ahead(chunk);
            *chunk = E::store_lanes(isa, &lanes::<E, I, TERMS>(isa, chunk, self.row));
        }
        if !tail.is_empty() {
            let result = tail_lanes::<E, I, TERMS>(isa, tail, self.row);
            tail.copy_from_slice(&result[..tail.len()]);
        }
    }
}

/// The same into another tensor.
pub(crate) struct Gradient<'a, E, const TERMS: bool> {
    pub x: &'a [E],
    pub dx: &'a mut [E],
    pub row: Factors,
}

impl<E: Lanes, const TERMS: bool> Kernel for Gradient<'_, E, TERMS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (chunks, tail) = self.x.as_chunks::<LANES>();
        let (dx_chunks, dx_tail) = self.dx.as_chunks_mut::<LANES>();
        for (chunk, dx_chunk) in chunks.iter().zip(dx_chunks) {
            isa.prefetch_ahead(chunk);
            isa.prefetch_ahead(dx_chunk);
            *dx_chunk = E::store_lanes(isa, &lanes::<E, I, TERMS>(isa, chunk, self.row));
        }
        if !tail.is_empty() {
            let result = tail_lanes::<E, I, TERMS>(isa, tail, self.row);
            dx_tail.copy_from_slice(&result[..tail.len()]);
        }
    }
}

impl Simd {
    /// Stage 4 from `x` into `dx`, for any part of a row; `label` counts from the start of the
    /// part.
    pub fn gradient<E: Lanes>(
        self,
        x: &[E],
        dx: &mut [E],
        row: &RowGradient,
        label: Option<usize>,
    ) {
        assert_eq!(x.len(), dx.len(), "logits and gradient");
        let at_label = label.map(|label| (label, row.at_label(x[label].load())));
        let row = Factors::new(row);
        match row.has_terms() {
            true => self.run(Gradient::<E, true> { x, dx: &mut *dx, row }),
            false => self.store_normal::<E, _>(Gradient::<E, false> { x, dx: &mut *dx, row }),
        }
        if let Some((label, value)) = at_label {
            dx[label] = E::store(value as f32);
        }
    }

    /// Stage 4 over the logits themselves.
    pub fn gradient_in_place<E: Lanes>(self, x: &mut [E], row: &RowGradient, label: Option<usize>) {
        let at_label = label.map(|label| (label, row.at_label(x[label].load())));
        let row = Factors::new(row);
        match row.has_terms() {
            true => self.run(InPlace::<E, true> { x: &mut *x, row }),
            false => self.store_normal::<E, _>(InPlace::<E, false> { x: &mut *x, row }),
        }
        if let Some((label, value)) = at_label {
            x[label] = E::store(value as f32);
        }
    }
}
