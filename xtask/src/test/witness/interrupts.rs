//! The interrupts that QEMU's [`trace`](super::trace) counts against those that the
//! guest took.
//!
//! | action | arguments | answer |
//! |---|---|---|
//! | `interrupts` | | counting begins |
//! | `interrupted` | `count`, `coalesced` | how many QEMU sent since then, if the guest's count is right |
//!
//! Only one device works in between. By MSI-X each interrupt that a queue asks for is
//! one message, and both sides count the same. On a line (`coalesced`) several that are
//! not taken yet are one; then the guest took at least one, and no more than there were.
//! Interrupts of a configuration change are in no trace, so that the guest leaves them out.

use std::collections::BTreeMap;

use super::trace::{Counts, Trace};
use crate::test::peer::{Answer, Ask};

/// Who interrupted so far.
#[derive(Default)]
pub(crate) struct Interrupts {
    /// What was counted when counting began, and the device that it is for.
    begun: Option<(String, Counts)>,
    /// QEMU's pointer of each device, once it is known: one device's is never another's.
    pointers: BTreeMap<String, String>,
}

impl Interrupts {
    /// Answers one of the actions.
    ///
    /// # Errors
    /// When both sides count differently.
    pub(crate) fn answer(&mut self, ask: &Ask<'_>, trace: &mut Trace) -> Answer {
        let id = ask.device()?;
        trace.read_on()?;
        if ask.action() == "interrupts" {
            self.begun = Some((id.to_owned(), trace.interrupts.clone()));
            return Ok(String::new());
        }
        let begun = self.begun.take().filter(|(other, _)| other == id);
        let (_, before) = begun.ok_or_else(|| format!("nobody counts {id}'s interrupts"))?;
        let qemu = self.of(id, &trace.interrupts.since(&before))?;
        let guest = ask.number("count")?;
        let right = match ask.optional("coalesced", Ask::flag)? {
            Some(true) => guest <= qemu && (guest > 0) == (qemu > 0),
            _ => guest == qemu,
        };
        if right {
            Ok(qemu.to_string())
        } else {
            Err(format!(
                "the guest took {guest} interrupts, QEMU sent {qemu}"
            ))
        }
    }

    /// How many of `counts` are the device's.
    fn of(&mut self, id: &str, counts: &Counts) -> Result<u64, String> {
        let (pointer, count) = match counts.0.as_slice() {
            [] => return Ok(0),
            [(pointer, count)] => (pointer, *count),
            several => return Err(format!("{} devices interrupted", several.len())),
        };
        let mut others = self.pointers.iter().filter(|(other, _)| *other != id);
        if let Some((other, _)) = others.find(|(_, theirs)| *theirs == pointer) {
            return Err(format!("{other} interrupted, and not {id}"));
        }
        let known = self.pointers.entry(id.to_owned());
        if known.or_insert_with(|| pointer.clone()) == pointer {
            Ok(count)
        } else {
            Err(format!("another device than {id} interrupted"))
        }
    }

    /// A device that is plugged again is another one to QEMU.
    pub(crate) fn forget(&mut self, id: &str) {
        self.pointers.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::trace;
    use super::*;
    use crate::test::peer::tests::ask;

    /// What comes of a guest that counts `claims` for `id` while QEMU's trace adds these.
    fn judge(interrupts: &mut Interrupts, id: &str, qemu: &[(&str, u64)], claims: &str) -> Answer {
        let mut trace = trace(&[], &[("0xaa", 5)]);
        let begin = ask(r#""action":"interrupts","bdf":"a""#);
        interrupts.answer(&Ask::new(&begin, Some(id)), &mut trace)?;
        for (device, count) in qemu {
            trace.interrupts.add(device, *count);
        }
        let end = ask(&format!(r#""action":"interrupted","bdf":"a",{claims}"#));
        interrupts.answer(&Ask::new(&end, Some(id)), &mut trace)
    }

    #[test]
    fn messages_agree_and_lines_may_join() {
        let all = &mut Interrupts::default();
        assert_eq!(
            judge(all, "blk0", &[("0xaa", 3)], r#""count":3"#),
            Ok("3".into())
        );
        assert_eq!(judge(all, "blk0", &[], r#""count":0"#), Ok("0".into()));
        for wrong in [
            r#""count":2"#,
            r#""count":4"#,
            r#""count":4,"coalesced":true"#,
            r#""count":0,"coalesced":true"#,
            r#""coalesced":true"#,
        ] {
            assert!(
                judge(all, "blk0", &[("0xaa", 3)], wrong).is_err(),
                "{wrong}"
            );
        }
        let joined = r#""count":1,"coalesced":true"#;
        assert_eq!(judge(all, "blk0", &[("0xaa", 3)], joined), Ok("3".into()));
    }

    #[test]
    fn a_device_answers_for_itself() {
        let all = &mut Interrupts::default();
        let one = r#""count":1"#;
        assert_eq!(judge(all, "blk0", &[("0xaa", 1)], one), Ok("1".into()));
        assert_eq!(judge(all, "rng0", &[("0xbb", 1)], one), Ok("1".into()));
        for (id, qemu) in [
            ("rng0", [("0xaa", 1)]),
            ("net0", [("0xbb", 1)]),
            ("blk0", [("0xcc", 1)]),
        ] {
            assert!(judge(all, id, &qemu, one).is_err(), "{id}");
        }
        let both = [("0xaa", 1), ("0xbb", 1)];
        assert!(judge(all, "blk0", &both, one).is_err());
        all.forget("blk0");
        assert_eq!(judge(all, "blk0", &[("0xcc", 1)], one), Ok("1".into()));
    }

    #[test]
    fn counting_begins_before_it_ends() {
        let record = ask(r#""action":"interrupted","bdf":"a","count":0"#);
        let ask = Ask::new(&record, Some("blk0"));
        let answer = Interrupts::default().answer(&ask, &mut trace(&[], &[]));
        assert_eq!(answer.unwrap_err(), "nobody counts blk0's interrupts");
    }
}
