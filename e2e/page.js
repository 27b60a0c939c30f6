// What one person has on the screen: the client, its two ways for files, and a log to read.
// The stories drive it through `window.app`.

import { AppClient } from './app.js';
import { DirectLinks } from './p2p.js';
import { Relay } from './relay.js';

const files = new Map(); // name -> {from, size, sha256}: what this page received
const secrets = []; // {from, message}: encrypted texts that this page could read

function log(text) {
  const line = document.createElement('li');
  line.textContent = text;
  document.getElementById('log').append(line);
}

async function sha256(blob) {
  const digest = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function keep(from, file) {
  const hash = await sha256(file);
  files.set(file.name, { from, size: file.size, sha256: hash });
  log(`got ${file.name} from ${from}: ${file.size} bytes, SHA-256 ${hash.slice(0, 12)}…`);
}

// randomFile is `size` random bytes; getRandomValues gives 64 KiB at most at a time.
async function randomFile(name, size) {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65536, size)));
  const file = new File([bytes], name);
  const hash = await sha256(file);
  log(`made ${name}: ${size} bytes, SHA-256 ${hash.slice(0, 12)}…`);
  return { file, sha256: hash };
}

window.startApp = (settings) => {
  document.getElementById('who').textContent = settings.userId;
  const client = new AppClient({ ...settings, log });
  client.on('secret', (secret) => secrets.push(secret));
  // A browser without WebRTC is one whose every file goes through the server.
  const direct = window.RTCPeerConnection ? new DirectLinks(client, keep) : null;
  const relay = new Relay(client, keep);
  window.app = { client, direct, relay, files, secrets, log, randomFile };
};
