import culprit

for _ in range(500):
    culprit.lose_tree(None)
