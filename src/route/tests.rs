//! Tables and laws for [`Routes`].

use proptest::prelude::*;

use super::*;

fn route(path: &str, access: Access) -> Route {
    Route { name: path.to_owned(), path: Some(path.to_owned()), access, ..Route::default() }
}

fn for_role(path: &str, role: &str) -> Route {
    let require = Require { roles: vec![role.to_owned()], ..Require::default() };
    Route { require, ..route(path, Access::Required) }
}

fn settings(routes: Vec<Route>) -> Settings {
    let endpoint = |endpoint, path: &str| (endpoint, path.to_owned());
    Settings {
        hosts: Vec::new(),
        routes,
        prefix: "/auth".to_owned(),
        endpoints: vec![
            endpoint(Endpoint::Login, "/auth/login"),
            endpoint(Endpoint::Callback(0), "/oidc/callback"),
            endpoint(Endpoint::Logout, "/auth/logout"),
        ],
        max_body: None,
        canonical: Canonical::default(),
    }
}

fn routes(list: Vec<Route>) -> Routes {
    Routes::new(settings(list)).unwrap()
}

/// `public NAME`, `guarded NAME`, `ours`, an endpoint, or the error.
fn told(routes: &Routes, host: &str, method: &str, path: &str) -> String {
    let Ok(path) = RequestPath::parse(path) else { return "refused".to_owned() };
    match routes.resolve_parts(host, &method.parse().unwrap(), &path) {
        Ok(Target::Public(public)) => format!("public {}", public.route().name),
        Ok(Target::Guarded(guarded)) => format!("guarded {}", guarded.route().name),
        Ok(Target::Elsewhere(elsewhere)) => format!("{elsewhere:?}"),
        Ok(Target::NoEndpoint) => "ours".to_owned(),
        Ok(Target::Endpoint(Endpoint::Callback(_))) => "Callback".to_owned(),
        Ok(Target::Endpoint(endpoint)) => format!("{endpoint:?}"),
        Err(RouteError::AmbiguousPath) => "ambiguous".to_owned(),
        Err(RouteError::UnlistedHost) => "unlisted".to_owned(),
    }
}

fn check(routes: &Routes, table: &[(&str, &str)]) {
    for (path, wanted) in table {
        assert_eq!(told(routes, "a", "GET", path), *wanted, "{path}");
    }
}

#[test]
fn without_routes_everything_is_guarded() {
    check(&routes(vec![]), &[("/", "guarded default"), ("/x;y//z%2f", "guarded default")]);
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let list = vec![
        route("/*", Access::Optional),
        route("/x/*", Access::Required),
        route("/x/{id}", Access::Optional),
        route("/x/open", Access::Public),
        Route { name: "post".to_owned(), methods: vec![Method::POST], ..route("/x/open", Access::Required) },
        Route { name: "host".to_owned(), host: Some("B.".to_owned()), ..route("/*", Access::Optional) },
    ];
    let reversed: Vec<Route> = list.iter().rev().cloned().collect();
    for routes in [routes(list), routes(reversed)] {
        check(
            &routes,
            &[
                ("/", "guarded /*"),
                ("/x", "guarded /x/*"),
                ("/x/", "guarded /x/*"),
                ("/x/1", "guarded /x/{id}"),
                ("/x/1/2", "guarded /x/*"),
                ("/x/open", "public /x/open"),
                ("/x/open/1", "guarded /x/*"),
            ],
        );
        assert_eq!(told(&routes, "a", "POST", "/x/open"), "guarded post");
        assert_eq!(told(&routes, "b", "POST", "/x/open"), "guarded host");
    }
}

#[test]
fn get_covers_head_and_nothing_else() {
    let routes = routes(vec![Route { methods: vec![Method::GET], ..route("/x", Access::Public) }]);
    for (method, wanted) in
        [("GET", "public /x"), ("HEAD", "public /x"), ("POST", "guarded default"), ("get", "guarded default")]
    {
        assert_eq!(told(&routes, "a", method, "/x"), wanted, "{method}");
    }
}

#[test]
fn a_method_in_another_case_meets_the_rule_that_demands_more() {
    let admin = Route { methods: vec![Method::POST], ..for_role("/x", "admin") };
    let routes = routes(vec![admin, Route { name: "any".to_owned(), ..route("/x", Access::Required) }]);
    for (method, wanted) in [("POST", "guarded /x"), ("post", "guarded /x"), ("GET", "guarded any")] {
        assert_eq!(told(&routes, "a", method, "/x"), wanted, "{method}");
    }
}

#[test]
fn public_matches_bytes_exactly() {
    check(
        &routes(vec![
            route("/public/*", Access::Public),
            route("/health", Access::Public),
            for_role("/admin/*", "admin"),
        ]),
        &[
            ("/public", "public /public/*"),
            ("/public/", "public /public/*"),
            ("/public/%41;x=1//y", "public /public/*"),
            ("/health", "public /health"),
            ("/health/", "guarded default"),
            ("/healthx", "guarded default"),
            ("/Health", "guarded default"),
            ("/%68ealth", "guarded default"),
            ("/health;x", "guarded default"),
            ("//health", "guarded default"),
            ("//public/x", "guarded default"),
            ("/publi%63/x", "guarded default"),
            ("/public%2fx", "guarded default"),
            ("/public;x/y", "guarded default"),
            ("/admin/health", "guarded /admin/*"),
            ("/secret%23/public/x", "guarded default"),
            ("/public/../admin", "refused"),
            ("/public/..;/admin", "refused"),
            ("/public/%2e%2e%2fadmin", "refused"),
        ],
    );
}

#[test]
fn a_rule_that_demands_more_wins_on_lenient_readings() {
    check(
        &routes(vec![
            for_role("/admin/*", "admin"),
            for_role("/team/*", "team"),
            for_role("/team/admin/*", "admin"),
            for_role("/exact", "admin"),
            route("/static/*", Access::Public),
            route("/static/private/*", Access::Required),
            route("/admin/health", Access::Public),
            route("/admin/help", Access::Optional),
        ]),
        &[
            ("/Admin", "guarded /admin/*"),
            ("/ADMIN/x", "guarded /admin/*"),
            ("/admin/", "guarded /admin/*"),
            ("//admin/x", "guarded /admin/*"),
            ("//Admin", "guarded /admin/*"),
            ("/admin;x=1/y", "guarded /admin/*"),
            ("/;x/admin", "guarded /admin/*"),
            ("/%41dmin", "guarded /admin/*"),
            ("/adm%C4%B1n", "guarded /admin/*"),
            ("/exact/", "guarded /exact"),
            ("/exact/x", "guarded default"),
            ("/Team/Admin/x", "guarded /team/admin/*"),
            ("/team/ADMIN", "guarded /team/admin/*"),
            ("/team/x", "guarded /team/*"),
            ("/static/Private/x", "guarded /static/private/*"),
            ("/static//private/x", "guarded /static/private/*"),
            ("/static/x", "public /static/*"),
            ("/admin/health", "public /admin/health"),
            ("/admin/Health", "guarded /admin/*"),
            ("/Admin/health", "guarded /admin/*"),
            ("/admin/help", "guarded /admin/help"),
            ("/ADMIN/HELP", "guarded /admin/*"),
        ],
    );
}

#[test]
fn a_stricter_rule_as_written_is_not_loosened() {
    let both = Require { all_roles: vec!["a".to_owned(), "b".to_owned()], ..Require::default() };
    let strict = Route { require: both, ..route("/a/*", Access::Required) };
    check(
        &routes(vec![strict, for_role("/a/b/*", "a"), route("/a/c", Access::Optional)]),
        &[("/a/B/x", "guarded /a/*"), ("/a/b/x", "guarded /a/b/*"), ("/a/C", "guarded /a/*"), ("/a/c", "guarded /a/c")],
    );
}

#[test]
fn two_routes_that_differ_in_case_are_two_routes() {
    check(
        &routes(vec![route("/Docs", Access::Optional), for_role("/docs", "reader")]),
        &[("/Docs", "guarded /Docs"), ("/docs", "guarded /docs"), ("/DOCS", "guarded /docs")],
    );
}

#[test]
fn readings_that_meet_different_routes_are_refused() {
    check(
        &routes(vec![
            route("/a/*", Access::Optional),
            route("/a%2Db", Access::Optional),
            for_role("/a/b/*", "admin"),
            route("/public/*", Access::Public),
        ]),
        &[
            ("/a%2fb", "ambiguous"),
            ("/a/b%2fc", "ambiguous"),
            ("/a/b/c%2fd", "guarded /a/b/*"),
            ("/a/x%2fy", "guarded /a/*"),
            ("/a;x", "ambiguous"),
            ("/a/x;y", "guarded /a/*"),
            ("//a/x", "ambiguous"),
            ("/a//x", "guarded /a/*"),
            ("/a/%2562/c", "ambiguous"),
            ("/a/%2578/c", "guarded /a/*"),
            ("/a%2db", "guarded /a%2Db"),
            ("/public/%2f%252f;x//", "public /public/*"),
            ("/public%2f..%2fa", "refused"),
        ],
    );
}

#[test]
fn nothing_below_our_prefix_is_forwarded() {
    check(
        &routes(vec![route("/*", Access::Public)]),
        &[
            ("/auth/login", "Login"),
            ("/oidc/callback", "Callback"),
            ("/auth", "ours"),
            ("/auth/", "ours"),
            ("/auth/userinfo", "ours"),
            ("/auth/login/", "ours"),
            ("/AUTH/login", "ours"),
            ("//auth/login", "ours"),
            ("/auth;x/login", "ours"),
            ("/auth/%6cogin", "ours"),
            ("/%61uth/login", "ours"),
            ("/auth/login%2fx", "ours"),
            ("/oidc/callback/", "ours"),
            ("/oidc/Callback", "ours"),
            ("/auth%2flogin", "ambiguous"),
            ("/auth%2Flogin", "ambiguous"),
            ("/oidc", "public /*"),
            ("/oidc/callback/x", "public /*"),
            ("/authors", "public /*"),
            ("/x/auth/login", "public /*"),
        ],
    );
}

#[test]
fn a_prefix_of_nothing_is_not_everything() {
    for prefix in ["", "/"] {
        let settings = Settings { prefix: prefix.to_owned(), ..settings(vec![]) };
        check(&Routes::new(settings).unwrap(), &[("/x", "guarded default"), ("/auth/login", "Login")]);
    }
}

#[test]
fn listed_hosts_alone_are_served() {
    let list = vec![Route { host: Some("API.example.com".to_owned()), ..route("/*", Access::Public) }];
    let listed = Settings { hosts: vec!["App.example.com.".to_owned()], ..settings(list.clone()) };
    let listed = Routes::new(listed).unwrap();
    assert_eq!(told(&listed, "app.example.com", "GET", "/"), "guarded default");
    assert_eq!(told(&listed, "api.example.com", "GET", "/"), "public /*");
    assert_eq!(told(&listed, "evil.example", "GET", "/"), "unlisted");
    assert_eq!(told(&listed, "evil.example", "GET", "/auth/login"), "unlisted");
    assert_eq!(told(&routes(list), "evil.example", "GET", "/"), "guarded default");
}

#[test]
fn every_mistake_is_told_at_once() {
    let with = |methods: &[Method], path: &str| Route { methods: methods.to_vec(), ..route(path, Access::Required) };
    let problems = Routes::new(settings(vec![
        with(&[], "/x/{a}"),
        with(&[], "nope"),
        with(&[], "/x/{b}"),
        with(&[Method::GET], "/x/{c}"),
        with(&[Method::HEAD], "/x/{d}"),
        with(&[Method::POST], "/x/{e}"),
        Route::default(),
        with(&[], "/*"),
        Route { host: Some("A".to_owned()), ..route("/y", Access::Public) },
        Route { host: Some("a.".to_owned()), ..route("/y", Access::Required) },
    ]))
    .unwrap_err();
    let told: Vec<(usize, String)> =
        problems.into_iter().map(|(index, problem)| (index, problem.to_string())).collect();
    let same = |other| format!("the same host, path and method as routes[{other}]");
    assert_eq!(
        told,
        [
            (1, "`nope`: a path pattern starts with `/`".to_owned()),
            (2, same(0)),
            (4, same(3)),
            (7, same(6)),
            (9, same(8)),
        ]
    );
}

#[test]
fn a_host_that_opens_what_is_guarded_everywhere_is_warned_of() {
    let on_host = |route: Route| Route { host: Some("a".to_owned()), ..route };
    let routes = routes(vec![
        on_host(route("/*", Access::Public)),
        for_role("/admin/*", "admin"),
        on_host(for_role("/admin/x", "admin")),
        route("/*", Access::Required),
        on_host(Route { methods: vec![Method::GET], ..route("/admin/y", Access::Required) }),
        Route { methods: vec![Method::POST], ..for_role("/z", "poster") },
        on_host(Route { methods: vec![Method::GET], ..route("/z", Access::Public) }),
    ]);
    let warned: Vec<usize> = routes.warnings().into_iter().map(|(index, _)| index).collect();
    assert_eq!(warned, [0, 0, 4]);
    assert_eq!(routes.warnings()[0].1, "on host a, `/*` lets in whom `/admin/*` (routes[1]) would refuse");
}

#[test]
fn a_rewritten_path_that_another_route_guards_is_warned_of() {
    let rewriting = |path, access, strip: &str, add: &str| Route {
        rewrite: Some(Box::new(Rewrite { strip: strip.to_owned(), add: add.to_owned() })),
        ..route(path, access)
    };
    let routes = routes(vec![
        rewriting("/public/*", Access::Public, "/public", ""),
        rewriting("/public/img/*", Access::Public, "/public", ""),
        rewriting("/tools/*", Access::Required, "/tools", "/admin"),
        Route { upstream: 1, ..rewriting("/other/*", Access::Public, "/other", "") },
        for_role("/admin/*", "admin"),
        rewriting("/staff/*", Access::Required, "/staff", ""),
        Route { require: for_role("", "admin").require, ..rewriting("/root/*", Access::Required, "/root", "") },
    ]);
    let warned: Vec<(usize, String)> = routes.warnings();
    let others: Vec<usize> = warned.iter().map(|(index, _)| *index).collect();
    assert_eq!(others, [0, 0, 0, 0, 1, 1, 2, 2, 5, 5], "{warned:#?}");
    assert_eq!(warned[0].1, "`/public/*`, rewritten, reaches what `/admin/*` (routes[4]) guards");
}

/// A spelling of `path` that some upstream may take for it.
fn respelled(path: &'static str) -> impl Strategy<Value = String> {
    let change = (any::<bool>(), 0..6u8, "[a-z]{0,3}");
    proptest::collection::vec(change, path.len()).prop_map(move |changes| {
        let respell = |(letter, (upper, kind, text)): (char, &(bool, u8, String))| {
            let letter = if *upper { letter.to_ascii_uppercase() } else { letter };
            match (letter, kind) {
                ('/', 0) => "//".to_owned(),
                ('/', 1) => format!(";{text}/"),
                ('/', _) => "/".to_owned(),
                (_, 0) => format!("%{:02x}", letter as u8),
                (_, 1) => format!("%25{:02X}", letter as u8),
                _ => letter.to_string(),
            }
        };
        let spelled: String = path.chars().zip(&changes).map(respell).collect();
        format!("/{}", spelled.trim_start_matches(|c| c != '/').trim_start_matches('/'))
    })
}

proptest! {
    #[test]
    fn no_spelling_of_a_guarded_path_is_public(path in respelled("/admin/users/1"), tail in "[a-z/;]{0,6}") {
        let routes = routes(vec![
            route("/*", Access::Public),
            route("/admin/users/1", Access::Optional),
            for_role("/admin/*", "admin"),
            route("/adminx/*", Access::Public),
        ]);
        for path in [path.clone(), format!("{path}{tail}")] {
            let told = told(&routes, "a", "GET", &path);
            prop_assert!(!told.starts_with("public"), "{} is {}", path, told);
        }
    }

    #[test]
    fn public_never_matches_other_bytes(path in "/[hH]([eE]|%65)(alth|ALTH)[/;.a%]{0,3}|//?health(;x|/|%2f|%20)?") {
        let routes = routes(vec![route("/health", Access::Public)]);
        let told = told(&routes, "a", "GET", &path);
        prop_assert_eq!(told.starts_with("public"), path == "/health", "{} is {}", path, told);
    }

    #[test]
    fn every_path_meets_one_target_or_is_refused(path in "/([a-z/;.A%]|%2f|%25|%61){0,12}") {
        let routes = routes(vec![
            for_role("/a/*", "a"), route("/a/{b}", Access::Public), route("/{x}/a", Access::Optional), route("/", Access::Public),
        ]);
        told(&routes, "a", "GET", &path);
    }
}
