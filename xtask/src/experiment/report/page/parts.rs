//! Parts of the page that come again and again.

use maud::{Markup, html};

use crate::experiment::findings::{Answer, Column, Plot, Table, Verdict};
use crate::experiment::report::{plot, worlds};

/// A table with more rows than these is folded up; printed it is not.
const FOLDED: usize = 24;
/// A cell with more characters than these may be broken into lines.
const LONG: usize = 30;

/// An answer as a pill: its mark and border say it as well as its colour.
pub(super) fn answer(answer: Option<Answer>) -> Markup {
    let (class, mark, words) = match answer {
        Some(answer @ Answer::Holds) => ("answer holds", "✓ ", answer.words()),
        Some(answer @ Answer::DoesNotHold) => ("answer fails", "✗ ", answer.words()),
        Some(answer @ Answer::CannotBeToldHere) => ("answer open", "? ", answer.words()),
        None => ("answer open", "– ", "no verdict"),
    };
    html! { span class=(class) { span aria-hidden="true" { (mark) } (words) } }
}

/// A verdict's ratio with its interval.
pub(super) fn ratio(verdict: &Verdict) -> Markup {
    html! {
        @if let Some(ratio) = verdict.ratio {
            p.ratio {
                "Ratio " b { (ratio.words()) }
                span.dim { (format!(", {:.0} % confidence, {} boots", ratio.level * 100.0, ratio.n)) }
            }
        }
    }
}

/// What must be said beside figures, to be seen at once.
pub(super) fn badges(notes: &[String]) -> Markup {
    html! {
        @if !notes.is_empty() {
            p.badges { @for note in notes { span.badge { (note) } } }
        }
    }
}

/// A text in which what stands between backticks is code.
pub(super) fn inline(text: &str) -> Markup {
    let pieces: Vec<&str> = text.split('`').collect();
    // A backtick without its other one is a character like others.
    let closed = if pieces.len() % 2 == 1 {
        pieces.len()
    } else {
        pieces.len() - 1
    };
    html! {
        @for (n, piece) in pieces.iter().enumerate() {
            @if n >= closed { "`" (piece) }
            @else if n % 2 == 1 { code { (piece) } }
            @else { (piece) }
        }
    }
}

/// A count with its noun.
pub(super) fn several(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A text from elsewhere: in lines, if it has lines.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @if text.trim().contains('\n') { pre.scroll tabindex="0" { (text.trim()) } }
        @else { p { (inline(text)) } }
    }
}

/// A plot with its title, marks of its world, note and figures. `id` is unique.
pub(super) fn figure(of: &Plot, id: &str, notes: &[String]) -> Markup {
    let about = plot::about(of);
    let homeless = plot::homeless(of);
    let (badges, note) = worlds::of(about.note, notes);
    html! {
        figure id=(id) data-plot="" {
            h3 { (about.title) }
            (self::badges(&badges))
            @if !note.is_empty() { p.note { (inline(&note)) } }
            @match plot::draw(of, id) {
                Some(drawn) => (drawn),
                None => p { "Nothing was measured that this plot could show." },
            }
            @if homeless > 0 {
                p.note {
                    (several(homeless, "value")) ", zero or less, cannot be shown on a \
                     logarithmic axis: see the figures."
                }
            }
            @if !about.rows.is_empty() {
                details {
                    summary { "The figures of this plot" }
                    (grid(about.title, &about.columns, &about.rows))
                }
            }
        }
    }
}

/// A table with its title, marks of its world and note.
pub(super) fn table(table: &Table, notes: &[String]) -> Markup {
    let (badges, note) = worlds::of(&table.note, notes);
    let grid = grid(&table.title, &table.columns, &table.rows);
    html! {
        section {
            h3 { (table.title) }
            (self::badges(&badges))
            @if !note.is_empty() { p.note { (inline(&note)) } }
            @if table.rows.is_empty() { p { "It has no rows." } }
            @else if table.rows.len() > FOLDED {
                details { summary { "All " (table.rows.len()) " rows" } (grid) }
            } @else { (grid) }
        }
    }
}

/// The table itself, in a box that scrolls.
fn grid(title: &str, columns: &[Column], rows: &[Vec<String>]) -> Markup {
    let class = |column: &Column, text: &str| match (column.figures, text.chars().count() > LONG) {
        (true, _) => "figures",
        (false, true) => "long",
        (false, false) => "words",
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label=(title) {
            table {
                caption.unseen { (title) }
                thead { tr {
                    @for column in columns {
                        th scope="col" class=(class(column, &column.name)) { (column.name) }
                    }
                } }
                tbody {
                    @for row in rows { tr {
                        @for (cell, column) in row.iter().zip(columns) {
                            td class=(class(column, cell)) {
                                @if cell.contains('\n') { pre { (cell) } } @else { (cell) }
                            }
                        }
                    } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_between_backticks_and_everything_is_escaped() {
        let text = |text: &str| inline(text).into_string();
        assert_eq!(
            text("an `out <p>` & `in`"),
            "an <code>out &lt;p&gt;</code> &amp; <code>in</code>"
        );
        assert_eq!(text("one ` alone"), "one ` alone");
        assert_eq!(text("`a` b ` c"), "<code>a</code> b ` c");
        assert_eq!(text(""), "");
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(several(1, "boot"), "1 boot");
        assert_eq!(several(0, "boot"), "0 boots");
    }
}
