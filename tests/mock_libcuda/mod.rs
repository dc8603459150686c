//! The mock of the CUDA library, compiled where there is a C compiler, and processes that find it
//! where they look for the driver.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the scenario to a process.
pub const SCENARIO: &str = "PREFUSE_MOCK_SCENARIO";

/// A folder for libraries; on the machine that compiled this, below its target folder.
pub fn folder(name: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = if target.is_dir() { target } else { std::env::temp_dir() }.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The folder of the mock, compiled once; `None` where there is no compiler.
fn mock() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compile = || {
        let folder = folder("mock_libcuda");
        // Renamed when complete: another run may use it.
        let [partial, source] =
            ["so", "c"].map(|name| folder.join(format!("{}.{name}", std::process::id())));
        std::fs::write(&source, include_str!("libcuda.c")).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        let output = command.arg(&partial).arg(&source).output();
        std::fs::remove_file(source).unwrap();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                let required = std::env::var_os("PREFUSE_REQUIRE_CXX").is_some();
                assert!(!required, "no C compiler: {error}");
                return None;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(partial, folder.join("libcuda.so.1")).unwrap();
        // cudarc looks for this name first, and should not find a real driver.
        let _ = std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so"));
        Some(folder)
    };
    FOLDER.get_or_init(compile).as_deref()
}

/// Runs the scenario with `folder` first on the loader's path.
pub fn run_in(folder: &Path, scenario: &str, settings: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cuda_driver::scenario", "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env(SCENARIO, scenario)
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let [out, complaints] = [&output.stdout, &output.stderr].map(|o| String::from_utf8_lossy(o));
    assert!(output.status.success(), "{scenario} {settings:?}:\n{out}{complaints}");
    assert!(out.contains("1 passed"), "{scenario} did not run:\n{out}");
}

/// Runs the scenario with the mock.
pub fn run(scenario: &str, settings: &[(&str, &str)]) {
    match mock() {
        Some(folder) => run_in(folder, scenario, settings),
        None => eprintln!("skipped: no C compiler"),
    }
}

/// The mock's own functions.
pub struct Mock(libloading::Library);

impl Mock {
    pub fn new() -> Self {
        // SAFETY: the mock has no initialisers.
        Self(unsafe { libloading::Library::new("libcuda.so.1") }.unwrap())
    }

    /// The calls since the last time, each on a line.
    pub fn log(&self) -> Vec<String> {
        // SAFETY: its signature in the mock; the text lives until the next call.
        let text = unsafe {
            let log = self.0.get::<unsafe extern "C" fn() -> *const c_char>("mock_log").unwrap();
            CStr::from_ptr(log())
        };
        text.to_str().unwrap().lines().map(str::to_owned).collect()
    }

    /// `-1` for none.
    pub fn set_current(&self, device: c_int) {
        // SAFETY: its signature in the mock.
        unsafe {
            self.0.get::<unsafe extern "C" fn(c_int)>("mock_set_current").unwrap()(device);
        }
    }

    pub fn current(&self) -> c_int {
        // SAFETY: its signature in the mock.
        unsafe { self.0.get::<unsafe extern "C" fn() -> c_int>("mock_current").unwrap()() }
    }

    pub fn stream(&self, device: c_int) -> *mut c_void {
        // SAFETY: its signature in the mock.
        unsafe {
            self.0.get::<unsafe extern "C" fn(c_int) -> *mut c_void>("mock_stream").unwrap()(device)
        }
    }

    pub fn most_shared(&self, function: c_int) -> c_int {
        // SAFETY: its signature in the mock.
        unsafe {
            self.0.get::<unsafe extern "C" fn(c_int) -> c_int>("mock_most_shared").unwrap()(
                function,
            )
        }
    }
}
