// A QR code of a text, by ISO/IEC 18004: byte mode, error correction level M, versions 1 to 40.

// By version: codewords for error correction in each block, and the number of blocks (table 9 of the standard, level M).
const correction = [0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26, 26, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28];
const blockCount = [0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16, 17, 17, 18, 20, 21, 23, 25, 26, 28, 29, 31, 33, 35, 37, 38, 40, 43, 45, 47, 49];
const levelM = 0; // as the format bits say it

// encode returns the code as rows of booleans, true for a dark module, without the quiet zone; null if the text is too long.
export function encode(text) {
  const bytes = new TextEncoder().encode(text);
  const version = smallest(bytes.length);
  if (!version) return null;
  const code = new Code(version);
  code.place(withCorrection(dataOf(bytes, version), version));
  code.maskBest();
  return code.dark;
}

// smallest is the first version that holds so many bytes, 0 if none does.
function smallest(length) {
  for (let version = 1; version <= 40; version++) {
    if (4 + lengthBits(version) + 8 * length <= 8 * dataCodewords(version)) return version;
  }
  return 0;
}

const lengthBits = (version) => (version < 10 ? 8 : 16);
const dataCodewords = (version) => Math.floor(rawModules(version) / 8) - correction[version] * blockCount[version];

// rawModules is how many modules are left for codewords beside the patterns.
function rawModules(version) {
  let modules = (16 * version + 128) * version + 64;
  if (version >= 2) {
    const marks = Math.floor(version / 7) + 2;
    modules -= (25 * marks - 10) * marks - 55;
    if (version >= 7) modules -= 36;
  }
  return modules;
}

// dataOf is the text's segment, its end and the padding, as codewords.
function dataOf(bytes, version) {
  const bits = [];
  const put = (value, count) => {
    for (let i = count - 1; i >= 0; i--) bits.push((value >>> i) & 1);
  };
  put(4, 4); // byte mode
  put(bytes.length, lengthBits(version));
  for (const byte of bytes) put(byte, 8);
  const room = 8 * dataCodewords(version);
  put(0, Math.min(4, room - bits.length));
  put(0, (8 - (bits.length % 8)) % 8);
  for (let pad = 0xec; bits.length < room; pad ^= 0xec ^ 0x11) put(pad, 8);
  const words = new Uint8Array(room / 8);
  bits.forEach((bit, i) => (words[i >> 3] |= bit << (7 - (i & 7))));
  return words;
}

// withCorrection cuts the data into blocks, adds each block's error correction and interleaves them.
function withCorrection(data, version) {
  const count = blockCount[version];
  const extra = correction[version];
  const total = Math.floor(rawModules(version) / 8);
  const short = Math.floor(total / count) - extra; // data of the short blocks; the last ones have one more
  const shortBlocks = count - (total % count);
  const divisor = generator(extra);
  const blocks = [];
  for (let i = 0, from = 0; i < count; i++) {
    const part = data.slice(from, (from += short + (i < shortBlocks ? 0 : 1)));
    blocks.push({ part, rest: remainder(part, divisor) });
  }
  const words = [];
  for (let i = 0; i <= short; i++) for (const { part } of blocks) if (i < part.length) words.push(part[i]);
  for (let i = 0; i < extra; i++) for (const { rest } of blocks) words.push(rest[i]);
  return words;
}

// multiply in the field of 256 elements with the polynomial 0x11d.
function multiply(a, b) {
  let product = 0;
  for (let i = 7; i >= 0; i--) product = (product << 1) ^ ((product >>> 7) * 0x11d) ^ (((b >>> i) & 1) * a);
  return product;
}

// generator is the Reed-Solomon divisor of a degree, without its leading 1.
function generator(degree) {
  const terms = new Uint8Array(degree);
  terms[degree - 1] = 1;
  for (let i = 0, root = 1; i < degree; i++, root = multiply(root, 2)) {
    for (let j = 0; j < degree; j++) terms[j] = multiply(terms[j], root) ^ (j + 1 < degree ? terms[j + 1] : 0);
  }
  return terms;
}

function remainder(data, divisor) {
  const rest = new Uint8Array(divisor.length);
  for (const word of data) {
    const factor = word ^ rest[0];
    rest.copyWithin(0, 1);
    rest[rest.length - 1] = 0;
    divisor.forEach((term, i) => (rest[i] ^= multiply(term, factor)));
  }
  return rest;
}

const masks = [
  (x, y) => (x + y) % 2 === 0,
  (x, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

class Code {
  constructor(version) {
    this.version = version;
    this.size = 17 + 4 * version;
    this.dark = Array.from({ length: this.size }, () => new Array(this.size).fill(false));
    this.fixed = this.dark.map((row) => [...row]); // modules of patterns, which no mask touches
    this.patterns();
  }

  set(x, y, dark) {
    this.dark[y][x] = dark;
    this.fixed[y][x] = true;
  }

  patterns() {
    for (let i = 0; i < this.size; i++) {
      this.set(6, i, i % 2 === 0);
      this.set(i, 6, i % 2 === 0);
    }
    for (const [x, y] of [[3, 3], [this.size - 4, 3], [3, this.size - 4]]) this.square(x, y, 4, [2, 4]);
    const marks = this.alignments();
    const last = marks.length - 1;
    marks.forEach((x, i) => marks.forEach((y, j) => {
      const finder = (i === 0 && j === 0) || (i === 0 && j === last) || (i === last && j === 0);
      if (!finder) this.square(x, y, 2, [1]);
    }));
    this.format(0);
    this.versionBits();
  }

  // square draws rings around a middle; the rings in light are light.
  square(middleX, middleY, reach, light) {
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const [x, y] = [middleX + dx, middleY + dy];
        if (x >= 0 && y >= 0 && x < this.size && y < this.size) this.set(x, y, !light.includes(Math.max(Math.abs(dx), Math.abs(dy))));
      }
    }
  }

  // alignments are the places of the alignment patterns in both directions (annex E).
  alignments() {
    if (this.version === 1) return [];
    const count = Math.floor(this.version / 7) + 2;
    const step = Math.floor((this.version * 8 + count * 3 + 5) / (count * 4 - 4)) * 2;
    const places = [6];
    for (let at = this.size - 7; places.length < count; at -= step) places.splice(1, 0, at);
    return places;
  }

  // format writes level and mask, with their own error correction, in both places.
  format(mask) {
    const data = (levelM << 3) | mask;
    let rest = data;
    for (let i = 0; i < 10; i++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
    const bits = ((data << 10) | rest) ^ 0x5412;
    const bit = (i) => ((bits >>> i) & 1) === 1;
    for (let i = 0; i < 15; i++) {
      const along = i < 6 ? i : i < 8 ? i + 1 : 14 - i; // past the timing pattern
      if (i < 8) this.set(8, along, bit(i));
      else this.set(i === 8 ? 7 : along, 8, bit(i));
      if (i < 8) this.set(this.size - 1 - i, 8, bit(i));
      else this.set(8, this.size - 15 + i, bit(i));
    }
    this.set(8, this.size - 8, true);
  }

  versionBits() {
    if (this.version < 7) return;
    let rest = this.version;
    for (let i = 0; i < 12; i++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
    const bits = (this.version << 12) | rest;
    for (let i = 0; i < 18; i++) {
      const [a, b] = [this.size - 11 + (i % 3), Math.floor(i / 3)];
      this.set(a, b, ((bits >>> i) & 1) === 1);
      this.set(b, a, ((bits >>> i) & 1) === 1);
    }
  }

  // place lays the codewords in their zigzag, from the right to the left.
  place(words) {
    let i = 0;
    for (let right = this.size - 1; right >= 1; right -= 2) {
      if (right === 6) right = 5;
      for (let step = 0; step < this.size; step++) {
        for (const x of [right, right - 1]) {
          const y = ((right + 1) & 2) === 0 ? this.size - 1 - step : step;
          if (this.fixed[y][x] || i >= 8 * words.length) continue;
          this.dark[y][x] = ((words[i >> 3] >>> (7 - (i & 7))) & 1) === 1;
          i++;
        }
      }
    }
  }

  applyMask(mask) {
    for (let y = 0; y < this.size; y++) {
      for (let x = 0; x < this.size; x++) if (!this.fixed[y][x] && masks[mask](x, y)) this.dark[y][x] = !this.dark[y][x];
    }
  }

  maskBest() {
    let best = 0;
    let least = Infinity;
    for (let mask = 0; mask < 8; mask++) {
      this.applyMask(mask);
      this.format(mask);
      const penalty = this.penalty();
      if (penalty < least) [best, least] = [mask, penalty];
      this.applyMask(mask); // a second time takes it off
    }
    this.applyMask(best);
    this.format(best);
  }

  // penalty is what readers have trouble with: runs, blocks, what looks like a finder, too much of one colour.
  penalty() {
    const lines = [];
    for (let i = 0; i < this.size; i++) {
      lines.push(this.dark[i].map(Number).join(''));
      lines.push(this.dark.map((row) => Number(row[i])).join(''));
    }
    let sum = 0;
    for (const line of lines) {
      for (const run of line.match(/0{5,}|1{5,}/g) ?? []) sum += run.length - 2;
      sum += 40 * (line.match(/(?=10111010000|00001011101)/g) ?? []).length;
    }
    let dark = 0;
    for (let y = 0; y < this.size; y++) {
      for (let x = 0; x < this.size; x++) {
        const here = this.dark[y][x];
        if (here) dark++;
        if (x && y && here === this.dark[y - 1][x] && here === this.dark[y][x - 1] && here === this.dark[y - 1][x - 1]) sum += 3;
      }
    }
    const share = (100 * dark) / (this.size * this.size);
    return sum + 10 * Math.floor(Math.abs(share - 50) / 5);
  }
}
