// Reads `go test -json` on standard input and prints what a person wants of it: the line of each package, and all
// that a failed test has said. Writes "passed failed" (tests, not their parts) to the file named as argument.

import { createInterface } from 'node:readline';
import { writeFileSync } from 'node:fs';

const said = new Map(); // package and top-level test -> its output, until the test has ended
const failures = new Map(); // package -> number of failed tests
let passed = 0;
let failed = 0;

for await (const line of createInterface({ input: process.stdin })) {
  const event = parse(line);
  if (!event) console.log(line); // not the test's: go itself speaks
  else if (event.Action === 'build-output') process.stdout.write(event.Output);
  else if (event.Test) hearTest(event);
  else hearPackage(event);
}
// What is left was under way when its package died.
for (const output of said.values()) process.stdout.write(output.join(''));
writeFileSync(process.argv[2], `${passed} ${failed}\n`);

function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

function hearTest({ Action, Package, Test, Output }) {
  const key = `${Package} ${Test.split('/')[0]}`;
  if (Action === 'output') {
    if (!said.has(key)) said.set(key, []);
    said.get(key).push(Output);
    return;
  }
  if (Test.includes('/')) return;
  if (Action === 'pass') passed++;
  if (Action === 'fail') {
    failed++;
    failures.set(Package, (failures.get(Package) ?? 0) + 1);
    process.stdout.write(said.get(key)?.join('') ?? '');
  }
  if (['pass', 'fail', 'skip'].includes(Action)) said.delete(key);
}

// hearPackage also counts a package that failed without a failed test: it did not build, or leaked, or died.
function hearPackage({ Action, Package, Output }) {
  if (Action === 'output' && Output !== 'PASS\n') process.stdout.write(Output);
  if (Action === 'fail' && Package && !failures.get(Package)) failed++;
}
