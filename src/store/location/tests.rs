use super::*;

fn parse(text: &str) -> Result<Location, Vec<LocationProblem>> {
    Location::parse(text, Path::new("/etc/vestibule"))
}

fn redis(text: &str) -> Redis {
    match parse(text) {
        Ok(Location::Redis(redis)) => redis,
        other => panic!("{text}: {other:?}"),
    }
}

fn postgres(text: &str) -> Postgres {
    match parse(text) {
        Ok(Location::Postgres(postgres)) => postgres,
        other => panic!("{text}: {other:?}"),
    }
}

fn server(host: &str, port: u16) -> Server {
    Server { host: host.to_owned(), port }
}

#[test]
fn every_form_of_redis_is_read() {
    let one = redis("redis://127.0.0.1");
    assert_eq!((one.servers, one.together, one.tls), (vec![server("127.0.0.1", 6379)], Together::Single, false));
    assert_eq!((one.database, one.prefix.as_str()), (0, "vestibule"));
    let one = redis("rediss://ada:s%40cret%2F@[::1]:7000/3?ca_file=ca.pem&prefix=app-1");
    assert_eq!((one.servers, one.tls, one.database), (vec![server("::1", 7000)], true, 3));
    assert_eq!(one.user.as_deref(), Some("ada"));
    assert_eq!(one.password.unwrap().expose_secret(), "s@cret/");
    assert_eq!((one.ca_file.unwrap().to_str(), one.prefix.as_str()), (Some("/etc/vestibule/ca.pem"), "app-1"));
    let one = redis("redis://:only@r");
    assert_eq!((one.user, one.password.unwrap().expose_secret()), (None, "only"));
    let cluster = redis("rediss+cluster://a:7000,b,c:7002");
    assert_eq!(cluster.servers, [server("a", 7000), server("b", 6379), server("c", 7002)]);
    assert_eq!((cluster.together, cluster.tls), (Together::Cluster, true));
    let sentinel = redis("redis+sentinel://u:p@a,b:26380/mymaster/2?sentinel_password=q&sentinel_user=s");
    assert_eq!(sentinel.servers, [server("a", 26379), server("b", 26380)]);
    assert_eq!(sentinel.together, Together::Sentinel("mymaster".to_owned()));
    assert_eq!((sentinel.database, sentinel.sentinel_user.as_deref()), (2, Some("s")));
}

#[test]
fn every_form_of_sql_is_read() {
    for (text, path) in [
        ("sqlite:/var/lib/a.db", "/var/lib/a.db"),
        ("sqlite:///var/lib/a.db", "/var/lib/a.db"),
        ("sqlite:a.db", "/etc/vestibule/a.db"),
    ] {
        assert!(matches!(parse(text), Ok(Location::Sqlite(file)) if file == Path::new(path)), "{text}");
    }
    let near = postgres("postgres://ada@localhost/db");
    assert_eq!(
        (near.server, near.ssl, near.database.as_str()),
        (Some(server("localhost", 5432)), SslMode::Disable, "db")
    );
    let far = postgres("postgresql://ada:p%3Aw@db.example:6543/db?sslrootcert=/ca.pem");
    assert_eq!((far.ssl, far.password.unwrap().expose_secret()), (SslMode::VerifyFull, "p:w"));
    assert_eq!(postgres("postgres://ada@db.example/db").ssl, SslMode::VerifyFull, "nothing has to be said for it");
    assert_eq!(postgres("postgres://ada@db.example/db?sslmode=disable").ssl, SslMode::Disable);
    let socket = postgres("postgres://ada@/db?host=/run/postgresql");
    assert_eq!((socket.server, socket.socket.unwrap().to_str()), (None, Some("/run/postgresql")));
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_none_of_what_was_written() {
    for (text, expected) in [
        ("cookies", &["is no session store"][..]),
        ("mysql://u:hunter2@h/d", &["is no session store"]),
        ("postgres+cluster://u:hunter2@h/d", &["is no session store"]),
        ("redis:hunter2", &["lacks the // after the scheme"]),
        ("redis://", &["names no host"]),
        (
            "redis://a,b/hunter2?ca_file=x",
            &["names several hosts", "database that is no number", "ca_file without TLS"],
        ),
        ("redis://u:hunter2#x@h?hunter2=1", &["has a # in it", "a parameter that means nothing"]),
        ("redis://u:hunter@2@h", &["has an @ in"]),
        ("redis://u:hunter2%zz@h", &["has a % that begins no character"]),
        ("redis://u:hunter2/h", &["port that is none", "database that is no number"]),
        ("redis+cluster://h/1?prefix=a&prefix=b", &["a cluster has only one", "a parameter twice"]),
        ("redis+sentinel://h?prefix=hunter2*", &["names no master", "a prefix that is no name"]),
        ("redis://h?sentinel_password=hunter2", &["a password for Sentinels"]),
        (
            "postgres://a,b/?sslmode=prefer",
            &["names several hosts", "another sslmode", "names no user", "names no database"],
        ),
        ("postgres://u@h/d?sslrootcert=x&sslmode=require", &["does not look at it"]),
        ("postgres://u@h/d?host=/run", &["names its host twice"]),
        ("sqlite:", &["names no file"]),
        ("sqlite::memory:", &["would forget every session"]),
        ("sqlite:/a.db?mode=hunter2", &["more than the name of a file"]),
    ] {
        let problems = parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
        for part in expected {
            assert!(problems.iter().any(|problem| problem.what.contains(part)), "{text}: {part}: {problems:?}");
        }
        assert_eq!(problems.len(), expected.len(), "{text}: {problems:?}");
        assert!(!format!("{problems:?}").contains("hunter"), "{text}");
    }
    let shown = format!("{:?}", parse("redis://u:hunter2@h?prefix=a").unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

mod laws {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_refused(text in "(redis|rediss\\+cluster|redis\\+sentinel|postgres|sqlite):(//)?\\PC{0,40}") {
            let _ = super::parse(&text);
        }
    }
}
