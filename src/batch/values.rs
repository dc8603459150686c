//! Numbers of the caller, on the host or on a device.

use std::borrow::Cow;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice};
use crate::objectives::Domain;

/// One number for each token.
#[derive(Clone, Debug)]
pub(crate) enum Values<'a, T: Element> {
    Host(Cow<'a, [T]>),
    Device(Slice<'a>),
}

impl<'a, T: Element> Values<'a, T> {
    /// # Errors
    /// Elements of another type.
    pub fn from_slice(what: &'static str, values: Slice<'a>) -> Result<Self> {
        if values.dtype() != T::DTYPE {
            return Err(Error::DataType { what, expected: T::DTYPE.name(), got: values.dtype() });
        }
        match values.place() {
            Place::Host => Ok(Self::Host(Cow::Borrowed(values.host()?))),
            Place::Device(_) => Ok(Self::Device(values)),
        }
    }

    pub fn slice(&self) -> Slice<'_> {
        match self {
            Self::Host(values) => Slice::new(values),
            Self::Device(values) => *values,
        }
    }

    pub fn len(&self) -> usize {
        self.slice().len()
    }

    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Values<'static, T>> {
        Ok(Values::Host(Cow::Owned(match self {
            Self::Host(values) => values.into_owned(),
            Self::Device(values) => values.read()?,
        })))
    }
}

/// # Errors
/// A number of a pair outside its domain.
pub(crate) fn check_pairs(input: &'static str, values: &[f64], domain: Domain) -> Result<()> {
    let Domain { expected, contains } = domain;
    match values.iter().position(|&value| !contains(value)) {
        None => Ok(()),
        Some(pair) => Err(Error::PairInput { input, pair, expected, got: values[pair] }),
    }
}

/// # Errors
/// A number of a sequence outside its domain.
pub(crate) fn check_sequences(input: &'static str, values: &[f64], domain: Domain) -> Result<()> {
    let Domain { expected, contains } = domain;
    match values.iter().position(|&value| !contains(value)) {
        None => Ok(()),
        Some(sequence) => {
            Err(Error::SequenceInput { input, sequence, expected, got: values[sequence] })
        }
    }
}
