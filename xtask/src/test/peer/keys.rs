//! Who types on the guest's keyboard.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `keys` | `keys`, as QEMU calls them, with spaces between | after each went down and up |

use serde_json::{Value, json};

use super::{Answer, Ask};
use crate::qmp::Qmp;

/// QEMU gives what it is sent to the keyboard whose driver came up last.
pub(crate) fn answer(ask: &Ask<'_>, qmp: &mut Qmp) -> Answer {
    for key in ask.text("keys")?.split_whitespace() {
        for down in [true, false] {
            qmp.execute("input-send-event", event(key, down))
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(String::new())
}

/// One event: a keyboard makes a report of all that come together.
fn event(key: &str, down: bool) -> Value {
    let key = json!({"type": "qcode", "data": key});
    json!({"events": [{"type": "key", "data": {"down": down, "key": key}}]})
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;
    use crate::qmp::tests::obedient;

    #[test]
    fn keys_go_down_and_up_one_after_the_other() {
        let (mut qmp, asked) = obedient();
        let record = ask(r#""action":"keys","keys":"a shift""#);
        let told = answer(&Ask::new(&record, Some("kbd0")), &mut qmp);
        assert_eq!(told, Ok(String::new()));
        let expected = [("a", true), ("a", false), ("shift", true), ("shift", false)];
        let expected = expected.map(|(key, down)| ("input-send-event".into(), event(key, down)));
        assert_eq!(*asked.lock().unwrap(), expected);
        let record = ask(r#""action":"keys""#);
        assert!(answer(&Ask::new(&record, None), &mut qmp).is_err());
    }
}
