//! Where requests come in, and how many.

use super::*;

#[test]
fn rate_limits_are_checked() {
    for (line, why) in [
        ("rate_limit = { per = \"user\", rate = \"1/s\" }\naccess = \"public\"", "contradicts access = \"public\""),
        ("rate_limit = { per = \"client\" }", "lacks the key \"rate\""),
        ("rate_limit = { rate = \"1/s\" }", "lacks the key \"per\""),
        ("rate_limit = { per = \"session\", rate = \"1/s\" }", "session"),
        ("rate_limit = { per = \"client\", rate = \"1/day\" }", "not a number per s, min or h"),
        ("rate_limit = { per = \"client\", rate = \"1/s\", burst = 0 }", "write a number from 1"),
    ] {
        let text = errors(&[("routes", &format!("path = \"/x\"\n{line}\n"))]);
        assert!(text.contains(why), "{line}: {text}");
    }
}

#[test]
fn the_server_is_checked() {
    for (section, line, why) in [
        ("", "admin_listen = \"0.0.0.0:8080\"\n", "is the address of another listener"),
        ("", "admin_token = \"admin\"\n", "is too short: 5 bytes, at least 32 are needed"),
        (
            "",
            "admin_token = \"k7Rw2vXq9LmTz4Nc Yb8HfJd3GsPa6Ue1Bn5\"\n",
            "holds what no Authorization header can carry",
        ),
        ("", "admin_token = \"a\"\nadmin_token_file = \"b\"\n", "says again what admin_token does already"),
        ("", "admin_token_file = \"/nowhere/token\"\n", "cannot be read"),
        ("", "admin_token = \"k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1\"\n", "is a secret that is used for something else too"),
        (
            "",
            "admin_listen = \"off\"\nadmin_token = \"k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1\"\n",
            "is for the admin listener, which is off",
        ),
        ("", "listen = \"localhost\"\n", "is \"localhost\", not an address and port"),
        ("", "trusted_proxies = [\"10.0.0.0/40\"]\n", "not a network or an address"),
        ("", "return_origins = [\"www.example.com\"]\n", "no origin"),
        ("limits", "max_header_bytes = \"1KiB\"", "is out of range"),
        ("limits", "max_headers = 1", "write a number from 10 to 1000"),
        ("limits", "h2_max_streams = 0", "write a number from 1 to 1000"),
        ("limits", "idle_timeout = \"0s\"", "is zero"),
        ("limits", "unread_timeout = \"0s\"", "is zero"),
        ("limits", "max_uri_bytes = \"1KiB\"", "write a size from 2KiB to 60KiB"),
        ("limits", "max_body = \"much\"", "not a size with a unit, or \"off\""),
        ("limits", "min_body_rate = \"0B\"", "is zero"),
        ("limits", "min_body_rate = \"off\"\nbody_grace = \"9s\"", "has no meaning beside min_body_rate"),
        ("limits", "max_connections = 9\nmax_connections_per_client = 10", "so it bounds nothing"),
        ("limits", "max_requests_per_connection = 0", "write a number from 1"),
        ("limits", "sign_in_rate = \"10\"", "not a number per s, min or h, or \"off\""),
        ("limits", "sign_in_rate = \"off\"\nsign_in_burst = 9", "has no meaning beside sign_in_rate"),
        ("log", "level = \"inf\"", "did you mean \"info\"?"),
        ("log", "level = \"vestibule=loud\"", "no filter directive"),
    ] {
        let text = errors(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
    for (section, line, why) in [
        ("drain", "timeout = \"25s\"", "30 s or more"),
        ("", "trusted_proxies = [\"0.0.0.0/0\"]\n", "trusts every address"),
        (
            "",
            "admin_listen = \"0.0.0.0:9090\"\nadmin_token = \"t0kEn-Wq8_Zr5mXv2Ky7Lb4Nc9Hd3Gs6Pf1Ja\"\n",
            "crosses the network unencrypted",
        ),
    ] {
        let text = warnings(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
    let settings = settings(&[
        ("", "admin_listen = \"off\"\nworkers = 3\ntrusted_proxies = [\"10.1.2.3\"]\n"),
        ("limits", "max_header_bytes = \"64KiB\""),
    ]);
    assert_eq!(settings.admin.listen, None);
    assert_eq!(settings.server.workers.get(), 3);
    assert_eq!(settings.server.max_header_bytes, 65536);
    assert_eq!(settings.message.trusted_proxies[0].to_string(), "10.1.2.3/32");
}

#[test]
fn listeners_and_their_tls_are_checked() {
    let at = |toml: &str| toml.replace("@", &format!("{}/", tls_files().display()));
    let good = at("certificate_file = \"@tls.crt\"\nkey_file = \"@tls.key\"\n");
    for (section, line, why) in [
        ("[listeners]", "address = \"localhost:80\"", "not an address and port, or unix: and a path"),
        ("[listeners]", "address = \"unix:\"", "not an address and port, or unix: and a path"),
        ("[listeners]", "mode = \"0660\"", "lacks the key \"address\""),
        ("[listeners]", "address = \"127.0.0.1:81\"\nmode = \"0660\"", "and this is none"),
        ("[listeners]", "address = \"unix:/a\"\nmode = \"rw\"", "no file permissions"),
        ("[listeners]", "address = \"unix:/a\"\nmode = \"4755\"", "no file permissions"),
        ("[listeners]", "address = \"127.0.0.1:81\"\ntls = true", "there is no [tls] section"),
        ("[listeners]", "address = \"127.0.0.1:81\"\nproxy_protocol_from = [\"x\"]", "not a network or an address"),
        (
            "[listeners]",
            "address = \"127.0.0.1:81\"\n[[listeners]]\naddress = \"127.0.0.1:81\"",
            "where another listener is",
        ),
        (
            "[listeners]",
            "address = \"127.0.0.1:81\"\n[listeners.tls]\nkey_file = \"@tls.key\"",
            "listeners[0].tls.certificate_file is missing",
        ),
        ("tls", "key_file = \"@tls.key\"", "tls.certificate_file is missing"),
        ("tls", "certificate_file = \"@none\"\nkey_file = \"@tls.key\"", "cannot be read"),
        ("tls", "certificate_file = \"@empty\"\nkey_file = \"@tls.key\"", "holds no certificate"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@empty\"", "holds no private key"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@other.key\"", "is not the key of"),
        ("tls", "GOODmin_version = \"1.1\"", "did you mean \"1.2\"?"),
        ("tls", "GOODclient_certificate = \"required\"", "nothing says who signs them"),
        ("tls", "GOODclient_ca_file = \"@none\"", "tls.client_ca_file names"),
        ("tls", "GOODclient_crl_file = \"@clients.crl\"", "tls.client_crl_file tells of revoked client certificates"),
        (
            "tls",
            "GOODclient_ca_file = \"@clients.crt\"\nclient_crl_file = \"@tls.crt\"",
            "holds no list of revoked certificates",
        ),
        (
            "tls",
            "GOOD[[tls.certificates]]\ncertificate_file = \"@tls.crt\"\nkey_file = \"@other.key\"",
            "tls.certificates[0].key_file",
        ),
        (
            "identity.headers",
            "\"X-Subject\" = \"client_certificate_subject\"",
            "identity.headers.X-Subject is filled from client certificates, and no listener asks",
        ),
    ] {
        let text = errors(&[(section, &at(&line.replace("GOOD", &good)))]);
        assert!(text.contains(why), "{line}: {text}");
    }
    for (section, line, why) in [
        ("tls", "certificate_file = \"@expired.crt\"\nkey_file = \"@tls.key\"", "has expired"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@open.key\"", "can be read by every user"),
        ("[listeners]", "address = \"127.0.0.1:81\"\nproxy_protocol_from = [\"::/0\"]", "trusts every address"),
        ("[listeners]", "address = \"127.0.0.1:81\"\ntls = false\n[tls]\nGOOD", "is used by no listener"),
    ] {
        let loaded = read(&Sources::toml(&with(&[(section, &at(&line.replace("GOOD", &good)))]))).unwrap();
        assert!(all(&loaded.warnings).contains(why), "{line}: {}", all(&loaded.warnings));
    }
}

#[cfg(feature = "acme")]
#[test]
fn an_external_account_is_a_key_with_its_name() {
    let folder = Folder::new();
    let (good, bad) = (folder.file("good", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajV\n"), folder.file("bad", "no base64!"));
    for (lines, why) in [
        ("eab_key_id = \"kid-1\"".to_owned(), "tls.acme.eab_hmac_key_file is missing"),
        (format!("eab_hmac_key_file = {good:?}"), "tls.acme.eab_key_id is missing"),
        (format!("eab_key_id = \"kid-1\"\neab_hmac_key_file = {bad:?}"), "not base64url"),
    ] {
        let text = errors(&[("tls.acme", &lines)]);
        assert!(text.contains(why) && !text.contains("no base64!"), "{lines}: {text}");
    }
    let sound = errors(&[("tls.acme", &format!("eab_key_id = \"kid-1\"\neab_hmac_key_file = {good:?}"))]);
    assert!(!sound.contains("eab_"), "{sound}");
}

#[test]
fn forms_are_kept_within_bounds() {
    for (line, why) in [
        ("keep_posts = \"0B\"", "session.keep_posts is out of range"),
        ("keep_posts = \"9MiB\"", "write a size up to 8MiB"),
        ("store = \"sqlite:/tmp/x.db\"\nkeep_posts = \"513KiB\"", "larger than what a session store keeps of one form"),
        ("keep_posts = \"64KiB\"\nkeep_posts_total = \"64KiB\"", "leaves no room for a single form"),
        ("keep_posts = \"64KiB\"\nkeep_posts_for = \"30s\"", "from \"1m\" to \"12h\""),
        ("keep_posts = \"64KiB\"\nkeep_posts_for = \"13h\"", "from \"1m\" to \"12h\""),
        ("keep_posts_total = \"1MiB\"", "has no meaning without session.keep_posts"),
        ("keep_posts_for = \"5m\"", "has no meaning without session.keep_posts"),
        ("keep_posts = \"off\"", "a size with a unit"),
    ] {
        let text = errors(&[("session", line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(text.matches("error: ").count(), 1, "{line}: {text}");
    }
    let text = errors(&[("session", "keep_posts = \"64KiB\""), ("endpoints", "kept_post = false")]);
    assert!(text.contains("endpoints.kept_post switches off where forms"), "{text}");
}
