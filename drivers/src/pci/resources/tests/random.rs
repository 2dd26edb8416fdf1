//! Machines that chance made.

use super::*;

#[test]
fn random_machines_hold_together() {
    // A linear congruential generator (Knuth's MMIX constants).
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    for _ in 0..150 {
        let mut pci = FakePci::new();
        for device in 0..random(8) as u8 {
            pci = pci.with(device, 0, random_function(&mut random, 0));
        }
        let io = [AddressRange {
            first: 0x1000,
            last: 0x1fff + 0x1000 * random(8),
        }];
        let mem32 = [AddressRange {
            first: 0xc000_0000,
            last: 0xc00f_ffff + (random(64) << 20),
        }];
        let apertures = Apertures {
            io: &io,
            mem32: &mem32,
            mem64: MEM64,
        };
        let (first, _) = run(&pci, &apertures);
        // Once assigned, nothing moves. What got nothing may get something now.
        let before = pci.audit();
        let (second, _) = run(&pci, &apertures);
        let after = pci.audit();
        assert!(before.iter().all(|one| after.contains(one)));
        assert!(second.kept >= before.len() && second.without <= first.without);
    }
}

fn random_function(random: &mut impl FnMut(u64) -> u64, depth: u8) -> FakeFunction {
    if depth < 4 && random(3) == 0 {
        let mut bridge = FakeFunction::bridge().memory_bar(0, 4096);
        if random(2) == 0 {
            bridge = bridge.buses(random(3) as u8, random(8) as u8, random(8) as u8);
            let (base, size) = (0xc000_0000 + ((random(16) as u32) << 20), random(4) as u32);
            bridge = bridge.memory_window(base, (base + (size << 20)).wrapping_sub(1));
            bridge = bridge.io_window(0x1000 * random(4) as u32, 0x1000 * random(9) as u32 + 0xfff);
            bridge = bridge.command(random(4) as u16);
        }
        for device in 0..random(5) as u8 {
            bridge = bridge.child(device, 0, random_function(random, depth + 1));
        }
        return bridge;
    }
    let mut endpoint = endpoint();
    for index in 0..random(4) as u8 {
        let size = 1 << (12 + random(12));
        endpoint = match random(4) {
            0 => endpoint.io_bar(index, 16 << random(5)),
            1 => endpoint
                .memory_bar(index, size)
                .at(index, 0xc000_0000 + random(32) * u64::from(size)),
            _ => endpoint.memory_bar(index, size),
        };
    }
    if random(2) == 0 {
        endpoint = endpoint.memory64_bar(4, 1 << (14 + random(20)), random(2) == 0);
    }
    endpoint
}
