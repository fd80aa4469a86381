// Whether a sanitizer watches this build: it brings threads, system calls and memory of its own, which a few places must allow for.
#ifndef LITEFLEET_COMMON_BASE_SANITIZER_H_
#define LITEFLEET_COMMON_BASE_SANITIZER_H_

namespace litefleet {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_SANITIZER_H_
