// Written by tools/rules_table.py from src/lstm_music/sampling_rules.py: change that.

const PITCHES = 128;
const LAST_TICK = 48000000;
const TICKS_PER_QUARTER = 480;
const WHOLE_NOTE = 1920;
const NOTE_OFF = 0;
const NOTE_ON = 1;
const CHORD = 2;
const PLACE = 3;
const BAR_LINE = 4;
const TRACK_END = 5;
const PIECE_END = 6;
const NOTHING_YET = 0;
const IN_PIECE = 1;
const BETWEEN_TRACKS = 2;
const IN_TRACK = 3;
const FREE_PIECE = 4;
const FREE_TRACKS = 5;
const NO_BAR_YET = 6;
const AFTER_BAR = 7;
const AFTER_PLACE = 8;
const AFTER_OFF = 9;
const AFTER_ON = 10;
const AMONG_CHORDS = 11;
const SOUNDS = 1;
const CAN_STOP = 2;
const STRUCK_BEFORE = 4;
const ABOVE_LAST = 8;
const COMPOSED = 16;
const MAY_END = 32;
const LONG_ENOUGH = 64;
const LAST_QUARTER = 128;
const TRACK_DONE = 256;
const TRACK_ROOM = 512;
const HEARD_LATELY = 1024;
const IMPOSSIBLE = 2048;
const OFFS = 0;
const TRACK_ENDS = 128;
const PIECE_ENDS = 129;
const ONS = 130;
const CHORDS = 258;
const BARS = 259;
const PLACES = 260;
const TOLD = 0;
const UNTOLD = 1;
const NEVER = -1;
const NONE = 2147483647;
const FAR = 48000001;
const NO_LIMIT = -1;
const SILENT = -1;

const NEEDS = [
  [2048, 2, 2048, 2048, 2048, 2048, 2048], // NOTHING_YET
  [1, 6, 2048, 2048, 2048, 2048, 48], // IN_PIECE
  [2048, 514, 2048, 2048, 2048, 2048, 48], // BETWEEN_TRACKS
  [1, 6, 2048, 2048, 2048, 208, 2048], // IN_TRACK
  [16, 0, 2048, 2048, 2048, 2048, 48], // FREE_PIECE
  [16, 0, 2048, 2048, 2048, 208, 304], // FREE_TRACKS
  [2048, 2048, 2048, 2048, 0, 2048, 2048], // NO_BAR_YET
  [2048, 2048, 2048, 0, 1024, 2048, 2048], // AFTER_BAR
  [1, 2, 2048, 2048, 2048, 2048, 2048], // AFTER_PLACE
  [9, 2, 2048, 0, 0, 2048, 48], // AFTER_OFF
  [2048, 10, 2048, 0, 0, 2048, 48], // AFTER_ON
  [2048, 2048, 0, 2048, 2048, 2048, 32], // AMONG_CHORDS
];

const NEXT = [
  [0, 1, 0, 0, 0, 0, 0], // NOTHING_YET
  [1, 1, 1, 1, 1, 0, 1], // IN_PIECE
  [2, 3, 2, 2, 2, 2, 2], // BETWEEN_TRACKS
  [3, 3, 3, 3, 3, 2, 3], // IN_TRACK
  [4, 4, 4, 4, 4, 4, 4], // FREE_PIECE
  [5, 5, 5, 5, 5, 5, 5], // FREE_TRACKS
  [9, 10, 6, 8, 7, 6, 6], // NO_BAR_YET
  [9, 10, 7, 8, 7, 7, 7], // AFTER_BAR
  [9, 10, 8, 8, 7, 8, 8], // AFTER_PLACE
  [9, 10, 9, 8, 7, 9, 9], // AFTER_OFF
  [9, 10, 10, 8, 7, 10, 10], // AFTER_ON
  [11, 11, 11, 11, 11, 11, 11], // AMONG_CHORDS
];

const FIELDS = [
    "phase",
    "now",
    "notes",
    "tracks",
    "before",
    "tokens",
    "ended",
    "primed_tracks",
    "primed_notes",
    "least",
    "bar",
    "line",
    "bars",
    "bars_before",
    "begin",
    "length",
    "number",
    "heard",
    "asked_tokens",
    "asked_ticks",
    "asked_bars",
    "most",
    "measure",
];
