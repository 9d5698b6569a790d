# A list that was meant to be each instance's, and is the class's.
class Order:
    items = []
    def add(self, name):
        self.items.append({'name': name, 'price': len(name) * 1.5})
for n in range(4000):
    Order().add('article %d' % n)
