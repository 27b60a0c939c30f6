// The Ably protocol, as far as trying it needs: JSON over a WebSocket; connect, attach, publish, receive.

import { Failure, within } from './failure.js';

const action = { ack: 1, nack: 2, connected: 4, disconnected: 6, close: 7, error: 9, attach: 10, attached: 11, message: 15 };

export class AblyLink {
  // open connects. base is the WebSocket URL, key an API key, name the visitor.
  static async open({ base, key, name }) {
    const url = new URL(base);
    for (const [parameter, value] of Object.entries({ key, v: '3', format: 'json', echo: 'false', heartbeats: 'true', clientId: name })) {
      url.searchParams.set(parameter, value);
    }
    const link = new AblyLink(new WebSocket(url));
    try {
      await within(link.connected, new Failure('refused_upgrade'));
    } catch (error) {
      link.close();
      throw error;
    }
    return link;
  }

  constructor(socket) {
    this.socket = socket;
    this.onmessage = () => {};
    this.serial = 0;
    this.waiting = new Map(); // what is expected: 'attached', or the serial of a publish
    this.connected = this.expect('connected');
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.fail(new Failure(this.isConnected ? 'closed' : 'refused_upgrade', { code, reason }));
  }

  expect(what) {
    return new Promise((resolve, reject) => this.waiting.set(what, { resolve, reject }));
  }

  settle(what, result) {
    this.waiting.get(what)?.resolve(result);
    this.waiting.delete(what);
  }

  take(message) {
    switch (message.action) {
      case action.connected:
        this.isConnected = true;
        return this.settle('connected');
      case action.attached:
        return this.settle('attached');
      case action.ack:
        for (let i = 0; i < message.count; i++) this.settle(message.msgSerial + i);
        return;
      case action.message:
        for (const { data } of message.messages) this.onmessage(JSON.parse(data));
        return;
      case action.nack:
      case action.error:
      case action.disconnected:
        return this.fail(new Failure('ably_refused', { reason: message.error?.code ?? '', said: message.error?.message ?? '' }));
    }
  }

  fail(failure) {
    this.failure ??= failure;
    for (const { reject } of this.waiting.values()) reject(this.failure);
    this.waiting.clear();
    this.onfailure?.(this.failure);
  }

  ask(what, message) {
    if (this.failure) return Promise.reject(this.failure);
    const answered = this.expect(what);
    this.socket.send(JSON.stringify(message));
    return within(answered, new Failure('silent'));
  }

  async join(channel) {
    this.channel = channel;
    await this.ask('attached', { action: action.attach, channel });
  }

  send(data) {
    const serial = this.serial++;
    const messages = [{ name: 'console', data: JSON.stringify(data), encoding: 'json' }];
    return this.ask(serial, { action: action.message, channel: this.channel, msgSerial: serial, messages });
  }

  close() {
    this.socket.onclose = null;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ action: action.close }));
    this.socket.close(1000);
  }
}
