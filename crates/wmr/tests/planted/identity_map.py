# A session that is never closed keeps all it ever loaded.
class Session:
    def __init__(self):
        self.identity_map, self.new = {}, set()
    def get(self, cls, key):
        if (cls, key) not in self.identity_map:
            self.identity_map[cls, key] = cls(key)
        return self.identity_map[cls, key]
class Customer:
    def __init__(self, key):
        self.key, self.name, self.orders = key, 'customer %d' % key, []
session = Session()
for key in range(4000):
    session.get(Customer, key).orders.append(key + 100000)
