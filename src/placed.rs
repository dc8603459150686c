//! Tables of a batch that a stage reads, in the memory of the backend that will run it.

use crate::backend::Backend;
use crate::batch::{Batch, Packing};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Place, Slice};
use crate::resolved::{Over, Resolved};

/// A packing whose offsets a backend reaches.
#[derive(Debug)]
pub struct PlacedPacking {
    packing: Packing,
    copy: Option<Buffer>,
}

impl Packing {
    /// The packing for stages of a backend; a device gets a copy of its offsets.
    ///
    /// # Errors
    /// The device's own.
    pub fn place(&self, backend: &dyn Backend) -> Result<PlacedPacking> {
        Ok(PlacedPacking { packing: self.clone(), copy: copy(backend, self.offsets())? })
    }
}

impl PlacedPacking {
    /// The packing.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// `[sequences + 1]` i64 numbers, in the backend's memory.
    pub(crate) fn offsets(&self) -> Slice<'_> {
        self.copy.as_ref().map_or(self.packing.offsets(), Buffer::slice)
    }
}

/// A term of a batch whose units a backend reaches.
#[derive(Debug)]
pub struct PlacedTerm {
    term: Resolved,
    place: Place,
    sequences: usize,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    tables: Option<Tables>,
}

/// What kernels read of a term.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) struct Tables {
    /// `[units, responses]` sequences.
    pub members: Buffer,
    /// `[sequences + 1]` where each sequence's part of `uses` begins.
    pub uses_offsets: Buffer,
    /// For each sequence, in unit order, `responses * unit + response` wherever it is a response.
    pub uses: Buffer,
    /// `[sequences]` scores, for an objective that uses them.
    pub scores: Option<Buffer>,
    /// `[groups + 1]` where each group's members begin, of a term over groups.
    pub groups: Option<Buffer>,
    /// `[units]` numbers that the dataset gives: beta, margin, soft label, weight.
    pub inputs: [Option<Buffer>; 4],
}

impl Resolved {
    /// The term for stages of a backend; a device gets copies of its units.
    ///
    /// # Errors
    /// Another batch than the one it was resolved against, or the device's own errors.
    pub fn place(&self, backend: &dyn Backend, batch: &Batch<'_>) -> Result<PlacedTerm> {
        if !self.fits(batch) {
            return Err(Error::OtherBatch);
        }
        let (place, sequences) = (backend.place(), batch.packing().sequences());
        let tables = match place {
            Place::Host => None,
            Place::Device(_) => Some(Tables::new(backend, self, sequences)?),
        };
        Ok(PlacedTerm { term: self.clone(), place, sequences, tables })
    }
}

impl PlacedTerm {
    /// The term.
    pub fn term(&self) -> &Resolved {
        &self.term
    }

    /// How many sequences the batch has.
    pub(crate) fn sequences(&self) -> usize {
        self.sequences
    }

    /// # Errors
    /// A term placed elsewhere, or over other units than the stage is for.
    pub(crate) fn check(&self, place: Place, over: Over) -> Result<()> {
        place.check("term", self.place)?;
        if self.term.over() == over {
            return Ok(());
        }
        let (objective, expected) = (self.term.name(), over.term());
        Err(Error::Selection { objective, expected, got: "one over other units" })
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn tables(&self) -> Option<&Tables> {
        self.tables.as_ref()
    }
}

impl Tables {
    fn new(backend: &dyn Backend, term: &Resolved, sequences: usize) -> Result<Self> {
        let mut uses = vec![vec![]; sequences];
        for (at, &sequence) in term.all_members().iter().enumerate() {
            uses[sequence as usize].push(at as i64);
        }
        let ends = uses.iter().scan(0, |end, uses| {
            *end += uses.len() as i64;
            Some(*end)
        });
        let offsets: Vec<i64> = std::iter::once(0).chain(ends).collect();
        let upload = |values: Option<&[f64]>| {
            values.map(|values| backend.upload(Slice::new(values))).transpose()
        };
        let [beta, margin, soft_label, weight] = term.inputs().each_ref().map(Option::as_deref);
        Ok(Self {
            members: backend.upload(Slice::new(term.all_members()))?,
            uses_offsets: backend.upload(Slice::new(&offsets))?,
            uses: backend.upload(Slice::new(&uses.concat()))?,
            scores: upload(term.scores())?,
            groups: term
                .ranking()
                .map(|(_, offsets)| backend.upload(Slice::new(offsets)))
                .transpose()?,
            inputs: [upload(beta)?, upload(margin)?, upload(soft_label)?, upload(weight)?],
        })
    }
}

/// A copy of host memory for a backend that does not reach it.
pub(crate) fn copy(backend: &dyn Backend, values: Slice<'_>) -> Result<Option<Buffer>> {
    match (backend.place(), values.place()) {
        (Place::Device(_), Place::Host) => backend.upload(values).map(Some),
        _ => Ok(None),
    }
}

/// f64 numbers of a buffer, on the host.
pub(crate) fn numbers(buffer: &Buffer) -> Result<Vec<f64>> {
    debug_assert_eq!(buffer.slice().dtype(), DType::F64);
    buffer.slice().read()
}
