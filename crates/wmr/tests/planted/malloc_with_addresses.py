# An extension allocates what points at its own code, and forgets it.
import culprit
for n in range(500):
    culprit.lose_request()
