"use strict";
// What is given of a piece in parts: words that must come, between which others may.
// sampling/given.py, line by line; given: as givenOf in harmonise.js makes it.

/** Return how much of what is given a piece before its first word has. */
const newReached = () => ({ words: 0, bars: 0, phrases: 0, closed: 0 });

/** Return the lowest note of a part that sounds and that a word ends, -1 for none. */
function firstSounding(rules, sounding, part) {
  for (let note = part * PITCHES; note < (part + 1) * PITCHES; note++) {
    if (sounding[note] !== SILENT && rules.shortest[NOTES + note] < NONE) return note;
  }
  return -1;
}

/** Return whether given word n says something: what doesn't sound needs no end. */
function isNeeded(given, rules, sounding, n) {
  const id = given.words[n];
  if (id < 0) return firstSounding(rules, sounding, -1 - id) >= 0;
  return rules.kinds[id] !== NOTE_OFF || sounding[rules.numbers[id]] !== SILENT;
}

/** Return the first given word from n on that says something, their number if none does. */
function nextNeeded(given, rules, sounding, n) {
  while (n < given.words.length && !isNeeded(given, rules, sounding, n)) n++;
  return n;
}

/** Return the part of given word n. */
function partOfGiven(given, rules, n) {
  const id = given.words[n];
  return id >= 0 ? Math.floor(rules.numbers[id] / PITCHES) : -1 - id;
}

/** Return whether a part may be composed at a tick. */
const isFree = (given, part, tick) =>
  given.free[part] && given.start <= tick && tick < given.stop;

/** Return whether given word n stands where the piece does. */
const isDue = (given, piece, n) => n < given.words.length && given.ticks[n] === piece.now;

/** Return whether a phrase's cadence comes here or never: no place is left before its end. */
function mustClose(given, rules, piece, reached) {
  const closes = piece.phase === AFTER_PLACE && !reached.closed;
  if (!closes || !closesNow(given, reached, piece.now)) return false;
  const after = Math.max(piece.now + 1, given.start);
  const until = Math.min(
    given.closes[reached.phrases][1], piece.begin + piece.length, given.stop,
  );
  return !rules.places.some((place) => after <= piece.begin + place && piece.begin + place < until);
}

/** Return whether a word of a note may come. n: the next given word that says something. */
function noteFits(given, rules, piece, reached, id, n) {
  if (mustClose(given, rules, piece, reached)) return false;
  const part = Math.floor(rules.numbers[id] / PITCHES);
  if (isDue(given, piece, n)) {
    const own = partOfGiven(given, rules, n);
    if (part >= own) {
      const told = given.words[n];
      if (part > own || (told >= 0 && told !== id)) return false;
      return told >= 0 || rules.kinds[id] === NOTE_OFF;
    }
  }
  return isFree(given, part, piece.now);
}

/** Return whether a tick is where the next phrase closes. */
function closesNow(given, reached, tick) {
  const phrase = given.closes[reached.phrases];
  return phrase !== undefined && phrase[0] <= tick && tick < phrase[1];
}

/** Return whether the piece may go on to a place; until: where the next given word stands. */
function placeFits(given, piece, reached, to, until) {
  if (to > until) return false;
  if (closesNow(given, reached, piece.now)) {
    const beyond = to >= given.closes[reached.phrases][1];
    if (beyond !== (reached.closed === 1)) return false;
  }
  return to === until || (given.start <= to && to < given.stop);
}

/** Return whether a phrase may close here. */
function cadenceFits(given, piece, reached) {
  if (closesNow(given, reached, piece.now)) return reached.closed === 0;
  return Math.max(given.start, given.closing) <= piece.now && piece.now < given.stop;
}

/** Return whether a bar line may come; until: where the next given word stands. */
function barFits(given, piece, reached, id, until) {
  const k = reached.bars;
  if (k === given.bars.length || given.bars[k] > until || given.barWords[k] !== id) return false;
  const ends = closesNow(given, reached, piece.now) && reached.closed === 0;
  return !(ends && given.bars[k] >= given.closes[reached.phrases][1]);
}

/** Return whether a word that the rules let come fits what is given; n: as noteFits. */
function fits(given, rules, piece, reached, id, n) {
  const kind = rules.kinds[id];
  const until = n < given.words.length ? given.ticks[n] : FAR;
  if (kind <= NOTE_ON) return noteFits(given, rules, piece, reached, id, n);
  if (kind === KEY) return given.key === -1 || given.key === id;
  if (kind === CADENCE) return cadenceFits(given, piece, reached);
  if (kind === PLACE) {
    return placeFits(given, piece, reached, piece.begin + rules.numbers[id], until);
  }
  if (kind === BAR_LINE) return barFits(given, piece, reached, id, until);
  return kind === PIECE_END && n === given.words.length && piece.now >= given.end;
}

/** Return the word that leads on where none of those that the rules let come fits. */
function must(given, rules, piece, reached, sounding, n) {
  const k = reached.bars;
  if (piece.length === 0 && k === 0 && k < given.bars.length) return given.barWords[0];
  if (n === given.words.length) return rules.start;
  if (given.ticks[n] === piece.now && piece.phase !== AFTER_BAR) {
    const id = given.words[n];
    return id >= 0 ? id : idOf(rules, NOTE_OFF, firstSounding(rules, sounding, -1 - id));
  }
  if (k < given.bars.length && given.bars[k] <= given.ticks[n]) return given.barWords[k];
  return idOf(rules, PLACE, given.ticks[n] - piece.begin);
}

/** Return the word of a kind and number, -1 if there is none. */
const findWord = (rules, kind, number) =>
  rules.kinds.findIndex((own, id) => own === kind && rules.numbers[id] === number);

/** Return the word of a kind and number, the end of the piece if there is none. */
function idOf(rules, kind, number) {
  const id = findWord(rules, kind, number);
  return id < 0 ? rules.start : id;
}

/** Note what a piece has of what is given once it took a word. n: the given word that was due. */
function follow(given, rules, piece, reached, id, n) {
  const kind = rules.kinds[id];
  if (kind === BAR_LINE) reached.bars++;
  else if (kind === CADENCE) reached.closed += closesNow(given, reached, piece.now);
  else if (kind <= NOTE_ON && isDue(given, piece, n) && given.words[n] === id) {
    reached.words = Math.max(reached.words, n + 1);
  }
  const { ticks, closes } = given;
  while (reached.words < ticks.length && ticks[reached.words] < piece.now) reached.words++;
  while (reached.phrases < closes.length && closes[reached.phrases][1] <= piece.now) {
    reached.phrases++;
    reached.closed = 0;
  }
}
