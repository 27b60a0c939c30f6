// Records sdk.json: what the unmodified SDK writes in each of its codecs for the same calls, and what its msgpack
// encoder makes of a server's messages. Run it beside an installed ably and ws: node record.mjs > sdk.json
import {once} from 'node:events';
import Ably from 'ably';
import msgpack from '@ably/msgpack-js';
import {WebSocketServer} from 'ws';

const server = [
  {action: 0},
  {action: 0, id: '1234'},
  {action: 1, count: 1, msgSerial: 0, res: [{serials: ['01738@abc:0', null]}]},
  {action: 2, count: 2, msgSerial: 70000, error: {code: 40160, statusCode: 401, message: 'no — “never”'}},
  {action: 4, connectionId: 'conn', connectionDetails: {clientId: '*', connectionKey: 'k', connectionStateTtl: 120000, maxIdleInterval: 15000, maxMessageSize: 65536}},
  {action: 9, error: {code: 40101, statusCode: 401, message: 'x'.repeat(300), href: 'https://help.ably.io/error/40101'}},
  {action: 11, flags: 0x2f0001, channel: '', channelSerial: '1:2', params: {modes: 'publish,subscribe', rewind: '2'}},
  {action: 15, id: 'conn:5', channel: 'c', channelSerial: '1:3', connectionId: 'conn', timestamp: 1700000000000,
    messages: [{name: 'n', data: 'd', clientId: 'me', extras: {headers: {neg: -70000, small: -33, tiny: -32, f: 0.25, list: [true, null, 255, 256, 65536, 4294967296]}}, action: 0, serial: 's', version: {serial: 's', timestamp: 1700000000000}},
      {data: '{}', encoding: 'json', action: 0}]},
  {action: 16, channel: 'c', channelSerial: 'sync:', presence: []},
  {action: 16, channel: 'c', channelSerial: 'sync:', presence: Array.from({length: 17}, (_, i) => ({id: `conn:0:${i}`, action: 1, clientId: `m${i}`, connectionId: 'conn', timestamp: 1700000000000}))},
  {action: 21, channel: 'c', annotations: [{action: 1, serial: 'a', messageSerial: 's', type: 'reaction:unique.v1', name: '👍', count: 0}]},
];

async function record(useBinaryProtocol) {
  const frames = [];
  const wss = new WebSocketServer({port: 0, host: '127.0.0.1'});
  await once(wss, 'listening');
  wss.on('connection', (socket) => {
    const send = (m) => socket.send(useBinaryProtocol ? msgpack.encode(m, true) : JSON.stringify(m));
    send({action: 4, connectionId: 'conn', connectionDetails: {connectionKey: 'key', maxIdleInterval: 15000}});
    socket.on('message', (data) => {
      frames.push(useBinaryProtocol ? data.toString('base64') : data.toString());
      const m = useBinaryProtocol ? msgpack.decode(data) : JSON.parse(data);
      if (m.action === 0) send({action: 0, id: m.id});
      if (m.action === 10) send({action: 11, channel: m.channel, channelSerial: 's', flags: 0x2f0000});
      if (m.action === 12) send({action: 13, channel: m.channel});
      if (m.action === 17) send({action: 4, connectionId: 'conn', connectionDetails: {connectionKey: 'key'}});
      if (m.msgSerial !== undefined) send({action: 1, msgSerial: m.msgSerial, count: 1, res: [{serials: ['s']}]});
    });
  });
  const client = new Ably.Realtime({
    token: 'first.token', endpoint: '127.0.0.1', port: wss.address().port, tls: false, useBinaryProtocol, clientId: 'me', logLevel: 1,
  });
  const room = client.channels.get('room', {params: {rewind: '2', x: 5, y: true}, modes: ['PUBLISH', 'SUBSCRIBE', 'PRESENCE', 'PRESENCE_SUBSCRIBE']});
  await room.attach();
  await client.connection.ping();
  await room.publish('text', 'hällo "\u0001"');
  await room.publish('object', {a: [1, -2, 2.5, null, undefined, true], b: {c: 'd'}});
  await room.publish('binary', Buffer.from([0, 1, 255]));
  await room.publish(null, null);
  await room.publish('', '');
  await room.publish([
    {id: 'own:0', name: 'one', data: '1', extras: {headers: {n: 1700000000000, neg: -70000, f: 0.25, list: [undefined, null, 'x']}}},
    {id: 'own:1', name: 'two', data: Buffer.alloc(0)},
    {id: 'own:2', name: 'long', data: 'y'.repeat(300)},
  ]);
  const secret = client.channels.get('secret', {cipher: {key: Buffer.alloc(32, 7)}});
  await secret.publish('sealed', 'plain text');
  await secret.publish('sealed', {o: 1});
  await secret.publish('sealed', Buffer.from('bytes'));
  await room.presence.enter({mood: 'good'});
  await room.presence.update('u');
  await room.presence.leave(Buffer.from('bye'));
  await room.annotations.publish('01-0', {type: 'reaction:unique.v1', name: '👍', count: 2});
  await room.updateMessage({serial: '01-0', data: 'new'}, {description: 'why', metadata: {k: 'v'}});
  await client.auth.authorize(null, {token: 'second.token'});
  await room.detach();
  client.close();
  await new Promise((done) => setTimeout(done, 200));
  wss.close();
  return frames;
}

const binary = await record(true);
const text = await record(false);
console.log(JSON.stringify({
  client: text.map((json, i) => ({json, msgpack: binary[i]})),
  server: server.map((m) => ({json: JSON.stringify(m), msgpack: msgpack.encode(m).toString('base64')})),
}, null, 1));
process.exit();
