//! A device with its kernels loaded, once for the process: streams come and go, and loading takes
//! milliseconds.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    self, CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute, CUresult,
};

use super::call::{Current, call, checked, describe, find_library, with_config};
use super::driver::{Device, LaunchShape};
use super::fatbins::{Kernels, Module};
use super::launch;
use crate::error::{Error, Result};

/// Oldest driver that has every function that this crate calls (`cuModuleEnumerateFunctions` came
/// last). cudarc panics where one is missing, so nothing newer than `cuInit` runs before the check.
const OLDEST_DRIVER: (u32, u32) = (12, 4);

/// Never dropped once it is complete: the next backend of the device finds it, and a captured graph may
/// still launch its kernels.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) device: Device,
    /// Whether memory can be allocated in the order of a stream.
    pub(super) pools: bool,
    functions: HashMap<String, sys::CUfunction>,
    modules: Vec<ModuleHandle>,
    primary: Primary,
}

// SAFETY: the handles are good in every thread, and the driver locks what it shares.
unsafe impl Send for Loaded {}
// SAFETY: as above; nothing here changes after it was made.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// The device, loaded by this call or by an earlier one.
    ///
    /// # Errors
    /// In this order: [`Error::NoDriver`], [`Error::NoDevice`] or [`Error::DeviceOrdinal`], that of
    /// `kernels`, [`Error::DriverTooOld`] or [`Error::NoKernelsForDevice`], the driver's own.
    pub(super) fn get(ordinal: usize, kernels: Result<&'static Kernels>) -> Result<Arc<Self>> {
        // By the kernels too, so that tests can bring their own.
        type Key = (usize, *const Kernels);
        struct Cache(Vec<(Key, Arc<Loaded>)>);
        // SAFETY: the pointer is compared and never followed.
        unsafe impl Send for Cache {}
        static CACHE: Mutex<Cache> = Mutex::new(Cache(Vec::new()));

        let device = find_device(ordinal)?;
        let kernels = kernels?;
        let key = (ordinal, std::ptr::from_ref(kernels));
        // What a panic interrupts has not been pushed yet.
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, loaded)) = cache.0.iter().find(|(found, _)| *found == key) {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(Self::load(ordinal, device, kernels)?);
        cache.0.push((key, loaded.clone()));
        Ok(loaded)
    }

    fn load(ordinal: usize, handle: sys::CUdevice, kernels: &Kernels) -> Result<Self> {
        let capability = (
            attribute(handle, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(handle, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let fit = Fit { driver: driver_version()?, capability, kernels };
        if fit.driver < OLDEST_DRIVER {
            return Err(fit.too_old(OLDEST_DRIVER));
        }
        let primary = Primary::retain(handle)?;
        let shared =
            attribute(handle, Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let device = Device {
            ordinal,
            name: name(handle)?,
            capability,
            processors: attribute(handle, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared,
            cluster: 1,
        };
        let pools = attribute(handle, Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0;
        let mut loaded =
            Self { device, pools, functions: HashMap::new(), modules: Vec::new(), primary };
        // SAFETY: `loaded` holds the context, and outlives `current`.
        let current = unsafe { Current::enter(loaded.context()) }?;
        for module in kernels.modules {
            loaded.modules.push(load_module(module, &fit)?);
            let module = loaded.modules[loaded.modules.len() - 1].0;
            for (name, function) in functions(module, &fit)? {
                allow_shared(function, shared)?;
                loaded.functions.insert(name, function);
            }
        }
        if capability.0 >= 9 {
            let most = launch::most_shared(&loaded.device) as u32;
            let kernels = loaded.functions.iter().filter(|(name, _)| name.contains("_cluster"));
            let largest = kernels.map(|(_, function)| largest_cluster(*function, most));
            let largest = largest.collect::<Result<Vec<_>>>()?;
            loaded.device.cluster = largest.into_iter().min().unwrap_or(1);
        }
        drop(current);
        Ok(loaded)
    }

    pub(super) fn context(&self) -> sys::CUcontext {
        self.primary.context
    }

    /// # Errors
    /// For a name that no `.cu` file defines.
    pub(super) fn function(&self, name: &str) -> Result<sys::CUfunction> {
        self.functions.get(name).copied().ok_or_else(|| Error::Driver {
            call: "cuLaunchKernelEx",
            message: format!("no kernel is named {name}"),
        })
    }
}

/// For a load that failed half-way.
impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: `primary` is dropped later.
        let _current = unsafe { Current::enter(self.context()) };
        self.modules.clear();
    }
}

/// What the errors of loading need to know.
struct Fit<'a> {
    driver: (u32, u32),
    capability: (u32, u32),
    kernels: &'a Kernels,
}

impl Fit<'_> {
    fn too_old(&self, needed: (u32, u32)) -> Error {
        let Self { driver, capability, kernels } = *self;
        Error::DriverTooOld { driver, needed, capability, built: kernels.built }
    }

    /// The result of a step of loading; `log` is the driver's compiler's.
    fn check(&self, call: &'static str, code: CUresult, log: &[u8]) -> Result<()> {
        let Err(error) = code.result() else { return Ok(()) };
        let log = log.split(|&byte| byte == 0).next().unwrap_or_default();
        let message = [describe(error), String::from_utf8_lossy(log).trim().to_owned()];
        let message = message.join(" ").trim_end().to_owned();
        // Machine code runs under every driver of the compiler's major version. PTX must not be
        // newer than the driver.
        let toolkit = self.kernels.toolkit;
        let needed = match code {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => toolkit,
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_INVALID_IMAGE => (toolkit.0, 0),
            _ => return Err(Error::Driver { call, message }),
        };
        let Self { driver, capability, kernels } = *self;
        Err(if driver < needed {
            self.too_old(needed)
        } else {
            Error::NoKernelsForDevice { driver, capability, built: kernels.built, message }
        })
    }
}

/// The primary context of a device: the one that the CUDA runtime, and so torch, uses.
#[derive(Debug)]
struct Primary {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

impl Primary {
    fn retain(device: sys::CUdevice) -> Result<Self> {
        let mut context = null_mut();
        // SAFETY: `device` is the driver's, which writes one handle.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut context, device)) }?;
        Ok(Self { device, context })
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and every module in it is gone.
        let _ = unsafe { call!(cuDevicePrimaryCtxRelease_v2(self.device)) };
    }
}

#[derive(Debug)]
struct ModuleHandle(sys::CUmodule);

impl Drop for ModuleHandle {
    fn drop(&mut self) {
        // SAFETY: it was loaded, nothing was launched from it, and nobody else has it.
        let _ = unsafe { call!(cuModuleUnload(self.0)) };
    }
}

fn find_device(ordinal: usize) -> Result<sys::CUdevice> {
    find_library()?;
    // SAFETY: there is a library, and it may be initialised any number of times.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_ERROR_NO_DEVICE => return Err(Error::NoDevice),
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            let reason = "the library found is the toolkit's stub for linking".to_owned();
            return Err(Error::NoDriver { reason });
        }
        code => checked("cuInit", code)?,
    }
    let mut count: c_int = 0;
    // SAFETY: the driver is initialised, and writes one number.
    unsafe { call!(cuDeviceGetCount(&mut count)) }?;
    let devices = usize::try_from(count).unwrap_or(0);
    if devices == 0 {
        return Err(Error::NoDevice);
    }
    let number = c_int::try_from(ordinal).ok().filter(|_| ordinal < devices);
    let number = number.ok_or(Error::DeviceOrdinal { devices, got: ordinal })?;
    let mut device = 0;
    // SAFETY: as above.
    unsafe { call!(cuDeviceGet(&mut device, number)) }?;
    Ok(device)
}

/// The CUDA version that the driver supports.
fn driver_version() -> Result<(u32, u32)> {
    let mut version: c_int = 0;
    // SAFETY: the driver is initialised, and writes one number.
    unsafe { call!(cuDriverGetVersion(&mut version)) }?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

fn attribute(device: sys::CUdevice, attribute: Attribute) -> Result<u32> {
    let mut value: c_int = 0;
    // SAFETY: `device` is the driver's, which writes one number.
    unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device)) }?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn name(device: sys::CUdevice) -> Result<String> {
    let mut text = [0u8; 128];
    // SAFETY: the driver writes no more than it is told, with a 0 at the end.
    unsafe { call!(cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as c_int - 1, device)) }?;
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Loads into the current context.
fn load_module(module: &Module, fit: &Fit) -> Result<ModuleHandle> {
    let mut log = vec![0u8; 4096];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // The driver reads a size from the pointer's own bits.
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let mut handle = null_mut();
    // SAFETY: the image is a whole fatbin, which says where it ends; there are as many options as
    // values, and the log is as long as it says.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut handle,
            module.image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    fit.check("cuModuleLoadDataEx", code, &log)?;
    Ok(ModuleHandle(handle))
}

/// Every kernel of a module, on the device. The driver would load it at the first launch, which
/// allocates and which a stream that is being captured does not allow.
fn functions(module: sys::CUmodule, fit: &Fit) -> Result<Vec<(String, sys::CUfunction)>> {
    let mut count = 0;
    // SAFETY: the module is loaded; the driver writes one number.
    let code = unsafe { sys::cuModuleGetFunctionCount(&mut count, module) };
    fit.check("cuModuleGetFunctionCount", code, &[])?;
    let mut functions = vec![null_mut(); count as usize];
    // SAFETY: there is room for `count` handles.
    let code = unsafe { sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module) };
    fit.check("cuModuleEnumerateFunctions", code, &[])?;
    let load = |function| {
        // SAFETY: the function is of a loaded module.
        fit.check("cuFuncLoad", unsafe { sys::cuFuncLoad(function) }, &[])?;
        let mut name: *const c_char = std::ptr::null();
        // SAFETY: as above; the driver writes one pointer.
        unsafe { call!(cuFuncGetName(&mut name, function)) }?;
        // SAFETY: the driver's own string, which lives as long as the module.
        let name = unsafe { CStr::from_ptr(name) };
        Ok((name.to_string_lossy().into_owned(), function))
    };
    functions.into_iter().map(load).collect()
}

/// Lets launches ask for all the shared memory that the device gives a block.
fn allow_shared(function: sys::CUfunction, shared: u32) -> Result<()> {
    let fixed =
        function_attribute(function, FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
    let dynamic = c_int::try_from(shared).unwrap_or(c_int::MAX) - fixed;
    let kind = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is of a loaded module.
    unsafe { call!(cuFuncSetAttribute(function, kind, dynamic)) }
}

/// Of the most threads that its launch bounds allow, and the most shared memory that launches ask for.
/// The slice of a device that MIG makes may have room for fewer blocks than a whole one.
fn largest_cluster(function: sys::CUfunction, shared: u32) -> Result<u32> {
    // PTX for older devices has no clusters in it, whatever the device.
    let ptx = function_attribute(function, FunctionAttribute::CU_FUNC_ATTRIBUTE_PTX_VERSION)?;
    if ptx < 90 {
        return Ok(1);
    }
    let kind = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
    let threads = function_attribute(function, kind)?.unsigned_abs();
    let fits = |blocks: &u32| {
        let shape = LaunchShape { grid: *blocks, block: threads, cluster: *blocks, shared };
        let mut clusters: c_int = 0;
        // SAFETY: the function is of a loaded module; the driver writes one number.
        let code = with_config(shape, null_mut(), |config| unsafe {
            sys::cuOccupancyMaxActiveClusters(&mut clusters, function, config)
        });
        // Some sizes it refuses. An error of the device's own comes back from the next call.
        code == CUresult::CUDA_SUCCESS && clusters > 0
    };
    Ok([8, 4, 2].into_iter().find(fits).unwrap_or(1))
}

fn function_attribute(function: sys::CUfunction, kind: FunctionAttribute) -> Result<c_int> {
    let mut value = 0;
    // SAFETY: the function is of a loaded module; the driver writes one number.
    unsafe { call!(cuFuncGetAttribute(&mut value, kind, function)) }?;
    Ok(value)
}
