//! What a guest can only say that has read it through its virtio driver: a record that
//! stands on the disk, or in the file that the network gives.

use std::path::Path;

use anyhow::{Context, Result};

/// What the record is called.
pub(super) const KIND: &str = "proof";
/// The size of a sector, and of what a BIOS loads.
const SECTOR: usize = 512;
/// The disk's size: small, and not too small for a partition table's reader.
const DISK: usize = 1 << 20;
/// Where a BIOS loads and enters a boot sector, as PXE does with what it loads (PXE 2.1,
/// 4.4.1), in segment 0.
const LOADED: u16 = 0x7c00;
const CODE_SIZE: usize = 36;

/// The record's line, as it comes on the serial line from `source`.
fn line(source: &str) -> String {
    format!("@{{\"v\":1,\"kind\":\"{KIND}\",\"from\":\"{source}\"}}\r\n")
}

/// A boot sector that prints the record on the first serial port, and halts.
pub(super) fn boot_sector(source: &str) -> Vec<u8> {
    const TEXT: [u8; 2] = (LOADED + CODE_SIZE as u16).to_le_bytes();
    #[rustfmt::skip]
    const CODE: [u8; CODE_SIZE] = [
        0xfa,             //        cli
        0xfc,             //        cld
        0x31, 0xc0,       //        xor ax, ax
        0x8e, 0xd8,       //        mov ds, ax
        0xbe, TEXT[0], TEXT[1], //  mov si, text
        0xba, 0xf8, 0x03, //        mov dx, 0x3f8
        0xac,             // next:  lodsb
        0x84, 0xc0,       //        test al, al
        0x74, 0x10,       //        jz end
        0x88, 0xc4,       //        mov ah, al
        0xb2, 0xfd,       //        mov dl, 0xfd      ; the line's status
        0xec,             // wait:  in al, dx
        0xa8, 0x20,       //        test al, 0x20     ; it takes a byte
        0x74, 0xfb,       //        jz wait
        0xb2, 0xf8,       //        mov dl, 0xf8
        0x88, 0xe0,       //        mov al, ah
        0xee,             //        out dx, al
        0xeb, 0xeb,       //        jmp next
        0xf4,             // end:   hlt
        0xeb, 0xfd,       //        jmp end
    ]; // text:
    let mut sector = CODE.to_vec();
    // Whatever was printed before, the record has a line of its own.
    sector.extend_from_slice(b"\r\n");
    sector.extend_from_slice(line(source).as_bytes());
    sector.resize(SECTOR - 2, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector
}

/// Writes a disk whose boot sector prints the record, and whose second sector holds it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn disk(path: &Path) -> Result<()> {
    let mut disk = boot_sector("disk");
    disk.extend_from_slice(line("disk").as_bytes());
    disk.resize(DISK, 0);
    write(path, &disk)
}

/// Writes what a UEFI shell finds on a FAT disk: the record, and the script that shows it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn shell_files(folder: &Path) -> Result<()> {
    write(&folder.join("proof.txt"), line("disk").as_bytes())?;
    // The first `echo` ends the line of the shell's count-down.
    let script = "@echo -off\r\necho .\r\ntype fs0:\\proof.txt\r\n";
    write(&folder.join("startup.nsh"), script.as_bytes())
}

/// Writes the file that the network gives.
///
/// # Errors
/// When it cannot be written.
pub(super) fn network_file(path: &Path) -> Result<()> {
    write(path, &boot_sector("network"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(cannot)?;
    }
    std::fs::write(path, bytes).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Line, Splitter};

    #[test]
    fn the_sector_holds_a_record_and_fits() {
        let sector = boot_sector("network");
        assert_eq!(sector.len(), SECTOR);
        assert_eq!(sector[510..], [0x55, 0xaa]);
        let text = &sector[CODE_SIZE..];
        assert_eq!(sector[6..9], [0xbe, 0x24, 0x7c]);
        let end = text.iter().position(|&byte| byte == 0).unwrap();
        let lines = Splitter::new(false).feed(&text[..end], &mut std::io::sink());
        let Line::Record(Ok(record)) = &lines[1] else {
            panic!("{lines:?}");
        };
        assert_eq!(record.kind(), KIND);
        assert_eq!(record.text("from"), Some("network"));
    }

    #[test]
    fn the_second_sector_is_the_record_alone() {
        let path = std::env::temp_dir().join(format!("doorbell-{}-proof", std::process::id()));
        disk(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(bytes.len(), DISK);
        let text = std::str::from_utf8(&bytes[SECTOR..2 * SECTOR]).unwrap();
        assert_eq!(text.trim_end_matches('\0'), line("disk"));
    }
}
