//! Where the guest's serial input comes from, and how it is passed on.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

/// ASCII's end of transmission: what a terminal sends for "no more input".
const END_OF_INPUT: u8 = 4;
/// How soon the end of input is said again.
const END_AGAIN: Duration = Duration::from_millis(100);

/// Where the guest's serial input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Nothing,
    /// The user's terminal, as it is.
    Terminal,
    /// Our stdin, passed on once the guest's shell has begun, so that nothing
    /// gets lost before somebody listens.
    Pipe,
    /// What the observer of records answers.
    Answers,
}

impl Input {
    /// The input of a run whose last guest command is `shell`.
    pub(crate) fn of_shell(keyboard: Keyboard) -> Self {
        match keyboard {
            Keyboard::None => Self::Pipe,
            // In the background QEMU is stopped until the shell is brought back.
            Keyboard::Ours | Keyboard::Others => Self::Terminal,
        }
    }

    /// The input of a run whose last guest command is ended by a key, but not by the
    /// end of what is no keyboard.
    pub(crate) fn of_key(keyboard: Keyboard) -> Self {
        match keyboard {
            Keyboard::Ours => Self::Terminal,
            Keyboard::Others | Keyboard::None => Self::Nothing,
        }
    }
}

/// What our stdin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyboard {
    /// A terminal, and what is typed there is for us.
    Ours,
    /// A terminal, and another job is in its foreground: who sets its modes then, as
    /// QEMU does, is stopped by the system.
    Others,
    /// No terminal: a pipe or a file.
    None,
}

impl Keyboard {
    /// Looks at stdin.
    pub(crate) fn of_stdin() -> Self {
        let stdin = std::io::stdin();
        match rustix::termios::tcgetpgrp(&stdin) {
            _ if !stdin.is_terminal() => Self::None,
            Ok(foreground) if foreground != rustix::process::getpgrp() => Self::Others,
            // Where there are no jobs, nobody is in the background.
            Ok(_) | Err(_) => Self::Ours,
        }
    }
}

/// Passes on what the guest's shell is to read, and then its end until nobody is there
/// to read it: a command that looks for keys may take one.
pub(super) fn pass_input(from: &mut dyn Read, to: &mut dyn Write) {
    let mut buffer = [0; 4096];
    let mut last = b'\n';
    // What cannot be read has ended.
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
        last = buffer[n - 1];
    }
    // The shell heeds the end only where a line begins.
    let rest: &[u8] = if matches!(last, b'\n' | b'\r') {
        &[]
    } else {
        b"\n"
    };
    let mut written = to.write_all(rest);
    while written.is_ok() {
        written = to.write_all(&[END_OF_INPUT]);
        std::thread::sleep(END_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and is gone then.
    struct Takes(Vec<u8>, usize);

    impl Write for Takes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.1 - self.0.len();
            let taken = &bytes[..room.min(bytes.len())];
            self.0.extend(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_line_ends_and_the_end_is_said_until_nobody_listens() {
        for (input, passed) in [
            ("lspci -n", "lspci -n\n\x04\x04"),
            ("lspci\nexit\n", "lspci\nexit\n\x04\x04"),
            ("exit\r", "exit\r\x04\x04"),
            ("", "\x04\x04"),
            ("cut off", "cut"),
        ] {
            let mut taken = Takes(Vec::new(), passed.len());
            pass_input(&mut input.as_bytes(), &mut taken);
            assert_eq!(String::from_utf8(taken.0).unwrap(), passed, "{input:?}");
        }
    }
}
