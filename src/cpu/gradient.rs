//! Stage 4: the logits gradient of one row, in place or out of place.

use std::marker::PhantomData;

use crate::cpu::anchored::Anchored;
use crate::cpu::convert::Lanes;
use crate::cpu::exp::Exponential;
use crate::cpu::places::{Apart, InPlace, Place};
use crate::cpu::rows::{LANES, Scale, fused};
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

    /// The multiples of exponentials, of the logits as they are.
    fn anchored<E: Lanes>(&self, row: &RowGradient) -> Option<Anchored> {
        let factor = f64::from(self.factor);
        let near = (row.inverse_temperature, self.scale.maximum);
        Anchored::times(E::IS_BF16, near, factor)
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

    /// As one number.
    pub fn product(self) -> f64 {
        f64::from(self.upstream) * f64::from(self.inverse_temperature)
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

/// How the lanes compute a gradient.
trait Form: Copy {
    fn lanes<E: Lanes, I: Isa>(self, isa: I, x: &[f32; LANES]) -> [f32; LANES];
}

/// With an entropy's part. 1/T is multiplied in last: folded into a and c it could overflow where their product with
/// p does not.
#[derive(Clone, Copy)]
struct WithTerms(Factors);

impl Form for WithTerms {
    #[inline(always)]
    fn lanes<E: Lanes, I: Isa>(self, isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        let Self(row) = self;
        let differences = row.scale.differences(x);
        let mut values = row.scale.exponential.of(isa, &differences);
        for lane in 0..LANES {
            let e = values[lane];
            let inverse_temperature = row.scale.exponential.inverse_temperature;
            let log_p = fused::<I>(differences[lane], inverse_temperature, -row.log_sum);
            // 0 * -inf would be NaN.
            let finite = if e == 0.0 { 0.0 } else { log_p };
            let factor = fused::<I>(row.c, finite + row.entropy, row.a);
            values[lane] = e * row.inverse_sum * factor * inverse_temperature;
        }
        values
    }
}

/// A factor of the exponentials.
#[derive(Clone, Copy)]
struct Multiples(Factors);

impl Form for Multiples {
    #[inline(always)]
    fn lanes<E: Lanes, I: Isa>(self, isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        let Self(row) = self;
        let mut values = row.scale.exponential.of(isa, &row.scale.differences(x));
        for value in &mut values {
            *value *= row.factor;
        }
        values
    }
}

impl Form for Anchored {
    #[inline(always)]
    fn lanes<E: Lanes, I: Isa>(self, isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        Anchored::lanes::<E, I>(&self, isa, x)
    }
}

/// All columns but the label's, which the caller overwrites.
struct Gradient<E, P, F> {
    place: P,
    form: F,
    element: PhantomData<E>,
}

impl<E: Lanes, P: Place<E>, F: Form> Gradient<E, P, F> {
    fn new(place: P, form: F) -> Self {
        Self { place, form, element: PhantomData }
    }
}

impl<E: Lanes, P: Place<E>, F: Form> Kernel for Gradient<E, P, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { mut place, form, .. } = self;
        for chunk in 0..place.chunks() {
            place.prefetch(isa, chunk);
            let x = E::load_unordered(isa, place.chunk(chunk));
            place.put(isa, chunk, &form.lanes::<E, I>(isa, &x));
        }
        if let Some(last) = place.last() {
            let x = E::load_unordered(isa, &last);
            place.put_last(isa, &form.lanes::<E, I>(isa, &x));
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
        let at_label = label.map(|label| (label, row.at_label(x[label].load())));
        self.columns(Apart::new(x, &mut *dx), row);
        if let Some((label, value)) = at_label {
            dx[label] = E::store(value as f32);
        }
    }

    /// Stage 4 over the logits themselves.
    pub fn gradient_in_place<E: Lanes>(self, x: &mut [E], row: &RowGradient, label: Option<usize>) {
        let at_label = label.map(|label| (label, row.at_label(x[label].load())));
        self.columns(InPlace(&mut *x), row);
        if let Some((label, value)) = at_label {
            x[label] = E::store(value as f32);
        }
    }

    fn columns<E: Lanes>(self, place: impl Place<E>, row: &RowGradient) {
        let factors = Factors::new(row);
        if factors.has_terms() {
            return self.run(Gradient::new(place, WithTerms(factors)));
        }
        match self.has_table().then(|| factors.anchored::<E>(row)).flatten() {
            Some(anchored) => self.store_normal::<E, _>(Gradient::new(place, anchored)),
            None => self.store_normal::<E, _>(Gradient::new(place, Multiples(factors))),
        }
    }
}
