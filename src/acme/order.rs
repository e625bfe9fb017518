//! One order (RFC 8555 §7.4): from domains to a certificate.

use std::time::Duration;

use instant_acme::{Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy};

use super::challenges::{Challenges, Published};
use super::{AcmeError, Challenge};

/// How long the authority may take to check the challenges, and again to issue.
const PATIENCE: Duration = Duration::from_secs(120);

/// A certificate with its key, both as PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Orders a certificate for `domains`, proving each one by `challenge`.
///
/// # Errors
/// [`AcmeError`]; what was published for the challenges is taken back in any case.
pub(super) async fn order(
    account: &Account,
    domains: &[String],
    challenge: Challenge,
    challenges: &Challenges,
) -> Result<Issued, AcmeError> {
    let identifiers: Vec<_> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // Dropped at the end, whatever it is.
    let _published = publish(&mut order, challenge, challenges).await?;
    let policy = RetryPolicy::new().timeout(PATIENCE);
    match order.poll_ready(&policy).await? {
        OrderStatus::Ready | OrderStatus::Valid => {}
        status => return Err(refusal(&mut order, status).await),
    }
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::new(domains)?.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&policy).await?;
    Ok(Issued { chain, key: key.serialize_pem() })
}

async fn publish(
    order: &mut instant_acme::Order,
    wanted: Challenge,
    challenges: &Challenges,
) -> Result<Vec<Published>, AcmeError> {
    let kind = match wanted {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut published = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            // Proven lately, and still believed.
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(AcmeError::Refused("an authorization is over already".to_owned())),
        }
        let mut challenge = authorization.challenge(kind.clone()).ok_or(AcmeError::NotOffered)?;
        let domain = challenge.identifier().to_string();
        let proof = challenge.key_authorization();
        published.push(match wanted {
            Challenge::Http01 => challenges.publish_token(&challenge.token, proof.as_str()),
            Challenge::TlsAlpn01 => challenges.publish_certificate(&domain, proof.digest().as_ref())?,
        });
        challenge.set_ready().await?;
    }
    Ok(published)
}

/// What the authority says about the first challenge that failed.
async fn refusal(order: &mut instant_acme::Order, status: OrderStatus) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return AcmeError::Refused(format!("{}: {problem}", state.identifier()));
        }
    }
    AcmeError::Refused(format!("the order is {status:?}"))
}
