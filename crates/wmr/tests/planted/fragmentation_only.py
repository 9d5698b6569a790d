# A peak whose memory is pinned by the few objects that were made in the meantime.
import array
keep, peak = [], []
for n in range(400000):
    peak.append('temporary %09d' % n)
    if n % 4000 == 0:
        keep.append('what stays %d' % n)
for n in range(20000):
    peak.append(array.array('b', bytes(600)))
    if n % 1000 == 0:
        keep.append(array.array('b', bytes(600)))
del peak
