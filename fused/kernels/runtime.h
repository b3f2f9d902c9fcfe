// Settings of threads and memory that the ops make for the whole process; see fused/__init__.py.
#pragma once

#include <omp.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <thread>
#include <vector>

// OpenBLAS runs on OpenMP's threads, like these ops. With two pools of threads, one would wait for
// the other at every change from a product to an op, milliseconds at a time.
extern "C" {
typedef void (*blas_job)(int thread, void *data, int argument);
typedef void (*blas_jobs)(int wait, blas_job job, int jobs, size_t size, void *data, int argument);
void scipy_openblas_set_threads_callback_function(blas_jobs) __attribute__((weak));
}

namespace fused
{

inline void run_blas_jobs(int wait, blas_job job, int jobs, size_t size, void *data, int argument)
{
#pragma omp parallel num_threads(jobs)
    {
        const int thread = omp_get_thread_num();
        // Jobs wait for each other, so each needs a thread, even if OpenMP gives fewer.
        std::vector<std::thread> more;
        if (thread == 0)
            for (int i = omp_get_num_threads(); i < jobs; i++)
                more.emplace_back(job, i, (char *)data + i * size, argument);
        job(thread, (char *)data + thread * size, argument);
        for (auto &other : more)
            other.join();
    }
}

inline void settle_process()
{
    if (scipy_openblas_set_threads_callback_function)
        scipy_openblas_set_threads_callback_function(run_blas_jobs);
#ifdef __GLIBC__
    // The next step uses the large arrays of this step again, because new pages take longer than
    // most ops.
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 0x7fffffff);
#endif
}

} // namespace fused
