# The textbook algorithms for mean and variance, element by element, as in fastnorm/backends/textbook.py: the same
# operations in the same order. float16 comes as float32, every result rounded to what float16 holds (`half`).

cdef extern from "vectors/half.h" nogil:
    float half_rounded(float x)

ctypedef fused real:
    float
    double

cdef enum Textbook:
    # In the order of ALGORITHMS.
    WELFORD
    TWO_PASS
    CORRECTED_TWO_PASS
    NAIVE
    SHIFTED
    PAIRWISE
    COMPENSATED


cdef struct Line:
    # One line: its weights, NULL if all are 1, its length, and the result.
    const void* weights
    Py_ssize_t n
    bint half
    double mean
    double m2


cdef inline real r(real value, bint half) noexcept nogil:
    """The value as the storage type holds it."""
    if real is float:
        if half:
            return half_rounded(value)
    return value


cdef inline real over(real value, double count, bint half) noexcept nogil:
    return r(value / <real> count, half)


cdef inline real weight_at(const real* like, const Line* line, Py_ssize_t i) noexcept nogil:
    return (<const real*> line.weights)[i] if line.weights else 1


cdef inline double total_weight(const real* like, const Line* line) noexcept nogil:
    cdef double sum = 0.0
    cdef Py_ssize_t i
    if not line.weights:
        return <double> line.n
    for i in range(line.n):
        sum += weight_at(like, line, i)
    return sum


cdef inline real power_sum(const real* x, const Line* line, real shift, int power) noexcept nogil:
    """The sum of w * (x - shift), or of w * (x - shift)^2, in order."""
    cdef bint half = line.half
    cdef real d, sum = 0
    cdef Py_ssize_t i
    for i in range(line.n):
        d = r(x[i] - shift, half)
        if power == 2:
            d = r(d * d, half)
        if line.weights:
            d = r(d * weight_at(x, line, i), half)
        sum = r(sum + d, half) if i else d
    return sum


cdef inline real compensated_sum(const real* x, const Line* line, real shift, int power) noexcept nogil:
    """As power_sum; what each addition loses is summed apart and added at the end (Neumaier 1974)."""
    cdef bint half = line.half
    cdef real d, after, lost, sum = 0, rest = 0
    cdef Py_ssize_t i
    for i in range(line.n):
        d = r(x[i] - shift, half)
        if power == 2:
            d = r(d * d, half)
        if line.weights:
            d = r(d * weight_at(x, line, i), half)
        if i == 0:
            sum = d
            continue
        after = r(sum + d, half)
        if (sum if sum >= 0 else -sum) >= (d if d >= 0 else -d):
            lost = r(r(sum - after, half) + d, half)
        else:
            lost = r(r(d - after, half) + sum, half)
        rest = r(rest + lost, half) if i > 1 else lost
        sum = after
    return r(sum + rest, half)


cdef inline void welford(const real* x, Line* line) noexcept nogil:
    cdef bint half = line.half
    cdef double count = 0.0
    cdef real w, delta, weighted, mean = 0, m2 = 0
    cdef Py_ssize_t i
    for i in range(line.n):
        w = weight_at(x, line, i)
        count += w
        delta = r(x[i] - mean, half)
        weighted = r(w * delta, half)
        mean = r(mean + over(delta, (count if count != 0.0 else 1.0) / w, half), half)
        m2 = r(m2 + r(weighted * r(x[i] - mean, half), half), half)
    line.mean, line.m2 = mean, m2


cdef inline void two_pass(const real* x, Line* line) noexcept nogil:
    cdef real mean = over(power_sum(x, line, 0, 1), total_weight(x, line), line.half)
    line.mean, line.m2 = mean, power_sum(x, line, mean, 2)


cdef inline void corrected_two_pass(const real* x, Line* line) noexcept nogil:
    cdef bint half = line.half
    cdef double total = total_weight(x, line)
    cdef real mean = over(power_sum(x, line, 0, 1), total, half)
    cdef real rest = power_sum(x, line, mean, 1)
    cdef real share = over(rest, total, half)
    line.mean, line.m2 = r(mean + share, half), r(power_sum(x, line, mean, 2) - r(rest * share, half), half)


cdef inline void naive(const real* x, Line* line, real shift) noexcept nogil:
    cdef bint half = line.half
    cdef real first = power_sum(x, line, shift, 1)
    cdef real mean = over(first, total_weight(x, line), half)
    line.mean, line.m2 = r(mean + shift, half), r(power_sum(x, line, shift, 2) - r(first * mean, half), half)


cdef inline void shifted(const real* x, Line* line) noexcept nogil:
    cdef Py_ssize_t i = 0
    if line.weights:
        while i < line.n and weight_at(x, line, i) == 0:
            i += 1
    naive(x, line, x[i if i < line.n else 0])


cdef inline void pairwise(const real* x, Line* line) noexcept nogil:
    """Parts of 2^k elements wait on a stack for a neighbour of their length."""
    cdef bint half = line.half
    cdef double counts[64]
    cdef real means[64]
    cdef real squares[64]
    cdef real delta, share, product
    cdef double left, right, joined
    cdef Py_ssize_t i, pairs, top = 0
    for i in range(line.n + 1):
        if i < line.n:
            counts[top], means[top], squares[top] = weight_at(x, line, i), x[i], 0
            top += 1
            pairs = i + 1       # as many joins as this has trailing zero bits
        else:
            pairs = 0           # the end: what still waits is joined from the right
        while top > 1 and (pairs & 1) == 0:
            pairs >>= 1
            top -= 1
            left, right = counts[top - 1], counts[top]
            joined = left + right if left + right != 0.0 else 1.0
            delta = r(means[top] - means[top - 1], half)
            share = r(<real> (right / joined), half)
            product = r(<real> (left * right / joined), half)
            counts[top - 1] = left + right
            means[top - 1] = r(means[top - 1] + r(delta * share, half), half)
            squares[top - 1] = r(
                r(squares[top - 1] + squares[top], half) + r(r(delta * delta, half) * product, half), half
            )
    line.mean, line.m2 = means[0], squares[0]


cdef inline void compensated(const real* x, Line* line) noexcept nogil:
    cdef real mean = over(compensated_sum(x, line, 0, 1), total_weight(x, line), line.half)
    line.mean, line.m2 = mean, compensated_sum(x, line, mean, 2)


cdef void textbook_lines(
    const real* x, const real* weights, Py_ssize_t lines, Py_ssize_t n, Textbook algorithm, bint half,
    double* mean, double* m2
) noexcept nogil:
    cdef Py_ssize_t o
    cdef Line line
    for o in range(lines):
        line = Line(NULL, n, half, 0.0, 0.0)
        if weights:
            line.weights = weights + o * n
        if algorithm == WELFORD:
            welford(x + o * n, &line)
        elif algorithm == TWO_PASS:
            two_pass(x + o * n, &line)
        elif algorithm == CORRECTED_TWO_PASS:
            corrected_two_pass(x + o * n, &line)
        elif algorithm == NAIVE:
            naive(x + o * n, &line, 0)
        elif algorithm == SHIFTED:
            shifted(x + o * n, &line)
        elif algorithm == PAIRWISE:
            pairwise(x + o * n, &line)
        else:
            compensated(x + o * n, &line)
        mean[o], m2[o] = line.mean, line.m2


def textbook(cnp.ndarray x, cnp.ndarray weights, Textbook algorithm, bint half, cnp.ndarray mean, cnp.ndarray m2):
    """Mean and m2, (lines,) float64, of the lines of a contiguous (lines, n) array, by an algorithm's number."""
    cdef Py_ssize_t lines = shape_of(x)[0], n = shape_of(x)[1]
    cdef void* source = data_of(x)
    cdef void* weight = data_of(weights)
    cdef double* means = <double*> data_of(mean)
    cdef double* squares = <double*> data_of(m2)
    cdef bint single = type_of(x) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            textbook_lines(<const float*> source, <const float*> weight, lines, n, algorithm, half, means, squares)
        else:
            textbook_lines(<const double*> source, <const double*> weight, lines, n, algorithm, half, means, squares)
