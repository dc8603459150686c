//! What the tests of this binary run over: the reference, the CPU at every instruction set, and a
//! CUDA device where there is one. `tests/emulator` has the same names for emulated devices.

use half::bf16;
#[cfg(feature = "cuda")]
use prefuse::Cuda;
use prefuse::{Backend, Cpu, Reference, SimdLevel, SliceMut};

/// Every backend that can run here; what the machine lacks is said and skipped.
pub fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Reference::new())];
    backends.extend(fast_backends());
    backends
}

/// For tests of what is made of stages, each of which has tests of its own: an emulated device takes part
/// in one form.
pub fn composed_backends() -> Vec<Box<dyn Backend>> {
    backends()
}

/// Those whose rows have the same bits in any batch.
pub fn fast_backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = vec![];
    for cpu in cpus() {
        backends.push(Box::new(cpu));
    }
    #[cfg(feature = "cuda")]
    for device in devices() {
        backends.push(Box::new(device));
    }
    backends
}

/// The CPU backend at every instruction set that the machine has.
pub fn cpus() -> Vec<Cpu> {
    let available = SimdLevel::ALL.into_iter().filter_map(|level| {
        let cpu = Cpu::with_simd(level);
        if cpu.is_none() {
            eprintln!("skipped: this machine has no {level:?}");
        }
        cpu
    });
    available.collect()
}

/// The first CUDA device. `PREFUSE_REQUIRE_CUDA=1` makes it a failure that there is none.
#[cfg(feature = "cuda")]
pub fn devices() -> Vec<Cuda> {
    static SAID: std::sync::Once = std::sync::Once::new();
    match Cuda::new(0) {
        Ok(cuda) => vec![cuda],
        Err(error) => {
            let required = std::env::var_os("PREFUSE_REQUIRE_CUDA").is_some_and(|x| x == "1");
            assert!(!required, "{error}");
            SAID.call_once(|| eprintln!("skipped: no CUDA device: {error}"));
            vec![]
        }
    }
}

/// Sizes shrink under tools that slow a GPU down a hundredfold.
fn small() -> bool {
    std::env::var_os("PREFUSE_SMALL").is_some_and(|value| value == "1")
}

/// 1: the softmax is 1 whatever the logit. 2: the smallest choice. 31, 32, 33: around a vector.
/// 1000: shorter than a block. 4099: prime, a block and a tail; odd rows are unaligned. 32000:
/// Llama 2.
pub fn vocabs() -> &'static [usize] {
    if small() { &[1, 2, 31, 32, 33, 1000, 4099] } else { &[1, 2, 31, 32, 33, 1000, 4099, 32000] }
}

/// Llama 3, Qwen 2 and Gemma, with few rows.
pub fn large_vocabs() -> &'static [usize] {
    if small() { &[] } else { &[128_256, 151_936, 262_144] }
}

/// Around the vectors, segments and blocks that the backends take a row by, and a whole one.
pub fn edge_vocabs() -> &'static [usize] {
    const EDGES: [usize; 10] = [31, 33, 1023, 1024, 1025, 4096, 4097, 4099, 5000, 50_257];
    if small() { &EDGES[..9] } else { &EDGES }
}

/// Rows enough for every way to share them out; of long ones as many as a device has a block each for.
pub fn many(vocab: usize) -> usize {
    if small() || vocab > 5000 { 300 } else { 4096 }
}

/// Groups of more responses than a block has threads, 256; the choices or pairs of the longest are half a
/// million.
pub fn long_groups_sizes() -> &'static [&'static [usize]] {
    &[&[257, 1024], &[1025]]
}

/// Rows and their columns: fewer than are taken whole, short ones, and such as a device holds on chip.
pub fn visits() -> &'static [(usize, usize)] {
    &[(6, 9001), (40, 31), (40, 4099), (140, 8192), (40, 33_024), (17, 70_000)]
}

/// Such rows as a backend takes in one visit.
pub fn visit() -> (usize, usize) {
    (140, 8200)
}

/// Calls `body` with so many zeros on the CPU and on a device. On the host they are pages that nobody has
/// touched, so that more can be had than there is memory; where they cannot, that is said.
pub fn with_zeros(len: usize, body: impl Fn(&dyn Backend, SliceMut<'_>)) {
    match bytemuck::allocation::try_zeroed_vec::<bf16>(len) {
        Ok(mut zeros) => body(&Cpu::new(), SliceMut::new(&mut zeros)),
        Err(()) => eprintln!("skipped: no address space for {len} elements"),
    }
    #[cfg(feature = "cuda")]
    for device in devices() {
        let mut zeros = device.allocate(prefuse::DType::BF16, len).unwrap();
        body(&device, zeros.slice_mut());
    }
}
