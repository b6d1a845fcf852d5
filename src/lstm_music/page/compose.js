"use strict";
// Composes with the model that the page carries: embedding -> LSTM layers -> head, and the rules
// of `bin/sample --strict`. The same maths as lstm.py, heads.py and tokenizers/grammar.py.
//
// A model is what page_model.py writes. A note is [start, end, pitch, track], in ticks.

const QUARTER = 480; // ticks
const BAR = 4 * QUARTER;
const SHORTEST = 8 * BAR; // of a piece: an early cadence is no end
const WHOLE_PIECE = 2000; // tokens at most of a piece whose tracks follow one another
const LOWEST = 21; // MIDI pitch of the first of 88 notes
const OFF = 0;
const ON = 1;
const SPECIAL = 2; // kinds of words of messages
const AT = 2;
const BAR_LINE = 3; // kinds of words of events, beside OFF and ON
const PIECE_END = -1; // the kind of the end of a piece of events

// ---- Numbers ----

/** Read 16-bit floats, little end first, as a Float32Array. */
function halfFloats(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const bits = new Uint32Array(bytes.length / 2);
  for (let n = 0; n < bits.length; n++) {
    const half = view.getUint16(2 * n, true);
    bits[n] = ((half & 0x8000) << 16) | ((half & 0x7fff) << 13);
  }
  // A half's exponent counts from -15, a float's from -127: 2^112 makes up for it.
  return new Float32Array(bits.buffer).map((x) => x * 2 ** 112);
}

/** Return a function that gives uniform numbers in [0, 1): mulberry32, seeded. */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

const sigmoid = (x) => Math.tanh(x / 2) / 2 + 0.5;

/** Add x·W to out. x (K), W (K, N) by rows, out (N). */
function addProduct(x, W, out) {
  const N = out.length;
  for (let k = 0; k < x.length; k++) {
    const xk = x[k];
    for (let n = 0, at = k * N; n < N; n++, at++) out[n] += xk * W[at];
  }
}

/** Return x·W + b. */
function affine(x, W, b) {
  const out = Float32Array.from(b);
  addProduct(x, W, out);
  return out;
}

/** Return the logarithms of the probabilities of these logits. */
function logSoftmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const total = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return logits.map((x) => x - total);
}

// ---- The network ----

class Network {
  constructor(model) {
    this.model = model;
    this.p = {};
    const all = halfFloats(model.weights);
    let at = 0;
    for (const [name, size] of model.arrays) this.p[name] = all.subarray(at, (at += size));
    this.reset();
  }

  /** Forget everything, as before a piece. */
  reset() {
    const zeros = () =>
      Array.from({ length: this.model.layers }, () => new Float32Array(this.model.hidden));
    this.h = zeros();
    this.c = zeros();
  }

  /** Read one input: a token, or the sum of these notes' rows of the embedding. */
  read(rows) {
    const { embedding: E, head, classes, deltas } = this.model;
    let x = new Float32Array(E);
    const add = (name, row) => addProduct([1], this.p[`embedding.${name}`].subarray(row * E), x);
    if (head === "factored") {
      add("Wc", classes[rows[0]]);
      add("Wd", Math.max(deltas[rows[0]], 0));
    } else for (const row of rows) add("W", row);
    for (let layer = 0; layer < this.model.layers; layer++) x = this.step(layer, x);
    this.out = x;
  }

  /** Take one time step of a layer; return its output. The gates come in the order i, f, g, o. */
  step(layer, x) {
    const h = this.h[layer];
    const c = this.c[layer];
    const H = h.length;
    const z = affine(x, this.p[`lstm.${layer}.Wx`], this.p[`lstm.${layer}.b`]);
    addProduct(h, this.p[`lstm.${layer}.Wh`], z);
    for (let n = 0; n < H; n++) {
      const i = sigmoid(z[n]);
      const f = sigmoid(z[H + n]);
      const g = Math.tanh(z[2 * H + n]);
      const o = sigmoid(z[3 * H + n]);
      c[n] = f * c[n] + i * g;
      h[n] = o * Math.tanh(c[n]);
    }
    return h;
  }

  /** Return the logits of what may come next: of each token (of ids, or all), or of each note. */
  logits(ids = null) {
    if (this.model.head === "factored") return this.factoredLogits(ids);
    return affine(this.out, this.p["head.W"], this.p["head.b"]);
  }

  /** As logits: a class's, and log p(delta | class) of the words that have one. */
  factoredLogits(ids) {
    const p = (name) => this.p[`head.${name}`];
    const { classes, deltas } = this.model;
    const byClass = affine(this.out, p("Wc"), p("bc"));
    const context = affine(this.out, p("A"), new Float32Array(this.out.length));
    const asked = new Set(ids ? ids.map((id) => classes[id]) : classes);
    const byDelta = Array.from(byClass, (_, c) => {
      if (!asked.has(c)) return [];
      const z = context.map((a, n) => Math.tanh(a + p("U")[c * context.length + n]));
      return logSoftmax(affine(z, p("Wd"), p("bd")));
    });
    return Float32Array.from(classes, (c, id) =>
      deltas[id] < 0 ? byClass[c] : byClass[c] + byDelta[c][deltas[id]],
    );
  }

  /** Return the probability of each token. */
  probabilities() {
    return Array.from(logSoftmax(this.logits()), (x) => Math.exp(x));
  }

  /** Ask of each note, from the lowest up, whether it sounds: choose(probability, note). */
  notes(temperature, choose) {
    return this.model.head === "nade"
      ? this.nadeNotes(temperature, choose)
      : Array.from(this.logits(), (z, n) => choose(sigmoid(z / temperature), n));
  }

  /** As notes, of a NADE: each note's logit depends on those below it. */
  nadeNotes(temperature, choose) {
    const p = (name) => this.p[`head.${name}`];
    const visible = affine(this.out, p("Wv"), p("bv"));
    const hidden = affine(this.out, p("Wh"), p("bh"));
    const [W, U, K] = [p("W"), p("U"), hidden.length];
    const on = [];
    for (let d = 0; d < visible.length; d++) {
      let z = visible[d];
      for (let k = 0; k < K; k++) z += sigmoid(hidden[k]) * U[d * K + k];
      on.push(choose(sigmoid(z / temperature), d));
      if (on[d]) for (let k = 0; k < K; k++) hidden[k] += W[d * K + k];
    }
    return on;
  }
}

/** Draw a token by a uniform number u among those allowed, the likeliest that hold a share topP. */
function draw(logits, allowed, temperature, topP, u) {
  const top = allowed.reduce((best, id) => Math.max(best, logits[id]), -Infinity);
  const weights = Float64Array.from(allowed, (id) => Math.exp((logits[id] - top) / temperature));
  const least = topP < 1 ? leastOfShare(weights, topP) : 0;
  const kept = allowed.map((_, n) => n).filter((n) => weights[n] >= least);
  let left = u * kept.reduce((sum, n) => sum + weights[n], 0);
  const found = kept.find((n) => (left -= weights[n]) < 0) ?? kept[kept.length - 1];
  return allowed[found];
}

/** Return the least of the largest weights that together hold a share of all. */
function leastOfShare(weights, share) {
  const rising = weights.slice().sort();
  let left = share * weights.reduce((a, b) => a + b);
  let n = rising.length;
  while (n > 0 && left > 0) left -= rising[--n];
  return rising[n];
}

// ---- Music in the making: what may follow, and which notes there are ----

/** The notes of pieces that follow one another, each from a bar line on. */
class Music {
  constructor() {
    this.notes = [];
    this.bars = []; // where they begin, in ticks, if the music says so; else each BAR ticks
    this.begin(0);
  }

  /** Begin a piece, at a tick. */
  begin(tick) {
    this.offset = tick;
    this.now = 0; // since the piece, or the track, began
    this.sounding = new Map(); // pitch -> the tick at which it was struck
    this.struck = 0; // notes of this track
    this.tracks = 0; // that are finished
    this.tokens = 0;
    this.end = 0; // of the last note so far
    [this.line, this.measure] = [0, BAR]; // where a bar began, and how long they are from there on
  }

  /** Return the first bar line at or after a tick of the piece. */
  nextBar(tick) {
    return this.line + Math.ceil((tick - this.line) / this.measure) * this.measure;
  }

  /** End a pitch that sounds, at a tick: now the note is known. */
  stop(pitch, tick) {
    const start = this.sounding.get(pitch);
    this.sounding.delete(pitch);
    if (start === undefined || tick <= start) return;
    this.end = Math.max(this.end, tick);
    this.notes.push([start + this.offset, tick + this.offset, pitch, this.tracks]);
  }

  /** The tick before which nothing will be added any more. */
  get ready() {
    return this.offset + Math.min(this.now, ...this.sounding.values());
  }
}

/** Words that MIDI files are made of, messages or events: notes that end, and how many sound. */
class WordMusic extends Music {
  constructor(model) {
    super();
    this.model = model;
    this.words = model.words; // [kind, pitch or ticks, ticks] by id; a special's pitch: its number
    this.ids = model.words.map((_, id) => id);
    this.canEnd = new Set(model.words.filter(([kind]) => kind === OFF).map(([, pitch]) => pitch));
    this.longest = model.longest_note; // ticks
  }

  /** Return the ids that may come next; where there is none, the piece's end. */
  allowed() {
    const ids = this.ids.filter((id) => this.allows(this.words[id]));
    return ids.length ? ids : [0];
  }

  /** Begin a note, now. */
  strike(pitch) {
    this.sounding.set(pitch, this.now);
    this.struck++;
  }

  /** End notes of that age, in ticks; where too many sound, the oldest make room. */
  tidy(age) {
    for (const [old, start] of [...this.sounding]) {
      if (start < this.now && start + age <= this.now) this.stop(old, start + this.longest);
    }
    while (this.sounding.size > this.model.most_notes) {
      const [start, oldest] = [...this.sounding]
        .map(([p, s]) => [s, p])
        .reduce((a, b) => (a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]) ? a : b));
      if (start === this.now) break;
      this.stop(oldest, this.now);
    }
  }

  /** End what still sounds, where the last word was. */
  endTrack() {
    const later = this.now + QUARTER;
    for (const [pitch, start] of [...this.sounding]) {
      const end = start < this.now ? this.now : later;
      this.stop(pitch, Math.min(end, start + this.longest));
    }
    this.now = this.struck = 0;
    this.tracks++;
  }

  endPiece() {
    if (this.struck) this.endTrack();
    this.begin(this.offset + this.nextBar(this.end));
  }
}

/** Messages: the rules of MessageGrammar without a length, and the notes of midi.tidy_track. */
class MessageMusic extends WordMusic {
  get flat() {
    return this.model.layout === "flatten";
  }

  /** Tracks that follow one another sound together: they are ready with the last of them. */
  get ready() {
    return this.flat ? this.offset : super.ready;
  }

  get mayEnd() {
    return this.flat || this.now >= SHORTEST;
  }

  allows([kind, pitch, delta]) {
    const between = this.flat && this.struck === 0;
    if (kind === SPECIAL) {
      if (pitch === 1) return this.flat && !between; // the end of a track
      return this.mayEnd && (this.flat ? between && this.tracks > 0 : this.struck > 0);
    }
    if (between && this.tracks >= this.model.max_tracks) return false;
    const start = this.sounding.get(pitch);
    if (kind === ON) return this.canEnd.has(pitch) && start !== this.now;
    return start !== undefined && delta <= start + this.longest - this.now;
  }

  /** Take a token that is no end of a piece. */
  add(id) {
    const [kind, pitch, delta] = this.words[id];
    this.tokens++;
    if (kind === SPECIAL) return this.endTrack();
    this.now += delta;
    this.stop(pitch, Math.min(this.now, (this.sounding.get(pitch) ?? 0) + this.longest));
    if (kind === ON) this.strike(pitch);
    this.tidy(this.longest);
  }

  get isFull() {
    return this.flat && this.tokens >= WHOLE_PIECE;
  }
}

/** Events: the rules of EventGrammar without a length, and the notes of midi.tidy_track. */
class EventMusic extends WordMusic {
  constructor(model) {
    super(model);
    const places = model.words.filter(([kind]) => kind === AT).map(([, ticks]) => ticks);
    this.firstPlace = Math.min(...places);
  }

  begin(tick) {
    super.begin(tick);
    this.bar = this.length = this.heard = 0; // ticks: where the bar began, its length, a note
    [this.kind, this.number] = [PIECE_END, 0]; // the last word
  }

  get isFull() {
    return false;
  }

  allows([kind, number]) {
    const after = this.kind; // the word before
    if (kind === PIECE_END) {
      return (after === OFF || after === ON) && this.struck > 0 && this.now >= SHORTEST;
    }
    if (kind === OFF || kind === ON) {
      if (after === PIECE_END || after === BAR_LINE) return false;
      if (kind === ON) return this.canEnd.has(number) && (after !== ON || number > this.number);
      return this.sounding.has(number) && (after === AT || (after === OFF && number > this.number));
    }
    if (after === AT) return false;
    const here = after === BAR_LINE ? -1 : this.now - this.bar;
    if (kind === AT) return number > here && number < this.length;
    const next = Math.max(this.bar + this.length, this.now);
    const silent = this.struck === 0 || next > this.heard + this.longest;
    return !(after === BAR_LINE && silent) && (number || this.length) > this.firstPlace;
  }

  /** Begin a bar. A first one that is shorter is a pickup, which completes the piece's last bar. */
  openBar(length) {
    let missing = this.bar - this.line;
    if (this.onlyOne && missing === 0 && length > this.length) missing = this.length;
    this.onlyOne = this.length === 0;
    this.bar = this.now = Math.max(this.bar + this.length, this.now);
    this.length = this.measure = length;
    this.line = this.bar - missing;
    this.bars.push(this.offset + this.bar);
  }

  /** Take a token that is no end of a piece. */
  add(id) {
    const [kind, number] = this.words[id];
    [this.kind, this.number] = [kind, number];
    this.tokens++;
    if (kind === BAR_LINE) this.openBar(number || this.length || BAR);
    else if (kind === AT) this.now = Math.max(this.bar + number, this.now);
    else {
      this.stop(number, Math.min(this.now, (this.sounding.get(number) ?? 0) + this.longest));
      this.heard = this.now;
    }
    if (kind === ON) this.strike(number);
    this.tidy(this.longest + 1); // at that age they may still end by their word
  }
}

/** Frames of a piano roll: a pitch in frames that follow one another is one note. */
class FrameMusic extends Music {
  constructor(model) {
    super();
    this.model = model;
    this.frame = BAR / model.grid; // ticks
    this.ids = (model.words ?? []).map((_, id) => id);
  }

  get isFull() {
    return false;
  }

  allowed() {
    return this.now >= SHORTEST ? this.ids : this.ids.slice(1); // the piece's end has id 0
  }

  /** Take a frame's pitches, or the token of a chord. */
  add(frame) {
    const pitches = Array.isArray(frame) ? frame : this.model.words[frame];
    this.tokens++;
    for (const pitch of [...this.sounding.keys()]) {
      if (!pitches.includes(pitch)) this.stop(pitch, this.now);
    }
    for (const pitch of pitches) if (!this.sounding.has(pitch)) this.sounding.set(pitch, this.now);
    this.now += this.frame;
  }

  endPiece() {
    for (const pitch of [...this.sounding.keys()]) this.stop(pitch, this.now);
    this.begin(this.offset + this.nextBar(this.now));
  }
}

/** Composes without end: where a piece ends, the next one begins, and the network forgets. */
class Composer {
  /** primer: ids, or the pitches of frames; network: one that other composers may have used. */
  constructor(network, { primer = [], seed = 0, temperature = 1 } = {}) {
    this.network = network;
    this.model = network.model;
    this.primer = [...primer];
    this.random = randomNumbers(seed);
    this.temperature = temperature; // may change at any time
    const kinds = { message: MessageMusic, event: EventMusic };
    this.music = new (kinds[this.model.representation] ?? FrameMusic)(this.model);
    this.begin();
  }

  get notes() {
    return this.music.notes;
  }

  /** Forget, and read the start symbol. */
  begin() {
    this.network.reset();
    this.read(null);
  }

  /** Read a token, or a frame's pitches; null is the start symbol. */
  read(input) {
    if (this.model.words) this.network.read([input ?? 0]);
    else this.network.read(input ? input.map((pitch) => pitch - LOWEST) : [88]);
  }

  /** Compose one token or frame, and return it. */
  step() {
    const next = this.primer.length ? this.primer.shift() : this.draw();
    if (next === 0 || this.music.isFull) {
      this.music.endPiece();
      this.begin();
    } else {
      this.music.add(next);
      this.read(next);
    }
    return next;
  }

  draw() {
    if (this.model.words) {
      const allowed = this.music.allowed();
      const { network, temperature, model } = this;
      return draw(network.logits(allowed), allowed, temperature, model.top_p, this.random());
    }
    const on = this.network.notes(this.temperature, (p) => this.random() < p);
    return on.flatMap((sounds, n) => (sounds ? [n + LOWEST] : []));
  }
}
