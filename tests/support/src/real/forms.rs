//! Forms of an HTML page, as far as the providers' pages have them.

/// One form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Its `id`, or nothing.
    pub(super) id: String,
    /// Where it is sent to; nothing is the page's own address.
    pub(super) action: String,
    /// What it sends by itself.
    pub(super) hidden: Vec<(String, String)>,
    /// What it asks for.
    pub(super) asked: Vec<String>,
    /// The buttons that send something of their own.
    pub(super) buttons: Vec<(String, String)>,
}

impl Form {
    /// Whether it sends this by itself.
    pub(super) fn sends(&self, name: &str, value: &str) -> bool {
        self.hidden.iter().any(|(known, sent)| known == name && sent == value)
    }

    /// Whether it asks for this.
    pub(super) fn asks_for(&self, name: &str) -> bool {
        self.asked.iter().any(|known| known == name)
    }
}

/// The forms of a page, in its order.
pub(super) fn forms(html: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut open: Option<Form> = None;
    for tag in tags(html) {
        match (tag.name.as_str(), open.as_mut()) {
            ("form", _) => {
                let (id, action) = (tag.value("id"), tag.value("action"));
                open = Some(Form { id, action, ..Form::default() });
            }
            ("/form", Some(_)) => forms.extend(open.take()),
            ("input" | "button", Some(form)) if !tag.value("name").is_empty() => {
                let (name, value) = (tag.value("name"), tag.value("value"));
                match (tag.name.as_str(), tag.value("type").to_ascii_lowercase().as_str()) {
                    ("button", _) | (_, "submit") => form.buttons.push((name, value)),
                    (_, "hidden") => form.hidden.push((name, value)),
                    // Nobody ticks them.
                    (_, "checkbox" | "radio") => {}
                    // Filled in already.
                    _ if !value.is_empty() => form.hidden.push((name, value)),
                    _ => form.asked.push(name),
                }
            }
            _ => {}
        }
    }
    forms
}

struct Tag {
    /// In lower case; an end tag with its slash.
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn value(&self, name: &str) -> String {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn tags(html: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let (tag, after) = tag(after);
        rest = after;
        if matches!(tag.name.as_str(), "script" | "style") {
            let end = format!("</{}", tag.name);
            rest = rest.to_ascii_lowercase().find(&end).map_or("", |at| &rest[at..]);
        }
        tags.push(tag);
    }
    tags
}

/// The tag that `text` begins with, after its `<`, and what follows it.
fn tag(text: &str) -> (Tag, &str) {
    let ends = |character: char| character.is_ascii_whitespace() || matches!(character, '>' | '=');
    let (name, mut rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    let mut tag = Tag { name: name.to_ascii_lowercase(), attributes: Vec::new() };
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '/');
        if rest.is_empty() || rest.starts_with('>') {
            return (tag, rest.strip_prefix('>').unwrap_or(rest));
        }
        let (name, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        let (value, after) = match after.trim_start().strip_prefix('=').map(str::trim_start) {
            None => ("", after),
            Some(value) => match value.chars().next().filter(|quote| matches!(quote, '"' | '\'')) {
                Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
                None => value.split_at(value.find(ends).unwrap_or(value.len())),
            },
        };
        tag.attributes.push((name.to_ascii_lowercase(), plain(value)));
        rest = after;
    }
}

/// Character references resolved, those that the providers write.
fn plain(value: &str) -> String {
    let mut pieces = value.split('&');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let reference = piece.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        match reference {
            Some((character, after)) => {
                text.push(character);
                text.push_str(after);
            }
            None => {
                text.push('&');
                text.push_str(piece);
            }
        }
    }
    text
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_form_is_read_whatever_its_page_has_around_it() {
        let page = r#"<!-- <form action="no"> --><script>if (1<form) { "<form action='no'>" }</script>
            <form id=login method="post" action="/go?a=1&amp;b=&#x2F;&#43;"><input name="username" type="text" autofocus>
            <input type='password' name='password'/><input type="hidden" id="id-hidden-input" name="credentialId">
            <input type="checkbox" name="rememberMe"><button name="login" type="submit">Go</button></form>"#;
        let expected = Form {
            id: "login".to_owned(),
            action: "/go?a=1&b=/+".to_owned(),
            hidden: vec![("credentialId".to_owned(), String::new())],
            asked: vec!["username".to_owned(), "password".to_owned()],
            buttons: vec![("login".to_owned(), String::new())],
        };
        assert_eq!(forms(page), [expected]);
    }

    #[test]
    fn an_upper_case_form_that_sends_itself_is_read_too() {
        let page = r#"<HTML><BODY Onload="document.forms[0].submit()"><FORM METHOD="POST" ACTION="http://localhost:1/cb">
            <INPUT TYPE="HIDDEN" NAME="code" VALUE="x&quot;y" /></FORM></BODY></HTML>"#;
        let read = forms(page);
        assert_eq!(read.len(), 1);
        assert!(read[0].action == "http://localhost:1/cb" && read[0].sends("code", "x\"y"), "{read:?}");
    }
}
