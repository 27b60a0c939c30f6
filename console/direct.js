// A WebRTC data channel between two visitors on this page, found through the server: every offer, answer and candidate goes
// through their links, as it would between two devices.

import { Failure, within } from './failure.js';

// openDirect connects the two and measures: how long until the channel was open, and a message there and back, in ms.
export async function openDirect(a, b) {
  if (!window.RTCPeerConnection) throw new Failure('webrtc_missing');
  const began = performance.now();
  const caller = new RTCPeerConnection();
  const callee = new RTCPeerConnection();
  try {
    const broken = new Promise((_, reject) => {
      signalled(caller, a, reject);
      signalled(callee, b, reject);
    });
    broken.catch(() => {}); // nobody listens any more once the channel is open
    const channel = caller.createDataChannel('console');
    const opened = new Promise((resolve) => (channel.onopen = resolve));
    callee.ondatachannel = ({ channel: other }) => (other.onmessage = ({ data }) => other.send(data));
    await caller.setLocalDescription();
    await a.send({ kind: 'description', description: caller.localDescription.toJSON() });
    await within(Promise.race([opened, broken]), new Failure('webrtc_failed'));
    const open = performance.now() - began;
    const asked = performance.now();
    const answered = new Promise((resolve) => (channel.onmessage = resolve));
    channel.send('ping');
    await within(answered, new Failure('webrtc_failed'));
    return { open, roundTrip: performance.now() - asked };
  } finally {
    caller.close();
    callee.close();
  }
}

// signalled lets a peer speak through a link. What goes wrong is told to reject.
function signalled(peer, link, reject) {
  const early = []; // candidates that came before their description
  const say = (message) => link.send(message).catch(reject);
  peer.onicecandidate = ({ candidate }) => candidate && say({ kind: 'candidate', candidate: candidate.toJSON() });
  peer.onconnectionstatechange = () => peer.connectionState === 'failed' && reject(new Failure('webrtc_failed'));
  const take = async ({ kind, description, candidate }) => {
    if (kind === 'candidate' && !peer.remoteDescription) early.push(candidate);
    else if (kind === 'candidate') await peer.addIceCandidate(candidate);
    else if (kind === 'description') {
      await peer.setRemoteDescription(description);
      for (const waiting of early.splice(0)) await peer.addIceCandidate(waiting);
      if (description.type !== 'offer') return;
      await peer.setLocalDescription();
      await say({ kind: 'description', description: peer.localDescription.toJSON() });
    }
  };
  link.onmessage = (message) => take(message).catch(() => reject(new Failure('webrtc_failed')));
  link.onfailure = reject;
}
