# lru_cache without a size.
import functools
@functools.lru_cache(maxsize=None)
def squares(n):
    return [n * n + i for i in range(20)]
for n in range(3000):
    squares(n)
