//! Devices that come and go, by QMP.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `unplug` | `id` | once QEMU has pushed the slot's button |
//! | `unplugged` | `id` | once the guest has let the device go |
//! | `plug` | `id` | once it is in its slot |

use std::time::Duration;

use serde_json::json;

use super::{Answer, Ask};
use crate::qemu::{Options, devices};
use crate::qmp::{Qmp, QmpError};

/// How long the guest may take to let a device go. It may first wait for 5 seconds
/// whether the button is pushed again (PCI Express Base 4.0, 6.7.1.5).
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn answer(ask: &Ask<'_>, qmp: &mut Qmp, options: &Options) -> Answer {
    let id = ask.text("id")?;
    let properties = devices::plug(options, id);
    let properties = properties.ok_or_else(|| format!("{id:?} can't be plugged"))?;
    let done = match ask.action() {
        "plug" => qmp.execute("device_add", properties).map(drop),
        // An event that nobody waited for would be an earlier device's.
        "unplug" => gone(qmp, id, Duration::ZERO)
            .and_then(|_| qmp.execute("device_del", json!({"id": id})))
            .map(drop),
        _ => match gone(qmp, id, LIMIT) {
            Ok(false) => return Err(format!("{id} did not go")),
            result => result.map(drop),
        },
    };
    done.map_err(|error| error.to_string())?;
    Ok(String::new())
}

/// Whether a device went.
fn gone(qmp: &mut Qmp, id: &str, patience: Duration) -> Result<bool, QmpError> {
    let event = qmp.event(
        |name, data| name == "DEVICE_DELETED" && data["device"] == id,
        patience,
    );
    event.map(|event| event.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::qemu::Machine;
    use crate::qemu::devices::Group;
    use crate::qemu::tests::options;
    use crate::qmp::tests::fake;

    #[test]
    fn a_device_goes_and_comes() {
        let options = Options {
            groups: vec![Group::HotPlug],
            ..options(Machine::Q35)
        };
        let (mut qmp, asked) = fake(|command, _| match command {
            // The first is the device's, the second one of its parts'.
            "device_del" => vec![
                json!({"return": {}}),
                json!({"event": "DEVICE_DELETED", "data": {"path": "/machine/blk7/part"}}),
                json!({"event": "DEVICE_DELETED", "data": {"device": "blk7", "path": "/b"}}),
            ],
            _ => vec![json!({"return": {}})],
        });
        let mut answer = |action: &str, id: &str| {
            let record = ask(&format!(r#""action":"{action}","id":"{id}""#));
            answer(&Ask::new(&record, None), &mut qmp, &options)
        };
        for _ in 0..2 {
            assert_eq!(answer("unplug", "blk7"), Ok(String::new()));
            assert_eq!(answer("unplugged", "blk7"), Ok(String::new()));
        }
        assert_eq!(answer("plug", "blk8"), Ok(String::new()));
        assert!(answer("unplug", "blk0").is_err());
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0], ("device_del".into(), json!({"id": "blk7"})));
        assert_eq!(asked[2].0, "device_add");
        assert_eq!(asked[2].1["bus"], "slot2");
    }

    #[test]
    fn one_that_stays_is_told_from_one_that_went() {
        let (mut qmp, _) = fake(|_, _| {
            vec![
                json!({"event": "DEVICE_DELETED", "data": {"device": "blk7"}}),
                json!({"return": {}}),
            ]
        });
        qmp.execute("x", json!({})).unwrap();
        assert!(!gone(&mut qmp, "blk8", Duration::from_millis(20)).unwrap());
        assert!(gone(&mut qmp, "blk7", Duration::from_millis(20)).unwrap());
        assert!(!gone(&mut qmp, "blk7", Duration::from_millis(20)).unwrap());
    }
}
