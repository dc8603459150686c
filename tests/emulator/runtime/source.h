// Source lines of machine code.
#pragma once

#include <cstdint>
#include <string>

#include "runtime_interface.h"

namespace emulator {

struct Source {
  std::string file = "?";  // without folders
  int line = 0;
  std::string within;  // " in file:line" of the kernel that the line is inlined into, if another

  Site site() const { return {file.c_str(), line}; }
};

// Relative to where the program, or the library that holds the kernels, lies in memory.
uint32_t relative_pc(const void *pc);
// The line of the call that returns to `pc`.
Source source_of(uint32_t pc);
// Whether the address is in the program's own image: constants, and tables of the compiler.
bool in_program(uintptr_t p);

}  // namespace emulator
