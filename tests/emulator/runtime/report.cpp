#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace emulator {

// One mistake is often made by every thread in several places; more would bury the first.
constexpr size_t kMaxPlaces = 20;

void Reports::add(const char *kind, Site site, const char *format, ...) {
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);

  std::string place = kind;
  if (site.file) {
    const char *slash = strrchr(site.file, '/');
    place += std::string(" at ") + (slash ? slash + 1 : site.file);
    if (site.line) place += ":" + std::to_string(site.line);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (counts_.size() >= kMaxPlaces && counts_.find(place) == counts_.end()) return;
  if (counts_[place]++ == 0) text_ += place + ": " + message + "\n";
}

bool Reports::empty() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return counts_.empty();
}

std::string Reports::text() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::string text = text_;
  for (const auto &[place, count] : counts_) {
    if (count > 1) text += "  (" + place + ": " + std::to_string(count) + " times)\n";
  }
  return text;
}

}  // namespace emulator
