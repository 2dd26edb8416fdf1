//! Tells the packages that link a bootable image where the linker script is.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::metadata=linker_script={dir}/link.ld");
    println!("cargo::rerun-if-changed=link.ld");
}
