//! Devices and back ends as QEMU's options, and as QMP's arguments.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::qemu::escape;

/// What `-device` takes: a driver and its properties.
#[derive(Clone, Debug, Default)]
pub(super) struct Device(Vec<(String, String)>);

impl Device {
    /// A device of this driver with this `id=`.
    pub(super) fn new(driver: &str, id: &str) -> Self {
        Self::default().with("driver", driver).with("id", id)
    }

    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    /// More of them, as `-device` has them: `key=value,key=value`.
    pub(super) fn and(self, properties: &str) -> Self {
        let pairs = properties
            .split(',')
            .filter_map(|pair| pair.split_once('='));
        pairs.fold(self, |device, (key, value)| device.with(key, value))
    }

    /// The arguments of QMP's `device_add`.
    pub(super) fn to_json(&self) -> Value {
        let json = |value: &str| match value {
            "on" => true.into(),
            "off" => false.into(),
            _ => value.parse::<u64>().map_or(value.into(), Value::from),
        };
        let pairs = self.0.iter();
        Value::Object(
            pairs
                .map(|(key, value)| (key.clone(), json(value)))
                .collect::<Map<_, _>>(),
        )
    }

    fn option(&self) -> String {
        let parts = self.0.iter().map(|(key, value)| match key.as_str() {
            "driver" => value.clone(),
            _ => format!("{key}={value}"),
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

/// QEMU's options, word by word.
#[derive(Default)]
pub(super) struct Arguments(pub(super) Vec<String>);

impl Arguments {
    pub(super) fn add(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    pub(super) fn device(&mut self, device: &Device) {
        self.add("-device", device.option());
    }
}

/// A path inside an option list.
///
/// # Errors
/// When it is not UTF-8.
pub(super) fn path(path: &Path) -> Result<String> {
    let text = path.to_str();
    let text = text.with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(escape(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_is_the_same_on_the_line_and_over_qmp() {
        let device = Device::new("virtio-blk-pci", "blk7")
            .with("bus", "slot1")
            .and("ioeventfd=off,num-queues=4,drive=disk7");
        assert_eq!(
            device.option(),
            "virtio-blk-pci,id=blk7,bus=slot1,ioeventfd=off,num-queues=4,drive=disk7"
        );
        assert_eq!(
            device.to_json(),
            json!({"driver": "virtio-blk-pci", "id": "blk7", "bus": "slot1",
                "ioeventfd": false, "num-queues": 4, "drive": "disk7"})
        );
    }
}
