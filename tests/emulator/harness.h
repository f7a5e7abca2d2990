// What the test programs of the emulator share: a registry of named tests, and arrays of exactly their size.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/launch.h"
#include "emulator/control.h"

namespace harness {

using Test = void (*)();

inline std::map<std::string, Test>& tests() {
  static std::map<std::string, Test> all;
  return all;
}

struct Register {
  Register(const char* name, Test test) { tests()[name] = test; }
};

#define TEST(name)                                             \
  static void name();                                          \
  static const harness::Register register_##name(#name, name); \
  static void name()

#define EXPECT(condition)                                                                              \
  do {                                                                                                 \
    if (!(condition))                                                                                  \
      throw std::logic_error(std::string(#condition " is false at line ") + std::to_string(__LINE__)); \
  } while (false)

// The text of the error that `body` throws; it has to throw one.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  throw std::logic_error("no error was thrown");
}

inline bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// PROGRAM NAME runs one test: exit status 0, or 1 with the error's text. PROGRAM alone lists the names.
inline int main(int argc, char** argv) {
  if (argc < 2) {
    for (const auto& [name, test] : tests()) std::puts(name.c_str());
    return 0;
  }
  const auto found = tests().find(argv[1]);
  if (found == tests().end()) {
    std::fprintf(stderr, "no test %s\n", argv[1]);
    return 2;
  }
  try {
    found->second();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace harness
