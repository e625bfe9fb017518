//! Looks at the files every few seconds and takes in what changed.

use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::{Tls, build};
use crate::files::Settled;

/// The reloading of every listener's TLS.
#[derive(Debug)]
pub(in crate::server) struct Reload {
    watched: Vec<Watched>,
    every: Duration,
}

#[derive(Debug)]
struct Watched {
    tls: Arc<Tls>,
    settled: Settled,
}

impl Reload {
    pub(in crate::server) fn new(tls: impl IntoIterator<Item = Arc<Tls>>, every: Duration) -> Self {
        let watched = tls.into_iter().map(|tls| Watched { settled: Settled::new(tls.first), tls });
        Self { watched: watched.collect(), every }
    }

    /// Never ends, unless there is nothing to look at.
    pub(in crate::server) async fn run(self) {
        let Self { mut watched, every } = self;
        while !watched.is_empty() {
            tokio::time::sleep(every).await;
            let looked = tokio::task::spawn_blocking(move || {
                watched.iter_mut().for_each(Watched::look);
                watched
            });
            // A panic in there ends the watch; the certificates in use stay.
            let Ok(back) = looked.await else { return };
            watched = back;
        }
    }
}

impl Watched {
    fn look(&mut self) {
        let files = Files::read(&self.tls.settings);
        let digest = files.digest();
        if self.settled.still(digest) {
            return;
        }
        match build(&self.tls.settings, &files) {
            Ok(built) => {
                tracing::info!(
                    expires_at = built.expires_at(),
                    "certificates reloaded: new connections get the new ones"
                );
                self.tls.replace(built);
                self.settled.took(digest);
            }
            Err(problems) if self.settled.failed(digest) => {
                for problem in problems {
                    tracing::error!(
                        file = %problem.file.display(), fix = problem.fix,
                        "certificates not reloaded, those in use stay: the file {}", problem.what
                    );
                }
            }
            Err(_) => {}
        }
    }
}
