// What gemm/tune.h has found out, and who wants it to: kept for the whole process, by device and problem.
#include <cxxabi.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>

#include "gemm/tune.h"

namespace fastarch::cuda {
namespace {

std::atomic<bool> by_default = false;
thread_local int wanted = -1;
thread_local PlanChoice forced;

struct Book {
  std::mutex guard;
  std::map<std::pair<std::string, std::string>, Tuning> entries;
  std::function<void(const Tuning&)> notify;
};

Book& book() {
  static auto* const instance = new Book;  // never destroyed: threads may outlive main()
  return *instance;
}

template <size_t N>
void destroy_events(const std::array<cudaEvent_t, N>& events) {
  for (const cudaEvent_t event : events)
    if (event) static_cast<void>(cudaEventDestroy(event));
}

}  // namespace

void set_autotune_default(bool on) { by_default = on; }
void set_autotune(int on) { wanted = on; }
bool autotune() { return wanted < 0 ? by_default.load() : wanted > 0; }

void force_plan(const PlanChoice& plan) { forced = plan; }
const PlanChoice* forced_plan() { return forced.tile.empty() ? nullptr : &forced; }

void remember_plan(Tuning tuning) {
  const std::lock_guard lock(book().guard);
  book().entries.try_emplace({tuning.device, tuning.problem}, std::move(tuning));
}

void forget_plans() {
  const std::lock_guard lock(book().guard);
  book().entries.clear();
}

std::vector<Tuning> tunings() {
  const std::lock_guard lock(book().guard);
  std::vector<Tuning> all;
  for (const auto& [key, tuning] : book().entries) all.push_back(tuning);
  return all;
}

void on_tuned(std::function<void(const Tuning&)> body) {
  const std::lock_guard lock(book().guard);
  book().notify = std::move(body);
}

std::optional<PlanChoice> known_plan(const std::string& device, const std::string& problem) {
  const std::lock_guard lock(book().guard);
  const auto found = book().entries.find({device, problem});
  if (found == book().entries.end()) return std::nullopt;
  return found->second.chosen;
}

std::unique_lock<std::mutex> wait_for_turn() {
  static std::mutex turns;
  return std::unique_lock(turns);
}

void keep_tuning(Tuning tuning, std::unique_lock<std::mutex> turn) {
  std::function<void(const Tuning&)> notify;
  {
    const std::lock_guard lock(book().guard);
    notify = book().notify;
    book().entries.insert_or_assign({tuning.device, tuning.problem}, tuning);
  }
  turn.unlock();
  if (notify) notify(tuning);
}

std::string type_text(const std::type_info& type) {
  int status = 0;
  char* const demangled = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string full = status == 0 ? demangled : type.name(), text;
  std::free(demangled);
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t at; (at = full.find(anonymous)) != std::string::npos;) full.erase(at, anonymous.size());
  for (size_t i = 0; i < full.size(); ++i) {  // whatever stands before a :: was the name of a namespace
    if (full.compare(i, 2, "::") == 0) {
      text.erase(text.find_last_of("<, ") + 1);
      ++i;
    } else {
      text += full[i];
    }
  }
  return text;
}

std::string device_text() {
  static std::mutex guard;
  static std::map<int, std::string> names;  // asking for properties takes long
  int device = 0, driver = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  const std::lock_guard lock(guard);
  std::string& name = names[device];
  if (name.empty()) {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    name = properties.name;
  }
  return concat(name, ", compute capability ", device_attribute(cudaDevAttrComputeCapabilityMajor), ".",
                device_attribute(cudaDevAttrComputeCapabilityMinor), ", ", multiprocessors(),
                " multiprocessors, driver ", driver, ", runtime ", CUDART_VERSION);
}

bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
#ifndef FASTARCH_EMULATOR
  if (error == cudaErrorStreamCaptureImplicit) {  // the default stream would wait for one that is captured
    static_cast<void>(cudaGetLastError());
    return true;
  }
#endif
  check_cuda(error, "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

StreamTimer::StreamTimer(Stream stream) : stream_(stream) {
  check_cuda(cudaThreadExchangeStreamCaptureMode(&mode_), "cudaThreadExchangeStreamCaptureMode");
  try {
    for (cudaEvent_t& event : events_) check_cuda(cudaEventCreate(&event), "cudaEventCreate");
  } catch (...) {  // what is half made has no destructor
    destroy_events(events_);
    static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_));
    throw;
  }
}

StreamTimer::~StreamTimer() {
  destroy_events(events_);
  static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_));
}

void StreamTimer::mark(int i) {
  check_cuda(cudaEventRecord(events_[static_cast<size_t>(i)], static_cast<cudaStream_t>(stream_)),
             "cudaEventRecord");
}

double StreamTimer::median() {
  check_cuda(cudaEventSynchronize(events_[kRuns]), "cudaEventSynchronize");
  std::array<float, kRuns> times;
  for (size_t i = 0; i < kRuns; ++i)
    check_cuda(cudaEventElapsedTime(&times[i], events_[i], events_[i + 1]), "cudaEventElapsedTime");
  std::sort(times.begin(), times.end());
  return 1000.0 * times[kRuns / 2];
}

}  // namespace fastarch::cuda
