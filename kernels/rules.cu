// The rules of bin/sample on the device: which words may follow, and what a word changes. The automaton
// of src/lstm_music/sampling/rules.py with its table, line by line; a block takes one piece, and a thread
// of it one pitch.
#include "common.cuh"
#include "rules_table.cuh"

// In longest: the places of events that may come lie between these two.
#define AFTER PLACES
#define BEFORE (PLACES + 1)

// What may follow. Everything but places, which are a range, is as in Rules of sampling/rules.py.
struct Words {
    const int* kinds;
    const int* numbers;
    const int* steps;
    const int* classes;
    const int* deltas;
    const int* shortest;
    const int* places;
    int V, P;
};

// Lengths -----------------------------------------------------------------------------------------

__device__ __forceinline__ void begin(const Rules& rules, Piece& piece, int& began)
{
    piece.phase = rules.phase;
    piece.now = piece.notes = piece.tracks = 0;
    piece.primed_tracks = piece.primed_notes = 0;
    piece.least = rules.least;
    piece.bar = piece.measure;
    piece.line = piece.bars = 0;
    piece.begin = piece.length = piece.number = piece.heard = 0;
    piece.struck = piece.closed = SILENT;
    began = SILENT;
}

__device__ __forceinline__ int next_bar(const Piece& piece)
{
    const int since = piece.now + (piece.struck == piece.now) - piece.line, bar = piece.bar;
    return piece.line + (since > 0 ? (since + bar - 1) / bar : since / bar) * bar;
}

__device__ __forceinline__ int bars_in(const Piece& piece)
{
    return piece.bars + (next_bar(piece) - piece.line) / piece.bar;
}

__device__ __forceinline__ bool is_over(const Rules& rules, const Piece& piece)
{
    const bool ended = SILENT < piece.closed && piece.closed < piece.now && piece.struck <= piece.closed;
    return ended && 0 < rules.longest_piece && rules.longest_piece <= piece.now;
}

__device__ __forceinline__ int limit_of(const Rules& rules, const Piece& piece)
{
    if (piece.asked_bars < 0 && piece.asked_ticks < 0) return is_over(rules, piece) ? piece.now : NO_LIMIT;
    if (piece.asked_bars < 0) return max(piece.asked_ticks - piece.before, 0);
    int bar = piece.bar;
    if (rules.events && piece.bars == 0 && piece.line == piece.begin) bar = max(bar, WHOLE_NOTE);
    const long long bars = piece.asked_bars - piece.bars_before - piece.bars;
    const long long end = piece.line + bars * bar;
    return end < 0 ? 0 : end < FAR ? (int)end : FAR;
}

__device__ __forceinline__ bool is_empty(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.notes == piece.primed_notes;
}

__device__ __forceinline__ bool is_early(const Piece& piece)
{
    return piece.tracks == piece.primed_tracks && piece.now < piece.least;
}

__device__ __forceinline__ bool may_end(const Rules& rules, const Piece& piece)
{
    const int limit = limit_of(rules, piece);
    if (piece.asked_tokens >= 0) return piece.asked_tokens - piece.tokens > 1;
    if (rules.frame_ticks > 0 && limit >= 0) return !is_empty(piece) && next_bar(piece) < limit;
    return limit >= 0 || !is_early(piece);
}

__device__ __forceinline__ bool leaves_room(const Rules& rules, const Piece& piece)
{
    if (piece.asked_tokens >= 0) return piece.asked_tokens - piece.tokens > 1;
    const int limit = limit_of(rules, piece);
    const int least = rules.frame_ticks > 0 ? 1 : piece.bar;
    return rules.merged && limit >= 0 && limit - next_bar(piece) >= least;
}

__device__ __forceinline__ bool is_full(const Rules& rules, const Piece& piece)
{
    if (piece.tokens == piece.asked_tokens || piece.tokens == piece.most) return true;
    const int limit = limit_of(rules, piece);
    return rules.frame_ticks > 0 && limit >= 0 && piece.now >= limit;
}

// What may come -----------------------------------------------------------------------------------

__device__ __forceinline__ int facts_of_piece(const Rules& rules, const Piece& piece, int limit, bool ends)
{
    const bool composed = !is_empty(piece);
    const bool last_quarter = limit < 0 || limit - piece.now <= TICKS_PER_QUARTER;
    const bool track_done = last_quarter || (piece.tracks > 0 && piece.now == 0);
    const bool full = ends && composed && piece.tracks >= rules.max_tracks;
    const int bar = max(piece.begin + piece.length, piece.now);
    const bool heard = piece.notes > 0 && bar <= piece.heard + rules.longest_note;
    return COMPOSED * composed
        | MAY_END * ends
        | LONG_ENOUGH * !is_early(piece)
        | LAST_QUARTER * last_quarter
        | TRACK_DONE * track_done
        | TRACK_ROOM * !full
        | HEARD_LATELY * heard;
}

__device__ __forceinline__ int facts_of_pitch(const Piece& piece, int began, int pitch)
{
    return SOUNDS * (began != SILENT)
        | STRUCK_BEFORE * (began != piece.now)
        | ABOVE_LAST * (pitch > piece.number);
}

__device__ __forceinline__ bool hold(int facts, int needs) { return (facts & needs) == needs; }

__device__ __forceinline__ void allow_notes(
    const Rules& rules, const Piece& piece, int began, int limit, int facts, int* longest)
{
    const int off = NEEDS[piece.phase][NOTE_OFF], on = NEEDS[piece.phase][NOTE_ON];
    const int left = limit >= 0 ? limit - piece.now : FAR, pitch = threadIdx.x;
    const int pitch_facts = facts | facts_of_pitch(piece, began, pitch);
    int stays = left;
    if (off & SOUNDS) {
        const int age = began + rules.longest_note - piece.now;
        stays = rules.events ? age : min(left, age);
    }
    longest[OFFS + pitch] = hold(pitch_facts, off) ? stays : NEVER;
    longest[ONS + pitch] = hold(pitch_facts, on) ? left - 1 : NEVER;
}

__device__ __forceinline__ bool any_stops_at(
    const Rules& rules, const Words& words, int began, int tick, int* scratch)
{
    const bool can_stop = began != SILENT && words.shortest[OFFS + threadIdx.x] < NONE;
    return block_sum((int)(can_stop && began + rules.longest_note >= tick), scratch) > 0;
}

__device__ __forceinline__ void allow_times(
    const Rules& rules, const Words& words, const Piece& piece, int began, int limit, int facts, int* longest,
    int* scratch)
{
    const int place = NEEDS[piece.phase][PLACE], bar_line = NEEDS[piece.phase][BAR_LINE];
    int latest = min(limit >= 0 ? limit : FAR, LAST_TICK);
    latest -= !any_stops_at(rules, words, began, latest, scratch);
    if (threadIdx.x != 0) return;
    longest[AFTER] = piece.phase == AFTER_BAR ? -1 : piece.now - piece.begin;
    longest[BEFORE] = hold(facts, place) ? min(piece.length, latest - piece.begin + 1) : NEVER;
    const int first_place = words.P > 0 ? words.places[0] : FAR;
    const bool fits = max(piece.begin + piece.length, piece.now) + first_place <= latest;
    const int same = piece.length > first_place ? UNTOLD : TOLD;
    longest[BARS] = fits && hold(facts, bar_line) ? same : NEVER;
}

__device__ __forceinline__ void allow_shifts(
    const Rules& rules, const Words& words, const Piece& piece, int began, int limit, int facts, int* longest,
    int* scratch)
{
    const int shift = NEEDS[piece.phase][SHIFT], velocity = NEEDS[piece.phase][VELOCITY];
    int latest = min(limit >= 0 ? limit : FAR, LAST_TICK);
    latest -= !any_stops_at(rules, words, began, latest, scratch);
    if (threadIdx.x != 0) return;
    latest = min(latest, piece.heard + rules.longest_pause);
    longest[SHIFTS] = hold(facts, shift) ? latest - piece.now : NEVER;
    const bool comes = hold(facts, velocity) && (limit < 0 || piece.now < limit);
    longest[VELOCITIES] = comes ? 0 : NEVER;
}

__device__ __forceinline__ bool any_within(
    const Words& words, const int* longest, int first, int stop, int* scratch)
{
    int count = 0;
    for (int c = first + threadIdx.x; c < stop; c += blockDim.x) count += words.shortest[c] <= longest[c];
    if (stop == PLACES)
        for (int k = threadIdx.x; k < words.P; k += blockDim.x)
            count += longest[AFTER] < words.places[k] && words.places[k] < longest[BEFORE];
    return block_sum(count, scratch) > 0;
}

__device__ __forceinline__ bool any_begins(const Words& words, const int* longest, int* scratch)
{
    const bool begins = any_within(words, longest, ONS, PIECE_ENDS, scratch);
    return begins || any_within(words, longest, CHORDS, PLACES, scratch);
}

__device__ __forceinline__ void allow(
    const Rules& rules, const Words& words, const Piece& piece, int began, int limit, bool ends, int* longest,
    int* scratch)
{
    const int facts = facts_of_piece(rules, piece, limit, ends);
    allow_notes(rules, piece, began, limit, facts, longest);
    if (rules.events) allow_times(rules, words, piece, began, limit, facts, longest, scratch);
    else if (threadIdx.x == 0) longest[BARS] = longest[AFTER] = longest[BEFORE] = NEVER;
    if (rules.longest_pause >= 0) allow_shifts(rules, words, piece, began, limit, facts, longest, scratch);
    else if (threadIdx.x == 0) longest[SHIFTS] = longest[VELOCITIES] = NEVER;
    if (threadIdx.x == 0) {
        const int* needs = NEEDS[piece.phase];
        longest[KEYS] = hold(facts, needs[KEY]) ? 0 : NEVER;
        longest[CADENCES] = hold(facts, needs[CADENCE]) ? 0 : NEVER;
        longest[CHORDS] = hold(facts, needs[CHORD]) ? 0 : NEVER;
        longest[TRACK_ENDS] = hold(facts, needs[TRACK_END]) ? 0 : NEVER;
        longest[PIECE_ENDS] = hold(facts, needs[PIECE_END]) ? 0 : NEVER;
    }
    __syncthreads();  // all classes are known
    if (!any_within(words, longest, 0, PLACES, scratch) && threadIdx.x == 0) {
        const bool in_track = piece.phase == IN_TRACK && words.shortest[TRACK_ENDS] < NONE;
        longest[in_track ? TRACK_ENDS : PIECE_ENDS] = 0;
    }
    __syncthreads();  // and so is the way out
}

__device__ __forceinline__ void longest_deltas(
    const Rules& rules, const Words& words, const Piece& piece, int began, int* longest, int* scratch)
{
    const bool ends = may_end(rules, piece);
    const int limit = rules.frame_ticks > 0 ? NO_LIMIT : limit_of(rules, piece);
    allow(rules, words, piece, began, limit, ends, longest, scratch);
    if (is_empty(piece) && !any_begins(words, longest, scratch))
        allow(rules, words, piece, began, NO_LIMIT, ends, longest, scratch);
}

// allowed (N, V): 1 for each word that may follow. pieces (N,), sounding (N, PITCHES): the start tick of each
// pitch that sounds, else SILENT.
extern "C" __global__ void rules_forward(
    const Rules* all_rules, const int* kinds, const int* numbers, const int* steps, const int* classes,
    const int* deltas, const int* shortest, const int* places, int V, int P, const Piece* pieces,
    const int* sounding, unsigned char* allowed)
{
    __shared__ int longest[BEFORE + 1];
    __shared__ int scratch[32];
    const int n = blockIdx.x, p = threadIdx.x;
    const Rules rules = *all_rules;
    const Words words = {kinds, numbers, steps, classes, deltas, shortest, places, V, P};
    const Piece piece = pieces[n];
    if (piece.ended) return;
    longest_deltas(rules, words, piece, sounding[(size_t)n * PITCHES + p], longest, scratch);
    for (int v = p; v < V; v += blockDim.x) {
        const int c = classes[v], place = c < PLACES ? NEVER : places[c - PLACES];
        allowed[(size_t)n * V + v] =
            c < PLACES ? deltas[v] <= longest[c] : longest[AFTER] < place && place < longest[BEFORE];
    }
}

// What a word changes -----------------------------------------------------------------------------

__device__ __forceinline__ void open_bar(Piece& piece, int length)
{
    int missing = piece.begin - piece.line;
    if (piece.bars == 0 && missing == 0 && length > piece.length) missing = piece.length;
    else piece.bars++;
    piece.begin = piece.now;
    piece.line = piece.begin - missing;
    piece.length = piece.bar = length;
}

__device__ __forceinline__ void tidy(const Rules& rules, const Piece& piece, int& began, int* scratch, uint64* first)
{
    if (began != SILENT && began < piece.now && began + rules.rings <= piece.now) began = SILENT;
    while (block_sum((int)(began != SILENT), scratch) > rules.most_notes) {
        const uint64 own = began != SILENT ? ~((uint64)began * PITCHES + threadIdx.x) : 0;
        const uint64 oldest = ~block_max(own, first);
        if ((int)(oldest / PITCHES) == piece.now) break;
        if (threadIdx.x == oldest % PITCHES) began = SILENT;
    }
}

__device__ __forceinline__ void advance(
    const Rules& rules, const Words& words, Piece& piece, int& began, int id, int* scratch, uint64* first)
{
    const int kind = words.kinds[id], number = words.numbers[id];
    piece.phase = NEXT[piece.phase][kind];
    piece.number = number;
    if (kind == TRACK_END) {
        piece.tracks++;
        piece.now = piece.notes = 0;
        piece.struck = SILENT;
        began = SILENT;
        return;
    }
    int to = piece.now + words.steps[id];
    if (kind == PLACE) to = max(piece.begin + number, piece.now);
    else if (kind == BAR_LINE) to = max(piece.begin + piece.length, piece.now);
    piece.now = min(to, LAST_TICK);
    if (kind == BAR_LINE) {
        open_bar(piece, number > 0 ? number : piece.length > 0 ? piece.length : WHOLE_NOTE);
    } else if (kind <= CHORD) {
        piece.heard = piece.now;
        piece.notes += kind != NOTE_OFF;
    }
    if (kind == NOTE_ON) piece.struck = piece.now;
    if (kind == CADENCE) piece.closed = piece.now;
    if (kind <= NOTE_ON && threadIdx.x == number) began = kind == NOTE_ON ? piece.now : SILENT;
    tidy(rules, piece, began, scratch, first);
}

__device__ __forceinline__ bool extend(
    const Rules& rules, const Words& words, Piece& piece, int& began, int id, int* scratch, uint64* first)
{
    const bool taken = id != rules.start || leaves_room(rules, piece);
    if (id != rules.start) {
        advance(rules, words, piece, began, id, scratch, first);
    } else if (taken) {
        piece.bars_before += bars_in(piece);
        piece.before += next_bar(piece);
        begin(rules, piece, began);
    }
    piece.tokens += taken;
    if (!taken || is_full(rules, piece)) piece.ended = 1;
    return taken;
}

// Take the word drawn, or the primer's next: primers (N, primer_stride), of which row n has primed[n]. next (N,),
// out (most, N) and done (N,) are those of sample_forward. h, c (L, N, H): cleared where another piece begins.
extern "C" __global__ void rules_advance(
    const Rules* all_rules, const int* kinds, const int* numbers, const int* steps, const int* classes,
    const int* deltas, const int* shortest, const int* places, int V, int P, Piece* pieces, int* sounding,
    const int* primers, const int* primed, int primer_stride, const int* position, int* next, int* out, int* done,
    REAL* h, REAL* c, int L, int H)
{
    __shared__ int scratch[32];
    __shared__ uint64 first[32];
    const int n = blockIdx.x, N = gridDim.x, p = threadIdx.x, t = *position;
    const Rules rules = *all_rules;
    const Words words = {kinds, numbers, steps, classes, deltas, shortest, places, V, P};
    Piece piece = pieces[n];
    if (piece.ended) return;
    const int id = t < primed[n] ? primers[(size_t)n * primer_stride + t] : next[n];
    int began = sounding[(size_t)n * PITCHES + p];
    __syncthreads();  // all have read what one will overwrite

    const bool taken = extend(rules, words, piece, began, id, scratch, first);
    if (taken && id == rules.start) {
        for (int k = p; k < L * H; k += blockDim.x) {
            const size_t at = ((size_t)(k / H) * N + n) * H + k % H;
            h[at] = 0, c[at] = 0;
        }
    }
    sounding[(size_t)n * PITCHES + p] = began;
    if (p != 0) return;
    out[(size_t)t * N + n] = taken ? id : -1;
    pieces[n] = piece;
    next[n] = id;
    done[n] = piece.ended;
}
