// Warp functions: they collect the lanes that the mask names, and are strict about what CUDA leaves
// undefined.
#include <algorithm>

#include "race.h"
#include "state.h"

namespace emulator {
namespace {

const char *name(WarpOp op) {
  switch (op) {
    case WarpOp::kShuffle: return "__shfl_*_sync";
    case WarpOp::kBallot: return "__ballot_sync";
    case WarpOp::kAny: return "__any_sync";
    case WarpOp::kAll: return "__all_sync";
    case WarpOp::kMatch: return "__match_any_sync";
    case WarpOp::kSync: return "__syncwarp";
    case WarpOp::kReduceAdd: return "__reduce_add_sync";
    case WarpOp::kReduceMin:
    case WarpOp::kReduceMinSigned: return "__reduce_min_sync";
    case WarpOp::kReduceMax:
    case WarpOp::kReduceMaxSigned: return "__reduce_max_sync";
    case WarpOp::kReduceAnd: return "__reduce_and_sync";
    case WarpOp::kReduceOr: return "__reduce_or_sync";
    case WarpOp::kReduceXor: return "__reduce_xor_sync";
  }
  return "a warp function";
}

bool has(unsigned mask, unsigned lane) { return mask >> lane & 1; }

// The last warp of a block may be short.
unsigned lanes_in(const Thread &thread) {
  return std::min(kWarpSize, thread.block->threads - thread.warp * kWarpSize);
}

// A NaN as float, bf16 and double.
constexpr uint64_t kUndefined = 0x7fdeadbe7fdeadbe;

uint32_t combine(WarpOp op, uint32_t a, uint32_t b) {
  switch (op) {
    case WarpOp::kReduceAdd: return a + b;
    case WarpOp::kReduceMin: return std::min(a, b);
    case WarpOp::kReduceMax: return std::max(a, b);
    case WarpOp::kReduceMinSigned: return uint32_t(std::min(int32_t(a), int32_t(b)));
    case WarpOp::kReduceMaxSigned: return uint32_t(std::max(int32_t(a), int32_t(b)));
    case WarpOp::kReduceAnd: return a & b;
    case WarpOp::kReduceOr: return a | b;
    case WarpOp::kReduceXor: return a ^ b;
    default: return 0;
  }
}

uint64_t shuffled(const Thread &thread, const Thread *warp, unsigned live) {
  const unsigned from = unsigned(thread.source_lane);
  if (has(thread.mask, from) && has(live, from)) return warp[from].value;
  thread.cluster->reports().add(
      "warp mask", thread.site, "lane %u reads from lane %u, which %s (mask %08x)", thread.lane,
      from, has(live, from) ? "the mask leaves out" : "has exited or does not exist", thread.mask);
  return kUndefined;
}

void report_disagreement(const Thread &a, const Thread &b) {
  a.cluster->reports().add(
      "warp mask", a.site,
      "lane %u calls %s with mask %08x, lane %u calls %s with mask %08x (line %d)", a.lane,
      name(a.warp_op), a.mask, b.lane, name(b.warp_op), b.mask, b.site.line);
}

bool agree(const Thread &a, const Thread &b) { return a.mask == b.mask && a.warp_op == b.warp_op; }

// Results of all lanes that have come, for those of `lanes`.
void compute(Thread *const *lanes, int count, const Thread *warp, unsigned live) {
  const WarpOp op = lanes[0]->warp_op;
  unsigned ballot = 0;
  uint32_t reduced = uint32_t(lanes[0]->value);
  for (int i = 0; i < count; ++i) {
    if (lanes[i]->value) ballot |= 1u << lanes[i]->lane;
    if (i > 0) reduced = combine(op, reduced, uint32_t(lanes[i]->value));
  }
  for (int i = 0; i < count; ++i) {
    Thread &thread = *lanes[i];
    switch (op) {
      case WarpOp::kShuffle: thread.result = shuffled(thread, warp, live); break;
      case WarpOp::kBallot: thread.result = ballot; break;
      case WarpOp::kAny: thread.result = ballot != 0; break;
      case WarpOp::kAll: thread.result = __builtin_popcount(ballot) == count; break;
      case WarpOp::kMatch:
        thread.result = 0;
        for (int j = 0; j < count; ++j) {
          if (lanes[j]->value == thread.value) thread.result |= 1u << lanes[j]->lane;
        }
        break;
      default: thread.result = reduced; break;
    }
  }
}

}  // namespace

void release_warp(Thread &thread) {
  if (thread.status != Status::kWarp) return;
  Thread *warp = &thread - thread.lane;
  unsigned live = 0;
  for (unsigned lane = 0; lane < lanes_in(thread); ++lane) {
    if (warp[lane].status != Status::kExited) live |= 1u << lane;
  }
  // A caller that its own mask leaves out, which has been reported, waits for nobody.
  const unsigned needed = has(thread.mask, thread.lane) ? thread.mask & live : 1u << thread.lane;
  Thread *lanes[kWarpSize];
  int count = 0;
  for (unsigned lane = 0; lane < lanes_in(thread); ++lane) {
    if (!has(needed, lane)) continue;
    Thread &other = warp[lane];
    if (other.status != Status::kWarp) return;
    if (!agree(thread, other)) {
      report_disagreement(thread, other);
      return;
    }
    lanes[count++] = &other;
  }
  compute(lanes, count, warp, live);
  // Of the warp functions this one alone orders memory; the others exchange registers.
  if (thread.warp_op == WarpOp::kSync) race_warp_sync(lanes, count);
  for (int i = 0; i < count; ++i) make_ready(*lanes[i]);
}

uint64_t warp_operation(WarpOp op, unsigned mask, uint64_t value, int source_lane, Site site) {
  Thread &thread = running();
  thread.warp_op = op;
  thread.mask = mask;
  thread.value = value;
  thread.source_lane = source_lane & int(kWarpSize - 1);
  thread.site = site;
  thread.status = Status::kWarp;
  if (!has(mask, thread.lane)) {
    thread.cluster->reports().add("warp mask", site,
                                  "lane %u calls %s with mask %08x, which leaves it out",
                                  thread.lane, name(op), mask);
  }
  // Those who wait for this lane have to mean the same call.
  const Thread *warp = &thread - thread.lane;
  for (unsigned lane = 0; lane < lanes_in(thread); ++lane) {
    const Thread &other = warp[lane];
    if (other.status == Status::kWarp && has(other.mask, thread.lane) && !agree(thread, other)) {
      report_disagreement(thread, other);
    }
  }
  release_warp(thread);
  leave(thread);
  return thread.result;
}

}  // namespace emulator
