"use strict";
// MIDI files: written with parts as tracks, and read for a tune.

const DRUMS = 9; // MIDI's channel of them

/** Hand a file to the person. */
function download(bytes, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "audio/midi" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Return the meter of bars, by where they begin: the ticks at which lengths change, and those. */
function meterOf(bars) {
  const lengths = bars.slice(1).map((tick, n) => [bars[n], tick - bars[n]]);
  const changes = lengths.filter(([, length], n) => length !== lengths[n - 1]?.[1]);
  return changes[0]?.[0] === 0 ? changes : [[0, BAR], ...changes];
}

/**
 * Return the bytes of a MIDI file: a track with the tempo and the meter, then those of the notes.
 *
 * least: the meter's lower number is 2^least at least.
 */
function midiFile(notes, tempo, bars, model, least = 2) {
  const number = (n, size) => [24, 16, 8, 0].slice(4 - size).map((shift) => (n >>> shift) & 255);
  const delta = (n) => (n < 128 ? [n] : [...delta(n >>> 7).map((byte) => byte | 128), n & 127]);
  const chunk = (name, bytes) =>
    [...[...name].map((letter) => letter.charCodeAt(0)), ...number(bytes.length, 4)].concat(bytes);
  const ending = [0, 0xff, 0x2f, 0];
  const microseconds = number(Math.round(60e6 / tempo), 3);
  const first = [0, 0xff, 0x51, 3, ...microseconds];
  let last = 0;
  for (const [tick, length] of meterOf(bars)) {
    const fits = (n) => n >= least && (length * 2 ** n) % BAR === 0;
    const power = [2, 3, 4, 5, 6].find(fits) ?? 6;
    const beats = Math.min(Math.max(Math.round((length * 2 ** power) / BAR), 1), 255);
    first.push(...delta(tick - last), 0xff, 0x58, 4, beats, power, 24, 8);
    last = tick;
  }
  const tracks = [first.concat(ending)];
  for (const track of new Set(notes.map((note) => note[3]))) {
    const channel = isDrums(model, track) ? DRUMS : (track % 15) + (track % 15 >= DRUMS);
    const events = notes
      .filter((note) => note[3] === track)
      .flatMap(([start, end, pitch, , loud = USUAL]) => [
        [start, NOTE_ON, pitch, loud], [end, NOTE_OFF, pitch, USUAL],
      ])
      .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    const name = new TextEncoder().encode(model.parts?.[track] ?? "");
    const bytes = name.length ? [0, 0xff, 3, ...delta(name.length), ...name] : [];
    let now = 0;
    for (const [tick, kind, pitch, velocity] of events) {
      bytes.push(...delta(tick - now), (kind === NOTE_ON ? 0x90 : 0x80) | channel, pitch, velocity);
      now = tick;
    }
    tracks.push(bytes.concat(ending));
  }
  const head = [...number(1, 2), ...number(tracks.length, 2), ...number(QUARTER, 2)];
  return Uint8Array.from(chunk("MThd", head).concat(...tracks.map((t) => chunk("MTrk", t))));
}

/**
 * Return what a MIDI file says, or null: tracks of notes [start, end, pitch], meter [tick, length of
 * bars, power of two of its lower number], tempo.
 */
function readMidi(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const named = (at, name) => [...name].every((c, n) => bytes[at + n] === c.charCodeAt(0));
  if (bytes.length < 14 || !named(0, "MThd")) return null;
  const quarter = view.getUint16(12);
  if (!quarter || quarter & 0x8000) return null; // counted in seconds: no bars
  const found = { tracks: new Map(), meter: [], tempo: 0, ticks: QUARTER / quarter };
  let at = 8 + view.getUint32(4);
  for (let track = 0; at + 8 <= bytes.length; track++) {
    const end = Math.min(at + 8 + view.getUint32(at + 4), bytes.length);
    if (named(at, "MTrk")) readTrack(bytes.subarray(at + 8, end), track, found);
    at = end;
  }
  const tracks = [...found.tracks.values()].filter((notes) => notes.length);
  return { ...found, tracks, meter: found.meter.sort((a, b) => a[0] - b[0]) };
}

/** Read a track's events into what was found. */
function readTrack(bytes, track, found) {
  const { tracks, meter, ticks } = found; // ticks: ours to one of the file's
  let [at, now, status] = [0, 0, 0];
  const number = () => {
    let n = 0;
    for (let k = 0; k < 4; k++) {
      n = (n << 7) | (bytes[at] & 127);
      if (!(bytes[at++] & 128)) break;
    }
    return n;
  };
  const sounding = new Map();
  while (at < bytes.length) {
    now += number() * ticks;
    if (bytes[at] & 128) status = bytes[at++];
    if (status >= 0xf0) {
      const kind = status === 0xff ? bytes[at++] : -1;
      const size = number();
      const [a, b, c] = bytes.subarray(at, at + size);
      if (kind === 0x51 && !found.tempo) found.tempo = 60e6 / ((a << 16) | (b << 8) | c);
      if (kind === 0x58) meter.push([now, (a * BAR) / 2 ** b, b]);
      at += size;
      continue;
    }
    const [kind, channel, pitch, loud] = [status >> 4, status & 15, bytes[at], bytes[at + 1]];
    at += kind === 12 || kind === 13 ? 1 : 2;
    if (channel === DRUMS || (kind !== 8 && kind !== 9)) continue;
    const own = track * 16 + channel;
    if (!tracks.has(own)) tracks.set(own, []);
    if (sounding.has(pitch)) tracks.get(own).push([sounding.get(pitch), now, pitch]);
    sounding.delete(pitch);
    if (kind === 9 && loud) sounding.set(pitch, now);
  }
}
