"use strict";
// The network that the page carries: embedding -> LSTM layers -> head. The same maths as
// network/lstm.py, network/heads.py and network/notes.py; of a biaxial network, biaxial.js.
//
// A model is what report/browser_model.py writes.

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

const sigmoid = (x) => Math.tanh(x / 2) / 2 + 0.5;

/** Add x·W to out. x (K), W (K, N) by rows, out (N). */
function addProduct(x, W, out) {
  const N = out.length;
  let k = 0;
  for (; k + 3 < x.length; k += 4) {
    const [a, b, c, d] = [x[k], x[k + 1], x[k + 2], x[k + 3]];
    let at = k * N;
    for (let n = 0; n < N; n++, at++) {
      out[n] += a * W[at] + b * W[at + N] + c * W[at + 2 * N] + d * W[at + 3 * N];
    }
  }
  for (; k < x.length; k++) {
    for (let n = 0, at = k * N; n < N; n++, at++) out[n] += x[k] * W[at];
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

/** Return a model's parameters, by name. */
function parametersOf(model) {
  const all = halfFloats(model.weights);
  let at = 0;
  return Object.fromEntries(
    model.arrays.map(([name, size]) => [name, all.subarray(at, (at += size))]),
  );
}

/**
 * Take one time step of the LSTM layer whose parameters have this name, and overwrite its state h, c
 * (H). The gates come in the order i, f, g, o.
 */
function lstmStep(p, name, x, h, c) {
  const H = h.length;
  const z = affine(x, p[`${name}.Wx`], p[`${name}.b`]);
  addProduct(h, p[`${name}.Wh`], z);
  for (let n = 0; n < H; n++) {
    const i = sigmoid(z[n]);
    const f = sigmoid(z[H + n]);
    const g = Math.tanh(z[2 * H + n]);
    const o = sigmoid(z[3 * H + n]);
    c[n] = f * c[n] + i * g;
    h[n] = o * Math.tanh(c[n]);
  }
}

class Network {
  constructor(model, parameters = parametersOf(model)) {
    this.model = model;
    this.p = parameters;
    this.reset();
  }

  /** How many rows go through the layers, each with a state of its own. */
  get rows() {
    return 1;
  }

  /** Forget everything, as before a piece. */
  reset() {
    const { layers, hidden } = this.model;
    const zeros = () => Array.from({ length: layers }, () => new Float32Array(this.rows * hidden));
    this.h = zeros();
    this.c = zeros();
  }

  /** Return where a piece begins, as a state from which others follow. */
  begun() {
    this.reset();
    return new Reading(this);
  }

  /** Return the state after it read a token in another, which stays as it is. */
  after({ h, c }, id) {
    this.h = h.map((row) => row.slice());
    this.c = c.map((row) => row.slice());
    this.read([id]);
    return new Reading(this);
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
    this.h.forEach((h, layer) => {
      lstmStep(this.p, `lstm.${layer}`, x, h, this.c[layer]);
      x = h;
    });
    this.out = x;
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

  /** Return a copy gate's scores, but for what runs add. */
  copyScores(h = this.out) {
    const K = this.p["copy.G"].length / this.model.hidden;
    const scores = affine(h, this.p["copy.G"], new Float32Array(K));
    return scores.map((score) => score / this.model.hidden);
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

/** What a network is after some tokens, and gives the next one; never changed. */
class Reading {
  constructor(network) {
    this.network = network;
    this.h = network.h;
    this.c = network.c;
    this.after = new Map(); // states that follow, by token
  }

  logits() {
    this.network.out = this.h[this.h.length - 1];
    return (this.found ??= this.network.logits());
  }

  copyScores() {
    this.network.out = this.h[this.h.length - 1];
    return this.network.copyScores();
  }
}
