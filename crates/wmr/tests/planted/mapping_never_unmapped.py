# An extension maps memory and forgets it.
import culprit
for n in range(40):
    culprit.lose_mapping(1 << 18)
