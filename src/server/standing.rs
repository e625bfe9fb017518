//! Whether a client would still be let in: its certificate is judged anew whenever those who sign the certificates of clients
//! change, so that nobody stays on an old connection who would not get a new one.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use crate::message::ClientCertificate;

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

    /// Of a client that has shown `certificate`, with whoever judges it.
    pub(super) fn by_certificate(certificate: Arc<ClientCertificate>, mut judges: watch::Receiver<Judge>) -> Self {
        let losing = async move {
            while judges.changed().await.is_ok() {
                if certificate.is_refused() {
                    return;
                }
            }
            // Nobody changes them any more: the process ends.
            std::future::pending().await
        };
        Self { lost: false, losing: Some(Box::pin(losing)) }
    }

    /// Whether the client would be refused now; the task is woken when that becomes so.
    pub(super) fn is_lost(&mut self, cx: &mut Context<'_>) -> bool {
        if self.losing.as_mut().is_some_and(|losing| losing.as_mut().poll(cx).is_ready()) {
            (self.lost, self.losing) = (true, None);
        }
        self.lost
    }
}

/// Tells whether the client that has shown `chain`, its own certificate first, would be refused now. To be asked again and again: where
/// nobody has changed, that costs a look.
pub(super) fn is_refused(
    chain: Vec<CertificateDer<'static>>,
    judges: watch::Receiver<Judge>,
) -> impl Fn() -> bool + Send + Sync {
    let state = Mutex::new((false, judges));
    move || {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_lost, judges) = &mut *state;
        if !*is_lost && judges.has_changed().unwrap_or(false) {
            let judge = Arc::clone(&judges.borrow_and_update());
            let accepts = |(leaf, rest): (&_, &[_])| judge.verify_client_cert(leaf, rest, UnixTime::now()).is_ok();
            *is_lost = !chain.split_first().is_some_and(accepts);
        }
        *is_lost
    }
}
