//! Shapes for sizes that no test runs.

use super::*;

fn device(capability: (u32, u32), processors: u32) -> Device {
    let cluster = if capability.0 >= 9 { 8 } else { 1 };
    let shared = if capability.0 >= 9 { 227 } else { 163 } << 10;
    Device { ordinal: 0, name: String::new(), capability, processors, shared, cluster }
}

fn cluster(shape: LogProbsShape) -> u32 {
    match shape {
        LogProbsShape::Cluster(shape) => shape.cluster,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_of_stage_1() {
    let hopper = device((9, 0), 132);
    assert!(matches!(log_probs(&hopper, 1, 1), LogProbsShape::Rows(shape) if shape.grid == 1));
    assert!(matches!(log_probs(&hopper, 9, 4096), LogProbsShape::Rows(s) if s.grid == 2));
    let block = LaunchShape { grid: 8192, block: 256, cluster: 1, shared: 126 * 16 };
    assert_eq!(log_probs(&hopper, 8192, 128_256), LogProbsShape::Block(block));
    // 264 blocks of a cluster's kernel fill the device.
    assert!(matches!(log_probs(&hopper, 264, 128_256), LogProbsShape::Block(_)));
    assert_eq!(cluster(log_probs(&hopper, 132, 128_256)), 2);
    assert_eq!(cluster(log_probs(&hopper, 66, 128_256)), 4);
    assert_eq!(cluster(log_probs(&hopper, 33, 128_256)), 8);
    // 8 segments are 8 warps' work: one block.
    assert!(matches!(log_probs(&hopper, 4, 8192), LogProbsShape::Block(s) if s.block == 256));
}

#[test]
fn few_rows_and_older_devices_split() {
    let ampere = device((8, 0), 108);
    for (device, tokens, expected) in [
        (device((9, 0), 132), 1, 16),
        (device((10, 0), 148), 37, 8),
        (ampere.clone(), 64, 7),
        (ampere, 1, 16),
    ] {
        let shape = log_probs(&device, tokens, 128_256);
        let parts = match shape {
            LogProbsShape::Part(_, parts, _) => parts,
            LogProbsShape::Cluster(shape) => shape.cluster as usize,
            other => panic!("{other:?}"),
        };
        assert_eq!(parts, expected);
    }
}

#[test]
fn states_have_room() {
    let hopper = device((9, 0), 132);
    for vocab in [5000, 128_256, SHARED_STATES * SEGMENT, SHARED_STATES * SEGMENT + 1, 1 << 33] {
        for tokens in [1, 8, 1000, 1 << 20] {
            let scratch = log_probs_scratch(&hopper, tokens, vocab);
            match log_probs(&hopper, tokens, vocab) {
                LogProbsShape::Part(shape, parts, _) => {
                    assert!((shape.grid as usize).is_multiple_of(parts) && shape.grid > 0);
                    assert!(scratch * 8 >= tokens * vocab.div_ceil(SEGMENT) * STATE_BYTES);
                }
                LogProbsShape::Cluster(shape) | LogProbsShape::Block(shape) => {
                    assert!(shape.shared <= 48 * 1024);
                    assert!(shape.grid.is_multiple_of(shape.cluster));
                    assert_eq!(scratch, 0);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn rows_on_chip() {
    let (hopper, ampere) = (device((9, 0), 132), device((8, 0), 108));
    let cluster = |device: &Device, dtype, tokens, vocab| {
        let shape = token_loss(device, dtype, tokens, vocab)?;
        assert!(shape.grid.is_multiple_of(shape.cluster));
        assert!(2 * (shape.shared + 1024) <= device.shared + 1024);
        Some(shape.cluster)
    };
    use DType::{BF16, F32};
    for (dtype, tokens, vocab, expected) in [
        (BF16, 8192, 32_000, Some(1)),
        (BF16, 8192, 128_256, Some(4)),
        (BF16, 8192, 262_144, Some(8)),
        (F32, 8192, 128_256, Some(8)),
        (F32, 8192, 262_144, None),
        (BF16, 8192, 8191, Some(1)),
        (BF16, 8192, 7168, None),
        (BF16, 16, 128_256, Some(8)),
        (BF16, 8, 128_256, None),
        (BF16, usize::MAX, 128_256, Some(4)),
    ] {
        assert_eq!(cluster(&hopper, dtype, tokens, vocab), expected, "{dtype} {tokens} {vocab}");
    }
    assert_eq!(cluster(&ampere, BF16, 8192, 32_000), Some(1));
    assert_eq!(cluster(&ampere, BF16, 8192, 50_257), None);
    assert_eq!(token_loss(&hopper, BF16, 8192, usize::MAX), None);
}

#[test]
fn rows_visited_twice() {
    use DType::{BF16, F32};
    let (hopper, single) = (device((9, 0), 132), device((9, 0), 1));
    let threads =
        |device, dtype, tokens, vocab| sparse_divergence(device, dtype, tokens, vocab).block;
    assert_eq!(threads(&hopper, BF16, 8192, 128_256), 768);
    assert_eq!(threads(&hopper, BF16, 8192, 50_257), 384);
    assert_eq!(threads(&hopper, F32, 8192, 32_000), 384);
    assert_eq!(threads(&hopper, BF16, 8192, 32_000), 256);
    assert_eq!(threads(&hopper, BF16, 264, 32_000), 384);
    assert_eq!(threads(&hopper, BF16, 6, 32_000), 768);
    assert_eq!(threads(&hopper, BF16, 6, 4099), 256);
    assert_eq!(threads(&single, BF16, 6, 262_144), 256);
    let shape = sparse_divergence(&hopper, BF16, usize::MAX, usize::MAX);
    assert_eq!((shape.block, shape.shared), (768, 15_440 + 16_384));
    assert!(shape.grid as usize <= MAX_GRID && shape.shared as usize <= 48 * 1024);
    assert_eq!(check_sparse_ids(3, 1).shared, 16 + 128);
}

#[test]
fn rows_of_student_and_teacher() {
    let (hopper, ampere) = (device((9, 0), 132), device((8, 0), 108));
    // Vectors for each lane and segment: 8 of two bf16, 16 of two f32, 32 of four f32.
    for (device, vectors, tokens, columns, cluster, warps, slots) in [
        (&hopper, 8, 8192, 32_000, 2, 8, 2),
        (&hopper, 8, 8192, 128_256, 8, 8, 2),
        (&hopper, 16, 8192, 128_256, 8, 16, 1),
        (&hopper, 8, 16, 32_000, 4, 8, 1),
        (&hopper, 8, 8192, 1, 1, 1, 1),
        (&hopper, 32, 8192, 262_144, 1, 8, 1),
        (&ampere, 8, 8192, 32_000, 1, 16, 2),
        (&ampere, 8, 8192, 128_256, 1, 8, 1),
        (&hopper, 8, usize::MAX, 128_256, 8, 8, 2),
    ] {
        let (shape, mine) = divergence(device, vectors, tokens, columns);
        let what = format!("{vectors} {tokens} {columns}: {shape:?} {mine}");
        assert_eq!((shape.cluster, shape.block / 32, mine), (cluster, warps, slots), "{what}");
        assert!(shape.shared <= device.shared && shape.grid.is_multiple_of(cluster), "{what}");
    }
}

#[test]
fn rows_of_a_combination() {
    let (hopper, ada) = (device((9, 0), 132), device((8, 9), 128));
    let ada = Device { shared: 99 << 10, ..ada };
    // Vectors for each lane and segment: none is read, 4 of one bf16, 24 of three f32.
    for (device, vectors) in [(&hopper, 0), (&hopper, 24), (&ada, 4), (&ada, 24)] {
        for (tokens, vocab) in [(1, 1), (8192, 4096), (8192, 128_256), (3, 128_256), (1, 1 << 30)] {
            let scratch = mixed_log_probs_scratch(device, tokens, vocab);
            let shape = mixed_log_probs(device, vectors, tokens, vocab);
            assert!(scratch_of(shape, tokens, vocab) <= scratch, "{tokens} {vocab} {shape:?}");
            let (LogProbsShape::Rows(shape)
            | LogProbsShape::Block(shape)
            | LogProbsShape::Cluster(shape)
            | LogProbsShape::Part(shape, ..)) = shape;
            assert!(shape.shared as usize >= WARPS * mixture_slot(vectors), "{shape:?}");
            assert!(shape.shared <= device.shared, "{tokens} {vocab} {shape:?}");
        }
    }
    // Beside slots of 96 KB there is no room for the states of 256 segments.
    let of = |vectors| mixed_log_probs(&ada, vectors, 8192, 262_144);
    assert!(matches!((of(8), of(24)), (LogProbsShape::Block(_), LogProbsShape::Part(_, 1, _))));
    let warps = |tokens, vocab| mixed_logit_grads(&hopper, 8, tokens, vocab).1;
    assert_eq!([warps(8192, 4096), warps(8192, 128_256), warps(3, 128_256)], [1, 8, 128]);
}

#[test]
fn grids_stay_in_range() {
    let hopper = device((9, 0), 132);
    for tokens in [1, 1 << 31, 1 << 40] {
        for vocab in [1, 128_256] {
            let (LogitGradsShape::Rows(shape) | LogitGradsShape::Block(shape, _)) =
                logit_grads(&hopper, DType::BF16, tokens, vocab);
            assert!(shape.grid > 0 && shape.grid as usize <= MAX_GRID);
        }
    }
    let LogitGradsShape::Block(shape, parts) = logit_grads(&hopper, DType::BF16, 8192, 128_256)
    else {
        panic!()
    };
    assert_eq!((shape.grid, parts), (8192, 1));
}
