# Objects of a heap type that end without giving back their type.
import culprit
for n in range(500):
    culprit.Sticky()
