//! The driver over cudarc, against a mock of the CUDA library (`mock_libcuda`). Each scenario runs in
//! a process of its own, because a process has one driver: this binary, again, with the mock first on
//! the loader's path.

use std::ffi::c_void;

use prefuse::Error;
use prefuse::cuda::driver::{Driver, LaunchShape};
use prefuse::cuda::{CudaDriver, Kernels, Module};

use crate::mock_libcuda::{Mock, SCENARIO, folder, run, run_in};

/// What the child does.
#[test]
#[ignore = "the other tests run it in processes of their own"]
fn scenario() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    match scenario.as_str() {
        "no driver" => {
            no_driver();
            falls_back("cpu: CUDA driver: ");
        }
        "no device" => {
            assert_eq!(open(0, not_built()).unwrap_err(), Error::NoDevice);
            falls_back("cpu: CUDA device: the driver shows none; ");
        }
        "default backend" => default_backend(),
        "stub" => stub(),
        "ordinal" => ordinal(),
        "not built" => {
            assert_eq!(open(0, not_built()).unwrap_err(), not_built().unwrap_err());
        }
        "old driver" => old_driver(),
        "refused" => refused(),
        "whole life" => whole_life(),
        "without pools" => without_pools(),
        "mapped" => mapped(),
        "not mapped" => not_mapped(),
        "foreign stream" => foreign_stream(),
        "capture" => capture(),
        "threads" => threads(),
        "several" => several(),
        "cluster" => cluster(),
        other => panic!("no scenario {other}"),
    }
}

#[repr(C, align(16))]
struct Image([u8; 6]);
const IMAGE: &Image = &Image(*b"image\0");

static KERNELS: Kernels = Kernels {
    toolkit: (13, 2),
    built: "sm_90 compute_80",
    modules: &[Module { name: "mock", image: &IMAGE.0 }],
};

fn not_built() -> prefuse::Result<&'static Kernels> {
    Err(Error::KernelsNotBuilt { reason: "the test says so" })
}

fn open(ordinal: usize, kernels: prefuse::Result<&'static Kernels>) -> prefuse::Result<CudaDriver> {
    CudaDriver::with_kernels(ordinal, kernels)
}

/// The default backend is then the CPU, and says why.
fn falls_back(why: &str) {
    let default = prefuse::default_backend();
    assert_eq!(default.backend.name(), "cpu");
    let said = default.to_string();
    assert!(said.starts_with(why), "{said}");
    assert_eq!(default.cuda_error.map(|error| format!("cpu: {error}")), Some(said));
}

fn no_driver() {
    let error = open(0, not_built()).unwrap_err();
    let Error::NoDriver { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("libcuda.so.1"), "{reason}");
    assert!(error.to_string().starts_with("CUDA driver: "), "{error}");
}

/// A file that is no library hides a real driver, should there be one.
#[test]
fn without_a_driver_library_the_error_says_so() {
    let folder = folder("no_driver");
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.join(name), "no library").unwrap();
    }
    run_in(&folder, "no driver", &[]);
}

#[test]
fn a_driver_without_devices() {
    run("no device", &[("MOCK_INIT", "100")]);
    run("no device", &[("MOCK_DEVICES", "0"), ("MOCK_VERSION", "11080")]);
}

/// With a device it is CUDA, if this build has kernels.
fn default_backend() {
    match Kernels::embedded() {
        Err(_) => falls_back("cpu: CUDA kernels: this build has none, "),
        Ok(_) => {
            let said = prefuse::default_backend().to_string();
            assert!(said.starts_with("cuda: device 0, "), "{said}");
        }
    }
}

#[test]
fn the_default_backend_is_the_device() {
    run("default backend", &[]);
}

fn stub() {
    let error = open(0, Ok(&KERNELS)).unwrap_err();
    assert!(matches!(error, Error::NoDriver { .. }), "{error:?}");
}

#[test]
fn the_toolkits_stub_is_no_driver() {
    run("stub", &[("MOCK_INIT", "34")]);
}

fn ordinal() {
    assert_eq!(open(2, not_built()).unwrap_err(), Error::DeviceOrdinal { devices: 2, got: 2 });
    let error = open(usize::MAX, not_built()).unwrap_err();
    assert_eq!(error, Error::DeviceOrdinal { devices: 2, got: usize::MAX });
}

#[test]
fn a_device_number_beyond_the_count() {
    run("ordinal", &[]);
}

#[test]
fn missing_kernels_come_before_an_old_driver() {
    run("not built", &[("MOCK_VERSION", "11080")]);
}

fn old_driver() {
    let error = open(0, Ok(&KERNELS)).unwrap_err();
    let (driver, needed) = ((11, 8), (12, 4));
    let capability = (9, 0);
    assert_eq!(error, Error::DriverTooOld { driver, needed, capability, built: KERNELS.built });
    assert!(Mock::new().log().is_empty());
}

#[test]
fn a_driver_below_the_least() {
    run("old driver", &[("MOCK_VERSION", "11080")]);
}

/// The error that `PREFUSE_MOCK_EXPECT` names, and nothing left behind.
fn refused() {
    let mock = Mock::new();
    mock.set_current(1);
    let error = open(0, Ok(&KERNELS)).unwrap_err();
    let text = error.to_string();
    let expected = std::env::var("PREFUSE_MOCK_EXPECT").unwrap();
    assert!(format!("{error:?}").starts_with(&expected), "{error:?}");
    if expected == "NoKernelsForDevice" {
        assert!(text.contains("PREFUSE_CUDA_ARCHS=\"90\""), "{text}");
        assert!(text.contains("the mock's words"), "{text}");
    }
    if expected == "Driver {" {
        let named = "cuModuleLoadDataEx: the mock's words (CUDA_ERROR_OUT_OF_MEMORY) the compiler";
        assert!(text.starts_with(named), "{text}");
    }
    assert_eq!(mock.current(), 1);
    let log = mock.log();
    let loads = log.iter().filter(|line| *line == "load").count();
    assert_eq!(loads, log.iter().filter(|line| *line == "unload").count());
    assert_eq!(
        (log.first().unwrap().as_str(), log.last().unwrap().as_str()),
        ("retain 0", "release 0")
    );
}

#[test]
fn kernels_that_the_driver_refuses() {
    // The toolkit is 13.2: its machine code runs under 13.0, its PTX does not.
    for (version, code, expected) in [
        ("12080", "209", "DriverTooOld { driver: (12, 8), needed: (13, 0), capability: (9, 0)"),
        ("12080", "218", "DriverTooOld { driver: (12, 8), needed: (13, 0)"),
        ("12080", "200", "DriverTooOld { driver: (12, 8), needed: (13, 0)"),
        ("13000", "222", "DriverTooOld { driver: (13, 0), needed: (13, 2)"),
        ("13000", "209", "NoKernelsForDevice"),
        ("13020", "222", "NoKernelsForDevice"),
        ("13000", "2", "Driver {"),
    ] {
        let settings =
            [("MOCK_VERSION", version), ("MOCK_LOAD", code), ("PREFUSE_MOCK_EXPECT", expected)];
        run("refused", &settings);
    }
    // Lazy loading finds out later.
    run("refused", &[("MOCK_FUNCTION", "209"), ("PREFUSE_MOCK_EXPECT", "NoKernelsForDevice")]);
}

fn launch(
    driver: &CudaDriver,
    kernel: &str,
    mut address: u64,
    shape: LaunchShape,
) -> prefuse::Result<()> {
    let (mut count, mut value) = (4u32, 2.5f32);
    let mut arguments =
        [(&raw mut address).cast::<c_void>(), (&raw mut count).cast(), (&raw mut value).cast()];
    // SAFETY: the signature of the mock's kernels, and room for 4 numbers.
    unsafe { driver.launch(kernel, shape, &mut arguments) }
}

const SHAPE: LaunchShape = LaunchShape { grid: 8, block: 256, cluster: 1, shared: 0 };

/// Allocation, copies and launches, with another device current: it stays so.
fn whole_life() {
    let mock = Mock::new();
    mock.set_current(1);
    let driver = open(0, Ok(&KERNELS)).unwrap();
    let steps = ["retain 0", "current 0", "load", "current 1"];
    assert_eq!(mock.log(), [&steps[..], &["current 0", "create stream 1", "current 1"]].concat());
    let device = driver.device();
    assert_eq!((device.ordinal, device.name.as_str()), (0, "mock 0"));
    assert_eq!((device.capability, device.processors, device.cluster), ((9, 0), 132, 8));
    // All that a block may have, less what the kernel has anyway.
    assert_eq!((mock.most_shared(0), mock.most_shared(1)), (232_448, 232_448 - 1024));

    let address = driver.allocate(16).unwrap();
    assert_eq!(address % 256, 0);
    assert_eq!(mock.log(), ["current 0", "allocate 16 on own", "current 1"]);
    let mut bytes = [9u8; 16];
    // SAFETY: 16 bytes were allocated.
    unsafe {
        driver.upload(address, &[7; 16]).unwrap();
        // Whatever the memory is, the driver may copy after it has returned.
        assert_eq!(mock.log(), ["current 0", "upload 16 on own", "synchronize own", "current 1"]);
        driver.download(&mut bytes, address).unwrap();
        assert_eq!(mock.log(), ["current 0", "download 16 on own", "synchronize own", "current 1"]);
        assert_eq!(bytes, [7; 16]);
        driver.zero(address, 16).unwrap();
        assert_eq!(mock.log(), ["current 0", "set 16 to 0 on own", "current 1"]);
        driver.download(&mut bytes, address).unwrap();
        assert_eq!(bytes, [0; 16]);
    }
    mock.log();

    launch(&driver, "fill", address, SHAPE).unwrap();
    let plain = "launch fill grid 8 1 1 block 256 1 1 cluster 1 shared 0 on own";
    assert_eq!(mock.log(), ["current 0", plain, "current 1"]);
    launch(&driver, "fixed", address, LaunchShape { cluster: 4, shared: 231_424, ..SHAPE })
        .unwrap();
    let cluster = "launch fixed grid 8 1 1 block 256 1 1 cluster 4 shared 231424 on own";
    assert_eq!(mock.log(), ["current 0", cluster, "current 1"]);
    // SAFETY: as above.
    unsafe { driver.download(&mut bytes, address).unwrap() };
    assert_eq!(bytes, *bytemuck::bytes_of(&[2.5f32; 4]));
    mock.log();

    let error = launch(&driver, "no such", address, SHAPE).unwrap_err();
    assert_eq!(error.to_string(), "cuLaunchKernelEx: no kernel is named no such");
    let error = driver.allocate(usize::MAX / 2).unwrap_err();
    let text = "cuMemAllocAsync: the mock's words (CUDA_ERROR_OUT_OF_MEMORY)";
    assert_eq!(error.to_string(), text);
    mock.log();

    // Nothing is asked of the driver for nothing, except to wait.
    // SAFETY: no bytes.
    unsafe {
        driver.upload(0, &[]).unwrap();
        driver.zero(0, 0).unwrap();
        assert!(mock.log().is_empty());
        driver.download(&mut [], 0).unwrap();
        assert_eq!(mock.log(), ["current 0", "synchronize own", "current 1"]);
    }
    let nothing = driver.allocate(0).unwrap();
    // SAFETY: both are from `allocate`.
    unsafe {
        driver.free(nothing);
        mock.log();
        driver.free(address);
    }
    assert_eq!(mock.log(), ["current 0", "free on own", "current 1"]);
    drop(driver);
    assert_eq!(mock.log(), ["current 0", "destroy stream", "current 1"]);
}

#[test]
fn a_whole_life() {
    run("whole life", &[]);
}

fn without_pools() {
    let mock = Mock::new();
    mock.set_current(0);
    let driver = open(0, Ok(&KERNELS)).unwrap();
    mock.log();
    let address = driver.allocate(16).unwrap();
    // SAFETY: it is from `allocate`.
    unsafe { driver.free(address) };
    assert_eq!(mock.log(), ["allocate 16", "synchronize own", "free"]);
}

#[test]
fn without_memory_pools_freeing_waits() {
    run("without pools", &[("MOCK_POOLS", "0")]);
}

fn mapped() {
    let mock = Mock::new();
    let driver = open(0, Ok(&KERNELS)).unwrap();
    let mapped = driver.allocate_mapped(16).unwrap();
    assert_eq!(mapped.bytes, 16);
    // SAFETY: 16 bytes that nobody writes.
    let bytes = unsafe { std::slice::from_raw_parts(mapped.host.as_ptr(), 16) };
    assert_eq!(bytes, [0; 16]);
    mock.log();
    // SAFETY: it is from the driver, and nothing is enqueued.
    unsafe { driver.free_mapped(mapped) };
    assert_eq!(mock.log(), ["current 0", "free locked", "current none"]);
}

#[test]
fn mapped_memory_begins_with_0() {
    run("mapped", &[]);
}

fn not_mapped() {
    let mock = Mock::new();
    let driver = open(0, Ok(&KERNELS)).unwrap();
    mock.log();
    let error = driver.allocate_mapped(16).unwrap_err();
    assert!(matches!(error, Error::Driver { call: "cuMemHostGetDevicePointer_v2", .. }));
    assert_eq!(mock.log(), ["current 0", "allocate 16 locked", "free locked", "current none"]);
}

#[test]
fn host_memory_that_cannot_be_mapped_is_given_back() {
    run("not mapped", &[("MOCK_MAPPED", "801")]);
}

fn foreign_stream() {
    let mock = Mock::new();
    for stream in [mock.stream(0), std::ptr::null_mut()] {
        let name = if stream.is_null() { "default" } else { "foreign" };
        // SAFETY: the mock's streams live as long as it does.
        let driver =
            unsafe { CudaDriver::with_kernels_on_stream(0, stream, Ok(&KERNELS)) }.unwrap();
        mock.log();
        driver.synchronize().unwrap();
        let synchronize = format!("synchronize {name}");
        assert_eq!(mock.log(), ["current 0", &synchronize, "current none"]);
        drop(driver);
        assert!(mock.log().is_empty());
    }
    // SAFETY: as above.
    let other =
        unsafe { CudaDriver::with_kernels_on_stream(0, mock.stream(1), Ok(&KERNELS)) }.unwrap_err();
    let text = "cuStreamGetCtx: expected a stream of the primary context of device 0";
    assert!(other.to_string().starts_with(text), "{other}");
}

#[test]
fn a_foreign_stream_is_borrowed() {
    run("foreign stream", &[]);
}

fn capture() {
    let mock = Mock::new();
    let driver = open(0, Ok(&KERNELS)).unwrap();
    let address = driver.allocate(16).unwrap();
    mock.log();
    // SAFETY: 16 bytes were allocated.
    let error = unsafe { driver.upload(address, &[0; 16]) }.unwrap_err();
    assert!(error.to_string().contains("captured"), "{error}");
    assert_eq!(mock.log(), ["current 0", "current none"]);
    launch(&driver, "fill", address, SHAPE).unwrap();
}

#[test]
fn a_captured_stream_refuses_uploads_and_takes_launches() {
    run("capture", &[("MOCK_CAPTURING", "1")]);
}

fn threads() {
    let mock = Mock::new();
    mock.set_current(0);
    let driver = open(0, Ok(&KERNELS)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(mock.current(), -1);
            let address = driver.allocate(16).unwrap();
            // SAFETY: it is from `allocate`.
            unsafe { driver.free(address) };
            assert_eq!(mock.current(), -1);
        });
    });
    assert_eq!(mock.current(), 0);
}

#[test]
fn a_thread_without_a_context_has_none_afterwards() {
    run("threads", &[]);
}

fn several() {
    let mock = Mock::new();
    let first = open(0, Ok(&KERNELS)).unwrap();
    mock.log();
    let second = open(0, Ok(&KERNELS)).unwrap();
    assert_eq!(mock.log(), ["current 0", "create stream 1", "current none"]);
    drop(first);
    second.synchronize().unwrap();
    let other = open(1, Ok(&KERNELS)).unwrap();
    assert!(mock.log().contains(&"retain 1".to_owned()));
    assert_eq!(other.device().name, "mock 1");
}

#[test]
fn kernels_are_loaded_once_for_a_device() {
    run("several", &[]);
}

/// What `PREFUSE_MOCK_EXPECT` says.
fn cluster() {
    let driver = open(0, Ok(&KERNELS)).unwrap();
    let expected = std::env::var("PREFUSE_MOCK_EXPECT").unwrap();
    assert_eq!(driver.device().cluster.to_string(), expected);
}

#[test]
fn clusters_are_as_large_as_every_kernel_fits() {
    for (settings, expected) in [
        (&[][..], "8"),
        (&[("MOCK_CLUSTER", "7")], "4"),
        (&[("MOCK_CLUSTER", "1")], "1"),
        (&[("MOCK_CAPABILITY", "8")], "1"),
        (&[("MOCK_PTX", "80")], "1"),
        (&[("MOCK_CAPABILITY", "12"), ("MOCK_PTX", "120"), ("MOCK_CLUSTER", "2")], "2"),
    ] {
        run("cluster", &[settings, &[("PREFUSE_MOCK_EXPECT", expected)]].concat());
    }
}

#[test]
fn the_build_says_which_kernels_it_has() {
    match Kernels::embedded() {
        Ok(kernels) => {
            assert!(kernels.toolkit >= (12, 0) && !kernels.built.is_empty(), "{kernels:?}");
            assert!(
                kernels
                    .modules
                    .iter()
                    .all(|module| (module.image.as_ptr() as usize).is_multiple_of(16))
            );
        }
        Err(error) => {
            let Error::KernelsNotBuilt { reason } = &error else { panic!("{error:?}") };
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains("PREFUSE_NVCC=require"), "{text}");
        }
    }
}

/// The same on a GPU, where there is one: copies, and memory that both sides see.
#[test]
fn a_real_device() {
    let driver = match CudaDriver::open(0) {
        Ok(driver) => driver,
        Err(error) => {
            assert!(std::env::var_os("PREFUSE_REQUIRE_CUDA").is_none(), "{error}");
            eprintln!("skipped: no CUDA device: {error}");
            return;
        }
    };
    // SAFETY: the default stream always is.
    let default = unsafe { CudaDriver::on_stream(0, std::ptr::null_mut()) }.unwrap();
    for driver in [driver, default] {
        let address = driver.allocate(1 << 20).unwrap();
        assert_eq!(address % 256, 0);
        let mapped = driver.allocate_mapped(64).unwrap();
        let sent: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        // SAFETY: every range lies within an allocation, and the host's view is read before the
        // device writes it.
        unsafe {
            driver.upload(address, &sent).unwrap();
            driver.download(&mut got, address).unwrap();
            assert_eq!(got, sent);
            driver.zero(address + 256, 512).unwrap();
            driver.upload(address, std::slice::from_raw_parts(mapped.host.as_ptr(), 64)).unwrap();
            driver.download(&mut got, address).unwrap();
            assert!(got[..64].iter().chain(&got[256..768]).all(|&byte| byte == 0));
            assert_eq!((&got[64..256], &got[768..]), (&sent[64..256], &sent[768..]));
            driver.zero(mapped.device, mapped.bytes).unwrap();
            driver.synchronize().unwrap();
            driver.free_mapped(mapped);
            driver.free(address);
        }
    }
}
