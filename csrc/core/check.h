// Checks and error text. A wrong argument is std::invalid_argument (ValueError in Python) and says
// "[operator] what came, what was expected".
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace fastarch {

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// check(shape_ok, "conv2d", "x has ", c, " channels, weight expects ", expected)
template <class... Parts>
void check(bool ok, const char* op, const Parts&... parts) {
  if (!ok) throw std::invalid_argument(concat("[", op, "] ", parts...));
}

}  // namespace fastarch
