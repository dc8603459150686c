//! Buffers whose element type is a run-time fact: borrowed ([`Slice`], [`SliceMut`]) and owned ([`Buffer`]).
//!
//! Where the memory lies is private to this file: on the host, or with the feature `cuda` in the
//! memory of one [`Cuda`](crate::Cuda) backend.

use std::ops::Range;

use half::{bf16, f16};

#[cfg(feature = "cuda")]
use crate::cuda::{DeviceBuffer, DeviceSlice, DeviceSliceMut};
use crate::element::{DType, Element};
use crate::error::{Error, Result};

/// A borrowed buffer to read.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(Data<'a>);

/// A borrowed buffer to write.
#[derive(Debug)]
pub struct SliceMut<'a>(DataMut<'a>);

/// An owned buffer, allocated by a [`Backend`](crate::Backend).
#[derive(Debug)]
pub struct Buffer(Owned);

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    Host(HostSlice<'a>),
    #[cfg(feature = "cuda")]
    Device(DeviceSlice<'a>),
}

#[derive(Debug)]
enum DataMut<'a> {
    Host(HostSliceMut<'a>),
    #[cfg(feature = "cuda")]
    Device(DeviceSliceMut<'a>),
}

#[derive(Debug)]
enum Owned {
    Host(HostBuffer),
    #[cfg(feature = "cuda")]
    Device(DeviceBuffer),
}

/// Where memory lies. Device memory belongs to one backend, because its stream is what orders the
/// accesses to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the host.
    Host,
    /// With the backend of this number.
    Device(usize),
}

impl Place {
    /// # Errors
    /// Another place than the one expected.
    pub(crate) fn check(self, what: &'static str, got: Self) -> Result<()> {
        if self == got { Ok(()) } else { Err(self.other(what, got)) }
    }

    fn other(self, what: &'static str, got: Self) -> Error {
        let expected = if self == Self::Host { "host memory" } else { "memory of this backend" };
        let got = match (got, self) {
            (Self::Host, _) => "host memory",
            (Self::Device(_), Self::Host) => "device memory",
            (Self::Device(_), Self::Device(_)) => "memory of another backend",
        };
        Error::Place { what, expected, got }
    }
}

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
        Self(Data::Host(match T::DTYPE {
            DType::F64 => HostSlice::F64(cast(data)),
            DType::F32 => HostSlice::F32(cast(data)),
            DType::F16 => HostSlice::F16(cast(data)),
            DType::BF16 => HostSlice::BF16(cast(data)),
            DType::I64 => HostSlice::I64(cast(data)),
        }))
    }

    /// The element type.
    pub fn dtype(self) -> DType {
        match self.0 {
            Data::Host(HostSlice::F64(_)) => DType::F64,
            Data::Host(HostSlice::F32(_)) => DType::F32,
            Data::Host(HostSlice::F16(_)) => DType::F16,
            Data::Host(HostSlice::BF16(_)) => DType::BF16,
            Data::Host(HostSlice::I64(_)) => DType::I64,
            #[cfg(feature = "cuda")]
            Data::Device(data) => data.dtype(),
        }
    }

    /// The number of elements.
    pub fn len(self) -> usize {
        match self.0 {
            Data::Host(data) => each_dtype!(HostSlice, data, data => data.len()),
            #[cfg(feature = "cuda")]
            Data::Device(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of the elements, by their indices.
    ///
    /// # Errors
    /// A range beyond the elements.
    pub fn part(self, range: Range<usize>) -> Result<Self> {
        check_part(&range, self.len())?;
        Ok(Self(match self.0 {
            Data::Host(HostSlice::F64(data)) => Data::Host(HostSlice::F64(&data[range])),
            Data::Host(HostSlice::F32(data)) => Data::Host(HostSlice::F32(&data[range])),
            Data::Host(HostSlice::F16(data)) => Data::Host(HostSlice::F16(&data[range])),
            Data::Host(HostSlice::BF16(data)) => Data::Host(HostSlice::BF16(&data[range])),
            Data::Host(HostSlice::I64(data)) => Data::Host(HostSlice::I64(&data[range])),
            #[cfg(feature = "cuda")]
            Data::Device(data) => Data::Device(data.part(range)),
        }))
    }

    pub(crate) fn place(self) -> Place {
        match self.0 {
            Data::Host(_) => Place::Host,
            #[cfg(feature = "cuda")]
            Data::Device(data) => data.place(),
        }
    }

    /// The elements, where they are in host memory.
    ///
    /// # Errors
    /// Elements of another type, or in device memory; [`read`](Self::read) copies those.
    pub fn host<T: Element>(self) -> Result<&'a [T]> {
        check_type::<T>(self.dtype())?;
        Ok(each_dtype!(HostSlice, self.host_data()?, data => bytemuck::cast_slice(data)))
    }

    /// A copy of all elements. Of device memory it waits for what was enqueued before.
    ///
    /// # Errors
    /// Elements of another type; of device memory the device's own errors, and a bad label or weight
    /// that a kernel found.
    pub fn read<T: Element>(self) -> Result<Vec<T>> {
        check_type::<T>(self.dtype())?;
        match self.0 {
            Data::Host(_) => Ok(self.host()?.to_vec()),
            #[cfg(feature = "cuda")]
            Data::Device(data) => data.read(),
        }
    }

    /// A copy of all elements as f64, exactly (integers, if they are below 2^53).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn to_vec(self) -> Result<Vec<f64>> {
        fn exact<T: Element>(values: Vec<T>) -> Vec<f64> {
            values.into_iter().map(T::to_f64).collect()
        }
        Ok(match self.dtype() {
            DType::F64 => self.read()?,
            DType::F32 => exact::<f32>(self.read()?),
            DType::F16 => exact::<f16>(self.read()?),
            DType::BF16 => exact::<bf16>(self.read()?),
            DType::I64 => exact::<i64>(self.read()?),
        })
    }

    /// An element of memory that a stage's constructor has found to be the host's.
    pub(crate) fn get(self, index: usize) -> f64 {
        match self.0 {
            Data::Host(data) => each_dtype!(HostSlice, data, data => data[index].to_f64()),
            #[cfg(feature = "cuda")]
            Data::Device(_) => unreachable!("host backends refuse device memory"),
        }
    }

    /// As many elements of such memory as there are places.
    pub(crate) fn get_all(self, first: usize, to: &mut [f64]) {
        fn convert<T: Element>(data: &[T], to: &mut [f64]) {
            to.iter_mut().zip(data).for_each(|(to, &value)| *to = value.to_f64());
        }
        match self.0 {
            Data::Host(data) => each_dtype!(HostSlice, data, data => convert(&data[first..], to)),
            #[cfg(feature = "cuda")]
            Data::Device(_) => unreachable!("host backends refuse device memory"),
        }
    }

    fn host_data(self) -> Result<HostSlice<'a>> {
        match self.0 {
            Data::Host(data) => Ok(data),
            #[cfg(feature = "cuda")]
            Data::Device(data) => Err(Place::Host.other("buffer", data.place())),
        }
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(data: DeviceSlice<'a>) -> Self {
        Self(Data::Device(data))
    }

    /// Where a kernel finds memory that a stage's constructor has found to be the device's.
    #[cfg(feature = "cuda")]
    pub(crate) fn address(self) -> u64 {
        match self.0 {
            Data::Host(_) => unreachable!("device backends refuse host memory"),
            Data::Device(data) => data.address(),
        }
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
        Self(DataMut::Host(match T::DTYPE {
            DType::F64 => HostSliceMut::F64(cast(data)),
            DType::F32 => HostSliceMut::F32(cast(data)),
            DType::F16 => HostSliceMut::F16(cast(data)),
            DType::BF16 => HostSliceMut::BF16(cast(data)),
            DType::I64 => HostSliceMut::I64(cast(data)),
        }))
    }

    /// The same memory, to read.
    pub fn as_slice(&self) -> Slice<'_> {
        Slice(match &self.0 {
            DataMut::Host(HostSliceMut::F64(data)) => Data::Host(HostSlice::F64(data)),
            DataMut::Host(HostSliceMut::F32(data)) => Data::Host(HostSlice::F32(data)),
            DataMut::Host(HostSliceMut::F16(data)) => Data::Host(HostSlice::F16(data)),
            DataMut::Host(HostSliceMut::BF16(data)) => Data::Host(HostSlice::BF16(data)),
            DataMut::Host(HostSliceMut::I64(data)) => Data::Host(HostSlice::I64(data)),
            #[cfg(feature = "cuda")]
            DataMut::Device(data) => Data::Device(data.as_slice()),
        })
    }

    /// The same memory, to write, for as long as it is lent.
    pub fn reborrow(&mut self) -> SliceMut<'_> {
        SliceMut(match &mut self.0 {
            DataMut::Host(HostSliceMut::F64(data)) => DataMut::Host(HostSliceMut::F64(data)),
            DataMut::Host(HostSliceMut::F32(data)) => DataMut::Host(HostSliceMut::F32(data)),
            DataMut::Host(HostSliceMut::F16(data)) => DataMut::Host(HostSliceMut::F16(data)),
            DataMut::Host(HostSliceMut::BF16(data)) => DataMut::Host(HostSliceMut::BF16(data)),
            DataMut::Host(HostSliceMut::I64(data)) => DataMut::Host(HostSliceMut::I64(data)),
            #[cfg(feature = "cuda")]
            DataMut::Device(data) => DataMut::Device(data.reborrow()),
        })
    }

    /// Some of the elements, by their indices.
    ///
    /// # Errors
    /// A range beyond the elements.
    pub fn part(self, range: Range<usize>) -> Result<Self> {
        check_part(&range, self.len())?;
        Ok(Self(match self.0 {
            DataMut::Host(HostSliceMut::F64(data)) => {
                DataMut::Host(HostSliceMut::F64(&mut data[range]))
            }
            DataMut::Host(HostSliceMut::F32(data)) => {
                DataMut::Host(HostSliceMut::F32(&mut data[range]))
            }
            DataMut::Host(HostSliceMut::F16(data)) => {
                DataMut::Host(HostSliceMut::F16(&mut data[range]))
            }
            DataMut::Host(HostSliceMut::BF16(data)) => {
                DataMut::Host(HostSliceMut::BF16(&mut data[range]))
            }
            DataMut::Host(HostSliceMut::I64(data)) => {
                DataMut::Host(HostSliceMut::I64(&mut data[range]))
            }
            #[cfg(feature = "cuda")]
            DataMut::Device(data) => DataMut::Device(data.part(range)),
        }))
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

    /// The elements, where they are in host memory.
    ///
    /// # Errors
    /// Elements of another type, or in device memory.
    pub fn host<T: Element>(&mut self) -> Result<&mut [T]> {
        check_type::<T>(self.dtype())?;
        Place::Host.check("buffer", self.as_slice().place())?;
        Ok(each_dtype!(HostSliceMut, self.host_data(), data => bytemuck::cast_slice_mut(data)))
    }

    /// Overwrites all elements by those of `from`, of the same type and number, on the host or on a
    /// device. Copies to the host wait for what was enqueued before.
    ///
    /// # Errors
    /// Another type or number, memory of two backends, or the device's own errors.
    pub fn copy_from(&mut self, from: Slice<'_>) -> Result<()> {
        let expected = self.dtype().name();
        if from.dtype() != self.dtype() {
            return Err(Error::DataType { what: "copied buffer", expected, got: from.dtype() });
        }
        crate::batch::same_length("copied buffer", self.len(), from.len())?;
        match self.dtype() {
            DType::F64 => self.copy::<f64>(from),
            DType::F32 => self.copy::<f32>(from),
            DType::F16 => self.copy::<f16>(from),
            DType::BF16 => self.copy::<bf16>(from),
            DType::I64 => self.copy::<i64>(from),
        }
    }

    fn copy<T: Element>(&mut self, from: Slice<'_>) -> Result<()> {
        match (&mut self.0, from.0) {
            #[cfg(feature = "cuda")]
            (DataMut::Host(_), Data::Device(from)) => {
                let values = from.read::<T>()?;
                self.host::<T>()?.copy_from_slice(&values);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            (DataMut::Device(to), Data::Host(_)) => to.upload(from.host::<T>()?),
            #[cfg(feature = "cuda")]
            (DataMut::Device(to), Data::Device(from)) => to.copy_from(from),
            (DataMut::Host(_), Data::Host(_)) => {
                self.host::<T>()?.copy_from_slice(from.host()?);
                Ok(())
            }
        }
    }

    pub(crate) fn get(&self, index: usize) -> f64 {
        self.as_slice().get(index)
    }

    /// Writes the element nearest to `value`.
    pub(crate) fn set(&mut self, index: usize, value: f64) {
        each_dtype!(HostSliceMut, self.host_data(), data => data[index] = Element::from_f64(value));
    }

    fn host_data(&mut self) -> &mut HostSliceMut<'a> {
        match &mut self.0 {
            DataMut::Host(data) => data,
            #[cfg(feature = "cuda")]
            DataMut::Device(_) => unreachable!("host backends refuse device memory"),
        }
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(data: DeviceSliceMut<'a>) -> Self {
        Self(DataMut::Device(data))
    }
}

impl<'a, T: Element> From<&'a mut [T]> for SliceMut<'a> {
    fn from(data: &'a mut [T]) -> Self {
        Self::new(data)
    }
}

impl Buffer {
    pub(crate) fn host(dtype: DType, len: usize) -> Self {
        Self(Owned::Host(match dtype {
            DType::F64 => HostBuffer::F64(vec![0.0; len]),
            DType::F32 => HostBuffer::F32(vec![0.0; len]),
            DType::F16 => HostBuffer::F16(vec![f16::ZERO; len]),
            DType::BF16 => HostBuffer::BF16(vec![bf16::ZERO; len]),
            DType::I64 => HostBuffer::I64(vec![0; len]),
        }))
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(data: DeviceBuffer) -> Self {
        Self(Owned::Device(data))
    }

    /// The memory, to read.
    pub fn slice(&self) -> Slice<'_> {
        match &self.0 {
            Owned::Host(data) => each_dtype!(HostBuffer, data, data => Slice::new(data)),
            #[cfg(feature = "cuda")]
            Owned::Device(data) => Slice::on_device(data.slice()),
        }
    }

    /// The memory, to write.
    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        match &mut self.0 {
            Owned::Host(data) => each_dtype!(HostBuffer, data, data => SliceMut::new(data)),
            #[cfg(feature = "cuda")]
            Owned::Device(data) => SliceMut::on_device(data.slice_mut()),
        }
    }
}

fn check_part(range: &Range<usize>, len: usize) -> Result<()> {
    let &Range { start, end } = range;
    if start <= end && end <= len { Ok(()) } else { Err(Error::Part { len, start, end }) }
}

fn check_type<T: Element>(got: DType) -> Result<()> {
    if got == T::DTYPE {
        Ok(())
    } else {
        Err(Error::DataType { what: "buffer", expected: T::DTYPE.name(), got })
    }
}
