"use strict";
// The craft of part writing, counted as music is drawn: sampling/craft.py, line by line.

const OCTAVE = 12;
const FIFTH = 7;
const STEP = 2; // semitones; larger than a step is a leap
const DISSONANCES = [1, 2, 10, 11]; // seconds and sevenths
const QUIET = -1; // in place of a pitch
const TRITONE = 6;

/** Return the voices of a piece before its first word; ofPart: of each part, its voice or -1. */
function newVoices(ofPart) {
  const quiet = () => VOICES.map(() => QUIET);
  return { ofPart, before: quiet(), now: quiet(), begun: VOICES.map(() => false), above: 0 };
}

/** Return a copy of voices. */
const copyOfVoices = (v) => ({
  ...v, before: v.before.slice(), now: v.now.slice(), begun: v.begun.slice(),
});

/** Return the parallel and hidden fifths and octaves of two voices that move: a above b. */
function intervalFaults(a0, a1, b0, b1, outer) {
  const motion = Math.sign(a1 - a0);
  if (a0 < 0 || b0 < 0 || motion === 0 || motion !== Math.sign(b1 - b0)) return 0;
  const was = Math.abs(a0 - b0) % OCTAVE;
  const now = Math.abs(a1 - b1) % OCTAVE;
  if (now !== 0 && now !== FIFTH) return 0;
  return Number(was === now || (outer && Math.abs(a1 - a0) > STEP));
}

/**
 * Return whether two voices leave a second or seventh, and neither by a step: the first that leaps
 * counts.
 */
function dissonanceFault(a0, a1, b0, b1) {
  if (a0 < 0 || b0 < 0 || !DISSONANCES.includes(Math.abs(a0 - b0) % OCTAVE)) return 0;
  const isStep = (was, now) => was !== now && Math.abs(now - was) <= STEP;
  return Number((a0 !== a1 || b0 !== b1) && !isStep(a0, a1) && !isStep(b0, b1));
}

/** Return whether neighbours cross, overlap, or stand too far apart: a above b. */
function neighbourFaults(a0, a1, b0, b1, inner) {
  if (a1 < b1) return 1;
  const overlap = 0 <= b0 && b0 <= a0 && (b1 > a0 || a1 < b0);
  return Number(overlap) + Number(inner && a1 - b1 > OCTAVE);
}

/** Return the faults that a voice's note at a pitch has with the voices above it. */
function noteFaults(voices, voice, pitch) {
  const last = VOICES.length - 1;
  const before = voices.before[voice];
  let faults = 0;
  for (let a = 0; a < voice; a++) {
    const [was, now] = [voices.before[a], voices.now[a]];
    if (now < 0) continue;
    faults += intervalFaults(was, now, before, pitch, a === 0 && voice === last);
    faults += dissonanceFault(was, now, before, pitch);
    if (a === voice - 1) faults += neighbourFaults(was, now, before, pitch, voice < last);
  }
  return faults;
}

/** Return whether a pitch, as it sounds, is outside a voice's range. */
const outOfRange = (voice, pitch) => pitch < RANGES[voice][0] || RANGES[voice][1] < pitch;

/** Return whether a voice's note began here. */
const isChord = (voices) => voices.begun.some(Boolean);

/** Return the faults that voices which hold their notes have in this chord, if it is one. */
function heldFaults(voices) {
  let faults = 0;
  if (!isChord(voices)) return faults;
  for (let voice = 1; voice < VOICES.length; voice++) {
    if (!voices.begun[voice] && voices.now[voice] >= 0) {
      faults += noteFaults(voices, voice, voices.now[voice]);
    }
  }
  return faults;
}

/** Go on from a place, whose chord is the last one from now on. */
function nextPlace(voices) {
  if (!isChord(voices)) return;
  voices.before = voices.now.slice();
  voices.begun.fill(false);
}

/** Return the faults of the craft that a piece has with a next word. */
function faultsOf(rules, voices, id) {
  const kind = rules.kinds[id];
  const number = rules.numbers[id];
  if (kind === NOTE_OFF || kind === KEY) return 0;
  if (kind > NOTE_ON) return heldFaults(voices);
  const voice = voices.ofPart[Math.floor(number / PITCHES)] ?? -1;
  if (voice < 0) return 0;
  const pitch = (number % PITCHES) + voices.above;
  return noteFaults(voices, voice, pitch) + Number(outOfRange(voice, pitch));
}

/** Have the voices take a word. */
function sing(rules, voices, id) {
  const kind = rules.kinds[id];
  const number = rules.numbers[id];
  if (kind === KEY) voices.above = soundingAbove(number);
  else if (kind > NOTE_ON) nextPlace(voices);
  else {
    const voice = voices.ofPart[Math.floor(number / PITCHES)] ?? -1;
    if (voice < 0) return;
    if (kind === NOTE_OFF) voices.now[voice] = QUIET;
    else {
      voices.now[voice] = (number % PITCHES) + voices.above;
      voices.begun[voice] = true;
    }
  }
}

/** Return how many semitones above what is written a piece in a key sounds, -6 to 5. */
const soundingAbove = (key) => ((key + TRITONE) % OCTAVE) - TRITONE;
