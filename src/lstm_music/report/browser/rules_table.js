// Written by tools/rules_table.py from src/lstm_music/sampling/rules.py: change that.

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
const STRUCK_BEFORE = 2;
const ABOVE_LAST = 4;
const COMPOSED = 8;
const MAY_END = 16;
const LONG_ENOUGH = 32;
const LAST_QUARTER = 64;
const TRACK_DONE = 128;
const TRACK_ROOM = 256;
const HEARD_LATELY = 512;
const IMPOSSIBLE = 1024;
const OFFS = 0;
const TRACK_ENDS = 257;
const PIECE_ENDS = 256;
const ONS = 128;
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
  [1024, 0, 1024, 1024, 1024, 1024, 1024], // NOTHING_YET
  [1, 2, 1024, 1024, 1024, 1024, 24], // IN_PIECE
  [1024, 256, 1024, 1024, 1024, 1024, 24], // BETWEEN_TRACKS
  [1, 2, 1024, 1024, 1024, 104, 1024], // IN_TRACK
  [8, 0, 1024, 1024, 1024, 1024, 24], // FREE_PIECE
  [8, 0, 1024, 1024, 1024, 104, 152], // FREE_TRACKS
  [1024, 1024, 1024, 1024, 0, 1024, 1024], // NO_BAR_YET
  [1024, 1024, 1024, 0, 512, 1024, 1024], // AFTER_BAR
  [1, 0, 1024, 1024, 1024, 1024, 1024], // AFTER_PLACE
  [5, 0, 1024, 0, 0, 1024, 24], // AFTER_OFF
  [1024, 4, 1024, 0, 0, 1024, 24], // AFTER_ON
  [1024, 1024, 0, 1024, 1024, 1024, 16], // AMONG_CHORDS
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
