//! Vectors, writes to the configuration, and the reset of one queue.

use super::*;

#[test]
fn vectors_are_where_the_specification_has_them() {
    // 4.1.4.3
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    registers.write(common::CONFIG_MSIX_VECTOR, NO_VECTOR);
    registers.write(common::QUEUE_MSIX_VECTOR, NO_VECTOR);
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    let vectors = || -> (u16, u16) {
        (
            registers.read(common::CONFIG_MSIX_VECTOR),
            registers.read(common::QUEUE_MSIX_VECTOR),
        )
    };
    modern.set_vector(Interrupt::ConfigChange, Some(3)).unwrap();
    assert_eq!(vectors(), (3, NO_VECTOR));
    modern.set_vector(Interrupt::Queue(2), Some(0x7ff)).unwrap();
    assert_eq!(registers.read::<u16>(common::QUEUE_SELECT), 2);
    assert_eq!(vectors(), (3, 0x7ff));
    modern.set_vector(Interrupt::ConfigChange, None).unwrap();
    modern.set_vector(Interrupt::Queue(1), None).unwrap();
    assert_eq!(registers.read::<u16>(common::QUEUE_SELECT), 1);
    assert_eq!(vectors(), (NO_VECTOR, NO_VECTOR));
}

#[test]
fn configuration_is_written_by_its_fields_width_and_inside_its_bounds() {
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    let field = || registers.read::<u64>(DEVICE as usize);
    modern.write_config(0, 1, &[1, 2]).unwrap();
    assert_eq!(field(), 0x0201);
    modern.write_config(2, 2, &[3, 4]).unwrap();
    assert_eq!(field(), 0x0403_0201);
    modern.write_config(4, 4, &[5, 6, 7, 8]).unwrap();
    assert_eq!(field(), 0x0807_0605_0403_0201);
    for (offset, width, len) in [(0xffe, 4, 4), (0, 3, 3), (0, 4, 6), (2, 4, 4)] {
        let error = TransportError::ConfigRange {
            offset,
            len,
            available: 0x1000,
        };
        let written = modern.write_config(offset, width, &[0xff; 8][..len]);
        assert_eq!(written, Err(error));
    }
    assert_eq!(field(), 0x0807_0605_0403_0201);
    assert_eq!(registers.read::<u16>(NOTIFY as usize), 0, "nor behind it");

    let without = bare()
        .capability(9, &capability(1, 4, COMMON, 0x1000))
        .capability(9, &capability(3, 4, ISR, 0x1000))
        .capability(9, &longer(2, 4, NOTIFY, 0x1000, 4));
    let bells = Bells::new(without);
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    let error = TransportError::ConfigRange {
        offset: 0,
        len: 1,
        available: 0,
    };
    assert_eq!(modern.write_config(0, 1, &[1]), Err(error));
}

#[test]
fn a_queue_is_reset_when_both_registers_say_so() {
    // 4.1.4.3.1
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    enable(&mut modern, 2, 8).unwrap();
    registers.write(common::QUEUE_SELECT, 0u16);
    let mut looks = 0;
    let mut wait = || {
        looks += 1;
        assert_eq!(registers.read::<u16>(common::QUEUE_SELECT), 2);
        assert_eq!(registers.read::<u16>(common::QUEUE_RESET), 1);
        if looks == 3 {
            registers.write(common::QUEUE_RESET, 0u16);
            registers.write(common::QUEUE_ENABLE, 0u16);
        }
        true
    };
    modern.reset_queue(2, &mut wait).unwrap();
    assert_eq!(looks, 3);
    enable(&mut modern, 2, 8).unwrap();

    let timeout = TransportError::QueueResetTimeout { queue: 2 };
    assert_eq!(modern.reset_queue(2, &mut Polls(5)), Err(timeout));
    // A device that only says that it did still has the queue.
    let mut wait = || {
        registers.write(common::QUEUE_RESET, 0u16);
        true
    };
    let unable = TransportError::NoQueueReset { queue: 2 };
    assert_eq!(modern.reset_queue(2, &mut wait), Err(unable));
    let error = modern.reset_queue(3, &mut Polls(1));
    assert_eq!(error, Err(TransportError::NoQueue { queue: 3 }));
}

#[test]
fn a_common_configuration_without_the_register_resets_no_queue() {
    for length in [56, 58, 59] {
        let function = bare()
            .capability(9, &capability(1, 4, COMMON, length))
            .capability(9, &capability(3, 4, ISR, 1))
            .capability(9, &longer(2, 4, NOTIFY, 0x1000, 4));
        let (bells, registers) = (Bells::new(function), Registers::new());
        let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
        let error = modern.reset_queue(0, &mut Polls(1));
        assert_eq!(error, Err(TransportError::NoQueueReset { queue: 0 }));
        assert_eq!(registers.read::<u16>(common::QUEUE_RESET), 0);
    }
}
