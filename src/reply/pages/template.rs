//! Compiles the built-in pages and the operator's, checks the latter, and renders both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::{Choice, Page, PageContext, TemplateProblem};

/// The largest template of an operator, in bytes.
const MAX_TEMPLATE: u64 = 256 * 1024;

/// Instructions for one rendering; the built-in pages need about fifty.
const FUEL: u64 = 50_000;

/// The template variables: the fields of [`PageContext`].
const VARIABLES: [&str; 15] = [
    "status",
    "title",
    "message",
    "advice",
    "request_id",
    "action_url",
    "action_label",
    "action_post",
    "field_name",
    "field_value",
    "other_url",
    "other_label",
    "choices",
    "email_url",
    "email_rd",
];

/// Where a page's own part goes in the shared base.
const SLOT: &str = "<!-- page -->";
const BASE: &str = include_str!("base.html");

/// All templates, compiled.
#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
    built_in: BTreeMap<Page, Template>,
    own: BTreeMap<Page, Template>,
}

#[derive(Debug)]
struct Template {
    /// In the environment; for an operator's the file's path.
    name: String,
    /// The Content-Security-Policy, less form-action.
    policy: String,
}

/// A page, and the policy it is to be sent with.
pub(super) struct Rendered<'a> {
    pub(super) html: String,
    pub(super) policy: &'a str,
}

impl Templates {
    /// Compiles and checks everything.
    pub(super) fn compile(files: &BTreeMap<Page, PathBuf>) -> Result<Self, Vec<TemplateProblem>> {
        let mut templates = Self { environment: environment(), built_in: BTreeMap::new(), own: BTreeMap::new() };
        let mut problems = Vec::new();
        let mut note = |page, result: Result<Template, Vec<String>>| match result {
            Ok(template) => Some((page, template)),
            Err(messages) => {
                problems.extend(messages.into_iter().map(|message| TemplateProblem { page, message }));
                None
            }
        };
        for page in Page::ALL {
            let text = BASE.replace(SLOT, part(page).trim_end());
            let template = add(&mut templates.environment, page, &format!("built-in {}", page.key()), text);
            templates.built_in.extend(note(page, template));
        }
        for (&page, path) in files {
            let name = path.display().to_string();
            let template = match read(path) {
                Ok(text) => add(&mut templates.environment, page, &name, text),
                Err(cause) => Err(vec![format!("{name}: {cause}")]),
            };
            templates.own.extend(note(page, template));
        }
        if problems.is_empty() { Ok(templates) } else { Err(problems) }
    }

    /// The operator's page; where that fails after all, the built-in one.
    pub(super) fn render(&self, page: Page, context: &PageContext<'_>) -> Rendered<'_> {
        for template in [self.own.get(&page), self.built_in.get(&page)].into_iter().flatten() {
            match render(&self.environment, &template.name, context) {
                Ok(html) => return Rendered { html, policy: &template.policy },
                Err(error) => tracing::error!(template = template.name, %error, "page template failed"),
            }
        }
        Rendered {
            html: format!("<!doctype html><title>{0}</title>{0}", context.status),
            policy: "default-src 'none'; frame-ancestors 'none'",
        }
    }
}

fn part(page: Page) -> &'static str {
    match page {
        Page::ChooseProvider => include_str!("choose_provider.html"),
        Page::SignInFailed => include_str!("sign_in_failed.html"),
        Page::AccessDenied => include_str!("access_denied.html"),
        Page::SignedOut => include_str!("signed_out.html"),
        Page::ConfirmSignOut => include_str!("confirm_sign_out.html"),
        Page::SendForm => include_str!("send_form.html"),
        Page::Unavailable => include_str!("unavailable.html"),
        Page::Error => include_str!("error.html"),
    }
}

/// Nothing but the text itself can be reached from a template: no loader, no macros, no include.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.remove_filter("safe");
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("can't be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TEMPLATE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > MAX_TEMPLATE {
        return Err("is larger than 256 KiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Adds one template and checks it: messages say file, line and cause.
fn add(environment: &mut Environment<'static>, page: Page, name: &str, text: String) -> Result<Template, Vec<String>> {
    environment.add_template_owned(name.to_owned(), text.clone()).map_err(|error| vec![located(name, &error)])?;
    let mut problems = refused_constructs(name, &text);
    problems.extend(unknown_variables(environment, name, &text));
    if !problems.is_empty() {
        return Err(problems);
    }

    let mut styles = BTreeSet::new();
    let choice =
        Choice { url: "/sample".to_owned(), label: "Sample choice".to_owned(), logo: Some("data:,".to_owned()) };
    for (index, sample) in samples(&[choice]).iter().enumerate() {
        let html = render(environment, name, sample).map_err(|error| vec![located(name, &error)])?;
        for style in style_elements(&html) {
            // The hash is fixed here, so what it is taken of must be too.
            let Some(start) = text.find(style) else {
                let line = line_of(&text, style_offset(&text));
                return Err(vec![format!("{name}:{line}: a <style> element must not depend on a variable")]);
            };
            styles.insert(style_hash(&text[start..start + style.len()]));
        }
        if index == 0
            && let Some(cause) = missing_form(page, &html)
        {
            return Err(vec![format!("{name}: {cause}")]);
        }
    }
    Ok(Template { name: name.to_owned(), policy: policy(&styles) })
}

/// What a page cannot do without, in the sample that has everything.
fn missing_form(page: Page, html: &str) -> Option<&'static str> {
    let has_form = html.contains("<form") && html.contains("sample-action");
    let has_field = html.contains("sample-field") && html.contains("sample-value");
    match page {
        Page::ConfirmSignOut if !has_form => {
            Some("has no form that POSTs to action_url, so that nobody could sign out")
        }
        Page::SendForm if !(has_form && has_field) => Some(
            "has no form that POSTs to action_url with a hidden field field_name of the value field_value, so that nothing \
             could be sent",
        ),
        _ => None,
    }
}

/// `{% autoescape %}` would switch off what must stay on.
fn refused_constructs(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (start, _) in text.match_indices("{%") {
        let block = text[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if block.starts_with("autoescape") {
            problems.push(format!(
                "{name}:{}: autoescape can't be changed, values are always escaped",
                line_of(text, start)
            ));
        }
    }
    problems
}

/// Also those in branches that the samples do not reach.
fn unknown_variables(environment: &Environment<'static>, name: &str, text: &str) -> Vec<String> {
    let Ok(template) = environment.get_template(name) else { return Vec::new() };
    let used: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
    let is_known =
        |variable: &str| VARIABLES.contains(&variable) || environment.globals().any(|(global, _)| global == variable);
    let mut problems = Vec::new();
    for variable in used.iter().filter(|variable| !is_known(variable)) {
        let line = line_of(text, word_offset(text, variable));
        let mut message = format!("{name}:{line}: {variable} is not a variable of this page");
        let nearest = VARIABLES
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, variable).total_cmp(&strsim::jaro_winkler(b, variable)));
        // Writing to a String can't fail.
        let _ = match nearest.filter(|nearest| strsim::jaro_winkler(nearest, variable) > 0.85) {
            Some(nearest) => write!(message, "; did you mean {nearest}?"),
            None => write!(message, " (there are {})", VARIABLES.join(", ")),
        };
        problems.push(message);
    }
    problems
}

/// With everything, with a form, with as little as possible.
fn samples(choices: &[Choice]) -> [PageContext<'_>; 3] {
    let full = PageContext {
        status: 403,
        title: "Sample title",
        message: "Sample message.",
        advice: "Sample advice.",
        request_id: "sample-id",
        action_url: Some("/sample-action"),
        action_label: Some("Sample label"),
        action_post: true,
        field_name: Some("sample-field"),
        field_value: Some("sample-value"),
        other_url: Some("/sample-other"),
        other_label: Some("Sample other label"),
        choices,
        email_url: Some("/sample-login"),
        email_rd: Some("/sample"),
    };
    let link = PageContext { status: 200, action_post: false, ..full.clone() };
    let none = PageContext { action_url: None, action_label: None, other_url: None, other_label: None, ..link.clone() };
    let none = PageContext { choices: &[], email_url: None, email_rd: None, ..none };
    let bare = PageContext { status: 502, advice: "", ..none };
    [full, link, bare]
}

fn render(environment: &Environment<'_>, name: &str, context: &PageContext<'_>) -> Result<String, minijinja::Error> {
    environment.get_template(name)?.render(Serde(context))
}

fn located(name: &str, error: &minijinja::Error) -> String {
    let mut message = match error.line() {
        Some(line) => format!("{name}:{line}: {}", error.kind()),
        None => format!("{name}: {}", error.kind()),
    };
    if let Some(detail) = error.detail() {
        // Writing to a String can't fail.
        let _ = write!(message, ": {detail}");
    }
    message
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Where `word` stands alone for the first time inside `{{` or `{%`; the beginning where that can't be told.
fn word_offset(text: &str, word: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(start, _)| start)
        .find(|&start| {
            let before = &text[..start];
            let is_inside = before
                .rfind(['{', '}'])
                .is_some_and(|brace| before[..brace].ends_with('{') || before[brace..].starts_with("{%"));
            is_inside && !before.ends_with(is_part) && !text[start + word.len()..].starts_with(is_part)
        })
        .unwrap_or(0)
}

/// The contents of the `<style>` elements.
fn style_elements(html: &str) -> Vec<&str> {
    // ASCII lower case keeps every offset.
    let lower = html.to_ascii_lowercase();
    let mut elements = Vec::new();
    let mut from = 0;
    while let Some(start) = lower[from..].find("<style").map(|at| from + at) {
        let name_end = start + "<style".len();
        from = name_end;
        let is_style = lower[name_end..].starts_with(|c: char| c == '>' || c == '/' || c.is_ascii_whitespace());
        let Some(open) = lower[name_end..].find('>').filter(|_| is_style).map(|at| name_end + at + 1) else { continue };
        let Some(close) = lower[open..].find("</style").map(|at| open + at) else { break };
        elements.push(&html[open..close]);
        from = close;
    }
    elements
}

/// Of the first style element with a template expression inside; the first style element, else.
fn style_offset(text: &str) -> usize {
    let start = |style: &str| style.as_ptr() as usize - text.as_ptr() as usize;
    let elements = style_elements(text);
    let dynamic = elements.iter().find(|style| style.contains("{{") || style.contains("{%") || style.contains("{#"));
    dynamic.or(elements.first()).map_or(0, |style| start(style))
}

/// CSP3 §8.4: of the element's text, in which the HTML parser has turned CR LF and CR into LF.
fn style_hash(style: &str) -> String {
    let text = style.replace("\r\n", "\n").replace('\r', "\n");
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

fn policy(styles: &BTreeSet<String>) -> String {
    let mut policy = "default-src 'none'".to_owned();
    if !styles.is_empty() {
        policy.push_str("; style-src");
        for hash in styles {
            policy.push(' ');
            policy.push_str(hash);
        }
    }
    policy.push_str("; img-src data:; base-uri 'none'; frame-ancestors 'none'");
    policy
}
