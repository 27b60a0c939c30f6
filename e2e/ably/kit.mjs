// The kit of the stories: clients of both SDK versions, of the wire and of the LetShare protocol, a line that can be
// cut, servers of a story's own, tokens. Whatever a story opens is closed at its end.

import { createRequire } from 'node:module';
import { createHmac, randomUUID } from 'node:crypto';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createHTTP } from 'node:http';
import { connect as dial, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'node:test';
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { configuration, keys } from './config.mjs';
import { RawClient } from './raw.mjs';

const require = createRequire(import.meta.url);

// What e2e/ably/run has started, by environment.
export const server = env('ABLY_SERVER'); // host:port of the server that most stories share
export const binary = env('ABLY_LETSHARE'); // path of the letshare binary
export const config = env('ABLY_CONFIG'); // path of the configuration the server runs with
export const pages = env('ABLY_PAGES'); // origin of the pages

// The two SDKs: the newest, and the one that the LetShare app locks.
export const sdks = ['ably-latest', 'ably-locked'].map((name) => {
  const { Realtime, Rest } = require(name);
  return { name, version: require(`./node_modules/${name}/package.json`).version, Realtime, Rest };
});

const patience = 15_000; // ms for anything that a story waits for, unless it says otherwise

function env(name) {
  assert.ok(process.env[name], `${name} is not set: start the stories with e2e/ably/run`);
  return process.env[name];
}

// story plays a story once with each SDK; its part gets a stage.
export function story(title, part) {
  for (const sdk of sdks) tell(`${title} [ably ${sdk.version}]`, sdk, part);
}

// tale plays a story once, with the newest SDK or none.
export function tale(title, part) {
  tell(title, sdks[0], part);
}

function tell(title, sdk, part) {
  test(title, async () => {
    const stage = new Stage(sdk);
    try {
      await part(stage);
    } finally {
      await stage.close();
    }
  });
}

class Stage {
  constructor(sdk) {
    this.sdk = sdk;
    this.ends = []; // closes what was opened, the newest first
    this.room = unique('r'); // a channel that no other story uses; also a LetShare room
  }

  async close() {
    for (const end of this.ends.reverse()) await end();
  }

  // meet is a client of the SDK. Node's default is msgpack; useBinaryProtocol: false speaks JSON.
  // A client without credentials of its own gets the key that may do everything.
  meet(options = {}) {
    const { at = server, sdk = this.sdk, ...rest } = options;
    const own = ['key', 'token', 'tokenDetails', 'authCallback', 'authUrl'].some((name) => name in rest);
    const client = new sdk.Realtime({ ...(own ? {} : { key: keys.all }), ...place(at), disconnectedRetryTimeout: 100, suspendedRetryTimeout: 100, logLevel: 0, ...rest });
    this.ends.push(async () => {
      client.close();
      if (client.connection.state !== 'closed' && client.connection.state !== 'failed') await reaches(client.connection, 'closed').catch(() => {});
    });
    return client;
  }

  // arrive is a client of the SDK that is connected.
  async arrive(options) {
    const client = this.meet(options);
    await reaches(client.connection, 'connected');
    return client;
  }

  rest(options = {}) {
    const { at = server, ...rest } = options;
    return new this.sdk.Rest({ key: keys.all, ...place(at), logLevel: 0, ...rest });
  }

  // raw is a client that speaks by hand; parameters go into the query.
  raw({ at = server, ...parameters } = {}) {
    const own = ['key', 'access_token', 'accessToken'].some((name) => name in parameters);
    const client = new RawClient(at, { ...(own ? {} : { key: keys.all }), ...parameters });
    this.ends.push(() => client.cut());
    return client;
  }

  // join is a member of the LetShare protocol in a room, with its own signals and those for all, as the app does.
  async join(userId, room = this.room, { at, file } = { at: server, file: config }) {
    const token = await mint(userId, file);
    const socket = new WebSocket(`ws://${at}/?${new URLSearchParams({ token, userId })}`);
    const member = new Member(userId, room, socket);
    this.ends.push(() => socket.terminate());
    await within(new Promise((resolve, reject) => { socket.on('open', resolve); socket.on('error', reject); }), `${userId} connects`);
    for (const event of [`signal:${userId}`, 'signal:all']) {
      member.send({ type: 'subscribe', channel: room, event });
      await eventually(`${userId} is subscribed to ${event}`, () => {
        const refusal = member.frames.find((f) => f.type === 'error');
        if (refusal) throw new Error(`${userId} is refused: ${refusal.error.reason}`);
        return member.frames.some((f) => f.type === 'subscribed' && f.event === event);
      });
    }
    return member;
  }

  // line is a TCP line to a server that the story can cut.
  async line(to = server) {
    const line = new Line(to);
    await line.listen();
    this.ends.push(() => line.close());
    return line;
  }

  // house is a server of the story's own, with settings laid over those of the shared one.
  async house(settings = {}) {
    const house = new House(settings);
    this.ends.push(() => house.close());
    await house.start();
    return house;
  }

  // office answers HTTP requests, as the customer's own auth server does. It returns its address.
  async office(handler) {
    const office = createHTTP(handler);
    await new Promise((resolve) => office.listen(0, '127.0.0.1', resolve));
    this.ends.push(() => new Promise((resolve) => { office.closeAllConnections(); office.close(resolve); }));
    return `http://127.0.0.1:${office.address().port}`;
  }
}

// place are the options that point the SDK at a host:port.
export function place(at) {
  const [host, port] = at.split(':');
  return { endpoint: host, port: Number(port), tls: false };
}

let count = 0;
export function unique(prefix) {
  return `${prefix}${(process.pid % 46656).toString(36)}${(count++).toString(36)}`;
}

// Ear keeps what a channel brings, in order.
class Ear {
  constructor() {
    this.messages = [];
  }

  names() { return this.messages.map(({ name }) => name); }
  data() { return this.messages.map(({ data }) => data); }

  has(n, limit) {
    return eventually(`${n} messages`, () => this.messages.length >= n, limit, () => JSON.stringify(this.names()));
  }

  hears(name, limit) {
    return eventually(`the message ${name}`, () => this.messages.some((m) => m.name === name), limit, () => JSON.stringify(this.names()));
  }
}

// listen attaches a channel and keeps all its messages from then on.
export async function listen(channel) {
  const ear = new Ear();
  await within(channel.subscribe((message) => ear.messages.push(message)), `${channel.name} is attached`);
  return ear;
}

// Member is a client of the LetShare protocol.
class Member {
  constructor(userId, room, socket) {
    this.userId = userId;
    this.room = room;
    this.socket = socket;
    this.frames = [];
    socket.on('message', (bytes) => this.frames.push(JSON.parse(bytes)));
  }

  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  // publish resolves when the server has acknowledged it.
  async publish(event, data) {
    const id = randomUUID();
    this.send({ type: 'publish', channel: this.room, event, data, id });
    await eventually(`${this.userId}'s publish is acknowledged`, () => this.frames.some((f) => f.type === 'ack' && f.id === id), patience, () => JSON.stringify(this.frames));
  }

  messages() { return this.frames.filter(({ type }) => type === 'message'); }

  has(n) {
    return eventually(`${this.userId} has ${n} messages`, () => this.messages().length >= n, patience, () => JSON.stringify(this.frames));
  }
}

// Line passes bytes on in both directions until it is cut. While it is down it accepts nobody for long.
class Line {
  constructor(to) {
    [this.host, this.port] = to.split(':');
    this.sockets = new Set();
    this.down = false;
    this.server = createServer((here) => {
      if (this.down) return here.destroy();
      const there = dial(Number(this.port), this.host);
      for (const [one, other] of [[here, there], [there, here]]) {
        this.sockets.add(one);
        one.setNoDelay(true);
        one.on('data', (bytes) => { if (!one.paused) other.write(bytes); });
        one.on('error', () => {});
        one.on('close', () => { this.sockets.delete(one); other.destroy(); });
      }
    });
  }

  listen() {
    return new Promise((resolve) => this.server.listen(0, '127.0.0.1', () => { this.at = `127.0.0.1:${this.server.address().port}`; resolve(); }));
  }

  // cut breaks all connections; new ones are let through.
  cut() {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  // break cuts, and lets nobody through until mend.
  break() {
    this.down = true;
    this.cut();
  }

  mend() {
    this.down = false;
  }

  close() {
    this.break();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

// House is a letshare process.
class House {
  constructor(settings) {
    this.settings = settings;
  }

  async start() {
    this.folder ??= await mkdtemp(join(tmpdir(), 'letshare-ably-'));
    this.at ??= `127.0.0.1:${await freePort()}`;
    this.file = join(this.folder, 'config.json');
    await writeFile(this.file, JSON.stringify(configuration({ port: this.at.split(':')[1], ...this.settings })));
    const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'MODE' && !name.startsWith('LETSHARE_')));
    this.process = spawn(binary, ['-config', this.file], { env: clean, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', (text) => (said += text));
    this.ended = new Promise((resolve) => this.process.on('exit', (code) => resolve(code)));
    await eventually('the server is up', () => fetch(`http://${this.at}/health`).then((r) => r.ok, () => false), patience, () => said);
  }

  // stop asks the server to end, which it must do well.
  async stop() {
    this.process.kill('SIGTERM');
    assert.equal(await within(this.ended, 'the server ends'), 0);
    this.process = undefined;
  }

  async close() {
    if (this.process) await this.stop();
    if (this.folder) await rm(this.folder, { recursive: true });
  }
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

// mint is a token of the LetShare protocol, for the server of a configuration.
export async function mint(userId, file = config) {
  const { stdout } = await promisify(execFile)(binary, ['token', '-user', userId, '-config', file]);
  return stdout.trim();
}

// jwt signs a JWT for Ably clients as a customer's server does, with the secret of a key.
export function jwt({ key = keys.all, seconds = 3600, capability, clientId, header = {}, claims = {} } = {}) {
  const [name, secret] = [key.slice(0, key.indexOf(':')), key.slice(key.indexOf(':') + 1)];
  const now = Math.floor(Date.now() / 1000);
  const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = [
    text({ typ: 'JWT', alg: 'HS256', kid: name, ...header }),
    text({
      iat: now, exp: now + seconds,
      ...(capability ? { 'x-ably-capability': JSON.stringify(capability) } : {}),
      ...(clientId ? { 'x-ably-clientId': clientId } : {}),
      ...claims,
    }),
  ].join('.');
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

// figure is a number of the server's /metrics, wherever in it the name stands.
export async function figure(name, at = server) {
  const find = (value) => {
    for (const [key, inner] of Object.entries(value)) {
      if (key === name && typeof inner === 'number') return inner;
      const below = inner && typeof inner === 'object' ? find(inner) : undefined;
      if (below !== undefined) return below;
    }
    return undefined;
  };
  const metrics = await (await fetch(`http://${at}/metrics`)).json();
  const value = find(metrics);
  assert.notEqual(value, undefined, `/metrics has no ${name}: ${JSON.stringify(metrics)}`);
  return value;
}

// reaches waits for a state of a connection or channel, and fails at once when it has failed instead.
export function reaches(emitter, state, limit = patience) {
  if (emitter.state === state) return Promise.resolve();
  return within(new Promise((resolve, reject) => {
    const listener = (change) => {
      if (change.current === state) resolve(change);
      else if (change.current === 'failed') reject(new Error(`failed instead of ${state}: ${change.reason?.code} ${change.reason?.message}`));
      else return;
      emitter.off(listener);
    };
    emitter.on(listener);
  }), `the state ${state}, not ${emitter.state}`, limit);
}

// changes keeps all changes of a connection or channel from now on.
export function changes(emitter) {
  const seen = [];
  emitter.on((change) => seen.push(change));
  return seen;
}

// refused wants a promise to be rejected with one of the codes, and returns the error.
export async function refused(promise, ...codes) {
  try {
    await within(promise, 'a refusal');
  } catch (error) {
    assert.ok(codes.includes(error.code), `refused with ${error.code}, not ${codes}: ${error.message}`);
    return error;
  }
  assert.fail(`not refused with ${codes}`);
}

export function within(promise, what, limit = patience) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not within ${limit} ms: ${what}`)), limit)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// eventually waits until a condition holds; seen tells what there was instead.
export async function eventually(what, condition, limit = patience, seen = () => '') {
  for (const end = Date.now() + limit; Date.now() < end; await pause(5)) {
    if (await condition()) return;
  }
  throw new Error(`not within ${limit} ms: ${what} ${seen()}`);
}

// numbers are "0" to n - 1: the SDK sends strings, objects and bytes, but no bare numbers.
export const numbers = (n) => Array.from({ length: n }, (_, i) => String(i));

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
