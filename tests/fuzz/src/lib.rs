//! What devices, firmware and users say, made up by a fuzzer: one function a target, which
//! takes its bytes and panics where something is found.
//!
//! `cargo xtask fuzz` builds and runs them with the stable toolchain; `cargo fuzz run
//! TARGET` does in this folder with a nightly one. `corpus/` has inputs that reach far;
//! `cargo test` goes through them once.

mod bytes;
mod device;
mod firmware;
mod pci;
mod ring;

pub use device::{console, net};
pub use firmware::{acpi, start_info};
pub use pci::{assignment, configuration};
pub use ring::{packed_ring, split_ring};

/// The guest's command line: whatever it says, it is read or refused with a reason.
pub fn command_line(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(reason) = doorbell_kernel::commands::check(line) {
        assert!(!reason.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 9] = [
        ("configuration", configuration),
        ("assignment", assignment),
        ("acpi", acpi),
        ("start_info", start_info),
        ("split_ring", split_ring),
        ("packed_ring", packed_ring),
        ("console", console),
        ("net", net),
        ("command_line", command_line),
    ];

    #[test]
    fn the_corpus_finds_nothing() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("corpus")
                .join(name);
            let files = std::fs::read_dir(&folder).unwrap_or_else(|error| {
                panic!("{}: {error}", folder.display());
            });
            let mut count = 0;
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
