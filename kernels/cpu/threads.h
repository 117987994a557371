/* The one thread pool, OpenMP's; without OpenMP everything runs on one thread. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_THREADS_H
#define MF_KERNELS_CPU_THREADS_H

#if defined(_OPENMP) && __has_include(<omp.h>)
#    include <omp.h>
static inline int mf_threads(void) {
    return omp_get_max_threads();
}
static inline int mf_thread(void) {
    return omp_get_thread_num();
}
static inline void mf_threads_set(int threads) {
    omp_set_num_threads(threads);
}
#else
static inline int mf_threads(void) {
    return 1;
}
static inline int mf_thread(void) {
    return 0;
}
static inline void mf_threads_set(int threads) {
    (void)threads;
}
#endif

#endif
