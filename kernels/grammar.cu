// The rules of bin/sample on the device: which words may follow, and what a word changes, as
// tokenizers/grammar.py, sampler.FreeGrammar and sampler.Draft have them. A block takes one piece, and
// a thread of it one pitch.
#include "common.cuh"

#define PITCHES 128
#define OFF 0  // a word's class is kind * PITCHES + pitch, as in grammar.py
#define ON PITCHES
#define PIECE_END (2 * PITCHES)
#define TRACK_END (PIECE_END + 1)
#define CLASSES (PIECE_END + 2)
#define NEVER (-1)         // the longest delta of a class of which no word may come
#define NONE 0x7fffffff    // the shortest delta of a class without words

struct Rules {
    int merged, free, start, max_tracks, longest_note, most_notes;
    int length, limit;  // tokens and ticks asked for, -1 for none
    int bar, quarter, shortest_piece, last_tick;
};

struct Piece {
    int now, notes, tracks;  // as in GrammarState
    int before;              // ticks of the pieces before this one
    int ended;
};

// The longest delta of each class that may come, to shared memory. left: ticks up to the limit.
__device__ __forceinline__ void longest_deltas(
    int* longest, const Rules& rules, const Piece& piece, int since, const int* least, bool limited,
    bool may_end)
{
    const int p = threadIdx.x;
    const int left = limited ? rules.limit - piece.before - piece.now : rules.last_tick + 1;
    const bool early = limited && left > rules.quarter;
    const bool empty = piece.notes == 0 && piece.tracks == 0;
    if (rules.free) {
        longest[OFF + p] = empty ? NEVER : left;
        longest[ON + p] = left - 1;
        if (p != 0) return;
        const bool held = early && !rules.merged;
        longest[PIECE_END] = empty || !may_end || (held && (piece.tracks == 0 || piece.now != 0)) ? NEVER : 0;
        longest[TRACK_END] = empty || rules.merged || held ? NEVER : 0;
        return;
    }
    const bool full = !rules.merged && piece.notes == 0 && may_end && piece.tracks >= rules.max_tracks;
    int off = NEVER, on = NEVER;
    if (!full) {
        if (least[OFF + p] != NONE && since != 0) on = left - 1;
        if (since >= 0) off = left < rules.longest_note - since ? left : rules.longest_note - since;
    }
    longest[OFF + p] = off, longest[ON + p] = on;
    if (p != 0) return;
    longest[PIECE_END] = longest[TRACK_END] = NEVER;
    if (rules.merged) {
        if (piece.notes > 0 && may_end) longest[PIECE_END] = 0;
    } else if (piece.notes == 0 && piece.tracks > 0 && may_end) {
        longest[PIECE_END] = 0;
    } else if (piece.notes > 0 && !early) {
        longest[TRACK_END] = 0;
    }
}

// allowed (N, V): 1 for each word that may follow. classes, deltas (V,): the words. least (CLASSES,): the
// shortest delta of each class. pieces (N,), sounding (N, PITCHES): the start tick of each pitch that
// sounds, else -1. position: tokens drawn so far. The vocabulary has the end of the piece.
extern "C" __global__ void grammar_forward(
    const Rules* all_rules, const int* classes, const int* deltas, const int* least, const Piece* pieces,
    const int* sounding, const int* position, unsigned char* allowed, int V)
{
    __shared__ int longest[CLASSES];
    __shared__ int scratch[32];
    const int n = blockIdx.x, p = threadIdx.x;
    const Rules rules = *all_rules;
    const Piece piece = pieces[n];
    if (piece.ended) return;
    const int began = sounding[(size_t)n * PITCHES + p];
    const int since = began < 0 ? -1 : piece.now - began;
    const bool limited = rules.limit >= 0;
    const bool may_end = rules.length >= 0 ? *position + 1 < rules.length
        : !rules.merged || limited || piece.now >= rules.shortest_piece;

    longest_deltas(longest, rules, piece, since, least, limited, may_end);
    int notes = block_sum((int)(least[ON + p] <= longest[ON + p]), scratch);
    if (piece.notes == 0 && piece.tracks == 0 && notes == 0) {
        // Better too long than empty.
        longest_deltas(longest, rules, piece, since, least, false, may_end);
        notes = block_sum((int)(least[ON + p] <= longest[ON + p]), scratch);
    }
    if (!rules.free) {
        int words = notes + block_sum((int)(least[OFF + p] <= longest[OFF + p]), scratch);
        words += least[PIECE_END] <= longest[PIECE_END];
        words += least[TRACK_END] <= longest[TRACK_END];
        __syncthreads();  // nobody reads the old ends any more
        if (words == 0 && p == 0) {
            // Nothing fits: the end of the track, where there is such a word, or of the piece.
            const bool track = !rules.merged && piece.notes > 0 && least[TRACK_END] != NONE;
            longest[track ? TRACK_END : PIECE_END] = 0;
        }
    }
    __syncthreads();  // all classes are known
    for (int v = p; v < V; v += blockDim.x)
        allowed[(size_t)n * V + v] = deltas[v] <= longest[classes[v]];
}

// Take the word drawn, or the primer's next: primers (N, P), of which row n has primed[n]. next (N,), out
// (most, N) and done (N,) are those of sample_forward. h, c (L, N, H): cleared where another piece begins.
extern "C" __global__ void grammar_advance(
    const Rules* all_rules, const int* classes, const int* deltas, const int* primers, const int* primed,
    int P, const int* position, Piece* pieces, int* sounding, int* next, int* out, int* done, REAL* h,
    REAL* c, int L, int H)
{
    __shared__ int count[32];
    __shared__ uint64 first[32];
    const int n = blockIdx.x, N = gridDim.x, p = threadIdx.x, t = *position;
    const Rules rules = *all_rules;
    Piece piece = pieces[n];
    if (piece.ended) return;
    const int id = t < primed[n] ? primers[(size_t)n * P + t] : next[n];
    int began = sounding[(size_t)n * PITCHES + p];
    __syncthreads();  // all have read what one will overwrite

    if (id == rules.start) {
        const int length = (piece.now + rules.bar - 1) / rules.bar * rules.bar;
        const bool another = rules.length >= 0
            ? t + 1 < rules.length
            : rules.merged && rules.limit >= 0 && rules.limit - piece.before - length >= rules.bar;
        piece.ended = !another;
        if (another) {
            piece.before += length;
            piece.now = piece.notes = piece.tracks = 0;
            began = -1;
            for (int k = p; k < L * H; k += blockDim.x) {
                const size_t at = ((size_t)(k / H) * N + n) * H + k % H;
                h[at] = 0, c[at] = 0;
            }
        }
    } else if (classes[id] >= PIECE_END) {
        piece.tracks += classes[id] == TRACK_END;
        piece.now = piece.notes = 0;
        began = -1;
    } else {
        const bool on = classes[id] >= ON;
        const int now = piece.now + deltas[id];
        piece.now = now < rules.last_tick ? now : rules.last_tick;
        piece.notes += on;
        if (p == classes[id] % PITCHES) began = on ? piece.now : -1;
        // As midi.tidy_track: notes end of old age, and the oldest make room.
        if (began >= 0 && began < piece.now && piece.now - began >= rules.longest_note) began = -1;
        while (block_sum((int)(began >= 0), count) > rules.most_notes) {
            const uint64 own = began >= 0 ? ~((uint64)began * PITCHES + p) : 0;
            const uint64 oldest = ~block_max(own, first);
            if ((int)(oldest / PITCHES) == piece.now) break;
            if (p == (int)(oldest % PITCHES)) began = -1;
        }
    }
    sounding[(size_t)n * PITCHES + p] = began;
    if (p != 0) return;
    pieces[n] = piece;
    next[n] = id;
    out[(size_t)t * N + n] = piece.ended ? -1 : id;
    done[n] = piece.ended;
}
