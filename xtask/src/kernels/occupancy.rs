//! How many blocks fit on a multiprocessor, by the rules of NVIDIA's occupancy calculator.

/// What a multiprocessor of an architecture has.
struct Multiprocessor {
    architecture: &'static str,
    warps: u32,
    blocks: u32,
    shared: u32,
}

const KIB: u32 = 1024;

const MULTIPROCESSORS: [Multiprocessor; 4] = [
    Multiprocessor { architecture: "sm_80", warps: 64, blocks: 32, shared: 164 * KIB },
    Multiprocessor { architecture: "sm_90", warps: 64, blocks: 32, shared: 228 * KIB },
    Multiprocessor { architecture: "sm_100", warps: 64, blocks: 32, shared: 228 * KIB },
    Multiprocessor { architecture: "sm_120", warps: 48, blocks: 24, shared: 100 * KIB },
];

const REGISTERS: u32 = 64 * KIB;
/// Registers are given to a warp in multiples of this, and to the four parts of a multiprocessor.
const REGISTER_UNIT: u32 = 256;
const PARTS: u32 = 4;
const WARP: u32 = 32;
/// Shared memory that the system takes for each block, and the unit that it is given in.
const SHARED_SYSTEM: u32 = KIB;
const SHARED_UNIT: u32 = 128;

/// Warps in use, as a part of all, where nothing but registers, threads and static shared memory
/// limits them; `None` for a block that does not fit at all.
pub fn occupancy(architecture: &str, registers: u32, shared: u32, threads: u32) -> Option<f64> {
    let of = MULTIPROCESSORS.iter().find(|one| one.architecture == architecture)?;
    let warps = threads.div_ceil(WARP);
    let registers_of_warp = (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
    let warps_by_registers = REGISTERS / PARTS / registers_of_warp * PARTS;
    let shared_of_block = (shared + SHARED_SYSTEM).next_multiple_of(SHARED_UNIT);
    let limits =
        [of.blocks, of.warps / warps, warps_by_registers / warps, of.shared / shared_of_block];
    let blocks = limits.into_iter().min().filter(|&blocks| blocks > 0)?;
    Some(f64::from(blocks * warps) / f64::from(of.warps))
}

#[cfg(test)]
mod tests {
    use super::occupancy;

    /// Cases worked out by hand from the tables of the CUDA C++ Programming Guide.
    #[test]
    fn known_cases() {
        // 32 registers are what a full multiprocessor of 2048 threads has for each.
        assert_eq!(occupancy("sm_90", 32, 0, 1024), Some(1.0));
        // One more rounds up to 40: 12 warps in each part, so one block of 32 warps.
        assert_eq!(occupancy("sm_90", 33, 0, 1024), Some(0.5));
        assert_eq!(occupancy("sm_90", 64, 0, 512), Some(0.5));
        assert_eq!(occupancy("sm_120", 40, 0, 1024), Some(32.0 / 48.0));
        // 32 blocks of one warp.
        assert_eq!(occupancy("sm_80", 16, 0, 32), Some(0.5));
        // 48 KiB and the system's own: 4 blocks in 228 KiB, 2 in 100 KiB.
        assert_eq!(occupancy("sm_90", 32, 48 * 1024, 256), Some(4.0 * 8.0 / 64.0));
        assert_eq!(occupancy("sm_120", 32, 48 * 1024, 256), Some(2.0 * 8.0 / 48.0));
        assert_eq!(occupancy("sm_90", 128, 0, 1024), None);
    }
}
