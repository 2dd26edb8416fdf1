//! Names for PCI's numbers: those that a virtual machine is likely to have.

use alloc::format;
use alloc::string::String;

use doorbell::pci::Function;

/// Names of devices that QEMU has, by vendor and device ID.
const DEVICES: &[(u16, u16, &str)] = &[
    (0x1af4, 0x1000, "Red Hat Virtio network device"),
    (0x1af4, 0x1001, "Red Hat Virtio block device"),
    (0x1af4, 0x1002, "Red Hat Virtio memory balloon"),
    (0x1af4, 0x1003, "Red Hat Virtio console"),
    (0x1af4, 0x1004, "Red Hat Virtio SCSI"),
    (0x1af4, 0x1005, "Red Hat Virtio RNG"),
    (0x1af4, 0x1009, "Red Hat Virtio filesystem"),
    (0x1af4, 0x1041, "Red Hat Virtio 1.0 network device"),
    (0x1af4, 0x1042, "Red Hat Virtio 1.0 block device"),
    (0x1af4, 0x1043, "Red Hat Virtio 1.0 console"),
    (0x1af4, 0x1044, "Red Hat Virtio 1.0 RNG"),
    (0x1af4, 0x1045, "Red Hat Virtio 1.0 balloon"),
    (0x1af4, 0x1048, "Red Hat Virtio 1.0 SCSI"),
    (0x1af4, 0x1049, "Red Hat Virtio 1.0 filesystem"),
    (0x1af4, 0x1050, "Red Hat Virtio 1.0 GPU"),
    (0x1af4, 0x1052, "Red Hat Virtio 1.0 input"),
    (0x1af4, 0x1053, "Red Hat Virtio 1.0 socket"),
    (0x1b36, 0x0001, "Red Hat QEMU PCI-PCI bridge"),
    (0x1b36, 0x0005, "Red Hat QEMU PCI Test Device"),
    (0x1b36, 0x0008, "Red Hat QEMU PCIe Host bridge"),
    (0x1b36, 0x0009, "Red Hat QEMU PCI Expander bridge"),
    (0x1b36, 0x000b, "Red Hat QEMU PCIe Expander bridge"),
    (0x1b36, 0x000d, "Red Hat QEMU XHCI Host Controller"),
    (0x1b36, 0x0010, "Red Hat QEMU NVM Express Controller"),
    (0x1b36, 0x000c, "Red Hat QEMU PCIe Root port"),
    (0x1b36, 0x000e, "Red Hat QEMU PCIe-to-PCI bridge"),
    (
        0x104c,
        0x8232,
        "Texas Instruments XIO3130 PCIe switch, upstream",
    ),
    (
        0x104c,
        0x8233,
        "Texas Instruments XIO3130 PCIe switch, downstream",
    ),
    (0x1234, 0x1111, "QEMU standard VGA"),
    (0x8086, 0x100e, "Intel 82540EM Gigabit Ethernet Controller"),
    (0x8086, 0x10d3, "Intel 82574L Gigabit Network Connection"),
    (0x8086, 0x1237, "Intel 440FX 82441FX PMC"),
    (0x8086, 0x7000, "Intel 82371SB PIIX3 ISA"),
    (0x8086, 0x7010, "Intel 82371SB PIIX3 IDE"),
    (0x8086, 0x7113, "Intel 82371AB/EB/MB PIIX4 ACPI"),
    (
        0x8086,
        0x29c0,
        "Intel 82G33/G31/P35/P31 Express DRAM Controller",
    ),
    (
        0x8086,
        0x2918,
        "Intel 82801IB (ICH9) LPC Interface Controller",
    ),
    (
        0x8086,
        0x2922,
        "Intel 82801IR/IO/IH (ICH9R/DO/DH) SATA Controller",
    ),
    (
        0x8086,
        0x2930,
        "Intel 82801I (ICH9 Family) SMBus Controller",
    ),
];

/// Names of classes, by their first two bytes (PCI Code and ID Assignment).
const CLASSES: &[(u8, u8, &str)] = &[
    (0x00, 0x00, "Non-VGA unclassified device"),
    (0x00, 0xff, "Unclassified device"),
    (0x01, 0x00, "SCSI storage controller"),
    (0x01, 0x01, "IDE interface"),
    (0x01, 0x06, "SATA controller"),
    (0x01, 0x08, "Non-Volatile memory controller"),
    (0x02, 0x00, "Ethernet controller"),
    (0x03, 0x00, "VGA compatible controller"),
    (0x03, 0x80, "Display controller"),
    (0x05, 0x00, "RAM memory"),
    (0x06, 0x00, "Host bridge"),
    (0x06, 0x01, "ISA bridge"),
    (0x06, 0x04, "PCI bridge"),
    (0x06, 0x80, "Bridge"),
    (0x07, 0x80, "Communication controller"),
    (0x08, 0x80, "System peripheral"),
    (0x09, 0x80, "Input device controller"),
    (0x0c, 0x03, "USB controller"),
    (0x0c, 0x05, "SMBus"),
    (0x10, 0x00, "Network and computing encryption device"),
];

/// Names of capabilities (PCI 3.0, appendix H, and PCI Express 7.5).
const CAPABILITIES: &[(u16, &str)] = &[
    (0x01, "Power Management"),
    (0x04, "Slot ID"),
    (0x05, "MSI"),
    (0x09, "Vendor Specific"),
    (0x0c, "Hot-plug capable"),
    (0x0d, "Bridge subsystem"),
    (0x0f, "Secure Device"),
    (0x10, "Express"),
    (0x11, "MSI-X"),
    (0x12, "SATA HBA"),
    (0x13, "PCI Advanced Features"),
];

/// Names of extended capabilities (PCI Express 7.7 to 7.9).
const EXTENDED: &[(u16, &str)] = &[
    (0x01, "Advanced Error Reporting"),
    (0x03, "Device Serial Number"),
    (0x0d, "Access Control Services"),
    (0x0e, "Alternative Routing-ID Interpretation"),
    (0x0f, "Address Translation Service"),
    (0x10, "Single Root I/O Virtualization"),
    (0x13, "Page Request Interface"),
    (0x1b, "Process Address Space ID"),
];

/// A device's name, or that it has none here.
pub fn device(vendor: u16, device: u16) -> &'static str {
    let known = DEVICES
        .iter()
        .find(|known| (known.0, known.1) == (vendor, device));
    known.map_or("Device", |known| known.2)
}

/// A class's name; for one without, the library's.
pub fn class(function: &Function) -> String {
    let code = (function.class, function.subclass);
    let known = CLASSES.iter().find(|known| (known.0, known.1) == code);
    known.map_or_else(
        || format!("{:?}", function.device_type()),
        |known| known.2.into(),
    )
}

/// A capability's name.
pub fn capability(id: u16) -> String {
    name(CAPABILITIES, id)
}

/// An extended capability's name.
pub fn extended_capability(id: u16) -> String {
    name(EXTENDED, id)
}

fn name(table: &[(u16, &str)], id: u16) -> String {
    let known = table.iter().find(|known| known.0 == id);
    known.map_or_else(|| format!("ID {id:#04x}"), |known| known.1.into())
}
