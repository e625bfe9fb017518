//! A caching nginx in front, with everything it needs to cache too much: nobody sees what was meant for somebody else.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::{Browser, Stage, free_port, json};

/// A stock nginx that caches whatever it is allowed to; gone, with its files, when dropped.
struct Cache {
    process: Child,
    place: PathBuf,
}

impl Cache {
    fn in_front_of(origin: SocketAddr, port: u16) -> Self {
        let place = std::env::temp_dir().join(format!("vestibule-cache-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a folder for nginx");
        let folder = place.display();
        // Everything but the cache is as installed: the buffers above all.
        let configuration = format!(
            "user root;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/fastcgi;\n\
             uwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n\
             proxy_cache_path {folder}/cache keys_zone=all:1m;\n\
             server {{ listen 127.0.0.1:{port};\n\
             location / {{ proxy_pass http://{origin}; proxy_set_header Host $http_host; proxy_cache all;\n\
             proxy_cache_valid any 10m; add_header X-Cache $upstream_cache_status always; }} }} }}\n"
        );
        let file = place.join("nginx.conf");
        std::fs::write(&file, configuration).expect("a configuration for nginx");
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-g", "daemon off;", "-p"])
            .arg(&place)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx, which tests/run installs");
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, place }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its worker along.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

#[tokio::test]
async fn a_caching_nginx_in_front_mixes_no_two_people_up() {
    let port = free_port();
    let stage = Stage::builder()
        .toml(
            "[[routes]]\npath = \"/respond\"\naccess = \"optional\"\n[[routes]]\npath = \"/maybe\"\naccess = \"optional\"\n\
             [[routes]]\npath = \"/admin\"\nrequire = { roles = [\"admin\"] }\n[[routes]]\npath = \"/public\"\naccess = \"public\"",
        )
        .public_port(port)
        .start();
    let _cache = Cache::in_front_of(stage.address(), port);
    let cache = SocketAddr::from(([127, 0, 0, 1], port));
    let browser = || {
        let browser = stage.browser();
        browser.connect(&stage.origin(), cache);
        browser
    };
    // The cache does cache, or this shows nothing.
    let (first, second) = (browser().fetch(&stage.url("/public")).await, browser().fetch(&stage.url("/public")).await);
    assert_eq!((first.header("x-cache"), second.header("x-cache")), (Some("MISS"), Some("HIT")));

    let mut people: Vec<(Option<&str>, Browser)> = vec![(None, browser())];
    for (name, roles) in [("ada", json!(["admin"])), ("grace", json!([]))] {
        stage.provider.set_user(json!({ "sub": name, "roles": roles }));
        let person = browser();
        // A page that a stranger has just been sent away from, and the person before has just read.
        let arrived = person.follow(&stage.url("/page"), 8).await;
        assert_eq!(arrived.status, StatusCode::OK, "{}", arrived.text());
        assert_eq!(arrived.echoed("x-forwarded-user").as_deref(), Some(name));
        people.push((Some(name), person));
    }
    for _ in 0..2 {
        for (name, person) in &people {
            let page = person.get(&stage.url("/page")).await;
            match name {
                Some(_) => assert_eq!(page.echoed("x-forwarded-user").as_deref(), *name),
                None => assert_eq!(page.status, StatusCode::FOUND),
            }
            let script = person.fetch(&stage.url("/page")).await;
            assert_eq!(script.status, if name.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
            // Optional: without a word of the application about caching, and with one that lets everybody cache.
            for path in ["/maybe", "/respond?header=cache-control:public,max-age=600"] {
                let reply = person.get(&stage.url(path)).await;
                assert_eq!(reply.echoed("x-forwarded-user").as_deref(), *name, "{path}");
            }
            let admin = person.fetch(&stage.url("/admin")).await.status;
            let expected = match name {
                Some("ada") => StatusCode::OK,
                Some(_) => StatusCode::FORBIDDEN,
                None => StatusCode::UNAUTHORIZED,
            };
            assert_eq!(admin, expected, "{name:?}");
            let told = person.fetch(&stage.url("/auth/userinfo")).await;
            assert_eq!(told.status.is_success(), name.is_some());
            if let Some(name) = name {
                assert_eq!(told.json()["sub"], *name);
            }
        }
    }
}
