// DirectLinks is the app's WebRTC half: one RTCPeerConnection and data channel per peer, signalled through
// the client's server connection, and files over the channel.

const candidateBatch = 400; // ms during which ICE candidates are gathered into one signal
const verdictAfter = 3_000; // ms after which an attempt is judged
const attempts = 3;
const coolDown = 4_000; // ms between attempts
const chunkBytes = 16 << 10; // every browser takes messages of this size
const bufferedMax = 1 << 20; // bytes waiting in the channel before the sender pauses

export class DirectLinks {
  // onFile is called with (from, File) for each file that arrived whole.
  constructor(client, onFile) {
    this.client = client;
    this.onFile = onFile;
    this.links = new Map(); // userId -> {pc, channel}
    this.attempts = 0; // connection attempts this page has made
    this.droppedBatches = 0; // candidate batches that overtook their offer: the app loses these
    client.on('offer', (data) => this.receiveOffer(data));
    client.on('answer', ({ from, answer }) => this.links.get(from)?.pc.setRemoteDescription(answer));
    client.on('candidate', (data) => this.receiveCandidates(data));
    client.on('leave', ({ from }) => this.drop(from));
  }

  isOpen(userId) {
    return this.links.get(userId)?.channel?.readyState === 'open';
  }

  // connect opens a channel to a peer, with the app's attempts, verdict and cool-down.
  async connect(to) {
    for (let attempt = 1; attempt <= attempts; attempt++) {
      if (attempt > 1) await sleep(coolDown);
      this.attempts++;
      await this.offer(to);
      for (const end = Date.now() + verdictAfter; Date.now() < end; await sleep(20)) {
        if (this.isOpen(to)) return;
      }
      this.client.log(`attempt ${attempt} to reach ${to} failed`);
    }
    throw new Error(`no direct link to ${to}`);
  }

  async offer(to) {
    const link = this.create(to);
    this.adopt(to, link, link.pc.createDataChannel('files'));
    const offer = await link.pc.createOffer();
    await link.pc.setLocalDescription(offer);
    this.client.publish({ type: 'offer', offer: { type: offer.type, sdp: offer.sdp }, to });
  }

  async receiveOffer({ from, offer }) {
    const link = this.create(from);
    link.pc.ondatachannel = ({ channel }) => this.adopt(from, link, channel);
    // Called before anything is awaited: a batch that arrives next queues behind it inside the connection.
    await link.pc.setRemoteDescription(offer);
    const answer = await link.pc.createAnswer();
    await link.pc.setLocalDescription(answer);
    this.client.publish({ type: 'answer', answer: { type: answer.type, sdp: answer.sdp }, to: from });
  }

  receiveCandidates({ from, candidates }) {
    const link = this.links.get(from);
    if (!link) {
      this.droppedBatches++;
      return;
    }
    for (const candidate of candidates) link.pc.addIceCandidate(candidate);
  }

  create(peer) {
    this.drop(peer);
    const pc = new RTCPeerConnection({ iceServers: [] });
    const link = { pc, channel: null };
    this.links.set(peer, link);
    let batch = [];
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return;
      batch.push(candidate.toJSON());
      if (batch.length > 1) return;
      setTimeout(() => {
        if (this.links.get(peer) === link) this.client.publish({ type: 'candidate', candidates: batch, to: peer });
        batch = [];
      }, candidateBatch);
    };
    return link;
  }

  adopt(peer, link, channel) {
    link.channel = channel;
    channel.binaryType = 'arraybuffer';
    channel.onopen = () => this.client.log(`direct link to ${peer} is open`);
    let incoming = null;
    channel.onmessage = ({ data }) => {
      if (typeof data !== 'string') return incoming.parts.push(data);
      const note = JSON.parse(data);
      if (note.kind === 'begin') incoming = { name: note.name, parts: [] };
      else this.onFile(peer, new File(incoming.parts, incoming.name));
    };
  }

  async sendFile(to, file) {
    const { channel } = this.links.get(to);
    channel.send(JSON.stringify({ kind: 'begin', name: file.name, size: file.size }));
    for (let at = 0; at < file.size; at += chunkBytes) {
      while (channel.bufferedAmount > bufferedMax) await sleep(5);
      channel.send(await file.slice(at, at + chunkBytes).arrayBuffer());
    }
    channel.send(JSON.stringify({ kind: 'end' }));
  }

  drop(peer) {
    this.links.get(peer)?.pc.close();
    this.links.delete(peer);
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
