# Blocks that a thread allocated which has ended.
import culprit
for n in range(10):
    culprit.lose_in_thread(2000)
