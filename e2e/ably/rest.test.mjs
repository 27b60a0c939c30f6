// The SDK's Rest client: what it publishes is heard, what it asks is answered, in both codecs and in a page.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { chromium } from 'playwright-core';
import { keys } from './config.mjs';
import { eventually, listen, pages, place, refused, server, story, tale, unique } from './kit.mjs';

const codecs = [true, false];
const codec = (binary) => (binary ? 'msgpack' : 'JSON');
const basic = (key) => `Basic ${Buffer.from(key).toString('base64')}`;

for (const useBinaryProtocol of codecs) {
  story(`REST in ${codec(useBinaryProtocol)}: what it publishes is heard, with serials, whatever it is`, async (stage) => {
    const ben = await stage.arrive({ useBinaryProtocol: !useBinaryProtocol });
    const ear = await listen(ben.channels.get(stage.room));
    const channel = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    const all = ['text 深 🙂', { a: [1, null, { b: 2.5 }] }, [], Buffer.from([0, 1, 254, 255]), randomBytes(20_000), null];
    for (const data of all) await channel.publish('event', data);
    const result = await channel.publish([{ name: 'one', data: 1 + '' }, { name: 'two', data: { two: 2 } }]);
    await ear.has(all.length + 2);
    for (const [i, data] of all.entries()) {
      const got = ear.messages[i].data;
      if (Buffer.isBuffer(data)) assert.ok(Buffer.from(got).equals(data), `bytes no. ${i}`);
      else assert.deepEqual(got ?? null, data ?? null);
    }
    assert.deepEqual(ear.names().slice(-2), ['one', 'two']);
    if (result) assert.equal(result.serials.length, 2);
    assert.equal(ear.messages[0].connectionId, undefined, 'REST is no connection');
  });

  story(`REST in ${codec(useBinaryProtocol)}: history has what realtime said, decoded as the SDK wants it`, async (stage) => {
    const anna = await stage.arrive({ clientId: 'anna', useBinaryProtocol: !useBinaryProtocol });
    const channel = anna.channels.get(stage.room);
    const all = ['text', { deep: { 深: [1] } }, Buffer.from([9, 8, 200])];
    for (const data of all) await channel.publish('event', data);
    const { items } = await stage.rest({ useBinaryProtocol }).channels.get(stage.room).history({ direction: 'forwards' });
    assert.deepEqual(items.slice(0, 2).map((m) => m.data), all.slice(0, 2));
    assert.ok(Buffer.from(items[2].data).equals(all[2]));
    for (const m of items) {
      assert.deepEqual([m.name, m.clientId, m.connectionId, m.encoding ?? null], ['event', 'anna', anna.connection.id, null]);
      assert.ok(m.id && m.serial && Math.abs(m.timestamp - Date.now()) < 60_000);
    }
  });

  story(`REST in ${codec(useBinaryProtocol)}: presence, its filters and its history`, async (stage) => {
    const anna = await stage.arrive();
    const channel = anna.channels.get(stage.room);
    for (const who of ['a', 'b', 'c']) await channel.presence.enterClient(who, { who });
    await channel.presence.updateClient('b', Buffer.from([1, 255]));
    await channel.presence.leaveClient('c');
    const { presence } = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    const page = await presence.get({ limit: 1 });
    assert.deepEqual(page.items.map((m) => [m.clientId, m.action, m.data]), [['a', 'present', { who: 'a' }]]);
    const rest = await page.next();
    assert.equal(rest.items[0].clientId, 'b');
    assert.ok(Buffer.from(rest.items[0].data).equals(Buffer.from([1, 255])));
    assert.ok(rest.isLast());
    assert.equal((await presence.get({ clientId: 'b' })).items.length, 1);
    assert.equal((await presence.get({ connectionId: 'nobody' })).items.length, 0);
    const past = await presence.history({ direction: 'forwards' });
    assert.deepEqual(past.items.map((m) => `${m.clientId} ${m.action}`), ['a enter', 'b enter', 'c enter', 'b update', 'c leave']);
  });

  story(`REST in ${codec(useBinaryProtocol)}: errors come as the SDK's own`, async (stage) => {
    const rest = (key, options) => stage.rest({ key, useBinaryProtocol, ...options });
    const name = keys.all.split(':')[0];
    for (const [code, status, ask] of [
      [40101, 401, () => rest(`${name}:wrong`).channels.get('x').history()],
      [40160, 401, () => rest(keys.read).channels.get('x').publish('a', 'b')],
      [40160, 401, () => rest(keys.write).channels.get('x').history()],
      [40160, 401, () => rest(keys.write).channels.get('x').presence.get()],
      [40010, 400, () => rest(keys.all).channels.get(':x').publish('a', 'b')],
      [40012, 400, () => rest(keys.all, { clientId: 'anna' }).channels.get('x').publish({ name: 'a', clientId: '*' })],
      [40000, 400, () => rest(keys.all).channels.get('x').history({ limit: 5000 })],
    ]) {
      const error = await refused(ask(), code);
      assert.equal(error.statusCode, status);
      assert.ok(error.message.length > 5, error.message);
    }
  });

  story(`REST in ${codec(useBinaryProtocol)}: the status of a channel, and which there are`, async (stage) => {
    const anna = await stage.arrive();
    const prefix = unique('list:');
    for (const name of ['c', 'a', 'b']) await anna.channels.get(`${prefix}:${name}`).attach();
    await anna.channels.get(`${prefix}:a`).presence.enterClient('x');
    const rest = stage.rest({ useBinaryProtocol });
    const { channelId, status } = await rest.channels.get(`${prefix}:a`).status();
    assert.deepEqual([channelId, status.isActive], [`${prefix}:a`, true]);
    assert.deepEqual(status.occupancy.metrics, { connections: 1, publishers: 1, subscribers: 1, presenceConnections: 1, presenceMembers: 1, presenceSubscribers: 1 });
    assert.equal((await rest.channels.get(unique('empty')).status()).status.isActive, false);
    let page = await rest.request('GET', '/channels', 3, { prefix, limit: 2, by: 'id' });
    assert.deepEqual(page.items, [`${prefix}:a`, `${prefix}:b`]);
    page = await page.next();
    assert.deepEqual([page.items, page.hasNext()], [[`${prefix}:c`], false]);
  });

  story(`REST in ${codec(useBinaryProtocol)}: a batch reaches what it may, and says what it may not`, async (stage) => {
    const ben = await stage.arrive();
    const [one, two] = [unique('b1'), unique('b2')];
    const ears = [await listen(ben.channels.get(one)), await listen(ben.channels.get(two))];
    const rest = stage.rest({ useBinaryProtocol });
    const answer = await rest.batchPublish({ channels: [one, ':wrong', two], messages: [{ name: 'x', data: 'text' }, { name: 'y', data: Buffer.from([1, 255]).toString('base64'), encoding: 'base64' }] });
    assert.deepEqual([answer.successCount, answer.failureCount], [2, 1]);
    assert.deepEqual(answer.results.map((r) => r.error?.code), [undefined, 40010, undefined]);
    for (const ear of ears) {
      await ear.has(2);
      assert.equal(ear.messages[0].data, 'text');
      assert.ok(Buffer.from(ear.messages[1].data).equals(Buffer.from([1, 255])));
    }
    const answers = await rest.batchPublish([{ channels: [one], messages: [{ name: 'z' }] }, { channels: [two], messages: [{ name: 'z' }] }]);
    assert.equal(answers.length, 2);
    await ben.channels.get(one).presence.enterClient('x', 'data');
    const who = await rest.batchPresence([one, two, ':wrong']);
    assert.deepEqual([who.successCount, who.failureCount], [2, 1]);
    assert.deepEqual(who.results[0].presence.map((m) => m.clientId), ['x']);
  });
}

story('REST: the time, without credentials of any kind', async (stage) => {
  assert.ok(Math.abs(await stage.rest().time() - Date.now()) < 5000);
  const response = await fetch(`http://${server}/time`);
  assert.equal(response.headers.get('content-type'), 'application/json');
  assert.ok(Math.abs((await response.json())[0] - Date.now()) < 5000);
});

story('REST: the statistics hold what was done', async (stage) => {
  const rest = stage.rest();
  await rest.channels.get(stage.room).publish('counted', 'data');
  const { items: [hour] } = await rest.stats({ unit: 'hour', end: Date.now() });
  assert.deepEqual([hour.unit, typeof hour.intervalId, typeof hour.inProgress, typeof hour.schema, typeof hour.appId], ['hour', ...Array(4).fill('string')]);
  assert.ok(hour.entries['messages.inbound.rest.messages.count'] >= 1);
  await refused(stage.rest({ key: 'no.key:here' }).stats(), 40101);
});

story('REST: retried, a publish is heard once', async (stage) => {
  const ben = await stage.arrive();
  const ear = await listen(ben.channels.get(stage.room));
  const channel = stage.rest().channels.get(stage.room);
  for (let i = 0; i < 3; i++) await channel.publish({ id: 'own-id', name: 'once', data: 'x' });
  for (let i = 0; i < 3; i++) await channel.publish([{ id: 'base:0', name: 'a' }, { id: 'base:1', name: 'b' }]);
  await channel.publish('last');
  await ear.hears('last');
  assert.deepEqual(ear.names(), ['once', 'a', 'b', 'last']);
  await refused(channel.publish([{ id: 'x:0', name: 'a' }, { id: 'y:1', name: 'b' }]), 40031);
});

story('REST: as a connection, with its key: clientId and connectionId are its own, and it hears no echo', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna', echoMessages: false });
  const ben = await stage.arrive();
  const [hers, his] = [await listen(anna.channels.get(stage.room)), await listen(ben.channels.get(stage.room))];
  const channel = stage.rest().channels.get(stage.room);
  await channel.publish({ name: 'as anna', connectionKey: anna.connection.key });
  await channel.publish('as nobody');
  await his.has(2);
  assert.deepEqual(his.messages.map((m) => [m.name, m.clientId ?? null, m.connectionId ?? null]), [['as anna', 'anna', anna.connection.id], ['as nobody', null, null]]);
  await hers.hears('as nobody');
  assert.deepEqual(hers.names(), ['as nobody']);
  await refused(channel.publish({ name: 'x', connectionKey: 'none' }), 40006);
});

story('REST: names of channels may hold anything', async (stage) => {
  const ben = await stage.arrive();
  for (const name of [`a/b ${stage.room}`, `深 🙂 ${stage.room}`, `100%2F?&#+${stage.room}`, `a:b:${stage.room}`, `../${stage.room}`]) {
    const ear = await listen(ben.channels.get(name));
    const channel = stage.rest().channels.get(name);
    await channel.publish('x', 'y');
    await ear.hears('x');
    assert.equal((await channel.history()).items.length, 1, name);
    assert.equal((await channel.status()).channelId, name);
  }
});

story('REST: a token by authUrl, and one by requestToken, with what they may do', async (stage) => {
  const signer = stage.rest();
  const office = await stage.office(async (request, response) => {
    const body = await signer.auth.createTokenRequest({ clientId: 'anna', capability: JSON.stringify({ 'mine:*': ['publish', 'history'] }) });
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify(body));
  });
  const rest = new stage.sdk.Rest({ authUrl: office, ...place(server), logLevel: 0 });
  await rest.channels.get('mine:x').publish('by', 'token');
  const { items } = await rest.channels.get('mine:x').history({ limit: 1 });
  assert.deepEqual([items[0].name, items[0].clientId], ['by', 'anna']);
  await refused(rest.channels.get('yours').publish('by', 'token'), 40160);
  const details = await signer.auth.requestToken({ ttl: 60_000, clientId: 'ben' });
  assert.deepEqual([details.clientId, JSON.parse(details.capability)], ['ben', { '*': ['*'] }]);
  await new stage.sdk.Rest({ token: details.token, ...place(server), logLevel: 0 }).channels.get('x').publish('a', 'b');
});

story('REST: a token that has ended is told so by its own code', async (stage) => {
  const { token } = await stage.rest().auth.requestToken({ ttl: 100 });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const response = await fetch(`http://${server}/stats`, { headers: { Authorization: `Bearer ${Buffer.from(token).toString('base64')}` } });
  assert.deepEqual([response.status, response.headers.get('x-ably-errorcode')], [401, '40142']);
  const error = await new stage.sdk.Rest({ token, ...place(server), logLevel: 0 }).channels.get(stage.room).history().then(() => assert.fail('it is taken'), (e) => e);
  assert.ok([40171, 40142].includes(error.code), `${error.code} ${error.message}`);
});

// Renewing after a refusal, the SDK asks again with the old token, for ever: only what bounds all requests of an address ends that.
tale('REST: the SDK that asks for ever with a token that has ended is stopped', async (stage) => {
  const house = await stage.house({ ably: { messages_per_second: 10 } });
  const rest = new stage.sdk.Rest({ authCallback: (_, done) => {
    stage.rest({ at: house.at }).auth.requestToken({ ttl: 100 }).then((token) => done(null, token), done);
  }, ...place(house.at), logLevel: 0 });
  await rest.channels.get(stage.room).publish('one');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await refused(rest.channels.get(stage.room).publish('two'), 42910);
});

story('REST: what is not there is 404, as an error of the SDK', async (stage) => {
  const rest = stage.rest();
  const answer = await rest.request('GET', '/nothing/here', 3);
  assert.deepEqual([answer.statusCode, answer.errorCode, answer.success], [404, 40400, false]);
  assert.equal((await rest.request('GET', `/push/channelSubscriptions`, 3)).errorCode, 40400);
});

tale('REST: LetShare members hear an object, and what they say is in the history', async (stage) => {
  const cat = await stage.join('cat');
  await stage.rest().channels.get(stage.room).publish('signal:all', { hello: 'cat' });
  await cat.has(1);
  assert.equal(cat.messages()[0].data.hello, 'cat');
  const ben = await stage.arrive();
  await ben.channels.get(stage.room).attach();
  await cat.publish('signal:all', { hello: 'all' });
  const { items } = await stage.rest().channels.get(stage.room).history({ limit: 1 });
  assert.deepEqual([items[0].name, items[0].data.hello], ['signal:all', 'all']);
});

tale('REST: too much from one address is told to wait', async (stage) => {
  const house = await stage.house({ ably: { messages_per_second: 5 } });
  const channel = stage.rest({ at: house.at }).channels.get(stage.room);
  const outcomes = await Promise.allSettled(Array.from({ length: 30 }, (_, i) => channel.publish('x', String(i))));
  const codes = outcomes.filter((o) => o.status === 'rejected').map((o) => o.reason.code);
  assert.ok(codes.length > 0 && codes.every((code) => code === 42910), JSON.stringify(codes));
});

tale('REST by hand: exact content types, error headers, CORS and what a page may see', async (stage) => {
  const url = `http://${server}/channels/${stage.room}/messages`;
  for (const type of ['application/json', 'application/x-msgpack']) {
    const response = await fetch(url, { headers: { Authorization: basic(keys.all), Accept: type } });
    assert.equal(response.headers.get('content-type'), type);
  }
  const refusal = await fetch(url, { headers: { Authorization: basic('a.b:c'), Origin: 'https://page.example' } });
  assert.deepEqual([refusal.status, refusal.headers.get('x-ably-errorcode'), refusal.headers.get('content-type')], [401, '40101', 'application/json']);
  assert.equal(refusal.headers.get('access-control-allow-origin'), 'https://page.example');
  assert.match(refusal.headers.get('access-control-expose-headers'), /Link.*X-Ably-ErrorCode/i);
  assert.equal((await refusal.json()).error.statusCode, 401);
  const preflight = await fetch(url, { method: 'OPTIONS', headers: { Origin: 'https://page.example', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,x-ably-version' } });
  assert.ok(preflight.ok);
  assert.match(preflight.headers.get('access-control-allow-headers'), /authorization/i);
});

tale('REST by hand: a token request signed by whoever has the secret', async () => {
  const [keyName, secret] = [keys.all.slice(0, keys.all.indexOf(':')), keys.all.slice(keys.all.indexOf(':') + 1)];
  const [timestamp, nonce] = [Date.now(), randomBytes(12).toString('hex')];
  const mac = createHmac('sha256', secret).update(`${keyName}\n\n\n\n${timestamp}\n${nonce}\n`).digest('base64');
  const response = await fetch(`http://${server}/keys/${keyName}/requestToken`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ keyName, timestamp, nonce, mac }) });
  assert.equal(response.status, 201);
  const { token } = await response.json();
  const used = await fetch(`http://${server}/stats`, { headers: { Authorization: `Bearer ${Buffer.from(token).toString('base64')}` } });
  assert.equal(used.status, 200);
});

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
});
after(() => browser.close());

// page opens a person's page with the SDK loaded, on an origin that is not the server's.
async function page(stage) {
  const context = await browser.newContext();
  stage.ends.push(() => context.close());
  const tab = await context.newPage();
  await tab.goto(`${pages}/${stage.sdk.name}`);
  return tab;
}

for (const useBinaryProtocol of [false, true]) {
  story(`REST in the browser, ${codec(useBinaryProtocol)}: publish, pages of history, presence, errors`, async (stage) => {
    const tab = await page(stage);
    const anna = await stage.arrive();
    await anna.channels.get(stage.room).presence.enterClient('anna');
    const seen = await tab.evaluate(async ({ options, room, wrong }) => {
      const rest = new Ably.Rest({ logLevel: 0, ...options });
      const channel = rest.channels.get(room);
      for (let i = 0; i < 5; i++) await channel.publish(`m${i}`, { i });
      const names = [];
      for (let p = await channel.history({ limit: 2 }); p; p = p.hasNext() ? await p.next() : null) names.push(p.items.map((m) => m.name));
      const bytes = new Uint8Array([1, 255]);
      await channel.publish('bytes', bytes.buffer);
      const { data } = (await channel.history({ limit: 1 })).items[0];
      const codes = [];
      await new Ably.Rest({ logLevel: 0, ...options, key: wrong }).channels.get(room).history().catch((e) => codes.push(e.code, e.statusCode));
      await channel.history({ limit: -1 }).catch((e) => codes.push(e.code, e.statusCode));
      return { names, data: [...new Uint8Array(data)], codes, members: (await channel.presence.get()).items.map((m) => m.clientId), time: await rest.time() };
    }, { options: { key: keys.all, ...place(server), useBinaryProtocol }, room: stage.room, wrong: `${keys.all}x` });
    assert.deepEqual(seen.names, [['m4', 'm3'], ['m2', 'm1'], ['m0']]);
    assert.deepEqual(seen.data, [1, 255]);
    assert.deepEqual(seen.codes, [40101, 401, 40000, 400]);
    assert.deepEqual(seen.members, ['anna']);
    assert.ok(Math.abs(seen.time - Date.now()) < 60_000);
  });
}

story('REST in the browser: what a page publishes by REST, a page in realtime hears', async (stage) => {
  const tab = await page(stage);
  const ben = await stage.arrive();
  const ear = await listen(ben.channels.get(stage.room));
  await tab.evaluate(({ options, room }) => new Ably.Rest({ logLevel: 0, ...options }).channels.get(room).publish('from', '深 page'), { options: { key: keys.all, ...place(server) }, room: stage.room });
  await eventually('the message', () => ear.messages.length > 0);
  assert.equal(ear.messages[0].data, '深 page');
});
