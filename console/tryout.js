// "Try it": two visitors meet on this server, once over each protocol.

import { AblyLink } from './ably.js';
import { openDirect } from './direct.js';
import { diagnose, Failure, within } from './failure.js';
import { LetShareLink } from './letshare.js';

// The steps, in order, by protocol.
export const steps = ['connect', 'join', 'talk', 'direct'];
export const protocols = ['letshare', 'ably'];

const rounds = 2; // messages each way

// tryOut plays all steps. base is the server's HTTP URL with a slash at its end; tell(protocol, step, state, result) hears of each
// step: state is running, done, failed or skipped. It returns the failures, none when all is well.
export async function tryOut({ base, token, ably, tell }) {
  const failures = [];
  const url = base.replace(/^http/, 'ws');
  const room = `console-${random(4)}`;
  for (const protocol of protocols) {
    if (protocol === 'ably' && !(ably.enabled && ably.key)) {
      steps.forEach((step) => tell(protocol, step, 'skipped'));
      continue;
    }
    const Link = protocol === 'ably' ? AblyLink : LetShareLink;
    const open = (name) => Link.open({ base: url, token, key: ably.key, name: `${name}-${room}` });
    const failure = await play(protocol, open, room, tell);
    if (!failure) continue;
    failures.push(failure.name === 'refused_upgrade' ? await diagnose(base, protocol === 'ably' ? null : token) : failure);
    if (failures[0].name === 'gone') break;
  }
  return failures;
}

// play plays the steps of one protocol up to the first that fails, and returns its failure.
async function play(protocol, open, room, tell) {
  const links = [];
  const actions = {
    async connect() {
      const began = performance.now();
      const results = await Promise.allSettled([open('a'), open('b')]);
      for (const { value } of results) if (value) links.push(value);
      const refused = results.find(({ reason }) => reason);
      if (refused) throw refused.reason;
      return { ms: performance.now() - began };
    },
    async join() {
      const began = performance.now();
      for (const link of links) await link.join(room);
      return { ms: performance.now() - began, room: links[0].room ?? room };
    },
    async talk() {
      const messages = [];
      for (let i = 0; i < rounds; i++) {
        for (const [from, to] of [[0, 1], [1, 0]]) {
          const number = messages.length + 1;
          messages.push({ from, number, ms: await delivery(links[from], links[to], number) });
          tell(protocol, 'talk', 'running', { messages });
        }
      }
      return { messages, ms: median(messages.map(({ ms }) => ms)) };
    },
    direct: () => openDirect(...links),
  };
  let failed = null;
  for (const step of steps) {
    if (failed) {
      tell(protocol, step, 'skipped');
      continue;
    }
    tell(protocol, step, 'running');
    try {
      tell(protocol, step, 'done', await actions[step]());
    } catch (error) {
      failed = error instanceof Failure ? error : new Failure('unexpected', { said: String(error.message) });
      tell(protocol, step, 'failed');
    }
  }
  links.forEach((link) => link.close());
  return failed;
}

// delivery sends a message and returns the ms until the other one had it.
async function delivery(sender, receiver, number) {
  const began = performance.now();
  const arrived = new Promise((resolve, reject) => {
    receiver.onmessage = (data) => data.number === number && resolve(performance.now() - began);
    receiver.onfailure = reject;
  });
  arrived.catch(() => {}); // the sender's own failure may come first
  await sender.send({ kind: 'hello', number });
  return within(arrived, new Failure('silent'));
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

// random is a word of hexadecimal digits.
function random(digits) {
  const bytes = crypto.getRandomValues(new Uint8Array(Math.ceil(digits / 2)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('').slice(0, digits);
}
