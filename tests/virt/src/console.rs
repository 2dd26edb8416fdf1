//! The serial line: a 16550 where the device tree says.

use core::fmt;
use core::ptr::NonNull;

use spin::Mutex;
use uart_16550::backend::MmioBackend;
use uart_16550::{Config, Uart16550};

static UART: Mutex<Option<Uart16550<MmioBackend>>> = Mutex::new(None);

/// Opens the line at `address`. Before this nothing is printed.
pub(crate) fn init(address: u64) {
    let Some(base) = NonNull::new(address as *mut u8) else {
        return;
    };
    // SAFETY: the device tree says that a 16550 is there, with a register a byte; only
    // this static drives it.
    let Ok(mut uart) = (unsafe { Uart16550::new_mmio(base, 1) }) else {
        return;
    };
    if uart.init(Config::DEFAULT).is_ok() {
        *UART.lock() = Some(uart);
    }
}

struct Line<'a>(&'a mut Uart16550<MmioBackend>);

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send_bytes_exact(text.as_bytes());
        Ok(())
    }
}

/// What `print!` and `println!` are made of. Where a trap came while something was
/// printed, nothing is: the machine ends all the same.
pub(crate) fn print(arguments: fmt::Arguments<'_>) {
    if let Some(mut uart) = UART.try_lock()
        && let Some(uart) = uart.as_mut()
    {
        // `Line` never fails.
        let _ = fmt::Write::write_fmt(&mut Line(uart), arguments);
    }
}

#[macro_export]
macro_rules! print {
    ($($part:tt)*) => { $crate::console::print(format_args!($($part)*)) };
}

#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($part:tt)+) => {{
        $crate::console::print(format_args!($($part)+));
        $crate::console::print(format_args!("\n"));
    }};
}
