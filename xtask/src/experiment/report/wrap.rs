//! Text in lines of a width, counted in characters.

/// Breaks a text into lines of at most `width` characters: between words where that can be
/// done, else within one. There is always a line.
pub(super) fn lines(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() <= width {
            used += 1;
            push(&mut lines, " ");
        } else if used > 0 {
            used = 0;
            lines.push(String::new());
        }
        while word.len() > width {
            let rest = word.split_off(breakable(&word, width));
            push(&mut lines, &String::from_iter(word));
            lines.push(String::new());
            word = rest;
        }
        used += word.len();
        push(&mut lines, &String::from_iter(word));
    }
    lines
}

/// A text of at most `width` characters, which shows that something was cut off.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Where a long word is best broken: behind the last mark that joins parts of it, if half of
/// the line is filled then.
fn breakable(word: &[char], width: usize) -> usize {
    let joins = |at: &char| ['-', '_', '/', ',', '=', '.', ':'].contains(at);
    match word[..width].iter().rposition(joins) {
        Some(at) if at + 1 > width / 2 => at + 1,
        _ => width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider_and_nothing_is_lost() {
        let text = "a doorbell by virtio-rng-pci,ioeventfd=on,page-per-vq=off costs näheres";
        for width in 1..80 {
            let found = lines(text, width);
            assert!(found.iter().all(|line| line.chars().count() <= width));
            let letters = |text: &str| text.replace(' ', "");
            assert_eq!(letters(&found.concat()), letters(text), "{width}");
        }
        assert_eq!(lines("", 10), [""]);
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("a page-per-vq", 8), ["a", "page-", "per-vq"]);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("doorbell", 8), "doorbell");
        assert_eq!(cut("doorbell", 5), "door…");
    }
}
