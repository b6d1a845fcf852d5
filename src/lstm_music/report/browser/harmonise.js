"use strict";
// A tune as words, and what is given by them: sampling/harmonising.py, and of tokenizers/events.py
// and midi/roll.py what a tune takes. A tune: notes [start, end, pitch] in ticks, one at a time, in
// order; pickup: ticks of a first, shorter bar; bar: of the others; key: as keyOf, null to find it.

const KEY_STEP = WHOLE_NOTE / 16; // frames by which a key is estimated

const ENDINGS = [0, 4, 9]; // semitones above C on which tunes in C major or A minor end

/**
 * Return the key to which C is written, 0 (C) to 11: as its notes say or, as sampling/tunes.py has
 * it, a fifth away, where the tune ends as one in that key does.
 */
function keyOf(notes) {
  const [tonic, minor] = estimateKey(notes);
  const key = (tonic + 3 * minor) % 12;
  const last = notes[notes.length - 1][2];
  const ends = (n) => ENDINGS.includes((last - key - n + 24) % 12);
  return (key + ([0, 5, 7].find(ends) ?? 0)) % 12;
}

/** Return the tonic and whether it is minor: the profile that the notes' durations fit best. */
function estimateKey(notes) {
  const durations = new Array(12).fill(0);
  for (const [start, end, pitch] of notes) {
    if (pitch < LOWEST || LOWEST + PIANO <= pitch) continue;
    durations[pitch % 12] += Math.ceil(end / KEY_STEP) - Math.ceil(start / KEY_STEP);
  }
  const centred = (x) => x.map((value) => value - x.reduce((a, b) => a + b) / 12);
  const told = centred(durations);
  let [best, most] = [[0, 0], -Infinity];
  PROFILES.forEach((profile, minor) => {
    const fit = centred(profile);
    const norm = Math.hypot(...fit);
    for (let tonic = 0; tonic < 12; tonic++) {
      const found = told.reduce((sum, x, n) => sum + (x * fit[(n - tonic + 12) % 12]) / norm, 0);
      if (found > most) [best, most] = [[tonic, minor], found];
    }
  });
  return best;
}

/** Return the octaves, in semitones, by which most of a tune lies in a voice's range. */
function octavesInto(notes, voice) {
  const pitches = notes.map(([, , pitch]) => pitch).sort((a, b) => a - b);
  const [lowest, highest] = [pitches[0], pitches[pitches.length - 1]];
  if (!pitches.some((pitch) => outOfRange(voice, pitch))) return 0;
  const half = pitches.length / 2;
  const median = (pitches[Math.ceil(half) - 1] + pitches[Math.floor(half)]) / 2;
  const middle = (RANGES[voice][0] + RANGES[voice][1]) / 2;
  let [best, misfit] = [0, [Infinity, Infinity]];
  for (let by = -OCTAVE * Math.floor(lowest / OCTAVE); by + highest <= 127; by += OCTAVE) {
    const outside = pitches.filter((pitch) => outOfRange(voice, pitch + by)).length;
    const far = Math.abs(median + by - middle);
    if (outside < misfit[0] || (outside === misfit[0] && far < misfit[1])) {
      [best, misfit] = [by, [outside, far]];
    }
  }
  return best;
}

/**
 * Return the highest notes of those that sound at once. One that sounds on a little into the next,
 * as played legato, ends where that begins.
 */
function oneAtATime(notes) {
  const kept = [];
  for (const [start, end, pitch] of [...notes].sort((a, b) => a[0] - b[0] || b[2] - a[2])) {
    let hidden = false;
    while (!hidden && kept.length && kept[kept.length - 1][1] > start) {
      const last = kept[kept.length - 1];
      const overlap = Math.min(last[1], end) - start;
      const legato = overlap <= Math.min(last[1] - last[0], end - start) / 2;
      hidden = last[0] === start || (last[2] >= pitch && !legato);
      if (!hidden) last[1] = start;
    }
    if (!hidden) kept.push([start, end, pitch]);
  }
  return kept;
}

/** Return where bars begin up to the one that holds a tick. */
function barsUpTo(tick, { pickup, bar }) {
  const starts = [0];
  let next = pickup || bar;
  for (; next <= tick; next += bar) starts.push(next);
  return starts;
}

/** Return the lengths of bars that a model knows, in ticks. */
const knownBars = ({ rules }) =>
  rules.numbers.filter((n, id) => rules.kinds[id] === BAR_LINE && n && rules.deltas[id] < NONE);

/** Return the ids of a tune's words that a model knows, and the notes that it has no words for. */
function wordsOf(model, tune, part) {
  const { rules } = model;
  const key = model.common_key ? tune.key ?? keyOf(tune.notes) : null;
  const note = (kind, pitch) =>
    findWord(rules, kind, part * PITCHES + pitch - soundingAbove(key ?? 0));
  const place = (ticks) => {
    const far = (known) => Math.abs(known - ticks);
    const nearest = rules.places.reduce((a, b) => (far(b) < far(a) ? b : a));
    return findWord(rules, PLACE, nearest);
  };
  const told = tune.notes.flatMap(([start, end, pitch], n) => {
    const rests = end < (tune.notes[n + 1]?.[0] ?? Infinity);
    return [[start, note(MOVE, pitch)], ...(rests ? [[end, note(NOTE_OFF, pitch)]] : [])];
  });
  const ids = key === null ? [] : [findWord(rules, KEY, key)];
  const starts = barsUpTo(endOf(tune.notes), tune);
  starts.forEach((start, n) => {
    const length = n === 0 ? tune.pickup || tune.bar : n === 1 && tune.pickup ? tune.bar : 0;
    ids.push(findWord(rules, BAR_LINE, length));
    const stop = starts[n + 1] ?? Infinity;
    for (const [tick, id] of told) {
      if (start <= tick && tick < stop) ids.push(place(tick - start), id);
    }
  });
  const unknown = tune.notes.filter(([, , pitch]) => note(MOVE, pitch) < 0);
  return [ids.filter((id) => id >= 0), unknown];
}

/** Return where notes end. */
const endOf = (notes) => notes.reduce((end, note) => Math.max(end, note[1]), 0);

/**
 * Return what is given by a piece's words but for what is asked for: parts, at places from start to
 * before stop (null for the end).
 *
 * phrases: words tell of them, so that cadences are given; ends: the tick at which the piece does.
 */
function givenOf(ids, rules, asked, phrases, ends) {
  const words = [];
  const bars = [];
  const barWords = [];
  let closing = [];
  let [key, now, begin, length] = [-1, 0, 0, 0];
  for (const id of ids) {
    const kind = rules.kinds[id];
    const number = rules.numbers[id];
    if (kind === KEY) key = id;
    else if (kind === BAR_LINE) {
      now = begin = Math.max(begin + length, now);
      length = number || length;
      bars.push(now);
      barWords.push(id);
    } else if (kind === PLACE) now = begin + number;
    else if (kind === CADENCE) closing.push(now);
    else if (kind <= NOTE_ON) words.push([now, id]);
  }
  const end = Math.max(ends, ...words.map(([tick]) => tick));
  const stop = Math.min(asked.stop ?? end, end);
  const kept = outside(words, rules, asked, stop, end);
  const ticks = [...new Set(kept.map(([tick]) => tick))].sort((a, b) => a - b);
  if (!phrases) closing = ticks.filter((tick) => tick < end).slice(-1);
  const known = new Set(rules.exact >= 0 ? ticks : []);
  const closes = closing
    .filter((tick) => known.has(tick))
    .map((tick) => [tick, ticks.find((later) => later > tick) ?? end]);
  const told = phrases && ticks.some((tick) => asked.start < tick && tick < stop);
  const free = new Array(rules.notes / PITCHES).fill(false);
  for (const part of asked.parts) free[part] = true;
  return {
    ticks: kept.map(([tick]) => tick), words: kept.map(([, id]) => id), bars, barWords, key, closes,
    free, start: asked.start, stop, closing: told ? stop : asked.start, end,
  };
}

/**
 * Return the given words with their ticks, in order: of parts that aren't asked for, all.
 *
 * Where what is composed of a part stops, it is silent if it is given as silent; all parts are
 * where the piece ends.
 */
function outside(words, rules, asked, stop, end) {
  const byPart = new Map(asked.parts.map((part) => [part, []]));
  for (const [tick, id] of words) {
    const part = Math.floor(rules.numbers[id] / PITCHES);
    byPart.set(part, [...(byPart.get(part) ?? []), [tick, id]]);
  }
  const kept = [...byPart.keys()].map((part) => [end, part, -1 - part]);
  for (const [part, own] of byPart) {
    const all = own.map(([tick, id]) => [tick, part, id]);
    if (!asked.parts.includes(part)) {
      kept.push(...all);
      continue;
    }
    const after = all.filter(([tick]) => tick >= stop);
    kept.push(...all.filter(([tick]) => tick < asked.start), ...after);
    const first = (off) =>
      after.find(([, , id]) => (rules.kinds[id] === NOTE_OFF) === off)?.[0] ?? end;
    const begins = first(false);
    const silent = !soundsAt(own, rules, stop) && stop < begins ? stop : first(true);
    if (silent < begins) kept.push([silent, part, -1 - part]);
  }
  kept.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return kept.map(([tick, , id]) => [tick, id]);
}

/** Return whether a part of so many words sounds before a tick. */
function soundsAt(words, rules, tick) {
  const sounding = new Set();
  for (const [at, id] of words) {
    if (at >= tick) continue;
    if (rules.kinds[id] === MOVE) sounding.clear();
    if (rules.kinds[id] === NOTE_OFF) sounding.delete(rules.numbers[id]);
    else sounding.add(rules.numbers[id]);
  }
  return sounding.size > 0;
}

/** Return a model's rules for music with these notes: as long as it is, and as they are. */
function rulesFor(rules, notes) {
  const longest = notes.reduce((most, [start, end]) => Math.max(most, end - start), 0);
  const longest_note = Math.max(rules.longest_note, longest);
  return { ...rules, longest_piece: 0, longest_note, rings: longest_note + 1 };
}

/**
 * Return the drafts of a tune's setting, null where the model knows none of its notes, and the
 * notes that it doesn't know. voice: the tune's.
 */
function settingOf(network, tune, voice, { seed, particles, temperature }) {
  const { model } = network;
  const part = model.voices.indexOf(voice);
  const parts = [...model.voices.keys()].filter((k) => model.voices[k] >= 0 && k !== part);
  const [ids, unknown] = wordsOf(model, tune, part);
  if (unknown.length === tune.notes.length) return { group: null, unknown };
  const rules = rulesFor(model.rules, tune.notes);
  const asked = { parts, start: tune.notes[0][0], stop: null }; // all begin with the tune
  const given = givenOf(ids, rules, asked, false, endOf(tune.notes));
  const { craft, top_p: topP } = model;
  const how = { rules, given, craft, temperature, topP, seed, particles };
  return { group: new Group(network, how), unknown };
}

/**
 * Return the notes of a tune's setting, each with its part for a track, and where bars begin. The
 * tune's are its own.
 */
function notesOf(model, ids, tune, voice) {
  const part = model.voices.indexOf(voice);
  const music = new WordMusic({ ...model, rules: rulesFor(model.rules, tune.notes) });
  for (const id of ids) music.add(id);
  const bars = music.bars.slice();
  music.endPiece();
  const others = music.notes.filter((note) => note[3] !== part);
  return { notes: [...tune.notes.map((note) => [...note, part]), ...others], bars };
}
