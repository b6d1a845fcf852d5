"use strict";
// Which words may follow, and what a word changes: the automaton of sampling/rules.py with its
// table, line by line. A page asks for no length, so that there is no limit but a piece's own.

const classOf = (kind, note, notes) => NOTES + kind * notes + note;
const placesAt = (notes) => NOTES + 3 * notes;

/** Return a piece before its first word; sounding: since when each note sounds. */
function newPiece(rules) {
  const piece = Object.fromEntries(FIELDS.map((field) => [field, 0]));
  const sounding = new Int32Array(rules.notes);
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
  piece.begin = piece.length = piece.heard = piece.part = 0;
  piece.rank = piece.struck = piece.closed = SILENT;
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

/** Return the first note that a word of some kind may tell after a word of some rank. */
function firstInOrder(rank, kind) {
  if (rank < 0) return 0;
  const part = Math.floor(rank / (3 * PITCHES));
  const last = Math.floor(rank / PITCHES) % 3;
  if (kind > last) return part * PITCHES;
  if (kind === last && kind !== MOVE) return part * PITCHES + (rank % PITCHES) + 1;
  return (part + 1) * PITCHES;
}

/** Return the facts of a note that hold. */
function factsOfNote(piece, began, note, first) {
  return (
    SOUNDS * (began !== SILENT) |
    STRUCK_BEFORE * (began !== piece.now) |
    IN_ORDER * (note >= first)
  );
}

const hold = (facts, needs) => (facts & needs) === needs;

/** Return the note that a number in a word stands for: the first are those of the part told. */
const noteOf = (piece, number) => (number < PITCHES ? number + piece.part : number);

/** Write the longest deltas of words of notes; facts: the piece's. */
function allowNotes(rules, piece, sounding, facts, longest) {
  const left = isOver(rules, piece) ? 0 : FAR;
  for (let kind = 0; kind <= NOTE_ON; kind++) {
    const needs = NEEDS[piece.phase][kind];
    const first = firstInOrder(piece.rank, kind);
    for (let note = 0; note < rules.notes; note++) {
      const began = sounding[noteOf(piece, note)];
      let stays = left - (kind !== NOTE_OFF);
      if (kind === NOTE_OFF && needs & SOUNDS) {
        const age = began + rules.longest_note - piece.now;
        stays = rules.events ? age : Math.min(left, age);
      }
      const may = hold(facts | factsOfNote(piece, began, note, first), needs);
      longest[classOf(kind, note, rules.notes)] = may ? stays : NEVER;
    }
  }
}

/** Return whether a note that sounds may end at a tick. */
function anyStopsAt(rules, sounding, tick) {
  return sounding.some((began, note) => {
    const shortest = (n) => rules.shortest[classOf(NOTE_OFF, n, rules.notes)];
    const told = Math.min(shortest(note), shortest(note % rules.told));
    const canStop = began !== SILENT && told < NONE;
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
    longest[placesAt(rules.notes) + n] = comes ? 0 : NEVER;
  });
  const firstPlace = rules.places[0] ?? FAR;
  const fits = Math.max(piece.begin + piece.length, piece.now) + firstPlace <= latest;
  const same = piece.length > firstPlace ? UNTOLD : TOLD;
  longest[BARS] = fits && hold(facts, barLine) ? same : NEVER;
}

/** Write the longest shift, and whether a velocity or part may come. */
function allowShifts(rules, piece, sounding, facts, longest) {
  const needs = NEEDS[piece.phase];
  const latest = Math.min(
    LAST_TICK - !anyStopsAt(rules, sounding, LAST_TICK),
    piece.heard + rules.longest_pause,
  );
  longest[SHIFTS] = hold(facts, needs[SHIFT]) ? latest - piece.now : NEVER;
  longest[VELOCITIES] = hold(facts, needs[VELOCITY]) ? 0 : NEVER;
  longest[PARTS] = hold(facts, needs[PART]) ? 0 : NEVER;
}

/** Write the longest delta of each class. Where nothing may come, the track or piece ends. */
function allow(rules, piece, sounding, ends, longest) {
  const facts = factsOfPiece(rules, piece, ends);
  longest.fill(NEVER);
  allowNotes(rules, piece, sounding, facts, longest);
  if (rules.events) allowTimes(rules, piece, sounding, facts, longest);
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

/** Return which of the words of a place one of a note is, -1 of any other word. */
function rankOf(kind, note) {
  const part = Math.floor(note / PITCHES);
  return kind <= NOTE_ON ? (part * 3 + kind) * PITCHES + (note % PITCHES) : -1;
}

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
  sounding.forEach((began, note) => {
    if (began !== SILENT && began < piece.now && began + rules.rings <= piece.now) {
      sounding[note] = SILENT;
    } else if (began !== SILENT) voices++;
  });
  while (voices > rules.most_notes) {
    let oldest = SILENT;
    sounding.forEach((began, note) => {
      const sounds = began !== SILENT;
      if (sounds && (oldest === SILENT || began < sounding[oldest])) oldest = note;
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
  piece.rank = rankOf(kind, number);
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
  if (kind === CADENCE) piece.closed = piece.now;
  if (kind === MOVE) {
    const part = Math.floor(number / PITCHES) * PITCHES;
    sounding.fill(SILENT, part, part + PITCHES);
  }
  if (kind === PART) piece.part = number;
  if (kind <= NOTE_ON) {
    if (kind !== NOTE_OFF) piece.struck = piece.now;
    sounding[noteOf(piece, number)] = kind === NOTE_OFF ? SILENT : piece.now;
  }
  tidy(rules, piece, sounding);
}
