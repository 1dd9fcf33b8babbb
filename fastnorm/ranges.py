"""Where arithmetic leaves the range of its type: the limits that Python, Cython and Numba share."""

# Float32. Outside of these a sum of squares has overflowed, or has lost digits to underflow; with elements that are
# multiplied by RESCALE, or divided, it is made again.
SMALLEST_SQUARES = 2.0**-90
LARGEST_SQUARES = 3.4028234663852886e38
RESCALE = 2.0**100

# Float32. Outside of these a rstd or scale comes too near the ends of the range, or a deviation does: one of a line of
# n elements is at most sqrt(n) / rstd.
SMALLEST_RSTD = 2.0**-108
LARGEST_RSTD = 2.0**120

# Float32. From a centre that was given, and is larger, x may be further than the type holds.
LARGEST_CENTRE = 2.0**102

# Float32, backward. Outside of these rstd, and of their squares the coefficients of dx, sums of products would leave
# the range.
SMALLEST_SLOPED = 2.0**-50
LARGEST_SLOPED = 2.0**50

# Float64. Between these no square that matters has left the range, and no sum of squares.
SMALLEST_SUM = 2.0**-960
LARGEST_SUM = 2.0**1020
# What x is multiplied by, if smaller, has lost digits, or soon has.
SMALLEST_FACTOR = 2.0**-1000

# Float64. A deviation of so much of the mean may be what the mean of elements that count unequally was rounded by.
ROUNDING = 2.0**-44

# What pixels may be divided by, in float32.
SMALLEST_MAX, LARGEST_MAX = 1e-37, 1e38
