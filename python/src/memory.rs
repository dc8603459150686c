//! Memory that Python names by its address. The one place where the core's slices are made of it.

use half::{bf16, f16};
use prefuse::batch::{Logits, LogitsMut};
use prefuse::{DType, Element, Error, Result, Slice, SliceMut};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::backend::Device;

/// Elements one after the other: address, name of their type, number.
#[derive(Clone, Copy)]
pub struct Memory {
    address: usize,
    dtype: DType,
    len: usize,
}

impl<'py> FromPyObject<'_, 'py> for Memory {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (address, dtype, len): (usize, String, usize) = object.extract()?;
        let found = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64]
            .into_iter()
            .find(|known| known.name() == dtype);
        match found {
            Some(dtype) => Ok(Self { address, dtype, len }),
            None => Err(PyTypeError::new_err(format!(
                "element type: expected f64, f32, f16, bf16 or i64, got {dtype}"
            ))),
        }
    }
}

/// Rows of logits: the memory from the first element to the last, then tokens, vocabulary, and elements from
/// a row to the next.
#[derive(Clone, Copy, FromPyObject)]
pub struct Rows(pub Memory, pub usize, pub usize, pub usize);

impl Memory {
    pub fn len(self) -> usize {
        self.len
    }

    /// # Errors
    /// Those of the device.
    ///
    /// # Safety
    /// As many elements of the type live at the address, on the host or on the device, and nobody writes them
    /// as long as the slice lives; what was enqueued on the device's stream before may.
    pub unsafe fn slice(self, device: &Device) -> Result<Slice<'_>> {
        self.check_alignment()?;
        match device {
            Device::Host(_) => {
                // SAFETY: the caller's promise.
                Ok(unsafe {
                    match self.dtype {
                        DType::F64 => Slice::new(self.host::<f64>()),
                        DType::F32 => Slice::new(self.host::<f32>()),
                        DType::F16 => Slice::new(self.host::<f16>()),
                        DType::BF16 => Slice::new(self.host::<bf16>()),
                        DType::I64 => Slice::new(self.host::<i64>()),
                        got => return Err(unknown(got)),
                    }
                })
            }
            Device::Cuda(cuda) => {
                // SAFETY: the caller's promise.
                unsafe { cuda.from_raw(self.dtype, self.address as u64, self.len) }
            }
        }
    }

    /// # Errors
    /// Those of the device.
    ///
    /// # Safety
    /// As for [`slice`](Self::slice), and nobody else reads them either.
    pub unsafe fn slice_mut(self, device: &Device) -> Result<SliceMut<'_>> {
        self.check_alignment()?;
        match device {
            Device::Host(_) => {
                // SAFETY: the caller's promise.
                Ok(unsafe {
                    match self.dtype {
                        DType::F64 => SliceMut::new(self.host_mut::<f64>()),
                        DType::F32 => SliceMut::new(self.host_mut::<f32>()),
                        DType::F16 => SliceMut::new(self.host_mut::<f16>()),
                        DType::BF16 => SliceMut::new(self.host_mut::<bf16>()),
                        DType::I64 => SliceMut::new(self.host_mut::<i64>()),
                        got => return Err(unknown(got)),
                    }
                })
            }
            Device::Cuda(cuda) => {
                // SAFETY: the caller's promise.
                unsafe { cuda.from_raw_mut(self.dtype, self.address as u64, self.len) }
            }
        }
    }

    /// # Safety
    /// As for [`slice`](Self::slice), on the host.
    unsafe fn host<'a, T: Element>(self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; an allocation that is not empty has an address.
        unsafe { std::slice::from_raw_parts(self.address as *const T, self.len) }
    }

    /// # Safety
    /// As for [`slice_mut`](Self::slice_mut), on the host.
    unsafe fn host_mut<'a, T: Element>(self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise; an allocation that is not empty has an address.
        unsafe { std::slice::from_raw_parts_mut(self.address as *mut T, self.len) }
    }

    fn check_alignment(self) -> Result<()> {
        let (expected, address) = (self.dtype.size(), self.address as u64);
        if address.is_multiple_of(expected as u64) {
            Ok(())
        } else {
            Err(Error::Alignment { expected, address })
        }
    }
}

fn unknown(got: DType) -> Error {
    Error::DataType { what: "tensor", expected: "f64, f32, f16, bf16 or i64", got }
}

impl Rows {
    /// # Errors
    /// A shape that does not fit the memory, or those of the device.
    ///
    /// # Safety
    /// As for [`Memory::slice`].
    pub unsafe fn logits(self, device: &Device) -> Result<Logits<'_>> {
        let Self(memory, tokens, vocab, stride) = self;
        // SAFETY: the caller's promise.
        Logits::from_slice(unsafe { memory.slice(device) }?, tokens, vocab, stride)
    }

    /// # Errors
    /// A shape that does not fit the memory, or those of the device.
    ///
    /// # Safety
    /// As for [`Memory::slice_mut`].
    pub unsafe fn logits_mut(self, device: &Device) -> Result<LogitsMut<'_>> {
        let Self(memory, tokens, vocab, stride) = self;
        // SAFETY: the caller's promise.
        LogitsMut::from_slice(unsafe { memory.slice_mut(device) }?, tokens, vocab, stride)
    }
}
