"""Rows so short that what is done once a row takes longer than the row itself: several are in flight, stage by stage.

The Numba side of ``src_pyx/rows/short_rows.pxi``, operation for operation. Bit for bit what ``rows`` makes of the same
rows one by one; a row that is not ordinary goes there.
"""

from collections import namedtuple

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    at,
    element,
    elements,
    fused,
    held_totals,
    hold,
    lane_count,
    load,
    load_partial,
    magnitude,
    maximum,
    one_for_zero,
    pointer,
    prefetch,
    rounded_lanes,
    set_element,
    set_elements,
    splat,
    square_root,
    stack,
)
from fastnorm.backends.numba.moments import (
    MAGNITUDES,
    SQUARES,
    VARIANCE,
    are_applied,
    below_one,
    is_far,
    out_of_range,
)
from fastnorm.backends.numba.rows import (
    apply_positions_within,
    apply_scalar_within,
    head,
    moments_rows,
    normalize_rows,
)

ROWS = 16  # in flight: a float64 each makes a bundle
SHORT = 8  # bundles: with longer rows, x and y of those in flight leave L1
# Scratch memory of a flight, in bundles: two halves held and five numbers for each row; seven float64 for each row.
STORED = ROWS + 5
DOUBLES = 7

# The numbers of the rows in flight, an element each; the names are those of the struct in short_rows.pxi.
Flight = namedtuple("Flight", "held_e held_q shift centre scale scale_rest addend e q weight bias lo m2 rstd")


@helper
def flight(stored, doubles):
    """Scratch memory in the storage type and in float64, parted among the numbers of the rows in flight."""
    held, bundle = ROWS // 2 * lane_count(stored), lane_count(stored)
    rest = at(stored, 2 * held)
    f = Flight(
        stored, at(stored, held),
        rest, at(rest, bundle), at(rest, 2 * bundle), at(rest, 3 * bundle), at(rest, 4 * bundle),
        doubles, at(doubles, ROWS), at(doubles, 2 * ROWS), at(doubles, 3 * ROWS), at(doubles, 4 * ROWS),
        at(doubles, 5 * ROWS), at(doubles, 6 * ROWS),
    )  # fmt: skip
    # The algebra runs over all rows, whether in flight or not.
    for k in range(ROWS):
        hold(f.held_e, k, splat(stored, 0.0))
        hold(f.held_q, k, splat(stored, 0.0))
    set_elements(f.shift, 0, splat(doubles, 0.0))
    set_elements(f.e, 0, splat(doubles, 0.0))
    set_elements(f.q, 0, splat(doubles, 0.0))
    set_elements(f.weight, 0, splat(doubles, 1.0))
    set_elements(f.bias, 0, splat(doubles, 0.0))
    return f


@helper
def stage_sums(x, stride, n, measure, start, count, f):
    """The sums of the rows in flight, as head_mean and deviation_sums make them of a row that is one run."""
    step = lane_count(x)
    whole = n - n % step
    if measure == VARIANCE:
        for k in range(count):
            hold(f.held_e, k, head(at(x, (start + k) * stride), n, False, 1.0))
        set_elements(f.shift, 0, held_totals(f.held_e) / splat(f.e, float(min(n, 2 * step))))
    for k in range(count):
        source = at(x, (start + k) * stride)
        centre = splat(x, element(f.shift, k))
        for j in range(0, n, step):  # the row that comes in this one's place
            prefetch(x, (start + count + k) * stride + j)
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j in range(0, whole, step):
            d = load(source, j) - centre
            e = e + d
            q = q + magnitude(d) if measure == MAGNITUDES else fused(d, d, q)
        if whole < n:
            d = load_partial(source, whole, n - whole, element(f.shift, k)) - centre
            e = e + d
            q = q + magnitude(d) if measure == MAGNITUDES else fused(d, d, q)
        if measure == VARIANCE:
            hold(f.held_e, k, e)
        hold(f.held_q, k, q)
    if measure == VARIANCE:
        set_elements(f.e, 0, held_totals(f.held_e))
    set_elements(f.q, 0, held_totals(f.held_q))


@helper
def is_near(x, e, q, n, measure):
    """Whether the sums of a row need neither a second pass nor more than the storage type's range."""
    near = measure != VARIANCE or not is_far(e, q, n)
    single = (measure == VARIANCE) & (n == 1.0) & (q == 0.0)  # 0 is right there, not an underflow
    return single | (near & (not out_of_range(x, q, measure)))


@helper
def algebra(x, f, n, measure, divisor, eps, floor):
    """From sums to moments, rstd and coefficients, as absorb_block, inverse and coefficients do it.

    All ROWS at once, in bundles of float64, whether they are in flight or not.
    """
    lo, m2 = splat(f.e, 0.0), elements(f.q, 0)
    if measure == VARIANCE:
        e = elements(f.e, 0)
        lo = e / splat(f.e, n)
        m2 = m2 - e * lo
    set_elements(f.lo, 0, lo)
    set_elements(f.m2, 0, m2)
    denominator = m2 / splat(f.e, divisor)
    if floor:
        if measure != MAGNITUDES:
            denominator = square_root(denominator)
        denominator = maximum(splat(f.e, eps), denominator)
    else:
        denominator = square_root(denominator + splat(f.e, eps))
    rstd = splat(f.e, 1.0) / one_for_zero(denominator)
    scale, shift = rstd * elements(f.weight, 0), elements(f.shift, 0)
    centre = rounded_lanes(x, shift + lo)
    set_elements(f.rstd, 0, rstd)
    set_elements(f.centre, 0, centre)
    first_part = rounded_lanes(x, scale * splat(f.e, below_one(x)))
    set_elements(f.scale, 0, first_part)
    set_elements(f.scale_rest, 0, scale - first_part)
    set_elements(f.addend, 0, elements(f.bias, 0) - ((shift - centre) + lo) * scale)


@helper
def is_ordinary(x, f, k, n, measure):
    rstd = element(f.rstd, k)
    return is_near(x, element(f.e, k), element(f.q, k), n, measure) & are_applied(x, rstd, rstd * element(f.weight, k))


@helper
def fly(x, y, weight, bias, per_position, measure, divisor, eps, floor, mean, m2, start, stop):
    n, x_stride, y_stride = x.shape[1], x.strides[0] // x.itemsize, y.strides[0] // y.itemsize
    x_base, y_base, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    mean_out, m2_out = pointer(mean), pointer(m2)
    parameters = weight.size
    f = flight(stack(x_base, STORED), stack(mean_out, DOUBLES))
    for o in range(start, stop, ROWS):
        count = min(ROWS, stop - o)
        stage_sums(x_base, x_stride, n, measure, o, count, f)
        if not per_position:
            for k in range(count):
                set_element(f.weight, k, element(w, (o + k) % parameters))
                set_element(f.bias, k, element(b, (o + k) % parameters))
        algebra(x_base, f, float(n), measure, divisor, eps, floor)
        ordinary = 0
        for k in range(count):
            ordinary += is_ordinary(x_base, f, k, float(n), measure)
        for k in range(count):
            if ordinary < count and not is_ordinary(x_base, f, k, float(n), measure):
                normalize_rows(
                    x, y, weight, bias, per_position, 1, measure, divisor, eps, floor, mean, m2, o + k, o + k + 1
                )
                continue
            source, target = at(x_base, (o + k) * x_stride), at(y_base, (o + k) * y_stride)
            c = element(f.centre, k), element(f.scale, k), element(f.scale_rest, k), element(f.addend, k)
            if per_position:
                apply_positions_within(source, target, n, c, w, b)
            else:
                apply_scalar_within(source, target, n, c)
            if mean.size > 0:
                set_element(mean_out, o + k, element(f.shift, k) + element(f.lo, k))
                set_element(m2_out, o + k, element(f.m2, k))


@kernel
def normalize_short_rows(x, y, weight, bias, per_position, measure, divisor, eps, floor, mean, m2, start, stop):
    """Statistics and result of the lines `start` to `stop`; as normalize_rows with one segment."""
    # Once for each measure, so that loops need not ask.
    if measure == VARIANCE:
        fly(x, y, weight, bias, per_position, VARIANCE, divisor, eps, floor, mean, m2, start, stop)
    elif measure == SQUARES:
        fly(x, y, weight, bias, per_position, SQUARES, divisor, eps, floor, mean, m2, start, stop)
    else:
        fly(x, y, weight, bias, per_position, MAGNITUDES, divisor, eps, floor, mean, m2, start, stop)


@helper
def fly_moments(x, measure, hi, lo, m2, start, stop):
    n, stride = x.shape[1], x.strides[0] // x.itemsize
    base, hi_out, lo_out, m2_out = pointer(x), pointer(hi), pointer(lo), pointer(m2)
    f = flight(stack(base, STORED), stack(hi_out, DOUBLES))
    for o in range(start, stop, ROWS):
        count = min(ROWS, stop - o)
        stage_sums(base, stride, n, measure, o, count, f)
        for k in range(count):
            e, q = element(f.e, k), element(f.q, k)
            set_element(hi_out, o + k, element(f.shift, k) if measure == VARIANCE else 0.0)
            set_element(lo_out, o + k, e / n if measure == VARIANCE else 0.0)
            set_element(m2_out, o + k, q - e * (e / n) if measure == VARIANCE else q)
        for k in range(count):
            if not is_near(base, element(f.e, k), element(f.q, k), float(n), measure):
                moments_rows(x, measure, hi, lo, m2, o + k, o + k + 1)


@kernel
def moments_short_rows(x, measure, hi, lo, m2, start, stop):
    """The moments of the lines `start` to `stop`, each of a single chunk; as moments_rows."""
    if measure == VARIANCE:
        fly_moments(x, VARIANCE, hi, lo, m2, start, stop)
    elif measure == SQUARES:
        fly_moments(x, SQUARES, hi, lo, m2, start, stop)
    else:
        fly_moments(x, MAGNITUDES, hi, lo, m2, start, stop)
