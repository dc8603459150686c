// What one evaluation of an objective looks at; twin of src/objectives/units.rs, which pins the layout.
#pragma once

namespace prefuse {

struct Response {
  double policy;
  double reference;
  double tokens;
  double weights;
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
};

struct PerSequence {
  double response;
};

}  // namespace prefuse
