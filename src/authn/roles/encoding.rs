//! Text ↔ header value, one to one: what a claim says can neither add a header, a line or a list item, nor look like
//! another claim. The values are percent-encoded UTF-8 (RFC 3986 §2.1), so every language has the decoder at hand.
//!
//! | written as is | percent-encoded |
//! |---|---|
//! | visible ASCII, spaces inside | `%`, control characters, non-ASCII bytes, spaces at either end; inside list items also `,` |
//!
//! The empty text is a header that is there and empty, and so is the list of one empty item; a claim or a list that has
//! nothing is a header that is absent.

use std::fmt::Write as _;

/// One text as a header value.
pub fn encode_value(text: &str) -> String {
    encode(text, b"")
}

/// One text as an item of a list joined by `,`.
pub fn encode_item(text: &str) -> String {
    encode(text, b",")
}

/// A list joined by `,`; `None`, so no header, for the empty list.
pub fn encode_list<'a>(items: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut joined: Option<String> = None;
    for item in items {
        let item = encode_item(item);
        match &mut joined {
            None => joined = Some(item),
            Some(list) => {
                list.push(',');
                list.push_str(&item);
            }
        }
    }
    joined
}

/// What [`encode_value`] or [`encode_item`] was given; `None` for text that neither of them writes.
pub fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                tail
            }
            (b'%', _) => return None,
            (plain, tail) => {
                bytes.push(*plain);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok()
}

/// What [`encode_list`] was given; an absent header is the empty list.
pub fn decode_list(header: Option<&str>) -> Option<Vec<String>> {
    header.map_or(Some(Vec::new()), |list| list.split(',').map(decode).collect())
}

/// JSON text in ASCII: other characters, and the control characters that JSON leaves alone, as `\u` escapes.
pub(super) fn ascii_json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        // Outside of strings JSON text is plain ASCII, so this only ever escapes inside of them.
        if matches!(character, ' '..='~') {
            ascii.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii
}

fn encode(text: &str, reserved: &[u8]) -> String {
    let bytes = text.as_bytes();
    let inner_start = bytes.iter().take_while(|&&byte| byte == b' ').count();
    let inner_end = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == b' ').count();
    let mut encoded = String::with_capacity(bytes.len());
    for (at, &byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b' ' => (inner_start..inner_end).contains(&at),
            b'%' => false,
            _ => byte.is_ascii_graphic() && !reserved.contains(&byte),
        };
        if plain {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn hex_digit(digit: u8) -> Option<u8> {
    // `to_digit(16)` is below 16.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Text that likes the edges: separators, escapes, line ends, and whatever Unicode has.
    fn text() -> impl Strategy<Value = String> {
        let nasty = prop::sample::select(vec![
            "%", ",", " ", "\r\n", "\t", "\0", "\u{7f}", "%2C", "%25", "\"", "\\", "[", "é", "\u{2028}", "😀", "a",
        ]);
        prop_oneof![prop::collection::vec(nasty, 0..8).prop_map(|parts| parts.concat()), any::<String>(),]
    }

    fn is_clean(value: &str) -> bool {
        value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
            && value.trim_matches(' ') == value
            && HeaderValue::from_str(value).is_ok()
    }

    #[test]
    fn values_are_written_as_the_table_says() {
        for (text, value, item) in [
            ("ada", "ada", "ada"),
            ("Ada Lovelace", "Ada Lovelace", "Ada Lovelace"),
            ("/admins", "/admins", "/admins"),
            ("a,b", "a,b", "a%2Cb"),
            ("50%", "50%25", "50%25"),
            ("%2C", "%252C", "%252C"),
            ("  a b ", "%20%20a b%20", "%20%20a b%20"),
            (" ", "%20", "%20"),
            ("a\r\nX-Role: admin", "a%0D%0AX-Role: admin", "a%0D%0AX-Role: admin"),
            ("\t\u{7f}\0", "%09%7F%00", "%09%7F%00"),
            ("Zoë", "Zo%C3%AB", "Zo%C3%AB"),
            ("", "", ""),
        ] {
            assert_eq!(encode_value(text), value);
            assert_eq!(encode_item(text), item);
        }
    }

    #[test]
    fn an_empty_list_has_no_header_and_a_list_of_an_empty_item_has_an_empty_one() {
        assert_eq!(encode_list([]), None);
        assert_eq!(encode_list([""]), Some(String::new()));
        assert_eq!(encode_list(["", ""]), Some(",".to_owned()));
    }

    #[test]
    fn text_that_was_never_encoded_is_not_decoded() {
        for value in ["%", "%4", "%zz", "a%", "%+1", "%FF"] {
            assert_eq!(decode(value), None, "{value}");
        }
    }

    #[test]
    fn json_is_ascii_and_says_the_same() {
        let value = json!({"näme": ["😀\u{7f}\r\n", 1, true, null]});
        let ascii = ascii_json(&value);
        assert_eq!(ascii, r#"{"n\u00e4me":["\ud83d\ude00\u007f\r\n",1,true,null]}"#);
        assert_eq!(serde_json::from_str::<Value>(&ascii).unwrap(), value);
    }

    proptest! {
        #[test]
        fn a_value_is_clean_and_decodes_to_its_text(text in text()) {
            let value = encode_value(&text);
            prop_assert!(is_clean(&value), "{value:?}");
            prop_assert_eq!(decode(&value), Some(text));
        }

        #[test]
        fn a_list_is_clean_and_decodes_to_its_items(items in prop::collection::vec(text(), 0..6)) {
            let header = encode_list(items.iter().map(String::as_str));
            prop_assert!(header.as_deref().is_none_or(is_clean), "{header:?}");
            prop_assert_eq!(decode_list(header.as_deref()), Some(items));
        }

        #[test]
        fn different_lists_have_different_headers(
            one in prop::collection::vec(text(), 0..4),
            other in prop::collection::vec(text(), 0..4),
        ) {
            let encoded = |items: &[String]| encode_list(items.iter().map(String::as_str));
            prop_assert_eq!(one == other, encoded(&one) == encoded(&other));
        }

        #[test]
        fn a_json_list_is_clean_and_says_the_same(items in prop::collection::vec(text(), 0..6)) {
            let list = json!(items);
            let ascii = ascii_json(&list);
            prop_assert!(is_clean(&ascii), "{ascii:?}");
            prop_assert_eq!(serde_json::from_str::<Value>(&ascii).unwrap(), list);
        }
    }
}
