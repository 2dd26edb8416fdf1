//! What QEMU has: models and their properties, asked of the binary itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::lock::lock;

/// Answers are kept: a cell has many devices of one model.
pub(crate) struct Probe {
    qemu: PathBuf,
    known: Mutex<BTreeMap<String, Option<String>>>,
}

impl Probe {
    pub(crate) fn new(qemu: &Path) -> Self {
        Self {
            qemu: qemu.to_owned(),
            known: Mutex::default(),
        }
    }

    /// What QEMU lacks of `model,property=value,...`, in a sentence. `since` says which
    /// version brought a model or a property, as `model` or `model.property`.
    pub(crate) fn lacks(&self, device: &str, since: &BTreeMap<String, String>) -> Option<String> {
        let mut words = device.split(',');
        let model = words.next().unwrap_or_default();
        let from = |key: &str| match since.get(key) {
            Some(version) => format!("; QEMU {version} has it"),
            None => String::new(),
        };
        let Some(help) = self.help(model) else {
            return Some(format!("this QEMU has no device `{model}`{}", from(model)));
        };
        let properties = words.filter_map(|word| word.split_once('='));
        let mut properties = properties.map(|(name, _)| name);
        let missing = properties.find(|name| !has(&help, name))?;
        let from = from(&format!("{model}.{missing}"));
        Some(format!(
            "this QEMU's `{model}` has no property `{missing}`{from}"
        ))
    }

    /// What QEMU says of a model's properties; `None` if it does not know it.
    fn help(&self, model: &str) -> Option<String> {
        let mut known = lock(&self.known);
        if let Some(help) = known.get(model) {
            return help.clone();
        }
        let output = Command::new(&self.qemu)
            .args(["-device", &format!("{model},help")])
            .stdin(Stdio::null())
            .output();
        let help = output.ok().filter(|output| output.status.success());
        let help = help.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        known.insert(model.to_owned(), help.clone());
        help
    }
}

/// Whether QEMU's help lists a property: `  name=<type> - ...`.
fn has(help: &str, property: &str) -> bool {
    // Those of every device, which the help leaves out.
    const ALL: [&str; 4] = ["id", "bus", "addr", "multifunction"];
    ALL.contains(&property)
        || help.lines().any(|line| {
            let rest = line.trim_start().strip_prefix(property);
            rest.is_some_and(|rest| rest.starts_with('='))
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_qemu_lacks_is_named_with_the_version_that_has_it() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-probe", std::process::id()));
        let script = "#!/bin/sh\ncase $2 in virtio-rng-pci,help) echo 'virtio-rng-pci options:'; \
                      echo '  ioeventfd=<bool>       - on/off (default: on)';; *) exit 1;; esac\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let probe = Probe::new(&path);
        let since = [("virtio-rng-pci.fast".to_owned(), "99.1".to_owned())].into();
        let lacks = |device: &str| probe.lacks(device, &since);
        assert_eq!(lacks("virtio-rng-pci,ioeventfd=off,addr=4"), None);
        let lost = lacks("virtio-rng-pci,ioeventfd=on,fast=on").unwrap();
        assert!(lost.contains("`fast`; QEMU 99.1 has it"), "{lost}");
        let lost = lacks("virtio-rng-pci,ioevent=on").unwrap();
        assert!(lost.ends_with("no property `ioevent`"), "{lost}");
        let lost = lacks("virtio-moon").unwrap();
        assert!(lost.contains("no device `virtio-moon`"), "{lost}");
        std::fs::remove_file(path).unwrap();
    }
}
