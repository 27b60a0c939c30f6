// What the servers of the stories run with. As a program: `node config.mjs PORT ORIGIN` prints the configuration of
// the server that most stories share.

import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';

// The keys of the stories, by what they may do. They open nothing but the servers of one run.
const capabilities = {
  all: { '*': ['*'] },
  read: { '*': ['subscribe'] },
  write: { '*': ['publish'] },
  meta: { '[*]*': ['*'] },
  revocable: { '*': ['*'] },
  rooms: { 'chat:*': ['publish', 'subscribe'], news: ['subscribe'] },
};

export const keys = Object.fromEntries(
  Object.keys(capabilities).map((name) => [name, `app.${name}:secret-of-the-key-${name}-in-the-stories`]),
);

// configuration is a whole configuration file. ably and websocket are laid over its sections.
export function configuration({ port, origins = [], ably = {}, websocket = {} }) {
  return {
    mode: 'local',
    server: { host: '127.0.0.1', port: String(port), drain_seconds: 0 },
    jwt: { secret: randomBytes(32).toString('hex') },
    cors: { allowed_origins: origins },
    log: { level: 'info', file: '' },
    websocket: { messages_per_second: 100_000, message_burst: 100_000, bytes_per_second: 1 << 28, bytes_burst: 1 << 28, ...websocket },
    ably: {
      enabled: true,
      keys: Object.entries(keys).map(([name, key]) => ({
        name: `app.${name}`,
        secret: key.slice(key.indexOf(':') + 1),
        capability: capabilities[name],
        revocableTokens: name === 'revocable',
      })),
      namespaces: [{ id: 'mutable', mutableMessages: true }],
      messages_per_second: 100_000, // the stories about limits have servers of their own
      ...ably,
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [port, origin] = process.argv.slice(2);
  console.log(JSON.stringify(configuration({ port, origins: [origin] }), null, 2));
}
