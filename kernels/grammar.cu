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
    int bar, quarter, least, last_tick;  // least: of a piece after others, as in GrammarState
    int first_place;                     // of events, beyond last_tick where there are none
};

struct Piece {
    int now, notes, tracks;  // as in GrammarState
    int before;              // ticks of the pieces before this one
    int ended;
    int primed_tracks, primed_notes, least, bar, line, bars, bars_before;  // as in GrammarState and Draft
    int begin, length, kind, number, heard;                                // as in EventState
    int asked_tokens, asked_ticks, asked_bars, most;                       // as in Bounds, -1 for none
};

// As Grammar.is_empty: nothing is written beyond a primer that doesn't count.
__device__ __forceinline__ bool is_empty(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.notes == piece.primed_notes;
}

// As Grammar.is_early: less is written than a piece without a length has at least.
__device__ __forceinline__ bool is_early(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.now < piece.least;
}

// As Grammar.next_bar, from where the piece stands.
__device__ __forceinline__ int next_bar(const Piece& piece)
{
    const int since = piece.now - piece.line;
    return piece.line + (since > 0 ? (since + piece.bar - 1) / piece.bar : since / piece.bar) * piece.bar;
}

// As Draft.room: the tick of the piece at which it is to end, -1 where there is none.
__device__ __forceinline__ int limit_of(const Rules& rules, const Piece& piece)
{
    if (piece.asked_bars < 0) {
        if (piece.asked_ticks < 0) return -1;
        return piece.asked_ticks > piece.before ? piece.asked_ticks - piece.before : 0;
    }
    long long bar = piece.bar;
    const int whole = 4 * rules.quarter;
    if (rules.kind == EVENTS && piece.bars == 0 && piece.line == piece.begin && bar < whole) bar = whole;
    const long long end = piece.line + (piece.asked_bars - piece.bars_before - piece.bars) * bar;
    return (int)(end < 0 ? 0 : end > rules.last_tick ? rules.last_tick + 1 : end);
}

// The longest delta of each class that may come, to shared memory. limit: -1 for none; left: ticks up to it.
__device__ __forceinline__ void longest_deltas(
    int* longest, const Rules& rules, const Piece& piece, int since, const int* least, int limit, bool may_end)
{
    const int p = threadIdx.x;
    const int left = limit >= 0 ? limit - piece.now : rules.last_tick + 1;
    const bool far = limit >= 0 && left > rules.quarter;
    const bool empty = is_empty(piece), early = !rules.merged && is_early(piece);
    if (rules.kind == FREE) {
        longest[OFF + p] = empty ? NEVER : left;
        longest[ON + p] = left - 1;
        if (p != 0) return;
        const bool held = far && !rules.merged, between_tracks = piece.tracks > 0 && piece.now == 0;
        longest[PIECE_END] = empty || !may_end || early || (held && !between_tracks) ? NEVER : 0;
        longest[TRACK_END] = empty || rules.merged || held || early ? NEVER : 0;
        return;
    }
    const bool full =
        !rules.merged && piece.notes == 0 && may_end && !empty && piece.tracks >= rules.max_tracks;
    int off = NEVER, on = NEVER;
    if (!full) {
        if (least[OFF + p] != NONE && since != 0) on = left - 1;
        if (since >= 0) off = left < rules.longest_note - since ? left : rules.longest_note - since;
    }
    longest[OFF + p] = off, longest[ON + p] = on;
    if (p != 0) return;
    const bool in_track = piece.notes > 0;
    longest[PIECE_END] = !empty && may_end && in_track == (bool)rules.merged ? 0 : NEVER;
    longest[TRACK_END] = !empty && !rules.merged && in_track && !far && !early ? 0 : NEVER;
}

// The same of events, and between which places there may be one. began: since when the pitch sounds, or -1.
__device__ __forceinline__ void event_deltas(
    int* longest, const Rules& rules, const Piece& piece, int began, const int* least, int limit, bool may_end,
    int* scratch)
{
    const int p = threadIdx.x, kind = piece.kind;
    if (limit < 0) limit = rules.last_tick + 1;
    const bool ends = began >= 0 && least[OFF + p] != NONE, above = p > piece.number;
    const bool here = kind == AT || kind == NOTE_OFF || kind == NOTE_ON;
    const bool begins = least[OFF + p] != NONE && piece.now < limit;
    longest[OFF + p] = ends && (kind == AT || (kind == NOTE_OFF && above)) ? 0 : NEVER;
    longest[ON + p] = begins && here && (kind != NOTE_ON || above) ? 0 : NEVER;
    int latest = limit < rules.last_tick ? limit : rules.last_tick;
    latest -= block_sum((int)(ends && began + rules.longest_note >= latest), scratch) == 0;
    if (p != 0) return;
    longest[PIECE_END] = here && kind != AT && !is_empty(piece) && may_end ? 0 : NEVER;
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
    int P, int limit, bool may_end, int* scratch)
{
    const int p = threadIdx.x;
    int count = 0;
    if (rules.kind == EVENTS) {
        event_deltas(longest, rules, piece, began, least, limit, may_end, scratch);
        __syncthreads();  // the bounds of places are known
        count = p == 0 && least[BARS] <= longest[BARS];
        for (int k = p; k < P; k += blockDim.x)
            count += longest[AFTER] < places[k] && places[k] < longest[BEFORE];
    } else {
        longest_deltas(longest, rules, piece, began < 0 ? -1 : piece.now - began, least, limit, may_end);
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
    const int limit = limit_of(rules, piece);
    const bool may_end =
        piece.asked_tokens >= 0 ? *position + 1 < piece.asked_tokens : limit >= 0 || !is_early(piece);

    int words =
        deltas_and_beginnings(longest, rules, piece, began, least, places, P, limit, may_end, scratch);
    if (is_empty(piece) && words == 0)  // better too long than empty
        words = deltas_and_beginnings(longest, rules, piece, began, least, places, P, -1, may_end, scratch);
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
    const int length = number > 0 ? number : piece.length > 0 ? piece.length : 4 * rules.quarter;
    int missing = piece.begin - piece.line;  // of a pickup, which completes the last bar
    if (piece.bars == 0 && missing == 0 && length > piece.length) missing = piece.length;
    else piece.bars++;
    piece.begin = piece.now;
    piece.line = piece.begin - missing;
    piece.length = piece.bar = length;
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
        const int length = next_bar(piece), limit = limit_of(rules, piece);
        const bool another = piece.asked_tokens >= 0
            ? t + 1 < piece.asked_tokens
            : rules.merged && limit >= 0 && limit - length >= piece.bar;
        piece.ended = !another;
        if (another) {
            piece.before += length;
            piece.bars_before += piece.bars + (length - piece.line) / piece.bar;
            piece.now = piece.notes = piece.tracks = 0;
            piece.primed_tracks = piece.primed_notes = piece.line = piece.bars = 0;
            piece.least = rules.least, piece.bar = rules.bar;
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
    out[(size_t)t * N + n] = piece.ended ? -1 : id;
    if (t + 1 == piece.most) piece.ended = 1;
    pieces[n] = piece;
    next[n] = id;
    done[n] = piece.ended;
}
