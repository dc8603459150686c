//! Mistakes are caught in the modes where they can be, and only there: this table is what the modes
//! are good for.

use std::sync::Arc;

use prefuse::Result;
use prefuse::cuda::LaunchShape;
use prefuse_emulator::{Emulator, Mode, Schedule, mode};

use crate::common::{Buffer, SHARED, emulator, launch, one_worker, schedules, shape};

/// In which schedules a mistake shows.
#[derive(Debug, PartialEq)]
enum Caught {
    /// A report with these words, in all.
    Always(&'static str),
    /// A report or wrong values, in some.
    Sometimes,
    /// In none.
    Never,
}
use Caught::{Always, Never, Sometimes};

/// What to expect in fast, race and asan mode.
type Expected = [Caught; 3];

/// Whether the values are right, or a report.
type Outcome = Result<bool>;

/// Runs a kernel under every schedule.
fn check(kernel: &str, expected: Expected, run: impl Fn(&Arc<Emulator>, &str) -> Outcome) {
    check_on(emulator, kernel, expected, run);
}

fn check_on(
    emulator: fn(Schedule) -> Arc<Emulator>,
    kernel: &str,
    expected: Expected,
    run: impl Fn(&Arc<Emulator>, &str) -> Outcome,
) {
    let outcomes: Vec<Outcome> =
        schedules().map(|schedule| run(&emulator(schedule), kernel)).collect();
    let reports: Vec<String> =
        outcomes.iter().filter_map(|o| o.as_ref().err().map(ToString::to_string)).collect();
    let noticed = outcomes.iter().filter(|outcome| !matches!(outcome, Ok(true))).count();
    let expected = &expected[match mode() {
        Mode::Fast => 0,
        Mode::Race => 1,
        Mode::Asan => 2,
    }];
    let context = format!(
        "{kernel}: {noticed} of {} noticed, {} reported; expected {expected:?}; {reports:#?}",
        outcomes.len(),
        reports.len()
    );
    match expected {
        Always(words) => {
            assert_eq!(reports.len(), outcomes.len(), "{context}");
            assert!(reports.iter().all(|report| report.contains(words)), "{context}");
        }
        Sometimes => assert!(noticed > 0 && reports.len() < outcomes.len(), "{context}"),
        Never => assert_eq!(noticed, 0, "{context}"),
    }
}

/// Runs a kernel that writes `expected` to its only argument.
fn writes(
    shape: LaunchShape,
    initial: Vec<f32>,
    expected: Vec<f32>,
) -> impl Fn(&Arc<Emulator>, &str) -> Outcome {
    move |emulator, kernel| {
        let out = Buffer::new(emulator, &initial);
        launch(emulator, kernel, shape, &[&out])?;
        Ok(out.get()? == expected)
    }
}

fn indices(n: usize) -> impl Iterator<Item = f32> {
    (0..n).map(|i| i as f32)
}

#[test]
fn block_reduction() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let x: Vec<f32> = indices(3 * 128).collect();
        let expected: Vec<f32> = x.chunks(128).map(|block| block.iter().sum()).collect();
        let (x, out) = (Buffer::new(emulator, &x), Buffer::<f32>::poisoned(emulator, 3));
        launch(emulator, kernel, shape(3, 128), &[&x, &out])?;
        Ok(out.get()? == expected)
    };
    check("sum", [Never, Never, Never], run);
    check("sum_no_barrier", [Sometimes, Always("data race at planted.cu:"), Sometimes], run);
    let mask = "warp mask at planted.cu:";
    check("sum_wrong_mask", [Always(mask), Always(mask), Always(mask)], run);
    // Wrong because shared memory starts as NaN.
    let uninitialised = Always("uninitialised shared memory at planted.cu:");
    check("sum_uninitialised", [Sometimes, uninitialised, Sometimes], run);
}

#[test]
fn last_block() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let parts = Buffer::<f32>::poisoned(emulator, 16);
        let (count, out) = (Buffer::new(emulator, &[0i32]), Buffer::new(emulator, &[0f32]));
        launch(emulator, kernel, shape(8, 64), &[&parts, &count, &out])?;
        Ok(out.get()? == [72.0])
    };
    let race = "data race at planted.cu:";
    check("last_block", [Never, Never, Never], run);
    // The host's memory is coherent.
    check("last_block_no_fence", [Never, Always(race), Never], run);
    // The writers share a warp with the thread that counts, so it takes unlucky turns: those of a busy
    // host with two workers, but of no schedule here.
    check_on(one_worker, "last_block_no_barrier", [Never, Always(race), Never], run);
}

fn async_sum(emulator: &Arc<Emulator>, kernel: &str) -> Outcome {
    let x: Vec<f32> = indices(7 * 256).map(|x| x % 97.0).collect();
    let expected: Vec<f32> = (0..128)
        .map(|t| (0..7).map(|tile| x[tile * 256 + 2 * t] + x[tile * 256 + 255 - 2 * t]).sum())
        .collect();
    let (bx, out) = (Buffer::new(emulator, &x), Buffer::<f32>::poisoned(emulator, 128));
    launch(emulator, kernel, shape(1, 128), &[&bx, &out, &(7 * 256)])?;
    Ok(out.get()? == expected)
}

#[test]
fn async_copies() {
    check("async_sum", [Never, Never, Never], async_sum);
    let race = Always("data race at planted.cu:");
    check("async_sum_no_wait", [Sometimes, race, Sometimes], async_sum);
}

#[test]
fn bulk_copies_in_clusters() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let x: Vec<f32> = indices(9 * 256).map(|x| x % 89.0).collect();
        let (bx, out) = (Buffer::new(emulator, &x), Buffer::<f32>::poisoned(emulator, 2));
        let shape = LaunchShape { grid: 4, block: 128, cluster: 2, shared: SHARED };
        launch(emulator, kernel, shape, &[&bx, &out, &(9 * 256)])?;
        Ok(out.get()? == [x.iter().sum::<f32>(); 2])
    };
    check("bulk_sum", [Never, Never, Never], run);
    let race = "data race at planted.cu:";
    check("bulk_sum_no_wait", [Sometimes, Always(race), Sometimes], run);
    check("bulk_sum_early_refill", [Sometimes, Always(race), Sometimes], run);
    let cluster = "cluster at planted.cu:";
    check("bulk_sum_no_barrier_before", [Always(cluster), Always(cluster), Always(cluster)], run);
    // Either the block has exited before it is written to, or it was written to before it exits.
    check("bulk_sum_no_barrier_after", ["cluster at"; 3].map(Always), run);
}

#[test]
fn out_of_bounds() {
    let run = |n: usize| {
        move |emulator: &Arc<Emulator>, kernel: &str| {
            let x: Vec<f32> = indices(n).collect();
            // As many vectors as x has; only what is stored past the end is wrong.
            let bx = Buffer::new(emulator, &[x.clone(), vec![0.0]].concat());
            let out = Buffer::<f32>::poisoned(emulator, n);
            launch(emulator, kernel, shape(1, 32), &[&bx, &out, &(n as i32)])?;
            Ok(out.get()? == x)
        }
    };
    check("copy_past_end", [Never, Never, Never], run(300));
    let outside = || Always("out of bounds at planted.cu:");
    let asan = || Always("heap-buffer-overflow at planted.cu:");
    let margin = Always("out of bounds at copy_past_end: byte 1196");
    check("copy_past_end", [margin, outside(), asan()], run(299));
    let reads = |emulator: &Arc<Emulator>, kernel: &str| {
        let (x, out) = (Buffer::new(emulator, &[1f32; 9]), Buffer::<f32>::poisoned(emulator, 3));
        launch(emulator, kernel, shape(1, 3), &[&x, &out, &9])?;
        Ok(out.get()? == [1.0; 3])
    };
    check("read_past_end", [Never, outside(), asan()], reads);
    let illegal = || Always("illegal address at planted.cu:");
    let run = writes(shape(1, 32), vec![0.0; 32], vec![0.0; 32]);
    check("far_away", [illegal(), outside(), illegal()], run);
}

#[test]
fn misaligned_access() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let (x, out) = (Buffer::new(emulator, &[1f32; 256]), Buffer::<f32>::poisoned(emulator, 32));
        launch(emulator, kernel, shape(1, 32), &[&x, &out])?;
        Ok(true)
    };
    let report = || Always("misaligned address at planted.cu:");
    check("misaligned", [report(), report(), report()], run);
}

#[test]
fn shared_memory() {
    let exchanged = || indices(64).map(|i| (i as u32 ^ 1) as f32).collect::<Vec<_>>();
    let exchange = || writes(shape(1, 64), vec![0.0; 64], exchanged());
    let race = || Always("data race at planted.cu:");
    check("exchange", [Never, Never, Never], exchange());
    check("exchange_no_sync_warp", [Sometimes, race(), Sometimes], exchange());
    let copied = |emulator: &Arc<Emulator>, kernel: &str| {
        let x: Vec<f32> = indices(16).collect();
        let (bx, out) = (Buffer::new(emulator, &x), Buffer::<f32>::poisoned(emulator, 16));
        launch(emulator, kernel, shape(1, 16), &[&bx, &out])?;
        Ok(out.get()? == x)
    };
    check("copy_no_barrier", [Sometimes, race(), Sometimes], copied);
    let twice = writes(shape(1, 64), vec![0.0; 64], vec![3.0; 64]);
    check("write_after_read", [Sometimes, race(), Sometimes], twice);
    // A thread's own read and write are not parted without preemption.
    check("lost_update", [Never, race(), Never], writes(shape(1, 64), vec![0.0], vec![64.0]));
}

/// Fresh device memory that nobody has written is NaN, and known in race mode.
#[test]
fn uninitialised_device_memory() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let x = Buffer::<f32>::poisoned(emulator, 128);
        let out = Buffer::<f32>::poisoned(emulator, 1);
        launch(emulator, kernel, shape(1, 128), &[&x, &out])?;
        Ok(!out.get()?[0].is_nan())
    };
    check("sum", [Sometimes, Always("uninitialised device memory at planted.cu:"), Sometimes], run);
}

#[test]
fn between_blocks() {
    let twice = writes(shape(6, 32), vec![0.0; 3], vec![2.0; 3]);
    check("two_blocks_on_one_word", [Never, Always("data race at planted.cu:"), Never], twice);
}

#[test]
fn control_flow() {
    for (kernel, report, out) in [
        ("divergent_barrier", "divergent barrier at planted.cu:", 128),
        ("deadlock", "deadlock at planted.cu:", 128),
        ("livelock", "livelock at planted.cu:", 1),
        ("traps", "trap at planted.cu:", 32),
    ] {
        let threads = out.max(32) as u32;
        let run = writes(shape(1, threads), vec![1.0; out], vec![1.0; out]);
        check(kernel, [Always(report), Always(report), Always(report)], run);
    }
}

/// Half of a warp asks for lanes that ask for themselves alone, and may be gone by then.
#[test]
fn mixed_masks() {
    let run =
        writes(shape(1, 32), vec![0.0; 32], indices(32).map(|i| (i as u32 ^ 1) as f32).collect());
    check("mixed_masks", [Sometimes, Sometimes, Sometimes], run);
}

/// The host passes too little dynamic shared memory: known at once for a struct, and for an array
/// when its end is touched.
#[test]
fn too_little_shared_memory() {
    let small = LaunchShape { shared: 64, ..shape(1, 128) };
    let report = || Always("shared memory at planted.cu:");
    let run = writes(small, vec![0.0; 128], vec![0.0; 128]);
    check("exchange", [report(), report(), report()], run);
    let words = |shared| {
        move |emulator: &Arc<Emulator>, kernel: &str| {
            let out = Buffer::<f32>::poisoned(emulator, 1);
            let shape = LaunchShape { shared, ..shape(1, 32) };
            launch(emulator, kernel, shape, &[&out, &100])?;
            Ok(out.get()? == [99.0])
        }
    };
    check("dynamic_words", [Never, Never, Never], words(400));
    let poisoned = Always("use-after-poison at planted.cu:");
    check("dynamic_words", [Never, Always("out of bounds at planted.cu:"), poisoned], words(396));
}

#[test]
fn freed_memory() {
    let run = |emulator: &Arc<Emulator>, kernel: &str| {
        let freed = Buffer::new(emulator, &[1f32]);
        let address = freed.address;
        drop(freed);
        let (table, out) =
            (Buffer::new(emulator, &[address]), Buffer::<f32>::poisoned(emulator, 1));
        launch(emulator, kernel, shape(1, 32), &[&table, &out])?;
        Ok(out.get()? == [1.0])
    };
    let race = Always("use after free at planted.cu:");
    // Wrong because freed memory is filled with NaN.
    check("indirect", [Sometimes, race, Always("use-after-poison at planted.cu:")], run);
}
