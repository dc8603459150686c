//! What all memory and all stages of one backend share: the driver and the error slot.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

use super::driver::{Driver, Mapped};
use crate::batch::Weights;
use crate::error::{Error, Result};
use crate::memory::Place;
use crate::stages::SparseTeacherError;

/// A stream, and the errors that its kernels find.
#[derive(Debug)]
pub(crate) struct Context {
    driver: Box<dyn Driver>,
    number: usize,
    /// For the kernels: each looks at it first, and writes nothing once it holds an error.
    slot: u64,
    /// The same for the host, which can look without waiting.
    mapped: Mapped,
    /// Held over all launches of a stage, and over taking an error: between a stage's check and its
    /// kernel no thread may clear the slot.
    turn: Mutex<()>,
    errors_taken: AtomicUsize,
}

// SAFETY: the mapped memory is written by kernels and read by volatile accesses alone; it belongs to
// nobody else.
unsafe impl Send for Context {}
// SAFETY: as above; the host writes it under `turn`.
unsafe impl Sync for Context {}

/// What a kernel found; twin of `ErrorSlot` in kernels/include/tokens.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Record {
    code: i64,
    token: i64,
    value: i64,
    vocab: i64,
    ignore: i64,
}

const LABEL_OUTSIDE: i64 = 1;
const WEIGHT_NOT_FINITE: i64 = 2;
const SPARSE_ID_OUTSIDE: i64 = 3;
const SPARSE_ID_TWICE: i64 = 4;
const SPARSE_LOG_PROB_ABOVE: i64 = 5;

impl Record {
    fn error(self) -> Option<Error> {
        let token = self.token as usize;
        match self.code {
            0 => None,
            LABEL_OUTSIDE => {
                let (label, vocab, ignore) = (self.value, self.vocab as usize, self.ignore);
                Some(Error::Label { token, label, vocab, ignore })
            }
            WEIGHT_NOT_FINITE => {
                Some(Weights::not_finite(token, f32::from_bits(self.value as u32)))
            }
            SPARSE_ID_OUTSIDE => {
                let (vocab, got) = (self.vocab as usize, self.value);
                Some(SparseTeacherError::Outside { token, vocab, got }.into())
            }
            SPARSE_ID_TWICE => Some(SparseTeacherError::Twice { token, got: self.value }.into()),
            SPARSE_LOG_PROB_ABOVE => {
                let got = f64::from(f32::from_bits(self.value as u32));
                Some(SparseTeacherError::AboveZero { token, got }.into())
            }
            code => Some(Error::Driver {
                call: "error slot",
                message: format!("unknown code {code}: memory was overwritten"),
            }),
        }
    }
}

impl Context {
    /// # Errors
    /// The driver's own.
    pub fn new(driver: Box<dyn Driver>) -> Result<Self> {
        static CONTEXTS: AtomicUsize = AtomicUsize::new(0);
        let bytes = size_of::<Record>();
        let slot = driver.allocate(bytes)?;
        let mapped = match driver.allocate_mapped(bytes) {
            Ok(mapped) => mapped,
            Err(error) => {
                // SAFETY: nothing was enqueued on it.
                unsafe { driver.free(slot) };
                return Err(error);
            }
        };
        let number = CONTEXTS.fetch_add(1, Ordering::Relaxed);
        let (turn, errors_taken) = (Mutex::new(()), AtomicUsize::new(0));
        let context = Self { driver, number, slot, mapped, turn, errors_taken };
        context.clear()?;
        Ok(context)
    }

    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub fn place(&self) -> Place {
        Place::Device(self.number)
    }

    /// Where kernels find the slot, on the device and mapped.
    pub fn slot(&self) -> [u64; 2] {
        [self.slot, self.mapped.device]
    }

    /// What a stage holds while it launches.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        // A thread that panicked has launched its stage or has not.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many errors the host has taken so far.
    pub fn errors_taken(&self) -> usize {
        self.errors_taken.load(Ordering::Acquire)
    }

    /// Waits for everything enqueued, and takes the error that a kernel has left.
    ///
    /// # Errors
    /// That error, or the driver's own.
    pub fn check(&self) -> Result<()> {
        self.driver.synchronize()?;
        self.take()
    }

    /// Takes an error that a kernel has left, without waiting for those that still run.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn poll(&self) -> Result<()> {
        if self.code() == 0 { Ok(()) } else { self.check() }
    }

    /// Copies device memory to the host, and waits for it.
    ///
    /// # Errors
    /// What a kernel has left in the slot, or the driver's own.
    ///
    /// # Safety
    /// That of [`Driver::download`].
    pub unsafe fn download(&self, to: &mut [u8], from: u64) -> Result<()> {
        if to.is_empty() {
            return self.check();
        }
        // SAFETY: the caller's promise.
        unsafe { self.driver.download(to, from) }?;
        self.take()
    }

    fn take(&self) -> Result<()> {
        let _turn = self.turn();
        if self.code() == 0 {
            return Ok(());
        }
        // The kernel that wrote the code may still be writing the rest.
        self.driver.synchronize()?;
        let record = self.mapped.host.cast::<Record>();
        // SAFETY: the memory is of this size, page-aligned and initialised, and no kernel runs.
        let record = unsafe { record.as_ptr().read_volatile() };
        self.clear()?;
        self.errors_taken.fetch_add(1, Ordering::Release);
        record.error().map_or(Ok(()), Err)
    }

    fn code(&self) -> i64 {
        // SAFETY: the record begins with its code; kernels write it while the host reads, hence
        // volatile.
        unsafe { self.mapped.host.cast::<i64>().as_ptr().read_volatile() }
    }

    /// The device's slot is cleared in the order of the stream, which is after every kernel that has
    /// been told to do nothing. If that fails, the error stays to be seen.
    fn clear(&self) -> Result<()> {
        // SAFETY: the slot is this large.
        unsafe { self.driver.zero(self.slot, size_of::<Record>()) }?;
        let record = self.mapped.host.cast::<Record>();
        // SAFETY: as for reading; no kernel writes it: the slot holds an error until the line above
        // has run, and nothing is launched meanwhile.
        unsafe { record.as_ptr().write_volatile(Record::zeroed()) };
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // What is enqueued may still look at the slot.
        let _ = self.driver.synchronize();
        // SAFETY: allocated by this driver; nothing runs any more, and buffers hold the context, so
        // there is none left.
        unsafe {
            self.driver.free(self.slot);
            self.driver.free_mapped(self.mapped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn the_record_is_the_kernels() {
        assert_eq!(size_of::<Record>(), 40);
        assert_eq!(std::mem::offset_of!(Record, ignore), 32);
    }
}
