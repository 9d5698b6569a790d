# An extension allocates and forgets.
import culprit
for n in range(500):
    culprit.lose_block(1000)
