// Serves the pages of the stories on a free loopback port and prints the port. Ends on SIGTERM.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';

const types = { '.html': 'text/html', '.js': 'text/javascript' };
const files = new Map([['/', 'index.html']]);
for (const name of ['page.js', 'app.js', 'p2p.js', 'relay.js']) files.set(`/${name}`, name);

const server = createServer(async (request, response) => {
  const name = files.get(request.url);
  if (!name) return response.writeHead(404).end();
  const type = types[name.slice(name.lastIndexOf('.'))];
  response.writeHead(200, { 'content-type': `${type}; charset=utf-8`, 'cache-control': 'no-store' });
  response.end(await readFile(new URL(name, import.meta.url)));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
