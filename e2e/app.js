// AppClient talks to a custom server exactly as the LetShare web app (v3.5.7) does: the same URL, the same
// frames in the same order, the same timers. It runs in a real page and knows nothing of the stories.
// What a person would click is a method; what the app would show is an event or a field.

const openTimeout = 10_000; // ms from dialling to the socket's open
const subscribedTimeout = 5_000; // ms from there to the first matching `subscribed`

// dialsRefused is per page, as in the app: after one refused handshake it never dials again until a reload.
let dialsRefused = false;

export class AppClient {
  // url is what the person typed into the settings; the app normalises nothing.
  constructor({ url, token, userId, log = () => {} }) {
    this.url = url;
    this.token = token;
    this.userId = userId;
    this.log = log;
    this.room = '';
    this.socket = null;
    this.keys = null; // own key pairs, made at the first connect
    this.peers = new Map(); // userId -> publicKeys or null: the tiles on the app's screen
    this.received = []; // every frame of text, parsed, in order: what the stories look into
    this.toasts = []; // texts of `error` frames, which the app shows
    this.handlers = new Map();
    addEventListener('beforeunload', () => this.sayLeave());
    addEventListener('pagehide', () => this.sayLeave());
  }

  // on registers a handler for a signal's data.type, for a `file:transfer:*` type, or for
  // 'error', 'binary' and 'closed'. emit also serves what the page itself has to tell: 'secret', 'chunk'.
  on(type, handler) {
    if (!this.handlers.has(type)) this.handlers.set(type, []);
    this.handlers.get(type).push(handler);
  }

  emit(type, ...args) {
    for (const handler of this.handlers.get(type) ?? []) handler(...args);
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  // connect is the app's start, and the Search button after a lost connection: dial, subscribe, discover.
  async connect(room) {
    this.keys ??= await makeKeys();
    await this.dial();
    await this.join(room);
    this.search();
  }

  // dial opens the socket. Neither token nor userId is escaped: the browser does what it must.
  dial() {
    if (dialsRefused) throw new Error('refused before: the app does not dial again until the page is reloaded');
    const socket = new WebSocket(`${this.url}?token=${this.token}&userId=${this.userId}`);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    let opened = false;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no open within ${openTimeout} ms`)), openTimeout);
      socket.onopen = () => {
        opened = true;
        clearTimeout(timer);
        this.log(`connected to ${this.url}`);
        resolve();
      };
      socket.onmessage = (event) => socket === this.socket && this.receive(event.data);
      socket.onclose = () => {
        clearTimeout(timer);
        if (socket === this.socket) this.socket = null;
        this.log('offline');
        this.emit('closed');
        if (opened) return;
        dialsRefused = true;
        reject(new Error('the server refused the connection'));
      };
    });
  }

  // join subscribes to the two events of a room, back to back, and goes on after the first answer.
  join(room) {
    this.room = room;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no subscribed within 5 s')), subscribedTimeout);
      this.onSubscribed = (channel) => {
        if (channel !== room) return;
        clearTimeout(timer);
        this.onSubscribed = null;
        this.log(`in room “${room}”`);
        resolve();
      };
      this.send({ type: 'subscribe', channel: room, event: `signal:${this.userId}` });
      this.send({ type: 'subscribe', channel: room, event: 'signal:all' });
    });
  }

  leaveRoom() {
    this.send({ type: 'unsubscribe', channel: this.room, event: `signal:${this.userId}` });
    this.send({ type: 'unsubscribe', channel: this.room, event: 'signal:all' });
    this.peers.clear();
  }

  // rename is what a change of the room's name in the settings does.
  async rename(room) {
    this.sayLeave();
    this.leaveRoom();
    await this.join(room);
    this.search();
  }

  // search is the Search button while connected: two discovers, one with the public keys and one without.
  search() {
    this.publish({ type: 'discover', userType: 'desktop', publicKeys: this.keys.public });
    this.publish({ type: 'discover', userType: 'desktop' });
  }

  sayLeave() {
    if (this.isOpen && this.room) this.publish({ type: 'leave', userType: 'desktop' });
  }

  // publish sends a signal: to one user when it has `to`, else to the room.
  publish(data) {
    const event = data.to ? `signal:${data.to}` : 'signal:all';
    this.send({ type: 'publish', channel: this.room, event, data: { from: this.userId, ...data } });
  }

  send(frame) {
    if (!this.isOpen) throw new Error('offline');
    this.socket.send(JSON.stringify(frame));
  }

  sendText(to, message) {
    this.publish({ type: 'text', message, to, userType: 'desktop' });
  }

  // sendSecret encrypts for the one peer whose keys a discover brought.
  async sendSecret(to, message) {
    const encryptedMessage = await encrypt(this.keys, this.peers.get(to), message);
    this.publish({ type: 'encrypted_text', encryptedMessage, to, userType: 'desktop' });
  }

  receive(raw) {
    if (typeof raw !== 'string') return this.emit('binary', raw);
    const frame = JSON.parse(raw);
    this.received.push(frame);
    if (frame.type === 'subscribed') return this.onSubscribed?.(frame.channel);
    if (frame.type === 'message') return this.receiveSignal(frame);
    if (frame.type === 'error') {
      this.toasts.push(frame.error.message);
      this.log(`server: ${frame.error.message}`);
      return this.emit('error', frame.error);
    }
    if (frame.type.startsWith('file:transfer:')) this.emit(frame.type, frame.data ?? frame);
  }

  // receiveSignal applies the app's filter: its own two events only, an object, not from itself.
  receiveSignal({ channel, event, data }) {
    if (!channel || (event !== 'signal:all' && event !== `signal:${this.userId}`)) return;
    if (data === null || typeof data !== 'object' || data.from === this.userId) return;
    if (data.type === 'discover') this.receiveDiscover(data);
    if (data.type === 'leave') {
      this.peers.delete(data.from);
      this.log(`${data.from} left`);
    }
    if (data.type === 'text') this.log(`${data.from}: ${data.message}`);
    if (data.type === 'encrypted_text') this.receiveSecret(data);
    this.emit(data.type, data);
  }

  receiveDiscover({ from, publicKeys, isReply }) {
    if (!this.peers.has(from)) this.log(`found ${from}`);
    this.peers.set(from, publicKeys ?? this.peers.get(from) ?? null);
    if (isReply) return;
    this.publish({ type: 'discover', userType: 'desktop', publicKeys: this.keys.public, isReply: true, to: from });
  }

  async receiveSecret({ from, encryptedMessage }) {
    const message = await decrypt(this.keys, this.peers.get(from), encryptedMessage);
    this.log(`${from} (encrypted): ${message}`);
    this.emit('secret', { from, message });
  }
}

const curve = { name: 'ECDH', namedCurve: 'P-256' };
const signing = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

// makeKeys yields what a discover carries, {publicKeyDH, publicKeySign, signature}, and the private half.
async function makeKeys() {
  const dh = await crypto.subtle.generateKey(curve, false, ['deriveKey']);
  const sign = await crypto.subtle.generateKey(signing, false, ['sign', 'verify']);
  const rawDH = await crypto.subtle.exportKey('raw', dh.publicKey);
  return {
    private: dh.privateKey,
    public: {
      publicKeyDH: toBase64(rawDH),
      publicKeySign: toBase64(await crypto.subtle.exportKey('raw', sign.publicKey)),
      signature: toBase64(await crypto.subtle.sign(signing, sign.privateKey, rawDH)),
    },
  };
}

// sharedKey checks that the peer's keys came through unharmed before it uses them.
async function sharedKey(keys, peer) {
  const rawDH = fromBase64(peer.publicKeyDH);
  const verifier = await crypto.subtle.importKey('raw', fromBase64(peer.publicKeySign), signing, false, ['verify']);
  if (!(await crypto.subtle.verify(signing, verifier, fromBase64(peer.signature), rawDH))) {
    throw new Error('the signature of the public keys does not hold');
  }
  const theirs = await crypto.subtle.importKey('raw', rawDH, curve, false, []);
  return crypto.subtle.deriveKey({ name: 'ECDH', public: theirs }, keys.private, { name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt']);
}

async function encrypt(keys, peer, text) {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, await sharedKey(keys, peer), new TextEncoder().encode(text));
  return { iv: toBase64(iv), ciphertext: toBase64(sealed) };
}

async function decrypt(keys, peer, { iv, ciphertext }) {
  const opened = await crypto.subtle.decrypt({ name: 'AES-GCM', iv: fromBase64(iv) }, await sharedKey(keys, peer), fromBase64(ciphertext));
  return new TextDecoder().decode(opened);
}

function toBase64(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)));
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
