//! Device memory, owned and borrowed.

use std::ops::Range;
use std::sync::Arc;

use super::context::Context;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::Place;

/// Borrowed device memory to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceSlice<'a> {
    context: &'a Context,
    address: u64,
    dtype: DType,
    len: usize,
}

/// Borrowed device memory to write.
#[derive(Debug)]
pub(crate) struct DeviceSliceMut<'a>(DeviceSlice<'a>);

/// Device memory that is given back when it is dropped, once what was enqueued before has run.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    context: Arc<Context>,
    address: u64,
    dtype: DType,
    len: usize,
}

impl<'a> DeviceSlice<'a> {
    /// # Errors
    /// An address that is no multiple of the element's size.
    ///
    /// # Safety
    /// `len` elements of initialised device memory lie at `address` for `'a`, and until everything
    /// has run that is enqueued with them, and nobody else writes them meanwhile.
    pub unsafe fn from_raw(
        context: &'a Context,
        dtype: DType,
        address: u64,
        len: usize,
    ) -> Result<Self> {
        if address.is_multiple_of(dtype.size() as u64) {
            Ok(Self { context, address, dtype, len })
        } else {
            Err(Error::Alignment { expected: dtype.size(), address })
        }
    }

    /// Elements of a range that lies within.
    pub fn part(self, range: Range<usize>) -> Self {
        debug_assert!(range.end <= self.len);
        let address = self.address + (range.start * self.dtype.size()) as u64;
        Self { address, len: range.len(), ..self }
    }

    pub fn dtype(self) -> DType {
        self.dtype
    }

    pub fn len(self) -> usize {
        self.len
    }

    pub fn address(self) -> u64 {
        self.address
    }

    pub fn place(self) -> Place {
        self.context.place()
    }

    /// A copy of elements of the slice's own type.
    pub fn read<T: Element>(self) -> Result<Vec<T>> {
        debug_assert_eq!(T::DTYPE, self.dtype);
        let mut values = vec![T::zeroed(); self.len];
        // SAFETY: the slice is this large.
        unsafe { self.context.download(bytemuck::cast_slice_mut(&mut values), self.address) }?;
        Ok(values)
    }
}

impl<'a> DeviceSliceMut<'a> {
    /// # Errors
    /// As [`DeviceSlice::from_raw`].
    ///
    /// # Safety
    /// As [`DeviceSlice::from_raw`], and nobody else reads the memory meanwhile.
    pub unsafe fn from_raw(
        context: &'a Context,
        dtype: DType,
        address: u64,
        len: usize,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { DeviceSlice::from_raw(context, dtype, address, len) }.map(Self)
    }

    pub fn as_slice(&self) -> DeviceSlice<'_> {
        self.0
    }

    pub fn reborrow(&mut self) -> DeviceSliceMut<'_> {
        DeviceSliceMut(self.0)
    }

    /// Elements of a range that lies within.
    pub fn part(self, range: Range<usize>) -> Self {
        Self(self.0.part(range))
    }

    /// Overwrites all elements by as many of the same type of the same backend.
    pub fn copy_from(&mut self, from: DeviceSlice<'_>) -> Result<()> {
        self.0.place().check("copied buffer", from.place())?;
        let (driver, bytes) = (self.0.context.driver(), self.0.len * self.0.dtype.size());
        // SAFETY: both slices are this large, and one that is written overlaps no other.
        unsafe { driver.copy(self.0.address, from.address, bytes) }
    }

    /// Overwrites all elements by as many of the same type.
    pub fn upload<T: Element>(&mut self, values: &[T]) -> Result<()> {
        debug_assert_eq!((T::DTYPE, values.len()), (self.0.dtype, self.0.len));
        if values.is_empty() {
            return Ok(());
        }
        let driver = self.0.context.driver();
        // SAFETY: the slice is this large.
        unsafe { driver.upload(self.0.address, bytemuck::cast_slice(values)) }
    }
}

impl DeviceBuffer {
    /// Memory filled with 0.
    ///
    /// # Errors
    /// A size that no memory has, or the driver's own errors.
    pub fn zeroed(context: &Arc<Context>, dtype: DType, len: usize) -> Result<Self> {
        let bytes = len
            .checked_mul(dtype.size())
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or(Error::OutOfMemory { what: "buffer", got: len })?;
        let address = if bytes == 0 { 0 } else { context.driver().allocate(bytes)? };
        let buffer = Self { context: context.clone(), address, dtype, len };
        if bytes > 0 {
            // SAFETY: just allocated, of this size.
            unsafe { context.driver().zero(address, bytes) }?;
        }
        Ok(buffer)
    }

    pub fn slice(&self) -> DeviceSlice<'_> {
        let Self { context, address, dtype, len } = self;
        DeviceSlice { context, address: *address, dtype: *dtype, len: *len }
    }

    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_> {
        DeviceSliceMut(self.slice())
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: allocated by this driver, and no slice of it is left.
            unsafe { self.context.driver().free(self.address) };
        }
    }
}
