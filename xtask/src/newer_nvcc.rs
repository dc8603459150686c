//! The crate builds where the nvcc on PATH is newer than any that cudarc knows.

use crate::process::{self, Result, cargo};

/// A version that cudarc's build script panics at, should it be asked to look.
const NVCC: &str = "#!/bin/sh
echo 'nvcc: NVIDIA (R) Cuda compiler driver'
echo 'Copyright (c) 2005-2026 NVIDIA Corporation'
echo 'Built on Thu_Jan__1_00:00:00_UTC_2026'
echo 'Cuda compilation tools, release 13.5, V13.5.37'
";

/// Type-checks the library in a target folder of its own, because cudarc's build script does not
/// watch PATH. Nothing is checked where programs are not shell scripts.
pub fn check() -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let target = process::target().join("newer-nvcc");
    let programs = target.join("programs");
    std::fs::create_dir_all(&programs)?;
    std::fs::write(programs.join("nvcc"), NVCC)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(programs.join("nvcc"), mode)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(programs).chain(std::env::split_paths(&path));
    let mut cargo = cargo();
    cargo.env("PATH", std::env::join_paths(folders)?);
    cargo.env("PREFUSE_NVCC", "off").env_remove("CUDARC_CUDA_VERSION");
    cargo.args(["check", "-p", "prefuse", "--lib", "--target-dir"]).arg(target);
    process::run(&mut cargo)
}
