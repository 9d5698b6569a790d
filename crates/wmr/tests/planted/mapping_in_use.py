# An extension maps memory and uses it.
import culprit
for n in range(40):
    culprit.keep_mapping(1 << 18)
