//! Secrets of the session: how strong they must be, and how a good one is made. Bytes count as written; nothing is decoded.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The least length, in bytes.
pub(super) const SHORTEST: usize = 32;

/// A new secret: 48 random bytes as 64 characters that need no quoting anywhere.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate_secret() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 48];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Why a secret is too weak, as part of a sentence that never shows it.
pub(super) fn weakness(secret: &str) -> Option<String> {
    let length = secret.len();
    if length < SHORTEST {
        return Some(format!("is too short: {length} bytes, at least {SHORTEST} are needed"));
    }
    let mut distinct: Vec<u8> = secret.bytes().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 6 {
        return Some("is too weak: it repeats very few characters".to_owned());
    }
    if repeats(secret.as_bytes()) {
        return Some("is too weak: it repeats a pattern".to_owned());
    }
    if is_passphrase(secret) || left_without_words(secret) < 20 {
        return Some("is too weak: it is made of words or sequences that can be guessed".to_owned());
    }
    None
}

/// Whether it is one pattern again and again. The overlap that is compared is at least a third, so chance cannot do it.
fn repeats(secret: &[u8]) -> bool {
    (1..=secret.len() * 2 / 3).any(|period| secret[period..].iter().zip(secret).all(|(one, other)| one == other))
}

/// Four or more plain words with separators between.
fn is_passphrase(secret: &str) -> bool {
    let words: Vec<_> = secret.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).collect();
    let only_words = secret.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, ' ' | '-' | '_' | '.' | ',' | '!'));
    let plain = |word: &&str| {
        word.bytes().skip(1).all(|byte| byte.is_ascii_lowercase()) || word.bytes().all(|byte| byte.is_ascii_uppercase())
    };
    only_words && words.len() >= 4 && words.iter().all(plain)
}

/// How many letters and digits stay when guessable words and runs are taken out. A random secret loses a word now and then
/// by chance and stays long; a phrase does not.
fn left_without_words(secret: &str) -> usize {
    let mut text: String = secret.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    for word in WORDS {
        text = text.replace(word, " ");
    }
    text.split(' ').map(|part| part.len() - in_runs(part.as_bytes())).sum()
}

/// How many characters stand in runs of five or more neighbours (`abcde`, `98765`, `aaaaa`, `qwert`).
fn in_runs(text: &[u8]) -> usize {
    const ROWS: [&[u8]; 3] = [b"qwertyuiop", b"asdfghjkl", b"zxcvbnm"];
    let neighbours = |one: u8, other: u8| {
        one.abs_diff(other) <= 1 || ROWS.iter().any(|row| row.windows(2).any(|pair| pair == [one, other]))
    };
    let mut found = 0;
    let mut start = 0;
    for end in 1..=text.len() {
        if end == text.len() || !neighbours(text[end - 1], text[end]) {
            if end - start >= 5 {
                found += end - start;
            }
            start = end;
        }
    }
    found
}

/// Longer ones first, because they contain shorter ones.
const WORDS: &[&str] = &[
    "supersecret",
    "changethis",
    "production",
    "vestibule",
    "development",
    "correcthorse",
    "replaceme",
    "changeme",
    "generate",
    "password",
    "passwort",
    "please",
    "example",
    "default",
    "battery",
    "session",
    "account",
    "private",
    "company",
    "welcome",
    "letmein",
    "another",
    "correct",
    "thirty",
    "middle",
    "string",
    "staple",
    "monkey",
    "dragon",
    "master",
    "cookie",
    "secure",
    "secret",
    "should",
    "really",
    "simple",
    "change",
    "random",
    "longer",
    "enough",
    "proxy",
    "super",
    "bytes",
    "token",
    "admin",
    "value",
    "horse",
    "local",
    "magic",
    "dummy",
    "hello",
    "world",
    "quick",
    "brown",
    "jumps",
    "lazy",
    "your",
    "this",
    "that",
    "with",
    "have",
    "must",
    "test",
    "long",
    "very",
    "pass",
    "word",
    "here",
    "demo",
    "temp",
    "user",
    "oidc",
    "sign",
    "auth",
    "some",
    "more",
    "than",
    "least",
    "least",
    "xxxx",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weak_secrets_are_refused() {
        for weak in [
            "short",
            "exactly-thirty-one-bytes-long!!",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababababab",
            "0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "changeme-changeme-changeme-changeme",
            "changemechangemechangemechangeme1",
            "this-is-my-super-secret-password-please-change",
            "thisismysupersecretpasswordpleasechangeit",
            "correct horse battery staple correct horse battery staple",
            "it was the best of times, it was the worst of times",
            "My Very Long Session Secret For Testing Only",
            "qwertyuiopasdfghjklzxcvbnm1234567890",
            "12345678901234567890123456789012",
            "Replace-Me-With-A-32-Byte-Secret!",
            "secretsecretsecretsecretsecretse",
        ] {
            assert!(weakness(weak).is_some(), "{weak}");
        }
    }

    #[test]
    fn strong_secrets_pass() {
        for strong in [
            "550e8400-e29b-41d4-a716-446655440000",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1",
            "wz)9!kQ#7vLp$2xR&5tN*8mB^3cF@6hJ",
        ] {
            assert_eq!(weakness(strong), None, "{strong}");
        }
        for _ in 0..50 {
            let secret = generate_secret().unwrap();
            assert_eq!(secret.len(), 64);
            assert_eq!(weakness(&secret), None, "{secret}");
        }
    }

    #[test]
    fn length_counts_bytes() {
        assert!(weakness("k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue").is_some());
        assert!(weakness("k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6é").is_some_and(|why| why.contains("31 bytes")));
    }

    proptest! {
        #[test]
        fn a_generated_secret_always_passes(bytes in proptest::array::uniform32(any::<u8>())) {
            // proptest likes simple bytes; a hash makes them random again.
            let random = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
            let random = random.as_ref();
            let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(weakness(&hex), None);
            prop_assert_eq!(weakness(&hex[..32]), None);
            prop_assert_eq!(weakness(&base64::engine::general_purpose::STANDARD.encode(random)), None);
            prop_assert_eq!(weakness(&URL_SAFE_NO_PAD.encode(&random[..24])), None);
        }
    }
}
