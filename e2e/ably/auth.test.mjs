// Who may come in, as whom, and for how long: keys, token requests, tokens, JWTs, and their renewal.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { keys } from './config.mjs';
import { binary, changes, config, eventually, jwt, listen, reaches, refused, story, tale, unique } from './kit.mjs';
import { action } from './raw.mjs';

// failed waits until a client has given up, and returns why.
async function failed(client) {
  await eventually('the connection fails', () => client.connection.state === 'failed', 15_000, () => client.connection.state);
  return client.connection.errorReason;
}

// works wants a client that may do everything to hear its own message.
async function works(client, room) {
  const ear = await listen(client.channels.get(room));
  await client.channels.get(room).publish('works', '');
  await ear.hears('works');
}

story('a token request that the customer\'s server has signed opens the door', async (stage) => {
  const rest = stage.rest();
  let asked = 0;
  const client = await stage.arrive({
    authCallback: (params, done) => { asked++; rest.auth.createTokenRequest(params).then((request) => done(null, request), done); },
  });
  assert.equal(asked, 1);
  assert.equal(client.auth.tokenDetails.keyName, 'app.all');
  assert.ok(client.auth.tokenDetails.expires - client.auth.tokenDetails.issued === 3_600_000, 'an hour, where nothing was asked');
  await works(client, stage.room);
});

story('a token that was got beforehand opens it too: as a string, as details, from a callback', async (stage) => {
  const details = await stage.rest().auth.requestToken();
  assert.ok(details.token && details.issued && details.expires > Date.now());
  for (const options of [{ token: details.token }, { tokenDetails: details }, { authCallback: (_, done) => done(null, details) }, { authCallback: (_, done) => done(null, details.token) }]) {
    await works(await stage.arrive(options), stage.room);
  }
});

story('a JWT signed with the key\'s secret opens it: from the callback and from an URL', async (stage) => {
  await works(await stage.arrive({ token: jwt() }), stage.room);
  await works(await stage.arrive({ authCallback: (_, done) => done(null, jwt()) }), stage.room);
  const asked = [];
  const office = await stage.office((request, response) => {
    asked.push(new URL(request.url, 'http://office').searchParams.get('who'));
    response.setHeader('content-type', 'application/jwt');
    response.end(jwt({ clientId: 'anna' }));
  });
  const client = await stage.arrive({ authUrl: office, authParams: { who: 'anna' } });
  assert.equal(client.auth.clientId, 'anna');
  assert.deepEqual(asked, ['anna']);
});

story('an auth URL may answer with a token request, in JSON', async (stage) => {
  const rest = stage.rest();
  const office = await stage.office(async (request, response) => {
    const params = Object.fromEntries(new URL(request.url, 'http://office').searchParams);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(await rest.auth.createTokenRequest(params)));
  });
  // Here ttl travels through a query string, so it comes to the server as text.
  const client = await stage.arrive({ authUrl: office, authParams: { ttl: '600000', clientId: 'anna' } });
  assert.equal(client.auth.clientId, 'anna');
  assert.equal(client.auth.tokenDetails.expires - client.auth.tokenDetails.issued, 600_000);
  await works(client, stage.room);
});

tale('letshare token -ably mints a JWT that the SDK can use', async (stage) => {
  const mint = async (...flags) => (await promisify(execFile)(binary, ['token', '-ably', '-key', 'app.all', ...flags, '-config', config])).stdout.trim();
  await works(await stage.arrive({ token: await mint() }), stage.room);
  const anna = await stage.arrive({ token: await mint('-client-id', 'anna', '-capability', '{"mine":["subscribe","publish"]}', '-ttl', '1h') });
  assert.equal(anna.auth.clientId, 'anna');
  await works(anna, 'mine');
  await refused(anna.channels.get(stage.room).attach(), 40160);
});

story('a token may do what was asked for and what its key may do, and no more', async (stage) => {
  const all = { '*': ['*'] };
  const cases = [
    [keys.rooms, undefined, { 'chat:*': ['publish', 'subscribe'], news: ['subscribe'] }],
    [keys.rooms, all, { 'chat:*': ['publish', 'subscribe'], news: ['subscribe'] }],
    [keys.all, { 'a:*': ['publish'] }, { 'a:*': ['publish'] }],
    [keys.rooms, { 'chat:lobby': ['subscribe', 'history'], other: ['publish'] }, { 'chat:lobby': ['subscribe'] }],
    [keys.read, { x: ['*'] }, { x: ['subscribe'] }],
  ];
  for (const [key, wanted, granted] of cases) {
    const details = await stage.rest({ key }).auth.requestToken(wanted ? { capability: wanted } : undefined);
    assert.deepEqual(JSON.parse(details.capability), granted);
  }
  await refused(stage.rest({ key: keys.read }).auth.requestToken({ capability: { x: ['publish'] } }), 40160);
  const token = (await stage.rest().auth.requestToken({ capability: { mine: ['publish', 'subscribe'] } })).token;
  const client = await stage.arrive({ token });
  await works(client, 'mine');
  await refused(client.channels.get('yours').attach(), 40160);
});

story('a capability in a JWT counts with that of its key', async (stage) => {
  const client = await stage.arrive({ token: jwt({ key: keys.rooms, capability: { '*': ['*'] } }) });
  await works(client, 'chat:jwt');
  await refused(client.channels.get('elsewhere').publish('n', ''), 40160);
  const narrow = await stage.arrive({ token: jwt({ capability: { 'room:*:public': ['subscribe'] } }) });
  await narrow.channels.get('room:7:public').attach();
  await refused(narrow.channels.get('room:7:private').attach(), 40160);
  await refused(narrow.channels.get('room:7:public').publish('n', ''), 40160, 40165);
});

story('token requests that are forged, old, repeated or absurd are refused, each with its own code', async (stage) => {
  const rest = stage.rest();
  const ask = (request) => rest.auth.requestToken(undefined, { authCallback: (_, done) => done(null, request) });
  const sign = (params) => rest.auth.createTokenRequest(params);
  const good = await sign({});
  assert.ok((await ask(good)).token);
  await refused(ask(good), 40105); // the nonce was used
  await refused(ask({ ...(await sign({})), mac: Buffer.alloc(32).toString('base64') }), 40101);
  await refused(ask({ ...(await sign({})), clientId: 'somebody else' }), 40101);
  await refused(ask(await sign({ timestamp: Date.now() - 3_600_000 })), 40104);
  await refused(ask({ ...(await sign({})), keyName: 'app.nobody' }), 40101, 40400);
  await refused(ask(await sign({ ttl: 25 * 3_600_000 })), 40003);
  await refused(ask(await sign({ capability: JSON.stringify({ a: [] }) })), 40000);
  await refused(ask(await sign({ capability: JSON.stringify({ a: ['fly'] }) })), 40000);
});

story('tokens that are forged, broken or of unknown keys do not open the door, and nobody tries twice', async (stage) => {
  const [head, body, signature] = jwt().split('.');
  const none = `${Buffer.from('{"alg":"none","kid":"app.all"}').toString('base64url')}.${body}.`;
  for (const token of [`${head}.${body}.${signature.slice(0, -2)}AA`, none, 'not-a-token', jwt({ key: 'app.nobody:secret' }), jwt({ header: { alg: 'HS512' } })]) {
    const line = await stage.line();
    let attempts = 0;
    line.server.on('connection', () => attempts++);
    const eve = stage.meet({ token, at: line.at });
    const error = await failed(eve);
    assert.ok(error.code >= 40100 && error.code < 40500, `${error.code} ${error.message}`);
    assert.equal(attempts, 1);
  }
});

story('an expired token and no means to renew it: the SDK gives up with 40171', async (stage) => {
  const client = stage.meet({ token: jwt({ seconds: -10, claims: { iat: Math.floor(Date.now() / 1000) - 20 } }) });
  assert.equal((await failed(client)).code, 40171);
});

story('an expired token at the door is renewed once, at once, and opens it', async (stage) => {
  let asked = 0;
  const client = await stage.arrive({
    authCallback: (_, done) => done(null, asked++ === 0 ? jwt({ seconds: -10, claims: { iat: Math.floor(Date.now() / 1000) - 20 } }) : jwt()),
  });
  assert.equal(asked, 2);
  await works(client, stage.room);
});

story('a token that ends while its client is connected: 40142, a new one, and the same connection goes on', async (stage) => {
  const rest = stage.rest();
  let asked = 0;
  const client = await stage.arrive({
    authCallback: (params, done) => rest.auth.requestToken({ ...params, ttl: asked++ === 0 ? 2000 : 3_600_000 }).then((details) => done(null, details), done),
  });
  const { id } = client.connection;
  const ear = await listen(client.channels.get(stage.room));
  const seen = changes(client.connection);
  const asked0 = asked;
  await eventually('the renewal', () => asked > asked0);
  await eventually('the connection is back', () => seen.at(-1)?.current === 'connected');
  const gone = seen.find((c) => c.current === 'disconnected');
  assert.equal(gone.reason.code, 40142);
  assert.equal(gone.reason.statusCode, 401);
  assert.equal(client.connection.id, id);
  await client.channels.get(stage.room).publish('after', '');
  await ear.hears('after');
});

story('half a minute before a token ends the server asks for a new one, and nobody notices', async (stage) => {
  let asked = 0;
  const client = await stage.arrive({ authCallback: (_, done) => done(null, jwt({ seconds: asked++ === 0 ? 32 : 3600 })) });
  const ear = await listen(client.channels.get(stage.room));
  const seen = changes(client.connection);
  await eventually('the renewal', () => asked === 2);
  await eventually('the update', () => seen.length > 0);
  await client.channels.get(stage.room).publish('after', '');
  await ear.hears('after');
  assert.deepEqual(seen.map((c) => [c.previous, c.current]), [['connected', 'connected']]);
});

story('authorize() on a living connection: a wider token opens a channel that was closed, without attaching anew', async (stage) => {
  const ear = await listen((await stage.arrive()).channels.get(stage.room));
  let capability = { [stage.room]: ['subscribe'] };
  const client = await stage.arrive({ authCallback: (_, done) => done(null, jwt({ capability })) });
  const { id } = client.connection;
  const seen = changes(client.connection);
  const channel = client.channels.get(stage.room);
  await channel.attach();
  await refused(channel.publish('too early', ''), 40160, 40165);
  capability = { [stage.room]: ['subscribe', 'publish'], more: ['*'] };
  await client.auth.authorize();
  await channel.publish('now', '');
  await ear.hears('now');
  await client.channels.get('more').attach();
  assert.deepEqual(ear.names(), ['now']);
  assert.equal(client.connection.id, id);
  assert.ok(seen.every((c) => c.current === 'connected'), 'the connection was never down');
});

story('authorize() with a narrower token: channels out of reach fail with 40160, the others live', async (stage) => {
  const anna = await stage.arrive();
  let capability = { '*': ['*'] };
  const client = await stage.arrive({ authCallback: (_, done) => done(null, jwt({ capability })) });
  const [kept, lost] = [client.channels.get(stage.room), client.channels.get(`${stage.room}-lost`)];
  const [hears, deaf] = [await listen(kept), await listen(lost)];
  capability = { [stage.room]: ['subscribe'] };
  await client.auth.authorize();
  await eventually('the channel fails', () => lost.state === 'failed');
  assert.equal(lost.errorReason.code, 40160);
  assert.equal(kept.state, 'attached');
  await refused(kept.publish('no more', ''), 40160, 40165);
  await anna.channels.get(lost.name).publish('unheard', '');
  await anna.channels.get(kept.name).publish('heard', '');
  await hears.hears('heard');
  assert.deepEqual(hears.names(), ['heard']);
  assert.deepEqual(deaf.names(), []);
});

story('authorize() with a bad token, or as somebody else, ends the connection', async (stage) => {
  for (const bad of ['nonsense', jwt({ key: `${keys.all}x` })]) {
    let token = jwt();
    const client = await stage.arrive({ authCallback: (_, done) => done(null, token) });
    token = bad;
    await refused(client.auth.authorize(), 40101);
    assert.equal(client.connection.state, 'failed');
  }
  let clientId = 'anna';
  const anna = await stage.arrive({ authCallback: (_, done) => done(null, jwt({ clientId })) });
  clientId = 'ben';
  await refused(anna.auth.authorize(), 40102);
});

tale('on the wire: AUTH is answered with CONNECTED of the same id, or with an ERROR and the end', async (stage) => {
  const anna = stage.raw({ access_token: jwt({ clientId: 'anna' }) });
  const { connectionId, connectionDetails } = await anna.want(action.CONNECTED);
  assert.equal(connectionDetails.clientId, 'anna');
  anna.send({ action: action.AUTH, auth: { accessToken: jwt({ clientId: 'anna' }) } });
  const again = await anna.want(action.CONNECTED);
  assert.equal(again.connectionId, connectionId);
  assert.ok(again.connectionDetails.connectionKey);
  anna.send({ action: action.AUTH, auth: { accessToken: jwt({ clientId: 'ben' }) } });
  const { error, ...rest } = await anna.want(action.ERROR);
  assert.deepEqual([error.code, error.statusCode, 'channel' in rest], [40102, 401, false]);
  await anna.closed;
});

tale('both spellings of the parameter work: access_token and accessToken', async (stage) => {
  for (const name of ['access_token', 'accessToken']) {
    const anna = stage.raw({ [name]: jwt() });
    await anna.want(action.CONNECTED);
  }
});

// Who asks how to be called what, and who one is in the end. undefined: nobody; a number: the code of the refusal.
const identities = [
  ['a key', () => ({ key: keys.all }), undefined, '*'],
  ['a key', () => ({ key: keys.all }), 'anna', 'anna'],
  ['a JWT for all', () => ({ token: jwt({ clientId: '*' }) }), undefined, '*'],
  ['a JWT for all', () => ({ token: jwt({ clientId: '*' }) }), 'anna', 'anna'],
  ['a JWT of anna', () => ({ token: jwt({ clientId: 'anna' }) }), undefined, 'anna'],
  ['a JWT of anna', () => ({ token: jwt({ clientId: 'anna' }) }), 'anna', 'anna'],
  ['a JWT of anna', () => ({ token: jwt({ clientId: 'anna' }) }), 'ben', 40102],
  ['a JWT of nobody', () => ({ token: jwt() }), undefined, undefined],
];
for (const [what, credentials, clientId, identity] of identities) {
  story(`${what}, asking to be ${clientId ?? 'nobody in particular'}, is ${identity ?? 'anonymous'}`, async (stage) => {
    const client = stage.meet({ ...credentials(), ...(clientId ? { clientId } : {}) });
    if (typeof identity === 'number') {
      assert.equal((await failed(client)).code, identity);
      return;
    }
    await reaches(client.connection, 'connected');
    const ear = await listen(client.channels.get(stage.room));
    await client.channels.get(stage.room).publish('who', '');
    await ear.hears('who');
    assert.equal(ear.messages[0].clientId ?? undefined, identity === '*' ? undefined : identity, 'the server signs with the concrete identity alone');
    if (identity) assert.equal(client.auth.clientId, identity);
  });
}

tale('on the wire too: a token of another, or of nobody, may not be anna', async (stage) => {
  for (const token of [jwt({ clientId: 'ben' }), jwt()]) {
    const eve = stage.raw({ access_token: token, clientId: 'anna' });
    const { error } = await eve.want(action.ERROR);
    assert.deepEqual([error.code, error.statusCode], [40102, 401]);
  }
});

story('only who may be anybody publishes in the name of others', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna' });
  const ear = await listen(anna.channels.get(stage.room));
  const any = await stage.arrive();
  await any.channels.get(stage.room).publish({ name: 'as ben', clientId: 'ben' });
  await ear.hears('as ben');
  assert.equal(ear.messages[0].clientId, 'ben');
  await refused(anna.channels.get(stage.room).publish({ name: 'n', clientId: 'ben' }), 40012);
  const nobody = await stage.arrive({ token: jwt() });
  await refused(nobody.channels.get(stage.room).publish({ name: 'n', clientId: 'ben' }), 40012);
  await anna.channels.get(stage.room).publish({ name: 'end', clientId: 'anna' });
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['as ben', 'end']);
});

tale('a hundred wrong keys at once do not keep a good one out', async (stage) => {
  const wrong = Array.from({ length: 100 }, (_, i) => stage.raw({ key: `app.all:${unique('guess')}${i}` }));
  const right = stage.raw();
  await right.want(action.CONNECTED);
  for (const eve of wrong) assert.equal((await eve.want(action.ERROR)).error.code, 40101);
});
