//! Lies about the sizes of BARs.

use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{AddressRange, Apertures, Bar, BusRange, Function, Topology, assign};
use doorbell::transport::pci::PciError;

use crate::pci::{BAR, Fickle, modern, structure};

/// BAR `index` of a function, and what it says of itself.
fn bar(config: &Fickle, index: usize) -> (Bar, String) {
    let bar = config.function().bars[index].unwrap();
    (
        bar,
        bar.reason.map_or_else(String::new, |why| why.to_string()),
    )
}

pub(crate) fn sizes_that_cannot_be() -> String {
    let endpoint = || FakeFunction::endpoint(1, 2);
    let said = [(0, 0xffff_5000), (6, 0xffff_f000), (0xc, 0)].map(|(fixed, mask)| {
        let (bar, why) = bar(&Fickle::honest(endpoint().bar(0, fixed, mask)), 0);
        assert_eq!((bar.size, bar.address), (0, None));
        why
    });
    let [uneven, reserved, nothing] = said;
    assert!(reserved.contains("0b11") && nothing.contains("no power of two"));
    uneven
}

const MEM32: &[AddressRange] = &[AddressRange {
    first: 0xc000_0000,
    last: 0xfebf_ffff,
}];

/// The BARs of two functions, after addresses were given.
fn assigned(one: FakeFunction, other: FakeFunction) -> Vec<Bar> {
    let pci = FakePci::new().with(1, 0, one).with(2, 0, other);
    let mut storage = [Function::default(); 2];
    // SAFETY: there is no device.
    let mut topology =
        unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) }.unwrap();
    let apertures = Apertures {
        io: &[],
        mem32: MEM32,
        mem64: &[],
    };
    // SAFETY: there is no device.
    unsafe { assign(&pci, &mut topology, &apertures) };
    // No two answer to one address.
    pci.audit();
    storage.iter().flat_map(|one| one.bars).flatten().collect()
}

pub(crate) fn two_at_one_address() -> String {
    let same = || {
        FakeFunction::endpoint(1, 2)
            .memory_bar(0, 0x1000)
            .at(0, 0xc000_0000)
    };
    let bars = assigned(same(), same());
    let [one, other] = [0, 1].map(|index| bars[index].range().unwrap());
    assert!(!one.overlaps(other));
    "one of them moves".into()
}

pub(crate) fn a_bar_that_takes_no_writes() -> String {
    let function = FakeFunction::endpoint(1, 2).register(0x10, 0xfebd_1000);
    let (bar, why) = bar(&Fickle::honest(function), 0);
    assert_eq!((bar.size, bar.address), (0, None));
    why
}

pub(crate) fn a_size_that_changes() -> String {
    let function = || FakeFunction::endpoint(1, 2).memory_bar(0, 0x1000);
    for seed in 0..64u32 {
        let config = Fickle::new(function(), 0x10, |read, value| match read % 3 {
            0 => value,
            turn => 0xffff_f000 << (turn + read / 3 % 8) & !0xf,
        });
        config.reads.set(seed);
        let bars = config.function().bars;
        for bar in bars.into_iter().flatten() {
            assert!(bar.size == 0 || bar.size.is_power_of_two());
            assert!(bar.address.is_some() != bar.reason.is_some());
        }
    }
    "as it is found, a power of two, or none and a reason".into()
}

pub(crate) fn a_bar_larger_than_memory() -> String {
    let huge = FakeFunction::endpoint(1, 2).memory64_bar(0, 1 << 63, true);
    let small = FakeFunction::endpoint(1, 2).memory_bar(0, 0x1000);
    let bars = assigned(huge, small);
    assert_eq!((bars[0].size, bars[0].address), (1 << 63, None));
    assert!(bars[1].address.is_some(), "the other has its place");
    bars[0].reason.unwrap().to_string()
}

pub(crate) fn a_bar_shorter_than_its_structures() -> String {
    let function = FakeFunction::endpoint(0x1af4, 0x1044)
        .memory64_bar(4, 0x80, true)
        .at(4, BAR)
        .capability(9, &structure(1, 0, 0x100));
    let kind = "common configuration";
    let error = modern(function);
    assert_eq!(error, PciError::NoStructure { kind });
    error.to_string()
}
