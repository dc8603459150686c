//! [`Emulator`]: the driver's calls over the runtime's C interface.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prefuse::cuda::{Device, Driver, LaunchShape, Mapped};
use prefuse::{Error, Result};

use crate::interface::{DONE, Extent, INTERFACE, REFUSED, RawDevice};

/// In which order threads take their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// By index; asynchronous copies land when they are waited for.
    Forward,
    /// From the last thread.
    Reverse,
    /// By chance, from this seed. A third of the seeds starves one warp, and a third one block of the
    /// cluster.
    Random(u64),
}

/// What the build watches; see the crate's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing but what is found by running.
    Fast,
    /// Every access.
    Race,
    /// Every access, by AddressSanitizer and UndefinedBehaviorSanitizer.
    Asan,
}

/// The mode that `PREFUSE_EMULATOR` chose at build time.
pub fn mode() -> Mode {
    // SAFETY: the call has no preconditions.
    match unsafe { (INTERFACE.mode)() } {
        1 => Mode::Race,
        2 => Mode::Asan,
        _ => Mode::Fast,
    }
}

/// The names of all kernels, the emulator's own test kernels among them.
pub fn kernel_names() -> Vec<String> {
    // SAFETY: the call takes any number, and its strings are constants.
    let name = |index| unsafe { text((INTERFACE.kernel_name)(index)) };
    (0..).map_while(name).collect()
}

/// The sizes in bytes of what a kernel takes, to compare with those of the host's types; empty where
/// no kernel has the name.
pub fn parameter_sizes(kernel: &str) -> Vec<usize> {
    let Ok(name) = CString::new(kernel) else { return Vec::new() };
    // SAFETY: the string outlives the call, which takes any number.
    let bytes = |index| unsafe { (INTERFACE.parameter_bytes)(name.as_ptr(), index) };
    (0..).map(bytes).take_while(|bytes| *bytes != 0).collect()
}

/// A made-up GPU with its memory. Devices share nothing, so tests may use theirs side by side.
#[derive(Debug)]
pub struct Emulator {
    device: Device,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    raw: NonNull<RawDevice>,
    schedule: Schedule,
    workers: u32,
    preemption: u32,
    /// What a kernel was reported for. As on a GPU, nothing works after it.
    fault: Option<String>,
}

// SAFETY: the runtime's device belongs to no thread; the mutex orders the calls on it.
unsafe impl Send for State {}

impl Emulator {
    /// A device with these facts and no memory in use, with the forward schedule, one worker and no
    /// preemption.
    pub fn new(device: Device) -> Self {
        let (major, minor) = device.capability;
        // SAFETY: the call has no preconditions and never gives null.
        let raw = unsafe { NonNull::new_unchecked((INTERFACE.create)(major as i32, minor as i32)) };
        let state =
            State { raw, schedule: Schedule::Forward, workers: 1, preemption: 0, fault: None };
        Self { device, state: Mutex::new(state) }
    }

    /// With another schedule.
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        self.set_schedule(schedule);
        self
    }

    /// Clusters of a launch are spread over so many threads of the host. The race mode uses one.
    pub fn with_workers(self, workers: u32) -> Self {
        self.state().workers = workers;
        self
    }

    /// In race mode with a random schedule, about one memory access in so many is followed by a turn
    /// of another thread; 0 for none.
    pub fn with_preemption(self, preemption: u32) -> Self {
        self.state().preemption = preemption;
        self
    }

    /// Changes the schedule of the launches to come.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.state().schedule = schedule;
    }

    /// Allocations, device memory and mapped, that have not been given back.
    pub fn allocations(&self) -> usize {
        let state = self.state();
        // SAFETY: the device is alive.
        unsafe { (INTERFACE.allocation_count)(state.raw.as_ptr()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics leaves the device as it is, which is no harm to those after it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless a kernel has been reported.
    fn healthy(&self, call: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        match &state.fault {
            Some(fault) => Err(error(call, format!("after an earlier error: {fault}"))),
            None => Ok(state),
        }
    }
}

impl State {
    fn allocate(&self, call: &'static str, bytes: usize, zeroed: bool) -> Result<u64> {
        if bytes == 0 {
            return Err(error(call, "expected at least 1 byte, got 0".to_owned()));
        }
        // SAFETY: the device is alive.
        match unsafe { (INTERFACE.allocate)(self.raw.as_ptr(), bytes, i32::from(zeroed)) } {
            0 => Err(error(call, format!("no memory for {bytes} bytes"))),
            address => Ok(address),
        }
    }

    /// A pointer to a range of device memory that the host may copy, or why it may not.
    fn range(&self, call: &'static str, address: u64, bytes: usize) -> Result<*mut u8> {
        let raw = self.raw.as_ptr();
        let will_write = i32::from(call != "download");
        // SAFETY: the device is alive, and its message is read before the next call.
        let complaint = unsafe { text((INTERFACE.check_range)(raw, address, bytes, will_write)) };
        match complaint {
            Some(complaint) => Err(error(call, complaint)),
            None => Ok(std::ptr::with_exposed_provenance_mut(address as usize)),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: the device is alive until here.
        unsafe { (INTERFACE.destroy)(self.raw.as_ptr()) }
    }
}

// SAFETY: the runtime's allocations are the host's own memory, mapped ones filled with 0, and live until
// they are freed; every call is done when it returns, so their order is that of the calls.
unsafe impl Driver for Emulator {
    fn device(&self) -> &Device {
        &self.device
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.healthy("allocate")?.allocate("allocate", bytes, false)
    }

    unsafe fn free(&self, address: u64) {
        let mut state = self.state();
        // SAFETY: the device is alive.
        if unsafe { (INTERFACE.free)(state.raw.as_ptr(), address) } == 0 && state.fault.is_none() {
            state.fault = Some(format!("free: {address:#x} is no allocation, or was freed before"));
        }
    }

    fn allocate_mapped(&self, bytes: usize) -> Result<Mapped> {
        let call = "allocate_mapped";
        let address = self.healthy(call)?.allocate(call, bytes, true)?;
        let host = std::ptr::with_exposed_provenance_mut(address as usize);
        // SAFETY: addresses of the emulator are the host's, and this one is not null.
        Ok(Mapped { host: unsafe { NonNull::new_unchecked(host) }, device: address, bytes })
    }

    unsafe fn free_mapped(&self, memory: Mapped) {
        // SAFETY: mapped memory is memory like any other here.
        unsafe { self.free(memory.device) }
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        let state = self.healthy("upload")?;
        if !from.is_empty() {
            let to = state.range("upload", to, from.len())?;
            // SAFETY: the range is inside of an allocation, which no reference points into.
            unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
        }
        Ok(())
    }

    unsafe fn download(&self, to: &mut [u8], from: u64) -> Result<()> {
        let state = self.healthy("download")?;
        if !to.is_empty() {
            let from = state.range("download", from, to.len())?;
            // SAFETY: as for uploads.
            unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
        }
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        let state = self.healthy("copy")?;
        if bytes != 0 {
            let (to, from) = (state.range("copy", to, bytes)?, state.range("copy", from, bytes)?);
            // SAFETY: as for uploads, and the caller promises that they do not overlap.
            unsafe { to.copy_from_nonoverlapping(from, bytes) }
        }
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        let state = self.healthy("zero")?;
        if bytes != 0 {
            let to = state.range("zero", address, bytes)?;
            // SAFETY: as for uploads.
            unsafe { to.write_bytes(0, bytes) }
        }
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let mut state = self.healthy("launch")?;
        let LaunchShape { grid, block, cluster, shared } = shape;
        let most = self.device.cluster;
        if cluster > most {
            let message =
                format!("the device's clusters have at most {most} blocks, got {cluster}");
            return Err(error("launch", message));
        }
        let extent = Extent { grid, block, cluster, shared };
        let Ok(name) = CString::new(kernel) else {
            return Err(error("launch", format!("no kernel is named {kernel:?}")));
        };
        let (order, seed) = match state.schedule {
            Schedule::Forward => (0, 0),
            Schedule::Reverse => (1, 0),
            Schedule::Random(seed) => (2, seed),
        };
        let raw = state.raw.as_ptr();
        // SAFETY: the device is alive, the strings and the extent outlive the call, and the caller
        // answers for the arguments, which the runtime checks as far as it can before it runs.
        let (outcome, message) = unsafe {
            (INTERFACE.configure)(raw, order, seed, state.workers, state.preemption);
            let (pointer, count) = (arguments.as_mut_ptr(), arguments.len());
            let outcome = (INTERFACE.launch)(raw, name.as_ptr(), &extent, pointer, count);
            (outcome, text((INTERFACE.message)(raw)).unwrap_or_default())
        };
        match outcome {
            DONE => Ok(()),
            REFUSED => Err(error("launch", message)),
            _ => {
                let message = format!("{kernel}: {}", message.trim_end());
                state.fault = Some(message.clone());
                Err(error("launch", message))
            }
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.healthy("synchronize").map(drop)
    }
}

fn error(call: &'static str, message: String) -> Error {
    Error::Driver { call, message }
}

/// # Safety
/// The pointer is null or to a string with a NUL at its end.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
