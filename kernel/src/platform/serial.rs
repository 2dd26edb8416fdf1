//! The serial line: COM1, a 16550.
//!
//! Output waits for the device, however slow its reader is, so nothing is
//! lost. The transmit FIFO is filled with one poll of the line status for 16
//! bytes, because each port access may leave the virtual machine.

use core::fmt;

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::FIFO_SIZE;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// COM1, where every PC-like machine has its first serial port.
const COM1_BASE: u16 = 0x3f8;

static COM1: Mutex<Uart16550<PioBackend>> = Mutex::new(com1());

const fn com1() -> Uart16550<PioBackend> {
    // SAFETY: the platform keeps these ports for COM1, and only this static
    // drives it.
    match unsafe { Uart16550::new_port(COM1_BASE) } {
        Ok(uart) => uart,
        Err(_) => panic!("COM1's ports fit below the last port"),
    }
}

/// Programs the port: 115200 baud, 8-N-1, FIFO on, no interrupts. Before this
/// nothing is printed. `false` if it refuses its settings.
pub fn init() -> bool {
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        ..Config::DEFAULT
    };
    COM1.lock().init(config).is_ok()
}

/// Prints to the port alone. What is for people goes through
/// [`print!`](crate::print).
pub fn write(arguments: fmt::Arguments<'_>) {
    let mut uart = COM1.lock();
    let mut writer = Writer {
        send: |bytes: &[u8]| uart.send_bytes_exact(bytes),
        fifo: Fifo::new(),
    };
    // `Writer` never fails; a `Display` that does has printed what it could.
    let _ = fmt::Write::write_fmt(&mut writer, arguments);
    writer.flush();
}

/// Takes a byte from the port, if one has arrived.
pub fn read_byte() -> Option<u8> {
    COM1.lock().try_receive_byte().ok()
}

/// Waits until everything printed has left the port.
pub fn flush() {
    let mut uart = COM1.lock();
    while !uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
        core::hint::spin_loop();
    }
}

/// Frees the port for a report about code that may have been printing and
/// will never continue: call it in panics and exceptions only.
pub fn take_over() {
    // SAFETY: there is one CPU, and the code that may hold the lock does not
    // run again.
    unsafe { COM1.force_unlock() };
}

/// Collects formatted fragments into loads of the FIFO's size.
struct Writer<S: FnMut(&[u8])> {
    send: S,
    fifo: Fifo,
}

struct Fifo {
    bytes: [u8; FIFO_SIZE],
    length: usize,
}

impl Fifo {
    fn new() -> Self {
        Self {
            bytes: [0; FIFO_SIZE],
            length: 0,
        }
    }
}

impl<S: FnMut(&[u8])> Writer<S> {
    fn flush(&mut self) {
        (self.send)(&self.fifo.bytes[..self.fifo.length]);
        self.fifo.length = 0;
    }
}

impl<S: FnMut(&[u8])> fmt::Write for Writer<S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let room = FIFO_SIZE - self.fifo.length;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.fifo.bytes[self.fifo.length..][..now.len()].copy_from_slice(now);
            self.fifo.length += now.len();
            if self.fifo.length == FIFO_SIZE {
                self.flush();
            }
            bytes = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::vec::Vec;

    #[test]
    fn fragments_leave_in_loads_of_the_fifo_size() {
        let mut loads: Vec<Vec<u8>> = Vec::new();
        let mut writer = Writer {
            send: |bytes: &[u8]| loads.push(bytes.to_vec()),
            fifo: Fifo::new(),
        };
        write!(writer, "{}, {:>20}é", 1234, "x").unwrap();
        writer.flush();
        let lengths: Vec<usize> = loads.iter().map(Vec::len).collect();
        assert_eq!(lengths, [16, 12]);
        assert_eq!(
            loads.concat(),
            std::format!("1234, {:>20}é", "x").into_bytes()
        );
    }
}
