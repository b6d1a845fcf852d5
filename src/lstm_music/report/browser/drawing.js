"use strict";
// Random numbers, and the draw of a word: ops/philox.py, sampling/sampler.py and
// sampling/particles.py, whose seeds, words and weights these are.

const DRAWS = 1024; // random numbers of a block

const highHalf = (a, b) => Number((BigInt(a) * BigInt(b)) >> 32n);

/** Return the four random numbers of 32 bits of a counter (4) and a seed: Philox4x32-10. */
function philox([c0, c1, c2, c3], seed) {
  let [k0, k1] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  for (let round = 0; round < 10; round++) {
    [c0, c1, c2, c3] = [
      (highHalf(0xcd9e8d57, c2) ^ c1 ^ k0) >>> 0, Math.imul(0xcd9e8d57, c2) >>> 0,
      (highHalf(0xd2511f53, c0) ^ c3 ^ k1) >>> 0, Math.imul(0xd2511f53, c0) >>> 0,
    ];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** Return the random number in [0, 1) of a piece and a position. */
function uniform(seed, number, t) {
  const counter = [(t % DRAWS) >> 2, number, Math.floor(t / DRAWS), 0];
  return philox(counter, seed)[t % 4] * 2 ** -32;
}

/** Return a function that gives the random numbers of a piece, one after the other. */
function randomNumbers(seed, number = 0) {
  let t = 0;
  return () => uniform(seed, number, t++);
}

/**
 * Draw a token by a uniform number u among those allowed, the likeliest that hold a share topP;
 * one, exact, keeps its probability, and the others are cut among themselves.
 */
function draw(logits, allowed, temperature, topP, u, exact = -1) {
  const top = allowed.reduce((best, id) => Math.max(best, logits[id]), -Infinity);
  const p = allowed.map((id) => Math.exp((logits[id] - top) / temperature));
  let mass = p.reduce((a, b) => a + b);
  if (topP < 1) {
    const place = allowed.indexOf(exact);
    if (place >= 0) {
      const share = p[place] / mass;
      if (u < share) return exact;
      u = (u - share) / (1 - share);
      mass -= p[place];
      p[place] = 0;
    }
    const [order, held] = likeliest(p, topP, mass);
    return allowed[order[placeOf(order.map((k) => p[k]), u * held)]];
  }
  return allowed[placeOf(p, u * mass)];
}

/** Return the first place up to which weights add up to more than some. */
function placeOf(weights, left) {
  const found = weights.findIndex((weight) => (left -= weight) < 0);
  return found < 0 ? weights.length - 1 : found;
}

/** Return where the fewest weights are that hold a share of a mass, by weight, and what they do. */
function likeliest(p, share, mass) {
  const least = (((1 - share) * mass) / p.length) * (1 - 1e-9); // those left out weigh less
  const some = [];
  for (let k = 0; k < p.length; k++) if (p[k] > 0 && p[k] >= least) some.push(k);
  some.sort((a, b) => p[b] - p[a]);
  let [n, sum] = [0, 0];
  while (n < some.length && sum < share * mass) sum += p[some[n++]];
  return [some.slice(0, n), sum];
}

/** Return the ids that may come next; longest: of each class, overwritten. */
function wordsThatMay(rules, piece, sounding, longest) {
  const { classes, deltas } = rules;
  const ids = [];
  allow(rules, piece, sounding, mayEnd(rules, piece), longest);
  for (let id = 0; id < classes.length; id++) {
    if (deltas[id] <= longest[classes[id]]) ids.push(id);
  }
  return ids;
}

/** Return what the craft adds to the log of each word's share (V), -∞ where none fits. */
function penalties({ rules, given, craft }, { piece, sounding, reached, voices }, allowed) {
  const x = new Float64Array(rules.classes.length).fill(-Infinity);
  const n = given ? nextNeeded(given, rules, sounding, reached.words) : 0;
  for (const id of allowed) {
    if (given && !fits(given, rules, piece, reached, id, n)) continue;
    x[id] = craft > 0 ? -craft * faultsOf(rules, voices, id) : 0;
  }
  return x;
}

/**
 * Return the log of what the network gives to the words that fit, of those allowed.
 *
 * x: as penalties; overwritten by what the words that fit are drawn by.
 */
function shares(logits, allowed, temperature, x) {
  const top = allowed.reduce((best, id) => Math.max(best, logits[id] / temperature), -Infinity);
  let [all, fit] = [0, 0];
  for (const id of allowed) {
    const scaled = logits[id] / temperature;
    all += Math.exp(scaled - top);
    if (x[id] === -Infinity) continue;
    fit += Math.exp(scaled - top + x[id]);
    x[id] = (scaled + x[id]) * temperature;
  }
  if (fit > 0) return Math.log(fit / all);
  return allowed.reduce((most, id) => Math.max(most, x[id]), -Infinity) / temperature - top;
}

/**
 * Draw a draft's next word by a uniform number: return its id and the log of its weight.
 *
 * how: rules, given (null for nothing), craft, temperature, topP; draft: piece, sounding, longest,
 * reached, voices, past (null without a gate); network: has read the draft's last word.
 */
function drawWord(network, how, draft, u) {
  const { rules, given, craft, temperature, topP } = how;
  const { piece, sounding, longest, reached, past } = draft;
  const allowed = wordsThatMay(rules, piece, sounding, longest);
  const x = penalties(how, draft, allowed);
  const fit = allowed.filter((id) => x[id] > -Infinity);
  if (!fit.length) {
    if (!given) return [rules.start, 0];
    const n = nextNeeded(given, rules, sounding, reached.words);
    return [must(given, rules, piece, reached, sounding, n), FORCED];
  }
  const may = (id) => rules.deltas[id] <= longest[rules.classes[id]];
  const said = past ? past.found(network.copyScores(), may) : [];
  const share = ([, score]) => Math.exp(Math.min(score / temperature, 700));
  const total = said.reduce((sum, one) => sum + share(one), 1);
  const copies = said
    .filter(([id]) => x[id] > -Infinity)
    .map(([id, score]) => [id, score + x[id] * temperature]);
  const plain = !given && !craft; // all fit: a word that is copied takes no logits
  const own = plain ? 0 : shares(network.logits(allowed), allowed, temperature, x);
  const whole = copies.reduce((sum, one) => sum + share(one), Math.exp(own));
  const top = copies.reduce((most, [, score]) => Math.max(most, score / temperature), own);
  const weight = whole > 0 ? Math.log(whole / total) : top - Math.log(total);
  const [copy, left] = copied(copies, u, temperature, topP, own * temperature);
  if (copy !== null) return [copy, weight];
  const logits = plain ? network.logits(allowed) : x;
  return [draw(logits, fit, temperature, topP, left, rules.exact), weight];
}
