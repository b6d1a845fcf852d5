"use strict";
// Which words may follow, and what a word changes: the automaton of sampling/rules.py with its
// table, line by line. A page asks for no length, so that there is no limit but a piece's own.

/** Return a piece before its first word; sounding: since when each pitch sounds. */
function newPiece(rules) {
  const piece = Object.fromEntries(FIELDS.map((field) => [field, 0]));
  const sounding = new Int32Array(PITCHES);
  piece.measure = WHOLE_NOTE;
  beginPiece(rules, piece, sounding);
  return { piece, sounding };
}

// ---- Lengths ----

/** Begin a piece, perhaps after others. */
function beginPiece(rules, piece, sounding) {
  piece.phase = rules.phase;
  piece.now = piece.notes = piece.tracks = 0;
  piece.primed_tracks = piece.primed_notes = 0;
  piece.least = rules.least;
  piece.bar = piece.measure;
  piece.line = piece.bars = 0;
  piece.begin = piece.length = piece.number = piece.heard = 0;
  piece.struck = piece.closed = SILENT;
  sounding.fill(SILENT);
}

/** Return the first bar line at or after a tick of the piece: by now, of a note just struck later. */
function nextBar(piece, tick = piece.now + (piece.struck === piece.now)) {
  return piece.line + Math.ceil((tick - piece.line) / piece.bar) * piece.bar;
}

function isEmpty(piece) {
  return piece.tracks === piece.primed_tracks && piece.notes === piece.primed_notes;
}

function isEarly(piece) {
  return piece.tracks === piece.primed_tracks && piece.now < piece.least;
}

/** Return whether a piece is as long as real ones are, and a phrase has ended. */
function isOver(rules, piece) {
  const ended = SILENT < piece.closed && piece.closed < piece.now && piece.struck <= piece.closed;
  return ended && rules.longest_piece > 0 && rules.longest_piece <= piece.now;
}

function mayEnd(rules, piece) {
  return isOver(rules, piece) || !isEarly(piece);
}

// ---- What may come ----

/** Return the facts of a piece that hold; ends: it may end. */
function factsOfPiece(rules, piece, ends) {
  const composed = !isEmpty(piece);
  const lastQuarter = true; // there is no limit
  const trackDone = lastQuarter || (piece.tracks > 0 && piece.now === 0);
  const full = ends && composed && piece.tracks >= rules.max_tracks;
  const bar = Math.max(piece.begin + piece.length, piece.now);
  const heard = piece.notes > 0 && bar <= piece.heard + rules.longest_note;
  return (
    COMPOSED * composed |
    MAY_END * ends |
    LONG_ENOUGH * !isEarly(piece) |
    LAST_QUARTER * lastQuarter |
    TRACK_DONE * trackDone |
    TRACK_ROOM * !full |
    HEARD_LATELY * heard
  );
}

/** Return the facts of a pitch that hold. */
function factsOfPitch(piece, sounding, pitch) {
  const began = sounding[pitch];
  return (
    SOUNDS * (began !== SILENT) |
    STRUCK_BEFORE * (began !== piece.now) |
    ABOVE_LAST * (pitch > piece.number)
  );
}

const hold = (facts, needs) => (facts & needs) === needs;

/** Write the longest deltas of the ends and beginnings of notes; facts: the piece's. */
function allowNotes(rules, piece, sounding, facts, longest) {
  const off = NEEDS[piece.phase][NOTE_OFF];
  const on = NEEDS[piece.phase][NOTE_ON];
  const left = isOver(rules, piece) ? 0 : FAR;
  for (let pitch = 0; pitch < PITCHES; pitch++) {
    const pitchFacts = facts | factsOfPitch(piece, sounding, pitch);
    let stays = left;
    if (off & SOUNDS) {
      const age = sounding[pitch] + rules.longest_note - piece.now;
      stays = rules.events ? age : Math.min(left, age);
    }
    longest[OFFS + pitch] = hold(pitchFacts, off) ? stays : NEVER;
    longest[ONS + pitch] = hold(pitchFacts, on) ? left - 1 : NEVER;
  }
}

/** Return whether a note that sounds may end at a tick. */
function anyStopsAt(rules, sounding, tick) {
  return sounding.some((began, pitch) => {
    const canStop = began !== SILENT && rules.shortest[OFFS + pitch] < NONE;
    return canStop && began + rules.longest_note >= tick;
  });
}

/** Write the longest deltas of places and bars: those at which something may be. */
function allowTimes(rules, piece, sounding, facts, longest) {
  const place = NEEDS[piece.phase][PLACE];
  const barLine = NEEDS[piece.phase][BAR_LINE];
  let latest = isOver(rules, piece) ? piece.now : LAST_TICK;
  latest -= !anyStopsAt(rules, sounding, latest);
  const after = piece.phase === AFTER_BAR ? -1 : piece.now - piece.begin;
  const before = Math.min(piece.length, latest - piece.begin + 1);
  rules.places.forEach((ticks, n) => {
    const comes = hold(facts, place) && after < ticks && ticks < before;
    longest[PLACES + n] = comes ? 0 : NEVER;
  });
  const firstPlace = rules.places[0] ?? FAR;
  const fits = Math.max(piece.begin + piece.length, piece.now) + firstPlace <= latest;
  const same = piece.length > firstPlace ? UNTOLD : TOLD;
  longest[BARS] = fits && hold(facts, barLine) ? same : NEVER;
}

/** Write the longest shift, and whether a velocity may come. */
function allowShifts(rules, piece, sounding, facts, longest) {
  const needs = NEEDS[piece.phase];
  const latest = Math.min(
    LAST_TICK - !anyStopsAt(rules, sounding, LAST_TICK),
    piece.heard + rules.longest_pause,
  );
  longest[SHIFTS] = hold(facts, needs[SHIFT]) ? latest - piece.now : NEVER;
  longest[VELOCITIES] = hold(facts, needs[VELOCITY]) ? 0 : NEVER;
}

/** Write the longest delta of each class. Where nothing may come, the track or piece ends. */
function allow(rules, piece, sounding, ends, longest) {
  const facts = factsOfPiece(rules, piece, ends);
  allowNotes(rules, piece, sounding, facts, longest);
  if (rules.events) allowTimes(rules, piece, sounding, facts, longest);
  else longest.fill(NEVER, SHIFTS);
  if (rules.longest_pause >= 0) allowShifts(rules, piece, sounding, facts, longest);
  const needs = NEEDS[piece.phase];
  longest[KEYS] = hold(facts, needs[KEY]) ? 0 : NEVER;
  longest[CADENCES] = hold(facts, needs[CADENCE]) ? 0 : NEVER;
  longest[CHORDS] = hold(facts, needs[CHORD]) ? 0 : NEVER;
  longest[TRACK_ENDS] = hold(facts, needs[TRACK_END]) ? 0 : NEVER;
  longest[PIECE_ENDS] = hold(facts, needs[PIECE_END]) ? 0 : NEVER;
  if (!longest.some((delta, c) => rules.shortest[c] <= delta)) {
    const inTrack = piece.phase === IN_TRACK && rules.shortest[TRACK_ENDS] < NONE;
    longest[inTrack ? TRACK_ENDS : PIECE_ENDS] = 0;
  }
}

// ---- What a word changes ----

/** Begin a bar. A pickup, a first bar that is shorter, completes the last. */
function openBar(piece, length) {
  let missing = piece.begin - piece.line;
  if (piece.bars === 0 && missing === 0 && length > piece.length) missing = piece.length;
  else piece.bars++;
  piece.begin = piece.now;
  piece.line = piece.begin - missing;
  piece.length = piece.bar = length;
}

/** Notes end of old age, and the oldest make room. */
function tidy(rules, piece, sounding) {
  let voices = 0;
  sounding.forEach((began, pitch) => {
    if (began !== SILENT && began < piece.now && began + rules.rings <= piece.now) {
      sounding[pitch] = SILENT;
    } else if (began !== SILENT) voices++;
  });
  while (voices > rules.most_notes) {
    let oldest = SILENT;
    sounding.forEach((began, pitch) => {
      const sounds = began !== SILENT;
      if (sounds && (oldest === SILENT || began < sounding[oldest])) oldest = pitch;
    });
    if (sounding[oldest] === piece.now) break;
    sounding[oldest] = SILENT;
    voices--;
  }
}

/** Change a piece to what it is after a word that doesn't end it, whether it might come or not. */
function advance(rules, piece, sounding, id) {
  const kind = rules.kinds[id];
  const number = rules.numbers[id];
  piece.phase = NEXT[piece.phase][kind];
  piece.number = number;
  if (kind === TRACK_END) {
    piece.tracks++;
    piece.now = piece.notes = 0;
    piece.struck = SILENT;
    sounding.fill(SILENT);
    return;
  }
  let to = piece.now + rules.steps[id];
  if (kind === PLACE) to = Math.max(piece.begin + number, piece.now);
  else if (kind === BAR_LINE) to = Math.max(piece.begin + piece.length, piece.now);
  piece.now = Math.min(to, LAST_TICK);
  if (kind === BAR_LINE) openBar(piece, number || piece.length || WHOLE_NOTE);
  else if (kind <= CHORD) {
    piece.heard = piece.now;
    piece.notes += kind !== NOTE_OFF;
  }
  if (kind === NOTE_ON) piece.struck = piece.now;
  if (kind === CADENCE) piece.closed = piece.now;
  if (kind <= NOTE_ON) sounding[number] = kind === NOTE_ON ? piece.now : SILENT;
  tidy(rules, piece, sounding);
}
