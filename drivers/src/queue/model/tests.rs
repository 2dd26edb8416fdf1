//! What the model finds in the rings, and what it finds where something is taken out
//! of them.

use std::println;
use std::string::{String, ToString};
use std::time::Instant;

use super::Mutation;
use super::explore::{Case, Modelled, explore};
use crate::dma::fake::FakeDma;
use crate::queue::{PackedRing, SplitRing};

type Split<'d> = SplitRing<&'d FakeDma>;
type Packed<'d> = PackedRing<&'d FakeDma>;

/// Without and with EVENT_IDX, with a driver that polls and one that sleeps.
const MODES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn case(
    size: u16,
    start: u16,
    script: &'static [usize],
    (event_idx, interrupts): (bool, bool),
) -> Case {
    Case {
        size,
        event_idx,
        interrupts,
        start,
        script,
        mutation: None,
    }
}

/// Nothing goes wrong with a ring.
fn holds<'d, R: Modelled<'d>>(dma: &'d FakeDma, case: Case) {
    let began = Instant::now();
    let explored = explore::<R>(dma, case).unwrap_or_else(|what| panic!("{case:?}: {what}"));
    println!(
        "{} size {} from {:#x}, {:?} buffers{}, {}: {} states, {} calls, {:.1?}",
        if R::PACKED { "packed" } else { "split" },
        case.size,
        case.start,
        case.script,
        if case.event_idx { ", EVENT_IDX" } else { "" },
        if case.interrupts {
            "interrupts"
        } else {
            "polling"
        },
        explored.states,
        explored.calls,
        began.elapsed(),
    );
}

/// What is found in a ring whose code lacks something.
fn found<'d, R: Modelled<'d>>(dma: &'d FakeDma, mutation: Mutation, case: Case) -> String {
    let mutation = Some(mutation);
    let found = explore::<R>(dma, Case { mutation, ..case });
    found.err().unwrap_or_else(|| "nothing".to_string())
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn nothing_goes_wrong_with_a_split_ring() {
    // All of them go past the index's wrap (2.7.13.3).
    for mode in MODES {
        let dma = FakeDma::default();
        holds::<Split<'_>>(&dma, case(1, 0xfffd, &[1; 5], mode));
        holds::<Split<'_>>(&dma, case(2, 0xfffe, &[1; 3], mode));
        holds::<Split<'_>>(&dma, case(4, 0xfffe, &[1; 3], mode));
        holds::<Split<'_>>(&dma, case(4, 0xfffd, &[2, 1, 2], mode));
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn nothing_goes_wrong_with_a_packed_ring() {
    // All of them go past the end of a lap, from the first to the second or back.
    for mode in MODES {
        let dma = FakeDma::default();
        holds::<Packed<'_>>(&dma, case(1, 0, &[1; 5], mode));
        holds::<Packed<'_>>(&dma, case(2, 1, &[1; 3], mode));
        holds::<Packed<'_>>(&dma, case(3, 2, &[2, 1, 2], mode));
        holds::<Packed<'_>>(&dma, case(4, 6, &[2, 1, 1], mode));
    }
}

/// Looks for what is missing in both kinds of ring, of two descriptors.
fn both(mutation: Mutation, mode: (bool, bool)) -> [String; 2] {
    let dma = FakeDma::default();
    [
        found::<Split<'_>>(&dma, mutation, case(2, 0, &[1, 1, 1], mode)),
        found::<Packed<'_>>(&dma, mutation, case(2, 0, &[1, 1, 1], mode)),
    ]
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn without_the_barrier_before_the_question_a_doorbell_is_lost() {
    // 2.7.13.4.1, 2.8.21.3.1
    for mode in MODES {
        for what in both(Mutation::KickBarrier, mode) {
            assert!(what.starts_with("a doorbell is lost"), "{what}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn without_the_barrier_behind_the_event_an_interrupt_is_lost() {
    // 2.7.7.2, 2.8.22: where single steps are asked for.
    for what in both(Mutation::PopBarrier, (true, true)) {
        assert!(what.starts_with("an interrupt is lost"), "{what}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn without_releases_the_device_meets_descriptors_of_old() {
    // 2.7.13.3.1, 2.8.21.1.1
    for mode in MODES {
        for what in both(Mutation::Release, mode) {
            let old = what.starts_with("the device may read old bytes");
            assert!(old, "{what}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn without_acquires_the_driver_meets_used_elements_of_old() {
    // 2.7.14, 2.8.22
    for mode in MODES {
        for what in both(Mutation::Acquire, mode) {
            let old = what.starts_with("the driver may read old bytes");
            assert!(old, "{what}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many states for it")]
fn an_event_index_test_that_does_not_wrap_loses_a_doorbell() {
    // 2.7.10, 2.8.10. It is the wrap alone that shows it.
    let dma = FakeDma::default();
    for interrupts in [false, true] {
        let mode = (true, interrupts);
        let split = |start| {
            let case = case(1, start, &[1, 1, 1], mode);
            found::<Split<'_>>(&dma, Mutation::Wrapping, case)
        };
        assert_eq!(split(0), "nothing");
        assert_eq!(split(0xfffc), "nothing");
        for start in [0xfffd, 0xfffe, 0xffff] {
            assert!(split(start).starts_with("a doorbell is lost"), "{start:#x}");
        }
        // In a packed ring each lap is one: the driver's count goes back by it.
        let [_, packed] = both(Mutation::Wrapping, mode);
        assert!(packed.starts_with("a doorbell is lost"), "{packed}");
    }
}
