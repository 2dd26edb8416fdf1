//! What firmware and the VMM leave in memory: ACPI tables, and the start info.

use doorbell_boot::start_info::{self, PhysicalMemory};
use doorbell_kernel::platform::acpi::{self, FirmwareMemory};
use doorbell_kernel::platform::mapping::MapError;

use crate::bytes::Bytes;

/// Memory from this address on; nothing is readable outside.
struct Memory {
    base: u64,
    bytes: Vec<u8>,
}

impl Memory {
    fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

impl FirmwareMemory for Memory {
    fn bytes(&self, address: u64, length: usize) -> Result<&[u8], MapError> {
        self.at(address, length).ok_or(MapError::NotFirmware {
            physical: address,
            length,
        })
    }
}

impl PhysicalMemory for Memory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let bytes = self.at(address, buffer.len());
        if let Some(bytes) = bytes {
            buffer.copy_from_slice(bytes);
        }
        bytes.is_some()
    }
}

const BASE: u64 = 0xf_0000;
/// Bytes of a table's header.
const HEADER: usize = 36;
/// Tables that are looked into, and one that is not.
const SIGNATURES: [&[u8; 4]; 6] = [b"MCFG", b"APIC", b"FACP", b"SSDT", b"DSDT", b"HPET"];

/// Makes the bytes add up to 0 by the one at `offset`.
fn seal(bytes: &mut [u8], offset: usize) {
    bytes[offset] = 0;
    bytes[offset] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// Tables with right sums, so that what is in them is looked at, and wrong whatever else
/// the bytes say.
pub fn acpi(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let count = usize::from(bytes.u8() % 6);
    let lies = bytes.u8();
    let wide = lies & 1 != 0;
    let mut memory = Memory {
        base: BASE,
        bytes: vec![0; 0x100],
    };
    let mut places = Vec::new();
    for _ in 0..count {
        let signature = SIGNATURES[usize::from(bytes.u8()) % SIGNATURES.len()];
        let len = usize::from(bytes.u16() % 600);
        let body = bytes.slice(len);
        let mut table = vec![0; HEADER];
        table[..4].copy_from_slice(signature);
        table.extend_from_slice(body);
        let len = match lies & 2 {
            0 => table.len() as u32,
            _ => bytes.u32(),
        };
        table[4..8].copy_from_slice(&len.to_le_bytes());
        table[8] = bytes.u8();
        let summed = (len as usize).clamp(HEADER, table.len());
        seal(&mut table[..summed], 9);
        places.push(BASE + memory.bytes.len() as u64);
        memory.bytes.extend(table);
    }
    // The DSDT is where the FADT says: let it be one of those.
    for at in places.clone() {
        let start = (at - BASE) as usize;
        let is_fadt = &memory.bytes[start..start + 4] == b"FACP";
        let len = memory
            .at(at + 4, 4)
            .map_or(0, |len| u32::from_le_bytes(len.try_into().unwrap()));
        let len = (len as usize).min(memory.bytes.len() - start);
        if is_fadt && len > 44 && lies & 4 == 0 {
            let to = places.last().copied().unwrap_or_default() as u32;
            memory.bytes[start + 40..start + 44].copy_from_slice(&to.to_le_bytes());
            seal(&mut memory.bytes[start..start + len], 9);
        }
    }
    let root = BASE + memory.bytes.len() as u64;
    let mut table = vec![0; HEADER];
    table[..4].copy_from_slice(if wide { b"XSDT" } else { b"RSDT" });
    for place in &places {
        match wide {
            true => table.extend(place.to_le_bytes()),
            false => table.extend((*place as u32).to_le_bytes()),
        }
    }
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    seal(&mut table, 9);
    memory.bytes.extend(table);
    let mut rsdp = b"RSD PTR \0BOCHS ".to_vec();
    rsdp.push(if wide { 2 } else { 0 });
    rsdp.extend((root as u32).to_le_bytes());
    seal(&mut rsdp, 8);
    rsdp.extend(36u32.to_le_bytes());
    rsdp.extend(root.to_le_bytes());
    rsdp.extend([0; 4]);
    seal(&mut rsdp, 32);
    memory.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    let _ = acpi::discover(&memory, Some(BASE));
    // And what chance says, without any help.
    let memory = Memory {
        base: BASE,
        bytes: data.to_vec(),
    };
    let _ = acpi::discover(&memory, Some(BASE));
}

/// The start info of PVH, the memory map, the module list and the command line.
pub fn start_info(data: &[u8]) {
    const AT: u64 = 0x6000;
    let memory = Memory {
        base: AT,
        bytes: data.to_vec(),
    };
    if let Ok(info) = start_info::parse(&memory, AT) {
        let _ = info.command_line().len();
        let ram = info
            .memory_map()
            .filter(|region| region.kind == doorbell_boot::RegionKind::Ram);
        for region in ram {
            assert!(region.range().start <= region.range().end);
        }
        let _ = (info.ram_size(), info.rsdp());
    }
}
