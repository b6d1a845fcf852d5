// The rules of bin/sample on the device: which words may follow, and what a word changes, as
// tokenizers/grammar.py, event_grammar.py, sampler.FreeGrammar and sampler.Draft have them. A block takes
// one piece, and a thread of it one pitch.
#include "common.cuh"

#define PITCHES 128
#define OFF 0  // a word's class is kind * PITCHES + pitch, as in word_classes.py
#define ON PITCHES
#define PIECE_END (2 * PITCHES)
#define TRACK_END (PIECE_END + 1)
#define BARS TRACK_END        // of events
#define PLACES (PIECE_END + 2)  // the class of the first of an event's places
#define AFTER PLACES            // in longest: the places that may come lie between these two
#define BEFORE (PLACES + 1)
#define NEVER (-1)         // the longest delta of a class of which no word may come
#define NONE 0x7fffffff    // the shortest delta of a class without words

enum { FREE = 1, EVENTS = 3 };  // kinds of rules, as in word_classes.py
enum { NO_KIND = -1, NOTE_OFF, NOTE_ON, AT, BAR_LINE };  // of events, as in event_grammar.py

struct Rules {
    int kind, merged, start, max_tracks, longest_note, most_notes;
    int length, limit;  // tokens and ticks asked for, -1 for none
    int bar, quarter, shortest_piece, last_tick;
    int first_place;  // of events, beyond last_tick where there are none
};

struct Piece {
    int now, notes, tracks;  // as in GrammarState
    int before;              // ticks of the pieces before this one
    int ended;
    int begin, length, kind, number, heard;  // as in EventState
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
    if (rules.kind == FREE) {
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

// The same of events, and between which places there may be one. began: since when the pitch sounds, or -1.
__device__ __forceinline__ void event_deltas(
    int* longest, const Rules& rules, const Piece& piece, int began, const int* least, bool limited,
    bool may_end, int* scratch)
{
    const int p = threadIdx.x, kind = piece.kind;
    const int limit = limited ? rules.limit - piece.before : rules.last_tick + 1;
    const bool ends = began >= 0 && least[OFF + p] != NONE, above = p > piece.number;
    const bool here = kind == AT || kind == NOTE_OFF || kind == NOTE_ON;
    const bool begins = least[OFF + p] != NONE && piece.now < limit;
    longest[OFF + p] = ends && (kind == AT || (kind == NOTE_OFF && above)) ? 0 : NEVER;
    longest[ON + p] = begins && here && (kind != NOTE_ON || above) ? 0 : NEVER;
    int latest = limit < rules.last_tick ? limit : rules.last_tick;
    latest -= block_sum((int)(ends && began + rules.longest_note >= latest), scratch) == 0;
    if (p != 0) return;
    longest[PIECE_END] = here && kind != AT && piece.notes > 0 && may_end ? 0 : NEVER;
    longest[BARS] = longest[AFTER] = longest[BEFORE] = NEVER;
    if (kind == AT) return;
    const int to = latest - piece.begin + 1, next = piece.begin + piece.length;
    longest[AFTER] = kind == BAR_LINE ? -1 : piece.now - piece.begin;
    longest[BEFORE] = piece.length < to ? piece.length : to;
    const int bar = next > piece.now ? next : piece.now;
    const bool silent = piece.notes == 0 || bar > piece.heard + rules.longest_note;
    if (bar + rules.first_place <= latest && !(kind == BAR_LINE && silent))
        longest[BARS] = piece.length > rules.first_place;
}

// The longest deltas of any kind of rules; how many classes may come with which a piece can begin.
__device__ __forceinline__ int deltas_and_beginnings(
    int* longest, const Rules& rules, const Piece& piece, int began, const int* least, const int* places,
    int P, bool limited, bool may_end, int* scratch)
{
    const int p = threadIdx.x;
    int count = 0;
    if (rules.kind == EVENTS) {
        event_deltas(longest, rules, piece, began, least, limited, may_end, scratch);
        __syncthreads();  // the bounds of places are known
        count = p == 0 && least[BARS] <= longest[BARS];
        for (int k = p; k < P; k += blockDim.x)
            count += longest[AFTER] < places[k] && places[k] < longest[BEFORE];
    } else {
        longest_deltas(longest, rules, piece, began < 0 ? -1 : piece.now - began, least, limited, may_end);
    }
    return block_sum(count + (int)(least[ON + p] <= longest[ON + p]), scratch);
}

// allowed (N, V): 1 for each word that may follow. classes, deltas (V,): the words. least (C,): the shortest
// delta of each class. places (P,): of events, in order. pieces (N,), sounding (N, PITCHES): the start tick of
// each pitch that sounds, else -1. position: tokens drawn so far. The vocabulary has the end of the piece.
extern "C" __global__ void grammar_forward(
    const Rules* all_rules, const int* classes, const int* deltas, const int* least, const int* places, int P,
    const Piece* pieces, const int* sounding, const int* position, unsigned char* allowed, int V)
{
    __shared__ int longest[BEFORE + 1];
    __shared__ int scratch[32];
    const int n = blockIdx.x, p = threadIdx.x;
    const Rules rules = *all_rules;
    const Piece piece = pieces[n];
    if (piece.ended) return;
    const int began = sounding[(size_t)n * PITCHES + p];
    const bool limited = rules.limit >= 0;
    const bool may_end = rules.length >= 0 ? *position + 1 < rules.length
        : !rules.merged || limited || piece.now >= rules.shortest_piece;

    int words = deltas_and_beginnings(
        longest, rules, piece, began, least, places, P, limited, may_end, scratch);
    if (piece.notes == 0 && piece.tracks == 0 && words == 0)  // better too long than empty
        words = deltas_and_beginnings(
            longest, rules, piece, began, least, places, P, false, may_end, scratch);
    if (rules.kind != FREE) {
        words += block_sum((int)(least[OFF + p] <= longest[OFF + p]), scratch);
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
    for (int v = p; v < V; v += blockDim.x) {
        const int c = classes[v], place = c < PLACES ? NEVER : places[c - PLACES];
        allowed[(size_t)n * V + v] =
            c < PLACES ? deltas[v] <= longest[c] : longest[AFTER] < place && place < longest[BEFORE];
    }
}

// Take an event: c its class, number its pitch or time. Each thread has when its own pitch began.
__device__ __forceinline__ void take_event(const Rules& rules, Piece& piece, int c, int number, int& began)
{
    piece.kind = c >= PLACES ? AT : c == BARS ? BAR_LINE : c / PITCHES;
    piece.number = number;
    if (piece.kind == BAR_LINE || piece.kind == AT) {
        const int to = piece.begin + (piece.kind == AT ? number : piece.length);
        const int now = to > piece.now ? to : piece.now;
        piece.now = now < rules.last_tick ? now : rules.last_tick;
    } else {
        piece.heard = piece.now;
        piece.notes += piece.kind == NOTE_ON;
        if ((int)threadIdx.x == number) began = piece.kind == NOTE_ON ? piece.now : -1;
    }
    if (piece.kind != BAR_LINE) return;
    piece.begin = piece.now;
    if (number > 0) piece.length = number;
    else if (piece.length == 0) piece.length = rules.bar;  // of a whole note
}

// As midi.tidy_track: notes end of old age, and the oldest make room.
__device__ __forceinline__ void tidy(
    int& began, int now, int longest_note, int most_notes, int* count, uint64* first)
{
    if (began >= 0 && began < now && now - began >= longest_note) began = -1;
    while (block_sum((int)(began >= 0), count) > most_notes) {
        const uint64 own = began >= 0 ? ~((uint64)began * PITCHES + threadIdx.x) : 0;
        const uint64 oldest = ~block_max(own, first);
        if ((int)(oldest / PITCHES) == now) break;
        if (threadIdx.x == oldest % PITCHES) began = -1;
    }
}

// Take the word drawn, or the primer's next: primers (N, P), of which row n has primed[n]. steps (V,): the
// delta of each word, or an event's number. next (N,), out (most, N) and done (N,) are those of
// sample_forward. h, c (L, N, H): cleared where another piece begins.
extern "C" __global__ void grammar_advance(
    const Rules* all_rules, const int* classes, const int* steps, const int* primers, const int* primed,
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
            piece.begin = piece.length = piece.number = piece.heard = 0;
            piece.kind = NO_KIND;
            began = -1;
            for (int k = p; k < L * H; k += blockDim.x) {
                const size_t at = ((size_t)(k / H) * N + n) * H + k % H;
                h[at] = 0, c[at] = 0;
            }
        }
    } else if (rules.kind == EVENTS) {
        take_event(rules, piece, classes[id], steps[id], began);
        // At the longest age they may still end by their word.
        tidy(began, piece.now, rules.longest_note + 1, rules.most_notes, count, first);
    } else if (classes[id] >= PIECE_END) {
        piece.tracks += classes[id] == TRACK_END;
        piece.now = piece.notes = 0;
        began = -1;
    } else {
        const bool on = classes[id] >= ON;
        const int now = piece.now + steps[id];
        piece.now = now < rules.last_tick ? now : rules.last_tick;
        piece.notes += on;
        if (p == classes[id] % PITCHES) began = on ? piece.now : -1;
        tidy(began, piece.now, rules.longest_note, rules.most_notes, count, first);
    }
    sounding[(size_t)n * PITCHES + p] = began;
    if (p != 0) return;
    pieces[n] = piece;
    next[n] = id;
    out[(size_t)t * N + n] = piece.ended ? -1 : id;
    done[n] = piece.ended;
}
