# A new float whose reference an extension forgets.
import culprit
for n in range(500):
    culprit.lose_float(1234.0)
