"use strict";
// Drawing a piece by particles: several drafts, of which the likelier are gone on with. The Group
// of sampling/particles.py, of one piece.

const RESAMPLING = 2 ** 30; // the piece's number of random numbers that aren't for its words
const LAST_CHOICE = 2 ** 20; // which of those chooses the draft that is kept
const MOST_WORDS = 2000; // of a piece, as sampler.WHOLE_PIECE

/** A draft of a piece; states of the network are never changed, so that drafts share them. */
class Draft {
  constructor(model, rules, network, number) {
    Object.assign(this, newPiece(rules));
    this.rules = rules;
    this.number = number; // chooses its random numbers
    this.longest = new Int32Array(rules.shortest.length);
    this.reached = newReached();
    this.voices = newVoices(model.voices);
    this.past = model.recall ? new Past(model, network.p["copy.R"]) : null;
    this.x = rules.start;
    this.drawn = 0;
    this.weight = 0;
    this.out = [];
    this.ended = false;
    this.state = null;
  }

  /** Go on as another draft does, with random numbers of its own. */
  become(other) {
    this.piece = { ...other.piece };
    this.sounding.set(other.sounding);
    this.reached = { ...other.reached };
    this.voices = copyOfVoices(other.voices);
    this.past?.become(other.past);
    this.out = other.out.slice();
    const { x, ended, state } = other;
    Object.assign(this, { x, ended, state });
  }

  /** Take the next word. */
  take(id, given) {
    const { rules, piece, sounding, reached, voices } = this;
    const n = given ? nextNeeded(given, rules, sounding, reached.words) : 0;
    this.x = id;
    this.drawn++;
    if (id === rules.start) {
      this.ended = true;
      return;
    }
    sing(rules, voices, id);
    advance(rules, piece, sounding, id);
    this.out.push(id);
    if (given) follow(given, rules, piece, reached, id, n);
    else if (rules.kinds[id] === BAR_LINE) reached.bars++;
    this.ended = this.out.length >= MOST_WORDS * (1 + (given?.bars.length ?? 0));
    if (this.ended) this.x = rules.start;
    else this.past?.take(id);
  }
}

/** The drafts of a piece, drawn together. how: as drawWord's, with seed and particles. */
class Group {
  constructor(network, how) {
    this.network = network;
    this.how = how;
    const model = { ...network.model, rules: how.rules };
    this.begin = network.begun();
    this.drafts = Array.from({ length: how.particles }, (_, n) => {
      const draft = new Draft(model, how.rules, network, n);
      if (how.given) draft.piece.least = 0;
      draft.state = this.begin;
      return draft;
    });
    this.nats = 0;
    this.passed = 0; // how often drafts met
    this.stops = how.given ? stopsOf(how.given) : null;
  }

  get done() {
    return this.drafts.every((draft) => draft.ended);
  }

  /** How much is done, of 1. */
  get share() {
    const { given } = this.how;
    const behind = Math.min(...this.drafts.map((d) => (d.ended ? Infinity : d.piece.now)));
    return given ? Math.min(behind / given.end, 1) : 0;
  }

  /** Take a word for each draft whose next word is due: they wait for one another. */
  step() {
    for (const draft of this.goingOn()) {
      draft.state = this.read(draft.state, draft.x);
      const u = uniform(this.how.seed, draft.number, draft.drawn);
      const [id, weight] = drawWord(draft.state, this.how, draft, u);
      draft.weight += weight;
      draft.take(id, this.how.given);
    }
  }

  goingOn() {
    const { drafts } = this;
    if (drafts.length === 1) return drafts.filter((draft) => !draft.ended);
    for (;;) {
      const waits = (draft) => draft.ended || this.placesOf(draft) > this.passed;
      if (this.done || !drafts.every(waits)) return drafts.filter((draft) => !waits(draft));
      this.compare();
      this.passed++;
    }
  }

  /** Return how many of the places where drafts meet one has reached. */
  placesOf({ reached }) {
    if (!this.stops) return reached.bars;
    const beyond = this.stops.findIndex((words) => words > reached.words);
    return beyond < 0 ? this.stops.length : beyond;
  }

  /** Return the network's state after it read a word in another, found once for all drafts. */
  read(state, id) {
    if (!state.after.has(id)) state.after.set(id, this.network.after(state, id));
    return state.after.get(id);
  }

  /** End drafts of little weight and go on with others in their places. */
  compare() {
    const { drafts } = this;
    const N = drafts.length;
    const [shares, total] = sharesOf(drafts.map((draft) => draft.weight));
    if (1 / shares.reduce((sum, share) => sum + share * share, 0) >= N / 2) return;
    this.nats += total;
    const times = systematic(shares, this.random(this.passed));
    const copies = times.flatMap((n, k) => new Array(Math.max(n - 1, 0)).fill(drafts[k]));
    drafts.forEach((draft, k) => {
      if (times[k] === 0) draft.become(copies.shift());
      draft.weight = 0;
    });
  }

  /** Return the n-th random number of the piece that isn't for a word. */
  random(n) {
    return philox([0, RESAMPLING, Math.floor(n / 4), 0], this.how.seed)[n % 4] * 2 ** -32;
  }

  /** Return the ids of a draft, drawn by their weights, and the log of the estimated likelihood. */
  chosen() {
    const [shares, total] = sharesOf(this.drafts.map((draft) => draft.weight));
    const u = this.random(LAST_CHOICE);
    let sum = 0;
    const found = shares.findIndex((share) => (sum += share) >= u);
    const { out } = this.drafts[found < 0 ? shares.length - 1 : found];
    return { ids: out, nats: this.nats + total };
  }
}

/** Return how many given words must have been taken wherever drafts meet. */
function stopsOf({ ticks, end }) {
  return [...ticks.keys()].map((n) => n + 1).filter((n) => (ticks[n] ?? end + 1) !== ticks[n - 1]);
}

/** Return the shares of log weights, and the log of their mean. */
function sharesOf(weights) {
  const top = Math.max(...weights);
  const p = weights.map((weight) => Math.exp(weight - top));
  const sum = p.reduce((a, b) => a + b);
  return [p.map((x) => x / sum), top + Math.log(sum / p.length)];
}

/** Return how often each draft is gone on with: its share, up or down to a whole number. */
function systematic(shares, u) {
  const N = shares.length;
  let sum = 0;
  const edges = shares.map((share) => Math.floor((sum += share) * N - u) + 1);
  edges[N - 1] = N;
  return edges.map((edge, n) => edge - (edges[n - 1] ?? 0));
}
