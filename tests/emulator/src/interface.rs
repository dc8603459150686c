//! The C interface of the runtime; twin of the end of `runtime/c_interface.cpp`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::LazyLock;

/// The runtime's `Device`.
#[repr(C)]
pub struct RawDevice {
    private: [u8; 0],
}

/// How a kernel is launched.
#[repr(C)]
pub struct Extent {
    pub grid: u32,
    pub block: u32,
    pub cluster: u32,
    pub shared: u32,
}

/// Outcomes of `launch`.
pub const DONE: c_int = 0;
pub const REFUSED: c_int = 1;

#[repr(C)]
pub struct Interface {
    pub create: unsafe extern "C" fn(c_int, c_int) -> *mut RawDevice,
    pub destroy: unsafe extern "C" fn(*mut RawDevice),
    pub configure: unsafe extern "C" fn(*mut RawDevice, c_int, u64, u32, u32),
    pub mode: unsafe extern "C" fn() -> c_int,
    pub allocate: unsafe extern "C" fn(*mut RawDevice, usize, c_int) -> u64,
    pub free: unsafe extern "C" fn(*mut RawDevice, u64) -> c_int,
    pub check_range: unsafe extern "C" fn(*mut RawDevice, u64, usize, c_int) -> *const c_char,
    pub launch: unsafe extern "C" fn(
        *mut RawDevice,
        *const c_char,
        *const Extent,
        *mut *mut c_void,
        usize,
    ) -> c_int,
    pub message: unsafe extern "C" fn(*mut RawDevice) -> *const c_char,
    pub allocation_count: unsafe extern "C" fn(*mut RawDevice) -> usize,
    pub kernel_name: unsafe extern "C" fn(usize) -> *const c_char,
    pub parameter_bytes: unsafe extern "C" fn(*const c_char, usize) -> usize,
}

type GetInterface = unsafe extern "C" fn() -> *const Interface;

unsafe extern "C" {
    fn prefuse_emulator_interface() -> *const Interface;
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

/// The runtime and kernels that are linked in, or those of the shared library that
/// `PREFUSE_EMULATOR_LIBRARY` names: so a test program runs changed kernels without being linked
/// again.
pub static INTERFACE: LazyLock<&'static Interface> = LazyLock::new(|| {
    let Some(path) = std::env::var_os("PREFUSE_EMULATOR_LIBRARY") else {
        // SAFETY: the table is a constant of the program.
        return unsafe { &*prefuse_emulator_interface() };
    };
    let path = CString::new(path.into_encoded_bytes()).expect("a path has no NUL");
    // SAFETY: the library is one that the build script has linked, so the symbol has this type; it
    // is never closed.
    unsafe {
        let library = dlopen(path.as_ptr(), RTLD_NOW);
        assert!(!library.is_null(), "cannot load {path:?}");
        let symbol = dlsym(library, c"prefuse_emulator_interface".as_ptr());
        assert!(!symbol.is_null(), "{path:?} is no library of the emulator");
        &*std::mem::transmute::<*mut c_void, GetInterface>(symbol)()
    }
});
