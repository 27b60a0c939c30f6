// What can go wrong, as a name for which texts.js has a sentence and a way to mend it.

// Failure has the name of its texts, and what stands in them.
export class Failure extends Error {
  constructor(name, details = {}) {
    super(name);
    this.name = name;
    this.details = details;
  }
}

export const patience = 10_000; // ms for anything that is waited for

// within fails with the given failure when a promise takes too long.
export function within(promise, failure, limit = patience) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(failure), limit)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// diagnose asks the server why an upgrade failed, which the browser itself does not tell. token is the one that the upgrade
// brought, null if it was another protocol's.
export async function diagnose(base, token) {
  let report;
  try {
    const answer = await within(
      fetch(`${base}api/check`, { method: 'POST', cache: 'no-store', headers: token ? { Authorization: `Bearer ${token}` } : {} }),
      new Failure('gone'),
    );
    if (answer.status === 429) return new Failure('rate_limited');
    if (!answer.ok) return new Failure('proxy', { status: answer.status });
    report = await answer.json();
  } catch (error) {
    return error instanceof SyntaxError ? new Failure('proxy', { status: 200 }) : new Failure('gone');
  }
  const { origin, token: judged, upgrade, forwarded } = report;
  if (upgrade.reason === 'draining') return new Failure('draining');
  if (!origin.allowed) {
    return new Failure('origin', { origin: origin.received, host: `${forwarded.proto}://${forwarded.host}`, fix: origin.fix });
  }
  if (!judged.ok && token !== null) return new Failure(judged.reason, { said: judged.message });
  if (!upgrade.ok) return new Failure(upgrade.reason);
  return new Failure('upgrade');
}
