//! Vector conversions against the scalar ones.

use std::marker::PhantomData;

use super::*;

struct Widened<'a, E>(&'a [E; LANES]);

impl<E: Lanes> Kernel for Widened<'_, E> {
    type Output = [[f32; LANES]; 2];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [[f32; LANES]; 2] {
        [E::load_lanes(isa, self.0), E::load_unordered(isa, self.0)]
    }
}

struct Rounded<'a, E>(&'a [f32; LANES], PhantomData<E>);

impl<E: Lanes> Kernel for Rounded<'_, E> {
    type Output = [[E; LANES]; 2];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [[E; LANES]; 2] {
        [E::store_lanes(isa, self.0), E::store_unordered(isa, self.0)]
    }
}

/// Bits, where every NaN is one.
fn number_bits<E: Lanes>(value: E) -> u32 {
    let value = value.load();
    if value.is_nan() { u32::MAX } else { value.to_bits() }
}

/// Over every number of 16 bits, and every rounding boundary that one has in f32.
fn conversions_agree<E: Lanes>(simd: Simd, of_bits: fn(u16) -> E) {
    let indices = std::array::from_fn(|lane| E::store(lane as f32));
    let order = simd.run(Widened(&indices))[1].map(|lane| lane as usize);
    let chunks = |low: u32| {
        (0..=u16::MAX).step_by(LANES).map(move |first| -> [f32; LANES] {
            std::array::from_fn(|lane| f32::from_bits(u32::from(first + lane as u16) << 16 | low))
        })
    };
    for first in (0..=u16::MAX).step_by(LANES) {
        let lanes: [E; LANES] = std::array::from_fn(|lane| of_bits(first + lane as u16));
        let [ordered, unordered] = simd.run(Widened(&lanes));
        assert_eq!(ordered.map(number_bits), lanes.map(number_bits));
        assert_eq!(unordered.map(number_bits), order.map(|lane| number_bits(lanes[lane])));
    }
    for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff] {
        for mut values in chunks(low) {
            // A NaN of the kernels has no low half.
            values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = f32::NAN);
            let wanted = values.map(|value| number_bits(E::store(value)));
            let [ordered, unordered] = simd.run(Rounded::<E>(&values, PhantomData));
            assert_eq!(ordered.map(number_bits), wanted);
            assert_eq!(order.map(|lane| number_bits(unordered[lane])), wanted);
            // The bf16 conversion of AVX-512, where no number is subnormal.
            let is_normal = values
                .iter()
                .all(|value| *value == 0.0 || value.abs() >= f32::MIN_POSITIVE || value.is_nan());
            if is_normal {
                let [_, unordered] = simd.store_normal::<E, _>(Rounded::<E>(&values, PhantomData));
                assert_eq!(order.map(|lane| number_bits(unordered[lane])), wanted);
            }
        }
    }
}

#[test]
fn vector_conversions_agree_with_scalar_ones() {
    for simd in levels() {
        conversions_agree::<f16>(simd, f16::from_bits);
        conversions_agree::<bf16>(simd, bf16::from_bits);
    }
}
