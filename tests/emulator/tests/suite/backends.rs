//! Emulated devices for the bodies of the crate's tests, and sizes that an emulator runs in minutes.
//!
//! Between them the devices have every launch shape: clusters and parts of a row where few rows meet
//! many processors, parts alone before sm_90, a block a row where many rows meet one processor.

use half::bf16;
use prefuse::cuda::Device;
use prefuse::{Backend, Cuda, DType, SliceMut};
use prefuse_emulator::{Emulator, Mode, Schedule, mode};

pub fn backends() -> Vec<Box<dyn Backend>> {
    fast_backends()
}

pub fn fast_backends() -> Vec<Box<dyn Backend>> {
    devices().into_iter().map(|device| Box::new(device) as Box<dyn Backend>).collect()
}

/// The first device, in race mode under one order: the stages are tested under all of them.
pub fn composed_backends() -> Vec<Box<dyn Backend>> {
    let device = emulators().swap_remove(0);
    vec![Box::new(cuda(device))]
}

pub fn devices() -> Vec<Cuda> {
    emulators().into_iter().map(cuda).collect()
}

/// In race mode every device under several orders of its threads.
pub fn emulators() -> Vec<Emulator> {
    let [hopper, ampere, single] =
        [((9, 0), 132), ((8, 0), 108), ((9, 0), 1)].map(|(capability, processors)| {
            let name = format!("emulated sm_{}{}, {processors}", capability.0, capability.1);
            let cluster = if capability >= (9, 0) { 8 } else { 1 };
            let shared = if capability >= (9, 0) { 227 } else { 163 } << 10;
            Device { ordinal: 0, name, capability, processors, shared, cluster }
        });
    if mode() != Mode::Race {
        return [hopper, ampere, single].map(|d| Emulator::new(d).with_workers(2)).into();
    }
    let orders = [
        (&hopper, Schedule::Random(1), PREEMPTION),
        (&hopper, Schedule::Reverse, 0),
        (&ampere, Schedule::Random(2), PREEMPTION),
        (&single, Schedule::Random(3), PREEMPTION),
    ];
    let emulators = orders.map(|(device, schedule, preemption)| {
        Emulator::new(device.clone()).with_schedule(schedule).with_preemption(preemption)
    });
    emulators.into()
}

/// One access in so many is followed by another thread's turn.
const PREEMPTION: u32 = 64;

fn cuda(emulator: Emulator) -> Cuda {
    Cuda::with_driver(Box::new(emulator)).unwrap()
}

fn or<T>(fast: T, race: T) -> T {
    if mode() == Mode::Fast { fast } else { race }
}

/// Around a vector, around a segment of 1024 columns, around the rows that are a warp's (4096); 17408
/// are the least that blocks share.
pub fn vocabs() -> &'static [usize] {
    or(&[1, 2, 31, 32, 33, 1000, 4099, 32_000], &[1, 2, 33, 4099, 17_408])
}

/// From 131073 on, few rows are in parts on every device.
pub fn large_vocabs() -> &'static [usize] {
    or(&[128_256, 151_936, 262_144], &[])
}

pub fn edge_vocabs() -> &'static [usize] {
    or(&[33, 1023, 1024, 1025, 4099, 50_257], &[33, 1025, 4099, 17_409])
}

/// More than three blocks of 8 warps, and more than two rows for the device of one processor; 4096 where
/// a warp's rows are few enough columns, and enough for a block's rows on every device.
pub fn many(vocab: usize) -> usize {
    match (mode(), vocab) {
        (Mode::Fast, 33) => 4096,
        (Mode::Fast, 4099) => 300,
        (Mode::Fast, _) => 29,
        _ => 11,
    }
}

/// Groups of more responses than a block has threads, 256.
pub fn long_groups_sizes() -> &'static [&'static [usize]] {
    or(&[&[257, 1024], &[1025]], &[&[257]])
}

/// Rows and their columns. The device of one processor holds all but the first on chip, in one block or in
/// clusters of 4; that of 132 the last, of which few rows fill half of it.
pub fn visits() -> &'static [(usize, usize)] {
    or(&[(3, 4099), (3, 8192), (3, 9001), (17, 33_000)], &[(2, 9001), (2, 33_000)])
}

pub fn visit() -> (usize, usize) {
    (3, 8200)
}

/// Memory of the host is memory of the emulator, so these zeros are pages that nobody has touched. The
/// race mode wants to know every allocation, and would fill them.
pub fn with_zeros(len: usize, body: impl Fn(&dyn Backend, SliceMut<'_>)) {
    if mode() != Mode::Fast {
        return;
    }
    for emulator in emulators() {
        let mut zeros = bytemuck::allocation::try_zeroed_vec::<bf16>(len).unwrap();
        // SAFETY: the vector is dropped after the device, and nobody else looks at it.
        unsafe { emulator.lend(zeros.as_mut_ptr().cast(), 2 * len) };
        let device = cuda(emulator);
        // SAFETY: as above; the emulator runs stages at once.
        let memory = unsafe { device.from_raw_mut(DType::BF16, zeros.as_mut_ptr() as u64, len) };
        body(&device, memory.unwrap());
    }
}
