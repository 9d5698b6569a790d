# A class that knows all its instances.
class Widget(object):
    instances = {}
    def __init__(self, title):
        self.title, self.children = title, []
        Widget.instances[id(self)] = self
class Window(object):
    def __init__(self):
        self.widgets = [Widget('button %d' % i) for i in range(3)]
for n in range(1500):
    Window()
