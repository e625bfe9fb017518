// The clients of oidc-provider, each named for the one thing in which it differs from `vestibule`.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';

const keys = JSON.parse(readFileSync(new URL('../keys/public.jwks.json', import.meta.url))).keys;
const jwks = { keys };

const base = {
  client_secret: 'oidc-provider-client-secret-of-the-tests',
  redirect_uris: ['http://localhost/auth/callback'],
  post_logout_redirect_uris: ['http://localhost/'],
  grant_types: ['authorization_code'],
  response_types: ['code'],
  token_endpoint_auth_method: 'client_secret_basic',
};
const without_secret = { ...base, client_secret: undefined };
const private_key_jwt = { ...without_secret, token_endpoint_auth_method: 'private_key_jwt', jwks };
const jarm = ['jwt', 'query.jwt', 'form_post.jwt'];
const refreshed = { grant_types: ['authorization_code', 'refresh_token'] };

const by_name = {
  vestibule: base,

  // How the client proves who it is.
  'vestibule-public': { ...without_secret, token_endpoint_auth_method: 'none' },
  'vestibule-secret-post': { ...base, token_endpoint_auth_method: 'client_secret_post' },
  'vestibule-secret-jwt': { ...base, token_endpoint_auth_method: 'client_secret_jwt' },
  'vestibule-private-key-jwt': private_key_jwt,

  // What the request looks like.
  'vestibule-par': { ...base, require_pushed_authorization_requests: true },
  'vestibule-request-object': { ...base, require_signed_request_object: true, jwks },
  // May send `authorization_details` of the type `payment` (RFC 9396), together with a `resource`.
  'vestibule-rar': { ...base, authorization_details_types: ['payment'] },

  // What the answer looks like. For the hybrid flow only a native client may come back to loopback without TLS.
  'vestibule-hybrid': { ...base, application_type: 'native', response_types: ['code id_token'] },
  'vestibule-jarm': { ...base, response_modes: jarm, authorization_signed_response_alg: 'PS256' },
  'vestibule-jarm-jwe': {
    ...base,
    response_modes: jarm,
    authorization_encrypted_response_alg: 'ECDH-ES',
    authorization_encrypted_response_enc: 'A256GCM',
    jwks,
  },

  // What the tokens look like.
  'vestibule-ps256': { ...base, id_token_signed_response_alg: 'PS256' },
  'vestibule-es256': { ...base, id_token_signed_response_alg: 'ES256' },
  'vestibule-es384': { ...base, id_token_signed_response_alg: 'ES384' },
  'vestibule-es512': { ...base, id_token_signed_response_alg: 'ES512' },
  'vestibule-eddsa': { ...base, id_token_signed_response_alg: 'EdDSA' },
  'vestibule-ed25519': { ...base, id_token_signed_response_alg: 'Ed25519' },
  'vestibule-jwe': {
    ...base,
    id_token_encrypted_response_alg: 'RSA-OAEP-256',
    id_token_encrypted_response_enc: 'A256GCM',
    jwks,
  },
  'vestibule-jwe-ecdh': {
    ...base,
    id_token_encrypted_response_alg: 'ECDH-ES',
    id_token_encrypted_response_enc: 'A128CBC-HS256',
    userinfo_signed_response_alg: 'ES256',
    userinfo_encrypted_response_alg: 'ECDH-ES',
    userinfo_encrypted_response_enc: 'A128CBC-HS256',
    jwks,
  },
  'vestibule-signed-userinfo': { ...base, userinfo_signed_response_alg: 'ES256' },

  // What access tokens are bound to. With a proof, a nonce of the provider is asked for.
  'vestibule-dpop': { ...base, ...refreshed, dpop_bound_access_tokens: true },

  // Other grants. Each refresh token works once; with the second use of one, all that came from it ends.
  'vestibule-refresh': { ...base, ...refreshed },
  'vestibule-device': {
    ...base,
    redirect_uris: [],
    response_types: [],
    grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
  },
  'vestibule-service': { ...base, redirect_uris: [], response_types: [], grant_types: ['client_credentials'] },

  // What the provider says about an access token, signed (RFC 9701) where that is accepted.
  'vestibule-introspection': { ...base, ...refreshed, introspection_signed_response_alg: 'ES256' },

  // FAPI 2.0 Security Profile: the provider holds this client to it.
  'vestibule-fapi2': {
    ...private_key_jwt,
    ...refreshed,
    token_endpoint_auth_signing_alg: 'PS256',
    id_token_signed_response_alg: 'PS256',
    require_pushed_authorization_requests: true,
    dpop_bound_access_tokens: true,
  },
};

// Clients that show a certificate: by its subject, or by being the very one that is registered.
const with_certificate = (file) => {
  const certificate = new X509Certificate(readFileSync(file));
  const key = certificate.publicKey.export({ format: 'jwk' });
  const registered = { ...key, use: 'sig', x5c: [certificate.raw.toString('base64')] };
  return {
    'vestibule-mtls': {
      ...without_secret,
      ...refreshed,
      token_endpoint_auth_method: 'tls_client_auth',
      tls_client_auth_subject_dn: certificate.subject,
      tls_client_certificate_bound_access_tokens: true,
    },
    'vestibule-self-signed-mtls': {
      ...without_secret,
      token_endpoint_auth_method: 'self_signed_tls_client_auth',
      jwks: { keys: [registered] },
      tls_client_certificate_bound_access_tokens: true,
    },
  };
};

// All clients; those with a certificate only where one is named.
export const clients = (certificate) =>
  Object.entries({ ...by_name, ...(certificate && with_certificate(certificate)) }).map(([client_id, metadata]) => {
    const defined = Object.entries(metadata).filter(([, value]) => value !== undefined);
    return { client_id, ...Object.fromEntries(defined) };
  });
