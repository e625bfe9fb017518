// Starts node oidc-provider on a port of 127.0.0.1 and prints its issuer as the first line. Every feature is on that a
// relying party may meet; what one client meets is in clients.mjs.
//
// Reads:
//   OIDC_PROVIDER_HOME          the folder where `npm install` has put the library
//   OIDC_PROVIDER_CERTIFICATES  optional: a folder made by ../make-certificates; a second listener then takes client
//                               certificates, and the metadata names it in `mtls_endpoint_aliases`
//   OIDC_PROVIDER_PORT, OIDC_PROVIDER_TLS_PORT
//                               optional: free ones otherwise

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';

import { clients } from './clients.mjs';

const home = process.env.OIDC_PROVIDER_HOME;
const load = async (name) => {
  const manifest = createRequire(path.join(home, 'anything.js')).resolve(name);
  return import(pathToFileURL(manifest));
};
const { Provider } = await load('oidc-provider');
const jose = await load('jose');

const people = {
  ada: {
    name: 'Ada Lovelace',
    preferred_username: 'ada',
    email: 'ada@example.com',
    email_verified: true,
    groups: ['/admins', '/staff'],
    roles: ['auditor'],
  },
};

const listen = async (server, port) => {
  await new Promise((resolve) => server.listen(Number(port ?? 0), '127.0.0.1', resolve));
  return `127.0.0.1:${server.address().port}`;
};

const plain = http.createServer();
const issuer = `http://${await listen(plain, process.env.OIDC_PROVIDER_PORT)}`;

const certificates = process.env.OIDC_PROVIDER_CERTIFICATES;
const read = (name) => readFileSync(path.join(certificates, name));
const secured =
  certificates &&
  https.createServer({
    cert: read('server.pem'),
    key: read('server.key'),
    ca: read('ca.pem'),
    requestCert: true,
    // Whether the certificate counts is the client's registration to say.
    rejectUnauthorized: false,
  });
const aliases = secured && `https://${await listen(secured, process.env.OIDC_PROVIDER_TLS_PORT)}`;

const key = async (alg, use = 'sig', options = {}) => {
  const { privateKey } = await jose.generateKeyPair(alg, { extractable: true, ...options });
  return { ...(await jose.exportJWK(privateKey)), alg, use, kid: alg };
};

const lengths = ['256', '384', '512'];
const families = ['RS', 'PS', 'ES'].flatMap((family) => lengths.map((length) => family + length));
const asymmetric = [...families, 'EdDSA', 'Ed25519'];
const encryption = {
  alg: ['RSA-OAEP', 'RSA-OAEP-256', 'ECDH-ES', 'ECDH-ES+A128KW', 'ECDH-ES+A256KW'],
  enc: ['A128CBC-HS256', 'A256CBC-HS512', 'A128GCM', 'A256GCM'],
};
const enabled = { enabled: true };

const provider = new Provider(issuer, {
  clients: clients(certificates && path.join(certificates, 'client.pem')),
  jwks: {
    keys: [
      await key('RS256'),
      await key('ES256'),
      await key('PS256'),
      await key('ES384'),
      await key('ES512'),
      // Without `alg`: EdDSA and Ed25519 are two names of what it does.
      { ...(await key('Ed25519')), alg: undefined },
      await key('RSA-OAEP-256', 'enc'),
      await key('ECDH-ES', 'enc', { crv: 'P-256' }),
    ],
  },
  cookies: { keys: ['only-for-tests-on-loopback'] },
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username', 'groups', 'roles'],
    email: ['email', 'email_verified'],
    acr: null,
    auth_time: null,
  },
  scopes: ['openid', 'offline_access', 'api:read', 'api:write'],
  acrValues: ['urn:tests:password', 'urn:tests:two-factors'],
  // The claims travel in the ID token, so that the session's size is a real one.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  responseTypes: ['code', 'code id_token'],
  clientAuthMethods: [
    'client_secret_basic',
    'client_secret_post',
    'client_secret_jwt',
    'private_key_jwt',
    'tls_client_auth',
    'self_signed_tls_client_auth',
    'none',
  ],
  enabledJWA: {
    clientAuthSigningAlgValues: ['HS256', ...asymmetric],
    idTokenSigningAlgValues: ['HS256', ...asymmetric],
    requestObjectSigningAlgValues: ['HS256', ...asymmetric],
    userinfoSigningAlgValues: asymmetric,
    introspectionSigningAlgValues: asymmetric,
    authorizationSigningAlgValues: asymmetric,
    dPoPSigningAlgValues: asymmetric,
    ...Object.fromEntries(
      ['idToken', 'requestObject', 'userinfo', 'introspection', 'authorization'].flatMap((what) => [
        [`${what}EncryptionAlgValues`, encryption.alg],
        [`${what}EncryptionEncValues`, encryption.enc],
      ]),
    ),
  },
  discovery: aliases && {
    mtls_endpoint_aliases: {
      token_endpoint: `${aliases}/token`,
      userinfo_endpoint: `${aliases}/me`,
      introspection_endpoint: `${aliases}/token/introspection`,
      revocation_endpoint: `${aliases}/token/revocation`,
      device_authorization_endpoint: `${aliases}/device/auth`,
      pushed_authorization_request_endpoint: `${aliases}/request`,
    },
  },
  features: {
    backchannelLogout: enabled,
    claimsParameter: enabled,
    clientCredentials: enabled,
    devInteractions: enabled,
    deviceFlow: enabled,
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    encryption: enabled,
    fapi: { enabled: true, profile: (context, client) => (client?.clientId === 'vestibule-fapi2' ? '2.0' : undefined) },
    introspection: { enabled: true, allowedPolicy: () => true },
    jwtIntrospection: enabled,
    jwtResponseModes: enabled,
    jwtUserinfo: enabled,
    mTLS: {
      enabled: Boolean(secured),
      certificateBoundAccessTokens: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      getCertificate: ({ socket }) => socket.getPeerX509Certificate?.(),
      certificateAuthorized: ({ socket }) => socket.authorized,
      certificateSubjectMatches: ({ socket }, property, expected) =>
        property === 'tls_client_auth_subject_dn' && socket.getPeerX509Certificate().subject === expected,
    },
    pushedAuthorizationRequests: enabled,
    registration: enabled,
    registrationManagement: { enabled: true, rotateRegistrationAccessToken: true },
    requestObjects: enabled,
    resourceIndicators: {
      enabled: true,
      // Access tokens for a named resource are signed and its own; without one they are opaque.
      getResourceServerInfo: (context, resource) => ({
        scope: 'api:read api:write',
        audience: resource,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
    revocation: { enabled: true, allowedPolicy: () => true },
    richAuthorizationRequests: {
      enabled: true,
      types: { payment: { validate: () => undefined } },
      authorizationDetailsForGrantSource: ({ oidc }) => JSON.parse(oidc.params.authorization_details ?? '[]'),
      authorizationDetailsForAccessToken: (context, token, source) => source.rar,
      authorizationDetailsForIntrospection: (context, token) => token.rar,
    },
    rpInitiatedLogout: enabled,
    rpMetadataChoices: enabled,
  },
  issueRefreshToken: (context, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: ({ oidc }) => oidc.client.clientId === 'vestibule-refresh',
  // In seconds.
  ttl: { AccessToken: (context, token, client) => (client.clientId === 'vestibule-refresh' ? 5 : 3600) },
  // Its own `fetch` refuses loopback, where the tests' back-channel logout endpoints and key sets are.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  findAccount: (context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, ...(people[id] ?? { preferred_username: id, groups: [] }) }),
  }),
});

// Each test's proxy has a port of its own: any port of loopback stands for the registered address.
const onLoopback = (uri) => {
  try {
    const { protocol, hostname } = new URL(uri);
    return protocol === 'http:' && (hostname === 'localhost' || hostname === '127.0.0.1');
  } catch {
    return false;
  }
};
provider.Client.prototype.redirectUriAllowed = onLoopback;
provider.Client.prototype.postLogoutRedirectUriAllowed = onLoopback;

// What fails on the way to a client or inside is said: the tests' log is the only place that shows it.
const failing = ['backchannel.error', 'grant.error', 'authorization.error', 'registration_create.error'];
for (const event of ['server_error', ...failing]) {
  provider.on(event, (context, error) => console.error(event, error?.message, error?.error_description ?? ''));
}

plain.on('request', provider.callback());
secured?.on('request', provider.callback());
console.log(issuer);
process.on('SIGTERM', () => process.exit(0));
