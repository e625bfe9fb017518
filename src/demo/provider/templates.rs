//! What is inside of `<main>` on the provider's pages. Every value is escaped by the renderer.

pub(super) const SIGN_IN: &str = r#"<div class="narrow">
<h1>{{ title }}</h1>
<p class="soft">This provider runs inside <code>vestibule demo</code>. There are no passwords: choose who you are.</p>
<form method="post" action="/authorize">
{% for name, value in hidden %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}{% for person in people %}<button class="person" name="user" value="{{ person.login }}">
<strong>{{ person.name }} ({{ person.login }})</strong><span class="soft">{{ person.about }}</span></button>
{% endfor %}<button class="quiet" name="user" value="nobody">Go back without signing in</button>
</form>
</div>"#;

pub(super) const SIGN_OUT: &str = r#"<div class="narrow">
<h1>{{ title }}</h1>
<p>Do you want to sign out of the demo's provider too?</p>
<form method="post" action="/end_session">
{% for name, value in hidden %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}<button class="person" name="confirm" value="yes"><strong>Sign out</strong></button>
</form>
<p><a href="{{ back }}">Back to the application</a></p>
</div>"#;

pub(super) const SIGNED_OUT: &str = r#"<div class="narrow">
<h1>{{ title }}</h1>
<p>You are signed out of the demo's provider.</p>
<p><a href="{{ back }}">Back to the application</a></p>
</div>"#;

pub(super) const REFUSED: &str = r#"<div class="narrow">
<h1>{{ title }}</h1>
<p>{{ what }}</p>
<p><a href="{{ back }}">Back to the application</a></p>
</div>"#;

pub(super) const HOME: &str = r#"<div class="narrow">
<h1>{{ title }}</h1>
<p>It exists while <code>vestibule demo</code> runs. Look at its
<a href="/.well-known/openid-configuration">metadata</a> and <a href="/jwks">keys</a>, or go
<a href="{{ back }}">back to the application</a>.</p>
</div>"#;
