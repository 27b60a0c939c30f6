// Relay is the app's way for files when no direct link exists: through the server, with the app's frames,
// window, acknowledgements, timers and repairs. The server's part of the contract is what the stories test.

const chunkBytes = 64 << 10;
const headerBytes = 256; // JSON, the rest NUL, before every chunk
const flowControl = 'receiver_ack_v1';
const ackWindow = 24; // chunks the sender may have unacknowledged
const ackEvery = 8; // newly written chunks per acknowledgement
const freeLimit = 50 << 20; // bytes; above it the app shows a dialog and sends nothing

const answerTimeout = 30_000; // ms for accept or reject
const windowPoll = 100; // ms
const windowTimeout = 120_000; // ms without an acknowledgement while the window is closed
const bufferPause = 512 << 10; // bytes in the socket's buffer
const bufferTimeout = 15_000; // ms
const chunkPause = 10; // ms after each chunk
const completeTimeout = 180_000; // ms after `end`
const stallTimeout = 30_000; // ms without a new chunk before the receiver asks for what is missing
const resendAttempts = 3; // without progress in between
const resendIndexes = 256; // per request

export class Relay {
  // onFile is called with (from, File) for each file that arrived whole.
  constructor(client, onFile) {
    this.client = client;
    this.onFile = onFile;
    this.rejectReason = ''; // when set, requests are rejected with it
    this.outgoing = null; // one at a time per page, as in the app
    this.incoming = new Map(); // transfer_id -> Incoming
    this.finished = new Set(); // transfer ids whose late frames are ignored
    this.strangers = new Set(); // unknown transfer ids that were answered with a cancel
    this.failures = []; // {transfer_id, reason}: incoming transfers that ended badly
    client.on('file:transfer:request', (data) => this.receiveRequest(data));
    client.on('file:transfer:end', (data) => this.incoming.get(data.transfer_id)?.receiveEnd());
    client.on('binary', (frame) => this.receiveChunk(frame));
    for (const kind of ['accept', 'reject', 'ack', 'resend', 'complete']) {
      client.on(`file:transfer:${kind}`, (data) => this.isOutgoing(data) && this.outgoing[kind](data));
    }
    client.on('file:transfer:cancel', (data) => this.end(data.transfer_id, `cancelled: ${data.reason}`));
    client.on('file:transfer:error', (data) => this.end(data.transfer_id, data.error));
    client.on('error', (error) => error.transfer_id && this.end(error.transfer_id, error.message));
  }

  isOutgoing({ transfer_id }) {
    return this.outgoing?.id === transfer_id;
  }

  // sendFile resolves when the receiver has confirmed the whole file, and fails with what the app would show.
  async sendFile(to, file) {
    if (this.outgoing) throw new Error('a transfer is under way');
    if (file.size > freeLimit) throw new Error('over the free limit: nothing is sent');
    this.outgoing = new Outgoing(this.client, to, file);
    try {
      await this.outgoing.run();
      this.client.log(`sent ${file.name} to ${to} through the server`);
    } catch (error) {
      this.client.log(`${file.name} did not get through: ${error.message}`);
      throw error;
    } finally {
      this.outgoing = null;
    }
  }

  // cancel is the Cancel button, on whichever side this page is.
  cancel(reason) {
    for (const id of [this.outgoing?.id, ...this.incoming.keys()]) {
      if (!id) continue;
      this.client.send({ type: 'file:transfer:cancel', data: { transfer_id: id, reason } });
      this.end(id, `cancelled: ${reason}`);
    }
  }

  // end is a transfer's bad end, told by the other side or by the server.
  end(id, reason) {
    if (this.outgoing?.id === id) this.outgoing.fail(reason);
    if (!this.incoming.has(id)) return;
    this.forget(id);
    this.failures.push({ transfer_id: id, reason });
    this.client.log(`a file did not arrive: ${reason}`);
  }

  forget(id) {
    this.incoming.get(id).stop();
    this.incoming.delete(id);
    this.finished.add(id);
  }

  receiveRequest(request) {
    const data = { transfer_id: request.transfer_id };
    const chunks = Math.max(1, Math.ceil(request.file_size / request.chunk_size));
    const reason = this.rejectReason || (request.total_chunks === chunks ? '' : 'bad request');
    if (reason) {
      this.client.send({ type: 'file:transfer:reject', channel: this.client.room, data: { ...data, reason } });
      return;
    }
    this.incoming.set(request.transfer_id, new Incoming(this, request));
    if (request.flow_control) {
      Object.assign(data, { flow_control: flowControl, ack_every_chunks: ackEvery, ack_window_chunks: ackWindow });
    }
    this.client.send({ type: 'file:transfer:accept', channel: this.client.room, data });
  }

  receiveChunk(frame) {
    const text = new TextDecoder().decode(new Uint8Array(frame, 0, headerBytes));
    const header = JSON.parse(text.slice(0, text.indexOf('\0')));
    const id = header.transfer_id;
    const incoming = this.incoming.get(id);
    if (incoming) return incoming.receiveChunk(header, frame.slice(headerBytes));
    if (this.finished.has(id) || this.strangers.has(id)) return;
    this.strangers.add(id);
    this.client.send({ type: 'file:transfer:cancel', data: { transfer_id: id, reason: 'unknown transfer' } });
  }
}

// Outgoing is one file on its way out.
class Outgoing {
  constructor(client, to, file) {
    this.client = client;
    this.to = to;
    this.file = file;
    this.id = `transfer_${Date.now()}_${Math.random().toString(36).slice(2, 9).padEnd(7, '0')}`;
    this.chunks = Math.max(1, Math.ceil(file.size / chunkBytes));
    this.answer = null; // the receiver's accept
    this.acked = 0; // chunks, cumulative
    this.sent = 0; // chunks, without those sent again
    this.resends = []; // indexes the receiver has asked for
    this.ended = false; // `end` was sent
    this.confirmed = false; // `complete` came after it
    this.error = null; // why it failed
  }

  async run() {
    this.request();
    await this.until(() => this.answer, answerTimeout, 'no response');
    this.send('start');
    const flow = this.answer.flow_control === flowControl;
    for (let index = 0; index < this.chunks; index++) {
      if (flow) await this.window(ackWindow);
      await this.sendChunk(index);
      this.sent++;
    }
    if (flow) await this.window(1); // all acknowledged
    this.ended = true;
    this.send('end');
    await this.until(() => this.confirmed, completeTimeout, 'no confirmation');
  }

  request() {
    this.client.send({
      type: 'file:transfer:request',
      channel: this.client.room,
      data: {
        transfer_id: this.id,
        file_name: this.file.name,
        file_size: this.file.size,
        file_type: this.file.type,
        chunk_size: chunkBytes,
        total_chunks: this.chunks,
        from_user_id: this.client.userId,
        to_user_id: this.to,
        room_name: this.client.room,
        flow_control: flowControl,
      },
    });
  }

  // send is for `start` and `end`, which carry no channel.
  send(kind) {
    this.client.send({ type: `file:transfer:${kind}`, data: { transfer_id: this.id } });
  }

  // until polls, and meanwhile sends again what the receiver asks for.
  async until(holds, timeout, late) {
    for (const since = Date.now(); !holds(); await this.pause(windowPoll)) {
      if (Date.now() - since > timeout) throw new Error(late);
      await this.sendAgain();
    }
  }

  // window waits until fewer than `size` chunks are unacknowledged, as long as acknowledgements come.
  async window(size) {
    while (this.sent - this.acked >= size) {
      const before = this.acked;
      await this.until(() => this.acked > before, windowTimeout, 'the receiver stopped acknowledging');
    }
  }

  async sendChunk(index) {
    const payload = await this.file.slice(index * chunkBytes, (index + 1) * chunkBytes).arrayBuffer();
    const frame = new Uint8Array(headerBytes + payload.byteLength);
    const header = { transfer_id: this.id, chunk_index: index, chunk_size: payload.byteLength, total_chunks: this.chunks };
    new TextEncoder().encodeInto(JSON.stringify(header), frame);
    frame.set(new Uint8Array(payload), headerBytes);
    for (const since = Date.now(); this.client.socket?.bufferedAmount > bufferPause; await this.pause(chunkPause)) {
      if (Date.now() - since > bufferTimeout) throw new Error('the connection does not take more');
    }
    if (!this.client.isOpen) throw new Error('offline');
    this.client.socket.send(frame);
    await this.pause(chunkPause);
  }

  async sendAgain() {
    const indexes = this.resends.splice(0);
    for (const index of indexes) await this.sendChunk(index);
    if (indexes.length && this.ended) this.send('end');
  }

  // pause is where a transfer learns that it has failed.
  async pause(ms) {
    await sleep(ms);
    if (this.error) throw this.error;
  }

  fail(reason) {
    this.error ??= new Error(reason);
  }

  accept(data) {
    this.answer ??= data;
  }

  reject({ reason }) {
    this.fail(`rejected: ${reason}`);
  }

  ack({ chunk_index, received_chunks, total_chunks }) {
    if (total_chunks !== undefined && total_chunks !== this.chunks) return;
    this.acked = Math.max(this.acked, received_chunks ?? chunk_index + 1);
  }

  resend({ chunk_indexes, missing_count, total_chunks }) {
    const inRange = chunk_indexes.every((i) => Number.isInteger(i) && i >= 0 && i < this.chunks);
    const count = chunk_indexes.length;
    if (!inRange || count < 1 || count > resendIndexes || missing_count < count || missing_count > this.chunks) return;
    if (total_chunks === this.chunks) this.resends.push(...chunk_indexes);
  }

  // complete counts only once the sender waits for it: the app loses an earlier one.
  complete() {
    if (this.ended) this.confirmed = true;
  }
}

// Incoming is one file on its way in. It outlives the socket it began on.
class Incoming {
  constructor(relay, request) {
    this.relay = relay;
    this.request = request;
    this.chunks = new Array(request.total_chunks);
    this.count = 0; // chunks written
    this.bytes = 0;
    this.ended = false; // `end` has come
    this.attempts = 0; // resend requests since the last new chunk
    this.arm();
  }

  arm() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.repair('stalled'), stallTimeout);
  }

  stop() {
    clearTimeout(this.timer);
  }

  receiveChunk({ chunk_index: index, chunk_size: size, total_chunks: total }, payload) {
    const { chunk_size: whole, total_chunks: count, file_size: fileSize } = this.request;
    const want = index < count - 1 ? whole : fileSize - (count - 1) * whole;
    if (total !== count || !(index >= 0 && index < count) || payload.byteLength !== size || size !== want) {
      return this.giveUp('bad chunk');
    }
    if (this.chunks[index]) return;
    this.chunks[index] = payload;
    this.count++;
    this.bytes += payload.byteLength;
    this.attempts = 0;
    this.arm();
    if (this.count % ackEvery === 0 || this.count === count) this.acknowledge(index);
    this.relay.client.emit('chunk', this);
    if (this.ended && this.count === count) this.finish();
  }

  acknowledge(index) {
    this.send('ack', {
      chunk_index: index,
      received_chunks: this.count,
      total_chunks: this.request.total_chunks,
      bytes_received: this.bytes,
    });
  }

  receiveEnd() {
    this.ended = true;
    if (this.count === this.request.total_chunks) this.finish();
    else this.repair('gaps at the end');
  }

  finish() {
    const { transfer_id: id, from_user_id: from, file_name: name } = this.request;
    this.relay.forget(id);
    this.relay.onFile(from, new File(this.chunks, name));
    this.send('complete', {});
  }

  // repair asks for missing chunks while that can still succeed; with none missing it assembles without `end`.
  repair(reason) {
    const missing = [];
    for (let index = 0; index < this.request.total_chunks; index++) if (!this.chunks[index]) missing.push(index);
    if (!missing.length) return this.finish();
    if (missing.length > resendIndexes * (resendAttempts - this.attempts)) return this.giveUp('too much is missing');
    this.attempts++;
    this.arm();
    this.relay.client.log(`asking again for ${missing.length} chunks: ${reason}`);
    this.send('resend', {
      chunk_indexes: missing.slice(0, resendIndexes),
      missing_count: missing.length,
      total_chunks: this.request.total_chunks,
      reason,
    });
  }

  giveUp(reason) {
    const id = this.request.transfer_id;
    if (this.relay.client.isOpen) this.send('cancel', { reason });
    this.relay.end(id, reason);
  }

  // send speaks for this transfer; what is said while the socket is gone is lost, as in the app.
  send(kind, data) {
    const { client } = this.relay;
    if (!client.isOpen) return;
    client.send({
      type: `file:transfer:${kind}`,
      channel: client.room,
      data: { transfer_id: this.request.transfer_id, ...data },
    });
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
