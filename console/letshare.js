// The LetShare protocol, as far as trying it needs: two visitors in one room, who listen to an event that nobody else uses.

import { Failure, within } from './failure.js';

export class LetShareLink {
  // open connects. base is the WebSocket URL, name the visitor; a token that is bound to a user decides the name itself.
  static async open({ base, token, name }) {
    const claims = claimsOf(token);
    const url = new URL(base);
    if (!claims.bind_user) url.searchParams.set('userId', name);
    // As a subprotocol the token stays out of the logs of proxies. An opaque one may have characters that do not fit.
    const fits = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(token);
    if (!fits) url.searchParams.set('token', token);
    const socket = fits ? new WebSocket(url, ['letshare.token', token]) : new WebSocket(url);
    const opened = new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = () => reject(new Failure('refused_upgrade'));
    });
    try {
      await within(opened, new Failure('refused_upgrade'));
    } catch (error) {
      socket.close();
      throw error;
    }
    return new LetShareLink(socket, claims.room_id);
  }

  constructor(socket, onlyRoom) {
    this.socket = socket;
    this.onlyRoom = onlyRoom; // that the token is for
    this.onmessage = () => {};
    this.waiting = new Map(); // by message id
    this.lastId = 0;
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.fail(new Failure('closed', { code, reason }));
  }

  take(message) {
    const waiter = this.waiting.get(message.id);
    if (message.type === 'message') this.onmessage(message.data);
    else if (message.type === 'error') {
      const failure = new Failure('refused', { reason: message.error.reason, said: message.error.message });
      if (waiter) waiter.reject(failure);
      else this.fail(failure);
    } else if (waiter) waiter.resolve(message);
  }

  fail(failure) {
    this.failure ??= failure;
    for (const { reject } of this.waiting.values()) reject(failure);
    this.onfailure?.(failure);
  }

  // ask sends a message with an id and returns its answer.
  ask(message) {
    if (this.failure) return Promise.reject(this.failure);
    const id = ++this.lastId;
    const answered = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.socket.send(JSON.stringify({ ...message, id }));
    return within(answered, new Failure('silent')).finally(() => this.waiting.delete(id));
  }

  async join(room) {
    this.room = this.onlyRoom || room;
    this.event = `console:${room}`;
    await this.ask({ type: 'subscribe', channel: this.room, event: this.event });
  }

  send(data) {
    return this.ask({ type: 'publish', channel: this.room, event: this.event, data });
  }

  close() {
    this.socket.onclose = null;
    this.socket.close(1000);
  }
}

// claimsOf reads a token without judging it; one that is not a JWT has no claims.
function claimsOf(token) {
  try {
    const text = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0)))) ?? {};
  } catch {
    return {};
  }
}
