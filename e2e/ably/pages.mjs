// Serves a page for each SDK on a free loopback port and prints the port. Ends on SIGTERM.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';

// The page loads the SDK's build for browsers as any page would.
const page = (sdk) => `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>${sdk}</title>
<script src="/${sdk}.js"></script>
`;

const server = createServer(async (request, response) => {
  const [, sdk, end] = /^\/(ably-latest|ably-locked)(\.js)?$/.exec(request.url) ?? [];
  if (!sdk) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': `${end ? 'text/javascript' : 'text/html'}; charset=utf-8`, 'cache-control': 'no-store' });
  response.end(end ? await readFile(new URL(`node_modules/${sdk}/build/ably.js`, import.meta.url)) : page(sdk));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
