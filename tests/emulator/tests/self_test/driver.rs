//! What the launcher gets wrong comes back as an error, and errors of kernels stay.

use std::ffi::c_void;
use std::sync::Arc;

use prefuse::Error;
use prefuse::cuda::{Device, Driver, LaunchShape};
use prefuse_emulator::{Emulator, Schedule, kernel_names, parameter_sizes};

use crate::common::{Argument, Buffer, SHARED, device, emulator, launch, shape};

fn message(result: prefuse::Result<()>) -> String {
    match result {
        Err(Error::Driver { call: "launch", message }) => message,
        other => panic!("expected an error of the launch, got {other:?}"),
    }
}

#[test]
fn refused_launches() {
    let emulator = emulator(Schedule::Forward);
    let (x, out) = (Buffer::new(&emulator, &[1f32; 128]), Buffer::<f32>::poisoned(&emulator, 128));
    let refused = |kernel: &str, shape: LaunchShape, arguments: &[&dyn Argument], part: &str| {
        let got = message(launch(&emulator, kernel, shape, arguments));
        assert!(got.contains(part), "expected {part:?} in {got:?}");
    };
    refused("none_such", shape(1, 32), &[&x], "no kernel is named none_such");
    refused("sum", shape(1, 128), &[&x], "sum takes 2 arguments, got 1");
    refused("sum", shape(1, 128), &[&x, &out, &1], "sum takes 2 arguments, got 3");
    // Its launch bounds.
    refused("sum", shape(1, 129), &[&x, &out], "1 to 128 threads, got 129");
    refused("exchange", shape(1, 1025), &[&out], "1 to 1024 threads, got 1025");
    refused("sum", shape(0, 128), &[&x, &out], "a grid takes 1 to");
    let clustered = |grid, cluster| LaunchShape { grid, block: 32, cluster, shared: 0 };
    refused("exchange", clustered(3, 2), &[&out], "no multiple of the cluster's 2");
    refused("exchange", clustered(16, 16), &[&out], "at most 8 blocks, got 16");
    refused("exchange", clustered(1, 0), &[&out], "1 to 16 blocks, got 0");
    refused("sum", shape(1, 128), &[&x, &0x1000u64], "does not point to device memory");
    let freed = Buffer::<f32>::poisoned(&emulator, 4);
    let address = freed.address;
    drop(freed);
    refused("sum", shape(1, 128), &[&x, &address], "points into freed memory");
    // None of it harms the device.
    launch(&emulator, "sum", shape(1, 128), &[&x, &out]).unwrap();
    assert_eq!(out.get().unwrap()[0], 128.0);
}

#[test]
fn arguments_of_the_wrong_size() {
    let emulator = emulator(Schedule::Forward);
    let buffer = Buffer::new(&emulator, &[0f32; 8]);
    // Halves of one word where pointers are expected.
    let mut halves = [buffer.address, 0];
    let base = halves.as_mut_ptr().cast::<u8>();
    let run = |offsets: [usize; 2]| {
        let mut arguments = offsets.map(|offset| base.wrapping_add(offset).cast::<c_void>());
        // SAFETY: the emulator looks at the pointers before it reads through them.
        message(unsafe { emulator.launch("sum", shape(1, 128), &mut arguments) })
    };
    assert!(run([0, 4]).contains("overlaps with argument 1"));
    assert!(run([4, 8]).contains("is not aligned for its type"));
    let mut null = [base.cast::<c_void>(), std::ptr::null_mut()];
    // SAFETY: as above.
    let got = message(unsafe { emulator.launch("sum", shape(1, 128), &mut null) });
    assert!(got.contains("is a null pointer"), "{got}");
}

#[test]
fn limits_of_shared_memory() {
    for (capability, kib) in
        [((8, 0), 163), ((8, 6), 99), ((8, 9), 99), ((9, 0), 227), ((10, 0), 227), ((12, 0), 99)]
    {
        let emulator = Arc::new(Emulator::new(device(capability.0, capability.1)));
        let out = Buffer::<f32>::poisoned(&emulator, 32);
        let with = |shared| LaunchShape { shared, ..shape(1, 32) };
        launch(&emulator, "exchange", with(kib * 1024), &[&out]).unwrap();
        let got = message(launch(&emulator, "exchange", with(kib * 1024 + 1), &[&out]));
        assert!(got.contains("of shared memory for a block"), "{got}");
    }
}

#[test]
fn clusters_take_hopper() {
    let emulator = Arc::new(Emulator::new(device(8, 9)));
    let clusters = Arc::new(Emulator::new(Device { cluster: 17, ..device(8, 9) }));
    let out = Buffer::<f32>::poisoned(&emulator, 2 * 16);
    let shape = LaunchShape { grid: 2, block: 16, cluster: 2, shared: SHARED };
    let got = message(launch(&emulator, "good_cluster", shape, &[&out]));
    assert!(got.contains("at most 1 blocks, got 2"), "{got}");
    // What the device says of itself does not decide.
    let got = message(launch(&clusters, "good_cluster", shape, &[&out]));
    assert!(got.contains("compute capability 8.9 has no clusters"), "{got}");
    let shape_17 = LaunchShape { grid: 17, cluster: 17, ..shape };
    let got = message(launch(&clusters, "good_cluster", shape_17, &[&out]));
    assert!(got.contains("1 to 16 blocks, got 17"), "{got}");
    // Elsewhere a cluster is one block.
    launch(&emulator, "good_cluster", LaunchShape { cluster: 1, ..shape }, &[&out]).unwrap();
}

#[test]
fn a_report_stays() {
    let emulator = emulator(Schedule::Forward);
    let out = Buffer::new(&emulator, &[0f32; 32]);
    let first = message(launch(&emulator, "traps", shape(1, 32), &[&out]));
    let errors = [
        emulator.synchronize().unwrap_err(),
        out.get().unwrap_err(),
        emulator.allocate(1).unwrap_err(),
        launch(&emulator, "exchange", shape(1, 32), &[&out]).unwrap_err(),
    ];
    for (error, call) in errors.iter().zip(["synchronize", "download", "allocate", "launch"]) {
        assert_eq!(error.to_string(), format!("{call}: after an earlier error: {first}"));
    }
    // Others have devices of their own.
    crate::common::emulator(Schedule::Forward).synchronize().unwrap();
}

#[test]
fn copies_stay_inside() {
    let emulator = emulator(Schedule::Forward);
    let buffer = Buffer::<u8>::poisoned(&emulator, 10);
    assert_eq!(buffer.get().unwrap(), [0xff; 10]);
    let mut byte = [0];
    // SAFETY: the emulator checks ranges before it touches them.
    unsafe {
        emulator.zero(buffer.address + 2, 8).unwrap();
        assert!(emulator.zero(buffer.address + 3, 8).is_err());
        assert!(emulator.upload(buffer.address + 10, &[0]).is_err());
        assert!(emulator.upload(buffer.address + 10, &[]).is_ok());
        assert!(emulator.download(&mut byte, buffer.address - 1).is_err());
        emulator.download(&mut byte, buffer.address + 1).unwrap();
    }
    assert_eq!((byte, buffer.get().unwrap()[2]), ([0xff], 0));
    assert!(emulator.allocate(0).is_err());
}

#[test]
fn mapped_memory() {
    let emulator = emulator(Schedule::Forward);
    let mapped = emulator.allocate_mapped(2 * 4 + 4 * 8).unwrap();
    // SAFETY: the memory is there until it is freed, and the kernel has run when it is read.
    unsafe {
        let words = mapped.host.cast::<i32>();
        assert_eq!(words.read(), 0);
        launch(&emulator, "livelock", shape(1, 32), &[&mapped.device]).unwrap();
        emulator.free_mapped(mapped);
    }
    assert_eq!(emulator.allocations(), 0);
}

#[test]
fn double_free() {
    let emulator = emulator(Schedule::Forward);
    let address = emulator.allocate(16).unwrap();
    assert_eq!(emulator.allocations(), 1);
    // SAFETY: the second call is what is to be found.
    unsafe {
        emulator.free(address);
        emulator.synchronize().unwrap();
        emulator.free(address);
    }
    assert!(emulator.synchronize().unwrap_err().to_string().contains("freed before"));
}

#[test]
fn devices_side_by_side() {
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || {
                let emulator = emulator(Schedule::Random(seed));
                let x = Buffer::new(&emulator, &[1f32; 1280]);
                let out = Buffer::<f32>::poisoned(&emulator, 10);
                for _ in 0..5 {
                    launch(&emulator, "sum", shape(10, 128), &[&x, &out]).unwrap();
                    assert_eq!(out.get().unwrap(), [128.0; 10]);
                }
                if seed % 2 == 0 {
                    launch(&emulator, "traps", shape(1, 32), &[&x]).unwrap_err();
                }
            });
        }
    });
}

/// The build has found the entry points, those that macros make too.
#[test]
fn entry_points() {
    let names = kernel_names();
    for kernel in ["good_warp", "sum", "bulk_sum_no_wait", "max_halves"] {
        assert!(names.iter().any(|name| name == kernel), "{names:?}");
    }
    assert_eq!(parameter_sizes("bulk_sum"), [8, 8, 4]);
    assert!(parameter_sizes("none_such").is_empty());
}

/// The twin has every function of the header that it stands in for.
#[test]
fn the_twin_is_complete() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let twin = read("tests/emulator/cuda/ptx.cuh");
    let header = read("kernels/include/ptx.cuh");
    let mut functions = 0;
    for line in header.lines().filter(|line| line.contains("__forceinline__")) {
        let head = line.split('(').next().unwrap();
        let name = head.rsplit([' ', '*', '&']).next().unwrap();
        assert!(twin.contains(&format!("{name}(")), "the twin of ptx.cuh has no {name}");
        functions += 1;
    }
    assert!(functions > 10, "found {functions} functions in ptx.cuh");
}
