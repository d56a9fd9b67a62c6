// OpenID providers for the tests: panva's certified oidc-provider, in the shapes of products that people have.
//
//     node provider.mjs FOLDER     where FOLDER/node_modules has oidc-provider
//
// Each line of stdin is a shape (`Shape` of openid_provider.py); its issuer is written to stdout once it answers. A shape at
// a path that is served already replaces the one there.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { json } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';

const installed = createRequire(pathToFileURL(`${process.argv[2]}/`)).resolve('oidc-provider');
const { Provider, errors } = await import(pathToFileURL(installed));
const { createLocalJWKSet, jwtVerify } = await import(pathToFileURL(createRequire(installed).resolve('jose')));

console.info = console.error; // stdout is for the issuers

const handlers = new Map();
const documents = new Map();

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (documents.has(pathname)) {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(documents.get(pathname)));
    return;
  }
  const path = [...handlers.keys()].find((each) => pathname.startsWith(`${each}/`));
  if (path === undefined) {
    response.writeHead(404).end();
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice(path.length);
  handlers.get(path)(request, response);
});

const machineTime = Date.now;
let ahead = 0;
Date.now = () => machineTime() + ahead;

const origin = () => `http://127.0.0.1:${server.address().port}`;

// The hosts of the clients' metadata documents are this process; the rest of the request is oidc-provider's own.
const fetchDocument = (url, options) =>
  fetch(`${origin()}${new URL(url).pathname}`, { ...options, dispatcher: undefined });

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

// An access token as the product would issue it.
function shapeToken(shape, token, jwt) {
  const { payload } = jwt;
  const granted = (payload.scope ?? '').split(' ').filter(Boolean);
  const scopes = granted.map((scope) => (shape.keeps_prefix ? scope : scope.slice(shape.scope_prefix.length)));
  delete payload.scope;
  payload[shape.scope_claim] = shape.scope_list ? scopes : scopes.join(' ');
  const claims = JSON.stringify(shape.token_claims).replaceAll('{person}', token.accountId);
  Object.assign(payload, shape.people[token.accountId], JSON.parse(claims));
  jwt.header = { typ: shape.typ };
}

// The grant of MCP's enterprise-managed authorization: an ID-JAG of the enterprise's provider for an access token.
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

function exchangeAssertions(made, issuer, shape) {
  const keys = createLocalJWKSet(shape.enterprise.jwks);
  const exchange = async (context) => {
    const { client, params } = context.oidc;
    let claims;
    try {
      const checks = { issuer: shape.enterprise.issuer, audience: issuer, typ: 'oauth-id-jag+jwt' };
      ({ payload: claims } = await jwtVerify(params.assertion, keys, checks));
    } catch (error) {
      throw new errors.InvalidGrant(error.message);
    }
    const granted = (claims.scope ?? '').split(' ').filter((each) => !params.scope || params.scope.split(' ').includes(each));
    const grant = new made.Grant({ accountId: claims.sub, clientId: client.clientId });
    grant.addResourceScope(claims.resource, granted.join(' '));
    const token = new made.AccessToken({ accountId: claims.sub, client, grantId: await grant.save(), gty: 'jwt_bearer' });
    token.resourceServer = new made.ResourceServer(claims.resource, {
      scope: shape.scopes.join(' '),
      audience: claims.resource,
      accessTokenFormat: 'jwt',
      accessTokenTTL: 600,
    });
    token.scope = granted.join(' ');
    context.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: 600, scope: token.scope };
  };
  made.registerGrantType(JWT_BEARER, exchange, ['assertion', 'scope', 'resource']);
}

function provider(issuer, shape) {
  const scopes = shape.scopes.map((scope) => shape.scope_prefix + scope);
  const made = new Provider(issuer, {
    clients: shape.clients,
    jwks: { keys: [signingKey] },
    cookies: { keys: ['of the tests'] },
    scopes: ['openid', 'offline_access', ...scopes],
    claims: { openid: ['sub'], profile: ['name', ...shape.profile_claims], groups: ['groups'] },
    conformIdTokenClaims: false,
    acrValues: shape.acr_values,
    subjectTypes: [shape.is_pairwise ? 'pairwise' : 'public'],
    pairwiseIdentifier: (_, account, client) => `${account} of ${client.clientId}`,
    fetch: fetchDocument,
    findAccount: (_, id) =>
      id in shape.people ? { accountId: id, claims: () => ({ sub: id, ...shape.people[id] }) } : undefined,
    features: {
      clientCredentials: { enabled: true },
      registration: { enabled: shape.has_registration },
      clientIdMetadataDocument: { enabled: shape.has_metadata_documents, ack: 'draft-02' },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => shape.resource,
        useGrantedResource: () => true,
        getResourceServerInfo(_, resource) {
          if (shape.refuses_other_resources && resource !== shape.resource) throw new errors.InvalidTarget();
          return {
            scope: scopes.join(' '),
            audience: resource,
            accessTokenFormat: shape.is_opaque ? 'opaque' : 'jwt',
            accessTokenTTL: 600,
          };
        },
      },
    },
    formats: { customizers: { jwt: (_, token, jwt) => shapeToken(shape, token, jwt) } },
  });
  if (shape.enterprise) exchangeAssertions(made, issuer, shape);
  const finish = made.interactionFinished.bind(made);
  made.interactionFinished = async (request, response, result, options) => {
    const { params } = await made.interactionDetails(request, response);
    const acr = params.acr_values?.split(' ').find((value) => shape.acr_values.includes(value));
    if (result.login && acr) result.login.acr = acr;
    return finish(request, response, result, options);
  };
  made.use(async (context, next) => {
    if (context.path === '/reg' && !shape.keeps_registered_scope) {
      context.req.body = await json(context.req);
      delete context.req.body.scope;
    }
    await next();
    if (context.oidc?.route === 'discovery' && shape.hides_pkce) delete context.body.code_challenge_methods_supported;
  });
  return made;
}

server.listen(0, '127.0.0.1', async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const shape = JSON.parse(line);
    const issuer = origin() + shape.path;
    ahead = shape.seconds_ahead * 1000;
    for (const [path, document] of Object.entries(shape.documents)) documents.set(path, document);
    handlers.set(shape.path.replace(/\/$/, ''), provider(issuer, shape).callback());
    process.stdout.write(`${issuer}\n`);
  }
  process.exit();
});
