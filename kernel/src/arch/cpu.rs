//! What the CPU and the hypervisor call themselves.

use core::arch::x86_64::{__cpuid, CpuidResult};

/// CPUID leaf with the highest standard leaf.
const LEAF_MAX: u32 = 0;
/// CPUID leaf with the feature bits.
const LEAF_FEATURES: u32 = 1;
/// CPUID leaf with the highest extended leaf.
const LEAF_MAX_EXTENDED: u32 = 0x8000_0000;
/// First of the three CPUID leaves with the brand string.
const LEAF_BRAND: u32 = 0x8000_0002;
/// CPUID leaf with the widths of addresses.
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;
/// First of the CPUID leaves that a hypervisor defines.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// "There is a local APIC": leaf 1, edx.
const FEATURE_APIC: u32 = 1 << 9;
/// "A hypervisor is present": leaf 1, ecx.
const FEATURE_HYPERVISOR: u32 = 1 << 31;

/// Text from CPUID: printable ASCII, at most `N` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// Keeps printable ASCII up to the first NUL; drops spaces at the ends.
    fn new(raw: [u8; N]) -> Self {
        let text = raw
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let mut bytes = [0; N];
        for (to, &from) in bytes.iter_mut().zip(text) {
            *to = if matches!(from, b' '..=b'~') {
                from
            } else {
                b'?'
            };
        }
        Self {
            bytes,
            length: text.len(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// Runs CPUID, with sub-leaf 0.
pub fn cpuid(leaf: u32) -> CpuidResult {
    __cpuid(leaf)
}

/// Runs CPUID if the CPU has this leaf. A leaf that does not exist returns
/// the contents of another one, so it must not be asked for.
pub fn leaf(cpuid: impl Fn(u32) -> CpuidResult, leaf: u32) -> Option<CpuidResult> {
    let highest = match leaf >> 16 {
        0 => cpuid(LEAF_MAX).eax,
        0x8000 => cpuid(LEAF_MAX_EXTENDED).eax,
        0x4000 if cpuid(LEAF_FEATURES).ecx & FEATURE_HYPERVISOR != 0 => {
            // KVM once reported 0 here and meant leaf 0x40000001.
            cpuid(LEAF_HYPERVISOR).eax.max(LEAF_HYPERVISOR + 1)
        }
        _ => return None,
    };
    (leaf <= highest).then(|| cpuid(leaf))
}

/// The CPU's brand string, such as "QEMU Virtual CPU version 2.5+".
pub fn brand() -> Option<Text<48>> {
    let mut raw = [0; 48];
    for (index, chunk) in (0..).zip(raw.chunks_exact_mut(16)) {
        let CpuidResult { eax, ebx, ecx, edx } = leaf(cpuid, LEAF_BRAND + index)?;
        put(chunk, [eax, ebx, ecx, edx]);
    }
    Some(Text::new(raw)).filter(|text| !text.as_str().is_empty())
}

/// The hypervisor's signature, such as "KVMKVMKVM" or "TCGTCGTCGTCG".
pub fn hypervisor() -> Option<Text<12>> {
    let CpuidResult { ebx, ecx, edx, .. } = leaf(cpuid, LEAF_HYPERVISOR)?;
    let mut raw = [0; 12];
    put(&mut raw, [ebx, ecx, edx]);
    Some(Text::new(raw))
}

/// Whether the CPU has a local APIC, and it is switched on.
pub fn has_local_apic() -> bool {
    leaf(cpuid, LEAF_FEATURES).is_some_and(|features| features.edx & FEATURE_APIC != 0)
}

/// The end of physical memory that the CPU can address, in bytes.
pub fn physical_address_limit() -> u64 {
    // 36 bits is what a CPU without the leaf has (Intel SDM volume 3, 4.1.4).
    let bits = leaf(cpuid, LEAF_ADDRESS_SIZES).map_or(36, |sizes| sizes.eax & 0xff);
    1 << bits.clamp(32, 52)
}

fn put<const N: usize>(bytes: &mut [u8], registers: [u32; N]) {
    for (to, register) in bytes.chunks_exact_mut(4).zip(registers) {
        to.copy_from_slice(&register.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: CpuidResult = CpuidResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    };

    #[test]
    fn text_ends_at_nul_and_stays_printable() {
        assert_eq!(Text::new(*b"  ab\x01c \0zz").as_str(), "ab?c");
        assert_eq!(Text::new(*b"KVMKVMKVM\0\0\0").as_str(), "KVMKVMKVM");
        assert_eq!(Text::new([0xff; 2]).as_str(), "??");
    }

    #[test]
    fn leaves_beyond_the_highest_are_not_asked_for() {
        let cpu = |number| match number {
            0 => CpuidResult {
                eax: 0x15,
                ..NOTHING
            },
            LEAF_MAX_EXTENDED => CpuidResult {
                eax: 0x8000_0001,
                ..NOTHING
            },
            1 | 0x15 | 0x8000_0001 => NOTHING,
            other => panic!("leaf {other:#x} does not exist"),
        };
        assert!(leaf(cpu, 0x15).is_some());
        assert!(leaf(cpu, 0x16).is_none());
        assert!(leaf(cpu, 0x8000_0001).is_some());
        assert!(leaf(cpu, LEAF_BRAND).is_none());
        // No hypervisor bit, so no hypervisor leaf.
        assert!(leaf(cpu, LEAF_HYPERVISOR).is_none());
    }
}
