//! The kernels that the build script compiled, as they lie in the binary.

use crate::error::Result;

/// A set of fatbins that one compiler made.
#[derive(Debug)]
pub struct Kernels {
    /// Version of the compiler, major and minor.
    pub toolkit: (u32, u32),
    /// What they were built for: `sm_90` is machine code, `compute_80` PTX.
    pub built: &'static str,
    /// One for each file of `kernels`.
    pub modules: &'static [Module],
}

/// One fatbin.
#[derive(Debug)]
pub struct Module {
    /// Stem of the source file.
    pub name: &'static str,
    /// The fatbin, aligned to 16 bytes.
    pub image: &'static [u8],
}

impl Kernels {
    /// Those of this build.
    ///
    /// # Errors
    /// [`KernelsNotBuilt`](crate::Error::KernelsNotBuilt).
    pub fn embedded() -> Result<&'static Self> {
        #[cfg(prefuse_kernels)]
        return Ok(&EMBEDDED);
        #[cfg(not(prefuse_kernels))]
        Err(crate::Error::KernelsNotBuilt { reason: REASON })
    }
}

#[cfg(not(prefuse_kernels))]
const REASON: &str = match option_env!("PREFUSE_NO_KERNELS") {
    Some(reason) => reason,
    None => "it is for documentation",
};

/// The driver reads a fatbin's header in place.
#[cfg(prefuse_kernels)]
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

#[cfg(prefuse_kernels)]
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
