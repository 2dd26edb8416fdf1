//! Which device a command is for, over which interface, and how it is heard.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::transport::pci_modern::NotifyChoice;

use crate::drive::{self, Mode, Unit, Way};
use crate::machine::Machine;

/// An interface that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Legacy,
    Modern,
    Mmio,
}

impl Wanted {
    const ALL: [Self; 3] = [Self::Legacy, Self::Modern, Self::Mmio];

    fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
            Self::Mmio => "mmio",
        }
    }

    /// The one of this name.
    pub(super) fn parse(name: Option<&str>) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let known = all.find(|known| name == Some(known.name()));
        known.ok_or_else(|| "it wants legacy, modern or mmio".to_string())
    }

    fn of(way: Way) -> Self {
        match way {
            Way::Legacy => Self::Legacy,
            Way::Modern(_) => Self::Modern,
            Way::Mmio => Self::Mmio,
        }
    }
}

/// The device of that number among those of a type.
pub(super) fn find(machine: &Machine, device_type: u16, number: usize) -> Result<Unit, String> {
    let (units, _) = drive::units(machine);
    let units = units.into_iter();
    let mut units: Vec<_> = units
        .filter(|unit| unit.device_type == device_type)
        .collect();
    if number < units.len() {
        return Ok(units.swap_remove(number));
    }
    let name = drive::type_name(device_type);
    if units.is_empty() {
        return Err(format!("there is no {name} device"));
    }
    let list = units.iter().enumerate();
    let list = list.map(|(number, unit)| format!("{number} is at {}", unit.at()));
    Err(format!(
        "there is no {name} device {number}: {}",
        list.collect::<Vec<_>>().join(", ")
    ))
}

/// The way to drive a device: of those that are wanted the first one that works,
/// and the legacy interface only if there is no other.
pub(super) fn choose(
    ways: &[(Way, Result<(), String>)],
    wanted: Option<Wanted>,
) -> Result<Way, String> {
    let is_wanted = |way: Way| wanted.is_none_or(|wanted| Wanted::of(way) == wanted);
    let mut of_kind: Vec<_> = ways.iter().filter(|(way, _)| is_wanted(*way)).collect();
    of_kind.sort_by_key(|(way, _)| *way == Way::Legacy);
    match of_kind.iter().find(|(_, usable)| usable.is_ok()) {
        // Of several doorbells the one that the device prefers.
        Some((Way::Modern(_), _)) => Ok(Way::Modern(NotifyChoice::Preferred)),
        Some((way, _)) => Ok(*way),
        None => Err(match of_kind.first() {
            Some((_, Err(reason))) => reason.clone(),
            _ => lacking(ways, wanted),
        }),
    }
}

/// That a device has no interface, or not the one that is wanted but others.
fn lacking(ways: &[(Way, Result<(), String>)], wanted: Option<Wanted>) -> String {
    let others = ways.iter().map(|(way, _)| Wanted::of(*way).name());
    let mut others: Vec<_> = others.collect();
    // A way for each doorbell, one after the other.
    others.dedup();
    match (wanted, &others[..]) {
        (Some(wanted), [_, ..]) => {
            let (wanted, others) = (wanted.name(), others.join(" and "));
            format!("way={wanted}: it has no such interface, but {others}")
        }
        _ => "it has no interface".to_string(),
    }
}

/// How the device is heard: by interrupts of its own, or those that it has.
pub(super) fn mode(machine: &Machine, unit: &Unit) -> Mode {
    let modes = drive::modes(machine, unit).into_iter().rev();
    let mut usable = modes.filter(|(_, usable)| usable.is_ok());
    usable.next().map_or(Mode::Polling, |(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(ways: &[(Way, Result<(), String>)], wanted: Option<Wanted>) -> Result<Way, String> {
        choose(ways, wanted)
    }

    #[test]
    fn the_caller_chooses_the_interface() {
        let modern = Way::Modern(NotifyChoice::Preferred);
        let all = [
            (Way::Legacy, Ok(())),
            (Way::Modern(NotifyChoice::Memory), Ok(())),
            (Way::Modern(NotifyChoice::Io), Ok(())),
        ];
        assert_eq!(way(&all, None), Ok(modern));
        assert_eq!(way(&all, Some(Wanted::Legacy)), Ok(Way::Legacy));
        assert_eq!(way(&all, Some(Wanted::Modern)), Ok(modern));
        let error = way(&all, Some(Wanted::Mmio)).unwrap_err();
        assert_eq!(
            error,
            "way=mmio: it has no such interface, but legacy and modern"
        );
        let error = way(&[(Way::Mmio, Ok(()))], Some(Wanted::Modern)).unwrap_err();
        assert_eq!(error, "way=modern: it has no such interface, but mmio");
        assert_eq!(way(&[], None).unwrap_err(), "it has no interface");
        assert_eq!(way(&all[..1], None), Ok(Way::Legacy));
        assert_eq!(way(&[(Way::Mmio, Ok(()))], None), Ok(Way::Mmio));
    }

    #[test]
    fn an_interface_that_does_not_work_says_why() {
        let ways = [
            (Way::Legacy, Err("no address".to_string())),
            (Way::Modern(NotifyChoice::Memory), Ok(())),
        ];
        assert_eq!(
            way(&ways, Some(Wanted::Legacy)),
            Err("no address".to_string())
        );
        assert!(way(&ways, None).is_ok());
        assert_eq!(way(&ways[..1], None), Err("no address".to_string()));
    }
}
