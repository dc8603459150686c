//! The pinned CUDA compiler and the formatters, in a virtual environment of Python's that is made
//! once. Nothing of it is needed to build the crate or to run its tests on a CPU.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{self, Result, command, output, text};

/// The release that the kernels are compiled with everywhere: its fatbins load on drivers from 580 on.
const RELEASE: &str = "13.0";

const COMPILER: &str = "cuda-toolkit[nvcc,crt,nvvm,cccl,cudart]==13.0.2";
/// What that compiler says of itself. Another build of the release may give other registers.
const BUILD: &str = "V13.0.88";

/// There is no nvdisasm 13.0 among the wheels; this one, the oldest, reads its output.
const TOOLS: [&str; 3] = ["nvidia-cuda-nvdisasm==13.2.51", "clang-format==18.1.8", "ruff==0.14.6"];

/// Where the programs are.
pub struct Toolchain {
    pub nvcc: PathBuf,
    pub nvdisasm: PathBuf,
    pub clang_format: PathBuf,
    pub ruff: PathBuf,
}

/// Whether what needs the toolchain is to be left out.
pub fn skipped() -> bool {
    std::env::var_os("PREFUSE_SKIP_NVCC").is_some_and(|value| value == "1")
}

impl Toolchain {
    /// Finds the toolchain, and installs what is missing of it.
    pub fn install() -> Result<Self> {
        let given = given_nvcc();
        let mut pins: Vec<&str> = TOOLS.to_vec();
        if given.is_none() {
            pins.push(COMPILER);
        }
        let folder = process::target().join(format!("cuda-{RELEASE}"));
        let stamp = folder.join("pins.txt");
        if fs::read_to_string(&stamp).ok().as_deref() != Some(&pins.join("\n")) {
            println!("installing {} into target/cuda-{RELEASE}", pins.join(" "));
            create(&folder, &pins).map_err(|error| {
                format!(
                    "the CUDA {RELEASE} compiler cannot be installed, which needs python3 with venv \
                     and pip, and a package index; PREFUSE_SKIP_NVCC=1 leaves out what needs it\n{error}"
                )
            })?;
            fs::write(&stamp, pins.join("\n"))?;
        }
        let (programs, cuda) = (folder.join("bin"), cuda_folder(&folder)?);
        let toolchain = Self {
            nvcc: given.unwrap_or_else(|| cuda.join("nvcc")),
            nvdisasm: cuda.join("nvdisasm"),
            clang_format: programs.join("clang-format"),
            ruff: programs.join("ruff"),
        };
        if !is_pinned(&toolchain.nvcc) {
            return Err(format!("{} is not {BUILD}", toolchain.nvcc.display()).into());
        }
        Ok(toolchain)
    }

    /// What the build script is told: the compiler, and where all builds share what it made.
    pub fn fatbins(&self) -> [(&'static str, PathBuf); 2] {
        let shared = process::target().join("fatbins");
        [("NVCC", self.nvcc.clone()), ("PREFUSE_KERNEL_CACHE", shared)]
    }

    /// PATH with the compiler's folder in front.
    pub fn path(&self) -> Result<OsString> {
        let folders = self.nvcc.parent().map(Path::to_path_buf).into_iter();
        let others = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(folders.chain(std::env::split_paths(&others)))?)
    }
}

/// The compiler that `NVCC` names, where it is the pinned one.
fn given_nvcc() -> Option<PathBuf> {
    std::env::var_os("NVCC").map(PathBuf::from).filter(|nvcc| is_pinned(nvcc))
}

fn is_pinned(nvcc: &Path) -> bool {
    text(command(nvcc).arg("--version")).is_ok_and(|version| version.contains(BUILD))
}

fn create(folder: &Path, pins: &[&str]) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    output(command("python3").args(["-m", "venv"]).arg(folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    output(command(folder.join("bin/python")).args(pip).args(pins))?;
    Ok(())
}

/// The folder of the CUDA programs; its path names the version of Python.
fn cuda_folder(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder.join("lib"))? {
        let programs = entry?.path().join("site-packages/nvidia/cu13/bin");
        if programs.is_dir() {
            return Ok(programs);
        }
    }
    Err(format!("no CUDA programs in {}; delete it", folder.display()).into())
}
