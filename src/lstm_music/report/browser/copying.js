"use strict";
// Copying while composing, as sampling/copying.py: which words or frames a piece has said may come
// again, and how likely each is. The network's own share has the score 0.

/** The past of a piece of words; model.recall: how its words are compared. */
class Past {
  constructor(model, table) {
    this.rules = model.recall;
    this.table = table; // (K, buckets): what a run adds to a candidate's score
    this.ids = new Map(this.rules.words.map((word, id) => [recalling.codeOf(word), id]));
    this.forget();
  }

  /** Begin a piece. */
  forget() {
    this.recall = recalling.newRecall(this.rules);
  }

  /** Be as the past of another piece is. */
  become(other) {
    this.recall = structuredClone(other.recall);
  }

  /** Take the next word, an id. */
  take(id) {
    recalling.observe(this.rules, this.recall, this.rules.words[id]);
  }

  /** Return the codes of what may come and their scores. scores: the gate's, but for runs. */
  candidates(scores) {
    const { candidates } = this.recall;
    const buckets = this.table.length / candidates.length;
    const ofRun = (k) => this.table[k * buckets + recalling.bucketOf(this.recall, k)];
    return candidates
      .map((code, k) => [code, scores[k] + ofRun(k)])
      .filter(([code]) => code !== recalling.NONE);
  }

  /** Return candidates by id, those that are words and may come. */
  found(scores, may) {
    return this.candidates(scores)
      .map(([code, score]) => [this.ids.get(code), score])
      .filter(([id]) => id !== undefined && may(id));
  }
}

/** The past of a piece of frames, lists of pitches from the lowest up. */
class FramePast extends Past {
  forget() {
    super.forget();
    this.numbers = new Map(); // of what frames say: how their notes lie above the lowest
    this.says = [];
  }

  take(pitches) {
    const above = pitches.map((pitch) => pitch - pitches[0]);
    const key = above.join();
    if (!this.numbers.has(key)) this.numbers.set(key, this.says.push(above) - 1);
    const low = pitches.length ? pitches[0] : recalling.NONE;
    recalling.observe(this.rules, this.recall, [this.numbers.get(key), low, 0, -1, 1, 0, 0]);
  }

  /** Return the frame of a code, or null where it leaves a lowest or a highest pitch behind. */
  frameOf(code, lowest, highest) {
    const low = (code % recalling.PITCHES) - 1;
    const pitches = this.says[Math.floor(code / recalling.PITCHES)].map((above) => low + above);
    return pitches.every((p) => lowest <= p && p <= highest) ? pitches : null;
  }

  /** Return candidates as frames, those that fit between a lowest and a highest pitch. */
  found(scores, lowest, highest) {
    return this.candidates(scores)
      .map(([code, score]) => [this.frameOf(code, lowest, highest), score])
      .filter(([pitches]) => pitches);
  }

  /** Return the frame that each candidate tells and the bucket of its run, or null for none. */
  told(lowest, highest) {
    return this.recall.candidates.map((code, k) => {
      const frame = code === recalling.NONE ? null : this.frameOf(code, lowest, highest);
      return frame && [frame, recalling.bucketOf(this.recall, k)];
    });
  }
}

/**
 * Choose what to copy by a uniform number, or null for the network's own; found: what and scores,
 * score: the network's. Return also a uniform number for what is still to choose.
 */
function copied(found, u, temperature, topP, score = 0) {
  if (!found.length) return [null, u];
  const top = Math.max(score, ...found.map(([, score]) => score));
  let own = Math.exp((score - top) / temperature);
  const weights = found.map(([, score]) => Math.exp((score - top) / temperature));
  const copies = weights.reduce((a, b) => a + b);
  if (own < (1 - topP) * (own + copies)) own = 0;
  let left = u * (own + copies);
  if (left < own) return [null, Math.min(left / own, 1 - 2 ** -53)];
  left -= own;
  const n = weights.findIndex((weight) => (left -= weight) < 0);
  return [found[n < 0 ? found.length - 1 : n][0], u];
}
