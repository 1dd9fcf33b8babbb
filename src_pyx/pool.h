/* A pool of threads of our own: each has a share of the work units, and helps with the others' when it is done.
 *
 * A share is the same range in every call of the same size, so that arrays which fit in the cores' own caches stay
 * there from call to call.
 *
 * Why not OpenMP: its threads spin for milliseconds after a parallel region and take the cores from the BLAS that a
 * pipeline calls next, and they do not survive a fork. Here a thread that has nothing to do spins for SPIN_NANOSECONDS,
 * as long as the next call of a busy loop may take to come, and then sleeps; from YIELD_NANOSECONDS on it yields
 * between its looks, so that whoever has work, a BLAS thread say, goes first. After a fork the child starts afresh. If
 * another Python thread is using the pool, a call is served by its own thread alone.
 */
#ifndef FASTNORM_POOL_H
#define FASTNORM_POOL_H

#include <stddef.h>

typedef void (*pool_task)(void *work, ptrdiff_t start, ptrdiff_t stop);

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#if defined(__linux__)
#  include <string.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

enum {
    SPIN_NANOSECONDS = 100000,
    YIELD_NANOSECONDS = 10000,
    CHECKS_PER_CLOCK = 16,
    SEATS = 256,
    LINE = 64
};

typedef struct {
    _Alignas(LINE) atomic_ptrdiff_t next; /* the first unit that nobody has taken */
    ptrdiff_t end;
} pool_share;

static struct {
    pthread_mutex_t callers; /* held during a call: one at a time */
    pthread_mutex_t sleepers;
    pthread_cond_t wake;
    int registered; /* whether pool_after_fork is */
    int size;       /* workers started */
    /* The call in progress, as number * SEATS + seats: workers 0 .. seats - 1 may take part, none when it is over.
     * One word, so that no worker takes the seats of one call for those of another. */
    atomic_uint call;
    atomic_int seated; /* workers that are taking part */
    pool_task task;
    void *work;
    ptrdiff_t step;
    int sharing;               /* threads that have a share: the caller the first, worker k number k + 1 */
    pool_share shares[SEATS];
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

static inline void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline long long pool_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int pool_moves = 1; /* whether threads are moved */

#if defined(__linux__)
/* The least time between two moves of a worker: on a busy machine the system may move it back. */
enum { MOVE_NANOSECONDS = 1000000 };

/* Where a worker was last seen. The kernel wakes a thread where it slept, though the caller may have come there since
 * and another processor be idle, and takes up to tens of milliseconds to part them. So the caller does. */
typedef struct {
    _Alignas(LINE) atomic_int cpu; /* -1: not known */
    atomic_int banned;             /* whether it may not run everywhere, until it has moved */
    pid_t thread;
    cpu_set_t allowed;             /* where it may again then */
    long long last_move;
} pool_place;

static pool_place pool_places[SEATS];

/* A worker says where it is, and may be anywhere again. */
static inline void pool_report(unsigned number) {
    pool_place *place = &pool_places[number];
    int cpu = sched_getcpu();
    if (atomic_load(&place->banned)) {
        sched_setaffinity(0, sizeof place->allowed, &place->allowed);
        atomic_store(&place->banned, 0);
    }
    if (atomic_load_explicit(&place->cpu, memory_order_relaxed) != cpu) atomic_store(&place->cpu, cpu);
}

/* Move a worker to an idle processor, if one is left beside those of `moved` others; return whether it moves. */
static int pool_move(pool_place *place, const cpu_set_t *taken, int moved) {
    cpu_set_t others;
    long long now = pool_nanoseconds();
    if (atomic_load(&place->banned) || now - place->last_move < MOVE_NANOSECONDS) return 0;
    place->last_move = now;
    if (sched_getaffinity(place->thread, sizeof place->allowed, &place->allowed)) return 0;
    CPU_AND(&others, &place->allowed, taken);
    CPU_XOR(&others, &place->allowed, &others);
    /* Of a thread that may run everywhere this is to hold when there are more processors, too. */
    if (CPU_COUNT(&place->allowed) == sysconf(_SC_NPROCESSORS_ONLN))
        memset(&place->allowed, 255, sizeof place->allowed);
    if (CPU_COUNT(&others) <= moved || sched_setaffinity(place->thread, sizeof others, &others)) return 0;
    atomic_store(&place->banned, 1);
    return 1;
}

/* Separate the workers from the caller, and from each other. */
static void pool_separate(int workers) {
    cpu_set_t met, taken;
    int cpu = sched_getcpu(), moved = 0;
    if (!pool_moves) return;
    CPU_ZERO(&taken);
    CPU_SET(cpu, &taken);
    met = taken;
    for (int k = 0; k < workers; k++) {
        cpu = atomic_load_explicit(&pool_places[k].cpu, memory_order_acquire);
        if (cpu >= 0) CPU_SET(cpu, &taken);
    }
    for (int k = 0; k < workers; k++) {
        cpu = atomic_load_explicit(&pool_places[k].cpu, memory_order_acquire);
        if (cpu < 0) continue;
        if (CPU_ISSET(cpu, &met)) moved += pool_move(&pool_places[k], &taken, moved);
        CPU_SET(cpu, &met);
    }
}

/* Before a worker is started, and by itself then. */
static void pool_expect(unsigned number) {
    atomic_store(&pool_places[number].cpu, -1);
    atomic_store(&pool_places[number].banned, 0);
}
static void pool_arrive(unsigned number) {
    pool_places[number].thread = (pid_t)syscall(SYS_gettid);
    pool_report(number);
}
#else
static inline void pool_report(unsigned number) { (void)number; }
static inline void pool_separate(int workers) { (void)workers; }
static inline void pool_expect(unsigned number) { (void)number; }
static inline void pool_arrive(unsigned number) { (void)number; }
#endif

/* Take units piece by piece, those of the own share first. */
static void pool_take_units(int own) {
    for (int k = 0; k < pool.sharing; k++) {
        pool_share *share = &pool.shares[(own + k) % pool.sharing];
        ptrdiff_t start;
        while ((start = atomic_fetch_add(&share->next, pool.step)) < share->end) {
            ptrdiff_t stop = start + pool.step;
            pool.task(pool.work, start, stop < share->end ? stop : share->end);
        }
    }
}

/* Have a worker wait for another call than `seen`; return that call's number. */
static unsigned pool_wait(unsigned number, unsigned seen) {
    long long now, start = pool_nanoseconds();
    do {
        for (int i = 0; i < CHECKS_PER_CLOCK; i++) {
            unsigned call = atomic_load_explicit(&pool.call, memory_order_acquire);
            if (call != seen) return call;
            pool_pause();
        }
        pool_report(number);
        now = pool_nanoseconds();
        if (now - start > YIELD_NANOSECONDS) sched_yield();
    } while (now - start < SPIN_NANOSECONDS);
    pthread_mutex_lock(&pool.sleepers);
    while (atomic_load(&pool.call) == seen) pthread_cond_wait(&pool.wake, &pool.sleepers);
    pthread_mutex_unlock(&pool.sleepers);
    return atomic_load(&pool.call);
}

static void *pool_worker(void *argument) {
    unsigned number = (unsigned)(ptrdiff_t)argument, seen = 0;
    pool_arrive(number);
    for (;;) {
        seen = pool_wait(number, seen);
        pool_report(number);
        if (number < seen % SEATS) {
            /* Sit down first, then look whether the call is still on: the caller ends it first, then looks who sits. */
            atomic_fetch_add(&pool.seated, 1);
            if (atomic_load(&pool.call) == seen) pool_take_units((int)number + 1);
            atomic_fetch_sub(&pool.seated, 1);
        }
    }
    return NULL;
}

static void pool_after_fork(void) {
    pthread_mutex_init(&pool.callers, NULL);
    pthread_mutex_init(&pool.sleepers, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.call, 0);
    atomic_store(&pool.seated, 0);
    pool.size = 0;
}

static void pool_grow(int size) {
    pthread_attr_t attributes;
    if (!pool.registered) {
        pthread_atfork(NULL, NULL, pool_after_fork);
        pool.registered = 1;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (pool.size < size && pool.size < SEATS - 1) {
        pthread_t thread;
        pool_expect((unsigned)pool.size);
        if (pthread_create(&thread, &attributes, pool_worker, (void *)(ptrdiff_t)pool.size)) break;
        pool.size++;
    }
    pthread_attr_destroy(&attributes);
}

/* Run task(work, start, stop) over all units with at most so many threads, the caller's among them. */
static void pool_run(pool_task task, void *work, ptrdiff_t units, int threads) {
    if (threads > units) threads = (int)units;
    if (threads < 2 || pthread_mutex_trylock(&pool.callers)) {
        task(work, 0, units);
        return;
    }
    pool_grow(threads - 1);
    int seats = threads - 1 < pool.size ? threads - 1 : pool.size;
    ptrdiff_t pieces = 4 * (ptrdiff_t)(seats + 1); /* so that nobody waits long for the slowest */
    ptrdiff_t taken = 0;
    unsigned number = atomic_load(&pool.call) / SEATS + 1;
    pool.task = task;
    pool.work = work;
    pool.step = (units + pieces - 1) / pieces;
    pool.sharing = seats + 1;
    for (int k = 0; k < pool.sharing; k++) {
        atomic_store(&pool.shares[k].next, taken);
        pool.shares[k].end = taken = units * (k + 1) / pool.sharing;
    }
    pool_separate(seats);
    pthread_mutex_lock(&pool.sleepers);
    atomic_store(&pool.call, number * SEATS + (unsigned)seats);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleepers);
    pool_take_units(0);
    atomic_store(&pool.call, number * SEATS); /* a worker that wakes only now finds nothing to do */
    while (atomic_load(&pool.seated) > 0) pool_pause();
    pthread_mutex_unlock(&pool.callers);
}

#else /* no POSIX threads: the caller's thread does it all */

static void pool_run(pool_task task, void *work, ptrdiff_t units, int threads) {
    (void)threads;
    task(work, 0, units);
}

#endif
#endif
