//! Links the test image by the script that package `doorbell-boot` announces.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let bare_metal = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none");
    if let (true, Ok(script)) = (bare_metal, std::env::var("DEP_DOORBELL_BOOT_LINKER_SCRIPT")) {
        println!("cargo::rustc-link-arg-bins=-T{script}");
        println!("cargo::rerun-if-changed={script}");
    }
}
