//! The twin's 16-bit floats against the `half` crate.

use half::{bf16, f16};
use prefuse_emulator::Schedule;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::common::{Buffer, emulator, launch, shape};

/// What the hardware makes of a float: every NaN becomes the same.
fn rounded(x: f32) -> (u16, u16) {
    if x.is_nan() {
        (0x7fff, 0x7fff)
    } else {
        (bf16::from_f32(x).to_bits(), f16::from_f32(x).to_bits())
    }
}

fn check_packing(x: &[f32]) {
    let emulator = emulator(Schedule::Forward);
    let pairs = x.len() / 2;
    let (input, as_bf16, as_f16) = (
        Buffer::new(&emulator, x),
        Buffer::<u32>::poisoned(&emulator, pairs),
        Buffer::<u32>::poisoned(&emulator, pairs),
    );
    launch(&emulator, "pack_halves", shape(8, 256), &[&input, &as_bf16, &as_f16, &(pairs as i32)])
        .unwrap();
    let (as_bf16, as_f16) = (as_bf16.get().unwrap(), as_f16.get().unwrap());
    for (i, pair) in x.chunks_exact(2).enumerate() {
        let (low, high) = (rounded(pair[0]), rounded(pair[1]));
        let pack = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        assert_eq!(as_bf16[i], pack(low.0, high.0), "bf16 of {pair:?}");
        assert_eq!(as_f16[i], pack(low.1, high.1), "f16 of {pair:?}");
    }
}

/// Every encoding, its neighbours, the points halfway to the next one and their neighbours, and any
/// float at all.
#[test]
fn packing() {
    let mut x = Vec::new();
    for bits in 0..=u16::MAX {
        let halfway = u32::from(bits) << 16 | 0x8000;
        for encoding in [u32::from(bits) << 16, halfway, f16::from_bits(bits).to_f32().to_bits()] {
            for neighbour in [encoding.wrapping_sub(1), encoding, encoding.wrapping_add(1)] {
                x.push(f32::from_bits(neighbour));
            }
        }
        let f16_halfway = f16::from_bits(bits).to_f32().to_bits() | 0x1000;
        x.extend([f16_halfway - 1, f16_halfway, f16_halfway + 1].map(f32::from_bits));
    }
    let mut rng = SmallRng::seed_from_u64(1);
    x.extend((0..200_000).map(|_| f32::from_bits(rng.random())));
    check_packing(&x);
}

#[test]
#[ignore = "every f32: minutes"]
fn packing_of_everything() {
    (0..1u32 << 8).into_par_iter().for_each(|high| {
        let x: Vec<f32> = (0..1u32 << 24).map(|low| f32::from_bits(high << 24 | low)).collect();
        check_packing(&x);
    });
}

#[test]
fn unpacking() {
    let emulator = emulator(Schedule::Forward);
    let x: Vec<u16> = (0..=u16::MAX).collect();
    let (input, out) = (Buffer::new(&emulator, &x), Buffer::<f32>::poisoned(&emulator, 1 << 16));
    launch(&emulator, "unpack_f16", shape(4, 256), &[&input, &out, &(1 << 16)]).unwrap();
    for (bits, got) in x.into_iter().zip(out.get().unwrap()) {
        let expected = f16::from_bits(bits).to_f32();
        let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        assert!(same, "{bits:#06x}: expected {expected}, got {got}");
    }
}

#[test]
fn maxima() {
    // Zeros, subnormals, numbers, the largest of either format, infinities, NaNs.
    let others = [
        0u16, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7c01, 0x7f7f, 0x7f80,
        0xff80, 0x7f81, 0x7fff, 0xffff,
    ];
    let emulator = emulator(Schedule::Forward);
    let as_bf16 = Buffer::<u32>::poisoned(&emulator, 1 << 16);
    let as_f16 = Buffer::<u32>::poisoned(&emulator, 1 << 16);
    let check = |a: u16, b: u16, got: u32, value: fn(u16) -> f32| {
        let expected = match (value(a).is_nan(), value(b).is_nan()) {
            (true, true) => 0x7fff,
            (true, false) => b,
            (false, true) => a,
            _ if value(a).total_cmp(&value(b)).is_ge() => a,
            _ => b,
        };
        // Both orders of the arguments.
        assert_eq!(got, u32::from(expected) * 0x1_0001, "{a:#06x} and {b:#06x}");
    };
    for other in others {
        launch(&emulator, "max_halves", shape(4, 256), &[&u32::from(other), &as_bf16, &as_f16])
            .unwrap();
        let (bf16s, f16s) = (as_bf16.get().unwrap(), as_f16.get().unwrap());
        for bits in 0..=u16::MAX {
            check(bits, other, bf16s[usize::from(bits)], |x| bf16::from_bits(x).to_f32());
            check(bits, other, f16s[usize::from(bits)], |x| f16::from_bits(x).to_f32());
        }
    }
}

#[test]
fn powers_of_2() {
    let emulator = emulator(Schedule::Forward);
    let smallest = f32::MIN_POSITIVE;
    let x = [
        0.0,
        -0.0,
        1e-40,
        -1e-40,
        -126.0,
        -126.5,
        -149.0,
        -1e30,
        f32::NEG_INFINITY,
        10.0,
        128.0,
        f32::NAN,
    ];
    let n = x.len();
    let expected = [
        1.0,
        1.0,
        1.0,
        1.0,
        smallest,
        0.0,
        0.0,
        0.0,
        0.0,
        1024.0,
        f32::INFINITY,
        f32::from_bits(0x7fff_ffff),
    ];
    let (input, out) = (Buffer::new(&emulator, &x), Buffer::<f32>::poisoned(&emulator, n));
    launch(&emulator, "powers_of_2", shape(1, 32), &[&input, &out, &(n as i32)]).unwrap();
    let got: Vec<u32> = out.get().unwrap().iter().map(|y| y.to_bits()).collect();
    assert_eq!(got, expected.map(f32::to_bits));
}
