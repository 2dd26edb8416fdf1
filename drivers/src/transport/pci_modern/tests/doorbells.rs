//! Which doorbell is chosen, and where it is.

use super::*;

/// As with QEMU's `modern-pio-notify` and `page-per-vq`: the IO BAR comes first.
fn with_both() -> FakeFunction {
    silent()
        .capability(9, &longer(2, 2, 0, 4, 0))
        .capability(9, &longer(2, 4, NOTIFY, 0x1000, 0x400))
        .capability(9, &longer(5, 0, 0, 0, 0))
}

/// Where in configuration space the window is.
fn window(bells: &Bells) -> u16 {
    let function = found(&bells.pci);
    Structures::read(&bells.pci, &function)
        .unwrap()
        .window
        .unwrap()
}

#[test]
fn the_caller_chooses() {
    let path = |function, choice| {
        let (bells, registers) = (Bells::new(function), Registers::new());
        start(&bells, &registers, choice).map(|modern| modern.notify_path())
    };
    assert_eq!(
        path(with_both(), NotifyChoice::Preferred),
        Ok(NotifyPath::Pio)
    );
    assert_eq!(path(with_both(), NotifyChoice::Io), Ok(NotifyPath::Pio));
    assert_eq!(
        path(with_both(), NotifyChoice::Memory),
        Ok(NotifyPath::Mmio)
    );
    assert_eq!(
        path(with_both(), NotifyChoice::ConfigWindow),
        Ok(NotifyPath::PciCfg)
    );
    assert_eq!(
        path(ordinary(), NotifyChoice::Preferred),
        Ok(NotifyPath::Mmio)
    );

    let none = |result| match result {
        Err(PciError::NoNotify { wanted }) => wanted,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        none(path(silent(), NotifyChoice::Preferred)),
        "notification structure"
    );
    assert!(none(path(silent(), NotifyChoice::Memory)).contains("in memory"));
    assert!(none(path(ordinary(), NotifyChoice::Io)).contains("IO BAR"));
    assert!(none(path(ordinary(), NotifyChoice::ConfigWindow)).contains("window"));
}

#[test]
fn an_io_bar_without_an_address_is_passed_over() {
    // 4.1.4: where IO space ran out, the device works through memory.
    let bells = Bells::new(with_both().at(2, 0));
    let registers = Registers::new();
    let path = |choice| start(&bells, &registers, choice).map(|modern| modern.notify_path());
    assert_eq!(path(NotifyChoice::Preferred), Ok(NotifyPath::Mmio));
    let refused = path(NotifyChoice::Io).unwrap_err();
    assert!(matches!(refused, PciError::Unassigned { bar: 2, .. }));
}

/// Enables `queue` with a `queue_notify_off`, rings, and returns where in BAR 4
/// the queue's index went.
fn rings(function: FakeFunction, queue: u16, notify_off: u16) -> Result<usize, TransportError> {
    let (bells, registers) = (Bells::new(function), Registers::new());
    registers.write(common::QUEUE_NOTIFY_OFF, notify_off);
    for offset in (NOTIFY as usize..LEN).step_by(2) {
        registers.write(offset, !0u16);
    }
    let mut modern = start(&bells, &registers, NotifyChoice::Memory).unwrap();
    enable(&mut modern, queue, 8)?.notify();
    let changed = |&offset: &usize| registers.read::<u16>(offset) != !0;
    let mut places = (NOTIFY as usize..LEN).step_by(2).filter(changed);
    let place = places.next().expect("nothing was rung");
    assert_eq!(
        registers.read::<u16>(place),
        queue,
        "4.1.5.2: the index is written"
    );
    assert_eq!(places.next(), None, "one access of 16 bits");
    Ok(place - NOTIFY as usize)
}

#[test]
fn a_doorbell_is_where_offset_and_multiplier_say() {
    // 4.1.4.4
    let notify =
        |length, multiplier| silent().capability(9, &longer(2, 4, NOTIFY, length, multiplier));
    assert_eq!(rings(notify(2, 0), 0, 0), Ok(0));
    assert_eq!(rings(notify(2, 0), 2, 2), Ok(0), "all queues share one");
    assert_eq!(rings(notify(0x1000, 4), 1, 1), Ok(4));
    assert_eq!(
        rings(notify(0x1000, 4), 1, 3),
        Ok(12),
        "the offset is not the index"
    );
    assert_eq!(rings(notify(0x1000, 0x400), 2, 2), Ok(0x800));
    assert_eq!(rings(notify(0x1000, 2), 2, 0x7ff), Ok(0xffe));
}

#[test]
fn a_doorbell_outside_its_structure_is_refused() {
    // 4.1.4.4.1
    let notify =
        |length, multiplier| silent().capability(9, &longer(2, 4, NOTIFY, length, multiplier));
    for (length, multiplier, notify_off, offset) in [
        (0x1000, 4096, 1, 4096),
        (2, 4, 1, 4),
        (0xfff, 2, 0x7ff, 0xffe),
        (1, 0, 0, 0),
        // Not aligned.
        (0x1000, 1, 1, 1),
        (0x1000, u32::MAX, 0xffff, 0xffff * 0xffff_ffff),
    ] {
        let len = length.into();
        let error = TransportError::DoorbellRange {
            queue: 0,
            offset,
            len,
        };
        assert_eq!(rings(notify(length, multiplier), 0, notify_off), Err(error));
    }
}

#[test]
fn a_queue_whose_doorbell_is_refused_is_not_enabled() {
    let function = silent().capability(9, &longer(2, 4, NOTIFY, 0x1000, 4096));
    let (bells, registers) = (Bells::new(function), Registers::new());
    registers.write(common::QUEUE_NOTIFY_OFF, 1u16);
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    enable(&mut modern, 0, 8).unwrap_err();
    assert_eq!(registers.read::<u16>(common::QUEUE_ENABLE), 0);
    assert_eq!(
        registers.read::<u64>(common::QUEUE_DESC),
        0,
        "nor told where it is"
    );
}

#[test]
fn a_doorbell_at_an_odd_port_is_refused() {
    let function = silent().capability(9, &longer(2, 2, 1, 3, 2));
    let (bells, registers) = (Bells::new(function), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::Io).unwrap();
    let error = TransportError::DoorbellRange {
        queue: 0,
        offset: 0,
        len: 3,
    };
    assert_eq!(enable(&mut modern, 0, 8).unwrap_err(), error);
    assert_eq!(bells.asked.get(), None);
}

#[test]
fn a_doorbell_in_an_io_bar() {
    let function = silent().capability(9, &longer(2, 2, 0, 4, 2));
    let (bells, registers) = (Bells::new(function), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::Io).unwrap();
    registers.write(common::QUEUE_NOTIFY_OFF, 1u16);
    enable(&mut modern, 2, 8).unwrap().notify();
    assert_eq!(bells.asked.get(), Some((0x1002, 2)));
    assert_eq!(bells.rung() & 0xffff, 2);
    registers.write(common::QUEUE_ENABLE, 0u16);
    registers.write(common::QUEUE_NOTIFY_OFF, 2u16);
    let error = TransportError::DoorbellRange {
        queue: 1,
        offset: 4,
        len: 4,
    };
    assert_eq!(enable(&mut modern, 1, 8).unwrap_err(), error);
}

#[test]
fn the_window_is_set_to_the_doorbell() {
    // 4.1.4.9
    let (bells, registers) = (Bells::new(with_both()), Registers::new());
    let at = window(&bells);
    let mut modern = start(&bells, &registers, NotifyChoice::ConfigWindow).unwrap();
    registers.write(common::QUEUE_NOTIFY_OFF, 2u16);
    bells.pci.take_writes();
    enable(&mut modern, 2, 8).unwrap().notify();
    let writes: Vec<_> = bells
        .pci
        .take_writes()
        .into_iter()
        .map(|(_, offset, value)| (offset, value))
        .collect();
    assert_eq!(
        writes,
        [(at + 4, 4), (at + 8, NOTIFY + 0x800), (at + 12, 2)]
    );
    assert_eq!(
        bells.asked.get(),
        Some((at + 16, 2)),
        "`pci_cfg_data` takes the index"
    );
    assert_eq!(bells.rung(), 2);
}

#[test]
fn the_window_rings_one_doorbell() {
    let (bells, registers) = (Bells::new(with_both()), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::ConfigWindow).unwrap();
    enable(&mut modern, 0, 8).unwrap();
    registers.write(common::QUEUE_ENABLE, 0u16);
    registers.write(common::QUEUE_NOTIFY_OFF, 1u16);
    let error = enable(&mut modern, 1, 8).unwrap_err();
    assert_eq!(error, TransportError::WindowTaken { queue: 1 });
    registers.write(common::QUEUE_NOTIFY_OFF, 4u16);
    let error = TransportError::DoorbellRange {
        queue: 1,
        offset: 0x1000,
        len: 0x1000,
    };
    assert_eq!(enable(&mut modern, 1, 8).unwrap_err(), error);
    // Queues that share a doorbell share the window.
    registers.write(common::QUEUE_NOTIFY_OFF, 0u16);
    enable(&mut modern, 1, 8).unwrap().notify();
    assert_eq!(bells.rung(), 1);
}
