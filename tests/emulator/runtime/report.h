// What the emulator has to say against a kernel.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "runtime_interface.h"

namespace emulator {

// Gathered from all threads of the host. The same kind of report from the same place is counted.
class Reports {
 public:
  __attribute__((format(printf, 4, 5))) void add(const char *kind, Site site, const char *format,
                                                 ...);
  bool empty() const;
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int> counts_;
  std::string text_;
};

}  // namespace emulator
