// Written by tools/rules_table.py from src/lstm_music/sampling/rules.py: change that.

constexpr int PITCHES = 128;
constexpr int LAST_TICK = 48000000;
constexpr int TICKS_PER_QUARTER = 480;
constexpr int WHOLE_NOTE = 1920;
constexpr int NOTE_OFF = 0;
constexpr int MOVE = 1;
constexpr int NOTE_ON = 2;
constexpr int CHORD = 3;
constexpr int PLACE = 4;
constexpr int BAR_LINE = 5;
constexpr int CADENCE = 6;
constexpr int KEY = 7;
constexpr int SHIFT = 8;
constexpr int VELOCITY = 9;
constexpr int PART = 10;
constexpr int TRACK_END = 11;
constexpr int PIECE_END = 12;
constexpr int NOTHING_YET = 0;
constexpr int IN_PIECE = 1;
constexpr int BETWEEN_TRACKS = 2;
constexpr int IN_TRACK = 3;
constexpr int FREE_PIECE = 4;
constexpr int FREE_TRACKS = 5;
constexpr int NO_KEY_YET = 6;
constexpr int NO_BAR_YET = 7;
constexpr int AFTER_BAR = 8;
constexpr int AFTER_PLACE = 9;
constexpr int AFTER_CADENCE = 10;
constexpr int AFTER_NOTE = 11;
constexpr int AMONG_CHORDS = 12;
constexpr int NO_PART_YET = 13;
constexpr int NOT_PLAYED_YET = 14;
constexpr int AFTER_SHIFT = 15;
constexpr int AMONG_OFFS = 16;
constexpr int AFTER_PART = 17;
constexpr int AFTER_VELOCITY = 18;
constexpr int AMONG_ONS = 19;
constexpr int ONS_OF_PART = 20;
constexpr int SOUNDS = 1;
constexpr int STRUCK_BEFORE = 2;
constexpr int IN_ORDER = 4;
constexpr int COMPOSED = 8;
constexpr int MAY_END = 16;
constexpr int LONG_ENOUGH = 32;
constexpr int LAST_QUARTER = 64;
constexpr int TRACK_DONE = 128;
constexpr int TRACK_ROOM = 256;
constexpr int HEARD_LATELY = 512;
constexpr int IMPOSSIBLE = 1024;
constexpr int PIECE_ENDS = 0;
constexpr int TRACK_ENDS = 1;
constexpr int CADENCES = 2;
constexpr int CHORDS = 3;
constexpr int KEYS = 4;
constexpr int SHIFTS = 5;
constexpr int VELOCITIES = 6;
constexpr int PARTS = 7;
constexpr int BARS = 8;
constexpr int NOTES = 9;
constexpr int TOLD = 0;
constexpr int UNTOLD = 1;
constexpr int NEVER = -1;
constexpr int NONE = 2147483647;
constexpr int FAR = 48000001;
constexpr int NO_LIMIT = -1;
constexpr int SILENT = -1;

__device__ const int NEEDS[][13] = {
    {1024, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024},  // NOTHING_YET
    {1, 1024, 2, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 24},  // IN_PIECE
    {1024, 1024, 256, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 24},  // BETWEEN_TRACKS
    {1, 1024, 2, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 104, 1024},  // IN_TRACK
    {8, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 24},  // FREE_PIECE
    {8, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 104, 152},  // FREE_TRACKS
    {1024, 1024, 1024, 1024, 1024, 1024, 1024, 0, 1024, 1024, 1024, 1024, 1024},  // NO_KEY_YET
    {1024, 1024, 1024, 1024, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024},  // NO_BAR_YET
    {1024, 1024, 1024, 1024, 0, 512, 1024, 1024, 1024, 1024, 1024, 1024, 1024},  // AFTER_BAR
    {1, 0, 0, 1024, 1024, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024},  // AFTER_PLACE
    {1, 0, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024},  // AFTER_CADENCE
    {5, 4, 4, 1024, 0, 0, 1024, 1024, 1024, 1024, 1024, 1024, 24},  // AFTER_NOTE
    {1024, 1024, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 16},  // AMONG_CHORDS
    {1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 0, 1024, 1024},  // NO_PART_YET
    {1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 0, 1024, 1024, 1024},  // NOT_PLAYED_YET
    {1, 1024, 0, 1024, 1024, 1024, 1024, 1024, 0, 0, 0, 1024, 1024},  // AFTER_SHIFT
    {1, 1024, 0, 1024, 1024, 1024, 1024, 1024, 0, 0, 0, 1024, 24},  // AMONG_OFFS
    {1, 1024, 0, 1024, 1024, 1024, 1024, 1024, 1024, 0, 1024, 1024, 1024},  // AFTER_PART
    {1024, 1024, 2, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024},  // AFTER_VELOCITY
    {1024, 1024, 2, 1024, 1024, 1024, 1024, 1024, 0, 0, 0, 1024, 24},  // AMONG_ONS
    {1024, 1024, 2, 1024, 1024, 1024, 1024, 1024, 1024, 0, 1024, 1024, 1024},  // ONS_OF_PART
};

__device__ const int NEXT[][13] = {
    {0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},  // NOTHING_YET
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1},  // IN_PIECE
    {2, 2, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2},  // BETWEEN_TRACKS
    {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 3},  // IN_TRACK
    {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4},  // FREE_PIECE
    {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5},  // FREE_TRACKS
    {11, 11, 11, 6, 9, 8, 10, 7, 6, 6, 6, 6, 6},  // NO_KEY_YET
    {11, 11, 11, 7, 9, 8, 10, 7, 7, 7, 7, 7, 7},  // NO_BAR_YET
    {11, 11, 11, 8, 9, 8, 10, 7, 8, 8, 8, 8, 8},  // AFTER_BAR
    {11, 11, 11, 9, 9, 8, 10, 7, 9, 9, 9, 9, 9},  // AFTER_PLACE
    {11, 11, 11, 10, 9, 8, 10, 7, 10, 10, 10, 10, 10},  // AFTER_CADENCE
    {11, 11, 11, 11, 9, 8, 10, 7, 11, 11, 11, 11, 11},  // AFTER_NOTE
    {12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12},  // AMONG_CHORDS
    {16, 13, 19, 13, 13, 13, 13, 13, 15, 18, 14, 13, 13},  // NO_PART_YET
    {16, 14, 19, 14, 14, 14, 14, 14, 15, 18, 14, 14, 14},  // NOT_PLAYED_YET
    {16, 15, 19, 15, 15, 15, 15, 15, 15, 18, 17, 15, 15},  // AFTER_SHIFT
    {16, 16, 19, 16, 16, 16, 16, 16, 15, 18, 17, 16, 16},  // AMONG_OFFS
    {16, 17, 19, 17, 17, 17, 17, 17, 15, 18, 17, 17, 17},  // AFTER_PART
    {16, 18, 19, 18, 18, 18, 18, 18, 15, 18, 20, 18, 18},  // AFTER_VELOCITY
    {16, 19, 19, 19, 19, 19, 19, 19, 15, 18, 20, 19, 19},  // AMONG_ONS
    {16, 20, 19, 20, 20, 20, 20, 20, 15, 18, 20, 20, 20},  // ONS_OF_PART
};

struct Piece {
    int phase;
    int now;
    int notes;
    int tracks;
    int before;
    int tokens;
    int ended;
    int primed_tracks;
    int primed_notes;
    int least;
    int bar;
    int line;
    int bars;
    int bars_before;
    int begin;
    int length;
    int rank;
    int heard;
    int struck;
    int closed;
    int part;
    int asked_tokens;
    int asked_ticks;
    int asked_bars;
    int most;
    int measure;
};
static_assert(sizeof(Piece) == 104, "sizeof(Piece) is not 104");

struct Rules {
    int phase;
    int start;
    int exact;
    int merged;
    int notes;
    int told;
    int events;
    int frame_ticks;
    int max_tracks;
    int longest_note;
    int rings;
    int most_notes;
    int least;
    int longest_piece;
    int longest_pause;
};
static_assert(sizeof(Rules) == 60, "sizeof(Rules) is not 60");
