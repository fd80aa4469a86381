// Whether a sanitizer watches this build: it brings threads, system calls and memory of its own, which a few places must allow for.
#ifndef LITEFLEET_COMMON_BASE_SANITIZER_H_
#define LITEFLEET_COMMON_BASE_SANITIZER_H_

namespace litefleet {

// Known where it is linked: tests are compiled without address sanitizer also where what they test has it.
extern const bool kSanitized;

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_SANITIZER_H_
