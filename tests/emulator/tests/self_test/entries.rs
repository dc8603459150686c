//! How the build finds entry points.

#[path = "../../build/entries.rs"]
mod build;

use build::{Entry, find};

fn entry(name: &str, max_threads: &str) -> Entry {
    Entry { name: name.to_owned(), max_threads: max_threads.to_owned() }
}

#[test]
fn entries_and_their_launch_bounds() {
    let text = r#"
        extern "C" __global__ void plain(float *x, int (*f)(int)) { x[0] = f(1); }
        extern "C" __global__ void __launch_bounds__(kBlock<2, 3>(4), 1) bounded(int n) {}
        extern "C" __global__ __launch_bounds__(256) void before(int n)
        {}
        extern "C" __global__ void declared(int n);
    "#;
    let expected =
        vec![entry("plain", "0"), entry("bounded", "kBlock<2, 3>(4)"), entry("before", "256")];
    assert_eq!(find(text), Ok(expected));
    let registration = "EMULATOR_KERNEL(before, 256)\n";
    assert_eq!(entry("before", "256").registration(), registration);
}

#[test]
fn entries_without_c_linkage() {
    assert!(find("namespace { __global__ void f() {} }").is_err());
    assert!(find("extern \"C\" static __global__ void f() {}").is_err());
    assert!(find("extern \"C\" __global__ void f(int").is_err());
}
