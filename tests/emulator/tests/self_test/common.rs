//! A device, buffers on it, and launches.

use std::ffi::c_void;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use prefuse::Result;
use prefuse::cuda::{Device, Driver, LaunchShape};
use prefuse_emulator::{Emulator, Schedule};

/// Bytes of the test kernels' largest struct in shared memory, and more.
pub const SHARED: u32 = 8192;

pub fn device(major: u32, minor: u32) -> Device {
    let name = "emulated".to_owned();
    let cluster = if major >= 9 { 8 } else { 1 };
    let shared = 99 << 10;
    Device { ordinal: 0, name, capability: (major, minor), processors: 4, shared, cluster }
}

pub fn emulator(schedule: Schedule) -> Arc<Emulator> {
    with_workers(2, schedule)
}

/// The schedule alone says whose turn it is, not how busy the host is.
pub fn one_worker(schedule: Schedule) -> Arc<Emulator> {
    with_workers(1, schedule)
}

fn with_workers(workers: u32, schedule: Schedule) -> Arc<Emulator> {
    let emulator = Emulator::new(device(9, 0)).with_schedule(schedule);
    Arc::new(emulator.with_workers(workers).with_preemption(8))
}

pub fn schedules() -> impl Iterator<Item = Schedule> {
    [Schedule::Forward, Schedule::Reverse].into_iter().chain((0..8).map(Schedule::Random))
}

pub fn shape(grid: u32, block: u32) -> LaunchShape {
    LaunchShape { grid, block, cluster: 1, shared: SHARED }
}

pub struct Buffer<T> {
    emulator: Arc<Emulator>,
    pub address: u64,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    pub fn new(emulator: &Arc<Emulator>, data: &[T]) -> Self {
        let buffer = Self::poisoned(emulator, data.len());
        // SAFETY: the buffer has the size of the data.
        unsafe { emulator.upload(buffer.address, bytemuck::cast_slice(data)).unwrap() };
        buffer
    }

    pub fn poisoned(emulator: &Arc<Emulator>, len: usize) -> Self {
        let address = emulator.allocate(len * size_of::<T>()).unwrap();
        Self { emulator: Arc::clone(emulator), address, len, kind: std::marker::PhantomData }
    }

    pub fn get(&self) -> Result<Vec<T>> {
        let mut data = vec![T::zeroed(); self.len];
        // SAFETY: the buffer has the size of the data.
        unsafe { self.emulator.download(bytemuck::cast_slice_mut(&mut data), self.address)? };
        Ok(data)
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: launches have run when they return, and the address goes with the buffer.
        unsafe { self.emulator.free(self.address) }
    }
}

/// What a kernel takes: buffers by address, numbers by value.
pub trait Argument {
    fn bits(&self) -> Bits;
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Bits([u8; 8]);

impl<T> Argument for Buffer<T> {
    fn bits(&self) -> Bits {
        Bits(self.address.to_le_bytes())
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Argument for $type {
            fn bits(&self) -> Bits {
                let mut bytes = [0; 8];
                bytes[..size_of::<$type>()].copy_from_slice(&self.to_le_bytes());
                Bits(bytes)
            }
        }
    )*};
}
number!(i32, u32, f32, u64);

pub fn launch(
    emulator: &Emulator,
    kernel: &str,
    shape: LaunchShape,
    arguments: &[&dyn Argument],
) -> Result<()> {
    let mut bits: Vec<Bits> = arguments.iter().map(|argument| argument.bits()).collect();
    let mut pointers: Vec<*mut c_void> =
        bits.iter_mut().map(|bits| std::ptr::from_mut(bits).cast()).collect();
    // SAFETY: what is wrong with the arguments is what the emulator is to find.
    unsafe { emulator.launch(kernel, shape, &mut pointers) }
}
