// What one evaluation of an objective looks at; twin of src/objectives/units.rs, which pins the layout.
#pragma once

namespace prefuse {

struct Response {
  double policy;
  double reference;
  double tokens;
  double weights;
  double score;
  double old;
};

struct Pair {
  Response chosen;
  Response rejected;
  double beta;
  double margin;
  double soft_label;
};

struct PerPair {
  double chosen;
  double rejected;
};

struct Sequence {
  Response response;
  double soft_label;
};

struct PerSequence {
  double response;
};

struct JudgedPair {
  Response chosen;
  Response rejected;
  Response verdict_chosen;
  Response verdict_rejected;
};

struct PerJudgedPair {
  double chosen;
  double rejected;
  double verdict_chosen;
  double verdict_rejected;
};

struct RewardPair {
  double chosen;
  double rejected;
  double margin;
  double soft_label;
};

struct Reward {
  double prediction;
  double target;
};

struct Token {
  double policy;
  double old;
  double reference;
  double advantage;
  double entropy;
  double sequence_log_ratio;
  double tokens;
};

struct PerToken {
  double policy;
  double sequence;
  double entropy;
};

}  // namespace prefuse
