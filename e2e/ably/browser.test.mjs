// Real Chromium: the SDK's build for browsers, with its default codec, on a page of its own.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { keys } from './config.mjs';
import { eventually, jwt, listen, mint, numbers, pages, place, server, story } from './kit.mjs';

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

// Page is a person's page with the SDK loaded. origin: the page's own, or the same page under another name.
class Page {
  static async open(stage, origin = pages) {
    const person = new Page();
    person.context = await browser.newContext();
    stage.ends.push(() => person.context.close());
    await person.context.route('**/*', (route) => (new URL(route.request().url()).origin === origin ? route.continue() : route.abort()));
    person.page = await person.context.newPage();
    person.errors = [];
    person.page.on('pageerror', (error) => person.errors.push(error.stack));
    person.sent = []; // frames of its sockets, as they are
    person.page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => person.sent.push(payload)));
    await person.page.goto(`${origin}/${stage.sdk.name}`);
    return person;
  }

  // does runs a function in the page with one argument.
  does(action, argument) {
    return this.page.evaluate(action, argument);
  }

  // arrive connects the SDK and listens to a room; the page keeps `client`, `channel` and `heard`.
  async arrive(options, room, more = {}) {
    await this.does(async ({ options, room, more }) => {
      window.client = new Ably.Realtime({ logLevel: 0, disconnectedRetryTimeout: 100, ...options });
      await client.connection.whenState('connected');
      window.heard = [];
      if (more.cipherKey) more.cipher = { key: more.cipherKey };
      window.channel = client.channels.get(room, more.cipher ? { cipher: more.cipher } : undefined);
      await channel.subscribe((m) => {
        const bytes = m.data instanceof ArrayBuffer ? [...new Uint8Array(m.data)] : undefined;
        heard.push({ name: m.name, data: bytes ?? m.data, bytes: Boolean(bytes), clientId: m.clientId, encoding: m.encoding });
      });
    }, { options: { key: keys.all, ...place(server), ...options }, room, more });
  }

  heard() { return this.does(() => heard); }

  has(n) {
    return eventually(`${n} messages in the page`, async () => (await this.heard()).length >= n, 15_000, () => JSON.stringify(this.errors));
  }
}

story('in the browser: connects by host and port alone, speaks JSON, hears itself and pings', async (stage) => {
  const anna = await Page.open(stage);
  await anna.arrive({}, stage.room);
  const result = await anna.does(async () => {
    const { serials } = await channel.publish('first', { 深: '🙂' });
    return { serials: serials.length, ms: await client.connection.ping(), id: client.connection.id, transport: client.connection.connectionManager.activeProtocol.transport.shortName };
  });
  assert.equal(result.serials, 1);
  assert.ok(result.ms >= 0 && result.id);
  assert.match(result.transport, /^web_?socket$/i);
  await anna.has(1);
  assert.deepEqual((await anna.heard())[0].data, { 深: '🙂' });
  assert.ok(anna.sent.length > 0 && anna.sent.every((frame) => typeof frame === 'string'), 'JSON in text frames');
  assert.deepEqual(anna.errors, []);
});

story('browser and Node: strings, objects and bytes cross between JSON and msgpack both ways', async (stage) => {
  const anna = await Page.open(stage);
  await anna.arrive({ clientId: 'anna' }, stage.room);
  const node = await stage.arrive({ clientId: 'node' });
  const channel = node.channels.get(stage.room);
  const ear = await listen(channel);
  await anna.does(async () => {
    await channel.publish('text', '中文 🙂');
    await channel.publish('object', { a: [1, null, { b: 2.5 }] });
    await channel.publish('bytes', new Uint8Array([0, 1, 254, 255]).buffer);
  });
  await ear.has(3);
  assert.deepEqual(ear.data().slice(0, 2), ['中文 🙂', { a: [1, null, { b: 2.5 }] }]);
  assert.ok(Buffer.from(ear.data()[2]).equals(Buffer.from([0, 1, 254, 255])));
  assert.deepEqual(ear.messages.map((m) => m.clientId), ['anna', 'anna', 'anna']);

  await channel.publish('text', 'back');
  await channel.publish('object', { deep: { 深: [1] } });
  await channel.publish('bytes', Buffer.from([9, 8, 200]));
  await anna.has(6);
  assert.deepEqual((await anna.heard()).slice(3).map(({ data, bytes, clientId }) => [data, bytes, clientId]), [
    ['back', false, 'node'], [{ deep: { 深: [1] } }, false, 'node'], [[9, 8, 200], true, 'node'],
  ]);
});

story('browser and Node: what one encrypts the other decrypts', async (stage) => {
  const cipherKey = Buffer.from('0123456789abcdef0123456789abcdef').toString('base64');
  const anna = await Page.open(stage);
  await anna.arrive({}, stage.room, { cipherKey });
  const node = await stage.arrive();
  const channel = node.channels.get(stage.room, { cipher: { key: cipherKey } });
  const ear = await listen(channel);
  await anna.does(() => channel.publish('s', { secret: '密' }));
  await ear.has(1);
  assert.deepEqual(ear.data(), [{ secret: '密' }]);
  await channel.publish('s', 'answer');
  await anna.has(2);
  assert.deepEqual((await anna.heard()).map((m) => m.data), [{ secret: '密' }, 'answer']);
  assert.ok(!anna.sent.some((frame) => frame.includes('secret')), 'nothing of it was readable on the way');
});

story('in the browser: a wrong key fails for good, in one attempt', async (stage) => {
  const eve = await Page.open(stage);
  let sockets = 0;
  eve.page.on('websocket', () => sockets++);
  const seen = await eve.does(async (options) => {
    const client = new Ably.Realtime({ logLevel: 0, disconnectedRetryTimeout: 100, ...options });
    const states = [];
    client.connection.on((change) => states.push([change.current, change.reason?.code]));
    await client.connection.whenState('failed');
    await new Promise((resolve) => setTimeout(resolve, 500));
    return states;
  }, { key: 'app.nobody:secret', ...place(server) });
  assert.deepEqual(seen.at(-1), ['failed', 40101]);
  assert.equal(sockets, 1);
});

story('in the browser: a token from a callback, a narrow one, and a wider one in place', async (stage) => {
  const anna = await Page.open(stage);
  await anna.page.exposeFunction('mintFor', (capability) => jwt({ capability, clientId: 'anna' }));
  const result = await anna.does(async ({ options, room }) => {
    let capability = { [room]: ['subscribe'] };
    const client = new Ably.Realtime({ logLevel: 0, ...options, authCallback: (_, done) => window.mintFor(capability).then((token) => done(null, token)) });
    await client.connection.whenState('connected');
    const channel = client.channels.get(room);
    await channel.attach();
    const refusal = await channel.publish('n', '').then(() => 0, (error) => error.code);
    capability = { [room]: ['*'] };
    await client.auth.authorize();
    const { serials } = await channel.publish('n', '');
    return { refusal, serials: serials.length, clientId: client.auth.clientId, state: client.connection.state };
  }, { options: place(server), room: stage.room });
  assert.ok([40160, 40165].includes(result.refusal), `${result.refusal}`);
  assert.deepEqual([result.serials, result.clientId, result.state], [1, 'anna', 'connected']);
});

story('in the browser: a channel that is refused fails alone', async (stage) => {
  const anna = await Page.open(stage);
  await anna.arrive({ key: keys.rooms }, 'chat:browser');
  const codes = await anna.does(async () => {
    const code = (name) => client.channels.get(name).attach().then(() => 0, (error) => error.code);
    return [await code('private'), await code(''), await code('news'), client.connection.state];
  });
  assert.ok([40010, 40160].includes(codes[1]));
  assert.deepEqual([codes[0], codes[2], codes[3]], [40160, 0, 'connected']);
});

story('in the browser: the line is cut, the page comes back, and has missed nothing', async (stage) => {
  const line = await stage.line();
  const anna = await Page.open(stage);
  await anna.arrive(place(line.at), stage.room);
  const node = await stage.arrive();
  const channel = node.channels.get(stage.room);
  const id = await anna.does(() => client.connection.id);
  let n = 0;
  for (let cut = 0; cut < 5; cut++) {
    for (let i = 0; i < 10; i++) await channel.publish('n', String(n++));
    line.break();
    for (let i = 0; i < 10; i++) await channel.publish('n', String(n++));
    line.mend();
    await anna.has(n);
  }
  assert.deepEqual((await anna.heard()).map((m) => m.data), numbers(n));
  assert.equal(await anna.does(() => client.connection.id), id);
});

story('in the browser: closing the page is a goodbye, and the next page begins anew', async (stage) => {
  const anna = await Page.open(stage);
  await anna.arrive({}, stage.room);
  await anna.does(async () => {
    client.close();
    await client.connection.whenState('closed');
  });
  await anna.page.reload();
  await anna.arrive({}, stage.room);
  await anna.does(() => channel.publish('again', ''));
  await anna.has(1);
});

// app does what the LetShare app does in its Ably mode: its own signals and those for all, in one channel.
const app = async ({ options, room, id }) => {
  window.client = new Ably.Realtime({ logLevel: 0, ...options });
  window.signals = [];
  window.channel = client.channels.get(room);
  for (const name of [`signal:${id}`, 'signal:all']) await channel.subscribe(name, (m) => signals.push({ name: m.name, data: m.data }));
  window.signal = (data) => channel.publish(data.to ? `signal:${data.to}` : 'signal:all', { ...data, from: id });
};

// letshare does the same in the app's mode for servers of one's own.
const letshare = async ({ url, room, id }) => {
  window.signals = [];
  window.socket = new WebSocket(url);
  let answers = 0;
  await new Promise((resolve, reject) => {
    socket.onerror = reject;
    socket.onopen = () => { for (const event of [`signal:${id}`, 'signal:all']) socket.send(JSON.stringify({ type: 'subscribe', channel: room, event })); };
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === 'subscribed' && ++answers === 2) resolve();
      if (frame.type === 'message') signals.push({ name: frame.event, data: frame.data });
    };
  });
  window.signal = (data) => socket.send(JSON.stringify({ type: 'publish', channel: room, event: data.to ? `signal:${data.to}` : 'signal:all', data: { ...data, from: id } }));
};

story('two pages, one in each mode of the app, meet in one room and signal each other; a third sees only what is for all', async (stage) => {
  const [anna, ming, carl] = [await Page.open(stage), await Page.open(stage), await Page.open(stage)];
  const url = async (id) => `ws://${server}/?${new URLSearchParams({ token: await mint(id), userId: id })}`;
  await anna.does(app, { options: { key: keys.all, ...place(server) }, room: stage.room, id: 'anna:aaaaaa' });
  await ming.does(letshare, { url: await url('小明:bbbbbb'), room: stage.room, id: '小明:bbbbbb' });
  await carl.does(letshare, { url: await url('carl:cccccc'), room: stage.room, id: 'carl:cccccc' });

  const signals = (person, n) => eventually(`${n} signals`, async () => (await person.does(() => signals.length)) >= n).then(() => person.does(() => signals));
  await anna.does((data) => signal(data), { type: 'discover', userType: 'desktop' });
  await signals(ming, 1);
  await ming.does((data) => signal(data), { type: 'discover', isReply: true, to: 'anna:aaaaaa' });
  await signals(anna, 2); // the own discover comes back as well: the app drops what is from itself
  await anna.does((data) => signal(data), { type: 'offer', to: '小明:bbbbbb', offer: { type: 'offer', sdp: 'v=0\r\no=- 1 2 IN IP4 127.0.0.1' } });
  await signals(ming, 2);
  await ming.does((data) => signal(data), { type: 'answer', to: 'anna:aaaaaa', answer: { type: 'answer', sdp: 'v=0\r\n' } });
  await signals(anna, 3);
  await anna.does((data) => signal(data), { type: 'leave' });

  assert.deepEqual((await signals(anna, 4)).map(({ name, data }) => [name, data.type, data.from]), [
    ['signal:all', 'discover', 'anna:aaaaaa'], ['signal:anna:aaaaaa', 'discover', '小明:bbbbbb'],
    ['signal:anna:aaaaaa', 'answer', '小明:bbbbbb'], ['signal:all', 'leave', 'anna:aaaaaa'],
  ]);
  assert.deepEqual((await signals(ming, 3)).map(({ name, data }) => [name, data.type, data.from]), [
    ['signal:all', 'discover', 'anna:aaaaaa'], ['signal:小明:bbbbbb', 'offer', 'anna:aaaaaa'], ['signal:all', 'leave', 'anna:aaaaaa'],
  ]);
  assert.deepEqual((await signals(carl, 2)).map(({ name, data }) => [name, data.type]), [['signal:all', 'discover'], ['signal:all', 'leave']]);
  for (const person of [anna, ming, carl]) assert.deepEqual(person.errors, []);
});

story('a page from an origin that cors.allowed_origins does not name may use Ably', async (stage) => {
  const elsewhere = pages.replace('localhost', '127.0.0.1');
  const anna = await Page.open(stage, elsewhere);
  await anna.arrive({}, stage.room);
  await anna.does(() => channel.publish('n', 'd'));
  await anna.has(1);
});
