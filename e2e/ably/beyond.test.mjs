// What is beyond the common core: filters, occupancy, lifecycle, revoked tokens, statistics, and what is not there at all.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { keys } from './config.mjs';
import { changes, eventually, jwt, listen, pages, pause, place, reaches, refused, server, story, tale, within } from './kit.mjs';

const scoops = [
  { name: 'ice-cream', data: 'cheap', extras: { headers: { flavor: 'strawberry', cost: 35 } } },
  { name: 'ice-cream', data: 'dear', extras: { headers: { flavor: 'strawberry', cost: 80 } } },
  { name: 'tea', data: 'hot', extras: { headers: { flavor: 'strawberry', cost: 10 } } },
  { name: 'ice-cream', data: 'plain' },
  { name: 'ice-cream', data: { bytes: 'and objects' }, extras: { headers: { flavor: 'strawberry', cost: 1 } } },
];
const filter = 'name == `"ice-cream"` && headers.flavor == `"strawberry"` && headers.cost < `50`';

for (const useBinaryProtocol of [true, false]) {
  story(`Filters: a derived channel brings what fits, in ${useBinaryProtocol ? 'msgpack' : 'JSON'}`, async (stage) => {
    const [shop, guest] = await Promise.all([stage.arrive(), stage.arrive({ useBinaryProtocol })]);
    const channel = shop.channels.get(stage.room);
    const [all, some] = [await listen(channel), await listen(guest.channels.getDerived(stage.room, { filter }))];
    for (const scoop of scoops) await channel.publish(scoop);
    await channel.publish(scoops);
    await all.has(10);
    await some.has(4);
    assert.deepEqual(some.data(), ['cheap', { bytes: 'and objects' }, 'cheap', { bytes: 'and objects' }]);
    assert.deepEqual(some.messages.map((m) => m.id), [all.messages[0].id, all.messages[4].id, all.messages[5].id, all.messages[9].id]);
    const late = await listen(guest.channels.getDerived(`[?rewind=10]${stage.room}`, { filter }));
    await late.has(4);
    await pause(50);
    assert.equal(late.messages.length, 4);
  });
}

story('Filters: what a line that was cut kept back comes filtered', async (stage) => {
  const line = await stage.line();
  const [shop, guest] = await Promise.all([stage.arrive(), stage.arrive({ at: line.at })]);
  const channel = shop.channels.get(stage.room);
  const ear = await listen(guest.channels.getDerived(stage.room, { filter }));
  await channel.publish(scoops[0]);
  await ear.has(1);
  line.cut();
  for (const scoop of scoops) await channel.publish(scoop);
  await ear.has(3);
  assert.deepEqual(ear.data(), ['cheap', 'cheap', { bytes: 'and objects' }]);
});

story('Filters: one that cannot be used fails the channel, and nothing else', async (stage) => {
  const guest = await stage.arrive();
  for (const bad of ['name ==', 'data.secret == `1`', 'name | sort(@)']) {
    await refused(guest.channels.getDerived(stage.room, { filter: bad }).attach(), 40010);
  }
  assert.equal(guest.connection.state, 'connected');
});

story('Occupancy: it is told at attaching and when it changes', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna' });
  const channel = anna.channels.get(stage.room, { params: { occupancy: 'metrics' } });
  const told = [];
  await channel.subscribe('[meta]occupancy', (m) => told.push(m));
  await eventually('the first figures', () => told.length === 1);
  assert.deepEqual(told[0].data, { metrics: { connections: 1, publishers: 1, subscribers: 1, presenceConnections: 1, presenceMembers: 0, presenceSubscribers: 1 } });
  assert.equal(channel.params.occupancy, 'metrics');
  const ben = await stage.arrive();
  const few = ben.channels.get(stage.room, { params: { occupancy: 'metrics.presenceMembers' } });
  const one = [];
  await few.subscribe('[meta]occupancy', (m) => one.push(m.data.metrics));
  await channel.presence.enter();
  await eventually('anna is counted', () => one.at(-1)?.presenceMembers === 1);
  assert.deepEqual(Object.keys(one.at(-1)), ['presenceMembers']);
  await eventually('both are counted', () => told.at(-1).data.metrics.connections === 2);
  ben.close();
  await eventually('ben is gone', () => told.at(-1).data.metrics.connections === 1);
  assert.deepEqual((await channel.history()).items, [], 'it is no part of the history');
  await refused((await stage.arrive({ key: keys.read })).channels.get(stage.room, { params: { occupancy: 'metrics' } }).attach(), 40160);
});

story('Lifecycle: channels open and close, for who may listen', async (stage) => {
  const ear = await stage.arrive({ key: keys.meta });
  const events = [];
  await ear.channels.get('[meta]channel.lifecycle').subscribe((m) => m.data.channelId === stage.room && events.push(m));
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room);
  await channel.attach();
  await eventually('it opens', () => events.length === 1);
  await channel.detach();
  await eventually('it closes', () => events.length === 2);
  assert.deepEqual(events.map((m) => [m.name, m.data.status.isActive]), [['channel.opened', true], ['channel.closed', false]]);
  assert.equal(events[0].data.status.occupancy.metrics.connections, 1);
  await refused(ear.channels.get('[meta]channel.lifecycle').publish('channel.opened', {}), 40160, 40165);
  await refused(anna.channels.get('[meta]channel.lifecycle').attach(), 40160);
});

story('Revoking: tokens of a client are revoked, connected or not, and a new one is as good as ever', async (stage) => {
  const rest = stage.rest({ key: keys.revocable });
  const name = stage.room;
  const tokens = await Promise.all([rest.auth.requestToken({ clientId: `${name}-1` }), rest.auth.requestToken({ clientId: `${name}-2` })]);
  const [first, second] = await Promise.all(tokens.map((token) => stage.arrive({ token })));
  const gone = [first, second].map((client) => within(client.connection.once('disconnected'), 'the end'));
  const result = await rest.auth.revokeTokens([{ type: 'clientId', value: `${name}-1` }, { type: 'clientId', value: `${name}-2` }, { type: 'invalidType', value: 'abc' }]);
  assert.deepEqual([result.successCount, result.failureCount, result.results.length], [2, 1, 3]);
  assert.deepEqual([result.results[0].target, typeof result.results[0].issuedBefore, typeof result.results[0].appliesAt, 'error' in result.results[0]],
    [`clientId:${name}-1`, 'number', 'number', false]);
  assert.deepEqual([result.results[2].target, result.results[2].error.statusCode], ['invalidType:abc', 400]);
  for (const change of await Promise.all(gone)) assert.equal(change.reason.code, 40141);
  await refused(stage.rest({ key: undefined, token: tokens[0] }).channels.get(name).history(), 40141, 40171);
  const again = await stage.arrive({ token: await rest.auth.requestToken({ clientId: `${name}-1` }) });
  await again.channels.get(name).publish('back', '');
});

story('Revoking: a client that can get another token goes on with it, with its place kept', async (stage) => {
  const group = stage.room;
  let fetched = 0;
  const authCallback = (_, done) => done(null, jwt({ key: keys.revocable, clientId: 'anna', claims: { 'x-ably-revocation-key': group, iat: Date.now() / 1000, fetched: ++fetched } }));
  const anna = await stage.arrive({ authCallback });
  const ear = await listen(anna.channels.get(stage.room));
  const { id } = anna.connection;
  const seen = changes(anna.connection);
  await stage.rest({ key: keys.revocable }).auth.revokeTokens([{ type: 'revocationKey', value: group }]);
  await eventually('another token', () => fetched === 2);
  await reaches(anna.connection, 'connected');
  await stage.rest().channels.get(stage.room).publish('after', '');
  await ear.hears('after');
  assert.equal(anna.connection.id, id);
  assert.equal(seen.find((c) => c.current === 'disconnected')?.reason?.code, 40141);
});

story('Revoking: with a margin the client is asked first, and nothing is interrupted', async (stage) => {
  let fetched = 0;
  const authCallback = (_, done) => done(null, jwt({ key: keys.revocable, clientId: stage.room, claims: { iat: Date.now() / 1000, fetched: ++fetched } }));
  const anna = await stage.arrive({ authCallback });
  const seen = changes(anna.connection);
  const before = Date.now();
  const { results: [result] } = await stage.rest({ key: keys.revocable }).auth.revokeTokens([{ type: 'clientId', value: stage.room }], { allowReauthMargin: true });
  assert.ok(result.appliesAt >= before + 30_000);
  await eventually('another token', () => fetched === 2 && seen.length > 0);
  assert.deepEqual(seen.map((c) => c.current), ['connected']);
});

story('Revoking: not with a token, not with a key whose tokens cannot be revoked', async (stage) => {
  await refused(stage.rest().auth.revokeTokens([{ type: 'clientId', value: 'x' }]), 40164);
  const rest = stage.rest({ key: undefined, token: jwt({ key: keys.revocable }) });
  await refused(rest.auth.revokeTokens([{ type: 'clientId', value: 'x' }]), 40162);
});

story('Embedded JWTs: the token within somebody else’s counts', async (stage) => {
  const inner = jwt({ clientId: 'anna', capability: { [stage.room]: ['publish'] } });
  const outer = jwt({ key: 'their.key:their secret', claims: { 'x-ably-token': inner } });
  const anna = await stage.arrive({ token: outer });
  assert.equal(anna.auth.clientId, 'anna');
  await anna.channels.get(stage.room).publish('x', 'y');
  await refused(anna.channels.get('another').publish('x', 'y'), 40160);
});

story('Statistics: what was done is counted, in either codec, page by page', async (stage) => {
  const anna = await stage.arrive({ echoMessages: false });
  await anna.channels.get(stage.room).publish('event', 'data');
  for (const useBinaryProtocol of [true, false]) {
    const page = await stage.rest({ useBinaryProtocol }).stats({ unit: 'minute', limit: 1 });
    const [minute] = page.items;
    assert.match(minute.intervalId, /^\d{4}-\d\d-\d\d:\d\d:\d\d$/);
    assert.deepEqual([minute.unit, minute.appId], ['minute', 'app']);
    assert.ok(minute.entries['messages.all.all.count'] >= 1, JSON.stringify(minute.entries));
    const [day] = (await stage.rest({ useBinaryProtocol }).stats({ unit: 'day' })).items;
    assert.ok(day.entries['connections.all.opened'] >= 1 && day.entries['messages.inbound.realtime.messages.count'] >= 1);
  }
  await refused(stage.rest({ key: keys.write }).stats(), 40160);
});

story('Not there: push, LiveObjects and polling say so', async (stage) => {
  const rest = stage.rest();
  await refused(rest.push.admin.publish({ clientId: 'x' }, { notification: { title: 'x' } }), 40400);
  const anna = await stage.arrive();
  await refused(anna.channels.get(stage.room, { modes: ['OBJECT_SUBSCRIBE'] }).attach(), 40020);
  const channel = anna.channels.get(`${stage.room}2`, { modes: ['SUBSCRIBE', 'PUBLISH', 'OBJECT_SUBSCRIBE'], params: { delta: 'vcdiff' } });
  const ear = await listen(channel);
  assert.deepEqual([channel.modes.map((m) => m.toLowerCase()).sort(), channel.params.delta], [['publish', 'subscribe'], undefined]);
  for (const i of [1, 2, 3]) await channel.publish('same', `nearly the same ${i}`);
  await ear.has(3);
  assert.equal(ear.data()[2], 'nearly the same 3');
  const answer = await fetch(`http://${server}/comet/connect?key=${encodeURIComponent(keys.all)}`);
  assert.deepEqual([answer.status, answer.headers.get('x-ably-errorcode')], [404, '80000']);
});

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
      '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'],
  });
});
after(() => browser.close());

// surf opens the page of the SDK.
async function surf(stage) {
  const context = await browser.newContext();
  stage.ends.push(() => context.close());
  const page = await context.newPage();
  await page.goto(`${pages}/${stage.sdk.name}`);
  return page;
}

story('In Chromium: filters and occupancy', async (stage) => {
  const page = await surf(stage);
  await page.evaluate(async ({ options, room, filter }) => {
    window.client = new Ably.Realtime({ logLevel: 0, ...options });
    [window.heard, window.told] = [[], []];
    await client.channels.getDerived(room, { filter }).subscribe((m) => heard.push(m.data));
    await client.channels.get(room, { params: { occupancy: 'metrics.subscribers' } }).subscribe('[meta]occupancy', (m) => told.push(m.data.metrics.subscribers));
  }, { options: { key: keys.all, ...place(server) }, room: stage.room, filter });
  const shop = await stage.arrive();
  await shop.channels.get(stage.room).publish(scoops);
  await eventually('what fits', async () => (await page.evaluate(() => heard.length)) === 2);
  assert.deepEqual(await page.evaluate(() => heard), ['cheap', { bytes: 'and objects' }]);
  await eventually('the page is counted', async () => (await page.evaluate(() => told.at(-1))) === 1);
});

tale('In Chromium: a page whose token is revoked, and that has no other, is told why', async (stage) => {
  const page = await surf(stage);
  const token = jwt({ key: keys.revocable, clientId: stage.room, seconds: 3000 });
  await page.evaluate(async (options) => {
    window.client = new Ably.Realtime({ logLevel: 0, ...options });
    window.seen = [];
    client.connection.on((change) => seen.push([change.current, change.reason?.code]));
  }, { token, ...place(server) });
  await eventually('connected', () => page.evaluate(() => client.connection.state === 'connected'));
  await stage.rest({ key: keys.revocable }).auth.revokeTokens([{ type: 'clientId', value: stage.room }]);
  await eventually('the end', async () => (await page.evaluate(() => seen)).some(([state, code]) => state === 'disconnected' && code === 40141));
});

tale('In Chromium: polling alone does not fail for good', async (stage) => {
  const page = await surf(stage);
  const state = await page.evaluate(async (options) => {
    const client = new Ably.Realtime({ logLevel: 0, transports: ['xhr_polling'], disableConnectivityCheck: true, ...options });
    const change = await new Promise((resolve) => client.connection.on((change) => change.reason && resolve(change)));
    client.close();
    return change.current;
  }, { key: keys.all, ...place(server) });
  assert.equal(state, 'disconnected');
});
