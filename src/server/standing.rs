//! Whether a client would still be let in: its certificate is judged anew whenever those who sign the certificates of clients
//! change, so that nobody stays on an old connection who would not get a new one.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

/// Who judges certificates of clients at the moment.
pub(super) type Judge = Arc<dyn ClientCertVerifier>;

/// What a connection's client was let in for.
pub(super) struct Standing {
    lost: bool,
    losing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Standing {
    /// Of a client that was let in without a certificate.
    pub(super) fn lasting() -> Self {
        Self { lost: false, losing: None }
    }

    /// Of a client that has shown `chain`, its own certificate first.
    pub(super) fn by_certificate(chain: Vec<CertificateDer<'static>>, judge: watch::Receiver<Judge>) -> Self {
        Self { lost: false, losing: Some(Box::pin(until_refused(chain, judge))) }
    }

    /// Whether the client would be refused now; the task is woken when that becomes so.
    pub(super) fn is_lost(&mut self, cx: &mut Context<'_>) -> bool {
        if self.losing.as_mut().is_some_and(|losing| losing.as_mut().poll(cx).is_ready()) {
            (self.lost, self.losing) = (true, None);
        }
        self.lost
    }
}

async fn until_refused(chain: Vec<CertificateDer<'static>>, mut judge: watch::Receiver<Judge>) {
    while judge.changed().await.is_ok() {
        if refuses(&mut judge, &chain) {
            return;
        }
    }
    // Nobody changes them any more: the process ends.
    std::future::pending().await
}

/// The same for what outlives the connection's HTTP: a tunnel, or an answer that does not end. To be asked again and again;
/// whatever has not changed costs a look.
pub(super) fn is_refused(
    chain: Vec<CertificateDer<'static>>,
    judge: Option<watch::Receiver<Judge>>,
) -> impl Fn() -> bool + Send + Sync {
    let state = Mutex::new((false, judge));
    move || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_lost, judge) = &mut *state;
        if let Some(judge) = judge.as_mut().filter(|judge| !*is_lost && judge.has_changed().unwrap_or(false)) {
            *is_lost = refuses(judge, &chain);
        }
        *is_lost
    }
}

fn refuses(judge: &mut watch::Receiver<Judge>, chain: &[CertificateDer<'static>]) -> bool {
    let judge = Arc::clone(&judge.borrow_and_update());
    chain.split_first().is_none_or(|(leaf, rest)| judge.verify_client_cert(leaf, rest, UnixTime::now()).is_err())
}
