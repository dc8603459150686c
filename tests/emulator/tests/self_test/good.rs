//! Correct kernels pass in silence, with the right values, in every mode and schedule.

use prefuse::cuda::LaunchShape;
use prefuse_emulator::Schedule;

use crate::common::{Buffer, SHARED, emulator, launch, schedules, shape};

#[test]
fn warp_functions() {
    for schedule in schedules() {
        let emulator = emulator(schedule);
        let out = Buffer::<i32>::poisoned(&emulator, 48 * 12);
        launch(&emulator, "good_warp", shape(1, 48), &[&out]).unwrap();
        let out = out.get().unwrap();
        for thread in 0..48i32 {
            let (lane, base, lanes) =
                (thread & 31, thread & !31, if thread < 32 { 32 } else { 16 });
            let ballot: u32 = (0..lanes).filter(|i| i % 3 == 0).map(|i| 1 << i).sum();
            let matching: u32 = (0..lanes).filter(|i| i % 4 == lane % 4).map(|i| 1 << i).sum();
            let expected = [
                base + 3,
                base + (lane & !7) + 5,
                if lane % 16 >= 2 { thread - 2 } else { thread },
                if lane % 16 + 3 < 16 { thread + 3 } else { thread },
                base + (lane ^ 5),
                ballot as i32,
                2 + 1,
                (base..base + lanes).sum(),
                -base,
                matching as i32,
                lane ^ 1,
                2 * 4 + 2 + 1,
            ];
            assert_eq!(out[thread as usize * 12..][..12], expected, "thread {thread} {schedule:?}");
        }
        let out = Buffer::<i32>::poisoned(&emulator, 32);
        launch(&emulator, "good_halves", shape(1, 32), &[&out]).unwrap();
        let out = out.get().unwrap();
        assert!(out[..16].iter().all(|v| *v == 120) && out[16..].iter().all(|v| *v == 31));
    }
}

#[test]
fn atomics() {
    for schedule in schedules() {
        let emulator = emulator(schedule);
        let words = Buffer::new(&emulator, &[0i32; 4]);
        let wide = Buffer::new(&emulator, &[0, u64::MAX, 0, 0u64]);
        launch(&emulator, "good_atomics", shape(6, 96), &[&words, &wide]).unwrap();
        assert_eq!(words.get().unwrap(), [576, -575, 575, 7]);
        assert_eq!(wide.get().unwrap(), [576 << 32, 0, 1 << 40 | 575, 3 * 576]);

        let (n, segments) = (1792, 13);
        let x: Vec<f32> = (0..n).map(|i| (i % 97) as f32).collect();
        let segment: Vec<i32> = (0..n).map(|i| (i * 31) % segments).collect();
        let out = Buffer::new(&emulator, &[0f32; 13]);
        let (bx, bs) = (Buffer::new(&emulator, &x), Buffer::new(&emulator, &segment));
        launch(&emulator, "good_segment_sum", shape(5, 96), &[&bx, &bs, &out, &n]).unwrap();
        for (k, got) in out.get().unwrap().into_iter().enumerate() {
            let of_segment = x.iter().zip(&segment).filter(|(_, s)| **s as usize == k);
            assert_eq!(got, of_segment.map(|(x, _)| x).sum::<f32>());
        }
    }
}

#[test]
fn barriers_and_flags() {
    for schedule in schedules() {
        let emulator = emulator(schedule);
        let out = Buffer::<f32>::poisoned(&emulator, 64);
        launch(&emulator, "good_named_barrier", shape(1, 128), &[&out]).unwrap();
        assert!(out.get().unwrap().iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32));

        let value = Buffer::<i32>::poisoned(&emulator, 1);
        let (flag, out) = (Buffer::new(&emulator, &[0i32]), Buffer::<i32>::poisoned(&emulator, 3));
        launch(&emulator, "good_volatile_flag", shape(4, 32), &[&value, &flag, &out]).unwrap();
        assert_eq!(out.get().unwrap(), [42; 3]);
    }
}

#[test]
fn clusters() {
    for schedule in schedules() {
        let emulator = emulator(schedule);
        for cluster in [1, 2, 4, 8] {
            let out = Buffer::<f32>::poisoned(&emulator, 8 * 16);
            let shape = LaunchShape { grid: 8, block: 64, cluster, shared: SHARED };
            launch(&emulator, "good_cluster", shape, &[&out]).unwrap();
            for (i, got) in out.get().unwrap().into_iter().enumerate() {
                let rank = (i as u32 / 16) % cluster;
                assert_eq!(got, ((rank + 1) % cluster * 100) as f32 + (i % 16) as f32);
            }
        }
    }
}

#[test]
fn bit_intrinsics() {
    let emulator = emulator(schedules().next().unwrap());
    let (a, b) = (0x8765_4320u32, 0x0fed_cba9u32);
    let (input, out) = (Buffer::new(&emulator, &[a, b]), Buffer::<u32>::poisoned(&emulator, 12));
    launch(&emulator, "good_bits", shape(1, 1), &[&input, &out]).unwrap();
    let expected = [
        0xa987_6543,
        0xedcb_a987,
        0xcba9_4320,
        // Byte 3, the sign of byte 7, byte 0, the sign of byte 0.
        0x0020_0087,
        a.count_ones(),
        600,
        432,
        4163,
        a,
        a.reverse_bits(),
        ((u64::from(a) * u64::from(b)) >> 32) as u32,
        b,
    ];
    let got = out.get().unwrap();
    assert_eq!(got, expected, "{got:x?}");
}

#[test]
fn math() {
    let emulator = emulator(schedules().next().unwrap());
    let x = [0.0, -0.0, 1.5, -2.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40];
    let n = x.len();
    let out = Buffer::<f32>::poisoned(&emulator, 2 * n * n + 4);
    let (bx, wide) = (Buffer::new(&emulator, &x), Buffer::<f64>::poisoned(&emulator, 3));
    launch(&emulator, "good_math", shape(1, 32), &[&bx, &(n as i32), &out, &wide]).unwrap();
    let out = out.get().unwrap();
    for i in 0..n * n {
        let (a, b) = (x[i / n], x[i % n]);
        let (larger, smaller) = match (a.is_nan(), b.is_nan()) {
            (true, true) => (f32::from_bits(0x7fff_ffff), f32::from_bits(0x7fff_ffff)),
            (true, false) => (b, b),
            (false, true) => (a, a),
            // total_cmp orders -0 below +0.
            _ if a.total_cmp(&b).is_ge() => (a, b),
            _ => (b, a),
        };
        assert_eq!(out[2 * i].to_bits(), larger.to_bits(), "fmaxf({a}, {b})");
        assert_eq!(out[2 * i + 1].to_bits(), smaller.to_bits(), "fminf({a}, {b})");
    }
    let expected = [0.25f32.ln_1p(), 0.25f32.exp_m1(), 1.0 + f32::EPSILON * 1.5, 2f32.sqrt()];
    for (got, expected) in out[2 * n * n..].iter().zip(expected) {
        approx::assert_relative_eq!(*got, expected, max_relative = 2e-7);
    }
    let expected = [0.25f64.exp(), 0.25f64.ln_1p(), 0.25f64.exp_m1()];
    for (got, expected) in wide.get().unwrap().iter().zip(expected) {
        approx::assert_relative_eq!(*got, expected, max_relative = 1e-15);
    }
}

/// A soak: no report, and the same bits, whatever the schedule.
#[test]
fn many_seeds() {
    for seed in 0..200 {
        let emulator = emulator(Schedule::Random(seed));
        let x: Vec<f32> = (0..9 * 256).map(|i| (i % 89) as f32).collect();
        let x = Buffer::new(&emulator, &x);
        let out = Buffer::new(&emulator, &[0f32; 128]);
        let (parts, count) =
            (Buffer::<f32>::poisoned(&emulator, 16), Buffer::new(&emulator, &[0i32]));
        let clusters = LaunchShape { grid: 8, block: 128, cluster: 4, shared: SHARED };
        launch(&emulator, "sum", shape(8, 128), &[&x, &out]).unwrap();
        launch(&emulator, "last_block", shape(8, 64), &[&parts, &count, &out]).unwrap();
        launch(&emulator, "async_sum", shape(1, 128), &[&x, &out, &(9 * 256)]).unwrap();
        launch(&emulator, "bulk_sum", clusters, &[&x, &out, &(9 * 256)]).unwrap();
        launch(&emulator, "good_cluster", clusters, &[&out]).unwrap();
    }
}
