# A singleton in an imported package keeps every message for a replay.
import os, sys, tempfile
folder = tempfile.mkdtemp()
os.mkdir(os.path.join(folder, 'shop'))
with open(os.path.join(folder, 'shop', '__init__.py'), 'w') as file:
    file.write('from shop.bus import BUS\n')
with open(os.path.join(folder, 'shop', 'bus.py'), 'w') as file:
    file.write('''
class Message:
    def __init__(self, topic, body):
        self.topic, self.body = topic, body
class EventBus:
    _instance = None
    def __init__(self):
        self.replay = []
    @classmethod
    def get(cls):
        cls._instance = cls._instance or cls()
        return cls._instance
    def publish(self, topic, body):
        self.replay.append(Message(topic, body))
BUS = EventBus.get()
''')
sys.path.insert(0, folder)
import shop
for n in range(3000):
    shop.BUS.publish('order.created', {'order': n, 'total': n * 1.25})
