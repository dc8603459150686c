//! Buffers whose element type is a run-time fact: borrowed ([`Slice`], [`SliceMut`]) and owned ([`Buffer`]).
//!
//! Where the memory lies is private to this file, so that device memory can join host memory
//! without a change to any signature.

use half::{bf16, f16};

use crate::element::{DType, Element};
use crate::error::{Error, Result};

/// A borrowed buffer to read.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(HostSlice<'a>);

/// A borrowed buffer to write.
#[derive(Debug)]
pub struct SliceMut<'a>(HostSliceMut<'a>);

/// An owned buffer, allocated by a [`Backend`](crate::Backend).
#[derive(Debug)]
pub struct Buffer(HostBuffer);

#[derive(Clone, Copy, Debug)]
enum HostSlice<'a> {
    F64(&'a [f64]),
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    I64(&'a [i64]),
}

#[derive(Debug)]
enum HostSliceMut<'a> {
    F64(&'a mut [f64]),
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    BF16(&'a mut [bf16]),
    I64(&'a mut [i64]),
}

#[derive(Debug)]
enum HostBuffer {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
}

macro_rules! each_dtype {
    ($Enum:ident, $value:expr, $data:ident => $body:expr) => {
        match $value {
            $Enum::F64($data) => $body,
            $Enum::F32($data) => $body,
            $Enum::F16($data) => $body,
            $Enum::BF16($data) => $body,
            $Enum::I64($data) => $body,
        }
    };
}

impl<'a> Slice<'a> {
    /// Borrows host memory.
    pub fn new<T: Element>(data: &'a [T]) -> Self {
        use bytemuck::cast_slice as cast;
        Self(match T::DTYPE {
            DType::F64 => HostSlice::F64(cast(data)),
            DType::F32 => HostSlice::F32(cast(data)),
            DType::F16 => HostSlice::F16(cast(data)),
            DType::BF16 => HostSlice::BF16(cast(data)),
            DType::I64 => HostSlice::I64(cast(data)),
        })
    }

    /// The element type.
    pub fn dtype(self) -> DType {
        match self.0 {
            HostSlice::F64(_) => DType::F64,
            HostSlice::F32(_) => DType::F32,
            HostSlice::F16(_) => DType::F16,
            HostSlice::BF16(_) => DType::BF16,
            HostSlice::I64(_) => DType::I64,
        }
    }

    /// The number of elements.
    pub fn len(self) -> usize {
        each_dtype!(HostSlice, self.0, data => data.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements.
    ///
    /// # Errors
    /// Elements of another type.
    pub fn host<T: Element>(self) -> Result<&'a [T]> {
        check_type::<T>(self.dtype())?;
        Ok(each_dtype!(HostSlice, self.0, data => bytemuck::cast_slice(data)))
    }

    /// A copy of all elements as f64, exactly (integers, if they are below 2^53).
    ///
    /// # Errors
    /// None for host memory.
    pub fn to_vec(self) -> Result<Vec<f64>> {
        Ok(each_dtype!(HostSlice, self.0, data => data.iter().map(|x| x.to_f64()).collect()))
    }

    pub(crate) fn get(self, index: usize) -> f64 {
        each_dtype!(HostSlice, self.0, data => data[index].to_f64())
    }
}

impl<'a, T: Element> From<&'a [T]> for Slice<'a> {
    fn from(data: &'a [T]) -> Self {
        Self::new(data)
    }
}

impl<'a> SliceMut<'a> {
    /// Borrows host memory.
    pub fn new<T: Element>(data: &'a mut [T]) -> Self {
        use bytemuck::cast_slice_mut as cast;
        Self(match T::DTYPE {
            DType::F64 => HostSliceMut::F64(cast(data)),
            DType::F32 => HostSliceMut::F32(cast(data)),
            DType::F16 => HostSliceMut::F16(cast(data)),
            DType::BF16 => HostSliceMut::BF16(cast(data)),
            DType::I64 => HostSliceMut::I64(cast(data)),
        })
    }

    /// The same memory, to read.
    pub fn as_slice(&self) -> Slice<'_> {
        Slice(match &self.0 {
            HostSliceMut::F64(data) => HostSlice::F64(data),
            HostSliceMut::F32(data) => HostSlice::F32(data),
            HostSliceMut::F16(data) => HostSlice::F16(data),
            HostSliceMut::BF16(data) => HostSlice::BF16(data),
            HostSliceMut::I64(data) => HostSlice::I64(data),
        })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.as_slice().dtype()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    ///
    /// # Errors
    /// Elements of another type.
    pub fn host<T: Element>(&mut self) -> Result<&mut [T]> {
        check_type::<T>(self.dtype())?;
        Ok(each_dtype!(HostSliceMut, &mut self.0, data => bytemuck::cast_slice_mut(data)))
    }

    pub(crate) fn get(&self, index: usize) -> f64 {
        self.as_slice().get(index)
    }

    /// Writes the element nearest to `value`.
    pub(crate) fn set(&mut self, index: usize, value: f64) {
        each_dtype!(HostSliceMut, &mut self.0, data => data[index] = Element::from_f64(value));
    }
}

impl<'a, T: Element> From<&'a mut [T]> for SliceMut<'a> {
    fn from(data: &'a mut [T]) -> Self {
        Self::new(data)
    }
}

impl Buffer {
    pub(crate) fn host(dtype: DType, len: usize) -> Self {
        Self(match dtype {
            DType::F64 => HostBuffer::F64(vec![0.0; len]),
            DType::F32 => HostBuffer::F32(vec![0.0; len]),
            DType::F16 => HostBuffer::F16(vec![f16::ZERO; len]),
            DType::BF16 => HostBuffer::BF16(vec![bf16::ZERO; len]),
            DType::I64 => HostBuffer::I64(vec![0; len]),
        })
    }

    /// The memory, to read.
    pub fn slice(&self) -> Slice<'_> {
        each_dtype!(HostBuffer, &self.0, data => Slice::new(data))
    }

    /// The memory, to write.
    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        each_dtype!(HostBuffer, &mut self.0, data => SliceMut::new(data))
    }
}

fn check_type<T: Element>(got: DType) -> Result<()> {
    if got == T::DTYPE {
        Ok(())
    } else {
        Err(Error::DataType { what: "buffer", expected: T::DTYPE.name(), got })
    }
}
