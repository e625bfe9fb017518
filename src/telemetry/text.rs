//! Values in log lines: whatever somebody else chose can neither end a line, nor start another field, nor move a
//! terminal's cursor.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The longest value in an access line, in bytes; the rest is cut off.
const MAX_VALUE: usize = 2048;

/// Appends a value as one word: as it is where it can't be misread, else quoted and escaped.
pub(super) fn push_word(out: &mut Vec<u8>, value: &str) {
    if is_word(value) {
        return push_cut(out, value, |out, value| out.extend_from_slice(value.as_bytes()));
    }
    push_quoted(out, value);
}

/// Appends a value as a JSON string (RFC 8259 §7), which is also how the text format quotes.
pub(super) fn push_quoted(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    push_cut(out, value, push_escaped);
    out.push(b'"');
}

/// What an unquoted word may consist of: nothing that separates words, fields or lines, ASCII only.
fn is_word(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=' | b'{' | b'}'))
}

fn push_cut(out: &mut Vec<u8>, value: &str, push: impl FnOnce(&mut Vec<u8>, &str)) {
    let cut = value.floor_char_boundary(MAX_VALUE);
    push(out, &value[..cut]);
    if cut < value.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

fn push_escaped(out: &mut Vec<u8>, value: &str) {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        return out.extend_from_slice(value.as_bytes());
    }
    let mut escaped = String::with_capacity(value.len() + 16);
    for c in value.chars() {
        // Writing to a String can't fail.
        let _ = match c {
            '"' | '\\' => write!(escaped, "\\{c}"),
            '\n' => escaped.write_str("\\n"),
            '\r' => escaped.write_str("\\r"),
            '\t' => escaped.write_str("\\t"),
            c if is_unprintable(c) => write!(escaped, "\\u{:04x}", c as u32),
            c => escaped.write_char(c),
        };
    }
    out.extend_from_slice(escaped.as_bytes());
}

/// Control characters (ESC among them, and C1), and what breaks, hides or reorders text. All lie in the basic plane, so
/// that four digits write them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// How the text format writes the fields of an event: `message name=value …`. The stock formatter writes `%value` raw.
#[derive(Debug)]
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct FieldWriter<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn push(&mut self, field: &Field, value: &str) {
        let mut out = Vec::with_capacity(value.len() + 2);
        let is_message = field.name() == "message";
        match value {
            _ if is_message => push_escaped(&mut out, value),
            // Already quoted by Debug; only what Debug leaves as it is may still be unprintable.
            _ if is_quoted(value) => out.extend(value.chars().flat_map(printable).collect::<String>().into_bytes()),
            _ if is_word(value) => out.extend_from_slice(value.as_bytes()),
            _ => {
                out.push(b'"');
                push_escaped(&mut out, value);
                out.push(b'"');
            }
        }
        let text = String::from_utf8_lossy(&out);
        let space = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let name = field.name();
        let result = match (is_message, self.writer.has_ansi_escapes()) {
            (true, _) => write!(self.writer, "{space}{text}"),
            (false, true) => write!(self.writer, "{space}\u{1b}[2m{name}=\u{1b}[0m{text}"),
            (false, false) => write!(self.writer, "{space}{name}={text}"),
        };
        self.result = self.result.and(result);
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Not the Debug form: its quotes would be escaped once more.
        let mut out = Vec::new();
        if is_word(value) || field.name() == "message" {
            return self.push(field, value);
        }
        out.push(b'"');
        push_escaped(&mut out, value);
        out.push(b'"');
        self.push(field, &String::from_utf8_lossy(&out));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &super::chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.push(field, &text);
    }
}

/// One whole quoted string: it begins and ends with a quote, and no quote in between stands without a backslash.
fn is_quoted(value: &str) -> bool {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut is_escaped = false;
    for byte in inner.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return false,
            _ => {}
        }
    }
    !is_escaped
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = if is_unprintable(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    escaped.chars().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(value: &str) -> String {
        let mut out = Vec::new();
        push_word(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_values_stay_bare_and_everything_else_is_quoted() {
        for (value, expected) in [
            ("/a/b%20c;d?e", "/a/b%20c;d?e"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("a\r\n2026 INFO x", r#""a\r\n2026 INFO x""#),
            ("\u{1b}[31mred", r#""\u001b[31mred""#),
            ("c1\u{9b}31m", r#""c1\u009b31m""#),
            ("\u{7f}\u{0}", r#""\u007f\u0000""#),
            ("a\u{2028}b\u{202e}c\u{feff}", r#""a\u2028b\u202ec\ufeff""#),
            ("Zoë 漢字", "\"Zoë 漢字\""),
        ] {
            assert_eq!(word(value), expected);
        }
    }

    #[test]
    fn every_quoted_value_is_the_json_string_of_the_value() {
        for value in ["", "a\"b\\c/", "\n\r\t\u{0}\u{1b}\u{7f}\u{85}\u{202e}", "Zoë 漢字 🚪", "{\"a\":1}"] {
            let mut out = Vec::new();
            push_quoted(&mut out, value);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let long = "é".repeat(3000);
        let cut = word(&long);
        assert!(cut.len() < MAX_VALUE + 8 && cut.ends_with("é…\""));
        assert!(word(&"a".repeat(3000)).ends_with("a…"));
        assert_eq!(word(&"a".repeat(MAX_VALUE)).len(), MAX_VALUE);
    }
}
