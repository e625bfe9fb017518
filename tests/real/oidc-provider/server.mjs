// Starts node oidc-provider on a free port of 127.0.0.1 and prints its issuer as the first line.
//
// The library is found below the folder named by OIDC_PROVIDER_HOME, where `npm install` has put it.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';
import process from 'node:process';

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

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = async (alg) => {
  const { privateKey } = await jose.generateKeyPair(alg, { extractable: true });
  return { ...(await jose.exportJWK(privateKey)), alg, use: 'sig', kid: alg };
};

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'vestibule',
      client_secret: 'oidc-provider-client-secret-of-the-tests',
      redirect_uris: ['http://localhost/auth/callback'],
      post_logout_redirect_uris: ['http://localhost/'],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
  ],
  jwks: { keys: [await key('RS256'), await key('ES256')] },
  cookies: { keys: ['only-for-tests-on-loopback'] },
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username', 'groups', 'roles'],
    email: ['email', 'email_verified'],
  },
  // The claims travel in the ID token, so that the session's size is a real one.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
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

server.on('request', provider.callback());
console.log(issuer);
process.on('SIGTERM', () => process.exit(0));
