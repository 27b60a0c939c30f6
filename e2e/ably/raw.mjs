// A client that speaks the Ably protocol by hand: it shows the frames as they are, which the SDK hides.

import msgpack from '@ably/msgpack-js';
import assert from 'node:assert/strict';
import WebSocket from 'ws';

export const action = {
  HEARTBEAT: 0, ACK: 1, NACK: 2, CONNECTED: 4, DISCONNECT: 5, DISCONNECTED: 6, CLOSE: 7, CLOSED: 8, ERROR: 9,
  ATTACH: 10, ATTACHED: 11, DETACH: 12, DETACHED: 13, PRESENCE: 14, MESSAGE: 15, SYNC: 16, AUTH: 17,
};

export const flag = {
  RESUMED: 4, PRESENCE: 1 << 16, PUBLISH: 1 << 17, SUBSCRIBE: 1 << 18, PRESENCE_SUBSCRIBE: 1 << 19, ANNOTATION_PUBLISH: 1 << 21,
};

const patience = 10_000; // ms for a frame that must come, unless a story says otherwise

export class RawClient {
  // parameters go into the query of the upgrade; a format of msgpack is spoken by the client as well.
  constructor(address, parameters = {}) {
    this.msgpack = parameters.format === 'msgpack';
    this.frames = []; // all that came, decoded
    this.wire = []; // the same as it was: strings and Buffers
    this.pings = 0; // WebSocket pings
    this.read = 0; // how many frames the story has taken
    this.serial = 0; // of the next publish
    this.wake = () => {};
    const query = new URLSearchParams({ v: '6', ...parameters });
    this.socket = new WebSocket(`ws://${address}/?${query}`, { perMessageDeflate: false });
    this.closed = new Promise((resolve) => this.socket.on('close', (code) => resolve(code)));
    this.socket.on('error', (error) => (this.error = error));
    this.socket.on('ping', () => this.pings++);
    this.socket.on('message', (bytes, binary) => {
      assert.equal(binary, this.msgpack, 'JSON comes in text frames, msgpack in binary ones');
      this.wire.push(binary ? bytes : bytes.toString());
      this.frames.push(binary ? msgpack.decode(bytes) : JSON.parse(bytes));
      this.wake();
    });
    this.closed.then(() => this.wake());
  }

  send(frame) {
    this.socket.send(this.msgpack ? msgpack.encode(frame, true) : JSON.stringify(frame));
  }

  // publish sends messages under the next msgSerial, which it returns.
  publish(channel, ...messages) {
    this.send({ action: action.MESSAGE, channel, msgSerial: this.serial, messages });
    return this.serial++;
  }

  // next is the next frame that the story has not taken; heartbeats without an id may come at any time and do not count.
  async next(limit = patience) {
    for (const end = Date.now() + limit; ; ) {
      if (this.read < this.frames.length) {
        const frame = this.frames[this.read++];
        if (frame.action === action.HEARTBEAT && frame.id === undefined) continue;
        return frame;
      }
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error(`the connection is closed (${this.error ?? 'no error'}); it got ${this.story()}`);
      const left = end - Date.now();
      if (left <= 0) throw new Error(`no frame within ${limit} ms; it got ${this.story()}`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => { clearTimeout(timer); resolve(); };
      });
    }
  }

  // want is the next frame, which must have an action.
  async want(wanted, limit) {
    const frame = await this.next(limit);
    assert.equal(frame.action, wanted, `not the frame that must come now: ${JSON.stringify(frame)}`);
    return frame;
  }

  // until passes over frames to the first one with an action.
  async until(wanted, limit) {
    for (;;) {
      const frame = await this.next(limit);
      if (frame.action === wanted) return frame;
    }
  }

  async attach(channel, more = {}) {
    this.send({ action: action.ATTACH, channel, ...more });
    return this.until(action.ATTACHED);
  }

  // cut ends the connection as a broken line does.
  cut() {
    this.socket.terminate();
    return this.closed;
  }

  story() {
    return JSON.stringify(this.frames.slice(-10));
  }
}

// kindsOf walks over the bytes of one msgpack value and names the kinds of values in it.
export function kindsOf(bytes) {
  const kinds = new Set();
  const big = (at, size) => (size === 1 ? bytes.readUInt8(at) : size === 2 ? bytes.readUInt16BE(at) : bytes.readUInt32BE(at));
  function several(at, count) {
    for (let i = 0; i < count; i++) at = one(at);
    return at;
  }
  function one(at) {
    const kind = bytes.readUInt8(at++);
    const sized = (name, first) => { kinds.add(name); const size = 1 << (kind - first); return [at + size, big(at, size)]; };
    if (kind < 0x80 || kind >= 0xe0) return kinds.add('int'), at;
    if (kind < 0x90) return kinds.add('map'), several(at, 2 * (kind & 15));
    if (kind < 0xa0) return kinds.add('array'), several(at, kind & 15);
    if (kind < 0xc0) return kinds.add('str'), at + (kind & 31);
    if (kind === 0xc0) return kinds.add('nil'), at;
    if (kind === 0xc2 || kind === 0xc3) return kinds.add('bool'), at;
    if (kind >= 0xc4 && kind <= 0xc6) { const [from, length] = sized('bin', 0xc4); return from + length; }
    if (kind === 0xca || kind === 0xcb) return kinds.add('float'), at + (kind === 0xca ? 4 : 8);
    if (kind >= 0xcc && kind <= 0xcf) return kinds.add('int'), at + (1 << (kind - 0xcc));
    if (kind >= 0xd0 && kind <= 0xd3) return kinds.add('int'), at + (1 << (kind - 0xd0));
    if (kind >= 0xd9 && kind <= 0xdb) { const [from, length] = sized('str', 0xd9); return from + length; }
    if (kind === 0xdc || kind === 0xdd) { kinds.add('array'); const size = kind === 0xdc ? 2 : 4; return several(at + size, big(at, size)); }
    if (kind === 0xde || kind === 0xdf) { kinds.add('map'); const size = kind === 0xde ? 2 : 4; return several(at + size, 2 * big(at, size)); }
    throw new Error(`a msgpack value of kind 0x${kind.toString(16)}, which the SDK cannot read`);
  }
  assert.equal(one(0), bytes.length, 'one value, and nothing behind it');
  return kinds;
}

// nulls are the paths of all nulls in a value.
export function nulls(value, path = '') {
  if (value === null) return [path];
  if (typeof value !== 'object' || Buffer.isBuffer(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => nulls(inner, `${path}.${key}`));
}
